//! The configuration of the devices: options, devices in the order in which they were made,
//! controllers, volumes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Call;
use crate::bdev::{FileApi, Info};
use crate::control::{ArrayInfo, Kind, LocalInfo, RemoteInfo, System, Tuning};
use crate::rpc::methods::limits::show as show_limits;
use crate::rpc::methods::raid::show_batching;

pub(super) fn calls(system: &System) -> Vec<Call> {
    let mut calls = options(system);
    let arrays = system.arrays.infos(&system.devices);
    let array = |name: &str| arrays.iter().find(|a| a.options.name == name);
    let mut controllers = BTreeSet::new();
    for (bdev, kind) in system.devices.in_order() {
        let info = bdev.info();
        match kind {
            Kind::Nvme { controller } => {
                if controllers.insert(controller.clone()) {
                    calls.extend(attach(system, controller));
                }
            }
            Kind::Volume => calls.extend(array(&info.name).and_then(create)),
            kind => calls.push(make(info, kind)),
        }
    }
    // What has not become a device yet.
    let names = system.remotes.names().chain(system.locals.names());
    for name in names.filter(|name| !controllers.contains(*name)) {
        calls.extend(attach(system, name));
    }
    let waiting = arrays.iter().filter(|a| a.status.is_none());
    calls.extend(waiting.filter_map(create));
    calls.push(Call {
        method: "bdev_wait_for_examine",
        params: None,
    });
    calls.extend(arrays.iter().filter_map(tune));
    // Volumes that come back by themselves are there by now.
    let all = system.devices.registry.iter();
    calls.extend(all.filter_map(|(bdev, _)| limit(system, &bdev.info().name)));
    calls
}

/// The call that limits what hosts use of a device.
fn limit(system: &System, name: &str) -> Option<Call> {
    let limits = system.devices.registry.limits(name);
    let Value::Object(mut params) = show_limits(&limits) else {
        unreachable!("shown as an object");
    };
    params.retain(|_, limit| *limit != 0);
    (!limits.is_none()).then(|| {
        params.insert("name".into(), name.into());
        Call::new("bdev_set_qos_limit", params.into())
    })
}

