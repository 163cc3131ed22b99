//! What a poll group knows of subsystems: immutable snapshots that the control side makes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::ana::{Access, Reaches};
use super::event_log::Snapshot;
use super::host::HostAccess;
use super::referral::Referral;
use super::subsystem::SubsystemKind;
use crate::bdev::Info;
use crate::nvme::Nqn;

/// A device on a poll group, by place in its table. The control side gives out the numbers, the
/// same for all groups, and gives one out again only when every group has closed the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u32);

/// A subsystem, for as long as the process lives; never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubsystemId(pub u64);

/// A namespace as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    /// Its number.
    pub nsid: u32,
    /// Where its blocks are.
    pub device: DeviceId,
    /// What the device is.
    pub info: Info,
    /// Identity of 16 bytes.
    pub nguid: [u8; 16],
    /// Identity of 8 bytes, where there is one.
    pub eui64: Option<[u8; 8]>,
    /// Identity as a UUID.
    pub uuid: Uuid,
    /// Its ANA group, from 1.
    pub group: u32,
    /// How that is reached; optimized as long as nobody looks at it.
    pub access: Access,
    /// The hosts that it is there for, by NQN; `None` for all.
    pub hosts: Option<Arc<BTreeSet<String>>>,
    /// Whether its reservations can outlive a loss of power.
    pub persists: bool,
}

/// The blocks of a namespace, as a command that is under way has to know them: copied, because counting who uses a namespace
/// takes as long as looking at what the host wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceBlocks {
    /// The namespace's number.
    pub nsid: u32,
    /// The device that has them.
    pub device: DeviceId,
    /// Bytes of one.
    pub block_size: u32,
    /// How many there are.
    pub blocks: u64,
    /// Most blocks in one request; 0 is as good as 1.
    pub max_blocks: u32,
    /// Blocks between edges that no buffer should lie across; 0 where there are none.
    pub io_boundary: u32,
}

impl NamespaceView {
    /// Its blocks.
    pub fn blocks(&self) -> NamespaceBlocks {
        NamespaceBlocks {
            nsid: self.nsid,
            device: self.device,
            block_size: self.info.block_size,
            blocks: self.info.blocks,
            max_blocks: self.info.max_blocks,
            io_boundary: self.info.io_boundary,
        }
    }

    /// Whether it is what it was before, as Identify tells it. How it is reached is told otherwise,
    /// and who else sees it is not told at all.
    fn is_still(&self, before: &Self) -> bool {
        let before = Self {
            group: self.group,
            access: self.access,
            hosts: self.hosts.clone(),
            ..before.clone()
        };
        *self == before
    }
}

/// A subsystem as it is served.
#[derive(Clone, Debug)]
pub struct SubsystemView {
    /// Which.
    pub id: SubsystemId,
    /// Its name.
    pub nqn: Nqn,
    /// What it is for.
    pub kind: SubsystemKind,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// Namespaces by number: that of number 1 comes first. As long as its largest number may be.
    pub namespaces: Vec<Option<Arc<NamespaceView>>>,
    /// How its listeners reach groups of namespaces, where hosts are told.
    pub reaches: Option<Reaches>,
    /// Its event log, if it has one.
    pub event_log: Option<Arc<Snapshot>>,
}

impl SubsystemView {
    /// The largest number that a namespace may have.
    pub fn max_nsid(&self) -> u32 {
        self.namespaces.len() as u32
    }

    /// The namespace of this number.
    pub fn namespace(&self, nsid: u32) -> Option<&Arc<NamespaceView>> {
        let at = usize::try_from(nsid.checked_sub(1)?).ok()?;
        self.namespaces.get(at)?.as_ref()
    }

    /// The namespaces there are, by number.
    pub fn active(&self) -> impl Iterator<Item = &Arc<NamespaceView>> {
        self.namespaces.iter().flatten()
    }

    /// Numbers under which there is now something else than in `before`, ascending.
    pub fn changed_since(&self, before: &SubsystemView) -> Vec<u32> {
        let most = self.max_nsid().max(before.max_nsid());
        (1..=most)
            .filter(
                |&nsid| match (self.namespace(nsid), before.namespace(nsid)) {
                    (Some(now), Some(before)) => !now.is_still(before),
                    (now, before) => now != before,
                },
            )
            .collect()
    }
}

/// A subsystem as the discovery log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySubsystem {
    /// Its name.
    pub nqn: Nqn,
    /// Which hosts are told of it.
    pub access: HostAccess,
    /// Where it listens.
    pub listeners: Vec<SocketAddr>,
}

/// What the discovery log is made from.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryView {
    /// Changes whenever the log of any host may have changed.
    pub generation: u64,
    /// The subsystems, by name; discovery itself is not among them.
    pub subsystems: Vec<DiscoverySubsystem>,
    /// Other discovery services.
    pub referrals: Vec<Referral>,
    /// Entries of an admin queue.
    pub admin_queue_entries: u16,
}
