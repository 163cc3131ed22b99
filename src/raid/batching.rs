//! How far batches may reach, and how long anything may wait for one.

use std::time::Duration;

use super::VolumeError;

/// Which stripes may share their member requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BatchScope {
    /// None: a request for each page. For measuring what batches bring.
    Off,
    /// Those of one row.
    Row,
    /// Those of rows that follow one another and have one owner.
    Rows,
    /// Those of rows that follow one another.
    #[default]
    Owners,
}

impl BatchScope {
    /// All of them, from the narrowest.
    pub const ALL: [BatchScope; 4] = [
        BatchScope::Off,
        BatchScope::Row,
        BatchScope::Rows,
        BatchScope::Owners,
    ];

    /// Its name in RPC.
    pub fn name(self) -> &'static str {
        match self {
            BatchScope::Off => "off",
            BatchScope::Row => "row",
            BatchScope::Rows => "rows",
            BatchScope::Owners => "owners",
        }
    }

    /// The scope of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// How a shard gathers what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// How far a batch may reach.
    pub scope: BatchScope,
    /// Most bytes of one request to a member; the least of what the members take counts, too.
    pub request_bytes: u32,
    /// Stripes of a shard that may read before they write, at once. At least 1.
    pub preread_limit: u32,
    /// How long a stripe of which a stream has written a part waits for the rest. Zero: not at all.
    pub partial_wait: Duration,
    /// How long a batch at the edge of its owner's rows waits for its neighbour's part of the same
    /// request. Zero: it joins what is there already.
    pub join_wait: Duration,
}

/// The longest that anything may wait for a batch.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes of a member request that can be had.
const REQUEST_BYTES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;

impl Batching {
    /// Looks whether everything is in range.
    ///
    /// # Errors
    /// [`VolumeError::Batching`], which names what is not, and the range.
    pub(super) fn check(&self) -> Result<(), VolumeError> {
        let fault = if !REQUEST_BYTES.contains(&self.request_bytes) {
            format!(
                "a member request of {} KiB; use 4 to 1024",
                self.request_bytes / 1024
            )
        } else if self.preread_limit == 0 {
            "a pre-read limit of 0, so that no partial write could ever begin; use 1 or more".into()
        } else if self.partial_wait > WAIT_MAX || self.join_wait > WAIT_MAX {
            "a wait of more than a second; use 0 to 1000000 microseconds".into()
        } else {
            return Ok(());
        };
        Err(VolumeError::Batching(fault))
    }
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            scope: BatchScope::default(),
            request_bytes: 256 << 10,
            preread_limit: 256,
            partial_wait: Duration::from_millis(1),
            join_wait: Duration::from_micros(20),
        }
    }
}
