//! One round of a stripe: survey what waits in it, plan, read, apply, write, finish.
//!
//! A round takes every fragment that has gathered. Fragments that come while it runs form the
//! next one.

use smallvec::SmallVec;

use super::batching::BatchScope;
use super::geometry::Mask;
use super::member_io::{Page, PageIo, PageOp};
use super::payload;
use super::plan::{Method, Plan, Situation};
use super::shard::Shard;
use super::stripe::{FragmentKind, Fragments, NONE, Phase, Reach, Stripe};
use crate::bdev::{Data, Op, Status};
use crate::memory::{Buf, BufMut};
use crate::xor;

impl Stripe {
    /// The bytes that a write of this round stores for a role.
    pub(super) fn stored(&self, role: usize) -> &Buf {
        let page = self.fresh[role].as_ref().or(self.pages[role].as_ref());
        page.expect("what is written is at hand")
    }
}

/// The roles of a mask, ascending.
pub(super) fn roles(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let role = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(role)
    })
}

/// What a survey of the round's fragments finds.
struct Survey {
    situation: Situation,
    /// Pages to compose, because no single payload holds them whole.
    composed: u32,
    /// Parity that does not match is to be mended.
    repair: bool,
}

impl Shard {
    /// Begins a round, or waits for pages.
    pub(super) fn begin(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        debug_assert!(matches!(stripe.phase, Phase::Ready), "{:?}", stripe.phase);
        if stripe.solo {
            if stripe.round.is_empty() {
                let first = stripe.pending.first;
                stripe.pending.first = self.fragments[first as usize].next;
                if stripe.pending.first == NONE {
                    stripe.pending.last = NONE;
                    stripe.solo = false;
                }
                self.fragments[first as usize].next = NONE;
                stripe.round = Fragments { first, last: first };
            }
        } else if stripe.round.is_empty() {
            stripe.round = std::mem::replace(&mut stripe.pending, Fragments::EMPTY);
        } else if !stripe.pending.is_empty() {
            // It starved, and more came meanwhile.
            let more = std::mem::replace(&mut stripe.pending, Fragments::EMPTY);
            self.fragments[stripe.round.last as usize].next = more.first;
            stripe.round.last = more.last;
        }
        if !self.view.online {
            return self.fail_round(at, Status::Offline);
        }
        if self.window.is_some() && self.is_checked(at) {
            // What members hold is looked at, not what is remembered of it.
            self.cache[at].forget();
        }
        let survey = self.look(at);
        let writes = survey.situation.full | survey.situation.part != 0;
        if writes && !self.may_write(at) {
            return;
        }
        // It may have starved on its way to read again.
        let again = self.cache[at].unread != 0;
        self.proceed(at, &survey, again);
    }

    /// Every read of the round has ended, well or not.
    pub(super) fn all_read(&mut self, at: u32) {
        if !self.view.online {
            return self.fail_round(at, Status::Offline);
        }
        if self.cache[at].unread == 0 {
            return self.apply(at);
        }
        let survey = self.look(at);
        self.proceed(at, &survey, true);
    }

    /// Surveys a round, and cuts it down to what may be written at once.
    fn look(&mut self, at: u32) -> Survey {
        let survey = self.survey(at);
        match self.narrow(at, &survey.situation) {
            true => self.survey(at),
            false => survey,
        }
    }

    /// Plans, takes pages, and reads what is to be read. A round that is at it `again`, after a
    /// read error, may use the pages kept back for that.
    fn proceed(&mut self, at: u32, survey: &Survey, again: bool) {
        let Some(plan) = survey.situation.plan() else {
            return self.hopeless(at);
        };
        if plan.read != 0 && !again && !self.charge(at) {
            return;
        }
        let pages = plan.read.count_ones()
            + u32::from(plan.rebuild.is_some())
            + u32::from(plan.method != Method::None)
            + u32::from(self.ppl && plan.logs())
            + u32::from(survey.situation.verify)
            + survey.composed;
        if !self.reserve(at, pages as usize, again) {
            self.counters.starved += 1;
            let stripe = &mut self.cache[at];
            stripe.phase = Phase::Starved;
            if again {
                // It holds pages already, so it must never wait for one that waits for those: it
                // goes first, and takes what is kept back for its like.
                self.starved.push_front(at);
            } else {
                // Who waits for pages holds none.
                stripe.forget();
                self.starved.push_back(at);
            }
            return;
        }
        let wanted = survey.situation.cached & (survey.situation.part | survey.situation.wanted);
        self.counters.cache_hits += u64::from(wanted.count_ones());
        self.counters.pages_read += u64::from(plan.read.count_ones());
        let stripe = &mut self.cache[at];
        stripe.plan = Some(plan);
        stripe.verify = match (survey.situation.verify, survey.repair) {
            (false, _) => None,
            (true, repair) => Some(repair),
        };
        if plan.read == 0 {
            return self.apply(at);
        }
        stripe.phase = Phase::Reading;
        for role in roles(plan.read) {
            let page = stripe.spare.pop().expect("reserved above");
            stripe.in_flight += 1;
            self.lanes.push(PageIo {
                slot: self.geometry.member_beside(stripe.parity, role) as u8,
                op: PageOp::Read,
                number: stripe.number,
                stripe: at,
                role: role as u8,
                page: Page::Into(page),
                alone: false,
            });
        }
    }

