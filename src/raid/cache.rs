//! The stripe cache of a shard: a fixed pool of stripes, found by number, the idle ones in the
//! order of their last use.

use std::ops::{Index, IndexMut};

use rustc_hash::FxHashMap;

use super::stripe::{NONE, Phase, Stripe};

#[derive(Debug)]
pub(super) struct StripeCache {
    stripes: Box<[Stripe]>,
    table: FxHashMap<u64, u32>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
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
    pub(super) fn new(stripes: usize, members: usize) -> Self {
        let mut table = FxHashMap::default();
        // Twice the stripes, so that the table never grows.
        table.reserve(2 * stripes);
        Self {
            stripes: (0..stripes).map(|_| Stripe::new(members)).collect(),
            table,
            free: (0..stripes as u32).rev().collect(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Every stripe, free ones too.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stripe> {
        self.stripes.iter_mut()
    }

    /// The stripe of this number, which is then not idle any more; the least lately used idle one
    /// makes room for it. `None` while every stripe is busy.
    pub(super) fn acquire(&mut self, number: u64, row: u64) -> Option<u32> {
        if let Some(&at) = self.table.get(&number) {
            if self[at].phase == Phase::Idle {
                self.unlink(at);
                self[at].phase = Phase::Ready;
            }
            return Some(at);
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => self.evict()?,
        };
        let stripe = &mut self[at];
        debug_assert!(
            stripe.pages.iter().all(Option::is_none),
            "a free stripe is empty"
        );
        stripe.number = number;
        stripe.row = row;
        stripe.phase = Phase::Ready;
        self.table.insert(number, at);
        Some(at)
    }

    /// Puts a stripe that has nothing to do among the idle ones.
    pub(super) fn release(&mut self, at: u32) {
        let newest = self.newest;
        let stripe = &mut self[at];
        assert!(stripe.pending.is_empty() && stripe.round.is_empty() && stripe.in_flight == 0);
        stripe.phase = Phase::Idle;
        stripe.older = newest;
        stripe.newer = NONE;
        match newest {
            NONE => self.oldest = at,
            _ => self[newest].newer = at,
        }
        self.newest = at;
    }

    /// Throws away the cached pages of the least lately used idle stripe that has any, and says
    /// whether there was one.
    pub(super) fn shed(&mut self) -> bool {
        if let Some(at) = self.evict() {
            self.free.push(at);
            return true;
        }
        false
    }

    fn evict(&mut self) -> Option<u32> {
        let at = self.oldest;
        if at == NONE {
            return None;
        }
        self.unlink(at);
        let number = self[at].number;
        self.table.remove(&number);
        let stripe = &mut self[at];
        stripe.forget();
        stripe.phase = Phase::Free;
        stripe.number = u64::MAX;
        Some(at)
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self[at].newer, self[at].older);
        match newer {
            NONE => self.newest = older,
            _ => self[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self[older].newer = newer,
        }
        self[at].newer = NONE;
        self[at].older = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_lately_used_idle_stripe_makes_room() {
        let mut cache = StripeCache::new(2, 3);
        let a = cache.acquire(10, 0).unwrap();
        let b = cache.acquire(20, 0).unwrap();
        assert_eq!(cache.acquire(30, 0), None);
        cache.release(a);
        cache.release(b);
        assert_eq!(cache.acquire(10, 0), Some(a));
        assert_eq!(cache.acquire(30, 0), Some(b));
        assert_eq!(cache[b].number, 30);
        cache.release(a);
        assert!(cache.shed());
        assert!(!cache.shed());
        assert_eq!(cache.acquire(10, 0), Some(a));
    }
}
