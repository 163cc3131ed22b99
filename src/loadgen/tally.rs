//! Counting and timing of completed requests.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::fault::FaultKind;

/// Latencies above this are recorded as this.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Device to host.
    Read,
    /// Host to device.
    Write,
    /// No data: a flush.
    Flush,
}

impl Direction {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Read => "read",
            Direction::Write => "write",
            Direction::Flush => "flush",
        }
    }
}

/// Requests of one direction that succeeded.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Payload bytes.
    pub bytes: u64,
    /// Latencies in nanoseconds, to three digits; its length is the number of requests.
    pub latency: Histogram<u64>,
}

/// All that a run counts.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Reads.
    pub read: Lane,
    /// Writes.
    pub write: Lane,
    /// Flushes; not counted as I/O in sums.
    pub flush: Lane,
    /// Requests that were answered with an error, or lost with their connection.
    pub failed: u64,
    /// Requests that were not answered in time; they count as failed too.
    pub timed_out: u64,
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blocks read and found to hold what they must.
    pub verified: u64,
    /// Blocks read that no write had certainly reached.
    pub unwritten: u64,
    /// Blocks that hold something else, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
}

impl Lane {
    fn new() -> Self {
        let longest = LONGEST.as_nanos() as u64;
        Self {
            bytes: 0,
            latency: Histogram::new_with_bounds(1, longest, 3).expect("bounds in order"),
        }
    }

    /// Number of requests.
    pub fn count(&self) -> u64 {
        self.latency.len()
    }

    fn absorb(&mut self, other: &Lane) {
        self.bytes += other.bytes;
        let same_bounds = self.latency.add(&other.latency);
        same_bounds.expect("all lanes have the same bounds");
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            read: Lane::new(),
            write: Lane::new(),
            flush: Lane::new(),
            failed: 0,
            timed_out: 0,
        }
    }
}

impl Tally {
    /// Counts a request that succeeded.
    pub fn record(&mut self, direction: Direction, bytes: usize, latency: Duration) {
        let lane = match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
            Direction::Flush => &mut self.flush,
        };
        lane.bytes += bytes as u64;
        lane.latency.saturating_record(latency.as_nanos() as u64);
    }

    /// Adds what another run has counted.
    pub fn absorb(&mut self, other: &Tally) {
        self.read.absorb(&other.read);
        self.write.absorb(&other.write);
        self.flush.absorb(&other.flush);
        self.failed += other.failed;
        self.timed_out += other.timed_out;
    }

    /// Reads and writes together.
    pub fn total(&self) -> Lane {
        let mut total = self.read.clone();
        total.absorb(&self.write);
        total
    }

    /// Number of reads and writes.
    pub fn count(&self) -> u64 {
        self.read.count() + self.write.count()
    }

    /// Payload bytes of reads and writes.
    pub fn bytes(&self) -> u64 {
        self.read.bytes + self.write.bytes
    }
}

impl Findings {
    /// Number of faulty blocks.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}
