//! The control side of the target.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::address::ListenAddress;
use super::error::TargetError;
use super::host::HostAccess;
use super::namespace::{NamespaceInfo, NamespaceOptions};
use super::stats::{ControllerInfo, GroupStats, QpairInfo};
use super::subsystem::{DEFAULT_MAX_NAMESPACES, SubsystemInfo, SubsystemKind, SubsystemOptions};
use super::transport::{TransportInfo, TransportOptions};
use super::{DISCOVERY_NQN, SubsystemKind::Discovery};
use crate::bdev::Registry;

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
/// Owned by one thread, the control thread. No method blocks, except those that say that they
/// wait for reactors: these return when every reactor has confirmed, at the latest after
/// [`TargetSetup::confirmation`], and go on serving Connects meanwhile.
#[derive(Debug)]
pub struct Target {
    setup: TargetSetup,
    transport: Option<TransportOptions>,
    discovery: Subsystem,
    subsystems: BTreeMap<String, Subsystem>,
    stopping: bool,
}

#[derive(Debug)]
struct Subsystem {
    options: SubsystemOptions,
    access: HostAccess,
    listeners: Vec<ListenAddress>,
    namespaces: BTreeMap<u32, NamespaceInfo>,
}

impl Subsystem {
    fn new(mut options: SubsystemOptions) -> Self {
        if options.max_namespaces == 0 {
            options.max_namespaces = DEFAULT_MAX_NAMESPACES;
        }
        Self {
            access: HostAccess {
                allow_any: options.allow_any_host,
                ..HostAccess::default()
            },
            options,
            listeners: Vec::new(),
            namespaces: BTreeMap::new(),
        }
    }

    fn info(&self, kind: SubsystemKind) -> SubsystemInfo {
        SubsystemInfo {
            kind,
            options: SubsystemOptions {
                allow_any_host: self.access.allow_any,
                ..self.options.clone()
            },
            listen_addresses: self.listeners.clone(),
            hosts: self.access.hosts.iter().cloned().collect(),
            namespaces: self.namespaces.values().cloned().collect(),
        }
    }
}

impl Target {
    /// A target with the discovery subsystem and nothing else.
    pub fn new(setup: TargetSetup) -> Self {
        Self {
            setup,
            transport: None,
            discovery: Subsystem::new(SubsystemOptions {
                allow_any_host: true,
                ..SubsystemOptions::new(DISCOVERY_NQN)
            }),
            subsystems: BTreeMap::new(),
            stopping: false,
        }
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
        self.transport = Some(options);
        Ok(())
    }

    /// The transports there are: none or one.
    pub fn transports(&self) -> Vec<TransportInfo> {
        let info = |options: &TransportOptions| TransportInfo {
            trtype: "TCP",
            options: options.clone(),
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
        if options.nqn == DISCOVERY_NQN || self.subsystems.contains_key(&options.nqn) {
            return Err(TargetError::Exists(format!("subsystem {}", options.nqn)));
        }
        if self.subsystems.len() >= self.setup.subsystems {
            return Err(TargetError::Limit(format!(
                "there are {} subsystems, as many as there may be; delete one first",
                self.subsystems.len()
            )));
        }
        let nqn = options.nqn.clone();
        self.subsystems.insert(nqn, Subsystem::new(options));
        Ok(())
    }

    /// Deletes a subsystem: closes its listeners and connections, and gives its devices back to
    /// `registry`. Waits for reactors.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`] for the discovery subsystem,
    /// [`TargetError::Timeout`] (the subsystem is gone for hosts; its devices stay claimed).
    pub fn delete_subsystem(
        &mut self,
        registry: &mut Registry,
        nqn: &str,
    ) -> Result<(), TargetError> {
        if nqn == DISCOVERY_NQN {
            return Err(TargetError::Invalid(
                "the discovery subsystem cannot be deleted".into(),
            ));
        }
        let subsystem = self.subsystems.remove(nqn).ok_or_else(|| missing(nqn))?;
        for namespace in subsystem.namespaces.values() {
            registry.unexport(&namespace.bdev_name, nqn);
        }
        Ok(())
    }

    /// All subsystems: discovery first, then by name.
    pub fn subsystems(&self) -> Vec<SubsystemInfo> {
        let discovery = std::iter::once(self.discovery.info(Discovery));
        let others = self.subsystems.values();
        discovery
            .chain(others.map(|s| s.info(SubsystemKind::Nvme)))
            .collect()
    }

    /// Exports a device and returns its number. Claims it in `registry`; opens it on every
    /// reactor and waits for them; tells connected hosts.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Exists`] (the number), [`TargetError::Invalid`],
    /// [`TargetError::Limit`] (no number left), [`TargetError::Bdev`], [`TargetError::Open`],
    /// [`TargetError::Timeout`].
    pub fn add_namespace(
        &mut self,
        registry: &mut Registry,
        nqn: &str,
        options: NamespaceOptions,
    ) -> Result<u32, TargetError> {
        self.check_running()?;
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        let most = subsystem.options.max_namespaces;
        let free = (1..=most).find(|n| !subsystem.namespaces.contains_key(n));
        let nsid = match options.nsid {
            Some(nsid) if nsid == 0 || nsid > most => {
                return Err(TargetError::Invalid(format!(
                    "nsid is {nsid}; it must be 1 to {most} (max_namespaces of {nqn})"
                )));
            }
            Some(nsid) if subsystem.namespaces.contains_key(&nsid) => {
                return Err(TargetError::Exists(format!("namespace {nsid} of {nqn}")));
            }
            Some(nsid) => nsid,
            None => free.ok_or_else(|| {
                TargetError::Limit(format!(
                    "{nqn} has {most} namespaces, as many as its max_namespaces"
                ))
            })?,
        };
        let bdev = registry.export(&options.bdev_name, nqn)?;
        let uuid = options.uuid.unwrap_or(bdev.info().uuid);
        subsystem.namespaces.insert(
            nsid,
            NamespaceInfo {
                nsid,
                bdev_name: options.bdev_name,
                nguid: options.nguid.unwrap_or(*uuid.as_bytes()),
                eui64: options.eui64,
                uuid,
            },
        );
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
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        let namespace = subsystem
            .namespaces
            .remove(&nsid)
            .ok_or_else(|| TargetError::NotFound(format!("namespace {nsid} of {nqn}")))?;
        registry.unexport(&namespace.bdev_name, nqn);
        Ok(())
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
        let subsystem = self.subsystem_mut(nqn)?;
        if subsystem.listeners.contains(&address) {
            return Err(TargetError::Exists(format!("listener {address} of {nqn}")));
        }
        subsystem.listeners.push(address);
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
        Ok(())
    }

    /// Where a subsystem listens.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn listeners(&self, nqn: &str) -> Result<Vec<ListenAddress>, TargetError> {
        Ok(self.subsystem(nqn)?.listeners.clone())
    }

