//! Volumes that keep their state on their members, as Linux md does: killed, started again from what
//! is there, with members that are stale, missing, cut off, somebody else's or in use.

use std::fs::{self, File};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::load::{Load, TARGET_GONE, verify};
use super::plan::{Kind, NQN, Plan, VOLUME, call, config};
use super::process::{Site, Target, wait_for};

/// An array of files with this consistency policy.
fn array(policy: &str) -> Plan {
    Plan {
        kind: Kind::File,
        tuning: json!({
            "superblock": true, "consistency_policy": policy, "assume_clean": true,
        }),
        ..Plan::default()
    }
}

/// Work that lasts until the target goes away; the limit only keeps it from lasting for ever.
const WORK: &str =
    "--verify --rw randrw --rwmixread 30 --bsrange 4k-256k --iodepth 32 --queues 2 --runtime 50";

/// The volume as it is now.
fn volume(target: &Target<'_>) -> Value {
    let mut all = target.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    all[0].take()
}

/// Waits until so many members work and nothing is being done to them.
fn wait_for_members(target: &Target<'_>, count: u64) {
    wait_for(&format!("{count} members to work"), || {
        let now = volume(target);
        let is_so = now["num_base_bdevs_operational"] == count
            && now["process"].is_null()
            && now["state"] == "online";
        is_so.then_some(())
    });
}

/// Looks at all parity; gives the sectors that do not match.
fn check(target: &Target<'_>) -> u64 {
    let begin = json!({"name": VOLUME, "action": "check"});
    target.call("bdev_raid_check", begin);
    wait_for("the check", || {
        volume(target)["process"].is_null().then_some(())
    });
    let now = volume(target);
    now["md"]["mismatch_sectors"]
        .as_u64()
        .unwrap_or_else(|| panic!("a count in {now}"))
}

/// Ends a target in good order.
fn end(mut target: Target<'_>) {
    target.signal(Signal::TERM);
    let status = target.wait();
    assert_eq!(status.code(), Some(0), "{}", target.log());
}

/// Exports a volume that was not there yet when the target started.
fn export(target: &Target<'_>) {
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": VOLUME}});
    target.call("nvmf_subsystem_add_ns", namespace);
}

/// The configuration without the namespace, for volumes that take their time.
fn unexported(plan: &Plan, site: &Site, devices: Vec<Value>) -> Value {
    let mut all = plan.exported(site, devices);
    let calls = all["subsystems"][0]["config"]
        .as_array_mut()
        .expect("calls");
    calls.retain(|c| c["method"] != "nvmf_subsystem_add_ns");
    let soon = json!({"degraded_start_wait_sec": 0});
    calls.insert(0, call("bdev_raid_set_options", soon));
    all
}

/// Kills and starts again, as often as `STRIPEWISE_KILLS` says.
fn kill_again_and_again(policy: &str, seed: u64) {
    let rounds = std::env::var("STRIPEWISE_KILLS").ok();
    let rounds = rounds.map_or(5, |n| n.parse().expect("a number"));
    let site = Site::new();
    let plan = array(policy);
    let mut first = Some(plan.config(&site));
    for round in 0..rounds {
        let config = first.take().unwrap_or_else(|| plan.found(&site));
        let mut target = site.serve(&config, ["0x1", "0x3"][round as usize % 2]);
        if round > 0 {
            // While the resync goes on, or after it.
            verify(&site, "state", &format!("after kill {round}"));
        }
        let words = format!("{WORK} --seed {}", seed + round);
        let mut load = Load::start(&site, &words, Some("state"));
        load.wait_for_progress(&target, 500);
        target.kill();
        let outcome = load.finish();
        assert_eq!(outcome.code, Some(TARGET_GONE), "{outcome:?}");
        assert_eq!(outcome.wrong(), 0, "{outcome:?}");
    }
    let target = site.serve(&plan.found(&site), "0x1");
    wait_for_members(&target, 4);
    verify(&site, "state", "after the last kill");
    assert_eq!(check(&target), 0, "parity is right everywhere");
    end(target);
}

#[test]
fn killed_with_a_bitmap_it_goes_on_where_it_was() {
    kill_again_and_again("bitmap", 100);
}

#[test]
fn killed_with_a_partial_parity_log_it_goes_on_where_it_was() {
    kill_again_and_again("ppl", 300);
}

#[test]
fn killed_without_a_bitmap_it_goes_on_where_it_was() {
    kill_again_and_again("resync", 200);
}

#[test]
fn a_member_that_was_away_is_stale_and_gets_what_it_has_missed() {
    let site = Site::new();
    let plan = array("bitmap");
    let target = site.serve(&plan.config(&site), "0x1");
    let some = "--verify --rw randwrite --bsrange 4k-64k --iodepth 8 --io-limit 300 --runtime 20";
    Load::run(&site, some, Some("state")).check("all members are there");
    target.call("bdev_raid_remove_base_bdev", json!({"name": "m1"}));
    Load::run(&site, some, Some("state")).check("one is away");
    end(target);

    // It is there again, but the others know better: it is given what it has missed.
    let target = site.serve(&plan.found(&site), "0x1");
    wait_for_members(&target, 4);
    verify(&site, "state", "with the member that was away");
    assert_eq!(check(&target), 0, "it has all that it has missed");
    // What it was given is what another one is computed from.
    target.call("bdev_raid_remove_base_bdev", json!({"name": "m2"}));
    verify(
        &site,
        "state",
        "the member that was away stands in for another",
    );
    end(target);
}

