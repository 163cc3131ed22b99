//! Methods of all block devices.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::limits;
use super::raid::{self, Settling};
use super::{Answer, Method, Params, Pending, When};
use crate::bdev::{Bdev, Claim, IoStat};
use crate::control::{Kind, Reset, System, TICK_RATE};
use crate::nvmf::{Latencies, Latency, LatencyKind, QueueDepthInfo};
use crate::rpc::{Outcome, RpcError};

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "bdev_get_bdevs",
        aliases: &["get_bdevs"],
        when: When::Runtime,
        params: &["name?", "timeout?"],
        help: "Describes all devices, or one, for which it may wait so many milliseconds",
        run: bdev_get_bdevs,
    },
    Method {
        name: "bdev_get_iostat",
        aliases: &["get_bdevs_iostat"],
        when: When::Runtime,
        params: &["names?", "name?", "per_channel?", "reset_mode?"],
        help: "Tells what went through all devices, or some, or one by reactor",
        run: bdev_get_iostat,
    },
    Method {
        name: "bdev_reset_iostat",
        aliases: &[],
        when: When::Runtime,
        params: &["name?", "mode?"],
        help: "Forgets what went through all devices, or one: all, maxmin, error or none of it",
        run: bdev_reset_iostat,
    },
    Method {
        name: "bdev_set_qd_sampling_period",
        aliases: &["set_bdev_qd_sampling_period"],
        when: When::Runtime,
        params: &["name", "period"],
        help: "Has the queue depth of an exported device looked at once in so many microseconds; 0 ends it",
        run: bdev_set_qd_sampling_period,
    },
    Method {
        name: "bdev_set_options",
        aliases: &["set_bdev_options"],
        when: When::Always,
        params: &[
            "bdev_io_pool_size?",
            "bdev_io_cache_size?",
            "bdev_auto_examine?",
            "iobuf_small_cache_size?",
            "iobuf_large_cache_size?",
        ],
        help: "Sets whether new devices are examined; sizes are accepted, and nothing depends on them",
        run: bdev_set_options,
    },
    Method {
        name: "bdev_examine",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Looks at what a device holds of an array, and starts that if it is whole now",
        run: bdev_examine,
    },
    Method {
        name: "bdev_wait_for_examine",
        aliases: &[],
        when: When::Runtime,
        params: &[],
        help: "Answers when no array waits any more for a member that is away",
        run: bdev_wait_for_examine,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBdevs {
    name: Option<String>,
    timeout: Option<u64>,
}

fn bdev_get_bdevs(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetBdevs = params.read()?;
    let Some(name) = p.name else {
        if p.timeout.is_some() {
            return Err(RpcError::invalid_params(
                "timeout: only one device can be waited for; give its name too",
            ));
        }
        let all: Vec<_> = system
            .devices
            .registry
            .iter()
            .map(|(bdev, _)| bdev.clone())
            .collect();
        return Ok(all
            .iter()
            .map(|bdev| describe(system, &**bdev))
            .collect::<Vec<_>>()
            .into());
    };
    let now = Instant::now();
    let patience = Duration::from_millis(p.timeout.unwrap_or(0)).min(MAX_PATIENCE);
    let mut wait = DeviceWait {
        name,
        until: now + patience,
    };
    match wait.poll(system, now) {
        Some(outcome) => Ok(outcome?.into()),
        None => Ok(Answer::Later(Box::new(wait))),
    }
}

/// Most that a client waits for a device.
const MAX_PATIENCE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
struct DeviceWait {
    name: String,
    until: Instant,
}

impl Pending for DeviceWait {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        match system.devices.find(&self.name) {
            Ok(bdev) => Some(Ok(vec![describe(system, &*bdev)].into())),
            Err(error) if now >= self.until => Some(Err(error.into())),
            Err(_) => None,
        }
    }

    fn deadline(&self) -> Instant {
        self.until
    }
}

