//! Stripes of a row that are worked on as one: a *stretch* of them, and a *swath* of stretches that follow one
//! another, with one request to each member for all of them.
//!
//! A row that is written whole, rebuilt or compared with its parity needs nothing that a round of each stripe
//! would find out: nothing of it is known, or it does not matter. So a stretch has no stripes in the cache.
//! While it is worked on, no stripe of it may begin a round ([`Swaths::hold`]): whatever comes for one waits where it
//! is. It is taken only where everything is as it should be; where it turns out that it is not (a member
//! fails, parity does not match, the view changes), nothing was acknowledged yet, and all of it is done
//! again stripe by stripe, which knows what to do.

mod host;
mod window;

use std::collections::VecDeque;

use rustc_hash::FxHashSet;
use slab::Slab;
use smallvec::SmallVec;

use super::batching::BatchScope;
use super::geometry::Geometry;
use super::member_io::MemberIo;
use super::mutation::{self, Mutation};
use super::shard::{Pace, Shard};
use super::stripe::{Fragment, FragmentKind, NONE};
use super::view::Work;
use crate::bdev::{Data, Op, Status};
use crate::memory::{Buf, BufMut, Segments};

/// All stretches of a shard.
#[derive(Debug)]
pub(super) struct Swaths {
    /// Stripes of a stretch, as a power of two; 0 where none is made.
    shift: u32,
    /// Bytes of data of one.
    bytes: u64,
    /// Stretches being worked on, by the number of their first stripe.
    held: FxHashSet<u64>,
    /// How many of a host's one turn may take. Where members are memory, what was added up is copied to them from the
    /// core's cache while it is still there.
    turn: usize,
    /// Those of this turn.
    gathered: Vec<Stretch>,
    under_way: Slab<Swath>,
    /// Pages for them, until they are formed.
    set_apart: Vec<BufMut>,
    /// To be done stripe by stripe, and how many of their stripes have been handed to their rounds.
    again: VecDeque<(Stretch, u64)>,
    /// Scratch: what goes to the member of each slot.
    drafts: Box<[Segments]>,
    /// Scratch: parity of a stretch.
    parity: Vec<Buf>,
    /// Lists of pages for the next swaths that read.
    lists: Vec<Vec<Option<BufMut>>>,
}

/// Stripes of one row that follow one another.
#[derive(Clone, Debug)]
struct Stretch {
    /// The number of the first one.
    first: u64,
    row: u64,
    /// The slot whose member holds parity of the row.
    parity: usize,
    cause: Cause,
}

/// Why a stretch is worked on.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// A host writes all of it, from this byte of a job's payload on.
    Host { job: u32, at: u32 },
    /// A window of the view of this epoch.
    Window { epoch: u64, work: Work },
}

/// Stretches that follow one another.
#[derive(Debug)]
struct Swath {
    stretches: SmallVec<[Stretch; 4]>,
    stage: Stage,
    /// What was read, by stretch, slot and stripe.
    pages: Vec<Option<BufMut>>,
    /// Member requests in flight.
    in_flight: u32,
    /// One of them failed, or parity does not match.
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Writing,
}

/// How a member request of a swath is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct SwathIo {
    bay: u8,
    slot: u8,
    /// The first of the stretches that it is about.
    from: u8,
    key: u32,
}

impl Swaths {
    /// None yet, in a shard whose member requests have `merge` stripes at most.
    pub(super) fn new(geometry: &Geometry, merge: usize, ppl: bool, in_memory: bool) -> Self {
        let most = geometry.stripes_per_row().min(merge as u64);
        // What a log says, it says of stripes.
        let shift = if ppl { 0 } else { most.ilog2() };
        let stripe = u64::from(geometry.stripe_bytes()) * geometry.data() as u64;
        Self {
            shift,
            bytes: stripe << shift,
            turn: if in_memory { 1 } else { usize::MAX },
            held: FxHashSet::default(),
            gathered: Vec::with_capacity(16),
            set_apart: Vec::with_capacity(16 * merge),
            under_way: Slab::with_capacity(64),
            again: VecDeque::new(),
            drafts: (0..geometry.members()).map(|_| Segments::new()).collect(),
            parity: Vec::with_capacity(merge),
            lists: Vec::new(),
        }
    }

