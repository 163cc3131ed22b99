//! What the engine does on RAM members in one process and on one core: no network, no host.
//!
//! `cargo bench --bench engine [-- --seconds 2 --rounds 3]`. Each line is the median of several
//! rounds with the least and the most; works are interleaved, so that a slow moment of the
//! machine hits all of them.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use stripewise::bdev::{Bdev, Channel, Completion, Data, Malloc, Op, Request, Status};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{Volume, VolumeConfig};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

const MEMBERS: usize = 4;
const MEMBER_BYTES: u64 = 256 << 20;
const CHUNK: u32 = 64 << 10;

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Work {
    name: &'static str,
    op: Op,
    bytes: u32,
    depth: u32,
    random: bool,
    /// On a bare RAM member instead of the volume.
    raw: bool,
}

const fn work(name: &'static str, op: Op, bytes: u32, depth: u32, random: bool) -> Work {
    Work {
        name,
        op,
        bytes,
        depth,
        random,
        raw: false,
    }
}

const WRITE: Op = Op::Write { fua: false };

const WORKS: &[Work] = &[
    work("4 KiB random write, depth 1", WRITE, 4096, 1, true),
    work("4 KiB random write, depth 32", WRITE, 4096, 32, true),
    work("4 KiB random write, depth 128", WRITE, 4096, 128, true),
    work("4 KiB random read, depth 1", Op::Read, 4096, 1, true),
    work("4 KiB random read, depth 32", Op::Read, 4096, 32, true),
    work("4 KiB random read, depth 128", Op::Read, 4096, 128, true),
    work("4 KiB sequential write, depth 32", WRITE, 4096, 32, false),
    work(
        "192 KiB full-stripe write, depth 1",
        WRITE,
        192 << 10,
        1,
        false,
    ),
    work(
        "192 KiB full-stripe write, depth 16",
        WRITE,
        192 << 10,
        16,
        false,
    ),
    Work {
        raw: true,
        ..work(
            "bare member: 4 KiB random read, depth 32",
            Op::Read,
            4096,
            32,
            true,
        )
    },
    Work {
        raw: true,
        ..work(
            "bare member: 4 KiB random write, depth 32",
            WRITE,
            4096,
            32,
            true,
        )
    },
];

/// Drives one channel as hard as it can, on a reactor.
struct Driver {
    channel: Box<dyn Channel>,
    blocks: u64,
    work: Work,
    pool: Pool,
    seed: u64,
    next: u64,
    idle: u32,
    done: Vec<Completion>,
    ended: u64,
    from: Option<Instant>,
    seconds: f64,
    answer: mpsc::Sender<f64>,
}

impl Driver {
    fn lba(&mut self) -> u64 {
        let per_request = u64::from(self.work.bytes / 512);
        let places = self.blocks / per_request;
        let place = if self.work.random {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            self.seed % places
        } else {
            self.next = (self.next + 1) % places;
            self.next
        };
        place * per_request
    }

    fn submit(&mut self, data: Data) {
        let request = Request {
            token: 0,
            op: self.work.op,
            lba: self.lba(),
            blocks: self.work.bytes / 512,
            data,
        };
        assert!(
            self.channel.submit(request).is_ok(),
            "the depth is moderate"
        );
    }
}

impl Poller for Driver {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        if self.from.is_none() {
            self.from = Some(turn.now);
            for _ in 0..self.idle {
                let buffer = self.pool.take().expect("one for each");
                let data = match self.work.op {
                    Op::Read => Data::Read([buffer].into_iter().collect()),
                    _ => Data::Write([buffer.freeze()].into_iter().collect()),
                };
                self.submit(data);
            }
        }
        let mut done = std::mem::take(&mut self.done);
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            self.ended += 1;
            self.submit(completion.data);
        }
        self.done = done;
        self.channel.kick();
        self.channel.poll(turn.now, &mut self.done);
        let elapsed = self
            .from
            .map_or(0.0, |from| (turn.now - from).as_secs_f64());
        if elapsed < self.seconds {
            return Progress::Busy;
        }
        // Drain, so that nothing is in flight when the channel closes.
        while self.channel.in_flight() > 0 {
            self.channel.kick();
            self.channel.poll(Instant::now(), &mut self.done);
        }
        let _ = self.answer.send(self.ended as f64 / elapsed);
        Progress::Finished
    }
}

