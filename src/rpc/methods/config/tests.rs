use std::fs::File;

use serde_json::{Value, json};

use crate::control::System;
use crate::rpc::methods;
use crate::rpc::testing::{
    call_and_wait, call_now, end, key_file, keys, starting, system, system_with_reactor,
};

const NQN: &str = "nqn.2026-11.io.stripewise:a";
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:7d352e83-fe27-40f2-8fef-64563355e076";

/// The whole configuration, part by part.
fn saved(system: &mut System) -> Vec<Value> {
    let parts = call_now(system, "framework_get_subsystems", Value::Null).unwrap();
    let names = parts.as_array().unwrap().iter();
    let names: Vec<Value> = names.map(|part| part["subsystem"].clone()).collect();
    let part = |name| call_now(system, "framework_get_config", json!({"name": name})).unwrap();
    names.into_iter().map(part).collect()
}

/// Makes the calls of a configuration that may be made now.
fn load(system: &mut System, config: &[Value]) {
    for call in config.iter().flat_map(|part| part.as_array().unwrap()) {
        let name = call["method"].as_str().unwrap();
        let method = methods::find(name).unwrap();
        if method.when.includes(system.phase()) {
            let made = call_and_wait(system, name, call["params"].clone());
            made.unwrap_or_else(|error| panic!("{call}: {}", error.message));
        }
    }
}

fn made(system: &mut System, calls: &[(&str, Value)]) {
    for (method, params) in calls {
        let made = call_and_wait(system, method, params.clone());
        made.unwrap_or_else(|error| panic!("{method}: {}", error.message));
    }
}

/// The volumes that serve.
fn online(system: &mut System) -> Value {
    let online = json!({"category": "online"});
    call_now(system, "bdev_raid_get_bdevs", online).unwrap()
}

/// How often a method is called in a configuration.
fn count(config: &[Value], method: &str) -> usize {
    let calls = config.iter().flat_map(|part| part.as_array().unwrap());
    calls.filter(|call| call["method"] == method).count()
}

#[test]
fn the_parts_have_spdks_shape_and_those_come_first_that_others_need() {
    let parts = call_now(&mut system(), "framework_get_subsystems", Value::Null).unwrap();
    let parts = parts.as_array().unwrap();
    let mut before: Vec<&Value> = Vec::new();
    for part in parts {
        assert_eq!(keys(part), ["subsystem", "depends_on"]);
        for needed in part["depends_on"].as_array().unwrap() {
            assert!(before.contains(&needed), "{part}");
        }
        before.push(&part["subsystem"]);
    }
    assert!(before.contains(&&json!("bdev")) && before.contains(&&json!("nvmf")));
}

#[test]
fn a_part_that_is_not_there_is_told() {
    let error = call_now(
        &mut system(),
        "framework_get_config",
        json!({"name": "ftl"}),
    );
    let error = error.unwrap_err();
    assert_eq!(error.code, -32602);
    assert!(
        error.message.contains("'ftl'") && error.message.contains("nvmf"),
        "{}",
        error.message
    );
}

