//! The hash functions of DH-HMAC-CHAP, alone and with a key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

codes! {
    /// Hash functions (Base, "DH-HMAC-CHAP Protocol Descriptor", HashID).
    pub enum Hash: u8 {
        Sha256 = 0x01, "SHA-256";
        Sha384 = 0x02, "SHA-384";
        Sha512 = 0x03, "SHA-512";
    }
}

/// What a hash function gives: 32, 48 or 64 bytes. Compared in constant time, wiped when it goes,
/// and never shown.
#[derive(Clone)]
pub struct Tag(Zeroizing<Vec<u8>>);

impl Tag {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `bytes` are the same, found out in a time that tells nothing of where they differ.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.0.ct_eq(bytes).into()
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tag({} bytes)", self.0.len())
    }
}

impl Hash {
    /// Bytes that it gives.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The word for it in SPDK's JSON-RPC.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The hash of some bytes.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Tag {
        fn of<D: Digest>(bytes: &[u8]) -> Tag {
            Tag(Zeroizing::new(D::digest(bytes).to_vec()))
        }
        match self {
            Self::Sha256 => of::<Sha256>(bytes),
            Self::Sha384 => of::<Sha384>(bytes),
            Self::Sha512 => of::<Sha512>(bytes),
        }
    }

    /// The HMAC (RFC 2104) of the parts, one behind the other, with a key of any length.
    #[must_use]
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Tag {
        fn of<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Tag {
            // The error is for functions that take keys of one length only.
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
            parts.iter().for_each(|part| mac.update(part));
            Tag(Zeroizing::new(mac.finalize().into_bytes().to_vec()))
        }
        match self {
            Self::Sha256 => of::<Hmac<Sha256>>(key, parts),
            Self::Sha384 => of::<Hmac<Sha384>>(key, parts),
            Self::Sha512 => of::<Hmac<Sha512>>(key, parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 2 of RFC 4231, so that each code is known to mean its function.
    #[test]
    fn each_code_is_its_function() {
        let parts: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        for (hash, begins) in [
            (Hash::Sha256, [0x5b, 0xdc, 0xc1, 0x46]),
            (Hash::Sha384, [0xaf, 0x45, 0xd2, 0xe3]),
            (Hash::Sha512, [0x16, 0x4b, 0x7a, 0x7b]),
        ] {
            let tag = hash.hmac(b"Jefe", parts);
            assert_eq!(tag.as_bytes()[..4], begins, "{hash}");
            assert_eq!(tag.as_bytes().len(), hash.size());
            assert!(tag.matches(hash.hmac(b"Jefe", parts).as_bytes()));
            assert!(!tag.matches(&tag.as_bytes()[1..]));
        }
        // FIPS 180-4, "abc".
        assert_eq!(Hash::Sha256.digest(b"abc").as_bytes()[..2], [0xba, 0x78]);
        assert_eq!(Hash::Sha384.digest(b"abc").as_bytes()[..2], [0xcb, 0x00]);
        assert_eq!(Hash::Sha512.digest(b"abc").as_bytes()[..2], [0xdd, 0xaf]);
    }

    #[test]
    fn a_tag_is_not_shown() {
        let shown = format!("{:?}", Hash::Sha256.digest(b"abc"));
        assert_eq!(shown, "Tag(32 bytes)");
    }
}
