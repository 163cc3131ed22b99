//! Reactors: one polled loop per core, and what connects cores.
//!
//! A [`Reactors`] is a set of threads, each pinned to one core of a [`CoreMask`] and each running
//! one [`Poller`] over and over, a *turn* at a time. What a reactor owns is plain `&mut` inside
//! its poller. Others send it messages: reactors through the [`mesh()`], any thread through a
//! [`mailbox()`]. Descriptors report to the [`Events`] of the reactor they were registered with.
//!
//! The room knows nothing of storage or of hosts. It never blocks a poller; it sleeps only between
//! turns, only when a turn found nothing to do after the last chance of a message to slip in
//! unseen, and never past the poller's deadline.

#![forbid(unsafe_code)]

mod cores;
mod doorbell;
mod events;
mod mailbox;
mod mesh;
mod reactors;
mod run;
mod stats;
mod sync;
mod timer;

pub use cores::{CoreMask, CoreMaskError};
pub use doorbell::Waker;
pub use events::{Events, Interest, Ready, Registration};
pub use mailbox::{Mailbox, MailboxSender, mailbox};
pub use mesh::{Port, mesh};
pub use reactors::{Exit, ReactorError, Reactors, Setup};
pub use run::{IdlePolicy, current, events, is_last_look, wake_on_readable};
pub use stats::ReactorStats;
pub use timer::Timers;

use std::fmt;
use std::time::Instant;

/// Which reactor: its place in the core mask, counted from 0. Not the number of its core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReactorId(pub u16);

impl ReactorId {
    /// For use as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ReactorId {
    /// As the reactor's thread is named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reactor_{}", self.0)
    }
}

/// What a reactor does in each turn. Lives and dies on the reactor's thread.
pub trait Poller: 'static {
    /// One turn. Looks at every queue that anybody may put something in, so that a reactor which
    /// finds nothing may sleep; bounds its work, so that no queue waits for long; never blocks.
    fn poll(&mut self, turn: &Turn<'_>) -> Progress;

    /// When a turn will next be useful without any message or event.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl<P: Poller + ?Sized> Poller for Box<P> {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        (**self).poll(turn)
    }

    fn deadline(&self) -> Option<Instant> {
        (**self).deadline()
    }
}

/// What is known at the start of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The time, read once for the whole turn.
    pub now: Instant,
    /// The descriptors of this reactor's [`Events`] that are ready, at most 64. One that the
    /// poller deregisters may still be in here for the rest of this turn.
    pub ready: &'a [Ready],
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was nothing to do.
    Idle,
    /// Something was done, or there is more to do.
    Busy,
    /// The poller is done for good. It is dropped and its reactor ends.
    Finished,
}
