//! All metadata of one member: read from its device, and written to it.

use super::bitmap::bytes_of_bits;
use super::bitmap_header::HEADER_BYTES;
use super::disk::{read_span, write_span_durable};
use super::placement::{Area, DEVICE_SECTORS_MIN};
use super::ppl::{self, Found};
use super::superblock::Minor;
use super::{
    BadBlocks, BadBlocksError, Bitmap, BitmapError, BitmapHeader, Disk, DiskError, Features,
    Freshness, PAGE, Placement, PlacementError, Policy, PplArea, PplHeader, SECTOR, Superblock,
    SuperblockError,
};

/// What is on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Sectors of the device.
    pub device_sectors: u64,
    /// Bytes of a block of the device.
    pub block_size: u32,
    /// The superblock.
    pub superblock: Superblock,
    /// The bitmap, if the array has one.
    pub bitmap: Option<Result<StoredBitmap, AreaError>>,
    /// The bad blocks; none if the superblock does not speak of any.
    pub bad_blocks: Result<BadBlocks, AreaError>,
    /// The newest header of the partial parity log, if the array has one. `Ok(None)`: none is whole.
    pub ppl: Option<Result<Option<Found>, AreaError>>,
}

/// A bitmap as it lies on one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBitmap {
    /// Its header.
    pub header: BitmapHeader,
    /// Its bits, as they lie there.
    pub bits: Bitmap,
    /// What they are worth beside this member's superblock.
    pub freshness: Freshness,
}

impl StoredBitmap {
    /// The bits as they have to be taken: all of them if they are stale.
    pub fn believed(&self) -> Bitmap {
        let mut bits = self.bits.clone();
        if self.freshness == Freshness::Stale {
            bits.set_all();
        }
        bits
    }
}

