//! The router: takes a host's request apart by where its rows live, and puts the answers together.
//!
//! Reads of rows whose members can be read go straight to the members of this reactor. All else
//! goes to the owners of the rows as jobs. A read that a member could not serve becomes a job.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::geometry::Geometry;
use super::message::{Job, NodeId, Of, Origin};
use super::mutation::{self, Mutation};
use super::node::Effect;
use super::payload;
use super::straight::Straight;
use super::view::View;
use super::waiting::Streams;
use crate::bdev::{Completion, Data, Op, Request, Status};
use crate::memory::SegmentsMut;

/// Host requests of one node under way at once.
pub(super) const REQUESTS: usize = 4096;
/// Parts of one request under way at once.
const PARTS: u32 = 64;

/// What the router wants done.
#[derive(Debug)]
pub(super) enum Part {
    /// A request to the member in a bay.
    Member(usize, Request),
    /// A job for a node.
    Owner(NodeId, Job),
    /// A host's request is done.
    Complete(Effect),
}

/// A host's request under way.
#[derive(Debug)]
struct HostRequest {
    token: u64,
    op: Op,
    offset: u64,
    len: u64,
    /// Bytes whose parts are on their way.
    cut: u64,
    /// Parts on their way.
    left: u32,
    status: Status,
    /// A write's buffers, or the part of a read's that is not cut off yet.
    data: Data,
    /// A read's parts: where each begins, how long it is, and its buffers once it is done.
    pieces: Vec<Piece>,
    /// Bays whose members failed to flush.
    unflushed: u64,
    /// A write that begins where an earlier one ended.
    streams: bool,
}

#[derive(Debug)]
struct Piece {
    offset: u64,
    len: u64,
    buffers: SegmentsMut,
}

#[derive(Debug)]
pub(super) struct Router {
    id: NodeId,
    pub(super) geometry: Geometry,
    pub(super) block_bytes: u32,
    pub(super) view: Arc<View>,
    settled: Arc<View>,
    /// Bays whose members have a volatile cache.
    write_caches: u64,
    pub(super) straight: Slab<Straight>,
    requests: Slab<HostRequest>,
    /// Requests that are a job as they are.
    jobs: usize,
    /// Piece lists of requests that are done, for the next ones.
    spare: Vec<Vec<Piece>>,
    /// Flushes that wait until all nodes know of a failed member.
    settling: Vec<u32>,
    pub(super) parts: VecDeque<Part>,
    /// Where sequential writers have come to.
    streams: Streams,
}

