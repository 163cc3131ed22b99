//! What the control side tells about controllers, queues and poll groups.

use std::net::SocketAddr;

use uuid::Uuid;

use super::latency::Latencies;
use crate::bdev::IoStat;
use crate::nvme::dhchap::{DhGroup, Hash};

/// A controller as `nvmf_subsystem_get_controllers` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerInfo {
    /// Controller identifier, unique in the subsystem.
    pub cntlid: u16,
    /// The host.
    pub hostnqn: String,
    /// The host's identifier.
    pub hostid: Uuid,
    /// I/O queues that are connected.
    pub num_io_qpairs: u16,
}

/// How far a queue is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QpairState {
    /// Connected, but its controller is not enabled yet.
    Connecting,
    /// Its host has to prove who it is first.
    Authenticating,
    /// Its controller is enabled: commands are served.
    Enabled,
    /// Its association is being torn down.
    Deactivating,
}

impl QpairState {
    /// The word that the RPC shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Authenticating => "authenticating",
            Self::Enabled => "enabled",
            Self::Deactivating => "deactivating",
        }
    }
}

/// A queue as `nvmf_subsystem_get_qpairs` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QpairInfo {
    /// Its controller.
    pub cntlid: u16,
    /// Queue identifier, 0 for the admin queue.
    pub qid: u16,
    /// How far it is in its life.
    pub state: QpairState,
    /// Name of the poll group that serves it.
    pub thread: String,
    /// The host.
    pub hostnqn: String,
    /// Local end of the connection.
    pub listen_address: SocketAddr,
    /// The host's end of the connection.
    pub peer_address: SocketAddr,
    /// How far the host is with proving who it is; `None` where it need not.
    pub authentication: Option<AuthenticationInfo>,
}

/// What an authentication waits for, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthenticationState {
    /// The host is to begin.
    #[default]
    Negotiate,
    /// The host is to answer the challenge.
    Reply,
    /// The host is to say whether the controller has answered its challenge.
    Success2,
    /// The host was admitted.
    Completed,
    /// It was not.
    Error,
}

impl AuthenticationState {
    /// The word that the RPC shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Negotiate => "negotiate",
            Self::Reply => "reply",
            Self::Success2 => "success2",
            Self::Completed => "completed",
            Self::Error => "error",
        }
    }
}

/// How far a host is with proving who it is on a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationInfo {
    /// What it waits for.
    pub state: AuthenticationState,
    /// The hash function and the group, once they are chosen.
    pub chosen: Option<(Hash, DhGroup)>,
}

/// Counts of one poll group, as `nvmf_get_stats` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Name of the poll group.
    pub name: String,
    /// Admin queues since the start.
    pub admin_qpairs: u64,
    /// I/O queues since the start.
    pub io_qpairs: u64,
    /// Admin queues now.
    pub current_admin_qpairs: u32,
    /// I/O queues now.
    pub current_io_qpairs: u32,
    /// Requests that devices hold now.
    pub pending_bdev_io: u64,
    /// NVMe I/O commands completed since the start.
    pub completed_nvme_io: u64,
    /// Commands that wait for payload memory now.
    pub waiting_for_memory: u64,
    /// Connections that were closed for a fault of the peer since the start.
    pub connection_faults: u64,
    /// What went through each device since it was opened, by name; also those below others.
    pub devices: Vec<(String, IoStat)>,
    /// How long hosts' commands were with each device that is exported, by name.
    pub latencies: Vec<(String, Latencies)>,
}
