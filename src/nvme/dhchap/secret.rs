//! The secret that host and controller share, in the form in which people hand it on.
//!
//! `DHHC-1:hh:BASE64:` (Base, "Secret Representation"): in base64 the secret of 32, 48 or 64 bytes
//! and its CRC-32. `hh` is 00 for a secret that is used as it is; 01, 02 and 03 name the hash
//! function with which it is made a key that is of use under one qualified name only.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum};
use zeroize::Zeroizing;

use super::hash::Hash;
use crate::nvme::Nqn;

/// Bytes of the CRC behind a secret.
const CHECK: usize = 4;

/// What a secret is hashed with besides the name.
const CONTEXT: &[u8] = b"NVMe-over-Fabrics";

/// Why a text is no secret. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It begins otherwise.
    #[error("it does not begin with DHHC-1:; make a key with `nvme gen-dhchap-key`")]
    Prefix,
    /// The hash function is unknown.
    #[error("behind DHHC-1: must come 00:, 01:, 02: or 03:; make a key with `nvme gen-dhchap-key`")]
    Hash,
    /// What follows is not base64.
    #[error("what follows DHHC-1:hh: is not base64; copy the key again, in one line")]
    Base64,
    /// The secret has no length that one may have.
    #[error(
        "the secret has {0} bytes; it must have 32, 48 or 64 (`nvme gen-dhchap-key --key-length`)"
    )]
    Length(usize),
    /// The secret has not the length of what its hash function gives.
    #[error("the secret has {have} bytes, but a key for {hash} has {}; make a key with `nvme gen-dhchap-key --hmac`", hash.size())]
    Mismatch {
        /// Its hash function.
        hash: Hash,
        /// Its bytes.
        have: usize,
    },
    /// The CRC does not match.
    #[error("its checksum does not match: the key is damaged; copy it again")]
    Checksum,
}

