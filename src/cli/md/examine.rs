//! `stripewise md examine`: what files and block devices hold, without any serving process.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::MdError;
use crate::md::{FileDisk, Member};

#[derive(Debug, clap::Args)]
pub struct Examine {
    /// Files or block devices.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Show the write-intent bitmap instead.
    #[arg(short = 'X', long)]
    bitmap: bool,
    /// Answer in JSON, by file.
    #[arg(long)]
    json: bool,
}

impl Examine {
    /// Shows all of them; the first that holds nothing is the error.
    pub fn run(self) -> Result<(), MdError> {
        let mut first = Ok(());
        let mut all = Map::new();
        let mut out = io::stdout().lock();
        for path in &self.files {
            let name = path.display().to_string();
            let text = match read(path) {
                Ok(member) if self.json => {
                    all.insert(name, member.to_json());
                    continue;
                }
                Ok(member) if self.bitmap => match member.examine_bitmap(&name) {
                    Some(text) => text,
                    None => format!("{name}: its array has no bitmap\n"),
                },
                Ok(member) => member.examine(&name),
                Err(error) => {
                    first = first.and(Err(error));
                    continue;
                }
            };
            // A reader that has left is no failure.
            let _ = out.write_all(text.as_bytes());
        }
        if self.json {
            let _ = writeln!(out, "{:#}", Value::Object(all));
        }
        first
    }
}

fn read(path: &Path) -> Result<Member, MdError> {
    let mut disk = FileDisk::open(path, false).map_err(|source| MdError::Open {
        path: path.to_owned(),
        source,
    })?;
    Member::read(&mut disk).map_err(|source| MdError::Member {
        path: path.to_owned(),
        source,
    })
}
