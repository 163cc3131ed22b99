//! What the control side and the poll groups tell each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::auth::{Judgement, Verdict};
use super::counts::Counts;
use super::depth::QueueDepth;
use super::error_log::Failures;
use super::event_log::Snapshot;
use super::latency::Histogram;
use super::limiter::Limiter;
use super::perspective::Perspective;
use super::reservation::{Answer as ReservationAnswer, Fence, HostId, Wish};
use super::stats::GroupStats;
use super::tcp::SlotId;
use super::transport::TransportOptions;
use super::view::{DeviceId, DiscoveryView, SubsystemId, SubsystemView};
use super::wire::Wire;
use crate::bdev::{Bdev, OpenError};
use crate::nvme::fabrics::{Connect, ConnectData};
use crate::nvme::reservation::NotificationType;
use crate::nvme::{Nqn, Status};

/// A connection, for as long as the process lives; never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One host's controller and all of its queues; never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId(pub u64);

/// Names one round of confirmations that the control side waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A connection that a poll group is to serve.
#[derive(Debug)]
pub struct NewConnection {
    /// Which.
    pub id: ConnectionId,
    /// Its byte stream.
    pub wire: Box<dyn Wire>,
    /// Local end.
    pub local: SocketAddr,
    /// The host's end.
    pub peer: SocketAddr,
    /// How it is to be served.
    pub options: Arc<TransportOptions>,
}

/// From the control side to a poll group.
#[derive(Debug)]
pub enum GroupCommand {
    /// Serve a connection.
    Serve(Box<NewConnection>),
    /// What became of a Connect.
    Connected {
        /// The connection that asked.
        connection: ConnectionId,
        /// The answer.
        answer: Box<ConnectAnswer>,
    },
    /// What becomes of a message of a host that is to prove who it is.
    Judged {
        /// The connection that it came from.
        connection: ConnectionId,
        /// What becomes of it.
        verdict: Box<Verdict>,
    },
    /// Close a connection.
    Close(ConnectionId),
    /// Open a device. Confirmed with [`GroupEvent::Opened`].
    Open {
        /// Its place.
        device: DeviceId,
        /// The device.
        bdev: Arc<dyn Bdev>,
        /// For the confirmation.
        ticket: Ticket,
    },
    /// Close a device as soon as no command uses it. Confirmed with [`GroupEvent::Done`].
    CloseDevice {
        /// Its place.
        device: DeviceId,
        /// For the confirmation.
        ticket: Ticket,
    },
    /// A subsystem has changed. Replaces what its connections know.
    Subsystem(Arc<SubsystemView>),
    /// A device of a subsystem has another size. Replaces what I/O queues know of the subsystem; hosts
    /// are told later, with [`GroupCommand::Subsystem`]. Confirmed with [`GroupEvent::Done`].
    Resized {
        /// The subsystem.
        view: Arc<SubsystemView>,
        /// For the confirmation.
        ticket: Ticket,
    },
    /// The discovery log has changed.
    Discovery(Arc<DiscoveryView>),
    /// What keeps hosts from a namespace has changed.
    Fence {
        /// How.
        change: Arc<FenceChange>,
        /// To be confirmed with [`GroupEvent::Done`] when nothing is let through any more that the
        /// fence is against, and what was to be aborted has ended.
        ticket: Option<Ticket>,
    },
    /// Hosts are to be told something of a reservation.
    ReservationNotice(Arc<ReservationNotice>),
    /// What became of a [`GroupEvent::Reserve`].
    Reserved {
        /// The connection that it came from.
        connection: ConnectionId,
        /// The command.
        slot: SlotId,
        /// What the host is told.
        answer: Box<ReservationAnswer>,
    },
    /// The I/O queues of a controller have moved something.
    Moved {
        /// Its admin queue.
        connection: ConnectionId,
        /// What.
        counts: Counts,
    },
    /// Commands of the I/O queues of a controller have failed.
    Failed {
        /// Its admin queue.
        connection: ConnectionId,
        /// Which.
        failures: Box<Failures>,
    },
    /// Count how the latencies of a device are spread, from now on or no longer.
    Histogram {
        /// Its place.
        device: DeviceId,
        /// An empty one.
        histogram: Option<Box<Histogram>>,
    },
    /// Forget the longest and shortest latencies of a device.
    ResetLatencies {
        /// Its place.
        device: DeviceId,
        /// All others, too.
        all: bool,
    },
    /// A device is to keep these limits from now on, or none.
    Limit {
        /// Its place.
        device: DeviceId,
        /// What all groups keep together.
        limiter: Option<Arc<Limiter>>,
    },
    /// Note how many requests are with a device, or no longer.
    Depth {
        /// Its place.
        device: DeviceId,
        /// Where.
        depth: Option<Arc<QueueDepth>>,
    },
    /// Tell the counts, with [`GroupEvent::Stats`].
    Stats(Ticket),
    /// Take no new commands; close every connection when its commands have ended, and at
    /// `deadline` in any case; then say so, with [`GroupEvent::Stopped`], and go on serving the
    /// devices.
    Stop {
        /// When to give up waiting for commands.
        deadline: Instant,
    },
    /// Finish.
    Finish,
}

