//! Namespaces: which device a subsystem exports under which number and identity.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::ana::Access;
use super::view::{DeviceId, NamespaceView};
use crate::bdev::Info;

/// What `nvmf_subsystem_add_ns` sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceOptions {
    /// The device.
    pub bdev_name: String,
    /// Its number, from 1; absent for the lowest free one.
    pub nsid: Option<u32>,
    /// Identity of 16 bytes; absent for the device's UUID.
    pub nguid: Option<[u8; 16]>,
    /// Identity of 8 bytes; absent for none.
    pub eui64: Option<[u8; 8]>,
    /// Identity as a UUID; absent for the device's.
    pub uuid: Option<Uuid>,
    /// Its ANA group, 1 to the subsystem's `max_namespaces`; absent for that of its own number.
    pub anagrpid: Option<u32>,
    /// It is there for those hosts only that are named later.
    pub no_auto_visible: bool,
    /// The file in which reservations outlive a loss of power; absent where they do not.
    pub ptpl_file: Option<PathBuf>,
}

/// A namespace as `nvmf_get_subsystems` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its number.
    pub nsid: u32,
    /// The device.
    pub bdev_name: String,
    /// Globally unique identifier.
    pub nguid: [u8; 16],
    /// Extended unique identifier, where there is one.
    pub eui64: Option<[u8; 8]>,
    /// UUID.
    pub uuid: Uuid,
    /// Its ANA group.
    pub anagrpid: u32,
    /// The hosts that it is there for, by NQN; `None` for all.
    pub hosts: Option<Arc<BTreeSet<String>>>,
    /// The file of its reservations, where there is one.
    pub ptpl_file: Option<PathBuf>,
}

/// A namespace, as the control side keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its number.
    pub nsid: u32,
    /// Globally unique identifier.
    pub nguid: [u8; 16],
    /// Extended unique identifier, where there is one.
    pub eui64: Option<[u8; 8]>,
    /// UUID.
    pub uuid: Uuid,
    /// Its ANA group.
    pub anagrpid: u32,
    /// The hosts that it is there for, by NQN; `None` for all.
    pub hosts: Option<Arc<BTreeSet<String>>>,
    /// Where its device is on the poll groups.
    pub device: DeviceId,
    /// What its device is.
    pub info: Info,
    /// The file of its reservations, where there is one.
    pub ptpl_file: Option<PathBuf>,
}

impl Namespace {
    /// As it is shown.
    pub fn info(&self) -> NamespaceInfo {
        NamespaceInfo {
            nsid: self.nsid,
            bdev_name: self.info.name.clone(),
            nguid: self.nguid,
            eui64: self.eui64,
            uuid: self.uuid,
            anagrpid: self.anagrpid,
            hosts: self.hosts.clone(),
            ptpl_file: self.ptpl_file.clone(),
        }
    }

    /// As it is served.
    pub fn view(&self) -> NamespaceView {
        NamespaceView {
            nsid: self.nsid,
            device: self.device,
            info: self.info.clone(),
            nguid: self.nguid,
            eui64: self.eui64,
            uuid: self.uuid,
            group: self.anagrpid,
            access: Access::default(),
            hosts: self.hosts.clone(),
            persists: self.ptpl_file.is_some(),
        }
    }
}
