//! Writers that meet in the same rows, on two reactors whose rows lie next to each other: what is
//! batched across cores is read back like anything else, also when a member goes in the middle.

use serde_json::{Value, json};

use super::load::Load;
use super::plan::{Plan, VOLUME};
use super::process::{Site, Target, wait_for};

/// A volume whose owners' rows change with each row, so that batches cross over all the time.
fn plan() -> Plan {
    Plan {
        block_size: 512,
        strip_kb: 16,
        tuning: json!({"shard_run": 1, "batching": {"join_wait_us": 200}}),
        max_io_size: 4 << 20,
        ..Plan::default()
    }
}

/// What the volume has counted.
fn counted(target: &Target<'_>) -> Value {
    let stat = target.call("bdev_get_iostat", json!({"name": VOLUME}));
    stat["bdevs"][0]["driver_specific"]["stripe_cache"].clone()
}

/// Once nothing is under way, nothing is charged and nothing waits.
fn check_idle(target: &Target<'_>) {
    // The counters are published now and then.
    wait_for("the counters of an idle volume", || {
        let counts = counted(target);
        (counts["preread_active"] == 0 && counts["waiting"] == 0).then_some(())
    });
}

const LOADS: &[&str] = &[
    "--verify --rw write --bs 512 --size 256k --iodepth 64 --io-limit 3000 --runtime 2",
    "--verify --rw write --bs 4k --size 8m --iodepth 64 --queues 2 --runtime 2",
    "--verify --rw write --bs 48k --iodepth 32 --queues 2 --runtime 2",
    "--verify --rw write --bs 1m --iodepth 8 --flush-every 20 --runtime 2",
    "--verify --rw write --bs 4m --iodepth 4 --runtime 2",
    "--verify --rw randwrite --bsrange 512-4m --iodepth 8 --queues 2 --size 16m --runtime 3",
    "--verify --rw randwrite --bsrange 512-192k --iodepth 32 --queues 4 --size 1m --runtime 3",
    "--verify --rw randrw --rwmixread 30 --bsrange 4k-96k --iodepth 16 --queues 2 --size 2m --fua --runtime 2",
];

#[test]
fn overlapping_writers_on_two_reactors() {
    let site = Site::new();
    let target = site.serve(&plan().config(&site), "0x3");
    for words in LOADS {
        Load::run(&site, words, None).check(words);
    }
    check_idle(&target);
    let counts = counted(&target);
    for what in ["joins", "crossings", "batches", "waits_filled"] {
        let count = counts[what].as_u64().expect("a count");
        assert!(count > 0, "no {what}: {counts}");
    }
}

#[test]
fn batches_of_every_reach_keep_what_is_written() {
    for scope in ["off", "row", "rows"] {
        let site = Site::new();
        let tuning = json!({"shard_run": 2, "batching": {"scope": scope, "preread_limit": 1}});
        let plan = Plan { tuning, ..plan() };
        let target = site.serve(&plan.config(&site), "0x3");
        for words in [LOADS[1], LOADS[6]] {
            Load::run(&site, words, None).check(&format!("{scope}: {words}"));
        }
        check_idle(&target);
        assert_eq!(counted(&target)["joins"], 0, "{scope}");
    }
}

#[test]
fn a_member_goes_and_comes_while_batches_cross() {
    let site = Site::new();
    let plan = Plan {
        failing: true,
        ..plan()
    };
    let target = site.serve(&plan.config(&site), "0x3");
    let words = "--verify --rw write --bsrange 16k-768k --iodepth 16 --queues 2 --runtime 6";
    let mut load = Load::start(&site, words, Some("state"));
    let inject = |io: &str, num: u32| {
        let name = plan.member(2);
        let params = json!({"name": name, "io_type": io, "error_type": "failure", "num": num});
        target.call("bdev_error_inject_error", params);
    };
    let slots = || target.call("bdev_raid_get_bdevs", json!({"category": "all"}))[0].clone();
    let take_back = |member: usize| {
        let add = json!({"raid_bdev": VOLUME, "base_bdev": plan.member(member)});
        wait_for("the member to be taken back", || {
            target.rpc("bdev_raid_add_base_bdev", add.clone()).ok()
        });
    };
    let rebuilt = || {
        wait_for("the rebuild", || {
            slots().get("process").is_none().then_some(())
        });
    };
    // The first write that fails, and with it the member, is a batch's mostly, but it can be that
    // of a stripe on its own: then the member is lost once more.
    loop {
        load.wait_for_progress(&target, 300);
        inject("write", u32::MAX);
        wait_for("the member to be lost", || {
            (slots()["base_bdevs_list"][2]["is_configured"] == false).then_some(())
        });
        inject("clear", 1);
        load.wait_for_progress(&target, 300);
        take_back(2);
        if counted(&target)["broken"].as_u64() > Some(0) {
            break;
        }
        rebuilt();
    }
    load.finish().check(words);
    rebuilt();
    check_idle(&target);
    // Every other member in turn has to be right.
    for member in [0, 1, 3] {
        let name = json!({"name": plan.member(member)});
        target.call("bdev_raid_remove_base_bdev", name);
        let check = "--verify-only --bs 64k";
        Load::run(&site, check, Some("state")).check("without a member");
        take_back(member);
        rebuilt();
    }
}
