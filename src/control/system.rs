//! Everything there is, in one place, owned by one thread.

use std::time::Instant;

use super::log::LogSwitch;
use crate::bdev::Registry;
use crate::nvmf::{Target, TargetSetup};
use crate::reactor::Reactors;

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Options may be set; nothing is served.
    Startup,
    /// The rest may be done.
    Runtime,
}

/// The devices, volumes, target and reactors of the process.
#[derive(Debug)]
pub struct System {
    /// All devices by name.
    pub registry: Registry,
    /// The NVMe-oF target.
    pub target: Target,
    /// The reactors; none in tools that do no I/O.
    pub reactors: Option<Reactors>,
    /// How much is logged.
    pub log: LogSwitch,
    started: Instant,
    phase: Phase,
}

impl System {
    /// A system with nothing in it.
    pub fn new(reactors: Option<Reactors>, log: LogSwitch) -> Self {
        Self {
            registry: Registry::default(),
            target: Target::new(TargetSetup::default()),
            reactors,
            log,
            started: Instant::now(),
            phase: Phase::Startup,
        }
    }

    /// How far the start has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The start is complete.
    pub fn finish_startup(&mut self) {
        self.phase = Phase::Runtime;
    }

    /// Moves everything on that needs no call. Returns when it wants to be asked again at the
    /// latest.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.target.poll(now)
    }

    /// Nanoseconds since the start: the clock of everything that is counted in ticks.
    pub fn ticks(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// [`System::ticks`] in a second.
pub const TICK_RATE: u64 = 1_000_000_000;
