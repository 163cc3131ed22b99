//! A reactor's way into a file: requests on one side, the ring on the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::super::slots::Slots;
use super::super::{Channel, Completion, Data, IoStat, Op, OpenError, Request, Status};
use super::Shared;
use super::ring::Ring;
use super::transfer::{Next, Pieces, Step, Transfer, is_aligned};
use crate::memory::{Arena, BufMut, Pool};
use crate::reactor::{Registration, wake_on_readable};

/// Requests of a channel, and entries of its ring.
pub(super) const DEPTH: u32 = 512;

/// Bytes of a bounce buffer, and how many of them a channel has.
const BOUNCE: (usize, usize) = (64 * 1024, 16);

/// How long a channel that goes away waits for the kernel to let go of its buffers.
const LAST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct UringChannel {
    shared: Arc<Shared>,
    ring: Ring,
    running: Slots<Transfer>,
    /// A list for each slot, grown on first use and kept.
    pieces: Vec<Pieces>,
    bounces: Option<Pool>,
    /// Refused at once, not yet told.
    answered: Vec<Completion>,
    reaped: Vec<(u64, i32)>,
    stat: IoStat,
    _alarm: Option<Alarm>,
}

impl UringChannel {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, OpenError> {
        let refused = |what: &str, error: &dyn std::fmt::Display| OpenError {
            name: shared.info.name.clone(),
            reason: format!("{}: {what}: {error}", shared.path.display()),
        };
        let mut ring = Ring::new(DEPTH, shared.medium.as_fd())
            .map_err(|e| refused("io_uring cannot be set up", &e))?;
        if let Err(error) = ring.register(&shared.arenas)
            && !shared.unregistered.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                bdev = shared.info.name,
                "memory cannot be registered with io_uring ({error}), so each I/O maps its own \
                 and costs more; raise the locked-memory limit (ulimit -l)"
            );
        }
        let bounces = match shared.medium.direct {
            Some(_) => {
                let (size, count) = BOUNCE;
                let arena = Arena::ordinary(size * count).map_err(|e| refused("memory", &e))?;
                Some(Pool::new(&arena, size, count).map_err(|e| refused("memory", &e))?)
            }
            None => None,
        };
        let alarm = Alarm::set(&ring).map_err(|e| refused("eventfd", &e))?;
        Ok(Self {
            ring,
            running: Slots::new(DEPTH),
            pieces: (0..DEPTH).map(|_| Pieces::new()).collect(),
            bounces,
            answered: Vec::new(),
            reaped: Vec::with_capacity(DEPTH as usize),
            stat: IoStat::default(),
            _alarm: alarm,
            shared,
        })
    }

    /// The first step of an operation; `None` for what a file cannot do.
    fn first_step(&self, op: Op) -> Option<Step> {
        let can = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
        match op {
            Op::Read | Op::Write { .. } => Some(Step::Transfer),
            Op::Flush => Some(Step::Sync),
            Op::WriteZeroes { deallocate, .. } => {
                let shared = &self.shared;
                Some(match deallocate {
                    true if can(&shared.punches) => Step::PunchHole,
                    _ if can(&shared.zeroes) => Step::ZeroRange,
                    _ => Step::WriteZeros,
                })
            }
            Op::Compare | Op::CompareAndWrite { .. } => None,
        }
    }

    /// A bounce buffer, if the request's own cannot be used; the error is that none is free.
    fn bounce_for(&self, data: &Data) -> Result<Option<BufMut>, ()> {
        match (self.shared.medium.direct, &self.bounces) {
            (Some(alignment), Some(bounces)) if !is_aligned(data, alignment) => {
                bounces.take().map(Some).ok_or(())
            }
            _ => Ok(None),
        }
    }

    /// Asks the kernel for the next step of a slot.
    fn push(&mut self, slot: u32) {
        let transfer = self.running.get_mut(slot);
        let pieces = &mut self.pieces[slot as usize];
        let operation = transfer
            .operation(pieces, &self.shared.zeros, &self.ring)
            .user_data(u64::from(slot));
        // SAFETY: the operation names buffers that the transfer owns, the slot's list of pieces,
        // and the device's zeros. The transfer stays in its slot, the list is not touched, and
        // neither is dropped until the operation was reaped: `poll` takes a slot only then, and
        // `drop` waits for it or leaks them. Whoever writes (a read's buffers) is the only view;
        // what is read by the kernel is shared read-only or a bounce buffer of the transfer.
        unsafe { self.ring.push(&operation) };
    }

    fn answer(&mut self, request: Request, status: Status) {
        self.stat.count(request.op, 0, status);
        self.answered.push(Completion {
            token: request.token,
            status,
            data: request.data,
        });
    }
}

