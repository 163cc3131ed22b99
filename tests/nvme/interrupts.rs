//! A reactor that sleeps on its commands whenever it can is woken by the controller's interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stripewise::bdev::nvme::pcie::Controller;
use stripewise::memory::{Pool, SegmentsMut};
use stripewise::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

use super::machine::{PATIENCE, only};
use super::{Channel, Completion, Data, Op, Request, Status};

const READS: u64 = 300;

/// Reads one block after the other.
struct Reader {
    channel: Box<dyn Channel>,
    pool: Pool,
    left: u64,
    done: Vec<Completion>,
    /// When the read in flight began.
    start: Instant,
    /// Nanoseconds of the longest one.
    longest: Arc<AtomicU64>,
}

impl Poller for Reader {
    fn poll(&mut self, turn: &Turn<'_>) -> Progress {
        if self.channel.in_flight() == 0 {
            if self.left == 0 {
                return Progress::Finished;
            }
            self.left -= 1;
            self.start = Instant::now();
            let mut buffer = self.pool.take().unwrap();
            buffer.truncate(4096);
            let request = Request {
                token: self.left,
                op: Op::Read,
                lba: self.left * 8,
                blocks: 8,
                data: Data::Read(SegmentsMut::from_iter([buffer])),
            };
            self.channel.submit(request).unwrap();
        }
        self.channel.kick();
        let worked = self.channel.poll(turn.now, &mut self.done);
        for completion in self.done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            let took = self.start.elapsed().as_nanos() as u64;
            self.longest.fetch_max(took, Ordering::Relaxed);
        }
        match worked {
            true => Progress::Busy,
            false => Progress::Idle,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.channel.deadline()
    }
}

/// Reads from a controller that was attached without `linger`, and with long naps.
pub fn wake_reactors(controller: &Controller, pool: &Pool) {
    let idle = IdlePolicy::Adaptive {
        quiet: Duration::ZERO,
    };
    let mask = CoreMask::of(CoreMask::available().unwrap().cores().take(1)).unwrap();
    let longest = Arc::new(AtomicU64::new(0));
    let (bdev, count) = (only(controller), &longest);
    let reactors = Reactors::spawn(&mask, idle, |_| {
        let (bdev, pool, longest) = (bdev.clone(), pool.clone(), count.clone());
        move || Reader {
            channel: bdev.open().unwrap(),
            pool,
            left: READS,
            done: Vec::new(),
            start: Instant::now(),
            longest,
        }
    });
    let reactors = reactors.unwrap();
    let start = Instant::now();
    while reactors.next_exit().is_none() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    let sleeps = reactors.stats()[0].sleeps;
    // A sleep that nothing ends is over after 100 ms, unless the naps are shorter.
    let longest = Duration::from_nanos(longest.load(Ordering::Relaxed));
    println!("{READS} reads, {sleeps} sleeps, the longest read took {longest:?}");
    assert!(sleeps > 0);
}
