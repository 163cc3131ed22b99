//! The metadata of a new array: every byte that its devices get before it is started for the first time.
//!
//! Places and values are those of `mdadm --create`, with one difference: mdadm makes a RAID5 array degraded
//! and lets its last device be rebuilt, unless it is forced; here all members are active and parity is yet to
//! be made.

use uuid::Uuid;

use super::bitmap::area_bytes;
use super::member::{
    write_bad_blocks, write_bitmap, write_empty_ppl, write_superblock, zero_superblock,
};
use super::placement::{
    BAD_BLOCK_SECTORS, PPL_SECTORS, bitmap_chunk, bitmap_space, data_offset, usable,
};
use super::superblock::{FIXED_BYTES, IN_SYNC, MAX_DEVICES, Minor};
use super::{
    AreaError, BadBlockLog, BadBlocks, Bitmap, BitmapError, BitmapHeader, Disk, FIRST_STRIPE,
    Features, LogMember, PAGE, Placement, PlacementError, Policy, PplArea, ReplayError, Reshape,
    SECTOR, SetName, Superblock, Time, Unsupported, sync_first_stripe,
};

/// Sectors of 4 KiB.
const PAGE_SECTORS: u64 = PAGE as u64 / SECTOR;

/// How the new array learns where parity may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewPolicy {
    /// It reads everything.
    #[default]
    Resync,
    /// With a write-intent bitmap.
    Bitmap {
        /// Bytes of a member for each bit; 64 MiB or more if not said.
        chunk_bytes: Option<u32>,
    },
    /// With a partial parity log.
    Ppl,
}

/// A device of a new array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDevice {
    /// Its size in sectors.
    pub sectors: u64,
    /// The identity that it gets.
    pub uuid: Uuid,
}

/// What a new array is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArray {
    /// Identity.
    pub set_uuid: Uuid,
    /// Name.
    pub name: SetName,
    /// Now.
    pub created: Time,
    /// Where superblocks lie.
    pub minor: Minor,
    /// Chunk in sectors: a power of two from 8 to 2048.
    pub chunk: u32,
    /// Layout, in md's numbers: 0 to 5.
    pub layout: u32,
    /// Sectors used of each member; as many as there are if not said.
    pub size: Option<u64>,
    /// What helps after a crash.
    pub policy: NewPolicy,
    /// First sector of the data; where mdadm would put it if not said.
    pub data_offset: Option<u64>,
    /// Whether each member gets a bad-block log.
    pub bad_block_log: bool,
    /// Whether parity is already right everywhere: the devices hold zeros, or a whole array of this shape.
    pub assume_clean: bool,
    /// The device of each slot; at most one may be missing.
    pub slots: Vec<Option<NewDevice>>,
    /// Devices that wait to be used.
    pub spares: Vec<NewDevice>,
}

impl NewArray {
    /// An array of these devices with mdadm's defaults: version 1.2, left-symmetric, chunks of 512 KiB, a
    /// bad-block log.
    pub fn new(
        set_uuid: Uuid,
        name: SetName,
        created: Time,
        slots: Vec<Option<NewDevice>>,
    ) -> Self {
        Self {
            set_uuid,
            name,
            created,
            minor: Minor::V2,
            chunk: 1024,
            layout: 2,
            size: None,
            policy: NewPolicy::default(),
            data_offset: None,
            bad_block_log: true,
            assume_clean: false,
            slots,
            spares: Vec::new(),
        }
    }
}

/// What can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// A shape that we do not run.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Something does not fit on a device.
    #[error("device {device}: {error}")]
    Placement {
        /// Which: a slot, or behind the last slot a spare.
        device: usize,
        /// Why.
        error: PlacementError,
    },
    /// The bitmap can't be made.
    #[error(transparent)]
    Bitmap(#[from] BitmapError),
    /// Too few devices.
    #[error("{missing} of {slots} members are missing; RAID5 can be made without one at most")]
    Missing {
        /// Slots without a device.
        missing: usize,
        /// Slots in all.
        slots: usize,
    },
    /// More than a superblock can name.
    #[error("{0} devices are too many; a superblock can name 1920")]
    Devices(usize),
    /// Two devices of one identity.
    #[error("two devices have the identity {0}; each needs its own")]
    Twice(Uuid),
    /// The size asked for is more than the smallest device has, or no chunk.
    #[error("{size} sectors of each member are not possible; use {chunk} to {most}")]
    Size {
        /// Sectors asked for.
        size: u64,
        /// The least: a chunk.
        chunk: u64,
        /// The most: what the smallest device has.
        most: u64,
    },
}

/// The metadata of a new array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The superblock of each device, by device number: that of its slot, then the spares.
    pub superblocks: Vec<Option<Superblock>>,
    /// The bitmap that all of them get.
    pub bitmap: Option<(BitmapHeader, Bitmap)>,
}

