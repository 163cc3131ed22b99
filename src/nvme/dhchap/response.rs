//! The answer to a challenge.

use std::fmt;

use super::hash::{Hash, Tag};
use crate::nvme::Nqn;

/// Who proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prover {
    /// The host, to the controller.
    Host,
    /// The controller, to the host.
    Controller,
}

impl Prover {
    /// The text that keeps the answer of one from being used as the answer of the other.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Host => b"HostHost",
            Self::Controller => b"Controller",
        }
    }
}

/// A challenge, and everything else that the answer depends on besides the key (Base,
/// "DH-HMAC-CHAP_Reply Message" and "DH-HMAC-CHAP_Success1 Message").
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The hash function.
    pub hash: Hash,
    /// Who is to answer.
    pub prover: Prover,
    /// The challenge, as long as a hash.
    pub challenge: &'a [u8],
    /// The sequence number that came with the challenge.
    pub sequence: u32,
    /// The transaction.
    pub transaction: u16,
    /// The host.
    pub host: &'a Nqn,
    /// The subsystem.
    pub subsystem: &'a Nqn,
    /// What both sides got from the Diffie-Hellman exchange; empty without one.
    pub shared_secret: &'a [u8],
}

/// Without what is secret.
impl fmt::Debug for Question<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Question")
            .field("hash", &self.hash)
            .field("prover", &self.prover)
            .field("transaction", &self.transaction)
            .finish_non_exhaustive()
    }
}

impl Question<'_> {
    /// The answer of whoever has this key.
    #[must_use]
    pub fn answer(&self, key: &[u8]) -> Tag {
        let augmented;
        let challenge = if self.shared_secret.is_empty() {
            self.challenge
        } else {
            let session_key = self.hash.digest(self.shared_secret);
            augmented = self.hash.hmac(session_key.as_bytes(), &[self.challenge]);
            augmented.as_bytes()
        };
        let (prover, verifier) = match self.prover {
            Prover::Host => (self.host, self.subsystem),
            Prover::Controller => (self.subsystem, self.host),
        };
        let parts: [&[u8]; 8] = [
            challenge,
            &self.sequence.to_le_bytes(),
            &self.transaction.to_le_bytes(),
            // No secure channel is to follow.
            &[0],
            self.prover.label(),
            prover.as_str().as_bytes(),
            &[0],
            verifier.as_str().as_bytes(),
        ];
        self.hash.hmac(key, &parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answers = [[u8; 8]; 2];

    /// The first bytes of the answers of host and controller, without and with a shared secret, as a
    /// program in Python has them that was written from the specification. That Linux computes the
    /// same is what `tests/hosts/authentication.sh` shows.
    const KNOWN: [(Hash, Answers, Answers); 3] = [
        (
            Hash::Sha256,
            [
                [0xf1, 0x33, 0x45, 0xf7, 0xa8, 0xad, 0xa0, 0x70],
                [0x01, 0x68, 0x78, 0x7a, 0x48, 0x01, 0xc6, 0x81],
            ],
            [
                [0xaa, 0xe5, 0x60, 0xf0, 0xe5, 0x7b, 0x62, 0x9c],
                [0xb3, 0x20, 0xe4, 0xe0, 0xcc, 0xb7, 0x3a, 0xae],
            ],
        ),
        (
            Hash::Sha384,
            [
                [0x3c, 0x4e, 0x0b, 0x95, 0x0f, 0x8b, 0x55, 0xab],
                [0x3a, 0x05, 0x34, 0xef, 0xb3, 0xbd, 0xa0, 0xb2],
            ],
            [
                [0x4a, 0x25, 0x2c, 0x36, 0x2d, 0xa3, 0x6b, 0x41],
                [0xa2, 0xfe, 0x34, 0x9c, 0x0c, 0xc9, 0xf0, 0x6d],
            ],
        ),
        (
            Hash::Sha512,
            [
                [0x53, 0x52, 0x35, 0xa4, 0x70, 0x5d, 0x43, 0xf8],
                [0xcc, 0xda, 0x4a, 0xb0, 0x35, 0xeb, 0x28, 0xd5],
            ],
            [
                [0x2e, 0xf2, 0x93, 0xb6, 0xb6, 0x33, 0x19, 0x84],
                [0xa1, 0xab, 0xfd, 0x65, 0xc8, 0xd2, 0x7b, 0xd7],
            ],
        ),
    ];

    #[test]
    fn answers_are_those_of_the_specification() {
        let host = Nqn::new("nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555");
        let subsystem = Nqn::new("nqn.2026-11.io.example:a");
        let (host, subsystem) = (host.unwrap(), subsystem.unwrap());
        let key: Vec<u8> = (0..32).collect();
        // Begins with a zero, which must not be left out.
        let mut secret = vec![7; 256];
        secret[0] = 0;
        for (hash, plain, mixed) in KNOWN {
            let challenge: Vec<u8> = (0..hash.size() as u8).map(|i| 0x40 + i).collect();
            for (shared_secret, expected) in [(&[][..], plain), (&secret[..], mixed)] {
                let question = |prover| Question {
                    hash,
                    prover,
                    challenge: &challenge,
                    sequence: 0x0102_0304,
                    transaction: 0x1234,
                    host: &host,
                    subsystem: &subsystem,
                    shared_secret,
                };
                let answers = [Prover::Host, Prover::Controller]
                    .map(|prover| question(prover).answer(&key).as_bytes()[..8].to_vec());
                assert_eq!(answers, expected, "{hash}");
            }
        }
    }
}
