//! DH-HMAC-CHAP, the in-band authentication of NVMe-oF (Base 2.0, 8.13.5; TP 8006 and 8018): plain
//! data and functions of it.
//!
//! Host and controller share a secret. Who is to be authenticated gets a random challenge, and
//! answers with a keyed hash of it, into which a Diffie-Hellman exchange may be mixed so that a
//! listener cannot try secrets at home. Nothing here knows of queues, time or randomness, and
//! nothing that is secret is ever shown: not by `Debug`, not in an error.

mod group;
mod hash;
mod message;
mod response;
mod secret;

pub use group::DhGroup;
pub use hash::{Hash, Tag};
pub use message::{
    Challenge, Explanation, HostMessage, Negotiate, Offer, Reply, failure1, success1,
    transaction_of,
};
pub use response::{Prover, Question};
pub use secret::{Secret, SecretError};
