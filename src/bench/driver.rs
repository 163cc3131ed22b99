//! What a reactor does in a bench: makes requests, or only its part of the array's work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Load;
use crate::bdev::{Channel, Completion, Data, Op, Request, Status};
use crate::loadgen::cpu::cpu_time;
use crate::loadgen::pace::Pace;
use crate::loadgen::tally::{Direction, Tally};
use crate::loadgen::workload::{Step, Workload};
use crate::memory::{Buf, Pool};
use crate::reactor::{Poller, Progress, Turn};

/// What the thread that started the reactors tells all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    /// The clock starts.
    pub go: Arc<AtomicBool>,
    /// No more requests, whatever the clock says.
    pub stop: Arc<AtomicBool>,
    /// Nobody needs anybody else's part of the work any more.
    pub over: Arc<AtomicBool>,
}

/// What a reactor has done and seen.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// Which reactor.
    pub reactor: usize,
    /// Requests that were counted.
    pub count: u64,
    /// All requests, those before and after the counted time too.
    pub all: u64,
    /// Their latencies, where those were taken; failures in any case.
    pub tally: Tally,
    /// How long it counted.
    pub runtime: Duration,
    /// How long it had its core meanwhile.
    pub cpu: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the others.
    Ready,
    /// Making requests that do not count yet.
    Ramp { until: Instant },
    /// Making requests that count.
    Work { since: Instant, until: Instant },
    /// Waiting for what is in flight.
    Drain,
    /// Doing its part for others.
    Rest,
}

/// A reactor's poller. Without a workload it makes no requests.
#[derive(Debug)]
pub(super) struct Driver {
    channel: Box<dyn Channel>,
    workload: Option<Workload>,
    ramp: Duration,
    runtime: Duration,
    io_limit: u64,
    pace: Option<Pace>,
    rate: Option<u64>,
    signals: Signals,
    answer: mpsc::Sender<Share>,
    /// Whether others, or its counters, need it when its own requests are done.
    stays: bool,
    phase: Phase,
    /// When each request was made, by its token; empty where latencies are not taken.
    begun: Vec<Instant>,
    /// Tokens and buffers of requests that are not in flight.
    idle: Vec<(u64, Data)>,
    /// Requests that the channel had no room for.
    refused: Vec<Request>,
    done: Vec<Completion>,
    share: Share,
}

impl Driver {
    /// The driver of a reactor that uses `channel`. It takes its buffers from `pool`.
    pub fn new(
        reactor: usize,
        load: &Load,
        channel: Box<dyn Channel>,
        workload: Option<Workload>,
        pool: &Pool,
        stays: bool,
        (signals, answer): (Signals, mpsc::Sender<Share>),
    ) -> Self {
        let depth = workload.as_ref().map_or(0, |_| load.depth);
        let take = |token| {
            let mut buffer = pool.take().expect("there is one for each");
            buffer.truncate(load.request.0 as usize);
            (token, Data::Read([buffer].into_iter().collect()))
        };
        let timed = depth as usize * usize::from(load.timed);
        Self {
            channel,
            workload,
            ramp: load.ramp,
            runtime: load.runtime,
            io_limit: load.io_limit.unwrap_or(u64::MAX),
            pace: None,
            rate: load.rate,
            signals,
            answer,
            stays,
            phase: Phase::Ready,
            begun: vec![Instant::now(); timed],
            idle: (0..u64::from(depth)).rev().map(take).collect(),
            refused: Vec::new(),
            done: Vec::new(),
            share: Share {
                reactor,
                count: 0,
                all: 0,
                tally: Tally::default(),
                runtime: Duration::ZERO,
                cpu: Duration::ZERO,
            },
        }
    }

    fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Ramp { .. } | Phase::Work { .. })
    }

    /// Makes as many of the idle requests as are due.
    fn make_due(&mut self, now: Instant) {
        while !self.idle.is_empty() && self.pace.as_mut().is_none_or(|pace| pace.take(now)) {
            let (token, data) = self.idle.pop().expect("looked at above");
            self.make(token, data, now);
        }
    }

    #[inline]
    fn make(&mut self, token: u64, mut data: Data, now: Instant) {
        let workload = self.workload.as_mut().expect("who has buffers has one");
        let (op, lba, blocks) = match workload.next_step() {
            Step::Read { lba, blocks } => (Op::Read, lba, blocks),
            Step::Write { lba, blocks } => (Op::Write { fua: false }, lba, blocks),
            Step::Flush => unreachable!("the workload has no flushes"),
        };
        // Only in a mixture: moving them about is not free.
        if (op == Op::Read) != matches!(data, Data::Read(_)) {
            data = turned(data);
        }
        if let Some(begun) = self.begun.get_mut(token as usize) {
            *begun = now;
        }
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        if let Err(request) = self.channel.submit(request) {
            self.refused.push(request);
        }
    }

    /// Counts the requests that are done, and makes the next ones. What is the same for all of them is
    /// looked at once: this is the loop that instructions are counted of.
    fn complete(&mut self, done: &mut Vec<Completion>, now: Instant) {
        let is_counting = matches!(self.phase, Phase::Work { .. });
        let is_timing = is_counting && !self.begun.is_empty();
        let goes_on = self.pace.is_none() && self.is_working();
        let (count, failed) = (done.len() as u64, self.share.tally.failed);
        for completion in done.drain(..) {
            if completion.status != Status::Ok {
                self.share.tally.failed += 1;
            } else if is_timing {
                self.time(&completion, now);
            }
            match goes_on {
                true => self.make(completion.token, completion.data, now),
                false => self.idle.push((completion.token, completion.data)),
            }
        }
        self.share.all += count;
        if is_counting {
            self.share.count += count - (self.share.tally.failed - failed);
        }
    }

    fn time(&mut self, completion: &Completion, now: Instant) {
        let direction = match completion.data {
            Data::Read(_) => Direction::Read,
            _ => Direction::Write,
        };
        let latency = now - self.begun[completion.token as usize];
        let bytes = completion.data.len();
        self.share.tally.record(direction, bytes, latency);
    }

    /// Hands in what the channel had no room for before.
    fn retry(&mut self) {
        while let Some(request) = self.refused.pop() {
            if let Err(request) = self.channel.submit(request) {
                self.refused.push(request);
                return;
            }
        }
    }

    /// Goes to the next phase where it is time.
    fn advance(&mut self, now: Instant) {
        let stop = |signals: &Signals| signals.stop.load(Ordering::Relaxed);
        match self.phase {
            Phase::Ready if self.signals.go.load(Ordering::Acquire) => {
                self.pace = self.rate.map(|rate| Pace::new(rate, now));
                let until = now + self.ramp;
                self.phase = match self.ramp.is_zero() {
                    true => self.counting(now),
                    false => Phase::Ramp { until },
                };
                self.make_due(now);
            }
            Phase::Ramp { until } => {
                if now >= until || stop(&self.signals) {
                    self.share.tally = Tally::default();
                    self.phase = self.counting(now);
                }
            }
            Phase::Work { since, until } => {
                let enough = self.share.count >= self.io_limit;
                if now >= until || enough || stop(&self.signals) {
                    self.share.runtime = now - since;
                    self.share.cpu = cpu_time().saturating_sub(self.share.cpu);
                    self.phase = Phase::Drain;
                }
            }
            Phase::Drain if self.channel.in_flight() == 0 && self.refused.is_empty() => {
                // All but what was found in this turn.
                if self.done.is_empty() {
                    self.phase = Phase::Rest;
                    // Whoever asked may have given up.
                    let _ = self.answer.send(self.share.clone());
                }
            }
            Phase::Ready | Phase::Drain | Phase::Rest => {}
        }
    }

    fn counting(&mut self, now: Instant) -> Phase {
        self.share.cpu = cpu_time();
        Phase::Work {
            since: now,
            until: now + self.runtime,
        }
    }
}

impl Poller for Driver {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        let now = turn.now;
        let mut done = std::mem::take(&mut self.done);
        self.complete(&mut done, now);
        self.done = done;
        if !self.refused.is_empty() {
            self.retry();
        }
        if self.pace.is_some() && self.is_working() {
            self.make_due(now);
        }
        self.channel.kick();
        let worked = self.channel.poll(now, &mut self.done);
        self.advance(now);
        if self.phase == Phase::Rest && (!self.stays || self.signals.over.load(Ordering::Relaxed)) {
            return Progress::Finished;
        }
        match worked || !self.done.is_empty() {
            true => Progress::Busy,
            false => Progress::Idle,
        }
    }
}

/// The buffers of a read for a write, and the other way round.
fn turned(data: Data) -> Data {
    match data {
        Data::Read(segments) => Data::Write(segments.into_iter().map(|s| s.freeze()).collect()),
        Data::Write(segments) => {
            let alone = |segment: Buf| {
                let alone = segment.try_into_mut();
                alone.expect("a device gives all views of a buffer back")
            };
            Data::Read(segments.into_iter().map(alone).collect())
        }
        Data::None => Data::None,
    }
}
