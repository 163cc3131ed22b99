//! From pages to member requests and back: pages of one member that follow one another, with the
//! same operation, become one request.

use smallvec::{SmallVec, smallvec};

use super::batch::Body;
use super::batching::BatchScope;
use super::gather::{Run, push};
use super::lanes::Lane;
use super::patch::PATCH;
use super::shard::Shard;
use super::stripe::Phase;
use super::swath::SwathIo;
use crate::bdev::{Data, Op, Request, Status};
use crate::memory::{Buf, BufMut, Segments, SegmentsMut};

/// What a page I/O does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// How many there are.
    pub(super) const KINDS: usize = 7;

    /// Its place among all operations, less than [`PageOp::KINDS`].
    pub(super) fn rank(self) -> usize {
        match self {
            PageOp::Read => 0,
            PageOp::Write { fua } => 1 + usize::from(fua),
            PageOp::Zero { fua, deallocate } => 3 + 2 * usize::from(fua) + usize::from(deallocate),
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

/// A mark in the token of a member request: it is one page of a stripe, whose place in the cache the rest of
/// the token says, with its role above that.
const PAGE: u64 = 1 << 59;

/// A request to a member, in flight.
#[derive(Debug)]
pub(super) enum MemberIo {
    /// Pages of stripes that are worked on each by itself.
    Pages(Pages),
    /// All of a batch that goes to one bay.
    Batch { bay: u8, key: u32 },
    /// Stretches of a swath.
    Swath(SwathIo),
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
    pub(super) into: Vec<SegmentsMut>,
    pub(super) from: Vec<Segments>,
    parts: Vec<SmallVec<[(u32, u8); 4]>>,
    pub(super) runs: Vec<Run>,
    pub(super) bodies: Vec<Body>,
}

/// A list for so many entries: one that outgrew its inline room before, if this one will.
fn spare<A: smallvec::Array>(kept: &mut Vec<SmallVec<A>>, entries: usize) -> SmallVec<A> {
    match entries > A::size() {
        true => kept.pop().unwrap_or_default(),
        false => SmallVec::new(),
    }
}

impl Lists {
    pub(super) fn keep_into(&mut self, mut list: SegmentsMut) {
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
        if !std::mem::take(&mut self.doubted) {
            return false;
        }
        let view = self.view.clone();
        let members = self.geometry.members();
        let allowed = |io: &PageIo, row: u64| match io.op {
            PageOp::Read => view.readable(usize::from(io.slot), row),
            PageOp::Write { .. } | PageOp::Zero { .. } => {
                view.takes(view.bay(usize::from(io.slot)), row, members)
            }
        };
        let cache = &self.cache;
        let taken = self.lanes.take_if(|io| !allowed(io, cache[io.stripe].row));
        let recalled = !taken.is_empty();
        for PageIo {
            stripe: index,
            slot,
            role,
            page,
            ..
        } in taken
        {
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

    /// Makes member requests of the page I/O of this turn: one of those that follow one another.
    pub(super) fn issue(&mut self) {
        let per_row = self.geometry.stripes_per_row();
        let across = self.batching.scope > BatchScope::Row;
        while let Some(mut lane) = self.lanes.next() {
            while let Some(count) = lane.follow(self.merge, |number| {
                across || !number.is_multiple_of(per_row)
            }) {
                match count {
                    1 => self.ask_for_page(lane.take()),
                    _ => self.ask_for_pages(&mut lane, count),
                }
            }
            self.lanes.give_back(lane);
        }
    }

    /// Makes a request to a member of one page. Its token says whose it is, so nothing is kept of it here.
    fn ask_for_page(&mut self, io: PageIo) {
        let (op, data) = match (io.op, io.page) {
            (PageOp::Read, Page::Into(page)) => (Op::Read, Data::Read(smallvec![page])),
            (PageOp::Write { fua }, Page::From(page)) => {
                (Op::Write { fua }, Data::Write(smallvec![page]))
            }
            (PageOp::Zero { fua, deallocate }, Page::None) => {
                (Op::WriteZeroes { fua, deallocate }, Data::None)
            }
            (op, page) => unreachable!("a {op:?} does not come with {page:?}"),
        };
        let token = PAGE | u64::from(io.role) << 32 | u64::from(io.stripe);
        self.ask(
            self.view.bay(usize::from(io.slot)),
            token,
            op,
            (io.number, 1),
            data,
        );
    }

    /// Makes a request to a member of the next pages of a lane, which follow one another there.
    fn ask_for_pages(&mut self, lane: &mut Lane, count: usize) {
        let mut pages = (0..count).map(|_| lane.take()).peekable();
        let first = pages.peek().expect("there is one at least");
        let (slot, op, number) = (first.slot, first.op, first.number);
        let mut io = Pages {
            bay: self.view.bay(usize::from(slot)) as u8,
            slot,
            op,
            parts: spare(&mut self.lists.parts, count),
        };
        let (op, mut data) = match op {
            PageOp::Read => {
                let into = spare(&mut self.lists.into, count);
                (Op::Read, Data::Read(into))
            }
            PageOp::Write { fua } => {
                let from = spare(&mut self.lists.from, count);
                (Op::Write { fua }, Data::Write(from))
            }
            PageOp::Zero { fua, deallocate } => (Op::WriteZeroes { fua, deallocate }, Data::None),
        };
        for page in pages {
            io.parts.push((page.stripe, page.role));
            match (&mut data, page.page) {
                (Data::Read(into), Page::Into(buf)) => into.push(buf),
                (Data::Write(from), Page::From(buf)) => push(from, buf),
                (Data::None, Page::None) => {}
                (_, page) => unreachable!("a {op:?} does not come with {page:?}"),
            }
        }
        let bay = usize::from(io.bay);
        let token = self.ios.insert(MemberIo::Pages(io)) as u64;
        self.ask(bay, token, op, (number, count as u32), data);
    }

    /// Makes a request to the member in a bay of so many pages from that of the stripe `number` on.
    pub(super) fn ask(
        &mut self,
        bay: usize,
        token: u64,
        op: Op,
        (number, count): (u64, u32),
        data: Data,
    ) {
        let stripe_bytes = self.geometry.stripe_bytes();
        let blocks_per_page = stripe_bytes / self.block_bytes;
        self.counters.member_requests += 1;
        self.counters.member_pages += u64::from(count);
        self.counters.member_bytes += u64::from(count * stripe_bytes);
        let request = Request {
            token,
            op,
            lba: number * u64::from(blocks_per_page),
            blocks: count * blocks_per_page,
            data,
        };
        self.out.requests.push((bay, request));
    }

    /// A member request of this shard has ended.
    pub(super) fn member_done(&mut self, bay: usize, token: u64, status: Status, data: Data) {
        if token & PAGE != 0 {
            let (at, role) = (token as u32, (token >> 32) as u8);
            if status == Status::Gone {
                self.out.news.failures.push((bay, status));
            }
            let read = match data {
                Data::Read(mut page) => page.pop(),
                Data::Write(_) | Data::None => None,
            };
            return self.page_done(bay, (at, role), read, status);
        }
        if token & PATCH != 0 {
            return self.patch_request_done(bay, token, status, data);
        }
        let mut io = match self.ios.remove(token as usize) {
            MemberIo::Pages(io) => io,
            MemberIo::Batch { bay, key } => {
                if let Data::Write(written) = data {
                    self.lists.keep_from(written);
                }
                return self.batch_request_done(key, usize::from(bay), status);
            }
            MemberIo::Swath(io) => return self.swath_request_done(io, status, data),
        };
        if status != Status::Ok {
            return self.split(io, data);
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
        for &part in &io.parts {
            let read = (io.op == PageOp::Read)
                .then(|| buffers.next().expect("a page came back for each part"));
            self.page_done(bay, part, read, status);
        }
        drop(buffers);
        self.lists.keep_into(list);
        if io.parts.spilled() {
            io.parts.clear();
            self.lists.parts.push(io.parts);
        }
    }

    /// A page of a stripe was read into `read`, if that is there, or stored, by the member in a bay.
    fn page_done(
        &mut self,
        bay: usize,
        (at, role): (u32, u8),
        read: Option<BufMut>,
        status: Status,
    ) {
        let stripe = &mut self.cache[at];
        match (read, status) {
            (Some(page), Status::Ok) => stripe.pages[usize::from(role)] = Some(page.freeze()),
            (Some(page), _) => {
                stripe.spare.push(page);
                stripe.unread |= 1 << role;
                // A member that is gone is not written to again.
                stripe.heal |= u64::from(status == Status::MediumError) << role;
            }
            (None, Status::Ok) => {}
            (None, _) => {
                stripe.not_stored(bay, self.geometry.members(), &self.settled);
                if status == Status::WriteFault && self.logs & (1 << bay) != 0 {
                    self.out.news.bad.push((bay, stripe.number));
                } else {
                    self.out.news.failures.push((bay, status));
                }
            }
        }
        self.page_ended(at);
    }

    /// Issues the pages of a failed request one by one.
    fn split(&mut self, io: Pages, data: Data) {
        let mut buffers = match data {
            Data::Read(buffers) => buffers,
            Data::None | Data::Write(_) => SegmentsMut::new(),
        };
        let mut buffers = buffers.drain(..);
        // It was asked for under an earlier view.
        self.doubted = true;
        for &(at, role) in &io.parts {
            let stripe = &self.cache[at];
            let page = match io.op {
                PageOp::Read => Page::Into(buffers.next().expect("one page for each part")),
                PageOp::Write { .. } => Page::From(stripe.stored(usize::from(role)).clone()),
                PageOp::Zero { .. } => Page::None,
            };
            self.lanes.push(PageIo {
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
