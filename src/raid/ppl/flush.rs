//! What was stored must leave the members' caches before the entries for it are dropped. One flush
//! serves all logs of a node, and covers all that had ended when it began.

use super::logs::Means;
use crate::bdev::{Data, Op, Request, Status};

/// The flushes of one node's logs.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Counts flushes: what ended before one began is covered by it.
    pub begun: u64,
    /// Bays that have not answered the latest.
    in_flight: u64,
    /// Bays that have, and well.
    done: u64,
    /// Bays whose member failed one: it is as good as lost.
    pub failed: u64,
    /// The latest is under way.
    active: bool,
}

/// A flush that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flushed {
    /// It covers what ended before this one.
    pub number: u64,
    /// Bays whose members are flushed.
    pub bays: u64,
}

impl Flushes {
    /// Begins a flush of `bays`, unless one is under way.
    pub(super) fn begin(&mut self, bays: u64, means: &mut Means) {
        let bays = bays & !self.failed;
        if self.active || bays == 0 {
            return;
        }
        self.active = true;
        self.begun += 1;
        self.in_flight = bays;
        self.done = 0;
        for bay in (0..u64::BITS as usize).filter(|bay| bays & (1 << bay) != 0) {
            let request = Request {
                token: Means::FLUSH,
                op: Op::Flush,
                lba: 0,
                blocks: 0,
                data: Data::None,
            };
            means.requests.push((bay, request));
        }
    }

    /// A member has answered. Says what is flushed when the last one has.
    pub(super) fn answered(&mut self, bay: usize, status: Status) -> Option<Flushed> {
        let bit = 1 << bay;
        self.in_flight &= !bit;
        match status {
            Status::Ok => self.done |= bit,
            _ => self.failed |= bit,
        }
        if self.in_flight != 0 {
            return None;
        }
        self.active = false;
        Some(Flushed {
            number: self.begun,
            bays: self.done,
        })
    }

    /// Whether one is under way.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }
}
