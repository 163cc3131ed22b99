//! What a channel leaves behind when it goes away with I/O in flight.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::slots::Slots;
use super::Shared;
use super::release::Release;
use super::transfer::{Pieces, Transfer};

/// After so long an operator may want to know that memory is still set aside.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests whose ring is dropped while the kernel works on them, and all memory that they name.
#[derive(Debug)]
pub(super) struct Remains {
    release: Release,
    running: Slots<Transfer>,
    shared: Arc<Shared>,
    _lists: Lists,
}

/// The lists of pieces of all slots.
#[derive(Debug)]
struct Lists {
    _pieces: Vec<Pieces>,
}

// SAFETY: the addresses in the lists are for the kernel; no thread of ours follows them.
unsafe impl Send for Lists {}

impl Remains {
    /// Takes over what a channel to `shared` had running, with the lists of its slots, and the
    /// release of its ring.
    pub(super) fn new(
        shared: Arc<Shared>,
        release: Release,
        running: Slots<Transfer>,
        pieces: Vec<Pieces>,
    ) -> Self {
        Self {
            release,
            running,
            shared,
            _lists: Lists { _pieces: pieces },
        }
    }

    /// Frees all of it when the kernel has let go, which a thread of its own waits for: the caller
    /// is a reactor, and a disk may take minutes to give up.
    pub(super) fn keep(self) {
        let shared = self.shared.clone();
        // Where the thread does not come to its end, memory is lost rather than used too early.
        let remains = ManuallyDrop::new(self);
        let waiting = thread::Builder::new()
            .name("uring_remains".to_owned())
            .spawn(move || {
                remains.wait();
                drop(ManuallyDrop::into_inner(remains));
            });
        if let Err(error) = waiting {
            tracing::error!(
                bdev = shared.info.name,
                "no thread can wait for the I/O in flight of a closed channel ({error}); its \
                 memory is given up"
            );
        }
    }

    fn wait(&self) {
        if self.release.wait(PATIENCE) {
            return;
        }
        tracing::error!(
            bdev = self.shared.info.name,
            "{} requests of a closed channel do not come back from the kernel; their memory is \
             set aside until they do",
            self.running.len()
        );
        while !self.release.wait(PATIENCE) {}
    }
}
