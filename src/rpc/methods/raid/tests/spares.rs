//! What keeps a volume whole: spares, members that come back, checks.

use std::time::Instant;

use serde_json::{Value, json};

use super::site::Site;

/// The array `r` with these devices beside its members.
fn running(more: &[&str], params: Value) -> Site {
    let mut files = vec!["a", "b", "c", "d"];
    files.extend(more);
    let mut site = Site::new(&files);
    site.open(&files);
    site.create(params).unwrap();
    site.settle();
    site
}

fn bitmap() -> Value {
    json!({"bitmap_chunk_kb": 64})
}

#[test]
fn a_spare_takes_the_place_of_a_lost_member() {
    let mut site = running(&["s", "t"], bitmap());
    for spare in ["s", "t"] {
        let add = json!({"raid_bdev": "r", "base_bdev": spare});
        site.call("bdev_raid_add_spare", add).unwrap();
        assert_eq!(site.examine(spare)["role"], "spare");
    }
    assert_eq!(site.array("r")["md"]["spares"], json!(["s", "t"]));
    site.call("bdev_raid_remove_base_bdev", json!({"name": "b"}))
        .unwrap();
    let array = site.wait_for("a spare", |a| a["base_bdevs_list"][1]["name"] == "s");
    assert_eq!(array["md"]["spares"], json!(["t"]));
    site.settle();
    let held = site.examine("s");
    assert_eq!(held["role"], json!(1));
    // A number that no other device has.
    assert_eq!(held["device_number"], 4);
    assert_eq!(site.examine("t")["device_number"], 5);
    site.restart();
    site.open(&["t", "s", "a", "b", "c", "d"]);
    assert_eq!(site.members("r"), ["a", "s", "c", "d"]);
    let array = site.array("r");
    assert_eq!(array["md"]["spares"], json!(["t"]));
    // The one that was lost is of no use any more.
    assert_eq!(array["md"]["rejected"][0]["name"], "b");
}

#[test]
fn a_spare_takes_over_whatever_the_policy() {
    for policy in ["resync", "ppl"] {
        let mut site = running(&["s"], json!({"consistency_policy": policy}));
        let add = json!({"raid_bdev": "r", "base_bdev": "s"});
        site.call("bdev_raid_add_spare", add).unwrap();
        site.call("bdev_raid_remove_base_bdev", json!({"name": "b"}))
            .unwrap();
        site.wait_for("a spare", |a| a["base_bdevs_list"][1]["name"] == "s");
        site.settle();
        site.restart();
        site.open(&["s", "a", "b", "c", "d"]);
        assert_eq!(site.members("r"), ["a", "s", "c", "d"], "{policy}");
        assert_eq!(site.array("r")["md"]["in_sync"], true);
    }
}

#[test]
fn a_spare_is_let_go_and_is_none_any_more() {
    let mut site = running(&["s"], bitmap());
    let spare = json!({"raid_bdev": "r", "base_bdev": "s"});
    let (code, text) = site.refused("bdev_raid_remove_spare", spare.clone());
    assert!(code == -19 && text.contains("no spare"), "{text}");
    site.call("bdev_raid_add_spare", spare.clone()).unwrap();
    let (code, _) = site.refused("bdev_raid_add_spare", spare.clone());
    assert_eq!(code, -16, "it is one");
    site.call("bdev_raid_remove_spare", spare.clone()).unwrap();
    assert_eq!(site.array("r")["md"]["spares"], json!([]));
    assert_eq!(site.system().devices.registry.claim_of("s"), None);
    assert!(
        site.refused("bdev_raid_examine", json!({"name": "s"}))
            .1
            .contains("no md superblock")
    );
    // A spare whose device goes is no spare any more, too.
    site.call("bdev_raid_add_spare", spare).unwrap();
    site.close("s");
    assert_eq!(site.array("r")["md"]["spares"], json!([]));
    site.open(&["s"]);
    assert_eq!(site.array("r")["md"]["spares"], json!(["s"]));
}

