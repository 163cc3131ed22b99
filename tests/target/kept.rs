//! Arrays that keep their state on files, as one configuration makes them and finds them again:
//! stopped, killed, robbed of members, and given others.

use std::fs::{self, File};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::load::{Load, verify};
use super::plan::{Kind, Plan, VOLUME};
use super::process::{Site, Target, wait_for};

/// Work that lasts until it is interrupted or the target goes away.
const WORK: &str =
    "--verify --rw randrw --rwmixread 30 --bsrange 4k-256k --iodepth 32 --queues 2 --runtime 50";

/// An array on files with metadata, parity of which is right from the start.
fn plan(policy: &str) -> Plan {
    let mut tuning = json!({
        "superblock": true, "consistency_policy": policy, "assume_clean": true,
    });
    if policy == "bitmap" {
        tuning["bitmap_chunk_kb"] = 256.into();
    }
    Plan {
        kind: Kind::File,
        tuning,
        ..Plan::default()
    }
}

/// The array as it is now; null if there is none.
fn array(target: &Target<'_>) -> Value {
    let mut all = target.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    all[0].take()
}

/// The names of its members.
fn members(target: &Target<'_>) -> Vec<Value> {
    let array = array(target);
    let slots = array["base_bdevs_list"].as_array().expect("slots");
    slots.iter().map(|slot| slot["name"].clone()).collect()
}

/// Waits until all members are in sync.
fn wait_until_whole(target: &Target<'_>) {
    wait_for("all to be in sync", || {
        let array = array(target);
        let all = array["num_base_bdevs_operational"] == array["num_base_bdevs"];
        let rests = array["process"].is_null() && array["md"]["in_sync"] == true;
        (all && rests && array["state"] == "online").then_some(())
    });
}

/// Compares parity with data everywhere.
fn check_parity(target: &Target<'_>, what: &str) {
    let params = json!({"name": VOLUME, "action": "check"});
    target.call("bdev_raid_check", params);
    wait_for("the check to end", || {
        array(target)["process"].is_null().then_some(())
    });
    assert_eq!(array(target)["md"]["mismatch_sectors"], 0, "{what}");
}

fn held(target: &Target<'_>, device: &str) -> Value {
    target.call("bdev_raid_examine", json!({"name": device}))
}

/// Takes a file away, as a disk that is gone is away.
fn hide(site: &Site, name: &str) {
    fs::rename(site.file(name), site.file(&format!("{name}.hidden"))).expect("it is there");
}

fn bring_back(site: &Site, name: &str) {
    fs::rename(site.file(&format!("{name}.hidden")), site.file(name)).expect("it was hidden");
}

/// Makes a device of a file in a running target.
fn open(target: &Target<'_>, name: &str) {
    let params = json!({"name": name, "filename": target.site().file(name), "block_size": 4096});
    target.call("bdev_uring_create", params);
}

/// What a target is given that is to serve what is there.
const WHATEVER: &[&str] = &["--json-ignore-init-errors"];

#[test]
fn an_array_that_ended_in_good_order_begins_in_good_order() {
    let site = Site::new();
    let plan = plan("bitmap");
    let config = plan.config(&site);
    let mut target = site.serve(&config, "0x3");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 1000);
    let uuid = array(&target)["uuid"].clone();
    assert_eq!(
        held(&target, "m1")["state"],
        "active",
        "it is being written to"
    );
    target.signal(Signal::TERM);
    assert_eq!(target.wait().code(), Some(0), "{}", target.log());
    drop(load);
    let target = site.serve(&config, "0x1");
    let after = array(&target);
    assert_eq!(after["uuid"], uuid);
    assert_eq!(after["md"]["in_sync"], true, "{after}");
    assert_eq!(after["process"], Value::Null);
    for number in 0..plan.members {
        assert_eq!(held(&target, &plan.member(number))["state"], "clean");
    }
    verify(&site, "state", "after the end");
    check_parity(&target, "after the end");
}

