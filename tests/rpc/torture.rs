//! Clients that mean harm, and calls that race. Everything is answered, nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::serving::{Client, PROGRAM, Place, Serving, mask, wait_for};

/// What a process holds: open descriptors, devices, and payload memory in use.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    devices: Vec<String>,
    waiting: Vec<u64>,
}

fn holdings(serving: &Serving) -> Holdings {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", serving.child.id()));
    let devices = serving.call("bdev_get_bdevs", Value::Null);
    let names = devices.as_array().expect("a list").iter();
    let stats = serving.call("nvmf_get_stats", Value::Null);
    let groups = stats["poll_groups"].as_array().expect("a list").iter();
    Holdings {
        descriptors: descriptors.expect("its descriptors").count(),
        devices: names
            .map(|d| d["name"].as_str().expect("a name").to_owned())
            .collect(),
        waiting: groups
            .map(|g| g["pending_bdev_io"].as_u64().expect("a number"))
            .collect(),
    }
}

/// That it holds again what it held: what is closed may take a moment.
fn comes_back_to(serving: &Serving, before: &Holdings) {
    let mut last = None;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::time::Instant::now() < until {
        let now = holdings(serving);
        if now == *before {
            return;
        }
        last = Some(now);
        thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it held {before:?} and holds {last:?}");
}

fn served(place: &Place) -> Serving {
    let serving = place.serve(&["-s", "256", "-m", &mask(2)]);
    serving.call("nvmf_create_transport", json!({"trtype": "TCP"}));
    serving
}

/// Some JSON, of any kind.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from("n0")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any method with any parameters under the names that it has: an answer comes, and the process lives. Devices that are
/// made by accident are deleted with it.
#[test]
fn any_call_is_answered() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut methods: Vec<(&str, Vec<&str>)> = stripewise::rpc::methods::all()
        .map(|m| {
            let params = m.params.iter().map(|p| p.trim_end_matches('?'));
            (m.name, params.collect())
        })
        .collect();
    // These end the process, or wait for what never comes, as they should.
    methods.retain(|(name, _)| *name != "spdk_kill_instance");
    let mut runner = TestRunner::new(Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    });
    let client = std::cell::RefCell::new(serving.client());
    let call = (
        0..methods.len(),
        prop::collection::vec(any_json(), 12),
        any::<u16>(),
    );
    let outcome = runner.run(&call, |(at, values, chosen)| {
        let (method, params) = &methods[at];
        let mut given = serde_json::Map::new();
        for (n, (param, value)) in params.iter().zip(values).enumerate() {
            // A wait would be long.
            if chosen & (1 << n) != 0 && *param != "timeout" {
                given.insert((*param).to_owned(), value);
            }
        }
        let answer = client.borrow_mut().call(method, given.into());
        if let Err(error) = answer {
            prop_assert!(
                error["code"].as_i64().is_some_and(|code| code < 0),
                "{error}"
            );
            let message = error["message"].as_str().unwrap_or_default();
            prop_assert!(!message.is_empty());
        }
        Ok(())
    });
    outcome.expect("every call is answered");
    serving.end();
}

#[test]
fn any_bytes_are_answered_or_cut_off_and_harm_nobody() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut good = serving.client();
    let before = holdings(&serving);
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        any_json().prop_map(|json| json.to_string().into_bytes()),
        any_json().prop_map(|json| {
            let request = json!({"jsonrpc": "2.0", "id": json, "method": "rpc_get_methods"});
            request.to_string().into_bytes()
        }),
        // Half of a request.
        any_json().prop_map(|json| {
            let request = json!({"id": 1, "method": "bdev_get_bdevs", "params": json}).to_string();
            request.as_bytes()[..request.len() / 2].to_vec()
        }),
    ];
    let outcome = runner.run(&bytes, |bytes| {
        let mut client = serving.client();
        let _ = client.stream.write_all(&bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        while client.receive().is_some() {}
        Ok(())
    });
    outcome.expect("every connection is answered or ended");
    good.call("spdk_get_version", Value::Null)
        .expect("it is served");
    drop(good);
    let good = serving.client();
    comes_back_to(&serving, &before);
    drop(good);
    serving.end();
}

#[test]
fn huge_parameters_are_refused_and_large_ones_taken() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let mut client = serving.client();
    let names: Vec<String> = (0..5000).map(|n| format!("no-such-device-{n}")).collect();
    let error = client
        .call("bdev_get_iostat", json!({"names": names}))
        .unwrap_err();
    assert_eq!(error["code"], -19, "{error}");
    let long = "x".repeat(200_000);
    let null = json!({"name": long, "num_blocks": 8, "block_size": 512});
    // It is what was asked for.
    let made = client
        .call("bdev_null_create", null)
        .map(|name| name == long.as_str());
    assert_eq!(made, Ok(true));
    client
        .call("bdev_null_delete", json!({"name": long}))
        .expect("there");
    let _ = client.stream.write_all(
        json!({"id": 1, "method": "x".repeat(400_000)})
            .to_string()
            .as_bytes(),
    );
    let refused = client.receive().expect("an answer");
    assert_eq!(refused["error"]["code"], -32700);
    serving.call("spdk_get_version", Value::Null);
    serving.end();
}

