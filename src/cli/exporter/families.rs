//! What is told, made of the answers to RPC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::cli::answers::{Answers, each, number, text};

/// What the target has answered.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) answers: Answers,
    /// By device.
    pub(super) histograms: Vec<(String, Json)>,
}

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up only. The page appends `_total` to its name.
    Counter,
    /// How it is now.
    Gauge,
    /// How something is spread.
    Histogram,
}

/// One number, or how something is spread.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Spread {
        sum: f64,
        count: u64,
        /// How many are in each bucket, by its upper end.
        buckets: Vec<(f64, u64)>,
    },
}

/// A number and what it is of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// Numbers of one meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample>,
}

impl Family {
    fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    fn put(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.samples.push(Sample {
            labels: owned(labels),
            value: Value::Number(value),
        });
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let own = labels
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()));
    own.collect()
}

/// Everything that is told; of a target that does not answer, that it does not.
pub(super) fn families(scrape: Option<&Scrape>) -> Vec<Family> {
    let mut up = Family::new(Kind::Gauge, "stripewise_up", "Whether the target answers");
    up.put(&[], f64::from(u8::from(scrape.is_some())));
    let mut all = vec![up];
    if let Some(Scrape {
        answers,
        histograms,
    }) = scrape
    {
        all.push(version(&answers.version));
        all.extend(reactors(answers));
        all.extend(devices(&answers.iostat));
        all.push(spreads(histograms));
        all.extend(caches(&answers.iostat));
        all.extend(volumes(&answers.volumes));
        all.extend(groups(&answers.groups));
        all.extend(exports(answers));
    }
    all
}

fn version(version: &Json) -> Family {
    let mut info = Family::new(
        Kind::Gauge,
        "stripewise_version",
        "The target's version; always 1",
    );
    info.put(&[("version", text(version, "version"))], 1.0);
    info
}

fn reactors(answers: &Answers) -> [Family; 3] {
    let mut spent = Family::new(
        Kind::Counter,
        "stripewise_reactor_seconds",
        "Time in turns that made progress (busy) and in others (idle)",
    );
    let rate = number(&answers.reactors["tick_rate"]).max(1.0);
    for reactor in each(&answers.reactors["reactors"]) {
        let core = reactor["lcore"].to_string();
        for state in ["busy", "idle"] {
            let labels = [("core", core.as_str()), ("state", state)];
            spent.put(&labels, number(&reactor[state]) / rate);
        }
    }
    let mut turns = Family::new(
        Kind::Counter,
        "stripewise_reactor_turns",
        "Turns of reactors",
    );
    let mut busy = Family::new(
        Kind::Counter,
        "stripewise_reactor_busy_turns",
        "Turns that made progress",
    );
    for thread in each(&answers.pollers["threads"]) {
        let labels = [("reactor", text(thread, "name"))];
        let poller = &thread["active_pollers"][0];
        turns.put(&labels, number(&poller["run_count"]));
        busy.put(&labels, number(&poller["busy_count"]));
    }
    [spent, turns, busy]
}

/// What went through devices, by kind of command.
fn devices(iostat: &Json) -> [Family; 4] {
    let counter = |name, help| Family::new(Kind::Counter, name, help);
    let mut ops = counter("stripewise_bdev_ops", "Requests that succeeded");
    let mut bytes = counter("stripewise_bdev_bytes", "Bytes of those requests");
    let mut seconds = counter(
        "stripewise_bdev_latency_seconds",
        "Sum of the latencies of hosts' commands, for devices that are exported",
    );
    let mut errors = counter("stripewise_bdev_errors", "Requests that failed");
    let rate = number(&iostat["tick_rate"]).max(1.0);
    for device in each(&iostat["bdevs"]) {
        let name = text(device, "name");
        for (kind, moved) in [
            ("read", "bytes_read"),
            ("write", "bytes_written"),
            ("unmap", "bytes_unmapped"),
        ] {
            let labels = [("bdev", name), ("kind", kind)];
            ops.put(&labels, number(&device[format!("num_{kind}_ops")]));
            bytes.put(&labels, number(&device[moved]));
            let ticks = number(&device[format!("{kind}_latency_ticks")]);
            seconds.put(&labels, ticks / rate);
        }
        errors.put(&[("bdev", name)], number(&device["io_error"]["failed"]));
    }
    [ops, bytes, seconds, errors]
}

