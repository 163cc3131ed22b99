//! One io_uring with one registered file and the arenas registered as fixed buffers: everything
//! that talks to the kernel, and nothing that knows of requests.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, squeue};
use rustix::io::Errno;

use super::release::Release;
use crate::memory::Arena;

/// The kernel registers at most so many bytes as one buffer.
const REGION_MAX: usize = 1 << 30;

/// The one file of a ring, as operations name it.
pub(super) const FILE: io_uring::types::Fixed = io_uring::types::Fixed(0);

/// A ring, used by the thread that made it.
///
/// When it is dropped, the kernel calls off what it can; what was pushed only is never done. The
/// rest goes on for a while without a ring: until [`Ring::release`] is over.
pub(super) struct Ring {
    ring: IoUring,
    release: Release,
    /// First and last address of each registered buffer, by index.
    regions: Vec<Range<usize>>,
    /// Operations were pushed, or could not all be handed over yet.
    unsubmitted: bool,
    /// Registered memory stays where it is.
    _arenas: Vec<Arena>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("regions", &self.regions.len())
            .field("unsubmitted", &self.unsubmitted)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring of `entries` for `file`, with the calling thread as its only user, in the
    /// cheapest mode that the kernel has.
    pub(super) fn new(entries: u32, file: BorrowedFd<'_>) -> io::Result<Self> {
        let ring = build(entries)?;
        // Ours is closed at the end of this function, so that the ring has the only one.
        let (release, hold) = Release::new()?;
        ring.submitter()
            .register_files(&[file.as_raw_fd(), hold.as_raw_fd()])?;
        Ok(Self {
            ring,
            release,
            regions: Vec::new(),
            unsubmitted: false,
            _arenas: Vec::new(),
        })
    }

    /// Registers the arenas, so that buffers in them need not be mapped for each operation.
    pub(super) fn register(&mut self, arenas: &[Arena]) -> io::Result<()> {
        let mut regions = Vec::new();
        let mut list = Vec::new();
        for arena in arenas {
            let (base, size) = arena.range();
            for start in (0..size).step_by(REGION_MAX) {
                let len = REGION_MAX.min(size - start);
                let first = base.wrapping_add(start);
                regions.push(first.addr()..first.addr() + len);
                list.push(libc::iovec {
                    iov_base: first.cast_mut().cast(),
                    iov_len: len,
                });
            }
        }
        if regions.is_empty() {
            return Ok(());
        }
        // SAFETY: the ranges are mapped memory of the arenas, which are kept below for as long as
        // the ring; the kernel touches it only for operations that name a part of it.
        unsafe { self.ring.submitter().register_buffers(&list)? };
        self.regions = regions;
        self._arenas = arenas.to_vec();
        Ok(())
    }

