//! Arrays that come back: devices in any order, some away, some of no use.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::site::Site;

/// The array `r`, stopped, on files of these names and more.
fn stopped(more: &[&str], params: Value) -> Site {
    let mut files = vec!["a", "b", "c", "d"];
    files.extend(more);
    let mut site = Site::new(&files);
    site.open(&["a", "b", "c", "d"]);
    site.create(params).unwrap();
    site.settle();
    site.restart();
    site
}

/// Bitmaps whose bits stand for little.
fn bitmap() -> Value {
    json!({"bitmap_chunk_kb": 64})
}

#[test]
fn an_array_is_whole_when_its_last_member_comes_in_whatever_order() {
    let mut site = stopped(&[], bitmap());
    let uuid = {
        site.open(&["d"]);
        let waiting = site.array("r");
        assert_eq!(waiting["state"], "configuring");
        let reason = waiting["reason"].as_str().unwrap();
        assert!(reason.contains("3 of 4 members are missing"), "{reason}");
        waiting["uuid"].clone()
    };
    site.open(&["b", "a"]);
    let waiting = site.array("r");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(
        reason.contains("waits for the member of slot 2"),
        "{reason}"
    );
    assert_eq!(waiting["md"]["found"], json!(["a", "b", "d"]));
    assert_eq!(waiting["num_base_bdevs"], 4);
    // Nobody else may have them meanwhile.
    let taken = json!({"base_name": "a"});
    let (code, text) = site.refused("bdev_error_create", taken);
    assert!(code == -16 && text.contains("bdev r"), "{text}");
    site.open(&["c"]);
    let array = site.array("r");
    assert_eq!((&array["state"], &array["uuid"]), (&json!("online"), &uuid));
    assert_eq!(site.members("r"), ["a", "b", "c", "d"]);
    assert_eq!(array["process"], Value::Null);
    assert_eq!(array["md"]["in_sync"], true);
}

#[test]
fn names_of_devices_do_not_matter() {
    let mut site = stopped(&[], bitmap());
    for (from, to) in [("a", "x"), ("b", "a"), ("c", "y")] {
        fs::rename(site.path(from), site.path(to)).unwrap();
    }
    site.open(&["x", "a", "y", "d"]);
    assert_eq!(site.members("r"), ["x", "a", "y", "d"]);
}

#[test]
fn a_member_that_does_not_come_is_not_waited_for_for_ever() {
    let mut site = stopped(&[], bitmap());
    site.open(&["a", "c", "d"]);
    // An hour has not passed.
    let soon = Instant::now() + Duration::from_secs(3000);
    site.system().poll(soon);
    assert_eq!(site.array("r")["state"], "configuring");
    site.system().poll(soon + Duration::from_secs(700));
    let array = site.array("r");
    assert_eq!(array["state"], "online");
    assert_eq!(array["num_base_bdevs_operational"], 3);
    assert_eq!(
        site.members("r"),
        [json!("a"), Value::Null, json!("c"), json!("d")]
    );
    // It comes after all, and lacks nothing, or little.
    site.open(&["b"]);
    site.settle();
    assert_eq!(site.members("r"), ["a", "b", "c", "d"]);
}

#[test]
fn two_that_do_not_come_are() {
    let mut site = stopped(&[], bitmap());
    site.open(&["a", "c"]);
    site.system()
        .poll(Instant::now() + Duration::from_secs(7200));
    let array = site.array("r");
    assert_eq!(array["state"], "configuring");
    let reason = array["reason"].as_str().unwrap();
    assert!(
        reason.contains("2 of 4 members are missing, slots [1, 3]"),
        "{reason}"
    );
    let (code, text) = site.refused("bdev_raid_assemble", json!({"name": "r", "force": true}));
    assert!(code == -11 && text.contains("slots [1, 3]"), "{text}");
    site.open(&["b", "d"]);
    assert_eq!(site.array("r")["state"], "online");
}

#[test]
fn what_was_lost_before_is_not_waited_for() {
    let mut site = Site::new(&["a", "b", "c", "d"]);
    site.open(&["a", "b", "c", "d"]);
    site.create(bitmap()).unwrap();
    site.settle();
    site.call("bdev_raid_remove_base_bdev", json!({"name": "b"}))
        .unwrap();
    site.restart();
    site.open(&["a", "c", "d"]);
    assert_eq!(site.array("r")["state"], "online");
    assert_eq!(site.members("r")[1], Value::Null);
}

