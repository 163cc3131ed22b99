//! A reactor's way into a remote namespace: requests on one side, one I/O queue on the other.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flight::{Flight, Next};
use super::link::{Link, Order, Phase, State, Terms};
use super::namespace::Device;
use crate::bdev::slots::Slots;
use crate::bdev::{Channel, Completion, IoStat, Op, Request, Status};
use crate::initiator::{Done, Queue, QueueError, QueueSettings, Socket};
use crate::reactor::{Registration, wake_on_readable};

/// Requests of a channel: on the queue, or waiting for room there or for an association.
pub(super) const DEPTH: u32 = 512;

/// Times that a turn receives while there is more.
const ROUNDS: usize = 4;

/// How often a channel that waits for its association looks for it, and how often one that is being
/// connected, or cannot send all that it has, tries again.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const TRY_EVERY: Duration = Duration::from_millis(2);

/// How often a channel with commands out looks whether one is overdue.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// A target may hold the number of this queue still for a channel that has just gone: attempts to
/// connect that may be refused in a row, and the pause between them.
const REFUSALS: u8 = 40;
const AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// The connection of an I/O queue.
#[derive(Debug)]
struct Wire {
    terms: Arc<Terms>,
    queue: Queue,
    socket: Socket,
    _watch: Option<Registration>,
}

#[derive(Debug)]
pub(super) struct TcpChannel {
    device: Arc<Device>,
    link: Arc<Link>,
    /// Of its I/O queue, in every association.
    number: u16,
    wire: Option<Wire>,
    /// The association in which this channel has failed, and has said so.
    failed: u64,
    /// Connects refused in a row, and when to try again.
    refusals: u8,
    try_at: Option<Instant>,
    running: Slots<Flight>,
    /// Requests that wait for room on the queue, in order.
    waiting: VecDeque<u32>,
    /// Refused at once, not yet told.
    answered: Vec<Completion>,
    done: Vec<Done>,
    /// When to look again without being told.
    look_at: Option<Instant>,
    stat: IoStat,
}

impl TcpChannel {
    pub(super) fn new(device: Arc<Device>, link: Arc<Link>, number: u16) -> Self {
        let mut channel = Self {
            device,
            link,
            number,
            wire: None,
            failed: 0,
            refusals: 0,
            try_at: None,
            running: Slots::new(DEPTH),
            waiting: VecDeque::with_capacity(DEPTH as usize),
            answered: Vec::with_capacity(DEPTH as usize),
            done: Vec::with_capacity(DEPTH as usize),
            look_at: None,
            stat: IoStat::default(),
        };
        channel.follow(Instant::now());
        channel
    }

    /// Does what the state of the association asks for.
    fn follow(&mut self, now: Instant) {
        let State { generation, phase } = self.link.state();
        let is_present = |wire: &Wire| phase == Phase::Ready && wire.terms.generation == generation;
        if self.wire.as_ref().is_some_and(|wire| !is_present(wire)) {
            self.hang_up();
        }
        match phase {
            Phase::Ready if self.wire.is_none() && self.failed != generation => {
                if self.try_at.is_none_or(|at| at <= now) {
                    self.connect(generation, now);
                }
            }
            Phase::Ready | Phase::Away => {}
            Phase::Failing | Phase::Gone => self.fail_all(),
        }
    }

    /// Begins to connect the queue to an association.
    fn connect(&mut self, generation: u64, now: Instant) {
        self.try_at = None;
        let Some(terms) = self.link.terms(generation) else {
            return;
        };
        let connected = Socket::connect(terms.address);
        let connected = connected.and_then(|socket| Ok((socket.hangup()?, socket)));
        let (hangup, socket) = match connected {
            Ok(connected) => connected,
            Err(error) => return self.complain(generation, &QueueError::Io(error.kind())),
        };
        self.link.enter(generation, self.number, hangup);
        let settings = QueueSettings {
            id: self.number,
            ..terms.queue.clone()
        };
        self.wire = Some(Wire {
            queue: Queue::new(settings, now),
            _watch: wake_on_readable(socket.as_fd()),
            socket,
            terms,
        });
    }

