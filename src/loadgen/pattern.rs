//! What a verified block holds, and what a block that was read turns out to hold.
//!
//! A block is a row of little-endian 64-bit words:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | volume: which set of generations this one belongs to; never 0 |
//! | 8..16 | the block's own address |
//! | 16..20 | generation: 1 for the first write of this address, then 2, 3, ... |
//! | 20..24 | upper half of the seed |
//! | 24..B-8 | word i = seed + i * `STEP` |
//! | B-8..B-4 | lower half of what word i would be |
//! | B-4..B | CRC-32 (that of IEEE 802.3) of all bytes before |
//!
//! The checksum is not a CRC-32C, because md's partial parity log has that over sums of blocks: whatever ends with
//! its own is the same to it.
//!
//! The seed is a hash of volume, address and generation, so two different blocks differ in every
//! word of the body: a block put together from two writes is seen wherever the joint is, and a
//! foreign word can be told where it came from. The hash is not linear, so that an XOR of several
//! good blocks (parity gone wrong) is never a good block.

use crc_fast::{CrcAlgorithm, checksum};

use super::random::scramble;

/// Bytes in front of the body.
const HEADER: usize = 24;
/// What the body grows by from word to word; odd, so that no word repeats.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Whose block it is: address and generation within a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The set of generations, never 0.
    pub volume: u64,
    /// The logical block's own address.
    pub lba: u64,
    /// How often the address has been written, this time included.
    pub generation: u32,
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One intact pattern.
    Whole(Stamp),
    /// Nothing but zeros.
    Zeros,
    /// Pieces of which at least one is of a pattern, but no intact pattern.
    Torn(Vec<Piece>),
    /// No pattern at all.
    Unknown,
}

/// Bytes of a torn block that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
    /// Where they come from.
    pub source: Source,
}

/// Where a piece of a torn block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A pattern's header that names itself.
    Header(Stamp),
    /// The body of the pattern with this [`Stamp::seed`].
    Body(u64),
    /// Zeros.
    Zeros,
    /// Anything else.
    Unknown,
}

impl Stamp {
    /// The hash from which the body is derived.
    pub fn seed(&self) -> u64 {
        let place = scramble(self.volume ^ scramble(self.lba));
        scramble(place ^ u64::from(self.generation))
    }

    /// Fills a block. Its length is a multiple of 8, and at least 64.
    pub fn write_to(&self, block: &mut [u8]) {
        let seed = self.seed();
        let words = block.len() / 8;
        let (header, body) = block.split_at_mut(HEADER);
        header[..8].copy_from_slice(&self.volume.to_le_bytes());
        header[8..16].copy_from_slice(&self.lba.to_le_bytes());
        header[16..].copy_from_slice(&self.third_word(seed).to_le_bytes());
        let first = (HEADER / 8) as u64;
        for (index, word) in (first..).zip(body.chunks_exact_mut(8)) {
            word.copy_from_slice(&body_word(seed, index).to_le_bytes());
        }
        let crc_at = words * 8 - 4;
        let crc = crc32(&block[..crc_at]);
        block[crc_at..].copy_from_slice(&crc.to_le_bytes());
    }

    /// Whether the block is this pattern, every byte of it.
    pub fn is_whole_in(&self, block: &[u8]) -> bool {
        let seed = self.seed();
        let last = block.len() - 8;
        let mut differs = word_at(block, 0) ^ self.volume;
        differs |= word_at(block, 8) ^ self.lba;
        differs |= word_at(block, 16) ^ self.third_word(seed);
        let first = (HEADER / 8) as u64;
        for (index, word) in (first..).zip(block[HEADER..last].chunks_exact(8)) {
            let found = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            differs |= found ^ body_word(seed, index);
        }
        let tail = word_at(block, last);
        differs |= u64::from(tail as u32 ^ body_word(seed, (last / 8) as u64) as u32);
        differs == 0 && (tail >> 32) as u32 == crc32(&block[..last + 4])
    }