    /// Sets pages aside for a round, at the cost of what idle stripes have cached. All or none.
    fn reserve(&mut self, at: u32, pages: usize, again: bool) -> bool {
        let wanted = pages.saturating_sub(self.cache[at].spare.len());
        let kept_back = match again {
            true => 0,
            false => Self::round_pages(self.geometry.members()),
        };
        if !self.cache.make_room(wanted + kept_back) {
            return false;
        }
        for _ in 0..wanted {
            let page = self.cache.pages.take().expect("counted above");
            self.cache[at].spare.push(page);
        }
        true
    }

    /// Whether a fragment of the round wants to look at parity.
    fn is_checked(&self, at: u32) -> bool {
        let mut next = self.cache[at].round.first;
        std::iter::from_fn(|| {
            let f = (next != NONE).then(|| &self.fragments[next as usize])?;
            next = f.next;
            Some(f.kind)
        })
        .any(|kind| matches!(kind, FragmentKind::Check | FragmentKind::Repair))
    }

    /// Looks at every fragment of the round.
    fn survey(&mut self, at: u32) -> Survey {
        let stripe_bytes = self.geometry.stripe_bytes();
        let chunk_bytes = self.geometry.chunk_bytes();
        let granule = (stripe_bytes / 64).max(512);
        let all = u64::MAX >> (64 - stripe_bytes / granule);
        let stripe = &mut self.cache[at];
        let row = stripe.row;
        let untrusted = self.view.unreadable(&self.geometry, row);
        let [mut touched, mut full, mut wanted, mut composed]: [Mask; 4] = [0; 4];
        let (mut verify, mut repair) = (false, false);
        let mut next = stripe.round.first;
        while next != NONE {
            let f = &self.fragments[next as usize];
            let role = usize::from(f.role);
            let bit: Mask = 1 << role;
            match f.kind {
                FragmentKind::Read | FragmentKind::Compare => wanted |= bit & !full,
                FragmentKind::CompareAndWrite => {
                    wanted |= bit & !full;
                    if touched & bit == 0 {
                        stripe.covered[role] = 0;
                    }
                    touched |= bit;
                    composed |= bit;
                }
                FragmentKind::Write | FragmentKind::Zero if f.len == stripe_bytes => {
                    let payload = match (f.kind, &self.jobs[f.job as usize].job.data) {
                        (FragmentKind::Write, Data::Write(segments)) => Some(segments),
                        _ => None,
                    };
                    for (role, at) in f.blocks(chunk_bytes) {
                        let bit: Mask = 1 << role;
                        touched |= bit;
                        full |= bit;
                        let scattered =
                            payload.is_some_and(|p| !payload::is_contiguous(p, at, f.len as usize));
                        composed |= bit * u64::from(scattered);
                    }
                }
                FragmentKind::Write | FragmentKind::Zero => {
                    if touched & bit == 0 {
                        stripe.covered[role] = 0;
                    }
                    touched |= bit;
                    let first = f.start.div_ceil(granule);
                    let end = (f.start + f.len) / granule;
                    if end > first {
                        stripe.covered[role] |= (u64::MAX >> (64 - (end - first))) << first;
                    }
                    full |= bit * u64::from(stripe.covered[role] == all);
                    composed |= bit;
                }
                FragmentKind::Rebuild => {
                    let slot = self.geometry.member(row, role);
                    if self.view.writable(slot, row) && untrusted & bit != 0 {
                        wanted |= bit;
                        stripe.heal |= bit;
                    }
                }
                FragmentKind::Copy => {
                    if self.view.mirrors(self.geometry.member(row, role), row) {
                        wanted |= bit;
                        stripe.copy |= bit;
                    }
                }
                FragmentKind::Check | FragmentKind::Repair => {
                    wanted |= self.geometry.data_mask() << 1 | 1;
                    verify = true;
                    repair |= f.kind == FragmentKind::Repair;
                }
            }
            next = f.next;
        }
        Survey {
            situation: Situation {
                data: self.geometry.data(),
                full,
                part: touched & !full,
                wanted,
                cached: stripe.cached(),
                unreadable: untrusted | stripe.unread,
                parity_writable: self.view.writable(stripe.parity, row),
                verify,
            },
            composed: composed.count_ones(),
            repair,
        }
    }

