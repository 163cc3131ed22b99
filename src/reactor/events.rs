//! Readiness of descriptors: the epoll set of one reactor, or of a thread that is none.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use super::doorbell::{Doorbell, EventFd, Waker};

/// Events taken from the kernel at once; what is ready beyond them comes next time.
const EVENTS_A_TURN: usize = 64;

/// The token of descriptors that wake the owner and are not shown to it.
const HIDDEN: u64 = u64::MAX;

/// One descriptor that is ready, by the token it was registered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token given to [`Events::register`].
    pub token: u64,
    /// There is something to read (or to accept), or the end of the stream.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// Both directions are closed, or the descriptor has failed. Comes whatever the interest is.
    pub hangup: bool,
}

/// What to be told about a descriptor. Hang-ups are told in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Tell when it can be read.
    pub readable: bool,
    /// Tell when it can be written.
    pub writable: bool,
}

impl Interest {
    /// Hang-ups only, for a descriptor whose owner has no room to read into.
    pub const NONE: Self = Self {
        readable: false,
        writable: false,
    };
    /// Reading only.
    pub const READABLE: Self = Self {
        readable: true,
        writable: false,
    };
    /// Writing only.
    pub const WRITABLE: Self = Self {
        readable: false,
        writable: true,
    };
    /// Reading and writing.
    pub const BOTH: Self = Self {
        readable: true,
        writable: true,
    };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.readable);
        flags.set(epoll::EventFlags::OUT, self.writable);
        flags
    }
}

/// A set of descriptors of which the owner is told when they are ready. Level-triggered: what is
/// still ready is told again. Belongs to one thread; clones are handles to the same set.
///
/// A reactor has one already ([`events`](super::events())); a thread that is no reactor makes its
/// own and calls [`Events::wait`].
#[derive(Clone, Debug)]
pub struct Events {
    set: Rc<EventSet>,
}

impl Events {
    /// A set of its own, for a thread that is no reactor.
    ///
    /// # Errors
    /// What the operating system said, mostly that the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let set = EventSet::new()?;
        // The owner looks at its queues when `wait` returns, which is after this and after the
        // arming there; so it is armed whenever it may be about to wait.
        set.doorbell.arm();
        Ok(Self::from(set))
    }

    /// Makes [`Events::wait`] come back, from any thread.
    pub fn waker(&self) -> Waker {
        self.set.waker()
    }

    /// Tells from now on, under `token`, when `fd` is ready, until the guard is dropped.
    ///
    /// The guard holds a duplicate of the descriptor, so that nothing can go wrong when `fd` is
    /// closed first; what it refers to stays open until both are gone.
    ///
    /// # Errors
    /// What the operating system said: no descriptor left, or a kind of file that is always ready.
    ///
    /// # Panics
    /// When `token` is `u64::MAX`, which is not for use.
    pub fn register(
        &self,
        fd: impl AsFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<Registration> {
        assert!(token != HIDDEN, "token u64::MAX is reserved");
        let registration = self.add(fd.as_fd(), token, interest.flags())?;
        self.set.shown.set(self.set.shown.get() + 1);
        Ok(registration)
    }

    /// Changes what is told about a descriptor; the token stays.
    ///
    /// # Errors
    /// What the operating system said.
    ///
    /// # Panics
    /// When the registration is of another set, or is one that only wakes.
    pub fn modify(&self, registration: &Registration, interest: Interest) -> io::Result<()> {
        assert!(Rc::ptr_eq(&self.set, &registration.set), "of another set");
        assert!(registration.token != HIDDEN, "this registration only wakes");
        epoll::modify(
            &self.set.epoll,
            &registration.fd,
            epoll::EventData::new_u64(registration.token),
            interest.flags(),
        )?;
        Ok(())
    }

    /// Waits until a descriptor is ready, [`Waker::wake`] is called or `timeout` has passed
    /// (`None`: for ever), and puts what is ready in place of what is in `ready`. Can also come
    /// back for nothing. For a thread that is no reactor: it looks at its mailboxes each time this
    /// returns, and at all of them.
    ///
    /// # Errors
    /// What the operating system said; a signal is no error.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.set.sleep(timeout)?;
        self.set.collect(ready)?;
        // Last, because `collect` swallows the bell's stroke: whoever finds the doorbell armed
        // from here on ends the next wait.
        self.set.doorbell.arm();
        Ok(())
    }

    /// Lets `fd` end a sleep of the owner when it becomes readable, and is otherwise silent.
    pub(super) fn add_silent(&self, fd: BorrowedFd<'_>) -> io::Result<Registration> {
        // Edge-triggered: the owner looks at what is behind the descriptor in every turn, so it
        // needs the news only, and whoever drains the descriptor late or never costs nothing.
        self.add(fd, HIDDEN, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    fn add(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        flags: epoll::EventFlags,
    ) -> io::Result<Registration> {
        let fd = fd.try_clone_to_owned()?;
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.set.epoll, &fd, data, flags)?;
        Ok(Registration {
            set: self.set.clone(),
            fd,
            token,
        })
    }

    pub(super) fn set(&self) -> &EventSet {
        &self.set
    }
}

