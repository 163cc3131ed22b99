//! Controllers on other machines, and the devices that their namespaces are.
//!
//! A controller is asked for by name and kept until it is detached, or given up because it stayed
//! away for too long. Its namespaces become devices when it is there for the first time. Each time
//! that it is there again, those that no array holds any more are looked at: what an array has gone
//! on without comes back to it that way, to be brought up to date.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ControlError;
use super::devices::Kind;
use super::system::System;
use crate::bdev::nvme::tcp::{HealthAnswer, Phase, Recovery, Status, TcpController, TcpOptions};
use crate::bdev::{Bdev, Claim};
use crate::nvme::Nqn;

/// How often controllers are looked at that are not there.
const INTERVAL: Duration = Duration::from_millis(20);

/// How often those are looked at that are there: nobody waits for news of them.
const WATCH: Duration = Duration::from_secs(1);

/// For how long after its controller's return a device is looked for that an array may just be
/// letting go.
const RETURN: Duration = Duration::from_secs(10);

/// What controllers are attached with unless they are told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteDefaults {
    /// Keep alive timeout; zero for none.
    pub keep_alive: Duration,
    /// Time for an I/O command; zero for no limit.
    pub io_timeout: Duration,
    /// Time for an admin command and for a connection.
    pub admin_timeout: Duration,
    /// Commands in flight on an I/O queue.
    pub queue_depth: u16,
    /// I/O queues to ask for.
    pub io_queues: u16,
    /// How long a controller may be away.
    pub recovery: Recovery,
}

impl Default for RemoteDefaults {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(10),
            io_timeout: Duration::from_secs(10),
            admin_timeout: Duration::from_secs(10),
            queue_depth: 128,
            io_queues: 64,
            recovery: Recovery::default(),
        }
    }
}

/// All controllers on other machines.
#[derive(Debug, Default)]
pub struct Remotes {
    controllers: BTreeMap<String, Remote>,
    /// For those that are attached from now on.
    pub defaults: RemoteDefaults,
}

#[derive(Debug)]
struct Remote {
    controller: TcpController,
    /// Its addresses in the order in which they were given.
    addresses: Vec<SocketAddr>,
    /// The association that has been made known; 0 for none.
    known: u64,
    /// The devices that it has become.
    devices: Vec<String>,
    /// Devices to be looked at as soon as nobody holds them, and until when.
    returning: Vec<(String, Instant)>,
    /// It has been given up, and its arrays have been told.
    given_up: bool,
    /// Whoever attached it did not wait until it was there.
    unawaited: bool,
}

/// What is known of one of them.
#[derive(Debug)]
pub struct RemoteInfo {
    /// Its name.
    pub name: String,
    /// How it was to be attached.
    pub options: TcpOptions,
    /// How it stands with it.
    pub phase: Phase,
    /// Its addresses in the order in which they were given; [`Status`] has the one in use first.
    pub addresses: Vec<SocketAddr>,
    /// What is known of it.
    pub status: Status,
    /// The devices that it has become; empty until it was there for the first time.
    pub devices: Vec<String>,
    /// Whether it was.
    pub attached: bool,
    /// Whether a start of the process goes on without it; see [`Remotes::do_not_await`].
    pub unawaited: bool,
}

