//! Methods about the reactors. Each runs one of SPDK's threads for ever, which polls one thing: its
//! part of the target.

use std::collections::HashMap;
use std::fs;

use rustix::process::getpid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Method, Params, When};
use crate::control::{System, TICK_RATE};
use crate::reactor::{CoreMask, ReactorStats};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "framework_get_reactors",
        aliases: &[],
        when: When::Runtime,
        params: &[],
        help: "Tells how each reactor spends its time",
        run: framework_get_reactors,
    },
    Method {
        name: "framework_get_scheduler",
        aliases: &[],
        when: When::Always,
        params: &[],
        help: "Tells how threads are given to cores: each has one of its own for ever",
        run: framework_get_scheduler,
    },
    Method {
        name: "framework_set_scheduler",
        aliases: &[],
        when: When::Always,
        params: &[
            "name",
            "period?",
            "load_limit?",
            "core_limit?",
            "core_busy?",
            "mappings?",
        ],
        help: "Takes static, which is what there is",
        run: framework_set_scheduler,
    },
    Method {
        name: "thread_get_stats",
        aliases: &[],
        when: When::Runtime,
        params: &[],
        help: "Tells how each thread spends its time",
        run: thread_get_stats,
    },
    Method {
        name: "thread_get_pollers",
        aliases: &[],
        when: When::Runtime,
        params: &[],
        help: "Tells what each thread polls, and how often",
        run: thread_get_pollers,
    },
    Method {
        name: "thread_get_io_channels",
        aliases: &[],
        when: When::Runtime,
        params: &[],
        help: "Lists the devices that each thread has open",
        run: thread_get_io_channels,
    },
];

/// The name of the scheduler that leaves every thread where it is.
const STATIC: &str = "static";

/// What the one poller of a thread is called.
const POLLER: &str = "nvmf_poll_group";

fn stats(system: &System) -> Vec<ReactorStats> {
    let reactors = system.reactors.as_ref();
    reactors.map_or_else(Vec::new, |r| r.stats())
}

fn framework_get_reactors(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let stats = stats(system);
    let cpus = cpu_times();
    let now = system.ticks();
    let reactors: Vec<Value> = stats.iter().map(|s| reactor(s, &cpus, now)).collect();
    Ok(json!({"tick_rate": TICK_RATE, "pid": getpid().as_raw_nonzero().get(), "reactors": reactors}).into())
}

fn reactor(stats: &ReactorStats, cpus: &HashMap<usize, CpuTimes>, now: u64) -> Value {
    let cpu = cpus.get(&stats.core).copied().unwrap_or_default();
    json!({
        "lcore": stats.core,
        "numa_id": numa_node(stats.core),
        "tid": stats.tid,
        "busy": stats.busy_ns,
        "idle": stats.idle_ns,
        "in_interrupt": false,
        "irq": cpu.irq,
        "sys": cpu.sys,
        "usr": cpu.usr,
        "lw_threads": [{
            "name": stats.id.to_string(),
            "id": thread_id(stats),
            "cpumask": cpumask(stats),
            "elapsed": now,
        }],
    })
}

/// What the kernel counts of one core, in its ticks.
#[derive(Clone, Copy, Debug, Default)]
struct CpuTimes {
    usr: u64,
    sys: u64,
    irq: u64,
}

/// The counts of all cores, none where `/proc` does not tell.
fn cpu_times() -> HashMap<usize, CpuTimes> {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let per_core = text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        let core = words.next()?.parse().ok()?;
        let counts: Vec<u64> = words.map_while(|w| w.parse().ok()).collect();
        // user nice system idle iowait irq softirq ...
        let &[usr, _, sys, _, _, irq, ..] = counts.as_slice() else {
            return None;
        };
        Some((core, CpuTimes { usr, sys, irq }))
    });
    per_core.collect()
}

/// The NUMA node of a core, -1 where the kernel does not tell.
fn numa_node(core: usize) -> i32 {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}"));
    let mut names = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name());
    names
        .find_map(|n| n.to_str()?.strip_prefix("node")?.parse().ok())
        .unwrap_or(-1)
}

/// The number of a reactor's thread; they are counted from 1.
fn thread_id(stats: &ReactorStats) -> usize {
    stats.id.index() + 1
}

/// The core of a reactor's thread as a hexadecimal mask.
fn cpumask(stats: &ReactorStats) -> String {
    let mask = CoreMask::of([stats.core]);
    let mask = mask.map(|m| m.to_string()).unwrap_or_default();
    mask.trim_start_matches("0x").to_owned()
}

