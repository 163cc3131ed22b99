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

pub mod address;
pub mod command;
pub mod controller;
pub mod device;
pub mod error;
pub mod events;
pub mod feature;
pub mod host;
pub mod identify;
pub mod io_queue;
pub mod log_page;
pub mod message;
pub mod namespace;
pub mod stats;
pub mod status;
pub mod subsystem;
pub mod target;
pub mod tcp;
pub mod transport;
pub mod view;
pub mod wire;

pub use address::ListenAddress;
pub use error::TargetError;
pub use namespace::{NamespaceInfo, NamespaceOptions};
pub use stats::{ControllerInfo, GroupStats, QpairInfo, QpairState};
pub use subsystem::{SubsystemInfo, SubsystemKind, SubsystemOptions};
pub use target::{Target, TargetSetup};
pub use transport::{TransportInfo, TransportOptions};

/// The well-known name of the discovery subsystem (Base 4.5).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";
