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
mod tests {
    use std::cell::RefCell;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use super::super::{
        Interest, Mailbox, Port, Progress, Registration, Turn, current, events, mailbox, mesh,
        wake_on_readable,
    };
    use super::*;

    /// Only keeps a test that fails from hanging.
    const BOUND: Duration = Duration::from_secs(30);

    const AT_ONCE: IdlePolicy = IdlePolicy::Adaptive {
        quiet: Duration::ZERO,
    };

    fn some_cores(count: usize) -> CoreMask {
        CoreMask::of(CoreMask::available().unwrap().cores().take(count)).unwrap()
    }

    /// Reactors whose sleeps have no bound, so that a wake that is lost is a test that hangs.
    fn prepare(count: usize) -> Setup {
        let mut setup = Reactors::prepare(&some_cores(count), AT_ONCE).unwrap();
        setup.rest = Rest::without_net(AT_ONCE);
        setup
    }

    fn hear<T>(receiver: &Receiver<T>) -> T {
        receiver
            .recv_timeout(BOUND)
            .expect("heard within the bound")
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + BOUND;
        while !is_so() {
            assert!(Instant::now() < end, "never: {what}");
            thread::yield_now();
        }
    }

    /// A poller made of a closure.
    struct Each<F>(F);

    impl<F: FnMut(&Turn<'_>) -> Progress + 'static> Poller for Each<F> {
        fn poll(&mut self, turn: &Turn<'_>) -> Progress {
            (self.0)(turn)
        }
    }

    #[test]
    fn each_reactor_runs_on_its_core_and_under_its_name_until_it_finishes() {
        let mask = some_cores(2);
        let (told, hear_from) = channel();
        let reactors = Reactors::spawn(&mask, IdlePolicy::Busy, |id| {
            let told = told.clone();
            move || {
                // Not `Send`: it can only have been made here.
                let local = Rc::new(RefCell::new(0));
                Each(move |_: &Turn<'_>| {
                    *local.borrow_mut() += 1;
                    if *local.borrow() < 10 {
                        return Progress::Busy;
                    }
                    let cores = CoreMask::available().unwrap();
                    let name = thread::current().name().map(str::to_owned);
                    told.send((id, current(), cores, name)).unwrap();
                    Progress::Finished
                })
            }
        })
        .unwrap();
        for _ in 0..mask.count() {
            let (id, here, cores, name) = hear(&hear_from);
            assert_eq!(here, Some(id));
            assert_eq!(name.unwrap(), format!("reactor_{}", id.0));
            let core = mask.cores().nth(id.index()).unwrap();
            assert_eq!(cores, CoreMask::of([core]).unwrap());
        }
        let stats_before_the_end = reactors.stats();
        assert_eq!(stats_before_the_end.len(), mask.count());
        for (stats, core) in stats_before_the_end.iter().zip(mask.cores()) {
            assert_eq!((stats.core, stats.turns, stats.sleeps), (core, 9, 0));
            assert!(stats.tid != 0 && stats.tid != std::process::id());
        }
        reactors.join().unwrap();
        assert_eq!(current(), None);
        assert!(events().is_none());
    }

    struct Echo {
        inbox: Mailbox<u32>,
        answers: mpsc::Sender<u32>,
    }

    impl Poller for Echo {
        fn poll(&mut self, _: &Turn<'_>) -> Progress {
            match self.inbox.receive() {
                Some(0) => Progress::Finished,
                Some(n) => {
                    self.answers.send(n).unwrap();
                    Progress::Busy
                }
                None => Progress::Idle,
            }
        }
    }

    #[test]
    fn a_sleeping_reactor_hears_of_every_message() {
        let setup = prepare(1);
        let (sender, inbox) = mailbox(&setup.wakers()[0], 4);
        let (answers, hear_from) = channel();
        let mut parts = Some((inbox, answers));
        let reactors = setup
            .start(|_| {
                let (inbox, answers) = parts.take().unwrap();
                move || Echo { inbox, answers }
            })
            .unwrap();
        for n in 1..=2000 {
            sender.send(n).unwrap();
            assert_eq!(hear(&hear_from), n);
        }
        sender.send(0).unwrap();
        let stats = reactors.stats();
        reactors.join().unwrap();
        assert!(stats[0].busy_ns > 0 && stats[0].idle_ns > 0);
        assert!(stats[0].sleeps > 0);
    }

    /// Passes a count round the mesh until it has come to `last`.
    struct Relay {
        port: Port<u32>,
        last: u32,
    }

    impl Poller for Relay {
        fn poll(&mut self, _: &Turn<'_>) -> Progress {
            let mut got = None;
            let next = ReactorId(((self.port.id().index() + 1) % self.port.peers()) as u16);
            if self.port.receive(1, |_, n| got = Some(n)) == 0 {
                return Progress::Idle;
            }
            let n = got.unwrap();
            // Two more, so that each reactor of two hears of the end.
            if n < self.last + 2 {
                self.port.send(next, n + 1).unwrap();
                self.port.flush();
            }
            if n < self.last {
                Progress::Busy
            } else {
                Progress::Finished
            }
        }
    }

    #[test]
    fn reactors_that_sleep_wake_each_other() {
        let setup = prepare(2);
        let mut ports = mesh::<u32>(setup.wakers(), 4);
        ports[0].send(ReactorId(0), 1).unwrap();
        let mut ports = ports.into_iter();
        let reactors = setup
            .start(|_| {
                let port = ports.next().unwrap();
                move || Relay { port, last: 2000 }
            })
            .unwrap();
        let mut ended = 0;
        until("all ended", || {
            if let Some(exit) = reactors.next_exit() {
                exit.outcome.unwrap();
                ended += 1;
            }
            ended == reactors.ids().len()
        });
        reactors.join().unwrap();
    }

