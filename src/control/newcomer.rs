//! Devices that join an array which is started: what they hold, and what is written to them first.

use std::sync::Arc;

use uuid::Uuid;

use super::ControlError;
use super::devices::Devices;
use super::disk::MemberDisk;
use super::kept::{Kept, Spare};
use crate::bdev::Bdev;
use crate::md::member::{write_bad_blocks, write_empty_ppl, write_superblock, zero_superblock};
use crate::md::{
    AreaError, BadBlocks, BitmapHeader, Disk, Features, Member, MemberError, NewDevice, Role,
    SECTOR, Superblock, free_number, join,
};
use crate::raid::{NewMember, Status, VolumeError};

/// What a device holds of the array `set`. What it holds of another is in the way unless `force`.
///
/// # Errors
/// [`ControlError::Holds`], [`ControlError::Member`].
pub(super) fn look(
    bdev: &Arc<dyn Bdev>,
    set: &Uuid,
    force: bool,
) -> Result<Option<Member>, ControlError> {
    match read(bdev) {
        Ok(member) if member.superblock.set_uuid == *set => Ok(Some(member)),
        Err(MemberError::None) => Ok(None),
        Ok(_) | Err(MemberError::Superblock(_) | MemberError::Placement(_)) if force => Ok(None),
        Ok(member) => Err(holds(bdev, &member.superblock)),
        Err(source) => Err(ControlError::Member {
            device: bdev.info().name.clone(),
            source,
        }),
    }
}

/// Everything that a device holds.
pub(super) fn read(bdev: &Arc<dyn Bdev>) -> Result<Member, MemberError> {
    Member::read(&mut MemberDisk::open(bdev)?)
}

/// That a device belongs to an array.
pub(super) fn holds(bdev: &Arc<dyn Bdev>, superblock: &Superblock) -> ControlError {
    ControlError::Holds {
        device: bdev.info().name.clone(),
        array: superblock.set_name.to_string(),
        uuid: superblock.set_uuid,
    }
}

/// That a device belongs to another array than the one that is meant.
pub(super) fn holds_other(bdev: &Arc<dyn Bdev>, superblock: &Superblock) -> ControlError {
    ControlError::HoldsOther {
        device: bdev.info().name.clone(),
        array: superblock.set_name.to_string(),
        uuid: superblock.set_uuid,
    }
}

/// Whether a device was a member of a started array, in the slot that is free now, and lacks no more
/// than the write-intent bitmap says.
pub(super) fn returns(kept: &Kept, member: &Member, status: &Status) -> bool {
    let Some(metadata) = &status.metadata else {
        return false;
    };
    let others = metadata.superblocks.iter().flatten();
    let Some(other) = others.clone().next() else {
        return false;
    };
    let own = &member.superblock;
    let is_free = match own.role() {
        Role::Slot(slot) => {
            let slot = status.slots.get(usize::from(slot));
            slot.is_some_and(|slot| slot.name.is_none())
        }
        _ => false,
    };
    // What it lacked when it left has its bits set still.
    let guided = own.features.contains(Features::RECOVERY_BITMAP);
    let shape = |s: &Superblock| (s.size, s.chunk, s.layout, s.raid_disks, s.minor(), s.policy);
    let knows = |s: &Superblock| matches!(own.role_of(s.dev_number), Role::Slot(_) | Role::Spare);
    is_free
        && shape(own) == shape(other)
        && own.support().is_ok()
        && (own.recovering().is_none() || guided)
        && member.bad_blocks.is_ok()
        && others
            .clone()
            .all(|s| s.device_uuid != own.device_uuid && knows(s))
        && others.clone().all(|s| s.dev_number != own.dev_number)
        && kept.spares.iter().all(|s| s.number != own.dev_number)
        && metadata
            .events_cleared
            .is_some_and(|cleared| own.events >= cleared)
}

/// A member that comes back with what it has.
pub(super) fn returning(member: Member) -> NewMember {
    NewMember {
        bad_blocks: member.bad_blocks.unwrap_or_else(|_| BadBlocks::new(0)),
        superblock: member.superblock,
        returns: true,
    }
}

/// Prepares a device for a started array, as a member that has nothing yet, and says what it is to
/// be: under the number and identity of `spare`, if it is one. What the device held is gone then.
///
/// # Errors
/// [`ControlError`]: it is too small, or cannot be written.
pub(super) fn fresh(
    kept: &Kept,
    status: &Status,
    bdev: &Arc<dyn Bdev>,
    spare: Option<&Spare>,
) -> Result<NewMember, ControlError> {
    let superblock = superblock(kept, status, bdev, spare)?;
    let bad_blocks = BadBlocks::for_log(&superblock.bad_block_log);
    let prepared = prepare(bdev, &superblock, &bad_blocks, spare.is_none());
    prepared.map_err(|source| unwritten(bdev, source))?;
    Ok(NewMember {
        superblock,
        bad_blocks,
        returns: false,
    })
}

