//! Whether the interesting things have happened.

use crate::start::Start;

/// Counts of what happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Steps at which histories were stopped.
    pub stops: u64,
    /// Starts, and of these: with parity that may not match, in parts that a bitmap says, and with
    /// a member being rebuilt.
    pub starts: u64,
    pub resyncs: u64,
    pub guided: u64,
    pub rebuilds: u64,
    /// Starts that were refused.
    pub refusals: u64,
    /// Requests that failed, and blocks that were refused.
    pub failed: u64,
    pub refused: u64,
    /// Members that came back and lacked only what the bitmap says.
    pub returned: u64,
}

impl Tally {
    pub fn started(&mut self, start: &Start) {
        self.starts += 1;
        if let Some(unsynced) = &start.assembled.view.unsynced {
            self.resyncs += 1;
            self.guided += u64::from(unsynced.regions.is_some());
        }
        self.rebuilds += u64::from(
            start
                .assembled
                .view
                .degraded
                .as_ref()
                .is_some_and(|d| d.attached),
        );
    }

    pub fn add(&mut self, other: &Tally) {
        self.stops += other.stops;
        self.starts += other.starts;
        self.resyncs += other.resyncs;
        self.guided += other.guided;
        self.rebuilds += other.rebuilds;
        self.refusals += other.refusals;
        self.failed += other.failed;
        self.refused += other.refused;
        self.returned += other.returned;
    }
}
