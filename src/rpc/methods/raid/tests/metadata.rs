//! Volumes whose members keep what is known of them: made, shown, deleted.

use serde_json::{Value, json};
use uuid::Uuid;

use super::site::{BYTES, Site};
use crate::rpc::testing::keys;

#[test]
fn a_new_array_is_shown_in_spdks_shape_with_what_we_add() {
    let mut site = Site::new(&["a", "b", "c", "d"]);
    site.open(&["a", "b", "c", "d"]);
    let uuid = Uuid::from_u128(0x77);
    assert_eq!(site.create(json!({"uuid": uuid})), Ok(true.into()));
    let array = site.settle();
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
        "layout",
        "md",
    ];
    assert_eq!(keys(&array), expected);
    assert_eq!(array["uuid"], json!(uuid));
    assert_eq!(
        (&array["superblock"], &array["state"]),
        (&json!(true), &json!("online"))
    );
    // 1 MiB of 8 is for metadata: mdadm's place for a device of this size.
    let slot = &array["base_bdevs_list"][2];
    assert_eq!(
        (&slot["name"], &slot["data_offset"], &slot["data_size"]),
        (&json!("c"), &json!(2048), &json!(7 * 2048))
    );
    let md = &array["md"];
    assert_eq!(md["consistency_policy"], "bitmap");
    assert_eq!((&md["spares"], &md["rejected"]), (&json!([]), &json!([])));
    assert_eq!(
        (&md["doubtful"], &md["paused"]),
        (&json!(false), &json!(false))
    );
    let device = site.call("bdev_get_bdevs", json!({"name": "r"})).unwrap();
    assert_eq!(device[0]["num_blocks"], 3 * 7 * 2048);
    assert_eq!(device[0]["uuid"], json!(uuid));
}

#[test]
fn what_is_asked_for_is_what_the_members_say() {
    let cases = [
        (json!({}), "bitmap", json!(65536)),
        (json!({"bitmap_chunk_kb": 64}), "bitmap", json!(64)),
        (
            json!({"consistency_policy": "bitmap"}),
            "bitmap",
            json!(65536),
        ),
        (
            json!({"consistency_policy": "resync"}),
            "resync",
            Value::Null,
        ),
        (json!({"consistency_policy": "ppl"}), "ppl", Value::Null),
    ];
    for (more, policy, chunk) in cases {
        let mut site = Site::new(&["a", "b", "c", "d", "s"]);
        site.open(&["a", "b", "c", "d", "s"]);
        let mut params = json!({"spares": ["s"], "layout": "right-asymmetric"});
        params
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        site.create(params).unwrap();
        site.settle();
        let array = site.array("r");
        assert_eq!(array["md"]["consistency_policy"], policy);
        assert_eq!(array["md"]["bitmap_chunk_kb"], chunk);
        assert_eq!(array["md"]["spares"], json!(["s"]));
        for (device, role) in [("a", json!(0)), ("d", json!(3)), ("s", json!("spare"))] {
            let held = site.examine(device);
            assert_eq!(held["role"], role);
            assert_eq!(held["array_uuid"], array["uuid"]);
            assert_eq!(
                (&held["version"], &held["name"]),
                (&json!("1.2"), &json!("r"))
            );
            assert_eq!(held["layout_name"], "right-asymmetric");
            assert_eq!(held["policy"]["kind"], policy);
            assert_eq!(held["chunk"], 128);
            assert_eq!(held["array_state"], "AAAA");
            assert_eq!(held["supported"], true);
        }
    }
}

#[test]
fn a_new_array_makes_its_parity_unless_it_is_told_that_it_is_right() {
    for (clean, works) in [(false, true), (true, false)] {
        let mut site = Site::new(&["a", "b", "c", "d"]);
        site.open(&["a", "b", "c", "d"]);
        let slow = json!({"process_max_bandwidth_mb_sec": 1, "process_window_size_kb": 64});
        site.call("bdev_raid_set_options", slow).unwrap();
        site.create(json!({"assume_clean": clean})).unwrap();
        let array = site.array("r");
        assert_eq!(array["process"]["type"] == "resync", works, "{array}");
        assert_eq!(array["md"]["in_sync"], !works);
        let fast = json!({"process_max_bandwidth_mb_sec": 0});
        site.call("bdev_raid_set_options", fast).unwrap();
        site.settle();
    }
}

