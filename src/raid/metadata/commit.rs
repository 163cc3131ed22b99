//! A commit: what is written to the members' metadata together, in steps. A step begins when all
//! of the one before it is on the members.
//!
//! The orders that matter:
//! - the bitmap says that an array is being written to a region, then data is written there;
//! - the bitmap's header has the new event count, then the superblocks have it: a bitmap that is
//!   behind is stale;
//! - the members' caches are empty, then a bit is cleared, the array is said to be clean, or a
//!   process to have come so far;
//! - the header says which member may rely on the bitmap (`events_cleared`), then bits that such a
//!   member might miss are cleared;
//! - the bad-block log is on its member, then its superblock says that there is something in it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use super::Metadata;
use super::proven::Proven;
use crate::bdev::{Data, Op, Request};
use crate::md::{BadBlocks, Policy, Superblock};
use crate::memory::{Buf, BufMut, Segments};
use crate::raid::mutation::{self, Mutation};
use crate::raid::view::View;

/// Bytes of a page of metadata.
const PAGE: usize = 4096;

/// A commit under way.
#[derive(Debug)]
pub(super) struct Commit {
    steps: VecDeque<Step>,
    /// What of the present step is not issued yet.
    jobs: VecDeque<Job>,
    in_flight: u32,
    /// The present step empties the members' caches.
    flushes: bool,
    /// The present step writes these.
    logs: Vec<Log>,
    /// It says that a member has been replaced.
    hands_over: bool,
    /// The wishes that it fulfils.
    fulfils: u64,
    /// Regions whose bits it sets.
    sets: Vec<u64>,
    /// Whether it makes superblocks say that the array is written to, or is not.
    says_dirty: Option<bool>,
    /// The roles that they say, if not those of now.
    roles: Option<Vec<u16>>,
}

#[derive(Debug)]
enum Step {
    /// Empty the members' caches.
    Flush,
    /// Write pages of the bitmap.
    Pages(BTreeSet<u64>),
    /// Clear the bits of regions that nobody has come to need meanwhile.
    Clear(Vec<u64>),
    /// Write the bad-block logs of members, as they were when the commit began.
    Logs(Vec<Log>),
    /// Bring superblocks up to the event that others have already.
    Level,
    /// Write the superblocks: a few steps.
    Superblocks,
    /// Write the superblocks of slots.
    Write(Vec<usize>),
}

/// A bad-block log to be written.
#[derive(Debug)]
struct Log {
    /// The member that has it.
    member: Uuid,
    bad: BadBlocks,
}

#[derive(Debug)]
enum Job {
    Flush(usize),
    Page(u64),
    /// By its place in [`Commit::logs`].
    Log(usize),
    Superblock(usize),
}

impl Commit {
    fn new(steps: impl Into<VecDeque<Step>>) -> Self {
        Self {
            steps: steps.into(),
            jobs: VecDeque::new(),
            in_flight: 0,
            flushes: false,
            logs: Vec::new(),
            hands_over: false,
            fulfils: 0,
            sets: Vec::new(),
            says_dirty: None,
            roles: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.steps.is_empty() && self.jobs.is_empty() && self.in_flight == 0
    }

    pub(super) fn answered(&mut self) {
        self.in_flight -= 1;
    }

    /// The defect of doing without its flush, in an array that is `dirty` by now.
    fn unflushed(&self, dirty: bool) -> Mutation {
        let clears = |step: &Step| matches!(step, Step::Clear(_));
        match self.steps.iter().any(clears) {
            true => Mutation::D4,
            false if dirty && self.says_dirty == Some(false) => Mutation::D5,
            false => Mutation::D6,
        }
    }
}

impl Metadata {
    /// What is to be written next, if anything: first what somebody waits for.
    pub(super) fn next_commit(&mut self, view: &View) -> Option<Commit> {
        if !view.online {
            // What the members say stays as it is, so that they can be assembled again as they are.
            return None;
        }
        if let Some(roles) = self.behind.take() {
            let mut commit = Commit::new([Step::Level]);
            commit.says_dirty = Some(self.dirty);
            commit.roles = Some(roles);
            return Some(commit);
        }
        let hands_over = self.handing_over.is_some() && !self.handed_over;
        let wished = self.wished > self.durable || self.checkpoint || self.logs != 0 || hands_over;
        if wished || !self.waiting.is_empty() {
            return Some(self.commit_wishes(wished, view));
        }
        let candidates = self.idle.iter().copied();
        let idle: Vec<u64> = match view.degraded {
            Some(_) => Vec::new(),
            None => candidates.filter(|&r| self.may_clear(r, view)).collect(),
        };
        let clean = self.dirty && self.held == 0;
        if idle.is_empty() && !clean {
            return None;
        }
        let mut steps = VecDeque::from([Step::Flush]);
        if !idle.is_empty() {
            let header = &mut self.marks.as_mut().expect("looked at above").header;
            steps.push_back(Step::Clear(idle));
            if header.events_cleared < self.events {
                header.events_cleared = self.events;
                let at = if mutation::on(Mutation::D2) { 2 } else { 1 };
                steps.insert(at, Step::Pages([0].into()));
            }
        }
        let mut commit = Commit::new(steps);
        if clean {
            self.next_event(&mut commit, BTreeSet::new());
            commit.says_dirty = Some(false);
        }
        Some(commit)
    }