/// The answers that a client does not read stay few, and others are served meanwhile.
#[test]
fn who_never_reads_is_bounded_and_holds_up_nobody() {
    let place = Place::new();
    let serving = place.serve(&[]);
    for n in 0..50 {
        let null = json!({"name": format!("n{n}"), "num_blocks": 8, "block_size": 512});
        serving.call("bdev_null_create", null);
    }
    let resident = || {
        let statm = fs::read_to_string(format!("/proc/{}/statm", serving.child.id())).expect("it");
        let pages: usize = statm
            .split(' ')
            .nth(1)
            .expect("a field")
            .parse()
            .expect("a number");
        pages * 4096
    };
    let before = resident();
    let mut mute: Vec<Client> = (0..8).map(|_| serving.client()).collect();
    let request = br#"{"id":1,"method":"bdev_get_bdevs"}"#.repeat(64);
    for client in &mut mute {
        client.stream.set_nonblocking(true).expect("a socket");
    }
    let mut good = serving.client();
    for _ in 0..100 {
        for client in &mut mute {
            // Until it takes no more.
            let _ = client.stream.write_all(&request);
        }
        good.call("spdk_get_version", Value::Null)
            .expect("it is served");
    }
    let more = resident().saturating_sub(before);
    // 16 MiB is what one client may have unread before it is cut off; these are paused long before.
    assert!(more < 8 * (4 << 20), "{more} bytes more");
    drop(mute);
    good.call("spdk_get_version", Value::Null)
        .expect("it is served");
    serving.end();
}

/// A port that was free just now.
fn free_port() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("an address")
}

#[test]
fn rpc_over_tcp_is_the_same_with_a_warning() {
    let place = Place::new();
    let address = free_port();
    let text = address.to_string();
    let serving = place.serve(&["-r", &text]);
    assert!(
        serving.stderr().contains("no authentication"),
        "{}",
        serving.stderr()
    );
    assert!(!place.socket().exists());
    let ask = |more: &[&str]| {
        let output = Command::new(PROGRAM)
            .args(["rpc", "-s", &text])
            .args(more)
            .output();
        output.expect("the program runs")
    };
    let null = [
        "bdev_null_create",
        "name=n0",
        "num_blocks=8",
        "block_size=512",
    ];
    let made = ask(&null);
    assert_eq!(String::from_utf8_lossy(&made.stdout), "\"n0\"\n");
    let mut clients: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(address).expect("it listens"))
        .collect();
    for client in &mut clients {
        client
            .set_read_timeout(Some(super::serving::BOUND))
            .expect("a socket");
        client
            .write_all(br#"{"id":1,"method":"spdk_get_version"}"#)
            .expect("it takes bytes");
    }
    for client in &clients {
        let mut answers = serde_json::Deserializer::from_reader(client).into_iter::<Value>();
        let answer = answers.next().expect("an answer").expect("JSON");
        assert_eq!(answer["id"], 1);
    }
    drop(clients);
    let mut ended = serving;
    ended.signal(rustix::process::Signal::TERM);
    assert_eq!(ended.wait().code(), Some(0), "{}", ended.stderr());
}

const NQN: &str = "nqn.2026-11.io.stripewise:torture";

/// Makes devices `m0` to `m4`, and a volume of the first four with superblocks; exports it.
fn make_volume(serving: &Serving, address: SocketAddr) {
    for n in 0..5 {
        let malloc = json!({"name": format!("m{n}"), "num_blocks": 65536, "block_size": 512});
        serving.call("bdev_malloc_create", malloc);
    }
    let volume = json!({
        "name": "r0", "raid_level": "raid5", "strip_size_kb": 64, "superblock": true,
        "base_bdevs": ["m0", "m1", "m2", "m3"],
    });
    serving.call("bdev_raid_create", volume);
    let null = json!({"name": "n0", "num_blocks": 65536, "block_size": 512});
    serving.call("bdev_null_create", null);
    serving.call(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "allow_any_host": true}),
    );
    for bdev in ["r0", "n0"] {
        let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": bdev}});
        serving.call("nvmf_subsystem_add_ns", namespace);
    }
    let listener = json!({"nqn": NQN, "listen_address": {
        "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1",
        "trsvcid": address.port().to_string(),
    }});
    serving.call("nvmf_subsystem_add_listener", listener);
}

