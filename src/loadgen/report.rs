//! The result of a run, as a table for people and as bdevperf-shaped JSON for scripts.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::FaultKind;
use super::tally::{Findings, Lane, Tally};
use crate::reactor::CoreMask;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ran its time, or its number of requests.
    Finished,
    /// It was interrupted, and stopped in good order.
    Interrupted,
    /// The target went away and did not come back in time.
    Disconnected,
}

impl Ending {
    /// One word, as bdevperf has it where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Finished => "finished",
            Ending::Interrupted => "terminated",
            Ending::Disconnected => "disconnected",
        }
    }
}

/// Everything there is to say about a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whom it ran against.
    pub job: String,
    /// The cores that it was pinned to, if it was.
    pub cores: Option<CoreMask>,
    /// The workload's name.
    pub workload: String,
    /// Share of reads in percent, where the workload is mixed.
    pub read_percent: Option<u8>,
    /// Where random requests went, if not evenly everywhere.
    pub distribution: Option<String>,
    /// How it ended.
    pub ending: Ending,
    /// Outstanding requests of each queue.
    pub queue_depth: u32,
    /// I/O queues; in one process, cores that make requests.
    pub queues: u16,
    /// Smallest and largest request in bytes.
    pub io_size: (u64, u64),
    /// Measured time: without ramp and without the final check.
    pub runtime: Duration,
    /// Counts and latencies of the measured time.
    pub tally: Tally,
    /// What verification found, where it was asked for.
    pub findings: Option<Findings>,
    /// Time that the threads of the run were given by their cores.
    pub cpu: Duration,
    /// How often the connection was made anew, where there is one.
    pub reconnects: Option<u64>,
}

impl Report {
    /// Requests a second.
    pub fn iops(&self, count: u64) -> f64 {
        per_second(count as f64, self.runtime)
    }

    /// Mebibytes a second.
    pub fn mibps(&self, bytes: u64) -> f64 {
        per_second(bytes as f64 / f64::from(1 << 20), self.runtime)
    }

    /// Microseconds of a core for each I/O; 0 without any I/O.
    pub fn cpu_us(&self) -> f64 {
        match self.tally.count() {
            0 => 0.0,
            count => self.cpu.as_secs_f64() * 1e6 / count as f64,
        }
    }