#[test]
fn a_disk_that_is_gone_at_the_start_is_done_without_and_comes_back() {
    let site = Site::new();
    let config = plan("bitmap").config(&site);
    let mut target = site.serve(&config, "0x1");
    let write = "--verify --rw randwrite --bsrange 4k-64k --io-limit 300 --runtime 20";
    Load::run(&site, write, Some("state")).check("the first writes");
    target.signal(Signal::TERM);
    target.wait();

    hide(&site, "m2");
    let mut target = site.serve_with(&config, "0x1", WHATEVER);
    assert!(
        target.log().contains("m2: no such file"),
        "{}",
        target.log()
    );
    assert_eq!(
        members(&target),
        [json!("m0"), json!("m1"), Value::Null, json!("m3")]
    );
    verify(&site, "state", "without a member");
    Load::run(&site, write, Some("state")).check("more writes");
    // It has missed some, and is brought up to date with those as soon as it is there.
    bring_back(&site, "m2");
    open(&target, "m2");
    wait_until_whole(&target);
    check_parity(&target, "a member has come back");
    target.call("bdev_raid_remove_base_bdev", json!({"name": "m0"}));
    verify(&site, "state", "what has come back stands in for another");
    target.signal(Signal::TERM);
    target.wait();

    // One was away while the others went on, and comes back with the next start.
    let target = site.serve(&config, "0x1");
    wait_until_whole(&target);
    verify(&site, "state", "all are there");
}

#[test]
fn killed_and_robbed_an_array_waits_for_a_decision() {
    let site = Site::new();
    let config = plan("resync").config(&site);
    let mut target = site.serve(&config, "0x1");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 1000);
    target.kill();
    drop(load);
    hide(&site, "m3");
    let target = site.serve_with(&config, "0x1", WHATEVER);
    let waiting = array(&target);
    assert_eq!(waiting["state"], "configuring");
    let reason = waiting["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("not stopped cleanly") && reason.contains("slot 3"),
        "{reason}"
    );
    let refused = target.rpc("bdev_raid_assemble", json!({"name": VOLUME}));
    let refused = refused.expect_err("it is in doubt");
    assert!(refused.message.contains("by force"), "{refused:?}");
    // By force, what is in doubt is refused block by block.
    target.call("bdev_raid_assemble", json!({"name": VOLUME, "force": true}));
    let doubtful = array(&target);
    assert_eq!(
        (&doubtful["state"], &doubtful["md"]["doubtful"]),
        (&json!("online"), &json!(true))
    );
    let spoilt = target.rpc(
        "bdev_raid_check",
        json!({"name": VOLUME, "action": "check"}),
    );
    assert!(spoilt.is_err(), "there is nothing to compare");
    target.call("bdev_raid_accept_parity", json!({"name": VOLUME}));
    assert_eq!(array(&target)["md"]["doubtful"], false);
}

/// With a partial parity log nothing that was acknowledged is in doubt, whichever member is gone.
#[test]
fn killed_and_robbed_with_a_log_it_starts() {
    let site = Site::new();
    let plan = plan("ppl");
    let mut config = plan.config(&site);
    let calls = config["subsystems"][0]["config"].as_array_mut();
    let soon = json!({
        "method": "bdev_raid_set_options", "params": {"degraded_start_wait_sec": 0},
    });
    calls.expect("calls").insert(0, soon);
    for round in 0..plan.members {
        let mut target = site.serve(&config, "0x1");
        wait_until_whole(&target);
        let words = format!("{WORK} --seed {round}");
        let mut load = Load::start(&site, &words, Some("state"));
        load.wait_for_progress(&target, 500);
        target.kill();
        drop(load);
        let gone = plan.member(round);
        hide(&site, &gone);
        let target = site.serve_with(&config, "0x1", WHATEVER);
        let now = array(&target);
        assert_eq!(now["state"], "online", "{now}");
        assert_eq!(now["md"]["doubtful"], false);
        let outcome = Load::run(&site, "--verify-only --bs 4k --iodepth 16", Some("state"));
        assert_eq!(outcome.wrong(), 0, "without {gone}: {outcome:?}");
        // What was being written to the lost member when the target was killed is refused.
        let refused = outcome.number(&["io_failed"]);
        assert!(outcome.number(&["verify", "blocks_verified"]) > refused);
        bring_back(&site, &gone);
        open(&target, &gone);
        let add = json!({"raid_bdev": VOLUME, "base_bdev": gone});
        target.call("bdev_raid_add_base_bdev", add);
        wait_until_whole(&target);
    }
}

