//! What the target counts of what hosts do: how much, and how long it takes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::load::{Load, WELL};
use super::plan::{Plan, VOLUME, call};
use super::process::{Site, Target};

/// What the device takes for a read and for a write, in microseconds.
const READ_US: u64 = 3000;
const WRITE_US: u64 = 5000;

/// A target that exports a device which is slow in a known way.
fn slow(site: &Site) -> Target<'_> {
    let devices = vec![
        call(
            "bdev_null_create",
            json!({"name": "n", "num_blocks": 65536, "block_size": 4096}),
        ),
        call(
            "bdev_delay_create",
            json!({
                "base_bdev_name": "n", "name": VOLUME,
                "avg_read_latency": READ_US, "p99_read_latency": READ_US,
                "avg_write_latency": WRITE_US, "p99_write_latency": WRITE_US,
            }),
        ),
    ];
    let config = Plan::default().exported(site, devices);
    site.serve(&config, "0x1")
}

/// Has a host do so many requests.
fn load(site: &Site, rw: &str, requests: u32) {
    let words = format!("--rw {rw} --bs 4k --iodepth 4 --io-limit {requests} --runtime 60");
    let outcome = Load::run(site, &words, None);
    assert_eq!(outcome.code, Some(WELL), "{outcome:?}");
}

fn stat(target: &Target<'_>) -> Value {
    target.call("bdev_get_iostat", json!({"name": VOLUME}))["bdevs"][0].clone()
}

fn number(stat: &Value, key: &str) -> u64 {
    stat[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {stat}"))
}

/// Bytes of the histogram as numbers, with the range of nanoseconds that each is of.
fn buckets(histogram: &Value) -> Vec<(u64, u64)> {
    let text = histogram["histogram"].as_str().expect("base64");
    let bytes = STANDARD.decode(text).expect("base64");
    let granularity = number(histogram, "granularity");
    assert_eq!(number(histogram, "min_range"), 0);
    assert_eq!(number(histogram, "tsc_rate"), 1_000_000_000);
    let counts = bytes.chunks_exact(8).enumerate();
    let counts = counts.map(|(at, bytes)| {
        let (range, within) = (
            at as u64 >> granularity,
            at as u64 & ((1 << granularity) - 1),
        );
        // Where a bucket begins, by SPDK's table.
        let start = match range {
            0 => within,
            _ => (1 << (range + granularity - 1)) + (within << (range - 1)),
        };
        (
            start,
            u64::from_le_bytes(bytes.try_into().expect("8 bytes")),
        )
    });
    counts.collect()
}

#[test]
fn latencies_are_at_least_what_the_device_takes() {
    let site = Site::new();
    let target = slow(&site);
    let enable = json!({"name": VOLUME, "enable": true, "opc": "read"});
    target.call("bdev_enable_histogram", enable);
    load(&site, "randread", 200);
    load(&site, "randwrite", 100);

    let counted = stat(&target);
    let ops = number(&counted, "num_read_ops");
    assert!(ops >= 200, "{counted}");
    for (kind, us) in [("read", READ_US), ("write", WRITE_US)] {
        let ops = number(&counted, &format!("num_{kind}_ops"));
        let of = |key: &str| number(&counted, &format!("{key}{kind}_latency_ticks"));
        assert!(of("min_") >= us * 1000, "{counted}");
        assert!(of("max_") >= of("min_"), "{counted}");
        assert!(
            of("") >= ops * of("min_") && of("") <= ops * of("max_"),
            "{counted}"
        );
    }
    // Only reads were asked for; none of them was faster than the device.
    let histogram = target.call("bdev_get_histogram", json!({"name": VOLUME}));
    let buckets = buckets(&histogram);
    assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), ops);
    // A bucket is no wider than one part in 128 of where it begins.
    let soonest = READ_US * 1000 * 127 / 128;
    for (start, count) in buckets {
        assert!(count == 0 || start >= soonest, "{count} of {start} ns");
    }

    target.call(
        "bdev_reset_iostat",
        json!({"name": VOLUME, "mode": "maxmin"}),
    );
    let extremes = stat(&target);
    assert_eq!(number(&extremes, "num_read_ops"), ops);
    assert_eq!(number(&extremes, "max_read_latency_ticks"), 0);
    target.call("bdev_reset_iostat", Value::Null);
    let reset = stat(&target);
    for key in [
        "num_read_ops",
        "bytes_written",
        "read_latency_ticks",
        "min_write_latency_ticks",
    ] {
        assert_eq!(number(&reset, key), 0, "{reset}");
    }
    // They go on from there, and are told before they are forgotten.
    load(&site, "randread", 7);
    let all = json!({"name": VOLUME, "reset_mode": "all"});
    let again = target.call("bdev_get_iostat", all.clone());
    let again = number(&again["bdevs"][0], "num_read_ops");
    assert!((7..50).contains(&again), "{again}");
    let nothing = target.call("bdev_get_iostat", all);
    assert_eq!(number(&nothing["bdevs"][0], "num_read_ops"), 0);
}