    /// The table for people, with a newline behind each line.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let columns = ["IOPS", "MiB/s", "avg", "p50", "p90", "p99", "p99.9", "max"];
        let _ = write!(text, "{:<8}", "");
        for (index, column) in columns.iter().enumerate() {
            let width = if index < 2 { 11 } else { 10 };
            let _ = write!(text, "{column:>width$}");
        }
        text.push_str("  (latency in us)\n");
        let (read, write, flush) = (&self.tally.read, &self.tally.write, &self.tally.flush);
        for (name, lane) in [("read", read), ("write", write), ("flush", flush)] {
            if lane.count() > 0 {
                self.row(&mut text, name, lane);
            }
        }
        if read.count() > 0 && write.count() > 0 || self.tally.count() == 0 {
            self.row(&mut text, "total", &self.tally.total());
        }
        let _ = write!(
            text,
            "{} after {:.2} s: {} I/Os, {} failed",
            self.ending.name(),
            self.runtime.as_secs_f64(),
            self.tally.count(),
            self.tally.failed,
        );
        if let Some(reconnects) = self.reconnects {
            let timed_out = self.tally.timed_out;
            let _ = write!(
                text,
                ", {timed_out} of them timed out, {reconnects} reconnects"
            );
        }
        let _ = writeln!(text, "; CPU {:.2} us per I/O", self.cpu_us());
        if let Some(findings) = &self.findings {
            let _ = writeln!(
                text,
                "verify: {} blocks right, {} not yet written, {} WRONG",
                findings.verified,
                findings.unwritten,
                findings.fault_count(),
            );
            for (kind, count) in &findings.faults {
                let _ = writeln!(text, "verify: {count} {}", kind.name());
            }
        }
        text
    }

    fn row(&self, text: &mut String, name: &str, lane: &Lane) {
        let latency = &lane.latency;
        let at = |quantile| microseconds(latency.value_at_quantile(quantile));
        let _ = writeln!(
            text,
            "{name:<8}{:>11.0}{:>11.2}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
            self.iops(lane.count()),
            self.mibps(lane.bytes),
            latency.mean() / 1000.0,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            microseconds(latency.max()),
        );
    }

    /// The result as bdevperf's `perform_tests` prints it, with more keys: percentiles, and the
    /// same for each direction.
    pub fn json(&self) -> Value {
        let total = self.tally.total();
        let mut result = self.lane_json(&total);
        let fields = result.as_object_mut().expect("an object");
        let mut set = |key: &str, value: Value| {
            fields.insert(key.to_owned(), value);
        };
        set("job", json!(self.job));
        let mask = self.cores.as_ref().map(CoreMask::to_string);
        set("core_mask", json!(mask.unwrap_or_else(|| "0x0".to_owned())));
        set("workload", json!(self.workload));
        if let Some(percent) = self.read_percent {
            set("percentage", json!(percent));
        }
        if let Some(distribution) = &self.distribution {
            set("random", json!(distribution));
        }
        set("status", json!(self.ending.name()));
        set("queue_depth", json!(self.queue_depth));
        set("queues", json!(self.queues));
        set("io_size", json!(self.io_size.0));
        if self.io_size.1 != self.io_size.0 {
            set("io_size_max", json!(self.io_size.1));
        }
        set("runtime", json!(self.runtime.as_secs_f64()));
        set("io_failed", json!(self.tally.failed));
        set("io_timeout", json!(self.tally.timed_out));
        if let Some(reconnects) = self.reconnects {
            set("reconnects", json!(reconnects));
        }
        set("cpu_us_per_io", json!(self.cpu_us()));
        set("read", self.lane_json(&self.tally.read));
        set("write", self.lane_json(&self.tally.write));
        set("flush", self.lane_json(&self.tally.flush));
        if let Some(findings) = &self.findings {
            let faults: serde_json::Map<String, Value> = FaultKind::ALL
                .iter()
                .map(|kind| {
                    let count = findings.faults.get(kind).copied().unwrap_or(0);
                    (kind.name().to_owned(), json!(count))
                })
                .collect();
            let verify = json!({
                "blocks_verified": findings.verified,
                "blocks_unwritten": findings.unwritten,
                "blocks_wrong": findings.fault_count(),
                "faults": faults,
            });
            set("verify", verify);
        }
        let cores = self.cores.as_ref().map_or(1, CoreMask::count);
        json!({ "results": [result], "core_count": cores })
    }

    fn lane_json(&self, lane: &Lane) -> Value {
        let latency = &lane.latency;
        let at = |quantile| microseconds(latency.value_at_quantile(quantile));
        json!({
            "ios": lane.count(),
            "iops": self.iops(lane.count()),
            "mibps": self.mibps(lane.bytes),
            "avg_latency_us": latency.mean() / 1000.0,
            "min_latency_us": microseconds(if lane.count() == 0 { 0 } else { latency.min() }),
            "max_latency_us": microseconds(latency.max()),
            "p50_latency_us": at(0.5),
            "p90_latency_us": at(0.9),
            "p99_latency_us": at(0.99),
            "p99_9_latency_us": at(0.999),
            "p99_99_latency_us": at(0.9999),
        })
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn per_second(amount: f64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        amount / time.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::Direction;
    use super::*;

    fn report() -> Report {
        let mut tally = Tally::default();
        for us in [100, 200, 300, 400] {
            tally.record(Direction::Read, 4096, Duration::from_micros(us));
        }
        tally.record(Direction::Write, 8192, Duration::from_micros(1000));
        tally.record(Direction::Flush, 0, Duration::from_micros(9));
        Report {
            job: "nqn.2014-08.org.example:a ns 1".to_owned(),
            cores: Some(CoreMask::of([1]).unwrap()),
            workload: "randrw".to_owned(),
            read_percent: Some(70),
            distribution: None,
            ending: Ending::Finished,
            queue_depth: 32,
            queues: 1,
            io_size: (4096, 8192),
            runtime: Duration::from_secs(2),
            tally,
            findings: None,
            cpu: Duration::from_millis(10),
            reconnects: Some(0),
        }
    }

    fn close(value: &Value, to: f64) -> bool {
        (value.as_f64().unwrap() - to).abs() <= to / 500.0
    }

    #[test]
    fn json_has_the_shape_of_bdevperf() {
        let json = report().json();
        assert_eq!(json["core_count"], 1);
        let result = &json["results"][0];
        for key in [
            "job",
            "core_mask",
            "workload",
            "percentage",
            "status",
            "queue_depth",
            "io_size",
            "runtime",
            "iops",
            "mibps",
            "io_failed",
            "io_timeout",
            "avg_latency_us",
            "min_latency_us",
            "max_latency_us",
        ] {
            assert!(!result[key].is_null(), "{key}");
        }
        assert_eq!(result["core_mask"], "0x2");
        assert_eq!(result["status"], "finished");
        // Five I/Os of 24 KiB in all in two seconds; the flush is not one of them.
        assert_eq!(result["iops"], 2.5);
        assert_eq!(result["mibps"], 24.0 / 1024.0 / 2.0);
        assert!(close(&result["avg_latency_us"], 400.0));
        assert!(close(&result["min_latency_us"], 100.0));
        assert!(close(&result["max_latency_us"], 1000.0));
        assert!(close(&result["read"]["p50_latency_us"], 200.0));
        assert!(close(&result["read"]["p99_latency_us"], 400.0));
        assert_eq!(result["write"]["iops"], 0.5);
        assert_eq!(result["flush"]["ios"], 1);
        // 10 ms of a core for five of them.
        assert_eq!(result["cpu_us_per_io"], 2000.0);
    }

    #[test]
    fn faults_are_counted_by_kind() {
        let mut report = report();
        let mut findings = Findings {
            verified: 10,
            ..Findings::default()
        };
        findings.faults.insert(FaultKind::Torn, 2);
        report.findings = Some(findings);
        let json = report.json();
        let verify = &json["results"][0]["verify"];
        assert_eq!(verify["blocks_wrong"], 2);
        assert_eq!(verify["faults"]["torn"], 2);
        assert_eq!(verify["faults"]["stale"], 0);
        assert!(report.table().contains("2 torn"));
    }

    #[test]
    fn the_table_has_a_line_for_each_direction() {
        let table = report().table();
        let first_words: Vec<&str> = table
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(
            first_words,
            ["IOPS", "read", "write", "flush", "total", "finished"]
        );
        assert!(
            table.ends_with("0 reconnects; CPU 2000.00 us per I/O\n"),
            "{table}"
        );
        let read: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(read[1..3], ["2", "0.01"]);
    }

    #[test]
    fn a_run_without_a_single_completion_has_no_nonsense_numbers() {
        let mut report = report();
        report.tally = Tally::default();
        report.runtime = Duration::ZERO;
        let json = report.json();
        assert_eq!(json["results"][0]["iops"], 0.0);
        assert_eq!(json["results"][0]["avg_latency_us"], 0.0);
        assert!(!report.table().contains("NaN"));
    }

    #[test]
    fn a_run_without_a_connection_has_none_to_make_anew() {
        let mut report = report();
        report.reconnects = None;
        report.distribution = Some("zipf:1.1".to_owned());
        report.cores = Some(CoreMask::of([0, 1]).unwrap());
        assert!(!report.table().contains("reconnects"));
        let json = report.json();
        assert_eq!(json["core_count"], 2);
        assert_eq!(json["results"][0]["core_mask"], "0x3");
        assert_eq!(json["results"][0]["random"], "zipf:1.1");
        assert!(json["results"][0]["reconnects"].is_null());
    }
}
