//! A device that makes another one slow, for tests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::create::CreateError;
use super::slots::Slots;
use super::{Bdev, Channel, Completion, Info, IoStat, Op, OpenError, Request};

/// Requests of a channel, running below or waiting out their delay.
const DEPTH: usize = 4096;

/// Completes what the device below has completed, but later: 99 of 100 reads and writes by the
/// average, one by the 99th percentile. Zeroing counts as writing, comparing as reading; flushes
/// pass at once.
#[derive(Debug)]
pub struct Delay {
    info: Info,
    base: Arc<dyn Bdev>,
    latencies: Arc<Latencies>,
}

/// Which of the four delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayKind {
    /// Of most reads.
    AvgRead,
    /// Of one read in a hundred.
    P99Read,
    /// Of most writes.
    AvgWrite,
    /// Of one write in a hundred.
    P99Write,
}

/// The delays in microseconds, in the order of [`DelayKind`]. They may change while channels are open.
type Latencies = [AtomicU64; 4];

impl Delay {
    /// Puts a delay device named `name` on top of `base`. All delays are in microseconds, counted
    /// from the completion below.
    ///
    /// # Errors
    /// [`CreateError::Latency`] when a 99th percentile is less than its average;
    /// [`CreateError::Name`].
    pub fn new(
        base: Arc<dyn Bdev>,
        name: &str,
        avg_read_us: u64,
        p99_read_us: u64,
        avg_write_us: u64,
        p99_write_us: u64,
    ) -> Result<Arc<Self>, CreateError> {
        if name.is_empty() {
            return Err(CreateError::Name);
        }
        let pairs = [
            ("read", avg_read_us, p99_read_us),
            ("write", avg_write_us, p99_write_us),
        ];
        for (what, avg, p99) in pairs {
            if p99 < avg {
                let name = name.to_owned();
                return Err(CreateError::Latency {
                    name,
                    what,
                    avg,
                    p99,
                });
            }
        }
        let info = Info {
            name: name.to_owned(),
            product: "delay",
            uuid: Uuid::new_v5(&base.info().uuid, name.as_bytes()),
            // It takes its time, as a device does, and is asked as one.
            in_memory: false,
            ..base.info().clone()
        };
        Ok(Arc::new(Self {
            info,
            base,
            latencies: Arc::new(
                [avg_read_us, p99_read_us, avg_write_us, p99_write_us].map(AtomicU64::new),
            ),
        }))
    }
}

impl Delay {
    /// The delays in microseconds: average and 99th percentile of reads, then of writes.
    pub fn latencies_us(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|at| self.latencies[at].load(Ordering::Relaxed))
    }

    /// Changes a delay, in microseconds; requests that wait already are completed with the old one. An
    /// average that is raised above its 99th percentile raises that too.
    ///
    /// # Errors
    /// [`CreateError::Latency`] for a 99th percentile that is less than its average.
    pub fn set_latency(&self, kind: DelayKind, us: u64) -> Result<(), CreateError> {
        let of = |kind: DelayKind| &self.latencies[kind as usize];
        let (what, avg, p99) = match kind {
            DelayKind::AvgRead | DelayKind::P99Read => {
                ("read", DelayKind::AvgRead, DelayKind::P99Read)
            }
            _ => ("write", DelayKind::AvgWrite, DelayKind::P99Write),
        };
        if kind == avg {
            of(p99).fetch_max(us, Ordering::Relaxed);
        } else {
            let avg = of(avg).load(Ordering::Relaxed);
            if us < avg {
                let (name, p99) = (self.info.name.clone(), us);
                return Err(CreateError::Latency {
                    name,
                    what,
                    avg,
                    p99,
                });
            }
        }
        of(kind).store(us, Ordering::Relaxed);
        Ok(())
    }

    /// A channel over one of the base.
    fn over(&self, base: Box<dyn Channel>) -> Box<dyn Channel> {
        Box::new(DelayChannel {
            name: self.info.name.clone(),
            block_size: self.info.block_size,
            base,
            running: Slots::new(DEPTH as u32),
            arrived: Vec::new(),
            latencies: self.latencies.clone(),
            lanes: Default::default(),
            dice: 1,
            stat: IoStat::default(),
        })
    }
}

impl Bdev for Delay {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        Ok(self.over(self.base.open()?))
    }

    fn open_briefly(&self) -> Result<Box<dyn Channel>, OpenError> {
        Ok(self.over(self.base.open_briefly()?))
    }

    fn driver_specific(&self) -> Value {
        let [avg_read, p99_read, avg_write, p99_write] = self.latencies_us();
        json!({"delay": {
            "name": self.info.name,
            "base_bdev_name": self.base.info().name,
            "avg_read_latency": avg_read,
            "p99_read_latency": p99_read,
            "avg_write_latency": avg_write,
            "p99_write_latency": p99_write,
        }})
    }
}

