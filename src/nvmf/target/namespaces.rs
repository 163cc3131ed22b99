//! Namespaces that come and go.

use std::sync::Arc;

use super::devices::Closing;
use super::{Target, missing, parse_nqn};
use crate::bdev::Registry;
use crate::nvmf::error::TargetError;
use crate::nvmf::namespace::{Namespace, NamespaceOptions};
use crate::nvmf::reservation::ReservationFile;

impl Target {
    /// Exports a device and returns its number. Claims it in `registry`; opens it on every
    /// reactor and waits for them; tells connected hosts.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Exists`] (the number), [`TargetError::Invalid`] (a
    /// reservation file that is damaged or of another device, too),
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
        let anagrpid = options.anagrpid.unwrap_or(nsid);
        subsystem.check_group(anagrpid)?;
        let name = options.bdev_name.clone();
        if self.devices.closing.iter().any(|c| c.bdev == name) {
            return Err(TargetError::Busy(format!(
                "bdev {name} is still being closed: its last commands have not ended"
            )));
        }
        let bdev = registry.export(&name, nqn)?;
        let info = bdev.info().clone();
        let file = options.ptpl_file.clone().map(|path| ReservationFile {
            path,
            device: info.uuid,
        });
        let reservation = match self.read_reservation(file.as_ref()) {
            Ok(reservation) => reservation,
            Err(error) => {
                registry.unexport(&name, nqn);
                return Err(error);
            }
        };
        let namespace = Some((nqn.to_owned(), nsid));
        let device = self.open_device(registry, bdev, namespace)?;
        let uuid = options.uuid.unwrap_or(info.uuid);
        let namespace = Namespace {
            nsid,
            nguid: options.nguid.unwrap_or(*uuid.as_bytes()),
            eui64: options.eui64,
            uuid,
            anagrpid,
            hosts: options.no_auto_visible.then(Arc::default),
            device,
            info,
            ptpl_file: options.ptpl_file,
        };
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        let id = subsystem.id;
        subsystem.namespaces.insert(nsid, namespace);
        self.begin_reservation(id, nsid, reservation, file);
        self.publish(nqn);
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
        let id = subsystem.id;
        match subsystem.namespaces.remove(&nsid) {
            Some(namespace) => {
                self.publish(nqn);
                self.end_reservation(id, nsid);
                self.close_device(registry, nqn, namespace);
            }
            None if self.devices.closing.iter().any(going) => {}
            None => {
                return Err(TargetError::NotFound(format!("namespace {nsid} of {nqn}")));
            }
        }
        self.settle(registry, going)
    }

    /// Lets a host see a namespace, or no longer: for others it is not there. Connected hosts are
    /// told. Asking for what is so already is no error.
    ///
    /// # Errors
    /// [`TargetError::NotFound`]; [`TargetError::Invalid`]: a malformed NQN, a namespace that every
    /// host sees.
    pub fn set_visible(
        &mut self,
        nqn: &str,
        nsid: u32,
        hostnqn: &str,
        visible: bool,
    ) -> Result<(), TargetError> {
        let host = parse_nqn("host", hostnqn)?;
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        let namespace = subsystem.namespaces.get_mut(&nsid);
        let namespace =
            namespace.ok_or_else(|| TargetError::NotFound(format!("namespace {nsid} of {nqn}")))?;
        let hosts = namespace.hosts.as_mut().ok_or_else(|| {
            TargetError::Invalid(format!(
                "every host sees namespace {nsid} of {nqn}; add it with no_auto_visible: true"
            ))
        })?;
        let hosts = Arc::make_mut(hosts);
        if visible {
            hosts.insert(host.as_str().to_owned());
        } else {
            hosts.remove(host.as_str());
        }
        self.publish(nqn);
        Ok(())
    }
}
