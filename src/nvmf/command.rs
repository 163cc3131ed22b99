//! From a command capsule on an I/O queue to what a device is to do: every check that needs the
//! namespace, and nothing that needs the payload.

use super::ana::Access;
use super::view::{NamespaceBlocks, SubsystemView};
use crate::memory::Cuts;
use crate::nvme::command::{DataTransfer, Fuse};
use crate::nvme::dsm::DsmRange;
use crate::nvme::io::{BlockRange, IoCommand};
use crate::nvme::reservation::CommandGroup;
use crate::nvme::{Command, NSID_ALL, Sgl, Status};

/// What a command does with the blocks of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read them.
    Read,
    /// Write them.
    Write {
        /// Durable before it completes.
        fua: bool,
    },
    /// Compare them.
    Compare,
    /// Set them to zero.
    Zero {
        /// Durable before it completes.
        fua: bool,
        /// Space may be given back.
        deallocate: bool,
    },
    /// Give back the space of the ranges in the payload.
    Deallocate,
    /// Make what was written durable.
    Flush,
    /// Nothing: the command is a hint that nobody here takes.
    Nothing,
}

/// A command that has passed all checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What to do.
    pub action: Action,
    /// Which blocks; none for `Deallocate`, `Flush` and `Nothing`.
    pub range: BlockRange,
    /// How many ranges are in the payload of `Deallocate`.
    pub ranges: u16,
    /// Which command it is.
    pub opcode: u8,
    /// What a reservation may have against it.
    pub command_group: CommandGroup,
    /// Bytes that the host sends.
    pub from_host: u32,
    /// Bytes that the host gets.
    pub to_host: u32,
    /// Whether it is half of a fused pair.
    pub fuse: Fuse,
}

/// How a payload travels, as the capsule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// In the capsule.
    InCapsule,
    /// By request: R2T and H2CData, or C2HData.
    Transport,
}

/// The limits of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload in bytes (MDTS).
    pub max_transfer: u32,
    /// Bytes of data in this capsule.
    pub in_capsule: u32,
}

const NONE: BlockRange = BlockRange { slba: 0, blocks: 0 };

/// How much data a command must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// None; what the data pointer says is not looked at.
    Nothing,
    /// The host gets so many bytes; its memory may be larger.
    ToHost(u32),
    /// The host sends exactly so many bytes.
    FromHost(u32),
    /// The host sends at least so many bytes and at most 4096: Linux sends the whole page of a
    /// Dataset Management command, however few ranges are in it.
    PageFromHost(u32),
}

/// How the data of a command travels and how many bytes the host sends, after a look at its data
/// pointer and at the bytes that came in the capsule.
///
/// # Errors
/// The status that the specification names for a data pointer that is none for NVMe/TCP, or does
/// not fit the data.
pub fn carriage(command: &Command, need: Need, in_capsule: u32) -> Result<(Carriage, u32), Status> {
    if command.data_transfer() != Ok(DataTransfer::Sgl) {
        return Err(Status::INVALID_FIELD.with_do_not_retry());
    }
    let sgl = command.data.parse();
    let wrong_length = Err(Status::INVALID_DATA_SGL_LENGTH.with_do_not_retry());
    let carriage = match sgl {
        _ if need == Need::Nothing => return Ok((Carriage::Transport, 0)),
        Sgl::InCapsule { offset, .. } if offset != 0 => {
            return Err(Status::INVALID_SGL_OFFSET.with_do_not_retry());
        }
        Sgl::InCapsule { len, .. } if len != in_capsule => return wrong_length,
        Sgl::InCapsule { .. } => Carriage::InCapsule,
        Sgl::Transport { .. } if in_capsule != 0 => return wrong_length,
        Sgl::Transport { .. } => Carriage::Transport,
        Sgl::Unsupported(_) => {
            let status = sgl
                .unsupported()
                .unwrap_or(Status::INVALID_SGL_DESCRIPTOR_TYPE);
            return Err(status.with_do_not_retry());
        }
    };
    let given = sgl.data_len();
    match need {
        Need::ToHost(_) if carriage == Carriage::InCapsule => {
            Err(Status::INVALID_SGL_DESCRIPTOR_TYPE.with_do_not_retry())
        }
        Need::ToHost(len) if given >= len => Ok((carriage, 0)),
        Need::FromHost(len) if given == len => Ok((carriage, len)),
        Need::PageFromHost(len) if (len..=4096).contains(&given) => Ok((carriage, given)),
        _ => wrong_length,
    }
}