impl Created {
    /// Writes what belongs on the device of this number: removes old superblocks, then writes logs and
    /// bitmap, and last the superblock, which makes it a member.
    ///
    /// # Errors
    /// [`AreaError`], if something can't be written. The device is then no member.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn write(&self, device: usize, disk: &mut dyn Disk) -> Result<(), AreaError> {
        let superblock = self.superblocks[device].as_ref();
        let superblock = superblock.expect("a slot with a device");
        zero_superblock(disk)?;
        if superblock.bad_block_log.offset != 0 {
            let none = BadBlocks::for_log(&superblock.bad_block_log);
            write_bad_blocks(disk, superblock, &none)?;
        }
        if let Some((header, bits)) = &self.bitmap {
            write_bitmap(disk, superblock, header, bits)?;
        }
        write_empty_ppl(disk, superblock)?;
        write_superblock(disk, superblock)?;
        Ok(())
    }

    /// Makes true what members with partial parity logs will say while the array owes its first resync, if it is one
    /// of those ([`first_stripe`](super::first_stripe)). `disks` are the devices of its slots. It comes before
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// [`ReplayError`] if a device can't be read or written.
    pub fn sync_first_stripe<D: Disk>(&self, disks: &mut [Option<D>]) -> Result<(), ReplayError> {
        let owes =
            |s: &Superblock| matches!(s.policy, Policy::Ppl { .. }) && s.resync_offset != IN_SYNC;
        if !self.superblocks.iter().flatten().any(owes) {
            return Ok(());
        }
        let none = BadBlocks::new(0);
        let both = disks.iter_mut().zip(&self.superblocks);
        let member = both.map(|(disk, superblock)| {
            Some(LogMember {
                disk: disk.as_mut()?,
                superblock: superblock.as_ref()?,
                bad_blocks: &none,
                right_below: u64::MAX,
            })
        });
        // Where one is missing there is no resync.
        sync_first_stripe(&mut member.collect::<Vec<_>>()).map(|_| ())
    }
}

/// Makes the metadata of a new array.
///
/// # Errors
/// [`CreateError`], if it is not possible.
pub fn create(array: &NewArray) -> Result<Created, CreateError> {
    let devices = devices_of(array)?;
    let first = devices.iter().find_map(|d| *d).map_or(0, |d| d.sectors);
    let ppl = array.policy == NewPolicy::Ppl;
    let offset = array
        .data_offset
        .unwrap_or_else(|| data_offset(array.minor, first, array.chunk, ppl));
    let size = size_of_members(array, &devices, offset)?;

    let space = bitmap_space(size);
    let chunk_bytes = match array.policy {
        NewPolicy::Bitmap { chunk_bytes } => Some(
            bitmap_chunk(chunk_bytes, size, space)
                .map_err(|error| CreateError::Placement { device: 0, error })?,
        ),
        _ => None,
    };
    let space = match (chunk_bytes, ppl) {
        (Some(chunk), _) => area_bytes(size, chunk).div_ceil(PAGE as u64) * PAGE_SECTORS,
        (None, true) => u64::from(PPL_SECTORS),
        (None, false) => space,
    };
    // Without one member, parity is right by definition: it is what the lost blocks are made of.
    let clean = array.assume_clean || array.slots.iter().any(Option::is_none);
    let mut superblocks = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let Some(device) = device else {
            superblocks.push(None);
            continue;
        };
        let wrong = |error| CreateError::Placement {
            device: number,
            error,
        };
        let superblock = Superblock {
            features: Features(0),
            set_uuid: array.set_uuid,
            set_name: array.name,
            created: array.created,
            level: 5,
            layout: array.layout,
            size,
            chunk: array.chunk,
            raid_disks: array.slots.len() as u32,
            policy: policy(array, space),
            reshape: Reshape::default(),
            data_offset: offset,
            data_size: data_size(array.minor, device.sectors, offset, size, space),
            super_offset: array.minor.offset(device.sectors).unwrap_or(0),
            recovery_offset: 0,
            dev_number: number as u32,
            corrected_reads: 0,
            device_uuid: device.uuid,
            devflags: 0,
            bad_block_log: bad_block_log(array, offset, space),
            updated: array.created,
            events: 0,
            resync_offset: match (clean, ppl) {
                (true, _) => IN_SYNC,
                (false, true) => FIRST_STRIPE,
                (false, false) => 0,
            },
            logical_block_size: 0,
            roles: roles(array, devices.len()),
        };
        superblock.support()?;
        let header = chunk_bytes.map(|chunk| BitmapHeader::new(&superblock, chunk, 0));
        Placement::of(&superblock, header.as_ref(), device.sectors).map_err(wrong)?;
        superblocks.push(Some(superblock));
    }
    let any = superblocks.iter().flatten().next();
    let bitmap = match (any, chunk_bytes) {
        (Some(superblock), Some(chunk)) => {
            let mut bits = Bitmap::new(size, chunk)?;
            if !clean {
                bits.set_all();
            }
            Some((BitmapHeader::new(superblock, chunk, 0), bits))
        }
        _ => None,
    };
    Ok(Created {
        superblocks,
        bitmap,
    })
}

