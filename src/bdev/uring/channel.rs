//! A reactor's way into a file: requests on one side, the ring on the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::super::slots::Slots;
use super::super::{Channel, Completion, Data, IoStat, Op, OpenError, Request, Status};
use super::Shared;
use super::release::Release;
use super::remains::Remains;
use super::ring::Ring;
use super::transfer::{Next, Pieces, Step, Transfer, is_aligned};
use crate::memory::{Arena, BufMut, Pool};
use crate::reactor::{Registration, wake_on_readable};

/// Requests of a channel, and entries of its ring.
pub(super) const DEPTH: u32 = 512;

/// Bytes of a bounce buffer, and how many of them a channel has.
const BOUNCE: (usize, usize) = (64 * 1024, 16);

/// What is in flight when it is dropped may be done or not, even some time later. The memory of
/// those requests is free when it can no longer be.
#[derive(Debug)]
pub(super) struct UringChannel {
    shared: Arc<Shared>,
    /// `None` once the kernel has refused it. Then requests are answered as gone: new ones at
    /// once, those in flight when the ring's release is over.
    ring: Option<Ring>,
    release: Release,
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
    /// A channel with these arenas registered.
    pub(super) fn new(shared: Arc<Shared>, arenas: &[Arena]) -> Result<Self, OpenError> {
        let refused = |what: &str, error: &dyn std::fmt::Display| OpenError {
            name: shared.info.name.clone(),
            reason: format!("{}: {what}: {error}", shared.path.display()),
        };
        let mut ring = Ring::new(DEPTH, shared.medium.as_fd())
            .map_err(|e| refused("io_uring cannot be set up", &e))?;
        if let Err(error) = ring.register(arenas)
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
            release: ring.release().clone(),
            ring: Some(ring),
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
            Op::Compare
            | Op::CompareAndWrite { .. }
            | Op::XdWriteRead { .. }
            | Op::XpWrite { .. } => None,
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
        let Some(ring) = &mut self.ring else {
            // It is answered with all the others that the ring has left.
            return;
        };
        let transfer = self.running.get_mut(slot);
        let pieces = &mut self.pieces[slot as usize];
        let operation = transfer
            .operation(pieces, &self.shared.zeros, ring)
            .user_data(u64::from(slot));
        // SAFETY: the operation names buffers that the transfer owns, the slot's list of pieces,
        // and the device's zeros. The transfer stays in its slot, the list is not touched, and
        // neither is dropped until the operation was reaped or the ring's release is over: `poll`
        // takes a slot only then, and `drop` leaves both to `Remains`, which waits for it. Whoever
        // writes (a read's buffers) is the only view; what is read by the kernel is shared
        // read-only or a bounce buffer of the transfer.
        unsafe { ring.push(&operation) };
    }

    /// Gives up the ring, after an error that will not pass.
    fn fail(&mut self, error: &io::Error) {
        tracing::error!(
            bdev = self.shared.info.name,
            "{}: the kernel takes no more I/O from this channel (io_uring_enter: {error}); all of \
             it is answered as if the device were gone",
            self.shared.path.display()
        );
        self.ring = None;
    }

    /// Answers what a ring that was given up has left, once the kernel has let go of it.
    fn give_back(&mut self, done: &mut Vec<Completion>) {
        if !self.release.is_over() {
            return;
        }
        while let Some(transfer) = self.running.take_any() {
            self.stat.count(transfer.op, 0, Status::Gone);
            done.push(transfer.into_completion(Status::Gone));
        }
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
        if !request.is_below(self.shared.blocks.load(Ordering::Acquire)) {
            self.answer(request, Status::OutOfRange);
            return Ok(());
        }
        if self.ring.is_none() {
            self.answer(request, Status::Gone);
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
        if let Some(ring) = &mut self.ring
            && let Err(error) = ring.submit()
        {
            self.fail(&error);
        }
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<Completion>) -> bool {
        let before = done.len();
        done.append(&mut self.answered);
        if self.running.len() == 0 {
            return done.len() > before;
        }
        let Some(ring) = &mut self.ring else {
            self.give_back(done);
            return done.len() > before;
        };
        let mut reaped = std::mem::take(&mut self.reaped);
        if let Err(error) = ring.reap(&mut reaped) {
            self.fail(&error);
        }
        let worked = !reaped.is_empty();
        for (slot, result) in reaped.drain(..) {
            let slot = slot as u32;
            match self.running.get_mut(slot).settle(result) {
                Next::Done(status) => {
                    let transfer = self.running.take(slot);
                    let bytes = transfer.total as u64;
                    self.stat.count(transfer.op, bytes, status);
                    done.push(transfer.into_completion(status));
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
        self.kick();
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
    fn drop(&mut self) {
        self.ring = None;
        if self.running.len() > 0 {
            let remains = Remains::new(
                self.shared.clone(),
                self.release.clone(),
                std::mem::replace(&mut self.running, Slots::new(0)),
                std::mem::take(&mut self.pieces),
            );
            remains.keep();
        }
    }
}

/// Ends the sleep of the reactor that opened the channel when something completes, or can be
/// answered because the ring is released.
#[derive(Debug)]
struct Alarm {
    _watches: (Registration, Option<Registration>),
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
            _watches: (watch, wake_on_readable(ring.release().as_fd())),
            _eventfd: eventfd,
        }))
    }
}

#[cfg(test)]
mod tests;
