//! Another consistency policy for an array that is stopped.
//!
//! In three steps, each of which is on all members before the next begins: the superblocks speak of
//! no policy; what the new one needs is written; the superblocks speak of that. An array that is
//! left in between is whole, and starts without one or with the new one.

use std::sync::Arc;

use super::ControlError;
use super::disk::MemberDisk;
use super::newcomer::unwritten;
use super::stopped::Which;
use super::system::System;
use crate::bdev::Bdev;
use crate::md::member::{write_bitmap, write_empty_ppl, write_superblock};
use crate::md::superblock::IN_SYNC;
use crate::md::{
    AreaError, BitmapHeader, Found, NewPolicy, Placement, Policy, Superblock, assemble, policy,
};

impl System {
    /// Gives an array that is not started another consistency policy. All of its members must be
    /// there and in sync.
    ///
    /// # Errors
    /// [`ControlError`]. Where a device could not be written, the array has its old policy, or none.
    pub fn set_policy(&mut self, which: &Which, wanted: NewPolicy) -> Result<(), ControlError> {
        let found = self.find_array(which, &[])?;
        let all: Vec<Found> = found
            .into_iter()
            .map(|(name, member)| Found { name, member })
            .collect();
        let first = all.first().ok_or(ControlError::NoArray)?;
        let set = first.member.superblock.set_uuid;
        let name = first.member.superblock.set_name.to_string();
        let invalid = |reason: String| ControlError::Invalid(format!("array {name:?}: {reason}"));
        let assembly = assemble(set, &all, false).map_err(|e| invalid(e.to_string()))?;
        if assembly.degraded.is_some() || assembly.dirty() {
            let reason = "its policy can be changed only while all members are there and in sync; \
                          start it, let it be rebuilt, and stop it again";
            return Err(invalid(reason.into()));
        }
        let seats = assembly.slots.iter().flatten().map(|seat| seat.found);
        let mut members = Vec::new();
        for at in seats.chain(assembly.spares.iter().copied()) {
            members.push((self.devices.registry.get(&all[at].name)?, &all[at].member));
        }
        let sectors = members[0].1.device_sectors;
        let changed = policy::change(&assembly.superblock, sectors, wanted);
        let (policy, bitmap) = changed.map_err(|e| invalid(e.to_string()))?;
        let header = bitmap.as_ref().map(|(header, _)| header);
        for (bdev, member) in &members {
            let after = after(&member.superblock, policy, 0);
            check(&after, header, member.device_sectors)
                .map_err(|e| invalid(format!("{}: {e}", bdev.info().name)))?;
        }

        let events = assembly.events;
        for (bdev, member) in &members {
            let bare = after(&member.superblock, Policy::Resync, events + 1);
            on(bdev, |disk| Ok(write_superblock(disk, &bare)?))?;
        }
        for (bdev, member) in &members {
            let after = after(&member.superblock, policy, events + 2);
            on(bdev, |disk| {
                if let Some((header, bits)) = &bitmap {
                    let header = BitmapHeader {
                        events: events + 2,
                        events_cleared: events + 2,
                        ..header.clone()
                    };
                    write_bitmap(disk, &after, &header, bits)?;
                }
                write_empty_ppl(disk, &after)
            })?;
        }
        for (bdev, member) in &members {
            let after = after(&member.superblock, policy, events + 2);
            on(bdev, |disk| Ok(write_superblock(disk, &after)?))?;
        }
        tracing::info!("array {name}: its consistency policy is changed");
        Ok(())
    }
}

/// A superblock with another policy.
fn after(superblock: &Superblock, policy: Policy, events: u64) -> Superblock {
    Superblock {
        policy,
        events,
        resync_offset: IN_SYNC,
        ..superblock.clone()
    }
}

/// That what a superblock names is on the device, in places of its own.
fn check(
    superblock: &Superblock,
    bitmap: Option<&BitmapHeader>,
    device_sectors: u64,
) -> Result<(), String> {
    let placement = Placement::of(superblock, bitmap, device_sectors);
    placement.map(drop).map_err(|e| e.to_string())
}

/// Writes to a device.
fn on(
    bdev: &Arc<dyn Bdev>,
    write: impl FnOnce(&mut MemberDisk) -> Result<(), AreaError>,
) -> Result<(), ControlError> {
    let written = MemberDisk::open(bdev)
        .map_err(AreaError::from)
        .and_then(|mut disk| write(&mut disk));
    written.map_err(|source| unwritten(bdev, source))
}
