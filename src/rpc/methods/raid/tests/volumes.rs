//! Volumes whose members keep nothing of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::control::System;
use crate::raid::{BatchScope, Batching};
use crate::rpc::testing::{call_and_wait, call_now, end, keys, system, system_with_reactor};

fn members(system: &mut System, names: &[&str]) {
    for name in names {
        let null = json!({"name": name, "num_blocks": 4096, "block_size": 4096});
        call_now(system, "bdev_null_create", null).unwrap();
    }
}

fn create(system: &mut System, more: Value) -> crate::rpc::Outcome {
    let mut params = json!({
        "name": "r", "strip_size_kb": 64, "raid_level": "raid5", "base_bdevs": ["a", "b", "c", "d"],
    });
    params
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    call_now(system, "bdev_raid_create", params)
}

fn list(system: &mut System, category: &str) -> Vec<Value> {
    let listed = call_now(system, "bdev_raid_get_bdevs", json!({"category": category}));
    listed.unwrap().as_array().unwrap().clone()
}

#[test]
fn a_volume_with_all_members_is_online_and_has_spdks_shape() {
    let mut owned = system_with_reactor();
    let system = &mut owned;
    members(system, &["a", "b", "c", "d"]);
    let uuid = "7d352e83-fe27-40f2-8fef-64563355e076";
    assert_eq!(
        create(system, json!({"raid_level": "5f", "uuid": uuid})),
        Ok(true.into())
    );
    let listed = list(system, "online");
    let expected = [
        "name",
        "uuid",
        "strip_size_kb",
        "state",
        "raid_level",
        "superblock",
        "num_base_bdevs",
        "num_base_bdevs_discovered",
        "num_base_bdevs_operational",
        "base_bdevs_list",
    ];
    assert_eq!(keys(&listed[0]), expected);
    let volume = &listed[0];
    assert_eq!(volume["uuid"], uuid);
    assert_eq!(volume["raid_level"], "raid5f");
    assert_eq!(volume["num_base_bdevs_operational"], 4);
    let slot = &volume["base_bdevs_list"][1];
    assert_eq!(
        keys(slot),
        ["name", "uuid", "is_configured", "data_offset", "data_size"]
    );
    assert_eq!(
        (&slot["name"], &slot["data_size"]),
        (&json!("b"), &json!(4096))
    );
    assert!(list(system, "configuring").is_empty() && list(system, "offline").is_empty());

    let device = call_now(system, "bdev_get_bdevs", json!({"name": "r"})).unwrap();
    // Three of four members hold data.
    assert_eq!(device[0]["num_blocks"], 3 * 4096);
    let mut inside = volume.clone();
    inside.as_object_mut().unwrap().shift_remove("name");
    assert_eq!(device[0]["driver_specific"]["raid"], inside);

    assert_eq!(
        call_now(system, "bdev_raid_delete", json!({"name": "r"})),
        Ok(true.into())
    );
    assert!(list(system, "all").is_empty());
    for name in ["a", "b", "c", "d"] {
        call_now(system, "bdev_null_delete", json!({"name": name})).unwrap();
    }
    end(owned);
}

#[test]
fn a_volume_waits_for_its_members() {
    let mut owned = system_with_reactor();
    let system = &mut owned;
    members(system, &["a", "c"]);
    create(system, json!({})).unwrap();
    let listed = list(system, "configuring");
    let volume = &listed[0];
    assert_eq!(
        (&volume["state"], &volume["num_base_bdevs"]),
        (&json!("configuring"), &json!(4))
    );
    assert_eq!(volume["num_base_bdevs_discovered"], 2);
    assert_eq!(volume["num_base_bdevs_operational"], 4);
    let absent = json!({
        "name": "b", "uuid": Uuid::nil(), "is_configured": false, "data_offset": 0, "data_size": 0,
    });
    assert_eq!(volume["base_bdevs_list"][1], absent);
    let taken = json!({"name": "r", "num_blocks": 8, "block_size": 512});
    assert_eq!(
        call_now(system, "bdev_null_create", taken)
            .unwrap_err()
            .code,
        -17
    );
    members(system, &["d"]);
    assert_eq!(list(system, "configuring").len(), 1);
    members(system, &["b"]);
    assert_eq!(list(system, "online").len(), 1);
    end(owned);
}

