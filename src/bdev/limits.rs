//! How much of a device hosts may use, as `bdev_set_qos_limit` of SPDK says it.

/// Limits of a device in a second; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Reads and writes.
    pub rw_ios: u64,
    /// Bytes read and written.
    pub rw_bytes: u64,
    /// Bytes read.
    pub r_bytes: u64,
    /// Bytes written.
    pub w_bytes: u64,
}

/// What limits on operations are multiples of.
pub const IOS_UNIT: u64 = 1000;

/// What limits on bytes are multiples of: SPDK's megabyte.
pub const BYTES_UNIT: u64 = 1 << 20;

impl RateLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// A limit on operations, rounded up to what SPDK would round it to.
    pub fn ios(asked: u64) -> u64 {
        asked.div_ceil(IOS_UNIT).saturating_mul(IOS_UNIT)
    }

    /// A limit of so many megabytes, in bytes; as many as can be said where that is more.
    pub fn megabytes(asked: u64) -> u64 {
        asked.saturating_mul(BYTES_UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_rounded_up_to_their_unit() {
        for (asked, limit) in [(0, 0), (1, 1000), (1000, 1000), (1001, 2000)] {
            assert_eq!(RateLimits::ios(asked), limit);
        }
        assert_eq!(RateLimits::megabytes(3), 3 * 1024 * 1024);
        assert_eq!(RateLimits::megabytes(u64::MAX), u64::MAX);
        assert_eq!(RateLimits::ios(u64::MAX), u64::MAX);
        assert!(RateLimits::default().is_none());
    }
}
