//! What calls do to hosts that are at work: devices that grow under them, and limits.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::serving::{PROGRAM, Place, Serving, mask, wait_for};

const NQN: &str = "nqn.2026-11.io.stripewise:hosts";

/// A process of two reactors that exports the device `d0`, and its port.
fn exporting(place: &Place, make: (&str, Value)) -> (Serving, String) {
    let serving = place.serve(&["-s", "256", "-m", &mask(2)]);
    serving.call("nvmf_create_transport", json!({"trtype": "TCP"}));
    serving.call(make.0, make.1);
    serving.call(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "allow_any_host": true}),
    );
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "d0"}});
    serving.call("nvmf_subsystem_add_ns", namespace);
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port().to_string();
    drop(free);
    let listener = json!({"nqn": NQN, "listen_address": {
        "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port,
    }});
    serving.call("nvmf_subsystem_add_listener", listener);
    (serving, port)
}

/// `stripewise perf` on two queues, with these options.
fn perf(port: &str, options: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args([
            "perf",
            "--traddr",
            "127.0.0.1",
            "--trsvcid",
            port,
            "--subnqn",
            NQN,
        ])
        .args(["--queues", "2"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended_well(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn operations(serving: &Serving) -> (u64, u64) {
    let stat = serving.call("bdev_get_iostat", json!({"names": ["d0"]}));
    let device = &stat["bdevs"][0];
    let number = |key: &str| device[key].as_u64().expect("a number");
    let ticks = stat["ticks"].as_u64().expect("a number");
    (number("num_read_ops") + number("num_write_ops"), ticks)
}

/// A host that is at work; ends with the test.
pub struct Host(pub Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The host that is at work loses nothing, and one that comes later uses every block on both reactors.
#[test]
fn a_file_grows_under_a_host_that_verifies() {
    let place = Place::new();
    let path = place.path("disk");
    let file = File::create(&path).expect("a file");
    file.set_len(4 << 20).expect("a size");
    let make = json!({"name": "d0", "filename": path, "block_size": 512});
    let (serving, port) = exporting(&place, ("bdev_uring_create", make));
    let verify = ["--rw", "randrw", "--bs", "4k", "--iodepth", "8", "--verify"];
    let mut limited = perf(&port, &verify);
    limited.args(["--runtime", "600", "--io-limit", "20000"]);
    let mut host = Host(limited.spawn().expect("the program starts"));
    wait_for("a host that works", || {
        (operations(&serving).0 > 100).then_some(())
    });
    for mib in [5, 8, 16] {
        file.set_len(mib << 20).expect("a size");
        serving.call("bdev_uring_rescan", json!({"name": "d0"}));
    }
    let status = wait_for("its end", || host.0.try_wait().expect("it can be asked"));
    assert!(status.success(), "it has lost something");
    // All of the last 12 MiB, once.
    let beyond = ["--rw", "write", "--bs", "64k", "--iodepth", "4", "--verify"];
    let range = [
        "--offset",
        "4M",
        "--size",
        "12M",
        "--runtime",
        "600",
        "--io-limit",
        "400",
    ];
    let output = perf(&port, &beyond).args(range).output();
    ended_well(&output.expect("the program runs"));
    let blocks = serving.call("bdev_get_bdevs", json!({"name": "d0"}))[0]["num_blocks"].clone();
    assert_eq!(blocks, 32768);
    serving.end();
}

/// However fast the machine is, no more goes through than the limit lets; and something does.
#[test]
fn a_limit_holds_for_all_reactors_together() {
    let place = Place::new();
    let make = json!({"name": "d0", "num_blocks": 65536, "block_size": 512});
    let (serving, port) = exporting(&place, ("bdev_null_create", make));
    serving.call(
        "bdev_set_qos_limit",
        json!({"name": "d0", "rw_ios_per_sec": 2000}),
    );
    let load = [
        "--rw",
        "randrw",
        "--bs",
        "4k",
        "--iodepth",
        "16",
        "--runtime",
        "600",
    ];
    let _host = Host(perf(&port, &load).spawn().expect("the program starts"));
    wait_for("a host that works", || {
        (operations(&serving).0 > 100).then_some(())
    });
    let (before, start) = operations(&serving);
    wait_for("some more", || {
        (operations(&serving).0 > before + 1000).then_some(())
    });
    let (after, end) = operations(&serving);
    // What had gone and was not counted at the start: the queues' depth; and ten slices that were left.
    let slack = 2 * 16 + 20 + 2;
    let allowed = u128::from(end - start) * 2000 / 1_000_000_000 + slack;
    let went = u128::from(after - before);
    assert!(went <= allowed, "{went} of {allowed}");
    // Without it, the same host is not held back: a namespace goes while it waits.
    serving.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1}));
    serving.call("bdev_null_delete", json!({"name": "d0"}));
    serving.end();
}
