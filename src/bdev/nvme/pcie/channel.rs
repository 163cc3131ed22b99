//! A reactor's way to a namespace: requests on one side, a queue pair on the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::super::slots::Slots;
use super::super::super::{Channel, Completion, IoStat, Op, Request, Status};
use super::bell::Bell;
use super::controller::Inner;
use super::gate::Phase;
use super::keeper::Ask;
use super::lane::{BOUNCE, Lane};
use super::namespace::Offer;
use super::pointer::Pointer;
use super::prp::PAGE;
use super::queue::{BATCH, Reaped};
use super::status::{Outcome, outcome};
use super::transfer::{Flight, Piece, Transfer};
use crate::lock;
use crate::memory::BufMut;
use crate::nvme::Command;
use crate::nvme::io::{BlockRange, IoCommand};
use crate::reactor;

/// How often commands in flight are looked at, as a part of the timeout.
const LOOKS: u32 = 16;

/// Requests that a channel takes at least, however few commands the device does.
const REQUESTS: usize = 64;

/// Commands with no data that a device takes at once, in blocks.
const MAX_BLOCKS: u32 = 1 << 16;

/// Requests are cut into commands that the device takes, and the commands that wait for room in the
/// ring, for a buffer, or for the end of a reset, wait here in order.
#[derive(Debug)]
pub(super) struct PcieChannel {
    inner: Arc<Inner>,
    offer: Arc<Offer>,
    /// `None` only while it is given back.
    lane: Option<Lane>,
    /// Most requests at a time.
    requests: usize,
    running: Slots<Transfer>,
    waiting: VecDeque<Piece>,
    /// What the controller does not want to see again before this time. Each keeps its place in the ring.
    delayed: Vec<(Instant, Piece)>,
    /// By the index of the command.
    flights: Flights,
    /// Ended, not yet told.
    answered: Vec<Completion>,
    reaped: Vec<Reaped>,
    stat: IoStat,
    /// The time of the last poll.
    now: Instant,
    next_look: Instant,
    /// When a command was last sent or completed.
    active: Instant,
    /// What wakes the reactor for a completion, if anything does.
    bell: Option<Bell>,
    /// The count of resets at which the last reset was asked for.
    asked: Option<u32>,
}

type Flights = Box<[Option<Flight>]>;

/// What a channel leaves behind when it goes away with commands in flight.
#[derive(Debug)]
pub(super) struct Remains {
    _running: Slots<Transfer>,
    _flights: Flights,
}

impl PcieChannel {
    pub(super) fn new(inner: Arc<Inner>, offer: Arc<Offer>, lane: Lane) -> Self {
        let depth = lane.queue.capacity();
        let requests = depth.max(REQUESTS);
        let now = Instant::now();
        Self {
            requests,
            running: Slots::new(requests as u32),
            waiting: VecDeque::with_capacity(requests + depth),
            delayed: Vec::with_capacity(depth),
            flights: (0..depth).map(|_| None).collect(),
            answered: Vec::with_capacity(requests),
            reaped: Vec::with_capacity(BATCH),
            stat: IoStat::default(),
            now,
            next_look: now,
            active: now,
            bell: lane.vector.and_then(Bell::new),
            asked: None,
            inner,
            offer,
            lane: Some(lane),
        }
    }

    fn lane(&mut self) -> &mut Lane {
        self.lane.as_mut().expect("a channel has its lane")
    }

