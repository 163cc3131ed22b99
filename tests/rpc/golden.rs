//! Results against golden shapes: what SPDK tells, by its schema and documentation, written by hand. Where ours have more, that is
//! named here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::hosts::Host;
use super::serving::{Client, PROGRAM, Place, mask, wait_for};
use super::shape::differences;

const NQN: &str = "nqn.2026-11.io.stripewise:golden";

/// What our results have besides, as `method path`.
const ADDITIONS: &[&str] = &["nvmf_subsystem_get_controllers [].cntrltype"];

/// What SPDK tells and we do not, in the words of the comparison: shared buffers, which its schema has as deprecated and we
/// have not.
const OMISSIONS: &[&str] = &[
    "nvmf_get_transports [].buf_cache_size: is missing",
    "nvmf_get_transports [].num_shared_buffers: is missing",
];

/// A script of calls, and what was wrong with their results.
struct Script {
    client: Client,
    called: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Script {
    fn call(&mut self, method: &str, params: Value) -> Value {
        let result = match self.client.call(method, params) {
            Ok(result) => result,
            Err(error) => panic!("{method}: {error}"),
        };
        let path = golden().join(format!("{method}.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let shape = serde_json::from_str(&text).expect("golden files are JSON");
        let own = ADDITIONS.iter().filter_map(|pair| {
            let (of, path) = pair.split_once(' ')?;
            (of == method).then_some(path)
        });
        let own: Vec<&str> = own.collect();
        let found = differences(&shape, &result, &own);
        let found = found.into_iter().map(|what| format!("{method} {what}"));
        let found = found.filter(|what| !OMISSIONS.contains(&what.as_str()));
        self.wrong.extend(found);
        self.called.insert(method.to_owned());
        result
    }
}

fn golden() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rpc/golden"))
}

#[test]
fn results_have_spdks_shapes() {
    let place = Place::new();
    let mask = mask(1);
    let serving = place.serve(&["-s", "256", "-m", &mask, "--wait-for-rpc"]);
    let mut script = Script {
        client: serving.client(),
        called: BTreeSet::new(),
        wrong: Vec::new(),
    };
    let s = &mut script;
    s.call("spdk_get_version", Value::Null);
    s.call("rpc_get_methods", Value::Null);
    s.call("nvmf_set_max_subsystems", json!({"max_subsystems": 64}));
    s.call("framework_start_init", Value::Null);
    s.call("framework_wait_init", Value::Null);
    s.call("log_get_print_level", Value::Null);
    s.call("log_set_print_level", json!({"level": "WARNING"}));
    s.call("log_set_flag", json!({"flag": "rpc"}));
    s.call("log_clear_flag", json!({"flag": "all"}));
    s.call("log_get_flags", Value::Null);
    // Devices.
    s.call("bdev_set_options", json!({"bdev_auto_examine": true}));
    for n in 0..4 {
        let malloc = json!({"name": format!("m{n}"), "num_blocks": 16384, "block_size": 512});
        s.call("bdev_malloc_create", malloc);
    }
    let null = json!({"name": "n0", "num_blocks": 2048, "block_size": 512});
    s.call("bdev_null_create", null);
    s.call("bdev_null_resize", json!({"name": "n0", "new_size": 2}));
    for api in ["aio", "uring"] {
        let path = place.path(api);
        let file = File::create(&path).expect("a file");
        file.set_len(1 << 20).expect("a size");
        let made = json!({"name": api, "filename": path, "block_size": 4096});
        s.call(&format!("bdev_{api}_create"), made);
        file.set_len(2 << 20).expect("a size");
        s.call(&format!("bdev_{api}_rescan"), json!({"name": api}));
    }
    s.call("bdev_error_create", json!({"base_name": "m3"}));
    let inject = json!({"name": "EE_m3", "io_type": "read", "error_type": "failure"});
    s.call("bdev_error_inject_error", inject);
    let delay = json!({
        "base_bdev_name": "uring", "name": "d0", "avg_read_latency": 1, "p99_read_latency": 1,
        "avg_write_latency": 1, "p99_write_latency": 1,
    });
    s.call("bdev_delay_create", delay);
    let update = json!({"delay_bdev_name": "d0", "latency_type": "avg_read", "latency_us": 2});
    s.call("bdev_delay_update_latency", update);
    let raid = json!({
        "name": "r0", "raid_level": "raid5f", "strip_size_kb": 64, "base_bdevs": ["m0", "m1", "m2"],
        "superblock": false,
    });
    s.call("bdev_raid_create", raid);
    s.call("bdev_wait_for_examine", Value::Null);
    s.call("bdev_examine", json!({"name": "n0"}));
    s.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    s.call("bdev_nvme_get_controllers", Value::Null);
    // What is exported, and to whom.
    let key = place.text(
        "key",
        "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the key's permissions");
    s.call("keyring_file_add_key", json!({"name": "k0", "path": key}));
    s.call("keyring_get_keys", Value::Null);
    s.call("nvmf_create_transport", json!({"trtype": "TCP"}));
    s.call("nvmf_get_transports", Value::Null);
    let subsystem = json!({"nqn": NQN, "allow_any_host": false});
    s.call("nvmf_create_subsystem", subsystem);
    for bdev in ["r0", "n0", "aio"] {
        let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": bdev}});
        s.call("nvmf_subsystem_add_ns", namespace);
    }
    let host = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
    let with_key = json!({"nqn": NQN, "host": host, "dhchap_key": "k0"});
    s.call("nvmf_subsystem_add_host", with_key);
    s.call(
        "nvmf_subsystem_allow_any_host",
        json!({"nqn": NQN, "allow_any_host": true}),
    );
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port().to_string();
    drop(free);
    let address = json!({
        "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port,
    });
    let listener = json!({"nqn": NQN, "listen_address": address});
    s.call("nvmf_subsystem_add_listener", listener.clone());
    s.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    s.call(
        "bdev_set_qos_limit",
        json!({"name": "n0", "rw_ios_per_sec": 100_000}),
    );
    s.call(
        "bdev_set_qd_sampling_period",
        json!({"name": "r0", "period": 1000}),
    );
    s.call(
        "bdev_enable_histogram",
        json!({"name": "r0", "enable": true}),
    );
    let host = Command::new(PROGRAM)
        .args([
            "perf",
            "--traddr",
            "127.0.0.1",
            "--trsvcid",
            &port,
            "--subnqn",
            NQN,
        ])
        .args([
            "--rw",
            "randwrite",
            "--bs",
            "4k",
            "--iodepth",
            "2",
            "--runtime",
            "600",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let host = Host(host.expect("the program starts"));
    let is_served = |s: &mut Script| {
        let stat = s.call("bdev_get_iostat", json!({"names": ["r0"]}));
        (stat["bdevs"][0]["num_write_ops"].as_u64() > Some(0)).then_some(())
    };
    wait_for("a host that writes", || is_served(s));
    for method in [
        "nvmf_subsystem_get_controllers",
        "nvmf_subsystem_get_qpairs",
    ] {
        let told = s.call(method, json!({"nqn": NQN}));
        assert!(told[0].is_object(), "{method}: nobody is there");
    }
    for method in [
        "nvmf_get_subsystems",
        "nvmf_get_stats",
        "bdev_get_bdevs",
        "bdev_get_iostat",
        "framework_get_reactors",
        "framework_get_scheduler",
        "framework_get_subsystems",
        "thread_get_stats",
        "thread_get_pollers",
        "thread_get_io_channels",
        "notify_get_types",
        "notify_get_notifications",
    ] {
        s.call(method, Value::Null);
    }
    s.call("bdev_get_histogram", json!({"name": "r0"}));
    s.call("bdev_reset_iostat", json!({"name": "r0"}));
    for name in ["bdev", "nvmf", "keyring"] {
        s.call("framework_get_config", json!({"name": name}));
    }
    drop(host);
    // And back.
    s.call("nvmf_subsystem_remove_listener", listener);
    s.call(
        "nvmf_subsystem_remove_host",
        json!({"nqn": NQN, "host": "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555"}),
    );
    s.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 3}));
    s.call("nvmf_delete_subsystem", json!({"nqn": NQN}));
    s.call("keyring_file_remove_key", json!({"name": "k0"}));
    s.call("bdev_raid_delete", json!({"name": "r0"}));
    for (api, name) in [
        ("delay", "d0"),
        ("error", "EE_m3"),
        ("aio", "aio"),
        ("uring", "uring"),
        ("null", "n0"),
        ("malloc", "m0"),
    ] {
        s.call(&format!("bdev_{api}_delete"), json!({"name": name}));
    }
    // No golden file lies about unused.
    let files = fs::read_dir(golden()).expect("the golden files");
    for file in files {
        let path = file.expect("a file").path();
        let method = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if method != "params" && !script.called.contains(&method) {
            script.wrong.push(format!("{method} is not called"));
        }
    }
    let wrong: BTreeSet<&String> = script.wrong.iter().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    serving.end();
}
