//! How a sleeping reactor hears of completions: by an interrupt, which is switched on for the sleep only.
//!
//! The reactor says when it looks for the last time. Then the vector of the queue is bound to an eventfd that ends the sleep,
//! and only after that the channel looks at its completions: what came before the binding it finds now, and what comes later
//! ends the sleep. While reactors poll, vectors signal nothing, and the device's interrupts stay masked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::bar::Bar;
use crate::reactor::{self, Registration};

/// The interrupt of one queue, on the reactor that has the queue.
#[derive(Debug)]
pub(super) struct Bell {
    vector: u16,
    event: OwnedFd,
    is_bound: bool,
    _registration: Registration,
}

impl Bell {
    /// Of an interrupt vector; `None` on a thread that is no reactor, or where there are no descriptors left: then there is
    /// no sleep with commands in flight.
    pub(super) fn new(vector: u16) -> Option<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).ok()?;
        Some(Self {
            vector,
            _registration: reactor::wake_on_readable(event.as_fd())?,
            event,
            is_bound: false,
        })
    }

    /// Whether it rings.
    pub(super) fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Switches it on or off.
    ///
    /// # Errors
    /// What the operating system says; then it is off.
    pub(super) fn set(&mut self, bar: &dyn Bar, on: bool) -> io::Result<()> {
        self.is_bound = false;
        bar.bind_vector(self.vector, on.then(|| self.event.as_fd()))?;
        self.is_bound = on;
        Ok(())
    }
}
