//! Points in time, as a superblock has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `ctime` and `utime`: seconds since 1970 in the low 40 bits, microseconds in the 24 above. md itself
/// leaves the microseconds 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

const SECONDS: u64 = (1 << 40) - 1;

impl Time {
    /// A point in time; what is before 1970 becomes 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_seconds(since.as_secs())
    }

    /// Whole seconds since 1970, of which 40 bits are kept.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds & SECONDS)
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 & SECONDS
    }

    /// Microseconds of the second.
    pub fn micros(self) -> u32 {
        (self.0 >> 40) as u32
    }
}
