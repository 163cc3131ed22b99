//! The commands of the NVM command set that move or change blocks, read from and written to queue entries (NVM 3.2).

use super::command::Command;
use super::dsm::DatasetManagement;
use super::opcode::{DataDirection, IoOpcode};
use super::status::Status;

/// A run of logical blocks of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// First logical block.
    pub slba: u64,
    /// Number of logical blocks, 1 to 65 536 where it comes from a command.
    pub blocks: u32,
}

impl BlockRange {
    /// Length in bytes for a given block size.
    #[must_use]
    pub fn bytes(&self, block_size: u32) -> u64 {
        u64::from(self.blocks) * u64::from(block_size)
    }

    /// The first block behind the range; `None` where that is beyond 64 bits.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.slba.checked_add(u64::from(self.blocks))
    }

    /// Checks that the range lies in a namespace of `namespace_blocks` blocks.
    ///
    /// # Errors
    /// [`Status::LBA_OUT_OF_RANGE`] with Do Not Retry.
    pub fn check_within(&self, namespace_blocks: u64) -> Result<(), Status> {
        match self.end() {
            Some(end) if end <= namespace_blocks => Ok(()),
            _ => Err(Status::LBA_OUT_OF_RANGE.with_do_not_retry()),
        }
    }

    /// SLBA in dwords 10 and 11, NLB in the low half of dword 12.
    fn of(command: &Command) -> Self {
        Self {
            slba: u64::from(command.cdw11.get()) << 32 | u64::from(command.cdw10.get()),
            blocks: (command.cdw12.get() & 0xffff) + 1,
        }
    }
}

/// One command of an I/O queue, its fields checked as far as the entry alone allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoCommand {
    /// Make what was written durable.
    Flush,
    /// Read blocks.
    Read {
        /// What to read.
        range: BlockRange,
        /// Force unit access: from the media, not a volatile cache.
        fua: bool,
    },
    /// Write blocks.
    Write {
        /// What to write.
        range: BlockRange,
        /// Force unit access: durable before the completion.
        fua: bool,
    },
    /// Compare blocks with the host's data.
    Compare {
        /// What to compare.
        range: BlockRange,
        /// Force unit access.
        fua: bool,
    },
    /// Set blocks to zero; no data is transferred.
    WriteZeroes {
        /// What to clear.
        range: BlockRange,
        /// Force unit access.
        fua: bool,
        /// DEAC: the host would like the blocks deallocated.
        deallocate: bool,
    },
    /// Hints about ranges, the ranges being in the data.
    DatasetManagement(DatasetManagement),
}

const FUA: u32 = 1 << 30;
const PRINFO: u32 = 0b1111 << 26;
const DEAC: u32 = 1 << 25;
const DTYPE: u32 = 0b1111 << 20;

