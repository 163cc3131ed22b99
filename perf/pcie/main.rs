//! 4 KiB random reads of two like NVMe controllers of this machine: one that is polled through VFIO, and one that Linux
//! has, through io_uring. One core, one loop for both; rounds are interleaved.
//!
//! `cargo bench --bench pcie -- --vfio 0000:5e:00.0 --linux /dev/nvme1n1 [--seconds 0.5 --rounds 41]`: only reads, but the first
//! controller must be bound to vfio-pci. `perf/pcie/guest` has it run in a guest on emulated controllers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stripewise::bdev::nvme::pcie::vfio::{Container, IovaMode};
use stripewise::bdev::nvme::pcie::{Controller, Options};
use stripewise::bdev::{Bdev, Data, Op, Request, Status, Uring};
use stripewise::memory::{Arena, Pool, SegmentsMut};

const BYTES: usize = 4096;
const DEPTHS: [usize; 2] = [1, 32];

fn main() {
    let text = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let value = |name: &str, default: f64| -> f64 {
        text(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (Some(address), Some(path)) = (text("--vfio"), text("--linux")) else {
        println!("give two controllers: --vfio 0000:5e:00.0 --linux /dev/nvme1n1");
        return;
    };
    let time = Duration::from_secs_f64(value("--seconds", 0.5));
    let rounds = value("--rounds", 41.0) as usize;

    let arena = Arena::new(32 << 20).expect("memory");
    let arenas = std::slice::from_ref(&arena);
    let container = Container::new(arenas, IovaMode::Va).expect("VFIO");
    let access = container.open(&address, &arena).expect("a controller");
    let controller = Controller::attach(access, Options::new("Nvme0")).expect("a controller");
    let polled = controller.namespaces().remove(0);
    let linux: Arc<dyn Bdev> =
        Uring::new("linux", Path::new(&path), None, None, arenas).expect("a block device");
    let pool = Pool::new(&arena, BYTES, DEPTHS[1]).expect("memory");

    let mut results = vec![[Vec::new(), Vec::new()]; DEPTHS.len()];
    for round in 0..rounds {
        for (depth, sides) in DEPTHS.iter().zip(&mut results) {
            for (bdev, rates) in [&polled, &linux].into_iter().zip(sides) {
                rates.push(rate(&**bdev, &pool, *depth, time, round as u64));
            }
        }
    }
    println!(
        "Reads a second: median (least, most). The ratio is the median of the rounds' ratios."
    );
    println!("depth  polled                     Linux                      ratio");
    for (depth, [polled, linux]) in DEPTHS.iter().zip(&mut results) {
        let pairs = polled.iter().zip(&*linux);
        let mut ratios: Vec<f64> = pairs.map(|(p, l)| p / l).collect();
        let ratio = median(&mut ratios);
        let quarter = ratios.len() / 4;
        let (low, high) = (ratios[quarter], ratios[ratios.len() - 1 - quarter]);
        let (polled, linux) = (told(polled), told(linux));
        println!(
            "{depth:5}  {polled:25}  {linux:25}  {ratio:.2} (half of them {low:.2} to {high:.2})"
        );
    }
    drop(polled);
    controller.detach();
}

/// Reads a second, with so many of them in flight.
fn rate(bdev: &dyn Bdev, pool: &Pool, depth: usize, time: Duration, seed: u64) -> f64 {
    let mut channel = bdev.open().expect("a channel");
    let block = BYTES as u32 / bdev.info().block_size;
    let places = bdev.info().blocks / u64::from(block);
    let mut state = seed;
    // SplitMix64.
    let mut request = |data| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Request {
            token: 0,
            op: Op::Read,
            lba: (z ^ (z >> 31)) % places * u64::from(block),
            blocks: block,
            data,
        }
    };
    for _ in 0..depth {
        let buffer = pool.take().expect("a buffer for each");
        let data = Data::Read(SegmentsMut::from_iter([buffer]));
        channel.submit(request(data)).expect("room for all");
    }
    let start = Instant::now();
    let (mut reads, mut done) = (0_u64, Vec::new());
    loop {
        channel.kick();
        let now = Instant::now();
        channel.poll(now, &mut done);
        let is_over = now - start >= time;
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            reads += 1;
            if !is_over {
                channel
                    .submit(request(completion.data))
                    .expect("room for all");
            }
        }
        if is_over && channel.in_flight() == 0 {
            return reads as f64 / start.elapsed().as_secs_f64();
        }
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn told(rates: &mut [f64]) -> String {
    let median = median(rates);
    let (least, most) = (rates[0], rates[rates.len() - 1]);
    format!("{median:.0} ({least:.0}, {most:.0})")
}
