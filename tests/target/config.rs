//! Configurations and command lines that are wrong: the program says what is wrong and what to do,
//! and ends.

use std::fs;
use std::process::{Output, Stdio};

use rustix::process::geteuid;
use serde_json::{Value, json};

use super::plan::{Kind, NQN, Plan, VOLUME, call, config};
use super::process::{Site, signal, stripewise, wait_for_exit};

/// Runs the program to its end, which must come.
pub fn run(site: &Site, arguments: &[&str]) -> Output {
    let (out, err) = (site.scratch("out"), site.scratch("err"));
    let mut child = stripewise()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).expect("a file"))
        .stderr(fs::File::create(&err).expect("a file"))
        .spawn()
        .expect("the program can be started");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for_exit(&mut child, &format!("{arguments:?}"))
    }));
    let status = ended.unwrap_or_else(|panic| {
        signal(&child, rustix::process::Signal::KILL);
        let _ = child.wait();
        std::panic::resume_unwind(panic);
    });
    Output {
        status,
        stdout: fs::read(out).expect("a file"),
        stderr: fs::read(err).expect("a file"),
    }
}

/// Fails, and says all of these words.
fn check_refusal(output: &Output, code: i32, words: &[&str], what: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: no {word:?} in: {text}");
    }
    assert!(!text.contains("panicked"), "{what}: {text}");
}

/// The program refuses to serve a configuration.
fn check_config(site: &Site, config: &Value, words: &[&str], what: &str) {
    let path = site.write_config(config);
    let path = path.to_str().expect("a path");
    let socket = site.socket();
    let socket = socket.to_str().expect("a path");
    let output = run(site, &["serve", "-s", "64", "-r", socket, "-c", path]);
    let named: Vec<&str> = words.iter().copied().chain(["config file"]).collect();
    check_refusal(&output, 1, &named, what);
    assert!(!site.socket().exists(), "{what}: the socket is left behind");
}

/// A volume of these members.
fn volume(members: &[&str], strip_kb: u32) -> Value {
    let params = json!({
        "name": VOLUME, "raid_level": "raid5", "strip_size_kb": strip_kb, "base_bdevs": members,
    });
    call("bdev_raid_create", params)
}

fn malloc(name: &str) -> Value {
    call(
        "bdev_malloc_create",
        json!({"name": name, "num_blocks": 1024, "block_size": 4096}),
    )
}

fn listen(site: &Site) -> Value {
    let address = json!({
        "trtype": "TCP", "adrfam": "IPv4", "traddr": site.address().ip().to_string(),
        "trsvcid": site.address().port().to_string(),
    });
    call(
        "nvmf_subsystem_add_listener",
        json!({"nqn": NQN, "listen_address": address}),
    )
}

#[test]
fn wrong_configurations_are_refused() {
    let site = Site::new();
    let abcd = || vec![malloc("a"), malloc("b"), malloc("c"), malloc("d")];
    let with = |more: Value| {
        let mut calls = abcd();
        calls.push(more);
        config(calls)
    };
    let transport = call("nvmf_create_transport", json!({"trtype": "TCP"}));
    let subsystem = |nqn: &str| call("nvmf_create_subsystem", json!({"nqn": nqn}));
    let cases = [
        (
            "an unknown method",
            with(call("bdev_tape_create", json!({}))),
            vec!["bdev_tape_create", "call 5", "rpc_get_methods"],
        ),
        (
            "an unknown key",
            with(call(
                "bdev_malloc_create",
                json!({"num_blocks": 8, "block_size": 512, "colour": 1}),
            )),
            vec!["colour", "bdev_malloc_create", "num_blocks"],
        ),
        (
            "a key of the file",
            json!({"subsystems": [], "systems": []}),
            vec!["systems"],
        ),
        ("no subsystems", json!({"config": []}), vec!["subsystems"]),
        (
            "a wrong type",
            with(call(
                "bdev_malloc_create",
                json!({"num_blocks": "many", "block_size": 512}),
            )),
            vec!["num_blocks", "many"],
        ),
        (
            "a parameter too few",
            with(call("bdev_null_create", json!({"name": "n"}))),
            vec!["num_blocks", "bdev_null_create"],
        ),
        (
            "a block size",
            with(call(
                "bdev_malloc_create",
                json!({"num_blocks": 8, "block_size": 520}),
            )),
            vec!["520", "512"],
        ),
        ("a name twice", with(malloc("a")), vec!["a already exists"]),
        (
            "a member twice",
            with(volume(&["a", "b", "a"], 64)),
            vec![VOLUME, "a is named twice"],
        ),
        (
            "a chunk of 48 KiB",
            with(volume(&["a", "b", "c"], 48)),
            vec![VOLUME, "48", "power of two"],
        ),
        (
            "two members",
            with(volume(&["a", "b"], 64)),
            vec![VOLUME, "2 base_bdevs", "3 to 64"],
        ),
        (
            "a namespace of nothing",
            config(vec![
                subsystem(NQN),
                call(
                    "nvmf_subsystem_add_ns",
                    json!({"nqn": NQN, "namespace": {"bdev_name": "x"}}),
                ),
            ]),
            vec!["bdev_name", "x does not exist"],
        ),
        (
            "a malformed NQN",
            config(vec![subsystem("volume")]),
            vec!["volume", "nqn."],
        ),
        (
            "a listener of no subsystem",
            config(vec![transport.clone(), listen(&site)]),
            vec![NQN],
        ),
        (
            "a listener without transport",
            config(vec![subsystem(NQN), listen(&site)]),
            vec!["nvmf_create_transport"],
        ),
        (
            "a file that is not there",
            with(call(
                "bdev_uring_create",
                json!({"name": "u", "filename": site.file("none")}),
            )),
            vec!["none"],
        ),
        (
            "a folder",
            with(call(
                "bdev_uring_create",
                json!({"name": "u", "filename": site.file("")}),
            )),
            vec!["u"],
        ),
    ];
    for (what, config, words) in cases {
        check_config(&site, &config, &words, what);
    }
}

