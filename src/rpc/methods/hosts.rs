//! Methods about which hosts may use a subsystem, and how they prove who they are.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::nvmf::check_target;
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::nvmf::{HostInfo, HostKeys, Key};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_subsystem_add_host",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "nqn",
            "host",
            "tgt_name?",
            "psk?",
            "dhchap_key?",
            "dhchap_ctrlr_key?",
        ],
        help: "Allows a host to use a subsystem, if it has the key that it is given here",
        run: nvmf_subsystem_add_host,
    },
    Method {
        name: "nvmf_subsystem_set_keys",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "nqn",
            "host",
            "tgt_name?",
            "dhchap_key?",
            "dhchap_ctrlr_key?",
        ],
        help: "Gives a host other keys, or none: then it need not prove who it is any more",
        run: nvmf_subsystem_set_keys,
    },
    Method {
        name: "nvmf_subsystem_remove_host",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "host", "tgt_name?", "timeout_ms?"],
        help: "No longer allows a host to use a subsystem, and disconnects it",
        run: nvmf_subsystem_remove_host,
    },
    Method {
        name: "nvmf_subsystem_allow_any_host",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "allow_any_host", "tgt_name?"],
        help: "Allows every host to use a subsystem, or only those on its list",
        run: nvmf_subsystem_allow_any_host,
    },
];

/// A host as SPDK describes it: with the names of its keys, where it has some.
pub fn host(info: &HostInfo) -> Value {
    let mut object = Map::new();
    object.insert("nqn".into(), info.nqn.clone().into());
    put_keys(info, &mut object);
    object.into()
}

/// Adds the names of a host's keys to what is told of it.
pub fn put_keys(info: &HostInfo, to: &mut Map<String, Value>) {
    for (name, key) in [
        ("dhchap_key", &info.dhchap_key),
        ("dhchap_ctrlr_key", &info.dhchap_ctrlr_key),
    ] {
        if let Some(key) = key {
            to.insert(name.into(), key.clone().into());
        }
    }
}