    /// Gives the connection up; what was out is to be sent again.
    fn hang_up(&mut self) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        self.link.leave(self.number);
        wire.queue.abandon(&mut self.done);
        self.settle();
    }

    /// Has the association made anew.
    fn complain(&mut self, generation: u64, error: &QueueError) {
        self.failed = generation;
        let reason = format!("I/O queue {}: {error}", self.number);
        self.link.order(Order::Failed(generation, reason));
    }

    /// The connection has failed.
    fn lose(&mut self, error: &QueueError, now: Instant) {
        let Some(wire) = &self.wire else {
            return;
        };
        let generation = wire.terms.generation;
        self.hang_up();
        if matches!(error, QueueError::Refused { .. }) && self.refusals < REFUSALS {
            self.refusals += 1;
            self.try_at = Some(now + AFTER_REFUSAL);
            return;
        }
        self.complain(generation, error);
    }

    /// Handles the commands that are over.
    fn settle(&mut self) {
        for done in self.done.drain(..) {
            let slot = done.token as u32;
            let flight = self.running.get_mut(slot);
            flight.put_back(done.payload);
            match flight.ended(done.outcome.map(drop)) {
                Next::Send => self.waiting.push_back(slot),
                Next::Over(status) => {
                    let flight = self.running.take(slot);
                    let bytes = u64::from(flight.blocks) * u64::from(self.device.info.block_size);
                    self.stat.count(flight.op, bytes, status);
                    self.answered.push(flight.into_completion(status));
                }
            }
        }
    }

    /// Everything that waits fails: the controller is away for too long.
    fn fail_all(&mut self) {
        while let Some(slot) = self.waiting.pop_front() {
            let flight = self.running.take(slot);
            self.stat.count(flight.op, 0, Status::Gone);
            self.answered.push(flight.into_completion(Status::Gone));
        }
    }

    /// Puts on the queue what has room there.
    fn fill(&mut self) {
        let Some(wire) = &mut self.wire else {
            return;
        };
        if self.waiting.is_empty() || !wire.queue.has_room() {
            return;
        }
        let now = Instant::now();
        while wire.queue.has_room()
            && let Some(slot) = self.waiting.pop_front()
        {
            let flight = self.running.get_mut(slot);
            let (command, payload, part) = flight.command(&self.device, wire.terms.max_transfer);
            let taken = wire
                .queue
                .submit_part(u64::from(slot), &command, payload, part, now);
            if let Err(payload) = taken {
                flight.put_back(payload);
                self.waiting.push_front(slot);
                break;
            }
        }
    }

    /// Sends what there is to send, in one gathered send.
    fn send(&mut self) {
        if let Some(wire) = &mut self.wire
            && let Err(error) = wire.socket.send(&mut wire.queue, &mut self.done)
        {
            self.lose(&error, Instant::now());
        }
    }

    /// Receives what has come. Says whether anything has.
    fn receive(&mut self, now: Instant) -> bool {
        let mut worked = false;
        for _ in 0..ROUNDS {
            let Some(wire) = &mut self.wire else {
                break;
            };
            match wire.socket.receive(&mut wire.queue, &mut self.done, now) {
                Ok(false) => break,
                Ok(true) => worked = true,
                Err(error) => {
                    self.lose(&error, now);
                    return true;
                }
            }
        }
        if let Some(wire) = &mut self.wire {
            if wire.queue.controller().is_some() {
                self.refusals = 0;
            }
            if let Err(error) = wire.queue.tick(now) {
                self.lose(&error, now);
                return true;
            }
        }
        worked
    }

    /// When to look again, with something to do.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        if self.running.len() == 0 {
            return None;
        }
        let pause = match &self.wire {
            None => LOOK_EVERY,
            Some(wire) if wire.queue.controller().is_none() || wire.queue.has_output() => TRY_EVERY,
            Some(_) => WATCH_EVERY,
        };
        Some(now + pause)
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

impl Channel for TcpChannel {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let info = &self.device.info;
        request.assert_sound(info.block_size);
        if self.in_flight() >= DEPTH as usize {
            return Err(request);
        }
        let refusal = match request.op {
            _ if !request.is_within(info) => Some(Status::OutOfRange),
            Op::CompareAndWrite { .. } | Op::XdWriteRead { .. } | Op::XpWrite { .. } => {
                Some(Status::Unsupported)
            }
            Op::Compare if !self.device.compares => Some(Status::Unsupported),
            _ => match self.link.state().phase {
                Phase::Failing | Phase::Gone => Some(Status::Gone),
                // What has no volatile write cache has nothing to flush.
                _ if request.op == Op::Flush && !info.write_cache => Some(Status::Ok),
                _ => None,
            },
        };
        if let Some(status) = refusal {
            self.answer(request, status);
            return Ok(());
        }
        let slot = self.running.insert(Flight::new(request));
        self.waiting.push_back(slot);
        Ok(())
    }

    fn kick(&mut self) {
        self.fill();
        self.send();
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<Completion>) -> bool {
        let before = done.len();
        self.follow(now);
        let worked = self.receive(now);
        self.settle();
        // What goes on, or was not taken before, is not waited for by anyone's kick.
        self.fill();
        self.send();
        done.append(&mut self.answered);
        self.look_at = self.next_look(now);
        worked || done.len() > before
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.answered.len()
    }

    fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.device.info.name, &self.stat);
    }
}

impl Drop for TcpChannel {
    fn drop(&mut self) {
        // The kernel has copies of what it is sending, so nothing of ours is in use afterwards.
        self.wire = None;
        self.link.leave(self.number);
        self.link.free_queue(self.number);
    }
}
