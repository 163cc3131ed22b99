//! What the tests of the methods share.

use serde_json::Value;

use super::methods::{Answer, call};
use super::{Outcome, RpcError};
use crate::control::{LogLevel, LogSwitch, System};

/// A system without reactors whose start is complete.
pub fn system() -> System {
    let mut system = System::new(None, LogSwitch::new(LogLevel::Warning, |_| {}));
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
