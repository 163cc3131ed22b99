use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bdev::conformance::{buffers, conforms};
use crate::control::System;
use crate::rpc::testing::{call_and_wait, call_now, end, keys, system, system_with_reactor};

const SUBSYSTEM: &str = "nqn.2026-11.io.stripewise:remote";

/// A target of our own that exports a RAM disk, with a control thread of its own: the other one
/// waits for it. Gives the port, and ends the target when it is dropped.
struct Exporting {
    port: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporting {
    fn start(blocks: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let (mut target, port) = exporting(blocks);
                sender.send(port).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    target.poll(Instant::now());
                    std::thread::sleep(Duration::from_millis(1));
                }
                end(target);
            }
        });
        Self {
            port: receiver.recv().unwrap(),
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|end| end.is_ok()) || std::thread::panicking());
    }
}

fn exporting(blocks: u64) -> (System, String) {
    let mut target = system_with_reactor();
    let mut call = |method: &str, params: Value| {
        call_and_wait(&mut target, method, params).unwrap_or_else(|e| panic!("{method}: {e}"))
    };
    call("nvmf_create_transport", json!({"trtype": "TCP"}));
    let malloc = json!({"name": "m0", "num_blocks": blocks, "block_size": 4096});
    call("bdev_malloc_create", malloc);
    let subsystem = json!({
        "nqn": SUBSYSTEM, "allow_any_host": true, "serial_number": "S1", "model_number": "M1",
    });
    call("nvmf_create_subsystem", subsystem);
    let namespace = json!({"nqn": SUBSYSTEM, "namespace": {"bdev_name": "m0"}});
    call("nvmf_subsystem_add_ns", namespace);
    let port = free_port();
    let listener = json!({
        "nqn": SUBSYSTEM,
        "listen_address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port},
    });
    call("nvmf_subsystem_add_listener", listener);
    (target, port)
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn attach(port: &str) -> Value {
    json!({
        "name": "R0", "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port,
        "subnqn": SUBSYSTEM,
    })
}

/// Our own target is a good one, seen through our own initiator.
#[test]
fn a_namespace_of_our_own_target_conforms() {
    let target = Exporting::start(2048);
    let host = &mut system();
    let mut params = attach(&target.port);
    params["hdgst"] = true.into();
    params["ddgst"] = true.into();
    let attached = call_and_wait(host, "bdev_nvme_attach_controller", params.clone());
    assert_eq!(attached, Ok(json!(["R0n1"])));

    let bdev = host.devices.find("R0n1").unwrap();
    assert_eq!((bdev.info().blocks, bdev.info().block_size), (2048, 4096));
    assert!(bdev.info().deallocates && bdev.info().write_cache);
    let (_arena, pool) = buffers();
    conforms(bdev, &pool);

    let shown = call_now(host, "bdev_get_bdevs", json!({"name": "R0n1"})).unwrap();
    assert_eq!(shown[0]["product_name"], "NVMe disk");
    let nvme = &shown[0]["driver_specific"]["nvme"][0];
    assert_eq!(keys(nvme), ["trid", "ctrlr_data", "vs", "ns_data"]);
    assert_eq!(nvme["trid"]["subnqn"], SUBSYSTEM);
    assert_eq!(nvme["ctrlr_data"]["serial_number"], "S1");
    assert_eq!(nvme["ctrlr_data"]["subnqn"], SUBSYSTEM);
    assert_eq!(nvme["vs"]["nvme_version"], "2.0");
    assert_eq!(nvme["ns_data"], json!({"id": 1, "can_share": true}));
    assert_eq!(shown[0]["driver_specific"]["mp_policy"], "active_passive");

    let shown = call_now(host, "bdev_nvme_get_controllers", Value::Null).unwrap();
    assert_eq!(shown[0]["name"], "R0");
    let controller = &shown[0]["ctrlrs"][0];
    assert_eq!(keys(controller), ["state", "trid", "cntlid", "host"]);
    assert_eq!(controller["state"], "enabled");
    let trid = ["trtype", "adrfam", "traddr", "trsvcid", "subnqn"];
    assert_eq!(keys(&controller["trid"]), trid);

    let health = json!({"name": "R0"});
    let health = call_and_wait(host, "bdev_nvme_get_controller_health_info", health).unwrap();
    assert_eq!(health["model_number"], "M1");
    assert_eq!(health["critical_warning"], 0);
    assert_eq!(keys(&health).len(), 21);

    // Under its name, and under another.
    for name in ["R0", "R1"] {
        params["name"] = name.into();
        let again = call_and_wait(host, "bdev_nvme_attach_controller", params.clone());
        assert_eq!(again.unwrap_err().code, -114);
    }
    params["name"] = "R0".into();
    params["multipath"] = "failover".into();
    let again = call_and_wait(host, "bdev_nvme_attach_controller", params.clone());
    assert_eq!(again.unwrap_err().code, -114);
    params["trsvcid"] = free_port().into();
    let more = call_and_wait(host, "bdev_nvme_attach_controller", params);
    assert_eq!(more, Ok(json!(["R0n1"])));

    let reset = call_now(host, "bdev_nvme_reset_controller", json!({"name": "R0"}));
    assert_eq!(reset, Ok(true.into()));
    let detached = call_and_wait(host, "bdev_nvme_detach_controller", json!({"name": "R0"}));
    assert_eq!(detached, Ok(true.into()));
    assert_eq!(call_now(host, "bdev_get_bdevs", Value::Null), Ok(json!([])));
    let gone = call_and_wait(host, "bdev_nvme_detach_controller", json!({"name": "R0"}));
    assert_eq!(gone.unwrap_err().code, -19);
}

#[test]
fn everything_at_an_address_is_attached_in_one_call() {
    let target = Exporting::start(64);
    let host = &mut system();
    let mut params = json!({
        "name": "D", "trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1",
        "trsvcid": target.port, "wait_for_attach": true,
    });
    for _ in 0..2 {
        // What is attached already is left as it is.
        let found = call_and_wait(host, "bdev_nvme_start_discovery", params.clone());
        assert_eq!(found, Ok(true.into()));
        let shown = call_now(host, "bdev_nvme_get_controllers", Value::Null).unwrap();
        assert_eq!(shown.as_array().unwrap().len(), 1);
        assert_eq!(shown[0]["name"], "D0");
        assert_eq!(shown[0]["ctrlrs"][0]["trid"]["subnqn"], SUBSYSTEM);
        assert_eq!(shown[0]["ctrlrs"][0]["trid"]["trsvcid"], target.port);
    }
    let bdev = host.devices.find("D0n1").unwrap();
    assert_eq!(bdev.info().blocks, 64);
    drop(bdev);
    for (key, value, code, word) in [
        ("trsvcid", free_port().into(), -5, "refused"),
        ("trtype", "PCIe".into(), -32602, "PCIe"),
        ("name", "".into(), -32602, "name"),
        ("subnqn", SUBSYSTEM.into(), -32602, "subnqn"),
    ] {
        let before = std::mem::replace(&mut params[key], value);
        let refused = call_and_wait(host, "bdev_nvme_start_discovery", params.clone());
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, code, "{}", refused.message);
        assert!(refused.message.contains(word), "{}", refused.message);
        params[key] = before;
        params.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    }
}