/// The keys of these names.
fn keys(
    system: &System,
    host: Option<&str>,
    controller: Option<&str>,
) -> Result<Option<HostKeys>, RpcError> {
    let find = |parameter: &str, name: &str| -> Result<Arc<Key>, RpcError> {
        let found = system.keyring.find(name);
        found.map_err(|error| RpcError::invalid_params(format!("{parameter}: {error}")))
    };
    let Some(host) = host else {
        return match controller {
            None => Ok(None),
            Some(_) => Err(RpcError::invalid_params(
                "dhchap_ctrlr_key: works together with dhchap_key only; give both or none",
            )),
        };
    };
    Ok(Some(HostKeys {
        host: find("dhchap_key", host)?,
        controller: controller
            .map(|name| find("dhchap_ctrlr_key", name))
            .transpose()?,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddHost {
    nqn: String,
    host: String,
    tgt_name: Option<String>,
    psk: Option<String>,
    dhchap_key: Option<String>,
    dhchap_ctrlr_key: Option<String>,
}

fn nvmf_subsystem_add_host(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddHost = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    if p.psk.is_some() {
        // Going on without it would let in whoever claims to be that host.
        return Err(RpcError::invalid_params(
            "psk: TLS is not supported; leave it out, and give the host a dhchap_key",
        ));
    }
    let (host, controller) = (p.dhchap_key.as_deref(), p.dhchap_ctrlr_key.as_deref());
    let keys = keys(system, host, controller)?;
    system.target.add_host(&p.nqn, &p.host, keys)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetKeys {
    nqn: String,
    host: String,
    tgt_name: Option<String>,
    dhchap_key: Option<String>,
    dhchap_ctrlr_key: Option<String>,
}

fn nvmf_subsystem_set_keys(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetKeys = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let (host, controller) = (p.dhchap_key.as_deref(), p.dhchap_ctrlr_key.as_deref());
    let keys = keys(system, host, controller)?;
    system.target.set_host_keys(&p.nqn, &p.host, keys)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveHost {
    nqn: String,
    host: String,
    tgt_name: Option<String>,
    // Commands in flight are not waited for.
    #[serde(rename = "timeout_ms")]
    _timeout_ms: Option<u64>,
}

fn nvmf_subsystem_remove_host(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveHost = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    system.target.remove_host(&p.nqn, &p.host)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowAnyHost {
    nqn: String,
    allow_any_host: bool,
    tgt_name: Option<String>,
}

fn nvmf_subsystem_allow_any_host(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AllowAnyHost = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    system.target.set_allow_any_host(&p.nqn, p.allow_any_host)?;
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rpc::testing::{call_now, key_file, system};

    const NQN: &str = "nqn.2026-11.io.stripewise:a";
    const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:7d352e83-fe27-40f2-8fef-64563355e076";

    fn subsystem(system: &mut System) {
        call_now(system, "nvmf_create_transport", json!({"trtype": "TCP"})).unwrap();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
    }

    fn shown(system: &mut System) -> Value {
        let subsystems = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN}));
        subsystems.unwrap()[0]["hosts"].clone()
    }

    #[test]
    fn hosts_are_listed_and_any_may_be_allowed() {
        let system = &mut system();
        subsystem(system);
        let host = json!({"nqn": NQN, "host": HOST});
        assert_eq!(
            call_now(system, "nvmf_subsystem_add_host", host.clone()),
            Ok(true.into())
        );
        let any = json!({"nqn": NQN, "allow_any_host": true});
        assert_eq!(
            call_now(system, "nvmf_subsystem_allow_any_host", any),
            Ok(true.into())
        );
        let subsystems = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(subsystems[0]["hosts"], json!([{"nqn": HOST}]));
        assert_eq!(subsystems[0]["allow_any_host"], true);
        assert_eq!(
            call_now(system, "nvmf_subsystem_remove_host", host.clone()),
            Ok(true.into())
        );
        assert_eq!(
            call_now(system, "nvmf_subsystem_remove_host", host)
                .unwrap_err()
                .code,
            -32602
        );
    }

    #[test]
    fn hosts_have_keys_by_name() {
        let system = &mut system();
        subsystem(system);
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two", "ctrl"] {
            let params = json!({"name": name, "path": key_file(dir.path(), name)});
            call_now(system, "keyring_file_add_key", params).unwrap();
        }
        let call = |system: &mut System, method: &str, keys: Value| {
            let mut params = json!({"nqn": NQN, "host": HOST});
            let keys = keys.as_object().unwrap().clone();
            params.as_object_mut().unwrap().extend(keys);
            call_now(system, method, params)
        };
        let (add, set) = ("nvmf_subsystem_add_host", "nvmf_subsystem_set_keys");
        for (method, keys, names) in [
            (add, json!({"dhchap_key": "none"}), "dhchap_key: key none"),
            (
                add,
                json!({"dhchap_key": "one", "dhchap_ctrlr_key": "none"}),
                "dhchap_ctrlr_key: key none",
            ),
            (add, json!({"dhchap_ctrlr_key": "ctrl"}), "give both"),
            (set, json!({"dhchap_key": "one"}), "does not exist"),
        ] {
            let error = call(system, method, keys).unwrap_err();
            assert_eq!(error.code, -32602, "{}", error.message);
            assert!(error.message.contains(names), "{}", error.message);
            assert_eq!(shown(system), json!([]));
        }
        let both = json!({"dhchap_key": "one", "dhchap_ctrlr_key": "ctrl"});
        assert_eq!(call(system, add, both.clone()), Ok(true.into()));
        assert_eq!(call(system, add, both), Ok(true.into()));
        let expected = json!([
            {"nqn": HOST, "dhchap_key": "one", "dhchap_ctrlr_key": "ctrl"}
        ]);
        assert_eq!(shown(system), expected);
        // Whoever adds it again without a key may not mean that it needs none any more.
        let error = call(system, add, json!({})).unwrap_err();
        assert!(error.message.contains(set), "{}", error.message);
        assert_eq!(shown(system), expected);
        let refcnt = |system: &mut System| {
            let keys = call_now(system, "keyring_get_keys", Value::Null).unwrap();
            let keys = keys.as_array().unwrap().iter();
            keys.map(|k| k["refcnt"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        // ctrl, one, two.
        assert_eq!(refcnt(system), [2, 2, 1]);
        let one = json!({"name": "one"});
        let error = call_now(system, "keyring_file_remove_key", one.clone()).unwrap_err();
        assert_eq!(error.code, -16, "EBUSY: {}", error.message);
        assert!(error.message.contains(HOST), "{}", error.message);
        call(system, set, json!({"dhchap_key": "two"})).unwrap();
        assert_eq!(shown(system), json!([{"nqn": HOST, "dhchap_key": "two"}]));
        call_now(system, "keyring_file_remove_key", one).unwrap();
        call(system, set, json!({})).unwrap();
        assert_eq!(shown(system), json!([{"nqn": HOST}]));
        assert_eq!(refcnt(system), [1, 1]);
        call(system, set, json!({"dhchap_key": "two"})).unwrap();
        call(system, "nvmf_subsystem_remove_host", json!({})).unwrap();
        assert_eq!(refcnt(system), [1, 1]);
    }
}
