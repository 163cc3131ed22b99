//! A volume on RAM members, driven as hard as one reactor can, in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stripewise::bdev::{Bdev, Channel, Completion, Data, Delay, Malloc, Op, Request, Status};
use stripewise::md::{NewArray, NewDevice, NewPolicy, SetName, Time, create};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{Assembled, Counters, Volume, VolumeConfig};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};
use uuid::Uuid;

pub const MEMBERS: usize = 4;
pub const MEMBER_BYTES: u64 = 256 << 20;
pub const WRITE: Op = Op::Write { fua: false };

/// What is driven, and how.
#[derive(Clone, Debug)]
pub struct Load {
    pub op: Op,
    pub bytes: u32,
    pub depth: u32,
    pub random: bool,
    /// On a bare RAM member instead of the volume.
    pub raw: bool,
    /// Reactors that own stripes; the load comes in at the first.
    pub reactors: usize,
    /// What members take for a request at least, in microseconds.
    pub delay_us: u64,
    pub config: VolumeConfig,
    /// What the members keep of the array; nothing if not said.
    pub policy: Option<NewPolicy>,
    /// Ends after this many seconds, or after so many requests.
    pub seconds: f64,
    pub requests: u64,
}

/// What came of it.
#[allow(dead_code, reason = "not every bench looks at all of it")]
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Requests per second.
    pub rate: f64,
    /// All requests, those that ended after the time too.
    pub requests: u64,
    /// What the volume counted meanwhile; zero for a bare member.
    pub counters: Counters,
}

struct Driver {
    channel: Box<dyn Channel>,
    blocks: u64,
    load: Load,
    pool: Pool,
    seed: u64,
    next: u64,
    done: Vec<Completion>,
    ended: u64,
    from: Option<Instant>,
    answer: mpsc::Sender<(f64, u64)>,
}

impl Driver {
    fn lba(&mut self) -> u64 {
        let per_request = u64::from(self.load.bytes / 512);
        let places = self.blocks / per_request;
        let place = if self.load.random {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            self.seed % places
        } else {
            let place = self.next;
            self.next = (self.next + 1) % places;
            place
        };
        place * per_request
    }

