//! One request on its way: the commands that it takes, one after another, and what becomes of it.

use std::ops::Range;

use super::namespace::Device;
use crate::bdev::{Completion, Data, Op, Request, Status};
use crate::initiator::{CommandError, Payload};
use crate::memory::Segments;
use crate::nvme::io::{BlockRange, IoCommand};
use crate::nvme::status::StatusType;
use crate::nvme::{self, Command};

/// Blocks of one command at most: NLB has 16 bits.
const MOST_BLOCKS: u32 = 0x1_0000;

/// Times that a command is sent again, after a lost connection or a failure that may pass.
const RETRIES: u8 = 3;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) token: u64,
    pub(super) op: Op,
    lba: u64,
    pub(super) blocks: u32,
    data: Data,
    /// Blocks that are done, and those of the command that is out.
    done: u32,
    out: u32,
    retries: u8,
}

/// What follows from the end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The request is over.
    Over(Status),
    /// There is more of it to be sent, or the same again.
    Send,
}

impl Flight {
    pub(super) fn new(request: Request) -> Self {
        Self {
            token: request.token,
            op: request.op,
            lba: request.lba,
            blocks: request.blocks,
            data: request.data,
            done: 0,
            out: 0,
            retries: RETRIES,
        }
    }

    /// The next command, with at most `max_transfer` bytes of data: its payload, and which part of
    /// that it moves. The payload comes back with [`Flight::put_back`].
    pub(super) fn command(
        &mut self,
        device: &Device,
        max_transfer: u32,
    ) -> (Command, Payload, Range<u32>) {
        let block = device.info.block_size;
        let most = (max_transfer / block).clamp(1, MOST_BLOCKS);
        let mut range = BlockRange {
            slba: self.lba + u64::from(self.done),
            blocks: most.min(self.blocks - self.done),
        };
        let command = match (self.op, &device.zeros) {
            (Op::Read, _) => IoCommand::Read { range, fua: false },
            (Op::Write { fua }, _) => IoCommand::Write { range, fua },
            (Op::Compare, _) => IoCommand::Compare { range, fua: false },
            (Op::CompareAndWrite { .. } | Op::XdWriteRead { .. } | Op::XpWrite { .. }, _) => {
                unreachable!("what there is no command for is refused when it is handed in")
            }
            (Op::Flush, _) => IoCommand::Flush,
            (Op::WriteZeroes { fua, deallocate }, None) => IoCommand::WriteZeroes {
                range,
                fua,
                deallocate,
            },
            (Op::WriteZeroes { fua, .. }, Some(zeros)) => {
                // Two views of the same zeros need no list on the heap.
                let len = zeros.len() as u32;
                range.blocks = range.blocks.min(2 * len / block);
                self.out = range.blocks;
                let bytes = range.blocks * block;
                let first = zeros.slice(..bytes.min(len) as usize);
                let second = zeros.slice(..bytes.saturating_sub(len) as usize);
                let payload = Payload::Write(Segments::from_iter([first, second]));
                let write = IoCommand::Write { range, fua };
                return (write.to_command(device.nsid), payload, 0..bytes);
            }
        };
        self.out = range.blocks;
        let payload = match std::mem::take(&mut self.data) {
            Data::None => Payload::None,
            Data::Read(segments) => Payload::Read(segments),
            Data::Write(segments) => Payload::Write(segments),
        };
        let part = match &payload {
            Payload::None => 0..0,
            _ => self.done * block..(self.done + range.blocks) * block,
        };
        (command.to_command(device.nsid), payload, part)
    }

    /// Takes the payload of a command back.
    pub(super) fn put_back(&mut self, payload: Payload) {
        if matches!(self.op, Op::WriteZeroes { .. }) {
            return;
        }
        self.data = match payload {
            Payload::Read(segments) => Data::Read(segments),
            Payload::Write(segments) => Data::Write(segments),
            Payload::None | Payload::Discard(_) => Data::None,
        };
    }

