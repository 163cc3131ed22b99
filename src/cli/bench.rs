//! `stripewise bench`: the engine on RAM members, in one process and without a network.

use std::io;
use std::process::ExitCode;

use clap::ValueEnum;

use super::load::{FAILED, LoadArgs, stop_on_signals};
use crate::bench::{BenchError, Load, Target, measure};
use crate::loadgen::quantity::Bytes;
use crate::md::NewPolicy;
use crate::raid::VolumeConfig;
use crate::reactor::{CoreMask, CoreMaskError};

/// Members are RAM, written once before anything is measured. Each core is polled, makes requests
/// and owns rows of the array. Sizes take the units k, m, g, t (powers of 1024).
///
/// Exit code: 0 all well, 1 the run could not be made, 2 wrong arguments, 3 I/O failed.
///
/// Examples:
///   stripewise bench --rw randwrite --bs 4k --iodepth 32 --members 4 --member-size 256m
///   stripewise bench --rw write --bs 192k --iodepth 16 --policy ppl --output json
///   stripewise bench --rw randread --missing 1
///   stripewise bench --rebuild --iodepth 0 --member-size 1g
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Requests outstanding on each core; 0 leaves a rebuild alone.
    #[arg(long, value_name = "N", default_value_t = 32)]
    iodepth: u16,

    /// Members of the array, 3 to 64.
    #[arg(long, value_name = "N", default_value_t = 4)]
    members: usize,
    /// Size of each.
    #[arg(long, value_name = "SIZE", default_value = "256m")]
    member_size: Bytes,
    /// Blocks of the members: 512 or 4k.
    #[arg(long, value_name = "SIZE", default_value = "512")]
    block_size: Bytes,
    /// Chunk of the array: a power of two from 4k to 1m.
    #[arg(long, value_name = "SIZE", default_value = "64k")]
    chunk: Bytes,
    /// What the members keep of the array: none, resync (superblocks), bitmap, ppl.
    #[arg(long, value_enum, default_value_t)]
    policy: PolicyName,
    /// The slot without a member, counted from 0.
    #[arg(long, value_name = "SLOT")]
    missing: Option<usize>,
    /// Have a member rebuilt meanwhile (that of slot 0, or of --missing), and end when it is.
    #[arg(long)]
    rebuild: bool,
    /// Bare members instead of the array, one for each core.
    #[arg(long, conflicts_with_all = ["members", "chunk", "policy", "missing", "rebuild"])]
    raw: bool,
    /// Microseconds that members take for a request at least.
    #[arg(long, value_name = "US", default_value_t = 0)]
    delay: u64,

    /// Cores: their number, or a mask or list such as 0x3 or [0,1].
    #[arg(long, value_name = "N | MASK", default_value = "1", value_parser = cores)]
    cores: Cores,
    /// How many of the cores make requests; the others only own rows. All unless given.
    #[arg(long, value_name = "N")]
    drivers: Option<usize>,
}

/// md's consistency policies, and none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum PolicyName {
    /// The members keep nothing.
    #[default]
    None,
    /// Superblocks: after a crash all parity is made anew.
    Resync,
    /// And a write-intent bitmap.
    Bitmap,
    /// And a partial parity log.
    Ppl,
}

/// Cores as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cores {
    /// The first ones that there are.
    Count(usize),
    /// These.
    Mask(CoreMask),
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size beyond all reason.
    #[error("--{option} {value}: {mend}")]
    Size {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: Bytes,
        /// What could be.
        mend: &'static str,
    },
    /// Signals can't be caught.
    #[error("signals can't be caught: {0}")]
    Signals(io::Error),
    /// The run could not be made.
    #[error(transparent)]
    Bench(#[from] BenchError),
}

