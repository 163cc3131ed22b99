//! Files as members, and systems that come and go over them: what outlives a process.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control::System;
use crate::rpc::Outcome;
use crate::rpc::testing::{call_and_wait, call_now, end, system_with_reactor};

/// Nothing takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a file.
pub const BYTES: u64 = 8 << 20;

/// Where the files are, and the process that uses them now.
pub struct Site {
    dir: TempDir,
    system: Option<System>,
}

impl Site {
    /// These files, all zeros, none of them a device yet, and a process.
    pub fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Self { dir, system: None };
        for name in files {
            let file = File::create(site.path(name)).unwrap();
            file.set_len(BYTES).unwrap();
        }
        site.boot();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn system(&mut self) -> &mut System {
        self.system.as_mut().expect("a process")
    }

    fn boot(&mut self) {
        self.system = Some(system_with_reactor());
        // Tests that wait for it say so.
        self.call(
            "bdev_raid_set_options",
            json!({"degraded_start_wait_sec": 3600}),
        )
        .unwrap();
    }

    /// Ends the process in good order.
    pub fn stop(&mut self) {
        end(self.system.take().expect("a process"));
    }

    /// Ends the process in good order and starts another.
    pub fn restart(&mut self) {
        self.stop();
        self.boot();
    }

    /// Makes a call and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Outcome {
        call_and_wait(self.system(), method, params)
    }

    /// Makes a call that must fail, and gives its code and what it says.
    pub fn refused(&mut self, method: &str, params: Value) -> (i32, String) {
        let error = self.call(method, params.clone());
        let error = error.expect_err(&format!("{method} {params}"));
        (error.code, error.message)
    }

    /// Makes devices of files, under their names.
    pub fn open(&mut self, names: &[&str]) {
        for name in names {
            let path = self.path(name);
            let params = json!({"name": name, "filename": path, "block_size": 512});
            self.call("bdev_uring_create", params).unwrap();
        }
    }

    pub fn close(&mut self, name: &str) {
        self.call("bdev_uring_delete", json!({"name": name}))
            .unwrap();
    }

    /// Makes the array `r` of `a`, `b`, `c` and `d`.
    pub fn create(&mut self, more: Value) -> Outcome {
        let mut params = json!({
            "name": "r", "strip_size_kb": 64, "raid_level": "raid5", "superblock": true,
            "base_bdevs": ["a", "b", "c", "d"],
        });
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        self.call("bdev_raid_create", params)
    }

    /// The array as it is shown; null if there is none.
    pub fn array(&mut self, name: &str) -> Value {
        let params = json!({"category": "all"});
        let all = call_now(self.system(), "bdev_raid_get_bdevs", params).unwrap();
        let all = all.as_array().unwrap();
        let found = all.iter().find(|a| a["name"] == name);
        found.cloned().unwrap_or_default()
    }

    /// The names of its members.
    pub fn members(&mut self, name: &str) -> Vec<Value> {
        let array = self.array(name);
        let slots = array["base_bdevs_list"].as_array().unwrap();
        slots.iter().map(|s| s["name"].clone()).collect()
    }

    /// What a device holds.
    pub fn examine(&mut self, device: &str) -> Value {
        self.call("bdev_raid_examine", json!({"name": device}))
            .unwrap()
    }

    /// Turns the control thread until the array is as wanted.
    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            self.system().poll(Instant::now());
            let array = self.array("r");
            if is_so(&array) {
                return array;
            }
            assert!(Instant::now() < until, "waited in vain for {what}: {array}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the process in good order while a process of this kind is under way, and starts another.
    pub fn stop_during(&mut self, kind: &str) {
        self.wait_for(kind, |a| a["process"]["type"] == kind);
        self.restart();
    }

    /// Waits until nothing is rebuilt or resynced any more.
    pub fn settle(&mut self) -> Value {
        self.wait_for("all to be in sync", |array| {
            let whole = array["base_bdevs_list"]
                .as_array()
                .is_some_and(|slots| slots.iter().all(|s| s["is_configured"] == true));
            whole && array["process"].is_null() && array["md"]["in_sync"] == true
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(system) = self.system.take()
            && !std::thread::panicking()
        {
            end(system);
        }
    }
}
