//! What the tests of the methods share.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::methods::{Answer, call};
use super::{Outcome, RpcError};
use crate::control::{LogLevel, LogSwitch, Machine, System};
use crate::memory::Arena;
use crate::reactor::{CoreMask, Events, IdlePolicy};

/// A system without reactors whose start is not complete.
pub fn starting() -> System {
    let arena = Arena::ordinary(1 << 20).unwrap();
    let machine = Machine::without_reactors();
    System::new(machine, arena, LogSwitch::new(LogLevel::Warning, |_| {}))
}

/// A system without reactors.
pub fn system() -> System {
    let mut system = starting();
    system.finish_startup();
    system
}

/// A system with one reactor. To be given to [`end`] when the test is over.
pub fn system_with_reactor() -> System {
    let core = CoreMask::available().unwrap().cores().next().unwrap();
    let mask = CoreMask::of([core]).unwrap();
    let arena = Arena::ordinary(128 << 20).unwrap();
    let waker = Events::new().unwrap().waker();
    let machine = Machine::start(&mask, IdlePolicy::default(), &arena, waker).unwrap();
    let log = LogSwitch::new(LogLevel::Warning, |_| {});
    let mut system = System::new(machine, arena, log);
    system.finish_startup();
    system
}

/// Ends the reactors of a system.
pub fn end(system: System) {
    assert!(system.stop(Duration::from_secs(20)));
}

/// Calls a method and waits for its answer.
pub fn call_and_wait(system: &mut System, method: &str, params: Value) -> Outcome {
    let params = (!params.is_null()).then_some(params);
    let mut pending = match call(system, method, params)? {
        Answer::Now(value) => return Ok(value),
        Answer::Later(pending) => pending,
    };
    loop {
        let now = Instant::now();
        system.poll(now);
        if let Some(outcome) = pending.poll(system, now) {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Calls a method that answers at once.
pub fn call_now(system: &mut System, method: &str, params: Value) -> Outcome {
    let params = (!params.is_null()).then_some(params);
    match call(system, method, params)? {
        Answer::Now(value) => Ok(value),
        Answer::Later(pending) => Err(RpcError::new(
            0,
            format!("{method} answers later: {pending:?}"),
        )),
    }
}

/// Makes the file of a key, which nobody else may read.
pub fn key_file(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let key = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
    fs::write(&path, key).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// The keys of an object, in the order in which they are told.
pub fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}
