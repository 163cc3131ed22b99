//! Replacing a member that still works: the new one becomes its mirror, row by row, and then takes
//! its place. At no time is there less redundancy than before.
//!
//! The order at the end matters: first the superblocks say that the new member is in the slot, and
//! the old one is not; only then do writes stop going to the old one. The other way round, a crash
//! in between would bring back the old member without what it has missed.

use std::time::Instant;

use super::VolumeError;
use super::array::{Array, NewMember};
use super::process::Process;
use super::view::{Replacement, Work};
use crate::bdev::{Bdev, Status};

impl Array {
    /// The slot of the member that may be replaced.
    pub(super) fn may_replace(
        &self,
        member: &str,
        bdev: &dyn Bdev,
        metadata: Option<&NewMember>,
    ) -> Result<usize, VolumeError> {
        let members = self.geometry.members();
        let named = |s: &super::array::Slot| s.name.as_deref() == Some(member);
        let Some(slot) = self.slots[..members].iter().position(named) else {
            return Err(VolumeError::NoSuchMember(member.to_owned()));
        };
        if !self.view.online {
            return Err(VolumeError::Offline);
        }
        if self.is_changing() {
            return Err(VolumeError::Changing);
        }
        if let Some(process) = &self.process {
            return Err(VolumeError::Busy(process.status(self).kind));
        }
        if self.view.degraded.is_some() || self.view.unsynced.is_some() {
            return Err(VolumeError::NotWhole);
        }
        if members > 63 {
            return Err(VolumeError::NoPlace);
        }
        self.check_device(bdev, metadata)?;
        Ok(slot)
    }

    /// Every node has opened the new member.
    pub(super) fn begin_replacement(
        &mut self,
        slot: usize,
        metadata: Option<Box<NewMember>>,
        now: Instant,
    ) {
        let place = self.geometry.members();
        if let (Some(new), Some(kept)) = (metadata, &mut self.metadata) {
            kept.gain(place, slot, new.superblock, new.bad_blocks, false);
            self.gate = kept.wish();
        }
        let mut view = self.next_view();
        view.replacement = Some(Replacement {
            slot,
            copied: 0,
            window: 0,
        });
        view.bad = self.bad_ranges();
        self.publish(view);
        self.process = Some(Process::new(Work::Replace(slot), 0, now));
        self.show();
    }

    /// All is copied: has the superblocks say so.
    pub(super) fn end_copying(&mut self) {
        let Some(replacement) = self.view.replacement else {
            return;
        };
        match &mut self.metadata {
            Some(metadata) => metadata.hand_over(replacement.slot),
            None => self.promote(),
        }
    }

    /// Puts the new member into its slot.
    pub(super) fn promote(&mut self) {
        let Some(Replacement { slot, .. }) = self.view.replacement else {
            return;
        };
        let place = self.geometry.members();
        let name = |slot: usize| self.slots[slot].name.clone().unwrap_or_default();
        tracing::info!(old = name(slot), new = name(place), slot, "member replaced");
        if let Some(metadata) = &mut self.metadata {
            metadata.swap(slot, place);
        }
        self.slots.swap(slot, place);
        self.slots[place].name = None;
        let mut view = self.next_view();
        view.replacement = None;
        view.bays.swap(slot, place);
        view.bad = self.bad_ranges();
        self.publish(view);
    }

    /// Does without the new member: it has failed, or another one has.
    pub(super) fn cancel_replacement(&mut self, why: Option<Status>) {
        let Some(replacement) = self.view.replacement else {
            return;
        };
        let place = self.geometry.members();
        let name = self.slots[place].name.take().unwrap_or_default();
        match why {
            Some(why) => tracing::warn!(member = name, %why, "the replacement failed"),
            None => tracing::warn!(member = name, "the replacement is given up"),
        }
        self.process = None;
        if let Some(metadata) = &mut self.metadata {
            metadata.take_back(replacement.slot);
            metadata.lose(place);
            self.gate = metadata.wish();
        }
        let mut view = self.next_view();
        view.replacement = None;
        view.bad = self.bad_ranges();
        self.publish(view);
    }
}
