//! Devices that poll groups have open: for namespaces, and for work of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Target;
use crate::bdev::{Bdev, Registry};
use crate::nvmf::depth::QueueDepth;
use crate::nvmf::error::TargetError;
use crate::nvmf::message::{GroupCommand, Ticket};
use crate::nvmf::namespace::Namespace;
use crate::nvmf::view::DeviceId;

/// Devices by name, and their places on the groups.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) open: BTreeMap<String, (DeviceId, usize)>,
    /// Places that no group uses.
    pub(super) free: Vec<DeviceId>,
    pub(super) count: u32,
    /// Those whose queues are looked at.
    pub(super) depths: BTreeMap<String, Arc<QueueDepth>>,
    /// Devices that are being closed: until the round is complete, the place is taken and the
    /// device stays claimed.
    pub(super) closing: Vec<Closing>,
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) ticket: Ticket,
    pub(super) device: DeviceId,
    pub(super) bdev: String,
    /// The namespace that it was, and whose claim is to be given back: subsystem and number. None
    /// for a device that was kept open without being exported.
    pub(super) namespace: Option<(String, u32)>,
}

impl Closing {
    pub(super) fn is_of(&self, nqn: &str) -> bool {
        self.namespace.as_ref().is_some_and(|(of, _)| of == nqn)
    }
}

impl Devices {
    pub(super) fn place(&mut self) -> DeviceId {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            DeviceId(self.count - 1)
        })
    }
}

impl Target {
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
    pub(super) fn open_device(
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
        self.devices.open.insert(name.clone(), (device, 1));
        let limits = registry.limits(&name);
        if !limits.is_none() {
            self.limit(&name, &limits);
        }
        Ok(device)
    }

    /// One namespace uses the device of `namespace` no longer; the last closes it.
    pub(super) fn close_device(
        &mut self,
        registry: &mut Registry,
        nqn: &str,
        namespace: Namespace,
    ) {
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

    pub(super) fn begin_close(
        &mut self,
        device: DeviceId,
        bdev: String,
        namespace: Option<(String, u32)>,
    ) {
        let ticket = self
            .groups
            .begin(|ticket| GroupCommand::CloseDevice { device, ticket });
        self.devices.depths.remove(&bdev);
        self.devices.closing.push(Closing {
            ticket,
            device,
            bdev,
            namespace,
        });
    }

    /// Waits for devices to be closed, and gives back those that are.
    pub(super) fn settle(
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
    pub(super) fn reap(&mut self, registry: &mut Registry) {
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
}
