//! How much of a device hosts may use.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Method, Params, When};
use crate::bdev::RateLimits;
use crate::control::System;
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[Method {
    name: "bdev_set_qos_limit",
    aliases: &["set_bdev_qos_limit"],
    when: When::Runtime,
    params: &[
        "name",
        "rw_ios_per_sec?",
        "rw_mbytes_per_sec?",
        "r_mbytes_per_sec?",
        "w_mbytes_per_sec?",
    ],
    help: "Limits what hosts read and write of a device in a second; 0 takes a limit away",
    run: bdev_set_qos_limit,
}];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLimits {
    name: String,
    rw_ios_per_sec: Option<u64>,
    rw_mbytes_per_sec: Option<u64>,
    r_mbytes_per_sec: Option<u64>,
    w_mbytes_per_sec: Option<u64>,
}

fn bdev_set_qos_limit(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetLimits = params.read()?;
    let asked = [
        p.rw_ios_per_sec,
        p.rw_mbytes_per_sec,
        p.r_mbytes_per_sec,
        p.w_mbytes_per_sec,
    ];
    let name = system.devices.find(&p.name)?.info().name.clone();
    if asked.iter().all(Option::is_none) {
        return Err(RpcError::invalid_params(
            "no rate limits specified; give rw_ios_per_sec, rw_mbytes_per_sec, r_mbytes_per_sec or w_mbytes_per_sec",
        ));
    }
    let now = system.devices.registry.limits(&name);
    let bytes = |asked: Option<u64>, now| asked.map_or(now, RateLimits::megabytes);
    let limits = RateLimits {
        rw_ios: p.rw_ios_per_sec.map_or(now.rw_ios, RateLimits::ios),
        rw_bytes: bytes(p.rw_mbytes_per_sec, now.rw_bytes),
        r_bytes: bytes(p.r_mbytes_per_sec, now.r_bytes),
        w_bytes: bytes(p.w_mbytes_per_sec, now.w_bytes),
    };
    if let Some(asked) = p.rw_ios_per_sec
        && asked != limits.rw_ios
    {
        tracing::warn!(
            "bdev {name}: {asked} I/Os per second are rounded up to {}",
            limits.rw_ios
        );
    }
    system.limit(&name, limits)?;
    Ok(true.into())
}

/// The limits as SPDK shows them.
pub(super) fn show(limits: &RateLimits) -> Value {
    let megabytes = |bytes: u64| bytes / RateLimits::megabytes(1);
    json!({
        "rw_ios_per_sec": limits.rw_ios,
        "rw_mbytes_per_sec": megabytes(limits.rw_bytes),
        "r_mbytes_per_sec": megabytes(limits.r_bytes),
        "w_mbytes_per_sec": megabytes(limits.w_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, end, system, system_with_reactor};

    fn set(system: &mut System, limits: Value) -> Result<Value, RpcError> {
        let mut params = json!({"name": "n0"});
        params
            .as_object_mut()
            .unwrap()
            .extend(limits.as_object().unwrap().clone());
        call_now(system, "bdev_set_qos_limit", params)
    }

    fn shown(system: &mut System) -> [u64; 4] {
        let all = call_now(system, "bdev_get_bdevs", json!({"name": "n0"})).unwrap();
        let limits = all[0]["assigned_rate_limits"].clone();
        let names = ["rw_ios", "rw_mbytes", "r_mbytes", "w_mbytes"];
        names.map(|name| limits[format!("{name}_per_sec")].as_u64().unwrap())
    }

    fn saved(system: &mut System) -> Vec<Value> {
        let config = call_now(system, "framework_get_config", json!({"name": "bdev"})).unwrap();
        let calls = config.as_array().unwrap().iter();
        let calls = calls.filter(|call| call["method"] == "bdev_set_qos_limit");
        calls.map(|call| call["params"].clone()).collect()
    }

    #[test]
    fn limits_are_set_one_by_one_told_and_saved() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null.clone()).unwrap();
        assert_eq!(shown(system), [0; 4]);
        assert!(saved(system).is_empty());
        // Rounded up to a multiple of 1000.
        set(
            system,
            json!({"rw_ios_per_sec": 1500, "r_mbytes_per_sec": 7}),
        )
        .unwrap();
        assert_eq!(shown(system), [2000, 0, 7, 0]);
        // What is left out stays.
        set(
            system,
            json!({"rw_ios_per_sec": 0, "w_mbytes_per_sec": 9, "rw_mbytes_per_sec": 20}),
        )
        .unwrap();
        assert_eq!(shown(system), [0, 20, 7, 9]);
        let expected = json!({
            "name": "n0", "rw_mbytes_per_sec": 20, "r_mbytes_per_sec": 7, "w_mbytes_per_sec": 9,
        });
        assert_eq!(saved(system), [expected]);
        // Another device of the same name has none.
        call_now(system, "bdev_null_delete", json!({"name": "n0"})).unwrap();
        call_now(system, "bdev_null_create", null).unwrap();
        assert_eq!(shown(system), [0; 4]);
    }

    #[test]
    fn limits_that_mean_nothing_are_refused() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        let none = set(system, json!({})).unwrap_err();
        assert_eq!(none.code, -32602);
        assert!(none.message.contains("no rate limits"), "{}", none.message);
        let absent = json!({"name": "n1", "rw_ios_per_sec": 1000});
        let absent = call_now(system, "bdev_set_qos_limit", absent).unwrap_err();
        assert_eq!(absent.code, -19);
        let below = set(system, json!({"rw_ios_per_sec": -1})).unwrap_err();
        assert_eq!(below.code, -32602);
        // What is under another device is not what hosts use.
        call_now(system, "bdev_error_create", json!({"base_name": "n0"})).unwrap();
        let held = set(system, json!({"rw_ios_per_sec": 1000})).unwrap_err();
        assert_eq!(held.code, -16);
        assert!(held.message.contains("EE_n0"), "{}", held.message);
        // It may still be freed of them.
        set(system, json!({"rw_ios_per_sec": 0})).unwrap();
    }

    #[test]
    fn a_served_device_has_its_limits_changed() {
        let mut system = system_with_reactor();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(&mut system, "bdev_null_create", null).unwrap();
        set(&mut system, json!({"rw_ios_per_sec": 1000})).unwrap();
        let nqn = "nqn.2026-11.io.stripewise:a";
        call_now(&mut system, "nvmf_create_subsystem", json!({"nqn": nqn})).unwrap();
        let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "n0"}});
        call_now(&mut system, "nvmf_subsystem_add_ns", namespace).unwrap();
        set(&mut system, json!({"rw_ios_per_sec": 3000})).unwrap();
        let now = shown(&mut system);
        set(&mut system, json!({"rw_ios_per_sec": 0})).unwrap();
        end(system);
        assert_eq!(now, [3000, 0, 0, 0]);
    }
}
