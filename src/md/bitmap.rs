//! The bits of a write-intent bitmap: which parts of the members may disagree with each other.
//!
//! One bit for each chunk of *member* address space (not of the volume, and not the array's chunk), the
//! lowest bit of the first byte first, straight behind the header: the first page holds 30720 bits, each
//! other one 32768. Every member has a copy, and all copies are alike.

use std::ops::Range;

use super::bitmap_header::HEADER_BYTES;
use super::{BitmapError, BitmapHeader, PAGE, SECTOR};

/// The most bytes of bits that we keep: enough for 2 PiB a member in chunks of 4 MiB.
pub const MAX_BYTES: u64 = 64 << 20;

/// The bits in memory, just as they lie on disk. Bits behind the last chunk are always 0 here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    chunk_sectors: u64,
    sectors: u64,
    bits: u64,
    bytes: Vec<u8>,
}

/// Bits for `sectors` of a member, one for each `chunk_bytes`.
pub fn bits_for(sectors: u64, chunk_bytes: u32) -> u64 {
    sectors.div_ceil((u64::from(chunk_bytes) / SECTOR).max(1))
}

/// Bytes of the header and the bits on disk, to the last byte that has a bit.
pub fn area_bytes(sectors: u64, chunk_bytes: u32) -> u64 {
    HEADER_BYTES as u64 + bits_for(sectors, chunk_bytes).div_ceil(8)
}

/// Bytes of the bits alone, for a bitmap that we can keep.
///
/// # Errors
/// [`BitmapError::Range`] if `chunk_bytes` is not a power of two from 512, or so small that the bits need more
/// than [`MAX_BYTES`].
pub fn bytes_of_bits(sectors: u64, chunk_bytes: u32) -> Result<usize, BitmapError> {
    let bytes = bits_for(sectors, chunk_bytes).div_ceil(8);
    if chunk_bytes < 512 || !chunk_bytes.is_power_of_two() || bytes > MAX_BYTES {
        return Err(BitmapError::Range {
            field: "chunksize",
            value: u64::from(chunk_bytes),
        });
    }
    Ok(bytes as usize)
}

impl Bitmap {
    /// A bitmap without a bit set, for `sectors` of each member (`size` of the superblock).
    ///
    /// # Errors
    /// As [`bytes_of_bits`].
    pub fn new(sectors: u64, chunk_bytes: u32) -> Result<Self, BitmapError> {
        let bytes = bytes_of_bits(sectors, chunk_bytes)?;
        Ok(Self {
            chunk_sectors: u64::from(chunk_bytes) / SECTOR,
            sectors,
            bits: bits_for(sectors, chunk_bytes),
            bytes: vec![0; bytes],
        })
    }

    /// The bits that follow `header` in `area`, the bytes from the start of the header on. How many there
    /// are is a matter of `sectors` (`size` of the superblock); md itself does not believe the header's
    /// `sync_size`.
    ///
    /// # Errors
    /// [`BitmapError`] if `area` is too short, or the bits would be too many.
    pub fn load(header: &BitmapHeader, sectors: u64, area: &[u8]) -> Result<Self, BitmapError> {
        let needed = area_bytes(sectors, header.chunk_bytes);
        if needed > area.len() as u64 {
            return Err(BitmapError::Short {
                needed,
                got: area.len() as u64,
            });
        }
        let mut bitmap = Self::new(sectors, header.chunk_bytes)?;
        bitmap
            .bytes
            .copy_from_slice(&area[HEADER_BYTES..needed as usize]);
        bitmap.trim();
        Ok(bitmap)
    }

    /// Clears what is behind the last bit in the last byte.
    fn trim(&mut self) {
        let used = self.bits % 8;
        if let (Some(last), 1..) = (self.bytes.last_mut(), used) {
            *last &= (1 << used) - 1;
        }
    }

    /// Number of bits.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Sectors of a member that a bit stands for.
    pub fn chunk_sectors(&self) -> u64 {
        self.chunk_sectors
    }

    /// Whether the bit is set; false behind the last one.
    pub fn is_set(&self, bit: u64) -> bool {
        let byte = self.bytes.get((bit / 8) as usize);
        byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Sets a bit; whether it was clear.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn set(&mut self, bit: u64) -> bool {
        let was = self.is_set(bit);
        assert!(bit < self.bits, "bit {bit} of {}", self.bits);
        self.bytes[(bit / 8) as usize] |= 1 << (bit % 8);
        !was
    }

    /// Clears a bit; whether it was set.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn clear(&mut self, bit: u64) -> bool {
        let was = self.is_set(bit);
        assert!(bit < self.bits, "bit {bit} of {}", self.bits);
        self.bytes[(bit / 8) as usize] &= !(1 << (bit % 8));
        was
    }

