//! `stripewise perf` as a process, and what it found.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use super::plan::NQN;
use super::process::{Site, Target, signal, stripewise, wait_for, wait_for_exit};

/// Exit codes, as the program's help lists them.
pub const WELL: i32 = 0;
pub const IO_FAILED: i32 = 3;
pub const WRONG: i32 = 4;
pub const TARGET_GONE: i32 = 5;

/// Runs are told apart by number.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// A load generator at work. Dropped, it is killed.
#[derive(Debug)]
pub struct Load {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
    ended: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    /// The one result of its JSON.
    pub result: Value,
    /// What it wrote to stderr.
    pub errors: String,
}

impl Load {
    /// Starts a run with these words, separated by spaces, and a state file of this name if there
    /// is one.
    pub fn start(site: &Site, words: &str, state: Option<&str>) -> Self {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let output = site.scratch(&format!("load{number}.json"));
        let errors = site.scratch(&format!("load{number}.log"));
        let mut command = stripewise();
        command
            .args(["perf", "--json", "--quiet", "--subnqn", NQN])
            .args(["--traddr", &site.address().ip().to_string()])
            .args(["--trsvcid", &site.address().port().to_string()])
            .args(words.split_whitespace())
            .stdout(File::create(&output).expect("a file"))
            .stderr(File::create(&errors).expect("a file"))
            .stdin(Stdio::null());
        if let Some(state) = state {
            command.arg("--state").arg(site.scratch(state));
        }
        Self {
            child: command.spawn().expect("the program can be started"),
            output,
            errors,
            ended: false,
        }
    }

    /// Runs to the end.
    pub fn run(site: &Site, words: &str, state: Option<&str>) -> Outcome {
        Self::start(site, words, state).finish()
    }

    /// Waits until the target has done this many more requests for hosts than now.
    pub fn wait_for_progress(&mut self, target: &Target<'_>, requests: u64) {
        let before = target.stat("completed_nvme_io");
        wait_for("requests to be done", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.ended = true;
                panic!("the load has ended with {status}: {}", self.said());
            }
            (target.stat("completed_nvme_io") >= before + requests).then_some(())
        });
    }

    /// Asks it to end in good order, and waits for that. What was written is not read back.
    pub fn interrupt(self) -> Outcome {
        signal(&self.child, Signal::INT);
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Outcome {
        let status = wait_for_exit(&mut self.child, "the load");
        self.ended = true;
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        let mut json: Value = serde_json::from_str(&output).unwrap_or_default();
        Outcome {
            code: status.code(),
            result: json["results"][0].take(),
            errors: self.said(),
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !self.ended {
            // It can have ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
            if thread::panicking() {
                eprintln!("-- the load said:\n{}", self.said());
            }
        }
    }
}

impl Outcome {
    /// A number of the result, deeper with each key.
    pub fn number(&self, keys: &[&str]) -> u64 {
        let mut value = &self.result;
        for key in keys {
            value = &value[key];
        }
        let number = value.as_u64();
        number.unwrap_or_else(|| panic!("no number at {keys:?}: {self:?}"))
    }

    /// Blocks that hold something else than they must.
    pub fn wrong(&self) -> u64 {
        self.number(&["verify", "blocks_wrong"])
    }

    /// All went well, and blocks were verified.
    ///
    /// # Panics
    /// Where not.
    pub fn check(&self, what: &str) {
        let said = &self.errors;
        assert_eq!(self.code, Some(WELL), "{what}: {said}");
        assert_eq!(self.wrong(), 0, "{what}: {said}");
        assert_eq!(self.number(&["io_failed"]), 0, "{what}: {said}");
        let verified = self.number(&["verify", "blocks_verified"]);
        assert!(verified > 0, "{what}: nothing was verified: {said}");
    }
}

/// Reads back everything that the runs with this state file were acknowledged.
///
/// # Panics
/// Where something is wrong.
pub fn verify(site: &Site, state: &str, what: &str) -> Outcome {
    let outcome = Load::run(site, "--verify-only --bs 64k --iodepth 16", Some(state));
    outcome.check(what);
    outcome
}
