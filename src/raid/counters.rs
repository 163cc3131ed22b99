//! What a node has done, for `bdev_raid_get_bdevs` and for tests.

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
    /// Rounds that had to wait for pages.
    pub starved: u64,
}

impl Counters {
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
        self.starved += other.starved;
    }
}
