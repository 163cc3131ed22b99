//! Deadlines: many of them, owned by one reactor.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use rustc_hash::FxHashMap;

/// At most one deadline for each key, the earliest always at hand.
///
/// A binary heap that knows where each key is in it, so that moving a deadline (a keep-alive at
/// every command) leaves nothing behind. Every change takes time logarithmic in the number of
/// deadlines; nothing is allocated while their number stays where it has been.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    /// No entry is earlier than its parent, which is at `(place - 1) / 2`.
    heap: Vec<(Instant, K)>,
    place: FxHashMap<K, usize>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            heap: Vec::new(),
            place: FxHashMap::default(),
        }
    }
}

impl<K: Copy + Eq + Hash + Debug> Timers<K> {
    /// No deadlines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline of `key`, in place of the one it may have.
    pub fn set(&mut self, key: K, at: Instant) {
        let place = match self.place.get(&key) {
            Some(&place) => {
                self.heap[place].0 = at;
                place
            }
            None => {
                self.heap.push((at, key));
                self.place.insert(key, self.heap.len() - 1);
                self.heap.len() - 1
            }
        };
        self.settle(place);
    }

    /// Takes away the deadline of `key`; says whether it had one.
    pub fn cancel(&mut self, key: K) -> bool {
        let Some(place) = self.place.remove(&key) else {
            return false;
        };
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
        }
        true
    }

    /// Takes one deadline that has passed (`at <= now`), the earliest first.
    pub fn expired(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// The deadline of `key`.
    pub fn get(&self, key: K) -> Option<Instant> {
        self.place.get(&key).map(|&place| self.heap[place].0)
    }

    /// Deadlines set.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Puts right the one entry that may be too early for its place or too late.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.heap[place].0 < self.heap[(place - 1) / 2].0 {
            let parent = (place - 1) / 2;
            self.exchange(place, parent);
            place = parent;
        }
        loop {
            let children = (2 * place + 1)..(2 * place + 3).min(self.heap.len());
            match children.min_by_key(|&child| self.heap[child].0) {
                Some(child) if self.heap[child].0 < self.heap[place].0 => {
                    self.exchange(place, child);
                    place = child;
                }
                _ => break,
            }
        }
        self.place.insert(self.heap[place].1, place);
    }

    /// Swaps two entries. The one now at `to` may move on; the other is where it belongs.
    fn exchange(&mut self, from: usize, to: usize) {
        self.heap.swap(from, to);
        self.place.insert(self.heap[from].1, from);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn deadlines_expire_in_order_and_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        timers.set('a', at(30));
        timers.set('b', at(10));
        timers.set('c', at(20));
        timers.set('b', at(40));
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.get('b'), Some(at(40)));
        assert!(timers.cancel('a'));
        assert!(!timers.cancel('a'));
        assert_eq!(timers.expired(at(19)), None);
        assert_eq!(timers.expired(at(20)), Some('c'));
        assert_eq!(timers.expired(at(39)), None);
        assert_eq!(timers.expired(at(90)), Some('b'));
        assert_eq!(timers.expired(at(90)), None);
        assert!(timers.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u64),
        Cancel(u8),
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..20u8, 0..50u64).prop_map(|(k, at)| Step::Set(k, at)),
            1 => (0..20u8).prop_map(Step::Cancel),
            1 => (0..50u64).prop_map(Step::Expire),
        ]
    }

    proptest! {
        /// Against a plain map that is searched from end to end.
        #[test]
        fn it_behaves_as_a_plain_map(steps in proptest::collection::vec(step(), 0..200)) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let mut timers = Timers::new();
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(key, ms) => {
                        timers.set(key, at(ms));
                        model.insert(key, ms);
                    }
                    Step::Cancel(key) => {
                        prop_assert_eq!(timers.cancel(key), model.remove(&key).is_some());
                    }
                    Step::Expire(ms) => {
                        let mut last = 0;
                        while let Some(key) = timers.expired(at(ms)) {
                            let due = model.remove(&key);
                            prop_assert!(due.is_some_and(|due| last <= due && due <= ms));
                            last = due.unwrap_or(last);
                        }
                        prop_assert!(model.values().all(|&due| due > ms));
                    }
                }
                prop_assert_eq!(timers.next(), model.values().min().map(|&ms| at(ms)));
                prop_assert_eq!(timers.len(), model.len());
            }
            for key in 0..20 {
                prop_assert_eq!(timers.get(key), model.get(&key).map(|&ms| at(ms)));
            }
        }
    }
}
