//! The life of one connection: handshake, Connect, then a queue until it ends.

mod authentication;
mod memory;
mod reservation;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zerocopy::FromBytes;

use self::memory::Demand;
use self::reservation::Reserving;
use super::auth::Gate;
use super::command::{self, Carriage, Need};
use super::controller::{Controller, Effects};
use super::counts::Counts;
use super::device::Devices;
use super::error_log::{Failure, FailureReport, Failures};
use super::io_queue::{Admission, IoQueue, Outcome, Token};
use super::message::{ConnectAnswer, ConnectRequest, ConnectionId, GroupEvent, NewConnection};
use super::payload::PayloadMemory;
use super::perspective::Perspective;
use super::stats::GroupStats;
use super::tcp::{Arrival, Connection, End, GATHER, Settings, Sink, SlotId};
use super::transport::TransportOptions;
use super::view::{DiscoveryView, SubsystemView};
use super::wire::Wire;
use crate::bdev;
use crate::memory::SegmentsMut;
use crate::nvme::fabrics::{Connect, ConnectData, ConnectResult, FabricsCommand};
use crate::nvme::reservation::ReservationCommand;
use crate::nvme::{Command, Status};

/// What the sessions of a poll group share.
#[derive(Debug)]
pub struct Site {
    /// Devices.
    pub devices: Devices,
    /// Payload memory.
    pub memory: PayloadMemory,
    /// For the control side, in order.
    pub events: VecDeque<GroupEvent>,
    /// Counts.
    pub stats: GroupStats,
    /// The time of this turn.
    pub now: Instant,
    /// Commands that are done, on their way to their session.
    pub outcomes: Vec<Outcome>,
    /// Reads that may still be taken in this round. At 0 nothing more is taken until what there is has been sent.
    pub portion: usize,
}

/// Commands that one session may take in one turn, and reads that it may make.
const COMMANDS_A_TURN: usize = 128;
const READS_A_TURN: usize = 8;

/// Sends that one session may make in one turn, where one does not take all.
const SENDS_A_TURN: usize = 4;

/// An admin queue with more than this to send takes no more commands.
const ADMIN_OUTPUT: u64 = 256 << 10;

/// How often an I/O queue tells its controller what it has moved.
const COUNTING: Duration = Duration::from_secs(4);

/// How long a connection that we end stays open for the host to read why.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection is.
#[derive(Debug)]
enum Role {
    /// Nothing yet.
    New {
        /// The Connect whose data is on its way.
        connect: Option<Connect>,
        /// When this step of the handshake began.
        since: Instant,
    },
    /// The control side decides on its Connect.
    Connecting {
        /// The command.
        slot: SlotId,
        /// What it asks for.
        connect: Connect,
    },
    /// An admin queue.
    Admin {
        controller: Box<Controller>,
        /// Commands whose data is on its way.
        expecting: Vec<(SlotId, Command)>,
    },
    /// An I/O queue.
    Io(Box<IoQueue>),
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It works.
    Open,
    /// It is at its end: what is left is sent, then the host's end is awaited until then.
    Ending { until: Instant, finished: bool },
    /// The wire is closed; devices may still have requests.
    Lost,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    id: ConnectionId,
    /// Its place in the poll group; marks its device requests.
    place: u32,
    wire: Option<Box<dyn Wire>>,
    connection: Connection,
    role: Role,
    /// What its host sees of its subsystem, once it is a queue.
    perspective: Option<Perspective>,
    /// There is one where the host has to prove who it is.
    gate: Option<Box<Gate>>,
    stage: Stage,
    options: Arc<TransportOptions>,
    local: SocketAddr,
    peer: SocketAddr,
    /// There may be something to read.
    readable: bool,
    /// The wire has taken less than it was given.
    congested: bool,
    /// A round has ended before all that was received was acted on.
    behind: bool,
    demand: Demand,
    /// Its number among the queues of its controller.
    qid: u16,
    /// Commands of an I/O queue that have failed.
    failures: FailureReport,
    /// When an I/O queue last told what it has moved.
    counted: Option<Instant>,
    /// Reservation commands that are not answered.
    reserving: Vec<Reserving>,
    /// Progress when the host was last found to owe something, and when that was.
    owing: Option<(u64, Instant)>,
}

