//! What batches bring: sequential writes of several sizes and depths, with batches of every reach,
//! on one reactor and on two.
//!
//! `cargo bench --bench batching [-- --seconds 0.3 --rounds 3 --delay 0 --only 64]`. The load comes
//! in at the first reactor. For each line: throughput (median, least, most of the rounds, which are
//! interleaved), and of all rounds together
//! - stripes that were read before they were written, of a thousand,
//! - bytes written to members for each byte of the host; n/(n-1) is the ideal,
//! - member requests for each MiB of the host; the ideal is that all are as large as may be,
//! - joins with a neighbour for each thousand batches.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use stripewise::bench::{BenchError, Load, Outcome, Target, measure};
use stripewise::loadgen::quantity::Bytes;
use stripewise::loadgen::workload::Pattern;
use stripewise::raid::{BatchScope, Counters, VolumeConfig};

const CHUNK: u32 = 64 << 10;

/// One line of the table.
struct Line {
    name: String,
    load: Load,
    outcomes: Vec<Outcome>,
}

fn main() -> Result<(), BenchError> {
    let text = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let value = |name: &str, default: f64| -> f64 {
        text(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    // `cargo test` runs benches once, to see that they work.
    let once = std::env::args().any(|a| a == "--test");
    let seconds = if once { 0.01 } else { value("--seconds", 0.3) };
    let rounds = if once {
        1
    } else {
        value("--rounds", 3.0) as usize
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sizes: Vec<u64> = match text("--only").and_then(|v| v.parse().ok()) {
        Some(kib) => vec![kib],
        None if once => vec![64],
        None => vec![4, 16, 64, 1024],
    };
    let mut config = VolumeConfig::new("bench", CHUNK);
    config.shard_run = value("--run", f64::from(config.shard_run)) as u32;
    config.stripe_bytes = value("--stripe", f64::from(config.stripe_bytes)) as u32;
    config.batching.request_bytes =
        (value("--batch", f64::from(config.batching.request_bytes >> 10)) as u32) << 10;
    let micros = |d: Duration| d.as_micros() as f64;
    let wait =
        |name: &str, default: Duration| Duration::from_micros(value(name, micros(default)) as u64);
    config.batching.partial_wait = wait("--partial-wait", config.batching.partial_wait);
    config.batching.join_wait = wait("--join-wait", config.batching.join_wait);
    let mut lines = Vec::new();
    for &kib in &sizes {
        for depth in [1, 8, 32, 64] {
            for reactors in 1..=cores.min(2) {
                for scope in BatchScope::ALL {
                    if scope == BatchScope::Owners && reactors == 1 {
                        continue;
                    }
                    let mut config = config.clone();
                    config.batching.scope = scope;
                    let target = Target {
                        delay_us: value("--delay", 0.0) as u64,
                        ..Target::new(config)
                    };
                    lines.push(Line {
                        name: format!("{kib:4} {depth:3} {reactors} {:6}", scope.name()),
                        load: Load {
                            drivers: 1,
                            pattern: Pattern::Write,
                            request: Bytes(kib << 10),
                            depth,
                            runtime: Duration::from_secs_f64(seconds),
                            timed: false,
                            ..Load::new(target, Load::first_cores(reactors)?)
                        },
                        outcomes: Vec::new(),
                    });
                }
            }
        }
    }
    for _ in 0..rounds {
        for line in &mut lines {
            let outcome = measure(&line.load, &AtomicBool::new(false))?;
            line.outcomes.push(outcome);
        }
    }
    println!(
        "4 RAM members, {} KiB chunk, {rounds} rounds of {seconds} s, {config:?}",
        CHUNK >> 10
    );
    println!(
        "KiB depth cores batch | MiB/s median (least, most) | prereads/1000 | amplification | requests/MiB | joins/1000"
    );
    for line in lines {
        show(&line);
    }
    Ok(())
}

fn show(line: &Line) {
    let mib = line.load.request.0 as f64 / f64::from(1 << 20);
    let mut rates: Vec<f64> = line.outcomes.iter().map(|o| o.rate * mib).collect();
    rates.sort_by(f64::total_cmp);
    let mut sum = Counters::default();
    for outcome in &line.outcomes {
        sum.add(&outcome.counters);
    }
    let host: f64 = line.outcomes.iter().map(|o| o.requests as f64 * mib).sum();
    let rounds = (sum.full_writes + sum.reconstruct_writes + sum.modify_writes).max(1);
    let page = f64::from(line.load.target.config.stripe_bytes) / f64::from(1 << 20);
    let written = (sum.member_pages - sum.pages_read) as f64 * page;
    println!(
        "{} | {:6.0} ({:.0}, {:.0}) | {:.1} | {:.3} | {:.1} | {:.1}",
        line.name,
        rates[rates.len() / 2],
        rates[0],
        rates[rates.len() - 1],
        1000.0 * (sum.reconstruct_writes + sum.modify_writes) as f64 / rounds as f64,
        written / host,
        sum.member_requests as f64 / host,
        1000.0 * sum.joins as f64 / sum.batches.max(1) as f64,
    );
}