fn options(system: &System) -> Vec<Call> {
    let pace = system.arrays.rebuild();
    let remote = &system.remotes.defaults;
    let action = match remote.io_timeout.is_zero() {
        true => "none",
        false => "reset",
    };
    let mut nvme = json!({
        "action_on_timeout": action,
        "timeout_us": micros(remote.io_timeout),
        "timeout_admin_us": micros(remote.admin_timeout),
        "keep_alive_timeout_ms": remote.keep_alive.as_millis() as u64,
        "io_queue_requests": remote.queue_depth,
    });
    insert_recovery(&mut nvme, &remote.recovery);
    vec![
        Call::new(
            "bdev_set_options",
            json!({"bdev_auto_examine": system.auto_examine}),
        ),
        Call::new(
            "bdev_raid_set_options",
            json!({
                "process_window_size_kb": pace.window_bytes >> 10,
                "process_max_bandwidth_mb_sec": pace.bytes_per_second >> 20,
                "process_busy_bandwidth_mb_sec": pace.busy_bytes_per_second >> 20,
                "degraded_start_wait_sec": system.arrays.degraded_start_wait().as_secs(),
            }),
        ),
        Call::new("bdev_nvme_set_options", nvme),
    ]
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn insert_recovery(object: &mut Value, recovery: &crate::bdev::nvme::tcp::Recovery) {
    let seconds = |time: Option<Duration>| time.map(|t| t.as_secs());
    let loss = seconds(recovery.loss_timeout);
    object["ctrlr_loss_timeout_sec"] = loss.map_or_else(|| (-1).into(), Value::from);
    object["reconnect_delay_sec"] = recovery.reconnect_delay.as_secs().into();
    object["fast_io_fail_timeout_sec"] = seconds(recovery.fast_io_fail).unwrap_or(0).into();
}

/// The call that makes a device which is neither a namespace nor a volume.
fn make(info: &Info, kind: &Kind) -> Call {
    let name = &info.name;
    match kind {
        Kind::Malloc | Kind::Null { .. } => {
            let method = match kind {
                Kind::Malloc => "bdev_malloc_create",
                _ => "bdev_null_create",
            };
            Call::new(
                method,
                json!({
                    "name": name,
                    "num_blocks": info.blocks,
                    "block_size": info.block_size,
                    "uuid": info.uuid.to_string(),
                }),
            )
        }
        Kind::File { device } => Call::new(
            match device.api() {
                FileApi::Uring => "bdev_uring_create",
                FileApi::Aio => "bdev_aio_create",
            },
            json!({
                "name": name,
                "filename": device.path(),
                "block_size": info.block_size,
                "uuid": info.uuid.to_string(),
            }),
        ),
        Kind::Delay { base, delay } => {
            let [avg_read, p99_read, avg_write, p99_write] = delay.latencies_us();
            Call::new(
                "bdev_delay_create",
                json!({
                    "base_bdev_name": base,
                    "name": name,
                    "avg_read_latency": avg_read,
                    "p99_read_latency": p99_read,
                    "avg_write_latency": avg_write,
                    "p99_write_latency": p99_write,
                }),
            )
        }
        Kind::Error { base, .. } => Call::new("bdev_error_create", json!({"base_name": base})),
        Kind::Nvme { .. } | Kind::Volume => unreachable!("the caller has told them apart"),
    }
}

/// The calls that attach a controller at each of its addresses.
fn attach(system: &System, name: &str) -> Vec<Call> {
    let remote = system.remotes.info(name).map(|info| attach_remote(&info));
    let local = || {
        system
            .locals
            .info(name)
            .map(|info| vec![attach_local(&info)])
    };
    // The caller has found it among them.
    remote.or_else(|_| local()).unwrap_or_default()
}

fn attach_remote(info: &RemoteInfo) -> Vec<Call> {
    let addresses = info.addresses.iter().enumerate();
    let calls = addresses.map(|(number, address)| {
        let options = &info.options;
        let mut params = json!({
            "name": info.name,
            "trtype": "TCP",
            "adrfam": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "traddr": address.ip().to_string(),
            "trsvcid": address.port().to_string(),
            "subnqn": options.subsystem.as_str(),
            "hostnqn": options.host.as_str(),
            "hdgst": options.header_digest,
            "ddgst": options.data_digest,
            "num_io_queues": options.io_queues,
        });
        insert_recovery(&mut params, &options.recovery);
        if number > 0 {
            params["multipath"] = "failover".into();
        } else if info.unawaited {
            params["wait_for_attach"] = false.into();
        }
        Call::new("bdev_nvme_attach_controller", params)
    });
    calls.collect()
}

fn attach_local(info: &LocalInfo) -> Call {
    let mut params = json!({
        "name": info.name,
        "trtype": "PCIe",
        "traddr": info.address,
    });
    if let Some(queues) = info.queues {
        params["num_io_queues"] = queues.into();
    }
    if info.unawaited {
        params["wait_for_attach"] = false.into();
    }
    Call::new("bdev_nvme_attach_controller", params)
}

/// The call that makes a volume without metadata. One that has some comes back by itself.
fn create(array: &ArrayInfo) -> Option<Call> {
    if array.kept.is_some() {
        return None;
    }
    let options = &array.options;
    let members = array.slots.iter();
    let members: Vec<&str> = members
        .map(|slot| slot.name.as_deref().unwrap_or("missing"))
        .collect();
    let mut params = json!({
        "name": options.name,
        "raid_level": options.level,
        "strip_size_kb": options.strip_kb,
        "layout": options.layout.name(),
        "base_bdevs": members,
        "superblock": false,
    });
    if let Some(uuid) = options.uuid {
        params["uuid"] = uuid.to_string().into();
    }
    insert_tuning(&mut params, &options.tuning);
    Some(Call::new("bdev_raid_create", params))
}

/// The call that has a volume with metadata work as it does: that is not in the metadata.
fn tune(array: &ArrayInfo) -> Option<Call> {
    let options = &array.options;
    if array.kept.is_none() || options.tuning == Tuning::default() {
        return None;
    }
    let mut params = Value::Object(Map::new());
    params["name"] = options.name.as_str().into();
    insert_tuning(&mut params, &options.tuning);
    Some(Call::new("bdev_raid_set_tuning", params))
}

/// Says nothing where all is as by default.
fn insert_tuning(params: &mut Value, tuning: &Tuning) {
    if let Some(kb) = tuning.stripe_kb {
        params["stripe_size_kb"] = kb.into();
    }
    if let Some(run) = tuning.shard_run {
        params["shard_run"] = run.into();
    }
    if tuning.batching != Tuning::default().batching {
        params["batching"] = show_batching(&tuning.batching);
    }
}
