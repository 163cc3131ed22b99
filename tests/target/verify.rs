//! What is written is read back, whatever the members are made of, however large requests are and
//! however many cores, queues and hosts there are.

use serde_json::json;

use super::load::{Load, WRONG};
use super::plan::{Kind, Plan};
use super::process::Site;

/// Runs these loads one after the other, each on a target that has been used by those before it.
fn check_loads(plan: &Plan, mask: &str, loads: &[&str]) {
    let site = Site::new();
    let target = site.serve(&plan.config(&site), mask);
    for words in loads {
        let outcome = Load::run(&site, words, None);
        outcome.check(words);
        assert_eq!(outcome.number(&["reconnects"]), 0, "{words}");
    }
    drop(target);
}

/// Loads of every kind; each is over after so many requests or seconds.
const LOADS: &[&str] = &[
    "--verify --rw write --bs 192k --iodepth 8 --io-limit 500 --runtime 2",
    "--verify --rw randwrite --bsrange 4k-1m --iodepth 16 --io-limit 500 --runtime 2",
    "--verify --rw randrw --bs 4k --iodepth 32 --queues 3 --flush-every 50 --runtime 2",
    "--verify --rw rw --rwmixread 50 --bsrange 4k-128k --iodepth 1 --runtime 1",
    "--verify --rw randrw --rwmixread 30 --bsrange 4k-256k --queues 2 --hdgst --ddgst --runtime 2",
    "--verify --rw randwrite --bs 4k --size 256k --iodepth 32 --fua --ddgst --runtime 1",
];

#[test]
fn ram_members_on_one_core() {
    check_loads(&Plan::default(), "0x1", LOADS);
}

#[test]
fn ram_members_on_two_cores() {
    let plan = Plan {
        members: 5,
        strip_kb: 16,
        ..Plan::default()
    };
    check_loads(&plan, "0x3", LOADS);
}

#[test]
fn small_blocks_on_three_members() {
    let plan = Plan {
        members: 3,
        block_size: 512,
        strip_kb: 4,
        ..Plan::default()
    };
    let loads = [
        "--verify --rw randrw --bsrange 512-1m --iodepth 8 --queues 2 --runtime 2",
        "--verify --rw write --bs 512 --size 1m --iodepth 32 --io-limit 4000 --runtime 2",
        "--verify --rw randwrite --bsrange 512-8k --size 512k --iodepth 64 --hdgst --runtime 2",
    ];
    check_loads(&plan, "0x3", &loads);
}

#[test]
fn file_members_on_one_core() {
    let plan = Plan {
        kind: Kind::File,
        ..Plan::default()
    };
    check_loads(&plan, "0x1", LOADS);
}

#[test]
fn file_members_with_small_blocks_on_two_cores() {
    let plan = Plan {
        kind: Kind::File,
        block_size: 512,
        ..Plan::default()
    };
    let loads = [
        "--verify --rw randrw --bsrange 512-1m --iodepth 8 --queues 2 --ddgst --runtime 2",
        "--verify --rw randwrite --bs 512 --iodepth 32 --flush-every 20 --runtime 2",
    ];
    check_loads(&plan, "0x3", &loads);
}

#[test]
fn two_hosts_at_once() {
    let site = Site::new();
    let plan = Plan::default();
    let _target = site.serve(&plan.config(&site), "0x3");
    // Neighbours share stripes at the edge, 4 KiB off a chunk's.
    let common =
        "--verify --rw randrw --rwmixread 40 --bsrange 4k-64k --iodepth 16 --queues 2 --runtime 3";
    let first = format!("{common} --size 508k --hdgst");
    let second = format!("{common} --offset 508k --size 2m --ddgst --seed 2");
    let first = Load::start(&site, &first, None);
    let second = Load::start(&site, &second, None);
    first.finish().check("the first host");
    second.finish().check("the second host");
}

/// What every other test relies on: that a wrong byte does not go unnoticed.
#[test]
fn a_wrong_byte_is_found() {
    let site = Site::new();
    let plan = Plan {
        failing: true,
        ..Plan::default()
    };
    let target = site.serve(&plan.config(&site), "0x1");
    let write = "--verify --rw write --bs 64k --size 4m --io-limit 64 --runtime 20";
    Load::run(&site, write, Some("state")).check("all is well");
    // One bit, in the third block that the first member gives back.
    let corrupt = json!({
        "name": plan.member(0), "io_type": "read", "error_type": "corrupt_data", "num": 1,
        "lba": 2, "num_blocks": 1, "corrupt_offset": 1000, "corrupt_value": 1,
    });
    target.call("bdev_error_inject_error", corrupt);
    let outcome = Load::run(&site, "--verify-only --bs 64k", Some("state"));
    assert_eq!(outcome.code, Some(WRONG), "{outcome:?}");
    assert_eq!(outcome.wrong(), 1, "{outcome:?}");
    Load::run(&site, "--verify-only --bs 64k", Some("state")).check("it was wrong only once");
}
