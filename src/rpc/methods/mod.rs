//! The methods: what each is called, when it may be called, what it takes and what it does.
//!
//! One table a family. Whatever lists or describes methods reads the tables.

mod ana;
#[cfg(test)]
mod bad_inputs;
mod bdev;
mod changing;
mod config;
mod core;
mod discovery;
mod event_log;
mod files;
mod histogram;
mod hosts;
mod keyring;
mod limits;
mod listen;
mod members;
mod notify;
mod nvme;
mod nvmf;
mod raid;
mod reactors;
mod target;
mod transport;
mod visibility;

use std::fmt::Debug;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Outcome, RpcError};
use crate::control::{Phase, System};

/// A method.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Older names that still work.
    pub aliases: &'static [&'static str],
    /// When it may be called.
    pub when: When,
    /// Its parameters by name; those that may be left out end in `?`.
    pub params: &'static [&'static str],
    /// What it does, in one sentence.
    pub help: &'static str,
    /// Does it.
    pub run: fn(&mut System, Params) -> Result<Answer, RpcError>,
}

/// When a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the start is complete.
    Startup,
    /// After it.
    Runtime,
    /// Before and after.
    Always,
}

impl When {
    /// Whether the method may be called in this phase.
    pub fn includes(self, phase: Phase) -> bool {
        match self {
            When::Always => true,
            When::Startup => phase == Phase::Startup,
            When::Runtime => phase == Phase::Runtime,
        }
    }
}

/// What a method answers, unless it fails at once.
#[derive(Debug)]
pub enum Answer {
    /// The result.
    Now(Value),
    /// It is under way.
    Later(Box<dyn Pending>),
}

impl<T: Into<Value>> From<T> for Answer {
    fn from(value: T) -> Self {
        Answer::Now(value.into())
    }
}

/// A call that is under way. The control thread asks in each of its turns.
pub trait Pending: Debug {
    /// The outcome, once there is one.
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome>;

    /// When to ask next even if nothing happens. There always is such a time: no call waits for
    /// ever.
    fn deadline(&self) -> Instant;
}

/// Methods of one kind.
#[derive(Debug)]
pub struct Family {
    /// What they are about.
    pub title: &'static str,
    /// The methods.
    pub methods: &'static [Method],
}

/// The families, in the order in which they are told.
pub const FAMILIES: &[Family] = &[
    family("The process", core::METHODS),
    family("Reactors", reactors::METHODS),
    family("Notifications", notify::METHODS),
    family("Keys", keyring::METHODS),
    family("Configuration", config::METHODS),
    family("Devices", bdev::METHODS),
    family("Latency histograms", histogram::METHODS),
    family("Limits", limits::METHODS),
    family("Members", members::METHODS),
    family("Files", files::METHODS),
    family("NVMe controllers as members", nvme::METHODS),
    family("RAID volumes", raid::METHODS),
    family("The NVMe-oF target", target::METHODS),
    family("Transports", transport::METHODS),
    family("Subsystems and namespaces", nvmf::METHODS),
    family("Listeners", listen::METHODS),
    family("Access to groups of namespaces (ANA)", ana::METHODS),
    family("Namespaces that some hosts see", visibility::METHODS),
    family("Hosts", hosts::METHODS),
    family("Discovery", discovery::METHODS),
    family("Event logs", event_log::METHODS),
];

const fn family(title: &'static str, methods: &'static [Method]) -> Family {
    Family { title, methods }
}

/// Every method, family by family.
pub fn all() -> impl Iterator<Item = &'static Method> {
    FAMILIES.iter().flat_map(|family| family.methods)
}

/// The method of this name, be it an alias.
pub fn find(name: &str) -> Option<&'static Method> {
    all().find(|m| m.name == name || m.aliases.contains(&name))
}

/// The method of this name.
///
/// # Errors
/// [`RpcError::METHOD_NOT_FOUND`].
pub fn lookup(name: &str) -> Result<&'static Method, RpcError> {
    find(name).ok_or_else(|| RpcError::new(RpcError::METHOD_NOT_FOUND, "Method not found"))
}

/// Calls a method.
///
/// # Errors
/// [`RpcError::METHOD_NOT_FOUND`], [`RpcError::WRONG_STATE`], or what the method says.
pub fn call(system: &mut System, name: &str, params: Option<Value>) -> Result<Answer, RpcError> {
    let method = lookup(name)?;
    if !method.when.includes(system.phase()) {
        let reason = match method.when {
            When::Startup => "only before the start is complete (serve --wait-for-rpc)",
            _ => "only after framework_start_init has completed the start",
        };
        let message = format!("{} may be called {reason}", method.name);
        return Err(RpcError::new(RpcError::WRONG_STATE, message));
    }
    (method.run)(system, Params { method, params })
}

/// The parameters of a call, not read yet.
#[derive(Debug)]
pub struct Params {
    method: &'static Method,
    params: Option<Value>,
}

