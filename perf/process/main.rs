//! How fast members are rebuilt, replaced and checked, on RAM members in one process and on one
//! core: idle, and while a host writes; against what one member takes by itself.
//!
//! `cargo bench --bench process [-- --rounds 3]`. Medians with the least and the most; the works of
//! a round follow one another, so that a slow moment of the machine hits all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stripewise::bdev::{Bdev, Channel, Completion, Data, Malloc, Op, Request, Status};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{Volume, VolumeConfig, Work};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

const MEMBERS: usize = 4;
const CHUNK: u32 = 64 << 10;
const BLOCK: u32 = 512;
const WRITE: Op = Op::Write { fua: false };

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// One member, written from its start to its end in requests of 256 KiB, 8 at a time.
    Bare,
    Rebuild,
    Replace,
    Check,
}

const WORKS: [(&str, What, u32); 6] = [
    ("bare member, written", What::Bare, 0),
    ("rebuild, idle", What::Rebuild, 0),
    ("replacement, idle", What::Replace, 0),
    ("check, idle", What::Check, 0),
    ("rebuild, with random writes, depth 32", What::Rebuild, 32),
    ("check, with random writes, depth 32", What::Check, 32),
];

/// A host that writes 4 KiB at random places, or does nothing.
struct Host {
    channel: Box<dyn Channel>,
    blocks: u64,
    depth: u32,
    pool: Pool,
    seed: u64,
    begun: bool,
    ended: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    done: Vec<Completion>,
}

impl Host {
    fn submit(&mut self, data: Data) {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let request = Request {
            token: 0,
            op: WRITE,
            lba: self.seed % (self.blocks / 8) * 8,
            blocks: 8,
            data,
        };
        assert!(self.channel.submit(request).is_ok());
    }
}

impl Poller for Host {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        let stop = self.stop.load(Ordering::Relaxed);
        if !std::mem::replace(&mut self.begun, true) {
            for _ in 0..self.depth {
                let buffer = self.pool.take().expect("one for each");
                self.submit(Data::Write([buffer.freeze()].into_iter().collect()));
            }
        }
        let mut done = std::mem::take(&mut self.done);
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            self.ended.fetch_add(1, Ordering::Relaxed);
            if !stop {
                self.submit(completion.data);
            }
        }
        self.done = done;
        self.channel.kick();
        let worked = self.channel.poll(turn.now, &mut self.done);
        if stop && self.channel.in_flight() == 0 {
            return Progress::Finished;
        }
        match worked {
            true => Progress::Busy,
            false => Progress::Idle,
        }
    }
}

fn member(name: &str, bytes: u64, arena: &Arena) -> Arc<Malloc> {
    let ram = Malloc::new(name, BLOCK, bytes / u64::from(BLOCK), None).expect("memory");
    write_all(&*ram, arena);
    ram
}

/// Writes all of a device, in requests of 256 KiB, 8 at a time. Returns how long it took.
fn write_all(bdev: &dyn Bdev, arena: &Arena) -> Duration {
    const PIECE: u32 = 256 << 10;
    let pool = Pool::new(arena, PIECE as usize, 8).expect("memory");
    let mut channel = bdev.open().expect("opens");
    let mut done: Vec<Completion> = Vec::new();
    let pieces = bdev.info().bytes() / u64::from(PIECE);
    let start = Instant::now();
    let mut next = 0;
    while next < pieces || channel.in_flight() > 0 {
        while next < pieces && channel.in_flight() < 8 {
            let Some(buffer) = pool.take() else { break };
            let request = Request {
                token: 0,
                op: WRITE,
                lba: next * u64::from(PIECE / BLOCK),
                blocks: PIECE / BLOCK,
                data: Data::Write([buffer.freeze()].into_iter().collect()),
            };
            assert!(channel.submit(request).is_ok());
            next += 1;
        }
        channel.kick();
        channel.poll(Instant::now(), &mut done);
        assert!(done.drain(..).all(|c| c.status == Status::Ok));
    }
    start.elapsed()
}