    /// All old bytes are at hand: run the fragments in order, compute parity, store.
    fn apply(&mut self, at: u32) {
        self.discharge(at);
        if self.only_reads(at) {
            return self.answer_reads(at);
        }
        let stripe_bytes = self.geometry.stripe_bytes() as usize;
        let chunk_bytes = self.geometry.chunk_bytes();
        let data = self.geometry.data();
        let stripe = &mut self.cache[at];
        let plan = stripe.plan.expect("a round that reads has a plan");
        if let Some(lost) = plan.rebuild
            && stripe.pages[lost].is_none()
        {
            let mut page = stripe.spare.pop().expect("reserved with the plan");
            let others = stripe.pages.iter().enumerate().filter(|&(k, _)| k != lost);
            let sources: SmallVec<[&[u8]; 16]> = others
                .map(|(_, page)| &page.as_ref().expect("the plan read all others")[..])
                .collect();
            xor::xor_into(&mut page, &sources);
            drop(sources);
            stripe.pages[lost] = Some(page.freeze());
            self.counters.reconstructed += 1;
        }
        if let (Some(repair), None) = (stripe.verify.take(), plan.rebuild) {
            let mut page = stripe.spare.pop().expect("reserved with the plan");
            if !matches(stripe, &mut page) {
                if repair {
                    stripe.pages[data] = Some(page.freeze());
                    stripe.heal |= 1 << data;
                }
                self.mismatched();
            }
        }
        let stripe = &mut self.cache[at];
        let mut zeroed: Mask = 0;
        let mut fua = false;
        let mut deallocate = true;
        let mut next = stripe.round.first;
        while next != NONE {
            let f = &self.fragments[next as usize];
            next = f.next;
            if f.job == NONE {
                continue;
            }
            let (from, to) = (f.start as usize, (f.start + f.len) as usize);
            let len = f.len as usize;
            let owned = &mut self.jobs[f.job as usize];
            fua |= owned.job.op.is_fua();
            stripe.streams |= owned.job.streams;
            stripe.reach.before |= owned.job.reach.0;
            stripe.reach.after |= owned.job.reach.1;
            for (role, start) in f.blocks(chunk_bytes) {
                let bit: Mask = 1 << role;
                let draft = &mut self.drafts[role];
                match (f.kind, &mut owned.job.data) {
                    (FragmentKind::Read, Data::Read(segments)) => {
                        let bytes = current(stripe, draft.as_ref(), role);
                        payload::fill(segments, start, &bytes[from..to]);
                    }
                    (FragmentKind::Write, Data::Write(segments)) => {
                        let whole = (len == stripe_bytes)
                            .then(|| payload::contiguous(segments, start, len))
                            .flatten();
                        zeroed &= !bit;
                        if let Some(buf) = whole {
                            stripe.spare.extend(draft.take());
                            stripe.fresh[role] = Some(buf);
                        } else {
                            let page = compose(stripe, draft, role);
                            payload::stretches(segments, start, len, |i, bytes| {
                                page[from + i..from + i + bytes.len()].copy_from_slice(bytes);
                            });
                        }
                    }
                    (FragmentKind::Zero, _) => {
                        deallocate &= matches!(
                            owned.job.op,
                            Op::WriteZeroes {
                                deallocate: true,
                                ..
                            }
                        );
                        if len == stripe_bytes {
                            zeroed |= bit;
                            stripe.spare.extend(draft.take());
                            stripe.fresh[role] = Some(self.zero.clone());
                        } else {
                            zeroed &= !bit;
                            compose(stripe, draft, role)[from..to].fill(0);
                        }
                    }
                    (
                        kind @ (FragmentKind::Compare | FragmentKind::CompareAndWrite),
                        Data::Write(segments),
                    ) => {
                        let bytes = &current(stripe, draft.as_ref(), role)[from..to];
                        let mut equal = true;
                        payload::stretches(segments, start, len, |i, expected| {
                            equal &= bytes[i..i + expected.len()] == *expected;
                        });
                        if !equal {
                            if owned.status == Status::Ok {
                                owned.status = Status::Miscompare;
                            }
                        } else if kind == FragmentKind::CompareAndWrite {
                            zeroed &= !bit;
                            let page = compose(stripe, draft, role);
                            let second = owned.job.len as usize;
                            payload::stretches(segments, second + start, len, |i, bytes| {
                                page[from + i..from + i + bytes.len()].copy_from_slice(bytes);
                            });
                        }
                    }
                    (kind, data) => unreachable!("a {kind:?} does not come with {data:?}"),
                }
            }
        }
        for (role, draft) in self.drafts.iter_mut().enumerate() {
            if let Some(page) = draft.take() {
                stripe.fresh[role] = Some(page.freeze());
                stripe.own |= 1 << role;
            }
        }
        let mut dirty: Mask = 0;
        for role in 0..data {
            dirty |= Mask::from(stripe.fresh[role].is_some()) << role;
        }
        let all_zero = zeroed == self.geometry.data_mask();
        if dirty != 0 {
            if plan.method == Method::None {
                // Parity is not kept, so what is cached of it is not true any more.
                stripe.pages[data] = None;
                self.counters.parityless_writes += 1;
            } else {
                if all_zero {
                    stripe.fresh[data] = Some(self.zero.clone());
                } else {
                    let page = if self.ppl && dirty != self.geometry.data_mask() {
                        let mut page = stripe.spare.pop().expect("reserved with the plan");
                        let partial = add_up(stripe, plan, dirty, 0);
                        complete_parity(stripe, dirty, &partial, &mut page);
                        stripe.partial = Some(partial.freeze());
                        page
                    } else {
                        add_up(stripe, plan, dirty, dirty)
                    };
                    stripe.fresh[data] = Some(page.freeze());
                    stripe.own |= 1 << data;
                }
                dirty |= 1 << data;
                match plan.method {
                    Method::Full => self.counters.full_writes += 1,
                    Method::Reconstruct => self.counters.reconstruct_writes += 1,
                    Method::Modify => self.counters.modify_writes += 1,
                    Method::None => unreachable!("handled above"),
                }
            }
        }
        stripe.dirty = dirty;
        stripe.op = if all_zero {
            PageOp::Zero { fua, deallocate }
        } else {
            PageOp::Write { fua }
        };
        self.log(at);
    }

