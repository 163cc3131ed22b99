//! Header and data digests: CRC-32C (RFC 3720 appendix B.4), least significant byte first on the wire.

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-32C of bytes that lie together.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C of bytes that come or lie in pieces.
#[derive(Debug, Clone, Copy)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// The digest of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces so far.
    #[must_use]
    pub fn value(&self) -> u32 {
        // The algorithm is 32 bits wide, the crate's answer 64.
        (self.0.finalize() & 0xffff_ffff) as u32
    }

    /// The digest of pieces that lie apart, in their order.
    #[must_use]
    pub fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
        let mut digest = Self::new();
        for piece in pieces {
            digest.update(piece);
        }
        digest.value()
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The polynomial of Castagnoli, a bit at a time: slow and plain.
    fn naive(bytes: &[u8]) -> u32 {
        let mut state = u32::MAX;
        for byte in bytes {
            state ^= u32::from(*byte);
            for _ in 0..8 {
                state = if state & 1 == 1 {
                    state >> 1 ^ 0x82f6_3b78
                } else {
                    state >> 1
                };
            }
        }
        !state
    }

    #[test]
    fn known_answers() {
        // The check value of CRC-32C, and the examples of RFC 3720 appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        let descending: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&descending), 0x113f_db5c);
        assert_eq!(crc32c(&[]), 0);
        assert_eq!(Crc32c::new().value(), 0);
    }

    proptest! {
        #[test]
        fn pieces_give_the_digest_of_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..6)) {
            let whole = pieces.concat();
            let expected = naive(&whole);
            prop_assert_eq!(crc32c(&whole), expected);
            prop_assert_eq!(Crc32c::of_pieces(pieces.iter().map(Vec::as_slice)), expected);
        }
    }
}
