//! The I/O side of one reactor: its connections, its devices, its payload memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::device::Devices;
use super::io_queue::Token;
use super::message::{ConnectionId, FenceChange, GroupCommand, GroupEvent, NewConnection, Ticket};
use super::payload::PayloadMemory;
use super::session::{Session, Site};
use super::stats::GroupStats;
use crate::reactor::{
    Events, Interest, Mailbox, MailboxSender, Poller, Progress, Registration, Turn,
};

/// Rounds of receiving and polling in one turn, as long as there is progress. What one has brought is sent before the next
/// begins: hosts that have answers ask for more meanwhile.
const ROUNDS: usize = 4;

/// Reads that are taken in one round; then what they have brought is sent, before the next. A device's data is still in the
/// core's cache when it is sent, and so is its memory when it is filled again. Where many queues ask for much,
/// one's answers are on their way while another's commands are carried out.
const PORTION: usize = 64;

/// Bytes of such a read; a larger one counts as several. So a round brings half a megabyte at most, or one read.
pub(super) const READ: usize = 8 << 10;

/// Commands of the control side taken in one turn.
const COMMANDS_A_TURN: usize = 64;

/// How often the clocks of connections are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Events that may wait for the control side before connections that need it are held up.
const EVENTS_WAITING: usize = 64;

/// Marks the tokens of this room in the reactor's events; the low half is the connection.
const TOKEN_TAG: u64 = 0x6e76_6d66 << 32;

/// What a poll group is made from. Can be sent to the reactor that is to run it.
#[derive(Debug)]
pub struct GroupSeed {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) memory: PayloadMemory,
    pub(super) inbox: Mailbox<GroupCommand>,
    pub(super) outbox: MailboxSender<(usize, GroupEvent)>,
}

impl GroupSeed {
    /// Makes the poll group, on the reactor that runs it.
    pub fn grow(self) -> PollGroup {
        PollGroup {
            index: self.index,
            inbox: self.inbox,
            outbox: self.outbox,
            events: crate::reactor::events(),
            site: Site {
                devices: Devices::default(),
                memory: self.memory,
                events: VecDeque::new(),
                stats: GroupStats {
                    name: self.name,
                    ..GroupStats::default()
                },
                now: Instant::now(),
                outcomes: Vec::new(),
                portion: PORTION,
            },
            places: Vec::new(),
            free: Vec::new(),
            by_id: FxHashMap::default(),
            active: Vec::new(),
            first: 0,
            untold: 0,
            preempting: Vec::new(),
            next_tick: None,
            stop: None,
            stopped: false,
            finished: false,
        }
    }
}

/// One connection and what the reactor watches for it.
#[derive(Debug)]
struct Place {
    session: Session,
    registration: Option<Registration>,
    interest: Interest,
    /// Nobody tells when it is ready: it is tried in every turn.
    untold: bool,
    /// It is in the list of active ones.
    active: bool,
}

/// A change of a reservation for which commands have to end.
#[derive(Debug)]
struct Preempting {
    ticket: Ticket,
    nsid: u32,
    /// Connections that have such commands.
    connections: Vec<ConnectionId>,
}

/// The connections of one reactor.
#[derive(Debug)]
pub struct PollGroup {
    index: usize,
    inbox: Mailbox<GroupCommand>,
    outbox: MailboxSender<(usize, GroupEvent)>,
    events: Option<Events>,
    site: Site,
    places: Vec<Option<Box<Place>>>,
    free: Vec<u32>,
    by_id: FxHashMap<ConnectionId, u32>,
    /// Connections that may have something to do.
    active: Vec<u32>,
    /// Which of them is the first to receive.
    first: usize,
    /// Connections that nobody tells us of when they are ready.
    untold: usize,
    /// Changes of reservations that are not complete.
    preempting: Vec<Preempting>,
    next_tick: Option<Instant>,
    stop: Option<Instant>,
    /// The control side has been told that it has stopped.
    stopped: bool,
    finished: bool,
}

