//! The free slots of a pool: what was returned last goes out first, because it is likely to be in the
//! cache of the core still.
//!
//! A stack without locks (R. K. Treiber, "Systems Programming: Coping with Parallelism", 1986). It holds
//! numbers, each at most once, and links them in a table of its own, so nothing is ever allocated or freed.

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// No number.
const NONE: u32 = u32::MAX;

/// A stack of numbers below a limit, each in it at most once, open to all threads.
#[derive(Debug)]
pub(super) struct Stack {
    /// The number on top, and above it a count of changes: who has looked at the stack and meets the same
    /// number on top later knows by the count that it is not the same stack.
    top: AtomicU64,
    links: Box<[Link]>,
}

/// What is below a number in the stack.
#[derive(Debug)]
struct Link {
    below: AtomicU32,
    /// Numbers from here down.
    depth: AtomicU32,
}

impl Stack {
    /// A stack of all numbers below `count`, 0 on top.
    pub(super) fn full(count: usize) -> Self {
        assert!((count as u64) < u64::from(NONE), "numbers have 32 bits");
        let count = count as u32;
        let link = |number: u32| Link {
            below: AtomicU32::new(if number + 1 == count {
                NONE
            } else {
                number + 1
            }),
            depth: AtomicU32::new(count - number),
        };
        Self {
            top: AtomicU64::new(u64::from(if count == 0 { NONE } else { 0 })),
            links: (0..count).map(link).collect(),
        }
    }

    /// Puts a number that is not in the stack on top. All that the thread did before comes before what
    /// follows the [`Stack::pop`] that takes it.
    pub(super) fn push(&self, number: u32) {
        let link = &self.links[number as usize];
        // Acquire, here and below: the depth of what is on top was written before it came there.
        let mut seen = self.top.load(Ordering::Acquire);
        loop {
            let below = seen as u32;
            link.below.store(below, Ordering::Relaxed);
            let depth = 1 + self.depth(below);
            link.depth.store(depth, Ordering::Relaxed);
            let next = changed(seen, number);
            match self
                .top
                .compare_exchange_weak(seen, next, Ordering::Release, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// Takes the number on top, if there is one.
    pub(super) fn pop(&self) -> Option<u32> {
        // Acquire, here and below: what is below the top was written before it came on top.
        let mut seen = self.top.load(Ordering::Acquire);
        loop {
            let number = seen as u32;
            if number == NONE {
                return None;
            }
            // If somebody else takes the number meanwhile, this is of no use, and the exchange fails.
            let below = self.links[number as usize].below.load(Ordering::Relaxed);
            let next = changed(seen, below);
            match self
                .top
                .compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(number),
                Err(other) => seen = other,
            }
        }
    }

    /// How many numbers are in it. Exact while nobody else changes it, and never more than there are
    /// while others only push.
    pub(super) fn len(&self) -> usize {
        self.depth(self.top.load(Ordering::Acquire) as u32) as usize
    }

    fn depth(&self, number: u32) -> u32 {
        match number {
            NONE => 0,
            _ => self.links[number as usize].depth.load(Ordering::Relaxed),
        }
    }
}

/// The word of a stack with `number` on top that looked like `seen` before.
fn changed(seen: u64, number: u32) -> u64 {
    let changes = (seen >> 32) as u32;
    u64::from(changes.wrapping_add(1)) << 32 | u64::from(number)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_in_is_the_first_one_out() {
        let stack = Stack::full(3);
        assert_eq!(stack.len(), 3);
        assert_eq!(
            [stack.pop(), stack.pop(), stack.pop(), stack.pop()],
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!(stack.len(), 0);
        stack.push(1);
        stack.push(0);
        assert_eq!(stack.len(), 2);
        assert_eq!(stack.pop(), Some(0));
        stack.push(2);
        assert_eq!(
            [stack.pop(), stack.pop(), stack.pop()],
            [Some(2), Some(1), None]
        );
        assert_eq!(Stack::full(0).pop(), None);
    }

    /// Threads take and return as fast as they can; no number is ever with two of them, and all are there
    /// in the end.
    #[test]
    fn numbers_are_neither_lost_nor_doubled() {
        const NUMBERS: usize = 5;
        let stack = Stack::full(NUMBERS);
        let owned: Vec<_> = (0..NUMBERS)
            .map(|_| std::sync::atomic::AtomicBool::new(false))
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let mine: Vec<u32> = (0..2).filter_map(|_| stack.pop()).collect();
                        for &number in &mine {
                            assert!(!owned[number as usize].swap(true, Ordering::Relaxed));
                        }
                        for &number in &mine {
                            owned[number as usize].store(false, Ordering::Relaxed);
                            stack.push(number);
                        }
                    }
                });
            }
        });
        assert_eq!(stack.len(), NUMBERS);
        let mut all: Vec<_> = std::iter::from_fn(|| stack.pop()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }
}