    /// Lets the kernel count completions on `eventfd`.
    pub(super) fn signal(&self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd.as_raw_fd())
    }

    /// Tells when the kernel has let go of all that operations name, some time after the drop.
    pub(super) fn release(&self) -> &Release {
        &self.release
    }

    /// The registered buffer that holds this piece of memory whole.
    pub(super) fn region_of(&self, address: *const u8, len: usize) -> Option<u16> {
        let start = address.addr();
        let holds = |r: &Range<usize>| r.start <= start && start + len <= r.end;
        let index = self.regions.iter().position(holds)?;
        u16::try_from(index).ok()
    }

    /// Queues an operation for the next [`Ring::submit`].
    ///
    /// # Safety
    /// All memory that the operation names stays valid, and is not touched by anyone in a way that
    /// the operation is not compatible with, until its completion was reaped or the release of the
    /// dropped ring is over.
    ///
    /// # Panics
    /// When there are more operations than entries.
    pub(super) unsafe fn push(&mut self, operation: &squeue::Entry) {
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.ring.submission().push(operation) };
        assert!(pushed.is_ok(), "an operation per slot fits the ring");
        self.unsubmitted = true;
    }

    /// Hands over what was pushed, in one call, or what the kernel takes of it now.
    ///
    /// # Errors
    /// The kernel does not take anything from this ring any more, nor would what is in flight ever
    /// be reaped: drop it.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        match self.unsubmitted {
            true => self.enter(),
            false => Ok(()),
        }
    }

    /// Collects user data and result of what completed, with a system call only where the kernel
    /// has asked for one.
    ///
    /// # Errors
    /// As for [`Ring::submit`].
    pub(super) fn reap(&mut self, into: &mut Vec<(u64, i32)>) -> io::Result<()> {
        if self.ring.completion().is_empty() {
            let submission = self.ring.submission();
            if submission.taskrun() || submission.cq_overflow() {
                drop(submission);
                self.enter()?;
            }
        }
        let completion = self.ring.completion();
        into.extend(completion.map(|entry| (entry.user_data(), entry.result())));
        Ok(())
    }

    fn enter(&mut self) -> io::Result<()> {
        match self.ring.submit() {
            Ok(_) => self.unsubmitted = !self.ring.submission().is_empty(),
            // The kernel is short of something; the next turn tries again.
            Err(error) if is_transient(&error) => self.unsubmitted = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Puts another file in place of the ring's descriptor, so that the kernel refuses whatever it
    /// is asked next.
    #[cfg(test)]
    pub(super) fn sabotage(&self) {
        let other = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: the descriptor is the ring's own, which goes on owning what is there now.
        let there = unsafe { libc::dup2(other.as_raw_fd(), self.ring.as_raw_fd()) };
        assert_eq!(there, self.ring.as_raw_fd());
    }
}

fn is_transient(error: &io::Error) -> bool {
    [Errno::INTR, Errno::AGAIN, Errno::BUSY, Errno::NOMEM]
        .map(|errno| Some(errno.raw_os_error()))
        .contains(&error.raw_os_error())
}

/// The best ring that this kernel makes: completions are worked off when this thread asks (6.1),
/// or at least do not interrupt it (5.19), or as ever.
fn build(entries: u32) -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries);
    deferred
        .or_else(|_| {
            IoUring::builder()
                .setup_coop_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all()
                .build(entries)
        })
        .or_else(|_| IoUring::new(entries))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use io_uring::opcode::{Fsync, Nop, PollAdd};
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

    use super::*;

    fn ring(entries: u32) -> (Ring, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ring = Ring::new(entries, file.as_file().as_fd()).unwrap();
        (ring, file)
    }

    fn push(ring: &mut Ring, operation: &squeue::Entry) {
        // SAFETY: the operations of these tests name no memory.
        unsafe { ring.push(operation) };
    }

    /// A thread that sleeps on the descriptor, and never looks at the ring, is woken.
    #[test]
    fn a_completion_wakes_who_sleeps_on_the_eventfd() {
        let (mut ring, _file) = ring(8);
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        ring.signal(eventfd.as_fd()).unwrap();
        for turn in 0..3 {
            push(&mut ring, &Fsync::new(FILE).build().user_data(turn));
            ring.submit().unwrap();
            let mut sleeper = [PollFd::new(&eventfd, PollFlags::IN)];
            let minute = Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            assert_eq!(poll(&mut sleeper, Some(&minute)), Ok(1));
            let mut done = Vec::new();
            ring.reap(&mut done).unwrap();
            assert_eq!(done, [(turn, 0)]);
            let mut count = [0; 8];
            rustix::io::read(&eventfd, &mut count).unwrap();
        }
    }

    #[test]
    fn every_operation_is_reaped_once() {
        let (mut ring, _file) = ring(64);
        for index in 0..64 {
            push(&mut ring, &Nop::new().build().user_data(index));
        }
        ring.submit().unwrap();
        let mut done = Vec::new();
        while done.len() < 64 {
            ring.reap(&mut done).unwrap();
        }
        done.sort_unstable();
        assert!(done.iter().map(|&(index, _)| index).eq(0..64));
    }

    /// The kernel holds on to a ring with an operation that does not end, and calls it off when
    /// the ring is dropped.
    #[test]
    fn a_dropped_ring_is_released() {
        let (mut ring, _file) = ring(8);
        let release = ring.release().clone();
        let never = eventfd(0, EventfdFlags::empty()).unwrap();
        let wait = io_uring::types::Fd(never.as_raw_fd());
        let flags = libc::POLLIN as u32;
        push(&mut ring, &PollAdd::new(wait, flags).build());
        ring.submit().unwrap();
        let mut done = Vec::new();
        ring.reap(&mut done).unwrap();
        assert!(done.is_empty() && !release.is_over());
        drop(ring);
        assert!(release.wait(Duration::from_secs(60)));
    }

    #[test]
    fn a_call_that_is_refused_is_an_error() {
        let (mut ring, _file) = ring(8);
        let release = ring.release().clone();
        ring.sabotage();
        // Nothing is asked of the kernel yet.
        ring.submit().unwrap();
        push(&mut ring, &Nop::new().build());
        assert!(ring.submit().is_err());
        drop(ring);
        assert!(release.wait(Duration::from_secs(60)));
    }

    #[test]
    fn only_what_lies_whole_in_a_registered_region_is_fixed() {
        let (mut ring, _file) = ring(1);
        let arenas = [8192, 4096].map(|bytes| Arena::ordinary(bytes).unwrap());
        ring.register(&arenas).unwrap();
        let ((first, _), (second, _)) = (arenas[0].range(), arenas[1].range());
        assert_eq!(ring.region_of(first, 8192), Some(0));
        assert_eq!(ring.region_of(first.wrapping_add(8000), 192), Some(0));
        assert_eq!(ring.region_of(first.wrapping_add(8000), 193), None);
        assert_eq!(ring.region_of(second, 4096), Some(1));
        assert_eq!(ring.region_of((&raw const ring).cast(), 1), None);
    }
}