/// Takes down whatever is left of that.
fn take_down(serving: &Serving) {
    let mut client = serving.client();
    let mut gone = BTreeSet::new();
    // A call may meet another that is still under way.
    wait_for("everything to go", || {
        for (method, params) in [
            ("nvmf_delete_subsystem", json!({"nqn": NQN})),
            ("bdev_raid_delete", json!({"name": "r0", "clear_sb": true})),
            ("bdev_null_delete", json!({"name": "n0"})),
            ("bdev_malloc_delete", json!({"name": "m0"})),
            ("bdev_malloc_delete", json!({"name": "m1"})),
            ("bdev_malloc_delete", json!({"name": "m2"})),
            ("bdev_malloc_delete", json!({"name": "m3"})),
            ("bdev_malloc_delete", json!({"name": "m4"})),
        ] {
            let _ = client.call(method, params.clone());
            gone.insert(params.to_string());
        }
        let left = client.call("bdev_get_bdevs", Value::Null).expect("a list");
        (left == json!([])).then_some(())
    });
}

/// Calls that contradict each other, at the same time and while a host writes and the volume is being rebuilt and checked: every
/// one of them comes back, and nothing of it all is left.
#[test]
fn calls_that_race_all_come_back_and_leave_nothing() {
    let place = Place::new();
    let serving = served(&place);
    let before = holdings(&serving);
    for round in 0..4u64 {
        let address = free_port();
        make_volume(&serving, address);
        let host = Command::new(PROGRAM)
            .args(["perf", "--traddr", "127.0.0.1", "--subnqn", NQN])
            .args(["--trsvcid", &address.port().to_string()])
            .args([
                "--rw",
                "randwrite",
                "--bs",
                "4k",
                "--iodepth",
                "8",
                "--runtime",
                "600",
            ])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let mut host = host.expect("the program starts");
        let remove = json!({"name": "m1"});
        let add = json!({"raid_bdev": "r0", "base_bdev": "m4", "force": true});
        let mut scripts: Vec<Vec<(&str, Value)>> = vec![
            vec![
                ("bdev_raid_remove_base_bdev", remove.clone()),
                ("bdev_raid_add_base_bdev", add.clone()),
                ("bdev_raid_check", json!({"name": "r0", "action": "check"})),
                ("bdev_null_resize", json!({"name": "n0", "new_size": 64})),
            ],
            vec![
                ("bdev_raid_remove_base_bdev", remove.clone()),
                ("bdev_raid_add_base_bdev", add),
                (
                    "bdev_set_qos_limit",
                    json!({"name": "r0", "rw_ios_per_sec": 1000}),
                ),
                ("bdev_raid_delete", json!({"name": "r0"})),
            ],
            vec![
                ("bdev_malloc_delete", json!({"name": "m1"})),
                ("bdev_malloc_delete", json!({"name": "m2"})),
                (
                    "bdev_set_qos_limit",
                    json!({"name": "n0", "rw_mbytes_per_sec": 1}),
                ),
                ("bdev_null_resize", json!({"name": "n0", "new_size": 128})),
            ],
            vec![
                ("bdev_null_resize", json!({"name": "n0", "new_size": 96})),
                ("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})),
                ("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})),
                ("bdev_raid_delete", json!({"name": "r0"})),
            ],
        ];
        // Another order each time.
        for (n, script) in scripts.iter_mut().enumerate() {
            script.rotate_left((round as usize + n) % 4);
        }
        thread::scope(|scope| {
            for script in &scripts {
                let serving = &serving;
                scope.spawn(move || {
                    let mut client = serving.client();
                    for (method, params) in script {
                        // Either is right; that nothing comes is not, and fails by the clients' bound.
                        let answer = client.call(method, params.clone());
                        // Nor is a change that nobody ever makes.
                        let late = answer.is_err_and(|error| error["code"] == -110);
                        assert!(!late, "{method} {params} waited in vain");
                    }
                });
            }
        });
        serving.call("spdk_get_version", Value::Null);
        let _ = host.kill();
        let _ = host.wait();
        take_down(&serving);
        comes_back_to(&serving, &before);
    }
    serving.end();
}

/// A file that grows while its device comes and goes.
#[test]
fn a_device_may_go_while_it_is_resized() {
    let place = Place::new();
    let serving = served(&place);
    let before = holdings(&serving);
    let path: PathBuf = place.path("disk");
    let file = fs::File::create(&path).expect("a file");
    file.set_len(1 << 20).expect("a size");
    let create = json!({"name": "u0", "filename": path, "block_size": 512});
    let name = json!({"name": "u0"});
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = serving.client();
            for _ in 0..40 {
                let _ = client.call("bdev_uring_create", create.clone());
                let _ = client.call("bdev_uring_delete", name.clone());
            }
        });
        scope.spawn(|| {
            let mut client = serving.client();
            for n in 0..120u64 {
                file.set_len((1 << 20) + 4096 * n).expect("a size");
                let _ = client.call("bdev_uring_rescan", name.clone());
            }
        });
    });
    let mut client = serving.client();
    let _ = client.call("bdev_uring_delete", name);
    drop(client);
    comes_back_to(&serving, &before);
    serving.end();
}
