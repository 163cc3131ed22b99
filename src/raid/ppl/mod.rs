//! The partial parity log of an array (policy `ppl`): no write hole.
//!
//! A stripe's data and parity reach the members one after the other. Between the two its parity
//! does not match, and if a member is lost just then, what is computed in its place is wrong: blocks
//! too that nobody was writing. So, before a stripe is written, the log of the member that holds
//! its parity says which of its blocks are written, and what all others add up to: its *partial
//! parity*. After a crash parity is made right from the blocks as they are found and that sum.
//! `md/ppl.rs` has the bytes; the kernel's `raid5-ppl.c` reads them.
//!
//! What a log must keep: **at any moment, the header that a recovery would take has an intact entry
//! for every open stripe**, and none that would undo something. A stripe is *open* from its first
//! write to a member until its round is stored, and what was stored is out of the members' caches.
//! A recovery takes one header of each log: the last one of the chain that begins at the start of
//! the area, each right behind the one before, none older than that.
//!
//! 1. A stripe is noted; no write of its round is issued before the header with its entry is on the
//!    medium.
//! 2. Each header has the entries of all stripes that are open when it is written, beside the new
//!    ones: they are *carried*. A stripe has one entry in a header at most: it is not noted again
//!    before its last entry has been dropped, so that the newest entry of a stripe is the only one.
//! 3. While a header is being written, the one before is what a recovery finds, or no open stripe
//!    needs any. Bytes of one write may reach the medium in any order, so the order of writes
//!    depends on what is at stake:
//!    - *Nothing is carried.* No open stripe needs this log. Header and partial parity are one
//!      write, if one request to the member will do; else the partial parity goes first, in a ring, and
//!      in the one place it is done as where a ring starts over (below). If it is torn, a header with damaged parity is found, whose entry is skipped; or an
//!      intact entry, of a stripe as it was; or the header before. That one's entries are of
//!      stripes that were not written since, because this header would have to be there first: it
//!      makes their parity what it is.
//!    - *Nothing is carried, and the ring starts over.* The header at the start of the area is the
//!      oldest, its stripes were written many times since, and behind its partial parity, half
//!      overwritten, the chain would end: an entry of it that is still intact would make parity
//!      what it was long ago. So a header without entries goes first, alone, which ends the chain; then
//!      the partial parity behind it; then the header with its entries, over the empty one. (The kernel
//!      writes all at once.) The checksum of an entry does not make up for that order: it is a CRC, and
//!      blocks that end with a CRC-32C of their own all have the same, so that old partial parity of such
//!      blocks is as good as new.
//!    - *Something is carried.* The new header goes behind the last one, never over it, and only in
//!      an area that has room for several (a ring) and does not start over. The partial parity goes
//!      first, and the header when that is on the medium: until it is whole, the chain ends with
//!      the header before, which has all that is open. If no carried entry has partial parity
//!      (their stripes are written whole), one write will do, because such an entry can't be
//!      damaged while its header is whole.
//! 4. An entry that is done but still in the newest header does no harm: as long as no newer header
//!    is there, its stripe has not been written again.
//! 5. Only what is written may be said to be written: a recovery gives up where a block that it
//!    says was written is lost. So a round writes roles that follow one another; and a page that is
//!    written in part only, which is of old blocks too, is the only one (`logging.rs`).
//! 6. When the member of a log is lost, its rows have no parity to be written. But their data is
//!    not written before every node and every superblock knows of the loss; until then a restart
//!    might take that parity for good.
//!
//! The logs are dealt out to the nodes by slot. A shard sends its node's and others' logs what they
//! are to note, with the page of partial parity, and is told when that is on the medium. What
//! gathers until the end of a turn becomes one write of each log. A write that would have to carry
//! more than it brings waits: in-flight stripes end by themselves, and never wait for a log.
//!
//! A page of partial parity is the log's until its entry is dropped. Nothing that a log waits for
//! waits for pages of the stripe cache: member requests, stored rounds, flushes, views.

mod entries;
mod flush;
mod log;
mod logging;
mod logs;
#[cfg(test)]
mod tests;

pub use entries::Ended;
pub(super) use entries::Record;
pub(super) use logs::{Logs, LogsParts};

use super::metadata::Stored;
use crate::md::{Policy, PplArea, SECTOR, Superblock, ppl};
use crate::memory::Pool;

/// Where a member has its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// Its first byte, counted from the start of the member.
    pub start: u64,
    /// Sectors of 512 bytes (`ppl.size` of the superblock).
    pub sectors: u16,
}

impl LogPlace {
    /// The place that a superblock names; `None` in an array of another policy.
    pub fn of(superblock: &Superblock) -> Option<Self> {
        let Policy::Ppl { offset, size, .. } = superblock.policy else {
            return None;
        };
        let start = superblock.super_offset.checked_add_signed(offset.into())?;
        Some(Self {
            start: start * SECTOR,
            sectors: size,
        })
    }

    /// Whether stripes of so many bytes can be logged here, on a device of such blocks.
    pub fn suits(&self, stripe_bytes: u32, block_bytes: u32) -> bool {
        let room = PplArea::new(self.sectors).map_or(0, |area| area.parity_bytes_max());
        room >= stripe_bytes.into() && self.start.is_multiple_of(block_bytes.into())
    }
}

/// What the nodes of an array with the policy `ppl` begin with. Every log must be empty: zeros
/// behind a header without entries.
#[derive(Clone, Debug)]
pub struct LogsConfig {
    /// What marks the logs of this array: [`ppl::signature`].
    pub signature: u32,
    /// The log of each slot's member, `None` where one is missing.
    pub places: Vec<Option<LogPlace>>,
    /// Pages of 4 KiB for headers: one for each member.
    pub pool: Pool,
}

impl LogsConfig {
    /// As the superblocks say; `None` if the array has another policy. `pool` has a page of 4 KiB
    /// for each member.
    pub fn of(stored: &Stored, pool: Pool) -> Option<Self> {
        let mut superblocks = stored.superblocks.iter().flatten();
        let uuid = superblocks.find(|s| LogPlace::of(s).is_some())?.set_uuid;
        let place = |s: &Option<Superblock>| s.as_ref().and_then(LogPlace::of);
        Some(Self {
            signature: ppl::signature(&uuid),
            places: stored.superblocks.iter().map(place).collect(),
            pool,
        })
    }
}
