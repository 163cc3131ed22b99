//! From pages to member requests and back: pages of one member that follow one another, with the
//! same operation, become one request.

use smallvec::SmallVec;

use super::batch::Body;
use super::batching::BatchScope;
use super::gather::Run;
use super::shard::Shard;
use super::stripe::Phase;
use crate::bdev::{Data, Op, Request, Status};
use crate::memory::{Buf, BufMut, Segments, SegmentsMut};

/// What a page I/O does. The order groups what can be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PageOp {
    Read,
    Write { fua: bool },
    Zero { fua: bool, deallocate: bool },
}

impl PageOp {
    /// Whether what it stores is on the medium when it has ended.
    pub(super) fn is_forced(self) -> bool {
        match self {
            PageOp::Read => false,
            PageOp::Write { fua } | PageOp::Zero { fua, .. } => fua,
        }
    }

    /// The same, so that what it stores is on the medium when it has ended.
    pub(super) fn forced(self) -> Self {
        match self {
            PageOp::Read => self,
            PageOp::Write { .. } => PageOp::Write { fua: true },
            PageOp::Zero { deallocate, .. } => PageOp::Zero {
                fua: true,
                deallocate,
            },
        }
    }

    /// Whether it carries bytes to a member.
    pub(super) fn is_write(self) -> bool {
        matches!(self, PageOp::Write { .. })
    }
}

/// One page to be read from or written to one member.
#[derive(Debug)]
pub(super) struct PageIo {
    pub slot: u8,
    pub op: PageOp,
    pub number: u64,
    pub stripe: u32,
    pub role: u8,
    pub page: Page,
    /// Its merged request failed: find out which page it was.
    pub alone: bool,
}

/// The bytes of a page I/O.
#[derive(Debug)]
pub(super) enum Page {
    None,
    Into(BufMut),
    From(Buf),
}

/// A request to a member, in flight.
#[derive(Debug)]
pub(super) enum MemberIo {
    /// Pages of stripes that are worked on each by itself.
    Pages(Pages),
    /// All of a batch that goes to one bay.
    Batch { bay: u8, key: u32 },
}

/// Pages of one member that follow one another.
#[derive(Debug)]
pub(super) struct Pages {
    /// Where it was asked, and the slot that was there then.
    bay: u8,
    slot: u8,
    op: PageOp,
    /// The stripe and role of each page.
    parts: SmallVec<[(u32, u8); 4]>,
}

/// Lists that outgrew their inline room, for the next requests: a warm shard allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Lists {
    into: Vec<SegmentsMut>,
    pub(super) from: Vec<Segments>,
    parts: Vec<SmallVec<[(u32, u8); 4]>>,
    pub(super) runs: Vec<Run>,
    pub(super) bodies: Vec<Body>,
}

impl Lists {
    fn keep_into(&mut self, mut list: SegmentsMut) {
        if list.spilled() {
            list.clear();
            self.into.push(list);
        }
    }

    pub(super) fn keep_from(&mut self, mut list: Segments) {
        if list.spilled() {
            list.clear();
            self.from.push(list);
        }
    }

    pub(super) fn keep_run(&mut self, mut run: Run) {
        if run.spilled() {
            run.clear();
            self.runs.push(run);
        }
    }

    pub(super) fn keep_body(&mut self, mut body: Body) {
        for segments in &mut body.by_slot {
            segments.clear();
        }
        self.bodies.push(body);
    }
}

impl Shard {
    /// Takes back page I/O that the view no longer allows: what was not issued yet must not go to
    /// a member that is lost, nor to the one that took its slot. Says whether there was any.
    pub(super) fn recall(&mut self) -> bool {
        let view = self.view.clone();
        let members = self.geometry.members();
        let allowed = |io: &PageIo, row: u64| match io.op {
            PageOp::Read => view.readable(usize::from(io.slot), row),
            PageOp::Write { .. } | PageOp::Zero { .. } => {
                view.takes(view.bay(usize::from(io.slot)), row, members)
            }
        };
        let mut recalled = false;
        let mut at = 0;
        while at < self.page_ios.len() {
            let io = &self.page_ios[at];
            if allowed(io, self.cache[io.stripe].row) {
                at += 1;
                continue;
            }
            recalled = true;
            let PageIo {
                stripe: index,
                slot,
                role,
                page,
                ..
            } = self.page_ios.swap_remove(at);
            let stripe = &mut self.cache[index];
            if let Page::Into(page) = page {
                stripe.spare.push(page);
                stripe.unread |= 1 << role;
            } else {
                stripe.not_stored(view.bay(usize::from(slot)), members, &self.settled);
            }
            self.page_ended(index);
        }
        recalled
    }

    /// One page I/O of a stripe is over: with the last one, its round goes on.
    fn page_ended(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        stripe.in_flight -= 1;
        if stripe.in_flight == 0 {
            match stripe.phase {
                Phase::Reading => self.all_read(at),
                Phase::Writing => self.all_written(at),
                phase => unreachable!("no I/O is in flight for a stripe that is {phase:?}"),
            }
        }
    }

