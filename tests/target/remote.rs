//! An array whose members are on other machines, as processes on loopback: they are killed, stopped
//! and started again, each in turn, while hosts work.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::load::{Load, verify};
use super::plan::{Plan, VOLUME, call, config};
use super::process::{Site, Target, wait_for};

const MEMBERS: u16 = 3;

/// Size of a member in MiB.
const MIB: u64 = 32;

/// Work that lasts until it is interrupted; the limit only keeps it from lasting for ever.
const WORK: &str =
    "--verify --rw randrw --rwmixread 30 --bsrange 4k-128k --iodepth 16 --queues 2 --runtime 300";

/// How long the array's process waits for a machine that does not answer, in seconds: for a command,
/// then for its return.
const ANSWER: u64 = 3;
const RETURN: u64 = 2;

fn subsystem(number: u16) -> String {
    format!("nqn.2026-11.io.stripewise:machine{number}")
}

fn address(site: &Site) -> Value {
    json!({
        "trtype": "TCP", "adrfam": "IPv4", "traddr": site.address().ip().to_string(),
        "trsvcid": site.address().port().to_string(),
    })
}

/// The machine with this number: it exports a file.
fn machine(site: &Site, number: u16) -> Value {
    let file = site.file("disk");
    let disk = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file);
    let sized = disk.and_then(|disk| disk.set_len(MIB << 20));
    sized.expect("a file for a member");
    let nqn = subsystem(number);
    let disk = json!({"name": "disk", "filename": file, "block_size": 4096});
    config(vec![
        // What the disk holds of an array is not this machine's business.
        call("bdev_set_options", json!({"bdev_auto_examine": false})),
        call("bdev_uring_create", disk),
        call("nvmf_create_transport", json!({"trtype": "TCP"})),
        call(
            "nvmf_create_subsystem",
            json!({"nqn": nqn, "allow_any_host": true}),
        ),
        call(
            "nvmf_subsystem_add_ns",
            json!({"nqn": nqn, "namespace": {"bdev_name": "disk"}}),
        ),
        call(
            "nvmf_subsystem_add_listener",
            json!({"nqn": nqn, "listen_address": address(site)}),
        ),
    ])
}

/// The name of a member.
fn member(number: u16) -> String {
    format!("R{number}n1")
}

/// The machine of the array: it reaches the others within `patience` seconds, or goes on without.
fn array_config(site: &Site, machines: &[Site], patience: u64) -> Value {
    let mut calls = vec![call(
        "bdev_nvme_set_options",
        json!({
            "timeout_us": ANSWER * 1_000_000, "timeout_admin_us": ANSWER * 1_000_000,
            "reconnect_delay_sec": 1, "fast_io_fail_timeout_sec": patience,
        }),
    )];
    for (number, machine) in (0..).zip(machines) {
        let mut params = address(machine);
        params["name"] = format!("R{number}").into();
        params["subnqn"] = subsystem(number).into();
        // Each in its own way.
        params["hdgst"] = (number > 0).into();
        params["ddgst"] = (number > 1).into();
        calls.push(call("bdev_nvme_attach_controller", params));
    }
    let members: Vec<String> = (0..MEMBERS).map(member).collect();
    let volume = json!({
        "name": VOLUME, "raid_level": "raid5", "strip_size_kb": 64, "base_bdevs": members,
        "superblock": true, "consistency_policy": "bitmap", "bitmap_chunk_kb": 256,
        "assume_clean": true,
    });
    calls.push(call("bdev_raid_create", volume));
    Plan::default().exported(site, calls)
}

fn start<'s>(site: &'s Site, number: u16) -> Target<'s> {
    site.serve(&machine(site, number), "0x2")
}

fn start_all(machines: &[Site]) -> Vec<Target<'_>> {
    (0..).zip(machines).map(|(n, m)| start(m, n)).collect()
}

fn places(site: &Site) -> Vec<Site> {
    (1..=MEMBERS).map(|number| site.beside(number)).collect()
}

fn array(target: &Target<'_>) -> Value {
    let mut all = target.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    all[0].take()
}

fn wait_until_degraded(target: &Target<'_>) {
    wait_for("the array to go on without a member", || {
        let count = &array(target)["num_base_bdevs_operational"];
        (*count == MEMBERS - 1).then_some(())
    });
}

fn wait_until_whole(target: &Target<'_>) {
    wait_for("all to be in sync", || {
        let array = array(target);
        let all = array["num_base_bdevs_operational"] == MEMBERS;
        let rests = array["process"].is_null() && array["md"]["in_sync"] == true;
        (all && rests && array["state"] == "online").then_some(())
    });
}

/// Waits until nothing is being written to for a while: the bitmap is swept now and then.
fn wait_until_clear(target: &Target<'_>) {
    wait_for("the bitmap to be clear", || {
        let held = target.call("bdev_raid_examine", json!({"name": member(0)}));
        (held["bitmap"]["dirty"] == 0).then_some(())
    });
}