impl Args {
    /// Runs, and prints the result. The exit code says how it went.
    ///
    /// # Errors
    /// [`Error`] where there is no result.
    pub fn run(self) -> Result<ExitCode, Error> {
        let load = self.load()?;
        let stop = stop_on_signals().map_err(Error::Signals)?;
        let outcome = measure(&load, &stop)?;
        self.load
            .print(|| outcome.table(&load), || outcome.json(&load));
        Ok(match outcome.tally.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(FAILED),
        })
    }

    fn load(&self) -> Result<Load, Error> {
        let small = |option, value: Bytes, mend| {
            u32::try_from(value.0).map_err(|_| Error::Size {
                option,
                value,
                mend,
            })
        };
        let chunk = small("chunk", self.chunk, "use a power of two from 4k to 1m")?;
        let block_bytes = match self.block_size.0 {
            512 => 512,
            4096 => 4096,
            _ => {
                let (option, value) = ("block-size", self.block_size);
                let mend = "members have blocks of 512 bytes or 4k";
                return Err(Error::Size {
                    option,
                    value,
                    mend,
                });
            }
        };
        let cores = match &self.cores {
            Cores::Count(count) => Load::first_cores(*count)?,
            Cores::Mask(mask) => mask.clone(),
        };
        let target = Target {
            members: self.members,
            member_bytes: self.member_size.0,
            block_bytes,
            policy: match self.policy {
                PolicyName::None => None,
                PolicyName::Resync => Some(NewPolicy::Resync),
                PolicyName::Bitmap => Some(NewPolicy::Bitmap { chunk_bytes: None }),
                PolicyName::Ppl => Some(NewPolicy::Ppl),
            },
            missing: self.missing,
            raw: self.raw,
            delay_us: self.delay,
            ..Target::new(VolumeConfig::new("bench", chunk))
        };
        Ok(Load {
            drivers: self.drivers.unwrap_or(cores.count()),
            pattern: self.load.rw,
            read_percent: self.load.rwmixread,
            distribution: self.load.random,
            seed: self.load.seed,
            request: self.load.bs,
            depth: u32::from(self.iodepth),
            rate: self.load.rate,
            ramp: self.load.ramp,
            runtime: self.load.runtime,
            io_limit: self.load.io_limit,
            rebuild: self.rebuild,
            ..Load::new(target, cores)
        })
    }
}

/// Digits are a number of cores, all else is a mask.
fn cores(text: &str) -> Result<Cores, CoreMaskError> {
    match text.parse() {
        Ok(count) => Ok(Cores::Count(count)),
        Err(_) => text.parse().map(Cores::Mask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn load(line: &str) -> Result<Load, String> {
        let words = format!("bench {line}");
        let cli = Cli::try_parse_from(words.split_whitespace()).map_err(|e| e.to_string())?;
        cli.args.load().map_err(|e| e.to_string())
    }

    #[test]
    fn options_are_understood() {
        let text = "--rw randrw --rwmixread 40 --bs 8k --iodepth 7 --members 5 --member-size 64m \
                    --chunk 128k --policy ppl --missing 2 --time 0.5 --random zipf:1.1 --cores 0x1";
        let load = load(text).unwrap();
        assert_eq!((load.request, load.depth), (Bytes(8192), 7));
        assert_eq!(load.target.members, 5);
        assert_eq!(load.target.member_bytes, 64 << 20);
        assert_eq!(load.target.config.chunk_bytes, 128 << 10);
        assert_eq!(load.target.policy, Some(NewPolicy::Ppl));
        assert_eq!(load.target.missing, Some(2));
        assert_eq!(load.runtime, Duration::from_millis(500));
        assert_eq!(load.distribution.to_string(), "zipf:1.1");
        assert_eq!((load.cores.to_string(), load.drivers), ("0x1".into(), 1));
        assert_eq!(load.read_percent, 40);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, word) in [
            ("--policy journal", "journal"),
            ("--block-size 1k", "512 bytes or 4k"),
            ("--chunk 8g", "--chunk 8g"),
            ("--raw --missing 1", "--missing"),
            ("--cores 0", "names no core"),
            ("--cores [0", "[0"),
            ("--random zipf", "zipf:1.1"),
            ("--members x", "--members"),
            ("--output xml", "xml"),
            ("--output json --json", "--json"),
            ("--rate 0", "--rate"),
        ] {
            let error = load(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
