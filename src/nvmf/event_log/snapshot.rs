//! What poll groups know of the log.

use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::nvme::log_page::persistent_header;
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

impl Snapshot {
    /// The page as it is at `now`, which is `timestamp` for events.
    pub fn page(&self, of: &Owner<'_>, generation: u16, timestamp: u64, now: Instant) -> Vec<u8> {
        let mut header = persistent_header(self.count, self.events.len() as u64);
        header.timestamp = timestamp.into();
        header.power_on_hours = self.lifetime.hours(now).into();
        header.power_cycles = self.lifetime.cycles.into();
        header.sn = ascii_field(of.serial);
        header.mn = ascii_field(of.model);
        header.subnqn = of.nqn.to_field();
        header.generation = generation.into();
        let mut page = header.as_bytes().to_vec();
        page.extend_from_slice(&self.events);
        page
    }
}