impl Router {
    pub(super) fn new(
        id: NodeId,
        geometry: Geometry,
        block_bytes: u32,
        view: Arc<View>,
        write_caches: u64,
    ) -> Self {
        Self {
            id,
            geometry,
            block_bytes,
            view: view.clone(),
            settled: view,
            write_caches,
            straight: Slab::with_capacity(REQUESTS),
            requests: Slab::with_capacity(REQUESTS),
            jobs: 0,
            spare: Vec::new(),
            settling: Vec::new(),
            parts: VecDeque::with_capacity(256),
            streams: Streams::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight() >= REQUESTS
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.len() + self.straight.len() + self.jobs
    }

    pub(super) fn next_part(&mut self) -> Option<Part> {
        self.parts.pop_front()
    }

    pub(super) fn set_write_cache(&mut self, bay: usize, present: bool) {
        self.write_caches &= !(1 << bay);
        self.write_caches |= u64::from(present) << bay;
    }

    pub(super) fn adopt(&mut self, view: &Arc<View>) {
        self.view = view.clone();
        if !view.online {
            for at in std::mem::take(&mut self.settling) {
                self.fail(at, Status::Offline);
                self.end_if_done(at);
            }
        }
    }

    pub(super) fn settled(&mut self, view: &Arc<View>) {
        self.settled = view.clone();
        // As for rounds: a flush still under way must not wait for this bay's next member.
        let members = self.geometry.members();
        for bay in 0..=members.min(63) {
            if !view.occupies(bay, members) {
                for (_, host) in self.requests.iter_mut() {
                    host.unflushed &= !(1 << bay);
                }
            }
        }
        for at in std::mem::take(&mut self.settling) {
            self.settle(at);
        }
    }

    /// Makes a job of a write all of whose rows have one owner, so that nothing has to be cut or put together, and
    /// says who that is; else gives the request back.
    #[inline]
    pub(super) fn as_job(&mut self, request: Request) -> Result<(NodeId, Job), Request> {
        let writes = matches!(request.op, Op::Write { .. });
        if !writes || request.blocks == 0 || !self.view.online {
            return Err(request);
        }
        let block = u64::from(self.block_bytes);
        let volume_blocks = self.geometry.volume_bytes() / block;
        let len = u64::from(request.blocks);
        let end = request.lba.checked_add(len);
        if end.is_none_or(|end| end > volume_blocks) {
            return Err(request);
        }
        let (offset, len) = (request.lba * block, len * block);
        if offset + len > self.geometry.run_end(offset) {
            return Err(request);
        }
        assert_eq!(request.data.len() as u64, len, "buffers of a write");
        let streams = self.streams.follows(offset, offset + len, 0);
        let alone = self.in_flight() == 0;
        self.jobs += 1;
        let owner = self.geometry.owner(self.geometry.place(offset).row);
        let job = Job {
            origin: Origin {
                node: self.id,
                of: Of::Whole {
                    token: request.token,
                },
            },
            op: request.op,
            offset,
            len,
            data: request.data,
            reach: (false, false),
            streams,
            alone,
        };
        Ok((owner, job))
    }

    /// A request that was a job as it is has ended.
    pub(super) fn job_done(&mut self) {
        self.jobs -= 1;
    }

    /// Takes a request in and cuts off as many parts as may be under way.
    pub(super) fn submit(&mut self, request: Request) {
        let Request {
            token,
            op,
            lba,
            blocks,
            data,
        } = request;
        let block = u64::from(self.block_bytes);
        let expected = op.payload(blocks, self.block_bytes);
        assert_eq!(
            data.len(),
            expected,
            "buffers of a {op:?} of {blocks} blocks"
        );
        let volume_blocks = self.geometry.volume_bytes() / block;
        let inside = lba
            .checked_add(u64::from(blocks))
            .is_some_and(|end| end <= volume_blocks);
        let refused = if !self.view.online {
            Some(Status::Offline)
        } else if !inside {
            Some(Status::OutOfRange)
        } else if blocks == 0 && op != Op::Flush {
            Some(Status::Ok)
        } else if blocks != 1 && matches!(op, Op::CompareAndWrite { .. })
            || matches!(op, Op::XdWriteRead { .. } | Op::XpWrite { .. })
        {
            Some(Status::Unsupported)
        } else {
            None
        };
        if let Some(status) = refused {
            let completion = Completion {
                token,
                status,
                data,
            };
            let bytes = u64::from(blocks) * block;
            return self.complete(completion, op, bytes);
        }
        let start = lba * block;
        let end = start + u64::from(blocks) * block;
        let streams = matches!(op, Op::Write { .. } | Op::WriteZeroes { .. })
            && self.streams.follows(start, end, 0);
        let at = self.begin(token, op, start, end - start);
        let host = &mut self.requests[at as usize];
        host.data = data;
        host.streams = streams;
        match op {
            Op::Flush => self.flush(at),
            Op::Read => self.read(at),
            _ => self.hand_out(at),
        }
    }

    /// Begins a request of which nothing was cut off yet.
    pub(super) fn begin(&mut self, token: u64, op: Op, offset: u64, len: u64) -> u32 {
        let host = HostRequest {
            token,
            op,
            offset,
            len,
            cut: 0,
            left: 0,
            status: Status::Ok,
            data: Data::None,
            pieces: self.spare.pop().unwrap_or_default(),
            unflushed: 0,
            streams: false,
        };
        self.requests.insert(host) as u32
    }

    /// Cuts off the next piece of a read.
    pub(super) fn cut_piece(&mut self, at: u32, len: u64) -> u32 {
        let host = &mut self.requests[at as usize];
        let piece = host.pieces.len() as u32;
        host.pieces.push(Piece {
            offset: host.offset + host.cut,
            len,
            buffers: SegmentsMut::new(),
        });
        host.cut += len;
        host.left += 1;
        piece
    }

    /// A piece of a read, for the owner of its row.
    pub(super) fn read_by_owner(&self, at: u32, piece: u32, data: Data) -> Part {
        let Piece { offset, len, .. } = self.requests[at as usize].pieces[piece as usize];
        let job = Job {
            origin: Origin {
                node: self.id,
                of: Of::Part { request: at, piece },
            },
            op: Op::Read,
            offset,
            len,
            data,
            reach: (false, false),
            streams: false,
            alone: false,
        };
        let owner = self.geometry.owner(self.geometry.place(offset).row);
        Part::Owner(owner, job)
    }

    /// A read, chunk by chunk: straight to the member where that is allowed.
    fn read(&mut self, at: u32) {
        let host = &mut self.requests[at as usize];
        let Data::Read(mut rest) = std::mem::take(&mut host.data) else {
            unreachable!("a read has buffers to fill");
        };
        let (start, end) = (host.offset, host.offset + host.len);
        let mut offset = start;
        while offset < end {
            let place = self.geometry.place(offset);
            let in_chunk = u64::from(self.geometry.chunk_bytes() - place.within);
            let len = in_chunk.min(end - offset);
            let buffers = match len == end - start {
                true => std::mem::take(&mut rest),
                false => payload::take_front(&mut rest, len as usize),
            };
            let piece = self.cut_piece(at, len);
            offset += len;
            let slot = self.geometry.member(place.row, place.role);
            let data = Data::Read(buffers);
            let part = if self.view.readable(slot, place.row) {
                let block = u64::from(self.block_bytes);
                let request = Request {
                    token: u64::from(at) << 24 | u64::from(piece),
                    op: Op::Read,
                    lba: self.geometry.on_member(place) / block,
                    blocks: (len / block) as u32,
                    data,
                };
                Part::Member(self.view.bay(slot), request)
            } else {
                self.read_by_owner(at, piece, data)
            };
            self.parts.push_back(part);
        }
    }

    /// Anything else, run of rows by run of rows, to the owners.
    fn hand_out(&mut self, at: u32) {
        let alone = self.in_flight() == 1;
        let host = &mut self.requests[at as usize];
        while host.cut < host.len && host.left < PARTS {
            let offset = host.offset + host.cut;
            let len = (self.geometry.run_end(offset) - offset).min(host.len - host.cut);
            let whole = len == host.len;
            let data = match (&host.data, whole) {
                (_, true) => std::mem::take(&mut host.data),
                (Data::Write(segments), false) => {
                    let part = payload::slice(segments, host.cut as usize, len as usize);
                    Data::Write(part)
                }
                (_, false) => Data::None,
            };
            host.cut += len;
            host.left += 1;
            let row = self.geometry.place(offset).row;
            let job = Job {
                origin: Origin {
                    node: self.id,
                    of: Of::Part {
                        request: at,
                        piece: u32::from(whole),
                    },
                },
                op: host.op,
                offset,
                len,
                data,
                // Who is in a hurry does not wait at an edge.
                reach: match alone || host.op.is_fua() {
                    true => (false, false),
                    false => (offset > host.offset, host.cut < host.len),
                },
                streams: host.streams,
                alone,
            };
            let owner = self.geometry.owner(row);
            self.parts.push_back(Part::Owner(owner, job));
        }
    }

    /// Writes are through to the members when they are acknowledged, so a flush is theirs to do.
    fn flush(&mut self, at: u32) {
        let host = &mut self.requests[at as usize];
        let members = self.geometry.members();
        for bay in 0..=members.min(63) {
            if !self.view.occupies(bay, members) {
                // It is lost, with what was in its cache. If not everybody knows that yet, it could
                // come back as if it had all.
                let known = !self.settled.occupies(bay, members) || mutation::on(Mutation::D11);
                host.unflushed |= u64::from(!known) << bay;
            } else if self.write_caches & (1 << bay) != 0 {
                host.left += 1;
                let request = Request {
                    token: u64::from(at) << 24 | bay as u64,
                    op: Op::Flush,
                    lba: 0,
                    blocks: 0,
                    data: Data::None,
                };
                self.parts.push_back(Part::Member(bay, request));
            }
        }
        self.settle(at);
    }

    /// A member answered a part. Returns what to report of the member, if it failed.
    pub(super) fn member_done(
        &mut self,
        token: u64,
        bay: usize,
        status: Status,
        data: Data,
    ) -> Option<Status> {
        let at = (token >> 24) as u32;
        let piece = (token & 0xff_ffff) as usize;
        let host = &mut self.requests[at as usize];
        if host.op == Op::Flush {
            host.left -= 1;
            let members = self.geometry.members();
            let known = !self.settled.occupies(bay, members) || mutation::on(Mutation::D14);
            if status != Status::Ok && !known {
                host.unflushed |= 1 << bay;
            }
            self.settle(at);
            return (status != Status::Ok).then_some(status);
        }
        if status == Status::Ok {
            host.left -= 1;
            self.put_back(at, piece, data);
            self.end_if_done(at);
            return None;
        }
        // Its owner finds out what can be done about it.
        let part = self.read_by_owner(at, piece as u32, data);
        self.parts.push_back(part);
        (status == Status::Gone).then_some(status)
    }

    /// An owner answered a part.
    pub(super) fn done(&mut self, request: u32, piece: u32, status: Status, data: Data) {
        let host = &mut self.requests[request as usize];
        host.left -= 1;
        if host.op == Op::Read {
            self.put_back(request, piece as usize, data);
        } else if piece == 1 {
            // The whole payload was lent to the one owner.
            host.data = data;
        }
        if status != Status::Ok {
            self.fail(request, status);
        }
        let host = &self.requests[request as usize];
        if host.op != Op::Read && host.cut < host.len {
            self.hand_out(request);
        }
        self.end_if_done(request);
    }

    fn put_back(&mut self, at: u32, piece: usize, data: Data) {
        let Data::Read(buffers) = data else {
            unreachable!("a read's buffers come back");
        };
        self.requests[at as usize].pieces[piece].buffers = buffers;
    }

    /// An error outweighs a miscompare, and the first of a kind stands.
    fn fail(&mut self, at: u32, status: Status) {
        let host = &mut self.requests[at as usize];
        if matches!(host.status, Status::Ok | Status::Miscompare) {
            host.status = status;
        }
    }

    /// Ends a flush once every node knows of the members that failed it.
    fn settle(&mut self, at: u32) {
        let host = &self.requests[at as usize];
        if host.left > 0 {
            return;
        }
        let members = self.geometry.members();
        let mut bays = (0..=members.min(63)).filter(|bay| host.unflushed & (1 << bay) != 0);
        let known = bays.all(|bay| !self.settled.occupies(bay, members));
        if !self.view.online {
            self.fail(at, Status::Offline);
            self.end_if_done(at);
        } else if known {
            self.end_if_done(at);
        } else {
            self.settling.push(at);
        }
    }

    fn end_if_done(&mut self, at: u32) {
        let host = &self.requests[at as usize];
        if host.left > 0 || host.cut < host.len {
            return;
        }
        let mut host = self.requests.remove(at as usize);
        let data = match host.op {
            Op::Read => {
                let mut whole = SegmentsMut::new();
                for piece in host.pieces.drain(..) {
                    match whole.is_empty() {
                        true => whole = piece.buffers,
                        false => payload::append(&mut whole, piece.buffers),
                    }
                }
                Data::Read(whole)
            }
            _ => host.data,
        };
        self.spare.push(host.pieces);
        let completion = Completion {
            token: host.token,
            status: host.status,
            data,
        };
        self.complete(completion, host.op, host.len);
    }

    fn complete(&mut self, completion: Completion, op: Op, bytes: u64) {
        self.parts.push_back(Part::Complete(Effect::Complete {
            completion,
            op,
            bytes,
        }));
    }
}

const _: () = assert!(REQUESTS < 1 << 36, "a token has room for the request");
