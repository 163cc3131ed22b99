//! The counting of views, driven by loom through every interleaving of two or three threads.
//!
//! The bytes of a slot are out of loom's sight. A [`Witness`] stands for them: it is read where a
//! test reads a view and written where it writes one, and loom reports a write that is not ordered
//! after every read.
//!
//! Each ordering was weakened by hand to see a test fail: `is_only` and the load of the last drop to
//! relaxed, the decrement to relaxed.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::stack::Stack;
use super::{Arena, Buf, Pool, SLOT_ALIGN};

/// What the bytes of the one slot are to loom.
struct Witness(UnsafeCell<u32>);

// SAFETY: loom checks each access against all others, which is what the tests are about.
unsafe impl Send for Witness {}
// SAFETY: as above.
unsafe impl Sync for Witness {}

impl Witness {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }

    fn read(&self) {
        self.0.with(|_| ());
    }

    fn write(&self) {
        self.0.with_mut(|_| ());
    }
}

/// A pool of one slot, and the view of that slot.
fn pool_of_one() -> (Pool, Buf) {
    let arena = Arena::ordinary(SLOT_ALIGN).unwrap();
    let pool = Pool::new(&arena, SLOT_ALIGN, 1).unwrap();
    let view = pool.take().unwrap().freeze();
    (pool, view)
}

fn read_and_drop(view: Buf, witness: &Arc<Witness>) -> thread::JoinHandle<()> {
    let witness = witness.clone();
    thread::spawn(move || {
        witness.read();
        drop(view);
    })
}

#[test]
fn loom_a_slot_is_released_once_whoever_is_last() {
    loom::model(|| {
        let (pool, view) = pool_of_one();
        let witness = Witness::new();
        let threads = [
            read_and_drop(view.clone(), &witness),
            read_and_drop(view.slice(100..), &witness),
        ];
        witness.read();
        drop(view);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.available(), 1);
        assert!(pool.take().is_some());
    });
}

#[test]
fn loom_the_next_user_of_a_slot_comes_after_all_readers() {
    loom::model(|| {
        let (pool, view) = pool_of_one();
        let witness = Witness::new();
        let threads = [
            read_and_drop(view.clone(), &witness),
            read_and_drop(view, &witness),
        ];
        // Before the joins, which would order everything.
        if pool.take().is_some() {
            witness.write();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn loom_the_right_to_write_comes_back_after_all_readers() {
    loom::model(|| {
        let (pool, view) = pool_of_one();
        let witness = Witness::new();
        let threads = [
            read_and_drop(view.clone(), &witness),
            read_and_drop(view.slice(..1), &witness),
        ];
        if let Ok(alone) = view.try_into_mut() {
            witness.write();
            drop(alone);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.available(), 1);
    });
}

#[test]
fn loom_halves_of_a_buffer_go_home_from_two_threads() {
    loom::model(|| {
        let arena = Arena::ordinary(SLOT_ALIGN).unwrap();
        let pool = Pool::new(&arena, SLOT_ALIGN, 1).unwrap();
        let mut head = pool.take().unwrap();
        let tail = head.split_off(2048);
        let thread = thread::spawn(move || drop(tail));
        drop(head);
        thread.join().unwrap();
        assert_eq!(pool.available(), 1);
    });
}

/// Two threads take two numbers each, if they get them, and return them the other way round, which is
/// what a stack that did not count its changes would lose itself in.
#[test]
fn loom_a_stack_neither_loses_nor_doubles_a_number() {
    loom::model(|| {
        let stack = Arc::new(Stack::full(2));
        let owned = Arc::new([Witness::new(), Witness::new()]);
        let turn = |stack: &Stack, owned: &[Arc<Witness>; 2]| {
            let first = stack.pop();
            let second = stack.pop();
            for number in [first, second].into_iter().flatten() {
                owned[number as usize].write();
            }
            for number in [first, second].into_iter().flatten() {
                stack.push(number);
            }
        };
        let thread = {
            let (stack, owned) = (stack.clone(), owned.clone());
            thread::spawn(move || turn(&stack, &owned))
        };
        turn(&stack, &owned);
        thread.join().unwrap();
        assert_eq!(stack.len(), 2);
        let (top, last) = (stack.pop().unwrap(), stack.pop().unwrap());
        assert_eq!((top + last, stack.pop()), (1, None));
    });
}
