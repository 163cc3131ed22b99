//! Methods of the target as a whole.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::nvmf::absent;
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::nvme::dhchap::{DhGroup, Hash};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_set_max_subsystems",
        aliases: &["set_nvmf_target_max_subsystems"],
        when: When::Startup,
        params: &["max_subsystems"],
        help: "Sets how many subsystems there may be",
        run: nvmf_set_max_subsystems,
    },
    Method {
        name: "nvmf_set_config",
        aliases: &[],
        when: When::Startup,
        params: &[
            "admin_cmd_passthru?",
            "poll_groups_mask?",
            "discovery_filter?",
            "discovery_filters?",
            "dhchap_digests?",
            "dhchap_dhgroups?",
            "dup_host_policy?",
        ],
        help: "Sets how hosts may prove who they are",
        run: nvmf_set_config,
    },
    Method {
        name: "nvmf_set_crdt",
        aliases: &[],
        when: When::Startup,
        params: &["crdt1?", "crdt2?", "crdt3?"],
        help: "Sets how long hosts wait before they repeat a command, in units of 100 ms",
        run: nvmf_set_crdt,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMaxSubsystems {
    max_subsystems: u32,
}

fn nvmf_set_max_subsystems(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetMaxSubsystems = params.read()?;
    system
        .target
        .set_max_subsystems(p.max_subsystems as usize)?;
    Ok(true.into())
}

/// Words in an array, or with commas between them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an array of words")]
enum Words {
    Array(Vec<String>),
    Text(String),
}

impl Words {
    /// What the words mean.
    fn read<T: Copy>(
        &self,
        parameter: &str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> Result<Vec<T>, RpcError> {
        let words: Vec<&str> = match self {
            Words::Array(words) => words.iter().map(String::as_str).collect(),
            Words::Text(text) => text.split(',').map(str::trim).collect(),
        };
        let find = |wanted: &str| {
            let found = all.iter().copied().find(|&one| word(one) == wanted);
            found.ok_or_else(|| {
                let known: Vec<_> = all.iter().map(|&one| word(one)).collect();
                let known = known.join(", ");
                RpcError::invalid_params(format!("{parameter}: {wanted:?} is none of {known}"))
            })
        };
        words.into_iter().map(find).collect()
    }

    fn is_only(&self, default: &str) -> bool {
        match self {
            Words::Array(words) => words.iter().all(|word| word == default),
            Words::Text(text) => text == default,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetConfig {
    admin_cmd_passthru: Option<Map<String, Value>>,
    poll_groups_mask: Option<String>,
    discovery_filter: Option<String>,
    discovery_filters: Option<Words>,
    dhchap_digests: Option<Words>,
    dhchap_dhgroups: Option<Words>,
    dup_host_policy: Option<String>,
}

fn nvmf_set_config(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetConfig = params.read()?;
    let passed = p.admin_cmd_passthru.unwrap_or_default();
    absent(
        "admin_cmd_passthru",
        passed.values().any(|value| *value != Value::Bool(false)),
    )?;
    absent("poll_groups_mask", p.poll_groups_mask.is_some())?;
    let filter = p.discovery_filter.map(Words::Text);
    for (name, filter) in [
        ("discovery_filter", filter),
        ("discovery_filters", p.discovery_filters),
    ] {
        absent(name, filter.is_some_and(|f| !f.is_only("match_any")))?;
    }
    absent(
        "dup_host_policy",
        p.dup_host_policy.is_some_and(|policy| policy != "allow"),
    )?;
    let mut algorithms = system.target.authentication().clone();
    if let Some(words) = p.dhchap_digests {
        algorithms.hashes = words.read("dhchap_digests", Hash::ALL, Hash::word)?;
    }
    if let Some(words) = p.dhchap_dhgroups {
        algorithms.groups = words.read("dhchap_dhgroups", DhGroup::ALL, DhGroup::word)?;
    }
    system.target.set_authentication(algorithms)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCrdt {
    #[serde(default)]
    crdt1: u16,
    #[serde(default)]
    crdt2: u16,
    #[serde(default)]
    crdt3: u16,
}

fn nvmf_set_crdt(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetCrdt = params.read()?;
    system.target.set_retry_delays([p.crdt1, p.crdt2, p.crdt3]);
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rpc::testing::call_now;

    #[test]
    fn ways_of_authentication_are_set_before_the_start() {
        let system = &mut crate::rpc::testing::starting();
        let defaults = json!({
            "admin_cmd_passthru": {"identify_ctrlr": false}, "discovery_filter": "match_any",
            "discovery_filters": ["match_any"], "dup_host_policy": "allow",
        });
        assert_eq!(
            call_now(system, "nvmf_set_config", defaults),
            Ok(true.into())
        );
        assert_eq!(
            system.target.authentication(),
            &crate::nvmf::Algorithms::default()
        );
        let some = json!({"dhchap_digests": ["sha512"], "dhchap_dhgroups": "null,ffdhe4096"});
        assert_eq!(call_now(system, "nvmf_set_config", some), Ok(true.into()));
        for (params, names) in [
            (json!({"dhchap_digests": ["md5"]}), "sha256, sha384, sha512"),
            (json!({"dhchap_dhgroups": ["ffdhe1024"]}), "ffdhe2048"),
            (json!({"dhchap_dhgroups": []}), "dhchap_dhgroups is empty"),
            (
                json!({"admin_cmd_passthru": {"identify_ctrlr": true}}),
                "admin_cmd_passthru",
            ),
            (json!({"poll_groups_mask": "0x1"}), "poll_groups_mask"),
            (json!({"discovery_filter": "transport"}), "discovery_filter"),
            (
                json!({"dup_host_policy": "restrict_per_listener"}),
                "dup_host_policy",
            ),
        ] {
            let error = call_now(system, "nvmf_set_config", params).unwrap_err();
            assert_eq!(error.code, -32602, "{}", error.message);
            assert!(error.message.contains(names), "{}", error.message);
        }
        let set = system.target.authentication();
        assert_eq!(set.hashes, [Hash::Sha512]);
        assert_eq!(set.groups, [DhGroup::Null, DhGroup::Ffdhe4096]);
        system.finish_startup();
        let config = call_now(system, "framework_get_config", json!({"name": "nvmf"})).unwrap();
        let saved = json!({
            "method": "nvmf_set_config",
            "params": {"dhchap_digests": ["sha512"], "dhchap_dhgroups": ["null", "ffdhe4096"]},
        });
        assert!(config.as_array().unwrap().contains(&saved), "{config}");
        let late = call_now(system, "nvmf_set_config", json!({}));
        assert_eq!(late.unwrap_err().code, -1);
    }
}