#[test]
fn an_array_can_be_made_without_a_member() {
    let mut site = Site::new(&["a", "b", "c", "d"]);
    site.open(&["a", "b", "c", "d"]);
    site.create(json!({"base_bdevs": ["a", "missing", "c", "d"]}))
        .unwrap();
    assert_eq!(
        site.members("r"),
        [json!("a"), Value::Null, json!("c"), json!("d")]
    );
    assert_eq!(site.examine("c")["array_state"], "A.AA");
    let add = json!({"raid_bdev": "r", "base_bdev": "b"});
    assert_eq!(site.call("bdev_raid_add_base_bdev", add), Ok(true.into()));
    site.settle();
    assert_eq!(site.examine("b")["role"], json!(1));
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_no_trace() {
    let mut site = Site::new(&["a", "b", "c", "d", "small", "old"]);
    std::fs::File::options()
        .write(true)
        .open(site.path("small"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    site.open(&["a", "b", "c", "d", "small", "old"]);
    let odd = json!({"name": "odd", "num_blocks": 2048, "block_size": 4096});
    site.call("bdev_malloc_create", odd).unwrap();
    let long = "n".repeat(33);
    for (params, code, says) in [
        (
            json!({"consistency_policy": "journal"}),
            -32602,
            "resync, bitmap, ppl",
        ),
        (json!({"bitmap_chunk_kb": 100}), -32602, "power of two"),
        (
            json!({"bitmap_chunk_kb": 64, "consistency_policy": "resync"}),
            -32602,
            "only with",
        ),
        (
            json!({"superblock": false, "spares": ["d"]}),
            -32602,
            "superblock: true",
        ),
        (
            json!({"superblock": false, "force": true}),
            -32602,
            "superblock: true",
        ),
        (
            json!({"base_bdevs": ["a", "missing", "missing", "d"]}),
            -22,
            "2 of 4 members are missing",
        ),
        (
            json!({"base_bdevs": ["a", "b", "c", "absent"]}),
            -19,
            "absent does not exist",
        ),
        (
            json!({"base_bdevs": ["a", "b", "c", "small"]}),
            -22,
            "small: the device has 2048 sectors",
        ),
        (
            json!({"base_bdevs": ["a", "b", "c", "odd"]}),
            -22,
            "odd has blocks of 4096",
        ),
        (json!({"spares": ["a"]}), -22, "a is named twice"),
        (json!({"spares": ["small"]}), -22, "small: "),
        (json!({"name": long}), -22, "33 bytes"),
        (json!({"strip_size_kb": 2}), -22, "power of two"),
    ] {
        let error = site.create(params.clone()).unwrap_err();
        assert_eq!(error.code, code, "{params}: {}", error.message);
        assert!(error.message.contains(says), "{params}: {}", error.message);
        for device in ["a", "b", "c", "d"] {
            let claim = site.system().devices.registry.claim_of(device);
            assert_eq!(claim, None, "{params}");
            let (_, text) = site.refused("bdev_raid_examine", json!({"name": device}));
            assert!(text.contains("no md superblock"), "{text}");
        }
    }
    assert_eq!(site.array("r"), Value::Null);
}

#[test]
fn what_a_device_holds_is_overwritten_by_force_only() {
    let mut site = Site::new(&["a", "b", "c", "d", "e"]);
    site.open(&["a", "b", "c", "d", "e"]);
    site.create(json!({"name": "first"})).unwrap();
    site.call("bdev_raid_delete", json!({"name": "first"}))
        .unwrap();
    let held = site.examine("d")["array_uuid"].clone();
    let other = json!({"base_bdevs": ["d", "e", "missing"]});
    let error = site.create(other.clone()).unwrap_err();
    assert_eq!(error.code, -17);
    for part in ["bdev d", "\"first\"", held.as_str().unwrap(), "force"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    let mut forced = other;
    forced["force"] = true.into();
    site.create(forced).unwrap();
    assert_ne!(site.examine("d")["array_uuid"], held);
    assert_eq!(
        site.examine("c")["array_uuid"],
        held,
        "it was not asked for"
    );
}

#[test]
fn a_deleted_array_is_clean_and_comes_back_unless_it_is_cleared() {
    let mut site = Site::new(&["a", "b", "c", "d", "s"]);
    site.open(&["a", "b", "c", "d", "s"]);
    site.create(json!({"spares": ["s"]})).unwrap();
    site.settle();
    let uuid = site.array("r")["uuid"].clone();
    site.call("bdev_raid_delete", json!({"name": "r"})).unwrap();
    assert_eq!(site.array("r"), Value::Null);
    for device in ["a", "b", "c", "d"] {
        assert_eq!(site.system().devices.registry.claim_of(device), None);
        assert_eq!(site.examine(device)["state"], "clean");
    }
    let name = site.call("bdev_raid_assemble", json!({"name": "r"}));
    assert_eq!(name, Ok("r".into()));
    let array = site.array("r");
    assert_eq!((&array["uuid"], &array["state"]), (&uuid, &json!("online")));
    assert_eq!(array["md"]["spares"], json!(["s"]));

    let clear = json!({"name": "r", "clear_sb": true});
    site.call("bdev_raid_delete", clear).unwrap();
    for device in ["a", "b", "c", "d", "s"] {
        let (code, _) = site.refused("bdev_raid_examine", json!({"name": device}));
        assert_eq!(code, -5);
    }
    let (code, text) = site.refused("bdev_raid_assemble", json!({"uuid": uuid}));
    assert!(code == -19 && text.contains("no device belongs"), "{text}");
}

#[test]
fn an_array_that_is_exported_is_not_deleted() {
    let mut site = Site::new(&["a", "b", "c", "d"]);
    site.open(&["a", "b", "c", "d"]);
    site.create(json!({})).unwrap();
    let nqn = "nqn.2026-11.io.example:a";
    site.call("nvmf_create_transport", json!({"trtype": "TCP"}))
        .unwrap();
    site.call("nvmf_create_subsystem", json!({"nqn": nqn}))
        .unwrap();
    let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "r"}});
    site.call("nvmf_subsystem_add_ns", namespace).unwrap();
    let (code, text) = site.refused("bdev_raid_delete", json!({"name": "r"}));
    assert!(code == -16 && text.contains(nqn), "{text}");
    assert_eq!(site.array("r")["state"], "online");
    let remove = json!({"nqn": nqn, "nsid": 1});
    site.call("nvmf_subsystem_remove_ns", remove).unwrap();
    site.call("bdev_raid_delete", json!({"name": "r"})).unwrap();
}

#[test]
fn sizes_of_larger_blocks_fit_too() {
    let mut site = Site::new(&[]);
    for name in ["a", "b", "c", "d"] {
        let malloc = json!({"name": name, "num_blocks": BYTES / 4096, "block_size": 4096});
        site.call("bdev_malloc_create", malloc).unwrap();
    }
    site.create(json!({})).unwrap();
    let array = site.settle();
    let slot = &array["base_bdevs_list"][0];
    assert_eq!(
        (&slot["data_offset"], &slot["data_size"]),
        (&json!(256), &json!(7 * 256))
    );
}
