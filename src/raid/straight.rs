//! Straight reads: those that one member serves whole.
//!
//! Most reads are such. Nothing has to be cut or put together, so only the name of the request and its place
//! are kept; its buffers are with the member. One that the member can't serve becomes a request like any other.

use super::router::Router;
use crate::bdev::{Completion, Data, Op, Request, Status};

/// A mark in the token of a member request: it is a straight read.
pub(super) const STRAIGHT: u64 = 1 << 60;

/// A straight read under way.
#[derive(Debug)]
pub(super) struct Straight {
    /// The host's name for it.
    token: u64,
    /// First byte of the volume.
    offset: u64,
    /// Number of bytes.
    len: u32,
}

impl Router {
    /// Makes a host's request one to a member, and returns its bay, if it is a read that the member may
    /// serve whole; else leaves the request as it is.
    #[inline]
    pub(super) fn straight(&mut self, request: &mut Request) -> Option<usize> {
        if request.op != Op::Read || request.blocks == 0 || !self.view.online {
            return None;
        }
        let block = u64::from(self.block_bytes);
        let chunk = self.geometry.chunk_bytes();
        let (offset, len) = (
            request.lba.checked_mul(block)?,
            u64::from(request.blocks) * block,
        );
        if offset.checked_add(len)? > self.geometry.volume_bytes() {
            return None;
        }
        assert_eq!(request.data.len() as u64, len, "buffers of a read");
        let place = self.geometry.place(offset);
        if u64::from(place.within) + len > u64::from(chunk) {
            return None;
        }
        let slot = self.geometry.member(place.row, place.role);
        if !self.view.readable(slot, place.row) {
            return None;
        }
        let at = self.straight.insert(Straight {
            token: request.token,
            offset,
            len: len as u32,
        });
        request.token = STRAIGHT | at as u64;
        request.lba = self.geometry.on_member(place) / block;
        Some(self.view.bay(slot))
    }

    /// A member answered a straight read. Returns the host's completion and the bytes of its range; where there
    /// is none yet, what to report of the member, if it failed.
    #[inline]
    pub(super) fn straight_done(
        &mut self,
        completion: Completion,
    ) -> Result<(Completion, u64), Option<Status>> {
        let at = (completion.token & !STRAIGHT) as usize;
        let Straight { token, offset, len } = self.straight.remove(at);
        let len = u64::from(len);
        if completion.status == Status::Ok {
            return Ok((
                Completion {
                    token,
                    ..completion
                },
                len,
            ));
        }
        let Completion { status, data, .. } = completion;
        self.ask_owner(token, offset, len, data);
        Err((status == Status::Gone).then_some(status))
    }

    /// Has the owner of a straight read find out what can be done about it.
    fn ask_owner(&mut self, token: u64, offset: u64, len: u64, data: Data) {
        let at = self.begin(token, Op::Read, offset, len);
        let piece = self.cut_piece(at, len);
        let part = self.read_by_owner(at, piece, data);
        self.parts.push_back(part);
    }
}