#[test]
fn a_waiting_volume_takes_another_member_and_lets_one_go() {
    let mut owned = system_with_reactor();
    let system = &mut owned;
    members(system, &["a", "b", "c", "e"]);
    create(system, json!({})).unwrap();
    let remove = json!({"name": "b"});
    assert_eq!(
        call_now(system, "bdev_raid_remove_base_bdev", remove),
        Ok(true.into())
    );
    let add = |system: &mut System, name| {
        call_now(
            system,
            "bdev_raid_add_base_bdev",
            json!({"raid_bdev": "r", "base_bdev": name}),
        )
    };
    assert_eq!(add(system, "e"), Ok(true.into()));
    assert_eq!(add(system, "b"), Ok(true.into()));
    let listed = list(system, "online");
    let names: Vec<_> = (0..4)
        .map(|n| &listed[0]["base_bdevs_list"][n]["name"])
        .collect();
    assert_eq!(names, ["a", "e", "c", "b"]);
    end(owned);
}

#[test]
fn members_leave_and_come_while_the_volume_is_online() {
    let mut owned = system_with_reactor();
    let system = &mut owned;
    members(system, &["a", "b", "c", "d", "spare"]);
    create(system, json!({})).unwrap();
    let remove = |system: &mut System, name| {
        call_and_wait(system, "bdev_raid_remove_base_bdev", json!({"name": name}))
    };
    let add = |system: &mut System, name| {
        let params = json!({"raid_bdev": "r", "base_bdev": name});
        call_and_wait(system, "bdev_raid_add_base_bdev", params)
    };
    let full = add(system, "spare").unwrap_err();
    assert!(
        full.code == -17 && full.message.contains("every slot"),
        "{}",
        full.message
    );
    assert_eq!(system.devices.registry.claim_of("spare"), None);

    assert_eq!(remove(system, "b"), Ok(true.into()));
    let listed = list(system, "online");
    assert_eq!(listed[0]["num_base_bdevs_discovered"], 3);
    assert_eq!(listed[0]["num_base_bdevs_operational"], 3);
    assert_eq!(listed[0]["base_bdevs_list"][1]["name"], Value::Null);
    assert_eq!(system.devices.registry.claim_of("b"), None);
    let last = remove(system, "c").unwrap_err();
    assert!(
        last.code == -16 && last.message.contains("would be lost"),
        "{}",
        last.message
    );
    let last = call_and_wait(system, "bdev_null_delete", json!({"name": "c"})).unwrap_err();
    assert_eq!(last.code, -16);

    assert_eq!(add(system, "spare"), Ok(true.into()));
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let listed = list(system, "online");
        assert_eq!(listed[0]["base_bdevs_list"][1]["name"], "spare");
        let Some(process) = listed[0].get("process") else {
            break;
        };
        assert_eq!(keys(process), ["type", "target", "progress"]);
        assert_eq!(
            (&process["type"], &process["target"]),
            (&json!("rebuild"), &json!("spare"))
        );
        assert_eq!(keys(&process["progress"]), ["blocks", "percent"]);
        assert!(Instant::now() < give_up, "{process}");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A device that is deleted leaves its volume first.
    assert_eq!(
        call_and_wait(system, "bdev_null_delete", json!({"name": "a"})),
        Ok(true.into())
    );
    assert_eq!(
        list(system, "online")[0]["base_bdevs_list"][0]["name"],
        Value::Null
    );
    assert!(system.devices.find("a").is_err());
    assert_eq!(
        call_now(system, "bdev_raid_delete", json!({"name": "r"})),
        Ok(true.into())
    );
    for name in ["b", "c", "d", "spare"] {
        assert_eq!(system.devices.registry.claim_of(name), None);
    }
    end(owned);
}

