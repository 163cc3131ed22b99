//! Patches: one block of a stripe written with nothing of it in the cache.
//!
//! Nearly all small writes at random are such, and nobody comes back to them. A round would take a stripe, look at what
//! waits in it, read, and keep what it has read. For a patch the member that has the block stores the new one and gives back
//! what it has changed by; the member that has parity adds that up with it. While it is under way, no stripe of its
//! number may begin a round ([`Patches::holds`]): whatever comes for it waits where it is. As with rows that are worked on
//! as one, it is begun only where everything is as it should be, and where it turns out that it is not, a round goes on with
//! what there is.
//!
//! It gathers nothing, and members have to be able to do it ([`Op::XdWriteRead`]), so it is for those that are memory. To
//! others writes of one turn to one stripe had better go together.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;
use slab::Slab;
use smallvec::smallvec;

use super::message::Job;
use super::mutation::{self, Mutation};
use super::shard::{Pace, Shard};
use super::stripe::{Fragment, FragmentKind, Fragments, NONE};
use crate::bdev::{Data, Op, Status};
use crate::memory::BufMut;

/// A mark in the token of a member request: it is a patch's, whose key the rest of the token says.
pub(super) const PATCH: u64 = 1 << 58;

/// Stripes that were patched lately, as many as are told apart. One that is written again is worth keeping in the cache.
const LATELY: usize = 1024;

/// All patches of a shard.
#[derive(Debug)]
pub(super) struct Patches {
    /// Whether any are made.
    on: bool,
    /// Stripes that are being patched, by number.
    held: FxHashSet<u64>,
    under_way: Slab<Patch>,
    /// To be done by rounds, in order.
    again: VecDeque<u32>,
    /// Stripes that were patched lately, each in the one place that its number gives it.
    lately: Box<[u64]>,
}

/// One block being written.
#[derive(Debug)]
struct Patch {
    job: u32,
    number: u64,
    row: u64,
    role: u8,
    /// The slot whose member holds parity.
    parity: u8,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The block, by its member: nothing has changed yet, or that is not known yet.
    Storing,
    /// What it has changed by, to parity: that does not match until then.
    Adding,
}

impl Patches {
    /// None yet.
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            held: FxHashSet::default(),
            under_way: Slab::with_capacity(64),
            again: VecDeque::new(),
            lately: vec![u64::MAX; if on { LATELY } else { 0 }].into(),
        }
    }

    /// Whether the stripe of this number is being patched.
    pub(super) fn holds(&self, number: u64) -> bool {
        !self.held.is_empty() && self.held.contains(&number) && !mutation::on(Mutation::R20)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// None are begun any more.
    pub(super) fn end(&mut self) {
        self.on = false;
    }

    /// Whether the stripe of this number was patched lately. If it was not, it is now.
    fn returns(&mut self, number: u64) -> bool {
        // Of two writes that follow one another in a chunk the stripes do, too.
        let place = &mut self.lately[number as usize % LATELY];
        let returns = *place == number;
        *place = if returns { u64::MAX } else { number };
        returns
    }
}

impl Shard {
    /// Whether a job may be done as a patch, as far as it says itself: what goes on where an earlier one ended is likely to
    /// write more of its stripes.
    pub(super) fn is_small(&self, job: &Job) -> bool {
        let stripe_bytes = u64::from(self.geometry.stripe_bytes());
        self.patches.on
            && job.len == stripe_bytes
            && !job.streams
            && matches!(job.op, Op::Write { .. })
            && job.offset.is_multiple_of(stripe_bytes)
    }

    /// Begins a patch, and says whether it did.
    pub(super) fn begin_patch(&mut self, at: u32) -> bool {
        let job = &self.jobs[at as usize].job;
        let Data::Write(segments) = &job.data else {
            unreachable!("a write has a payload");
        };
        let place = self.geometry.place(job.offset);
        let (number, _) = self.geometry.stripe_of(place);
        let row = place.row;
        let fits = segments.len() == 1
            && self.is_whole()
            && self.starved.is_empty()
            && !self.cache.knows(number)
            && !self.swaths.hold(number)
            && !self.patches.holds(number);
        if !fits || !self.may_write_row(row) || self.patches.returns(number) {
            return false;
        }
        let kept_back = Self::round_pages(self.geometry.members());
        if !self.cache.make_room(1 + kept_back) {
            return false;
        }
        let fua = job.op.is_fua();
        let mut page = self.cache.pages.take().expect("counted above");
        page.copy_from_slice(&segments[0]);
        self.writes_row(row);
        self.patches.held.insert(number);
        let parity = self.geometry.parity_member(row);
        let slot = self.geometry.member_beside(parity, place.role);
        let key = self.patches.under_way.insert(Patch {
            job: at,
            number,
            row,
            role: place.role as u8,
            parity: parity as u8,
            stage: Stage::Storing,
        });
        // Of several, each is fetched while the one before is at work. Alone, its parity would be waited for.
        if self.patches.under_way.len() == 1 {
            let blocks = self.geometry.stripe_bytes() / self.block_bytes;
            self.out.expected = Some((self.view.bay(parity), number * u64::from(blocks), blocks));
        }
        let (op, data) = (Op::XdWriteRead { fua }, Data::Read(smallvec![page]));
        self.ask_for_patch(key as u32, slot, op, data);
        true
    }

