//! The I/O path allocates nothing once it is warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stripewise::bdev::nvme::tcp::{Recovery, TcpController, TcpOptions};
use stripewise::bdev::{
    Bdev, Channel, Completion, Data, Delay, ErrorBdev, Malloc, Op, Request, Status, Uring,
};
use stripewise::md::{NewArray, NewDevice, NewPolicy, SetName, Time, create};
use stripewise::memory::{Arena, Pool};
use stripewise::nvme::Nqn;
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
            // All at once: how many are done in one turn is up to the machine.
            done: Vec::with_capacity(32),
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

/// The namespace is that of a target of our own, another process.
#[test]
fn a_remote_member_allocates_nothing_when_warm() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let address = port.unwrap();
    let subsystem = "nqn.2026-11.io.stripewise:allocations";
    let config = serde_json::json!({"subsystems": [{"subsystem": "all", "config": [
        {"method": "bdev_malloc_create", "params":
            {"name": "m", "num_blocks": 16384, "block_size": 512}},
        {"method": "nvmf_create_transport", "params": {"trtype": "TCP"}},
        {"method": "nvmf_create_subsystem", "params": {"nqn": subsystem, "allow_any_host": true}},
        {"method": "nvmf_subsystem_add_ns", "params":
            {"nqn": subsystem, "namespace": {"bdev_name": "m"}}},
        {"method": "nvmf_subsystem_add_listener", "params": {"nqn": subsystem, "listen_address":
            {"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": address.port().to_string()}}},
    ]}]});
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let _target = Killed(
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_stripewise")])
            .args(["serve", "-m", "0x1", "-s", "64", "-c"])
            .arg(path)
            .arg("-r")
            .arg(folder.path().join("rpc.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let nqn = |text: &str| Nqn::new(text).unwrap();
    for digests in [false, true] {
        let options = TcpOptions {
            subsystem: nqn(subsystem),
            host: nqn("nqn.2026-11.io.stripewise:host"),
            host_id: [1; 16],
            header_digest: digests,
            data_digest: digests,
            keep_alive: Duration::from_secs(10),
            io_timeout: Duration::from_secs(60),
            admin_timeout: Duration::from_secs(60),
            queue_depth: 32,
            io_queues: 4,
            recovery: Recovery::default(),
        };
        let controller = TcpController::attach("N", options, address).unwrap();
        let start = Instant::now();
        let namespace = loop {
            if let Some(namespace) = controller.namespaces().pop() {
                break namespace;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it never came");
            std::thread::sleep(Duration::from_millis(10));
        };
        let arena = Arena::ordinary(8 << 20).unwrap();
        // The large ones take two commands each.
        let mut driver = Driver::new(&*namespace, &arena, 264);
        let allocated = loop {
            if let Some(allocated) = driver.turn(Instant::now()) {
                break allocated;
            }
            assert!(start.elapsed() < Duration::from_secs(120));
        };
        assert_eq!(allocated, 0, "allocations, digests: {digests}");
    }
}

/// A process that ends with its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first core this process may use.
fn core_mask() -> CoreMask {
    let first = core_affinity::get_core_ids().expect("cores")[0].id;
    format!("[{first}]").parse().unwrap()
}