#[test]
fn bad_volumes_are_refused_and_hold_nothing() {
    let mut owned = system_with_reactor();
    let system = &mut owned;
    members(system, &["a", "b", "c", "d", "held", "x"]);
    call_now(system, "bdev_error_create", json!({"base_name": "held"})).unwrap();
    let small = json!({"name": "small", "num_blocks": 8, "block_size": 512});
    call_now(system, "bdev_null_create", small).unwrap();
    for (params, code, names) in [
        (json!({"base_bdevs": ["a", "b"]}), -22, "3 to 64"),
        (json!({"base_bdevs": ["a", "b", "a"]}), -22, "named twice"),
        (json!({"base_bdevs": ["a", "b", ""]}), -22, "empty"),
        (json!({"base_bdevs": ["a", "b", "r"]}), -22, "itself"),
        (json!({"base_bdevs": ["a", "b", "held"]}), -16, "EE_held"),
        (
            json!({"base_bdevs": ["a", "b", "small"]}),
            -22,
            "blocks of 512",
        ),
        (
            json!({"base_bdevs": "a b c"}),
            -32602,
            "base_bdevs: invalid type",
        ),
        (
            json!({"strip_size_kb": 0}),
            -22,
            "power of two from 4 to 1024",
        ),
        (json!({"strip_size_kb": 48}), -22, "power of two"),
        (json!({"strip_size_kb": 2}), -22, "power of two"),
        (json!({"strip_size_kb": 2048}), -22, "power of two"),
        (json!({"raid_level": "raid1"}), -32602, "use \"raid5\""),
        (json!({"raid_level": "0"}), -32602, "raid_level"),
        (json!({"superblock": true}), -5, "does not give back"),
        (json!({"layout": "left"}), -32602, "left-symmetric"),
        (json!({"name": ""}), -22, "needs a name"),
        (json!({"name": "x"}), -17, "x already exists"),
        (json!({"uuid": "x"}), -32602, "uuid"),
        (json!({"stripe_size_kb": 2}), -22, "4 KiB to the chunk"),
        (json!({"stripe_size_kb": 128}), -22, "4 KiB to the chunk"),
        (json!({"shard_run": 0}), -22, "1 or more"),
        (
            json!({"batching": {"scope": "all"}}),
            -32602,
            "off, row, rows, owners",
        ),
        (
            json!({"batching": {"request_size_kb": 2}}),
            -22,
            "4 to 1024",
        ),
        (json!({"batching": {"preread_limit": 0}}), -22, "1 or more"),
        (
            json!({"batching": {"join_wait_us": 1_000_001}}),
            -22,
            "1000000",
        ),
        (
            json!({"batching": {"partial_wait": 1}}),
            -32602,
            "partial_wait",
        ),
    ] {
        let error = create(system, params.clone()).unwrap_err();
        assert_eq!(error.code, code, "{params}: {}", error.message);
        assert!(error.message.contains(names), "{params}: {}", error.message);
        for name in ["a", "b", "c", "d"] {
            assert_eq!(system.devices.registry.claim_of(name), None, "{params}");
        }
    }
    assert!(list(system, "all").is_empty());
    create(system, json!({})).unwrap();
    assert_eq!(create(system, json!({})).unwrap_err().code, -17);
    end(owned);
}

