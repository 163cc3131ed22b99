//! What can be injected, and which requests it is for.

use std::ops::Range;

use super::super::{Info, Op, Request, Status};

/// Which requests an injection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoType {
    /// Reads and compares.
    Read,
    /// Writes, compare-and-writes, and what changes blocks by XOR.
    Write,
    /// Flushes.
    Flush,
    /// Zeroing with leave to deallocate.
    Unmap,
    /// Zeroing without.
    WriteZeroes,
    /// All of them.
    All,
}

impl IoType {
    fn covers(self, op: Op) -> bool {
        let own = match op {
            Op::Read | Op::Compare => IoType::Read,
            Op::Write { .. }
            | Op::CompareAndWrite { .. }
            | Op::XdWriteRead { .. }
            | Op::XpWrite { .. } => IoType::Write,
            Op::Flush => IoType::Flush,
            Op::WriteZeroes {
                deallocate: true, ..
            } => IoType::Unmap,
            Op::WriteZeroes { .. } => IoType::WriteZeroes,
        };
        self == IoType::All || self == own
    }
}

/// What happens to a request that an injection hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with [`Status::MediumError`] if it reads, else with [`Status::WriteFault`];
    /// never done.
    Failure,
    /// Answered with [`Status::Gone`]; never done.
    Gone,
    /// Held back, and done when the injections are cleared.
    Pending,
    /// Done, but one byte of what is read or written (other operations are never hit) differs.
    CorruptData {
        /// The byte, counted from the beginning of the injection's range, or of the request where
        /// the injection has no range.
        offset: u64,
        /// XORed to the byte; not 0.
        value: u8,
    },
}

/// A fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The requests to hit.
    pub io_type: IoType,
    /// What happens to them.
    pub fault: Fault,
    /// How many of them; all where there is no number.
    pub num: Option<u64>,
    /// Only those that touch these blocks; flushes touch none.
    pub lbas: Option<Range<u64>>,
    /// Whether a write or zeroing that covers the whole range and succeeds ends the injection, as
    /// a disk replaces a bad sector when it is written. Needs a range.
    pub write_heals: bool,
}

/// An injection that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InjectError {
    /// Nothing would be hit.
    #[error("bdev {0}: an injection of 0 errors does nothing; give a num of 1 or more")]
    Num(String),
    /// XOR with 0 changes nothing.
    #[error("bdev {0}: corrupt_value must not be 0, it would corrupt nothing")]
    Value(String),
    /// There is no byte to corrupt.
    #[error("bdev {name}: corrupt_data is for read, write and all, not for {io_type:?}")]
    NoData {
        /// The device.
        name: String,
        /// What was asked for.
        io_type: IoType,
    },
    /// An empty range, or one that is not on the device.
    #[error("bdev {name}: blocks {}..{} are not on the device, which has {blocks}", lbas.start, lbas.end)]
    Lbas {
        /// The device.
        name: String,
        /// What was asked for.
        lbas: Range<u64>,
        /// Blocks of the device.
        blocks: u64,
    },
    /// The byte to corrupt is not in the range.
    #[error("bdev {name}: corrupt_offset {offset} lies outside the {bytes} bytes of the blocks")]
    Offset {
        /// The device.
        name: String,
        /// What was asked for.
        offset: u64,
        /// Bytes of the range.
        bytes: u64,
    },
    /// Nothing to write over.
    #[error("bdev {0}: an injection that a write heals needs a range of blocks")]
    HealsNothing(String),
}

/// What an injection does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    Answer(Status),
    /// Until the table's count of clears is another one.
    Hold(u64),
    /// XOR this byte of the payload.
    Spoil(Spoil),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spoil {
    pub(super) at: usize,
    pub(super) value: u8,
}

impl Injection {
    /// Whether it makes sense on a device.
    pub(super) fn check(&self, info: &Info) -> Result<(), InjectError> {
        let name = || info.name.clone();
        if self.num == Some(0) {
            return Err(InjectError::Num(name()));
        }
        if let Some(lbas) = &self.lbas
            && (lbas.is_empty() || lbas.end > info.blocks)
        {
            return Err(InjectError::Lbas {
                name: name(),
                lbas: lbas.clone(),
                blocks: info.blocks,
            });
        }
        if self.write_heals && self.lbas.is_none() {
            return Err(InjectError::HealsNothing(name()));
        }
        if let Fault::CorruptData { offset, value } = self.fault {
            let io_type = self.io_type;
            if !matches!(io_type, IoType::Read | IoType::Write | IoType::All) {
                return Err(InjectError::NoData {
                    name: name(),
                    io_type,
                });
            }
            if value == 0 {
                return Err(InjectError::Value(name()));
            }
            if let Some(lbas) = &self.lbas {
                let bytes = (lbas.end - lbas.start) * u64::from(info.block_size);
                if offset >= bytes {
                    return Err(InjectError::Offset {
                        name: name(),
                        offset,
                        bytes,
                    });
                }
            }
        }
        Ok(())
    }

    /// What it does to the request, if it is for it; `clears` is the table's count.
    pub(super) fn hit(&self, request: &Request, block_size: u32, clears: u64) -> Option<Hit> {
        let op = request.op;
        let start = request.lba;
        let end = start.saturating_add(u64::from(request.blocks));
        let touches = |r: &Range<u64>| start < r.end && r.start < end;
        if !self.io_type.covers(op) || !self.lbas.as_ref().is_none_or(touches) {
            return None;
        }
        match self.fault {
            Fault::Failure => Some(Hit::Answer(op.failure())),
            Fault::Gone => Some(Hit::Answer(Status::Gone)),
            Fault::Pending => Some(Hit::Hold(clears)),
            Fault::CorruptData { offset, value } => {
                if !matches!(op, Op::Read | Op::Write { .. }) {
                    return None;
                }
                let block = u64::from(block_size);
                let at = match &self.lbas {
                    Some(lbas) => (lbas.start * block + offset).checked_sub(start * block)?,
                    None => offset,
                };
                let inside = at < request.data.len() as u64;
                let at = at as usize;
                inside.then_some(Hit::Spoil(Spoil { at, value }))
            }
        }
    }
}
