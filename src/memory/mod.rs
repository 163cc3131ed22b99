//! DMA-able memory: one [`Arena`] set aside at start, [`Pool`]s of equal slots carved from it,
//! and the buffers ([`BufMut`], [`Buf`]) that carry a host's payload to parity and to the members
//! without a copy.
//!
//! A buffer is a view of a slot. [`BufMut`] is the only view of its bytes and may write them;
//! [`Buf`] is one of many and may only read. Both may be split, neither ever overlaps a
//! [`BufMut`]. When the last view of a slot goes, from whatever core, the slot is free again.
//!
//! A [`Window`] says under which address a device sees an arena, and [`DeviceMemory`] is a slot that
//! a device reads and writes while we do: queues and lists.
//!
//! [`Ram`] is another kind: the medium of a RAM disk, shared by threads a page at a time.
//!
//! Everything here is bounded: a pool that is empty answers `None`, and the caller holds its
//! work back until a slot returns. The room never grows, never blocks and never does I/O.

mod arena;
mod buffer;
mod classes;
mod device;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod free;
#[cfg(all(test, loom))]
mod loom_tests;
mod mapping;
mod physical;
mod pool;
mod prefetch;
mod ram;
mod stack;
mod sync;
#[cfg(test)]
mod testing;

pub use arena::{Arena, ArenaError, PageKind};
pub use buffer::{Buf, BufMut};
pub use classes::{Class, Classes, Cuts};
pub use device::{DeviceMemory, Window, Windows};
pub use free::FreeMemory;
pub use physical::PhysicalError;
pub use pool::{Pool, PoolError};
pub use prefetch::{Ahead, add, copy, exchange, fetch};
pub use ram::{Page, PageMut, Ram, RamError};

/// Every slot begins on such a boundary, in bytes: a host page, and the largest logical block.
pub const SLOT_ALIGN: usize = 4096;

/// The read side of a scattered transfer: what is written to a device or a socket, in order.
pub type Segments = smallvec::SmallVec<[Buf; 1]>;

/// The write side of a scattered transfer: what a device or a socket fills, in order.
pub type SegmentsMut = smallvec::SmallVec<[BufMut; 1]>;
