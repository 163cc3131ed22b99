//! Methods about how the latencies of devices are spread.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Method, Params, When};
use crate::control::{System, TICK_RATE};
use crate::nvmf::{Histogram, HistogramShape, Latencies, LatencyKind};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "bdev_enable_histogram",
        aliases: &["enable_bdev_histogram"],
        when: When::Runtime,
        params: &[
            "name",
            "enable",
            "opc?",
            "granularity?",
            "min_nsec?",
            "max_nsec?",
        ],
        help: "Counts from now on how the latencies of an exported device are spread, or no longer",
        run: bdev_enable_histogram,
    },
    Method {
        name: "bdev_get_histogram",
        aliases: &["get_bdev_histogram"],
        when: When::Runtime,
        params: &["name"],
        help: "Tells how the latencies of a device are spread, as scripts/histogram.py of SPDK reads it",
        run: bdev_get_histogram,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enable {
    name: String,
    enable: bool,
    opc: Option<String>,
    granularity: Option<u32>,
    min_nsec: Option<u64>,
    max_nsec: Option<u64>,
}

fn bdev_enable_histogram(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Enable = params.read()?;
    let device = system.devices.find(&p.name)?.info().name.clone();
    let kind = p.opc.as_deref().map(by_name).transpose()?;
    let default = HistogramShape::default();
    let shape = HistogramShape {
        granularity: p.granularity.unwrap_or(default.granularity),
        least: p.min_nsec.unwrap_or(default.least),
        most: p.max_nsec.unwrap_or(default.most),
        kind,
    };
    let histogram = Histogram::new(shape).map_err(|e| RpcError::invalid_params(e.to_string()))?;
    let histogram = p.enable.then_some(&histogram);
    system.target.set_histogram(&device, histogram)?;
    Ok(true.into())
}

/// The kind of this name.
fn by_name(name: &str) -> Result<LatencyKind, RpcError> {
    let found = LatencyKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name);
    found.ok_or_else(|| {
        let all = LatencyKind::ALL.map(LatencyKind::name).join(", ");
        RpcError::invalid_params(format!("opc: there is no {name:?}; use one of {all}"))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    name: String,
}

fn bdev_get_histogram(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Get = params.read()?;
    let device = system.devices.find(&p.name)?.info().name.clone();
    let mut all = Latencies::default();
    for counts in system.iostat().iter().filter(|c| c.device == device) {
        all.add(&counts.latencies);
    }
    let histogram = all.histogram.ok_or_else(|| {
        RpcError::errno(
            rustix::io::Errno::NOENT,
            format!("bdev {device} has no histogram; bdev_enable_histogram begins one"),
        )
    })?;
    let buckets = histogram.buckets().iter();
    let bytes: Vec<u8> = buckets.flat_map(|count| count.to_le_bytes()).collect();
    let (first, last) = histogram.ranges();
    Ok(json!({
        "histogram": STANDARD.encode(bytes),
        "granularity": histogram.shape().granularity,
        "min_range": first,
        "max_range": last,
        "tsc_rate": TICK_RATE,
    })
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, end, keys, system, system_with_reactor};

    #[test]
    fn histograms_are_begun_told_and_ended() {
        let mut system = system_with_reactor();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(&mut system, "bdev_null_create", null).unwrap();
        let enable =
            |on: bool| json!({"name": "n0", "enable": on, "granularity": 3, "max_nsec": 1024});
        let early = call_now(&mut system, "bdev_enable_histogram", enable(true));
        let nqn = "nqn.2026-11.io.stripewise:a";
        call_now(&mut system, "nvmf_create_subsystem", json!({"nqn": nqn})).unwrap();
        let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "n0"}});
        call_now(&mut system, "nvmf_subsystem_add_ns", namespace).unwrap();
        let name = json!({"name": "n0"});
        let none = call_now(&mut system, "bdev_get_histogram", name.clone());
        call_now(&mut system, "bdev_enable_histogram", enable(true)).unwrap();
        let some = call_now(&mut system, "bdev_get_histogram", name.clone()).unwrap();
        call_now(&mut system, "bdev_enable_histogram", enable(false)).unwrap();
        let gone = call_now(&mut system, "bdev_get_histogram", name);
        end(system);
        let early = early.unwrap_err();
        assert!(early.message.contains("not exported"), "{}", early.message);
        assert_eq!((none.unwrap_err().code, gone.unwrap_err().code), (-2, -2));
        let expected = [
            "histogram",
            "granularity",
            "min_range",
            "max_range",
            "tsc_rate",
        ];
        assert_eq!(keys(&some), expected);
        // 1023 has 10 bits, so that there are ranges 0 to 7 of 8 buckets each.
        assert_eq!(some["max_range"], 7);
        let bytes = STANDARD
            .decode(some["histogram"].as_str().unwrap())
            .unwrap();
        assert_eq!(bytes, vec![0; 8 * 8 * 8]);
    }

    #[test]
    fn what_cannot_be_counted_is_told() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        for (params, code, says) in [
            (json!({"name": "n1", "enable": true}), -19, "n1"),
            (
                json!({"name": "n0", "enable": true, "opc": "flush"}),
                -32602,
                "read, write, unmap",
            ),
            (
                json!({"name": "n0", "enable": true, "granularity": 30}),
                -32602,
                "granularity",
            ),
        ] {
            let error = call_now(system, "bdev_enable_histogram", params).unwrap_err();
            assert_eq!(error.code, code, "{}", error.message);
            assert!(error.message.contains(says), "{}", error.message);
        }
    }
}
