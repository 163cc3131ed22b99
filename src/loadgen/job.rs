//! Everything that a run is told before it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::distribution::Distribution;
use super::quantity::{Bytes, BytesRange};
use super::workload::Pattern;
use crate::initiator::ControllerSettings;

/// A run: against whom, with what, for how long.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where the target listens.
    pub address: SocketAddr,
    /// Whom to connect to, and how. `namespace` names one.
    pub controller: ControllerSettings,
    /// Requests outstanding on each I/O queue.
    pub depth: u16,
    /// Mixture and order of requests.
    pub pattern: Pattern,
    /// Share of reads in percent where the pattern is mixed.
    pub read_percent: u8,
    /// Smallest and largest request; a request is a multiple of the smallest.
    pub request: BytesRange,
    /// Where the region begins that requests go to.
    pub offset: Option<Bytes>,
    /// How large it is.
    pub size: Option<Bytes>,
    /// Where in it, if addresses are random.
    pub distribution: Distribution,
    /// Seed of the sequence of requests.
    pub seed: u64,
    /// A flush after this many writes; 0 for none.
    pub flush_every: u64,
    /// Force unit access on every write.
    pub fua: bool,
    /// Requests a second at most; `None` for as many as can be.
    pub rate: Option<u64>,
    /// How long requests are made, the ramp not counted.
    pub runtime: Duration,
    /// How long requests are made before the counting starts.
    pub ramp: Duration,
    /// Requests to make at most.
    pub io_limit: Option<u64>,
    /// Whether, and what, to verify.
    pub verify: Verify,
    /// Where to keep what was acknowledged, for a later run.
    pub state: Option<PathBuf>,
    /// What to do when the target goes away.
    pub on_disconnect: OnDisconnect,
    /// The core to run on.
    pub core: Option<usize>,
}

/// What to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: payloads are not looked at.
    Off,
    /// Every block that is read.
    Reads,
    /// Every block that is read, and at the end all that was written.
    All,
    /// Make no requests of the pattern; read all that an earlier run was acknowledged.
    Only,
}

/// What to do when the target goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// End the run.
    Stop,
    /// Try to connect again for so long, then end the run.
    Reconnect(Duration),
}