impl Session {
    /// A session for a connection that has just come.
    pub fn new(new: NewConnection, place: u32, now: Instant) -> Self {
        let settings = Settings {
            max_h2c_data: new.options.max_h2c_data,
            c2h_success: new.options.c2h_success,
        };
        Self {
            id: new.id,
            place,
            wire: Some(new.wire),
            connection: Connection::new(settings),
            role: Role::New {
                connect: None,
                since: now,
            },
            perspective: None,
            gate: None,
            stage: Stage::Open,
            options: new.options,
            local: new.local,
            peer: new.peer,
            readable: true,
            congested: false,
            behind: false,
            demand: Demand::default(),
            qid: 0,
            failures: FailureReport::default(),
            counted: None,
            reserving: Vec::new(),
            owing: None,
        }
    }

    /// Which connection it is.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Its byte stream, as long as it has one.
    pub fn wire(&self) -> Option<&dyn Wire> {
        self.wire.as_deref()
    }

    /// Whether it wants to be told when there is something to read.
    pub fn wants_to_read(&self) -> bool {
        match self.stage {
            Stage::Open => {
                !self.is_held()
                    && !self.connection.is_blocked()
                    && !matches!(self.role, Role::Connecting { .. })
                    && !self.is_flooded()
            }
            Stage::Ending { .. } => true,
            Stage::Lost => false,
        }
    }

    /// Whether it wants to be told when the wire takes more.
    pub fn wants_to_write(&self) -> bool {
        self.congested
    }

    /// Whether there is something to send that the wire may take.
    pub fn has_output(&self) -> bool {
        self.connection.unsent() > 0 && !self.congested
    }

    /// A round has ended before it could receive.
    pub fn pass_over(&mut self) {
        self.behind = true;
    }

    /// Whether it can go on without being told.
    pub fn has_more(&self) -> bool {
        (self.behind && self.stage == Stage::Open) || self.is_readable()
    }

    fn is_readable(&self) -> bool {
        self.readable && self.wants_to_read()
    }

