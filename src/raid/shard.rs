//! A shard: the rows of one owner, their stripe cache, and what is being done to them.
//!
//! A state machine without I/O, clock or threads. Events go in ([`Shard::accept`],
//! [`Shard::member_done`], [`Shard::adopt`], [`Shard::settled`]); [`Shard::run`], once per turn,
//! begins what has gathered in the stripes since the last one, and leaves member requests,
//! finished jobs and reports in [`Outcome`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::batch::Crossing;
use super::batching::{BatchScope, Batching};
use super::cache::StripeCache;
use super::counters::Counters;
use super::gather::Batch;
use super::geometry::Geometry;
use super::lanes::Lanes;
use super::member_io::{Lists, MemberIo};
use super::message::{Home, Job, NodeId};
use super::metadata::Intents;
use super::mutation::{self, Mutation};
use super::pages::Pages;
use super::patch::Patches;
use super::ppl::{Ended, Record};
use super::stripe::{Fragment, FragmentKind, Fragments, NONE, Phase};
use super::swath::Swaths;
use super::view::View;
use super::waiting::{Clock, Patience, Streams};
use super::window::{Found, Progress};
use crate::bdev::{Info, Op, Request, Status};
use crate::memory::{Buf, BufMut, Pool};

/// What a shard wants from the outside since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Requests to members, by bay. The token is the shard's name for the I/O.
    pub requests: Vec<(usize, Request)>,
    /// Blocks that a member will be asked for soon: its bay, the first of them, and how many.
    pub expected: Option<(usize, u64, u32)>,
    /// Jobs that ended.
    pub done: Vec<(Job, Status)>,
    /// What it has to tell beside these, which is seldom anything.
    pub news: News,
}

/// What a shard tells of members, regions, logs and its window.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Members that failed, by bay.
    pub failures: Vec<(usize, Status)>,
    /// Runs of other shards that were written here, with their owners.
    pub homes: Vec<(NodeId, Home)>,
    /// Stripes that members can't store, and those that they hold again, by bay.
    pub bad: Vec<(usize, u64)>,
    pub good: Vec<(usize, u64)>,
    /// Regions that it wants to write to.
    pub intents: Vec<u64>,
    /// What is to be noted in logs, by bay.
    pub records: Vec<(usize, Record)>,
    /// Stripes that were noted in logs and whose rounds have ended, by bay.
    pub ended: Vec<(usize, Ended)>,
    /// The window of this epoch is done.
    pub worked: Option<(u64, Found)>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.failures.is_empty()
            && self.homes.is_empty()
            && self.bad.is_empty()
            && self.good.is_empty()
            && self.intents.is_empty()
            && self.records.is_empty()
            && self.ended.is_empty()
            && self.worked.is_none()
    }
}

/// A job that this shard has taken on.
#[derive(Debug)]
pub(super) struct OwnedJob {
    pub job: Job,
    /// It may be done as a patch, as far as it says itself.
    small: bool,
    /// Bytes whose fragments are in their stripes.
    admitted: u64,
    /// Fragments not yet done.
    pub(super) left: u32,
    pub status: Status,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: NodeId,
    pub(super) geometry: Geometry,
    pub(super) block_bytes: u32,
    /// Most pages in one member request.
    pub(super) merge: usize,
    /// How much may begin in one turn, as [`WAVE`] counts it. What rounds read from memory is written back while it is still in the
    /// core's near caches; devices that fetch by themselves are asked for all at once.
    wave: usize,
    /// How much has.
    reading: usize,
    /// More than one turn may do is ready.
    held_back: bool,
    pub(super) batching: Batching,
    pub(super) crossing: Arc<Crossing>,
    /// The latest time that anybody told.
    pub(super) clock: Option<Clock>,
    pub(super) view: Arc<View>,
    pub(super) settled: Arc<View>,
    pub(super) cache: StripeCache,
    pub(super) fragments: Slab<Fragment>,
    pub(super) jobs: Slab<OwnedJob>,
    /// Jobs that are not wholly in their stripes yet, in order of arrival.
    pub(super) intake: VecDeque<u32>,
    /// Stripes that begin a round at the end of the turn.
    pub(super) ready: VecDeque<u32>,
    /// Stripes that wait for pages, in order.
    pub(super) starved: VecDeque<u32>,
    /// Stripes that wait for the pre-read budget, in order.
    pub(super) delayed: VecDeque<u32>,
    /// Stripes that wait until all nodes know of a failure.
    pub(super) settling: Vec<u32>,
    /// Where sequential writers have come to, whatever node they came in at.
    pub(super) streams: Streams,
    pub(super) patience: Patience,
    /// Stripes of this turn that are written whole.
    pub(super) gathered: Vec<u32>,
    pub(super) batches: Slab<Batch>,
    pub(super) swaths: Swaths,
    pub(super) patches: Patches,
    /// Batches that neighbours may join.
    pub(super) open: Vec<u32>,
    /// A page of zeros, for everybody.
    pub(super) zero: Buf,
    /// Scratch of [`Shard::apply`]: a page being composed, by role.
    pub(super) drafts: Box<[Option<BufMut>]>,
    /// Page I/O of this turn, before it is merged.
    pub(super) lanes: Lanes,
    /// There may be some that the view does not allow any more.
    pub(super) doubted: bool,
    pub(super) ios: Slab<MemberIo>,
    pub(super) lists: Lists,
    /// Bays whose members have a bad-block log.
    pub(super) logs: u64,
    /// Where it may write, if the members are told of that.
    pub(super) intents: Option<Intents>,
    /// The members have partial parity logs.
    pub(super) ppl: bool,
    /// Bays whose members have a volatile cache.
    pub(super) write_caches: u64,
    pub(super) window: Option<Progress>,
    /// Hosts wrote since the last window was done.
    pub(super) busy: bool,
    pub(super) out: Outcome,
    pub(super) counters: Counters,
}

