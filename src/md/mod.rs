//! Linux md's format on the members of an array: version 1 superblocks and what belongs to them.
//!
//! This room owns the bytes and the decisions that follow from them alone: what a superblock says, which
//! members belong together, what was in flight when the machine stopped. It has no clock, no thread and no
//! device. Where it must read or write, it does so through one small trait.
//!
//! Names are those of the kernel's `include/uapi/linux/raid/md_p.h` and of mdadm, where they have one.
//! Everything on disk is little-endian. A *sector* is always 512 bytes, whatever the device's blocks are.
//!
//! | module | what |
//! |---|---|
//! | [`superblock`], [`features`], [`support`] | one member's superblock, and whether we can run what it describes |
//! | [`bitmap`], [`bitmap_header`] | the write-intent bitmap |
//! | [`bad_blocks`] | what is lost on one member |
//! | [`ppl`] | the partial parity log |
//! | [`placement`] | where everything lies on a device |
//! | [`disk`], [`member`] | reading and writing all of it |
//! | [`create`](mod@create) | the metadata of a new array |
//! | [`join`](mod@join) | the superblock of a device that joins later |
//! | [`policy`] | another consistency policy for an array that is stopped |
//! | [`assembly`], [`rejection`] | which members make up an array, and in which state |
//! | [`report`] | a member in words |
//! | [`layout`], [`replay`](mod@replay) | what the partial parity logs can put right |
//! | [`first_stripe`] | how an array with such logs says that it owes a resync |
//! | [`recovery`] | what is done to the members before an array is used |
#![forbid(unsafe_code)]

pub mod assembly;
pub mod bad_blocks;
pub mod bitmap;
pub mod bitmap_header;
pub mod create;
pub mod disk;
pub mod features;
pub mod first_stripe;
pub mod join;
pub mod layout;
pub mod member;
pub mod name;
pub mod placement;
pub mod policy;
pub mod ppl;
pub mod recovery;
pub mod rejection;
pub mod replay;
pub mod report;
pub mod superblock;
pub mod support;
#[cfg(test)]
mod tests;
pub mod time;

pub use assembly::{Assembly, AssemblyError, Found, Seat, Standing, arrays, assemble};
pub use bad_blocks::{BadBlocks, BadBlocksError};
pub use bitmap::Bitmap;
pub use bitmap_header::{BitmapError, BitmapHeader, Freshness};
pub use create::{CreateError, Created, NewArray, NewDevice, NewPolicy, create};
pub use disk::{Disk, DiskError, FileDisk};
pub use features::Features;
pub use first_stripe::{FIRST_STRIPE, sync_first_stripe};
pub use join::{JoinError, free_number, join};
pub use member::{AreaError, Member, MemberError, StoredBitmap};
pub use name::SetName;
pub use placement::{Placement, PlacementError};
pub use ppl::{PplArea, PplEntry, PplError, PplHeader};
pub use recovery::{RecoveryError, recover};
pub use rejection::Rejection;
pub use replay::{LogMember, Lost, Mismatch, Replay, ReplayError, empty_logs, replay};
pub use superblock::{BadBlockLog, Minor, Policy, Reshape, Role, Superblock, SuperblockError};
pub use support::Unsupported;
pub use time::Time;

/// Bytes of a sector, the unit of almost every number in a superblock.
pub const SECTOR: u64 = 512;

/// Bytes of the page in which md reads and writes its metadata.
pub const PAGE: usize = 4096;
