//! Methods that tell the configuration: the calls that make a new process what this one is.
//!
//! It is told from what there is, not from the calls that were made, so that what has changed by
//! itself is in it too. SPDK's `save_config` puts the parts together on the side of the client.

mod bdev;
mod keyring;
mod nvmf;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "framework_get_subsystems",
        aliases: &["get_subsystems"],
        when: When::Runtime,
        params: &[],
        help: "Lists the parts that have a configuration, those first that others need",
        run: framework_get_subsystems,
    },
    Method {
        name: "framework_get_config",
        aliases: &["get_subsystem_config"],
        when: When::Runtime,
        params: &["name", "with_batches?"],
        help: "Tells the calls that make a part of a new process what this one is",
        run: framework_get_config,
    },
];

/// A part that has a configuration.
struct Part {
    name: &'static str,
    depends_on: &'static [&'static str],
    calls: fn(&System) -> Vec<Call>,
}

/// Those that others need come first.
const PARTS: &[Part] = &[
    Part {
        name: "keyring",
        depends_on: &[],
        calls: keyring::calls,
    },
    Part {
        name: "bdev",
        depends_on: &[],
        calls: bdev::calls,
    },
    Part {
        name: "nvmf",
        depends_on: &["bdev", "keyring"],
        calls: nvmf::calls,
    },
];

/// A call of a configuration.
struct Call {
    method: &'static str,
    /// Left out where there are none.
    params: Option<Value>,
}

impl Call {
    fn new(method: &'static str, params: Value) -> Self {
        Self {
            method,
            params: Some(params),
        }
    }

    fn show(self) -> Value {
        let mut object = Map::new();
        object.insert("method".into(), self.method.into());
        if let Some(params) = self.params {
            object.insert("params".into(), params);
        }
        object.into()
    }
}

fn framework_get_subsystems(_: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let shown = PARTS.iter().map(|part| {
        json!({
            "subsystem": part.name,
            "depends_on": part.depends_on,
        })
    });
    Ok(shown.collect::<Vec<_>>().into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetConfig {
    name: String,
    // None of ours are in batches.
    #[serde(rename = "with_batches")]
    _with_batches: Option<bool>,
}

fn framework_get_config(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetConfig = params.read()?;
    let part = PARTS.iter().find(|part| part.name == p.name);
    let part = part.ok_or_else(|| {
        let all: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        RpcError::invalid_params(format!(
            "name: Subsystem '{}' not found; use one of {}",
            p.name,
            all.join(", ")
        ))
    })?;
    let calls = (part.calls)(system).into_iter().map(Call::show);
    Ok(calls.collect::<Vec<_>>().into())
}
