//! Saving and loading configurations, which SPDK's clients do too: the process tells and takes the
//! calls, one part at a time.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use super::RpcCallError;
use crate::cli::client::Client;
use crate::serve::Config;

/// The commands, with their parameters and what they do.
pub(super) const COMMANDS: &[(&str, &[&str], &str)] = &[
    (
        "save_config",
        &[],
        "Tells the configuration as a file for serve -c and load_config",
    ),
    (
        "save_subsystem_config",
        &["name"],
        "Tells one part of the configuration",
    ),
    (
        "load_config",
        &["filename?"],
        "Makes the calls of a configuration, from standard input if no file is given",
    ),
    (
        "load_subsystem_config",
        &["filename?"],
        "Makes the calls of one part of a configuration",
    ),
];

/// Does the command of this name, if it is one of them. Answers what is to be printed.
pub(super) fn run(
    client: &Client,
    command: &str,
    params: Option<&Value>,
) -> Option<Result<Value, RpcCallError>> {
    let (_, known, _) = COMMANDS.iter().find(|(name, ..)| *name == command)?;
    Some(check(command, known, params).and_then(|()| match command {
        "save_config" => save(client),
        "save_subsystem_config" => {
            let name = text(params, "name").ok_or_else(|| missing(command, "name"))?;
            part(client, &name)
        }
        "load_config" => load(client, &read(params)?),
        _ => load_part(client, &read(params)?),
    }))
}

/// That nothing is given that the command does not know.
fn check(command: &str, known: &[&str], params: Option<&Value>) -> Result<(), RpcCallError> {
    let given = params.and_then(Value::as_object).into_iter().flatten();
    let is_known = |key: &str| known.iter().any(|k| k.trim_end_matches('?') == key);
    for (key, _) in given {
        if !is_known(key) {
            let all = known.join(", ");
            let all = if all.is_empty() {
                "no parameters"
            } else {
                &all
            };
            return Err(RpcCallError::Params(format!(
                "{command}: there is no parameter {key}; it takes {all}"
            )));
        }
    }
    Ok(())
}

fn text(params: Option<&Value>, key: &str) -> Option<String> {
    Some(params?.get(key)?.as_str()?.to_owned())
}

fn missing(command: &str, key: &str) -> RpcCallError {
    RpcCallError::Params(format!("{command}: give {key}=..."))
}

fn save(client: &Client) -> Result<Value, RpcCallError> {
    let parts = client.call("framework_get_subsystems", None)?;
    let mut saved = Vec::new();
    for known in parts.as_array().into_iter().flatten() {
        if let Some(name) = known["subsystem"].as_str() {
            saved.push(part(client, name)?);
        }
    }
    Ok(json!({"subsystems": saved}))
}

fn part(client: &Client, name: &str) -> Result<Value, RpcCallError> {
    let config = client.call("framework_get_config", Some(json!({"name": name})))?;
    Ok(json!({"subsystem": name, "config": config}))
}

/// What a file holds, or standard input.
fn read(params: Option<&Value>) -> Result<(String, Vec<u8>), RpcCallError> {
    let name = text(params, "filename").filter(|name| name != "-");
    let mut bytes = Vec::new();
    let read = match &name {
        Some(path) => fs::read(path).map(|text| bytes = text),
        None => io::stdin().read_to_end(&mut bytes).map(drop),
    };
    let name = name.unwrap_or_else(|| "standard input".to_owned());
    read.map_err(|error| RpcCallError::Params(format!("{name} cannot be read: {error}")))?;
    Ok((name, bytes))
}

fn load_part(client: &Client, (name, text): &(String, Vec<u8>)) -> Result<Value, RpcCallError> {
    let part: Value = serde_json::from_slice(text)
        .map_err(|error| RpcCallError::Params(format!("{name}: {error}")))?;
    let whole = json!({"subsystems": [part]});
    load(client, &(name.clone(), whole.to_string().into_bytes()))
}

/// Makes the calls: first those that may be made now, then, if the start was not complete, the
/// others.
fn load(client: &Client, (name, text): &(String, Vec<u8>)) -> Result<Value, RpcCallError> {
    let config = Config::parse(Path::new(name), text)
        .map_err(|error| RpcCallError::Params(error.to_string()))?;
    let all = methods(client, false)?;
    let unknown = config.calls().iter().find(|c| !all.contains(&c.method));
    if let Some(call) = unknown {
        return Err(RpcCallError::Params(format!(
            "{name}: {}: there is no such method; correct its name or remove the call (rpc_get_methods lists what there is)",
            call.place
        )));
    }
    let mut left: Vec<_> = config.calls().iter().collect();
    let now = methods(client, true)?;
    let waits = now.iter().any(|method| method == "framework_start_init");
    make(client, name, &mut left, &now)?;
    if waits {
        client.call("framework_start_init", None)?;
        client.call("framework_wait_init", None)?;
        make(client, name, &mut left, &methods(client, true)?)?;
    }
    // What may be called before the start only is set already, or cannot be any more.
    for call in left {
        tracing::warn!(
            "{name}: {}: may only be called before the start is complete (serve --wait-for-rpc, or serve -c); left out",
            call.place
        );
    }
    Ok(true.into())
}

fn methods(client: &Client, current: bool) -> Result<Vec<String>, RpcCallError> {
    let params = json!({"current": current, "include_aliases": true});
    let names = client.call("rpc_get_methods", Some(params))?;
    let names = names.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect())
}

/// Makes those of the calls that may be made, and keeps the others.
fn make(
    client: &Client,
    name: &str,
    calls: &mut Vec<&crate::serve::Call>,
    may: &[String],
) -> Result<(), RpcCallError> {
    let (now, later) = calls.iter().partition(|call| may.contains(&call.method));
    *calls = later;
    let now: Vec<&crate::serve::Call> = now;
    for call in now {
        client
            .call(&call.method, call.params.clone())
            .map_err(|error| RpcCallError::Params(format!("{name}: {}: {error}", call.place)))?;
    }
    Ok(())
}
