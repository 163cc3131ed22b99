//! Methods about the process: what it is, what it can do, how it is.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Method, Params, Pending, When};
use crate::control::{LogLevel, Phase, System, TICK_RATE};
use crate::reactor::{CoreMask, ReactorStats};
use crate::rpc::{Outcome, RpcError};

/// Most that a client waits for the start.
const START_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "rpc_get_methods",
        aliases: &["get_rpc_methods"],
        when: When::Always,
        params: &["current?", "include_aliases?"],
        help: "Lists the methods; only those that may be called now with current",
        run: rpc_get_methods,
    },
    Method {
        name: "spdk_get_version",
        aliases: &["get_spdk_version"],
        when: When::Always,
        params: &[],
        help: "Tells the version of the program",
        run: spdk_get_version,
    },
    Method {
        name: "framework_start_init",
        aliases: &["start_subsystem_init"],
        when: When::Startup,
        params: &[],
        help: "Completes a start that serve --wait-for-rpc left open",
        run: framework_start_init,
    },
    Method {
        name: "framework_wait_init",
        aliases: &["wait_subsystem_init"],
        when: When::Always,
        params: &[],
        help: "Answers when the start is complete",
        run: framework_wait_init,
    },
    Method {
        name: "framework_get_reactors",
        aliases: &[],
        when: When::Runtime,
        params: &[],
        help: "Tells how each reactor spends its time",
        run: framework_get_reactors,
    },
    Method {
        name: "spdk_kill_instance",
        aliases: &["kill_instance"],
        when: When::Always,
        params: &["sig_name"],
        help: "Sends the process a signal; SIGTERM ends it cleanly",
        run: spdk_kill_instance,
    },
    Method {
        name: "log_get_print_level",
        aliases: &["get_log_print_level", "log_get_level", "get_log_level"],
        when: When::Always,
        params: &[],
        help: "Tells how much is logged",
        run: log_get_print_level,
    },
    Method {
        name: "log_set_print_level",
        aliases: &["set_log_print_level", "log_set_level", "set_log_level"],
        when: When::Always,
        params: &["level"],
        help: "Sets how much is logged",
        run: log_set_print_level,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetMethods {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    include_aliases: bool,
}

fn rpc_get_methods(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let params: GetMethods = params.read()?;
    let phase = system.phase();
    let mut names = Vec::new();
    for method in super::all() {
        if params.current && !method.when.includes(phase) {
            continue;
        }
        names.push(method.name);
        if params.include_aliases {
            names.extend(method.aliases);
        }
    }
    Ok(Value::from(names).into())
}

fn spdk_get_version(_: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let suffix = env!("CARGO_PKG_VERSION_PRE");
    Ok(json!({
        "version": concat!("Stripewise v", env!("CARGO_PKG_VERSION")),
        "fields": {
            "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
            "patch": number(env!("CARGO_PKG_VERSION_PATCH")),
            "suffix": if suffix.is_empty() { String::new() } else { format!("-{suffix}") },
        }
    })
    .into())
}

fn framework_start_init(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    system.finish_startup();
    Ok(true.into())
}

fn framework_wait_init(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let mut wait = StartupWait {
        until: Instant::now() + START_PATIENCE,
    };
    Ok(match wait.poll(system, Instant::now()) {
        Some(outcome) => outcome?.into(),
        None => Answer::Later(Box::new(wait)),
    })
}

#[derive(Debug)]
struct StartupWait {
    until: Instant,
}

impl Pending for StartupWait {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        if system.phase() == Phase::Runtime {
            return Some(Ok(true.into()));
        }
        (now >= self.until).then(|| {
            let message = "the start is not complete yet; framework_start_init completes it";
            Err(RpcError::errno(rustix::io::Errno::TIMEDOUT, message))
        })
    }

    fn deadline(&self) -> Instant {
        self.until
    }
}

