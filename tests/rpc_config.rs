//! Configurations, good and bad: a bad one is told with its place, its key and the mend, and nothing
//! is served.

mod serving;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use serving::Place;

const NQN: &str = "nqn.2026-11.io.stripewise:a";

fn config(bdev: Vec<Value>, nvmf: Vec<Value>) -> Value {
    json!({"subsystems": [
        {"subsystem": "bdev", "config": bdev},
        {"subsystem": "nvmf", "config": nvmf},
    ]})
}

fn call(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

fn null(name: &str, blocks: u64) -> Value {
    let params = json!({"name": name, "num_blocks": blocks, "block_size": 4096});
    call("bdev_null_create", params)
}

fn raid(changes: Value) -> Value {
    let mut params = json!({
        "name": "r", "raid_level": "raid5", "strip_size_kb": 64, "base_bdevs": ["a", "b", "c"],
    });
    let changes = changes.as_object().unwrap().clone();
    params.as_object_mut().unwrap().extend(changes);
    call("bdev_raid_create", params)
}

fn members() -> Vec<Value> {
    ["a", "b", "c"].map(|name| null(name, 4096)).into()
}

fn listener(traddr: &str, port: u16) -> Value {
    let address = json!({"trtype": "TCP", "traddr": traddr, "trsvcid": port.to_string()});
    call(
        "nvmf_subsystem_add_listener",
        json!({"nqn": NQN, "listen_address": address}),
    )
}

fn exported(listener: Value) -> Vec<Value> {
    vec![
        call("nvmf_create_transport", json!({"trtype": "TCP"})),
        call(
            "nvmf_create_subsystem",
            json!({"nqn": NQN, "allow_any_host": true}),
        ),
        call(
            "nvmf_subsystem_add_ns",
            json!({"nqn": NQN, "namespace": {"bdev_name": "r"}}),
        ),
        listener,
    ]
}

/// That every part is in the text.
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn a_good_one_is_served_and_announced() {
    let place = Place::new();
    let mut bdevs = members();
    bdevs.push(raid(json!({"layout": "right-asymmetric"})));
    let path = place.config(&config(bdevs, exported(listener("127.0.0.1", 0))));
    let serving = place.serve(&["-c", path.to_str().unwrap(), "--idle", "busy"]);
    let shown = serving.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    let port = shown[0]["listen_addresses"][0]["trsvcid"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(port, "0");
    let banner = serving.stdout();
    let socket = serving.socket.display().to_string();
    says(
        &banner,
        &[
            NQN,
            "namespace 1: r",
            "RAID5 of a b c, 64 KiB chunk, online",
            &format!("nvme connect -t tcp -a 127.0.0.1 -s {port} -n {NQN}"),
            &format!("perf --traddr 127.0.0.1 --trsvcid {port} --subnqn {NQN}"),
            &format!("rpc -s {socket} bdev_raid_get_bdevs"),
        ],
    );
    serving.end();
}

#[test]
fn bad_calls_are_told_with_their_place_and_the_mend() {
    let place = Place::new();
    let file = place.path("here");
    fs::write(&file, "too small").unwrap();
    let uring = json!({"name": "u", "filename": file, "block_size": 512});
    let bad = [
        (
            null("a", 8),
            "call 2, bdev_null_create",
            "a already exists; choose another name",
        ),
        (
            call("bdev_uring_create", uring),
            "call 2, bdev_uring_create",
            "make it larger",
        ),
        (
            raid(json!({"strip_size_kb": 2048})),
            "call 2, bdev_raid_create",
            "from 4 to 1024",
        ),
        (
            raid(json!({"raid_level": "raid6"})),
            "call 2, bdev_raid_create",
            "use \"raid5\"",
        ),
    ];
    for (second, at, mend) in bad {
        let said = place.refuse(&config(vec![null("a", 8), second], vec![]), &[]);
        says(&said, &["config.json", "subsystem bdev", at, mend]);
        assert!(!place.socket().exists());
    }
}

#[test]
fn members_of_different_block_sizes_are_told() {
    let place = Place::new();
    let mut bdevs = members();
    bdevs[2] = call(
        "bdev_null_create",
        json!({"name": "c", "num_blocks": 99, "block_size": 512}),
    );
    bdevs.push(raid(json!({})));
    let said = place.refuse(&config(bdevs, vec![]), &[]);
    says(
        &said,
        &[
            "call 4, bdev_raid_create",
            "member c has blocks of 512",
            "one block size",
        ],
    );
}

#[test]
fn bad_exports_are_told() {
    let place = Place::new();
    let mut bdevs = members();
    bdevs.push(raid(json!({})));
    let elsewhere = exported(listener("192.0.2.1", 4420));
    let said = place.refuse(&config(bdevs.clone(), elsewhere), &[]);
    says(&said, &["192.0.2.1:4420", "no interface has this address"]);

    for nqn in [
        "stripewise",
        "nqn.2026-13.io:x",
        "nqn.2026-11.io.stripewise:",
        "",
    ] {
        let malformed = vec![call("nvmf_create_subsystem", json!({"nqn": nqn}))];
        let said = place.refuse(&config(bdevs.clone(), malformed), &[]);
        says(
            &said,
            &["subsystem nvmf, call 1, nvmf_create_subsystem", "nqn"],
        );
    }

    // One member is missing, so there is no volume yet.
    let mut waiting = bdevs.clone();
    waiting.remove(1);
    let said = place.refuse(&config(waiting, exported(listener("127.0.0.1", 0))), &[]);
    says(
        &said,
        &[
            "nvmf_subsystem_add_ns",
            "RAID volume r is not started: waits for b; make it first",
            "make it first",
        ],
    );
}

#[test]
fn a_machine_that_is_not_there_is_told() {
    let place = Place::new();
    let said = place.spawn_and_refuse(&["-s", "1000000000"]);
    says(&said, &["more than the", "-s"]);
    File::create(place.socket()).unwrap();
    let said = place.spawn_and_refuse(&[]);
    says(&said, &["not a socket", "-r"]);
    assert!(place.socket().exists(), "it is not ours to remove");
}

#[test]
fn the_examples_are_served() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for example in ["demo.json", "files.json"] {
        let place = Place::new();
        let text = fs::read_to_string(examples.join(example)).unwrap();
        // Where no other test and no other target is.
        let mut text = text.replace("\"4420\"", "\"0\"");
        for n in 0..4 {
            let file = place.path(&format!("m{n}.img"));
            File::create(&file).unwrap().set_len(8 << 20).unwrap();
            let shipped = format!("/var/tmp/stripewise-m{n}.img");
            text = text.replace(&shipped, file.to_str().unwrap());
        }
        let path = place.text(example, &text);
        let serving = place.serve(&["-c", path.to_str().unwrap()]);
        let volume = serving.call("bdev_raid_get_bdevs", json!({"category": "online"}));
        assert_eq!(volume[0]["name"], "demo");
        assert_eq!(volume[0]["strip_size_kb"], 64);
        assert_eq!(volume[0]["num_base_bdevs_operational"], 4);
        let subsystems = serving.call("nvmf_get_subsystems", Value::Null);
        assert_eq!(subsystems[1]["nqn"], "nqn.2026-11.io.stripewise:demo");
        assert_eq!(subsystems[1]["namespaces"][0]["bdev_name"], "demo");
        assert_eq!(subsystems[1]["listen_addresses"][0]["traddr"], "127.0.0.1");
        serving.end();
    }
}

/// What `stripewise rpc` prints, or what it says when it fails.
fn rpc(place: &Place, args: &[&str]) -> Result<String, String> {
    let output = Command::new(serving::PROGRAM)
        .args(["rpc", "-s"])
        .arg(place.socket())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

#[test]
fn what_is_saved_is_served_and_saved_again() {
    let place = Place::new();
    let mut bdevs = members();
    bdevs.push(raid(json!({"shard_run": 4})));
    // No other test takes the port while nobody listens there.
    let path = place.config(&config(bdevs, exported(listener("127.0.0.37", 0))));
    let serving = place.serve(&["-c", path.to_str().unwrap()]);
    let saved = rpc(&place, &["save_config"]).unwrap();
    serving.end();
    says(&saved, &["bdev_raid_create", "nvmf_subsystem_add_listener"]);
    let path = place.text("saved.json", &saved);
    let file = path.to_str().unwrap();

    // At start, over RPC, and in the middle between the two.
    let serving = place.serve(&["-c", file]);
    assert_eq!(rpc(&place, &["save_config"]).unwrap(), saved);
    serving.end();
    for more in [&[][..], &["--wait-for-rpc"][..]] {
        let serving = place.serve(more);
        let load = format!("filename={file}");
        assert_eq!(rpc(&place, &["load_config", &load]).unwrap(), "true\n");
        assert_eq!(rpc(&place, &["save_config"]).unwrap(), saved);
        serving.end();
    }
    let serving = place.serve(&["-c", file, "--wait-for-rpc"]);
    let early = rpc(&place, &["save_config"]).unwrap_err();
    says(&early, &["framework_start_init"]);
    rpc(&place, &["framework_start_init"]).unwrap();
    rpc(&place, &["framework_wait_init"]).unwrap();
    serving::wait_for("the rest of the configuration", || {
        (rpc(&place, &["save_config"]).ok()? == saved).then_some(())
    });
    serving.end();
}

#[test]
fn parts_are_saved_and_loaded_alone() {
    let place = Place::new();
    let path = place.config(&config(members(), vec![]));
    let serving = place.serve(&["-c", path.to_str().unwrap()]);
    let part = rpc(&place, &["save_subsystem_config", "name=bdev"]).unwrap();
    let unknown = rpc(&place, &["save_subsystem_config", "name=ftl"]).unwrap_err();
    says(&unknown, &["'ftl'", "bdev, nvmf"]);
    let nameless = rpc(&place, &["save_subsystem_config"]).unwrap_err();
    says(&nameless, &["name=..."]);
    let odd = rpc(&place, &["save_config", "indent=2"]).unwrap_err();
    says(&odd, &["no parameter indent"]);
    serving.end();
    let path = place.text("part.json", &part);
    let serving = place.serve(&[]);
    let load = format!("filename={}", path.display());
    rpc(&place, &["load_subsystem_config", &load]).unwrap();
    let names = serving.call("bdev_get_bdevs", Value::Null);
    assert_eq!(names.as_array().unwrap().len(), 3);
    serving.end();
}

#[test]
fn a_bad_configuration_is_told_with_its_place_when_it_is_loaded() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let load = |name: &str| rpc(&place, &["load_config", &format!("filename={name}")]);
    let absent = load("/no/such/file").unwrap_err();
    says(&absent, &["/no/such/file", "cannot be read"]);
    let form = place.text("form.json", "{\"subsystem\": []}");
    says(
        &load(form.to_str().unwrap()).unwrap_err(),
        &["form.json", "unknown field `subsystem`"],
    );
    let unknown = vec![null("a", 8), call("bdev_null_make", json!({}))];
    let unknown = place.config(&config(unknown, vec![]));
    says(
        &load(unknown.to_str().unwrap()).unwrap_err(),
        &["call 2, bdev_null_make", "no such method"],
    );
    // Nothing was done half-way.
    assert_eq!(serving.call("bdev_get_bdevs", Value::Null), json!([]));
    let twice = place.config(&config(vec![null("a", 8), null("a", 8)], vec![]));
    says(
        &load(twice.to_str().unwrap()).unwrap_err(),
        &["call 2, bdev_null_create", "a already exists"],
    );
    serving.end();
    // At start, an unknown method is found before anything is made.
    let late = vec![null("a", 0), call("bdev_null_make", json!({}))];
    let said = place.refuse(&config(late, vec![]), &[]);
    says(&said, &["call 2, bdev_null_make", "Method not found"]);
}