/// What a shard is made of.
#[derive(Debug)]
pub(super) struct ShardConfig {
    pub id: NodeId,
    pub geometry: Geometry,
    pub block_bytes: u32,
    pub view: Arc<View>,
    /// Stripes of the cache.
    pub stripes: usize,
    /// Most bytes of one member request.
    pub member_request_bytes: u32,
    /// Whether all members are memory that this core copies to and from.
    pub in_memory: bool,
    /// Pages of a stripe's bytes each.
    pub pool: Pool,
    pub batching: Batching,
    pub crossing: Arc<Crossing>,
    /// The unit of write intent, if the members are told of it.
    pub rows_per_region: Option<u64>,
    /// Bays whose members have a bad-block log.
    pub bad_block_logs: u64,
    /// The members have partial parity logs.
    pub ppl: bool,
    /// Bays whose members have a volatile cache.
    pub write_caches: u64,
}

/// Most pages of one member request.
const MERGE: u32 = 64;
/// Patches that begin in one turn, where members are memory. Rounds that begin to read count for two: they have twice as many
/// blocks in hand, of what they read and write.
const WAVE: usize = 32;
/// Most fragments of one shard in their stripes at once.
const FRAGMENTS: usize = 16 * 1024;

impl Shard {
    /// A shard with nothing in its cache.
    pub(super) fn new(config: ShardConfig) -> Self {
        let ShardConfig {
            id,
            geometry,
            block_bytes,
            view,
            stripes,
            member_request_bytes,
            in_memory,
            pool,
            batching,
            crossing,
            rows_per_region,
            bad_block_logs,
            ppl,
            write_caches,
        } = config;
        let merge = match batching.scope {
            BatchScope::Off => 1,
            _ => (member_request_bytes / geometry.stripe_bytes()).clamp(1, MERGE),
        };
        let stripe_bytes = geometry.stripe_bytes() as usize;
        let mut pages = Pages::new(pool, stripe_bytes);
        assert!(pages.capacity() > Self::pages_min(geometry.members()));
        let mut zero = pages.take().expect("the pool is new");
        zero.fill(0);
        Self {
            id,
            geometry,
            block_bytes,
            merge: merge as usize,
            // A log is written once for all that a turn writes.
            wave: if in_memory && !ppl { WAVE } else { usize::MAX },
            reading: 0,
            held_back: false,
            batching,
            crossing,
            clock: None,
            settled: view.clone(),
            view,
            cache: StripeCache::new(stripes, geometry, pages),
            fragments: Slab::with_capacity(FRAGMENTS),
            jobs: Slab::with_capacity(1024),
            intake: VecDeque::with_capacity(1024),
            ready: VecDeque::with_capacity(stripes),
            starved: VecDeque::with_capacity(stripes),
            delayed: VecDeque::with_capacity(stripes),
            settling: Vec::with_capacity(stripes),
            streams: Streams::new(),
            patience: Patience::default(),
            gathered: Vec::with_capacity(stripes),
            batches: Slab::with_capacity(stripes),
            swaths: Swaths::new(&geometry, merge as usize, ppl, in_memory),
            // What a log says, it says of stripes.
            patches: Patches::new(in_memory && !ppl),
            open: Vec::with_capacity(16),
            zero: zero.freeze(),
            drafts: (0..geometry.members()).map(|_| None).collect(),
            lanes: Lanes::new(geometry.members()),
            doubted: false,
            ios: Slab::with_capacity(1024),
            lists: Lists::default(),
            logs: bad_block_logs,
            intents: rows_per_region.map(Intents::new),
            ppl,
            write_caches,
            window: None,
            busy: false,
            out: Outcome::default(),
            counters: Counters::default(),
        }
    }