impl Poller for PollGroup {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        self.site.now = turn.now;
        self.site.devices.begin_turn(turn.now);
        if self.finished {
            return self.finish();
        }
        let mut busy = self.obey();
        for ready in turn.ready {
            if ready.token & !0xffff_ffff == TOKEN_TAG {
                let place = ready.token as u32;
                if let Some(p) = self.place(place) {
                    p.session
                        .ready(ready.readable || ready.hangup, ready.writable);
                    self.activate(place);
                }
            }
        }
        if self.untold > 0 {
            self.try_untold();
        }
        for round in 1..=ROUNDS {
            self.site.portion = PORTION;
            let mut progress = self.receive();
            progress |= self.poll_devices();
            progress |= self.give_turns();
            busy |= progress;
            if !progress {
                break;
            }
            if round < ROUNDS {
                self.send_round();
            }
        }
        busy |= self.send();
        busy |= self.tick();
        busy |= self.wind_up();
        if self.finished {
            return self.finish();
        }
        if busy { Progress::Busy } else { Progress::Idle }
    }

    fn deadline(&self) -> Option<Instant> {
        let devices = self.site.devices.deadline();
        let stop = self.stop.filter(|_| !self.stopped);
        [self.next_tick, devices, stop].into_iter().flatten().min()
    }
}

impl PollGroup {
    /// Whether no payload memory is in use.
    #[cfg(test)]
    pub(super) fn memory_is_whole(&self) -> bool {
        self.site.memory.is_whole()
    }

    /// Goes on as if somebody would tell of every connection that is ready, as the kernel does of sockets.
    #[cfg(test)]
    pub(super) fn watch_nobody(&mut self) {
        self.untold = 0;
        for place in self.places.iter_mut().flatten() {
            place.untold = false;
        }
    }

    /// What the control side wants.
    fn obey(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..COMMANDS_A_TURN {
            let Some(command) = self.inbox.receive() else {
                break;
            };
            busy = true;
            match command {
                GroupCommand::Serve(new) => self.serve(*new),
                GroupCommand::Connected { connection, answer } => {
                    self.with(connection, |session, site| session.connected(*answer, site));
                }
                GroupCommand::Judged {
                    connection,
                    verdict,
                } => {
                    self.with(connection, |session, site| session.judged(*verdict, site));
                }
                GroupCommand::Close(connection) => {
                    self.with(connection, |session, site| {
                        session.lose(site, "the control side closed it");
                    });
                }
                GroupCommand::Open {
                    device,
                    bdev,
                    ticket,
                } => {
                    let outcome = self.site.devices.open(device, &*bdev);
                    self.tell(GroupEvent::Opened { ticket, outcome });
                }
                GroupCommand::CloseDevice { device, ticket } => {
                    if !self.site.devices.close(device, ticket) {
                        self.tell(GroupEvent::Done(ticket));
                    }
                }
                GroupCommand::Subsystem(view) => {
                    self.with_all(|session, site| session.set_view(&view, site));
                }
                GroupCommand::Resized { view, ticket } => {
                    self.with_all(|session, site| session.set_queue_view(&view, site));
                    self.tell(GroupEvent::Done(ticket));
                }
                GroupCommand::Discovery(view) => {
                    self.with_all(|session, site| session.set_discovery(&view, site));
                }
                GroupCommand::Fence { change, ticket } => self.set_fence(&change, ticket),
                GroupCommand::ReservationNotice(notice) => {
                    self.with_all(|session, site| session.notice_reservation(&notice, site));
                }
                GroupCommand::Reserved {
                    connection,
                    slot,
                    answer,
                } => {
                    self.with(connection, |session, site| {
                        session.reserved(slot, *answer, site);
                    });
                }
                GroupCommand::Moved { connection, counts } => {
                    self.with(connection, |session, _| session.moved(&counts));
                }
                GroupCommand::Failed {
                    connection,
                    failures,
                } => self.with(connection, |session, _| session.failed(&failures)),
                GroupCommand::Stats(ticket) => {
                    let mut stats = Box::new(self.site.stats.clone());
                    stats.pending_bdev_io = self.site.devices.pending() as u64;
                    stats.waiting_for_memory = self.site.memory.waiting() as u64;
                    self.site.devices.iostat(&mut |name, stat| {
                        stats.devices.push((name.to_owned(), *stat));
                    });
                    let latencies = self.site.devices.latencies();
                    let latencies = latencies.map(|(name, l)| (name.to_owned(), l.clone()));
                    stats.latencies = latencies.collect();
                    self.tell(GroupEvent::Stats { ticket, stats });
                }
                GroupCommand::Histogram { device, histogram } => {
                    self.site.devices.set_histogram(device, histogram);
                }
                GroupCommand::ResetLatencies { device, all } => {
                    self.site.devices.reset_latencies(device, all);
                }
                GroupCommand::Limit { device, limiter } => {
                    let now = self.site.now;
                    self.site.devices.limit(device, limiter, now);
                }
                GroupCommand::Depth { device, depth } => {
                    let depth = depth.map(|depth| (self.index, depth));
                    self.site.devices.note_depth(device, depth);
                }
                GroupCommand::Stop { deadline } => {
                    self.site.devices.lift_limits();
                    self.stop = Some(deadline);
                }
                GroupCommand::Finish => self.finished = true,
            }
        }
        busy
    }

