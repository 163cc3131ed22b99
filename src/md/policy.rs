//! Another consistency policy for an array that is stopped: where its bitmap or log goes on members
//! that were made without one.

use std::ops::Range;

use super::bitmap::area_bytes;
use super::placement::{Area, PPL_SECTORS, bitmap_chunk};
use super::superblock::Minor;
use super::{
    Bitmap, BitmapError, BitmapHeader, NewPolicy, PAGE, Placement, PlacementError, Policy, PplArea,
    SECTOR, Superblock,
};

/// Sectors of 4 KiB: everything is aligned to that.
const PAGE_SECTORS: u64 = PAGE as u64 / SECTOR;

/// A policy that an array can't be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is no room beside the superblock.
    #[error(
        "there are {room} free sectors beside the superblock, and {what} needs {needed}; make the array anew with this policy"
    )]
    Room {
        /// Bitmap or partial parity log.
        what: Area,
        /// Sectors of the largest gap.
        room: u64,
        /// Sectors needed.
        needed: u64,
    },
    /// Something does not fit.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The bitmap can't be made.
    #[error(transparent)]
    Bitmap(#[from] BitmapError),
}

/// An array's new policy, with the bitmap if it has one, of which no bit is set.
pub type Changed = (Policy, Option<(BitmapHeader, Bitmap)>);

/// The policy that makes `wanted` of the array that `member` belongs to. All members get the same; that
/// it fits on each of them is for [`Placement::of`] to say.
///
/// # Errors
/// [`PolicyError`], if there is no room.
pub fn change(
    member: &Superblock,
    device_sectors: u64,
    wanted: NewPolicy,
) -> Result<Changed, PolicyError> {
    let bare = Superblock {
        policy: Policy::Resync,
        ..member.clone()
    };
    let placement = Placement::of(&bare, None, device_sectors)?;
    let gap = largest_gap(&bare, &placement);
    let room = gap.end - gap.start;
    match wanted {
        NewPolicy::Resync => Ok((Policy::Resync, None)),
        NewPolicy::Bitmap { chunk_bytes } => {
            let chunk = bitmap_chunk(chunk_bytes, member.size, room)?;
            let needed = area_bytes(member.size, chunk).div_ceil(PAGE as u64) * PAGE_SECTORS;
            let offset = place(&bare, &gap, needed, Area::Bitmap)?;
            let header = BitmapHeader::new(member, chunk, 0);
            let bits = Bitmap::new(member.size, chunk)?;
            let policy = Policy::Bitmap {
                offset: offset as i32,
            };
            Ok((policy, Some((header, bits))))
        }
        NewPolicy::Ppl => {
            let least = 2 * PAGE_SECTORS;
            let size = room.clamp(least, PPL_SECTORS.into());
            let offset = place(&bare, &gap, size, Area::Ppl)?;
            let area = PplArea::new(size as u16);
            let policy = Policy::Ppl {
                offset: offset as i16,
                size: size as u16,
                multiple: area.is_some_and(|area| area.is_ring()),
            };
            Ok((policy, None))
        }
    }
}

/// The largest free range of sectors between superblock and data, in whole pages.
fn largest_gap(member: &Superblock, placement: &Placement) -> Range<u64> {
    let data = placement.area(Area::Data).unwrap_or_default();
    let superblock = member.super_offset;
    // A superblock has a page for itself.
    let (start, end) = match member.minor() {
        Minor::V0 => (data.end, superblock),
        Minor::V1 | Minor::V2 => (superblock + PAGE_SECTORS, data.start),
    };
    let log = placement.area(Area::BadBlocks).unwrap_or(end..end);
    let gaps = [start..log.start.min(end), log.end.max(start)..end];
    let whole = gaps.map(|gap| {
        let first = gap.start.next_multiple_of(PAGE_SECTORS);
        let last = gap.end - gap.end % PAGE_SECTORS;
        first..last.max(first)
    });
    let [one, other] = whole;
    match one.end - one.start >= other.end - other.start {
        true => one,
        false => other,
    }
}

/// Where in the gap so many sectors go: at the end that is near the superblock. Sectors from there.
fn place(
    member: &Superblock,
    gap: &Range<u64>,
    needed: u64,
    what: Area,
) -> Result<i64, PolicyError> {
    let room = gap.end - gap.start;
    if needed > room {
        return Err(PolicyError::Room { what, room, needed });
    }
    let start = match member.minor() {
        Minor::V0 => gap.end - needed,
        Minor::V1 | Minor::V2 => gap.start,
    };
    Ok(start as i64 - member.super_offset as i64)
}