#[test]
fn a_volume_without_a_member_waits_and_says_so() {
    let site = Site::new();
    let calls = vec![malloc("a"), malloc("b"), volume(&["a", "b", "late"], 64)];
    let target = site.serve(&config(calls), "0x1");
    let all = target.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    assert_eq!(all[0]["state"], "configuring");
    let log = target.log();
    assert!(
        log.contains(VOLUME) && log.contains("late"),
        "the log says nothing: {log}"
    );
    let late = json!({"name": "late", "num_blocks": 1024, "block_size": 4096});
    target.call("bdev_malloc_create", late);
    let all = target.call("bdev_raid_get_bdevs", json!({"category": "all"}));
    assert_eq!(all[0]["state"], "online");
}

#[test]
fn the_smallest_member_counts_and_the_log_says_so() {
    let site = Site::new();
    let small = call(
        "bdev_malloc_create",
        json!({"name": "small", "num_blocks": 512, "block_size": 4096}),
    );
    let calls = vec![
        malloc("a"),
        malloc("b"),
        small,
        volume(&["a", "b", "small"], 64),
    ];
    let target = site.serve(&config(calls), "0x1");
    let volume = target.call("bdev_get_bdevs", json!({"name": VOLUME}));
    assert_eq!(volume[0]["num_blocks"], 2 * 512);
    let log = target.log();
    assert!(log.contains("small"), "the log says nothing: {log}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused() {
    let site = Site::new();
    let plan = Plan {
        kind: Kind::File,
        ..Plan::default()
    };
    let config = plan.config(&site);
    let path = site.file("m1");
    let mut permissions = fs::metadata(&path).expect("a file").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).expect("it is ours");
    if geteuid().is_root() {
        // Nothing is read-only for root but what is mounted so.
        let target = site.serve(&config, "0x1");
        drop(target);
        return;
    }
    check_config(&site, &config, &["m1", "writ"], "a read-only file");
}