/// Everything that there is, of each kind something with all of its options. Listens at an address
/// of the caller's own, so that nobody takes the port while it changes hands.
fn everything(traddr: &str) -> Vec<(&'static str, Value)> {
    let null = |name: &str| {
        let params = json!({"name": name, "num_blocks": 4096, "block_size": 4096});
        ("bdev_null_create", params)
    };
    let at = |traddr: &str, port: &str| json!({"trtype": "TCP", "traddr": traddr, "trsvcid": port});
    let listener = |nqn: &str, at: Value| {
        (
            "nvmf_subsystem_add_listener",
            json!({"nqn": nqn, "listen_address": at}),
        )
    };
    vec![
        ("bdev_set_options", json!({"bdev_auto_examine": false})),
        (
            "bdev_raid_set_options",
            json!({
                "process_window_size_kb": 512, "process_max_bandwidth_mb_sec": 200,
                "process_busy_bandwidth_mb_sec": 30, "degraded_start_wait_sec": 2,
            }),
        ),
        (
            "bdev_nvme_set_options",
            json!({
                "timeout_us": 3_000_000, "timeout_admin_us": 4_000_000, "keep_alive_timeout_ms": 5000,
                "io_queue_requests": 64, "ctrlr_loss_timeout_sec": 40, "reconnect_delay_sec": 3,
                "fast_io_fail_timeout_sec": 8,
            }),
        ),
        // Later in the alphabet than what stands on them.
        null("z0"),
        null("z1"),
        null("z2"),
        (
            "bdev_malloc_create",
            json!({"name": "m", "num_blocks": 2048, "block_size": 512}),
        ),
        (
            "bdev_delay_create",
            json!({
                "base_bdev_name": "z1", "name": "d", "avg_read_latency": 1, "p99_read_latency": 2,
                "avg_write_latency": 3, "p99_write_latency": 4,
            }),
        ),
        ("bdev_error_create", json!({"base_name": "z2"})),
        (
            "bdev_raid_create",
            json!({
                "name": "a", "raid_level": "raid5f", "strip_size_kb": 64,
                "base_bdevs": ["z0", "d", "EE_z2"], "layout": "right-asymmetric",
                "stripe_size_kb": 8, "shard_run": 4,
                "batching": {
                    "scope": "row", "request_size_kb": 128, "preread_limit": 17,
                    "partial_wait_us": 250, "join_wait_us": 5,
                },
            }),
        ),
        // It waits for members that do not come, and goes on doing so.
        (
            "bdev_raid_create",
            json!({
                "name": "waits", "raid_level": "raid5", "strip_size_kb": 4,
                "base_bdevs": ["no", "nor", "this"],
            }),
        ),
        // Nobody is there, and it is tried again.
        (
            "bdev_nvme_attach_controller",
            json!({
                "name": "away", "trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": "9",
                "subnqn": NQN, "hdgst": true, "num_io_queues": 2, "wait_for_attach": false,
                "ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1,
                "fast_io_fail_timeout_sec": 0,
            }),
        ),
        (
            "bdev_nvme_attach_controller",
            json!({
                "name": "away", "trtype": "TCP", "traddr": "127.0.0.2", "trsvcid": "9",
                "subnqn": NQN, "multipath": "failover",
            }),
        ),
        (
            "nvmf_create_transport",
            json!({
                "trtype": "TCP", "max_queue_depth": 64, "max_io_qpairs_per_ctrlr": 5,
                "in_capsule_data_size": 4096, "max_io_size": 131_072, "max_aq_depth": 32,
                "c2h_success": false,
            }),
        ),
        (
            "nvmf_create_subsystem",
            json!({
                "nqn": NQN, "serial_number": "S1", "model_number": "M1", "max_namespaces": 7,
                "min_cntlid": 3, "max_cntlid": 30, "ana_reporting": true,
            }),
        ),
        ("nvmf_subsystem_add_host", json!({"nqn": NQN, "host": HOST})),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {
                "bdev_name": "a", "nsid": 3, "eui64": "0123456789abcdef",
                "nguid": "0123456789abcdef0123456789abcdef", "anagrpid": 6,
            }}),
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "m", "nsid": 5, "no_auto_visible": true}}),
        ),
        (
            "nvmf_ns_add_host",
            json!({"nqn": NQN, "nsid": 5, "host": HOST}),
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": format!("{NQN}b"), "allow_any_host": true}),
        ),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": format!("{NQN}b"), "namespace": {"bdev_name": "m"}}),
        ),
        listener(NQN, at(traddr, "0")),
        listener("discovery", at(traddr, "0")),
    ]
}

#[test]
fn a_system_made_from_a_configuration_has_the_same() {
    let mut first = system_with_reactor();
    made(&mut first, &everything("127.0.0.40"));
    let config = saved(&mut first);
    end(first);
    for (method, times) in [
        ("bdev_null_create", 3),
        ("bdev_raid_create", 2),
        ("bdev_nvme_attach_controller", 2),
        ("nvmf_create_subsystem", 2),
        ("nvmf_subsystem_add_listener", 2),
        ("nvmf_subsystem_add_host", 1),
        ("bdev_wait_for_examine", 1),
    ] {
        assert_eq!(count(&config, method), times, "{method}");
    }
    let mut second = system_with_reactor();
    load(&mut second, &config);
    let again = saved(&mut second);
    end(second);
    assert_eq!(again, config);
}

/// Each parameter that was given to what is in [`everything`] is in the configuration, so that
/// nothing is lost that the comparison above would not miss.
#[test]
fn what_was_asked_for_is_in_the_configuration() {
    let mut system = system_with_reactor();
    let asked = everything("127.0.0.41");
    made(&mut system, &asked);
    let config = saved(&mut system);
    end(system);
    let calls: Vec<&Value> = config
        .iter()
        .flat_map(|part| part.as_array().unwrap())
        .collect();
    for (method, params) in asked {
        // The kernel has chosen a port, and discovery is told by its full name.
        let is_listener = method == "nvmf_subsystem_add_listener";
        let says = |call: &&&Value| is_listener || within(&params, &call["params"]);
        let same = calls.iter().filter(|call| call["method"] == method);
        assert!(
            same.filter(says).count() > 0,
            "{method} {params}: {config:#?}"
        );
    }
}

