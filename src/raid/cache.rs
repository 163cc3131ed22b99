//! The stripe cache of a shard: a fixed pool of stripes, found by number, and of pages; the idle stripes
//! in the order of their last use, and those that wait for more writes in the order in which they began.

use std::ops::{Index, IndexMut};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::geometry::Geometry;
use super::pages::Pages;
use super::stripe::{NONE, Phase, Stripe};

/// Most idle stripes that keep what they know. More would find a block again that is written at random
/// hardly more often, but each round would begin with a stripe and pages that the core's cache (1 MiB or
/// more) has let go of. The stripes of several streams fit in: a stream comes back to a stripe after a chunk.
const IDLE: usize = 128;

#[derive(Debug)]
pub(super) struct StripeCache {
    geometry: Geometry,
    pub(super) pages: Pages,
    stripes: Box<[Stripe]>,
    table: FxHashMap<u64, u32>,
    free: Vec<u32>,
    idle: Queue,
    waiting: Queue,
}

/// Both ends of a list of stripes, linked through [`Stripe::newer`] and [`Stripe::older`]. A
/// stripe is in the list of its phase, if that has one.
#[derive(Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    len: usize,
}

impl Queue {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        len: 0,
    };

    fn push(&mut self, stripes: &mut [Stripe], at: u32) {
        let stripe = &mut stripes[at as usize];
        stripe.older = self.newest;
        stripe.newer = NONE;
        match self.newest {
            NONE => self.oldest = at,
            newest => stripes[newest as usize].newer = at,
        }
        self.newest = at;
        self.len += 1;
    }

    fn unlink(&mut self, stripes: &mut [Stripe], at: u32) {
        let stripe = &mut stripes[at as usize];
        let newer = std::mem::replace(&mut stripe.newer, NONE);
        let older = std::mem::replace(&mut stripe.older, NONE);
        match newer {
            NONE => self.newest = older,
            _ => stripes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => stripes[older as usize].newer = newer,
        }
        self.len -= 1;
    }
}

impl Index<u32> for StripeCache {
    type Output = Stripe;
    fn index(&self, at: u32) -> &Stripe {
        &self.stripes[at as usize]
    }
}

impl IndexMut<u32> for StripeCache {
    fn index_mut(&mut self, at: u32) -> &mut Stripe {
        &mut self.stripes[at as usize]
    }
}

impl StripeCache {
    pub(super) fn new(stripes: usize, geometry: Geometry, pages: Pages) -> Self {
        let mut table = FxHashMap::default();
        // Twice the stripes, so that the table never grows.
        table.reserve(2 * stripes);
        let members = geometry.members();
        Self {
            geometry,
            pages,
            stripes: (0..stripes).map(|_| Stripe::new(members)).collect(),
            table,
            free: (0..stripes as u32).rev().collect(),
            idle: Queue::EMPTY,
            waiting: Queue::EMPTY,
        }
    }

    /// Number of stripes, free ones too.
    pub(super) fn len(&self) -> usize {
        self.stripes.len()
    }

