//! The partial parity log: what a member notes before data and parity of a stripe are written.
//!
//! A stripe is logged on the member that holds its parity. A write of the log is a header of 4 KiB and,
//! straight behind it, the partial parity of its entries, in their order. *Partial parity* of a stripe is
//! the sum (exclusive or) of its data blocks that are *not* written; with it, parity can be made right from
//! the blocks that are, whichever of them reached the disk.
//!
//! An area of 264 KiB or more is a ring: each write goes behind the last one, and from the start again where
//! it would not fit. A smaller one has a single place. Which of the two it is follows from the size alone;
//! the feature bits of the superblock only say what the kernel found.
//!
//! All checksums are plain CRC-32C.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};
use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PAGE, SECTOR};

/// Bytes of a header.
pub const HEADER_BYTES: usize = PAGE;
/// Sectors of a header.
pub const HEADER_SECTORS: u64 = HEADER_BYTES as u64 / SECTOR;
/// The most entries of a header.
pub const ENTRIES_MAX: usize = 148;
/// The most partial parity of one write to a ring, in bytes.
pub const RING_PARITY_BYTES: u32 = 128 << 10;
/// Smallest ring in bytes: two full writes.
pub const RING_BYTES_MIN: u64 = 2 * (RING_PARITY_BYTES as u64 + HEADER_BYTES as u64);

/// One write to consecutive rows of the array that touches the same members in each of them
/// (`ppl_header_entry`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PplEntry {
    /// `data_sector`: the first sector of the *array* that is written.
    pub data_sector: u64,
    /// `pp_size`: bytes of partial parity; 0 if the rows are written whole.
    pub pp_size: u32,
    /// `data_size`: bytes of data, of all members together.
    pub data_size: u32,
    /// `parity_disk`: the slot whose member holds the parity, and this log.
    pub parity_disk: u32,
    /// `checksum` of the partial parity.
    pub checksum: u32,
}

/// A header (`ppl_header`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PplHeader {
    /// `signature`: [`signature`] of the array's identity.
    pub signature: u32,
    /// `generation`: grows with every write of any member's log.
    pub generation: u64,
    /// The entries, at most [`ENTRIES_MAX`].
    pub entries: Vec<PplEntry>,
}

/// Bytes that are no header of this array.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PplError {
    /// Not as many bytes as a header has.
    #[error("a header of the partial parity log has 4096 bytes, not {0}")]
    Short(usize),
    /// Nothing was written there, or not all of it.
    #[error(
        "no header of the partial parity log: checksum {stored:#010x}, computed {computed:#010x}"
    )]
    Checksum {
        /// The one on disk.
        stored: u32,
        /// The right one.
        computed: u32,
    },
    /// It belongs to another array.
    #[error("the partial parity log has the signature {found:#010x}, this array {wanted:#010x}")]
    Signature {
        /// The one on disk.
        found: u32,
        /// That of the array.
        wanted: u32,
    },
    /// More entries than a header can hold.
    #[error("the partial parity log speaks of {0} entries, more than the 148 possible")]
    Entries(u32),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    data_sector: U64,
    pp_size: U32,
    data_size: U32,
    parity_disk: U32,
    checksum: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    reserved: [u8; 512],
    signature: U32,
    padding: U32,
    generation: U64,
    entries_count: U32,
    checksum: U32,
    entries: [RawEntry; ENTRIES_MAX],
    rest: [u8; 8],
}

const CHECKSUM_AT: usize = 532;

const _: () = {
    assert!(size_of::<Raw>() == HEADER_BYTES);
    assert!(std::mem::offset_of!(Raw, generation) == 520);
    assert!(std::mem::offset_of!(Raw, checksum) == CHECKSUM_AT);
    assert!(std::mem::offset_of!(Raw, entries) == 536);
};

/// What marks the logs of an array: the checksum of its identity.
pub fn signature(set_uuid: &Uuid) -> u32 {
    crc32_iscsi(set_uuid.as_bytes())
}

/// The checksum of an entry's partial parity; 0 if it has none.
pub fn parity_checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.into_iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// The checksum of a header, its own place taken as 0.
fn header_checksum(bytes: &[u8]) -> u32 {
    let (before, after) = (&bytes[..CHECKSUM_AT], &bytes[CHECKSUM_AT + 4..]);
    parity_checksum([before, &[0; 4], after])
}

impl PplHeader {
    /// A header without entries: nothing is in flight.
    pub fn empty(set_uuid: &Uuid) -> Self {
        Self {
            signature: signature(set_uuid),
            generation: 0,
            entries: Vec::new(),
        }
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`PplError`] if there is none, or one of an array with another signature.
    pub fn parse(bytes: &[u8], signature: u32) -> Result<Self, PplError> {
        let short = || PplError::Short(bytes.len());
        let bytes = bytes.get(..HEADER_BYTES).ok_or_else(short)?;
        let raw = Raw::ref_from_bytes(bytes).map_err(|_| short())?;
        let computed = header_checksum(bytes);
        if raw.checksum.get() != computed {
            return Err(PplError::Checksum {
                stored: raw.checksum.get(),
                computed,
            });
        }
        if raw.signature.get() != signature {
            return Err(PplError::Signature {
                found: raw.signature.get(),
                wanted: signature,
            });
        }
        let count = raw.entries_count.get();
        let entries = raw.entries.get(..count as usize);
        let entries = entries.ok_or(PplError::Entries(count))?;
        Ok(Self {
            signature,
            generation: raw.generation.get(),
            entries: entries.iter().map(PplEntry::from).collect(),
        })
    }