#[test]
fn members_that_are_of_no_use_are_named_and_the_rest_serves() {
    let site = Site::new();
    let plan = array("bitmap");
    let target = site.serve(&plan.config(&site), "0x1");
    let some = "--verify --rw randwrite --bsrange 4k-64k --iodepth 8 --io-limit 300 --runtime 20";
    Load::run(&site, some, Some("state")).check("all members are there");
    end(target);

    let whole = fs::read(site.file("m3")).expect("a member");
    type Spoil = fn(&Site);
    let spoil: [(&str, Spoil); 3] = [
        ("cut off", |site| {
            let file = File::options().write(true).open(site.file("m3"));
            file.and_then(|f| f.set_len(4 << 20)).expect("cut off");
        }),
        ("empty", |site| {
            fs::write(site.file("m3"), vec![0; 16 << 20]).expect("written");
        }),
        ("gone", |site| {
            fs::remove_file(site.file("m3")).expect("removed")
        }),
    ];
    for (what, spoil) in spoil {
        spoil(&site);
        let devices = (0..4)
            .filter(|n| *n < 3 || site.file("m3").exists())
            .map(|n| {
                let name = format!("m{n}");
                let file = site.file(&name);
                call(
                    "bdev_uring_create",
                    json!({"name": name, "filename": file, "block_size": 4096}),
                )
            });
        let target = site.serve(&unexported(&plan, &site, devices.collect()), "0x1");
        wait_for_members(&target, 3);
        export(&target);
        verify(&site, "state", what);
        end(target);
        fs::write(site.file("m3"), &whole).expect("written");
    }

    // The last one as it was, while the others know better: it is stale, and given what it has missed. That may be done
    // before anybody can look.
    let target = site.serve(&plan.found(&site), "0x1");
    wait_for_members(&target, 4);
    verify(&site, "state", "it is back");
    end(target);
}

#[test]
fn a_member_of_another_array_stays_there() {
    let site = Site::new();
    let plan = array("bitmap");
    let other = |names: [&str; 3]| {
        let disks = names.map(|name| {
            let path = site.file(name);
            File::create(&path)
                .and_then(|f| f.set_len(16 << 20))
                .expect("a file");
            call(
                "bdev_uring_create",
                json!({"name": name, "filename": path, "block_size": 4096}),
            )
        });
        let mut calls = disks.to_vec();
        let made = json!({
            "name": "other", "raid_level": "raid5", "strip_size_kb": 64, "superblock": true,
            "assume_clean": true, "base_bdevs": names,
        });
        calls.push(call("bdev_raid_create", made));
        config(calls)
    };
    end(site.serve(&other(["x0", "x1", "x2"]), "0x1"));
    end(site.serve(&plan.config(&site), "0x1"));
    // Somebody has mixed up the files.
    fs::rename(site.file("x1"), site.file("m1")).expect("renamed");
    let target = site.serve(&unexported(&plan, &site, plan.disks(&site)), "0x1");
    wait_for("the array to be online without it", || {
        let all = target.call("bdev_raid_get_bdevs", json!({"category": "online"}));
        let ours = all
            .as_array()
            .expect("a list")
            .iter()
            .find(|v| v["name"] == VOLUME)?;
        (ours["num_base_bdevs_operational"] == 3).then_some(())
    });
    // Made a member by command, it would be lost to the other array: that must be said.
    let add = json!({"raid_bdev": VOLUME, "base_bdev": "m1"});
    let refusal = target
        .rpc("bdev_raid_add_base_bdev", add.clone())
        .unwrap_err();
    assert!(refusal.message.contains("m1"), "{refusal:?}");
    end(target);
}

#[test]
fn members_that_another_process_has_are_not_taken() {
    let site = Site::new();
    let plan = array("bitmap");
    let target = site.serve(&plan.config(&site), "0x1");
    // Another target, reached by its socket only, is shown the same files.
    let socket = site.scratch("second.sock");
    let log = site.scratch("second.log");
    let mut second = super::process::stripewise()
        .args(["serve", "-m", "0x1", "-s", "64", "-r"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .stderr(File::create(&log).expect("a log"))
        .spawn()
        .expect("started");
    let ask = |method: &str, params: Value| super::process::ask(&socket, method, params);
    let up = wait_for("the second target", || {
        ask("spdk_get_version", json!({})).ok()
    });
    up.expect("a version");
    let said: Vec<String> = (0..4)
        .map(|n| {
            let name = format!("m{n}");
            let params = json!({"name": name, "filename": site.file(&name), "block_size": 4096});
            format!("{:?}", ask("bdev_uring_create", params))
        })
        .collect();
    let listed = ask("bdev_raid_get_bdevs", json!({"category": "online"}));
    assert_eq!(
        listed.expect("an answer").expect("a list"),
        json!([]),
        "{said:?}"
    );
    second.kill().expect("killed");
    second.wait().expect("ended");
    assert_eq!(volume(&target)["num_base_bdevs_operational"], 4);
    end(target);
}