    /// Issues the writes of a round: what is new, and what is to be healed or rebuilt. A stripe
    /// that is written whole is left to the batches of this turn.
    pub(super) fn store(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        let op = stripe.op;
        let row = stripe.row;
        let known = stripe.cached();
        stripe.heal &= known | stripe.dirty;
        let whole = stripe.dirty == (2 << self.geometry.data()) - 1;
        if whole && self.batching.scope > BatchScope::Off {
            stripe.phase = Phase::Batched;
            self.gathered.push(at);
            return;
        }
        stripe.phase = Phase::Writing;
        let members = self.geometry.members();
        let copied = stripe.copy & known;
        for role in roles(stripe.dirty | stripe.heal | copied) {
            let slot = self.geometry.member_beside(stripe.parity, role);
            let changed = (stripe.dirty | stripe.heal) & (1 << role) != 0;
            let mut page = |to: usize| {
                let page = match op {
                    PageOp::Zero { .. } => Page::None,
                    PageOp::Read | PageOp::Write { .. } => Page::From(stripe.stored(role).clone()),
                };
                stripe.in_flight += 1;
                self.lanes.push(PageIo {
                    slot: to as u8,
                    op,
                    number: stripe.number,
                    stripe: at,
                    role: role as u8,
                    page,
                    alone: false,
                });
            };
            if self.view.mirrors(slot, row) {
                page(members);
            }
            if !changed {
                continue;
            }
            if self.view.writable(slot, row) {
                page(slot);
            } else {
                stripe.not_stored(self.view.bay(slot), members, &self.settled);
            }
        }
        if stripe.in_flight == 0 {
            self.all_written(at);
        }
    }

