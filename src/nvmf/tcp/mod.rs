//! One NVMe/TCP connection as a state machine: bytes in, bytes out, no socket and no clock.
//!
//! It owns PDUs, digests, command slots and data transfers. It knows nothing of what commands
//! mean: whoever drives it decides where a payload goes and what is answered.

mod connection;
mod output;
mod scratch;
mod sink;
mod slots;

pub use connection::{Arrival, Connection, End, Settings};
pub use output::GATHER;
pub use sink::Sink;
pub use slots::SlotId;