impl Remotes {
    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.controllers.keys().map(String::as_str)
    }

    /// What is known of one.
    ///
    /// # Errors
    /// [`ControlError::NoController`].
    pub fn info(&self, name: &str) -> Result<RemoteInfo, ControlError> {
        let remote = self.find(name)?;
        Ok(RemoteInfo {
            name: name.to_owned(),
            options: remote.controller.options().clone(),
            phase: remote.controller.phase(),
            addresses: remote.addresses.clone(),
            status: remote.controller.status(),
            devices: remote.devices.clone(),
            attached: remote.known > 0,
            unawaited: remote.unawaited,
        })
    }

    /// Begins to attach a controller; [`Remotes::info`] shows how far it has come.
    ///
    /// # Errors
    /// [`ControlError::ControllerExists`] where there is one of that name, or of that subsystem: a
    /// target ends the association that a host has when the same host asks for another.
    /// [`ControlError::Attach`].
    pub fn attach(
        &mut self,
        name: &str,
        options: TcpOptions,
        address: SocketAddr,
    ) -> Result<(), ControlError> {
        if name.is_empty() {
            let reason = "a controller needs a name; give one that is not empty";
            return Err(ControlError::Invalid(reason.to_owned()));
        }
        let same = self.of_subsystem(&options.subsystem, &options.host);
        let exists = self.controllers.get_key_value(name);
        if let Some(other) = exists.map(|(name, _)| name.as_str()).or(same) {
            return Err(ControlError::ControllerExists {
                name: other.to_owned(),
                what: "give another name, or multipath: failover to add an address to that one",
            });
        }
        let controller = TcpController::attach(name, options, address)?;
        let remote = Remote {
            controller,
            addresses: vec![address],
            known: 0,
            devices: Vec::new(),
            returning: Vec::new(),
            given_up: false,
            unawaited: false,
        };
        self.controllers.insert(name.to_owned(), remote);
        Ok(())
    }

    /// A start from a saved configuration is not to wait for this controller either.
    pub fn do_not_await(&mut self, name: &str) {
        if let Some(remote) = self.controllers.get_mut(name) {
            remote.unawaited = true;
        }
    }

    /// Adds another address to a controller, to be used when the one in use fails.
    ///
    /// # Errors
    /// [`ControlError::NoController`]; [`ControlError::ControllerExists`] where it has that address;
    /// [`ControlError::Invalid`] where the subsystem is another.
    pub fn add_address(
        &mut self,
        name: &str,
        options: &TcpOptions,
        address: SocketAddr,
    ) -> Result<(), ControlError> {
        let remote = self.controllers.get_mut(name);
        let remote = remote.ok_or_else(|| ControlError::NoController(name.to_owned()))?;
        let own = remote.controller.options();
        if (&own.subsystem, &own.host) != (&options.subsystem, &options.host) {
            return Err(ControlError::Invalid(format!(
                "controller {name} is attached to {} as {}; another address must be one of that",
                own.subsystem, own.host
            )));
        }
        if remote.addresses.contains(&address) {
            return Err(ControlError::ControllerExists {
                name: name.to_owned(),
                what: "with this address; give another",
            });
        }
        remote.controller.add_address(address);
        remote.addresses.push(address);
        Ok(())
    }

    /// The name of the one that is attached to this subsystem as this host.
    pub fn of_subsystem(&self, subsystem: &Nqn, host: &Nqn) -> Option<&str> {
        let is_it = |remote: &&Remote| {
            let own = remote.controller.options();
            own.subsystem == *subsystem && own.host == *host
        };
        let found = self.controllers.values().find(is_it);
        found.map(|remote| remote.controller.name())
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.controllers.contains_key(name)
    }

    /// Forgets one that has become no device.
    pub fn forget(&mut self, name: &str) {
        self.controllers.remove(name);
    }

    /// Ends a controller's association and has it make a new one.
    ///
    /// # Errors
    /// [`ControlError::NoController`].
    pub fn reset(&self, name: &str) -> Result<(), ControlError> {
        self.find(name)?.controller.reset();
        Ok(())
    }

    /// Asks a controller for its health log page.
    ///
    /// # Errors
    /// [`ControlError::NoController`].
    pub fn ask_health(&self, name: &str) -> Result<HealthAnswer, ControlError> {
        Ok(self.find(name)?.controller.ask_health())
    }

    /// A device is taken out of its array by command: it is not put back when it is free.
    pub(super) fn expect_no_return(&mut self, device: &str) {
        for remote in self.controllers.values_mut() {
            remote.returning.retain(|(name, _)| name != device);
        }
    }

    /// The devices of one.
    pub(super) fn devices_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        Some(&mut self.controllers.get_mut(name)?.devices)
    }

    fn find(&self, name: &str) -> Result<&Remote, ControlError> {
        let found = self.controllers.get(name);
        found.ok_or_else(|| ControlError::NoController(name.to_owned()))
    }
}

