//! The host side of NVMe/TCP: what drives a namespace on a target, here or on another machine.
//!
//! [`Queue`] is one queue pair and [`Controller`] the association that brings queues up; both take
//! bytes and time and give bytes, and know no socket and no clock. [`Socket`] moves the bytes. The
//! room knows the wire format and memory, nothing above.
#![forbid(unsafe_code)]

mod controller;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod inbox;
mod outbox;
mod payload;
mod queue;
mod slot;
mod socket;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
pub mod trial;

pub use controller::{Controller, ControllerError, ControllerSettings, Facts, Namespace};
pub use error::{CommandError, QueueError};
pub use payload::Payload;
pub use queue::{Done, Queue, QueueSettings};
pub use socket::{Hangup, Socket};
