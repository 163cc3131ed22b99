//! The control side of the target.

mod access;
mod authentication;
mod connects;
mod depth;
mod devices;
mod event_logs;
mod hosts;
mod limits;
mod listeners;
mod namespaces;
mod publishing;
mod referrals;
mod reservations;
mod resize;
mod statistics;
mod takeover;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::devices::Devices;
pub use self::event_logs::{Recorder, VolumeEvent};
use self::takeover::Newcomer;
use super::algorithms::Algorithms;
use super::association::Associations;
use super::auth::Authenticator;
use super::error::TargetError;
use super::event_log::Writer as EventLogWriter;
use super::groups::Groups;
use super::listener::Listeners;
use super::message::{ConnectionId, GroupCommand, GroupEvent, Ticket};
use super::payload::{PayloadMemory, PayloadSizes};
use super::poll_group::GroupSeed;
use super::referral::Referral;
use super::reservation::{Ledger, Writer};
use super::subsystem::{Subsystem, SubsystemInfo, SubsystemKind, SubsystemOptions};
use super::transport::{TransportInfo, TransportOptions};
use super::view::{DiscoveryView, SubsystemId};
use crate::bdev::Registry;
use crate::memory::Arena;
use crate::nvme::Nqn;
use crate::nvme::nqn::DISCOVERY;
use crate::reactor::{Events, Mailbox, MailboxSender, Ready, Waker, mailbox};

/// Connections accepted at one wake; more are told again.
const ACCEPTS_A_WAKE: usize = 16;

/// Messages that a mailbox holds.
const MAILBOX: usize = 1024;

/// The sizes that a target is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSetup {
    /// Connections in all. What comes beyond is closed at once.
    pub connections: usize,
    /// Subsystems in all, discovery not counted.
    pub subsystems: usize,
    /// How long a call waits for the reactors to confirm a change.
    pub confirmation: Duration,
}

impl Default for TargetSetup {
    fn default() -> Self {
        Self {
            connections: 4096,
            subsystems: 1024,
            confirmation: Duration::from_secs(5),
        }
    }
}

/// The control side: transports, subsystems, listeners, hosts, and who is connected.
///
/// Owned by one thread, the control thread. [`Target::descriptor`] is readable while there is
/// something for [`Target::poll`] to do. No method blocks, except those that say that they wait for
/// reactors: these return when every reactor has confirmed, at the latest after
/// [`TargetSetup::confirmation`], and go on serving Connects meanwhile.
#[derive(Debug)]
pub struct Target {
    setup: TargetSetup,
    /// When it was made: what limits count time from.
    epoch: Instant,
    /// What the control thread is woken by; made when it is first needed.
    hub: Option<Hub>,
    groups: Groups,
    /// Payload memory of the poll group that has least.
    bulk: usize,
    at_once: usize,
    transport: Option<Arc<TransportOptions>>,
    discovery: Subsystem,
    subsystems: BTreeMap<String, Subsystem>,
    discovery_view: Arc<DiscoveryView>,
    referrals: Vec<Referral>,
    associations: Associations,
    retry_delays: [u16; 3],
    authentication: Algorithms,
    authenticator: Authenticator,
    devices: Devices,
    /// Who waits for connections to go, and until when.
    takeovers: Vec<(Newcomer, Instant)>,
    ledger: Ledger,
    reservation_writer: Writer,
    event_log_writer: EventLogWriter,
    next_connection: u64,
    next_subsystem: u64,
    /// When it was last said in the log that there are too many connections.
    complained: Option<Instant>,
    stopping: bool,
    unclean: bool,
    /// Tests run their poll groups on the thread of the target.
    #[cfg(test)]
    pub(super) meanwhile: Meanwhile,
}

/// What a test does while the target waits.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Meanwhile(pub(super) Option<Box<dyn FnMut()>>);

#[cfg(test)]
impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Meanwhile")
    }
}

/// The ways in: from poll groups, and from the network.
#[derive(Debug)]
struct Hub {
    events: Events,
    ready: Vec<Ready>,
    inbox: Mailbox<(usize, GroupEvent)>,
    outbox: MailboxSender<(usize, GroupEvent)>,
    listeners: Listeners,
}

impl Target {
    /// A target with the discovery subsystem and nothing else.
    pub fn new(setup: TargetSetup) -> Self {
        let options = SubsystemOptions {
            allow_any_host: true,
            ..SubsystemOptions::new(DISCOVERY)
        };
        Self {
            setup,
            epoch: Instant::now(),
            hub: None,
            groups: Groups::default(),
            bulk: usize::MAX,
            at_once: usize::MAX,
            transport: None,
            discovery: Subsystem::new(
                SubsystemId(0),
                SubsystemKind::Discovery,
                Nqn::discovery(),
                options,
            ),
            subsystems: BTreeMap::new(),
            discovery_view: Arc::default(),
            referrals: Vec::new(),
            associations: Associations::default(),
            retry_delays: [0; 3],
            authentication: Algorithms::default(),
            authenticator: Authenticator::default(),
            devices: Devices::default(),
            ledger: Ledger::default(),
            reservation_writer: Writer::default(),
            event_log_writer: EventLogWriter::default(),
            takeovers: Vec::new(),
            next_connection: 0,
            next_subsystem: 1,
            complained: None,
            stopping: false,
            unclean: false,
            #[cfg(test)]
            meanwhile: Meanwhile::default(),
        }
    }