/// Whether everything in `part` is in `whole`.
fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|w| within(value, w))),
        _ => part == whole,
    }
}

#[test]
fn options_of_the_start_are_in_the_configuration() {
    let mut first = starting();
    let most = json!({"max_subsystems": 9});
    call_now(&mut first, "nvmf_set_max_subsystems", most.clone()).unwrap();
    first.finish_startup();
    let config = saved(&mut first);
    let nvmf = &config.last().unwrap().as_array().unwrap()[0];
    assert_eq!(
        nvmf,
        &json!({"method": "nvmf_set_max_subsystems", "params": most})
    );
    let mut second = starting();
    load(&mut second, &config);
    second.finish_startup();
    load(&mut second, &config);
    assert_eq!(saved(&mut second), config);
    let late = call_now(
        &mut second,
        "nvmf_set_max_subsystems",
        json!({"max_subsystems": 3}),
    );
    assert_eq!(late.unwrap_err().code, -1);
}

#[test]
fn delays_are_set_before_the_start_and_kept() {
    let mut first = starting();
    let delays = json!({"crdt1": 10, "crdt2": 200, "crdt3": 65_535});
    call_now(&mut first, "nvmf_set_crdt", json!({"crdt2": 7})).unwrap();
    assert_eq!(first.target.retry_delays(), [0, 7, 0]);
    call_now(&mut first, "nvmf_set_crdt", delays.clone()).unwrap();
    first.finish_startup();
    let config = saved(&mut first);
    let nvmf = config.last().unwrap().as_array().unwrap();
    let names = nvmf.iter().map(|call| call["method"].as_str().unwrap());
    // As SPDK orders them.
    let expected = [
        "nvmf_set_max_subsystems",
        "nvmf_set_config",
        "nvmf_set_crdt",
    ];
    assert_eq!(names.take(3).collect::<Vec<_>>(), expected);
    assert_eq!(nvmf[2]["params"], delays);
    let mut second = starting();
    load(&mut second, &config);
    assert_eq!(second.target.retry_delays(), [10, 200, 65_535]);
    second.finish_startup();
    assert_eq!(saved(&mut second), config);
    let late = call_now(&mut second, "nvmf_set_crdt", delays);
    assert_eq!(late.unwrap_err().code, -1);
}

/// How listeners reach groups is told where it is not the default: with the listener, so that no
/// host ever sees it otherwise, and then for the groups that are exceptions.
#[test]
fn ways_to_groups_are_kept() {
    let mut first = system();
    made(
        &mut first,
        &[
            ("nvmf_create_transport", json!({"trtype": "TCP"})),
            (
                "nvmf_create_subsystem",
                json!({"nqn": NQN, "ana_reporting": true}),
            ),
        ],
    );
    let listener = |traddr: &str, trsvcid: &str| json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": traddr, "trsvcid": trsvcid});
    for traddr in ["127.0.0.44", "127.0.0.45"] {
        let added = json!({"nqn": NQN, "listen_address": listener(traddr, "0")});
        made(&mut first, &[("nvmf_subsystem_add_listener", added)]);
    }
    let listeners = call_now(
        &mut first,
        "nvmf_subsystem_get_listeners",
        json!({"nqn": NQN}),
    );
    let second_at = listeners.unwrap()[1]["address"].clone();
    let set = |state: &str, group: Value| {
        let params = json!({
            "nqn": NQN, "listen_address": second_at, "ana_state": state, "anagrpid": group,
        });
        ("nvmf_subsystem_listener_set_ana_state", params)
    };
    let exception = set("optimized", json!(7));
    made(
        &mut first,
        &[
            set("inaccessible", json!(0)),
            exception.clone(),
            set("inaccessible", json!(8)),
        ],
    );
    let config = saved(&mut first);
    drop(first);
    let nvmf = config.last().unwrap().as_array().unwrap();
    let last: Vec<Value> = nvmf[nvmf.len() - 2..].to_vec();
    let added = json!({"nqn": NQN, "listen_address": second_at, "ana_state": "inaccessible"});
    let expected = [
        json!({"method": "nvmf_subsystem_add_listener", "params": added}),
        json!({"method": exception.0, "params": exception.1}),
    ];
    assert_eq!(last, expected);
    let before = nvmf[nvmf.len() - 3].clone();
    assert_eq!(before["method"], "nvmf_subsystem_add_listener");
    assert!(before["params"].get("ana_state").is_none());
    let mut second = system();
    load(&mut second, &config);
    assert_eq!(saved(&mut second), config);
}

