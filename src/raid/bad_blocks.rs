//! Blocks that a member is known not to hold: noted in its bad-block log before anybody relies on
//! that, and struck from it when they have been written again.

use std::sync::Arc;

use super::array::Array;
use super::geometry::Geometry;
use super::metadata::Stored;
use super::round::roles;
use super::shard::Shard;
use super::view::BadRange;
use crate::bdev::Status;
use crate::md::{BadBlocks, SECTOR, Superblock};

/// The bad ranges of one member's data. Its log counts from the start of the device.
fn ranges_of(slot: usize, superblock: &Superblock, bad: &BadBlocks) -> Vec<BadRange> {
    let start = superblock.data_offset;
    let end = start + superblock.size;
    let ranges = bad.within(start..end).map(|r| BadRange {
        slot,
        start: (r.start - start) * SECTOR,
        end: (r.end - start) * SECTOR,
    });
    ranges.collect()
}

/// The bad ranges of all members, as a view has them.
pub(super) fn of_all<'a>(
    members: impl Iterator<Item = (usize, &'a Superblock, &'a BadBlocks)>,
) -> Option<Arc<[BadRange]>> {
    let all: Vec<_> = members
        .flat_map(|(slot, s, bad)| ranges_of(slot, s, bad))
        .collect();
    (!all.is_empty()).then(|| all.into())
}

impl Stored {
    /// The bad ranges of all members, for the first view.
    pub fn bad_ranges(&self) -> Option<Arc<[BadRange]>> {
        let members = self.superblocks.iter().zip(&self.bad_blocks).enumerate();
        of_all(members.filter_map(|(slot, (s, bad))| Some((slot, s.as_ref()?, bad))))
    }
}

impl Array {
    /// A member can't store the stripe of this number: it is noted, or the member given up where
    /// there is no room for that.
    pub(super) fn note_bad(&mut self, slot: usize, stripe: u64) {
        let Some(metadata) = &mut self.metadata else {
            return self.lose(slot, Status::WriteFault);
        };
        let Some(member) = metadata.member(slot) else {
            return;
        };
        let sectors = sectors_of(&self.geometry, member, stripe);
        let mut bad = metadata.bad_blocks(slot).clone();
        match bad.insert(sectors) {
            Ok(true) => {
                let name = self.slots[slot].name.as_deref().unwrap_or_default();
                let offset = self.geometry.member_offset(stripe);
                tracing::warn!(
                    member = name,
                    offset,
                    "a block can't be stored: noted as bad"
                );
                metadata.set_bad_blocks(slot, bad);
                self.gate = metadata.wish();
                self.publish_bad();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "a bad block can't be noted");
                self.lose(slot, Status::WriteFault);
            }
        }
    }

    /// A member holds again what it should of the stripe of this number.
    pub(super) fn note_good(&mut self, slot: usize, stripe: u64) {
        let Some(metadata) = &mut self.metadata else {
            return;
        };
        let Some(member) = metadata.member(slot) else {
            return;
        };
        let sectors = sectors_of(&self.geometry, member, stripe);
        let mut bad = metadata.bad_blocks(slot).clone();
        match bad.remove(sectors) {
            Ok(true) => {
                metadata.set_bad_blocks(slot, bad);
                // The log may say so once the new bytes are on the member for good.
                metadata.checkpoint();
                self.gate = metadata.wish();
                self.publish_bad();
            }
            Ok(false) => {}
            Err(error) => {
                // There is no room for what is left of a range.
                tracing::error!(%error, "a bad block can't be struck from its log");
                self.lose(slot, Status::WriteFault);
            }
        }
    }

    /// The bad ranges of all members, as they are now.
    pub(super) fn bad_ranges(&self) -> Option<Arc<[BadRange]>> {
        let metadata = self.metadata.as_ref()?;
        let member = |slot| Some((slot, metadata.member(slot)?, metadata.bad_blocks(slot)));
        of_all((0..self.slots.len()).filter_map(member))
    }

    /// The same view, with what is bad now. A window under way is begun again under it.
    fn publish_bad(&mut self) {
        let mut view = self.next_view();
        view.bad = self.bad_ranges();
        view.window = self.view.window;
        self.publish(view);
        self.reopen_window();
    }
}

/// The sectors of a member, from the start of the device, that hold its part of a stripe.
fn sectors_of(geometry: &Geometry, member: &Superblock, stripe: u64) -> std::ops::Range<u64> {
    let start = member.data_offset + geometry.member_offset(stripe) / SECTOR;
    start..start + u64::from(geometry.stripe_bytes()) / SECTOR
}

impl Shard {
    /// Whether some of what a round has stored is still said to be lost. It must not be
    /// acknowledged before that is struck from the log: after a restart nobody would give it out.
    pub(super) fn clears(&mut self, at: u32) -> bool {
        if self.view.bad.is_none() && self.settled.bad.is_none() {
            return false;
        }
        let stripe = &self.cache[at];
        let (number, row) = (stripe.number, stripe.row);
        let start = self.geometry.member_offset(number);
        let end = start + u64::from(self.geometry.stripe_bytes());
        let mut waits = false;
        for role in roles(stripe.dirty | stripe.heal) {
            let slot = self.geometry.member(row, role);
            let bay = self.view.bay(slot);
            if stripe.unwritten & (1 << bay) != 0 || !self.view.writable(slot, row) {
                continue;
            }
            let is_bad = self.view.is_bad(slot, start, end);
            if is_bad {
                self.out.news.good.push((bay, number));
            }
            waits |= is_bad || self.settled.is_bad(slot, start, end);
        }
        waits
    }
}