    /// Sets every bit.
    pub fn set_all(&mut self) {
        self.bytes.fill(0xff);
        self.trim();
    }

    /// Clears every bit.
    pub fn clear_all(&mut self) {
        self.bytes.fill(0);
    }

    /// Sets every bit that is set in `other`, a bitmap of the same shape.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn merge(&mut self, other: &Bitmap) {
        assert_eq!(
            (self.bits, self.chunk_sectors),
            (other.bits, other.chunk_sectors),
            "bitmaps of one shape"
        );
        for (mine, theirs) in self.bytes.iter_mut().zip(&other.bytes) {
            *mine |= theirs;
        }
    }

    /// How many bits are set.
    pub fn count(&self) -> u64 {
        self.bytes.iter().map(|b| u64::from(b.count_ones())).sum()
    }

    /// The bits that are set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let bytes = self
            .bytes
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte != 0);
        bytes.flat_map(|(at, &byte)| {
            let set = (0..8).filter(move |bit| byte & (1 << bit) != 0);
            set.map(move |bit| at as u64 * 8 + bit)
        })
    }

    /// The first bit that is set, from `bit` on.
    pub fn next_set(&self, bit: u64) -> Option<u64> {
        let mut at = bit;
        while at < self.bits {
            let rest = self.bytes[(at / 8) as usize] >> (at % 8);
            if rest != 0 {
                return Some(at + u64::from(rest.trailing_zeros()));
            }
            at = (at / 8 + 1) * 8;
        }
        None
    }

    /// The bit of a sector of the members' data.
    pub fn bit_of(&self, sector: u64) -> u64 {
        sector / self.chunk_sectors
    }

    /// The sectors of the members' data that a bit stands for.
    pub fn sectors_of(&self, bit: u64) -> Range<u64> {
        let start = bit.saturating_mul(self.chunk_sectors).min(self.sectors);
        start..(start + self.chunk_sectors).min(self.sectors)
    }

    /// The bits of a range of sectors of the members' data.
    pub fn bits_of(&self, sectors: Range<u64>) -> Range<u64> {
        let end = sectors.end.div_ceil(self.chunk_sectors).min(self.bits);
        self.bit_of(sectors.start).min(end)..end
    }

    /// Which page of the area on disk a bit lies on.
    pub fn page_of(&self, bit: u64) -> u64 {
        (HEADER_BYTES as u64 + bit / 8) / PAGE as u64
    }

    /// Bytes of header and bits on disk.
    pub fn area_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.bytes.len() as u64
    }

    /// Pages of header and bits on disk.
    pub fn pages(&self) -> u64 {
        self.area_bytes().div_ceil(PAGE as u64)
    }

    /// Bytes of a page to write: all of it, but of the last page only as many blocks of `block` bytes as
    /// have bits. What is behind them may belong to somebody else.
    pub fn page_bytes(&self, page: u64, block: usize) -> usize {
        let from = page * PAGE as u64;
        let left = self.area_bytes().saturating_sub(from);
        (left.min(PAGE as u64) as usize).next_multiple_of(block.clamp(1, PAGE))
    }

    /// Fills `into` with the bytes of `page` as they are to lie on disk: at most 4096, from the start of
    /// the page. The first page begins with `header`; what is behind the last bit is 0.
    ///
    /// # Panics
    /// If `into` is longer than a page, or too short for the header on the first page.
    pub fn render(&self, page: u64, header: &BitmapHeader, into: &mut [u8]) {
        assert!(into.len() <= PAGE, "a page has {PAGE} bytes");
        let into = if page == 0 {
            header.write(into);
            &mut into[HEADER_BYTES..]
        } else {
            into
        };
        let from = (page as usize * PAGE).saturating_sub(HEADER_BYTES);
        let bytes = self.bytes.get(from..).unwrap_or_default();
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        into[len..].fill(0);
    }

    /// The whole area: header and bits, to a multiple of `block` bytes.
    pub fn to_bytes(&self, header: &BitmapHeader, block: usize) -> Vec<u8> {
        let len = (self.area_bytes() as usize).next_multiple_of(block.max(1));
        let mut area = vec![0; len];
        header.write(&mut area);
        area[HEADER_BYTES..][..self.bytes.len()].copy_from_slice(&self.bytes);
        area
    }
}