    /// What the block's header says, true or not.
    pub fn claimed_by(block: &[u8]) -> Self {
        Self {
            volume: word_at(block, 0),
            lba: word_at(block, 8),
            generation: word_at(block, 16) as u32,
        }
    }

    /// The stamp that the block's header names, if volume, address, generation and seed agree.
    fn in_header(block: &[u8]) -> Option<Self> {
        let claimed = Self::claimed_by(block);
        let agrees = word_at(block, 16) == claimed.third_word(claimed.seed());
        (claimed.volume != 0 && agrees).then_some(claimed)
    }

    fn third_word(&self, seed: u64) -> u64 {
        u64::from(self.generation) | seed >> 32 << 32
    }
}

/// Finds out what a block holds. Slow: for blocks that are not what was expected.
pub fn inspect(block: &[u8]) -> Content {
    if block.iter().all(|&byte| byte == 0) {
        return Content::Zeros;
    }
    let header = Stamp::in_header(block);
    if let Some(stamp) = header
        && stamp.is_whole_in(block)
    {
        return Content::Whole(stamp);
    }
    let mut pieces = vec![Piece {
        start: 0,
        end: HEADER,
        source: header.map_or(Source::Unknown, Source::Header),
    }];
    let last = block.len() - 8;
    for start in (HEADER..last).step_by(8) {
        let source = match word_at(block, start) {
            0 => Source::Zeros,
            word => Source::Body(implied_seed(word, (start / 8) as u64)),
        };
        match pieces.last_mut() {
            Some(piece) if piece.source == source => piece.end = start + 8,
            _ => pieces.push(Piece {
                start,
                end: start + 8,
                source,
            }),
        }
    }
    pieces.push(tail(block, pieces.last().map(|piece| piece.source)));
    // Any word implies some seed; only neighbours that agree, or a header that names it, prove one.
    let named = header.map(|stamp| stamp.seed());
    for piece in &mut pieces {
        if let Source::Body(seed) = piece.source
            && piece.end - piece.start < 16
            && Some(seed) != named
        {
            piece.source = Source::Unknown;
        }
    }
    let proven = |p: &Piece| matches!(p.source, Source::Header(_) | Source::Body(_));
    if pieces.iter().any(proven) {
        pieces.dedup_by(|next, piece| {
            let same = next.source == piece.source;
            if same {
                piece.end = next.end;
            }
            same
        });
        Content::Torn(pieces)
    } else {
        Content::Unknown
    }
}

/// The last word: of the same source as the piece before it, if its derived half and its checksum
/// fit; otherwise it is a piece of its own.
fn tail(block: &[u8], before: Option<Source>) -> Piece {
    let last = block.len() - 8;
    let word = word_at(block, last);
    let source = match before {
        Some(Source::Body(seed))
            if word as u32 == body_word(seed, (last / 8) as u64) as u32
                && (word >> 32) as u32 == crc32(&block[..last + 4]) =>
        {
            Source::Body(seed)
        }
        _ if word == 0 => Source::Zeros,
        _ => Source::Unknown,
    };
    Piece {
        start: last,
        end: block.len(),
        source,
    }
}

fn body_word(seed: u64, index: u64) -> u64 {
    seed.wrapping_add(index.wrapping_mul(STEP))
}

fn implied_seed(word: u64, index: u64) -> u64 {
    word.wrapping_sub(index.wrapping_mul(STEP))
}

fn word_at(block: &[u8], start: usize) -> u64 {
    u64::from_le_bytes(block[start..start + 8].try_into().expect("8 bytes"))
}

