//! The threads: started together, pinned, watched, joined.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;

use super::cores::{CoreMask, CoreMaskError};
use super::doorbell::Waker;
use super::events::{EventSet, Events};
use super::run::{IdlePolicy, Residence, Rest, run};
use super::stats::{Counters, ReactorStats};
use super::{Poller, ReactorId};

/// Why reactors could not be started, or one ended other than by finishing.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The core mask cannot be had on this machine.
    #[error(transparent)]
    Mask(#[from] CoreMaskError),
    /// A reactor's thread was not allowed onto its core.
    #[error(
        "{reactor} cannot be pinned to core {core}; take the core out of the mask (-m), or let the process run on it (taskset, cpuset)"
    )]
    Pin {
        /// The reactor.
        reactor: ReactorId,
        /// The core.
        core: usize,
    },
    /// A reactor's thread could not be started.
    #[error(
        "{reactor} cannot be started on core {core}: {source}; raise the limit of threads (ulimit -u)"
    )]
    Start {
        /// The reactor.
        reactor: ReactorId,
        /// The core.
        core: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// The descriptors that a reactor sleeps on could not be had.
    #[error(
        "{reactor} has no descriptors to sleep on: {source}; raise the limit of open files (ulimit -n)"
    )]
    Events {
        /// The reactor.
        reactor: ReactorId,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused to say which descriptors are ready.
    #[error("{reactor} stopped: it can no longer be told of events: {source}")]
    Wait {
        /// The reactor.
        reactor: ReactorId,
        /// What the operating system said.
        source: io::Error,
    },
    /// A poller panicked: a bug. What it owned is gone.
    #[error("{reactor} panicked: {message}; this is a bug, please report it")]
    Panicked {
        /// The reactor.
        reactor: ReactorId,
        /// What the panic said.
        message: String,
    },
}

/// One reactor has ended.
#[derive(Debug)]
pub struct Exit {
    /// Which.
    pub reactor: ReactorId,
    /// Whether its poller had finished.
    pub outcome: Result<(), ReactorError>,
}

/// Reactors that are about to be started. Their wakers are known already, so that the mesh and the
/// mailboxes can be made and moved into the pollers.
#[derive(Debug)]
pub struct Setup {
    rest: Rest,
    cores: Vec<usize>,
    sets: Vec<EventSet>,
    wakers: Vec<Waker>,
    on_exit: Option<Waker>,
}

impl Setup {
    /// The reactors to be, in ascending order of their cores.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ReactorId> + use<> {
        ids(self.cores.len())
    }

    /// The wakers, in order of the reactors' ids.
    pub fn wakers(&self) -> &[Waker] {
        &self.wakers
    }

    /// Sleeps so long that a test in which nobody wakes a reactor hangs.
    #[cfg(test)]
    pub(crate) fn without_net(mut self, idle: IdlePolicy) -> Self {
        self.rest = Rest::without_net(idle);
        self
    }

    /// Has `waker` called when a reactor ends, so that its owner can ask [`Reactors::next_exit`].
    pub fn wake_on_exit(&mut self, waker: Waker) {
        self.on_exit = Some(waker);
    }

    /// Starts one thread per core, pins it, and there builds and runs the poller that `make` gave
    /// for it. No poller is built before all threads are pinned.
    ///
    /// # Errors
    /// [`ReactorError::Start`] and [`ReactorError::Pin`]; no thread is left behind then.
    pub fn start<F, P>(self, mut make: impl FnMut(ReactorId) -> F) -> Result<Reactors, ReactorError>
    where
        F: FnOnce() -> P + Send + 'static,
        P: Poller,
    {
        let (exited, exits) = mpsc::channel();
        let (pinned, pins) = mpsc::channel();
        let counters: Arc<[Counters]> = self.cores.iter().map(|_| Counters::default()).collect();
        let mut reactors = Reactors {
            cores: self.cores,
            wakers: self.wakers,
            counters,
            threads: Vec::with_capacity(self.sets.len()),
            exits,
        };
        // Dropping a gate unopened sends its thread home.
        let mut gates = Vec::with_capacity(self.sets.len());
        for (reactor, set) in ids(self.sets.len()).zip(self.sets) {
            let core = reactors.cores[reactor.index()];
            let (gate, opened) = mpsc::channel::<()>();
            let (pinned, exited) = (pinned.clone(), exited.clone());
            let (counters, rest) = (reactors.counters.clone(), self.rest);
            let on_exit = self.on_exit.clone();
            let build = make(reactor);
            let body = move || {
                let is_pinned = core_affinity::set_for_current(CoreId { id: core });
                // Whoever asked may have given up because of another thread; the gate tells.
                let _ = pinned.send((reactor, is_pinned));
                if opened.recv().is_err() {
                    return;
                }
                let outcome = live(reactor, set, build, rest, &counters[reactor.index()]);
                if let Err(error) = &outcome {
                    tracing::error!("{error}");
                }
                // Nobody has to listen.
                let _ = exited.send(Exit { reactor, outcome });
                if let Some(waker) = on_exit {
                    waker.wake();
                }
            };
            let started = thread::Builder::new().name(reactor.to_string()).spawn(body);
            match started {
                Ok(thread) => reactors.threads.push(thread),
                Err(source) => {
                    drop(gates);
                    reactors.clear_away();
                    return Err(ReactorError::Start {
                        reactor,
                        core,
                        source,
                    });
                }
            }
            gates.push(gate);
        }
        let mut told = pins.iter().take(gates.len());
        if let Some((reactor, _)) = told.find(|&(_, is_pinned)| !is_pinned) {
            let core = reactors.cores[reactor.index()];
            drop(gates);
            reactors.clear_away();
            return Err(ReactorError::Pin { reactor, core });
        }
        for gate in gates {
            // A thread that waits at its gate is there to hear of it.
            let _ = gate.send(());
        }
        Ok(reactors)
    }
}

