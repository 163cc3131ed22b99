//! The requests of one reactor to a device that has limits: those that may not go yet wait here, in
//! order.
//!
//! Reads wait for reads and writes for writes, because they may have limits of their own. Nobody spins:
//! who waits says when it is worth looking again. Reactors share a budget by stepping back: who has
//! had some of it looks a quarter of a slice later when there is some again, and less late the more often it
//! has come too late. What waits is bounded by the commands of all queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::io_queue::Token;
use super::limiter::{Limiter, SLICE, Ticks, Way};
use crate::bdev::{Op, Request};

/// How much later who has had its share looks for more, in ticks.
const STEP_BACK: u64 = SLICE / 4;

/// The waiting requests of a device.
#[derive(Debug)]
pub struct Throttle {
    limiter: Arc<Limiter>,
    block_size: u32,
    reads: Lane,
    writes: Lane,
}

/// Requests of one kind, oldest first.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<(Ticks, Request)>,
    /// When to look again; nothing before is of use.
    again: Ticks,
    /// How often there was nothing left since it has had something.
    missed: u32,
}

impl Throttle {
    /// Nothing waits yet for this device of blocks of `block_size` bytes.
    pub fn new(limiter: Arc<Limiter>, block_size: u32) -> Self {
        Self {
            limiter,
            block_size,
            reads: Lane::default(),
            writes: Lane::default(),
        }
    }

    /// Gives a request back that may go now, and keeps another.
    pub fn admit(&mut self, request: Request, now: Instant) -> Option<Request> {
        let Some(way) = way(request.op) else {
            return Some(request);
        };
        let now = self.limiter.ticks(now);
        let bytes = u64::from(request.blocks) * u64::from(self.block_size);
        let lane = match way {
            Way::Read => &mut self.reads,
            Way::Write => &mut self.writes,
        };
        if lane.waiting.is_empty() {
            match self.limiter.admit(way, bytes, now, now) {
                Ok(()) => return Some(request),
                Err(opening) => {
                    lane.missed = 0;
                    lane.wait(opening);
                }
            }
        }
        lane.waiting.push_back((now, request));
        None
    }

    /// Gives the requests that may go now to `go`.
    pub fn release(&mut self, now: Instant, mut go: impl FnMut(Request)) {
        if self.len() == 0 {
            return;
        }
        let now = self.limiter.ticks(now);
        let mut lanes = [(Way::Read, &mut self.reads), (Way::Write, &mut self.writes)];
        // A reactor that looks late finds both due: who had less is first.
        lanes.sort_by_key(|(_, lane)| lane.again);
        for (way, lane) in lanes {
            if lane.again > now {
                continue;
            }
            let mut missed = lane.missed + 1;
            while let Some((since, request)) = lane.waiting.pop_front() {
                let bytes = u64::from(request.blocks) * u64::from(self.block_size);
                if let Err(opening) = self.limiter.admit(way, bytes, since, now) {
                    lane.waiting.push_front((since, request));
                    lane.missed = missed;
                    lane.wait(opening);
                    break;
                }
                missed = 0;
                go(request);
            }
        }
    }

    /// When [`Throttle::release`] will be of use again.
    pub fn deadline(&self) -> Option<Instant> {
        let lanes = [&self.reads, &self.writes].into_iter();
        let waiting = lanes.filter(|lane| !lane.waiting.is_empty());
        let again = waiting.map(|lane| lane.again).min();
        again.map(|ticks| self.limiter.instant(ticks))
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.reads.waiting.len() + self.writes.waiting.len()
    }

    /// Takes requests out.
    pub fn withdraw(&mut self, is_meant: impl Fn(Token) -> bool, mut take: impl FnMut(Request)) {
        for lane in [&mut self.reads, &mut self.writes] {
            for _ in 0..lane.waiting.len() {
                let (since, request) = lane.waiting.pop_front().expect("counted");
                match is_meant(Token::from_bits(request.token)) {
                    true => take(request),
                    false => lane.waiting.push_back((since, request)),
                }
            }
        }
    }

    /// Takes all requests out, in order.
    pub fn into_waiting(self) -> impl Iterator<Item = Request> {
        let all = self.reads.waiting.into_iter().chain(self.writes.waiting);
        all.map(|(_, request)| request)
    }
}

impl Lane {
    /// There is something again from `opening` on. Others come first who had less.
    fn wait(&mut self, opening: Ticks) {
        let back = STEP_BACK.checked_shr(self.missed).unwrap_or(0);
        self.again = Ticks(opening.0 + back);
    }
}

/// Which way the bytes of an operation go; none of those that are not limited.
fn way(op: Op) -> Option<Way> {
    match op {
        Op::Read | Op::Compare => Some(Way::Read),
        Op::Write { .. }
        | Op::CompareAndWrite { .. }
        | Op::XdWriteRead { .. }
        | Op::XpWrite { .. } => Some(Way::Write),
        Op::Flush | Op::WriteZeroes { .. } => None,
    }
}

#[cfg(test)]
mod tests;