/// A device as SPDK describes it.
fn describe(system: &System, bdev: &dyn Bdev) -> Value {
    let info = bdev.info();
    let claim = system.devices.registry.claim_of(&info.name);
    let kind = system.devices.kind(&info.name);
    let compares = !matches!(kind, Some(Kind::Null { .. }));
    // No fused commands are sent to others.
    let fuses = compares && !matches!(kind, Some(Kind::Nvme { .. }));
    let mut object = json!({
        "name": info.name,
        "aliases": [info.uuid.to_string()],
        "product_name": info.product,
        "block_size": info.block_size,
        "num_blocks": info.blocks,
        "preferred_write_alignment": info.write_unit.max(1),
        "preferred_write_granularity": info.write_unit.max(1),
        "optimal_write_size": info.write_unit,
        "preferred_unmap_alignment": info.write_unit.max(1),
        "preferred_unmap_granularity": info.write_unit.max(1),
        "uuid": info.uuid.to_string(),
        "assigned_rate_limits": limits::show(&system.devices.registry.limits(&info.name)),
        "claimed": claim.is_some(),
    });
    let members = object.as_object_mut().expect("made as one");
    let mut put = |key: &str, value: Value| {
        members.insert(key.to_owned(), value);
    };
    match claim {
        None => {}
        Some(Claim::Bdev(_)) => put("claim_type", "exclusive_write".into()),
        Some(Claim::Namespaces(_)) => put("claim_type", "read_many_write_many".into()),
    }
    put("zoned", false.into());
    put(
        "supported_io_types",
        json!({
            "read": true,
            "write": true,
            "unmap": info.deallocates,
            "flush": true,
            "reset": false,
            "nvme_admin": false,
            "nvme_io": false,
            "nvme_io_md": false,
            "write_zeroes": true,
            "zcopy": false,
            "get_zone_info": false,
            "zone_management": false,
            "zone_append": false,
            "compare": compares,
            "compare_and_write": fuses,
            "abort": false,
            "seek_hole": false,
            "seek_data": false,
            "copy": false,
            "nvme_iov_md": false,
        }),
    );
    put("driver_specific", driver_specific(system, bdev));
    object
}

