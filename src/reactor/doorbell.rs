//! How a sleeping thread is woken, and how waking one that is not asleep costs next to nothing.
//!
//! The sleeper *arms* the doorbell, looks at all of its queues once more, and only then waits. A
//! waker first puts its message in a queue, then looks whether the doorbell is armed. Each side
//! writes, passes a full fence, then reads what the other side writes; so at least one of the two
//! sees the other: either the sleeper finds the message, or the waker strikes the bell.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::sync::{AtomicBool, Ordering, fence};

/// What makes a wait that is under way, or else the next one, come back.
pub(super) trait Bell {
    fn strike(&self);
}

/// The armed flag, and the bell that is struck only when it is set.
#[derive(Debug)]
pub(super) struct Doorbell<B> {
    armed: AtomicBool,
    bell: B,
}

impl<B: Bell> Doorbell<B> {
    pub(super) fn new(bell: B) -> Self {
        Self {
            armed: AtomicBool::new(false),
            bell,
        }
    }

    /// The sleeper's first step. It must look at its queues once more before it waits.
    pub(super) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake and looks at its queues without being told to.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Strikes the bell if the sleeper is armed. Whatever the caller wrote before [`publish`] is
    /// seen by the sleeper when it wakes.
    pub(super) fn ring(&self) {
        // The load keeps the line shared while the sleeper is awake; the exchange lets one of
        // several wakers pay for the system call.
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::Relaxed) {
            self.bell.strike();
        }
    }
}

/// The waker's step between filling queues and ringing: one serves any number of doorbells.
pub(super) fn publish() {
    fence(Ordering::SeqCst);
}

/// A bell that an epoll set can watch. Watched edge-triggered, it needs no reading: each strike
/// is an edge of its own.
#[derive(Debug)]
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Bell for EventFd {
    fn strike(&self) {
        // The one error there is, a counter at 2^64 - 2, is 2^64 wakes away.
        let written = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        debug_assert!(written.is_ok(), "eventfd write: {written:?}");
    }
}

/// Wakes one reactor, or the owner of one [`Events`](super::Events), from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    doorbell: Arc<Doorbell<EventFd>>,
}

impl Waker {
    pub(super) fn new(doorbell: Arc<Doorbell<EventFd>>) -> Self {
        Self { doorbell }
    }

    /// Makes the sleeper look at its queues. Call it after the message is in the queue. A fence
    /// and one load while the sleeper is awake; one system call if it is not.
    pub fn wake(&self) {
        publish();
        self.doorbell.ring();
    }

    /// [`Waker::wake`] for a caller that has called [`publish`] since it filled the queue.
    pub(super) fn wake_published(&self) {
        self.doorbell.ring();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::atomic::AtomicU32;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// An eventfd watched edge-triggered, as loom can see it: a strike ends this wait or the next.
    struct Chime {
        struck: Mutex<bool>,
        changed: Condvar,
    }

    impl Chime {
        fn new() -> Self {
            Self {
                struck: Mutex::new(false),
                changed: Condvar::new(),
            }
        }

        /// What collecting events between two turns does to a stroke that nobody waited for.
        fn swallow(&self) {
            *self.struck.lock().unwrap() = false;
        }

        fn wait(&self) {
            let mut struck = self.struck.lock().unwrap();
            while !*struck {
                struck = self.changed.wait(struck).unwrap();
            }
            *struck = false;
        }
    }

    impl Bell for Chime {
        fn strike(&self) {
            *self.struck.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }

    /// A sleeper that gets `wanted` messages from `wakers` threads, each of which sends one. The
    /// queue is a bare counter, because a lock in it would order what the fences have to order.
    /// There is no timeout: a lost wake is a deadlock, which loom reports.
    ///
    /// A fence taken out, or the look after `arm`, or `swallow` done while armed, makes it fail.
    fn every_message_is_taken(wakers: u32) {
        let doorbell = Arc::new(Doorbell::new(Chime::new()));
        let queue = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..wakers)
            .map(|_| {
                let (doorbell, queue) = (doorbell.clone(), queue.clone());
                thread::spawn(move || {
                    queue.fetch_add(1, Ordering::Release);
                    publish();
                    doorbell.ring();
                })
            })
            .collect();
        let mut armed = false;
        while queue.load(Ordering::Acquire) < wakers {
            if armed {
                doorbell.bell.wait();
                doorbell.disarm();
                doorbell.bell.swallow();
                armed = false;
            } else {
                doorbell.arm();
                armed = true;
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }

    /// All interleavings of three threads are too many; those with up to three preemptions are
    /// some ten thousand, and what a preemption is needed for comes to light with fewer.
    fn bounded(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn loom_one_waker_is_never_missed() {
        loom::model(|| every_message_is_taken(1));
    }

    #[test]
    fn loom_two_wakers_are_never_missed() {
        bounded(|| every_message_is_taken(2));
    }

    /// The owner of an epoll set that is no reactor: armed all the time but for the moment between
    /// the wake and the next arming, which comes after `swallow` and before it looks at its queues.
    /// Either taken in another order makes it fail, given three messages.
    #[test]
    fn loom_a_sleeper_that_arms_on_waking_misses_nothing() {
        bounded(|| {
            const MESSAGES: u32 = 3;
            let doorbell = Arc::new(Doorbell::new(Chime::new()));
            doorbell.arm();
            let queue = Arc::new(AtomicU32::new(0));
            let thread = {
                let (doorbell, queue) = (doorbell.clone(), queue.clone());
                thread::spawn(move || {
                    for _ in 0..MESSAGES {
                        queue.fetch_add(1, Ordering::Release);
                        publish();
                        doorbell.ring();
                    }
                })
            };
            while queue.load(Ordering::Acquire) < MESSAGES {
                doorbell.bell.wait();
                doorbell.bell.swallow();
                doorbell.arm();
            }
            thread.join().unwrap();
        });
    }
}