/// A request that the base has not completed yet.
#[derive(Debug)]
struct Running {
    token: u64,
    op: Op,
    bytes: u64,
}

/// Completions that wait out the same delay, in the order in which they are due: mostly that in which they
/// came, because the delay hardly ever changes.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<(Instant, Completion)>,
}

impl Lane {
    fn push(&mut self, due: Instant, completion: Completion) {
        let at = self.waiting.partition_point(|&(other, _)| other <= due);
        self.waiting.insert(at, (due, completion));
    }
}

#[derive(Debug)]
struct DelayChannel {
    name: String,
    block_size: u32,
    base: Box<dyn Channel>,
    running: Slots<Running>,
    arrived: Vec<Completion>,
    latencies: Arc<Latencies>,
    /// In the order of [`DelayKind`].
    lanes: [Lane; 4],
    dice: u32,
    stat: IoStat,
}

impl DelayChannel {
    /// The lane of an operation; none for those that are not delayed.
    fn lane(&mut self, op: Op) -> Option<usize> {
        if op == Op::Flush {
            return None;
        }
        // Xorshift: one in a hundred, in no rhythm that a workload could fall in with.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 17;
        self.dice ^= self.dice << 5;
        let slow = usize::from(self.dice.is_multiple_of(100));
        Some(2 * usize::from(op.modifies()) + slow)
    }
}

impl Channel for DelayChannel {
    fn submit(&mut self, mut request: Request) -> Result<(), Request> {
        if self.in_flight() == DEPTH {
            return Err(request);
        }
        let token = request.token;
        let bytes = u64::from(request.blocks) * u64::from(self.block_size);
        let op = request.op;
        let slot = self.running.insert(Running { token, op, bytes });
        request.token = u64::from(slot);
        self.base.submit(request).map_err(|mut request| {
            request.token = self.running.take(slot).token;
            request
        })
    }

    fn kick(&mut self) {
        self.base.kick();
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<Completion>) -> bool {
        let before = done.len();
        let mut arrived = std::mem::take(&mut self.arrived);
        let worked = self.base.poll(now, &mut arrived);
        for mut completion in arrived.drain(..) {
            let Running { token, op, bytes } = self.running.take(completion.token as u32);
            self.stat.count(op, bytes, completion.status);
            completion.token = token;
            match self.lane(op) {
                Some(lane) => {
                    let us = self.latencies[lane].load(Ordering::Relaxed);
                    let due = now + Duration::from_micros(us);
                    self.lanes[lane].push(due, completion);
                }
                None => done.push(completion),
            }
        }
        self.arrived = arrived;
        for lane in &mut self.lanes {
            while lane.waiting.front().is_some_and(|&(due, _)| due <= now) {
                done.extend(lane.waiting.pop_front().map(|(_, completion)| completion));
            }
        }
        worked || done.len() > before
    }

    fn in_flight(&self) -> usize {
        let waiting = self.lanes.iter().map(|lane| lane.waiting.len());
        self.running.len() + waiting.sum::<usize>()
    }

    fn deadline(&self) -> Option<Instant> {
        let first = self.lanes.iter().filter_map(|lane| lane.waiting.front());
        let own = first.map(|&(due, _)| due).min();
        own.into_iter().chain(self.base.deadline()).min()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.name, &self.stat);
        self.base.iostat(report);
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{User, buffers, conforms};
    use super::super::{Data, Malloc, Status};
    use super::*;

    fn slow(read: u64, write: u64) -> Arc<Delay> {
        let base = Malloc::new("m", 512, 1024, None).unwrap();
        Delay::new(base, "d", read, read, write, write).unwrap()
    }

    #[test]
    fn conforms_without_delay() {
        let (_arena, pool) = buffers();
        let bdev = slow(0, 0);
        assert!(!bdev.info().in_memory, "it is asked as a device is");
        conforms(bdev, &pool);
    }

    #[test]
    fn conforms_with_delay() {
        let (_arena, pool) = buffers();
        conforms(slow(20, 50), &pool);
    }

