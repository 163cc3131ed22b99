//! Namespaces of controllers on other machines, over NVMe/TCP.
//!
//! A [`TcpController`] is one association with a controller: a thread of its own, the *keeper*,
//! keeps its admin queue. Each channel of a [`TcpNamespace`] is one I/O queue with a connection of
//! its own, polled in the turns of its reactor. What they tell each other goes through the *link*:
//! the keeper says which association there is, the channels say when theirs has failed.
//!
//! While a controller is away its I/O waits in the channels, as long as [`Recovery`] says; then it
//! fails. What was in flight is sent again on the next association. Our target ends the
//! association that a host had before when it admits that host again at the same address, so nothing
//! of the old one comes late; `docs/operations.md` says what to mind with others.
//!
//! The room trusts no target: the worst that one can do is to be given up.

mod admin;
mod channel;
mod controller;
mod discovery;
mod flight;
mod keeper;
mod link;
mod namespace;
mod options;
mod status;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
mod trial;

pub use controller::{AttachError, HealthAnswer, TcpController};
pub use discovery::{Discovery, Found};
pub use link::Phase;
pub use namespace::TcpNamespace;
pub use options::{Recovery, RecoveryError, TcpOptions};
pub use status::Status;
#[cfg(any(test, fuzzing))]
pub use trial::{association, discovery};