    /// What wakes this thread: to be watched for being readable, and [`Target::poll`] to be called
    /// then. `None` before the first [`Target::add_group`] or [`Target::add_listener`].
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.hub.as_ref().map(|hub| hub.events.as_fd())
    }

    fn hub(&mut self) -> Result<&mut Hub, TargetError> {
        if self.hub.is_none() {
            let failed = |source| TargetError::Io {
                what: "the target cannot wait for events",
                source,
            };
            let events = Events::new().map_err(failed)?;
            let (outbox, inbox) = mailbox(&events.waker(), MAILBOX);
            self.hub = Some(Hub {
                ready: Vec::new(),
                inbox,
                outbox,
                listeners: Listeners::new(events.clone()),
                events,
            });
        }
        Ok(self.hub.as_mut().expect("made above"))
    }

    /// Prepares the poll group of one reactor, which `waker` wakes: to be grown there and polled
    /// in every turn. All groups are to be added before the first namespace or listener.
    ///
    /// # Errors
    /// [`TargetError::Limit`] when `arena` has no room for its payload memory, [`TargetError::Io`].
    pub fn add_group(
        &mut self,
        name: &str,
        waker: &Waker,
        arena: &Arena,
        sizes: &PayloadSizes,
    ) -> Result<GroupSeed, TargetError> {
        let outbox = self.hub()?.outbox.clone();
        let memory = PayloadMemory::new(arena, sizes)
            .map_err(|error| TargetError::Limit(format!("payload memory of {name}: {error}")))?;
        self.bulk = self.bulk.min(memory.bulk_capacity());
        self.at_once = self.at_once.min(memory.at_once_capacity());
        let (sender, inbox) = mailbox(waker, MAILBOX);
        Ok(GroupSeed {
            index: self.groups.add(name.to_owned(), sender),
            name: name.to_owned(),
            memory,
            inbox,
            outbox,
        })
    }

    /// Creates the TCP transport. Listeners need it.
    ///
    /// # Errors
    /// [`TargetError::Exists`] (`Transport type 'TCP' already exists`), [`TargetError::Invalid`].
    pub fn create_transport(&mut self, options: TransportOptions) -> Result<(), TargetError> {
        self.check_running()?;
        if self.transport.is_some() {
            return Err(TargetError::Exists("Transport type 'TCP'".into()));
        }
        options.validate()?;
        for (name, value, memory) in [
            ("max_io_size", options.max_io_size, self.bulk),
            (
                "in_capsule_data_size",
                options.in_capsule_data_size,
                self.at_once,
            ),
        ] {
            if value as usize > memory {
                return Err(TargetError::Invalid(format!(
                    "{name} is {value}, more than the {memory} bytes of payload memory that a reactor has for it; lower it or start with more memory"
                )));
            }
        }
        self.transport = Some(Arc::new(options));
        self.publish_discovery();
        Ok(())
    }

    /// The transports there are: none or one.
    pub fn transports(&self) -> Vec<TransportInfo> {
        let info = |options: &Arc<TransportOptions>| TransportInfo {
            trtype: "TCP",
            options: (**options).clone(),
        };
        self.transport.iter().map(info).collect()
    }

    /// Creates a subsystem, with no listener and no namespace.
    ///
    /// # Errors
    /// [`TargetError::Exists`], [`TargetError::Invalid`] (a malformed NQN too),
    /// [`TargetError::Limit`].
    pub fn create_subsystem(&mut self, options: SubsystemOptions) -> Result<(), TargetError> {
        self.check_running()?;
        options.validate()?;
        let nqn = parse_nqn("nqn", &options.nqn)?;
        if nqn.is_discovery() || self.subsystems.contains_key(nqn.as_str()) {
            return Err(TargetError::Exists(format!("subsystem {nqn}")));
        }
        if self.subsystems.len() >= self.setup.subsystems {
            return Err(TargetError::Limit(format!(
                "there are {} subsystems, as many as there may be; delete one first",
                self.subsystems.len()
            )));
        }
        let id = SubsystemId(self.next_subsystem);
        self.next_subsystem += 1;
        let subsystem = Subsystem::new(id, SubsystemKind::Nvme, nqn, options);
        let name = subsystem.nqn.as_str().to_owned();
        self.subsystems.insert(name, subsystem);
        self.publish_discovery();
        Ok(())
    }

    /// Deletes a subsystem: closes its listeners and connections, and gives its devices back to
    /// `registry`. Waits for reactors.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`] for the discovery subsystem,
    /// [`TargetError::Timeout`]: the subsystem is gone for hosts; devices that have not ended their
    /// commands stay claimed until they have, and a later change is made.
    pub fn delete_subsystem(
        &mut self,
        registry: &mut Registry,
        nqn: &str,
    ) -> Result<(), TargetError> {
        if nqn == DISCOVERY {
            return Err(TargetError::Invalid(
                "the discovery subsystem cannot be deleted".into(),
            ));
        }
        let subsystem = self.subsystems.get_mut(nqn);
        let subsystem = subsystem.ok_or_else(|| missing(nqn))?;
        let id = subsystem.id;
        let listeners = std::mem::take(&mut subsystem.listeners);
        let namespaces = std::mem::take(&mut subsystem.namespaces);
        let recorder = subsystem.recorder.take();
        self.publish(nqn);
        self.subsystems.remove(nqn);
        if let Some(hub) = &mut self.hub {
            for address in listeners {
                hub.listeners.remove(address);
            }
        }
        self.end_log(recorder);
        self.publish_discovery();
        self.close(self.associations.chosen(|a| a.subsystem == id));
        for namespace in namespaces.into_values() {
            self.end_reservation(id, namespace.nsid);
            self.close_device(registry, nqn, namespace);
        }
        self.settle(registry, |closing| closing.is_of(nqn))
    }

    /// How many subsystems there may be, discovery not counted.
    pub fn max_subsystems(&self) -> usize {
        self.setup.subsystems
    }

    /// Sets how many subsystems there may be, discovery not counted.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] for none, for more than 65536, or for fewer than there are.
    pub fn set_max_subsystems(&mut self, most: usize) -> Result<(), TargetError> {
        let there = self.subsystems.len();
        if most == 0 || most > 1 << 16 || most < there {
            return Err(TargetError::Invalid(format!(
                "max_subsystems is {most}; it must be 1 to 65536, and there are {there}"
            )));
        }
        self.setup.subsystems = most;
        Ok(())
    }

    /// How long hosts are told to wait before they repeat a command: three choices, in units of
    /// 100 ms.
    pub fn retry_delays(&self) -> [u16; 3] {
        self.retry_delays
    }

    /// Sets how long hosts that connect from now on are told to wait before they repeat a command.
    pub fn set_retry_delays(&mut self, delays: [u16; 3]) {
        self.retry_delays = delays;
    }

    /// All subsystems: discovery first, then by name.
    pub fn subsystems(&self) -> Vec<SubsystemInfo> {
        let all = std::iter::once(&self.discovery).chain(self.subsystems.values());
        all.map(Subsystem::info).collect()
    }

    /// Accepts connections and handles what poll groups have sent. To be called whenever
    /// [`Target::descriptor`] is readable; returns when it wants to be called again at the latest.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        let mut resume = None;
        if let Some(hub) = &mut self.hub {
            // Before the mailbox is looked at: what comes later makes the descriptor readable.
            if let Err(error) = hub.events.wait(Some(Duration::ZERO), &mut hub.ready) {
                tracing::warn!("the target cannot look for events: {error}");
            }
            let streams = hub.listeners.accept(&hub.ready, ACCEPTS_A_WAKE, now);
            resume = hub.listeners.resume(now);
            for stream in streams {
                self.welcome(stream, now);
            }
        }
        self.drain(now);
        let takeover = self.give_up_takeovers(now);
        let health = self.note_health(now);
        let backlog = self.groups.flush().then(|| now + Duration::from_millis(1));
        [resume, takeover, health, backlog]
            .into_iter()
            .flatten()
            .min()
    }

    /// Stops serving hosts: listeners closed, new commands refused, those in flight given until
    /// `deadline` to end, connections closed. Devices stay open until [`Target::finish`]. Waits for
    /// reactors. Returns whether everything ended in time.
    pub fn stop(&mut self, deadline: Instant) -> bool {
        self.stopping = true;
        if let Some(hub) = &mut self.hub {
            hub.listeners.clear();
        }
        self.groups.broadcast(|| GroupCommand::Stop { deadline });
        // At the deadline the groups give up, and have to be heard.
        let last = deadline + self.setup.confirmation;
        let stopped = self.wait_until(last, |target| target.groups.all_stopped());
        stopped && !self.unclean
    }

    /// Lets the poll groups end, once [`Target::stop`] is over: what one of them still had to do may
    /// have needed the devices of another. Waits for reactors, as long as a call does at most.
    /// Returns whether all of them have heard it.
    pub fn finish(&mut self) -> bool {
        self.close_logs();
        self.groups.broadcast(|| GroupCommand::Finish);
        let last = Instant::now() + self.setup.confirmation;
        self.wait_until(last, |target| {
            target.groups.all_sent() && target.logs_are_written()
        })
    }

    /// Handles what poll groups have sent.
    fn drain(&mut self, now: Instant) {
        while let Some((group, event)) = self.hub.as_mut().and_then(|hub| hub.inbox.receive()) {
            self.handle(group, event, now);
        }
    }

    fn handle(&mut self, group: usize, event: GroupEvent, now: Instant) {
        match event {
            GroupEvent::Connect(request) => self.connect(request, now + takeover::PATIENCE),
            GroupEvent::Authentication {
                connection,
                message,
            } => self.authenticate(group, connection, message),
            GroupEvent::Judged(judgement) => self.judged(group, *judgement, now),
            GroupEvent::Enabled {
                connection,
                enabled,
            } => {
                let gone = self.associations.set_enabled(connection, enabled);
                self.close(gone);
            }
            GroupEvent::Reserve(request) => self.reserve(group, *request),
            GroupEvent::Failed {
                connection,
                failures,
            } => self.failed(connection, failures),
            GroupEvent::Moved { connection, counts } => self.moved(connection, counts),
            GroupEvent::ReservationSaved { id, outcome } => self.reservation_saved(id, outcome),
            GroupEvent::EventLogSaved { errand, outcome } => self.event_log_saved(errand, outcome),
            GroupEvent::Lost(connection) => {
                self.give_up_reservations(connection);
                let gone = self.associations.lost(connection);
                self.close(gone);
            }
            GroupEvent::Closed(connection) => {
                self.authenticator.forget(connection);
                if let Some(entry) = self.associations.closed(connection) {
                    self.groups.unload(entry.group, entry.weight);
                }
                self.go_on(connection);
            }
            GroupEvent::Opened { ticket, outcome } => {
                self.groups.confirmed(ticket, |round| {
                    round.failures.extend(outcome.err().map(|e| e.to_string()));
                });
            }
            GroupEvent::Done(ticket) => {
                self.groups.confirmed(ticket, |_| {});
                self.reservation_confirmed(ticket);
            }
            GroupEvent::Stats { ticket, stats } => {
                self.groups
                    .confirmed(ticket, |round| round.stats.push(*stats));
            }
            GroupEvent::Stopped { clean } => {
                self.unclean |= !clean;
                self.groups.stopped(group);
            }
        }
    }

    /// Has connections closed.
    fn close(&mut self, connections: Vec<ConnectionId>) {
        for connection in connections {
            if let Some(entry) = self.associations.connection(connection) {
                self.groups
                    .send(entry.group, GroupCommand::Close(connection));
            }
        }
    }

    /// Waits until every group has confirmed; says whether all did in time.
    fn wait(&mut self, ticket: Ticket) -> bool {
        let until = Instant::now() + self.setup.confirmation;
        self.wait_until(until, |target| target.groups.is_complete(ticket))
    }

    fn wait_until(&mut self, until: Instant, done: impl Fn(&Self) -> bool) -> bool {
        loop {
            #[cfg(test)]
            if let Some(meanwhile) = &mut self.meanwhile.0 {
                meanwhile();
            }
            let now = Instant::now();
            self.drain(now);
            if done(self) {
                return true;
            }
            if now >= until {
                return false;
            }
            let timeout = if self.groups.flush() {
                Duration::from_millis(1)
            } else {
                until - now
            };
            let Some(hub) = &mut self.hub else {
                return false;
            };
            // Connections that come meanwhile stay ready, and are told again.
            if let Err(error) = hub.events.wait(Some(timeout), &mut hub.ready) {
                tracing::warn!("the control thread cannot wait: {error}");
                return false;
            }
        }
    }

    fn check_running(&self) -> Result<(), TargetError> {
        if self.stopping {
            return Err(TargetError::Busy("the target is stopping".into()));
        }
        Ok(())
    }

    fn subsystem(&self, nqn: &str) -> Result<&Subsystem, TargetError> {
        match nqn {
            DISCOVERY => Ok(&self.discovery),
            _ => self.subsystems.get(nqn).ok_or_else(|| missing(nqn)),
        }
    }

    fn subsystem_mut(&mut self, nqn: &str) -> Result<&mut Subsystem, TargetError> {
        match nqn {
            DISCOVERY => Ok(&mut self.discovery),
            _ => self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn)),
        }
    }
}

fn missing(nqn: &str) -> TargetError {
    TargetError::NotFound(format!("subsystem {nqn}"))
}

fn parse_nqn(what: &str, text: &str) -> Result<Nqn, TargetError> {
    Nqn::new(text).map_err(|error| TargetError::Invalid(format!("{what}: {error}")))
}