/// Checks a command against its namespace and says what is to be done.
///
/// # Errors
/// The status that the specification names.
pub fn examine(
    command: &Command,
    view: &SubsystemView,
    limits: Limits,
) -> Result<(Work, Carriage, NamespaceBlocks), Status> {
    let fuse = command.fuse().map_err(Status::with_do_not_retry)?;
    let parsed = IoCommand::parse(command)?;
    let nsid = command.nsid.get();
    let namespace = match nsid {
        0 | NSID_ALL => None,
        _ => view.namespace(nsid),
    };
    let namespace = namespace.ok_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry())?;
    if namespace.access == Access::Inaccessible {
        // Not for ever, and perhaps not by other paths: hosts may try these.
        return Err(Status::ANA_INACCESSIBLE);
    }
    let info = &namespace.info;
    let expected = match fuse {
        Fuse::Normal => true,
        Fuse::First => matches!(parsed, IoCommand::Compare { .. }),
        Fuse::Second => matches!(parsed, IoCommand::Write { .. }),
    };
    if !expected {
        return Err(Status::INVALID_FIELD.with_do_not_retry());
    }
    if let Some(range) = parsed.range() {
        range.check_within(info.blocks)?;
    }
    let bytes = parsed.data_len(info.block_size);
    if bytes > u64::from(limits.max_transfer) {
        return Err(Status::INVALID_FIELD.with_do_not_retry());
    }
    let bytes = bytes as u32;
    let need = match parsed {
        IoCommand::Flush | IoCommand::WriteZeroes { .. } => Need::Nothing,
        IoCommand::Read { .. } => Need::ToHost(bytes),
        IoCommand::Write { .. } | IoCommand::Compare { .. } => Need::FromHost(bytes),
        IoCommand::DatasetManagement(_) => Need::PageFromHost(bytes),
    };
    let (carriage, from_host) = carriage(command, need, limits.in_capsule)?;
    let action = match parsed {
        IoCommand::Flush if info.write_cache => Action::Flush,
        IoCommand::Flush => Action::Nothing,
        IoCommand::Read { .. } => Action::Read,
        IoCommand::Write { fua, .. } => Action::Write { fua },
        IoCommand::Compare { .. } => Action::Compare,
        IoCommand::WriteZeroes {
            fua, deallocate, ..
        } => Action::Zero {
            fua,
            deallocate: deallocate && info.deallocates,
        },
        IoCommand::DatasetManagement(dsm) if dsm.deallocate && info.deallocates => {
            Action::Deallocate
        }
        IoCommand::DatasetManagement(_) => Action::Nothing,
    };
    let work = Work {
        action,
        range: parsed.range().unwrap_or(NONE),
        from_host,
        to_host: if action == Action::Read { bytes } else { 0 },
        ranges: match parsed {
            IoCommand::DatasetManagement(dsm) => dsm.ranges,
            _ => 0,
        },
        opcode: command.opcode,
        command_group: match parsed {
            IoCommand::Read { .. } | IoCommand::Compare { .. } => CommandGroup::Read,
            _ => CommandGroup::Write,
        },
        fuse,
    };
    Ok((work, carriage, namespace.blocks()))
}

/// Where the payload of a command must be cut, so that each buffer has one owner below.
pub fn cuts(work: &Work, on: &NamespaceBlocks) -> Cuts {
    let block = u64::from(on.block_size);
    match work.action {
        Action::Read | Action::Write { .. } | Action::Compare => Cuts::at_multiples(
            u64::from(on.io_boundary) * block,
            // Wrong only in units of 2^64 bytes, where no device reaches.
            work.range.slba.wrapping_mul(block),
        ),
        _ => Cuts::NONE,
    }
}

/// Checks every range of a Dataset Management command before the first is worked on.
///
/// # Errors
/// [`Status::LBA_OUT_OF_RANGE`].
pub fn check_ranges(ranges: &[DsmRange], namespace_blocks: u64) -> Result<(), Status> {
    ranges.iter().try_for_each(|range| {
        BlockRange {
            slba: range.slba.get(),
            blocks: range.blocks.get(),
        }
        .check_within(namespace_blocks)
    })
}
