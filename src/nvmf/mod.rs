//! The NVMe-oF target: subsystems, controllers, discovery and the TCP transport.
//!
//! Two sides. The **control side** ([`Target`]) belongs to one thread: it owns transports,
//! subsystems, listeners and the table of associations, and decides every Connect. The **I/O
//! side** is a poll group per reactor: it owns connections, sockets, payload memory and one
//! channel per block device. They talk by messages only; nothing is shared but immutable
//! snapshots.
//!
//! The room knows `nvme` (the wire format), `reactor`, `bdev` and `memory`, and nothing above it.
//! It never parses JSON, never blocks a reactor, and never lets what a host sends allocate
//! without a bound or stop another host's work.

#![forbid(unsafe_code)]

mod address;
mod algorithms;
mod ana;
mod association;
mod auth;
mod command;
mod controller;
mod counts;
mod depth;
mod device;
mod durable;
mod error;
mod error_log;
mod event_log;
mod events;
mod feature;
mod groups;
mod host;
mod identify;
mod io_queue;
mod key;
mod latency;
mod limiter;
mod listener;
mod log_page;
mod message;
mod namespace;
mod payload;
mod perspective;
mod poll_group;
mod referral;
mod reservation;
mod session;
mod stats;
mod status;
mod subsystem;
mod target;
mod tcp;
mod throttle;
mod transport;
mod view;
mod wire;

#[cfg(test)]
mod tests;

pub use crate::nvme::nqn::DISCOVERY as DISCOVERY_NQN;
pub use address::ListenAddress;
pub use algorithms::Algorithms;
pub use ana::{Access, Reach};
pub use depth::QueueDepthInfo;
pub use error::TargetError;
pub use event_log::{EventLogOptions, trial as event_log_trial};
pub use host::{HostInfo, HostKeys};
pub use key::Key;
pub use latency::{Histogram, HistogramShape, Kind as LatencyKind, Latencies, Latency, ShapeError};
pub use namespace::{NamespaceInfo, NamespaceOptions};
pub use payload::PayloadSizes;
pub use poll_group::{GroupSeed, PollGroup};
pub use referral::Referral;
pub use stats::{
    AuthenticationInfo, AuthenticationState, ControllerInfo, GroupStats, QpairInfo, QpairState,
};
pub use subsystem::{SubsystemInfo, SubsystemKind, SubsystemOptions};
pub use target::{Target, TargetSetup, VolumeEvent};
pub use transport::{TransportInfo, TransportOptions};
