//! What came of a bench.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Load;
use crate::loadgen::distribution::Distribution;
use crate::loadgen::report::{Ending, Report};
use crate::loadgen::tally::Tally;
use crate::raid::Counters;

/// A rebuild that ran meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebuilt {
    /// Bytes of the member that were rebuilt.
    pub bytes: u64,
    /// In so long.
    pub time: Duration,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests per second that were counted.
    pub rate: f64,
    /// All requests, those before and after the counted time too.
    pub requests: u64,
    /// Latencies, where they were taken, and failures.
    pub tally: Tally,
    /// How long requests were counted.
    pub runtime: Duration,
    /// How long all reactors together had their cores meanwhile.
    pub cpu: Duration,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// What the array counted, before and after the counted time too; zero for bare members.
    pub counters: Counters,
    /// The rebuild, where there was one.
    pub rebuilt: Option<Rebuilt>,
}

impl Rebuilt {
    /// Mebibytes of the member a second.
    pub fn mibps(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.time.as_secs_f64().max(1e-9)
    }
}

impl Outcome {
    /// The table for people, with a newline behind each line.
    pub fn table(&self, load: &Load) -> String {
        let mut text = format!("{}\n", describe(load));
        text.push_str(&self.report(load).table());
        if let Some(rebuilt) = &self.rebuilt {
            let _ = writeln!(
                text,
                "rebuild: {:.0} MiB in {:.3} s, {:.0} MiB/s",
                rebuilt.bytes as f64 / f64::from(1 << 20),
                rebuilt.time.as_secs_f64(),
                rebuilt.mibps()
            );
        }
        text
    }

    /// The result as `stripewise perf --json` has it, with the array's counters and the rebuild.
    pub fn json(&self, load: &Load) -> Value {
        let mut json = self.report(load).json();
        let result = json["results"][0].as_object_mut().expect("an object");
        if !load.target.raw {
            result.insert("stripe_cache".to_owned(), self.counters.to_json());
        }
        if let Some(rebuilt) = &self.rebuilt {
            let rebuild = json!({
                "bytes": rebuilt.bytes,
                "seconds": rebuilt.time.as_secs_f64(),
                "mibps": rebuilt.mibps(),
            });
            result.insert("rebuild".to_owned(), rebuild);
        }
        json
    }

    fn report(&self, load: &Load) -> Report {
        Report {
            job: describe(load),
            cores: Some(load.cores.clone()),
            workload: load.pattern.to_string(),
            read_percent: load.pattern.is_mixed().then_some(load.read_percent),
            distribution: Some(load.distribution)
                .filter(|&d| d != Distribution::Uniform)
                .map(|d| d.to_string()),
            ending: match self.interrupted {
                true => Ending::Interrupted,
                false => Ending::Finished,
            },
            queue_depth: load.depth,
            queues: load.drivers as u16,
            io_size: (load.request.0, load.request.0),
            runtime: self.runtime,
            tally: self.tally.clone(),
            findings: None,
            cpu: self.cpu,
            reconnects: None,
        }
    }
}

/// What was driven, in a line.
fn describe(load: &Load) -> String {
    let target = &load.target;
    let size = target.member_bytes >> 20;
    if target.raw {
        return format!("bare RAM members of {size} MiB");
    }
    let mut text = format!(
        "RAID5 on {} RAM members of {size} MiB, {} KiB chunk",
        target.members,
        target.config.chunk_bytes >> 10
    );
    if let Some(slot) = target.missing {
        let _ = write!(text, ", without the one of slot {slot}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Target;
    use crate::loadgen::tally::Direction;
    use crate::raid::VolumeConfig;
    use crate::reactor::CoreMask;

    #[test]
    fn it_looks_like_a_result_of_perf() {
        let target = Target {
            missing: Some(2),
            ..Target::new(VolumeConfig::new("bench", 64 << 10))
        };
        let load = Load::new(target, CoreMask::of([0, 1]).unwrap());
        let mut tally = Tally::default();
        for _ in 0..10 {
            tally.record(Direction::Read, 4096, Duration::from_micros(100));
        }
        let outcome = Outcome {
            rate: 5.0,
            requests: 12,
            tally,
            runtime: Duration::from_secs(2),
            cpu: Duration::from_secs(4),
            interrupted: false,
            counters: Counters::default(),
            rebuilt: Some(Rebuilt {
                bytes: 256 << 20,
                time: Duration::from_millis(500),
            }),
        };
        let json = outcome.json(&load);
        let result = &json["results"][0];
        assert_eq!(json["core_count"], 2);
        assert_eq!(result["iops"], 5.0);
        // Four seconds of cores for ten requests.
        assert_eq!(result["cpu_us_per_io"], 400_000.0);
        assert_eq!(result["rebuild"]["mibps"], 512.0);
        assert_eq!(result["stripe_cache"]["modify_writes"], 0);
        let table = outcome.table(&load);
        assert!(table.starts_with("RAID5 on 4 RAM members of 256 MiB, 64 KiB chunk, without"));
        assert!(
            table.ends_with("rebuild: 256 MiB in 0.500 s, 512 MiB/s\n"),
            "{table}"
        );
    }
}
