//! What a reactor counts about itself, for anybody to read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::ReactorId;

/// How one reactor has spent its time since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReactorStats {
    /// Which reactor.
    pub id: ReactorId,
    /// The core that it is pinned to.
    pub core: usize,
    /// Nanoseconds in turns that made progress.
    pub busy_ns: u64,
    /// Nanoseconds in turns that did not, and asleep.
    pub idle_ns: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that made progress.
    pub busy_turns: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// The kernel's id of the thread, 0 before it runs.
    pub tid: u32,
}

/// The counters of one reactor, alone on their cache lines (two, because neighbours are fetched in
/// pairs). Only the reactor writes them, so that adding is a load and a store.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    turns: AtomicU64,
    busy_turns: AtomicU64,
    sleeps: AtomicU64,
    tid: AtomicU32,
}

impl Counters {
    pub(super) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// A turn is over; it took `time`, including the sleep at its end if there was one.
    pub(super) fn turn(&self, time: Duration, busy: bool, slept: bool) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let spent = if busy { &self.busy_ns } else { &self.idle_ns };
        add(spent, ns);
        add(&self.turns, 1);
        add(&self.busy_turns, u64::from(busy));
        add(&self.sleeps, u64::from(slept));
    }

    pub(super) fn read(&self, id: ReactorId, core: usize) -> ReactorStats {
        ReactorStats {
            id,
            core,
            busy_ns: self.busy_ns.load(Ordering::Relaxed),
            idle_ns: self.idle_ns.load(Ordering::Relaxed),
            turns: self.turns.load(Ordering::Relaxed),
            busy_turns: self.busy_turns.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            tid: self.tid.load(Ordering::Relaxed),
        }
    }
}

/// For the one writer only.
fn add(counter: &AtomicU64, amount: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(amount);
    counter.store(sum, Ordering::Relaxed);
}