#[test]
fn a_stale_member_is_not_used_and_that_is_said() {
    // Without a bitmap nobody knows what it lacks.
    let mut site = stopped(&[], json!({"consistency_policy": "resync"}));
    site.open(&["a", "b", "c", "d"]);
    site.call("bdev_raid_remove_base_bdev", json!({"name": "b"}))
        .unwrap();
    site.restart();
    site.open(&["b", "a", "c", "d"]);
    let array = site.array("r");
    assert_eq!(array["state"], "online");
    assert_eq!(site.members("r")[1], Value::Null);
    let rejected = &array["md"]["rejected"][0];
    assert_eq!(rejected["name"], "b");
    let reason = rejected["reason"].as_str().unwrap();
    assert!(reason.contains("add it again"), "{reason}");
    assert_eq!(site.system().devices.registry.claim_of("b"), None);
    // Added again, it is rebuilt.
    let add = json!({"raid_bdev": "r", "base_bdev": "b"});
    site.call("bdev_raid_add_base_bdev", add).unwrap();
    site.settle();
    site.restart();
    site.open(&["d", "c", "b", "a"]);
    assert_eq!(site.members("r"), ["a", "b", "c", "d"]);
}

#[test]
fn a_copy_of_a_member_stops_the_start_until_it_is_gone() {
    let mut site = stopped(&["copy"], bitmap());
    fs::copy(site.path("b"), site.path("copy")).unwrap();
    site.open(&["copy", "a", "b", "c", "d"]);
    let array = site.array("r");
    assert_eq!(array["state"], "configuring");
    let reason = array["reason"].as_str().unwrap();
    assert!(
        reason.contains("slot 1") && reason.contains("copy"),
        "{reason}"
    );
    site.close("copy");
    // With the names of those that are meant, or by itself with the next device.
    let assemble = json!({"base_bdevs": ["a", "b", "c", "d"]});
    assert_eq!(site.call("bdev_raid_assemble", assemble), Ok("r".into()));
    assert_eq!(site.members("r"), ["a", "b", "c", "d"]);
    // It is of no use later either.
    site.open(&["copy"]);
    assert_eq!(site.system().devices.registry.claim_of("copy"), None);
}

#[test]
fn devices_of_another_array_are_another_array() {
    let mut site = stopped(&["e", "f", "g"], bitmap());
    site.open(&["e", "f", "g"]);
    site.create(json!({"base_bdevs": ["e", "f", "g"]})).unwrap();
    let other = site.array("r")["uuid"].clone();
    // Two arrays of one name: the second has a name of its own.
    site.open(&["a", "b", "c", "d"]);
    let uuid = site.examine("a")["array_uuid"].as_str().unwrap().to_owned();
    let name = format!("r_{}", &uuid[..8]);
    assert_eq!(site.array(&name)["state"], "online");
    assert_eq!(site.array("r")["uuid"], other);
    // By name it is not clear which is meant, once they are stopped.
    for name in ["r", &name] {
        site.call("bdev_raid_delete", json!({"name": name}))
            .unwrap();
    }
    let (code, text) = site.refused("bdev_raid_assemble", json!({"name": "r"}));
    assert!(
        code == -22 && text.contains(&uuid) && text.contains("by its uuid"),
        "{text}"
    );
    let (_, text) = site.refused(
        "bdev_raid_assemble",
        json!({"uuid": other, "base_bdevs": ["a"]}),
    );
    assert!(text.contains("bdev a belongs to another array"), "{text}");
    let only = json!({"base_bdevs": ["a", "b", "c"]});
    assert_eq!(site.call("bdev_raid_assemble", only), Ok("r".into()));
    assert_eq!(site.array("r")["uuid"], json!(uuid));
    let (code, text) = site.refused("bdev_raid_assemble", json!({"name": "r"}));
    assert!(code == -17 && text.contains("started already"), "{text}");
}

#[test]
fn devices_are_left_alone_when_that_is_wished() {
    let mut site = stopped(&[], bitmap());
    site.call("bdev_set_options", json!({"bdev_auto_examine": false}))
        .unwrap();
    site.open(&["a", "b", "c", "d"]);
    assert_eq!(site.array("r"), Value::Null);
    for name in ["a", "b", "c"] {
        site.call("bdev_examine", json!({"name": name})).unwrap();
    }
    assert_eq!(site.array("r")["md"]["found"], json!(["a", "b", "c"]));
    site.call("bdev_examine", json!({"name": "d"})).unwrap();
    assert_eq!(site.array("r")["state"], "online");
    let (code, _) = site.refused("bdev_examine", json!({"name": "x"}));
    assert_eq!(code, -19);
}