    fn phase(&self) -> (Phase, u32) {
        match &self.lane {
            Some(lane) => lane.gate.get(),
            None => (Phase::Gone, 0),
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

    /// Completes what has ended.
    fn finish(&mut self, slot: u32) {
        let transfer = self.running.take(slot);
        let bytes = u64::from(transfer.blocks) * u64::from(self.offer.shape.block_size);
        self.stat.count(transfer.op, bytes, transfer.status);
        self.answered.push(transfer.into_completion());
    }

    fn settle(&mut self, piece: Piece, status: Status) {
        let blocks = piece.end - piece.at;
        if self.running.get_mut(piece.slot).settle(blocks, status) {
            self.finish(piece.slot);
        }
    }

    /// Makes commands of what waits, as long as there is room, and tells the device of them.
    fn go(&mut self) {
        while let Some(&piece) = self.waiting.front() {
            if self.running.get_mut(piece.slot).status != Status::Ok {
                // It has failed already; the rest would be in vain.
                self.waiting.pop_front();
                self.settle(piece, Status::Ok);
                continue;
            }
            let lane = self.lane.as_mut().expect("a channel has its lane");
            let places = lane.queue.capacity() - self.delayed.len();
            if !lane.queue.has_room() || lane.queue.in_flight() >= places {
                break;
            }
            let transfer = self.running.get_mut(piece.slot);
            let Some((command, blocks, bounce)) =
                next_command(&self.inner, &self.offer, lane, transfer, piece)
            else {
                break;
            };
            let end = piece.at + blocks;
            let index = lane.queue.push(command);
            self.flights[usize::from(index)] = Some(Flight {
                piece: Piece { end, ..piece },
                bounce,
                since: None,
                aborted: None,
            });
            self.active = self.now;
            match end == piece.end {
                true => drop(self.waiting.pop_front()),
                false => self.waiting[0].at = end,
            }
        }
        let inner = &self.inner;
        if let Some(lane) = &mut self.lane {
            lane.queue.ring(&*inner.bar);
        }
    }

    /// Takes completions; says whether there were any.
    fn reap(&mut self, epoch: u32) -> bool {
        let mut reaped = std::mem::take(&mut self.reaped);
        let lane = self.lane.as_mut().expect("a channel has its lane");
        let outcome = lane.queue.reap(&*self.inner.bar, &mut reaped);
        let worked = !reaped.is_empty();
        if worked {
            self.active = self.now;
        }
        for Reaped { index, status, .. } in reaped.drain(..) {
            let flight = self.flights[usize::from(index)].take();
            self.land(flight.expect("a command in flight"), status);
        }
        self.reaped = reaped;
        if let Err(fault) = outcome {
            self.ask_for_reset(epoch, &fault.to_string());
        }
        worked
    }

    /// A command was completed.
    fn land(&mut self, flight: Flight, status: crate::nvme::Status) {
        let Flight { piece, bounce, .. } = flight;
        let block = self.offer.shape.block_size as usize;
        let transfer = self.running.get_mut(piece.slot);
        let op = transfer.op;
        match outcome(status, op) {
            Outcome::Done(end) => {
                if end == Status::Ok
                    && let Some(bounce) = bounce
                {
                    transfer.put(piece.at as usize * block, &bounce);
                }
                if !matches!(end, Status::Ok | Status::Miscompare) {
                    tracing::debug!(
                        bdev = self.offer.info.name,
                        "{op:?} of {} blocks at {}: {status}",
                        piece.end - piece.at,
                        transfer.lba + u64::from(piece.at)
                    );
                }
                self.settle(piece, end);
            }
            Outcome::Again => self.try_again(piece, op.failure(), self.delay(status)),
        }
    }

    /// How long a command that ended like this is to rest (CRD): no longer than it may take.
    fn delay(&self, status: crate::nvme::Status) -> Duration {
        let delays = &self.inner.abilities.retry_delays;
        let delay = usize::from(status.retry_delay())
            .checked_sub(1)
            .map_or(Duration::ZERO, |index| delays[index]);
        delay.min(self.inner.options.timeout)
    }

    /// Sends a piece once more, after a while, unless it was sent often enough: then it ends like this.
    fn try_again(&mut self, piece: Piece, end: Status, delay: Duration) {
        if piece.tries >= self.inner.options.retries {
            return self.settle(piece, end);
        }
        let tries = piece.tries + 1;
        let piece = Piece { tries, ..piece };
        match delay.is_zero() {
            true => self.waiting.push_front(piece),
            false => self.delayed.push((self.now + delay, piece)),
        }
    }

    /// Lets go what has rested.
    fn wake(&mut self) {
        let (now, waiting) = (self.now, &mut self.waiting);
        self.delayed.retain(|&(due, piece)| {
            let rests = now < due;
            if !rests {
                waiting.push_front(piece);
            }
            rests
        });
    }

    /// Switches the interrupt on for a sleep with commands in flight, and off after it. To be called before completions are
    /// looked for.
    fn listen(&mut self) {
        let (Some(bell), Some(lane)) = (&mut self.bell, &mut self.lane) else {
            return;
        };
        let wanted = lane.queue.in_flight() > 0 && reactor::is_last_look();
        if bell.is_bound() == wanted {
            return;
        }
        if let Err(error) = bell.set(&*self.inner.bar, wanted) {
            let name = &self.offer.info.name;
            tracing::warn!(
                bdev = name,
                "no sleep with commands in flight: interrupts: {error}"
            );
            self.bell = None;
        }
    }

    fn ask_for_reset(&mut self, epoch: u32, reason: &str) {
        if self.asked != Some(epoch) {
            self.asked = Some(epoch);
            let reason = format!("queue {}: {reason}", self.lane().queue.id());
            self.inner.ask(Ask::Reset { epoch, reason });
        }
    }

    /// Looks for commands that take too long: first the controller is asked to give them up, and
    /// then they are a reason to reset it.
    fn look(&mut self, epoch: u32) {
        let timeout = self.inner.options.timeout;
        let shortest = Duration::from_millis(1);
        self.next_look = self.now + (timeout / LOOKS).max(shortest);
        let mut overdue = false;
        for (index, flight) in self.flights.iter_mut().enumerate() {
            let Some(flight) = flight else { continue };
            let since = *flight.since.get_or_insert(self.now);
            match flight.aborted {
                None if self.now.duration_since(since) >= timeout => {
                    flight.aborted = Some(self.now);
                    let lane = self.lane.as_ref().expect("a channel has its lane");
                    let queue = lane.queue.id();
                    let cid = lane.queue.cid(index as u16);
                    self.inner.ask(Ask::Abort { epoch, queue, cid });
                }
                Some(at) => overdue |= self.now.duration_since(at) >= timeout,
                None => {}
            }
        }
        if overdue {
            self.ask_for_reset(epoch, "a command takes too long, and was not aborted");
        }
    }

    /// The device was stopped: what was in flight is to be sent again, over empty rings.
    fn park(&mut self, epoch: u32) {
        // A reset that was wished for is not held against the commands that it met.
        let is_fault = self.inner.common.asked.load(Ordering::Relaxed) != epoch;
        for index in (0..self.flights.len()).rev() {
            match self.flights[index].take() {
                Some(flight) if is_fault => {
                    self.try_again(flight.piece, Status::Gone, Duration::ZERO);
                }
                Some(flight) => self.waiting.push_front(flight.piece),
                None => {}
            }
        }
        let lane = self.lane();
        lane.queue.reset();
        lane.gate.clean(epoch);
        self.inner.ask(Ask::Revive);
    }

    /// The device is gone: all ends.
    fn end(&mut self) {
        self.waiting.clear();
        self.delayed.clear();
        for flight in &mut self.flights {
            *flight = None;
        }
        while let Some(mut transfer) = self.running.take_any() {
            transfer.status = Status::Gone;
            self.stat.count(transfer.op, 0, Status::Gone);
            self.answered.push(transfer.into_completion());
        }
    }
}

/// The next command of a piece: with it how many blocks it does, and the buffer it goes through.
/// `None` while there is no buffer.
fn next_command(
    inner: &Inner,
    offer: &Offer,
    lane: &Lane,
    transfer: &mut Transfer,
    piece: Piece,
) -> Option<(Command, u32, Option<BufMut>)> {
    let shape = &offer.shape;
    let block = shape.block_size as usize;
    let slba = transfer.lba + u64::from(piece.at);
    let left = piece.end - piece.at;
    let nsid = shape.nsid;
    let op = transfer.op;
    let range = |blocks| BlockRange { slba, blocks };
    match op {
        Op::Flush => {
            let command = IoCommand::Flush.to_command(nsid).with_prps(0, 0);
            return Some((command, 1, None));
        }
        Op::WriteZeroes { fua, deallocate } if inner.abilities.write_zeroes => {
            let blocks = left.min(MAX_BLOCKS);
            let deallocate = deallocate && shape.deallocates;
            let range = range(blocks);
            let command = IoCommand::WriteZeroes {
                range,
                fua,
                deallocate,
            };
            return Some((command.to_command(nsid).with_prps(0, 0), blocks, None));
        }
        _ => {}
    }

    let most = (inner.abilities.max_transfer / block).min(left as usize) as u32;
    let until_boundary = match u64::from(shape.boundary) {
        0 => most,
        boundary => (boundary - slba % boundary).min(u64::from(most)) as u32,
    };
    let limit = most.min(until_boundary) as usize * block;
    let skip = piece.at as usize * block;
    let list = lane.list(lane.queue.next_index());
    let (pointer, bounce) = match op {
        Op::WriteZeroes { .. } => {
            // A page of zeros, again and again.
            let page = (inner.zeros, PAGE as usize);
            let zeros = || std::iter::repeat_n(page, limit.div_ceil(PAGE as usize));
            (Pointer::build(zeros, limit, block, list, None)?, None)
        }
        _ => match Pointer::build(
            || transfer.chunks(&inner.windows, skip),
            limit,
            block,
            list,
            inner.sgls,
        ) {
            Some(pointer) => (pointer, None),
            None => {
                let mut bounce = lane.bounces.take()?;
                bounce.truncate(limit.min(BOUNCE.0));
                transfer.take(skip, &mut bounce);
                let start = bounce.as_mut_ptr();
                let address = inner.windows.address(start, bounce.len())?;
                let chunk = || std::iter::once((address, bounce.len()));
                let pointer = Pointer::build(chunk, bounce.len(), block, list, inner.sgls)?;
                (pointer, Some(bounce))
            }
        },
    };
    let blocks = (pointer.len() / block) as u32;
    let range = range(blocks);
    let command = match op {
        Op::Read => IoCommand::Read { range, fua: false },
        Op::Compare => IoCommand::Compare { range, fua: false },
        _ => IoCommand::Write {
            range,
            fua: op.is_fua(),
        },
    };
    Some((pointer.of(command.to_command(nsid)), blocks, bounce))
}

impl Channel for PcieChannel {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let info = &self.offer.info;
        request.assert_sound(info.block_size);
        if self.in_flight() >= self.requests {
            return Err(request);
        }
        let abilities = &self.inner.abilities;
        let refused = match request.op {
            _ if !request.is_within(info) => Some(Status::OutOfRange),
            _ if self.phase().0 == Phase::Gone => Some(Status::Gone),
            Op::CompareAndWrite { .. } | Op::XdWriteRead { .. } | Op::XpWrite { .. } => {
                Some(Status::Unsupported)
            }
            Op::Compare if !abilities.compare => Some(Status::Unsupported),
            // What was written is on the media.
            Op::Flush if !abilities.write_cache => Some(Status::Ok),
            _ => None,
        };
        if let Some(status) = refused {
            self.answer(request, status);
            return Ok(());
        }
        let end = request.blocks.max(1);
        let slot = self.running.insert(Transfer::new(request));
        self.waiting.push_back(Piece {
            slot,
            at: 0,
            end,
            tries: 0,
        });
        Ok(())
    }

    fn kick(&mut self) {
        if self.phase().0 == Phase::Live {
            self.go();
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<Completion>) -> bool {
        let before = done.len();
        self.now = now;
        let mut worked = false;
        match self.phase() {
            (Phase::Live, epoch) => {
                self.listen();
                if self.running.len() > 0 {
                    worked = self.reap(epoch);
                    if now >= self.next_look {
                        self.look(epoch);
                    }
                    self.wake();
                    if !self.waiting.is_empty() {
                        self.go();
                    }
                }
            }
            (Phase::Down, epoch) => self.park(epoch),
            (Phase::Gone, _) => self.end(),
            (Phase::Halted | Phase::Clean, _) => {}
        }
        done.append(&mut self.answered);
        worked || done.len() > before
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.answered.len()
    }

    fn deadline(&self) -> Option<Instant> {
        let rested = self.delayed.iter().map(|&(due, _)| due).min();
        let sent = self.lane.as_ref().map_or(0, |lane| lane.queue.in_flight());
        let looks = match &self.bell {
            _ if !self.waiting.is_empty() || !self.answered.is_empty() => Some(self.now),
            _ if sent == 0 => None,
            // It is switched on in the last look, if it can be.
            Some(bell)
                if self.now >= self.active + self.inner.options.linger
                    && (bell.is_bound() || !reactor::is_last_look()) =>
            {
                Some(self.next_look.min(self.now + self.inner.options.nap))
            }
            // Nobody wakes the reactor for a completion: it is looked for.
            _ => Some(self.now),
        };
        looks.into_iter().chain(rested).min()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.offer.info.name, &self.stat);
    }
}

impl Drop for PcieChannel {
    fn drop(&mut self) {
        let Some(lane) = self.lane.take() else {
            return;
        };
        if let Some(bell) = self.bell.as_mut().filter(|bell| bell.is_bound()) {
            // Then it signals an eventfd that nobody has any more.
            let _ = bell.set(&*self.inner.bar, false);
        }
        if lane.queue.in_flight() == 0 {
            lock::exclusive(&self.inner.common.spares).push(lane);
            return;
        }
        // What is in flight may still be written to by the device; the keeper sees to it that it
        // is not, before the memory is used again.
        let remains = Remains {
            _running: std::mem::replace(&mut self.running, Slots::new(0)),
            _flights: std::mem::take(&mut self.flights),
        };
        self.inner.ask(Ask::Return {
            lane: Box::new(lane),
            remains,
        });
    }
}
