//! Where on a member everything lies: what a superblock says, whether that can be, and where a new array
//! puts it.

use std::fmt;
use std::ops::Range;

use super::bitmap::area_bytes;
use super::superblock::Minor;
use super::{BitmapHeader, PAGE, Policy, PplArea, SECTOR, Superblock};

/// Sectors of 4 KiB.
const PAGE_SECTORS: u64 = PAGE as u64 / SECTOR;
/// Sectors of 1 MiB: data of a new array starts at a multiple of it.
const MIB: u64 = (1 << 20) / SECTOR;
/// Sectors of 1 GiB.
const GIB: u64 = 1024 * MIB;
/// Sectors of the partial parity log of a new array: 1 MiB.
pub const PPL_SECTORS: u16 = MIB as u16;
/// Sectors of the bad-block log of a new array.
pub const BAD_BLOCK_SECTORS: u16 = PAGE_SECTORS as u16;
/// Smallest device in sectors that md looks at.
pub const DEVICE_SECTORS_MIN: u64 = 24;

/// A part of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// The superblock.
    Superblock,
    /// The write-intent bitmap.
    Bitmap,
    /// The partial parity log.
    Ppl,
    /// The bad-block log.
    BadBlocks,
    /// The data that the array uses.
    Data,
}

impl fmt::Display for Area {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Area::Superblock => "superblock",
            Area::Bitmap => "bitmap",
            Area::Ppl => "partial parity log",
            Area::BadBlocks => "bad-block log",
            Area::Data => "data",
        })
    }
}

/// A member whose parts can't be where they are said to be, or a device too small for a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A part starts before the device or ends behind it.
    #[error(
        "the {area} would be at sectors {start} to {end} of a device of {sectors}; the device was made smaller, or the superblock is damaged"
    )]
    Outside {
        /// The part.
        area: Area,
        /// Its first sector.
        start: i128,
        /// The first sector behind it.
        end: i128,
        /// Sectors of the device.
        sectors: u64,
    },
    /// Two parts share sectors.
    #[error("the {0} and the {1} share sectors; repair the superblock with mdadm")]
    Overlap(Area, Area),
    /// Not even one header and one block fit into the partial parity log.
    #[error("a partial parity log of {0} sectors is too small; 16 are the least")]
    SmallPpl(u16),
    /// A new array has no place on the device.
    #[error("the device has {sectors} sectors, the array needs {needed}; use a larger one")]
    TooSmall {
        /// Sectors of the device.
        sectors: u64,
        /// Sectors needed.
        needed: u64,
    },
    /// A bitmap of this chunk does not fit.
    #[error(
        "a bitmap with chunks of {chunk_bytes} bytes does not fit into {sectors} sectors; use a larger chunk, {least} or more"
    )]
    BitmapChunk {
        /// The chunk asked for.
        chunk_bytes: u32,
        /// Sectors that there are for the bitmap.
        sectors: u64,
        /// Smallest chunk in bytes that fits.
        least: u32,
    },
}

/// A place relative to the superblock, as sectors of the device.
fn beside(superblock: &Superblock, offset: i128, len: u64) -> (i128, i128) {
    let start = i128::from(superblock.super_offset) + offset;
    (start, start + i128::from(len))
}

/// Where everything is on one member, in sectors of the device. Only what a superblock has is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    areas: Vec<(Area, Range<u64>)>,
}

impl Placement {
    /// The places that a superblock names on a device of `device_sectors`. How long a bitmap is follows from
    /// its header.
    ///
    /// # Errors
    /// [`PlacementError`], if they are not all on the device, or share sectors.
    pub fn of(
        superblock: &Superblock,
        bitmap: Option<&BitmapHeader>,
        device_sectors: u64,
    ) -> Result<Self, PlacementError> {
        let sb = superblock;
        let mut ends = vec![(Area::Superblock, beside(sb, 0, sb.sectors()))];
        match sb.policy {
            Policy::Bitmap { offset } => {
                let bytes = bitmap.map_or(SECTOR, |b| area_bytes(sb.size, b.chunk_bytes));
                let place = beside(sb, offset.into(), bytes.div_ceil(SECTOR));
                ends.push((Area::Bitmap, place));
            }
            Policy::Ppl { offset, size, .. } => {
                let area = PplArea::new(size).ok_or(PlacementError::SmallPpl(size))?;
                ends.push((Area::Ppl, beside(sb, offset.into(), area.sectors())));
            }
            Policy::Resync => {}
        }
        let log = sb.bad_block_log;
        if log.offset != 0 && log.size != 0 {
            let place = beside(sb, log.offset.into(), log.size.into());
            ends.push((Area::BadBlocks, place));
        }
        let start = i128::from(sb.data_offset);
        ends.push((Area::Data, (start, start + i128::from(sb.size))));

        let mut areas = Vec::new();
        for (area, (start, end)) in ends {
            if start < 0 || end > i128::from(device_sectors) {
                return Err(PlacementError::Outside {
                    area,
                    start,
                    end,
                    sectors: device_sectors,
                });
            }
            areas.push((area, start as u64..end as u64));
        }
        for (at, (one, a)) in areas.iter().enumerate() {
            for (other, b) in &areas[at + 1..] {
                if a.start < b.end && b.start < a.end {
                    return Err(PlacementError::Overlap(*one, *other));
                }
            }
        }
        Ok(Self { areas })
    }