/// A device that holds no member we could use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// No superblock in any of the three places.
    #[error("no md superblock of version 1 was found; create an array on it, or add it to one")]
    None,
    /// There is one, but it can't be trusted.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// Parts are not on the device or share sectors.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The superblock could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A part of a member that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    /// It could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The bitmap makes no sense.
    #[error(transparent)]
    Bitmap(#[from] BitmapError),
    /// The bad-block log makes no sense.
    #[error(transparent)]
    BadBlocks(#[from] BadBlocksError),
    /// It has no room where it is said to be.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// The byte of the device at `offset` sectors from the superblock.
fn byte_beside(superblock: &Superblock, offset: i64) -> Result<u64, PlacementError> {
    let start = i128::from(superblock.super_offset) + i128::from(offset);
    let bytes = u64::try_from(start * i128::from(SECTOR));
    bytes.map_err(|_| PlacementError::Outside {
        area: Area::Superblock,
        start,
        end: start,
        sectors: superblock.super_offset,
    })
}

/// Looks for a superblock: at the place of version 1.2, then 1.1, then 1.0. One that names another place
/// than its own belongs to something else (a partition, perhaps) and is passed by. One that is damaged ends
/// the search: what lies at the other places may be older.
///
/// # Errors
/// [`MemberError`], if there is none or it can't be trusted.
pub fn find_superblock(disk: &mut dyn Disk) -> Result<Superblock, MemberError> {
    let sectors = disk.bytes() / SECTOR;
    if sectors < DEVICE_SECTORS_MIN {
        return Err(MemberError::None);
    }
    for minor in Minor::ALL {
        let Some(at) = minor.offset(sectors) else {
            continue;
        };
        match Superblock::parse(&read_span(disk, at * SECTOR, PAGE)?) {
            Ok(superblock) if superblock.super_offset == at => return Ok(superblock),
            Ok(_) | Err(SuperblockError::Magic(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MemberError::None)
}

impl Member {
    /// Reads everything that there is on a device.
    ///
    /// # Errors
    /// [`MemberError`] if there is no superblock, or it can't be right for this device. Other parts that
    /// can't be read or make no sense are errors of their own inside.
    pub fn read(disk: &mut dyn Disk) -> Result<Self, MemberError> {
        let superblock = find_superblock(disk)?;
        let device_sectors = disk.bytes() / SECTOR;
        fits(&superblock, device_sectors)?;
        let bitmap = match superblock.policy {
            Policy::Bitmap { offset } => Some(read_bitmap(disk, &superblock, offset)),
            _ => None,
        };
        let header = bitmap.as_ref().and_then(|b| b.as_ref().ok());
        Placement::of(&superblock, header.map(|b| &b.header), device_sectors)?;
        let ppl = match superblock.policy {
            Policy::Ppl { offset, size, .. } => Some(read_ppl(disk, &superblock, offset, size)),
            _ => None,
        };
        Ok(Self {
            device_sectors,
            block_size: disk.block_size(),
            bad_blocks: read_bad_blocks(disk, &superblock),
            superblock,
            bitmap,
            ppl,
        })
    }

    /// Where everything is.
    ///
    /// # Errors
    /// None for a member that was read; else what [`Placement::of`] says.
    pub fn placement(&self) -> Result<Placement, PlacementError> {
        let header = self.bitmap.as_ref().and_then(|b| b.as_ref().ok());
        let header = header.map(|b| &b.header);
        Placement::of(&self.superblock, header, self.device_sectors)
    }
}

/// As the kernel does, refuses a superblock that speaks of more data than the device has.
fn fits(superblock: &Superblock, device_sectors: u64) -> Result<(), PlacementError> {
    let sectors = match superblock.minor() {
        Minor::V0 => superblock.super_offset,
        Minor::V1 | Minor::V2 => device_sectors,
    };
    let start = match superblock.minor() {
        Minor::V0 => 0,
        Minor::V1 | Minor::V2 => superblock.data_offset,
    };
    let end = i128::from(start) + i128::from(superblock.data_size);
    if end > i128::from(sectors) {
        return Err(PlacementError::Outside {
            area: Area::Data,
            start: start.into(),
            end,
            sectors,
        });
    }
    Ok(())
}

fn read_bitmap(
    disk: &mut dyn Disk,
    superblock: &Superblock,
    offset: i32,
) -> Result<StoredBitmap, AreaError> {
    let at = byte_beside(superblock, offset.into())?;
    let header = BitmapHeader::parse(&read_span(disk, at, HEADER_BYTES)?)?;
    let freshness = header.check(superblock)?;
    let len = HEADER_BYTES + bytes_of_bits(superblock.size, header.chunk_bytes)?;
    let area = read_span(disk, at, len)?;
    let bits = Bitmap::load(&header, superblock.size, &area)?;
    Ok(StoredBitmap {
        header,
        bits,
        freshness,
    })
}

fn read_bad_blocks(disk: &mut dyn Disk, superblock: &Superblock) -> Result<BadBlocks, AreaError> {
    let log = superblock.bad_block_log;
    if !superblock.features.contains(Features::BAD_BLOCKS) {
        return Ok(BadBlocks::for_log(&log));
    }
    let mut bytes = Vec::new();
    if log.offset != 0 && log.size <= super::bad_blocks::LOG_SECTORS_MAX {
        let at = byte_beside(superblock, log.offset.into())?;
        bytes = read_span(disk, at, usize::from(log.size) * SECTOR as usize)?;
    }
    Ok(BadBlocks::parse(&log, &bytes)?)
}

fn read_ppl(
    disk: &mut dyn Disk,
    superblock: &Superblock,
    offset: i16,
    size: u16,
) -> Result<Option<Found>, AreaError> {
    let start = byte_beside(superblock, offset.into())?;
    let area = PplArea::new(size).ok_or(PlacementError::SmallPpl(size))?;
    let signature = ppl::signature(&superblock.set_uuid);
    let found = ppl::newest(&area, signature, |at| {
        let mut header = [0; ppl::HEADER_BYTES];
        let bytes = read_span(disk, start + at * SECTOR, header.len())?;
        header.copy_from_slice(&bytes);
        Ok::<_, DiskError>(header)
    })?;
    Ok(found)
}

/// Writes a superblock to the place that it names; it is durable on return.
///
/// # Errors
/// [`DiskError`], if it can't be written there.
pub fn write_superblock(disk: &mut dyn Disk, superblock: &Superblock) -> Result<(), DiskError> {
    let mut bytes = superblock.to_bytes();
    bytes.resize(superblock.sectors() as usize * SECTOR as usize, 0);
    write_span_durable(disk, superblock.super_offset * SECTOR, &bytes)
}

/// Writes a bitmap, header and bits, where the superblock says; it is durable on return.
///
/// # Errors
/// [`AreaError`], if it can't be written there. Without a bitmap in the superblock nothing happens.
pub fn write_bitmap(
    disk: &mut dyn Disk,
    superblock: &Superblock,
    header: &BitmapHeader,
    bits: &Bitmap,
) -> Result<(), AreaError> {
    let Policy::Bitmap { offset } = superblock.policy else {
        return Ok(());
    };
    let at = byte_beside(superblock, offset.into())?;
    write_span_durable(disk, at, &bits.to_bytes(header, SECTOR as usize))?;
    Ok(())
}

/// Writes one page of a bitmap; it is durable on return.
///
/// # Errors
/// [`AreaError`], if it can't be written there. Without a bitmap in the superblock nothing happens.
pub fn write_bitmap_page(
    disk: &mut dyn Disk,
    superblock: &Superblock,
    header: &BitmapHeader,
    bits: &Bitmap,
    page: u64,
) -> Result<(), AreaError> {
    let Policy::Bitmap { offset } = superblock.policy else {
        return Ok(());
    };
    let at = byte_beside(superblock, offset.into())?;
    let mut bytes = vec![0; bits.page_bytes(page, SECTOR as usize)];
    bits.render(page, header, &mut bytes);
    write_span_durable(disk, at + page * PAGE as u64, &bytes)?;
    Ok(())
}

/// Writes the bad-block log where the superblock says; it is durable on return. It counts from the moment
/// that a superblock with [`Features::BAD_BLOCKS`] is durable too.
///
/// # Errors
/// [`AreaError`], if there is no room for it or it can't be written.
pub fn write_bad_blocks(
    disk: &mut dyn Disk,
    superblock: &Superblock,
    bad_blocks: &BadBlocks,
) -> Result<(), AreaError> {
    let log = superblock.bad_block_log;
    if log.offset == 0 || bad_blocks.entries() > BadBlocks::for_log(&log).capacity() {
        return Err(BadBlocksError::Full(bad_blocks.entries()).into());
    }
    let at = byte_beside(superblock, log.offset.into())?;
    let mut bytes = vec![0; usize::from(log.size) * SECTOR as usize];
    bad_blocks.write(&mut bytes);
    write_span_durable(disk, at, &bytes)?;
    Ok(())
}

/// Empties the partial parity log where the superblock says: zeros over all of it, then a header without
/// entries. Durable on return, in this order.
///
/// # Errors
/// [`AreaError`], if it can't be written. Without a log in the superblock nothing happens.
pub fn write_empty_ppl(disk: &mut dyn Disk, superblock: &Superblock) -> Result<(), AreaError> {
    let Policy::Ppl { offset, size, .. } = superblock.policy else {
        return Ok(());
    };
    let at = byte_beside(superblock, offset.into())?;
    write_span_durable(disk, at, &vec![0; usize::from(size) * SECTOR as usize])?;
    let header = PplHeader::empty(&superblock.set_uuid);
    write_span_durable(disk, at, &header.to_bytes())?;
    Ok(())
}

/// Writes zeros over every superblock of version 1 that is in its place, damaged or not; how many there
/// were. The device is then no member any more.
///
/// # Errors
/// [`DiskError`], if it can't be read or written.
pub fn zero_superblock(disk: &mut dyn Disk) -> Result<usize, DiskError> {
    let sectors = disk.bytes() / SECTOR;
    let mut zeroed = 0;
    for at in Minor::ALL.iter().filter_map(|minor| minor.offset(sectors)) {
        let len = match Superblock::parse(&read_span(disk, at * SECTOR, PAGE)?) {
            Ok(superblock) if superblock.super_offset == at => superblock.sectors() * SECTOR,
            Err(error) if !matches!(error, SuperblockError::Magic(_)) => SECTOR,
            _ => continue,
        };
        write_span_durable(disk, at * SECTOR, &vec![0; len as usize])?;
        zeroed += 1;
    }
    Ok(zeroed)
}
