//! The superblock of a device that joins an array: as a spare, or in the place of a lost member.

use super::superblock::{MAX_DEVICES, Minor};
use super::{BitmapHeader, Features, NewDevice, Placement, PlacementError, Role, Superblock};

/// A device that cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It is too small, or what belongs on it would overlap.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// No number is left for it.
    #[error("the array has as many devices as a superblock can name, 1920; remove one first")]
    Devices,
}

/// The number of a device that joins: as in the kernel, the lowest from the number of slots on that none
/// of `taken` has.
///
/// # Errors
/// [`JoinError::Devices`], if there is none.
pub fn free_number(slots: u32, taken: impl Fn(u32) -> bool) -> Result<u32, JoinError> {
    let mut numbers = slots..MAX_DEVICES as u32;
    numbers.find(|&n| !taken(n)).ok_or(JoinError::Devices)
}

/// What `device` says once it has joined, under `number`: it is a spare of the array that `member`
/// belongs to. Everything lies where it does on that member; only superblocks at the end of the device
/// have a place of their own.
///
/// # Errors
/// [`JoinError`], if that does not fit on the device.
pub fn join(
    member: &Superblock,
    bitmap: Option<&BitmapHeader>,
    device: NewDevice,
    number: u32,
) -> Result<Superblock, JoinError> {
    let minor = member.minor();
    let too_small = |needed| PlacementError::TooSmall {
        sectors: device.sectors,
        needed,
    };
    let needed = member.data_offset + member.size;
    let super_offset = minor.offset(device.sectors).ok_or(too_small(needed))?;
    // Between the data and a superblock at the end lie bitmap and logs.
    let behind = member.data_offset + member.data_size;
    let end = match minor {
        Minor::V0 => super_offset.saturating_sub(member.super_offset.saturating_sub(behind)),
        Minor::V1 | Minor::V2 => device.sectors,
    };
    if end < needed {
        return Err(too_small(needed + (device.sectors - end)).into());
    }
    let own = [
        Features::RECOVERY_OFFSET,
        Features::RECOVERY_BITMAP,
        Features::BAD_BLOCKS,
        Features::REPLACEMENT,
    ];
    let mut superblock = Superblock {
        features: own.iter().fold(member.features, |all, &f| all.without(f)),
        data_size: end - member.data_offset,
        super_offset,
        recovery_offset: 0,
        dev_number: number,
        corrected_reads: 0,
        device_uuid: device.uuid,
        devflags: 0,
        ..member.clone()
    };
    let at = number as usize;
    if at >= superblock.roles.len() {
        superblock.roles.resize(at + 1, Role::Spare.number());
    }
    superblock.roles[at] = Role::Spare.number();
    Placement::of(&superblock, bitmap, device.sectors)?;
    Ok(superblock)
}
