use std::collections::BTreeSet;

use serde_json::json;

use super::families::{Scrape, Value as Number, families};
use super::page;
use crate::cli::answers::Answers;

fn scrape() -> Scrape {
    // Two times of 128 ns and one of 300 ns, by SPDK's table: range 1, bucket 0, and range 2,
    // bucket 22.
    let mut buckets = vec![0u64; 3 * 128];
    (buckets[128], buckets[256 + 22]) = (2, 1);
    let bytes: Vec<u8> = buckets.iter().flat_map(|n| n.to_le_bytes()).collect();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    Scrape {
        answers: Answers {
            version: json!({"version": "Stripewise v1"}),
            reactors: json!({"tick_rate": 1_000_000_000, "reactors": [
                {"lcore": 3, "busy": 1_500_000_000, "idle": 500_000_000},
            ]}),
            pollers: json!({"threads": [
                {"name": "reactor_0", "active_pollers": [{"run_count": 9, "busy_count": 4}]},
            ]}),
            iostat: json!({"tick_rate": 1_000_000_000, "bdevs": [{
                "name": "r", "num_read_ops": 7, "bytes_read": 28672, "read_latency_ticks": 2_000_000_000,
                "io_error": {"failed": 2},
                "driver_specific": {"stripe_cache": {
                    "batches": 5, "waiting": 1, "joins_refused": {"closed": 6},
                }},
            }]}),
            volumes: json!([{
                "name": "r", "state": "online", "num_base_bdevs": 4, "num_base_bdevs_discovered": 3,
                "process": {"type": "rebuild", "progress": {"percent": 25}},
                "md": {"in_sync": false, "mismatch_sectors": 8},
            }]),
            groups: json!({"poll_groups": [{
                "name": "reactor_0", "current_admin_qpairs": 1, "current_io_qpairs": 2,
                "completed_nvme_io": 11, "transports": [{"connection_faults": 1}],
            }]}),
            subsystems: json!([{"nqn": "discovery"}, {"nqn": "n", "namespaces": [1, 2]}]),
            controllers: json!([{
                "name": "c", "ctrlrs": [{"state": "enabled", "trid": {"traddr": "1.2.3.4"}}],
            }]),
        },
        histograms: vec![(
            "r".into(),
            json!({
                "histogram": encoded, "granularity": 7, "min_range": 0, "max_range": 2,
                "tsc_rate": 1_000_000_000,
            }),
        )],
    }
}

#[test]
fn the_page_has_what_was_answered() {
    let page = page::text(&families(Some(&scrape())));
    for line in [
        "stripewise_up 1.0",
        "stripewise_version{version=\"Stripewise v1\"} 1.0",
        "stripewise_reactor_seconds_total{core=\"3\",state=\"busy\"} 1.5",
        "stripewise_reactor_busy_turns_total{reactor=\"reactor_0\"} 4.0",
        "stripewise_bdev_ops_total{bdev=\"r\",kind=\"read\"} 7.0",
        "stripewise_bdev_latency_seconds_total{bdev=\"r\",kind=\"read\"} 2.0",
        "stripewise_bdev_errors_total{bdev=\"r\"} 2.0",
        "stripewise_stripe_cache_total{bdev=\"r\",counter=\"batches\"} 5.0",
        "stripewise_stripe_cache_total{bdev=\"r\",counter=\"joins_refused_closed\"} 6.0",
        "stripewise_stripe_cache_now{bdev=\"r\",counter=\"waiting\"} 1.0",
        "stripewise_raid_state{volume=\"r\",state=\"online\"} 1.0",
        "stripewise_raid_state{volume=\"r\",state=\"offline\"} 0.0",
        "stripewise_raid_members_present{volume=\"r\"} 3.0",
        "stripewise_raid_in_sync{volume=\"r\"} 0.0",
        "stripewise_raid_process_ratio{volume=\"r\",process=\"rebuild\"} 0.25",
        "stripewise_nvmf_queues{reactor=\"reactor_0\",kind=\"io\"} 2.0",
        "stripewise_nvmf_commands_total{reactor=\"reactor_0\"} 11.0",
        "stripewise_nvmf_namespaces{nqn=\"n\"} 2.0",
        "stripewise_nvme_controller_up{controller=\"c\",traddr=\"1.2.3.4\"} 1.0",
        // Cumulative, up to and with the end of each power of two.
        "stripewise_bdev_command_seconds_bucket{le=\"1.28e-7\",bdev=\"r\"} 0",
        "stripewise_bdev_command_seconds_bucket{le=\"2.56e-7\",bdev=\"r\"} 2",
        "stripewise_bdev_command_seconds_bucket{le=\"5.12e-7\",bdev=\"r\"} 3",
        "stripewise_bdev_command_seconds_bucket{le=\"+Inf\",bdev=\"r\"} 3",
        "stripewise_bdev_command_seconds_count{bdev=\"r\"} 3",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    assert!(page.ends_with("# EOF\n"), "{page}");
}

/// Two of 128 ns and one of 300 ns, each known to within its bucket: 1 ns and 2 ns wide.
#[test]
fn sums_of_histograms_are_those_of_the_middles_of_the_buckets() {
    let all = families(Some(&scrape()));
    let family = all
        .iter()
        .find(|f| f.name == "stripewise_bdev_command_seconds");
    let Number::Spread { sum, count, .. } = &family.unwrap().samples[0].value else {
        panic!("it is a histogram");
    };
    assert_eq!(*count, 3);
    let exact = (128.0 * 2.0 + 300.0) / 1e9;
    assert!((sum - exact).abs() <= 3e-9, "{sum}");
}

#[test]
fn a_target_that_does_not_answer_is_told() {
    let page = page::text(&families(None));
    assert!(page.contains("stripewise_up 0.0"), "{page}");
    assert!(!page.contains("stripewise_bdev"), "{page}");
}

/// The dashboard asks for nothing that is not told.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = include_str!("../../../config/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let page = page::text(&families(Some(&scrape())));
    let told: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let mut asked = 0;
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            let words = expression.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            for word in words.filter(|word| word.starts_with("stripewise_")) {
                assert!(told.contains(word), "{word} in {expression}");
                asked += 1;
            }
        }
    }
    assert!(asked > 10, "{asked}");
}