    /// Merges the page I/O of this turn into member requests.
    pub(super) fn issue(&mut self) {
        if self.page_ios.is_empty() {
            return;
        }
        let merge = self.merge;
        let mut pages = std::mem::take(&mut self.page_ios);
        pages.sort_unstable_by_key(|p| (p.slot, p.op, p.number));
        let stripe_bytes = self.geometry.stripe_bytes();
        let blocks_per_page = stripe_bytes / self.block_bytes;
        let per_row = self.geometry.stripes_per_row();
        let across = self.batching.scope > BatchScope::Row;
        let mut pages_left = pages.drain(..).peekable();
        while let Some(first) = pages_left.next() {
            let mut io = Pages {
                bay: self.view.bay(usize::from(first.slot)) as u8,
                slot: first.slot,
                op: first.op,
                parts: self.lists.parts.pop().unwrap_or_default(),
            };
            let mut into = self.lists.into.pop().unwrap_or_default();
            let mut from = self.lists.from.pop().unwrap_or_default();
            let (number, mut page, alone) = (first.number, first.page, first.alone);
            io.parts.push((first.stripe, first.role));
            loop {
                match page {
                    Page::None => {}
                    Page::Into(buf) => into.push(buf),
                    Page::From(buf) => {
                        let joined = from.last_mut().is_some_and(|last| last.join(&buf));
                        if !joined {
                            from.push(buf);
                        }
                    }
                }
                let follows = |p: &PageIo| {
                    p.slot == io.slot
                        && p.op == io.op
                        && p.number == number + io.parts.len() as u64
                        && (across || !p.number.is_multiple_of(per_row))
                        && !p.alone
                        && !alone
                        && io.parts.len() < merge
                };
                let Some(next) = pages_left.next_if(follows) else {
                    break;
                };
                io.parts.push((next.stripe, next.role));
                page = next.page;
            }
            let (op, data) = match io.op {
                PageOp::Read => (Op::Read, Data::Read(std::mem::take(&mut into))),
                PageOp::Write { fua } => {
                    (Op::Write { fua }, Data::Write(std::mem::take(&mut from)))
                }
                PageOp::Zero { fua, deallocate } => {
                    (Op::WriteZeroes { fua, deallocate }, Data::None)
                }
            };
            self.lists.keep_into(into);
            self.lists.keep_from(from);
            let (bay, count) = (usize::from(io.bay), io.parts.len() as u32);
            self.counters.member_requests += 1;
            self.counters.member_pages += u64::from(count);
            self.counters.member_bytes += u64::from(count * stripe_bytes);
            let request = Request {
                token: self.ios.insert(MemberIo::Pages(io)) as u64,
                op,
                lba: number * u64::from(blocks_per_page),
                blocks: count * blocks_per_page,
                data,
            };
            self.out.requests.push((bay, request));
        }
        drop(pages_left);
        self.page_ios = pages;
    }

    /// A member request of this shard has ended.
    pub(super) fn member_done(&mut self, token: u64, status: Status, data: Data) {
        let mut io = match self.ios.remove(token as usize) {
            MemberIo::Pages(io) => io,
            MemberIo::Batch { bay, key } => {
                if let Data::Write(written) = data {
                    self.lists.keep_from(written);
                }
                return self.batch_request_done(key, usize::from(bay), status);
            }
        };
        if status != Status::Ok && io.parts.len() > 1 {
            return self.split(io, data);
        }
        let bay = usize::from(io.bay);
        if status == Status::Gone {
            self.out.failures.push((bay, status));
        }
        let mut list = match data {
            Data::Read(buffers) => buffers,
            Data::Write(written) => {
                self.lists.keep_from(written);
                SegmentsMut::new()
            }
            Data::None => SegmentsMut::new(),
        };
        let mut buffers = list.drain(..);
        for &(at, role) in &io.parts {
            let stripe = &mut self.cache[at];
            match io.op {
                PageOp::Read => {
                    let page = buffers.next().expect("a page came back for each part");
                    if status == Status::Ok {
                        stripe.pages[usize::from(role)] = Some(page.freeze());
                    } else {
                        stripe.spare.push(page);
                        stripe.unread |= 1 << role;
                        // A member that is gone is not written to again.
                        stripe.heal |= u64::from(status == Status::MediumError) << role;
                    }
                }
                PageOp::Write { .. } | PageOp::Zero { .. } => {
                    if status != Status::Ok {
                        stripe.not_stored(bay, self.geometry.members(), &self.settled);
                        if status == Status::WriteFault && self.logs & (1 << bay) != 0 {
                            self.out.bad.push((bay, stripe.number));
                        } else {
                            self.out.failures.push((bay, status));
                        }
                    }
                }
            }
            self.page_ended(at);
        }
        drop(buffers);
        self.lists.keep_into(list);
        if io.parts.spilled() {
            io.parts.clear();
            self.lists.parts.push(io.parts);
        }
    }

    /// Issues the pages of a failed request one by one.
    fn split(&mut self, io: Pages, data: Data) {
        let mut buffers = match data {
            Data::Read(buffers) => buffers,
            Data::None | Data::Write(_) => SegmentsMut::new(),
        };
        let mut buffers = buffers.drain(..);
        for &(at, role) in &io.parts {
            let stripe = &self.cache[at];
            let page = match io.op {
                PageOp::Read => Page::Into(buffers.next().expect("one page for each part")),
                PageOp::Write { .. } => Page::From(stripe.stored(usize::from(role))),
                PageOp::Zero { .. } => Page::None,
            };
            self.page_ios.push(PageIo {
                slot: io.slot,
                op: io.op,
                number: stripe.number,
                stripe: at,
                role,
                page,
                alone: true,
            });
        }
    }
}
