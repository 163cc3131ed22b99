//! SIGINT and SIGTERM: the first asks for a clean end, the second ends the process on the spot.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// Watches for the signals. One a process, for the whole of its life.
#[derive(Debug)]
pub struct Signals {
    asked: Arc<AtomicBool>,
    pipe: UnixStream,
}

impl Signals {
    /// Starts watching.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn watch() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let (pipe, far) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: the first signal finds the flag down and raises it, the
            // second finds it up and leaves with the code that shells give a killed process.
            flag::register_conditional_shutdown(signal, 128 + signal, asked.clone())?;
            flag::register(signal, asked.clone())?;
            pipe::register(signal, far.try_clone()?)?;
        }
        Ok(Self { asked, pipe })
    }

    /// Whether the end has been asked for.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Takes the news out of the descriptor.
    pub fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.pipe).read(&mut bytes), Ok(n) if n > 0) {}
    }
}

impl AsFd for Signals {
    /// Readable when a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
