//! `stripewise bench` as a process: what it prints, and how it ends.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stripewise"));
    // A small array, and a bound of time that no run here comes near to.
    command.args(["bench", "--member-size", "8m", "--runtime", "60"]);
    command.args(arguments).output().expect("the program runs")
}

fn json(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--output", "json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    json["results"][0].clone()
}

#[test]
fn a_result_has_the_keys_of_perf_and_its_own() {
    let result = json(&[
        "--rw",
        "randrw",
        "--io-limit",
        "400",
        "--random",
        "zipf:1.1",
    ]);
    assert_eq!(result["workload"], "randrw");
    assert_eq!(result["percentage"], 70);
    assert_eq!(result["random"], "zipf:1.1");
    assert_eq!(result["queue_depth"], 32);
    assert_eq!(result["io_failed"], 0);
    assert_eq!(result["status"], "finished");
    for key in [
        "iops",
        "mibps",
        "cpu_us_per_io",
        "p50_latency_us",
        "p99_9_latency_us",
    ] {
        assert!(
            result[key].as_f64().is_some_and(|v| v > 0.0),
            "{key}: {result}"
        );
    }
    let ios = |lane: &str| result[lane]["ios"].as_u64().unwrap();
    assert!(ios("read") > 0 && ios("write") > 0);
    assert_eq!(result["ios"].as_u64().unwrap(), ios("read") + ios("write"));
    let cache = &result["stripe_cache"];
    assert!(cache["member_requests"].as_u64().unwrap() > 0, "{cache}");
}

#[test]
fn a_rebuild_is_told() {
    let result = json(&["--rebuild", "--iodepth", "0"]);
    assert_eq!(result["rebuild"]["bytes"], 8 << 20);
    assert_eq!(result["ios"], 0);
}

#[test]
fn the_table_is_that_of_perf() {
    let output = bench(&["--rw", "randwrite", "--io-limit", "100", "--missing", "1"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["RAID5", "", "write", "finished"], "{text}");
    assert!(text.contains("without the one of slot 1"), "{text}");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_mend() {
    for (arguments, code, words) in [
        (&["--members", "2"][..], 1, "needs 3 to 64 members, not 2"),
        (&["--bs", "6000"], 1, "not a multiple of the blocks of 512"),
        (&["--bs", "32m"], 1, "it takes up to 16m"),
        (&["--missing", "4"], 1, "in slots 0 to 3"),
        (&["--member-size", "1t"], 1, "make members smaller or fewer"),
        (&["--member-size", "1k"], 1, "use larger members"),
        (&["--member-size", "0"], 1, "at least one block"),
        (&["--chunk", "3k"], 1, "a power of two from 4 KiB"),
        (&["--iodepth", "0"], 1, "nothing to measure"),
        (&["--rebuild", "--policy", "ppl"], 1, "leave out the policy"),
        (&["--cores", "[1000]"], 1, "is not there"),
        (
            &["--rw", "read", "--random", "zipf:1.1"],
            1,
            "choose randread",
        ),
        (&["--policy", "journal"], 2, "journal"),
        (&["--raw", "--missing", "1"], 2, "--missing"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stripewise"));
        command.arg("bench").args(arguments);
        if !arguments.contains(&"--member-size") {
            command.args(["--member-size", "8m"]);
        }
        let output = command.output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    }
}
