//! Recovery from the partial parity logs, before a dirty array is used.
//!
//! Each member's newest header says which blocks were being written when the array stopped. For each row of
//! blocks there, parity becomes what the written blocks, as they are on the disks now, and the logged partial
//! parity add up to. It is then right for whatever reached the disks. This is what the kernel does
//! (`raid5-ppl.c`, `ppl_load_distributed`), with two differences:
//!
//! - An entry that makes no sense is passed by as one whose checksum is wrong; the kernel stops the machine.
//! - Rows that can't be put right because a written member is missing are told. The kernel is silent there. If
//!   the missing block was the only one written in its row, it is the old or the new one and all is well. If
//!   there were more, the lost block is arbitrary, and must not be given out as data.
//!
//! The order is: [`replay`]; make durable what it tells, such as lost blocks; [`empty_logs`]. A crash in
//! between does no harm, the next start does the same again.

use std::ops::Range;

use super::disk::{read_span, write_span};
use super::layout::{Layout, Location};
use super::member::write_empty_ppl;
use super::ppl::{self, HEADER_SECTORS, PplHeader, parity_checksum};
use super::superblock::IN_SYNC;
use super::{
    AreaError, BadBlocks, Disk, DiskError, PAGE, Policy, PplArea, PplEntry, SECTOR, Superblock,
};

/// Sectors of a block.
const BLOCK: u64 = PAGE as u64 / SECTOR;

/// A member whose log is replayed, in the place of its slot.
pub struct LogMember<'a> {
    /// Its device.
    pub disk: &'a mut dyn Disk,
    /// Its superblock: it says where the log and the data are.
    pub superblock: &'a Superblock,
    /// What is lost on it.
    pub bad_blocks: &'a BadBlocks,
    /// Sectors of its data that are right; `u64::MAX` if it is in sync.
    pub right_below: u64,
}

impl std::fmt::Debug for LogMember<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = self.superblock.dev_number;
        write!(out, "LogMember({number})")
    }
}

impl LogMember<'_> {
    /// Whether blocks of the member's data can be read and are right.
    pub(super) fn has(&self, sectors: Range<u64>) -> bool {
        let start = self.superblock.data_offset;
        let device = start + sectors.start..start + sectors.end;
        sectors.start < self.right_below && !self.bad_blocks.overlaps(device)
    }

    pub(super) fn read(&mut self, sector: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let sector = self.superblock.data_offset + sector;
        read_span(self.disk, sector * SECTOR, len)
    }

    pub(super) fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let sector = self.superblock.data_offset + sector;
        write_span(self.disk, sector * SECTOR, bytes)
    }
}

/// What a log said that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// No header.
    #[error("slot {slot}: the partial parity log has no whole header")]
    NoHeader {
        /// The slot of the log.
        slot: usize,
    },
    /// The partial parity does not have the checksum of its entry. As a rule it was being written when the
    /// array stopped, and no data were yet.
    #[error("slot {slot}: the partial parity of array sector {} is not whole", entry.data_sector)]
    Checksum {
        /// The slot of the log.
        slot: usize,
        /// The entry.
        entry: PplEntry,
    },
    /// The entry can't be one of this array.
    #[error("slot {slot}: the entry of array sector {} makes no sense", entry.data_sector)]
    Entry {
        /// The slot of the log.
        slot: usize,
        /// The entry.
        entry: PplEntry,
    },
}

/// A block of a missing member that can't be trusted, nor made from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The slot of the missing member.
    pub slot: usize,
    /// The sectors of its data.
    pub sectors: Range<u64>,
    /// The slot that has parity there. As long as these sectors of it are noted as bad, no reader makes data
    /// out of it; writing the row whole makes it right again.
    pub parity: usize,
    /// The sectors of the array.
    pub array: Range<u64>,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Entries that were used.
    pub entries: usize,
    /// Logs whose newest header has no entries, but is not the one that an unused log has: nothing was on its way.
    pub ended: usize,
    /// Blocks of parity that were written.
    pub blocks: u64,
    /// What could not be used.
    pub mismatches: Vec<Mismatch>,
    /// Blocks that are lost, in the order of the logs.
    pub lost: Vec<Lost>,
}

impl Replay {
    /// Whether the array can be taken as clean, by the kernel's rule: its superblock was that of an array in
    /// use, at least one entry was used and none was not. Else it has to be resynced. A header without entries that
    /// has a generation counts as an entry: the kernel writes none.
    ///
    /// The rule can't tell an array that was in sync before from one whose first resync had not ended: both
    /// have `resync_offset` 0 while in use. Ours that still owe a resync have the true, positive offset
    /// ([`FIRST_STRIPE`](super::FIRST_STRIPE) at least); then this says no.
    pub fn proves_clean(&self, resync_offset: u64) -> bool {
        resync_offset == 0 && self.entries + self.ended > 0 && self.mismatches.is_empty()
    }
}