fn framework_get_scheduler(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let first = stats(system).first().map_or(0, |s| s.core);
    Ok(json!({
        "scheduler_name": STATIC,
        "scheduler_period": 0,
        "isolated_core_mask": "0x0",
        "scheduling_core": first,
    })
    .into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetScheduler {
    name: String,
    period: Option<u64>,
    // Of schedulers that move threads.
    #[serde(rename = "load_limit")]
    _load_limit: Option<u8>,
    #[serde(rename = "core_limit")]
    _core_limit: Option<u8>,
    #[serde(rename = "core_busy")]
    _core_busy: Option<u8>,
    #[serde(rename = "mappings")]
    _mappings: Option<String>,
}

fn framework_set_scheduler(_: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetScheduler = params.read()?;
    if p.name != STATIC {
        return Err(RpcError::invalid_params(format!(
            "name: there is no scheduler '{}'; reactors stay on their cores, so give {STATIC}",
            p.name
        )));
    }
    if p.period.unwrap_or(0) != 0 {
        return Err(RpcError::invalid_params(
            "period: nothing is scheduled anew; leave it out",
        ));
    }
    Ok(true.into())
}

fn thread_get_stats(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let threads = stats(system).into_iter().map(|s| {
        json!({
            "name": s.id.to_string(),
            "id": thread_id(&s),
            "cpumask": cpumask(&s),
            "busy": s.busy_ns,
            "idle": s.idle_ns,
            "active_pollers_count": 1,
            "timed_pollers_count": 0,
            "paused_pollers_count": 0,
        })
    });
    Ok(json!({"tick_rate": TICK_RATE, "threads": threads.collect::<Vec<_>>()}).into())
}

fn thread_get_pollers(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let threads = stats(system).into_iter().map(|s| {
        json!({
            "name": s.id.to_string(),
            "id": thread_id(&s),
            "active_pollers": [{
                "name": POLLER,
                "id": 1,
                "state": "waiting",
                "run_count": s.turns,
                "busy_count": s.busy_turns,
            }],
            "timed_pollers": [],
            "paused_pollers": [],
        })
    });
    Ok(json!({"tick_rate": TICK_RATE, "threads": threads.collect::<Vec<_>>()}).into())
}

fn thread_get_io_channels(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let counts = system.iostat();
    let threads = stats(system).into_iter().map(|s| {
        let open = counts.iter().filter(|c| c.reactor == s.id);
        let channels = open.map(|c| json!({"name": c.device, "ref": 1}));
        json!({
            "name": s.id.to_string(),
            "io_channels": channels.collect::<Vec<_>>(),
        })
    });
    Ok(json!({"tick_rate": TICK_RATE, "threads": threads.collect::<Vec<_>>()}).into())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::rpc::testing::{call_now, end, keys, system, system_with_reactor};

    #[test]
    fn reactors_have_spdks_shape() {
        let stats = ReactorStats {
            id: crate::reactor::ReactorId(1),
            core: 4,
            busy_ns: 5,
            idle_ns: 6,
            turns: 7,
            busy_turns: 3,
            sleeps: 8,
            tid: 9,
        };
        let shown = reactor(&stats, &HashMap::new(), 10);
        let expected = [
            "lcore",
            "numa_id",
            "tid",
            "busy",
            "idle",
            "in_interrupt",
            "irq",
            "sys",
            "usr",
            "lw_threads",
        ];
        assert_eq!(keys(&shown), expected);
        let thread = &shown["lw_threads"][0];
        assert_eq!(
            thread,
            &json!({"name": "reactor_1", "id": 2, "cpumask": "10", "elapsed": 10})
        );
        assert_eq!(
            (&shown["lcore"], &shown["busy"], &shown["idle"]),
            (&json!(4), &json!(5), &json!(6))
        );

        let all = call_now(&mut system(), "framework_get_reactors", Value::Null).unwrap();
        assert_eq!(keys(&all), ["tick_rate", "pid", "reactors"]);
        assert_eq!(all["pid"], std::process::id());
    }

    #[test]
    fn threads_have_spdks_shape() {
        let mut system = system_with_reactor();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(&mut system, "bdev_null_create", null).unwrap();
        let nqn = "nqn.2026-11.io.stripewise:a";
        call_now(&mut system, "nvmf_create_subsystem", json!({"nqn": nqn})).unwrap();
        let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "n0"}});
        call_now(&mut system, "nvmf_subsystem_add_ns", namespace).unwrap();
        let mut ask = |method| call_now(&mut system, method, Value::Null).unwrap();
        // A reactor tells what it did in a turn when the turn is over.
        let until = Instant::now() + Duration::from_secs(20);
        let stats = loop {
            let stats = ask("thread_get_stats");
            if stats["threads"][0]["busy"] != 0 || Instant::now() > until {
                break stats;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let pollers = ask("thread_get_pollers");
        let channels = ask("thread_get_io_channels");
        let scheduler = ask("framework_get_scheduler");
        end(system);
        for answer in [&stats, &pollers, &channels] {
            assert_eq!(keys(answer), ["tick_rate", "threads"]);
            assert_eq!(answer["threads"][0]["name"], "reactor_0");
        }
        let thread = &stats["threads"][0];
        let expected = [
            "name",
            "id",
            "cpumask",
            "busy",
            "idle",
            "active_pollers_count",
            "timed_pollers_count",
            "paused_pollers_count",
        ];
        assert_eq!(keys(thread), expected);
        assert!(thread["busy"].as_u64().unwrap() > 0);
        let poller = &pollers["threads"][0]["active_pollers"][0];
        assert_eq!(
            keys(poller),
            ["name", "id", "state", "run_count", "busy_count"]
        );
        let count = |key: &str| poller[key].as_u64().unwrap();
        assert!(count("run_count") >= count("busy_count") && count("busy_count") > 0);
        assert_eq!(
            channels["threads"][0]["io_channels"],
            json!([{"name": "n0", "ref": 1}])
        );
        assert_eq!(scheduler["scheduler_name"], "static");
    }

    #[test]
    fn no_other_scheduler_is_taken() {
        let system = &mut system();
        let set = |system: &mut _, name: &str| {
            call_now(system, "framework_set_scheduler", json!({"name": name}))
        };
        assert_eq!(set(system, "static"), Ok(true.into()));
        let error = set(system, "dynamic").unwrap_err();
        assert_eq!(error.code, -32602);
        assert!(error.message.contains("static"), "{}", error.message);
    }
}
