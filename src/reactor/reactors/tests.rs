//! Whole reactors, on real threads and cores.

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

/// Adds up what it is sent, and has a descriptor that never becomes ready, so that it asks the
/// kernel for events in each turn.
struct Sum {
    inbox: Mailbox<u64>,
    missing: u64,
    sum: u64,
    _silent: (Registration, UnixStream, UnixStream),
    told: mpsc::Sender<u64>,
}

impl Poller for Sum {
    fn poll(&mut self, _: &Turn<'_>) -> Progress {
        let Some(n) = self.inbox.receive() else {
            return Progress::Idle;
        };
        self.sum += n;
        self.missing -= 1;
        if self.missing > 0 {
            return Progress::Busy;
        }
        self.told.send(self.sum).unwrap();
        Progress::Finished
    }
}

#[test]
fn several_senders_and_descriptors_to_watch_lose_no_wake() {
    const EACH: u64 = 3000;
    let setup = prepare(1);
    let (sender, inbox) = mailbox(&setup.wakers()[0], 2);
    let (told, hear_from) = channel();
    let mut parts = Some((inbox, told));
    let reactors = setup
        .start(|_| {
            let (inbox, told) = parts.take().unwrap();
            move || {
                let (near, far) = UnixStream::pair().unwrap();
                let guard = events().unwrap();
                let guard = guard.register(&near, 1, Interest::READABLE).unwrap();
                Sum {
                    inbox,
                    missing: 3 * EACH,
                    sum: 0,
                    _silent: (guard, near, far),
                    told,
                }
            }
        })
        .unwrap();
    let senders = [(); 3].map(|()| {
        let sender = sender.clone();
        thread::spawn(move || {
            for n in 1..=EACH {
                while sender.send(n).is_err() {
                    thread::yield_now();
                }
            }
        })
    });
    assert_eq!(hear(&hear_from), 3 * EACH * (EACH + 1) / 2);
    for sender in senders {
        sender.join().unwrap();
    }
    reactors.join().unwrap();
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