    /// Fewest pages a shard can work with: twice what one stripe may need at once, so that one
    /// that has to read again after an error never waits for the others.
    pub(super) fn pages_min(members: usize) -> usize {
        2 * Self::round_pages(members) + 1
    }

    /// Most pages that a round takes: for what it reads, composes and rebuilds, for parity, what
    /// that is compared with, and partial parity.
    pub(super) fn round_pages(members: usize) -> usize {
        2 * members + 3
    }

    /// Takes on a part of a host's request. Its fragments join their stripes at once if there is
    /// room, else as room comes.
    pub(super) fn accept(&mut self, mut job: Job) {
        debug_assert_eq!(
            self.geometry.owner(self.geometry.place(job.offset).row),
            self.id
        );
        self.busy |= job.op.modifies();
        let small = self.is_small(&job);
        if matches!(job.op, Op::Write { .. } | Op::WriteZeroes { .. }) {
            let slack = self.geometry.row_bytes();
            let end = job.offset + job.len;
            job.streams |= self.streams.follows(job.offset, end, slack);
            // A stream that has come to an edge goes on behind it.
            if job.streams && !job.alone && !job.op.is_fua() {
                job.reach.0 |= self.geometry.is_run_start(job.offset);
                job.reach.1 |= self.geometry.is_run_start(end);
            }
        }
        let at = self.jobs.insert(OwnedJob {
            job,
            small,
            admitted: 0,
            left: 0,
            status: Status::Ok,
        });
        self.intake.push_back(at as u32);
        self.admit();
    }

    /// Moves fragments of waiting jobs into their stripes, in order, while there is room.
    fn admit(&mut self) {
        while let Some(&at) = self.intake.front() {
            if !self.view.online {
                let owned = &mut self.jobs[at as usize];
                owned.status = Status::Offline;
                owned.admitted = owned.job.len;
            } else if !self.admit_job(at) {
                return;
            }
            self.intake.pop_front();
            self.end_if_done(at);
        }
    }

    fn admit_job(&mut self, at: u32) -> bool {
        loop {
            let owned = &self.jobs[at as usize];
            if owned.admitted == owned.job.len {
                return true;
            }
            if self.fragments.len() >= FRAGMENTS {
                return false;
            }
            let (admitted, rest) = (owned.admitted, owned.job.len - owned.admitted);
            let writes = matches!(owned.job.op, Op::Write { .. });
            let may_be_whole = writes && rest >= self.swaths.bytes();
            if may_be_whole && self.swaths.is_full() {
                self.held_back = true;
                return false;
            }
            if may_be_whole && let Some(bytes) = self.take_stretch(at, admitted) {
                let owned = &mut self.jobs[at as usize];
                owned.admitted += bytes;
                owned.left += 1;
                continue;
            }
            if self.jobs[at as usize].small {
                if self.reading >= self.wave {
                    self.held_back = true;
                    return false;
                }
                if self.begin_patch(at) {
                    self.reading += 1;
                    let owned = &mut self.jobs[at as usize];
                    owned.admitted = owned.job.len;
                    owned.left = 1;
                    continue;
                }
            }
            let (fragment, number, row) = self.cut(at);
            let data = u64::from(fragment.bytes());
            if self.is_doubtful(row, &fragment) {
                // What was written there could not be read again, and what is read might be wrong.
                let owned = &mut self.jobs[at as usize];
                owned.admitted += data;
                owned.status = Status::MediumError;
                continue;
            }
            let owned = &self.jobs[at as usize];
            let pace = match fragment.kind {
                FragmentKind::Write | FragmentKind::Zero => match self.may_wait(&owned.job, row) {
                    true => Pace::Patient,
                    false if owned.job.op.is_fua() => Pace::Urgent,
                    false => Pace::Prompt,
                },
                _ => Pace::Prompt,
            };
            if !self.attach(number, fragment, pace) {
                return false;
            }
            let owned = &mut self.jobs[at as usize];
            owned.admitted += data;
            owned.left += 1;
        }
    }

