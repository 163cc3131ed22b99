//! `stripewise generate`: what a package installs beside the program.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;

use super::Cli;
use super::rpc::reference;

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Completions for a shell, to standard output.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// The reference of RPC methods, docs/rpc.md, to standard output.
    Rpc,
    /// Manual pages, one a file.
    Man {
        /// The folder to write them to.
        folder: PathBuf,
    },
}

/// Something could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be written: {source}")]
pub struct GenerateError {
    /// What.
    path: String,
    /// What the operating system said.
    source: io::Error,
}

impl Args {
    /// Writes what is asked for.
    ///
    /// # Errors
    /// [`GenerateError`].
    pub fn run(self) -> Result<(), GenerateError> {
        let mut command = Cli::command();
        match self.what {
            What::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut command, "stripewise", &mut text);
                print(&text)
            }
            What::Rpc => print(reference().as_bytes()),
            What::Man { folder } => {
                let failed = |source| GenerateError {
                    path: folder.display().to_string(),
                    source,
                };
                fs::create_dir_all(&folder).map_err(failed)?;
                clap_mangen::generate_to(command, &folder).map_err(failed)
            }
        }
    }
}

fn print(text: &[u8]) -> Result<(), GenerateError> {
    let written = io::stdout().write_all(text);
    written.map_err(|source| GenerateError {
        path: "standard output".to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("man");
        let what = What::Man {
            folder: folder.clone(),
        };
        Args { what }.run().unwrap();
        for page in [
            "stripewise.1",
            "stripewise-serve.1",
            "stripewise-rpc.1",
            "stripewise-md.1",
            "stripewise-md-create.1",
        ] {
            let text = fs::read_to_string(folder.join(page)).expect(page);
            assert!(text.contains(".SH NAME"), "{page}");
        }
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let what = What::Man { folder: file };
        let error = Args { what }.run().unwrap_err().to_string();
        assert!(error.contains("file: cannot be written"), "{error}");
    }
}