#[test]
fn what_cannot_be_attached_is_told() {
    let host = &mut system();
    let port = free_port();
    let with = |key: &str, value: Value| {
        let mut params = attach(&port);
        params[key] = value;
        params
    };
    let without = |key: &str| {
        let mut params = attach(&port);
        params.as_object_mut().unwrap().remove(key);
        params
    };
    for (params, code, word) in [
        // Nobody listens there.
        (attach(&port), -5, "refused"),
        (with("trtype", "PCIe".into()), -32602, "PCIe"),
        (with("trtype", "RDMA".into()), -32602, "RDMA"),
        (with("traddr", "0000:01:00.0".into()), -32602, "traddr"),
        (with("adrfam", "IPv6".into()), -32602, "adrfam"),
        (with("trsvcid", "0".into()), -32602, "trsvcid"),
        (with("subnqn", "short".into()), -32602, "subnqn"),
        (with("multipath", "multipath".into()), -32602, "failover"),
        (without("subnqn"), -32602, "subnqn"),
        (
            with("reconnect_delay_sec", 0.into()),
            -22,
            "reconnect_delay",
        ),
        (with("ctrlr_loss_timeout_sec", 1.into()), -22, "ctrlr_loss"),
        (with("ctrlr_loss_timeout_sec", (-2).into()), -32602, "-1"),
        (with("name", "".into()), -22, "name"),
    ] {
        let refused = call_and_wait(host, "bdev_nvme_attach_controller", params).unwrap_err();
        assert_eq!(refused.code, code, "{}", refused.message);
        assert!(refused.message.contains(word), "{}", refused.message);
    }
    let none = call_now(host, "bdev_nvme_get_controllers", Value::Null);
    assert_eq!(none, Ok(json!([])));
    let one = call_now(host, "bdev_nvme_get_controllers", json!({"name": "R0"}));
    assert_eq!(one.unwrap_err().code, -19);
}

