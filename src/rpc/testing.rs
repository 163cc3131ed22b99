//! What the tests of the methods share.

use serde_json::Value;

use super::methods::{Answer, call};
use super::{Outcome, RpcError};
use crate::control::{LogLevel, LogSwitch, System};
use crate::memory::Arena;
use crate::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

/// A system without reactors whose start is not complete.
pub fn starting() -> System {
    let arena = Arena::ordinary(1 << 20).unwrap();
    System::new(None, arena, LogSwitch::new(LogLevel::Warning, |_| {}))
}

/// A system without reactors.
pub fn system() -> System {
    let mut system = starting();
    system.finish_startup();
    system
}

/// A system with one reactor, on which nobody does anything.
pub fn system_with_reactor() -> System {
    #[derive(Debug)]
    struct Nobody;
    impl Poller for Nobody {
        fn poll(&mut self, _: &Turn<'_>) -> Progress {
            Progress::Idle
        }
    }
    let core = CoreMask::available().unwrap().cores().next().unwrap();
    let mask = CoreMask::of([core]).unwrap();
    let reactors = Reactors::spawn(&mask, IdlePolicy::default(), |_| || Nobody).unwrap();
    let arena = Arena::ordinary(64 << 20).unwrap();
    let log = LogSwitch::new(LogLevel::Warning, |_| {});
    let mut system = System::new(Some(reactors), arena, log);
    system.finish_startup();
    system
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

/// The keys of an object, in the order in which they are told.
pub fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}