impl From<EventSet> for Events {
    fn from(set: EventSet) -> Self {
        Self { set: Rc::new(set) }
    }
}

/// The set itself: readable while something in it is ready, so that one set can be watched by
/// another, or by a foreign loop.
impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.epoll.as_fd()
    }
}

/// A descriptor is in an [`Events`] as long as this lives.
pub struct Registration {
    set: Rc<EventSet>,
    fd: OwnedFd,
    token: u64,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("fd", &self.fd)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Said explicitly, because closing the duplicate alone does not take it out of the set.
        let deleted = epoll::delete(&self.set.epoll, &self.fd);
        debug_assert!(deleted.is_ok(), "epoll delete: {deleted:?}");
        if self.token != HIDDEN {
            self.set.shown.set(self.set.shown.get() - 1);
        }
    }
}

/// The set behind [`Events`]: made on any thread, then used by one.
pub(super) struct EventSet {
    epoll: OwnedFd,
    doorbell: Arc<Doorbell<EventFd>>,
    /// Registrations alive whose readiness is shown to the owner.
    shown: Cell<usize>,
}

impl fmt::Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSet")
            .field("epoll", &self.epoll)
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl EventSet {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = EventFd::new()?;
        let data = epoll::EventData::new_u64(HIDDEN);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &bell, data, flags)?;
        Ok(Self {
            epoll,
            doorbell: Arc::new(Doorbell::new(bell)),
            shown: Cell::new(0),
        })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::new(self.doorbell.clone())
    }

    pub(super) fn doorbell(&self) -> &Doorbell<EventFd> {
        &self.doorbell
    }

    /// Whether anything could be told at all.
    pub(super) fn shows_any(&self) -> bool {
        self.shown.get() > 0
    }

    /// Waits until there is an event, shown or silent.
    ///
    /// `ppoll` on the set, because `epoll_wait` counts in milliseconds and its successor that does
    /// not is missing from kernels that we run on.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether [`EventSet::sleep`] would come back at once.
    #[cfg(all(test, not(loom)))]
    pub(super) fn would_wake(&self) -> bool {
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    }

    /// Replaces what is in `ready` by what is ready now, without waiting.
    pub(super) fn collect(&self, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut room = [const { MaybeUninit::uninit() }; EVENTS_A_TURN];
        let at_once = Timespec::default();
        let taken = match epoll::wait(&self.epoll, &mut room, Some(&at_once)) {
            Ok((taken, _)) => taken,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in taken {
            // Copied out, because the kernel's record is packed.
            let (flags, token) = (event.flags, event.data.u64());
            if token != HIDDEN {
                ready.push(Ready {
                    token,
                    readable: flags.contains(epoll::EventFlags::IN),
                    writable: flags.contains(epoll::EventFlags::OUT),
                    hangup: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
                });
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const BOUND: Option<Duration> = Some(Duration::from_secs(20));

    fn tokens(events: &Events) -> Vec<u64> {
        let mut ready = Vec::new();
        events.wait(Some(Duration::ZERO), &mut ready).unwrap();
        ready.iter().map(|r| r.token).collect()
    }

    #[test]
    fn what_is_still_ready_is_told_again_until_the_guard_goes() {
        let events = Events::new().unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let guard = events.register(&near, 7, Interest::READABLE).unwrap();
        assert_eq!(tokens(&events), [0u64; 0]);
        far.write_all(b"x").unwrap();
        assert_eq!(tokens(&events), [7]);
        assert_eq!(tokens(&events), [7]);
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        assert_eq!(tokens(&events), [0u64; 0]);
        far.write_all(b"y").unwrap();
        drop(guard);
        assert_eq!(tokens(&events), [0u64; 0]);
    }

    #[test]
    fn interest_changes_and_hangups_come_anyway() {
        let events = Events::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let guard = events.register(&near, 3, Interest::NONE).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(tokens(&events), [0u64; 0]);
        events.modify(&guard, Interest::BOTH).unwrap();
        let mut ready = Vec::new();
        events.wait(BOUND, &mut ready).unwrap();
        let expected = Ready {
            token: 3,
            readable: true,
            writable: true,
            hangup: false,
        };
        assert_eq!(ready, [expected]);
        events.modify(&guard, Interest::NONE).unwrap();
        drop(far);
        events.wait(BOUND, &mut ready).unwrap();
        assert!(ready.len() == 1 && ready[0].hangup && !ready[0].writable);
    }

    #[test]
    fn a_registration_outlives_the_descriptor_it_was_made_from() {
        let events = Events::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let guard = events.register(&near, 1, Interest::READABLE).unwrap();
        drop(near);
        // A descriptor that now has the closed one's number must not be confused with it.
        let (other, mut other_far) = UnixStream::pair().unwrap();
        let other_guard = events.register(&other, 2, Interest::READABLE).unwrap();
        drop(guard);
        other_far.write_all(b"x").unwrap();
        assert_eq!(tokens(&events), [2]);
        assert!(
            far.write_all(b"x").is_err(),
            "nobody holds the other end now"
        );
        drop(other_guard);
    }

    #[test]
    fn silent_descriptors_end_a_wait_and_are_not_shown() {
        let events = Events::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let _guard = events.add_silent(near.as_fd()).unwrap();
        far.write_all(b"x").unwrap();
        let mut ready = Vec::new();
        // No timeout: comes back because of the descriptor, or never.
        events.wait(None, &mut ready).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn more_events_than_one_turn_takes_are_all_told_in_the_end() {
        let events = Events::new().unwrap();
        let wanted = 2 * EVENTS_A_TURN as u64 + 5;
        let pairs: Vec<_> = (0..wanted)
            .map(|token| {
                let (near, mut far) = UnixStream::pair().unwrap();
                far.write_all(b"x").unwrap();
                let guard = events.register(&near, token, Interest::READABLE).unwrap();
                (near, far, guard)
            })
            .collect();
        let mut told = vec![false; pairs.len()];
        let mut ready = Vec::new();
        for _ in 0..10 {
            events.wait(BOUND, &mut ready).unwrap();
            assert!(ready.len() <= EVENTS_A_TURN);
            for r in &ready {
                told[r.token as usize] = true;
            }
        }
        assert!(told.iter().all(|&t| t));
    }

    #[test]
    fn a_wake_before_or_during_the_wait_ends_it() {
        let events = Events::new().unwrap();
        let waker = events.waker();
        let mut ready = Vec::new();
        waker.wake();
        events.wait(None, &mut ready).unwrap();
        let thread = std::thread::spawn(move || waker.wake());
        events.wait(None, &mut ready).unwrap();
        thread.join().unwrap();
        assert!(ready.is_empty());
    }
}