#[test]
fn a_controller_that_is_not_waited_for_is_shown_as_it_is() {
    let host = &mut system();
    let mut params = attach(&free_port());
    params["wait_for_attach"] = false.into();
    let begun = call_now(host, "bdev_nvme_attach_controller", params);
    assert_eq!(begun, Ok(json!([])));
    let shown = call_now(host, "bdev_nvme_get_controllers", json!({"name": "R0"})).unwrap();
    assert_eq!(shown[0]["ctrlrs"][0]["state"], "resetting");
    let detached = call_and_wait(host, "bdev_nvme_detach_controller", json!({"name": "R0"}));
    assert_eq!(detached, Ok(true.into()));
}

#[test]
fn options_hold_for_controllers_that_come_later() {
    let host = &mut system();
    let options = json!({
        "action_on_timeout": "reset", "timeout_us": 3_000_000, "timeout_admin_us": 2_000_000,
        "keep_alive_timeout_ms": 5000, "io_queue_requests": 17, "ctrlr_loss_timeout_sec": 30,
        "reconnect_delay_sec": 3, "fast_io_fail_timeout_sec": 6,
    });
    assert_eq!(
        call_now(host, "bdev_nvme_set_options", options),
        Ok(true.into())
    );
    let mut params = attach(&free_port());
    params["wait_for_attach"] = false.into();
    params["fast_io_fail_timeout_sec"] = 0.into();
    call_now(host, "bdev_nvme_attach_controller", params).unwrap();
    let options = host.remotes.info("R0").unwrap().options;
    let seconds = Duration::from_secs;
    assert_eq!(options.queue_depth, 17);
    assert_eq!(options.keep_alive, seconds(5));
    assert_eq!(
        (options.io_timeout, options.admin_timeout),
        (seconds(3), seconds(2))
    );
    let recovery = options.recovery;
    assert_eq!(recovery.reconnect_delay, seconds(3));
    assert_eq!(recovery.loss_timeout, Some(seconds(30)));
    assert_eq!(recovery.fast_io_fail, None);
    for (bad, code) in [
        (json!({"action_on_timeout": "abort"}), -32602),
        (json!({"timeout_admin_us": 0}), -32602),
        (json!({"io_queue_requests": 0}), -32602),
        (json!({"reconnect_delay_sec": 0}), -22),
    ] {
        let refused = call_now(host, "bdev_nvme_set_options", bad).unwrap_err();
        assert_eq!(refused.code, code, "{}", refused.message);
    }
}

/// What SPDK's rpc.py sends in every call is taken; what it sends only when it is asked to is not there.
#[test]
fn flags_of_features_that_there_are_not_are_taken_as_long_as_they_are_off() {
    let system = &mut system();
    let off = json!({
        "delay_cmd_submit": true, "disable_auto_failback": false, "generate_uuids": false,
        "nvme_error_stat": false, "io_path_stat": false, "allow_accel_sequence": false,
        "enable_flush": false,
    });
    assert_eq!(
        call_now(system, "bdev_nvme_set_options", off),
        Ok(true.into())
    );
    for (method, flag, on) in [
        ("bdev_nvme_set_options", "delay_cmd_submit", false),
        ("bdev_nvme_set_options", "disable_auto_failback", true),
        ("bdev_nvme_set_options", "generate_uuids", true),
        ("bdev_nvme_set_options", "nvme_error_stat", true),
        ("bdev_nvme_set_options", "io_path_stat", true),
        ("bdev_nvme_set_options", "allow_accel_sequence", true),
        ("bdev_nvme_attach_controller", "prchk_reftag", true),
        ("bdev_nvme_attach_controller", "prchk_guard", true),
        (
            "bdev_nvme_attach_controller",
            "allow_unrecognized_csi",
            true,
        ),
        (
            "bdev_nvme_attach_controller",
            "disable_sq_flow_control",
            true,
        ),
    ] {
        let mut params = json!({flag: on});
        if method == "bdev_nvme_attach_controller" {
            params["name"] = "n".into();
            params["trtype"] = "TCP".into();
            params["traddr"] = "127.0.0.1".into();
        }
        let error = call_now(system, method, params).unwrap_err();
        assert_eq!(error.code, -32602, "{flag}: {}", error.message);
        assert!(error.message.contains(flag), "{}", error.message);
    }
}