#[test]
fn killed_and_robbed_but_idle_it_starts() {
    let site = Site::new();
    let config = plan("bitmap").config(&site);
    let mut target = site.serve(&config, "0x1");
    let write = "--verify --rw randwrite --bsrange 4k-64k --io-limit 300 --runtime 20";
    Load::run(&site, write, Some("state")).check("writes");
    // The bitmap is swept now and then; after that nothing is in doubt.
    wait_for("the bitmap to be clear", || {
        (held(&target, "m0")["bitmap"]["dirty"] == 0).then_some(())
    });
    target.kill();
    hide(&site, "m3");
    let target = site.serve_with(&config, "0x1", WHATEVER);
    assert_eq!(array(&target)["state"], "online", "{}", array(&target));
    verify(&site, "state", "without a member");
}

#[test]
fn a_spare_takes_over_while_hosts_work() {
    let site = Site::new();
    let mut plan = Plan {
        spares: 1,
        failing: true,
        ..plan("bitmap")
    };
    plan.tuning["spares"] = json!(["EE_m4"]);
    let target = site.serve(&plan.config(&site), "0x3");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    let gone =
        json!({"name": "EE_m1", "io_type": "all", "error_type": "gone", "num": 1_000_000_000});
    target.call("bdev_error_inject_error", gone);
    wait_for("the spare", || {
        (members(&target)[1] == "EE_m4").then_some(())
    });
    wait_until_whole(&target);
    assert_eq!(array(&target)["md"]["spares"], json!([]));
    load.wait_for_progress(&target, 500);
    load.interrupt().check("a spare has taken over");
    target.call("bdev_raid_remove_base_bdev", json!({"name": "EE_m0"}));
    verify(&site, "state", "the spare stands in for another");
}

#[test]
fn files_that_are_not_what_they_were_are_told_and_not_used() {
    let site = Site::new();
    let plan = plan("bitmap");
    let config = plan.config(&site);
    let mut target = site.serve(&config, "0x1");
    let write = "--verify --rw randwrite --bsrange 4k-64k --io-limit 300 --runtime 20";
    Load::run(&site, write, Some("state")).check("the first writes");
    target.signal(Signal::TERM);
    target.wait();
    let pristine = fs::read(site.file("m1")).expect("a file");

    type Spoil = fn(&Site);
    let spoil: [(&str, Spoil, &str); 3] = [
        (
            "zeros",
            |site| {
                let file = File::create(site.file("m1")).expect("a file");
                file.set_len(16 << 20).expect("room");
            },
            "m1 is named as a member",
        ),
        (
            "another member",
            |site| {
                fs::copy(site.file("m2"), site.file("m1")).expect("a copy");
            },
            "both claim slot 2",
        ),
        (
            "a damaged superblock",
            |site| {
                let mut bytes = fs::read(site.file("m1")).expect("a file");
                bytes[4096 + 60] ^= 4;
                fs::write(site.file("m1"), bytes).expect("a file");
            },
            "checksum",
        ),
    ];
    for (what, spoil, says) in spoil {
        spoil(&site);
        let start = site.scratch("target.log");
        fs::write(&start, "").expect("a log");
        let mut target = site.serve_with(&config, "0x1", WHATEVER);
        let array = array(&target);
        let all = format!("{}{}", target.log(), array["reason"]);
        assert!(all.contains(says), "{what}: {all}");
        if array["state"] == "online" {
            assert_eq!(members(&target)[1], Value::Null, "{what}");
            verify(&site, "state", what);
        } else {
            assert_eq!(what, "another member", "{array}");
        }
        target.signal(Signal::TERM);
        assert_eq!(target.wait().code(), Some(0), "{what}: {}", target.log());
        drop(target);
        // With the true file it is whole again.
        fs::write(site.file("m1"), &pristine).expect("a file");
        let mut target = site.serve(&config, "0x1");
        wait_until_whole(&target);
        verify(&site, "state", &format!("after {what}"));
        target.signal(Signal::TERM);
        target.wait();
    }
}
