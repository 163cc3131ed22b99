//! What happened between two looks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::watcher::Moment;
use crate::cli::answers::{Answers, each, number, text};
use crate::cli::progress::Progress;

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) version: String,
    pub(super) reactors: Vec<Reactor>,
    pub(super) volumes: Vec<Volume>,
    pub(super) devices: Vec<Device>,
    pub(super) hosts: Vec<Host>,
    /// Counters of stripe caches that moved, the fastest first.
    pub(super) counters: Vec<Counter>,
}

/// A reactor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reactor {
    pub(super) name: String,
    pub(super) core: String,
    /// Share of the time in turns that made progress, 0 to 1.
    pub(super) busy: f64,
    /// Queues of hosts.
    pub(super) queues: f64,
    /// I/O commands of hosts that were done, a second.
    pub(super) commands: f64,
    /// Requests that devices hold.
    pub(super) pending: f64,
    /// Commands that wait for payload memory.
    pub(super) starved: f64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) present: u64,
    pub(super) members: u64,
    /// The members that are missing, or why it does not run.
    pub(super) lacks: String,
    pub(super) process: Option<Running>,
}

/// A rebuild, resync, check or repair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Running {
    pub(super) kind: String,
    /// What is rebuilt.
    pub(super) target: String,
    pub(super) percent: u64,
    /// Blocks of the volume a second, once there is a pace.
    pub(super) pace: Option<f64>,
    pub(super) left: Option<Duration>,
}

/// A device: a volume or a member.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) read: Flow,
    pub(super) write: Flow,
    /// Requests that failed, in all.
    pub(super) failed: f64,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    /// Requests a second.
    pub(super) ops: f64,
    /// Bytes a second.
    pub(super) bytes: f64,
    /// Mean latency of hosts' commands in nanoseconds; 0 where none is known.
    pub(super) latency: f64,
}

/// A host's controller.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Host {
    pub(super) nqn: String,
    pub(super) subsystem: String,
    pub(super) controller: u64,
    /// Where it comes from.
    pub(super) peer: String,
    pub(super) io_queues: usize,
    pub(super) state: String,
}

/// A counter of a stripe cache.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counter {
    pub(super) volume: String,
    pub(super) name: String,
    /// A second.
    pub(super) rate: f64,
}

impl Picture {
    /// What happened between two moments.
    pub(super) fn new(
        before: &Moment,
        now: &Moment,
        progress: &BTreeMap<String, Progress>,
    ) -> Self {
        let iostat = &now.answers.iostat;
        let rate = number(&iostat["tick_rate"]).max(1.0);
        // By the clock of the process that counted.
        let seconds = (number(&iostat["ticks"]) - number(&before.answers.iostat["ticks"])) / rate;
        let between = Between {
            before: &before.answers,
            now: &now.answers,
            seconds: seconds.max(1e-3),
            nanoseconds_a_tick: 1e9 / rate,
        };
        Self {
            version: text(&now.answers.version, "version").to_owned(),
            reactors: between.reactors(),
            volumes: each(&now.answers.volumes)
                .map(|v| volume(v, progress))
                .collect(),
            devices: between.devices(),
            hosts: hosts(&now.queues),
            counters: between.counters(),
        }
    }
}

/// Two answers and the time between.
struct Between<'a> {
    before: &'a Answers,
    now: &'a Answers,
    seconds: f64,
    nanoseconds_a_tick: f64,
}

