//! Members are lost and come back while hosts work.

use serde_json::{Value, json};

use super::host::{Association, Name, icreq, nvm};
use super::load::{IO_FAILED, Load, verify};
use super::plan::{Kind, Plan, VOLUME};
use super::process::{Site, Target, wait_for};

/// The volume as it is now.
fn volume(target: &Target<'_>) -> Value {
    let mut all = target.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    all[0].take()
}

/// Waits until so many members work and nothing is being rebuilt.
fn wait_for_members(target: &Target<'_>, count: u64) {
    wait_for(&format!("{count} members to work"), || {
        let now = volume(target);
        let is_so = now["num_base_bdevs_operational"] == count && now["process"].is_null();
        is_so.then_some(())
    });
    assert_eq!(volume(target)["state"], "online");
}

/// Every request to this device fails from now on.
fn lose(target: &Target<'_>, name: &str) {
    let gone = json!({"name": name, "io_type": "all", "error_type": "gone", "num": 1_000_000_000});
    target.call("bdev_error_inject_error", gone);
}

fn add(target: &Target<'_>, name: &str) {
    let params = json!({"raid_bdev": VOLUME, "base_bdev": name});
    assert_eq!(target.call("bdev_raid_add_base_bdev", params), true);
}

fn remove(target: &Target<'_>, name: &str) {
    assert_eq!(
        target.call("bdev_raid_remove_base_bdev", json!({"name": name})),
        true
    );
}

/// Work that lasts until it is interrupted; the limit only keeps it from lasting for ever.
const WORK: &str =
    "--verify --rw randrw --rwmixread 40 --bsrange 4k-256k --iodepth 16 --queues 2 --runtime 50";

fn lose_and_return(plan: &Plan, mask: &str) {
    let site = Site::new();
    let target = site.serve(&plan.config(&site), mask);
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);

    // A member fails; a spare takes its place while hosts write.
    lose(&target, &plan.member(1));
    wait_for_members(&target, 3);
    load.wait_for_progress(&target, 500);
    add(&target, &plan.member(4));
    load.wait_for_progress(&target, 200);
    wait_for_members(&target, 4);
    load.wait_for_progress(&target, 500);
    load.interrupt().check("a member was replaced");

    // What was rebuilt is what the blocks of the next lost member are computed from.
    remove(&target, &plan.member(2));
    wait_for_members(&target, 3);
    verify(
        &site,
        "state",
        "a member that was rebuilt stands in for another",
    );

    // A healthy member leaves and comes back under load, and then another.
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    add(&target, &plan.member(2));
    wait_for_members(&target, 4);
    load.wait_for_progress(&target, 200);
    remove(&target, &plan.member(0));
    wait_for_members(&target, 3);
    load.wait_for_progress(&target, 500);
    add(&target, &plan.member(0));
    wait_for_members(&target, 4);
    load.interrupt().check("members came and went");
    verify(&site, "state", "all members are back");
    for number in [3, 0, 2] {
        remove(&target, &plan.member(number));
        wait_for_members(&target, 3);
        verify(&site, "state", &format!("without member {number}"));
        add(&target, &plan.member(number));
        wait_for_members(&target, 4);
    }
}

#[test]
fn members_in_ram_are_lost_and_return_under_load() {
    let plan = Plan {
        spares: 1,
        failing: true,
        ..Plan::default()
    };
    lose_and_return(&plan, "0x3");
}

#[test]
fn members_in_files_are_lost_and_return_under_load() {
    let plan = Plan {
        kind: Kind::File,
        spares: 1,
        failing: true,
        ..Plan::default()
    };
    lose_and_return(&plan, "0x1");
}