/// What keeps hosts from a namespace, from now on.
#[derive(Debug)]
pub struct FenceChange {
    /// The subsystem.
    pub subsystem: SubsystemId,
    /// The namespace.
    pub nsid: u32,
    /// What does; none for nothing.
    pub fence: Option<Arc<Fence>>,
    /// Hosts whose commands in flight there are to end.
    pub aborted: Vec<HostId>,
}

/// What hosts are told of a reservation.
#[derive(Debug)]
pub struct ReservationNotice {
    /// The subsystem.
    pub subsystem: SubsystemId,
    /// The namespace.
    pub nsid: u32,
    /// What has happened.
    pub kind: NotificationType,
    /// Who is told.
    pub hosts: Vec<HostId>,
}

/// A host wants something of a reservation.
#[derive(Debug)]
pub struct ReservationRequest {
    /// The connection.
    pub connection: ConnectionId,
    /// The command.
    pub slot: SlotId,
    /// The namespaces that it is about, one after the other.
    pub nsids: Vec<u32>,
    /// What it wants.
    pub wish: Wish,
}

/// A host asks for a queue.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The connection that is to become the queue.
    pub connection: ConnectionId,
    /// The command.
    pub command: Connect,
    /// Its data.
    pub data: ConnectData,
}

/// What becomes of a connection that asked for a queue.
#[derive(Debug)]
pub enum ConnectAnswer {
    /// It is the admin queue of a new controller.
    Admin(AdminGrant),
    /// It is an I/O queue of an existing controller.
    Io(IoGrant),
    /// It is nothing.
    Refused {
        /// Why.
        status: Status,
        /// Dword 0 of the completion: which parameter.
        result: u32,
    },
}

/// A new controller.
#[derive(Clone, Debug)]
pub struct AdminGrant {
    /// Its identifier.
    pub cntlid: u16,
    /// Its subsystem.
    pub view: Arc<SubsystemView>,
    /// What a discovery controller tells.
    pub discovery: Arc<DiscoveryView>,
    /// The host.
    pub hostnqn: Nqn,
    /// The host's identifier.
    pub hostid: [u8; 16],
    /// How long the host is to wait before it repeats a command, three choices in units of 100 ms.
    pub retry_delays: [u16; 3],
    /// Whether the host has to prove who it is.
    pub authenticate: bool,
}

/// A new I/O queue.
#[derive(Clone, Debug)]
pub struct IoGrant {
    /// Its controller's identifier.
    pub cntlid: u16,
    /// Its subsystem.
    pub view: Arc<SubsystemView>,
    /// What the host sees of that.
    pub perspective: Perspective,
    /// The host's identifier.
    pub hostid: HostId,
    /// What keeps hosts from namespaces, by number.
    pub fences: Vec<(u32, Arc<Fence>)>,
    /// Whether the host has to prove who it is.
    pub authenticate: bool,
}

/// From a poll group to the control side.
#[derive(Debug)]
pub enum GroupEvent {
    /// A host asks for a queue. Answered with [`GroupCommand::Connected`].
    Connect(Box<ConnectRequest>),
    /// A host that is to prove who it is has sent a message. Answered with
    /// [`GroupCommand::Judged`].
    Authentication {
        /// The connection.
        connection: ConnectionId,
        /// The message.
        message: Vec<u8>,
    },
    /// From the thread that judges messages: what becomes of one.
    Judged(Box<Judgement>),
    /// A host wants something of a reservation. Always answered with [`GroupCommand::Reserved`], and
    /// the connection is there until then, even if it is lost.
    Reserve(Box<ReservationRequest>),
    /// An I/O queue has moved something since it last said so. Passed on as [`GroupCommand::Moved`].
    Moved {
        /// The queue.
        connection: ConnectionId,
        /// What.
        counts: Counts,
    },
    /// Commands of an I/O queue have failed. Passed on as [`GroupCommand::Failed`].
    Failed {
        /// The queue.
        connection: ConnectionId,
        /// Which.
        failures: Box<Failures>,
    },
    /// From the thread that writes reservations: one was written, or not.
    ReservationSaved {
        /// Which errand.
        id: u64,
        /// Why not, in words.
        outcome: Result<(), String>,
    },
    /// From the thread that writes event logs: one was written, or not.
    EventLogSaved {
        /// Which errand.
        errand: u64,
        /// What is in it now, or why not, in words.
        outcome: Result<Box<Snapshot>, String>,
    },
    /// The controller with this admin queue was enabled or disabled.
    Enabled {
        /// Its admin queue.
        connection: ConnectionId,
        /// Whether it serves I/O commands now.
        enabled: bool,
    },
    /// A connection is lost: it takes no more commands, but some may still be with devices.
    Lost(ConnectionId),
    /// A lost connection has no command left; nothing of it remains.
    Closed(ConnectionId),
    /// A device was opened, or not.
    Opened {
        /// Which round.
        ticket: Ticket,
        /// How it went.
        outcome: Result<(), OpenError>,
    },
    /// Something was done.
    Done(Ticket),
    /// The counts.
    Stats {
        /// Which round.
        ticket: Ticket,
        /// The counts.
        stats: Box<GroupStats>,
    },
    /// The group has no connection left.
    Stopped {
        /// Whether every command had ended by then.
        clean: bool,
    },
}
