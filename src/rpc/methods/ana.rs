//! Methods about asymmetric namespace access: how listeners reach groups of namespaces.

use serde::Deserialize;

use super::listen::Address;
use super::nvmf::check_target;
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::nvmf::Access;
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_subsystem_listener_set_ana_state",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "nqn",
            "listen_address",
            "ana_state",
            "tgt_name?",
            "anagrpid?",
        ],
        help: "Sets how a listener reaches a group of namespaces, or all of them, and tells hosts",
        run: nvmf_subsystem_listener_set_ana_state,
    },
    Method {
        name: "nvmf_subsystem_set_ns_ana_group",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "nsid", "anagrpid", "tgt_name?"],
        help: "Puts a namespace into another group",
        run: nvmf_subsystem_set_ns_ana_group,
    },
];

/// Reads the word of a state.
pub fn read_state(word: &str) -> Result<Access, RpcError> {
    let mut all = Access::ALL.iter().copied();
    all.find(|access| access.word() == word).ok_or_else(|| {
        let known: Vec<_> = Access::ALL.iter().map(|access| access.word()).collect();
        let known = known.join(", ");
        RpcError::invalid_params(format!("ana_state: {word:?} is none of {known}"))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetAnaState {
    nqn: String,
    listen_address: Address,
    ana_state: String,
    tgt_name: Option<String>,
    anagrpid: Option<u32>,
}

fn nvmf_subsystem_listener_set_ana_state(
    system: &mut System,
    params: Params,
) -> Result<Answer, RpcError> {
    let p: SetAnaState = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let access = read_state(&p.ana_state)?;
    let at = p.listen_address.parse("listen_address")?;
    // SPDK's way to name all groups.
    let group = p.anagrpid.filter(|&group| group != 0);
    system.target.set_access(&p.nqn, at, group, access)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetNsAnaGroup {
    nqn: String,
    nsid: u32,
    anagrpid: u32,
    tgt_name: Option<String>,
}

fn nvmf_subsystem_set_ns_ana_group(
    system: &mut System,
    params: Params,
) -> Result<Answer, RpcError> {
    let p: SetNsAnaGroup = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let target = &mut system.target;
    target.set_namespace_group(&p.nqn, p.nsid, p.anagrpid)?;
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rpc::testing::{call_now, system};

    const NQN: &str = "nqn.2026-11.io.stripewise:a";

    /// A subsystem of four namespaces at most, one of which is there, and one listener.
    fn reporting(system: &mut System, traddr: &str) -> Value {
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        call_now(system, "nvmf_create_transport", json!({"trtype": "TCP"})).unwrap();
        let subsystem = json!({"nqn": NQN, "ana_reporting": true, "max_namespaces": 4});
        call_now(system, "nvmf_create_subsystem", subsystem).unwrap();
        let added = json!({"nqn": NQN, "namespace": {"bdev_name": "n0", "nsid": 2}});
        call_now(system, "nvmf_subsystem_add_ns", added).unwrap();
        let at = json!({"trtype": "TCP", "traddr": traddr, "trsvcid": "0"});
        let added = json!({"nqn": NQN, "listen_address": at, "ana_state": "non_optimized"});
        call_now(system, "nvmf_subsystem_add_listener", added).unwrap();
        let shown = call_now(system, "nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
        shown.unwrap()[0]["address"].clone()
    }

    fn states(system: &mut System) -> Vec<(u64, String)> {
        let shown = call_now(system, "nvmf_subsystem_get_listeners", json!({"nqn": NQN})).unwrap();
        let states = shown[0]["ana_states"].as_array().unwrap().clone();
        let one = |state: &Value| {
            let word = state["ana_state"].as_str().unwrap().to_owned();
            (state["ana_group"].as_u64().unwrap(), word)
        };
        states.iter().map(one).collect()
    }

    fn all(words: [&str; 4]) -> Vec<(u64, String)> {
        (1..).zip(words.map(str::to_owned)).collect()
    }

    #[test]
    fn states_are_set_by_listener_and_group() {
        let system = &mut system();
        let at = reporting(system, "127.0.0.50");
        let (best, worse, none) = ("optimized", "non_optimized", "inaccessible");
        assert_eq!(states(system), all([worse; 4]));
        let set = |system: &mut System, state: &str, group: Value| {
            let params = json!({
                "nqn": NQN, "listen_address": at, "ana_state": state, "anagrpid": group,
            });
            call_now(system, "nvmf_subsystem_listener_set_ana_state", params)
        };
        assert_eq!(set(system, none, json!(2)), Ok(true.into()));
        assert_eq!(states(system), all([worse, none, worse, worse]));
        assert_eq!(set(system, best, json!(0)), Ok(true.into()));
        assert_eq!(states(system), all([best; 4]));
        assert_eq!(set(system, none, Value::Null), Ok(true.into()));
        assert_eq!(states(system), all([none; 4]));
        for (state, group, names) in [
            ("persistent_loss", json!(1), "non_optimized, inaccessible"),
            (best, json!(5), "1 to 4"),
        ] {
            let error = set(system, state, group).unwrap_err();
            assert_eq!(error.code, -32602, "{}", error.message);
            assert!(error.message.contains(names), "{}", error.message);
        }
        assert_eq!(states(system), all([none; 4]));
    }

    #[test]
    fn namespaces_are_in_the_group_of_their_number_unless_it_is_said() {
        let system = &mut system();
        reporting(system, "127.0.0.51");
        let shown = |system: &mut System| {
            let subsystems = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
            let namespaces = subsystems[0]["namespaces"].as_array().unwrap().clone();
            let group = |n: &Value| n["anagrpid"].as_u64().unwrap();
            namespaces.iter().map(group).collect::<Vec<_>>()
        };
        assert_eq!(shown(system), [2]);
        let moved = json!({"nqn": NQN, "nsid": 2, "anagrpid": 4});
        let answer = call_now(system, "nvmf_subsystem_set_ns_ana_group", moved);
        assert_eq!(answer, Ok(true.into()));
        assert_eq!(shown(system), [4]);
        let namespace = json!({"bdev_name": "n0", "nsid": 1, "anagrpid": 3});
        let added = json!({"nqn": NQN, "namespace": namespace});
        call_now(system, "nvmf_subsystem_add_ns", added).unwrap();
        assert_eq!(shown(system), [3, 4]);
        for (method, params, names) in [
            (
                "nvmf_subsystem_set_ns_ana_group",
                json!({"nqn": NQN, "nsid": 2, "anagrpid": 0}),
                "1 to 4",
            ),
            (
                "nvmf_subsystem_set_ns_ana_group",
                json!({"nqn": NQN, "nsid": 3, "anagrpid": 1}),
                "namespace 3",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "n0", "anagrpid": 5}}),
                "1 to 4",
            ),
        ] {
            let error = call_now(system, method, params).unwrap_err();
            assert_eq!(error.code, -32602, "{}", error.message);
            assert!(error.message.contains(names), "{}", error.message);
        }
        assert_eq!(shown(system), [3, 4]);
    }

    #[test]
    fn where_hosts_are_not_told_nothing_is_shown_and_nothing_may_be_set() {
        let system = &mut system();
        call_now(system, "nvmf_create_transport", json!({"trtype": "TCP"})).unwrap();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
        let at = json!({"trtype": "TCP", "traddr": "127.0.0.52", "trsvcid": "0"});
        let mut added = json!({"nqn": NQN, "listen_address": at, "ana_state": "inaccessible"});
        let method = "nvmf_subsystem_add_listener";
        let error = call_now(system, method, added.clone()).unwrap_err();
        assert!(error.message.contains("ana_reporting"), "{}", error.message);
        added["ana_state"] = "optimized".into();
        call_now(system, method, added).unwrap();
        let shown = call_now(system, "nvmf_subsystem_get_listeners", json!({"nqn": NQN})).unwrap();
        assert!(shown[0].get("ana_states").is_none());
        let set = json!({
            "nqn": NQN, "listen_address": shown[0]["address"], "ana_state": "optimized",
        });
        let set = call_now(system, "nvmf_subsystem_listener_set_ana_state", set);
        assert_eq!(set.unwrap_err().code, -32602);
    }
}
