//! Requests on their way through a queue pair, and the commands that they are made of.

use std::time::Instant;

use super::super::super::cursor::{Gather, Scatter};
use super::super::super::{Completion, Data, Op, Request, Status};
use crate::memory::{Buf, BufMut, Windows};

/// A request that was handed in and is not completed.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) token: u64,
    pub(super) op: Op,
    pub(super) lba: u64,
    pub(super) blocks: u32,
    pub(super) data: Data,
    /// Blocks of which it is not known yet what became of them; 1 for a flush.
    pub(super) left: u32,
    /// The first error, or else success.
    pub(super) status: Status,
}

/// A part of a request that waits to become commands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The request.
    pub(super) slot: u32,
    /// First block, counted from the request's first.
    pub(super) at: u32,
    /// The block behind the last.
    pub(super) end: u32,
    /// How often it was sent and may be sent again.
    pub(super) tries: u8,
}

/// A command in flight.
#[derive(Debug)]
pub(super) struct Flight {
    /// What it does.
    pub(super) piece: Piece,
    /// The buffer that it goes through, where it needs one.
    pub(super) bounce: Option<BufMut>,
    /// When it was first seen in flight.
    pub(super) since: Option<Instant>,
    /// When the controller was asked to give it up.
    pub(super) aborted: Option<Instant>,
}

impl Transfer {
    pub(super) fn new(request: Request) -> Self {
        Self {
            token: request.token,
            op: request.op,
            lba: request.lba,
            blocks: request.blocks,
            data: request.data,
            left: request.blocks.max(1),
            status: Status::Ok,
        }
    }

    pub(super) fn into_completion(self) -> Completion {
        Completion {
            token: self.token,
            status: self.status,
            data: self.data,
        }
    }

    /// Notes how `blocks` blocks ended; says whether that was all.
    pub(super) fn settle(&mut self, blocks: u32, status: Status) -> bool {
        if self.status == Status::Ok {
            self.status = status;
        }
        self.left -= blocks;
        self.left == 0
    }

    /// The device's addresses of the buffers from byte `skip` on, as far as it can see them.
    pub(super) fn chunks<'a>(
        &'a self,
        windows: &'a Windows,
        skip: usize,
    ) -> impl Iterator<Item = (u64, usize)> + 'a {
        let (read, write): (&[BufMut], &[Buf]) = match &self.data {
            Data::None => (&[], &[]),
            Data::Read(segments) => (segments, &[]),
            Data::Write(segments) => (&[], segments),
        };
        let read = read.iter().map(|buffer| (buffer.as_ptr(), buffer.len()));
        let write = write.iter().map(|buffer| (buffer.as_ptr(), buffer.len()));
        let mut skip = skip;
        read.chain(write)
            .filter_map(move |(start, len)| {
                let skipped = skip.min(len);
                skip -= skipped;
                (len > skipped).then(|| (start.wrapping_add(skipped), len - skipped))
            })
            .map_while(|(start, len)| Some((windows.address(start, len)?, len)))
    }

    /// Copies what is to be written or compared, from byte `skip` on.
    pub(super) fn take(&self, skip: usize, into: &mut [u8]) {
        if let Data::Write(segments) = &self.data {
            let mut gather = Gather::new(segments);
            gather.skip(skip);
            gather.take(into);
        }
    }

    /// Copies what was read to where it was to be read to, from byte `skip` on.
    pub(super) fn put(&mut self, skip: usize, from: &[u8]) {
        if let Data::Read(segments) = &mut self.data {
            let mut scatter = Scatter::new(segments);
            scatter.skip(skip);
            scatter.put(from);
        }
    }
}