#[test]
fn batching_is_set_and_its_counts_are_shown() {
    let mut owned = system_with_reactor();
    let system = &mut owned;
    members(system, &["a", "b", "c", "d"]);
    let batching = json!({
        "scope": "rows",
        "request_size_kb": 64,
        "preread_limit": 7,
        "partial_wait_us": 0,
        "join_wait_us": 3,
    });
    create(
        system,
        json!({"stripe_size_kb": 16, "shard_run": 2, "batching": batching}),
    )
    .unwrap();
    let volume = system
        .arrays
        .volume("r")
        .unwrap()
        .expect("it has all members");
    let config = volume.config();
    assert_eq!((config.stripe_bytes, config.shard_run), (16384, 2));
    let expected = Batching {
        scope: BatchScope::Rows,
        request_bytes: 65536,
        preread_limit: 7,
        partial_wait: Duration::ZERO,
        join_wait: Duration::from_micros(3),
    };
    assert_eq!(config.batching, expected);
    let stat = call_now(system, "bdev_get_iostat", json!({"name": "r"})).unwrap();
    let counts = &stat["bdevs"][0]["driver_specific"]["stripe_cache"];
    for key in [
        "batches",
        "joins",
        "lock_waits",
        "preread_active",
        "waiting",
    ] {
        assert_eq!(counts[key], 0, "{key}");
    }
    assert_eq!(counts["joins_refused"]["closed"], 0);
    end(owned);
}

#[test]
fn what_is_no_volume_and_no_member_is_told() {
    let system = &mut system();
    members(system, &["a"]);
    for (method, params, code, names) in [
        (
            "bdev_raid_delete",
            json!({"name": "r"}),
            -19,
            "raid bdev r not found",
        ),
        (
            "bdev_raid_add_base_bdev",
            json!({"raid_bdev": "r", "base_bdev": "a"}),
            -19,
            "raid bdev r not found",
        ),
        (
            "bdev_raid_add_base_bdev",
            json!({"raid_bdev": "r", "base_bdev": "x"}),
            -19,
            "x does not exist",
        ),
        (
            "bdev_raid_remove_base_bdev",
            json!({"name": "a"}),
            -19,
            "no member",
        ),
        (
            "bdev_raid_remove_base_bdev",
            json!({"name": "x"}),
            -19,
            "x does not exist",
        ),
        (
            "bdev_raid_get_bdevs",
            json!({"category": "some"}),
            -32602,
            "category",
        ),
        ("bdev_raid_get_bdevs", json!({}), -32602, "category"),
        (
            "bdev_raid_set_options",
            json!({"process_window_size_kb": 0}),
            -32602,
            "process_window_size_kb",
        ),
    ] {
        let error = call_now(system, method, params).unwrap_err();
        assert_eq!(error.code, code, "{method}: {}", error.message);
        assert!(error.message.contains(names), "{method}: {}", error.message);
    }
}

#[test]
fn the_pace_of_rebuilds_is_set_in_spdks_units() {
    let system = &mut system();
    let options = json!({"process_window_size_kb": 512, "process_max_bandwidth_mb_sec": 10});
    call_now(system, "bdev_raid_set_options", options).unwrap();
    call_now(system, "bdev_raid_set_options", json!({})).unwrap();
    let rebuild = system.arrays.rebuild();
    assert_eq!(rebuild.window_bytes, 512 * 1024);
    assert_eq!(rebuild.bytes_per_second, 10 * 1024 * 1024);
}

#[test]
fn a_volume_keeps_its_identity_as_long_as_its_members_do() {
    let mut identities = Vec::new();
    for last in [4, 4, 5] {
        let mut owned = system_with_reactor();
        let system = &mut owned;
        for (name, number) in [("a", 1), ("b", 2), ("c", 3), ("d", last)] {
            let null = json!({
                "name": name, "num_blocks": 4096, "block_size": 4096,
                "uuid": Uuid::from_u128(number),
            });
            call_now(system, "bdev_null_create", null).unwrap();
        }
        create(system, json!({})).unwrap();
        identities.push(list(system, "all")[0]["uuid"].clone());
        end(owned);
    }
    assert_eq!(identities[0], identities[1]);
    assert_ne!(identities[0], identities[2]);
}