    /// Applies a change of a reservation, and confirms it as soon as it is complete.
    fn set_fence(&mut self, change: &FenceChange, ticket: Option<Ticket>) {
        let mut connections = Vec::new();
        self.with_all(|session, site| {
            if session.set_fence(change, site) {
                connections.push(session.id());
            }
        });
        if let Some(ticket) = ticket {
            self.preempting.push(Preempting {
                ticket,
                nsid: change.nsid,
                connections,
            });
        }
    }

    /// Confirms changes of reservations that are complete.
    fn confirm_fences(&mut self) {
        let (by_id, places) = (&self.by_id, &self.places);
        let waits = |connection: &ConnectionId, nsid| {
            let place = by_id.get(connection).map(|&place| place as usize);
            let place = place.and_then(|place| places[place].as_deref());
            place.is_some_and(|place| place.session.has_preempted(nsid))
        };
        let events = &mut self.site.events;
        self.preempting.retain_mut(|preempting| {
            let nsid = preempting.nsid;
            preempting.connections.retain(|c| waits(c, nsid));
            let complete = preempting.connections.is_empty();
            if complete {
                events.push_back(GroupEvent::Done(preempting.ticket));
            }
            !complete
        });
    }

    fn serve(&mut self, new: NewConnection) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        let id = new.id;
        let session = Session::new(new, place, self.site.now);
        let interest = Interest::READABLE;
        let token = TOKEN_TAG | u64::from(place);
        let descriptor = session.wire().and_then(|wire| wire.descriptor());
        let registration = match (&self.events, descriptor) {
            (Some(events), Some(descriptor)) => {
                match events.register(descriptor, token, interest) {
                    Ok(registration) => Some(registration),
                    Err(error) => {
                        tracing::warn!("a connection cannot be watched: {error}");
                        self.tell(GroupEvent::Lost(id));
                        self.tell(GroupEvent::Closed(id));
                        self.free.push(place);
                        return;
                    }
                }
            }
            _ => None,
        };
        self.untold += usize::from(registration.is_none());
        self.by_id.insert(id, place);
        self.places[place as usize] = Some(Box::new(Place {
            session,
            untold: registration.is_none(),
            registration,
            interest,
            active: false,
        }));
        self.activate(place);
        self.next_tick.get_or_insert(self.site.now + TICK);
    }

    /// Marks connections that nobody tells of.
    fn try_untold(&mut self) {
        for place in 0..self.places.len() as u32 {
            if let Some(p) = self.place(place)
                && p.untold
            {
                p.session.ready(true, true);
                self.activate(place);
            }
        }
    }

    /// Lets every connection that may have something take it.
    fn receive(&mut self) -> bool {
        let control_lags = self.site.events.len() >= EVENTS_WAITING;
        let stopping = self.stop.is_some();
        let mut busy = false;
        let count = self.active.len();
        for step in 0..count {
            let at = (self.first + step) % count;
            let place = self.active[at];
            let Some(p) = &mut self.places[place as usize] else {
                continue;
            };
            let held_up = stopping || (control_lags && p.session.needs_control());
            if !held_up {
                busy |= p.session.receive(&mut self.site);
            }
            if self.site.portion == 0 {
                // The next round begins with the others.
                self.first = (at + 1) % count;
                self.pass_over(count - step - 1);
                break;
            }
        }
        busy
    }

    /// So many connections, from the first of the next round on, have not received in this one: they are not to
    /// be forgotten when the turn ends.
    fn pass_over(&mut self, count: usize) {
        for step in 0..count {
            let at = (self.first + step) % self.active.len();
            if let Some(p) = &mut self.places[self.active[at] as usize] {
                p.session.pass_over();
            }
        }
    }

    /// Sends what a round has brought when another follows.
    fn send_round(&mut self) {
        for at in 0..self.active.len() {
            let place = self.active[at];
            if let Some(p) = &mut self.places[place as usize] {
                p.session.send(&mut self.site);
            }
        }
    }

    /// Rings doorbells and hands completions to their connections.
    fn poll_devices(&mut self) -> bool {
        let mut devices = std::mem::take(&mut self.site.devices);
        // Whose commands are done and not answered yet: completions of one connection come in a row.
        let mut unanswered = None;
        let busy = devices.poll(self.site.now, |devices, completion| {
            let token = Token::from_bits(completion.token);
            if let Some(before) = unanswered.replace(token.origin)
                && before != token.origin
            {
                answer(&mut self.places, before, &mut self.site);
            }
            let place = in_use(&mut self.places, token.origin);
            let outcomes = &mut self.site.outcomes;
            place
                .session
                .completed(token, completion, devices, outcomes);
            if !place.active {
                place.active = true;
                self.active.push(token.origin);
            }
        });
        if let Some(last) = unanswered {
            answer(&mut self.places, last, &mut self.site);
        }
        self.site.devices = devices;
        busy
    }

    /// Gives memory to connections whose turn it is.
    fn give_turns(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..self.site.memory.waiting() {
            let Some(place) = self.site.memory.next_turn() else {
                break;
            };
            let Some(p) = &mut self.places[place as usize] else {
                continue;
            };
            if p.session.take_turn(&mut self.site) {
                break;
            }
            busy = true;
            self.activate(place);
        }
        busy
    }

    /// Sends what the turn has brought, and settles what to watch.
    fn send(&mut self) -> bool {
        let mut busy = false;
        let mut active = std::mem::take(&mut self.active);
        active.retain(|&place| {
            let Some(p) = &mut self.places[place as usize] else {
                return false;
            };
            let was_blocked = !p.session.wants_to_read();
            busy |= p.session.send(&mut self.site);
            let resumed = was_blocked && p.session.wants_to_read();
            if p.session.is_closed() {
                self.clear(place);
                busy = true;
                return false;
            }
            let p = self.places[place as usize]
                .as_mut()
                .expect("just looked at");
            Self::watch(p, self.events.as_ref());
            let more = resumed || p.session.has_output() || p.session.has_more();
            // Data in memory that waits for memory has nobody who tells of it.
            p.active = more || p.session.is_held();
            busy |= more;
            p.active
        });
        active.append(&mut self.active);
        self.active = active;
        busy
    }

    /// Watches for what the connection wants.
    fn watch(place: &mut Place, events: Option<&Events>) {
        if place.session.wire().is_none() {
            place.registration = None;
            return;
        }
        let wanted = Interest {
            readable: place.session.wants_to_read(),
            writable: place.session.wants_to_write(),
        };
        if wanted != place.interest
            && let (Some(events), Some(registration)) = (events, &place.registration)
        {
            match events.modify(registration, wanted) {
                Ok(()) => place.interest = wanted,
                Err(error) => tracing::warn!("a connection cannot be watched: {error}"),
            }
        }
    }

    /// Forgets a connection of which nothing is left.
    fn clear(&mut self, place: u32) {
        let gone = self.places[place as usize].take();
        let gone = gone.expect("a connection is cleared once");
        self.untold -= usize::from(gone.untold);
        self.by_id.remove(&gone.session.id());
        self.free.push(place);
        self.tell(GroupEvent::Closed(gone.session.id()));
        if self.by_id.is_empty() {
            self.next_tick = None;
        }
    }

    /// Looks at the clocks of all connections, now and then.
    fn tick(&mut self) -> bool {
        if self.next_tick.is_none_or(|at| self.site.now < at) {
            return false;
        }
        for place in 0..self.places.len() {
            if let Some(p) = &mut self.places[place] {
                p.session.tick(&mut self.site);
                self.activate(place as u32);
            }
        }
        self.next_tick = (!self.by_id.is_empty()).then(|| self.site.now + TICK);
        true
    }

    /// Ends what has run out, and tells the control side what there is to tell.
    fn wind_up(&mut self) -> bool {
        let events = &mut self.site.events;
        self.site
            .devices
            .closed(|ticket| events.push_back(GroupEvent::Done(ticket)));
        if !self.preempting.is_empty() {
            self.confirm_fences();
        }
        if let Some(deadline) = self.stop {
            self.wind_down(deadline);
        }
        self.report()
    }

    /// Hands events to the control side, as far as it takes them. Says whether it took any.
    fn report(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.site.events.pop_front() {
            if let Err((_, event)) = self.outbox.send((self.index, event)) {
                if !self.outbox.is_closed() {
                    self.site.events.push_front(event);
                }
                break;
            }
            busy = true;
        }
        busy
    }

    /// Is done for good as soon as the control side has heard so.
    fn finish(&mut self) -> Progress {
        self.report();
        if self.site.events.is_empty() {
            Progress::Finished
        } else {
            Progress::Idle
        }
    }

    /// Closes connections that have nothing unfinished, and all of them at the deadline.
    fn wind_down(&mut self, deadline: Instant) {
        let late = self.site.now >= deadline;
        for place in 0..self.places.len() {
            if let Some(p) = &mut self.places[place]
                && (late || p.session.is_quiet())
            {
                p.session.lose(&mut self.site, "the target stops");
                self.activate(place as u32);
            }
        }
        let clean = self.by_id.is_empty();
        if (clean || late) && !self.stopped {
            self.stopped = true;
            self.tell(GroupEvent::Stopped { clean });
        }
    }

    fn tell(&mut self, event: GroupEvent) {
        self.site.events.push_back(event);
    }

    fn with(&mut self, id: ConnectionId, act: impl FnOnce(&mut Session, &mut Site)) {
        if let Some(&place) = self.by_id.get(&id)
            && let Some(p) = &mut self.places[place as usize]
        {
            act(&mut p.session, &mut self.site);
            self.activate(place);
        }
    }

    fn with_all(&mut self, mut act: impl FnMut(&mut Session, &mut Site)) {
        for place in 0..self.places.len() {
            if let Some(p) = &mut self.places[place] {
                act(&mut p.session, &mut self.site);
                self.activate(place as u32);
            }
        }
    }

    fn place(&mut self, place: u32) -> Option<&mut Place> {
        self.places.get_mut(place as usize)?.as_deref_mut()
    }

    fn activate(&mut self, place: u32) {
        if let Some(p) = &mut self.places[place as usize]
            && !p.active
        {
            p.active = true;
            self.active.push(place);
        }
    }
}

/// The connection of a request that devices have.
fn in_use(places: &mut [Option<Box<Place>>], place: u32) -> &mut Place {
    let place = places[place as usize].as_deref_mut();
    place.expect("a connection stays while devices have its requests")
}

/// Answers the commands of one connection that are done.
fn answer(places: &mut [Option<Box<Place>>], place: u32, site: &mut Site) {
    in_use(places, place).session.answer(site);
}
