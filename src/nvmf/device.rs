//! The devices of a poll group: one channel each, one doorbell a turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::depth::QueueDepth;
use super::io_queue::Token;
use super::latency::{Histogram, Kind, Latencies};
use super::limiter::Limiter;
use super::message::Ticket;
use super::throttle::Throttle;
use super::view::DeviceId;
use crate::bdev::{Bdev, Channel, Completion, IoStat, OpenError, Request, Status};

/// The open devices of one poll group, by [`DeviceId`].
#[derive(Debug, Default)]
pub struct Devices {
    table: Vec<Option<Device>>,
    done: Vec<Completion>,
    /// As late as is known without asking the clock for every request.
    now: Option<Instant>,
}

#[derive(Debug)]
struct Device {
    name: String,
    channel: Box<dyn Channel>,
    /// Requests that the channel had no room for, oldest first. Bounded by the commands of all
    /// queues.
    backlog: VecDeque<Request>,
    /// Requests that have to wait because the device has limits.
    throttle: Option<Box<Throttle>>,
    /// Requests that have ended without the channel, and are not told yet.
    ended: Vec<Completion>,
    block_size: u32,
    /// Where to note how many requests there are, as which reactor.
    depth: Option<(usize, Arc<QueueDepth>)>,
    /// Something was submitted since the last doorbell.
    rung: bool,
    /// Commands that have been admitted for this device and not yet submitted anything.
    expected: usize,
    /// How long commands are with it.
    latencies: Latencies,
    /// To be closed when nothing is expected or in flight, and then confirmed.
    closing: Option<Ticket>,
}

impl Device {
    fn pending(&self) -> usize {
        let throttled = self.throttle.as_ref().map_or(0, |t| t.len());
        self.channel.in_flight() + self.backlog.len() + throttled + self.ended.len()
    }

    /// Hands in a request that may go; it waits here while the channel is full.
    fn hand_in(&mut self, request: Request) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(request);
            return;
        }
        match self.channel.submit(request) {
            Ok(()) => self.rung = true,
            Err(request) => self.backlog.push_back(request),
        }
    }

    /// Hands in a request, or has it wait for the device's limits.
    fn submit(&mut self, request: Request, now: Instant) {
        let request = match &mut self.throttle {
            Some(throttle) => throttle.admit(request, now),
            None => Some(request),
        };
        if let Some(request) = request {
            self.hand_in(request);
        }
    }

    /// Hands in what has waited long enough.
    fn release(&mut self, now: Instant) {
        if let Some(mut throttle) = self.throttle.take() {
            throttle.release(now, |request| self.hand_in(request));
            self.throttle = Some(throttle);
        }
    }

    /// Ends requests that wait for the channel, or because of limits, undone.
    fn withdraw(&mut self, is_meant: impl Fn(Token) -> bool) {
        let mut end = |request: Request| {
            self.ended.push(Completion {
                token: request.token,
                status: Status::Gone,
                data: request.data,
            });
        };
        for _ in 0..self.backlog.len() {
            let request = self.backlog.pop_front().expect("counted");
            match is_meant(Token::from_bits(request.token)) {
                true => end(request),
                false => self.backlog.push_back(request),
            }
        }
        if let Some(throttle) = &mut self.throttle {
            throttle.withdraw(is_meant, end);
        }
    }

    /// Has no limits any more: what waits may go.
    fn lift(&mut self) {
        if let Some(throttle) = self.throttle.take() {
            throttle.into_waiting().for_each(|r| self.hand_in(r));
        }
    }

    /// When it is to be polled even if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let throttle = self.throttle.as_ref().and_then(|t| t.deadline());
        let depth = self.depth.as_ref().filter(|_| self.pending() > 0);
        let depth = depth.map(|(_, depth)| depth.deadline());
        let deadlines = [self.channel.deadline(), throttle, depth];
        deadlines.into_iter().flatten().min()
    }

    /// Fills the channel from the backlog.
    fn refill(&mut self) {
        while let Some(request) = self.backlog.pop_front() {
            match self.channel.submit(request) {
                Ok(()) => self.rung = true,
                Err(request) => {
                    self.backlog.push_front(request);
                    break;
                }
            }
        }
    }
}

impl Devices {
    /// Opens a device on the calling reactor.
    ///
    /// # Errors
    /// What the device said.
    pub fn open(&mut self, id: DeviceId, bdev: &dyn Bdev) -> Result<(), OpenError> {
        let channel = bdev.open()?;
        let at = id.0 as usize;
        if self.table.len() <= at {
            self.table.resize_with(at + 1, || None);
        }
        assert!(self.table[at].is_none(), "a place is given out once");
        self.table[at] = Some(Device {
            name: bdev.info().name.clone(),
            channel,
            backlog: VecDeque::new(),
            throttle: None,
            ended: Vec::new(),
            block_size: bdev.info().block_size,
            depth: None,
            rung: false,
            expected: 0,
            latencies: Latencies::default(),
            closing: None,
        });
        Ok(())
    }

    /// Closes a device once nothing uses it; [`Devices::closed`] tells when. Says whether it is
    /// open at all. Nobody waits for its limits any more.
    pub fn close(&mut self, id: DeviceId, ticket: Ticket) -> bool {
        let Some(device) = self.get(id) else {
            return false;
        };
        device.lift();
        device.closing = Some(ticket);
        true
    }