    /// What follows from the end of the command that was out.
    pub(super) fn ended(&mut self, outcome: Result<(), CommandError>) -> Next {
        let status = match outcome {
            Ok(()) => {
                self.done += self.out;
                return match self.done == self.blocks {
                    true => Next::Over(Status::Ok),
                    false => Next::Send,
                };
            }
            Err(CommandError::Status(status)) if is_final(status) => {
                return Next::Over(meaning(self.op, status));
            }
            Err(CommandError::Status(status)) => meaning(self.op, status),
            Err(CommandError::Lost) => Status::Gone,
            Err(CommandError::DataDigest | CommandError::Short { .. }) => self.op.failure(),
        };
        if self.retries == 0 {
            return Next::Over(status);
        }
        self.retries -= 1;
        Next::Send
    }

    pub(super) fn into_completion(self, status: Status) -> Completion {
        Completion {
            token: self.token,
            status,
            data: self.data,
        }
    }
}

/// Whether the same command would have the same end again.
fn is_final(status: nvme::Status) -> bool {
    let passes = matches!(StatusType::from_code(status.sct()), Some(StatusType::Path))
        || [
            nvme::Status::NAMESPACE_NOT_READY,
            nvme::Status::COMMAND_INTERRUPTED,
            nvme::Status::ABORT_REQUESTED,
            nvme::Status::ABORTED_SQ_DELETION,
            nvme::Status::INTERNAL_ERROR,
            nvme::Status::DATA_TRANSFER_ERROR,
        ]
        .iter()
        .any(|other| status.is(*other));
    status.do_not_retry() || !passes
}

/// What a status says to the user of the device.
fn meaning(op: Op, status: nvme::Status) -> Status {
    let is = |other: nvme::Status| status.is(other);
    if is(nvme::Status::COMPARE_FAILURE) {
        Status::Miscompare
    } else if is(nvme::Status::LBA_OUT_OF_RANGE) {
        Status::OutOfRange
    } else if is(nvme::Status::INVALID_OPCODE) {
        Status::Unsupported
    } else if is(nvme::Status::INVALID_NAMESPACE_OR_FORMAT)
        || is(nvme::Status::NAMESPACE_NOT_READY)
        || StatusType::from_code(status.sct()) == Some(StatusType::Path)
    {
        Status::Gone
    } else {
        op.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the meaning of each status in the specification.
    #[test]
    fn statuses_are_told_in_our_terms() {
        let write = Op::Write { fua: false };
        for (op, status, expected) in [
            (Op::Compare, (2, 0x85), Status::Miscompare),
            (Op::Read, (0, 0x80), Status::OutOfRange),
            (Op::Read, (2, 0x81), Status::MediumError),
            (write, (2, 0x80), Status::WriteFault),
            (write, (0, 0x0b), Status::Gone),
            (Op::Read, (3, 0x02), Status::Gone),
            (Op::Flush, (0, 0x01), Status::Unsupported),
            (Op::Read, (7, 0xff), Status::MediumError),
        ] {
            let (sct, sc) = status;
            assert_eq!(meaning(op, nvme::Status::new(sct, sc)), expected);
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_not_for_ever() {
        let mut flight = Flight::new(Request {
            token: 1,
            op: Op::Read,
            lba: 0,
            blocks: 1,
            data: Data::None,
        });
        for _ in 0..RETRIES {
            assert_eq!(flight.ended(Err(CommandError::Lost)), Next::Send);
        }
        let end = flight.ended(Err(CommandError::Lost));
        assert_eq!(end, Next::Over(Status::Gone));
        let final_one = nvme::Status::NAMESPACE_NOT_READY.with_do_not_retry();
        assert!(is_final(final_one) && !is_final(nvme::Status::NAMESPACE_NOT_READY));
        assert!(is_final(nvme::Status::new(2, 0x81)));
    }
}
