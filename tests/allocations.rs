//! The I/O path allocates nothing once it is warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stripewise::bdev::{
    Bdev, Channel, Completion, Data, Delay, ErrorBdev, Malloc, Op, Request, Status, Uring,
};
use stripewise::md::{NewArray, NewDevice, NewPolicy, SetName, Time, create};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{Assembled, Volume, VolumeConfig};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};
use uuid::Uuid;

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM: u64 = 20_000;
const COUNTED: u64 = 20_000;

/// Keeps requests of several kinds in flight and counts allocations once it is warm.
struct Driver {
    channel: Box<dyn Channel>,
    pool: Pool,
    kinds: [(Op, u32); 4],
    blocks: u64,
    sent: u64,
    ended: u64,
    before: u64,
    done: Vec<Completion>,
}

impl Driver {
    /// Requests of 8 and of `large` blocks to a device, with buffers in `arena`.
    fn new(bdev: &dyn Bdev, arena: &Arena, large: u32) -> Self {
        Self {
            channel: bdev.open().unwrap(),
            pool: Pool::new(arena, large as usize * 512, 32).unwrap(),
            kinds: [
                (Op::Read, 8),
                (Op::Write { fua: false }, 8),
                (Op::Write { fua: true }, large),
                (Op::Read, large),
            ],
            blocks: bdev.info().blocks,
            sent: 0,
            ended: 0,
            before: 0,
            done: Vec::new(),
        }
    }

    fn submit(&mut self, kind: usize, mut data: Data) {
        let (op, blocks) = self.kinds[kind];
        if data.is_empty() {
            let mut buffer = self.pool.take().expect("one for each request");
            buffer.truncate(blocks as usize * 512);
            data = match op {
                Op::Read => Data::Read([buffer].into_iter().collect()),
                _ => Data::Write([buffer.freeze()].into_iter().collect()),
            };
        }
        self.sent += 1;
        let lba = self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (self.blocks / 384) * 384;
        let token = kind as u64;
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        assert!(self.channel.submit(request).is_ok());
    }
}

impl Driver {
    /// One turn; in the last one it answers how much was allocated since it was warm.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        if self.sent == 0 {
            for n in 0..32 {
                self.submit(n % 4, Data::None);
            }
        }
        let mut done = std::mem::take(&mut self.done);
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            self.ended += 1;
            self.submit(completion.token as usize, completion.data);
        }
        self.done = done;
        self.channel.kick();
        self.channel.poll(now, &mut self.done);
        let count = ALLOCATIONS.with(Cell::get);
        if self.ended < WARM {
            self.before = count;
        }
        (self.ended >= WARM + COUNTED).then(|| count - self.before)
    }
}

/// A driver that tells what it allocated.
struct Telling {
    driver: Driver,
    answer: mpsc::Sender<u64>,
}

impl Poller for Telling {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        match self.driver.turn(turn.now) {
            None => Progress::Busy,
            Some(allocated) => {
                let _ = self.answer.send(allocated);
                Progress::Finished
            }
        }
    }
}

#[test]
fn the_engine_allocates_nothing_when_warm() {
    assert_eq!(allocated(None), 0, "allocations in {COUNTED} requests");
}

#[test]
fn neither_does_it_with_partial_parity_logs() {
    let allocated = allocated(Some(NewPolicy::Ppl));
    assert_eq!(allocated, 0, "allocations in {COUNTED} requests");
}

/// Blocks of a member, and sectors of a chunk.
const BLOCKS: u64 = 65536;
const CHUNK: u32 = 128;

/// An array of four members that keep its state.
fn assembled(policy: NewPolicy) -> Assembled {
    let device = |number| NewDevice {
        sectors: BLOCKS,
        uuid: Uuid::from_u128(number),
    };
    let name = SetName::new("warm").unwrap();
    let slots = (0..4).map(|n| Some(device(n))).collect();
    let created = create(&NewArray {
        chunk: CHUNK,
        policy,
        assume_clean: true,
        ..NewArray::new(Uuid::from_u128(7), name, Time::from_seconds(1), slots)
    });
    Assembled::new(&created.unwrap(), 512).unwrap()
}

/// What an array allocates once it is warm.
fn allocated(policy: Option<NewPolicy>) -> u64 {
    let cores = core_mask();
    let setup = Reactors::prepare(&cores, IdlePolicy::Busy).unwrap();
    let arena = Arena::ordinary(64 << 20).unwrap();
    let members = (0..4)
        .map(|m| Some(Malloc::new(&format!("m{m}"), 512, BLOCKS, None).unwrap() as Arc<dyn Bdev>))
        .collect();
    let config = VolumeConfig::new("v", CHUNK * 512);
    let assembled = policy.map(assembled);
    let volume = Volume::new(config, members, assembled, setup.wakers(), &arena).unwrap();
    let (answer, result) = mpsc::channel();
    let reactors = setup
        .start(|_| {
            let (volume, arena, answer) = (volume.clone(), arena.clone(), answer.clone());
            move || Telling {
                driver: Driver::new(&*volume, &arena, 384),
                answer,
            }
        })
        .unwrap();
    let allocated = result.recv_timeout(Duration::from_secs(120)).unwrap();
    reactors.join().unwrap();
    allocated
}

#[test]
fn the_members_allocate_nothing_when_warm() {
    let arena = Arena::ordinary(4 << 20).unwrap();
    // In memory, so that forty thousand requests do not take long.
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let malloc = || Malloc::new("m", 512, 16384, None).unwrap();
    let arenas = std::slice::from_ref(&arena);
    let members: [Arc<dyn Bdev>; 4] = [
        malloc(),
        Delay::new(malloc(), "d", 1, 2, 1, 2).unwrap(),
        ErrorBdev::new(malloc()),
        Uring::new("u", file.path(), Some(512), None, arenas).unwrap(),
    ];
    for member in members {
        let mut driver = Driver::new(&*member, &arena, 16);
        let start = Instant::now();
        let allocated = loop {
            if let Some(allocated) = driver.turn(Instant::now()) {
                break allocated;
            }
            assert!(start.elapsed() < Duration::from_secs(120));
        };
        let name = &member.info().name;
        assert_eq!(allocated, 0, "allocations in {COUNTED} requests to {name}");
    }
}

/// The first core this process may use.
fn core_mask() -> CoreMask {
    let first = core_affinity::get_core_ids().expect("cores")[0].id;
    format!("[{first}]").parse().unwrap()
}
