//! The program; see [`stripewise::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    stripewise::cli::main()
}