/// How latencies are spread, in buckets that are powers of two of a nanosecond.
fn spreads(histograms: &[(String, Json)]) -> Family {
    let mut family = Family::new(
        Kind::Histogram,
        "stripewise_bdev_command_seconds",
        "Latencies of hosts' commands, for devices with a histogram (bdev_enable_histogram)",
    );
    for (name, histogram) in histograms {
        if let Some(value) = spread(histogram) {
            family.samples.push(Sample {
                labels: owned(&[("bdev", name)]),
                value,
            });
        }
    }
    family
}

fn spread(histogram: &Json) -> Option<Value> {
    let rate = number(&histogram["tsc_rate"]).max(1.0);
    let granularity = u32::try_from(histogram["granularity"].as_u64()?).ok()?;
    let first = u32::try_from(histogram["min_range"].as_u64()?).ok()?;
    let bytes = STANDARD.decode(histogram["histogram"].as_str()?).ok()?;
    let counts: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("8 bytes")))
        .collect();
    let (mut sum, mut total) = (0.0, 0);
    let mut buckets = Vec::new();
    for (range, part) in (first..).zip(counts.chunks(1 << granularity)) {
        // The range ends where the next one begins.
        let end = 2f64.powi((range + granularity) as i32);
        let (start, width) = match range {
            0 => (0.0, 1.0),
            _ => (end / 2.0, 2f64.powi(range as i32 - 1)),
        };
        for (at, &count) in part.iter().enumerate() {
            // What is within a bucket is taken to be in its middle.
            sum += count as f64 * (start + (at as f64 + 0.5) * width);
        }
        let count = part.iter().sum();
        total += count;
        buckets.push((end / rate, count));
    }
    buckets.push((f64::INFINITY, 0));
    Some(Value::Spread {
        sum: sum / rate,
        count: total,
        buckets,
    })
}

/// The counters of stripe caches, under the names that `bdev_get_iostat` has for them.
fn caches(iostat: &Json) -> [Family; 2] {
    let mut counted = Family::new(
        Kind::Counter,
        "stripewise_stripe_cache",
        "Counters of the stripe caches of volumes; docs/batching.md says what they count",
    );
    let mut now = Family::new(
        Kind::Gauge,
        "stripewise_stripe_cache_now",
        "Stripes of volumes that read before they write (preread_active) or wait for stripes (waiting)",
    );
    for device in each(&iostat["bdevs"]) {
        let cache = &device["driver_specific"]["stripe_cache"];
        let name = text(device, "name");
        for (key, value) in cache.as_object().into_iter().flatten() {
            let labels = [("bdev", name), ("counter", key.as_str())];
            match (key.as_str(), value) {
                ("preread_active" | "waiting", value) => now.put(&labels, number(value)),
                (_, Json::Object(parts)) => {
                    for (part, value) in parts {
                        let counter = format!("{key}_{part}");
                        let labels = [("bdev", name), ("counter", counter.as_str())];
                        counted.put(&labels, number(value));
                    }
                }
                (_, value) => counted.put(&labels, number(value)),
            }
        }
    }
    [counted, now]
}