    /// Whether the stripe of this number is in a stretch that is being worked on.
    pub(super) fn hold(&self, number: u64) -> bool {
        !self.held.is_empty()
            && self.held.contains(&(number >> self.shift << self.shift))
            && !mutation::on(Mutation::R18)
    }

    /// Bytes of data of a stretch.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether hosts' have to wait for the next turn.
    pub(super) fn is_full(&self) -> bool {
        self.gathered.len() >= self.turn
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Stripes of a stretch.
    fn stripes(&self) -> u64 {
        1 << self.shift
    }

    /// Whether a stretch may begin at the stripe of this number.
    fn begins_at(&self, number: u64) -> bool {
        self.shift > 0 && number.is_multiple_of(self.stripes())
    }
}

impl Shard {
    /// Sets a stretch apart, with so many pages, if none of its stripes is busy and nobody waits for pages.
    fn set_apart(&mut self, first: u64, pages: usize) -> bool {
        let stripes = self.swaths.stripes();
        let patched = || (first..first + stripes).any(|number| self.patches.holds(number));
        let free = !self.swaths.hold(first) && self.starved.is_empty() && !patched();
        if !free || !self.cache.clear(first, stripes) {
            return false;
        }
        let kept_back = Self::round_pages(self.geometry.members());
        if !self.cache.make_room(pages + kept_back) {
            return false;
        }
        for _ in 0..pages {
            let page = self.cache.pages.take().expect("counted above");
            self.swaths.set_apart.push(page);
        }
        self.swaths.held.insert(first);
        true
    }

    /// Makes swaths of what has gathered in this turn.
    pub(super) fn form_swaths(&mut self) {
        if self.swaths.gathered.is_empty() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.swaths.gathered);
        gathered.sort_unstable_by_key(|stretch| stretch.first);
        let stripes = self.swaths.stripes();
        let across = self.batching.scope > BatchScope::Row;
        let mut rest = gathered.drain(..).peekable();
        while let Some(first) = rest.next() {
            let most = match first.cause {
                Cause::Host { .. } => self.merge as u64,
                Cause::Window { .. } => window::STRIPES,
            };
            let mut stretches: SmallVec<[Stretch; 4]> = SmallVec::new();
            stretches.push(first);
            let follows = |next: &Stretch, last: &Stretch, count: usize| {
                next.first == last.first + stripes
                    && (across || next.row == last.row)
                    && (count as u64 + 1) * stripes <= most
                    && next.cause.is_like(last.cause)
            };
            while let Some(next) = rest.next_if(|next| {
                let last = stretches.last().expect("there is a first");
                follows(next, last, stretches.len())
            }) {
                stretches.push(next);
            }
            match stretches[0].cause {
                Cause::Host { .. } => self.write_swath(stretches),
                Cause::Window { epoch, .. } => self.read_swath(stretches, epoch),
            }
        }
        drop(rest);
        self.swaths.gathered = gathered;
        // Those of stretches that are done stripe by stripe after all.
        for page in self.swaths.set_apart.drain(..) {
            self.cache.pages.give(page);
        }
    }

    /// Asks the member in a slot for, or of, all of `count` stretches of a swath from `from` on.
    fn ask_for_swath(
        &mut self,
        key: u32,
        slot: usize,
        (from, count): (usize, usize),
        op: Op,
        data: Data,
    ) {
        let swath = &mut self.swaths.under_way[key as usize];
        swath.in_flight += 1;
        let first = swath.stretches[from].first;
        let stripes = count as u64 * self.swaths.stripes();
        let bay = self.view.bay(slot);
        let io = MemberIo::Swath(SwathIo {
            bay: bay as u8,
            slot: slot as u8,
            from: from as u8,
            key,
        });
        let token = self.ios.insert(io) as u64;
        self.ask(bay, token, op, (first, stripes as u32), data);
    }