#[test]
fn what_cannot_be_a_spare_is_told() {
    let mut site = running(&["s"], bitmap());
    let small = json!({"name": "small", "num_blocks": 4096, "block_size": 512});
    site.call("bdev_malloc_create", small).unwrap();
    let odd = json!({"name": "odd", "num_blocks": 4096, "block_size": 4096});
    site.call("bdev_malloc_create", odd).unwrap();
    let null = json!({"name": "null", "num_blocks": 16384, "block_size": 512});
    site.call("bdev_null_create", null).unwrap();
    for (device, code, says) in [
        (
            "small",
            -22,
            "small cannot join: the device has 4096 sectors",
        ),
        ("odd", -22, "odd has blocks of 4096"),
        ("null", -5, "does not give back"),
        ("a", -16, "in use by bdev r"),
        ("x", -19, "does not exist"),
    ] {
        let params = json!({"raid_bdev": "r", "base_bdev": device});
        let (got, text) = site.refused("bdev_raid_add_spare", params);
        assert!(got == code && text.contains(says), "{device}: {got} {text}");
    }
    assert_eq!(site.array("r")["md"]["spares"], json!([]));
    let plain = json!({
        "name": "plain", "strip_size_kb": 64, "raid_level": "raid5", "superblock": false,
        "base_bdevs": ["x", "y", "z"],
    });
    site.call("bdev_raid_create", plain).unwrap();
    let params = json!({"raid_bdev": "plain", "base_bdev": "s"});
    let (code, text) = site.refused("bdev_raid_add_spare", params);
    assert!(code == -11 && text.contains("not started"), "{text}");
}

#[test]
fn a_member_that_was_away_brings_what_it_has() {
    let mut site = running(&[], bitmap());
    site.call("bdev_raid_remove_base_bdev", json!({"name": "c"}))
        .unwrap();
    let number = site.examine("c")["device_number"].clone();
    let identity = site.examine("c")["device_uuid"].clone();
    let add = json!({"raid_bdev": "r", "base_bdev": "c"});
    site.call("bdev_raid_add_base_bdev", add).unwrap();
    site.settle();
    let held = site.examine("c");
    assert_eq!(
        (&held["device_number"], &held["device_uuid"]),
        (&number, &identity)
    );
    // Its device goes and comes: nobody has to say anything.
    site.close("c");
    assert_eq!(site.members("r")[2], Value::Null);
    site.open(&["c"]);
    site.settle();
    assert_eq!(site.examine("c")["device_uuid"], identity);
}

