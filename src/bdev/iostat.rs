//! What went through a channel, as `bdev_get_iostat` shows it.

use super::{Op, Status};

/// Counts since the channel was opened. Added up over reactors by the control thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStat {
    /// Reads that succeeded.
    pub num_read_ops: u64,
    /// Bytes of those reads.
    pub bytes_read: u64,
    /// Writes (and compare-and-writes) that succeeded.
    pub num_write_ops: u64,
    /// Bytes of those writes.
    pub bytes_written: u64,
    /// Write-zeroes and deallocations that succeeded.
    pub num_unmap_ops: u64,
    /// Bytes of those.
    pub bytes_unmapped: u64,
    /// Flushes that succeeded.
    pub num_flush_ops: u64,
    /// Compares that succeeded.
    pub num_compare_ops: u64,
    /// Requests that ended in any other way than success or a miscompare.
    pub num_errors: u64,
}

impl IoStat {
    /// Counts one completed request over `bytes` bytes of the device.
    pub fn count(&mut self, op: Op, bytes: u64, status: Status) {
        match (status, op) {
            (Status::Miscompare, _) => self.num_compare_ops += 1,
            (Status::Ok, Op::Read) => {
                self.num_read_ops += 1;
                self.bytes_read += bytes;
            }
            (
                Status::Ok,
                Op::Write { .. }
                | Op::CompareAndWrite { .. }
                | Op::XdWriteRead { .. }
                | Op::XpWrite { .. },
            ) => {
                self.num_write_ops += 1;
                self.bytes_written += bytes;
            }
            (Status::Ok, Op::WriteZeroes { .. }) => {
                self.num_unmap_ops += 1;
                self.bytes_unmapped += bytes;
            }
            (Status::Ok, Op::Flush) => self.num_flush_ops += 1,
            (Status::Ok, Op::Compare) => self.num_compare_ops += 1,
            _ => self.num_errors += 1,
        }
    }

    /// What was counted since these were `before`; none where they never were.
    pub fn since(&self, before: &IoStat) -> Option<IoStat> {
        Some(IoStat {
            num_read_ops: self.num_read_ops.checked_sub(before.num_read_ops)?,
            bytes_read: self.bytes_read.checked_sub(before.bytes_read)?,
            num_write_ops: self.num_write_ops.checked_sub(before.num_write_ops)?,
            bytes_written: self.bytes_written.checked_sub(before.bytes_written)?,
            num_unmap_ops: self.num_unmap_ops.checked_sub(before.num_unmap_ops)?,
            bytes_unmapped: self.bytes_unmapped.checked_sub(before.bytes_unmapped)?,
            num_flush_ops: self.num_flush_ops.checked_sub(before.num_flush_ops)?,
            num_compare_ops: self.num_compare_ops.checked_sub(before.num_compare_ops)?,
            num_errors: self.num_errors.checked_sub(before.num_errors)?,
        })
    }

    /// Adds another channel's counts to these.
    pub fn add(&mut self, other: &IoStat) {
        self.num_read_ops += other.num_read_ops;
        self.bytes_read += other.bytes_read;
        self.num_write_ops += other.num_write_ops;
        self.bytes_written += other.bytes_written;
        self.num_unmap_ops += other.num_unmap_ops;
        self.bytes_unmapped += other.bytes_unmapped;
        self.num_flush_ops += other.num_flush_ops;
        self.num_compare_ops += other.num_compare_ops;
        self.num_errors += other.num_errors;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_in_its_place() {
        let write = Op::Write { fua: true };
        let swap = Op::CompareAndWrite { fua: false };
        let zero = Op::WriteZeroes {
            fua: false,
            deallocate: false,
        };
        let mut stat = IoStat::default();
        for (op, bytes, status) in [
            (Op::Read, 1, Status::Ok),
            (write, 10, Status::Ok),
            (swap, 100, Status::Ok),
            (zero, 1000, Status::Ok),
            (Op::Flush, 0, Status::Ok),
            (Op::Compare, 5, Status::Ok),
            (Op::Compare, 5, Status::Miscompare),
            (swap, 5, Status::Miscompare),
            (Op::Read, 5, Status::MediumError),
            (write, 5, Status::Gone),
        ] {
            stat.count(op, bytes, status);
        }
        let expected = IoStat {
            num_read_ops: 1,
            bytes_read: 1,
            num_write_ops: 2,
            bytes_written: 110,
            num_unmap_ops: 1,
            bytes_unmapped: 1000,
            num_flush_ops: 1,
            num_compare_ops: 3,
            num_errors: 2,
        };
        assert_eq!(stat, expected);
        assert_eq!(stat.since(&stat), Some(IoStat::default()));
        assert_eq!(IoStat::default().since(&stat), None);
        stat.add(&expected);
        assert_eq!(stat.since(&expected), Some(expected));
        assert_eq!((stat.num_write_ops, stat.bytes_written), (4, 220));
        assert_eq!((stat.num_errors, stat.num_compare_ops), (4, 6));
    }
}
