//! The bad blocks of one member: sectors whose content is lost there, and the log that says so on disk.
//!
//! Sectors are those of the *device*: the start of the data is included (kernel: `rdev_set_badblocks`
//! adds the data offset before it notes a range). An entry of the log is a little-endian word: the first
//! sector in the upper 54 bits, the number of sectors, 1 to 512, in the lower 10. A word of all ones ends
//! the log; a log that is full has no end.
//!
//! The log has no checksum. Damage that leaves each entry possible can't be noticed: it makes good sectors
//! lost, which costs a rebuild of them, or forgets that sectors are lost.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{BadBlockLog, PAGE, SECTOR};

/// The most sectors of one entry.
pub const ENTRY_SECTORS: u64 = 512;
/// The most sectors that md reads as a log: one page.
pub const LOG_SECTORS_MAX: u16 = (PAGE as u64 / SECTOR) as u16;
/// The first sector that an entry can't name.
pub const SECTOR_LIMIT: u64 = 1 << 54;

/// Marks the end of the log.
const END: u64 = u64::MAX;
/// Bits of an entry that hold the length.
const LENGTH_BITS: u32 = 10;

/// A log that can't be read, or has no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlocksError {
    /// There is no room for another entry.
    #[error("the bad-block log is full with {0} entries; replace the device")]
    Full(usize),
    /// A sector that the format can't hold.
    #[error("sector {0} is too large for the bad-block log, whose limit is 2^54")]
    Sector(u64),
    /// The log is longer than md allows.
    #[error(
        "the bad-block log has {0} sectors, more than the 8 that md reads; repair it with mdadm"
    )]
    TooLong(u16),
    /// The superblock says that there are bad blocks, and not where.
    #[error("the superblock speaks of bad blocks, but has no log of them; repair it with mdadm")]
    Missing,
    /// The log was cut off.
    #[error("the bad-block log has {got} of {needed} bytes; read all of it")]
    Short {
        /// Bytes that the superblock says.
        needed: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// An entry that names no sectors.
    #[error(
        "entry {index} of the bad-block log, {value:#018x}, makes no sense; remake the log (mdadm --assemble --update=force-no-bbl)"
    )]
    Entry {
        /// Which.
        index: usize,
        /// The word on disk.
        value: u64,
    },
}

/// A set of bad sectors, no larger than its log can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlocks {
    /// Start and end of each range. Ranges do not touch.
    ranges: BTreeMap<u64, u64>,
    capacity: usize,
}

/// Entries that a range needs.
fn entries_of(start: u64, end: u64) -> usize {
    (end - start).div_ceil(ENTRY_SECTORS) as usize
}