#[test]
fn what_the_bitmap_knows_no_more_is_not_relied_on() {
    let mut site = Site::new(&["a", "b", "c", "d", "s"]);
    site.open(&["a", "b", "c", "d", "s"]);
    // All bits are set as long as parity is being made, and while a member is away.
    let slow = json!({"process_max_bandwidth_mb_sec": 1, "process_window_size_kb": 64});
    site.call("bdev_raid_set_options", slow).unwrap();
    site.create(bitmap()).unwrap();
    site.call("bdev_raid_remove_base_bdev", json!({"name": "c"}))
        .unwrap();
    let fast = json!({"process_max_bandwidth_mb_sec": 0});
    site.call("bdev_raid_set_options", fast).unwrap();
    let seen = site.examine("c")["events"].as_u64().unwrap();
    let identity = site.examine("c")["device_uuid"].clone();
    let add = json!({"raid_bdev": "r", "base_bdev": "s"});
    site.call("bdev_raid_add_base_bdev", add).unwrap();
    site.settle();
    // The array is whole without it, and clears the bits of what was rebuilt.
    let until = Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let bitmap = site.examine("a")["bitmap"].clone();
        if bitmap["dirty"] == 0 && bitmap["events_cleared"].as_u64().unwrap() > seen {
            break;
        }
        assert!(Instant::now() < until, "{bitmap}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Its slot is free again, but it is too old.
    site.call("bdev_raid_remove_base_bdev", json!({"name": "s"}))
        .unwrap();
    let (code, text) = site.refused("bdev_examine", json!({"name": "c"}));
    assert!(code == -116, "{text}");
    let add = json!({"raid_bdev": "r", "base_bdev": "c"});
    site.call("bdev_raid_add_base_bdev", add).unwrap();
    site.settle();
    assert_ne!(
        site.examine("c")["device_uuid"],
        identity,
        "it is a new one"
    );
}

#[test]
fn without_a_bitmap_it_is_a_new_member() {
    let mut site = running(&[], json!({"consistency_policy": "resync"}));
    let identity = site.examine("c")["device_uuid"].clone();
    site.close("c");
    site.open(&["c"]);
    site.system().poll(Instant::now());
    assert_eq!(
        site.members("r")[2],
        Value::Null,
        "it is not taken without being asked for"
    );
    let (code, text) = site.refused("bdev_examine", json!({"name": "c"}));
    assert!(
        code == -116 && text.contains("gone on without it"),
        "{text}"
    );
    let add = json!({"raid_bdev": "r", "base_bdev": "c"});
    site.call("bdev_raid_add_base_bdev", add).unwrap();
    site.settle();
    let held = site.examine("c");
    assert_ne!(held["device_uuid"], identity);
    assert_eq!(
        (&held["device_number"], &held["role"]),
        (&json!(4), &json!(2))
    );
}

#[test]
fn a_device_of_another_array_is_added_by_force_only() {
    let mut site = running(&["e", "f", "g"], bitmap());
    let other = json!({"name": "other", "base_bdevs": ["e", "f", "g"]});
    site.create(other).unwrap();
    site.call("bdev_raid_delete", json!({"name": "other"}))
        .unwrap();
    site.call("bdev_raid_remove_base_bdev", json!({"name": "c"}))
        .unwrap();
    for method in ["bdev_raid_add_base_bdev", "bdev_raid_add_spare"] {
        let params = json!({"raid_bdev": "r", "base_bdev": "e"});
        let (code, text) = site.refused(method, params);
        assert!(
            code == -17 && text.contains("\"other\"") && text.contains("force"),
            "{text}"
        );
        assert_eq!(site.system().devices.registry.claim_of("e"), None);
    }
    let forced = json!({"raid_bdev": "r", "base_bdev": "e", "force": true});
    site.call("bdev_raid_add_base_bdev", forced).unwrap();
    site.settle();
    assert_eq!(site.members("r"), ["a", "b", "e", "d"]);
    let add = json!({"raid_bdev": "r", "base_bdev": "f", "force": true});
    let (code, _) = site.refused("bdev_raid_add_base_bdev", add);
    assert_eq!(code, -17, "every slot has a member");
    assert_eq!(site.examine("f")["name"], "other", "it was not touched");
}

#[test]
fn a_member_is_replaced_while_it_works() {
    let mut site = running(&["s", "t", "u"], bitmap());
    let spare = json!({"raid_bdev": "r", "base_bdev": "s"});
    site.call("bdev_raid_add_spare", spare).unwrap();
    // By a spare, and by a device that was none.
    for (old, new, members) in [
        ("b", "s", ["a", "s", "c", "d"]),
        ("a", "t", ["t", "s", "c", "d"]),
    ] {
        let params = json!({"name": old, "base_bdev": new});
        site.call("bdev_raid_replace_base_bdev", params).unwrap();
        site.wait_for("the replacement", |a| {
            let slots = a["base_bdevs_list"].as_array().unwrap();
            slots
                .iter()
                .zip(members)
                .all(|(slot, name)| slot["name"] == name)
        });
        assert_eq!(site.system().devices.registry.claim_of(old), None);
    }
    assert_eq!(site.array("r")["md"]["spares"], json!([]));
    // One that is given up is let go.
    let slow = json!({"process_max_bandwidth_mb_sec": 1, "process_window_size_kb": 64});
    site.call("bdev_raid_set_options", slow).unwrap();
    site.call(
        "bdev_raid_replace_base_bdev",
        json!({"name": "c", "base_bdev": "u"}),
    )
    .unwrap();
    let process = site.array("r")["process"].clone();
    assert_eq!(
        (&process["type"], &process["target"]),
        (&json!("replace"), &json!("u"))
    );
    assert!(site.system().devices.registry.claim_of("u").is_some());
    site.call("bdev_raid_check", json!({"name": "r", "action": "pause"}))
        .unwrap();
    site.system().poll(Instant::now());
    assert_eq!(site.system().devices.registry.claim_of("u"), None);
    site.restart();
    site.open(&["a", "b", "c", "d", "s", "t", "u"]);
    assert_eq!(site.members("r"), ["t", "s", "c", "d"]);
}

fn stopped_while_c_is_replaced_by_s() -> Site {
    let mut site = running(&["s"], bitmap());
    let slow = json!({"process_max_bandwidth_mb_sec": 1, "process_window_size_kb": 64});
    site.call("bdev_raid_set_options", slow).unwrap();
    site.call(
        "bdev_raid_replace_base_bdev",
        json!({"name": "c", "base_bdev": "s"}),
    )
    .unwrap();
    site.stop_during("replace");
    site
}

#[test]
fn a_replacement_goes_on_after_a_restart() {
    let mut site = stopped_while_c_is_replaced_by_s();
    site.open(&["a", "b", "c", "d", "s"]);
    assert_eq!(site.members("r"), ["a", "b", "c", "d"]);
    site.wait_for("the replacement", |a| {
        a["base_bdevs_list"][2]["name"] == "s" && a["process"].is_null()
    });
    assert_eq!(site.system().devices.registry.claim_of("c"), None);
    assert_eq!(site.array("r")["md"]["spares"], json!([]));
}

#[test]
fn what_was_to_replace_a_member_takes_the_place_of_one_that_is_lost() {
    let mut site = stopped_while_c_is_replaced_by_s();
    site.open(&["a", "b", "c", "s"]);
    site.call("bdev_raid_assemble", json!({"name": "r"}))
        .unwrap();
    site.settle();
    assert_eq!(site.members("r"), ["a", "b", "c", "s"]);
}

#[test]
fn what_cannot_replace_or_be_replaced_is_told() {
    let mut site = running(&["s", "t"], bitmap());
    let small = json!({"name": "small", "num_blocks": 4096, "block_size": 512});
    site.call("bdev_malloc_create", small).unwrap();
    let spare = json!({"raid_bdev": "r", "base_bdev": "s"});
    site.call("bdev_raid_add_spare", spare).unwrap();
    for (old, new, code, says) in [
        ("t", "s", -19, "t is no member"),
        ("s", "t", -19, "s is no member"),
        ("a", "b", -16, "in use by bdev r"),
        ("a", "small", -22, "small cannot join"),
        ("a", "x", -19, "does not exist"),
    ] {
        let params = json!({"name": old, "base_bdev": new});
        let (got, text) = site.refused("bdev_raid_replace_base_bdev", params);
        assert!(
            got == code && text.contains(says),
            "{old} by {new}: {got} {text}"
        );
    }
    site.call(
        "bdev_raid_remove_spare",
        json!({"raid_bdev": "r", "base_bdev": "s"}),
    )
    .unwrap();
    site.call("bdev_raid_remove_base_bdev", json!({"name": "b"}))
        .unwrap();
    let params = json!({"name": "a", "base_bdev": "t"});
    let (code, text) = site.refused("bdev_raid_replace_base_bdev", params);
    assert!(
        code == -22 && text.contains("while all are there"),
        "{text}"
    );
    assert_eq!(site.system().devices.registry.claim_of("t"), None);
}

#[test]
fn checks_begin_end_and_are_left() {
    let mut site = running(&[], bitmap());
    let action = |action: &str| json!({"name": "r", "action": action});
    site.call("bdev_raid_check", action("check")).unwrap();
    let done = site.wait_for("the check to end", |a| a["process"].is_null());
    assert_eq!(done["md"]["mismatch_sectors"], 0);
    let (code, text) = site.refused("bdev_raid_check", action("stop"));
    assert!(code == -22 && text.contains("not being checked"), "{text}");

    let slow = json!({"process_max_bandwidth_mb_sec": 1, "process_window_size_kb": 64});
    site.call("bdev_raid_set_options", slow).unwrap();
    site.call("bdev_raid_check", action("repair")).unwrap();
    let process = site.array("r")["process"].clone();
    assert_eq!(
        (&process["type"], &process["mismatch_sectors"]),
        (&json!("repair"), &json!(0))
    );
    let (_, text) = site.refused("bdev_raid_check", action("check"));
    assert!(text.contains("a repair is under way"), "{text}");
    site.call("bdev_raid_check", action("stop")).unwrap();
    let array = site.array("r");
    assert_eq!(
        (&array["process"], &array["md"]["paused"]),
        (&Value::Null, &json!(false))
    );

    // What has to be done is put off, and gone on with.
    site.call("bdev_raid_remove_base_bdev", json!({"name": "c"}))
        .unwrap();
    let add = json!({"raid_bdev": "r", "base_bdev": "c"});
    site.call("bdev_raid_add_base_bdev", add).unwrap();
    site.call("bdev_raid_check", action("pause")).unwrap();
    let array = site.array("r");
    assert_eq!(
        (&array["process"], &array["md"]["paused"]),
        (&Value::Null, &json!(true))
    );
    let fast = json!({"process_max_bandwidth_mb_sec": 0});
    site.call("bdev_raid_set_options", fast).unwrap();
    site.call("bdev_raid_check", action("resume")).unwrap();
    site.settle();
    let (_, text) = site.refused("bdev_raid_check", json!({"name": "r", "action": "guess"}));
    assert!(text.contains("action"), "{text}");
    let (code, _) = site.refused("bdev_raid_accept_parity", json!({"name": "r"}));
    assert_eq!(code, -22, "there is no doubt about it");
}
