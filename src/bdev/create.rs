//! What is asked of every new device, and the errors that say what was wrong with it.

/// A device cannot be made as it was described.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A device without a name.
    #[error("a bdev needs a name; give one that is not empty")]
    Name,
    /// Neither 512 nor 4096.
    #[error("bdev {name}: a block size of {block_size} bytes is not supported; use 512 or 4096")]
    BlockSize {
        /// The device.
        name: String,
        /// What was asked for, in bytes.
        block_size: u32,
    },
    /// No block, or so many that their bytes cannot be counted.
    #[error(
        "bdev {name}: {num_blocks} blocks of {block_size} bytes make no device; give a size of at least one block and less than 2^63 bytes"
    )]
    Size {
        /// The device.
        name: String,
        /// Block size in bytes.
        block_size: u32,
        /// Number of blocks asked for.
        num_blocks: u64,
    },
    /// The machine has not as much memory.
    #[error("bdev {name}: {reason}; make it smaller or free memory")]
    Memory {
        /// The device.
        name: String,
        /// What the kernel said.
        reason: String,
    },
    /// The 99th percentile of a delay is less than its average.
    #[error(
        "bdev {name}: the p99 {what} latency of {p99} us is less than the average of {avg} us; raise it to the average at least"
    )]
    Latency {
        /// The device.
        name: String,
        /// "read" or "write".
        what: &'static str,
        /// Average in microseconds.
        avg: u64,
        /// 99th percentile in microseconds.
        p99: u64,
    },
}

/// Checks what a device of any kind is described by; answers its size in bytes.
pub(super) fn check_shape(
    name: &str,
    block_size: u32,
    num_blocks: u64,
) -> Result<u64, CreateError> {
    if name.is_empty() {
        return Err(CreateError::Name);
    }
    let name = name.to_owned();
    if !matches!(block_size, 512 | 4096) {
        return Err(CreateError::BlockSize { name, block_size });
    }
    num_blocks
        .checked_mul(u64::from(block_size))
        .filter(|&bytes| bytes > 0 && i64::try_from(bytes).is_ok())
        .ok_or(CreateError::Size {
            name,
            block_size,
            num_blocks,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_and_errors_name_the_mend() {
        assert_eq!(check_shape("a", 512, 3).unwrap(), 1536);
        assert_eq!(check_shape("a", 4096, 2).unwrap(), 8192);
        let error = |name, bs, blocks| check_shape(name, bs, blocks).unwrap_err().to_string();
        assert!(error("", 512, 1).contains("needs a name"));
        assert!(error("a", 520, 1).contains("use 512 or 4096"));
        assert!(error("a", 512, 0).contains("at least one block"));
        assert!(error("a", 512, 1 << 54).contains("less than 2^63"));
        assert!(error("a", 4096, u64::MAX).contains("less than 2^63"));
    }
}