    /// Has a device keep other limits, or none. What waits is asked anew.
    pub fn limit(&mut self, id: DeviceId, limiter: Option<Arc<Limiter>>, now: Instant) {
        let Some(device) = self.get(id) else {
            return;
        };
        let block_size = device.block_size;
        let throttle = limiter.filter(|_| device.closing.is_none());
        let throttle = throttle.map(|l| Box::new(Throttle::new(l, block_size)));
        let before = std::mem::replace(&mut device.throttle, throttle);
        for request in before.into_iter().flat_map(|t| t.into_waiting()) {
            device.submit(request, now);
        }
    }

    /// Has the number of requests to a device noted from now on, as which reactor, or no longer.
    pub fn note_depth(&mut self, id: DeviceId, depth: Option<(usize, Arc<QueueDepth>)>) {
        if let Some(device) = self.get(id) {
            device.depth = depth;
        }
    }

    /// No device has limits any more: the target stops.
    pub fn lift_limits(&mut self) {
        self.table.iter_mut().flatten().for_each(Device::lift);
    }

    /// Ends the requests of a queue that are not with a device yet: its host is gone.
    pub fn withdraw(&mut self, origin: u32) {
        for device in self.table.iter_mut().flatten() {
            device.withdraw(|token| token.origin == origin);
        }
    }

    /// Ends requests that are not with this device yet: their host may not make them any more.
    pub fn withdraw_from(&mut self, id: DeviceId, is_meant: impl Fn(Token) -> bool) {
        if let Some(device) = self.get(id) {
            device.withdraw(is_meant);
        }
    }

    /// Drops devices that were to be closed and are not used any more; gives their tickets.
    pub fn closed(&mut self, mut tell: impl FnMut(Ticket)) {
        for place in &mut self.table {
            if let Some(device) = place
                && let Some(ticket) = device.closing
                && device.expected == 0
                && device.pending() == 0
            {
                *place = None;
                tell(ticket);
            }
        }
    }

    /// Whether commands for this device may be admitted.
    pub fn serves(&self, id: DeviceId) -> bool {
        let device = self.table.get(id.0 as usize).and_then(Option::as_ref);
        device.is_some_and(|d| d.closing.is_none())
    }

    /// A command for this device was admitted; it will submit something, or call
    /// [`Devices::forget`].
    pub fn expect(&mut self, id: DeviceId) {
        self.must(id).expected += 1;
    }

    /// A command that was admitted has submitted something, or never will.
    pub fn forget(&mut self, id: DeviceId) {
        self.must(id).expected -= 1;
    }

    /// A turn begins.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// When a command that submits its first request now has begun to be with its device.
    pub fn now(&self) -> Option<Instant> {
        self.now
    }

    /// A command that has been with a device since then is done.
    pub fn measure(&mut self, id: DeviceId, kind: Kind, since: Option<Instant>) {
        if let Some((now, since)) = self.now.zip(since) {
            let time = now.saturating_duration_since(since);
            self.must(id).latencies.record(kind, time);
        }
    }

    /// Has the spread of a device's latencies counted from now on, or no longer.
    pub fn set_histogram(&mut self, id: DeviceId, histogram: Option<Box<Histogram>>) {
        if let Some(device) = self.get(id) {
            device.latencies.histogram = histogram;
        }
    }

    /// Forgets the longest and shortest latencies of a device, and with `all` the others.
    pub fn reset_latencies(&mut self, id: DeviceId, all: bool) {
        if let Some(device) = self.get(id) {
            device.latencies.reset(all);
        }
    }

    /// How long commands are with each device.
    pub fn latencies(&self) -> impl Iterator<Item = (&str, &Latencies)> {
        let devices = self.table.iter().flatten();
        devices.map(|d| (d.name.as_str(), &d.latencies))
    }

    /// Hands in a request; it waits here while the channel is full.
    pub fn submit(&mut self, id: DeviceId, request: Request) {
        let now = self.now;
        let device = self.must(id);
        match (&device.throttle, now) {
            (Some(_), Some(now)) => device.submit(request, now),
            _ => device.hand_in(request),
        }
    }

    /// Rings every doorbell that needs it and gives what is done to `take`. Says whether there was
    /// anything to do.
    pub fn poll(&mut self, now: Instant, mut take: impl FnMut(&mut Self, Completion)) -> bool {
        let mut done = std::mem::take(&mut self.done);
        let mut busy = false;
        for device in self.table.iter_mut().flatten() {
            device.refill();
            device.release(now);
            done.append(&mut device.ended);
            if device.rung {
                device.channel.kick();
                device.rung = false;
                busy = true;
            }
            busy |= device.channel.poll(now, &mut done);
            if let Some((reactor, depth)) = &device.depth {
                depth.note(*reactor, device.pending() as u64, now);
            }
        }
        if !done.is_empty() {
            busy = true;
            // Once for all of them.
            self.now = Some(Instant::now());
        }
        for completion in done.drain(..) {
            take(self, completion);
        }
        self.done = done;
        busy
    }

    /// The earliest moment at which a channel wants to be polled.
    pub fn deadline(&self) -> Option<Instant> {
        let devices = self.table.iter().flatten();
        devices.filter_map(Device::deadline).min()
    }

    /// Reports what went through each device, and through those below it.
    pub fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        for device in self.table.iter().flatten() {
            device.channel.iostat(report);
        }
    }

    /// Requests that devices hold now.
    pub fn pending(&self) -> usize {
        self.table.iter().flatten().map(Device::pending).sum()
    }

    fn get(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.table.get_mut(id.0 as usize)?.as_mut()
    }

    fn must(&mut self, id: DeviceId) -> &mut Device {
        self.get(id)
            .expect("a device stays while a command is admitted for it")
    }
}