fn volumes(volumes: &Json) -> [Family; 6] {
    let gauge = |name, help| Family::new(Kind::Gauge, name, help);
    let mut state = gauge(
        "stripewise_raid_state",
        "1 for the state that a volume is in, 0 for others",
    );
    let mut slots = gauge(
        "stripewise_raid_members",
        "Members that a volume has by its making",
    );
    let mut present = gauge(
        "stripewise_raid_members_present",
        "Members that are there and in use",
    );
    let mut sync = gauge(
        "stripewise_raid_in_sync",
        "Whether parity is known to be right everywhere",
    );
    let mut mismatches = gauge(
        "stripewise_raid_mismatch_sectors",
        "Sectors of 512 bytes that the last check or repair found wrong",
    );
    let mut progress = gauge(
        "stripewise_raid_process_ratio",
        "How far a rebuild, resync, check or repair has come, 0 to 1",
    );
    for volume in each(volumes) {
        let name = text(volume, "name");
        let of = [("volume", name)];
        for known in ["configuring", "online", "offline"] {
            let is = known == text(volume, "state");
            state.put(
                &[("volume", name), ("state", known)],
                f64::from(u8::from(is)),
            );
        }
        slots.put(&of, number(&volume["num_base_bdevs"]));
        present.put(&of, number(&volume["num_base_bdevs_discovered"]));
        if let Some(in_sync) = volume["md"]["in_sync"].as_bool() {
            sync.put(&of, f64::from(u8::from(in_sync)));
            mismatches.put(&of, number(&volume["md"]["mismatch_sectors"]));
        }
        let process = &volume["process"];
        if !process.is_null() {
            let labels = [("volume", name), ("process", text(process, "type"))];
            progress.put(&labels, number(&process["progress"]["percent"]) / 100.0);
        }
    }
    [state, slots, present, sync, mismatches, progress]
}

fn groups(stats: &Json) -> [Family; 5] {
    let mut queues = Family::new(Kind::Gauge, "stripewise_nvmf_queues", "Queues of hosts now");
    let mut pending = Family::new(
        Kind::Gauge,
        "stripewise_nvmf_pending_requests",
        "Requests that devices hold now",
    );
    let mut starved = Family::new(
        Kind::Gauge,
        "stripewise_nvmf_waiting_for_memory",
        "Commands that wait for payload memory now",
    );
    let mut done = Family::new(
        Kind::Counter,
        "stripewise_nvmf_commands",
        "I/O commands of hosts that are done",
    );
    let mut faults = Family::new(
        Kind::Counter,
        "stripewise_nvmf_connection_faults",
        "Connections that were closed for a fault of the host",
    );
    for group in each(&stats["poll_groups"]) {
        let name = text(group, "name");
        let of = [("reactor", name)];
        for (kind, key) in [
            ("admin", "current_admin_qpairs"),
            ("io", "current_io_qpairs"),
        ] {
            queues.put(&[("reactor", name), ("kind", kind)], number(&group[key]));
        }
        pending.put(&of, number(&group["pending_bdev_io"]));
        done.put(&of, number(&group["completed_nvme_io"]));
        let transport = &group["transports"][0];
        starved.put(&of, number(&transport["pending_data_buffer"]));
        faults.put(&of, number(&transport["connection_faults"]));
    }
    [queues, pending, starved, done, faults]
}

fn exports(answers: &Answers) -> [Family; 2] {
    let mut namespaces = Family::new(
        Kind::Gauge,
        "stripewise_nvmf_namespaces",
        "Namespaces that a subsystem exports",
    );
    for subsystem in each(&answers.subsystems) {
        if let Some(all) = subsystem["namespaces"].as_array() {
            let labels = [("nqn", text(subsystem, "nqn"))];
            namespaces.put(&labels, all.len() as f64);
        }
    }
    let mut controllers = Family::new(
        Kind::Gauge,
        "stripewise_nvme_controller_up",
        "Whether an attached NVMe controller works",
    );
    for controller in each(&answers.controllers) {
        let first = &controller["ctrlrs"][0];
        let labels = [
            ("controller", text(controller, "name")),
            ("traddr", text(&first["trid"], "traddr")),
        ];
        let up = text(first, "state") == "enabled";
        controllers.put(&labels, f64::from(u8::from(up)));
    }
    [namespaces, controllers]
}