/// A secret. Wiped when it goes, and never shown.
pub struct Secret {
    transform: Option<Hash>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Reads a secret from its text. White space around it and the last colon do not matter.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let rest = text.trim_ascii().strip_prefix(b"DHHC-1:");
        let (code, rest) = rest
            .ok_or(SecretError::Prefix)?
            .split_at_checked(3)
            .ok_or(SecretError::Hash)?;
        let transform = match code {
            b"00:" => None,
            b"01:" => Some(Hash::Sha256),
            b"02:" => Some(Hash::Sha384),
            b"03:" => Some(Hash::Sha512),
            _ => return Err(SecretError::Hash),
        };
        let encoded = rest.strip_suffix(b":").unwrap_or(rest);
        // Of its full size from the start: memory that is given up on growing would not be wiped.
        let room = base64::decoded_len_estimate(encoded.len());
        let mut bytes = Zeroizing::new(vec![0; room]);
        let decoded = STANDARD.decode_slice(encoded, &mut bytes);
        bytes.truncate(decoded.map_err(|_| SecretError::Base64)?);
        let have = bytes.len().saturating_sub(CHECK);
        if !matches!(have, 32 | 48 | 64) {
            return Err(SecretError::Length(have));
        }
        if let Some(hash) = transform.filter(|hash| hash.size() != have) {
            return Err(SecretError::Mismatch { hash, have });
        }
        let found = checksum(CrcAlgorithm::Crc32IsoHdlc, &bytes[..have]) as u32;
        if bytes[have..] != found.to_le_bytes() {
            return Err(SecretError::Checksum);
        }
        bytes.truncate(have);
        Ok(Self { transform, bytes })
    }

    /// The key that it is for whoever has this name: for the host's secret the host, for the
    /// controller's secret the subsystem.
    #[must_use]
    pub fn key_of(&self, name: &Nqn) -> Zeroizing<Vec<u8>> {
        match self.transform {
            None => self.bytes.clone(),
            Some(hash) => {
                let tag = hash.hmac(&self.bytes, &[name.as_str().as_bytes(), CONTEXT]);
                Zeroizing::new(tag.as_bytes().to_vec())
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What nvme-cli 2.3 made of the bytes 0, 1, 2 and so on: `nvme gen-dhchap-key --secret`.
    const PLAIN: [(&str, usize); 3] = [
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR", 32),
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vcSEgBQ==",
            48,
        ),
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P4zODhA=",
            64,
        ),
    ];

    /// A host, and what nvme-cli made of them for it: `--hmac` 1, 2, 3 and `--nqn`. There, the key is
    /// transformed when it is made.
    const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
    const TRANSFORMED: [&str; 3] = [
        "DHHC-1:01:bOHk6jHoMxpP5YJr/eF6XNOGuPAzh0iRniebpsVb9ydqVuR5:",
        "DHHC-1:02:JzgkyQ7IBRNgZgoVJQTRqDZ62Hnj5/kZ+vrrqjiE4TzoZZv5ycVS5cOLCiZ1bQfVVxJqow==:",
        "DHHC-1:03:D+Ucidhr9Oh00yaKCrMLB2s2c/hsojlyxwni12p59UZ78f4YQ6UMpEcQG4yaPnLJFkljK+euytryvvQe2rYShiu0Vv0=:",
    ];

    fn nqn(text: &str) -> Nqn {
        Nqn::new(text).expect("a name")
    }

    #[test]
    fn what_nvme_cli_has_made_is_read() {
        for (encoded, len) in PLAIN {
            let text = format!("DHHC-1:00:{encoded}:");
            let secret = Secret::parse(text.as_bytes()).unwrap();
            let expected: Vec<u8> = (0..len as u8).collect();
            assert_eq!(*secret.bytes, expected);
            assert_eq!(*secret.key_of(&nqn(HOST)), expected);
            let bare = format!(" {}\n", text.trim_end_matches(':'));
            assert_eq!(*Secret::parse(bare.as_bytes()).unwrap().bytes, expected);
        }
    }

    #[test]
    fn a_key_is_of_use_under_its_name_as_nvme_cli_makes_it() {
        for (n, expected) in TRANSFORMED.into_iter().enumerate() {
            let text = format!("DHHC-1:0{}:{}:", n + 1, PLAIN[n].0);
            let secret = Secret::parse(text.as_bytes()).unwrap();
            let expected = Secret::parse(expected.as_bytes()).unwrap();
            assert_eq!(*secret.key_of(&nqn(HOST)), *expected.bytes);
            assert_ne!(
                *secret.key_of(&nqn("nqn.2026-11.io.example:other")),
                *expected.bytes
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_else() {
        let good = PLAIN[0].0;
        let cases = [
            (format!("NVMeTLSkey-1:01:{good}:"), SecretError::Prefix),
            (String::new(), SecretError::Prefix),
            ("DHHC-1:".into(), SecretError::Hash),
            (format!("DHHC-1:04:{good}:"), SecretError::Hash),
            (format!("DHHC-1:{good}:"), SecretError::Hash),
            (format!("DHHC-1:00:{good}=:"), SecretError::Base64),
            (format!("DHHC-1:00:{}!:", &good[1..]), SecretError::Base64),
            (
                format!("DHHC-1:00:{}:", &good[4..]),
                SecretError::Length(29),
            ),
            ("DHHC-1:00::".into(), SecretError::Length(0)),
            (
                format!("DHHC-1:02:{good}:"),
                SecretError::Mismatch {
                    hash: Hash::Sha384,
                    have: 32,
                },
            ),
            (format!("DHHC-1:00:B{}:", &good[1..]), SecretError::Checksum),
        ];
        for (text, expected) in cases {
            let error = Secret::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{text}");
            let told = format!("{error} {error:?}");
            assert!(!told.contains(&good[4..12]), "{told}");
        }
        let secret = Secret::parse(format!("DHHC-1:00:{good}:").as_bytes()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");
    }

    proptest! {
        /// Any bytes are taken or refused, and a key with one byte changed is refused.
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Secret::parse(&bytes);
            let _ = Secret::parse(&[b"DHHC-1:00:", &bytes[..]].concat());
        }

        #[test]
        fn a_damaged_key_is_refused(at in 10usize..58, to in any::<u8>()) {
            let mut text = format!("DHHC-1:00:{}:", PLAIN[0].0).into_bytes();
            prop_assume!(text[at] != to);
            text[at] = to;
            prop_assert!(Secret::parse(&text).is_err());
        }
    }
}
