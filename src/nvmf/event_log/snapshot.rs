//! What poll groups know of the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::nvme::log_page::{PersistentLogHeader, persistent_header, portion};
use crate::nvme::{Nqn, ascii_field};

/// How often the subsystem was started, and for how long it has served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Starts, this one too.
    pub cycles: u64,
    /// How long it had served at `at`.
    pub served: Duration,
    /// Since when it serves on.
    pub at: Instant,
}

impl Lifetime {
    /// How long it has served.
    pub fn served_by(&self, now: Instant) -> Duration {
        self.served + now.saturating_duration_since(self.at)
    }

    /// Whole hours of that.
    pub fn hours(&self, now: Instant) -> u128 {
        (self.served_by(now).as_secs() / 3600).into()
    }
}

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many events.
    pub count: u32,
    /// The events, one after the other, the oldest first.
    pub events: Vec<u8>,
    /// Most that the page may be, in units of 64 KiB.
    pub size: u32,
    /// What is told of the subsystem's life.
    pub lifetime: Lifetime,
}

/// Whose log a page is of.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The subsystem.
    pub nqn: &'a Nqn,
    /// Its serial number.
    pub serial: &'a str,
    /// Its model number.
    pub model: &'a str,
}

/// The page as a host reads it: as it was at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    header: PersistentLogHeader,
    /// Shared, so that many hosts which read a long log do not take memory for it.
    log: Arc<Snapshot>,
}

impl Page {
    /// The page of this log, at `now`, which is `timestamp` for events.
    pub fn new(
        log: &Arc<Snapshot>,
        of: &Owner<'_>,
        generation: u16,
        timestamp: u64,
        now: Instant,
    ) -> Self {
        let mut header = persistent_header(log.count, log.events.len() as u64);
        header.timestamp = timestamp.into();
        header.power_on_hours = log.lifetime.hours(now).into();
        header.power_cycles = log.lifetime.cycles.into();
        header.sn = ascii_field(of.serial);
        header.mn = ascii_field(of.model);
        header.subnqn = of.nqn.to_field();
        header.generation = generation.into();
        Self {
            header,
            log: log.clone(),
        }
    }

    /// The bytes that a request for `len` bytes from `offset` gets, which may be fewer; `None` where the
    /// offset is behind the end.
    pub fn portion(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let header = self.header.as_bytes();
        let (from, more) = match portion(header, offset, len) {
            Some(of_header) => (of_header, 0),
            None => (&[][..], offset - header.len() as u64),
        };
        let of_events = portion(&self.log.events, more, len - from.len() as u64)?;
        Some([from, of_events].concat())
    }
}
