//! What the process consists of, as the one thread that changes it sees it: devices, volumes, the
//! NVMe-oF target, the reactors.
//!
//! The room puts the other rooms together and keeps them consistent: who holds a device, when a
//! volume has all of its members. It never does I/O, never parses a request and never waits
//! without a bound; reactors go on serving hosts whatever happens here.

#![forbid(unsafe_code)]

mod arrays;
mod devices;
mod disk;
mod error;
mod log;
mod start;
mod system;

pub use arrays::{Addition, ArrayInfo, ArrayOptions, ArrayState, Arrays, Change, Place, SlotInfo};
pub use devices::{Devices, Kind};
pub use disk::MemberDisk;
pub use error::ControlError;
pub use log::{LogLevel, LogSwitch};
pub use start::{Machine, StartError};
pub use system::{Deletion, DeviceCounts, Phase, System, TICK_RATE};
