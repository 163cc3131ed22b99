//! `stripewise perf`: a polled NVMe/TCP load generator that can prove what it wrote.

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ArgAction;
use uuid::Uuid;

use super::load::{FAILED, LoadArgs, seconds, stop_on_signals};
use crate::initiator::ControllerSettings;
use crate::loadgen::quantity::{Bytes, BytesRange};
use crate::loadgen::report::{Ending, Report};
use crate::loadgen::run::Progress;
use crate::loadgen::{Event, Job, OnDisconnect, Run, RunError, Verify};
use crate::nvme::Nqn;
use crate::nvme::nqn::NqnError;

/// Exit code where a block does not hold what was acknowledged.
const WRONG: u8 = 4;
/// Exit code where the target went away for good.
const LOST: u8 = 5;
/// Faults and failures that are printed; the rest is counted.
const MOST_PRINTED: u64 = 30;
/// Turns between two looks at the clock for the progress line.
const TURNS: u32 = 256;

/// One thread drives all queues and never sleeps. Sizes take the units k, m, g, t (powers of 1024).
///
/// Exit code: 0 all well, 1 the run could not be made, 2 wrong arguments, 3 I/O failed,
/// 4 verification found a wrong block, 5 the target went away.
///
/// Examples:
///   stripewise perf --traddr 127.0.0.1 --subnqn nqn.2026-11.io.stripewise:demo --rw randread
///   stripewise perf ... --rw randwrite --bsrange 4k-128k --verify --state /tmp/state \
///       --on-disconnect reconnect 30
///   stripewise perf ... --verify-only --state /tmp/state
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Address or name of the target.
    #[arg(long, value_name = "ADDRESS")]
    traddr: String,
    /// TCP port of the target.
    #[arg(long, value_name = "PORT", default_value_t = crate::nvme::tcp::IO_PORT)]
    trsvcid: u16,
    /// Name of the subsystem.
    #[arg(long, value_name = "NQN")]
    subnqn: String,
    /// Namespace.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    nsid: u32,
    /// Name of this host; a new one for each run unless given.
    #[arg(long, value_name = "NQN")]
    hostnqn: Option<String>,

    #[command(flatten)]
    load: LoadArgs,
    /// Sizes of requests, in multiples of the smallest.
    #[arg(long, value_name = "SIZE-SIZE", conflicts_with = "bs")]
    bsrange: Option<BytesRange>,
    /// Requests outstanding on each queue.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    iodepth: u16,
    /// I/O queues.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    queues: u16,
    /// Where on the namespace to begin.
    #[arg(long, value_name = "SIZE")]
    offset: Option<Bytes>,
    /// How much of the namespace to use.
    #[arg(long, value_name = "SIZE")]
    size: Option<Bytes>,
    /// Flush after every N writes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    flush_every: u64,
    /// Force unit access on every write.
    #[arg(long)]
    fua: bool,

    /// Header digests.
    #[arg(long)]
    hdgst: bool,
    /// Data digests.
    #[arg(long)]
    ddgst: bool,
    /// Keep alive timeout in seconds; 0 for none.
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    keep_alive: Duration,
    /// Seconds to wait for any answer before the connection is given up.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,

    /// Write blocks that say what they are, check every block that is read, and at the end read
    /// back all that was written.
    #[arg(long)]
    verify: bool,
    /// With --verify: do not read everything back at the end.
    #[arg(long, requires = "verify")]
    no_final_check: bool,
    /// Only check what an earlier run wrote; needs its --state.
    #[arg(long, conflicts_with_all = ["verify", "io_limit", "ramp"], requires = "state")]
    verify_only: bool,
    /// Keep what was acknowledged in this file, so that a later run can verify it. A run goes on
    /// with the file of an earlier one.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// When the target goes away: stop, or reconnect SECONDS: try again for so long (also at the
    /// start).
    #[arg(
        long, value_name = "stop | reconnect SECONDS", num_args = 1..=2, action = ArgAction::Set,
        default_value = "stop"
    )]
    on_disconnect: Vec<String>,

    /// Core to run on, as a bit mask with one bit: 0x2 is core 1.
    #[arg(short = 'm', long, value_name = "MASK", value_parser = core_of_mask)]
    core_mask: Option<usize>,
    /// No progress line.
    #[arg(short, long)]
    quiet: bool,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// The target's name does not resolve.
    #[error("{address}: {source}; give an address or a name that resolves")]
    Address {
        /// What was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The target's name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// A name is not one.
    #[error("--{option}: {source}")]
    Name {
        /// Which option.
        option: &'static str,
        /// Why not.
        source: NqnError,
    },
    /// Nonsense behind --on-disconnect.
    #[error("--on-disconnect: write stop, or reconnect and a number of seconds, not {0:?}")]
    OnDisconnect(String),
    /// A state file without anything to keep in it.
    #[error("--state keeps what is verified; give --verify or --verify-only with it")]
    StateWithoutVerify,
    /// Signals can't be caught.
    #[error("signals can't be caught: {0}")]
    Signals(io::Error),
    /// The run could not be made.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Args {
    /// Runs, and prints the result. The exit code says how it went.
    ///
    /// # Errors
    /// [`PerfError`] where there is no result.
    pub fn run(self) -> Result<ExitCode, PerfError> {
        let stop = stop_on_signals().map_err(PerfError::Signals)?;
        let job = self.job()?;
        let mut run = Run::start(job, &stop)?;
        let mut printer = Printer::new(!self.quiet && io::stderr().is_terminal());
        let mut turns = 0;
        while run.turn(&stop)? {
            turns += 1;
            if turns % TURNS == 0 {
                printer.tell(&mut run);
                printer.progress(&run.progress(), Instant::now());
            }
        }
        printer.tell(&mut run);
        printer.end();
        let report = run.report();
        self.load.print(|| report.table(), || report.json());
        Ok(exit_code(&report))
    }

    fn job(&self) -> Result<Job, PerfError> {
        let name = |option, text: &str| {
            Nqn::new(text).map_err(|source| PerfError::Name { option, source })
        };
        let id = Uuid::new_v4();
        let verify = match (self.verify, self.verify_only) {
            (_, true) => Verify::Only,
            (true, _) if self.no_final_check => Verify::Reads,
            (true, _) => Verify::All,
            (false, false) if self.state.is_some() => return Err(PerfError::StateWithoutVerify),
            (false, false) => Verify::Off,
        };
        let one_size = BytesRange {
            min: self.load.bs,
            max: self.load.bs,
        };
        Ok(Job {
            address: resolve(&self.traddr, self.trsvcid)?,
            controller: ControllerSettings {
                subsystem: name("subnqn", &self.subnqn)?,
                host: match &self.hostnqn {
                    Some(text) => name("hostnqn", text)?,
                    None => Nqn::from_uuid(id),
                },
                events: false,
                host_id: *id.as_bytes(),
                header_digest: self.hdgst,
                data_digest: self.ddgst,
                keep_alive: self.keep_alive,
                patience: self.timeout,
                io_queues: self.queues,
                namespace: Some(self.nsid),
            },
            depth: self.iodepth,
            pattern: self.load.rw,
            read_percent: self.load.rwmixread,
            request: self.bsrange.unwrap_or(one_size),
            offset: self.offset,
            size: self.size,
            distribution: self.load.random,
            seed: self.load.seed,
            flush_every: self.flush_every,
            fua: self.fua,
            rate: self.load.rate,
            runtime: self.load.runtime,
            ramp: self.load.ramp,
            io_limit: self.load.io_limit,
            verify,
            state: self.state.clone(),
            on_disconnect: on_disconnect(&self.on_disconnect)?,
            core: self.core_mask,
        })
    }
}

