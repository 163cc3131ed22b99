//! The control side of the target.

mod authentication;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::ListenAddress;
use super::algorithms::Algorithms;
use super::association::{Associations, Candidate, ConnectionEntry, Terms, Verdict};
use super::auth::Authenticator;
use super::error::TargetError;
use super::groups::{ADMIN_WEIGHT, Groups, IO_WEIGHT};
use super::host::HostKeys;
use super::latency::Histogram;
use super::listener::Listeners;
use super::message::{
    AdminGrant, ConnectAnswer, ConnectRequest, ConnectionId, GroupCommand, GroupEvent, IoGrant,
    NewConnection, Ticket,
};
use super::namespace::{Namespace, NamespaceOptions};
use super::payload::{PayloadMemory, PayloadSizes};
use super::poll_group::GroupSeed;
use super::stats::{ControllerInfo, GroupStats, QpairInfo};
use super::subsystem::{Subsystem, SubsystemInfo, SubsystemKind, SubsystemOptions};
use super::transport::{TransportInfo, TransportOptions};
use super::view::{DeviceId, DiscoverySubsystem, DiscoveryView, SubsystemId};
use super::wire::Wire;
use crate::bdev::{Bdev, Registry};
use crate::memory::Arena;
use crate::nvme::fabrics::ConnectParameter;
use crate::nvme::nqn::DISCOVERY;
use crate::nvme::{Nqn, Status};
use crate::reactor::{Events, Mailbox, MailboxSender, Ready, Waker, mailbox};

/// Connections accepted at one wake; more are told again.
const ACCEPTS_A_WAKE: usize = 16;

/// Messages that a mailbox holds.
const MAILBOX: usize = 1024;

/// How long a Connect waits for what it takes over from to go.
const TAKEOVER: Duration = Duration::from_secs(5);

/// How often the log says that connections are turned away.
const COMPLAINT: Duration = Duration::from_secs(10);

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
    associations: Associations,
    authentication: Algorithms,
    authenticator: Authenticator,
    devices: Devices,
    /// Connects that wait for a connection to go, and until when.
    takeovers: Vec<(Box<ConnectRequest>, Instant)>,
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

/// Devices by name, and their places on the groups.
#[derive(Debug, Default)]
struct Devices {
    open: BTreeMap<String, (DeviceId, usize)>,
    /// Places that no group uses.
    free: Vec<DeviceId>,
    count: u32,
    /// Devices that are being closed: until the round is complete, the place is taken and the
    /// device stays claimed.
    closing: Vec<Closing>,
}

#[derive(Debug)]
struct Closing {
    ticket: Ticket,
    device: DeviceId,
    bdev: String,
    /// The namespace that it was, and whose claim is to be given back: subsystem and number. None
    /// for a device that was kept open without being exported.
    namespace: Option<(String, u32)>,
}

impl Closing {
    fn is_of(&self, nqn: &str) -> bool {
        self.namespace.as_ref().is_some_and(|(of, _)| of == nqn)
    }
}

