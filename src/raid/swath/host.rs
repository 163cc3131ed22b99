//! What a host writes whole: parity is the XOR of what it writes, and nothing is read.

use smallvec::SmallVec;

use super::{Cause, Stage, Stretch, Swath};
use crate::bdev::{Data, Op};
use crate::memory::{Buf, Segments};
use crate::raid::batch::Side;
use crate::raid::batching::BatchScope;
use crate::raid::gather::push;
use crate::raid::payload;
use crate::raid::shard::Shard;
use crate::xor;

/// Payload of a stretch, by role.
type Columns = SmallVec<[Segments; 16]>;

impl Shard {
    /// Takes the next stretch of a write, if that is of all of it. Returns its bytes; `None` where it is to be
    /// done stripe by stripe.
    pub(in crate::raid) fn take_stretch(&mut self, at: u32, admitted: u64) -> Option<u64> {
        let job = &self.jobs[at as usize].job;
        let geometry = self.geometry;
        let row = geometry.place(job.offset + admitted).row;
        if !geometry.covers_row(job.offset, job.len, row) {
            return None;
        }
        // The stripes of a row come one after another, all roles of each.
        let start = row * geometry.row_bytes() - job.offset;
        let stripe_bytes = u64::from(geometry.stripe_bytes());
        let index = (admitted - start) / (stripe_bytes * geometry.data() as u64);
        let first = row * geometry.stripes_per_row() + index;
        let at_payload = start + index * stripe_bytes;
        let stripes = self.swaths.stripes();
        let fits = self.swaths.begins_at(first)
            && self.is_whole()
            && self.is_in_pages(at, at_payload as usize)
            && !self.meets(first, first + stripes, job.reach);
        if !fits || !self.may_write_row(row) || !self.set_apart(first, stripes as usize) {
            return None;
        }
        self.writes_row(row);
        self.swaths.gathered.push(Stretch {
            first,
            row,
            parity: geometry.parity_member(row),
            cause: Cause::Host {
                job: at,
                at: at_payload as u32,
            },
        });
        Some(stripes * stripe_bytes * geometry.data() as u64)
    }

    /// Whether all members are there and hold all that they should, and parity matches.
    pub(in crate::raid) fn is_whole(&self) -> bool {
        self.view.is_whole() && self.settled.bad.is_none()
    }

    /// Whether the payload of a stretch, from this byte of it on, is cut nowhere but between pages.
    fn is_in_pages(&self, job: u32, at: usize) -> bool {
        let Data::Write(segments) = &self.jobs[job as usize].job.data else {
            return false;
        };
        let page = self.geometry.stripe_bytes() as usize;
        let len = self.swaths.stripes() as usize * page;
        let chunk = self.geometry.chunk_bytes() as usize;
        segments.len() == 1
            || (0..self.geometry.data())
                .all(|role| payload::is_cut_at(segments, at + role * chunk, len, page))
    }

    /// Whether the stripes `first..end` are at an edge where another owner's may become one batch with
    /// them: that is for stripes.
    fn meets(&self, first: u64, end: u64, reach: (bool, bool)) -> bool {
        if self.batching.scope < BatchScope::Owners {
            return false;
        }
        let links = self.crossing.links();
        let waits = !self.batching.join_wait.is_zero();
        let before = || reach.0 && waits || links.seek(first, Side::Before).is_some();
        let after = || reach.1 && waits || links.seek(end, Side::After).is_some();
        self.geometry.is_edge(first) && before() || self.geometry.is_edge(end) && after()
    }

    /// Hands stretches that hosts write whole to the members.
    pub(super) fn write_swath(&mut self, stretches: SmallVec<[Stretch; 4]>) {
        // The view may have changed since they were taken.
        if !self.is_whole() {
            let again = stretches.into_iter().map(|stretch| (stretch, 0));
            return self.swaths.again.extend(again);
        }
        let stripes = self.swaths.stripes() * stretches.len() as u64;
        self.counters.full_writes += stripes;
        self.counters.batches += 1;
        self.counters.batched_stripes += stripes;
        let mut fua = false;
        let mut drafts = std::mem::take(&mut self.swaths.drafts);
        for stretch in &stretches {
            let Cause::Host { job, at } = stretch.cause else {
                unreachable!("a window does not write whole rows");
            };
            fua |= self.jobs[job as usize].job.op.is_fua();
            let columns = self.columns(job, at as usize);
            self.sum(&columns);
            for (role, column) in columns.into_iter().enumerate() {
                let slot = self.geometry.member_beside(stretch.parity, role);
                append(&mut drafts[slot], column);
            }
            let draft = &mut drafts[stretch.parity];
            if draft.is_empty() {
                *draft = self.lists.from.pop().unwrap_or_default();
            }
            for page in self.swaths.parity.drain(..) {
                push(draft, page);
            }
        }
        let count = stretches.len();
        let key = self.swaths.under_way.insert(Swath {
            stretches,
            stage: Stage::Writing,
            pages: Vec::new(),
            in_flight: 0,
            failed: false,
        }) as u32;
        for (slot, draft) in drafts.iter_mut().enumerate() {
            let bytes = std::mem::take(draft);
            self.ask_for_swath(key, slot, (0, count), Op::Write { fua }, Data::Write(bytes));
        }
        self.swaths.drafts = drafts;
    }

    /// The payload of a stretch, from this byte of a job's on.
    fn columns(&self, job: u32, at: usize) -> Columns {
        let Data::Write(segments) = &self.jobs[job as usize].job.data else {
            unreachable!("a write has a payload");
        };
        let len = self.swaths.stripes() as usize * self.geometry.stripe_bytes() as usize;
        let chunk = self.geometry.chunk_bytes() as usize;
        (0..self.geometry.data())
            .map(|role| payload::slice(segments, at + role * chunk, len))
            .collect()
    }

    /// Leaves the parity of a stretch in the scratch.
    fn sum(&mut self, columns: &Columns) {
        let page_bytes = self.geometry.stripe_bytes() as usize;
        let mut pages: SmallVec<[_; 16]> = columns
            .iter()
            .map(|column| column.iter().flat_map(|part| part.chunks_exact(page_bytes)))
            .collect();
        // One list for all: to move one costs as much as to fill it.
        let mut sources = SmallVec::<[&[u8]; 16]>::new();
        for _ in 0..self.swaths.stripes() {
            let mut page = self.swaths.set_apart.pop().expect("one for each stripe");
            sources.clear();
            for pages in &mut pages {
                sources.push(pages.next().expect("as long as the stretch"));
            }
            xor::xor_into(&mut page, &sources);
            self.swaths.parity.push(page.freeze());
        }
    }

    /// A stretch that a job writes is on the members.
    pub(super) fn written_by_host(&mut self, stretch: &Stretch, job: u32) {
        self.wrote_row(stretch.row);
        self.jobs[job as usize].left -= 1;
        self.end_if_done(job);
    }
}

/// Adds what is for one slot to what is for it already.
fn append(draft: &mut Segments, column: Segments) {
    match draft.is_empty() {
        true => *draft = column,
        false => column.into_iter().for_each(|part: Buf| push(draft, part)),
    }
}