    /// Every stripe, free ones too.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stripe> {
        self.stripes.iter_mut()
    }

    /// The stripe of this number, which is then not idle any more; the least lately used idle one
    /// makes room for it. `None` while every stripe is busy.
    pub(super) fn acquire(&mut self, number: u64) -> Option<u32> {
        if let Some(&at) = self.table.get(&number) {
            if self[at].phase == Phase::Idle {
                self.idle.unlink(&mut self.stripes, at);
                self[at].phase = Phase::Ready;
            }
            return Some(at);
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                let oldest = self.longest_idle()?;
                self.evict(oldest);
                oldest
            }
        };
        let stripe = &mut self.stripes[at as usize];
        debug_assert!(
            stripe.pages.iter().all(Option::is_none),
            "a free stripe is empty"
        );
        stripe.number = number;
        stripe.row = self.geometry.row_of(number);
        stripe.parity = self.geometry.parity_member(stripe.row);
        stripe.phase = Phase::Ready;
        self.table.insert(number, at);
        Some(at)
    }

    /// Whether there is a stripe of this number, busy or idle.
    pub(super) fn knows(&self, number: u64) -> bool {
        self.table.contains_key(&number)
    }

    /// Throws away what idle stripes among `count` from `first` on know; `false`, and nothing, if one of them
    /// is busy.
    pub(super) fn clear(&mut self, first: u64, count: u64) -> bool {
        if self.table.is_empty() {
            return true;
        }
        let known = |number| self.table.get(&number).copied();
        let known: SmallVec<[u32; 16]> = (first..first + count).filter_map(known).collect();
        let idle = known.iter().all(|&at| self[at].phase == Phase::Idle);
        if idle {
            known.into_iter().for_each(|at| self.let_go(at));
        }
        idle
    }

    /// Puts a stripe that has nothing to do among the idle ones; or among the free ones, if nothing is
    /// known of it.
    pub(super) fn release(&mut self, at: u32) {
        let stripe = &mut self[at];
        assert!(stripe.pending.is_empty() && stripe.round.is_empty() && stripe.in_flight == 0);
        if stripe.pages.iter().all(Option::is_none) {
            self.vacate(at);
            return self.free.push(at);
        }
        stripe.phase = Phase::Idle;
        self.idle.push(&mut self.stripes, at);
        if self.idle.len > IDLE {
            self.shed();
        }
    }

    /// Takes back the pages that were set aside for a round of a stripe.
    pub(super) fn unreserve(&mut self, at: u32) {
        for page in self.stripes[at as usize].spare.drain(..) {
            self.pages.give(page);
        }
    }

    /// Lets a stripe wait for more writes.
    pub(super) fn wait(&mut self, at: u32) {
        self[at].phase = Phase::Waiting;
        self.waiting.push(&mut self.stripes, at);
    }

    /// Ends the wait of a stripe.
    pub(super) fn wake(&mut self, at: u32) {
        assert_eq!(self[at].phase, Phase::Waiting);
        self.waiting.unlink(&mut self.stripes, at);
        self[at].phase = Phase::Ready;
    }

    /// How many stripes wait for more writes.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len
    }

    /// The stripe that has waited longest.
    pub(super) fn longest_waiting(&self) -> Option<u32> {
        Some(self.waiting.oldest).filter(|&at| at != NONE)
    }

    /// Throws away the cached pages of the least lately used idle stripe, and says whether there
    /// was one.
    pub(super) fn shed(&mut self) -> bool {
        self.longest_idle().inspect(|&at| self.let_go(at)).is_some()
    }

    /// Has idle stripes give up what they have cached until so many pages are to be taken; `false` if there are not as many.
    pub(super) fn make_room(&mut self, pages: usize) -> bool {
        while !self.pages.has(pages) {
            if !self.shed() {
                return false;
            }
        }
        true
    }

    /// The least lately used idle stripe.
    fn longest_idle(&self) -> Option<u32> {
        Some(self.idle.oldest).filter(|&at| at != NONE)
    }

    /// Frees an idle stripe.
    fn let_go(&mut self, at: u32) {
        self.evict(at);
        self.free.push(at);
    }

    /// Throws away what an idle stripe knows.
    fn evict(&mut self, at: u32) {
        self.idle.unlink(&mut self.stripes, at);
        for page in self.stripes[at as usize].pages.iter_mut() {
            if let Some(page) = page.take() {
                self.pages.give_shared(page);
            }
        }
        self.vacate(at);
    }

    /// A stripe of which nothing is known stands for none any more.
    fn vacate(&mut self, at: u32) {
        let stripe = &mut self.stripes[at as usize];
        self.table.remove(&stripe.number);
        stripe.phase = Phase::Free;
        stripe.number = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Layout;
    use super::*;
    use crate::memory::{Arena, Pool};

    /// Two stripes of an array of three members, and as many pages.
    fn cache() -> StripeCache {
        let arena = Arena::ordinary(2 * 4096).unwrap();
        let pages = Pages::new(Pool::new(&arena, 4096, 2).unwrap(), 4096);
        let geometry = Geometry::new(3, 1 << 20, 4096, 4096, Layout::default()).unwrap();
        StripeCache::new(2, geometry, pages)
    }

    fn learn(cache: &mut StripeCache, at: u32) {
        let page = cache.pages.take().unwrap();
        cache[at].pages[0] = Some(page.freeze());
    }

    #[test]
    fn the_least_lately_used_idle_stripe_makes_room() {
        let mut cache = cache();
        let a = cache.acquire(10).unwrap();
        let b = cache.acquire(20).unwrap();
        assert_eq!(cache.acquire(30), None);
        learn(&mut cache, a);
        learn(&mut cache, b);
        cache.release(a);
        cache.release(b);
        assert_eq!(cache.acquire(10), Some(a));
        assert_eq!(cache.acquire(30), Some(b));
        assert_eq!(cache[b].number, 30);
        cache.release(a);
        assert!(cache.shed());
        assert!(!cache.shed());
        assert_eq!(cache.acquire(10), Some(a));
    }

    #[test]
    fn stripes_are_cleared_if_none_is_busy() {
        let mut cache = cache();
        let a = cache.acquire(10).unwrap();
        let b = cache.acquire(11).unwrap();
        learn(&mut cache, a);
        learn(&mut cache, b);
        cache.release(a);
        assert!(!cache.clear(10, 2), "one is busy");
        assert_eq!(cache.acquire(10), Some(a));
        assert!(
            cache[a].pages[0].is_some(),
            "and what the other knows is kept"
        );
        cache.release(a);
        assert!(cache.clear(8, 3), "the busy one is not among these");
        assert!(cache[a].pages[0].is_none() && cache.pages.has(1));
        assert_eq!(cache.acquire(12), Some(a), "it is free");
        assert!(cache.clear(0, 10));
    }

    #[test]
    fn a_stripe_of_which_nothing_is_known_is_free_at_once() {
        let mut cache = cache();
        let a = cache.acquire(10).unwrap();
        let b = cache.acquire(20).unwrap();
        learn(&mut cache, a);
        cache.release(a);
        cache.release(b);
        assert_eq!(cache.acquire(30), Some(b), "what is known is kept");
        assert_eq!((cache[b].number, cache[b].row), (30, 30));
        // Left-symmetric: parity moves from the last of three members to the first.
        assert_eq!(cache[b].parity, 2);
        assert_eq!(cache.acquire(10), Some(a));
        assert!(cache[a].pages[0].is_some());
    }
}