/// Compares parity with data everywhere.
fn check_parity(target: &Target<'_>) {
    let params = json!({"name": VOLUME, "action": "check"});
    target.call("bdev_raid_check", params);
    wait_for("the check to end", || {
        array(target)["process"].is_null().then_some(())
    });
    assert_eq!(array(target)["md"]["mismatch_sectors"], 0);
}

/// Every member is done without once: what it holds is what the others say.
fn verify_without_each(site: &Site, target: &Target<'_>) {
    for number in 0..MEMBERS {
        let name = member(number);
        target.call("bdev_raid_remove_base_bdev", json!({"name": name}));
        wait_until_degraded(target);
        verify(site, "state", &format!("without {name}"));
        let add = json!({"raid_bdev": VOLUME, "base_bdev": name});
        target.call("bdev_raid_add_base_bdev", add);
        wait_until_whole(target);
    }
}

#[test]
fn machines_die_and_return_each_in_turn_while_hosts_work() {
    let site = Site::new();
    let places = places(&site);
    let mut machines = start_all(&places);
    let target = site.serve(&array_config(&site, &places, RETURN), "0x3");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    for number in 0..MEMBERS {
        let at = usize::from(number);
        machines[at].kill();
        wait_until_degraded(&target);
        load.wait_for_progress(&target, 300);
        machines[at] = start(&places[at], number);
        wait_until_whole(&target);
        load.wait_for_progress(&target, 300);
    }
    load.interrupt().check("machines died and came back");
    verify(&site, "state", "all are back");
    check_parity(&target);
    verify_without_each(&site, &target);
}

#[test]
fn machines_that_stand_still_are_done_without_each_in_turn() {
    let site = Site::new();
    let places = places(&site);
    let machines = start_all(&places);
    let target = site.serve(&array_config(&site, &places, RETURN), "0x1");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    for machine in &machines {
        machine.signal(Signal::STOP);
        wait_until_degraded(&target);
        load.wait_for_progress(&target, 300);
        machine.signal(Signal::CONT);
        wait_until_whole(&target);
        load.wait_for_progress(&target, 300);
    }
    load.interrupt().check("machines stood still and went on");
    verify(&site, "state", "all are back");
    check_parity(&target);
    verify_without_each(&site, &target);
}

/// What was in flight is sent again, and nothing is lost or done without.
#[test]
fn a_machine_that_is_back_in_time_costs_nothing() {
    let site = Site::new();
    let places = places(&site);
    let mut machines = start_all(&places);
    let target = site.serve(&array_config(&site, &places, 50), "0x1");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    let states = || -> Vec<Value> {
        let all = target.call("bdev_nvme_get_controllers", json!({}));
        let all = all.as_array().expect("controllers");
        all.iter()
            .map(|c| c["ctrlrs"][0]["state"].clone())
            .collect()
    };
    for number in 0..MEMBERS {
        let at = usize::from(number);
        machines[at].kill();
        wait_for("the loss to be seen", || {
            (states()[at] == "reconnect_is_delayed").then_some(())
        });
        machines[at] = start(&places[at], number);
        load.wait_for_progress(&target, 300);
        machines[at].signal(Signal::STOP);
        wait_for("the silence to be heard", || {
            (states()[at] == "reconnect_is_delayed").then_some(())
        });
        machines[at].signal(Signal::CONT);
        load.wait_for_progress(&target, 300);
        let reset = json!({"name": format!("R{number}")});
        target.call("bdev_nvme_reset_controller", reset);
        load.wait_for_progress(&target, 300);
    }
    load.interrupt().check("machines were away for a moment");
    assert_eq!(array(&target)["num_base_bdevs_operational"], MEMBERS);
    let log = target.log();
    assert!(!log.contains("brought up to date"), "a member was lost");
    verify(&site, "state", "all are back");
    check_parity(&target);
}

#[test]
fn a_machine_gets_what_it_has_missed_and_no_more() {
    let site = Site::new();
    let places = places(&site);
    let mut machines = start_all(&places);
    let mut target = site.serve(&array_config(&site, &places, RETURN), "0x1");
    let all = "--verify --rw write --bs 128k --iodepth 8 --io-limit 500 --runtime 20";
    Load::run(&site, all, Some("state")).check("the first writes");
    wait_until_clear(&target);
    machines[1].kill();
    let some = "--verify --rw randwrite --bs 4k --size 1m --iodepth 4 --io-limit 200 --runtime 60";
    Load::run(&site, some, Some("state")).check("writes without a machine");
    wait_until_degraded(&target);
    machines[1] = start(&places[1], 1);
    wait_until_whole(&target);
    let stat = machines[1].call("bdev_get_iostat", json!({"name": "disk"}));
    let written = stat["bdevs"][0]["bytes_written"].as_u64().expect("bytes");
    // 1 MiB of the volume is half of that on a member, and then there is the metadata.
    assert!((1 << 18..MIB << 18).contains(&written), "{written} bytes");
    check_parity(&target);
    verify_without_each(&site, &target);
    // It leaves in good order, and so do the others' hosts.
    target.signal(Signal::TERM);
    assert_eq!(target.wait().code(), Some(0), "{}", target.log());
    for machine in &mut machines {
        machine.signal(Signal::TERM);
        assert_eq!(machine.wait().code(), Some(0), "{}", machine.log());
    }
}

