//! The command line.

#![forbid(unsafe_code)]

mod answers;
mod banner;
mod bench;
mod client;
mod exporter;
mod generate;
mod load;
mod log;
mod md;
mod perf;
mod progress;
mod rpc;
mod serve;
mod top;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

/// A polled-mode RAID5 storage target, exported over NVMe/TCP.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log more: -v what is done, -vv everything. RUST_LOG, where set, says it instead.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what a configuration file describes.
    Serve(serve::Args),
    /// Call a method of a serving process.
    Rpc(rpc::Args),
    /// Look at arrays and keep them whole, in the words of mdadm.
    Md(md::Args),
    /// Tell Prometheus what a serving process counts.
    Exporter(exporter::Args),
    /// Watch what a serving process does.
    Top(top::Args),
    /// Write manual pages and completions of shells.
    Generate(generate::Args),
    /// Load an NVMe/TCP target and measure it, or verify what it keeps.
    Perf(Box<perf::Args>),
    /// Measure the engine on RAM members, without a network.
    Bench(Box<bench::Args>),
}

/// Does what the arguments of the process say. The code is 2 where they are wrong, 1 where what
/// they ask for failed.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = log::start(cli.verbose);
    let success = |()| ExitCode::SUCCESS;
    let done = match cli.command {
        Command::Serve(args) => args.run(log).map(success).map_err(|e| e.to_string()),
        Command::Rpc(args) => args.run().map(success).map_err(|e| e.to_string()),
        Command::Md(args) => args.run().map(success).map_err(|e| e.to_string()),
        Command::Exporter(args) => args.run().map(success).map_err(|e| e.to_string()),
        Command::Top(args) => args.run().map(success).map_err(|e| e.to_string()),
        Command::Generate(args) => args.run().map(success).map_err(|e| e.to_string()),
        Command::Perf(args) => args.run().map_err(|e| e.to_string()),
        Command::Bench(args) => args.run().map_err(|e| e.to_string()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stripewise: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
