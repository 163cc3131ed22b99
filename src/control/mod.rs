//! What the process consists of, as the one thread that changes it sees it: devices, volumes, the
//! NVMe-oF target, the reactors.
//!
//! The room puts the other rooms together and keeps them consistent: who holds a device, when a
//! volume has all of its members. It never does I/O, never parses a request and never waits
//! without a bound; reactors go on serving hosts whatever happens here.

#![forbid(unsafe_code)]

mod adoption;
mod announcement;
mod array;
mod arrays;
mod assembly;
mod changes;
mod counts;
mod creation;
mod detachment;
mod devices;
mod disk;
mod error;
mod kept;
mod keyring;
mod limits;
mod locals;
mod log;
mod members;
mod newcomer;
mod notices;
mod policy;
mod recovery;
mod remotes;
mod replacement;
mod resize;
mod spares;
mod start;
mod stopped;
mod system;
mod upkeep;
mod volume_events;

pub use announcement::Announcement;
pub use array::{ArrayInfo, ArrayOptions, ArrayState, MISSING, SlotInfo, Tuning};
pub use arrays::{Arrays, Place};
pub use changes::{Addition, Change};
pub use counts::{DeviceCounts, Reset};
pub use creation::NewMetadata;
pub use detachment::Detachment;
pub use devices::{Devices, Kind};
pub use disk::MemberDisk;
pub use error::ControlError;
pub use kept::{KeptInfo, policy_name};
pub use keyring::{KeyError, Keyring};
pub use locals::{Answer, LocalInfo, Locals};
pub use log::{LogLevel, LogSwitch};
pub use notices::{Event, Notice, Notices};
pub use remotes::{RemoteDefaults, RemoteInfo, Remotes};
pub use start::{Machine, StartError};
pub use stopped::Which;
pub use system::{Deletion, Phase, System, TICK_RATE};
