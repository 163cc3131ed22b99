//! One io_uring with one registered file and the arenas registered as fixed buffers: everything
//! that talks to the kernel, and nothing that knows of requests.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, squeue};
use rustix::io::Errno;

use crate::memory::Arena;

/// The kernel registers at most so many bytes as one buffer.
const REGION_MAX: usize = 1 << 30;

/// The one file of a ring, as operations name it.
pub(super) const FILE: io_uring::types::Fixed = io_uring::types::Fixed(0);

/// A ring, used by the thread that made it.
pub(super) struct Ring {
    ring: IoUring,
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
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self {
            ring,
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
    /// the operation is not compatible with, until its completion was reaped.
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
    pub(super) fn submit(&mut self) {
        if self.unsubmitted {
            self.enter();
        }
    }

    /// Collects user data and result of what completed, with a system call only where the kernel
    /// has asked for one.
    pub(super) fn reap(&mut self, into: &mut Vec<(u64, i32)>) {
        if self.ring.completion().is_empty() {
            let submission = self.ring.submission();
            if submission.taskrun() || submission.cq_overflow() {
                drop(submission);
                self.enter();
            }
        }
        let completion = self.ring.completion();
        into.extend(completion.map(|entry| (entry.user_data(), entry.result())));
    }

    /// Hands over what was pushed and waits until something has completed, or `timeout` is over.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &args) {
            Err(error) if !is_transient(&error) && !is(&error, Errno::TIME) => Err(error),
            _ => Ok(()),
        }
    }

    fn enter(&mut self) {
        match self.ring.submit() {
            Ok(_) => self.unsubmitted = !self.ring.submission().is_empty(),
            // The kernel is short of something; the next turn tries again.
            Err(error) if is_transient(&error) => self.unsubmitted = true,
            // Another thread than the one that opened the channel, or a broken ring: nothing that
            // was handed in would ever complete.
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn is_transient(error: &io::Error) -> bool {
    [Errno::INTR, Errno::AGAIN, Errno::BUSY, Errno::NOMEM]
        .into_iter()
        .any(|errno| is(error, errno))
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

    use io_uring::opcode::{Fsync, Nop};
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
            ring.submit();
            let mut sleeper = [PollFd::new(&eventfd, PollFlags::IN)];
            let minute = Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            assert_eq!(poll(&mut sleeper, Some(&minute)), Ok(1));
            let mut done = Vec::new();
            ring.reap(&mut done);
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
        ring.wait(Duration::from_secs(60)).unwrap();
        let mut done = Vec::new();
        while done.len() < 64 {
            ring.reap(&mut done);
        }
        done.sort_unstable();
        assert!(done.iter().map(|&(index, _)| index).eq(0..64));
    }

    #[test]
    fn waiting_ends_without_a_completion() {
        let (mut ring, _file) = ring(1);
        ring.wait(Duration::from_millis(1)).unwrap();
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