    /// A member has answered a request of a swath.
    pub(super) fn swath_request_done(&mut self, io: SwathIo, status: Status, data: Data) {
        let (stripes, members) = (self.swaths.stripes() as usize, self.geometry.members());
        let swath = &mut self.swaths.under_way[io.key as usize];
        swath.in_flight -= 1;
        if status != Status::Ok {
            swath.failed = !mutation::on(Mutation::R19);
            if status == Status::Gone {
                self.out.news.failures.push((io.bay.into(), status));
            }
        }
        match data {
            Data::Read(mut read) => {
                for (at, page) in read.drain(..).enumerate() {
                    let stretch = usize::from(io.from) + at / stripes;
                    let column = stretch * members + usize::from(io.slot);
                    swath.pages[column * stripes + at % stripes] = Some(page);
                }
                self.lists.keep_into(read);
            }
            Data::Write(mut written) => {
                for page in written.drain(..) {
                    self.cache.pages.give_shared(page);
                }
                self.lists.keep_from(written);
            }
            Data::None => {}
        }
        if swath.in_flight > 0 {
            return;
        }
        match swath.stage {
            Stage::Reading => self.all_of_swath_read(io.key),
            Stage::Writing => self.end_swath(io.key),
        }
    }

    /// Every request of a swath has ended. What has not gone well is done again.
    fn end_swath(&mut self, key: u32) {
        let mut swath = self.swaths.under_way.remove(key as usize);
        for page in swath.pages.drain(..).flatten() {
            self.cache.pages.give(page);
        }
        if swath.pages.capacity() > 0 {
            self.swaths.lists.push(swath.pages);
        }
        for stretch in swath.stretches {
            match swath.failed || !self.view.online {
                true => self.swaths.again.push_back((stretch, 0)),
                false => self.end_stretch(&stretch),
            }
        }
    }

    /// All of a stretch is done.
    fn end_stretch(&mut self, stretch: &Stretch) {
        self.swaths.held.remove(&stretch.first);
        match stretch.cause {
            Cause::Host { job, .. } => self.written_by_host(stretch, job),
            Cause::Window { epoch, .. } => {
                self.worked_through(epoch, self.swaths.stripes() as u32);
            }
        }
    }

    /// Hands the stripes of stretches that could not be done as one to their rounds, as there is room
    /// for them; before anything else comes for them.
    pub(super) fn do_again(&mut self) {
        while let Some((stretch, done)) = self.swaths.again.pop_front() {
            let Some(done) = self.hand_out(&stretch, done) else {
                self.swaths.held.remove(&stretch.first);
                continue;
            };
            return self.swaths.again.push_front((stretch, done));
        }
    }

    /// Hands stripes of a stretch to their rounds from the one behind `done` on. Returns how many it has
    /// handed out where not all found room.
    fn hand_out(&mut self, stretch: &Stretch, done: u64) -> Option<u64> {
        let stripes = self.swaths.stripes();
        let stripe_bytes = self.geometry.stripe_bytes();
        for index in done..stripes {
            let (kind, role, roles, at) = match stretch.cause {
                Cause::Host { at, .. } => {
                    let at = at + index as u32 * stripe_bytes;
                    (FragmentKind::Write, 0, self.geometry.data(), at)
                }
                Cause::Window { epoch, work } => {
                    if !self.is_open(epoch) {
                        return None;
                    }
                    let (kind, role) = self.fragment_of(work, stretch.row);
                    (kind, role, 1, epoch as u32)
                }
            };
            let fragment = Fragment {
                job: match stretch.cause {
                    Cause::Host { job, .. } => job,
                    Cause::Window { .. } => NONE,
                },
                next: NONE,
                kind,
                role: role as u8,
                roles: roles as u8,
                start: 0,
                len: stripe_bytes,
                at,
            };
            if !self.attach_held(stretch.first + index, fragment, Pace::Prompt) {
                return Some(index);
            }
            if let Cause::Host { job, .. } = stretch.cause {
                self.jobs[job as usize].left += 1;
            }
        }
        if let Cause::Host { job, .. } = stretch.cause {
            self.wrote_row(stretch.row);
            self.jobs[job as usize].left -= 1;
        }
        None
    }
}

impl Cause {
    /// Whether two stretches may be parts of one swath.
    fn is_like(self, other: Cause) -> bool {
        match (self, other) {
            (Cause::Host { .. }, Cause::Host { .. }) => true,
            (Cause::Window { epoch, work }, Cause::Window { epoch: e, work: w }) => {
                (epoch, work) == (e, w)
            }
            _ => false,
        }
    }
}
