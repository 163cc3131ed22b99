//! What the engine does on RAM members in one process and on one core: no network, no host.
//!
//! `cargo bench --bench engine [-- --seconds 2 --rounds 3]`. Each line is the median of several
//! rounds with the least and the most; works are interleaved, so that a slow moment of the
//! machine hits all of them.

mod driver;

use driver::{Load, MEMBER_BYTES, MEMBERS, WRITE, measure};
use stripewise::bdev::Op;
use stripewise::raid::VolumeConfig;

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

impl Work {
    fn load(&self, seconds: f64, requests: u64) -> Load {
        Load {
            op: self.op,
            bytes: self.bytes,
            depth: self.depth,
            random: self.random,
            raw: self.raw,
            reactors: 1,
            delay_us: 0,
            config: VolumeConfig::new("bench", CHUNK),
            seconds,
            requests,
        }
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
    // A fixed number of requests, for counting instructions.
    let requests = match value("--requests", 0.0) as u64 {
        0 => u64::MAX,
        count => count,
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
            rates.push(measure(&work.load(seconds, requests)).rate);
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