/// Makes a device a spare of a started array.
///
/// # Errors
/// As [`fresh`].
pub(super) fn spare(
    kept: &Kept,
    status: &Status,
    bdev: &Arc<dyn Bdev>,
) -> Result<Spare, ControlError> {
    let new = fresh(kept, status, bdev, None)?;
    let written =
        MemberDisk::open(bdev).and_then(|mut disk| write_superblock(&mut disk, &new.superblock));
    written.map_err(|source| unwritten(bdev, source.into()))?;
    check_kept(bdev, &new.superblock)?;
    Ok(Spare::new(&bdev.info().name, &new.superblock))
}

/// Removes whatever superblocks a device has.
///
/// # Errors
/// [`ControlError::Unwritten`].
pub(super) fn clear(bdev: &Arc<dyn Bdev>) -> Result<(), ControlError> {
    let cleared = MemberDisk::open(bdev).and_then(|mut disk| zero_superblock(&mut disk));
    cleared
        .map(drop)
        .map_err(|source| unwritten(bdev, source.into()))
}

/// Removes the superblocks of all of these devices, as far as that can be done.
///
/// # Errors
/// [`ControlError`] about the first of them with which it could not.
pub(super) fn clear_all(members: &[String], devices: &Devices) -> Result<(), ControlError> {
    let cleared = members.iter().map(|member| {
        let bdev = devices.registry.get(member)?;
        clear(&bdev)
    });
    // To the end, whatever becomes of one of them.
    let cleared: Vec<Result<(), ControlError>> = cleared.collect();
    cleared.into_iter().collect()
}

/// That a device gives back the superblock that was written to it.
///
/// # Errors
/// [`ControlError::KeepsNothing`], [`ControlError::Member`].
pub(super) fn check_kept(bdev: &Arc<dyn Bdev>, written: &Superblock) -> Result<(), ControlError> {
    let device = || bdev.info().name.clone();
    match read(bdev) {
        Ok(member) if member.superblock == *written => Ok(()),
        Ok(_) | Err(MemberError::None) => Err(ControlError::KeepsNothing(device())),
        Err(source) => Err(ControlError::Member {
            device: device(),
            source,
        }),
    }
}

/// The superblock of a device that joins a started array.
fn superblock(
    kept: &Kept,
    status: &Status,
    bdev: &Arc<dyn Bdev>,
    spare: Option<&Spare>,
) -> Result<Superblock, ControlError> {
    let metadata = status.metadata.as_ref();
    let members = || {
        metadata
            .into_iter()
            .flat_map(|m| m.superblocks.iter().flatten())
    };
    let volume = |source| ControlError::Volume {
        name: kept.name.without_host(),
        source,
    };
    let other = members()
        .next()
        .ok_or_else(|| volume(VolumeError::Offline))?;
    let is_taken = |number| {
        let by_spare = kept.spares.iter().any(|s| s.number == number);
        by_spare || members().any(|s| s.dev_number == number)
    };
    let joining = |source| ControlError::Join {
        device: bdev.info().name.clone(),
        source,
    };
    let number = match spare {
        Some(spare) => spare.number,
        None => free_number(other.raid_disks, is_taken).map_err(joining)?,
    };
    let device = NewDevice {
        sectors: bdev.info().bytes() / SECTOR,
        uuid: spare.map_or_else(Uuid::new_v4, |s| s.uuid),
    };
    let mut member = other.clone();
    if let Some(metadata) = metadata {
        member.events = metadata.events;
        member.roles.clone_from(&metadata.roles);
    }
    let bitmap = kept.bitmap_chunk;
    let bitmap = bitmap.map(|chunk| BitmapHeader::new(&member, chunk, 0));
    join(&member, bitmap.as_ref(), device, number).map_err(joining)
}

/// Empties the logs. What a `stranger` was before is removed first; a spare stays one until it is more.
fn prepare(
    bdev: &Arc<dyn Bdev>,
    superblock: &Superblock,
    bad_blocks: &BadBlocks,
    stranger: bool,
) -> Result<(), AreaError> {
    let disk: &mut dyn Disk = &mut MemberDisk::open(bdev)?;
    if stranger {
        zero_superblock(disk)?;
    }
    if superblock.bad_block_log.offset != 0 {
        write_bad_blocks(disk, superblock, bad_blocks)?;
    }
    write_empty_ppl(disk, superblock)
}

/// That metadata could not be written to a device.
pub(super) fn unwritten(bdev: &Arc<dyn Bdev>, source: AreaError) -> ControlError {
    ControlError::Unwritten {
        device: bdev.info().name.clone(),
        source,
    }
}
