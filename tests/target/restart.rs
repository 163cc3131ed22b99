//! Killed or told to end, started again: what was acknowledged is there.

use rustix::process::Signal;
use serde_json::json;

use super::load::{Load, TARGET_GONE, verify};
use super::plan::{Kind, Plan};
use super::process::{Site, wait_for};

fn files() -> Plan {
    Plan {
        kind: Kind::File,
        ..Plan::default()
    }
}

/// Work that lasts until the target goes away; the limit only keeps it from lasting for ever.
const WORK: &str =
    "--verify --rw randrw --rwmixread 30 --bsrange 4k-256k --iodepth 32 --queues 2 --runtime 50";

#[test]
fn a_killed_target_has_every_acknowledged_write() {
    let site = Site::new();
    let config = files().config(&site);
    for (round, mask) in ["0x1", "0x3", "0x1"].iter().enumerate() {
        let mut target = site.serve(&config, mask);
        if round > 0 {
            verify(&site, "state", "before the next kill");
        }
        let words = format!("{WORK} --seed {round}");
        let mut load = Load::start(&site, &words, Some("state"));
        load.wait_for_progress(&target, 1000);
        target.kill();
        let outcome = load.finish();
        assert_eq!(outcome.code, Some(TARGET_GONE), "{outcome:?}");
        assert_eq!(outcome.wrong(), 0, "{outcome:?}");
        // The socket of a killed process is no hindrance to the next.
        assert!(site.socket().exists(), "it had no time to clean up");
    }
    let _target = site.serve(&config, "0x1");
    verify(&site, "state", "after the last kill");
}

#[test]
fn a_host_that_retries_goes_on_after_a_kill() {
    let site = Site::new();
    let config = files().config(&site);
    let mut target = site.serve(&config, "0x1");
    let words = format!("{WORK} --on-disconnect reconnect 50");
    let mut load = Load::start(&site, &words, Some("state"));
    for _ in 0..2 {
        load.wait_for_progress(&target, 500);
        target.kill();
        drop(target);
        target = site.serve(&config, "0x1");
    }
    load.wait_for_progress(&target, 500);
    let outcome = load.interrupt();
    outcome.check("the target was killed twice");
    assert_eq!(outcome.number(&["reconnects"]), 2);
    verify(&site, "state", "after two kills");
}

#[test]
fn a_target_that_is_told_to_end_leaves_in_good_order() {
    let site = Site::new();
    let plan = files();
    let config = plan.config(&site);
    for signal in [Signal::TERM, Signal::INT] {
        let mut target = site.serve(&config, "0x3");
        let mut load = Load::start(&site, WORK, Some("state"));
        load.wait_for_progress(&target, 1000);
        target.signal(signal);
        let status = target.wait();
        assert_eq!(status.code(), Some(0), "{}", target.log());
        assert!(!site.socket().exists(), "the socket is left behind");
        let outcome = load.finish();
        assert_eq!(outcome.code, Some(TARGET_GONE), "{outcome:?}");
        assert_eq!(outcome.wrong(), 0, "{outcome:?}");
    }
    // Nothing was torn apart: parity is right too, so that any member can be done without.
    let target = site.serve(&config, "0x1");
    verify(&site, "state", "after the end");
    for number in 0..plan.members {
        target.call(
            "bdev_raid_remove_base_bdev",
            json!({"name": plan.member(number)}),
        );
        verify(&site, "state", &format!("without member {number}"));
        let back = json!({"raid_bdev": super::plan::VOLUME, "base_bdev": plan.member(number)});
        target.call("bdev_raid_add_base_bdev", back);
        wait_for("the member to be back", || {
            let all = target.call("bdev_raid_get_bdevs", json!({"category": "online"}));
            let is_whole = all[0]["num_base_bdevs_operational"] == plan.members;
            (is_whole && all[0]["process"].is_null()).then_some(())
        });
    }
}

#[test]
fn a_target_that_cannot_end_is_told_twice() {
    let site = Site::new();
    let plan = Plan {
        failing: true,
        ..Plan::default()
    };
    let mut target = site.serve(&plan.config(&site), "0x1");
    let mut load = Load::start(&site, WORK, None);
    load.wait_for_progress(&target, 500);
    // Requests that members never answer, so that there is no good end soon.
    for number in 0..plan.members {
        let stuck = json!({
            "name": plan.member(number), "io_type": "all", "error_type": "pending",
            "num": 1_000_000_000,
        });
        target.call("bdev_error_inject_error", stuck);
    }
    // A turn of the target may be long: it has to be seen standing still for a while.
    let (mut done, mut looks) = (0, 0);
    wait_for("all requests to be stuck", || {
        let before = std::mem::replace(&mut done, target.stat("completed_nvme_io"));
        looks = if done == before { looks + 1 } else { 0 };
        (looks == 10).then_some(())
    });
    target.signal(Signal::TERM);
    // The first one has been taken once the target takes no more connections.
    wait_for("the target to take no more hosts", || {
        std::net::TcpStream::connect(site.address()).err()
    });
    target.signal(Signal::TERM);
    let status = target.wait();
    assert_ne!(status.code(), Some(0), "{}", target.log());
    drop(load);
}

#[test]
fn an_idle_target_ends_when_told() {
    let site = Site::new();
    let mut target = site.serve(&Plan::default().config(&site), "0x3");
    target.signal(Signal::TERM);
    assert_eq!(target.wait().code(), Some(0), "{}", target.log());
    assert!(!site.socket().exists(), "the socket is left behind");
}