/// A configuration that once made the array makes the same calls at every start.
#[test]
fn a_call_that_made_the_array_is_true_once_after_a_restart() {
    let mut site = stopped(&["s"], bitmap());
    site.open(&["a", "b", "c", "d", "s"]);
    let uuid = site.array("r")["uuid"].clone();
    for (more, differs) in [
        (json!({"strip_size_kb": 32}), "chunks of 64 KiB"),
        (json!({"layout": "left-asymmetric"}), "left-symmetric"),
        (json!({"base_bdevs": ["a", "b", "c"]}), "4 members"),
        (
            json!({"base_bdevs": ["a", "b", "c", "s"]}),
            "another member, d",
        ),
        (json!({"consistency_policy": "resync"}), "bitmap"),
        (json!({"uuid": uuid::Uuid::nil()}), "UUID"),
    ] {
        let error = site.create(more).unwrap_err();
        assert!(
            error.code == -17 && error.message.contains(differs),
            "{}",
            error.message
        );
    }
    // A device that is away, or blank in the place of a dead one, makes it no other array.
    site.close("b");
    let named = json!({"base_bdevs": ["a", "s", "c", "d"]});
    assert_eq!(site.create(named), Ok(true.into()));
    assert_eq!(site.array("r")["uuid"], uuid);
    assert_eq!(site.create(json!({})).unwrap_err().code, -17, "it is there");
}

#[test]
fn what_no_member_tells_is_taken_from_that_call() {
    let mut site = stopped(&[], bitmap());
    site.open(&["a", "b", "c", "d"]);
    let tuning = json!({"stripe_size_kb": 16, "shard_run": 2});
    assert_eq!(site.create(tuning), Ok(true.into()));
    let volume = site.system().arrays.volume("r").unwrap().unwrap();
    assert_eq!(
        (volume.config().stripe_bytes, volume.config().shard_run),
        (16384, 2)
    );
    assert_eq!(site.array("r")["state"], "online");
}

#[test]
fn that_call_waits_for_members_that_are_away_as_long_as_the_array_does() {
    let mut site = stopped(&[], bitmap());
    site.open(&["a", "b", "d"]);
    site.call(
        "bdev_raid_set_options",
        json!({"degraded_start_wait_sec": 0}),
    )
    .unwrap();
    assert_eq!(site.create(json!({})), Ok(true.into()));
    assert_eq!(site.array("r")["state"], "online");
    assert_eq!(
        site.call("bdev_wait_for_examine", json!({})),
        Ok(true.into())
    );
}

/// Two members are gone for a while, as with a cable that is pulled.
#[test]
fn an_array_that_has_lost_two_is_started_again_by_force() {
    let mut site = Site::new(&["a", "b", "c", "d"]);
    site.open(&["a", "b", "c", "d"]);
    for name in ["a", "b", "c", "d"] {
        site.call("bdev_error_create", json!({"base_name": name}))
            .unwrap();
    }
    let members = json!({"base_bdevs": ["EE_a", "EE_b", "EE_c", "EE_d"], "bitmap_chunk_kb": 64});
    site.create(members).unwrap();
    site.settle();
    for name in ["EE_b", "EE_d"] {
        let gone = json!({"name": name, "io_type": "all", "error_type": "gone", "num": 1_000_000});
        site.call("bdev_error_inject_error", gone).unwrap();
    }
    // What the array writes by itself may have shown it already: then the check is refused.
    let _ = site.call("bdev_raid_check", json!({"name": "r", "action": "check"}));
    site.wait_for("the volume to be offline", |a| a["state"] == "offline");
    let refused = site.call(
        "bdev_raid_add_base_bdev",
        json!({"raid_bdev": "r", "base_bdev": "EE_b"}),
    );
    assert!(refused.is_err());
    site.call("bdev_raid_delete", json!({"name": "r"})).unwrap();
    for name in ["EE_b", "EE_d"] {
        let clear = json!({"name": name, "io_type": "clear", "error_type": "failure"});
        site.call("bdev_error_inject_error", clear).unwrap();
    }
    let assembled = site.call("bdev_raid_assemble", json!({"name": "r", "force": true}));
    assert_eq!(assembled, Ok("r".into()));
    let array = site.array("r");
    assert_eq!(array["state"], "online", "{array}");
}