#[test]
fn what_somebody_else_has_is_refused() {
    let site = Site::new();
    let plan = Plan {
        kind: Kind::File,
        ..Plan::default()
    };
    let own = plan.config(&site);
    let target = site.serve(&own, "0x1");
    let other = site.scratch("other.sock");
    let other = other.to_str().expect("a path");
    let serve = |socket: &str, config: Value| {
        let path = site.scratch("other.json");
        fs::write(&path, config.to_string()).expect("a file");
        let path = path.to_str().expect("a path");
        run(&site, &["serve", "-s", "64", "-r", socket, "-c", path])
    };

    // The socket.
    let socket = site.socket();
    let socket = socket.to_str().expect("a path");
    check_refusal(
        &serve(socket, config(vec![])),
        1,
        &[socket, "in use"],
        "the socket",
    );
    assert!(
        site.socket().exists(),
        "the socket was taken away from its owner"
    );

    // The port.
    let calls = vec![
        call("nvmf_create_transport", json!({"trtype": "TCP"})),
        call("nvmf_create_subsystem", json!({"nqn": NQN})),
        listen(&site),
    ];
    let address = site.address().to_string();
    let refusal = serve(other, config(calls));
    check_refusal(&refusal, 1, &[&address, "in use"], "the port");

    // A member's file.
    let refusal = serve(other, config(plan.devices(&site)));
    check_refusal(&refusal, 1, &["m0", "in use"], "a member's file");

    // The owner has not noticed anything.
    let state = target.call("bdev_raid_get_bdevs", json!({"category": "online"}));
    assert_eq!(state[0]["num_base_bdevs_operational"], 4);
}

#[test]
fn wrong_command_lines_are_refused() {
    let site = Site::new();
    let text = site.scratch("text");
    fs::write(&text, "members: 4\n").expect("a file");
    let text = text.to_str().expect("a path");
    let absent = site.scratch("absent.json");
    let absent = absent.to_str().expect("a path");
    let folder = site.scratch("no folder/rpc.sock");
    let folder = folder.to_str().expect("a path");
    let socket = site.socket();
    let socket = socket.to_str().expect("a path");
    let cases: &[(&str, &[&str], i32, &[&str])] = &[
        ("no command", &[], 2, &["serve", "rpc", "perf"]),
        ("an unknown command", &["destroy"], 2, &["destroy"]),
        ("an unknown option", &["serve", "--fast"], 2, &["--fast"]),
        (
            "a mask of nothing",
            &["serve", "-m", "0x0", "-r", socket],
            2,
            &["0x0"],
        ),
        (
            "no mask",
            &["serve", "-m", "all", "-r", socket],
            2,
            &["all"],
        ),
        (
            "a core that is not there",
            &["serve", "-s", "64", "-m", "[1000]", "-r", socket],
            1,
            &["1000"],
        ),
        (
            "no configuration",
            &["serve", "-r", socket, "-c", absent],
            1,
            &[absent, "No such file"],
        ),
        (
            "not JSON",
            &["serve", "-r", socket, "-c", text],
            1,
            &[text, "line 1"],
        ),
        (
            "a socket nowhere",
            &["serve", "-s", "64", "-r", folder],
            1,
            &[folder],
        ),
        (
            "too little memory",
            &["serve", "-s", "1", "-r", socket],
            1,
            &["1 MiB", "64"],
        ),
        (
            "no target",
            &["rpc", "-s", socket, "spdk_get_version"],
            1,
            &[socket, "serve"],
        ),
        (
            "a parameter without value",
            &["rpc", "-s", socket, "bdev_get_bdevs", "name"],
            1,
            &["name", "KEY=VALUE"],
        ),
        ("no method", &["rpc", "-s", socket], 2, &["METHOD"]),
        (
            "no subsystem",
            &["perf", "--traddr", "127.0.0.1"],
            2,
            &["--subnqn"],
        ),
        (
            "no workload",
            &[
                "perf",
                "--traddr",
                "127.0.0.1",
                "--subnqn",
                NQN,
                "--rw",
                "erase",
            ],
            2,
            &["erase", "randwrite"],
        ),
    ];
    for (what, arguments, code, words) in cases {
        check_refusal(&run(&site, arguments), *code, words, what);
    }
}

#[test]
fn calls_from_the_command_line() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let socket = site.socket();
    let socket = socket.to_str().expect("a path");
    let output = run(&site, &["rpc", "-s", socket, "bdev_get_bdevs", "name=m0"]);
    assert_eq!(output.status.code(), Some(0));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer, target.call("bdev_get_bdevs", json!({"name": "m0"})));
    for (what, arguments, words) in [
        (
            "an unknown device",
            ["bdev_get_bdevs", "name=none"],
            ["none", "code -19"],
        ),
        (
            "an unknown method",
            ["bdev_get_tapes", "name=m0"],
            ["bdev_get_tapes", "code -32601"],
        ),
        (
            "an unknown key",
            ["bdev_get_bdevs", "colour=red"],
            ["colour", "code -32602"],
        ),
    ] {
        let arguments = [&["rpc", "-s", socket], &arguments[..]].concat();
        check_refusal(&run(&site, &arguments), 1, &words, what);
    }
}
