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

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use stripewise::bench::{BenchError, Load, Target, measure};
use stripewise::loadgen::quantity::Bytes;
use stripewise::loadgen::workload::Pattern::{self, RandRead, RandWrite, Write};
use stripewise::md::NewPolicy;
use stripewise::raid::VolumeConfig;

const CHUNK: u32 = 64 << 10;

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Work {
    name: &'static str,
    pattern: Pattern,
    kib: u64,
    depth: u32,
    /// On a bare RAM member instead of the volume.
    raw: bool,
}

const fn work(name: &'static str, pattern: Pattern, kib: u64, depth: u32) -> Work {
    Work {
        name,
        pattern,
        kib,
        depth,
        raw: false,
    }
}

const fn bare(name: &'static str, pattern: Pattern) -> Work {
    Work {
        raw: true,
        ..work(name, pattern, 4, 32)
    }
}

const WORKS: &[Work] = &[
    work("4 KiB random write, depth 1", RandWrite, 4, 1),
    work("4 KiB random write, depth 32", RandWrite, 4, 32),
    work("4 KiB random write, depth 128", RandWrite, 4, 128),
    work("4 KiB random read, depth 1", RandRead, 4, 1),
    work("4 KiB random read, depth 32", RandRead, 4, 32),
    work("4 KiB random read, depth 128", RandRead, 4, 128),
    work("4 KiB sequential write, depth 32", Write, 4, 32),
    work("192 KiB full-stripe write, depth 1", Write, 192, 1),
    work("192 KiB full-stripe write, depth 16", Write, 192, 16),
    bare("bare member: 4 KiB random read, depth 32", RandRead),
    bare("bare member: 4 KiB random write, depth 32", RandWrite),
];

impl Work {
    /// The load comes in at the first core, and latencies are not taken: instructions are counted
    /// of this.
    fn load(&self, policy: Policy, run: &Run) -> Result<Load, BenchError> {
        let target = Target {
            raw: self.raw,
            delay_us: run.delay_us,
            policy: policy.1,
            ..Target::new(VolumeConfig::new("bench", CHUNK))
        };
        Ok(Load {
            drivers: 1,
            pattern: self.pattern,
            request: Bytes(self.kib << 10),
            depth: self.depth,
            runtime: Duration::from_secs_f64(run.seconds),
            io_limit: run.requests,
            timed: false,
            counted: false,
            ..Load::new(target, Load::first_cores(run.cores)?)
        })
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
    requests: Option<u64>,
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

fn main() -> Result<(), BenchError> {
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
            0 => None,
            count => Some(count),
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
    let target = Target::new(VolumeConfig::new("bench", CHUNK));
    println!(
        "{} RAM members of {} MiB, {} KiB chunk, cores: {}, delay: {} us, \
         {rounds} rounds of {} s",
        target.members,
        target.member_bytes >> 20,
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
            let load = line.work.load(line.policy, &run)?;
            line.rates
                .push(measure(&load, &AtomicBool::new(false))?.rate);
        }
    }
    let mut first = f64::NAN;
    for line in &mut lines {
        let [median, least, most] = line.result();
        let mib = median * line.work.kib as f64 / 1024.0;
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
    Ok(())
}