#[test]
fn members_of_other_makers_are_left_alone() {
    let mut site = stopped(&[], bitmap());
    // RAID6 in the one field that says so, with a checksum that is right.
    let mut bytes = fs::read(site.path("a")).unwrap();
    let mut superblock = crate::md::Superblock::parse(&bytes[4096..]).unwrap();
    superblock.level = 6;
    superblock.write(&mut bytes[4096..]);
    fs::write(site.path("a"), &bytes).unwrap();
    // A damaged one.
    let mut bytes = fs::read(site.path("b")).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(site.path("b"), &bytes).unwrap();
    site.open(&["a", "b", "c", "d"]);
    let array = site.array("r");
    assert_eq!(array["md"]["found"], json!(["c", "d"]));
    let (_, text) = site.refused("bdev_examine", json!({"name": "a"}));
    assert!(text.contains("RAID level 6"), "{text}");
    let (_, text) = site.refused("bdev_examine", json!({"name": "b"}));
    assert!(text.contains("checksum"), "{text}");
    let text = site.create(json!({"base_bdevs": ["b", "missing", "a"], "name": "x"}));
    let text = text.unwrap_err().message;
    assert!(
        text.contains("bdev b") && text.contains("damaged"),
        "{text}"
    );
}

#[test]
fn a_stopped_array_is_given_another_policy() {
    let mut site = stopped(&["s"], bitmap());
    site.open(&["a", "b", "c", "d", "s"]);
    let spare = json!({"raid_bdev": "r", "base_bdev": "s"});
    site.call("bdev_raid_add_spare", spare).unwrap();
    let change = |to: &str| json!({"name": "r", "consistency_policy": to});
    let (code, text) = site.refused("bdev_raid_set_policy", change("resync"));
    assert!(
        code == -17 && text.contains("bdev_raid_delete stops it"),
        "{text}"
    );
    for (params, policy, chunk) in [
        (change("resync"), "resync", Value::Null),
        (change("ppl"), "ppl", Value::Null),
        (change("bitmap"), "bitmap", json!(65536)),
        (
            json!({"name": "r", "consistency_policy": "bitmap", "bitmap_chunk_kb": 128}),
            "bitmap",
            json!(128),
        ),
    ] {
        site.call("bdev_raid_delete", json!({"name": "r"})).unwrap();
        assert_eq!(site.call("bdev_raid_set_policy", params), Ok(true.into()));
        for device in ["a", "d", "s"] {
            let held = site.examine(device);
            assert_eq!(
                (&held["policy"]["kind"], &held["state"]),
                (&json!(policy), &json!("clean"))
            );
            assert_eq!(
                held["bitmap"]["chunk_bytes"].as_u64(),
                chunk.as_u64().map(|kb| kb * 1024)
            );
        }
        site.call("bdev_raid_assemble", json!({"name": "r"}))
            .unwrap();
        let array = site.array("r");
        assert_eq!(array["md"]["consistency_policy"], policy);
        assert_eq!(array["md"]["in_sync"], true);
        assert_eq!(array["md"]["spares"], json!(["s"]));
    }
    site.call("bdev_raid_delete", json!({"name": "r"})).unwrap();
    site.close("b");
    let (code, text) = site.refused("bdev_raid_set_policy", change("resync"));
    assert!(code == -22 && text.contains("in sync"), "{text}");
    assert_eq!(site.examine("a")["policy"]["kind"], "bitmap");
    let (code, _) = site.refused(
        "bdev_raid_set_policy",
        json!({"consistency_policy": "resync"}),
    );
    assert_eq!(code, -32602);
}

#[test]
fn a_waiting_array_can_be_forgotten() {
    let mut site = stopped(&[], bitmap());
    site.open(&["a", "b"]);
    site.close("a");
    assert_eq!(site.array("r")["md"]["found"], json!(["b"]));
    site.close("b");
    assert_eq!(site.array("r"), Value::Null);
    site.open(&["a", "b"]);
    site.call("bdev_raid_delete", json!({"name": "r", "clear_sb": true}))
        .unwrap();
    assert_eq!(site.array("r"), Value::Null);
    assert!(
        site.refused("bdev_raid_examine", json!({"name": "a"}))
            .1
            .contains("no md superblock")
    );
    assert_eq!(site.system().devices.registry.claim_of("b"), None);
}