impl BadBlocks {
    /// No bad blocks, with room for `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self {
            ranges: BTreeMap::new(),
            capacity,
        }
    }

    /// No bad blocks, with the room of this log; none if there is no log.
    pub fn for_log(log: &BadBlockLog) -> Self {
        let sectors = if log.offset == 0 { 0 } else { log.size };
        let bytes = usize::from(sectors.min(LOG_SECTORS_MAX)) * SECTOR as usize;
        Self::new(bytes / size_of::<u64>())
    }

    /// Reads a log from the start of `bytes`. As md does, this takes lengths up to 1023, if there is room for
    /// the entries that they become.
    ///
    /// # Errors
    /// [`BadBlocksError`] if the log is none that md would read.
    pub fn parse(log: &BadBlockLog, bytes: &[u8]) -> Result<Self, BadBlocksError> {
        if log.offset == 0 {
            return Err(BadBlocksError::Missing);
        }
        if log.size > LOG_SECTORS_MAX {
            return Err(BadBlocksError::TooLong(log.size));
        }
        let needed = usize::from(log.size) * SECTOR as usize;
        let bytes = bytes.get(..needed).ok_or(BadBlocksError::Short {
            needed,
            got: bytes.len(),
        })?;
        let mut set = Self::new(needed / size_of::<u64>());
        let words = bytes.as_chunks().0.iter().map(|w| u64::from_le_bytes(*w));
        for (index, value) in words.take_while(|&w| w != END).enumerate() {
            let bad = || BadBlocksError::Entry { index, value };
            let length = value & ((1 << LENGTH_BITS) - 1);
            let first = value >> LENGTH_BITS;
            let scale = 1u64.checked_shl(log.shift.into()).ok_or_else(bad)?;
            let start = first.checked_mul(scale).ok_or_else(bad)?;
            let sectors = length.checked_mul(scale).ok_or_else(bad)?;
            let end = start.checked_add(sectors).ok_or_else(bad)?;
            if length == 0 || end > SECTOR_LIMIT {
                return Err(bad());
            }
            set.insert(start..end)?;
        }
        Ok(set)
    }

    /// Writes the log, in units of one sector, to all of `bytes`.
    ///
    /// # Panics
    /// If the entries need more than `bytes`.
    pub fn write(&self, bytes: &mut [u8]) {
        bytes.fill(0xff);
        let mut places = bytes.as_chunks_mut().0.iter_mut();
        for (&start, &end) in &self.ranges {
            for first in (start..end).step_by(ENTRY_SECTORS as usize) {
                let length = ENTRY_SECTORS.min(end - first);
                let place = places.next().expect("as many places as the capacity says");
                *place = (first << LENGTH_BITS | length).to_le_bytes();
            }
        }
    }

    /// Entries that the log can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries that the log has.
    pub fn entries(&self) -> usize {
        self.ranges.iter().map(|(&s, &e)| entries_of(s, e)).sum()
    }

    /// Whether no sector is bad.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bad sectors.
    pub fn sectors(&self) -> u64 {
        self.ranges.iter().map(|(s, e)| e - s).sum()
    }

    /// The bad ranges, ascending; they do not touch.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The bad parts of `sectors`, ascending.
    pub fn within(&self, sectors: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.ranges.range(..sectors.start).next_back();
        let from = before.map_or(sectors.start, |(&start, _)| start);
        let ranges = self.ranges.range(from..sectors.end.max(from));
        let cut = ranges.map(move |(&s, &e)| s.max(sectors.start)..e.min(sectors.end));
        cut.filter(|range| !range.is_empty())
    }

    /// Whether one of `sectors` is bad.
    pub fn overlaps(&self, sectors: Range<u64>) -> bool {
        self.within(sectors).next().is_some()
    }

    /// Notes `sectors` as bad; whether any of them was not yet.
    ///
    /// # Errors
    /// [`BadBlocksError`] if the log has no room; then nothing has changed. The device can't be trusted
    /// any more.
    pub fn insert(&mut self, sectors: Range<u64>) -> Result<bool, BadBlocksError> {
        if sectors.end > SECTOR_LIMIT {
            return Err(BadBlocksError::Sector(sectors.end));
        }
        if sectors.is_empty() {
            return Ok(false);
        }
        // Ranges that touch the new one become part of it.
        let (mut start, mut end) = (sectors.start, sectors.end);
        let before = self.ranges.range(..start).next_back();
        let from = before
            .filter(|&(_, &e)| e >= start)
            .map_or(start, |(&s, _)| s);
        let touched: Vec<_> = self
            .ranges
            .range(from..=end)
            .map(|(&s, &e)| (s, e))
            .collect();
        let (mut freed, mut known) = (0, 0);
        for &(s, e) in &touched {
            (start, end) = (start.min(s), end.max(e));
            freed += entries_of(s, e);
            known += e.min(sectors.end).saturating_sub(s.max(sectors.start));
        }
        if known == sectors.end - sectors.start {
            return Ok(false);
        }
        if self.entries() - freed + entries_of(start, end) > self.capacity {
            return Err(BadBlocksError::Full(self.entries()));
        }
        for (s, _) in touched {
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
        Ok(true)
    }

    /// Notes `sectors` as good again; whether any of them was bad.
    ///
    /// # Errors
    /// [`BadBlocksError::Full`] if a range would become two and the log has no room for that; then nothing
    /// has changed.
    pub fn remove(&mut self, sectors: Range<u64>) -> Result<bool, BadBlocksError> {
        let cut: Vec<_> = self.within(sectors.clone()).collect();
        let (Some(first), Some(last)) = (cut.first(), cut.last()) else {
            return Ok(false);
        };
        let holds = |at: u64| self.ranges.range(..=at).next_back().map(|(&s, &e)| (s, e));
        let (start, _) = holds(first.start).expect("a bad sector is in a range");
        let (_, end) = holds(last.end - 1).expect("a bad sector is in a range");
        let touched: Vec<_> = self
            .ranges
            .range(start..end)
            .map(|(&s, &e)| (s, e))
            .collect();
        let freed: usize = touched.iter().map(|&(s, e)| entries_of(s, e)).sum();
        let rest = [(start, first.start), (last.end, end)];
        let rest = rest.into_iter().filter(|(s, e)| s < e);
        let needed: usize = rest.clone().map(|(s, e)| entries_of(s, e)).sum();
        if self.entries() - freed + needed > self.capacity {
            return Err(BadBlocksError::Full(self.entries()));
        }
        for (s, _) in touched {
            self.ranges.remove(&s);
        }
        self.ranges.extend(rest);
        Ok(true)
    }
}
