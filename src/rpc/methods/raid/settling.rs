//! Calls that answer when it is decided whether arrays are started without members that are away.

use std::time::{Duration, Instant};

use crate::control::System;
use crate::rpc::Outcome;
use crate::rpc::methods::Pending;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A call that waits for one array, or for all of them.
#[derive(Debug)]
pub struct Settling {
    name: Option<String>,
}

impl Settling {
    /// One that waits for the array of this name, or for all.
    pub fn of(name: Option<String>) -> Self {
        Self { name }
    }
}

impl Pending for Settling {
    fn poll(&mut self, system: &mut System, _now: Instant) -> Option<Outcome> {
        let waits = system.arrays.next_degraded_start(self.name.as_deref());
        waits.is_none().then(|| Ok(true.into()))
    }

    /// The control thread decides in its own time; that time comes.
    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}