    /// Whether it is gone for good, and nothing of it is left with devices.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Lost && self.in_flight() == 0
    }

    /// Requests with devices, and commands with the control side.
    pub fn in_flight(&self) -> usize {
        let asked = self.reserving.iter().filter(|r| r.is_asked()).count();
        match &self.role {
            Role::Io(queue) => queue.in_flight() + asked,
            _ => asked,
        }
    }

    /// Whether nothing that it has taken is unfinished, as far as the host must know.
    pub fn is_quiet(&self) -> bool {
        let kept = matches!(self.role, Role::Admin { .. });
        self.connection.unsent() == 0 && (kept || self.in_flight() == 0)
    }

    /// The wire is ready, as far as is known.
    pub fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        if writable {
            self.congested = false;
        }
    }

    /// Whether it serves an admin queue, or none yet: what the control side has to keep up with.
    pub fn needs_control(&self) -> bool {
        !matches!(self.role, Role::Io(_))
            || !self.reserving.is_empty()
            || self.gate.as_ref().is_some_and(|g| g.is_shut())
    }

    fn is_flooded(&self) -> bool {
        matches!(self.role, Role::Admin { .. }) && self.connection.unsent() > ADMIN_OUTPUT
    }

    /// Reads what there is and acts on it, within this turn's bounds. Says whether it did anything.
    pub fn receive(&mut self, site: &mut Site) -> bool {
        if let Stage::Ending { .. } = self.stage {
            return self.discard(site);
        }
        let mut commands = COMMANDS_A_TURN;
        let mut busy = self.advance(&mut commands, site);
        for _ in 0..READS_A_TURN {
            if !self.is_readable() || self.stage != Stage::Open || self.behind {
                break;
            }
            let Some(wire) = &mut self.wire else { break };
            let (room, read) = {
                let mut targets = self.connection.targets();
                let room: usize = targets.iter().map(|t| t.len()).sum();
                if room == 0 {
                    break;
                }
                // One piece of memory is received into with a cheaper system call.
                let read = match &mut targets[..] {
                    [target] => wire.read(target),
                    targets => wire.read_vectored(targets),
                };
                (room, read)
            };
            match read {
                Ok(0) => {
                    self.lose(site, "the host closed it");
                    return true;
                }
                Ok(bytes) => {
                    // Less than there was room for: there is no more, or we will be told.
                    self.readable = bytes == room;
                    self.connection.received(bytes);
                    busy = true;
                    self.advance(&mut commands, site);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(site, &error.to_string());
                    return true;
                }
            }
        }
        busy
    }

    /// Reads and forgets, so that the host gets what was sent before the connection is closed.
    fn discard(&mut self, site: &mut Site) -> bool {
        let mut forgotten = [0; 4096];
        while self.readable {
            let Some(wire) = &mut self.wire else { break };
            match wire.read(&mut forgotten) {
                Ok(0) => {
                    self.lose(site, "it has ended");
                    return true;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    self.lose(site, "it has ended");
                    return true;
                }
            }
        }
        false
    }

    /// Acts on what has been read.
    fn advance(&mut self, commands: &mut usize, site: &mut Site) -> bool {
        let mut busy = false;
        self.behind = false;
        while self.stage == Stage::Open {
            if *commands == 0 || site.portion == 0 {
                self.behind = true;
                break;
            }
            if self.is_held() {
                self.provide_held(site);
                if self.is_held() {
                    return busy;
                }
                busy = true;
            }
            if matches!(self.role, Role::Connecting { .. }) || self.is_flooded() {
                return busy;
            }
            let before = self.connection.is_initialized();
            let arrival = self.connection.arrival();
            if !before
                && self.connection.is_initialized()
                && let Role::New { since, .. } = &mut self.role
            {
                *since = site.now;
            }
            match arrival {
                None => break,
                Some(Arrival::Command {
                    slot,
                    command,
                    in_capsule,
                }) => self.command(slot, &command, in_capsule, site),
                Some(Arrival::Data { slot, data, intact }) => self.data(slot, data, intact, site),
            }
            *commands -= 1;
            busy = true;
        }
        if self.connection.end().is_some() && self.stage == Stage::Open {
            let why = self.connection.fault().unwrap_or("it has ended");
            tracing::info!("connection from {}: {why}", self.peer);
            site.stats.connection_faults += 1;
            match self.connection.end() {
                Some(End::Terminated) => self.end(site),
                _ => self.lose(site, "the host ended it"),
            }
            busy = true;
        }
        busy
    }

    fn command(&mut self, slot: SlotId, command: &Command, in_capsule: u32, site: &mut Site) {
        if self.gate.is_some() && self.at_the_gate(slot, command, in_capsule, site) {
            return;
        }
        match &mut self.role {
            Role::New { connect, .. } => {
                match FabricsCommand::parse(command) {
                    Ok(FabricsCommand::Connect(wanted)) => *connect = Some(wanted),
                    _ => {
                        // Nothing but a Connect may come first.
                        let status = Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry();
                        return self.refuse(slot, status);
                    }
                }
                let need = Need::FromHost(size_of::<ConnectData>() as u32);
                match command::carriage(command, need, in_capsule) {
                    Ok((carriage, len)) => self.take_on_heap(slot, carriage, len),
                    Err(status) => self.refuse(slot, status),
                }
            }
            Role::Connecting { .. } => unreachable!("nothing is read before the answer"),
            Role::Admin {
                controller,
                expecting,
            } => {
                let carriage = controller
                    .need(command)
                    .and_then(|need| command::carriage(command, need, in_capsule));
                match carriage {
                    Err(status) => {
                        controller.failed(Failure::of_admin(command, status));
                        self.refuse(slot, status);
                    }
                    Ok((carriage, len)) if len > 0 => {
                        expecting.push((slot, *command));
                        self.take_on_heap(slot, carriage, len);
                    }
                    Ok(_) => {
                        self.connection.drain();
                        self.administer(slot, command, &[], site);
                    }
                }
            }
            Role::Io(queue) => {
                if command.is_fabrics() {
                    let status = match FabricsCommand::parse(command) {
                        Ok(FabricsCommand::Connect(_)) => Status::COMMAND_SEQUENCE_ERROR,
                        _ => Status::INVALID_OPCODE,
                    };
                    return self.refuse(slot, status.with_do_not_retry());
                }
                if ReservationCommand::is(command.opcode) {
                    return self.reserve(slot, command, in_capsule, site);
                }
                let outcomes = &mut site.outcomes;
                let admission = queue.admit(slot, command, in_capsule, &mut site.devices, outcomes);
                match admission {
                    Admission::Refused(status) => {
                        site.stats.completed_nvme_io += 1;
                        self.failures
                            .note(Failure::of_io(command, self.qid, status));
                        self.refuse(slot, status);
                    }
                    Admission::Launch => {
                        self.connection.drain();
                        queue.launch(slot, SegmentsMut::new(), &mut site.devices, outcomes);
                    }
                    Admission::Memory(need) => {
                        if !need.at_once() {
                            self.connection.drain();
                        }
                        self.provide(slot, need, site);
                    }
                    Admission::Half { carriage, len } => self.take_on_heap(slot, carriage, len),
                }
                self.settle(site);
            }
        }
    }

    /// Answers a command whose data, if it has any in its capsule, is not wanted.
    fn refuse(&mut self, slot: SlotId, status: Status) {
        self.connection.drain();
        self.connection.respond(slot, status, 0);
    }

    /// Takes the data of a fabrics or admin command.
    fn take_on_heap(&mut self, slot: SlotId, carriage: Carriage, len: u32) {
        let sink = Sink::Heap(vec![0; len as usize]);
        match carriage {
            Carriage::InCapsule => self.connection.take_in_capsule(slot, sink),
            Carriage::Transport => self.connection.request(slot, sink),
        }
    }

    /// All data of a command has come.
    fn data(&mut self, slot: SlotId, data: Sink, intact: bool, site: &mut Site) {
        let corrupt = Status::TRANSIENT_TRANSPORT_ERROR;
        let is_message = self.gate.as_ref().is_some_and(|gate| gate.expects(slot));
        match (&mut self.role, data) {
            (_, Sink::Heap(bytes)) if is_message => self.message(slot, bytes, intact, site),
            (Role::Io(_), Sink::Heap(keys)) if self.reserving.iter().any(|r| r.is(slot)) => {
                self.reserve_with(slot, &keys, intact, site);
            }
            (Role::New { connect, .. }, Sink::Heap(bytes)) => {
                let connect = connect.take().expect("data follows its Connect");
                match ConnectData::read_from_bytes(&bytes) {
                    Ok(data) if intact => {
                        self.role = Role::Connecting { slot, connect };
                        let request = ConnectRequest {
                            connection: self.id,
                            command: connect,
                            data,
                        };
                        site.events
                            .push_back(GroupEvent::Connect(Box::new(request)));
                    }
                    _ => self.connection.respond(slot, corrupt, 0),
                }
            }
            (Role::Admin { expecting, .. }, Sink::Heap(bytes)) => {
                let at = expecting.iter().position(|(s, _)| *s == slot);
                let at = at.expect("data follows its command");
                let (_, command) = expecting.swap_remove(at);
                if intact {
                    self.administer(slot, &command, &bytes, site);
                } else {
                    self.connection.respond(slot, corrupt, 0);
                }
            }
            (Role::Io(_), _) if !intact => self.fail(slot, corrupt, site),
            (Role::Io(queue), Sink::Buffers(memory)) => {
                queue.launch(slot, memory, &mut site.devices, &mut site.outcomes);
                self.settle(site);
            }
            (Role::Io(queue), Sink::Heap(block)) => {
                let pair = queue.half(slot, block, &mut site.devices, &mut site.outcomes);
                self.settle(site);
                if let Some((first, need)) = pair {
                    self.provide(first, need, site);
                }
            }
            _ => unreachable!("data goes where its command's role sent it"),
        }
    }

    /// Ends an I/O command that cannot go on.
    fn fail(&mut self, slot: SlotId, status: Status, site: &mut Site) {
        if let Role::Io(queue) = &mut self.role {
            queue.fail(slot, status, &mut site.devices, &mut site.outcomes);
        }
        self.settle(site);
    }

    fn administer(&mut self, slot: SlotId, command: &Command, data: &[u8], site: &mut Site) {
        let Role::Admin { controller, .. } = &mut self.role else {
            unreachable!("admin commands come on admin queues");
        };
        let connection = &self.connection;
        let find = |cid| connection.find(cid);
        let effects = controller.execute(slot, command, data, find, site.now);
        self.apply(effects, site);
    }

    /// Does what a controller has decided.
    fn apply(&mut self, effects: Effects, site: &mut Site) {
        for answer in effects.answers {
            if answer.data.is_empty() {
                self.connection
                    .respond(answer.slot, answer.status, answer.result);
            } else {
                self.connection
                    .respond_with_bytes(answer.slot, answer.data, answer.result);
            }
        }
        for (slot, nsids, wish) in effects.reservations {
            self.ask_for_reservation(Reserving::new(slot, nsids, wish), site);
        }
        if let Some(enabled) = effects.enabled {
            site.events.push_back(GroupEvent::Enabled {
                connection: self.id,
                enabled,
            });
        }
    }

    /// Answers the I/O commands that are done.
    fn settle(&mut self, site: &mut Site) {
        for outcome in site.outcomes.drain(..) {
            site.stats.completed_nvme_io += 1;
            if self.stage != Stage::Open {
                continue;
            }
            if !outcome.status.is_success() {
                let (opcode, nsid, lba) = outcome.about;
                self.failures.note(Failure {
                    qid: self.qid,
                    cid: self.connection.cid(outcome.slot),
                    status: outcome.status,
                    lba,
                    nsid,
                    opcode,
                });
            }
            if outcome.payload.is_empty() {
                self.connection.respond(outcome.slot, outcome.status, 0);
            } else {
                self.connection
                    .respond_with_payload(outcome.slot, outcome.payload);
            }
        }
        self.report_failures(site);
    }

    /// Tells the controller of commands that have failed, by way of the control side.
    fn report_failures(&mut self, site: &mut Site) {
        if let Some(failures) = self.failures.take() {
            site.events.push_back(GroupEvent::Failed {
                connection: self.id,
                failures: Box::new(failures),
            });
        }
    }

    /// Tells the controller what an I/O queue has moved.
    fn report_counts(&mut self, site: &mut Site) {
        self.counted = Some(site.now);
        if let Role::Io(queue) = &mut self.role
            && let Some(counts) = queue.take_counts()
        {
            site.events.push_back(GroupEvent::Moved {
                connection: self.id,
                counts,
            });
        }
    }

    /// Other queues of its controller have moved something.
    pub fn moved(&mut self, counts: &Counts) {
        if let Role::Admin { controller, .. } = &mut self.role {
            controller.add_counts(counts);
        }
    }

    /// Commands of other queues of its controller have failed.
    pub fn failed(&mut self, failures: &Failures) {
        if let Role::Admin { controller, .. } = &mut self.role {
            controller.add_failures(failures);
        }
    }

    /// A device has done one of its requests.
    pub fn completed(
        &mut self,
        token: Token,
        completion: bdev::Completion,
        devices: &mut Devices,
        outcomes: &mut Vec<Outcome>,
    ) {
        let Role::Io(queue) = &mut self.role else {
            unreachable!("only I/O queues have requests");
        };
        queue.completed(token, completion, devices, outcomes);
    }

    /// Answers what [`Session::completed`] has brought.
    pub fn answer(&mut self, site: &mut Site) {
        self.settle(site);
    }

    /// What became of its Connect.
    pub fn connected(&mut self, answer: ConnectAnswer, site: &mut Site) {
        let Role::Connecting { slot, connect } = self.role else {
            return;
        };
        let entries = connect.queue_entries();
        self.qid = connect.qid;
        let flow_control = !connect.disable_sq_flow_control;
        let (cntlid, authenticate) = match answer {
            ConnectAnswer::Refused { status, result } => {
                self.role = Role::New {
                    connect: None,
                    since: site.now,
                };
                self.connection.respond(slot, status, result.into());
                return;
            }
            ConnectAnswer::Admin(mut grant) => {
                let perspective = Perspective {
                    hostnqn: grant.hostnqn.clone(),
                    local: self.local,
                };
                grant.view = perspective.of(&grant.view);
                self.perspective = Some(perspective);
                let (cntlid, authenticate) = (grant.cntlid, grant.authenticate);
                let in_capsule = crate::nvme::tcp::ADMIN_IN_CAPSULE_DATA;
                self.connection.open(entries, in_capsule, flow_control);
                let controller = Controller::new(
                    grant,
                    self.options.clone(),
                    self.local,
                    connect.kato_ms,
                    site.now,
                );
                self.role = Role::Admin {
                    controller: Box::new(controller),
                    expecting: Vec::new(),
                };
                site.stats.admin_qpairs += 1;
                site.stats.current_admin_qpairs += 1;
                (cntlid, authenticate)
            }
            ConnectAnswer::Io(grant) => {
                let in_capsule = self.options.in_capsule_data_size;
                self.connection.open(entries, in_capsule, flow_control);
                self.demand.open(entries as usize);
                let view = grant.perspective.of(&grant.view);
                self.perspective = Some(grant.perspective);
                self.role = Role::Io(Box::new(IoQueue::new(
                    view,
                    entries as usize,
                    self.place,
                    self.options.max_io_size,
                    grant.hostid,
                    &grant.fences,
                )));
                site.stats.io_qpairs += 1;
                site.stats.current_io_qpairs += 1;
                (grant.cntlid, grant.authenticate)
            }
        };
        if authenticate {
            let patience = self.options.authentication_timeout;
            self.gate = Some(Box::new(Gate::new(patience, site.now)));
        }
        let result = ConnectResult {
            cntlid,
            authentication_required: authenticate,
            secure_channel_required: false,
        };
        self.connection
            .respond_connected(slot, result.dword().into());
    }

    /// Its subsystem has changed, if it is this one.
    pub fn set_view(&mut self, view: &Arc<SubsystemView>, site: &mut Site) {
        let Some(perspective) = &self.perspective else {
            return;
        };
        match &mut self.role {
            Role::Admin { controller, .. } if controller.view().id == view.id => {
                let effects = controller.set_view(perspective.of(view));
                self.apply(effects, site);
            }
            _ => self.set_queue_view(view, site),
        }
    }

    /// The same where this is an I/O queue.
    pub fn set_queue_view(&mut self, view: &Arc<SubsystemView>, site: &mut Site) {
        let Some(perspective) = &self.perspective else {
            return;
        };
        if let Role::Io(queue) = &mut self.role
            && queue.view().id == view.id
            && self.stage != Stage::Lost
        {
            let view = perspective.of(view);
            queue.set_view(view, &mut site.devices, &mut site.outcomes);
            self.settle(site);
        }
    }

    /// The discovery log has changed.
    pub fn set_discovery(&mut self, view: &Arc<DiscoveryView>, site: &mut Site) {
        if let Role::Admin { controller, .. } = &mut self.role {
            let effects = controller.set_discovery(view.clone());
            self.apply(effects, site);
        }
    }

    /// Sends what there is, as far as the wire takes it. Says whether it did anything.
    pub fn send(&mut self, site: &mut Site) -> bool {
        let mut busy = false;
        for _ in 0..SENDS_A_TURN {
            let Some(wire) = &mut self.wire else { break };
            let (pieces, offered, written) = {
                let gathered = self.connection.gather();
                if gathered.is_empty() || self.congested {
                    break;
                }
                let offered: usize = gathered.iter().map(|g| g.len()).sum();
                (gathered.len(), offered, wire.write_vectored(&gathered))
            };
            match written {
                Ok(0) => {
                    self.lose(site, "the wire takes nothing");
                    return true;
                }
                Ok(bytes) => {
                    let demand = &mut self.demand;
                    self.connection.sent(bytes, |slot| demand.settle(slot));
                    busy = true;
                    if bytes < offered {
                        self.congested = true;
                    } else if pieces < GATHER {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.congested = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(site, &error.to_string());
                    return true;
                }
            }
        }
        self.queue_up(site);
        if let Stage::Ending { until, finished } = self.stage
            && !finished
            && self.connection.unsent() == 0
            && let Some(wire) = &mut self.wire
        {
            wire.finish();
            self.stage = Stage::Ending {
                until,
                finished: true,
            };
            busy = true;
        }
        busy
    }

    /// Looks at its clocks: handshake, stalls, keep-alive, lingering.
    pub fn tick(&mut self, site: &mut Site) {
        let now = site.now;
        match self.stage {
            Stage::Open => {
                self.failures.tick();
                self.report_failures(site);
                if self.counted.is_none_or(|at| now >= at + COUNTING) {
                    self.report_counts(site);
                }
            }
            Stage::Ending { until, .. } => {
                if now >= until {
                    self.lose(site, "it has ended");
                }
                return;
            }
            Stage::Lost => return,
        }
        match &self.role {
            Role::New { since, .. } if now >= *since + self.options.handshake_timeout => {
                let step = if self.connection.is_initialized() {
                    "no Connect came in time"
                } else {
                    "no ICReq came in time"
                };
                return self.give_up(site, step);
            }
            // A host that computes its answer sends no keep-alives; the gate has a time of its own.
            Role::Admin { .. } if self.gate.as_ref().is_some_and(|gate| gate.is_shut()) => {}
            Role::Admin { controller, .. } if controller.expires().is_some_and(|at| now >= at) => {
                return self.give_up(site, "keep-alive timeout");
            }
            _ => {}
        }
        if self.gate.as_ref().is_some_and(|gate| gate.is_late(now)) {
            return self.give_up(site, "the host has not proven in time who it is");
        }
        // What waits for us is not the host's fault.
        if !self.connection.host_owes() || (!self.wants_to_read() && !self.congested) {
            self.owing = None;
            return;
        }
        let progress = self.connection.progress();
        match self.owing {
            Some((before, since)) if before == progress => {
                if now >= since + self.options.stall_timeout {
                    self.give_up(site, "the host does not go on");
                }
            }
            _ => self.owing = Some((progress, now)),
        }
    }

    fn give_up(&mut self, site: &mut Site, why: &str) {
        site.stats.connection_faults += 1;
        self.lose(site, why);
    }

    /// Takes nothing more from the host; sends what is left, then closes.
    fn end(&mut self, site: &mut Site) {
        self.stage = Stage::Ending {
            until: site.now + LINGER,
            finished: false,
        };
        self.release(site);
    }

    /// Closes the wire. Requests with devices run to their end.
    pub fn lose(&mut self, site: &mut Site, why: &str) {
        if self.stage == Stage::Lost {
            return;
        }
        tracing::debug!("connection from {} closed: {why}", self.peer);
        self.stage = Stage::Lost;
        self.wire = None;
        self.readable = false;
        self.congested = false;
        self.release(site);
        self.report_counts(site);
        match self.role {
            Role::Admin { .. } => site.stats.current_admin_qpairs -= 1,
            Role::Io(_) => site.stats.current_io_qpairs -= 1,
            _ => {}
        }
        site.events.push_back(GroupEvent::Lost(self.id));
    }

    /// Lets go of everything that waits.
    fn release(&mut self, site: &mut Site) {
        self.demand_nothing(site);
        self.reserving.retain(Reserving::is_asked);
        if let Role::Io(queue) = &mut self.role {
            queue.lose(&mut site.devices);
        }
    }
}