    /// Every write of the round has ended, well or not.
    pub(super) fn all_written(&mut self, at: u32) {
        if !self.view.online {
            return self.fail_round(at, Status::Offline);
        }
        self.settle(at);
    }

    /// The round is stored: keep what may be cached, and answer.
    pub(super) fn finish(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        // What was read in vain and written again without an error is corrected.
        let healed = roles(stripe.heal & stripe.unread)
            .filter(|&k| {
                let bay = self.view.bay(self.geometry.member(stripe.row, k));
                stripe.unwritten & (1 << bay) == 0
            })
            .count();
        self.counters.corrected_reads += healed as u64;
        // What is written whole is hardly written again soon. It is not kept, so that its pages, which are in
        // the core's cache still, are the next stripe's.
        let plan = stripe.plan.expect("a round that is stored has a plan");
        let keeps = plan.method != Method::Full;
        // A host's buffer has to be copied to be kept, which pays where the stripe is come back to.
        let returns = stripe.streams || stripe.cached() & !plan.learns() != 0;
        for role in roles(self.cache[at].dirty) {
            let stripe = &mut self.cache[at];
            let fresh = stripe.fresh[role].take().expect("dirty means fresh");
            let old = stripe.pages[role].take();
            let own = stripe.own & (1 << role) != 0;
            if keeps && returns && !own {
                // The host's buffer goes back to the host; a page of ours that held the old bytes
                // may as well hold the new ones.
                stripe.pages[role] = old.and_then(|old| old.try_into_mut().ok()).map(|mut page| {
                    page.copy_from_slice(&fresh);
                    page.freeze()
                });
                continue;
            }
            if keeps && own {
                stripe.pages[role] = Some(fresh);
            } else if own {
                self.cache.pages.give_shared(fresh);
            }
            if let Some(old) = old {
                self.cache.pages.give_shared(old);
            }
        }
        self.end_round(at, Status::Ok);
    }

    /// The round can't be served with what can be read: alone, some of its fragments may be.
    fn hopeless(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        let mut round = std::mem::replace(&mut stripe.round, Fragments::EMPTY);
        if round.first == round.last {
            stripe.round = round;
            self.counters.unrecovered += 1;
            return self.fail_round(at, Status::MediumError);
        }
        if !stripe.pending.is_empty() {
            self.fragments[round.last as usize].next = stripe.pending.first;
            round.last = stripe.pending.last;
        }
        stripe.pending = round;
        stripe.solo = true;
        stripe.unread = 0;
        stripe.heal = 0;
        stripe.copy = 0;
        stripe.spare.clear();
        stripe.phase = Phase::Ready;
        self.ready.push_back(at);
        self.discharge(at);
    }

    /// Ends a round that could not be done. What the members hold now is not known here.
    pub(super) fn fail_round(&mut self, at: u32, status: Status) {
        let stripe = &mut self.cache[at];
        stripe.fresh.fill(None);
        stripe.forget();
        self.end_round(at, status);
    }

    pub(super) fn end_round(&mut self, at: u32, status: Status) {
        let stripe = &mut self.cache[at];
        assert_eq!(stripe.in_flight, 0, "a round ends with its I/O");
        assert_eq!(stripe.batch, NONE, "a round ends behind its batch");
        let number = stripe.number;
        let mut next = std::mem::replace(&mut stripe.round, Fragments::EMPTY).first;
        self.wrote(at);
        self.unlog(at);
        self.cache.unreserve(at);
        let stripe = &mut self.cache[at];
        stripe.plan = None;
        stripe.verify = None;
        stripe.unread = 0;
        stripe.heal = 0;
        stripe.copy = 0;
        stripe.unwritten = 0;
        stripe.own = 0;
        stripe.dirty = 0;
        stripe.streams = false;
        stripe.reach = Reach::default();
        if stripe.pending.is_empty() {
            stripe.solo = false;
            self.discharge(at);
            debug_assert!(self.crossing.links().at_rest(self.link(at)));
            self.cache.release(at);
        } else {
            // What came meanwhile may have been charged already, and reads ahead with that.
            stripe.phase = Phase::Ready;
            self.ready.push_back(at);
        }
        while next != NONE {
            let following = self.fragments[next as usize].next;
            self.end_fragment(next, number, status);
            next = following;
        }
    }
}