    /// Nothing comes before its time, everything at its time; flushes do not wait.
    #[test]
    fn completes_when_the_delay_is_over() {
        let (_arena, pool) = buffers();
        let hour = Duration::from_secs(3600);
        let bdev = slow(3600 * 1_000_000, 2 * 3600 * 1_000_000);
        let mut user = User::new(&*bdev, &pool);
        let ops = [
            (1, Op::Write { fua: false }, user.write_data(&[3; 512])),
            (2, Op::Read, user.read_data(512)),
            (3, Op::Flush, Data::None),
        ];
        for (token, op, data) in ops {
            let request = Request {
                token,
                op,
                lba: 0,
                blocks: u32::from(op != Op::Flush),
                data,
            };
            user.channel.submit(request).unwrap();
        }
        user.channel.kick();
        let start = Instant::now();
        let mut done = Vec::new();
        let mut at = |channel: &mut Box<dyn Channel>, now| -> Vec<u64> {
            channel.poll(now, &mut done);
            done.drain(..).map(|c| c.token).collect()
        };
        let channel = &mut user.channel;
        assert_eq!(at(channel, start), [3]);
        assert_eq!(channel.deadline(), Some(start + hour));
        let instant = Duration::from_nanos(1);
        assert!(at(channel, start + hour - instant).is_empty());
        assert_eq!(at(channel, start + hour), [2]);
        assert_eq!(channel.deadline(), Some(start + 2 * hour));
        assert_eq!(channel.in_flight(), 1);
        assert_eq!(at(channel, start + 2 * hour), [1]);
        assert_eq!(channel.deadline(), None);
        assert_eq!(channel.in_flight(), 0);
    }

    /// About one request in a hundred is of the slow kind.
    #[test]
    fn a_hundredth_waits_for_the_99th_percentile() {
        let (_arena, pool) = buffers();
        let base = Malloc::new("m", 512, 1024, None).unwrap();
        let bdev = Delay::new(base, "d", 0, 1_000_000, 0, 0).unwrap();
        let mut user = User::new(&*bdev, &pool);
        let start = Instant::now();
        let (mut done, mut fast) = (Vec::new(), 0);
        for token in 0..3000 {
            let data = user.read_data(512);
            let request = Request {
                token,
                op: Op::Read,
                lba: 0,
                blocks: 1,
                data,
            };
            user.channel.submit(request).unwrap();
            user.channel.kick();
            user.channel.poll(start, &mut done);
            fast += done.drain(..).count();
        }
        let slow = user.channel.in_flight();
        assert_eq!(fast + slow, 3000);
        // Thirty expected; five standard deviations are 27.
        assert!((3..=57).contains(&slow), "{slow} of 3000");
    }

    /// A delay that changes does not hold up what comes after it, and changes nothing of what waits.
    #[test]
    fn a_delay_may_change_while_requests_wait() {
        let (_arena, pool) = buffers();
        let bdev = slow(1_000_000, 0);
        let mut user = User::new(&*bdev, &pool);
        let mut done = Vec::new();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut read = |user: &mut User, token, now| -> Vec<u64> {
            let request = Request {
                token,
                op: Op::Read,
                lba: 0,
                blocks: 1,
                data: user.read_data(512),
            };
            user.channel.submit(request).unwrap();
            user.channel.kick();
            user.channel.poll(now, &mut done);
            done.drain(..).map(|c| c.token).collect()
        };
        assert!(read(&mut user, 1, start).is_empty());
        bdev.set_latency(DelayKind::AvgRead, 0).unwrap();
        bdev.set_latency(DelayKind::P99Read, 0).unwrap();
        assert_eq!(read(&mut user, 2, start), [2]);
        bdev.set_latency(DelayKind::AvgRead, 5_000_000).unwrap();
        assert_eq!(bdev.latencies_us(), [5_000_000, 5_000_000, 0, 0]);
        assert_eq!(read(&mut user, 3, start + second), [1]);
        assert_eq!(user.channel.deadline(), Some(start + 6 * second));
        let low = bdev
            .set_latency(DelayKind::P99Read, 4)
            .unwrap_err()
            .to_string();
        assert!(low.contains("p99 read latency of 4 us"), "{low}");
    }

    #[test]
    fn the_percentile_is_not_below_the_average() {
        let base = Malloc::new("m", 512, 1024, None).unwrap();
        let error = Delay::new(base.clone(), "d", 5, 4, 0, 0).unwrap_err();
        assert!(error.to_string().contains("p99 read latency of 4 us"));
        let error = Delay::new(base, "d", 5, 5, 9, 8).unwrap_err();
        assert!(error.to_string().contains("p99 write latency of 8 us"));
    }

    #[test]
    fn describes_itself_and_reports_its_base() {
        let (_arena, pool) = buffers();
        let bdev = slow(0, 0);
        assert_eq!(bdev.info().blocks, 1024);
        let shown = bdev.driver_specific();
        assert_eq!(shown["delay"]["base_bdev_name"], "m");
        let mut user = User::new(&*bdev, &pool);
        assert_eq!(user.write(0, &[1; 512]), Status::Ok);
        assert_eq!(user.iostat("d").num_write_ops, 1);
        assert_eq!(user.iostat("m").num_write_ops, 1);
    }
}