    /// The next fragment of a job, its stripe, and the row of that.
    fn cut(&self, at: u32) -> (Fragment, u64, u64) {
        let OwnedJob { job, admitted, .. } = &self.jobs[at as usize];
        let place = self.geometry.place(job.offset + admitted);
        let kind = match job.op {
            Op::Read => FragmentKind::Read,
            Op::Write { .. } => FragmentKind::Write,
            Op::WriteZeroes { .. } => FragmentKind::Zero,
            Op::Compare => FragmentKind::Compare,
            Op::CompareAndWrite { .. } => FragmentKind::CompareAndWrite,
            Op::Flush => unreachable!("a flush has no owner"),
            Op::XdWriteRead { .. } | Op::XpWrite { .. } => {
                unreachable!("the router refuses what only members can")
            }
        };
        let stripe_bytes = self.geometry.stripe_bytes();
        let writes = matches!(kind, FragmentKind::Write | FragmentKind::Zero);
        if writes && self.geometry.covers_row(job.offset, job.len, place.row) {
            // All of a row: stripe by stripe, with all roles of each, instead of role by role.
            let start = place.row * self.geometry.row_bytes() - job.offset;
            let data = self.geometry.data();
            let index = (admitted - start) / (u64::from(stripe_bytes) * data as u64);
            let fragment = Fragment {
                job: at,
                next: NONE,
                kind,
                role: 0,
                roles: data as u8,
                start: 0,
                len: stripe_bytes,
                at: (start + index * u64::from(stripe_bytes)) as u32,
            };
            let number = place.row * self.geometry.stripes_per_row() + index;
            return (fragment, number, place.row);
        }
        let (number, start) = self.geometry.stripe_of(place);
        let room = u64::from(stripe_bytes - start);
        let fragment = Fragment {
            job: at,
            next: NONE,
            kind,
            role: place.role as u8,
            roles: 1,
            start,
            len: room.min(job.len - admitted) as u32,
            at: *admitted as u32,
        };
        (fragment, number, place.row)
    }

    /// Whether a block that a fragment is about could only be told from parity that may not match.
    fn is_doubtful(&self, row: u64, fragment: &Fragment) -> bool {
        let roles = fragment.role..fragment.role + fragment.roles;
        let slot = |role: u8| self.geometry.member(row, usize::from(role));
        self.view.unsynced.is_some() && roles.map(slot).any(|slot| self.view.doubtful(slot, row))
    }

    /// Puts a fragment into its stripe; `false` while there is no stripe to be had, or that is in a stretch
    /// or being patched.
    pub(super) fn attach(&mut self, number: u64, fragment: Fragment, pace: Pace) -> bool {
        !self.swaths.hold(number)
            && !self.patches.holds(number)
            && self.attach_held(number, fragment, pace)
    }

    /// The same for a stripe of a stretch, if it is in one.
    pub(super) fn attach_held(&mut self, number: u64, fragment: Fragment, pace: Pace) -> bool {
        let Some(at) = self.cache.acquire(number) else {
            return false;
        };
        let phase = self.cache[at].phase;
        if mutation::on(Mutation::R11)
            && phase == Phase::Batched
            && fragment.kind == FragmentKind::Rebuild
        {
            return true;
        }
        let bytes = fragment.bytes();
        let index = self.fragments.insert(fragment) as u32;
        let stripe = &mut self.cache[at];
        let fresh = stripe.pending.is_empty();
        let mut pending = stripe.pending;
        append(&mut self.fragments, &mut pending, index);
        stripe.pending = pending;
        match phase {
            // It was idle or new exactly if this is its first fragment and no round is under way.
            Phase::Ready if fresh && stripe.round.is_empty() => {
                let waits = pace == Pace::Patient && self.begin_wait(at, bytes);
                if !waits {
                    self.ready.push_back(at);
                }
            }
            Phase::Waiting => self.fill(at, bytes, pace != Pace::Patient),
            Phase::Batched if mutation::on(Mutation::R6) && self.is_away(at) => {
                self.cache[at].phase = Phase::Ready;
                self.ready.push_back(at);
            }
            Phase::Batched if pace == Pace::Urgent => self.hurry(at),
            _ => {}
        }
        true
    }

    /// Ends a fragment of a stripe and, with the last one, its job.
    pub(super) fn end_fragment(&mut self, index: u32, number: u64, status: Status) {
        let fragment = self.fragments.remove(index as usize);
        if fragment.job == NONE {
            return self.end_work(&fragment, number, status);
        }
        let owned = &mut self.jobs[fragment.job as usize];
        owned.left -= 1;
        if status != Status::Ok && owned.status == Status::Ok {
            owned.status = status;
        }
        self.end_if_done(fragment.job);
    }

