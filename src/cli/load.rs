//! What `stripewise perf` and `stripewise bench` have in common: how a load is described, how its
//! result is printed, and how it is interrupted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::loadgen::distribution::Distribution;
use crate::loadgen::quantity::Bytes;
use crate::loadgen::workload::Pattern;

/// Exit code where I/O failed.
pub(super) const FAILED: u8 = 3;

// The load. No documentation comment: clap would show it as that of the command.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// What to do: read, write, randread, randwrite, rw, randrw.
    #[arg(long, value_name = "WORKLOAD", default_value = "randread")]
    pub rw: Pattern,
    /// Size of a request.
    #[arg(long, value_name = "SIZE", default_value = "4k")]
    pub bs: Bytes,
    /// Share of reads in percent, for rw and randrw.
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(..=100))]
    pub rwmixread: u8,
    /// Where random requests go: uniform, or zipf: and its exponent (zipf:1.1), by which a few
    /// places get most of them.
    #[arg(long, value_name = "DISTRIBUTION", default_value_t)]
    pub random: Distribution,
    /// Seconds to run; fractions are allowed.
    #[arg(long, visible_alias = "time", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub runtime: Duration,
    /// Seconds to run before the counting starts.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub ramp: Duration,
    /// Stop after this many requests, if that is sooner.
    #[arg(long, value_name = "N")]
    pub io_limit: Option<u64>,
    /// Requests a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Seed of the sequence of requests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How to print the result: as a table, or as JSON in bdevperf's shape.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Output,
    /// The same as --output json.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

impl LoadArgs {
    /// Prints a result as it was asked for. A reader that has left is no failure of the run.
    pub fn print(&self, table: impl FnOnce() -> String, json: impl FnOnce() -> serde_json::Value) {
        let text = match self.json || self.output == Output::Json {
            true => {
                let text = serde_json::to_string_pretty(&json());
                text.expect("a value is always JSON") + "\n"
            }
            false => table(),
        };
        let _ = io::stdout().write_all(text.as_bytes());
    }
}

/// A number of seconds, with or without a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a number of seconds");
    let number: f64 = text.parse().map_err(|_| wrong())?;
    // Ten years: longer is as good as for ever, and clocks still add up.
    let sensible = (0.0..=3.2e8).contains(&number);
    sensible
        .then(|| Duration::from_secs_f64(number))
        .ok_or_else(wrong)
}

/// Set by the first SIGINT or SIGTERM; the second one ends the process at once.
pub(super) fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let second = stop.clone();
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, second)?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}
