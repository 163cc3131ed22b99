//! The loop of one reactor, and what code running under it can ask for.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::events::{Events, Registration};
use super::stats::Counters;
use super::{Poller, Progress, ReactorId, Turn};

/// The longest sleep. Nothing relies on it; it bounds what a poller that does not keep its promise
/// (to look at everything, to name its deadline) can cost.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// With a deadline nearer than this a reactor goes on spinning: the kernel's timers are as inexact
/// by default (`PR_SET_TIMERSLACK`), and falling asleep and waking takes part of it.
const SHORTEST_SLEEP: Duration = Duration::from_micros(50);

/// What a reactor does when its turns find nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Spins for ever: the lowest latency, and a core at 100 %.
    Busy,
    /// Spins for `quiet` after the last progress, then sleeps until there is an event, a wake or
    /// a deadline.
    Adaptive {
        /// How long to spin first.
        quiet: Duration,
    },
}

impl Default for IdlePolicy {
    /// Adaptive, with a quiet time of 100 µs.
    fn default() -> Self {
        Self::Adaptive {
            quiet: Duration::from_micros(100),
        }
    }
}

/// When a reactor sleeps, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    idle: IdlePolicy,
    longest: Duration,
}

impl Rest {
    pub(super) fn new(idle: IdlePolicy) -> Self {
        Self {
            idle,
            longest: LONGEST_SLEEP,
        }
    }

    /// With a bound so long that a test that would need it hangs.
    #[cfg(test)]
    pub(super) fn without_net(idle: IdlePolicy) -> Self {
        Self {
            idle,
            longest: Duration::from_secs(3600),
        }
    }

    /// Whether to sleep, having found nothing to do for `quiet_for`. Not if the deadline is too
    /// near to fall asleep for.
    fn is_due(self, quiet_for: Duration, deadline: Option<Instant>, now: Instant) -> bool {
        match self.idle {
            IdlePolicy::Busy => false,
            IdlePolicy::Adaptive { quiet } => {
                quiet_for >= quiet
                    && deadline.is_none_or(|at| at.saturating_duration_since(now) > SHORTEST_SLEEP)
                    && !here(|here| here.sleepless.get()).unwrap_or(false)
            }
        }
    }

    /// How long to sleep from now on.
    fn length(self, deadline: Option<Instant>) -> Duration {
        deadline.map_or(self.longest, |at| {
            at.saturating_duration_since(Instant::now())
                .min(self.longest)
        })
    }
}

/// The reactor that runs the calling thread.
struct Here {
    id: ReactorId,
    events: Events,
    /// A descriptor that should end sleeps could not be watched, so there are none.
    sleepless: Cell<bool>,
    /// If this turn finds nothing, the reactor sleeps.
    last_look: Cell<bool>,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

fn here<T>(ask: impl FnOnce(&Here) -> T) -> Option<T> {
    HERE.with_borrow(|here| here.as_ref().map(ask))
}

/// The reactor that the caller runs on; `None` on any other thread.
pub fn current() -> Option<ReactorId> {
    here(|here| here.id)
}

/// The descriptors of the reactor that the caller runs on; `None` on any other thread.
pub fn events() -> Option<Events> {
    here(|here| here.events.clone())
}

/// Whether the reactor that the caller runs on sleeps after this turn, if the turn finds nothing to do. What is to end the
/// sleep and costs too much to be on all the time, as interrupts of a device do, is switched on now, and what it tells of is
/// looked at after that. False on any thread that is no reactor.
pub fn is_last_look() -> bool {
    here(|here| here.last_look.get()).unwrap_or(false)
}

/// Lets `fd` end this reactor's sleep when it becomes readable, without showing it in
/// [`Turn::ready`]: for what the poller looks at in every turn anyway, as long as the guard lives.
/// It need not be drained.
///
/// `None` on a thread that is no reactor, which has no sleep to end. Where a reactor cannot watch
/// `fd`, it says so in the log, never sleeps again, and this is `None` as well.
pub fn wake_on_readable(fd: BorrowedFd<'_>) -> Option<Registration> {
    here(|here| match here.events.add_silent(fd) {
        Ok(registration) => Some(registration),
        Err(error) => {
            tracing::warn!(
                "{}: cannot watch a descriptor while asleep, so it will not sleep: {error}",
                here.id
            );
            here.sleepless.set(true);
            None
        }
    })
    .flatten()
}

/// Makes the calling thread the reactor `id` until it is dropped.
pub(super) struct Residence(());

impl Residence {
    pub(super) fn new(id: ReactorId, events: Events) -> Self {
        HERE.set(Some(Here {
            id,
            events,
            sleepless: Cell::new(false),
            last_look: Cell::new(false),
        }));
        Self(())
    }
}

impl Drop for Residence {
    fn drop(&mut self) {
        HERE.set(None);
    }
}

/// Runs `poller` on the calling thread, which has a [`Residence`], until it is finished.
///
/// # Errors
/// What the operating system said when it was asked for events.
pub(super) fn run(
    poller: &mut impl Poller,
    events: &Events,
    rest: Rest,
    counters: &Counters,
) -> io::Result<()> {
    let set = events.set();
    let mut ready = Vec::with_capacity(64);
    let mut now = Instant::now();
    let mut last_progress = now;
    let mut armed = false;
    let set_armed = |armed: bool| {
        match armed {
            true => set.doorbell().arm(),
            false => set.doorbell().disarm(),
        }
        here(|here| here.last_look.set(armed));
        armed
    };
    loop {
        let progress = poller.poll(&Turn { now, ready: &ready });
        ready.clear();
        let mut slept = false;
        match progress {
            Progress::Finished => return Ok(()),
            Progress::Busy => {
                last_progress = now;
                if armed {
                    armed = set_armed(false);
                }
            }
            Progress::Idle if armed => {
                // The turn just over was the look that the doorbell asks for after arming. Events
                // are not collected between the two: that would swallow the bell's stroke.
                set.sleep(Some(rest.length(poller.deadline())))?;
                armed = set_armed(false);
                slept = true;
                set.collect(&mut ready)?;
            }
            Progress::Idle => {
                if rest.is_due(now - last_progress, poller.deadline(), now) {
                    armed = set_armed(true);
                } else {
                    std::hint::spin_loop();
                }
            }
        }
        if !armed && !slept && set.shows_any() {
            set.collect(&mut ready)?;
        }
        let next = Instant::now();
        counters.turn(next - now, progress == Progress::Busy, slept);
        now = next;
    }
}