impl IoCommand {
    /// Reads a queue entry. The namespace, the size of the namespace and the length of the data are not
    /// looked at: they are the caller's to check.
    ///
    /// # Errors
    /// All with Do Not Retry:
    /// - [`Status::INVALID_OPCODE`]: none of these commands;
    /// - [`Status::INVALID_PROTECTION_INFORMATION`]: PRINFO is not 0; no namespace here has protection
    ///   information;
    /// - [`Status::INVALID_FIELD`]: a Write with a directive, none being supported.
    pub fn parse(command: &Command) -> Result<Self, Status> {
        let opcode = IoOpcode::from_code(command.opcode)
            .ok_or(Status::INVALID_OPCODE.with_do_not_retry())?;
        let control = command.cdw12.get();
        let fua = control & FUA != 0;
        let range = || {
            if control & PRINFO != 0 {
                return Err(Status::INVALID_PROTECTION_INFORMATION.with_do_not_retry());
            }
            Ok(BlockRange::of(command))
        };
        match opcode {
            IoOpcode::Flush => Ok(Self::Flush),
            IoOpcode::Read => Ok(Self::Read {
                range: range()?,
                fua,
            }),
            IoOpcode::Compare => Ok(Self::Compare {
                range: range()?,
                fua,
            }),
            IoOpcode::Write => {
                if control & DTYPE != 0 {
                    return Err(Status::INVALID_FIELD.with_do_not_retry());
                }
                Ok(Self::Write {
                    range: range()?,
                    fua,
                })
            }
            IoOpcode::WriteZeroes => Ok(Self::WriteZeroes {
                range: range()?,
                fua,
                deallocate: control & DEAC != 0,
            }),
            IoOpcode::DatasetManagement => {
                Ok(Self::DatasetManagement(DatasetManagement::parse(command)))
            }
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }

    /// The opcode of the command.
    #[must_use]
    pub fn opcode(&self) -> IoOpcode {
        match self {
            Self::Flush => IoOpcode::Flush,
            Self::Read { .. } => IoOpcode::Read,
            Self::Write { .. } => IoOpcode::Write,
            Self::Compare { .. } => IoOpcode::Compare,
            Self::WriteZeroes { .. } => IoOpcode::WriteZeroes,
            Self::DatasetManagement(_) => IoOpcode::DatasetManagement,
        }
    }

    /// Which way data flows.
    #[must_use]
    pub fn direction(&self) -> DataDirection {
        DataDirection::of(self.opcode().code())
    }

    /// The blocks that the command names; `None` for Flush and Dataset Management.
    #[must_use]
    pub fn range(&self) -> Option<BlockRange> {
        match *self {
            Self::Flush | Self::DatasetManagement(_) => None,
            Self::Read { range, .. }
            | Self::Write { range, .. }
            | Self::Compare { range, .. }
            | Self::WriteZeroes { range, .. } => Some(range),
        }
    }

    /// Bytes of data that go with the command, for a given block size.
    #[must_use]
    pub fn data_len(&self, block_size: u32) -> u64 {
        match self {
            Self::Flush | Self::WriteZeroes { .. } => 0,
            Self::Read { range, .. } | Self::Write { range, .. } | Self::Compare { range, .. } => {
                range.bytes(block_size)
            }
            Self::DatasetManagement(dsm) => u64::from(dsm.data_len()),
        }
    }

    /// The queue entry of the command, without command identifier and data pointer.
    ///
    /// # Panics
    /// Where the range has 0 or more than 65 536 blocks: NLB can't say that.
    #[must_use]
    pub fn to_command(&self, nsid: u32) -> Command {
        let mut command = Command::new(self.opcode().code(), nsid);
        if let Some(BlockRange { slba, blocks }) = self.range() {
            assert!(
                (1..=0x1_0000).contains(&blocks),
                "NLB is 1 to 65536 blocks, not {blocks}"
            );
            command.cdw10 = ((slba & 0xffff_ffff) as u32).into();
            command.cdw11 = ((slba >> 32) as u32).into();
            let control = match *self {
                Self::Read { fua, .. } | Self::Write { fua, .. } | Self::Compare { fua, .. } => {
                    if fua {
                        FUA
                    } else {
                        0
                    }
                }
                Self::WriteZeroes {
                    fua, deallocate, ..
                } => (if fua { FUA } else { 0 }) | (if deallocate { DEAC } else { 0 }),
                Self::Flush | Self::DatasetManagement(_) => 0,
            };
            command.cdw12 = ((blocks - 1) | control).into();
        }
        if let Self::DatasetManagement(dsm) = self {
            dsm.write_to(&mut command);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(cdw12: u32) -> Command {
        let mut command = Command::new(0x01, 1);
        command.cdw10 = 0x5566_7788.into();
        command.cdw11 = 0x1122_3344.into();
        command.cdw12 = cdw12.into();
        command
    }

    #[test]
    fn read_and_write_fields_are_where_the_specification_puts_them() {
        let range = BlockRange {
            slba: 0x1122_3344_5566_7788,
            blocks: 8,
        };
        assert_eq!(
            IoCommand::parse(&write(7)),
            Ok(IoCommand::Write { range, fua: false })
        );
        assert_eq!(
            IoCommand::parse(&write(0x4000_0007)),
            Ok(IoCommand::Write { range, fua: true })
        );
        let all = BlockRange {
            blocks: 65_536,
            ..range
        };
        assert_eq!(
            IoCommand::parse(&write(0xffff)),
            Ok(IoCommand::Write {
                range: all,
                fua: false
            })
        );
        // Limited Retry (bit 31) is a hint.
        assert_eq!(
            IoCommand::parse(&write(0x8000_0007)),
            Ok(IoCommand::Write { range, fua: false })
        );
    }

    #[test]
    fn protection_information_and_directives_are_refused() {
        for bit in 26..=29 {
            let status = IoCommand::parse(&write(1 << bit)).expect_err("PRINFO");
            assert!(status.is(Status::INVALID_PROTECTION_INFORMATION) && status.do_not_retry());
        }
        let status = IoCommand::parse(&write(1 << 20)).expect_err("directive");
        assert!(status.is(Status::INVALID_FIELD));
    }

    #[test]
    fn write_zeroes_carries_the_wish_to_deallocate() {
        let mut command = write(0x0200_0000);
        command.opcode = 0x08;
        assert_eq!(
            IoCommand::parse(&command),
            Ok(IoCommand::WriteZeroes {
                range: BlockRange {
                    slba: 0x1122_3344_5566_7788,
                    blocks: 1
                },
                fua: false,
                deallocate: true,
            })
        );
    }

    #[test]
    fn unknown_opcodes_are_invalid() {
        for opcode in [0x03, 0x04, 0x0d, 0x19, 0x7f, 0xff] {
            let status = IoCommand::parse(&Command::new(opcode, 1)).expect_err("opcode");
            assert_eq!(status, Status::INVALID_OPCODE.with_do_not_retry());
        }
    }

    #[test]
    fn a_range_must_end_inside_the_namespace() {
        let range = BlockRange {
            slba: 90,
            blocks: 10,
        };
        assert_eq!(range.check_within(100), Ok(()));
        assert!(range.check_within(99).is_err());
        assert!(
            BlockRange {
                slba: u64::MAX,
                blocks: 2
            }
            .check_within(u64::MAX)
            .is_err()
        );
        assert_eq!(range.bytes(4096), 40_960);
    }

    #[test]
    fn what_is_built_is_read_back() {
        let range = BlockRange {
            slba: u64::MAX - 70_000,
            blocks: 65_536,
        };
        for command in [
            IoCommand::Flush,
            IoCommand::Read { range, fua: true },
            IoCommand::Write { range, fua: false },
            IoCommand::Compare { range, fua: true },
            IoCommand::WriteZeroes {
                range,
                fua: true,
                deallocate: true,
            },
            IoCommand::DatasetManagement(DatasetManagement::deallocate(256)),
        ] {
            let entry = command.to_command(3);
            assert_eq!(entry.nsid.get(), 3);
            assert_eq!(IoCommand::parse(&entry), Ok(command));
        }
    }

    #[test]
    fn the_length_of_the_data_follows_the_command() {
        let range = BlockRange { slba: 0, blocks: 3 };
        assert_eq!(IoCommand::Write { range, fua: false }.data_len(512), 1536);
        assert_eq!(
            IoCommand::WriteZeroes {
                range,
                fua: false,
                deallocate: false
            }
            .data_len(512),
            0
        );
        assert_eq!(
            IoCommand::DatasetManagement(DatasetManagement::deallocate(2)).data_len(512),
            32
        );
    }
}