/// A replay that could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A member could not be read or written. Without it, the replay can be done again.
    #[error("replaying the partial parity log, slot {slot}: {error}")]
    Disk {
        /// Its slot.
        slot: usize,
        /// What went wrong.
        error: DiskError,
    },
    /// A member's log is where it can't be.
    #[error("replaying the partial parity log, slot {slot}: {error}")]
    Area {
        /// Its slot.
        slot: usize,
        /// What is wrong.
        error: AreaError,
    },
    /// No array that could have a partial parity log.
    #[error("the array has no partial parity log, or a shape that is not supported")]
    Shape,
}

/// Replays the logs of an array whose members are in the places of their slots. Nothing is done if
/// `resync_offset` says that the array was stopped cleanly. What is written is durable on return.
///
/// # Errors
/// [`ReplayError`] if a member fails; the array must not be used before it is done.
pub fn replay(
    members: &mut [Option<LogMember<'_>>],
    resync_offset: u64,
) -> Result<Replay, ReplayError> {
    let mut replay = Replay::default();
    if resync_offset == IN_SYNC {
        return Ok(replay);
    }
    let any = members.iter().flatten().next().ok_or(ReplayError::Shape)?;
    let layout = Layout::of(any.superblock).ok_or(ReplayError::Shape)?;
    if members.len() as u64 != layout.data() + 1 {
        return Err(ReplayError::Shape);
    }
    for slot in 0..members.len() {
        replay_log(members, slot, &layout, &mut replay)?;
    }
    Ok(replay)
}

/// Empties the logs of all members: zeros, then a header without entries. Durable on return.
///
/// # Errors
/// [`ReplayError`] if a member fails.
pub fn empty_logs(members: &mut [Option<LogMember<'_>>]) -> Result<(), ReplayError> {
    for (slot, member) in members.iter_mut().enumerate() {
        if let Some(member) = member {
            write_empty_ppl(member.disk, member.superblock)
                .map_err(|error| ReplayError::Area { slot, error })?;
        }
    }
    Ok(())
}

/// Replays the log of one slot, if its member is there.
fn replay_log(
    members: &mut [Option<LogMember<'_>>],
    slot: usize,
    layout: &Layout,
    replay: &mut Replay,
) -> Result<(), ReplayError> {
    let Some(member) = &mut members[slot] else {
        return Ok(());
    };
    let failed = |error| ReplayError::Disk { slot, error };
    let (mut at, end, header) = newest_header(member, slot)?;
    let Some(header) = header else {
        replay.mismatches.push(Mismatch::NoHeader { slot });
        return Ok(());
    };
    replay.ended += usize::from(header.entries.is_empty() && header.generation > 0);
    for entry in header.entries {
        let parity_at = at;
        at += u64::from(entry.pp_size) / SECTOR;
        let plan = Plan::of(&entry, slot, layout).filter(|_| at <= end);
        let Some(plan) = plan else {
            replay.mismatches.push(Mismatch::Entry { slot, entry });
            continue;
        };
        let Some(log) = &mut members[slot] else {
            return Ok(());
        };
        let len = entry.pp_size as usize;
        let partial = read_span(log.disk, parity_at * SECTOR, len).map_err(failed)?;
        if parity_checksum([partial.as_slice()]) != entry.checksum {
            replay.mismatches.push(Mismatch::Checksum { slot, entry });
            continue;
        }
        for row in &plan.rows {
            put_right(members, row, plan.block, &partial, replay)?;
        }
        replay.entries += 1;
    }
    // Parity was written on this member only.
    let log = members[slot].as_mut();
    log.map_or(Ok(()), |log| log.disk.flush()).map_err(failed)
}

/// The newest header of a member's log, the sector of its device where the partial parity starts, and that
/// where the log ends.
fn newest_header(
    member: &mut LogMember<'_>,
    slot: usize,
) -> Result<(u64, u64, Option<PplHeader>), ReplayError> {
    let Policy::Ppl { offset, size, .. } = member.superblock.policy else {
        return Err(ReplayError::Shape);
    };
    let start = member
        .superblock
        .super_offset
        .checked_add_signed(offset.into());
    let (Some(start), Some(area)) = (start, PplArea::new(size)) else {
        return Err(ReplayError::Shape);
    };
    let signature = ppl::signature(&member.superblock.set_uuid);
    let found = ppl::newest(&area, signature, |at| {
        let mut page = [0; ppl::HEADER_BYTES];
        let bytes = read_span(member.disk, (start + at) * SECTOR, page.len())?;
        page.copy_from_slice(&bytes);
        Ok(page)
    });
    let found = found.map_err(|error| ReplayError::Disk { slot, error })?;
    let end = start + u64::from(size);
    Ok(match found {
        Some(found) => (start + found.at + HEADER_SECTORS, end, Some(found.header)),
        None => (start, end, None),
    })
}

/// Blocks at one offset of the members: those that were written, their parity, and where the partial parity
/// is in the log of the entry.
struct Row {
    written: Vec<(Location, u64)>,
    parity: usize,
    sector: u64,
    /// Bytes into the partial parity; `None` if the row was written whole.
    partial: Option<usize>,
}

/// The rows of an entry.
struct Plan {
    /// Bytes of a block.
    block: usize,
    rows: Vec<Row>,
}

impl Plan {
    /// Takes an entry apart as the kernel does (`ppl_recover_entry`); `None` if it makes no sense.
    fn of(entry: &PplEntry, slot: usize, layout: &Layout) -> Option<Self> {
        let chunk = layout.chunk();
        let first = entry.data_sector;
        let whole = |bytes: u32| u64::from(bytes).is_multiple_of(SECTOR);
        if !whole(entry.pp_size) || !whole(entry.data_size) || entry.data_size == 0 {
            return None;
        }
        let parity = u64::from(entry.pp_size) / SECTOR;
        let data = u64::from(entry.data_size) / SECTOR;
        // How many members were written, how many sectors on each, and the end of the whole range.
        let (disks, strip, end) = if parity >= chunk {
            (layout.data(), chunk, first.checked_add(data)?)
        } else {
            let (disks, strip) = match data.checked_div(parity) {
                Some(disks) => (disks, parity),
                None => (layout.data(), data / layout.data()),
            };
            if disks * strip != data {
                return None;
            }
            let before = disks.checked_sub(1)?.checked_mul(chunk)?;
            (disks, strip, first.checked_add(before)?.checked_add(strip)?)
        };
        if parity > chunk || strip > chunk || disks > layout.data() || end > layout.sectors() {
            return None;
        }
        let aligned = first.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK);
        let block = if aligned { BLOCK } else { 1 };
        let mut rows = Vec::new();
        for at in (0..strip).step_by(block as usize) {
            let sectors = (0..disks).map(|disk| first + at + disk * chunk);
            let sectors = sectors.filter(|&sector| sector < end);
            let located = |sector| layout.locate(sector).map(|place| (place, sector));
            let written: Vec<_> = sectors.map(located).collect::<Option<_>>()?;
            let Some(&(place, _)) = written.first() else {
                continue;
            };
            let one_row = |&(other, _): &(Location, u64)| {
                (other.row, other.sector, other.parity) == (place.row, place.sector, slot)
            };
            if !written.iter().all(one_row) || entry.parity_disk as usize != slot {
                return None;
            }
            rows.push(Row {
                written,
                parity: slot,
                sector: place.sector,
                partial: (parity > 0).then_some((at * SECTOR) as usize),
            });
        }
        let block = (block * SECTOR) as usize;
        Some(Self { block, rows })
    }
}

/// Writes the parity of one row, or tells what is lost.
fn put_right(
    members: &mut [Option<LogMember<'_>>],
    row: &Row,
    block: usize,
    partial: &[u8],
    replay: &mut Replay,
) -> Result<(), ReplayError> {
    let sectors = row.sector..row.sector + block as u64 / SECTOR;
    let missing = row.written.iter().find(|(place, _)| {
        let member = members[place.slot].as_ref();
        !member.is_some_and(|m| m.has(sectors.clone()))
    });
    if let Some(&(place, array)) = missing {
        if row.written.len() > 1 {
            replay.lost.push(Lost {
                slot: place.slot,
                sectors,
                parity: row.parity,
                array: array..array + block as u64 / SECTOR,
            });
        }
        return Ok(());
    }
    let mut parity = match row.partial {
        Some(at) => partial[at..at + block].to_vec(),
        None => vec![0; block],
    };
    let failed = |slot| move |error| ReplayError::Disk { slot, error };
    for &(place, _) in &row.written {
        let Some(member) = &mut members[place.slot] else {
            continue;
        };
        let data = member.read(row.sector, block).map_err(failed(place.slot))?;
        parity.iter_mut().zip(data).for_each(|(p, d)| *p ^= d);
    }
    if let Some(member) = &mut members[row.parity] {
        member
            .write(row.sector, &parity)
            .map_err(failed(row.parity))?;
        replay.blocks += 1;
    }
    Ok(())
}