    /// The sectors of a part, if the member has it.
    pub fn area(&self, area: Area) -> Option<Range<u64>> {
        let found = self.areas.iter().find(|(a, _)| *a == area);
        found.map(|(_, sectors)| sectors.clone())
    }
}

/// Sectors that mdadm keeps for a bitmap on a device, or an array's part of one, of this size.
pub fn bitmap_space(sectors: u64) -> u64 {
    let small = 64 * 2;
    if sectors < small {
        0
    } else if sectors - small >= 200 * GIB {
        128 * 2
    } else if sectors - PAGE_SECTORS > 8 * GIB {
        64 * 2
    } else {
        PAGE_SECTORS
    }
}

/// Where mdadm starts the data of a new array, in sectors: behind the superblock, the space for bitmap or
/// partial parity log, and some room for a change of shape in later years.
pub fn data_offset(minor: Minor, device_sectors: u64, chunk: u32, ppl: bool) -> u64 {
    if minor == Minor::V0 {
        return 0;
    }
    let space = if ppl {
        u64::from(PPL_SECTORS)
    } else {
        bitmap_space(device_sectors)
    };
    // 128 MiB, but not more than a thousandth of the device, and not less than two chunks.
    let mut headroom = 128 * MIB;
    while headroom << 10 > device_sectors && headroom / 2 >= 2 * u64::from(chunk) {
        headroom /= 2;
    }
    (3 * PAGE_SECTORS + space + headroom).next_multiple_of(MIB)
}

/// Sectors of a device that a new array with this start of data can use.
///
/// # Errors
/// [`PlacementError::TooSmall`] if there are none.
pub fn usable(
    minor: Minor,
    device_sectors: u64,
    data_offset: u64,
    ppl: bool,
) -> Result<u64, PlacementError> {
    let needed = match minor {
        Minor::V0 => {
            let space = if ppl {
                u64::from(PPL_SECTORS)
            } else {
                bitmap_space(device_sectors)
            };
            2 * PAGE_SECTORS + u64::from(BAD_BLOCK_SECTORS) + space
        }
        Minor::V1 | Minor::V2 => data_offset,
    };
    let sectors = match minor {
        Minor::V0 => device_sectors - device_sectors % PAGE_SECTORS,
        Minor::V1 | Minor::V2 => device_sectors,
    };
    let left = sectors.checked_sub(needed).filter(|&left| left > 0);
    left.filter(|_| device_sectors >= DEVICE_SECTORS_MIN)
        .ok_or(PlacementError::TooSmall {
            sectors: device_sectors,
            needed: needed.max(DEVICE_SECTORS_MIN) + 1,
        })
}

/// The chunk of a new bitmap: mdadm's default of 64 MiB, or more if there is no room for so many bits.
///
/// # Errors
/// [`PlacementError::BitmapChunk`] if the chunk asked for needs more than `space` sectors.
pub fn bitmap_chunk(wanted: Option<u32>, size: u64, space: u64) -> Result<u32, PlacementError> {
    let fits = |chunk: u32| area_bytes(size, chunk) <= space * SECTOR;
    let chunks = (12..32).map(|bits| 1u32 << bits);
    let least = chunks.clone().find(|&c| fits(c)).unwrap_or(1 << 31);
    match wanted {
        None => Ok(least.max(64 << 20)),
        Some(chunk) if chunk.is_power_of_two() && chunk >= least => Ok(chunk),
        Some(chunk_bytes) => Err(PlacementError::BitmapChunk {
            chunk_bytes,
            sectors: space,
            least,
        }),
    }
}
