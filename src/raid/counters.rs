//! What a node has done, for `bdev_raid_get_bdevs` and for tests.

use super::batch::Refusal;

/// Counts since the volume was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rounds whose data was all new: nothing read.
    pub full_writes: u64,
    /// Rounds by reconstruct-write.
    pub reconstruct_writes: u64,
    /// Rounds by read-modify-write.
    pub modify_writes: u64,
    /// Rounds that wrote data only, because the parity member is missing.
    pub parityless_writes: u64,
    /// Pages read from members for rounds.
    pub pages_read: u64,
    /// Pages that a round wanted and found in the cache.
    pub cache_hits: u64,
    /// Pages computed from the others.
    pub reconstructed: u64,
    /// Blocks that could not be read and were written again.
    pub corrected_reads: u64,
    /// Requests that could not be served because too much was unreadable.
    pub unrecovered: u64,
    /// Requests to members made for rounds.
    pub member_requests: u64,
    /// Pages in those requests.
    pub member_pages: u64,
    /// Bytes of those requests.
    pub member_bytes: u64,
    /// Rounds that had to wait for pages.
    pub starved: u64,
    /// Runs of more than one stripe that were written together.
    pub batches: u64,
    /// Stripes of all runs, of those of one stripe too.
    pub batched_stripes: u64,
    /// Runs that were offered to a neighbour.
    pub offered: u64,
    /// Runs that became one batch with a neighbour's, counted where they were joined.
    pub joins: u64,
    /// Batches of more than one owner that were written.
    pub crossings: u64,
    /// Joins that did not happen, by the reasons in [`Counters::REFUSALS`].
    pub joins_refused: [u64; 6],
    /// Batches that ended with an error of a member, so that each stripe went on alone.
    pub broken: u64,
    /// Times that a link was found locked.
    pub lock_waits: u64,
    /// Stripes that waited for the rest of a stream.
    pub waits: u64,
    /// Of those, the ones that got it.
    pub waits_filled: u64,
    /// Rounds that had to wait for the pre-read budget.
    pub delayed: u64,
    /// Rounds that had to wait until the members said that there is being written.
    pub intent_waits: u64,
    /// Entries written to partial parity logs, those that were written before too.
    pub ppl_entries: u64,
    /// Headers written to partial parity logs.
    pub ppl_writes: u64,
    /// Pages of partial parity written behind them.
    pub ppl_pages: u64,
    /// Rounds that had to wait for a place in a partial parity log.
    pub ppl_waits: u64,
    /// Stripes that hold a charge of the pre-read budget now (md's `preread_active_stripes`).
    pub preread_active: u64,
    /// Stripes that wait now, for a stream or for the budget.
    pub waiting: u64,
}

impl Counters {
    /// Why runs were not joined, in the order of [`Counters::joins_refused`].
    pub const REFUSALS: [&str; 6] = ["closed", "apart", "operation", "view", "room", "head"];

    pub(super) fn refused(&mut self, why: Refusal) {
        let at = Refusal::ALL.iter().position(|r| *r == why);
        self.joins_refused[at.expect("all are listed")] += 1;
    }

    /// As RPC shows them: `driver_specific.stripe_cache` of a volume.
    pub fn to_json(&self) -> serde_json::Value {
        let refused = Self::REFUSALS.iter().zip(self.joins_refused);
        serde_json::json!({
            "full_writes": self.full_writes,
            "reconstruct_writes": self.reconstruct_writes,
            "modify_writes": self.modify_writes,
            "parityless_writes": self.parityless_writes,
            "pages_read": self.pages_read,
            "cache_hits": self.cache_hits,
            "reconstructed": self.reconstructed,
            "corrected_reads": self.corrected_reads,
            "unrecovered": self.unrecovered,
            "member_requests": self.member_requests,
            "member_pages": self.member_pages,
            "member_bytes": self.member_bytes,
            "starved": self.starved,
            "batches": self.batches,
            "batched_stripes": self.batched_stripes,
            "offered": self.offered,
            "joins": self.joins,
            "crossings": self.crossings,
            "joins_refused": refused
                .map(|(why, count)| ((*why).to_owned(), count.into()))
                .collect::<serde_json::Map<_, _>>(),
            "broken": self.broken,
            "lock_waits": self.lock_waits,
            "waits": self.waits,
            "waits_filled": self.waits_filled,
            "delayed": self.delayed,
            "intent_waits": self.intent_waits,
            "ppl_entries": self.ppl_entries,
            "ppl_writes": self.ppl_writes,
            "ppl_pages": self.ppl_pages,
            "ppl_waits": self.ppl_waits,
            "preread_active": self.preread_active,
            "waiting": self.waiting,
        })
    }

    /// Adds another node's counts.
    pub fn add(&mut self, other: &Counters) {
        self.full_writes += other.full_writes;
        self.reconstruct_writes += other.reconstruct_writes;
        self.modify_writes += other.modify_writes;
        self.parityless_writes += other.parityless_writes;
        self.pages_read += other.pages_read;
        self.cache_hits += other.cache_hits;
        self.reconstructed += other.reconstructed;
        self.corrected_reads += other.corrected_reads;
        self.unrecovered += other.unrecovered;
        self.member_requests += other.member_requests;
        self.member_pages += other.member_pages;
        self.member_bytes += other.member_bytes;
        self.starved += other.starved;
        self.batches += other.batches;
        self.batched_stripes += other.batched_stripes;
        self.offered += other.offered;
        self.joins += other.joins;
        self.crossings += other.crossings;
        for (sum, more) in self.joins_refused.iter_mut().zip(other.joins_refused) {
            *sum += more;
        }
        self.broken += other.broken;
        self.lock_waits += other.lock_waits;
        self.waits += other.waits;
        self.waits_filled += other.waits_filled;
        self.delayed += other.delayed;
        self.intent_waits += other.intent_waits;
        self.ppl_entries += other.ppl_entries;
        self.ppl_writes += other.ppl_writes;
        self.ppl_pages += other.ppl_pages;
        self.ppl_waits += other.ppl_waits;
        self.preread_active += other.preread_active;
        self.waiting += other.waiting;
    }
}