impl Devices {
    fn place(&mut self) -> DeviceId {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            DeviceId(self.count - 1)
        })
    }
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
            associations: Associations::default(),
            authentication: Algorithms::default(),
            authenticator: Authenticator::default(),
            devices: Devices::default(),
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
        let mut subsystem = self.subsystems.remove(nqn).ok_or_else(|| missing(nqn))?;
        if let Some(hub) = &mut self.hub {
            for &address in &subsystem.listeners {
                hub.listeners.remove(address);
            }
        }
        let namespaces = std::mem::take(&mut subsystem.namespaces);
        self.publish(&subsystem);
        self.publish_discovery();
        let id = subsystem.id;
        self.close(self.associations.chosen(|a| a.subsystem == id));
        for namespace in namespaces.into_values() {
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

    /// All subsystems: discovery first, then by name.
    pub fn subsystems(&self) -> Vec<SubsystemInfo> {
        let all = std::iter::once(&self.discovery).chain(self.subsystems.values());
        all.map(Subsystem::info).collect()
    }

    /// Exports a device and returns its number. Claims it in `registry`; opens it on every
    /// reactor and waits for them; tells connected hosts.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Exists`] (the number), [`TargetError::Invalid`],
    /// [`TargetError::Limit`] (no number left), [`TargetError::Busy`] while the device is still
    /// being closed, [`TargetError::Bdev`], [`TargetError::Open`], [`TargetError::Timeout`].
    pub fn add_namespace(
        &mut self,
        registry: &mut Registry,
        nqn: &str,
        options: NamespaceOptions,
    ) -> Result<u32, TargetError> {
        self.check_running()?;
        self.reap(registry);
        let subsystem = self.subsystems.get(nqn).ok_or_else(|| missing(nqn))?;
        let nsid = subsystem.choose_nsid(options.nsid)?;
        let name = options.bdev_name.clone();
        if self.devices.closing.iter().any(|c| c.bdev == name) {
            return Err(TargetError::Busy(format!(
                "bdev {name} is still being closed: its last commands have not ended"
            )));
        }
        let bdev = registry.export(&name, nqn)?;
        let info = bdev.info().clone();
        let namespace = Some((nqn.to_owned(), nsid));
        let device = self.open_device(registry, bdev, namespace)?;
        let uuid = options.uuid.unwrap_or(info.uuid);
        let namespace = Namespace {
            nsid,
            nguid: options.nguid.unwrap_or(*uuid.as_bytes()),
            eui64: options.eui64,
            uuid,
            device,
            info,
        };
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        subsystem.namespaces.insert(nsid, namespace);
        self.publish_by_name(nqn);
        Ok(nsid)
    }

    /// Takes a namespace away from hosts, lets commands in flight end, closes the device on every
    /// reactor and gives it back to `registry`. Waits for reactors.
    ///
    /// # Errors
    /// [`TargetError::NotFound`]; [`TargetError::Timeout`] when commands are still in flight: the
    /// namespace is gone for hosts, the device stays claimed, and the call may be repeated.
    pub fn remove_namespace(
        &mut self,
        registry: &mut Registry,
        nqn: &str,
        nsid: u32,
    ) -> Result<(), TargetError> {
        let going = |c: &Closing| {
            let of = c.namespace.as_ref();
            of.is_some_and(|of| of.0 == nqn && of.1 == nsid)
        };
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        match subsystem.namespaces.remove(&nsid) {
            Some(namespace) => {
                self.publish_by_name(nqn);
                self.close_device(registry, nqn, namespace);
            }
            None if self.devices.closing.iter().any(going) => {}
            None => {
                return Err(TargetError::NotFound(format!("namespace {nsid} of {nqn}")));
            }
        }
        self.settle(registry, going)
    }

    /// Keeps a device open on every reactor, exported or not, until [`Target::let_close`]: for devices
    /// that have work of their own to do, as a RAID volume has. Waits for reactors.
    ///
    /// # Errors
    /// [`TargetError::Open`], [`TargetError::Timeout`].
    pub fn keep_open(
        &mut self,
        registry: &mut Registry,
        bdev: Arc<dyn Bdev>,
    ) -> Result<(), TargetError> {
        self.check_running()?;
        self.open_device(registry, bdev, None).map(|_| ())
    }

    /// Ends [`Target::keep_open`]. Waits for reactors.
    ///
    /// # Errors
    /// [`TargetError::Timeout`] when its last commands have not ended; the call may be repeated.
    pub fn let_close(&mut self, registry: &mut Registry, bdev: &str) -> Result<(), TargetError> {
        if let Some((device, users)) = self.devices.open.get_mut(bdev) {
            *users -= 1;
            if *users > 0 {
                return Ok(());
            }
            let device = *device;
            self.devices.open.remove(bdev);
            self.begin_close(device, bdev.to_owned(), None);
        }
        self.settle(registry, |closing| closing.bdev == bdev)
    }

    /// Opens a device on every reactor, unless it is open; `namespace` is what it is opened for.
    fn open_device(
        &mut self,
        registry: &mut Registry,
        bdev: Arc<dyn Bdev>,
        namespace: Option<(String, u32)>,
    ) -> Result<DeviceId, TargetError> {
        let name = bdev.info().name.clone();
        if let Some((device, users)) = self.devices.open.get_mut(&name) {
            *users += 1;
            return Ok(*device);
        }
        let device = self.devices.place();
        let ticket = self.groups.begin(|ticket| GroupCommand::Open {
            device,
            bdev: bdev.clone(),
            ticket,
        });
        let complete = self.wait(ticket);
        let round = self.groups.finish(ticket);
        if !complete || !round.failures.is_empty() {
            self.begin_close(device, name.clone(), namespace);
            let _ = self.settle(registry, |closing| closing.device == device);
            return Err(match round.failures.into_iter().next() {
                Some(failure) => TargetError::Open(failure),
                None => TargetError::Timeout(format!("opening bdev {name}")),
            });
        }
        self.devices.open.insert(name, (device, 1));
        Ok(device)
    }

    /// Listens for hosts of a subsystem; subsystems may share an address. Returns the address with
    /// the port that it has. The discovery subsystem answers on every address anyhow.
    ///
    /// # Errors
    /// [`TargetError::NotFound`] (subsystem, or no transport yet), [`TargetError::Exists`],
    /// [`TargetError::Listen`].
    pub fn add_listener(
        &mut self,
        nqn: &str,
        address: ListenAddress,
    ) -> Result<ListenAddress, TargetError> {
        self.check_running()?;
        if self.transport.is_none() {
            return Err(TargetError::NotFound(
                "transport TCP (nvmf_create_transport makes it)".into(),
            ));
        }
        if self.subsystem(nqn)?.listeners.contains(&address) {
            return Err(TargetError::Exists(format!("listener {address} of {nqn}")));
        }
        let address = self.hub()?.listeners.add(address)?;
        self.subsystem_mut(nqn)?.listeners.push(address);
        self.publish_discovery();
        Ok(address)
    }

    /// Listens no longer, and closes the associations of this subsystem that came in there.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn remove_listener(
        &mut self,
        nqn: &str,
        address: ListenAddress,
    ) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        let at = subsystem.listeners.iter().position(|&l| l == address);
        let at = at.ok_or_else(|| TargetError::NotFound(format!("listener {address} of {nqn}")))?;
        subsystem.listeners.remove(at);
        let id = subsystem.id;
        if let Some(hub) = &mut self.hub {
            hub.listeners.remove(address);
        }
        let came_in = |a: SocketAddr| address.takes(a);
        self.close(
            self.associations
                .chosen(|a| a.subsystem == id && came_in(a.local)),
        );
        self.publish_discovery();
        Ok(())
    }

    /// Where a subsystem listens.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn listeners(&self, nqn: &str) -> Result<Vec<ListenAddress>, TargetError> {
        Ok(self.subsystem(nqn)?.listeners.clone())
    }

    /// Puts a host on a subsystem's allow-list; with keys, it has to prove who it is, even where any
    /// host is allowed. Putting it there twice is no error.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`]: a malformed NQN, a host that is there with
    /// other keys, keys for discovery.
    pub fn add_host(
        &mut self,
        nqn: &str,
        hostnqn: &str,
        keys: Option<HostKeys>,
    ) -> Result<(), TargetError> {
        let host = parse_nqn("host", hostnqn)?;
        let host = host.as_str().to_owned();
        let subsystem = self.subsystem_mut(nqn)?;
        let there = subsystem.keys.get(&host).map(HostKeys::names);
        if subsystem.access.hosts.contains(&host) && there != keys.as_ref().map(HostKeys::names) {
            return Err(TargetError::Invalid(format!(
                "host {host} of {nqn} is there with other keys; nvmf_subsystem_set_keys changes them"
            )));
        }
        check_keys(nqn, keys.as_ref())?;
        subsystem.access.hosts.insert(host.clone());
        subsystem.keys.extend(keys.map(|keys| (host, keys)));
        self.publish_discovery();
        Ok(())
    }

    /// Takes a host off the allow-list, and closes its associations unless any host is allowed.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn remove_host(&mut self, nqn: &str, hostnqn: &str) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        if !subsystem.access.hosts.remove(hostnqn) {
            return Err(TargetError::NotFound(format!("host {hostnqn} of {nqn}")));
        }
        subsystem.keys.remove(hostnqn);
        self.turn_out(nqn)
    }

    /// Allows every host, or only those on the list again; hosts that are not allowed any more
    /// lose their associations.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn set_allow_any_host(&mut self, nqn: &str, allow: bool) -> Result<(), TargetError> {
        self.subsystem_mut(nqn)?.access.allow_any = allow;
        self.turn_out(nqn)
    }

    /// Closes the associations of hosts that are not allowed any more.
    fn turn_out(&mut self, nqn: &str) -> Result<(), TargetError> {
        let subsystem = self.subsystem(nqn)?;
        let gone = self.associations.chosen(|a| {
            a.subsystem == subsystem.id && !subsystem.access.allows(a.hostnqn.as_str())
        });
        self.close(gone);
        self.publish_discovery();
        Ok(())
    }

    /// Controllers of a subsystem, by identifier.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn controllers(&self, nqn: &str) -> Result<Vec<ControllerInfo>, TargetError> {
        Ok(self.associations.controllers(self.subsystem(nqn)?.id))
    }

    /// Queues of a subsystem, by controller and queue identifier.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn qpairs(&self, nqn: &str) -> Result<Vec<QpairInfo>, TargetError> {
        let subsystem = self.subsystem(nqn)?;
        let name = |group| self.groups.name(group);
        Ok(self.associations.qpairs(subsystem.id, name))
    }

    /// Counts of every poll group. Waits for reactors; groups that do not answer in time are left
    /// out.
    pub fn stats(&mut self) -> Vec<GroupStats> {
        let ticket = self.groups.begin(GroupCommand::Stats);
        self.wait(ticket);
        let mut stats = self.groups.finish(ticket).stats;
        stats.sort_by(|a, b| a.name.cmp(&b.name));
        stats
    }

    /// Has the spread of a device's latencies counted from now on, or no longer.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] for a device that is not exported.
    pub fn set_histogram(
        &mut self,
        device: &str,
        histogram: Option<&Histogram>,
    ) -> Result<(), TargetError> {
        let &(place, _) = self.devices.open.get(device).ok_or_else(|| {
            TargetError::Invalid(format!(
                "bdev {device} is not exported, so that it has no latencies; nvmf_subsystem_add_ns exports it"
            ))
        })?;
        self.groups.broadcast(|| GroupCommand::Histogram {
            device: place,
            histogram: histogram.cloned().map(Box::new),
        });
        Ok(())
    }

    /// Forgets the longest and shortest latencies of a device, and with `all` the others. Does
    /// nothing for one that is not exported.
    pub fn reset_latencies(&mut self, device: &str, all: bool) {
        if let Some(&(device, _)) = self.devices.open.get(device) {
            self.groups
                .broadcast(|| GroupCommand::ResetLatencies { device, all });
        }
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
        let backlog = self.groups.flush().then(|| now + Duration::from_millis(1));
        [resume, takeover, backlog].into_iter().flatten().min()
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
        self.groups.broadcast(|| GroupCommand::Finish);
        let last = Instant::now() + self.setup.confirmation;
        self.wait_until(last, |target| target.groups.all_sent())
    }

    /// Takes a connection that was accepted.
    fn welcome(&mut self, stream: TcpStream, now: Instant) {
        let addresses = stream
            .local_addr()
            .and_then(|local| Ok((local, stream.peer_addr()?)));
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true));
        match (addresses, prepared) {
            (Ok((local, peer)), Ok(())) => {
                self.serve(Box::new(stream), canonical(local), canonical(peer), now);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!("a connection was gone before it was served: {error}");
            }
        }
    }

    /// Has a new connection served by the group that has the least to do.
    pub(super) fn serve(
        &mut self,
        wire: Box<dyn Wire>,
        local: SocketAddr,
        peer: SocketAddr,
        now: Instant,
    ) {
        let Some(options) = self.transport.clone() else {
            return;
        };
        let Some(group) = self.groups.least_loaded() else {
            return;
        };
        if self.associations.connections() >= self.setup.connections {
            if self.complained.is_none_or(|at| now >= at + COMPLAINT) {
                self.complained = Some(now);
                tracing::warn!(
                    "there are {} connections, as many as there may be: {peer} is turned away",
                    self.setup.connections
                );
            }
            return;
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let entry = ConnectionEntry {
            group,
            weight: IO_WEIGHT,
            local,
            peer,
            association: None,
            authentication: None,
        };
        self.groups.load(group, IO_WEIGHT);
        self.associations.connect(id, entry);
        let new = NewConnection {
            id,
            wire,
            local,
            peer,
            options,
        };
        self.groups.send(group, GroupCommand::Serve(Box::new(new)));
    }

    /// Handles what poll groups have sent.
    fn drain(&mut self, now: Instant) {
        while let Some((group, event)) = self.hub.as_mut().and_then(|hub| hub.inbox.receive()) {
            self.handle(group, event, now);
        }
    }

    fn handle(&mut self, group: usize, event: GroupEvent, now: Instant) {
        match event {
            GroupEvent::Connect(request) => self.connect(request, now + TAKEOVER),
            GroupEvent::Authentication {
                connection,
                message,
            } => self.authenticate(group, connection, message),
            GroupEvent::Judged(judgement) => self.judged(group, *judgement),
            GroupEvent::Enabled {
                connection,
                enabled,
            } => {
                let gone = self.associations.set_enabled(connection, enabled);
                self.close(gone);
            }
            GroupEvent::Lost(connection) => {
                let gone = self.associations.lost(connection);
                self.close(gone);
            }
            GroupEvent::Closed(connection) => {
                self.authenticator.forget(connection);
                if let Some(entry) = self.associations.closed(connection) {
                    self.groups.unload(entry.group, entry.weight);
                }
                for (request, until) in std::mem::take(&mut self.takeovers) {
                    if request.connection != connection {
                        self.connect(request, until);
                    }
                }
            }
            GroupEvent::Opened { ticket, outcome } => {
                self.groups.confirmed(ticket, |round| {
                    round.failures.extend(outcome.err().map(|e| e.to_string()));
                });
            }
            GroupEvent::Done(ticket) => self.groups.confirmed(ticket, |_| {}),
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

    /// Decides on a Connect; one that takes over waits until what it takes over from has gone.
    fn connect(&mut self, request: Box<ConnectRequest>, until: Instant) {
        let id = request.connection;
        let answer = match self.judge(&request) {
            (Verdict::After(first), _) => {
                self.close(first);
                self.takeovers.push((request, until));
                return;
            }
            (Verdict::Refused { status, result }, _) => {
                let peer = self.associations.connection(id).map(|c| c.peer);
                if let Some(peer) = peer {
                    tracing::info!("Connect from {peer} refused: {status}");
                }
                ConnectAnswer::Refused { status, result }
            }
            (Verdict::Admin(cntlid), Some((candidate, terms))) => {
                let view = self.view_of(terms.subsystem);
                let (hostnqn, hostid) = (candidate.hostnqn.clone(), candidate.hostid);
                self.expect_authentication(id, terms.authenticate);
                self.associations.admit_admin(id, candidate, &terms, cntlid);
                if let Some(entry) = self.associations.connection_mut(id) {
                    self.groups.unload(entry.group, entry.weight);
                    entry.weight = ADMIN_WEIGHT;
                    self.groups.load(entry.group, entry.weight);
                }
                tracing::info!("host {hostnqn} has controller {cntlid} of {}", view.nqn);
                ConnectAnswer::Admin(AdminGrant {
                    cntlid,
                    view,
                    discovery: self.discovery_view.clone(),
                    hostnqn,
                    hostid,
                    authenticate: terms.authenticate,
                })
            }
            (Verdict::Io(association), Some((candidate, terms))) => {
                let qid = candidate.command.qid;
                self.expect_authentication(id, terms.authenticate);
                ConnectAnswer::Io(IoGrant {
                    cntlid: self.associations.admit_io(id, association, qid),
                    view: self.view_of(terms.subsystem),
                    authenticate: terms.authenticate,
                })
            }
            (Verdict::Admin(_) | Verdict::Io(_), None) => {
                unreachable!("a verdict in favour is about a candidate")
            }
        };
        if let Some(entry) = self.associations.connection(id) {
            let command = GroupCommand::Connected {
                connection: id,
                answer: Box::new(answer),
            };
            self.groups.send(entry.group, command);
        }
    }

    fn judge(&mut self, request: &ConnectRequest) -> (Verdict, Option<(Candidate, Terms)>) {
        let invalid = |parameter| (Verdict::invalid(parameter), None);
        let refused = |status: Status| {
            let status = status.with_do_not_retry();
            (Verdict::Refused { status, result: 0 }, None)
        };
        let Some(entry) = self.associations.connection(request.connection) else {
            return refused(Status::INTERNAL_ERROR);
        };
        let (Some(options), false) = (&self.transport, self.stopping) else {
            return refused(Status::CONNECT_CONTROLLER_BUSY);
        };
        let Some(subsystem) = request
            .data
            .subsystem_text()
            .and_then(|nqn| self.subsystem(nqn).ok())
            .filter(|s| s.listens_at(entry.local))
        else {
            return invalid(ConnectParameter::SubsystemNqn);
        };
        let Ok(hostnqn) = request.data.host() else {
            return invalid(ConnectParameter::HostNqn);
        };
        if !subsystem.access.allows(hostnqn.as_str()) {
            return refused(Status::CONNECT_INVALID_HOST);
        }
        let candidate = Candidate {
            command: request.command,
            cntlid: request.data.cntlid.get(),
            hostnqn,
            hostid: request.data.hostid,
            local: entry.local,
            peer: entry.peer,
        };
        let terms = Terms {
            subsystem: subsystem.id,
            kind: subsystem.kind,
            cntlids: (subsystem.options.min_cntlid, subsystem.options.max_cntlid),
            allow_duplicates: subsystem.options.allow_duplicate_associations,
            entries: (options.max_aq_depth, options.max_queue_depth),
            io_queues: options.max_io_qpairs_per_ctrlr,
            authenticate: subsystem.keys.contains_key(candidate.hostnqn.as_str()),
        };
        let verdict = self.associations.examine(&candidate, &terms);
        (verdict, Some((candidate, terms)))
    }

    /// Refuses Connects that have waited too long; says when to look again.
    fn give_up_takeovers(&mut self, now: Instant) -> Option<Instant> {
        let late = |&(_, until): &(Box<ConnectRequest>, Instant)| now >= until;
        let (late, waiting) = std::mem::take(&mut self.takeovers)
            .into_iter()
            .partition(late);
        self.takeovers = waiting;
        for (request, _) in late {
            let connection = request.connection;
            if let Some(entry) = self.associations.connection(connection) {
                let answer = Box::new(ConnectAnswer::Refused {
                    status: Status::CONNECT_CONTROLLER_BUSY,
                    result: 0,
                });
                let command = GroupCommand::Connected { connection, answer };
                self.groups.send(entry.group, command);
            }
        }
        self.takeovers.iter().map(|&(_, until)| until).min()
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

    /// One namespace uses the device of `namespace` no longer; the last closes it.
    fn close_device(&mut self, registry: &mut Registry, nqn: &str, namespace: Namespace) {
        let bdev = namespace.info.name;
        let Some((device, users)) = self.devices.open.get_mut(&bdev) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            registry.unexport(&bdev, nqn);
            return;
        }
        let device = *device;
        self.devices.open.remove(&bdev);
        let namespace = Some((nqn.to_owned(), namespace.nsid));
        self.begin_close(device, bdev, namespace);
    }

    fn begin_close(&mut self, device: DeviceId, bdev: String, namespace: Option<(String, u32)>) {
        let ticket = self
            .groups
            .begin(|ticket| GroupCommand::CloseDevice { device, ticket });
        self.devices.closing.push(Closing {
            ticket,
            device,
            bdev,
            namespace,
        });
    }

    /// Waits for devices to be closed, and gives back those that are.
    fn settle(
        &mut self,
        registry: &mut Registry,
        which: impl Fn(&Closing) -> bool,
    ) -> Result<(), TargetError> {
        let until = Instant::now() + self.setup.confirmation;
        let waited: Vec<Ticket> = self
            .devices
            .closing
            .iter()
            .filter(|c| which(c))
            .map(|c| c.ticket)
            .collect();
        let complete = self.wait_until(until, |target| {
            waited.iter().all(|&t| target.groups.is_complete(t))
        });
        self.reap(registry);
        if complete {
            Ok(())
        } else {
            let names: Vec<&str> = self.devices.closing.iter().map(|c| &*c.bdev).collect();
            Err(TargetError::Timeout(format!(
                "bdev {} still has commands in flight",
                names.join(", ")
            )))
        }
    }

    /// Gives back the devices that every group has closed.
    fn reap(&mut self, registry: &mut Registry) {
        let (groups, free) = (&mut self.groups, &mut self.devices.free);
        self.devices.closing.retain(|closing| {
            if !groups.is_complete(closing.ticket) {
                return true;
            }
            groups.finish(closing.ticket);
            if let Some((nqn, _)) = &closing.namespace {
                registry.unexport(&closing.bdev, nqn);
            }
            free.push(closing.device);
            false
        });
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

    /// Tells the groups what a subsystem is now.
    fn publish(&mut self, subsystem: &Subsystem) {
        let view = Arc::new(subsystem.view());
        self.groups
            .broadcast(|| GroupCommand::Subsystem(view.clone()));
    }

    fn publish_by_name(&mut self, nqn: &str) {
        if let Some(subsystem) = self.subsystems.get(nqn) {
            let view = Arc::new(subsystem.view());
            self.groups
                .broadcast(|| GroupCommand::Subsystem(view.clone()));
        }
    }

    /// Tells the groups what the discovery log is now, if it has changed.
    fn publish_discovery(&mut self) {
        let tell = |s: &Subsystem| DiscoverySubsystem {
            nqn: s.nqn.clone(),
            access: s.access.clone(),
            listeners: s.listeners.iter().map(|l| l.0).collect(),
        };
        let subsystems: Vec<_> = self.subsystems.values().map(tell).collect();
        let before = &self.discovery_view;
        let admin_queue_entries = self.transport.as_ref().map_or(0, |t| t.max_aq_depth);
        if before.subsystems == subsystems && before.admin_queue_entries == admin_queue_entries {
            return;
        }
        let view = Arc::new(DiscoveryView {
            generation: before.generation + 1,
            subsystems,
            admin_queue_entries,
        });
        self.discovery_view = view.clone();
        self.groups
            .broadcast(|| GroupCommand::Discovery(view.clone()));
    }

    fn view_of(&self, id: SubsystemId) -> Arc<super::view::SubsystemView> {
        let mut others = self.subsystems.values();
        let found = others.find(|s| s.id == id).unwrap_or(&self.discovery);
        Arc::new(found.view())
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

/// Discovery is for everybody.
fn check_keys(nqn: &str, keys: Option<&HostKeys>) -> Result<(), TargetError> {
    match keys {
        Some(_) if nqn == DISCOVERY => Err(TargetError::Invalid(
            "hosts of discovery are not authenticated; leave the keys out".into(),
        )),
        _ => Ok(()),
    }
}

fn parse_nqn(what: &str, text: &str) -> Result<Nqn, TargetError> {
    Nqn::new(text).map_err(|error| TargetError::Invalid(format!("{what}: {error}")))
}

/// An IPv4 address as such, also where it came in over IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