    /// Puts a host on a subsystem's allow-list. Putting it there twice is no error.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`] (a malformed NQN).
    pub fn add_host(&mut self, nqn: &str, hostnqn: &str) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        subsystem.access.hosts.insert(hostnqn.to_owned());
        Ok(())
    }

    /// Takes a host off the allow-list, and closes its associations unless any host is allowed.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn remove_host(&mut self, nqn: &str, hostnqn: &str) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        if subsystem.access.hosts.remove(hostnqn) {
            Ok(())
        } else {
            Err(TargetError::NotFound(format!("host {hostnqn} of {nqn}")))
        }
    }

    /// Allows every host, or only those on the list again; hosts that are not allowed any more
    /// lose their associations.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn set_allow_any_host(&mut self, nqn: &str, allow: bool) -> Result<(), TargetError> {
        self.subsystem_mut(nqn)?.access.allow_any = allow;
        Ok(())
    }

    /// Controllers of a subsystem, by identifier.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn controllers(&self, nqn: &str) -> Result<Vec<ControllerInfo>, TargetError> {
        self.subsystem(nqn)?;
        Ok(Vec::new())
    }

    /// Queues of a subsystem, by controller and queue identifier.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn qpairs(&self, nqn: &str) -> Result<Vec<QpairInfo>, TargetError> {
        self.subsystem(nqn)?;
        Ok(Vec::new())
    }

    /// Counts of every poll group. Waits for reactors; groups that do not answer in time are left
    /// out.
    pub fn stats(&mut self) -> Vec<GroupStats> {
        Vec::new()
    }

    /// Accepts connections and handles what poll groups have sent. To be called whenever the
    /// control thread wakes; returns when it has something to do again by itself.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        let _ = now;
        None
    }

    /// Stops serving: listeners closed, new commands refused, those in flight given until
    /// `deadline` to end, connections closed. Waits for reactors. Returns whether everything
    /// ended in time.
    pub fn stop(&mut self, deadline: Instant) -> bool {
        let _ = deadline;
        self.stopping = true;
        true
    }

    fn check_running(&self) -> Result<(), TargetError> {
        if self.stopping {
            return Err(TargetError::Busy("the target is stopping".into()));
        }
        Ok(())
    }

    fn subsystem(&self, nqn: &str) -> Result<&Subsystem, TargetError> {
        match nqn {
            DISCOVERY_NQN => Ok(&self.discovery),
            _ => self.subsystems.get(nqn).ok_or_else(|| missing(nqn)),
        }
    }

    fn subsystem_mut(&mut self, nqn: &str) -> Result<&mut Subsystem, TargetError> {
        match nqn {
            DISCOVERY_NQN => Ok(&mut self.discovery),
            _ => self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn)),
        }
    }
}

fn missing(nqn: &str) -> TargetError {
    TargetError::NotFound(format!("subsystem {nqn}"))
}