    /// Bits that nodes wait for, and superblocks that were wished for.
    fn commit_wishes(&mut self, wished: bool, view: &View) -> Commit {
        let mut sets: Vec<u64> = self.waiting.iter().map(|&(_, region)| region).collect();
        sets.retain(|&region| !self.regions[region as usize].durable);
        sets.sort_unstable();
        sets.dedup();
        let mut pages = BTreeSet::new();
        if let Some(marks) = &mut self.marks {
            for &region in &sets {
                for bit in marks.bits_of(region, self.rows_per_region, &self.geometry) {
                    marks.bits.set(bit);
                    pages.insert(marks.bits.page_of(bit));
                }
            }
            if self.rewrite {
                pages.extend(0..marks.bits.pages());
            }
        }
        self.rewrite = false;
        let mut commit = Commit::new([]);
        commit.sets = sets;
        let says = wished || !self.dirty;
        let further = Proven::of(view, self.handing_over) != self.proven;
        if std::mem::take(&mut self.checkpoint) || (says && further) {
            commit.steps.push_back(Step::Flush);
        }
        commit.fulfils = self.wished;
        let logs = std::mem::take(&mut self.logs);
        if logs != 0 {
            let wanted = (0..self.members.len()).filter(|slot| logs & (1 << slot) != 0);
            let logs = wanted.filter_map(|slot| {
                Some(Log {
                    member: self.members[slot].as_ref()?.device_uuid,
                    bad: self.bad_blocks[slot].clone(),
                })
            });
            commit.steps.push_back(Step::Logs(logs.collect()));
        }
        if says {
            self.next_event(&mut commit, pages);
            commit.says_dirty = Some(self.dirty || !self.waiting.is_empty());
        } else {
            commit.steps.push_back(Step::Pages(pages));
        }
        if mutation::on(Mutation::D1) {
            let sets = std::mem::take(&mut commit.sets);
            sets.iter()
                .for_each(|&r| self.regions[r as usize].durable = true);
            self.dirty |= !self.waiting.is_empty();
            self.grant();
        }
        commit
    }

    /// Superblocks with the next event count, and the bitmap's header before them.
    fn next_event(&mut self, commit: &mut Commit, mut pages: BTreeSet<u64>) {
        self.events += 1;
        if let Some(marks) = &mut self.marks {
            marks.header.events = self.events;
            pages.insert(0);
            commit.steps.push_back(Step::Pages(pages));
        }
        commit.steps.push_back(Step::Superblocks);
    }

    /// Whether nobody needs the bits of a region any more.
    fn may_clear(&self, at: u64, view: &View) -> bool {
        let region = &self.regions[at as usize];
        let start = at * self.rows_per_region;
        let mut rows = start..(start + self.rows_per_region).min(self.geometry.rows());
        region.holders == 0
            && view.degraded.is_none()
            && rows.all(|row| view.in_sync(row))
            && self.waiting.iter().all(|&(_, waited)| waited != at)
    }

