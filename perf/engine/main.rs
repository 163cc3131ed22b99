//! What the engine does on RAM members in one process and on one core: no network, no host.
//!
//! `cargo bench --bench engine [-- --seconds 2 --rounds 3]`. Each line is the median of several
//! rounds with the least and the most; works are interleaved, so that a slow moment of the
//! machine hits all of them.
//!
//! `--policy resync,bitmap,ppl` runs each work on arrays of these consistency policies (`none` keeps
//! nothing on its members, and is what is run if nothing is said); the last column then is the ratio
//! to the first of them. `--delay 50` has members take so many microseconds for a request,
//! `--cores 2` deals the rows out to so many owners, `--only random` leaves out other works.

mod driver;

use driver::{Load, MEMBER_BYTES, MEMBERS, WRITE, measure};
use stripewise::bdev::Op;
use stripewise::md::NewPolicy;
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
    fn load(&self, policy: Policy, run: &Run) -> Load {
        Load {
            op: self.op,
            bytes: self.bytes,
            depth: self.depth,
            random: self.random,
            raw: self.raw,
            reactors: run.cores,
            delay_us: run.delay_us,
            config: VolumeConfig::new("bench", CHUNK),
            policy: policy.1,
            seconds: run.seconds,
            requests: run.requests,
        }
    }
}

/// The name of a consistency policy, and what is to be made for it.
type Policy = (&'static str, Option<NewPolicy>);

const POLICIES: [Policy; 4] = [
    ("none", None),
    ("resync", Some(NewPolicy::Resync)),
    ("bitmap", Some(NewPolicy::Bitmap { chunk_bytes: None })),
    ("ppl", Some(NewPolicy::Ppl)),
];

/// What is the same for all works.
#[derive(Clone, Copy, Debug)]
struct Run {
    seconds: f64,
    requests: u64,
    delay_us: u64,
    cores: usize,
}

/// A line of the table.
struct Line {
    work: &'static Work,
    policy: Policy,
    rates: Vec<f64>,
}

impl Line {
    /// Median, least and most.
    fn result(&mut self) -> [f64; 3] {
        self.rates.sort_by(f64::total_cmp);
        let last = self.rates.len() - 1;
        [
            self.rates[self.rates.len() / 2],
            self.rates[0],
            self.rates[last],
        ]
    }
}

fn main() {
    let text = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let value = |name: &str, default: f64| -> f64 {
        text(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    // `cargo test` runs benches once, to see that they work.
    let once = std::env::args().any(|a| a == "--test");
    let run = Run {
        seconds: if once { 0.01 } else { value("--seconds", 1.0) },
        // A fixed number of requests, for counting instructions.
        requests: match value("--requests", 0.0) as u64 {
            0 => u64::MAX,
            count => count,
        },
        delay_us: value("--delay", 0.0) as u64,
        cores: value("--cores", 1.0) as usize,
    };
    let rounds = match once {
        true => 1,
        false => value("--rounds", 5.0) as usize,
    };
    let only = text("--only");
    let named = text("--policy").unwrap_or_else(|| "none".into());
    let named = named.split(',').map(|name| {
        let known = POLICIES.iter().find(|p| p.0 == name);
        *known.unwrap_or_else(|| panic!("there is no policy {name:?}"))
    });
    let policies: Vec<Policy> = named.collect();
    let mut lines = Vec::new();
    for work in WORKS {
        if only
            .as_ref()
            .is_some_and(|o| !work.name.contains(o.as_str()))
        {
            continue;
        }
        let arrays = if work.raw { 1 } else { policies.len() };
        lines.extend(policies[..arrays].iter().map(|&policy| Line {
            work,
            policy,
            rates: Vec::new(),
        }));
    }
    println!(
        "{MEMBERS} RAM members of {} MiB, {} KiB chunk, cores: {}, delay: {} us, \
         {rounds} rounds of {} s",
        MEMBER_BYTES >> 20,
        CHUNK >> 10,
        run.cores,
        run.delay_us,
        run.seconds
    );
    println!(
        "{:44} {:8} {:>12} {:>12} {:>12} {:>10} {:>6}",
        "work", "policy", "median IOPS", "least", "most", "MiB/s", "ratio"
    );
    for _ in 0..rounds {
        for line in &mut lines {
            let load = line.work.load(line.policy, &run);
            line.rates.push(measure(&load).rate);
        }
    }
    let mut first = f64::NAN;
    for line in &mut lines {
        let [median, least, most] = line.result();
        let mib = median * f64::from(line.work.bytes) / f64::from(1 << 20);
        if line.policy.0 == policies[0].0 {
            first = median;
        }
        println!(
            "{:44} {:8} {median:12.0} {least:12.0} {most:12.0} {mib:10.1} {:6.2}",
            line.work.name,
            line.policy.0,
            median / first
        );
    }
}