    /// Writes the header with its checksum to the first 4096 bytes of `bytes`. What is unused there is as
    /// md leaves it: ones at the start, zeros behind the entries.
    ///
    /// # Panics
    /// If there are fewer bytes, or more than [`ENTRIES_MAX`] entries.
    pub fn write(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..HEADER_BYTES];
        bytes.fill(0);
        let raw = Raw::mut_from_bytes(bytes).expect("as many bytes as the structure has");
        raw.reserved.fill(0xff);
        raw.signature = self.signature.into();
        raw.generation = self.generation.into();
        raw.entries_count = (self.entries.len() as u32).into();
        let places = raw.entries[..self.entries.len()].iter_mut();
        for (place, entry) in places.zip(&self.entries) {
            *place = RawEntry::from(entry);
        }
        let checksum = header_checksum(bytes);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The header with its checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        self.write(&mut bytes);
        bytes
    }

    /// Bytes of partial parity behind the header.
    pub fn parity_bytes(&self) -> u64 {
        self.entries.iter().map(|e| u64::from(e.pp_size)).sum()
    }

    /// Sectors from the start of this header to that of the next one in a ring. As md counts them: whole
    /// sectors of each entry.
    pub fn sectors(&self) -> u64 {
        let sectors = |entry: &PplEntry| u64::from(entry.pp_size) / SECTOR;
        HEADER_SECTORS + self.entries.iter().map(sectors).sum::<u64>()
    }
}

impl From<&RawEntry> for PplEntry {
    fn from(raw: &RawEntry) -> Self {
        Self {
            data_sector: raw.data_sector.get(),
            pp_size: raw.pp_size.get(),
            data_size: raw.data_size.get(),
            parity_disk: raw.parity_disk.get(),
            checksum: raw.checksum.get(),
        }
    }
}

impl From<&PplEntry> for RawEntry {
    fn from(entry: &PplEntry) -> Self {
        let mut raw = RawEntry::new_zeroed();
        raw.data_sector = entry.data_sector.into();
        raw.pp_size = entry.pp_size.into();
        raw.data_size = entry.data_size.into();
        raw.parity_disk = entry.parity_disk.into();
        raw.checksum = entry.checksum.into();
        raw
    }
}

/// The area of one member's log: how much fits, and where the next write goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PplArea {
    sectors: u64,
    next: u64,
}

impl PplArea {
    /// The area of `size` sectors (`ppl.size` of the superblock); `None` if not even one header and one
    /// block of 4 KiB fit. What makes no whole block at its end is not used.
    pub fn new(size: u16) -> Option<Self> {
        let parity = u64::from(size).checked_sub(HEADER_SECTORS)?;
        let blocks = parity / HEADER_SECTORS;
        (blocks > 0).then_some(Self {
            sectors: HEADER_SECTORS * (1 + blocks),
            next: 0,
        })
    }

    /// Sectors that are used.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether writes go around; else each one overwrites the one before.
    pub fn is_ring(&self) -> bool {
        self.sectors * SECTOR >= RING_BYTES_MIN
    }

    /// The most partial parity of one write, in bytes. An area that is no ring keeps two blocks free, so
    /// that [`newest`] of md's kernel finds what is written; see there.
    pub fn parity_bytes_max(&self) -> u64 {
        let parity = if self.is_ring() {
            return u64::from(RING_PARITY_BYTES);
        } else {
            self.sectors.saturating_sub(3 * HEADER_SECTORS)
        };
        parity.max(HEADER_SECTORS) * SECTOR
    }

    /// Whether a write with `parity` bytes of partial parity goes to the start of the area.
    pub fn starts_over(&self, parity: u64) -> bool {
        let end = self.next + HEADER_SECTORS + parity / SECTOR;
        self.next == 0 || !self.is_ring() || end >= self.sectors - HEADER_SECTORS
    }

    /// Where a write with `parity` bytes of partial parity goes, in sectors from the start of the area.
    ///
    /// # Panics
    /// If it is larger than [`parity_bytes_max`](Self::parity_bytes_max).
    pub fn place(&mut self, parity: u64) -> u64 {
        assert!(parity <= self.parity_bytes_max(), "a write that fits");
        if !self.is_ring() {
            return 0;
        }
        if self.starts_over(parity) {
            self.next = 0;
        }
        let at = self.next;
        self.next += HEADER_SECTORS + parity / SECTOR;
        at
    }
}

/// A header that was found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Sectors from the start of the area.
    pub at: u64,
    /// The header.
    pub header: PplHeader,
}

/// Looks for the newest header of an area; `None` if there is none at its start. `read` gives the 4096 bytes
/// at a sector of the area.
///
/// The search begins at the start and goes from header to header, as far as they are whole, belong to the
/// array, and do not get older.
///
/// md's kernel does the same with two slips at the end of the area: it does not look at the last place for a
/// header, though it may write one there; and if the newest write ends at that place or behind it, it looks
/// for the partial parity behind the write instead of behind its header, finds the checksum wrong and resyncs
/// the array. So we read the last place too, and write nothing that ends there ([`PplArea::place`]).
///
/// # Errors
/// That of `read`: then nothing is known of what was in flight.
pub fn newest<E>(
    area: &PplArea,
    signature: u32,
    mut read: impl FnMut(u64) -> Result<[u8; HEADER_BYTES], E>,
) -> Result<Option<Found>, E> {
    let (mut at, mut newest) = (0, None::<Found>);
    while at + HEADER_SECTORS <= area.sectors {
        let Ok(header) = PplHeader::parse(&read(at)?, signature) else {
            break;
        };
        if newest
            .as_ref()
            .is_some_and(|n| n.header.generation > header.generation)
        {
            break;
        }
        let next = at + header.sectors();
        newest = Some(Found { at, header });
        at = next;
    }
    Ok(newest)
}
