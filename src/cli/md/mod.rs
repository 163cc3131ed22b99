//! `stripewise md`: arrays in the words of mdadm.

mod action;
mod change;
mod create;
mod detail;
mod device;
mod error;
mod examine;
mod watch;
mod zero;

use clap::Subcommand;

pub use error::MdError;

use self::action::{Assemble, Fail, Remove, Replace, Stop};
use self::change::{Add, Check};
use super::client::Client;

/// Look at arrays and keep them whole, in the words of mdadm.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what files or block devices hold of an array. Needs no serving process.
    Examine(examine::Examine),
    /// Remove the superblock of files or block devices that nobody uses: they belong to no array then.
    /// Needs no serving process.
    ZeroSuperblock(zero::ZeroSuperblock),
    /// Tell how arrays are.
    Detail(detail::Detail),
    /// Make an array of devices, and start it.
    Create(create::Create),
    /// Start an array of what is there of it.
    Assemble(Assemble),
    /// Stop an array; its members keep what they hold.
    Stop(Stop),
    /// Add a device: in place of a lost member, or else as a spare.
    Add(Add),
    /// Take a member out, as if it had failed.
    Fail(Fail),
    /// Let go of a spare.
    Remove(Remove),
    /// Put a device into the place of a member that still works.
    Replace(Replace),
    /// Compare the parity of an array with its data.
    Check(Check),
    /// Compare the parity of an array with its data, and make it match.
    Repair(Check),
}

/// Whom to ask, and how to answer.
#[derive(Debug, clap::Args)]
struct Asking {
    #[command(flatten)]
    client: Client,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does what is asked for.
    ///
    /// # Errors
    /// [`MdError`].
    pub fn run(self) -> Result<(), MdError> {
        match self.command {
            Command::Examine(examine) => examine.run(),
            Command::ZeroSuperblock(zero) => zero.run(),
            Command::Detail(detail) => detail.run(),
            Command::Create(create) => create.run(),
            Command::Assemble(assemble) => assemble.run(),
            Command::Stop(stop) => stop.run(),
            Command::Add(add) => add.run(),
            Command::Fail(fail) => fail.run(),
            Command::Remove(remove) => remove.run(),
            Command::Replace(replace) => replace.run(),
            Command::Check(check) => check.run("check"),
            Command::Repair(repair) => repair.run("repair"),
        }
    }
}