impl Params {
    /// Reads the parameters into the method's own structure, which says what is unknown, missing
    /// or of the wrong type.
    ///
    /// # Errors
    /// [`RpcError::INVALID_PARAMS`], naming the method, the parameter, what was expected, and what
    /// there is to choose from.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, RpcError> {
        let value = self.params.unwrap_or_else(|| Map::new().into());
        if value.is_array() {
            return Err(self.method.invalid("give the parameters by name"));
        }
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let reason = error.into_inner().to_string();
            if path == "." || reason.contains(&format!("`{path}`")) {
                self.method.invalid(&reason)
            } else {
                self.method.invalid(&format!("{path}: {reason}"))
            }
        })
    }

    /// For methods that take none.
    ///
    /// # Errors
    /// As [`Params::read`].
    pub fn none(self) -> Result<(), RpcError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.read::<Nothing>().map(|_| ())
    }
}

impl Method {
    /// The error for parameters that cannot be taken.
    fn invalid(&self, reason: &str) -> RpcError {
        RpcError::invalid_params(format!("{}: {reason}; {}", self.name, self.usage()))
    }

    /// Which parameters it takes, as a clause.
    pub fn usage(&self) -> String {
        let (optional, required): (Vec<&str>, Vec<&str>) =
            self.params.iter().partition(|p| p.ends_with('?'));
        let optional: Vec<&str> = optional.iter().map(|p| p.trim_end_matches('?')).collect();
        match (required.is_empty(), optional.is_empty()) {
            (true, true) => "it takes no parameters".into(),
            (false, true) => format!("it takes {}", required.join(", ")),
            (true, false) => format!("it may take {}", optional.join(", ")),
            (false, false) => format!(
                "it takes {} and may take {}",
                required.join(", "),
                optional.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rpc::testing::{call_now, system};
    use serde_json::json;

    #[test]
    fn every_name_is_there_once_and_found() {
        let mut names = BTreeSet::new();
        for method in all() {
            for name in method.aliases.iter().chain([&method.name]) {
                assert!(names.insert(*name), "{name} twice");
                assert_eq!(find(name).unwrap().name, method.name);
                assert!(
                    name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
                    "{name}"
                );
            }
            assert!(
                !method.help.is_empty() && !method.help.ends_with('.'),
                "{}",
                method.name
            );
        }
        assert!(find("no_such_method").is_none());
    }

    /// The parameters that the tables tell are those that the methods read.
    #[test]
    fn the_tables_tell_the_parameters_that_are_taken() {
        for method in all() {
            let mut system = system();
            let unknown = json!({"no_such_parameter": 1});
            let params = Params {
                method,
                params: Some(unknown),
            };
            let error = (method.run)(&mut system, params).unwrap_err();
            assert_eq!(error.code, RpcError::INVALID_PARAMS, "{}", method.name);
            assert!(
                error.message.contains("unknown field `no_such_parameter`"),
                "{}",
                error.message
            );
            let clause = error.message.split(';').next().unwrap();
            let told: BTreeSet<&str> = clause.split('`').skip(3).step_by(2).collect();
            let table = method.params.iter().map(|p| p.trim_end_matches('?'));
            assert_eq!(told, table.collect(), "{}", error.message);
        }
    }

    #[test]
    fn bad_parameters_are_named_with_what_was_expected() {
        let system = &mut system();
        for (method, params, names) in [
            ("log_set_print_level", json!({}), "missing field `level`"),
            (
                "log_set_print_level",
                json!({"level": 3}),
                "level: invalid type: integer `3`, expected a string",
            ),
            (
                "log_set_print_level",
                json!({"level": "loud"}),
                "level: \"loud\" is no log level",
            ),
            (
                "log_set_print_level",
                json!({"level": "INFO", "x": 1}),
                "unknown field `x`, expected `level`",
            ),
            ("log_set_print_level", json!(["INFO"]), "by name"),
            (
                "spdk_get_version",
                json!({"x": 1}),
                "it takes no parameters",
            ),
            (
                "rpc_get_methods",
                json!({"current": "yes"}),
                "current: invalid type",
            ),
        ] {
            let error = call_now(system, method, params).unwrap_err();
            assert_eq!(error.code, -32602, "{method}");
            assert!(error.message.contains(names), "{}", error.message);
        }
    }

    #[test]
    fn unknown_methods_and_wrong_phases_have_their_codes() {
        let system = &mut system();
        let error = call_now(system, "no_such_method", Value::Null).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (-32601, "Method not found")
        );
        let error = call_now(system, "framework_start_init", Value::Null).unwrap_err();
        assert_eq!(error.code, -1);
        assert!(
            error.message.contains("--wait-for-rpc"),
            "{}",
            error.message
        );
    }

    #[test]
    fn methods_are_listed_by_phase_and_with_aliases() {
        let system = &mut system();
        let mut names = |params| -> BTreeSet<String> {
            let listed = call_now(system, "rpc_get_methods", params).unwrap();
            serde_json::from_value(listed).unwrap()
        };
        let all_names = names(Value::Null);
        assert_eq!(all_names, all().map(|m| m.name.to_owned()).collect());
        let now = names(json!({"current": true}));
        assert!(now.contains("spdk_get_version") && !now.contains("framework_start_init"));
        assert!(!all_names.contains("get_spdk_version"));
        assert!(names(json!({"include_aliases": true})).contains("get_spdk_version"));
    }
}
