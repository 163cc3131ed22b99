//! Waiting until an array is at rest, with a line that shows how far it is.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{MdError, detail};
use crate::cli::client::Client;
use crate::cli::progress::Progress;

/// How often the array is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until nothing is rebuilt, resynced or checked, and gives the array as it is then. What is
/// put off is not waited for.
///
/// # Errors
/// [`MdError`], among them that the array is gone.
pub fn wait(client: &Client, name: &str) -> Result<Value, MdError> {
    let shown = io::stderr().is_terminal();
    let mut progress: Option<Progress> = None;
    loop {
        let array = detail::one(client, name)?;
        let process = &array["process"];
        if process.is_null() {
            if progress.is_some() && shown {
                let _ = writeln!(io::stderr());
            }
            return Ok(array);
        }
        let kind = process["type"].as_str().unwrap_or_default();
        let blocks = process["progress"]["blocks"].as_u64().unwrap_or(0);
        let percent = process["progress"]["percent"].as_u64().unwrap_or(0);
        let now = Instant::now();
        match &mut progress {
            Some(progress) if progress.is_of(kind) => progress.advance(blocks, percent, now),
            _ => progress = Some(Progress::begin(kind, blocks, percent, now)),
        }
        if let (true, Some(progress)) = (shown, &progress) {
            // A terminal that is gone is no failure.
            let _ = write!(io::stderr(), "\r{}", progress.line(40));
            let _ = io::stderr().flush();
        }
        thread::sleep(INTERVAL);
    }
}
