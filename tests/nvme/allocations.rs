//! The driver allocates nothing once it is warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use stripewise::bdev::nvme::pcie::Options;
use stripewise::memory::{Segments, SegmentsMut};

use super::machine::{Drive, Machine, PATIENCE, only};
use super::{Completion, Data, Op, Request, Status};

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

/// Does something whose allocations do not count: the talk with QEMU, which is none of the driver's.
pub fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let before = ALLOCATIONS.with(Cell::get);
    let result = work();
    ALLOCATIONS.with(|n| n.set(before));
    result
}

const WARM: u64 = 2_000;
const COUNTED: u64 = 2_000;

#[test]
fn the_driver_allocates_nothing_when_warm() {
    let machine = Machine::start(&[Drive::default()]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    let mut channel = only(&controller).open().unwrap();
    let pool = machine.pool();
    // Told in place, in lists, and through bounce buffers.
    let mut idle: Vec<(u32, Data)> = Vec::new();
    for n in 0..16 {
        let blocks = [1, 8, 100, 64][n % 4];
        let mut buffer = pool.take().unwrap();
        if n % 4 == 3 {
            buffer = buffer.split_off(1);
        }
        buffer.truncate(blocks * 512);
        idle.push((blocks as u32, Data::Read(SegmentsMut::from_iter([buffer]))));
    }
    let mut done: Vec<Completion> = Vec::with_capacity(64);
    let (mut ended, mut before) = (0, 0);
    let start = Instant::now();
    while ended < WARM + COUNTED {
        for (blocks, data) in idle.drain(..) {
            let op = match data {
                Data::Write(_) => Op::Write { fua: false },
                _ => Op::Read,
            };
            let lba = ended * 37 % 8000;
            let token = u64::from(blocks);
            let request = Request {
                token,
                op,
                lba,
                blocks,
                data,
            };
            assert!(channel.submit(request).is_ok());
        }
        channel.kick();
        channel.poll(Instant::now(), &mut done);
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            ended += 1;
            // What was read is written next, and the other way round.
            let data = match completion.data {
                Data::Read(read) => {
                    Data::Write(read.into_iter().map(|b| b.freeze()).collect::<Segments>())
                }
                Data::Write(write) => {
                    let back = write
                        .into_iter()
                        .map(|b| b.try_into_mut().expect("the only view"));
                    Data::Read(back.collect::<SegmentsMut>())
                }
                Data::None => Data::None,
            };
            idle.push((completion.token as u32, data));
        }
        let count = ALLOCATIONS.with(Cell::get);
        if ended < WARM {
            before = count;
        }
        assert!(start.elapsed() < PATIENCE);
    }
    let allocated = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!(allocated, 0, "allocations in {COUNTED} requests");
}