/// The names of keys and the paths of their files are saved, and nothing of what is in them.
#[test]
fn hosts_keep_their_keys() {
    let place = tempfile::tempdir().unwrap();
    let add = |name: &str| {
        let params = json!({"name": name, "path": key_file(place.path(), name)});
        ("keyring_file_add_key", params)
    };
    let keyed = json!({
        "nqn": NQN, "host": HOST, "dhchap_key": "host", "dhchap_ctrlr_key": "ctrl",
    });
    let free = json!({"nqn": NQN, "host": "nqn.2026-11.io.stripewise:free"});
    let mut first = system();
    made(
        &mut first,
        &[
            add("host"),
            add("ctrl"),
            ("nvmf_create_subsystem", json!({"nqn": NQN})),
            ("nvmf_subsystem_add_host", keyed.clone()),
            ("nvmf_subsystem_add_host", free.clone()),
        ],
    );
    let config = saved(&mut first);
    assert_eq!(count(&config, "keyring_file_add_key"), 2);
    let nvmf = config.last().unwrap().as_array().unwrap();
    for params in [keyed, free] {
        let call = json!({"method": "nvmf_subsystem_add_host", "params": params});
        assert!(nvmf.contains(&call), "{call}");
    }
    assert!(!Value::from(config.clone()).to_string().contains("DHHC"));
    let mut second = system();
    load(&mut second, &config);
    assert_eq!(saved(&mut second), config);
}

/// A volume whose state is on its members comes back from them, whoever these are by now; only how
/// it works has to be said.
#[test]
fn a_volume_with_metadata_comes_back_and_works_as_before() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = place.path().join(name);
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        json!({"name": name, "filename": path, "block_size": 4096})
    };
    let mut first = system_with_reactor();
    made(
        &mut first,
        &[
            ("bdev_uring_create", file("f0")),
            ("bdev_uring_create", file("f1")),
            ("bdev_uring_create", file("f2")),
            (
                "bdev_raid_create",
                json!({
                    "name": "kept", "raid_level": "raid5", "strip_size_kb": 64, "superblock": true,
                    "base_bdevs": ["f0", "f1", "f2"],
                }),
            ),
        ],
    );
    let plain = saved(&mut first);
    assert_eq!(count(&plain, "bdev_raid_create"), 0);
    assert_eq!(count(&plain, "bdev_raid_set_tuning"), 0);
    let tuning = json!({"name": "kept", "shard_run": 8, "batching": {"preread_limit": 9}});
    made(&mut first, &[("bdev_raid_set_tuning", tuning)]);
    let config = saved(&mut first);
    assert_eq!(count(&config, "bdev_raid_set_tuning"), 1);
    end(first);
    let mut second = system_with_reactor();
    load(&mut second, &config);
    let again = saved(&mut second);
    let volumes = online(&mut second);
    end(second);
    assert_eq!(volumes[0]["name"], "kept");
    assert_eq!(again, config);
}

#[test]
fn a_volume_that_has_lost_a_member_is_made_without_it() {
    let mut first = system_with_reactor();
    let mut calls = everything("127.0.0.42");
    calls.truncate(10);
    made(&mut first, &calls);
    made(
        &mut first,
        &[("bdev_raid_remove_base_bdev", json!({"name": "d"}))],
    );
    let config = saved(&mut first);
    end(first);
    let mut second = system_with_reactor();
    load(&mut second, &config);
    let again = saved(&mut second);
    let volumes = online(&mut second);
    end(second);
    let volume = &volumes[0];
    let member = |slot: usize| volume["base_bdevs_list"][slot]["name"].clone();
    assert_eq!(
        (member(0), member(1), member(2)),
        (json!("z0"), Value::Null, json!("EE_z2"))
    );
    assert_eq!(again, config);
}

#[test]
fn how_a_volume_without_metadata_works_is_fixed() {
    let mut system = system_with_reactor();
    let mut calls = everything("127.0.0.43");
    calls.truncate(10);
    made(&mut system, &calls);
    let tuned = call_now(&mut system, "bdev_raid_set_tuning", json!({"name": "a"}));
    let absent = call_now(&mut system, "bdev_raid_set_tuning", json!({"name": "b"}));
    end(system);
    assert!(tuned.unwrap_err().message.contains("superblock: true"));
    assert_eq!(absent.unwrap_err().code, -19);
}
