//! Dataset Management: its dwords and its list of ranges (NVM 3.2.3).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::command::Command;

/// The most ranges that one command can carry.
pub const MAX_RANGES: u16 = 256;

/// What a Dataset Management command asks for; the ranges are in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetManagement {
    /// Number of ranges in the data, 1 to 256.
    pub ranges: u16,
    /// AD: the ranges may be deallocated.
    pub deallocate: bool,
    /// IDR: hint that the ranges are read together.
    pub integral_read: bool,
    /// IDW: hint that the ranges are written together.
    pub integral_write: bool,
}

const IDR: u32 = 1 << 0;
const IDW: u32 = 1 << 1;
const AD: u32 = 1 << 2;

impl DatasetManagement {
    /// A command that deallocates `ranges` ranges, 1 to 256.
    #[must_use]
    pub fn deallocate(ranges: u16) -> Self {
        Self {
            ranges,
            deallocate: true,
            integral_read: false,
            integral_write: false,
        }
    }

    /// Bytes of range list that go with the command.
    #[must_use]
    pub fn data_len(&self) -> u32 {
        u32::from(self.ranges) * size_of::<DsmRange>() as u32
    }

    /// NR is 0's based in bits 7:0 of dword 10, the attributes are in dword 11.
    pub(super) fn parse(command: &Command) -> Self {
        let attributes = command.cdw11.get();
        Self {
            ranges: (command.cdw10.get() & 0xff) as u16 + 1,
            deallocate: attributes & AD != 0,
            integral_read: attributes & IDR != 0,
            integral_write: attributes & IDW != 0,
        }
    }

    pub(super) fn write_to(self, command: &mut Command) {
        assert!(
            (1..=MAX_RANGES).contains(&self.ranges),
            "a command has 1 to 256 ranges, not {}",
            self.ranges
        );
        command.cdw10 = u32::from(self.ranges - 1).into();
        let mut attributes = 0;
        for (set, bit) in [
            (self.deallocate, AD),
            (self.integral_read, IDR),
            (self.integral_write, IDW),
        ] {
            if set {
                attributes |= bit;
            }
        }
        command.cdw11 = attributes.into();
    }
}

/// One range of the list.
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[repr(C)]
pub struct DsmRange {
    /// Context attributes: hints only.
    pub attributes: U32,
    /// Number of logical blocks; not 0's based, and 0 is a range of nothing.
    pub blocks: U32,
    /// First logical block.
    pub slba: U64,
}

layout!(DsmRange, 16 bytes, { attributes at 0, blocks at 4, slba at 8 });

impl DsmRange {
    /// A range without hints.
    #[must_use]
    pub fn new(slba: u64, blocks: u32) -> Self {
        Self {
            attributes: 0.into(),
            blocks: blocks.into(),
            slba: slba.into(),
        }
    }
}

/// The ranges of a list received as data, without a copy; bytes behind the last whole range are left out.
#[must_use]
pub fn ranges_of(data: &[u8]) -> &[DsmRange] {
    let whole = data.len() - data.len() % size_of::<DsmRange>();
    // `DsmRange` takes any bytes at any alignment, and the length is a multiple of its size.
    <[DsmRange]>::ref_from_bytes(&data[..whole]).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_place() {
        let mut data = vec![0; 35];
        data[4] = 8;
        data[8] = 0x40;
        data[16 + 5] = 1;
        data[16 + 15] = 0x80;
        let ranges = ranges_of(&data);
        assert_eq!(
            ranges,
            [DsmRange::new(0x40, 8), DsmRange::new(1 << 63, 256)]
        );
        assert!(ranges_of(&data[..15]).is_empty());
    }

    #[test]
    fn the_number_of_ranges_is_zeros_based() {
        let mut command = Command::new(0x09, 1);
        command.cdw10 = 255.into();
        command.cdw11 = 0b101.into();
        let dsm = DatasetManagement::parse(&command);
        assert_eq!(dsm.ranges, 256);
        assert_eq!(dsm.data_len(), 4096);
        assert!(dsm.deallocate && dsm.integral_read && !dsm.integral_write);
    }
}