/// All devices by number, with what can be said of them alone checked.
fn devices_of(array: &NewArray) -> Result<Vec<Option<NewDevice>>, CreateError> {
    let slots = array.slots.len();
    if !(3..=64).contains(&slots) {
        return Err(Unsupported::Members(slots as u32).into());
    }
    let missing = array.slots.iter().filter(|s| s.is_none()).count();
    if missing > 1 {
        return Err(CreateError::Missing { missing, slots });
    }
    let spares = array.spares.iter().copied().map(Some);
    let devices: Vec<_> = array.slots.iter().copied().chain(spares).collect();
    if devices.len() > MAX_DEVICES {
        return Err(CreateError::Devices(devices.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for device in devices.iter().flatten() {
        if !seen.insert(device.uuid) {
            return Err(CreateError::Twice(device.uuid));
        }
    }
    if !(8..=2048).contains(&array.chunk) || !array.chunk.is_power_of_two() {
        return Err(Unsupported::Chunk(array.chunk).into());
    }
    Ok(devices)
}

/// Sectors used of each member: what the smallest device, spares included, has for whole chunks.
fn size_of_members(
    array: &NewArray,
    devices: &[Option<NewDevice>],
    offset: u64,
) -> Result<u64, CreateError> {
    let chunk = u64::from(array.chunk);
    let ppl = array.policy == NewPolicy::Ppl;
    let mut most = u64::MAX;
    for (device, found) in devices.iter().enumerate() {
        let Some(found) = found else { continue };
        let left = usable(array.minor, found.sectors, offset, ppl);
        most = most.min(left.map_err(|error| CreateError::Placement { device, error })?);
    }
    most -= most % chunk;
    let size = array.size.map_or(most, |size| size - size % chunk);
    if !(chunk..=most).contains(&size) {
        return Err(CreateError::Size {
            size: array.size.unwrap_or(size),
            chunk,
            most,
        });
    }
    Ok(size)
}

/// Where bitmap or log go. With superblocks at the end they lie before them, with the bad-block log between.
fn policy(array: &NewArray, space: u64) -> Policy {
    let before = -(space as i64) - i64::from(BAD_BLOCK_SECTORS);
    let offset = match array.minor {
        Minor::V0 => before,
        Minor::V1 | Minor::V2 => PAGE_SECTORS as i64,
    };
    match array.policy {
        NewPolicy::Resync => Policy::Resync,
        NewPolicy::Bitmap { .. } => Policy::Bitmap {
            offset: offset as i32,
        },
        NewPolicy::Ppl => Policy::Ppl {
            offset: offset as i16,
            size: PPL_SECTORS,
            multiple: PplArea::new(PPL_SECTORS).is_some_and(|area| area.is_ring()),
        },
    }
}

/// Sectors of a device that could hold data.
fn data_size(minor: Minor, device_sectors: u64, offset: u64, size: u64, space: u64) -> u64 {
    match minor {
        Minor::V0 => {
            let end = minor.offset(device_sectors).unwrap_or(0);
            let kept = space + u64::from(BAD_BLOCK_SECTORS);
            end - kept.min(end.saturating_sub(offset + size)) - offset
        }
        Minor::V1 | Minor::V2 => device_sectors - offset,
    }
}

/// Where the bad-block log goes: behind bitmap or log, if there is room before the data.
fn bad_block_log(array: &NewArray, offset: u64, space: u64) -> BadBlockLog {
    let sectors = u64::from(BAD_BLOCK_SECTORS);
    let superblock = match array.minor {
        Minor::V2 => PAGE_SECTORS,
        Minor::V0 | Minor::V1 => 0,
    };
    let at = match array.minor {
        Minor::V0 => -(sectors as i32),
        Minor::V1 | Minor::V2 => (PAGE_SECTORS + space) as i32,
    };
    let fits = array.minor == Minor::V0 || superblock + PAGE_SECTORS + space + sectors <= offset;
    if !array.bad_block_log || !fits {
        return BadBlockLog::default();
    }
    BadBlockLog {
        shift: 0,
        size: BAD_BLOCK_SECTORS,
        offset: at,
    }
}

/// The table of roles: each slot with a device has its number, all else is spare. It fills the last sector of
/// the superblock.
fn roles(array: &NewArray, devices: usize) -> Vec<u16> {
    let bytes = (FIXED_BYTES + 2 * devices).next_multiple_of(SECTOR as usize);
    let mut roles = vec![0xffff; (bytes - FIXED_BYTES) / 2];
    for (slot, device) in array.slots.iter().enumerate() {
        if device.is_some() {
            roles[slot] = slot as u16;
        }
    }
    roles
}
