//! The moment at which the kernel is done with a ring.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// Tells when the kernel has let go of a ring that was dropped, and of all memory that its
/// operations name. What has begun cannot always be called off, so that may take long; and the
/// ring can no longer be asked, nor could it before by another thread than its own.
///
/// It is the reading end of a pipe. The ring has the only writing end, among its registered files,
/// which the kernel closes when the last operation is over.
#[derive(Clone, Debug)]
pub(super) struct Release(Arc<OwnedFd>);

impl Release {
    /// A release, and what puts it off as long as it is open anywhere.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (end, hold) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self(Arc::new(end)), hold))
    }

    /// Whether it has come. Once it has, it stays.
    pub(super) fn is_over(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits until it has come, but no longer than `patience`, and says whether it has.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        // Nobody writes: the end of the writers is told unasked.
        let mut end = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut end, patience.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Release {
    /// Readable, by its hang-up, from then on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_when_the_last_holder_is_gone_and_stays() {
        let (release, hold) = Release::new().unwrap();
        let other = hold.try_clone().unwrap();
        drop(hold);
        assert!(!release.is_over());
        assert!(!release.wait(Duration::from_millis(1)));
        drop(other);
        assert!(release.wait(Duration::from_secs(60)));
        assert!(release.clone().is_over() && release.is_over());
    }
}