fn framework_get_reactors(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let stats = system
        .reactors
        .as_ref()
        .map_or_else(Vec::new, |r| r.stats());
    let cpus = cpu_times();
    let now = system.ticks();
    let reactors: Vec<Value> = stats.iter().map(|s| reactor(s, &cpus, now)).collect();
    Ok(json!({"tick_rate": TICK_RATE, "pid": getpid().as_raw_nonzero().get(), "reactors": reactors}).into())
}

fn reactor(stats: &ReactorStats, cpus: &HashMap<usize, CpuTimes>, now: u64) -> Value {
    let cpu = cpus.get(&stats.core).copied().unwrap_or_default();
    let mask = CoreMask::of([stats.core])
        .map(|m| m.to_string())
        .unwrap_or_default();
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
            "id": stats.id.index() + 1,
            "cpumask": mask.trim_start_matches("0x"),
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillInstance {
    sig_name: String,
}

fn spdk_kill_instance(_: &mut System, params: Params) -> Result<Answer, RpcError> {
    let params: KillInstance = params.read()?;
    let signal = match params.sig_name.trim_start_matches("SIG") {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        other => {
            return Err(RpcError::invalid_params(format!(
                "sig_name: {other:?} is not a signal that can be sent; use SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGKILL or SIGUSR1"
            )));
        }
    };
    kill_process(getpid(), signal)
        .map_err(|e| RpcError::errno(e, format!("the signal cannot be sent: {e}")))?;
    Ok(true.into())
}

fn log_get_print_level(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    Ok(system.log.level().name().into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLevel {
    level: String,
}

fn log_set_print_level(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let params: SetLevel = params.read()?;
    let level: LogLevel = params
        .level
        .parse()
        .map_err(|e| RpcError::invalid_params(format!("level: {e}")))?;
    system.log.set(level);
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, keys, system};

    #[test]
    fn the_version_has_spdks_shape() {
        let version = call_now(&mut system(), "spdk_get_version", Value::Null).unwrap();
        assert_eq!(keys(&version), ["version", "fields"]);
        assert_eq!(
            keys(&version["fields"]),
            ["major", "minor", "patch", "suffix"]
        );
        let fields = &version["fields"];
        let number = format!(
            "{}.{}.{}",
            fields["major"], fields["minor"], fields["patch"]
        );
        let text = version["version"].as_str().unwrap();
        assert_eq!(text, format!("Stripewise v{number}"));
    }

    #[test]
    fn reactors_have_spdks_shape() {
        let stats = ReactorStats {
            id: crate::reactor::ReactorId(1),
            core: 4,
            busy_ns: 5,
            idle_ns: 6,
            turns: 7,
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
    fn the_log_level_is_turned() {
        let system = &mut system();
        let set = |system: &mut _, level: &str| {
            call_now(system, "log_set_print_level", json!({"level": level})).unwrap();
            call_now(system, "log_get_print_level", Value::Null).unwrap()
        };
        assert_eq!(set(system, "debug"), "DEBUG");
        assert_eq!(set(system, "ERROR"), "ERROR");
    }

    #[test]
    fn only_known_signals_are_sent() {
        let error = call_now(
            &mut system(),
            "spdk_kill_instance",
            json!({"sig_name": "SIGSEGV"}),
        );
        assert_eq!(error.unwrap_err().code, -32602);
    }

    #[test]
    fn the_start_is_waited_for_and_completed() {
        let mut system = crate::rpc::testing::starting();
        let answer = super::super::call(&mut system, "framework_wait_init", None).unwrap();
        let Answer::Later(mut wait) = answer else {
            panic!("the start is not complete: {answer:?}");
        };
        let now = Instant::now();
        assert_eq!(wait.poll(&mut system, now), None);
        let early = call_now(&mut system, "framework_get_reactors", Value::Null);
        assert_eq!(early.unwrap_err().code, -1);
        call_now(&mut system, "framework_start_init", Value::Null).unwrap();
        assert_eq!(wait.poll(&mut system, now), Some(Ok(true.into())));
        let after = call_now(&mut system, "framework_wait_init", Value::Null);
        assert_eq!(after, Ok(true.into()));
    }
}
