//! What is asked of a device and what comes back.

use super::Info;
use crate::memory::{Segments, SegmentsMut};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Fill [`Data::Read`] from the device.
    Read,
    /// Store [`Data::Write`].
    Write {
        /// Durable before it completes, whatever the device's cache.
        fua: bool,
    },
    /// Make every write that completed before this was submitted durable. No range, no data.
    Flush,
    /// Make the range read as zeros. No data.
    WriteZeroes {
        /// Durable before it completes.
        fua: bool,
        /// The device may give the space back, as long as the range reads as zeros.
        deallocate: bool,
    },
    /// Compare the range with [`Data::Write`]; [`Status::Miscompare`] if any byte differs.
    Compare,
    /// Compare the one block with the first half of [`Data::Write`] and, if equal, store the
    /// second half; nothing comes between the two.
    CompareAndWrite {
        /// The write is durable before it completes.
        fua: bool,
    },
    /// Store what is in [`Data::Read`], and give it back XORed to what was there: what the block has changed by (SCSI:
    /// XDWRITEREAD). Devices with [`Info::in_memory`] can; hosts never ask for it. Where it fails, nothing was stored.
    XdWriteRead {
        /// Durable before it completes.
        fua: bool,
    },
    /// XOR [`Data::Write`] to what is there (SCSI: XPWRITE). As for [`Op::XdWriteRead`] otherwise.
    XpWrite {
        /// Durable before it completes.
        fua: bool,
    },
}

impl Op {
    /// Whether the operation may change the range.
    pub fn modifies(self) -> bool {
        match self {
            Op::Write { .. }
            | Op::WriteZeroes { .. }
            | Op::CompareAndWrite { .. }
            | Op::XdWriteRead { .. }
            | Op::XpWrite { .. } => true,
            Op::Read | Op::Flush | Op::Compare => false,
        }
    }

    /// Whether what it stores must be durable before it completes.
    pub fn is_fua(self) -> bool {
        match self {
            Op::Write { fua }
            | Op::WriteZeroes { fua, .. }
            | Op::CompareAndWrite { fua }
            | Op::XdWriteRead { fua }
            | Op::XpWrite { fua } => fua,
            Op::Read | Op::Compare | Op::Flush => false,
        }
    }

    /// How it ends where its blocks are in trouble, and others may not be.
    pub(super) fn failure(self) -> Status {
        match self {
            Op::Read | Op::Compare => Status::MediumError,
            Op::Write { .. }
            | Op::WriteZeroes { .. }
            | Op::CompareAndWrite { .. }
            | Op::XdWriteRead { .. }
            | Op::XpWrite { .. }
            | Op::Flush => Status::WriteFault,
        }
    }

    /// Bytes of buffers that go with `blocks` blocks of `block_size` bytes.
    pub fn payload(self, blocks: u32, block_size: u32) -> usize {
        let range = blocks as usize * block_size as usize;
        match self {
            Op::Read | Op::Write { .. } | Op::Compare => range,
            Op::XdWriteRead { .. } | Op::XpWrite { .. } => range,
            Op::CompareAndWrite { .. } => 2 * range,
            Op::Flush | Op::WriteZeroes { .. } => 0,
        }
    }
}

/// The buffers of a request, owned by whoever holds the request.
#[derive(Debug, Default)]
pub enum Data {
    /// No buffers.
    #[default]
    None,
    /// To be filled, in order; for [`Op::XdWriteRead`] to be stored before.
    Read(SegmentsMut),
    /// To be stored or compared, in order.
    Write(Segments),
}

impl Data {
    /// Bytes of all buffers.
    pub fn len(&self) -> usize {
        match self {
            Data::None => 0,
            Data::Read(segments) => segments.iter().map(|s| s.len()).sum(),
            Data::Write(segments) => segments.iter().map(|s| s.len()).sum(),
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One request to a device.
#[derive(Debug)]
pub struct Request {
    /// The user's own name for it; comes back with the completion.
    pub token: u64,
    /// What to do.
    pub op: Op,
    /// First logical block.
    pub lba: u64,
    /// Number of logical blocks; 0 for [`Op::Flush`] only.
    pub blocks: u32,
    /// The buffers, [`Op::payload`] bytes of them.
    pub data: Data,
}

impl Request {
    /// Whether all of its blocks exist; a flush has none.
    pub(super) fn is_within(&self, info: &Info) -> bool {
        self.is_below(info.blocks)
    }

    /// The same for a device that has so many blocks now.
    pub(super) fn is_below(&self, blocks: u64) -> bool {
        let end = self.lba.checked_add(u64::from(self.blocks));
        self.op == Op::Flush || end.is_some_and(|end| end <= blocks)
    }

    /// Panics unless the buffers are of the operation's kind and add up to its blocks, and there
    /// is a block at all where the operation has a range.
    pub(super) fn assert_sound(&self, block_size: u32) {
        let kind = match self.op {
            Op::Read | Op::XdWriteRead { .. } => matches!(self.data, Data::Read(_)),
            Op::Write { .. } | Op::Compare | Op::CompareAndWrite { .. } | Op::XpWrite { .. } => {
                matches!(self.data, Data::Write(_))
            }
            Op::Flush | Op::WriteZeroes { .. } => matches!(self.data, Data::None),
        };
        assert!(kind, "{:?} with buffers of another kind", self.op);
        assert_eq!(
            self.data.len(),
            self.op.payload(self.blocks, block_size),
            "{:?} of {} blocks with buffers that do not add up",
            self.op,
            self.blocks
        );
        assert!(
            (self.blocks == 0) == (self.op == Op::Flush),
            "{:?} of {} blocks",
            self.op,
            self.blocks
        );
    }
}

/// One request, done.
#[derive(Debug)]
pub struct Completion {
    /// The token of the request.
    pub token: u64,
    /// How it went. Anything but [`Status::Ok`] leaves read buffers undefined.
    pub status: Status,
    /// The buffers of the request, in order.
    pub data: Data,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Status {
    /// Done.
    #[error("success")]
    Ok,
    /// These blocks can't be read now; others can (NVMe: Unrecovered Read Error).
    #[error("unrecovered read error")]
    MediumError,
    /// These blocks could not be written; the device may be at its end (NVMe: Write Fault).
    #[error("write fault")]
    WriteFault,
    /// The device is not there any more, or no longer answers.
    #[error("device gone")]
    Gone,
    /// Blocks that do not exist.
    #[error("LBA out of range")]
    OutOfRange,
    /// The compared bytes differ.
    #[error("compare failure")]
    Miscompare,
    /// The device cannot do this operation.
    #[error("operation not supported")]
    Unsupported,
    /// The volume has lost more members than it can bear, or is being taken down; nothing was
    /// done, or only a part of the write.
    #[error("volume offline")]
    Offline,
}