#[test]
fn blocks_that_cannot_be_read_are_made_up_for_and_counted() {
    let site = Site::new();
    let plan = Plan {
        failing: true,
        ..Plan::default()
    };
    let target = site.serve(&plan.config(&site), "0x1");
    let write = "--verify --rw write --bs 192k --iodepth 8 --size 12m --io-limit 64 --runtime 20";
    Load::run(&site, write, Some("state")).check("the first writes");

    // 32 bad blocks of one member and 32 others of another, none of them parity. As in a disk,
    // writing such a block replaces it.
    let break_blocks = |member, blocks: std::ops::Range<u64>| {
        for lba in blocks {
            let bad = json!({
                "name": plan.member(member), "io_type": "read", "error_type": "failure",
                "num": 1_000_000, "lba": lba, "num_blocks": 1, "write_heals": true,
            });
            target.call("bdev_error_inject_error", bad);
        }
    };
    // Left-symmetric with 4 members: the parity of row r is on member 3 - r % 4. A row is 16
    // blocks of each member.
    break_blocks(0, 8 * 16..10 * 16);
    break_blocks(2, 38 * 16..40 * 16);
    let failures = |number| {
        let stat = target.call("bdev_get_iostat", json!({"name": plan.member(number)}));
        stat["bdevs"][0]["io_error"]["failed"].as_u64().unwrap_or(0)
    };
    assert_eq!((failures(0), failures(2)), (0, 0));
    verify(&site, "state", "some blocks cannot be read");
    let first = (failures(0), failures(2));
    assert!(first.0 > 0 && first.1 > 0, "{first:?}: nothing has failed");
    // They have been written again: nothing fails any more, and the member is as good as before.
    verify(&site, "state", "all blocks can be read again");
    assert_eq!((failures(0), failures(2)), first);
    wait_for_members(&target, 4);
    remove(&target, &plan.member(1));
    verify(
        &site,
        "state",
        "what was written again stands in for a member",
    );
}

#[test]
fn a_second_loss_ends_in_errors_not_in_wrong_data() {
    let site = Site::new();
    let plan = Plan {
        failing: true,
        ..Plan::default()
    };
    let target = site.serve(&plan.config(&site), "0x3");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    lose(&target, &plan.member(1));
    wait_for_members(&target, 3);
    // What can't be given up is not given up by mistake.
    let refused = target.rpc(
        "bdev_raid_remove_base_bdev",
        json!({"name": plan.member(0)}),
    );
    assert_eq!(refused.expect_err("the last redundancy").code, -16);
    load.wait_for_progress(&target, 500);
    lose(&target, &plan.member(2));
    wait_for("the volume to go offline", || {
        (volume(&target)["state"] == "offline").then_some(())
    });
    load.wait_for_progress(&target, 500);
    let outcome = load.interrupt();
    assert_eq!(outcome.code, Some(IO_FAILED), "{outcome:?}");
    assert_eq!(outcome.wrong(), 0, "{outcome:?}");
    assert!(outcome.number(&["io_failed"]) > 0, "{outcome:?}");

    // Hosts can still connect, and are told.
    let association = Association::new(site.address(), Name::of(1), icreq(false, false));
    let mut io = association.io(1, 8);
    for command in [nvm::read(0, 1), nvm::read(1000, 1)] {
        let (response, data) = io.fetch(command, 4096);
        assert_ne!(response.status, (0, 0));
        assert!(data.is_empty(), "an error comes with data");
    }
    assert_ne!(io.push(nvm::write(0, 1), &[1; 4096]).status, (0, 0));

    // The members themselves are well: what they hold is right, but nobody may claim that.
    for number in [1, 2] {
        let clear =
            json!({"name": plan.member(number), "io_type": "clear", "error_type": "failure"});
        target.call("bdev_error_inject_error", clear);
    }
    let (response, _) = io.fetch(nvm::read(0, 1), 4096);
    assert_ne!(response.status, (0, 0), "an offline volume stays offline");
}

#[test]
fn a_member_that_fails_during_a_rebuild_takes_nothing_with_it() {
    let site = Site::new();
    let plan = Plan {
        spares: 2,
        failing: true,
        ..Plan::default()
    };
    let target = site.serve(&plan.config(&site), "0x1");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    remove(&target, &plan.member(1));
    // The spare is lost while it is being rebuilt: slowly, so that there is a while.
    let slow = json!({"process_max_bandwidth_mb_sec": 1});
    target.call("bdev_raid_set_options", slow);
    add(&target, &plan.member(4));
    assert_eq!(volume(&target)["process"]["target"], plan.member(4));
    load.wait_for_progress(&target, 200);
    lose(&target, &plan.member(4));
    wait_for_members(&target, 3);
    load.wait_for_progress(&target, 200);
    let fast = json!({"process_max_bandwidth_mb_sec": 0});
    target.call("bdev_raid_set_options", fast);
    add(&target, &plan.member(5));
    wait_for_members(&target, 4);
    load.interrupt().check("the first spare was lost");
    remove(&target, &plan.member(0));
    verify(&site, "state", "the second spare stands in for another");
}