    /// Hands out as much of a commit as there are pages for, and goes from step to step.
    pub(super) fn pump(&mut self, commit: &mut Commit, view: &View, now: Instant) {
        loop {
            while let Some(job) = commit.jobs.pop_front() {
                if !self.issue(commit, &job, view, now) {
                    commit.jobs.push_front(job);
                    return;
                }
            }
            if commit.in_flight > 0 {
                return;
            }
            if std::mem::take(&mut commit.flushes) {
                self.prove();
            }
            for log in commit.logs.drain(..) {
                if let Some(slot) = self.slot_of(log.member) {
                    self.logged &= !(1 << slot);
                    self.logged |= u64::from(!log.bad.is_empty()) << slot;
                }
            }
            let Some(step) = commit.steps.pop_front() else {
                return;
            };
            self.begin_step(commit, step, view);
        }
    }

    fn begin_step(&mut self, commit: &mut Commit, step: Step, view: &View) {
        let slots = self.members.len();
        match step {
            Step::Flush => {
                self.claim = Some(Proven::of(view, self.handing_over));
                commit.flushes = true;
                // What is held now may be written at any time.
                let held = (0..self.regions.len() as u64)
                    .filter(|&r| self.regions[r as usize].holders > 0);
                self.written = held.collect();
                if !mutation::on(commit.unflushed(self.dirty)) {
                    commit.jobs.extend((0..slots).map(Job::Flush));
                }
            }
            Step::Pages(pages) => commit.jobs.extend(pages.into_iter().map(Job::Page)),
            Step::Clear(regions) => {
                let mut pages = BTreeSet::new();
                for region in regions {
                    // Somebody may have come while the steps before this one went on.
                    if !self.may_clear(region, view) || self.written.contains(&region) {
                        continue;
                    }
                    self.regions[region as usize].durable = false;
                    self.idle.remove(&region);
                    let marks = self.marks.as_mut().expect("only bitmaps are cleared");
                    for bit in marks.bits_of(region, self.rows_per_region, &self.geometry) {
                        marks.bits.clear(bit);
                        pages.insert(marks.bits.page_of(bit));
                    }
                }
                commit.jobs.extend(pages.into_iter().map(Job::Page));
            }
            Step::Logs(logs) => {
                commit.jobs.extend((0..logs.len()).map(Job::Log));
                commit.logs = logs;
            }
            Step::Level => {
                // A member that lacks something is not said to be up to date.
                let lacking = self.proven.rebuilt.map(|r| r.slot);
                let behind = (0..slots).filter(|&slot| {
                    let member = self.members[slot].as_ref();
                    Some(slot) != lacking && member.is_some_and(|s| s.events != self.events)
                });
                commit.jobs.extend(behind.map(Job::Superblock));
            }
            Step::Superblocks => {
                // A log that is to be written since the commit began is not among its steps.
                if self.logs == 0 {
                    commit.fulfils = self.wished;
                }
                commit.hands_over = self.proven.replaced.is_some();
                // Somebody may have come while the steps before this one went on.
                let written = self.held > 0 || !self.written.is_empty();
                if self.dirty && commit.says_dirty == Some(false) && written {
                    commit.says_dirty = Some(true);
                }
                // Who comes from now on is granted nothing before the next commit has said so.
                if commit.says_dirty == Some(false) {
                    self.dirty = false;
                }
                // A member that is being rebuilt comes last: if it alone spoke of itself, it would
                // be fresher than all that do not know it. One that has replaced another comes
                // first: if all but it spoke of it, its slot would have no member.
                let heir = self.proven.replaced.map(|_| self.geometry.members());
                let newcomer = self.proven.rebuilt.map(|r| r.slot);
                let heir = heir.filter(|_| !mutation::on(Mutation::D10));
                let newcomer = newcomer.filter(|_| !mutation::on(Mutation::D9));
                let others = |slot: &usize| ![heir, newcomer].contains(&Some(*slot));
                let (heir, newcomer) = (heir.into_iter(), newcomer.into_iter());
                let order = [
                    heir.collect(),
                    (0..slots).filter(others).collect(),
                    newcomer.collect(),
                ];
                for slots in order.into_iter().rev() {
                    commit.steps.push_front(Step::Write(slots));
                }
            }
            Step::Write(slots) => commit.jobs.extend(slots.into_iter().map(Job::Superblock)),
        }
    }