    pub(super) fn end_if_done(&mut self, at: u32) {
        let owned = &self.jobs[at as usize];
        if owned.left > 0 || owned.admitted < owned.job.len {
            return;
        }
        let OwnedJob { job, status, .. } = self.jobs.remove(at as usize);
        self.out.done.push((job, status));
    }

    /// Replaces the view. What is under way goes on, and looks at the new one at its next step.
    pub(super) fn adopt(&mut self, view: &Arc<View>) {
        self.view = view.clone();
        self.doubted = true;
        self.hasten_all();
        self.open_window();
        self.adopt_logging();
        if !view.online {
            for at in std::mem::take(&mut self.settling) {
                self.fail_round(at, Status::Offline);
            }
            self.stop_intending();
        }
    }

    /// What the member is like that comes into a bay, and whether it has a bad-block log.
    pub(super) fn open(&mut self, bay: usize, member: &Info, bad_block_log: bool) {
        let write_cache = member.write_cache;
        if !member.in_memory {
            self.patches.end();
        }
        self.logs &= !(1 << bay);
        self.logs |= u64::from(bad_block_log) << bay;
        self.write_caches &= !(1 << bay);
        self.write_caches |= u64::from(write_cache) << bay;
    }

    /// Every node has adopted `view`: whatever waited for that goes on.
    pub(super) fn settled(&mut self, view: &Arc<View>) {
        self.settled = view.clone();
        // Rounds still writing have nothing more to wait for either, and must not: by the time
        // they end, another member may be in this slot.
        let members = self.geometry.members();
        let bays = 0..=members.min(63);
        let empty = bays.filter(|&bay| !view.occupies(bay, members));
        let empty: u64 = empty.fold(0, |mask, bay| mask | 1 << bay);
        if empty != 0 {
            for stripe in self.cache.iter_mut() {
                stripe.unwritten &= !empty;
            }
        }
        for at in std::mem::take(&mut self.settling) {
            self.settle(at);
        }
        self.pursue_logs();
    }

    /// The end of a turn: begins what has gathered, and merges the I/O of all stripes.
    /// Says whether anything was done.
    pub(super) fn run(&mut self, now: Instant) -> bool {
        self.clock
            .get_or_insert_with(|| Clock::new(now))
            .advance(now);
        let mut worked = self.recall();
        self.held_back = false;
        let issued = self.counters.member_requests;
        'turn: loop {
            if !self.swaths.is_empty() {
                self.do_again();
            }
            if !self.patches.is_empty() {
                self.patch_again();
            }
            self.admit();
            self.fill_window();
            self.end_waits();
            self.end_delays();
            // In order, and not past the first that still can't have its pages.
            while let Some(at) = self.starved.pop_front() {
                self.cache[at].phase = Phase::Ready;
                self.begin(at);
                if self.cache[at].phase == Phase::Starved {
                    if self.starved.back() == Some(&at) {
                        self.starved.rotate_right(1);
                    }
                    break;
                }
                worked = true;
            }
            let gathered = self.ready.len();
            if gathered == 0 {
                break;
            }
            for _ in 0..gathered {
                if self.reading >= self.wave {
                    self.held_back = true;
                    break 'turn;
                }
                let at = self.ready.pop_front().expect("counted above");
                self.begin(at);
                self.reading += 2 * usize::from(self.cache[at].phase == Phase::Reading);
            }
            worked = true;
        }
        self.reading = 0;
        self.form_batches();
        self.tend_batches();
        self.form_swaths();
        self.issue();
        worked | !self.ready.is_empty() | (self.counters.member_requests > issued)
    }

    /// Whether the members are to be asked for what has been begun before more is.
    pub(super) fn holds_back(&self) -> bool {
        self.held_back
    }

    /// Counts so far, and how many stripes wait or read ahead now.
    pub(super) fn counters(&self) -> Counters {
        let links = self.crossing.links();
        Counters {
            lock_waits: links.lock_waits(self.id),
            preread_active: u64::from(links.preread_active(self.id)),
            waiting: self.waiting() as u64,
            ..self.counters
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.fragments.is_empty()
            && self.jobs.is_empty()
            && self.ios.is_empty()
            && self.batches.is_empty()
            && self.swaths.is_empty()
            && self.patches.is_empty()
            && self.window.is_none()
    }
}

/// How a fragment wants to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// May wait a little for more of its stripe.
    Patient,
    /// At the end of the turn.
    Prompt,
    /// As prompt; it does not wait for a batch either.
    Urgent,
}

/// Puts a fragment at the end of a list.
pub(super) fn append(all: &mut Slab<Fragment>, list: &mut Fragments, index: u32) {
    match list.last {
        NONE => list.first = index,
        last => all[last as usize].next = index,
    }
    list.last = index;
}