impl Between<'_> {
    fn reactors(&self) -> Vec<Reactor> {
        let of = |list: &Value, key: &str, name: &str| {
            let found = each(list).find(|r| text(r, key) == name);
            found.cloned().unwrap_or_default()
        };
        let mut reactors = Vec::new();
        for reactor in each(&self.now.reactors["reactors"]) {
            let before = each(&self.before.reactors["reactors"]);
            let before = before.filter(|r| r["lcore"] == reactor["lcore"]);
            let before = before.last().cloned().unwrap_or_default();
            let name = text(&reactor["lw_threads"][0], "name");
            let group = of(&self.now.groups["poll_groups"], "name", name);
            let earlier = of(&self.before.groups["poll_groups"], "name", name);
            let busy = grown(&before, reactor, "busy");
            let all = busy + grown(&before, reactor, "idle");
            reactors.push(Reactor {
                name: name.to_owned(),
                core: reactor["lcore"].to_string(),
                busy: busy / all.max(1.0),
                queues: number(&group["current_admin_qpairs"])
                    + number(&group["current_io_qpairs"]),
                commands: grown(&earlier, &group, "completed_nvme_io") / self.seconds,
                pending: number(&group["pending_bdev_io"]),
                starved: number(&group["transports"][0]["pending_data_buffer"]),
            });
        }
        reactors
    }

    /// Each device, and what it was before.
    fn pairs(&self) -> impl Iterator<Item = (&Value, Value)> {
        each(&self.now.iostat["bdevs"]).map(|device| {
            let before = each(&self.before.iostat["bdevs"]);
            let before = before.filter(|d| d["name"] == device["name"]).last();
            // What has come meanwhile has counted from nothing.
            (device, before.cloned().unwrap_or_default())
        })
    }

    fn devices(&self) -> Vec<Device> {
        let flow = |device: &Value, before: &Value, ops: &str, bytes: &str, ticks: &str| {
            let done = grown(before, device, ops);
            let latency = grown(before, device, ticks) * self.nanoseconds_a_tick;
            Flow {
                ops: done / self.seconds,
                bytes: grown(before, device, bytes) / self.seconds,
                latency: latency / done.max(1.0),
            }
        };
        let device = |(device, before): (&Value, Value)| Device {
            name: text(device, "name").to_owned(),
            read: flow(
                device,
                &before,
                "num_read_ops",
                "bytes_read",
                "read_latency_ticks",
            ),
            write: flow(
                device,
                &before,
                "num_write_ops",
                "bytes_written",
                "write_latency_ticks",
            ),
            failed: number(&device["io_error"]["failed"]),
        };
        self.pairs().map(device).collect()
    }

    fn counters(&self) -> Vec<Counter> {
        let mut counters = Vec::new();
        for (device, before) in self.pairs() {
            let cache = &device["driver_specific"]["stripe_cache"];
            let earlier = &before["driver_specific"]["stripe_cache"];
            for (key, value) in cache.as_object().into_iter().flatten() {
                let mut put = |name: String, rate: f64| {
                    if rate > 0.0 {
                        counters.push(Counter {
                            volume: text(device, "name").to_owned(),
                            name,
                            rate: rate / self.seconds,
                        });
                    }
                };
                match (key.as_str(), value) {
                    // How many there are now: no counters.
                    ("preread_active" | "waiting", _) => {}
                    (_, Value::Object(parts)) => {
                        for part in parts.keys() {
                            let rate = grown(&earlier[key], value, part);
                            put(format!("{key}.{part}"), rate);
                        }
                    }
                    _ => put(key.clone(), grown(earlier, cache, key)),
                }
            }
        }
        counters.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        counters
    }
}

/// How much a count has grown; one that was reset has grown by nothing.
fn grown(before: &Value, now: &Value, key: &str) -> f64 {
    (number(&now[key]) - number(&before[key])).max(0.0)
}

fn volume(volume: &Value, progress: &BTreeMap<String, Progress>) -> Volume {
    let name = text(volume, "name");
    let slots = each(&volume["base_bdevs_list"]).enumerate();
    let missing = slots.filter(|(_, slot)| slot["is_configured"] != true);
    let missing: Vec<String> = missing
        .map(|(at, slot)| match text(slot, "name") {
            "" => format!("slot {at}"),
            name => name.to_owned(),
        })
        .collect();
    let process = &volume["process"];
    let running = progress.get(name).filter(|_| !process.is_null());
    let count = |key: &str| volume[key].as_u64().unwrap_or(0);
    Volume {
        name: name.to_owned(),
        state: match (text(volume, "state"), missing.is_empty()) {
            ("online", false) => "degraded",
            ("online", true) if text(process, "type") == "rebuild" => "rebuilding",
            (state, _) => state,
        }
        .to_owned(),
        present: count("num_base_bdevs_discovered"),
        members: count("num_base_bdevs"),
        lacks: match text(volume, "reason") {
            "" => missing.join(" "),
            reason => reason.to_owned(),
        },
        process: running.map(|progress| Running {
            kind: text(process, "type").to_owned(),
            target: text(process, "target").to_owned(),
            percent: progress.percent(),
            pace: progress.pace(),
            left: progress.left(),
        }),
    }
}