/// One round of one work: operations per second.
fn measure(work: Work, seconds: f64) -> f64 {
    let mask: CoreMask = "0x1".parse().expect("core 0");
    let setup = Reactors::prepare(&mask, IdlePolicy::Busy).expect("a reactor");
    let arena = Arena::new(256 << 20).expect("memory");
    let members: Vec<_> = (0..MEMBERS)
        .map(|m| {
            let member = Malloc::new(&format!("m{m}"), 512, MEMBER_BYTES / 512, None);
            Some(member.expect("memory") as std::sync::Arc<dyn Bdev>)
        })
        .collect();
    let bdev: std::sync::Arc<dyn Bdev> = if work.raw {
        members[0].clone().expect("made above")
    } else {
        let config = VolumeConfig::new("bench", CHUNK);
        Volume::new(config, members, setup.wakers(), &arena).expect("a volume")
    };
    let (answer, result) = mpsc::channel();
    let reactors = setup
        .start(|_| {
            let (bdev, arena, answer) = (bdev.clone(), arena.clone(), answer.clone());
            move || {
                let slot = (work.bytes as usize).next_multiple_of(4096);
                let pool = Pool::new(&arena, slot, work.depth as usize).expect("memory");
                let mut channel = bdev.open().expect("opens");
                fill(&mut *channel, &arena, bdev.info().blocks);
                Driver {
                    blocks: bdev.info().blocks,
                    channel,
                    work,
                    pool,
                    seed: 0x9e37_79b9_7f4a_7c15,
                    next: 0,
                    idle: work.depth,
                    done: Vec::new(),
                    ended: 0,
                    from: None,
                    seconds,
                    answer,
                }
            }
        })
        .expect("reactors start");
    let rate = result
        .recv_timeout(Duration::from_secs(60))
        .expect("an answer");
    reactors.join().expect("reactors end");
    rate
}

/// Writes everything once: memory that was never written is faster than any disk.
fn fill(channel: &mut dyn Channel, arena: &Arena, blocks: u64) {
    let pool = Pool::new(arena, 192 << 10, 1).expect("memory");
    let mut buffer = pool.take().expect("free");
    for (i, byte) in buffer.iter_mut().enumerate() {
        *byte = i as u8;
    }
    let buffer = buffer.freeze();
    let mut done = Vec::new();
    let mut lba = 0;
    while lba < blocks {
        let count = (blocks - lba).min(384) as u32;
        let request = Request {
            token: 0,
            op: WRITE,
            lba,
            blocks: count,
            data: Data::Write([buffer.slice(..count as usize * 512)].into_iter().collect()),
        };
        assert!(channel.submit(request).is_ok());
        while channel.in_flight() > 0 || done.is_empty() {
            channel.kick();
            channel.poll(Instant::now(), &mut done);
        }
        done.clear();
        lba += u64::from(count);
    }
}

fn main() {
    let value = |name: &str, default: f64| -> f64 {
        let mut args = std::env::args().skip_while(|a| a != name).skip(1);
        args.next().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    // `cargo test` runs benches once, to see that they work.
    let once = std::env::args().any(|a| a == "--test");
    let seconds = if once { 0.01 } else { value("--seconds", 1.0) };
    let rounds = if once {
        1
    } else {
        value("--rounds", 5.0) as usize
    };
    let only = std::env::args().skip_while(|a| a != "--only").nth(1);
    let works: Vec<_> = WORKS
        .iter()
        .filter(|w| only.as_ref().is_none_or(|o| w.name.contains(o.as_str())))
        .collect();
    println!(
        "{MEMBERS} RAM members of {} MiB, {} KiB chunk, one core, {rounds} rounds of {seconds} s",
        MEMBER_BYTES >> 20,
        CHUNK >> 10
    );
    println!(
        "{:44} {:>12} {:>12} {:>12} {:>10}",
        "work", "median IOPS", "least", "most", "MiB/s"
    );
    let mut rates = vec![Vec::new(); works.len()];
    for _ in 0..rounds {
        for (work, rates) in works.iter().zip(&mut rates) {
            rates.push(measure(**work, seconds));
        }
    }
    for (work, mut rates) in works.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        let mib = median * f64::from(work.bytes) / f64::from(1 << 20);
        println!(
            "{:44} {median:12.0} {:12.0} {:12.0} {mib:10.1}",
            work.name,
            rates[0],
            rates[rates.len() - 1]
        );
    }
}