/// Reactors that run.
#[derive(Debug)]
pub struct Reactors {
    cores: Vec<usize>,
    wakers: Vec<Waker>,
    counters: Arc<[Counters]>,
    threads: Vec<JoinHandle<()>>,
    exits: mpsc::Receiver<Exit>,
}

impl Reactors {
    /// Gets everything for one reactor on each core of `mask`, but the threads.
    ///
    /// To be called before the calling thread is pinned, because it is asked which cores there are.
    ///
    /// # Errors
    /// [`ReactorError::Mask`] when a core is not there, [`ReactorError::Events`].
    pub fn prepare(mask: &CoreMask, idle: IdlePolicy) -> Result<Setup, ReactorError> {
        mask.check(&CoreMask::available()?)?;
        let sets = ids(mask.count())
            .map(|reactor| {
                EventSet::new().map_err(|source| ReactorError::Events { reactor, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Setup {
            rest: Rest::new(idle),
            cores: mask.cores().collect(),
            wakers: sets.iter().map(EventSet::waker).collect(),
            sets,
            on_exit: None,
        })
    }

    /// [`Reactors::prepare`] and [`Setup::start`] in one, where nobody needs the wakers before.
    ///
    /// # Errors
    /// As those two.
    pub fn spawn<F, P>(
        mask: &CoreMask,
        idle: IdlePolicy,
        make: impl FnMut(ReactorId) -> F,
    ) -> Result<Self, ReactorError>
    where
        F: FnOnce() -> P + Send + 'static,
        P: Poller,
    {
        Self::prepare(mask, idle)?.start(make)
    }

    /// The reactors, in ascending order of their cores.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ReactorId> + use<> {
        ids(self.cores.len())
    }

    /// The wakers, in order of the reactors' ids.
    pub fn wakers(&self) -> &[Waker] {
        &self.wakers
    }

    /// How each reactor has spent its time so far, in order of their ids.
    pub fn stats(&self) -> Vec<ReactorStats> {
        self.ids()
            .zip(&self.cores)
            .map(|(id, &core)| self.counters[id.index()].read(id, core))
            .collect()
    }

    /// A reactor that has ended and was not told of yet, without waiting.
    pub fn next_exit(&self) -> Option<Exit> {
        self.exits.try_recv().ok()
    }

    /// Waits until all reactors have ended.
    ///
    /// # Errors
    /// The first way in which one ended other than by finishing, unless [`Reactors::next_exit`]
    /// has told of it. All of them are in the log.
    pub fn join(self) -> Result<(), ReactorError> {
        for thread in self.threads {
            // Its panics, if any, were caught and are among the exits.
            let _ = thread.join();
        }
        self.exits.iter().try_for_each(|exit| exit.outcome)
    }

    /// Waits for threads that have been sent home without having run.
    fn clear_away(&mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The whole life of a reactor's thread once it is on its core.
fn live<P: Poller>(
    reactor: ReactorId,
    set: EventSet,
    build: impl FnOnce() -> P,
    rest: Rest,
    counters: &Counters,
) -> Result<(), ReactorError> {
    counters.set_tid(
        rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs(),
    );
    // Nothing that the closure touches is looked at after a panic, but the counters.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let events = Events::from(set);
        // Outlives the poller, which may ask for its reactor while it is dropped.
        let _residence = Residence::new(reactor, events.clone());
        let mut poller = build();
        run(&mut poller, &events, rest, counters)
    }));
    match ended {
        Ok(ended) => ended.map_err(|source| ReactorError::Wait { reactor, source }),
        Err(panic) => Err(ReactorError::Panicked {
            reactor,
            message: message_of(&*panic),
        }),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

fn ids(count: usize) -> impl ExactSizeIterator<Item = ReactorId> {
    (0..count as u16).map(ReactorId)
}

#[cfg(all(test, not(loom)))]
mod tests;