    /// Asks the member in a slot to do its part of a patch.
    fn ask_for_patch(&mut self, key: u32, slot: usize, op: Op, data: Data) {
        let number = self.patches.under_way[key as usize].number;
        let token = PATCH | u64::from(key);
        self.ask(self.view.bay(slot), token, op, (number, 1), data);
    }

    /// The member in a bay has answered a request of a patch.
    pub(super) fn patch_request_done(
        &mut self,
        bay: usize,
        token: u64,
        status: Status,
        data: Data,
    ) {
        let key = token as u32;
        if status == Status::Gone {
            self.out.news.failures.push((bay, status));
        }
        match data {
            Data::Read(mut page) => {
                let page = page.pop().expect("it comes back");
                self.block_of_patch_stored(key, status, page);
            }
            Data::Write(mut change) => {
                let change = change.pop().expect("it comes back");
                self.cache.pages.give_shared(change);
                self.parity_of_patch_stored(key, status);
            }
            Data::None => unreachable!("patches have data"),
        }
    }

    /// The block of a patch is stored, and `change` is what it has changed by; or it is not.
    fn block_of_patch_stored(&mut self, key: u32, status: Status, change: BufMut) {
        let patch = &mut self.patches.under_way[key as usize];
        let stored = status == Status::Ok;
        if stored {
            patch.stage = Stage::Adding;
        }
        let (slot, row, job) = (usize::from(patch.parity), patch.row, patch.job);
        if !stored || !self.view.online || !self.view.writable(slot, row) {
            self.cache.pages.give(change);
            return self.patches.again.push_back(key);
        }
        let fua = self.jobs[job as usize].job.op.is_fua();
        let change = Data::Write(smallvec![change.freeze()]);
        self.ask_for_patch(key, slot, Op::XpWrite { fua }, change);
    }

    /// Parity of a patch is stored, or it is not.
    fn parity_of_patch_stored(&mut self, key: u32, status: Status) {
        let failed = status != Status::Ok && !mutation::on(Mutation::R21);
        if failed || !self.view.online {
            return self.patches.again.push_back(key);
        }
        self.counters.modify_writes += 1;
        let patch = self.end_patch(key);
        self.wrote_row(patch.row);
        self.jobs[patch.job as usize].left -= 1;
        self.end_if_done(patch.job);
    }

    fn end_patch(&mut self, key: u32) -> Patch {
        let patch = self.patches.under_way.remove(key as usize);
        self.patches.held.remove(&patch.number);
        patch
    }

    /// Hands patches that could not be done to rounds of their stripes, as there is room for these; before anything else
    /// comes for them.
    pub(super) fn patch_again(&mut self) {
        while let Some(&key) = self.patches.again.front() {
            let number = self.patches.under_way[key as usize].number;
            let Some(at) = self.cache.acquire(number) else {
                return;
            };
            self.patches.again.pop_front();
            let patch = self.end_patch(key);
            let fragment = Fragment {
                job: patch.job,
                next: NONE,
                kind: FragmentKind::Write,
                role: patch.role,
                roles: 1,
                start: 0,
                len: self.geometry.stripe_bytes(),
                at: 0,
            };
            if patch.stage == Stage::Adding && !mutation::on(Mutation::R22) {
                self.resume(at, fragment);
            } else {
                self.wrote_row(patch.row);
                let attached = self.attach_held(number, fragment, Pace::Prompt);
                assert!(attached, "it has a stripe");
            }
        }
    }

    /// Goes on with what a patch was to write, as if a round of its stripe had found that parity can't be read: it does not
    /// match what is there.
    fn resume(&mut self, at: u32, fragment: Fragment) {
        let only = self.fragments.insert(fragment) as u32;
        let stripe = &mut self.cache[at];
        stripe.round = Fragments {
            first: only,
            last: only,
        };
        stripe.intended = self.intents.is_some();
        stripe.unread = 1 << self.geometry.data();
        self.all_read(at);
    }
}