fn driver_specific(system: &System, bdev: &dyn Bdev) -> Value {
    let own = bdev.driver_specific();
    let Some(array) = system.arrays.info(&bdev.info().name, &system.devices) else {
        return own;
    };
    let mut object = Map::new();
    object.insert("raid".into(), raid::describe(&array).into());
    if let Value::Object(more) = own {
        object.extend(more);
    }
    object.into()
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ResetMode {
    None,
    All,
    Maxmin,
    Error,
}

impl ResetMode {
    /// Forgets what this says of these devices.
    fn reset(self, system: &mut System, names: &[String]) {
        match self {
            Self::None => {}
            Self::All => system.reset_counts(names, Reset::All),
            Self::Maxmin => system.reset_counts(names, Reset::Extremes),
            Self::Error => system.reset_counts(names, Reset::Errors),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetIostat {
    names: Option<Vec<String>>,
    name: Option<String>,
    #[serde(default)]
    per_channel: bool,
    reset_mode: Option<ResetMode>,
}

fn bdev_get_iostat(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetIostat = params.read()?;
    let names = match (p.names, p.name) {
        (Some(_), Some(_)) => {
            return Err(RpcError::invalid_params("name: give either name or names"));
        }
        (names, None) => names,
        (None, name) => name.map(|name| vec![name]),
    };
    let bdevs = match &names {
        None => system
            .devices
            .registry
            .iter()
            .map(|(bdev, _)| bdev.clone())
            .collect(),
        Some(names) => {
            let found = names.iter().map(|name| system.devices.find(name));
            found.collect::<Result<Vec<_>, _>>()?
        }
    };
    let counts = system.iostat();
    let head = json!({"tick_rate": TICK_RATE, "ticks": system.ticks()});
    let Value::Object(mut answer) = head else {
        unreachable!("made as an object");
    };
    if p.per_channel {
        let [bdev] = bdevs.as_slice() else {
            return Err(RpcError::errno(
                rustix::io::Errno::INVAL,
                "per_channel: shows one device at a time; give one name",
            ));
        };
        let name = &bdev.info().name;
        let channels = counts.iter().filter(|c| c.device == *name).map(|c| {
            let mut object = Map::new();
            object.insert("thread_id".into(), (c.reactor.index() + 1).into());
            object.extend(stat(&c.stat, &c.latencies));
            Value::Object(object)
        });
        answer.insert("name".into(), name.clone().into());
        answer.insert("channels".into(), channels.collect());
    } else {
        let shown = bdevs.iter().map(|bdev| {
            let name = &bdev.info().name;
            let mut sum = IoStat::default();
            let mut latencies = Latencies::default();
            for own in counts.iter().filter(|c| c.device == *name) {
                sum.add(&own.stat);
                latencies.add(&own.latencies);
            }
            let mut object = Map::new();
            object.insert("name".into(), name.clone().into());
            object.extend(stat(&sum, &latencies));
            object.extend(
                system
                    .target
                    .queue_depth(name)
                    .map(depth)
                    .into_iter()
                    .flatten(),
            );
            let statistics = bdev.statistics();
            if !statistics.is_null() {
                object.insert("driver_specific".into(), statistics);
            }
            Value::Object(object)
        });
        answer.insert("bdevs".into(), shown.collect());
    }
    let shown = bdevs.iter().map(|bdev| bdev.info().name.clone());
    let shown: Vec<String> = shown.collect();
    p.reset_mode
        .unwrap_or(ResetMode::None)
        .reset(system, &shown);
    Ok(Value::Object(answer).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetIostat {
    name: Option<String>,
    mode: Option<ResetMode>,
}

fn bdev_reset_iostat(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: ResetIostat = params.read()?;
    let names = match p.name {
        Some(name) => vec![system.devices.find(&name)?.info().name.clone()],
        None => {
            let all = system.devices.registry.iter();
            all.map(|(bdev, _)| bdev.info().name.clone()).collect()
        }
    };
    p.mode.unwrap_or(ResetMode::All).reset(system, &names);
    Ok(true.into())
}

/// Counts as SPDK shows them. Times are those of hosts' commands: members have none.
fn stat(stat: &IoStat, latencies: &Latencies) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: u64| {
        object.insert(key.to_owned(), value.into());
    };
    put("bytes_read", stat.bytes_read);
    put("num_read_ops", stat.num_read_ops);
    put("bytes_written", stat.bytes_written);
    put("num_write_ops", stat.num_write_ops);
    put("bytes_unmapped", stat.bytes_unmapped);
    put("num_unmap_ops", stat.num_unmap_ops);
    put("bytes_copied", 0);
    put("num_copy_ops", 0);
    let times = LatencyKind::ALL.map(|kind| (kind.name(), *latencies.of(kind)));
    for (kind, times) in times.into_iter().chain([("copy", Latency::default())]) {
        let least = match times.least {
            u64::MAX => 0,
            ns => ns,
        };
        put(&format!("{kind}_latency_ticks"), times.sum);
        put(&format!("max_{kind}_latency_ticks"), times.most);
        put(&format!("min_{kind}_latency_ticks"), least);
    }
    let errors = match stat.num_errors {
        0 => json!({}),
        n => json!({"failed": n}),
    };
    object.insert("io_error".into(), errors);
    object
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetDepthPeriod {
    name: String,
    period: u64,
}

fn bdev_set_qd_sampling_period(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetDepthPeriod = params.read()?;
    let device = system.devices.find(&p.name)?.info().name.clone();
    let period = Duration::from_micros(p.period);
    system.target.set_depth_period(&device, period)?;
    Ok(true.into())
}

/// What was seen of a queue, as SPDK shows it, in microseconds.
fn depth(info: QueueDepthInfo) -> Map<String, Value> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let shown = [
        ("queue_depth_polling_period", micros(info.period)),
        ("queue_depth", info.depth),
        ("io_time", micros(info.busy)),
        ("weighted_io_time", micros(info.weighted)),
    ];
    shown
        .map(|(key, value)| (key.into(), value.into()))
        .into_iter()
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    #[serde(rename = "bdev_io_pool_size")]
    _bdev_io_pool_size: Option<u32>,
    #[serde(rename = "bdev_io_cache_size")]
    _bdev_io_cache_size: Option<u32>,
    bdev_auto_examine: Option<bool>,
    #[serde(rename = "iobuf_small_cache_size")]
    _iobuf_small_cache_size: Option<u32>,
    #[serde(rename = "iobuf_large_cache_size")]
    _iobuf_large_cache_size: Option<u32>,
}

fn bdev_set_options(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetOptions = params.read()?;
    if let Some(examine) = p.bdev_auto_examine {
        system.auto_examine = examine;
    }
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examine {
    name: String,
}

fn bdev_examine(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Examine = params.read()?;
    system.look_at(&p.name)?;
    Ok(true.into())
}

fn bdev_wait_for_examine(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    // A new device is offered in the call that makes it. What has to be waited for is members of
    // arrays that are away.
    params.none()?;
    let mut settling = Settling::of(None);
    match settling.poll(system, Instant::now()) {
        Some(outcome) => Ok(outcome?.into()),
        None => Ok(Answer::Later(Box::new(settling))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, keys, system};

    #[test]
    fn devices_have_spdks_shape() {
        let system = &mut system();
        let malloc = json!({"name": "m0", "num_blocks": 256, "block_size": 4096});
        assert_eq!(
            call_now(system, "bdev_malloc_create", malloc),
            Ok("m0".into())
        );
        let all = call_now(system, "bdev_get_bdevs", Value::Null).unwrap();
        let device = &all[0];
        let expected = [
            "name",
            "aliases",
            "product_name",
            "block_size",
            "num_blocks",
            "preferred_write_alignment",
            "preferred_write_granularity",
            "optimal_write_size",
            "preferred_unmap_alignment",
            "preferred_unmap_granularity",
            "uuid",
            "assigned_rate_limits",
            "claimed",
            "zoned",
            "supported_io_types",
            "driver_specific",
        ];
        assert_eq!(keys(device), expected);
        assert_eq!(device["aliases"], json!([device["uuid"]]));
        assert_eq!(
            (&device["block_size"], &device["num_blocks"]),
            (&json!(4096), &json!(256))
        );
        assert_eq!(device["claimed"], false);
        let limits = [
            "rw_ios_per_sec",
            "rw_mbytes_per_sec",
            "r_mbytes_per_sec",
            "w_mbytes_per_sec",
        ];
        assert_eq!(keys(&device["assigned_rate_limits"]), limits);
        let types = keys(&device["supported_io_types"]);
        for name in [
            "read",
            "write",
            "unmap",
            "write_zeroes",
            "flush",
            "reset",
            "nvme_admin",
            "nvme_io",
        ] {
            assert!(types.contains(&name), "{name}");
        }

        let by_uuid = call_now(system, "bdev_get_bdevs", json!({"name": device["uuid"]})).unwrap();
        assert_eq!(by_uuid, all);
    }

    #[test]
    fn a_stacked_device_shows_what_it_holds() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        call_now(system, "bdev_error_create", json!({"base_name": "n0"})).unwrap();
        let base = call_now(system, "bdev_get_bdevs", json!({"name": "n0"})).unwrap();
        assert_eq!(base[0]["claimed"], true);
        assert_eq!(base[0]["claim_type"], "exclusive_write");
        assert_eq!(base[0]["supported_io_types"]["compare"], false);
        let error = call_now(system, "bdev_null_delete", json!({"name": "n0"})).unwrap_err();
        assert_eq!(error.code, -16);
        assert!(error.message.contains("EE_n0"), "{}", error.message);
        call_now(system, "bdev_error_delete", json!({"name": "EE_n0"})).unwrap();
        call_now(system, "bdev_null_delete", json!({"name": "n0"})).unwrap();
        assert_eq!(
            call_now(system, "bdev_get_bdevs", Value::Null),
            Ok(json!([]))
        );
    }

    #[test]
    fn a_device_can_be_waited_for() {
        let system = &mut system();
        let absent = call_now(system, "bdev_get_bdevs", json!({"name": "n0"})).unwrap_err();
        assert_eq!(absent.code, -19);
        let params = json!({"name": "n0", "timeout": 60_000});
        let answer = super::super::call(system, "bdev_get_bdevs", Some(params)).unwrap();
        let Answer::Later(mut wait) = answer else {
            panic!("it is not there yet: {answer:?}");
        };
        let now = Instant::now();
        assert_eq!(wait.poll(system, now), None);
        let late = wait.poll(system, now + Duration::from_secs(61));
        assert_eq!(late.unwrap().unwrap_err().code, -19);
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        assert_eq!(wait.poll(system, now).unwrap().unwrap()[0]["name"], "n0");
    }

    #[test]
    fn counts_have_spdks_shape() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        let all = call_now(system, "bdev_get_iostat", Value::Null).unwrap();
        assert_eq!(keys(&all), ["tick_rate", "ticks", "bdevs"]);
        let expected = [
            "name",
            "bytes_read",
            "num_read_ops",
            "bytes_written",
            "num_write_ops",
            "bytes_unmapped",
            "num_unmap_ops",
            "bytes_copied",
            "num_copy_ops",
            "read_latency_ticks",
            "max_read_latency_ticks",
            "min_read_latency_ticks",
            "write_latency_ticks",
            "max_write_latency_ticks",
            "min_write_latency_ticks",
            "unmap_latency_ticks",
            "max_unmap_latency_ticks",
            "min_unmap_latency_ticks",
            "copy_latency_ticks",
            "max_copy_latency_ticks",
            "min_copy_latency_ticks",
            "io_error",
        ];
        assert_eq!(keys(&all["bdevs"][0]), expected);
        for params in [json!({"names": ["n0"]}), json!({"name": "n0"})] {
            let one = call_now(system, "bdev_get_iostat", params).unwrap();
            assert_eq!(one["bdevs"].as_array().unwrap().len(), 1);
        }
        let by_channel = json!({"name": "n0", "per_channel": true});
        let by_channel = call_now(system, "bdev_get_iostat", by_channel).unwrap();
        assert_eq!(
            keys(&by_channel),
            ["tick_rate", "ticks", "name", "channels"]
        );
        for (params, code) in [
            (json!({"names": ["absent"]}), -19),
            (json!({"per_channel": true, "names": ["n0", "n0"]}), -22),
            (json!({"names": [], "name": "n0"}), -32602),
            (json!({"reset_mode": "some"}), -32602),
        ] {
            let error = call_now(system, "bdev_get_iostat", params).unwrap_err();
            assert_eq!(error.code, code, "{}", error.message);
        }
    }
}