impl Channel for UringChannel {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let info = &self.shared.info;
        request.assert_sound(info.block_size);
        if self.in_flight() >= DEPTH as usize {
            return Err(request);
        }
        if !request.is_within(info) {
            self.answer(request, Status::OutOfRange);
            return Ok(());
        }
        let Some(step) = self.first_step(request.op) else {
            self.answer(request, Status::Unsupported);
            return Ok(());
        };
        let Ok(bounce) = self.bounce_for(&request.data) else {
            return Err(request);
        };
        let block = info.block_size as usize;
        let transfer = Transfer::new(request, block, step, bounce);
        let slot = self.running.insert(transfer);
        self.push(slot);
        Ok(())
    }

    fn kick(&mut self) {
        self.ring.submit();
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<Completion>) -> bool {
        let before = done.len();
        done.append(&mut self.answered);
        if self.running.len() == 0 {
            return done.len() > before;
        }
        let mut reaped = std::mem::take(&mut self.reaped);
        self.ring.reap(&mut reaped);
        let worked = !reaped.is_empty();
        for (slot, result) in reaped.drain(..) {
            let slot = slot as u32;
            match self.running.get_mut(slot).settle(result) {
                Next::Done(status) => {
                    let transfer = self.running.take(slot);
                    let bytes = transfer.total as u64;
                    self.stat.count(transfer.op, bytes, status);
                    done.push(Completion {
                        token: transfer.token,
                        status,
                        data: transfer.data,
                    });
                }
                Next::Again => self.push(slot),
                Next::Without(step) => {
                    self.shared.cannot(step);
                    self.push(slot);
                }
            }
        }
        self.reaped = reaped;
        // What goes on, or was not taken before, is not waited for by anyone's kick.
        self.ring.submit();
        worked || done.len() > before
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.answered.len()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.shared.info.name, &self.stat);
    }
}

impl Drop for UringChannel {
    /// Waits until the kernel has let go of every buffer; if it does not, they are never used
    /// again.
    fn drop(&mut self) {
        let start = Instant::now();
        while self.running.len() > 0 {
            if start.elapsed() >= LAST_WAIT || self.ring.wait(Duration::from_secs(1)).is_err() {
                tracing::error!(
                    bdev = self.shared.info.name,
                    "{} requests do not come back from the kernel; their memory is given up",
                    self.running.len()
                );
                std::mem::forget(std::mem::replace(&mut self.running, Slots::new(0)));
                std::mem::forget(std::mem::take(&mut self.pieces));
                std::mem::forget(self.shared.clone());
                return;
            }
            self.ring.reap(&mut self.reaped);
            for (slot, _) in self.reaped.drain(..) {
                drop(self.running.take(slot as u32));
            }
        }
    }
}

/// Ends the sleep of the reactor that opened the channel when something completes.
#[derive(Debug)]
struct Alarm {
    _watch: Registration,
    _eventfd: OwnedFd,
}

impl Alarm {
    /// Sets it, where a reactor opens the channel. The ring's own descriptor would not do: it is
    /// not readable while the kernel waits for this thread to ask for its completions.
    fn set(ring: &Ring) -> io::Result<Option<Self>> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let Some(watch) = wake_on_readable(eventfd.as_fd()) else {
            return Ok(None);
        };
        ring.signal(eventfd.as_fd())?;
        Ok(Some(Self {
            _watch: watch,
            _eventfd: eventfd,
        }))
    }
}