fn crc32(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32IsoHdlc, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: Stamp = Stamp {
        volume: 0xfeed,
        lba: 77,
        generation: 6,
    };
    const NEW: Stamp = Stamp {
        generation: 7,
        ..OLD
    };

    fn block(stamp: Stamp, size: usize) -> Vec<u8> {
        let mut block = vec![0xee; size];
        stamp.write_to(&mut block);
        block
    }

    fn pieces(block: &[u8]) -> Vec<Piece> {
        match inspect(block) {
            Content::Torn(pieces) => pieces,
            other => panic!("torn expected, found {other:?}"),
        }
    }

    #[test]
    fn a_block_says_whose_it_is() {
        for size in [512, 4096] {
            let bytes = block(NEW, size);
            assert!(NEW.is_whole_in(&bytes));
            assert!(!OLD.is_whole_in(&bytes));
            assert_eq!(inspect(&bytes), Content::Whole(NEW));
        }
    }

    #[test]
    fn header_fields_and_checksum_are_where_the_table_says() {
        let bytes = block(NEW, 512);
        assert_eq!(bytes[..8], 0xfeedu64.to_le_bytes());
        assert_eq!(bytes[8..16], 77u64.to_le_bytes());
        assert_eq!(bytes[16..20], 7u32.to_le_bytes());
        // CRC-32 bit by bit, from its polynomial.
        let mut crc = !0u32;
        for byte in &bytes[..508] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
            }
        }
        assert_eq!(bytes[508..], (!crc).to_le_bytes());
    }

    #[test]
    fn zeros_and_noise_are_no_pattern() {
        assert_eq!(inspect(&[0; 512]), Content::Zeros);
        let noise: Vec<u8> = (0..512u32).map(|i| (i * i * 31 + 7) as u8).collect();
        assert_eq!(inspect(&noise), Content::Unknown);
    }

    #[test]
    fn a_tear_names_both_halves() {
        let mut torn = block(OLD, 4096);
        torn[..512].copy_from_slice(&block(NEW, 4096)[..512]);
        let found = pieces(&torn);
        let expected = [
            (0, 24, Source::Header(NEW)),
            (24, 512, Source::Body(NEW.seed())),
            (512, 4088, Source::Body(OLD.seed())),
            (4088, 4096, Source::Unknown),
        ];
        let found: Vec<_> = found.iter().map(|p| (p.start, p.end, p.source)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hole_of_zeros_is_named() {
        let mut torn = block(NEW, 4096);
        torn[1024..2048].fill(0);
        let hole = Piece {
            start: 1024,
            end: 2048,
            source: Source::Zeros,
        };
        assert!(pieces(&torn).contains(&hole));
    }

    #[test]
    fn an_odd_xor_of_good_blocks_is_not_good() {
        let mut parity = vec![0u8; 4096];
        for lba in [1, 2, 4] {
            for (sum, byte) in parity.iter_mut().zip(block(Stamp { lba, ..NEW }, 4096)) {
                *sum ^= byte;
            }
        }
        assert_eq!(Stamp::claimed_by(&parity).lba, 7);
        assert!(!matches!(inspect(&parity), Content::Whole(_)));
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_seen(
            at in 0..4096usize,
            change in 1..=255u8,
            lba in any::<u64>(),
            generation in any::<u32>(),
        ) {
            let stamp = Stamp { volume: 9, lba, generation };
            let mut bytes = block(stamp, 4096);
            bytes[at] ^= change;
            prop_assert!(!stamp.is_whole_in(&bytes));
            prop_assert!(!matches!(inspect(&bytes), Content::Whole(_)));
        }

        #[test]
        fn every_tear_is_seen(
            size in prop::sample::select(vec![512usize, 4096]),
            cut in any::<prop::sample::Index>(),
            old_generation in 1..1000u32,
            ahead in 1..1000u32,
        ) {
            let old = Stamp { generation: old_generation, ..OLD };
            let new = Stamp { generation: old_generation + ahead, ..OLD };
            let cut = 8 * (1 + cut.index(size / 8 - 1));
            let mut torn = block(old, size);
            torn[..cut].copy_from_slice(&block(new, size)[..cut]);
            prop_assert!(!new.is_whole_in(&torn));
            // Volume and address are the same in both: the first 16 bytes can't tell.
            prop_assert_eq!(old.is_whole_in(&torn), cut <= 16);
            if cut > 16 {
                prop_assert!(matches!(inspect(&torn), Content::Torn(_)));
            }
        }

        #[test]
        fn inspection_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 512)) {
            let _ = inspect(&bytes);
        }
    }
}