    /// Issues a part of a step; `false` while there is no page for it.
    fn issue(&mut self, commit: &mut Commit, job: &Job, view: &View, now: Instant) -> bool {
        match *job {
            Job::Flush(slot) => {
                if self.is_written(slot, view) {
                    self.ask(commit, view.bay(slot), Op::Flush, 0, None);
                }
            }
            Job::Page(number) => {
                let Some(mut page) = self.page() else {
                    return false;
                };
                let marks = self.marks.as_ref().expect("pages are of a bitmap");
                let bytes = marks.bits.page_bytes(number, self.block_bytes as usize);
                page.truncate(bytes);
                marks.bits.render(number, &marks.header, &mut page);
                let page = page.freeze();
                for slot in 0..self.members.len() {
                    if let Some(member) = self.members[slot].as_ref()
                        && self.is_written(slot, view)
                        && let Policy::Bitmap { offset } = member.policy
                    {
                        let start = behind(member, offset.into());
                        let at = start + number * PAGE as u64;
                        self.ask(commit, view.bay(slot), WRITE, at, Some(page.clone()));
                    }
                }
            }
            Job::Log(at) => {
                let Some(slot) = self.slot_of(commit.logs[at].member) else {
                    return true;
                };
                let member = self.members[slot].as_ref().expect("looked at above");
                let log = member.bad_block_log;
                if log.size == 0 {
                    return true;
                }
                let start = behind(member, log.offset.into());
                let Some(mut page) = self.page() else {
                    return false;
                };
                page.truncate((usize::from(log.size) * 512).min(PAGE));
                commit.logs[at].bad.write(&mut page);
                if self.is_written(slot, view) {
                    self.ask(commit, view.bay(slot), WRITE, start, Some(page.freeze()));
                }
            }
            Job::Superblock(slot) => {
                if !self.is_written(slot, view) {
                    return true;
                }
                let Some(mut page) = self.page() else {
                    return false;
                };
                let clean = commit.says_dirty == Some(false);
                let mut block = self.superblock(slot, clean, now);
                if let Some(roles) = &commit.roles {
                    block.roles.clone_from(roles);
                }
                let at = block.super_offset * 512;
                let block_bytes = self.block_bytes as usize;
                page.truncate(block.bytes().next_multiple_of(block_bytes));
                page.fill(0);
                block.write(&mut page);
                self.members[slot] = Some(block);
                self.ask(commit, view.bay(slot), WRITE, at, Some(page.freeze()));
            }
        }
        true
    }

    /// Whether the member of a slot is written to.
    fn is_written(&self, slot: usize, view: &View) -> bool {
        let there = match view.replacement {
            Some(_) if slot == self.geometry.members() => true,
            _ => view.present(slot) && self.proven.replaced != Some(slot),
        };
        self.members[slot].is_some() && there
    }

    fn page(&self) -> Option<BufMut> {
        self.pool.take()
    }

    fn ask(&mut self, commit: &mut Commit, bay: usize, op: Op, at: u64, page: Option<Buf>) {
        commit.in_flight += 1;
        let block = u64::from(self.block_bytes);
        debug_assert!(
            at.is_multiple_of(block),
            "metadata at byte {at} of blocks of {block}"
        );
        let blocks = page.as_ref().map_or(0, |p| p.len() as u64 / block) as u32;
        let data = match page {
            Some(page) => Data::Write(Segments::from_iter([page])),
            None => Data::None,
        };
        let request = Request {
            token: 0,
            op,
            lba: at / block,
            blocks,
            data,
        };
        self.requests.push((bay, request));
    }

    /// All of a commit is on the members that have not failed.
    pub(super) fn commit_done(&mut self, commit: &Commit) {
        self.durable = self.durable.max(commit.fulfils);
        self.handed_over |= commit.hands_over && self.proven.replaced.is_some();
        for &region in &commit.sets {
            self.regions[region as usize].durable = true;
        }
        if commit.says_dirty == Some(true) {
            self.dirty = true;
        }
        self.grant();
    }
}

/// The byte of a member that lies so many sectors behind the start of its superblock.
fn behind(member: &Superblock, sectors: i64) -> u64 {
    (member.super_offset.saturating_add_signed(sectors)) * 512
}

/// Metadata is on the member when its write is done.
const WRITE: Op = Op::Write { fua: true };