fn hosts(queues: &[(String, Value)]) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for (subsystem, queues) in queues {
        for queue in each(queues) {
            let controller = queue["cntlid"].as_u64().unwrap_or(0);
            let io = usize::from(number(&queue["qid"]) > 0.0);
            let known = |h: &&mut Host| h.controller == controller && h.subsystem == *subsystem;
            if let Some(host) = hosts.iter_mut().find(known) {
                host.io_queues += io;
                continue;
            }
            let peer = &queue["peer_address"];
            hosts.push(Host {
                nqn: text(queue, "hostnqn").to_owned(),
                subsystem: subsystem.clone(),
                controller,
                peer: format!("{}:{}", text(peer, "traddr"), text(peer, "trsvcid")),
                io_queues: io,
                state: text(queue, "state").to_owned(),
            });
        }
    }
    hosts
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn moment(scale: u64) -> Moment {
        let device = |name: &str, ops: u64| {
            json!({
                "name": name,
                "num_read_ops": ops * scale, "bytes_read": ops * 4096 * scale,
                "read_latency_ticks": ops * 200 * scale,
                "num_write_ops": 0, "bytes_written": 0, "write_latency_ticks": 0,
                "io_error": {"failed": 3},
                "driver_specific": {"stripe_cache": {
                    "batches": 10 * scale, "idle": 7, "waiting": scale,
                    "joins_refused": {"closed": 40 * scale, "view": 0},
                }},
            })
        };
        Moment {
            answers: Answers {
                version: json!({"version": "Stripewise v9"}),
                reactors: json!({"reactors": [{
                    "lcore": 3, "busy": 300 * scale, "idle": 100 * scale,
                    "lw_threads": [{"name": "reactor_0"}],
                }]}),
                pollers: json!({}),
                iostat: json!({
                    // Two seconds of a thousand ticks apart.
                    "tick_rate": 1000, "ticks": 2000 * scale,
                    "bdevs": [device("r", 1000), device("m0", 0)],
                }),
                volumes: json!([
                    {"name": "r", "state": "online", "num_base_bdevs": 3,
                     "num_base_bdevs_discovered": 2,
                     "base_bdevs_list": [
                        {"name": "m0", "is_configured": true},
                        {"name": "", "is_configured": false},
                        {"name": "m2", "is_configured": false}],
                     "process": {"type": "rebuild", "target": "m1",
                        "progress": {"blocks": 100, "percent": 10}}},
                    {"name": "s", "state": "configuring", "reason": "two members are missing"},
                ]),
                groups: json!({"poll_groups": [{
                    "name": "reactor_0", "current_admin_qpairs": 1, "current_io_qpairs": 2,
                    "pending_bdev_io": 5, "completed_nvme_io": 500 * scale,
                    "transports": [{"pending_data_buffer": 4}],
                }]}),
                subsystems: json!([]),
                controllers: json!([]),
            },
            queues: vec![(
                "nqn.a".into(),
                json!([
                    {"cntlid": 1, "qid": 0, "hostnqn": "h", "state": "enabled",
                     "peer_address": {"traddr": "10.0.0.7", "trsvcid": "99"}},
                    {"cntlid": 1, "qid": 1, "hostnqn": "h"},
                    {"cntlid": 1, "qid": 2, "hostnqn": "h"},
                    {"cntlid": 2, "qid": 0, "hostnqn": "i"},
                ]),
            )],
        }
    }

    pub(in crate::cli::top) fn picture() -> Picture {
        let start = Instant::now();
        let mut progress = Progress::begin("rebuild", 0, 0, start);
        progress.advance(100, 10, start + Duration::from_secs(10));
        let progress = BTreeMap::from([("r".to_owned(), progress)]);
        Picture::new(&moment(1), &moment(2), &progress)
    }

    #[test]
    fn rates_are_by_the_clock_of_the_process() {
        let picture = picture();
        let reactor = &picture.reactors[0];
        assert_eq!((reactor.busy, reactor.commands), (0.75, 250.0));
        assert_eq!(
            (reactor.queues, reactor.pending, reactor.starved),
            (3.0, 5.0, 4.0)
        );
        let read = picture.devices[0].read;
        assert_eq!((read.ops, read.bytes), (500.0, 500.0 * 4096.0));
        // 200 ticks of a millisecond for each request.
        assert_eq!(read.latency, 200e6);
        assert_eq!(picture.devices[1].read, Flow::default());
        assert_eq!(picture.devices[0].failed, 3.0);
    }

    #[test]
    fn counters_that_move_are_told_and_the_fastest_first() {
        let counters = &picture().counters;
        let told: Vec<_> = counters
            .iter()
            .filter(|c| c.volume == "r")
            .map(|c| (c.name.as_str(), c.rate))
            .collect();
        assert_eq!(told, [("joins_refused.closed", 20.0), ("batches", 5.0)]);
    }

    #[test]
    fn a_volume_tells_what_it_lacks_and_how_far_it_is() {
        let volumes = picture().volumes;
        let [degraded, waiting] = &volumes[..] else {
            panic!("{volumes:?}");
        };
        assert_eq!(
            (degraded.state.as_str(), degraded.lacks.as_str()),
            ("degraded", "slot 1 m2")
        );
        let running = degraded.process.as_ref().unwrap();
        assert_eq!((running.percent, running.pace), (10, Some(10.0)));
        assert_eq!(running.left, Some(Duration::from_secs(90)));
        assert_eq!(waiting.lacks, "two members are missing");
        assert_eq!(waiting.process, None);
    }

    #[test]
    fn queues_are_told_by_controller() {
        let hosts = picture().hosts;
        assert_eq!(hosts.len(), 2);
        assert_eq!(
            (hosts[0].io_queues, hosts[0].peer.as_str()),
            (2, "10.0.0.7:99")
        );
        assert_eq!((hosts[1].io_queues, hosts[1].nqn.as_str()), (0, "i"));
    }

    #[test]
    fn a_count_that_was_reset_has_not_grown() {
        let picture = Picture::new(&moment(3), &moment(1), &BTreeMap::new());
        assert_eq!(picture.devices[0].read.ops, 0.0);
        assert!(picture.counters.is_empty());
    }
}