/// Bytes of a member per second, and what the host wrote per second meanwhile.
fn measure(what: What, depth: u32, bytes: u64) -> (f64, f64) {
    let arena = Arena::new(256 << 20).expect("memory");
    if what == What::Bare {
        let ram = member("bare", bytes, &arena);
        return (bytes as f64 / write_all(&*ram, &arena).as_secs_f64(), 0.0);
    }
    let mask: CoreMask = "0x1".parse().expect("the first core");
    let setup = Reactors::prepare(&mask, IdlePolicy::Busy).expect("reactors");
    let members = (0..MEMBERS).map(|m| {
        let ram = member(&format!("m{m}"), bytes, &arena);
        Some(ram as Arc<dyn Bdev>)
    });
    let members: Vec<_> = members.collect();
    let spare = member("spare", bytes, &arena);
    let config = VolumeConfig::new("bench", CHUNK);
    let volume = Volume::new(config, members, None, setup.wakers(), &arena).expect("a volume");
    let ended = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let reactors = setup
        .start(|_| {
            let (volume, arena) = (volume.clone(), arena.clone());
            let (ended, stop) = (ended.clone(), stop.clone());
            move || Host {
                blocks: volume.info().blocks,
                channel: volume.open().expect("opens"),
                depth,
                pool: Pool::new(&arena, 4096, 64).expect("memory"),
                seed: 0x9e37_79b9_7f4a_7c15,
                begun: false,
                ended,
                stop,
                done: Vec::new(),
            }
        })
        .expect("reactors start");
    let wait = Duration::from_secs(60);
    match what {
        What::Rebuild => {
            let removed = volume.remove_member("m1").expect("asked").wait(wait);
            removed.expect("removed");
            // Until its slot is free.
            while volume
                .add_member(spare.clone(), None)
                .expect("asked")
                .wait(wait)
                .is_err()
            {}
        }
        What::Replace => {
            let replaced = volume.replace_member("m1", spare.clone(), None);
            replaced.expect("asked").wait(wait).expect("replaced");
        }
        What::Check => {
            let started = volume.start(Work::Check).expect("asked").wait(wait);
            started.expect("started");
        }
        What::Bare => unreachable!("measured above"),
    }
    let (start, before) = (Instant::now(), ended.load(Ordering::Relaxed));
    while volume.status().process.is_some() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed().as_secs_f64();
    let written = ended.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    reactors.join().expect("reactors end");
    (bytes as f64 / took, written as f64 / took)
}

fn main() {
    let once = std::env::args().any(|a| a == "--test");
    let mut rounds = std::env::args().skip_while(|a| a != "--rounds").skip(1);
    let rounds = rounds.next().and_then(|v| v.parse().ok()).unwrap_or(3);
    let (rounds, bytes) = if once {
        (1, 4 << 20)
    } else {
        (rounds, 512 << 20)
    };
    println!(
        "{MEMBERS} RAM members of {} MiB, {} KiB chunk, one core, {rounds} rounds",
        bytes >> 20,
        CHUNK >> 10
    );
    println!(
        "{:40} {:>12} {:>10} {:>10} {:>12}",
        "work", "median MiB/s", "least", "most", "host IOPS"
    );
    let mut results = vec![Vec::new(); WORKS.len()];
    for _ in 0..rounds {
        for (&(_, what, depth), results) in WORKS.iter().zip(&mut results) {
            results.push(measure(what, depth, bytes));
        }
    }
    for ((name, ..), mut results) in WORKS.iter().zip(results) {
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mib = |(rate, _): (f64, f64)| rate / f64::from(1 << 20);
        let middle = results[results.len() / 2];
        println!(
            "{name:40} {:12.0} {:10.0} {:10.0} {:12.0}",
            mib(middle),
            mib(results[0]),
            mib(results[results.len() - 1]),
            middle.1
        );
    }
}
