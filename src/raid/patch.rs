//! Patches: one block of a stripe written with nothing of it in the cache.
//!
//! Nearly all small writes at random are such, and nobody comes back to them. A round would take a stripe, look at what
//! waits in it, and keep what it has read. A patch reads what parity is made of, adds the new block up with it, and
//! writes both. While it is under way, no stripe of its number may begin a round ([`Patches::holds`]): whatever comes for it
//! waits where it is. As with rows that are worked on as one, it is begun only where everything is as it should be, and where
//! it turns out that it is not, a round goes on with what there is.
//!
//! It saves the core time and gathers nothing, so it is for members that are memory. For others requests are dearer than
//! rounds, and writes of one turn to one stripe are worth being gathered.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;
use slab::Slab;
use smallvec::smallvec;

use super::member_io::PageOp;
use super::message::Job;
use super::mutation::{self, Mutation};
use super::plan::{Method, Plan};
use super::shard::{Pace, Shard};
use super::stripe::{Fragment, FragmentKind, Fragments, NONE};
use crate::bdev::{Data, Op, Status};
use crate::memory::{Buf, BufMut};
use crate::xor;

/// A mark in the token of a member request: it is a patch's, whose key the rest of the token says.
pub(super) const PATCH: u64 = 1 << 58;
/// Another: it is about the block from which parity is made.
const BASE: u64 = 1 << 57;

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
    /// The slot whose member holds the block, and that of parity.
    slot: u8,
    parity: u8,
    /// Member requests in flight.
    in_flight: u8,
    /// One of them failed.
    failed: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// What parity is made of: its old block and that of the data; or, in arrays of three members, the other data.
    Reading {
        base: Option<BufMut>,
        old: Option<BufMut>,
    },
    /// The new parity, once its member has given it back.
    Writing { parity: Option<Buf> },
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
        if !self.cache.make_room(2 + kept_back) {
            return false;
        }
        self.writes_row(row);
        self.patches.held.insert(number);
        let parity = self.geometry.parity_member(row);
        let slot = self.geometry.member_beside(parity, place.role);
        // What parity is made of: the block that becomes it, and the one that is added.
        let (base, old) = match self.geometry.data() {
            2 => (self.geometry.member_beside(parity, 1 - place.role), None),
            _ => (parity, Some(slot)),
        };
        let key = self.patches.under_way.insert(Patch {
            job: at,
            number,
            row,
            role: place.role as u8,
            slot: slot as u8,
            parity: parity as u8,
            in_flight: 0,
            failed: false,
            stage: Stage::Reading {
                base: None,
                old: None,
            },
        }) as u64;
        for (slot, mark) in [(Some(base), BASE), (old, 0)] {
            if let Some(slot) = slot {
                let page = self.cache.pages.take().expect("counted above");
                self.counters.pages_read += 1;
                self.ask_for_patch(key | mark, slot, Op::Read, Data::Read(smallvec![page]));
            }
        }
        true
    }

    /// Asks the member in a slot for, or of, its block of a patch.
    fn ask_for_patch(&mut self, name: u64, slot: usize, op: Op, data: Data) {
        let patch = &mut self.patches.under_way[(name & !BASE) as usize];
        patch.in_flight += 1;
        let number = patch.number;
        self.ask(self.view.bay(slot), PATCH | name, op, (number, 1), data);
    }

    /// The member in a bay has answered a request of a patch.
    pub(super) fn patch_request_done(
        &mut self,
        bay: usize,
        token: u64,
        status: Status,
        data: Data,
    ) {
        let (key, of_base) = (token as u32, token & BASE != 0);
        let patch = &mut self.patches.under_way[key as usize];
        patch.in_flight -= 1;
        if status != Status::Ok {
            patch.failed = true;
            if status == Status::Gone {
                self.out.news.failures.push((bay, status));
            }
        }
        match (&mut patch.stage, data) {
            (Stage::Reading { base, old }, Data::Read(mut read)) => {
                *(if of_base { base } else { old }) = read.pop();
            }
            (Stage::Writing { parity }, Data::Write(mut written)) if of_base => {
                *parity = written.pop();
            }
            (Stage::Writing { .. }, payload) => self.jobs[patch.job as usize].job.data = payload,
            (stage, data) => unreachable!("{data:?} comes back in {stage:?}"),
        }
        if patch.in_flight > 0 {
            return;
        }
        match patch.stage {
            Stage::Reading { .. } => self.patch_read(key),
            Stage::Writing { .. } => self.patch_written(key),
        }
    }

    /// All that a patch reads has come, or can't.
    fn patch_read(&mut self, key: u32) {
        let good = self.is_whole();
        let patch = &mut self.patches.under_way[key as usize];
        if patch.failed || !good {
            return self.patches.again.push_back(key);
        }
        let (job, slot, parity_slot) = (patch.job, patch.slot.into(), patch.parity.into());
        let writing = Stage::Writing { parity: None };
        let Stage::Reading { base, old } = std::mem::replace(&mut patch.stage, writing) else {
            unreachable!("it was reading");
        };
        let job = &mut self.jobs[job as usize].job;
        let (op, payload) = (job.op, std::mem::take(&mut job.data));
        let Data::Write(new) = &payload else {
            unreachable!("a write has a payload");
        };
        let mut parity = base.expect("it was read");
        match old {
            Some(old) => {
                xor::xor_assign(&mut parity, &[&old, &new[0]]);
                self.counters.modify_writes += 1;
                self.cache.pages.give(old);
            }
            None => {
                xor::xor_assign(&mut parity, &[&new[0]]);
                self.counters.reconstruct_writes += 1;
            }
        }
        let parity = Data::Write(smallvec![parity.freeze()]);
        self.ask_for_patch(u64::from(key) | BASE, parity_slot, op, parity);
        self.ask_for_patch(u64::from(key), slot, op, payload);
    }

    /// Both blocks of a patch are written, or can't be.
    fn patch_written(&mut self, key: u32) {
        if self.patches.under_way[key as usize].failed && !mutation::on(Mutation::R21)
            || !self.view.online
        {
            return self.patches.again.push_back(key);
        }
        let patch = self.end_patch(key);
        if let Stage::Writing {
            parity: Some(parity),
        } = patch.stage
        {
            self.cache.pages.give_shared(parity);
        }
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
            match patch.stage {
                Stage::Reading { base, old } => {
                    for page in [base, old].into_iter().flatten() {
                        self.cache.pages.give(page);
                    }
                    self.wrote_row(patch.row);
                    let attached = self.attach_held(number, fragment, Pace::Prompt);
                    assert!(attached, "it has a stripe");
                }
                Stage::Writing { .. } if mutation::on(Mutation::R22) => {
                    self.wrote_row(patch.row);
                    self.attach_held(number, fragment, Pace::Prompt);
                }
                Stage::Writing { parity } => {
                    let parity = parity.expect("members give back what they were to write");
                    self.store_again(at, fragment, parity);
                }
            }
        }
    }

    /// Goes on with what a patch was to write, as if a round of its stripe had come so far. It can't begin one: some of
    /// it may be written, so that parity does not match what is there.
    fn store_again(&mut self, at: u32, fragment: Fragment, parity: Buf) {
        let (role, data) = (usize::from(fragment.role), self.geometry.data());
        let job = &self.jobs[fragment.job as usize].job;
        let Data::Write(payload) = &job.data else {
            unreachable!("a write has a payload");
        };
        let (fua, payload) = (job.op.is_fua(), payload[0].clone());
        let first = self.fragments.insert(fragment) as u32;
        let stripe = &mut self.cache[at];
        stripe.round = Fragments { first, last: first };
        stripe.intended = self.intents.is_some();
        stripe.plan = Some(Plan {
            method: Method::Modify,
            read: 1 << role | 1 << data,
            rebuild: None,
        });
        stripe.fresh[role] = Some(payload);
        stripe.fresh[data] = Some(parity);
        stripe.own = 1 << data;
        stripe.dirty = 1 << role | 1 << data;
        stripe.op = PageOp::Write { fua };
        self.store(at);
    }
}