/// The array's own machine dies, and finds its members where they are; one has gone meanwhile.
#[test]
fn the_machine_of_the_array_dies_too() {
    let site = Site::new();
    let places = places(&site);
    let mut machines = start_all(&places);
    let config = array_config(&site, &places, RETURN);
    let mut target = site.serve(&config, "0x1");
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    target.kill();
    drop(load);
    drop(target);
    let target = site.serve(&config, "0x1");
    wait_until_whole(&target);
    verify(&site, "state", "after the array's machine has died");
    wait_until_clear(&target);
    drop(target);
    machines[2].kill();
    let ignore = &["--json-ignore-init-errors"];
    let target = site.serve_with(&config, "0x1", ignore);
    verify(&site, "state", "without a machine");
    machines[2] = start(&places[2], 2);
    // The attempt to attach it has failed; it is made again.
    let mut params = address(&places[2]);
    params["name"] = "R2".into();
    params["subnqn"] = subsystem(2).into();
    let attached = target.call("bdev_nvme_attach_controller", params);
    assert_eq!(attached, json!([member(2)]));
    wait_until_whole(&target);
    check_parity(&target);
}

#[test]
fn a_second_address_is_used_when_the_first_is_taken_away() {
    let site = Site::new();
    let places = places(&site);
    let machines = start_all(&places);
    let target = site.serve(&array_config(&site, &places, 50), "0x1");
    let mut second = address(&places[0]);
    second["trsvcid"] = "4500".into();
    let listener = |address: &Value| json!({"nqn": subsystem(0), "listen_address": address});
    machines[0].call("nvmf_subsystem_add_listener", listener(&second));
    let mut more = second.clone();
    more["name"] = "R0".into();
    more["subnqn"] = subsystem(0).into();
    more["multipath"] = "failover".into();
    target.call("bdev_nvme_attach_controller", more);
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 500);
    let first = listener(&address(&places[0]));
    machines[0].call("nvmf_subsystem_remove_listener", first);
    target.call("bdev_nvme_reset_controller", json!({"name": "R0"}));
    wait_for("the second address to be used", || {
        let shown = target.call("bdev_nvme_get_controllers", json!({"name": "R0"}));
        let controller = &shown[0]["ctrlrs"][0];
        let is_used = controller["trid"]["trsvcid"] == "4500" && controller["state"] == "enabled";
        is_used.then_some(())
    });
    load.wait_for_progress(&target, 300);
    load.interrupt().check("another address");
    assert_eq!(array(&target)["num_base_bdevs_operational"], MEMBERS);
    verify(&site, "state", "another address");
}

#[test]
fn a_machine_that_is_given_up_or_detached_leaves_the_array_and_may_come_again() {
    let site = Site::new();
    let places = places(&site);
    let mut machines = start_all(&places);
    let target = site.serve(&array_config(&site, &places, RETURN), "0x1");
    let attach = |limit: i64| {
        let mut params = address(&places[1]);
        params["name"] = "R1".into();
        params["subnqn"] = subsystem(1).into();
        params["ctrlr_loss_timeout_sec"] = limit.into();
        let attached = target.call("bdev_nvme_attach_controller", params);
        assert_eq!(attached, json!([member(1)]));
        wait_until_whole(&target);
    };
    let is_there = || {
        let controller = target.rpc("bdev_nvme_get_controllers", json!({"name": "R1"}));
        let device = target.rpc("bdev_get_bdevs", json!({"name": member(1)}));
        // One without the other is a moment in between.
        controller.is_ok() || device.is_ok()
    };
    let mut load = Load::start(&site, WORK, Some("state"));
    load.wait_for_progress(&target, 300);
    let detach = json!({"name": "R1"});
    assert_eq!(target.call("bdev_nvme_detach_controller", detach), true);
    assert!(!is_there());
    wait_until_degraded(&target);
    let refused = target.rpc("bdev_nvme_detach_controller", json!({"name": "R0"}));
    assert_eq!(refused.expect_err("the last redundancy").code, -16);
    load.wait_for_progress(&target, 300);
    attach(4);
    machines[1].kill();
    wait_for("it to be given up", || (!is_there()).then_some(()));
    wait_until_degraded(&target);
    load.wait_for_progress(&target, 300);
    machines[1] = start(&places[1], 1);
    attach(-1);
    load.wait_for_progress(&target, 300);
    load.interrupt().check("a machine left and came again");
    verify(&site, "state", "all are there");
    check_parity(&target);
    verify_without_each(&site, &target);
}
