//! The block-device seam, and the devices behind it.
//!
//! A [`Bdev`] is a device that the whole process knows by name. Each reactor that uses it opens a
//! [`Channel`] of its own: hand requests in with [`Channel::submit`], ring the doorbell once per
//! turn with [`Channel::kick`], collect what is done with [`Channel::poll`]. A channel belongs to
//! one reactor and has one user; a request is known by the token its user chose, and comes back
//! with its buffers exactly once.
//!
//! The room knows memory, and the reactor only as what may have to be woken; nothing above. It
//! never blocks a reactor. What is in flight when a channel is dropped is done or not, maybe later;
//! its buffers are free once it can no longer be.

#![deny(unsafe_code)]

mod create;
mod cursor;
mod delay;
mod error;
mod immediate;
mod iostat;
mod limits;
mod malloc;
mod null;
pub mod nvme;
mod registry;
mod request;
mod slots;
mod uring;

#[cfg(test)]
pub(crate) mod conformance;

pub use create::CreateError;
pub use delay::{Delay, DelayKind};
pub use error::{ErrorBdev, Fault, InjectError, Injection, IoType};
pub use iostat::IoStat;
pub use limits::RateLimits;
pub use malloc::Malloc;
pub use null::Null;
pub use registry::{Claim, Registry, RegistryError};
pub use request::{Completion, Data, Op, Request, Status};
pub use uring::{FileApi, Uring, UringError, open_alone};

use std::fmt::Debug;
use std::time::Instant;

use uuid::Uuid;

/// What a device is. A device that has grown is told anew: what was known of it before stays true of the
/// blocks that there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Name, unique in the process.
    pub name: String,
    /// What kind of device, as SPDK's `product_name` shows it ("Malloc disk", "Raid Volume").
    pub product: &'static str,
    /// Stable identity, shown to hosts as the namespace's UUID and NGUID.
    pub uuid: Uuid,
    /// Logical block in bytes: 512 or 4096.
    pub block_size: u32,
    /// Size in logical blocks.
    pub blocks: u64,
    /// Blocks after which a buffer had better be cut, because the device splits there anyway;
    /// 0 where it does not matter. A payload whose buffers are cut at multiples of it is never
    /// shared between reactors.
    pub io_boundary: u32,
    /// Preferred granularity and alignment of writes and deallocations in blocks (a full row of a
    /// RAID volume); 0 where it does not matter.
    pub write_unit: u32,
    /// Largest request in blocks.
    pub max_blocks: u32,
    /// Whether there is a volatile write cache, so that [`Op::Flush`] and `fua` mean something.
    pub write_cache: bool,
    /// Whether blocks read as zeros after [`Op::WriteZeroes`] with `deallocate`, cheaply enough to
    /// be worth passing on.
    pub deallocates: bool,
    /// Whether the core that asks copies the blocks itself: it had better be asked for what that core has just
    /// worked on, and for little at a time. It can [`Op::XdWriteRead`] and [`Op::XpWrite`], too.
    pub in_memory: bool,
}

impl Info {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }

    /// Whether blocks `lba..lba + blocks` all exist.
    pub fn contains(&self, lba: u64, blocks: u32) -> bool {
        lba.checked_add(u64::from(blocks))
            .is_some_and(|end| end <= self.blocks)
    }
}

/// A block device that reactors can open. Shared between threads; all of its I/O goes through
/// channels.
pub trait Bdev: Debug + Send + Sync {
    /// What the device is.
    fn info(&self) -> &Info;

    /// Opens it for the calling thread, which must be the reactor that will use the channel.
    ///
    /// # Errors
    /// What the operating system or the device said, with the device's name.
    fn open(&self) -> Result<Box<dyn Channel>, OpenError>;

    /// Opens it for a thread that is no reactor and has a few requests only, as the control thread
    /// has when it reads what a device holds. Spares what pays only for many.
    ///
    /// # Errors
    /// As [`Bdev::open`].
    fn open_briefly(&self) -> Result<Box<dyn Channel>, OpenError> {
        self.open()
    }

    /// Counts of this kind of device, as SPDK's `bdev_get_iostat` shows them under
    /// `driver_specific`; null where there are none.
    fn statistics(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Facts of this kind of device, as SPDK's `driver_specific` shows them.
    fn driver_specific(&self) -> serde_json::Value {
        serde_json::Value::Object(serde_json::Map::new())
    }
}

/// A device could not be opened on a reactor.
#[derive(Debug, thiserror::Error)]
#[error("bdev {name}: cannot be opened: {reason}")]
pub struct OpenError {
    /// The device.
    pub name: String,
    /// Why, and what to do about it.
    pub reason: String,
}

/// One reactor's way into a device. Not shared, never blocks.
pub trait Channel: Debug {
    /// Hands in a request. It may start now or at the next [`Channel::kick`].
    ///
    /// # Errors
    /// The request itself, untouched, when the channel holds as many as it can: hand it in again
    /// after a completion.
    ///
    /// # Panics
    /// When the request's buffers do not add up to its blocks: that is a bug of the caller, never
    /// of a host. Blocks that do not exist are answered with [`Status::OutOfRange`].
    fn submit(&mut self, request: Request) -> Result<(), Request>;

    /// These blocks, from the first one on, are likely to be asked for soon. A hint: they need not exist, and a device that
    /// gains nothing by it does nothing.
    fn expect(&mut self, _lba: u64, _blocks: u32) {}

    /// Starts what was handed in since the last call: one doorbell per turn.
    fn kick(&mut self);

    /// Appends what is done to `done`, and says whether it did any work.
    fn poll(&mut self, now: Instant, done: &mut Vec<Completion>) -> bool;

    /// Requests handed in and not yet completed.
    fn in_flight(&self) -> usize;

    /// When polling will next be useful without any outside event (a delay that ends, a throttle
    /// that opens); a reactor sleeps no longer than that.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Reports what went through this channel, and through the channels below it, by device name.
    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat));
}