/// Whether the parity of a stripe, of which all pages are at hand, is what its data makes. Leaves
/// that in `page`.
fn matches(stripe: &Stripe, page: &mut BufMut) -> bool {
    let data = stripe.pages.len() - 1;
    let old = |role: usize| -> &[u8] { stripe.pages[role].as_ref().expect("planned") };
    let sources: SmallVec<[&[u8]; 16]> = (0..data).map(old).collect();
    xor::xor_into(page, &sources);
    page[..] == *old(data)
}

/// The bytes of a role as the fragments so far leave them.
fn current<'a>(stripe: &'a Stripe, draft: Option<&'a BufMut>, role: usize) -> &'a [u8] {
    if let Some(page) = draft {
        return page;
    }
    let page = stripe.fresh[role].as_ref().or(stripe.pages[role].as_ref());
    page.expect("the plan has what is looked at")
}

/// The page in which a role is put together from old bytes and several payloads.
fn compose<'a>(stripe: &mut Stripe, draft: &'a mut Option<BufMut>, role: usize) -> &'a mut BufMut {
    if draft.is_none() {
        let mut page = stripe.spare.pop().expect("reserved with the plan");
        // Without old bytes the payloads cover the whole page.
        let base = stripe.fresh[role]
            .take()
            .or_else(|| stripe.pages[role].clone());
        if let Some(base) = base {
            page.copy_from_slice(&base);
        }
        *draft = Some(page);
    }
    draft.as_mut().expect("made above")
}

/// Most blocks that one pass of [`xor`] takes.
const SOURCES: usize = 64;

/// Pages that are added up.
type Sources<'a> = SmallVec<[&'a [u8]; 16]>;

/// The bytes of a role before the round.
fn old(stripe: &Stripe, role: usize) -> &[u8] {
    stripe.pages[role].as_ref().expect("planned")
}

/// The bytes that the round stores for a role.
fn new(stripe: &Stripe, role: usize) -> &[u8] {
    stripe.fresh[role].as_ref().expect("dirty means fresh")
}

/// Pages that add up to the blocks that the round does not write: to its partial parity.
fn rest(stripe: &Stripe, plan: Plan, dirty: Mask) -> Sources<'_> {
    let data = stripe.pages.len() - 1;
    match plan.method {
        Method::Full | Method::Reconstruct => {
            let rest = (0..data).filter(|role| dirty & (1 << role) == 0);
            rest.map(|role| old(stripe, role)).collect()
        }
        Method::Modify => {
            let parity = std::iter::once(data);
            let both = parity.chain(roles(dirty));
            both.map(|role| old(stripe, role)).collect()
        }
        Method::None => unreachable!("no parity without a method"),
    }
}

/// Adds up the blocks that a round does not write and the new ones of the roles `added`: with all that are
/// dirty this is its parity, with none its partial parity. It is in the page of the old parity, where it
/// follows from that and nobody else looks at it.
fn add_up(stripe: &mut Stripe, plan: Plan, dirty: Mask, added: Mask) -> BufMut {
    let data = stripe.pages.len() - 1;
    if plan.method == Method::Modify {
        let old_parity = stripe.pages[data].take().expect("planned");
        match old_parity.try_into_mut() {
            Ok(mut page) => {
                let mut sources: Sources = roles(dirty).map(|role| old(stripe, role)).collect();
                sources.extend(roles(added).map(|role| new(stripe, role)));
                for sources in sources.chunks(SOURCES) {
                    xor::xor_assign(&mut page, sources);
                }
                return page;
            }
            Err(shared) => stripe.pages[data] = Some(shared),
        }
    }
    let mut page = stripe.spare.pop().expect("reserved with the plan");
    let mut sources = rest(stripe, plan, dirty);
    sources.extend(roles(added).map(|role| new(stripe, role)));
    sum(&mut page, &sources);
    page
}

/// Computes the parity of a round from its partial parity.
fn complete_parity(stripe: &Stripe, dirty: Mask, partial: &[u8], page: &mut BufMut) {
    let mut sources = Sources::from_slice(&[partial]);
    sources.extend(roles(dirty).map(|role| new(stripe, role)));
    sum(page, &sources);
}

fn sum(page: &mut BufMut, sources: &[&[u8]]) {
    let (first, more) = sources.split_at(sources.len().min(SOURCES));
    xor::xor_into(page, first);
    if !more.is_empty() {
        xor::xor_assign(page, more);
    }
}
