//! The persistent event log of a subsystem (log page 0Dh): what has happened, also before this process
//! was started.
//!
//! The control thread owns it: an [`EventLog`] for each subsystem that has a file. An event goes through
//! two steps: it is noted in the ring, where the oldest events make room for it; and the ring is written to
//! the file by a thread of its own ([`Writer`]). Poll groups are told a [`Snapshot`] of what is in the file,
//! when it is, so that no host reads what a crash would take back. A controller keeps the snapshot that its
//! host has begun to read, in a [`Context`].

mod context;
mod file;
mod log;
mod snapshot;
mod writer;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

pub use context::Context;
pub use file::trial;
pub use log::{EventLog, EventLogOptions};
pub use snapshot::{Lifetime, Owner, Page, Snapshot};
pub use writer::Writer;

/// The time of events: milliseconds since 1970, by the clock of this machine. Feature 0Eh tells the same,
/// unless a host has set it.
pub fn timestamp() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