    struct Alarm {
        at: Instant,
        rung: mpsc::Sender<bool>,
    }

    impl Poller for Alarm {
        fn poll(&mut self, turn: &Turn<'_>) -> Progress {
            if turn.now < self.at {
                return Progress::Idle;
            }
            self.rung.send(turn.ready.is_empty()).unwrap();
            Progress::Finished
        }

        fn deadline(&self) -> Option<Instant> {
            Some(self.at)
        }
    }

    #[test]
    fn a_deadline_ends_the_sleep() {
        let (rung, hear_from) = channel();
        let reactors = prepare(1)
            .start(|_| {
                let rung = rung.clone();
                move || Alarm {
                    at: Instant::now() + Duration::from_millis(20),
                    rung,
                }
            })
            .unwrap();
        assert!(hear(&hear_from));
        assert!(reactors.stats()[0].sleeps >= 1);
        reactors.join().unwrap();
    }

    /// Reads one byte at a time from a socket that it is told of, or that only wakes it.
    struct Reader {
        socket: UnixStream,
        _guard: Registration,
        is_told: bool,
        read: mpsc::Sender<u8>,
    }

    impl Poller for Reader {
        fn poll(&mut self, turn: &Turn<'_>) -> Progress {
            if self.is_told && turn.ready.is_empty() {
                return Progress::Idle;
            }
            assert_eq!(turn.ready.len(), usize::from(self.is_told));
            let mut byte = [0];
            match self.socket.read(&mut byte) {
                Ok(0) => Progress::Finished,
                Ok(_) => {
                    self.read.send(byte[0]).unwrap();
                    Progress::Busy
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Idle,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn readable_descriptors_end_the_sleep_shown_or_silent() {
        for is_told in [true, false] {
            let (near, mut far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            let (read, hear_from) = channel();
            let mut parts = Some((near, read));
            let reactors = prepare(1)
                .start(|_| {
                    let (socket, read) = parts.take().unwrap();
                    move || {
                        let guard = if is_told {
                            let events = events().unwrap();
                            events.register(&socket, 5, Interest::READABLE).unwrap()
                        } else {
                            wake_on_readable(socket.as_fd()).unwrap()
                        };
                        Reader {
                            socket,
                            _guard: guard,
                            is_told,
                            read,
                        }
                    }
                })
                .unwrap();
            for n in 0..200 {
                far.write_all(&[n]).unwrap();
                assert_eq!(hear(&hear_from), n);
            }
            drop(far);
            reactors.join().unwrap();
        }
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(wake_on_readable(near.as_fd()).is_none());
    }

    #[test]
    fn a_panic_is_reported_and_the_other_reactor_goes_on() {
        let mut setup = prepare(2);
        let owner = Events::new().unwrap();
        setup.wake_on_exit(owner.waker());
        let count = setup.ids().len();
        let (mut senders, mut inboxes): (Vec<_>, Vec<_>) =
            setup.wakers().iter().map(|w| mailbox::<()>(w, 1)).unzip();
        let reactors = setup
            .start(|id| {
                let mut inbox = inboxes.remove(0);
                move || {
                    Each(move |_: &Turn<'_>| match inbox.receive() {
                        Some(()) if id == ReactorId(0) => panic!("stripe {} is bad", 7),
                        Some(()) => Progress::Finished,
                        None => Progress::Idle,
                    })
                }
            })
            .unwrap();
        senders.remove(0).send(()).unwrap();
        let exit = loop {
            owner.wait(Some(BOUND), &mut Vec::new()).unwrap();
            if let Some(exit) = reactors.next_exit() {
                break exit;
            }
        };
        assert_eq!(exit.reactor, ReactorId(0));
        let text = exit.outcome.unwrap_err().to_string();
        assert!(
            text.contains("reactor_0 panicked: stripe 7 is bad"),
            "{text}"
        );
        if count == 2 {
            assert!(reactors.next_exit().is_none());
            senders.remove(0).send(()).unwrap();
        }
        reactors.join().unwrap();
    }

    #[test]
    fn join_reports_a_panic_while_building() {
        let reactors = prepare(1)
            .start(|_| {
                || -> Box<dyn Poller> {
                    panic!("no device");
                }
            })
            .unwrap();
        let error = reactors.join().unwrap_err();
        assert!(
            matches!(&error, ReactorError::Panicked { reactor: ReactorId(0), message } if message == "no device"),
            "{error}"
        );
    }

    #[test]
    fn a_core_that_cannot_be_had_is_named_and_nothing_runs() {
        let mask = CoreMask::of([1023]).unwrap();
        let error = Reactors::prepare(&mask, IdlePolicy::Busy).unwrap_err();
        assert!(
            error.to_string().starts_with("core 1023 of core mask"),
            "{error}"
        );
        // As if the core had gone since it was asked for.
        let mut setup = prepare(2);
        *setup.cores.last_mut().unwrap() = 1023;
        let (built, hear_from) = channel();
        let error = setup
            .start(|_| {
                let built = built.clone();
                move || {
                    built.send(()).unwrap();
                    Each(|_: &Turn<'_>| Progress::Finished)
                }
            })
            .unwrap_err();
        assert!(
            matches!(error, ReactorError::Pin { core: 1023, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("core 1023"), "{error}");
        assert!(hear_from.try_recv().is_err());
    }
}