    fn submit(&mut self, data: Data) {
        let request = Request {
            token: 0,
            op: self.load.op,
            lba: self.lba(),
            blocks: self.load.bytes / 512,
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
            for _ in 0..self.load.depth {
                let mut buffer = self.pool.take().expect("one for each");
                buffer.truncate(self.load.bytes as usize);
                let data = match self.load.op {
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
        if elapsed < self.load.seconds && self.ended < self.load.requests {
            return Progress::Busy;
        }
        // Drain, so that nothing is in flight when the channel closes.
        while self.channel.in_flight() > 0 {
            self.channel.kick();
            self.channel.poll(Instant::now(), &mut self.done);
        }
        let before = self.ended;
        self.ended += self.done.len() as u64;
        // The counters are published ten times a second. Not where instructions are counted.
        let until = Instant::now() + Duration::from_millis(120);
        while self.load.requests == u64::MAX && Instant::now() < until {
            self.channel.poll(Instant::now(), &mut self.done);
        }
        let _ = self.answer.send((before as f64 / elapsed, self.ended));
        Progress::Finished
    }
}

/// A reactor that only does its part of the volume.
struct Helper {
    channel: Box<dyn Channel>,
    done: Vec<Completion>,
    stop: Arc<AtomicBool>,
}

impl Poller for Helper {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        if self.stop.load(Ordering::Relaxed) {
            return Progress::Finished;
        }
        match self.channel.poll(turn.now, &mut self.done) {
            true => Progress::Busy,
            false => Progress::Idle,
        }
    }
}

/// One of the pollers that a reactor runs.
enum Part {
    Driver(Box<Driver>),
    Helper(Helper),
}

impl Poller for Part {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        match self {
            Part::Driver(driver) => driver.poll(turn),
            Part::Helper(helper) => helper.poll(turn),
        }
    }
}

/// Writes all of a member once: memory that was never written is faster than any disk. All members
/// get the same, which is the parity of three of them as well.
fn fill(member: &Malloc, arena: &Arena) {
    const PIECE: u32 = 1 << 20;
    let pool = Pool::new(arena, PIECE as usize, 1).expect("memory");
    let mut buffer = pool.take().expect("free");
    for (i, byte) in buffer.iter_mut().enumerate() {
        *byte = i as u8;
    }
    let buffer = buffer.freeze();
    let mut channel = member.open().expect("opens");
    let mut done = Vec::new();
    for piece in 0..MEMBER_BYTES / u64::from(PIECE) {
        let request = Request {
            token: 0,
            op: WRITE,
            lba: piece * u64::from(PIECE / 512),
            blocks: PIECE / 512,
            data: Data::Write([buffer.clone()].into_iter().collect()),
        };
        assert!(channel.submit(request).is_ok());
        while channel.in_flight() > 0 {
            channel.kick();
            channel.poll(Instant::now(), &mut done);
        }
    }
    assert!(done.iter().all(|c| c.status == Status::Ok));
}

/// A new array of the RAM members. What follows from its policy is written to them, and no more:
/// nobody assembles it again.
fn assembled(policy: NewPolicy, chunk_bytes: u32) -> Assembled {
    let device = |number| NewDevice {
        sectors: MEMBER_BYTES / 512,
        uuid: Uuid::from_u128(number),
    };
    let slots = (0..MEMBERS as u128).map(|n| Some(device(n))).collect();
    let name = SetName::new("bench").expect("short");
    let created = create(&NewArray {
        chunk: chunk_bytes / 512,
        policy,
        assume_clean: true,
        ..NewArray::new(Uuid::from_u128(1), name, Time::from_seconds(1), slots)
    });
    let created = created.expect("members are large enough");
    Assembled::new(&created, 512).expect("blocks are small enough")
}

/// Drives a fresh volume with a load.
pub fn measure(load: &Load) -> Outcome {
    let mask = format!("{:#x}", (1u64 << load.reactors) - 1);
    let mask: CoreMask = mask.parse().expect("the first cores");
    let setup = Reactors::prepare(&mask, IdlePolicy::Busy).expect("reactors");
    let arena = Arena::new(256 << 20).expect("memory");
    let members: Vec<_> = (0..MEMBERS)
        .map(|m| {
            let name = format!("m{m}");
            let ram = Malloc::new(&name, 512, MEMBER_BYTES / 512, None).expect("memory");
            fill(&ram, &arena);
            let member: Arc<dyn Bdev> = match load.delay_us {
                0 => ram,
                us => Delay::new(ram, &name, us, us, us, us).expect("a delay"),
            };
            Some(member)
        })
        .collect();
    let volume = (!load.raw).then(|| {
        let config = load.config.clone();
        let assembled = load
            .policy
            .map(|policy| assembled(policy, config.chunk_bytes));
        let wakers = setup.wakers();
        Volume::new(config, members.clone(), assembled, wakers, &arena).expect("a volume")
    });
    let bdev = match &volume {
        Some(volume) => volume.clone() as Arc<dyn Bdev>,
        None => members[0].clone().expect("made above"),
    };
    let (answer, result) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let reactors = setup
        .start(|reactor| {
            let first = reactor.index() == 0;
            let (bdev, arena, load) = (bdev.clone(), arena.clone(), load.clone());
            let (answer, stop) = (answer.clone(), stop.clone());
            move || {
                let channel = bdev.open().expect("opens");
                if !first {
                    let done = Vec::new();
                    return Part::Helper(Helper {
                        channel,
                        done,
                        stop,
                    });
                }
                let slot = (load.bytes as usize).next_multiple_of(4096);
                let pool = Pool::new(&arena, slot, load.depth as usize).expect("memory");
                Part::Driver(Box::new(Driver {
                    blocks: bdev.info().blocks,
                    channel,
                    load,
                    pool,
                    seed: 0x9e37_79b9_7f4a_7c15,
                    next: 0,
                    done: Vec::new(),
                    ended: 0,
                    from: None,
                    answer,
                }))
            }
        })
        .expect("reactors start");
    let (rate, requests) = result
        .recv_timeout(Duration::from_secs(60))
        .expect("an answer");
    let counters = volume.map(|v| v.counters()).unwrap_or_default();
    stop.store(true, Ordering::Relaxed);
    reactors.join().expect("reactors end");
    Outcome {
        rate,
        requests,
        counters,
    }
}