impl System {
    /// Sees what has become of the controllers. Returns when to look again at the latest.
    pub(super) fn poll_remotes(&mut self, now: Instant) -> Option<Instant> {
        let names: Vec<String> = self.remotes.names().map(str::to_owned).collect();
        let mut pause = None;
        for name in names {
            let interval = match self.poll_remote(&name, now) {
                true => WATCH,
                false => INTERVAL,
            };
            pause = Some(pause.unwrap_or(interval).min(interval));
        }
        pause.map(|pause| now + pause)
    }

    /// Sees what has become of one. Says whether it is as it should be.
    fn poll_remote(&mut self, name: &str, now: Instant) -> bool {
        let Some(remote) = self.remotes.controllers.get_mut(name) else {
            return true;
        };
        match remote.controller.phase() {
            Phase::Ready => {
                let generation = remote.controller.status().generation;
                if remote.known == 0 {
                    remote.known = generation;
                    self.add_namespaces(name);
                } else if remote.known != generation {
                    remote.known = generation;
                    let until = now + RETURN;
                    let devices = remote.devices.iter();
                    remote.returning = devices.map(|d| (d.clone(), until)).collect();
                }
                self.look_for_returned(name, now)
            }
            Phase::Away | Phase::Failing => false,
            Phase::Gone => {
                self.give_up(name);
                true
            }
        }
    }

    /// A controller is there for the first time: its namespaces become devices.
    fn add_namespaces(&mut self, name: &str) {
        let Some(remote) = self.remotes.controllers.get(name) else {
            return;
        };
        for namespace in remote.controller.namespaces() {
            let device = namespace.info().name.clone();
            let kind = Kind::Nvme {
                controller: name.to_owned(),
            };
            // Known first: whoever looks at it may want to know.
            match self.add_device(namespace, kind) {
                Ok(()) => {
                    if let Some(remote) = self.remotes.controllers.get_mut(name) {
                        remote.devices.push(device);
                    }
                }
                Err(error) => tracing::error!("controller {name}: {error}"),
            }
        }
    }

    /// Looks at the devices of a controller that has come back which nobody holds any more. Says
    /// whether none is left to be looked at.
    fn look_for_returned(&mut self, name: &str, now: Instant) -> bool {
        let Some(remote) = self.remotes.controllers.get_mut(name) else {
            return true;
        };
        let mut left = std::mem::take(&mut remote.returning);
        left.retain(|(device, until)| {
            let held = self.devices.registry.claim_of(device).is_some();
            if !held
                && self.auto_examine
                && let Err(error) = self.look_at(device)
            {
                tracing::warn!("{error}");
            }
            held && now < *until
        });
        let none = left.is_empty();
        if let Some(remote) = self.remotes.controllers.get_mut(name) {
            remote.returning = left;
        }
        none
    }

    /// A controller did not come back: arrays do without its devices, and these are forgotten as
    /// soon as nobody holds them.
    fn give_up(&mut self, name: &str) {
        let Some(remote) = self.remotes.controllers.get_mut(name) else {
            return;
        };
        let told = std::mem::replace(&mut remote.given_up, true);
        for device in remote.devices.clone() {
            let holder = self.devices.registry.claim_of(&device);
            if let Some(Claim::Bdev(holder)) = holder
                && !told
                && self.arrays.contains(holder)
                && let Err(error) = self.remove_member(&device)
            {
                tracing::error!("controller {name}: {device} is gone, and {error}");
            }
            if self.devices.registry.claim_of(&device).is_none()
                && let Err(error) = self.devices.remove(&device)
            {
                tracing::debug!("controller {name}: {error}");
            }
        }
        if let Some(remote) = self.remotes.controllers.get_mut(name) {
            let registry = &self.devices.registry;
            remote.devices.retain(|d| registry.get(d).is_ok());
            if remote.devices.is_empty() {
                self.remotes.forget(name);
            }
        }
    }
}