fn resolve(address: &str, port: u16) -> Result<SocketAddr, PerfError> {
    let mut found = (address, port)
        .to_socket_addrs()
        .map_err(|source| PerfError::Address {
            address: address.to_owned(),
            source,
        })?;
    found
        .next()
        .ok_or_else(|| PerfError::NoAddress(address.to_owned()))
}

fn on_disconnect(words: &[String]) -> Result<OnDisconnect, PerfError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let wrong = || PerfError::OnDisconnect(words.join(" "));
    match words[..] {
        ["stop"] => Ok(OnDisconnect::Stop),
        ["reconnect", time] => {
            let patience = seconds(time).map_err(|_| wrong())?;
            Ok(OnDisconnect::Reconnect(patience))
        }
        _ => Err(wrong()),
    }
}

fn core_of_mask(text: &str) -> Result<usize, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match u128::from_str_radix(digits, 16) {
        Ok(mask) if mask.is_power_of_two() => Ok(mask.trailing_zeros() as usize),
        Ok(_) => Err("one thread drives all queues: give a mask of one core".to_owned()),
        Err(_) => Err(format!("{text:?} is not a hexadecimal mask such as 0x2")),
    }
}

fn exit_code(report: &Report) -> ExitCode {
    let wrong = report.findings.as_ref().map_or(0, |f| f.fault_count());
    if wrong > 0 {
        ExitCode::from(WRONG)
    } else if report.ending == Ending::Disconnected {
        ExitCode::from(LOST)
    } else if report.tally.failed > 0 {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

/// What goes to stderr while the run goes on.
#[derive(Debug)]
struct Printer {
    progress: bool,
    line_open: bool,
    last: Progress,
    at: Instant,
    printed: u64,
    held_back: u64,
}

impl Printer {
    fn new(progress: bool) -> Self {
        Self {
            progress,
            line_open: false,
            last: Progress::default(),
            at: Instant::now(),
            printed: 0,
            held_back: 0,
        }
    }

    /// Prints what has happened.
    fn tell(&mut self, run: &mut Run) {
        for event in run.events() {
            let text = match event {
                Event::Fault(fault) => self.bounded(&fault),
                Event::Failed {
                    direction,
                    lba,
                    blocks,
                    error,
                } => {
                    let name = direction.name();
                    self.bounded(&format_args!(
                        "{name} of lba {lba}+{blocks} failed: {error}"
                    ))
                }
                Event::Disconnected(error) => Some(format!("the target is gone: {error}")),
                Event::Reconnected { after } => Some(format!(
                    "connected again after {:.1} s",
                    after.as_secs_f64()
                )),
                Event::GaveUp(error) => Some(format!("it did not come back: {error}")),
                Event::Checking if self.progress => {
                    Some("reading back what was written".to_owned())
                }
                Event::Checking => None,
            };
            if let Some(text) = text {
                self.line(&text);
            }
        }
    }

    fn bounded(&mut self, what: &dyn std::fmt::Display) -> Option<String> {
        if self.printed < MOST_PRINTED {
            self.printed += 1;
            Some(what.to_string())
        } else {
            self.held_back += 1;
            None
        }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        eprintln!("stripewise: {text}");
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.line_open) {
            eprint!("\r\x1b[K");
        }
    }

    /// Writes the progress line, once a second.
    fn progress(&mut self, progress: &Progress, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        if !self.progress || passed < Duration::from_secs(1) {
            return;
        }
        let per_second = |count: u64| count as f64 / passed.as_secs_f64();
        let since = |now: u64, before: u64| per_second(now.saturating_sub(before));
        let line = if progress.checking {
            let blocks = since(progress.verified, self.last.verified);
            format!("checking: {blocks:.0} blocks/s")
        } else {
            let ios = since(progress.ios, self.last.ios);
            let mib = since(progress.bytes, self.last.bytes) / f64::from(1 << 20);
            format!("{ios:.0} IOPS, {mib:.1} MiB/s")
        };
        eprint!(
            "\r\x1b[K{line}, {} failed, {} wrong",
            progress.failed, progress.wrong
        );
        self.line_open = true;
        self.last = *progress;
        self.at = now;
    }

    fn end(&mut self) {
        self.clear();
        if self.held_back > 0 {
            let text = format!("and {} failures and faults more", self.held_back);
            self.line(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadgen::workload::Pattern;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn job(line: &str) -> Result<Job, String> {
        let target = "perf --traddr 127.0.0.1 --subnqn nqn.2026-11.io.stripewise:demo ";
        let words: Vec<String> = format!("{target}{line}")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        cli.args.job().map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_make_a_job() {
        let job = job("").unwrap();
        assert_eq!(job.address.to_string(), "127.0.0.1:4420");
        assert_eq!((job.depth, job.controller.io_queues), (32, 1));
        assert_eq!(job.pattern, Pattern::RandRead);
        assert_eq!(job.request.min, Bytes(4096));
        assert_eq!(job.runtime, Duration::from_secs(10));
        assert_eq!(job.verify, Verify::Off);
        assert_eq!(job.on_disconnect, OnDisconnect::Stop);
    }

    #[test]
    fn options_are_understood() {
        let text = "--rw randrw --bsrange 4k-128k --iodepth 8 --queues 2 --runtime 0.5 --verify \
                    --state s --on-disconnect reconnect 30 -m 0x2 --size 1g --offset 64k";
        let job = job(text).unwrap();
        assert_eq!(job.pattern, Pattern::RandRw);
        assert_eq!(
            (job.request.min, job.request.max),
            (Bytes(4096), Bytes(131_072))
        );
        assert_eq!(job.runtime, Duration::from_millis(500));
        assert_eq!(job.verify, Verify::All);
        let patience = Duration::from_secs(30);
        assert_eq!(job.on_disconnect, OnDisconnect::Reconnect(patience));
        assert_eq!(job.core, Some(1));
        assert_eq!(job.size, Some(Bytes(1 << 30)));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, word) in [
            ("--rw random", "random"),
            ("--bs 4x", "4x"),
            ("--bs 4k --bsrange 4k-8k", "--bsrange"),
            ("--iodepth 0", "0"),
            ("--rwmixread 101", "101"),
            ("--runtime -1", "-1"),
            ("--runtime nan", "nan"),
            ("--on-disconnect reconnect", "reconnect"),
            ("--on-disconnect wait 3", "wait 3"),
            ("--core-mask 0x3", "one core"),
            ("--verify-only", "--state"),
            ("--state s", "--verify"),
            ("--no-final-check", "--verify"),
            ("--hostnqn host", "--hostnqn"),
            ("--nsid 0", "0"),
        ] {
            let error = job(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
