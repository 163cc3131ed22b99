//! Methods about the process: what it is, what it can do, how it is.

use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Method, Params, Pending, When};
use crate::control::{LogLevel, Phase, System};
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
    Method {
        name: "log_get_flags",
        aliases: &["get_log_flags"],
        when: When::Always,
        params: &[],
        help: "Lists the parts of the program that can be logged in full, and whether they are",
        run: log_get_flags,
    },
    Method {
        name: "log_set_flag",
        aliases: &["set_log_flag"],
        when: When::Always,
        params: &["flag"],
        help: "Has a part of the program logged in full, whatever the level is; all means all of them",
        run: log_set_flag,
    },
    Method {
        name: "log_clear_flag",
        aliases: &["clear_log_flag"],
        when: When::Always,
        params: &["flag"],
        help: "Has a part of the program, or all, logged as the level says again",
        run: log_clear_flag,
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

fn log_get_flags(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let flags = system.log.flags();
    let flags: Map<String, Value> = flags.map(|(name, on)| (name.into(), on.into())).collect();
    Ok(Value::Object(flags).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    flag: String,
}

fn log_set_flag(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    set_flag(system, params, true)
}

fn log_clear_flag(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    set_flag(system, params, false)
}

fn set_flag(system: &mut System, params: Params, on: bool) -> Result<Answer, RpcError> {
    let p: Flag = params.read()?;
    let set = system.log.set_flag(&p.flag, on);
    set.map_err(|e| RpcError::invalid_params(format!("flag: {e}")))?;
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
    fn log_flags_are_set_and_cleared() {
        let system = &mut system();
        call_now(system, "log_set_flag", json!({"flag": "raid"})).unwrap();
        let flags = call_now(system, "log_get_flags", Value::Null).unwrap();
        assert_eq!(
            (&flags["raid"], &flags["nvmf"]),
            (&json!(true), &json!(false))
        );
        call_now(system, "log_clear_flag", json!({"flag": "all"})).unwrap();
        let flags = call_now(system, "log_get_flags", Value::Null).unwrap();
        assert_eq!(flags["raid"], false);
        for method in ["log_set_flag", "log_clear_flag"] {
            let error = call_now(system, method, json!({"flag": "lvol"})).unwrap_err();
            assert_eq!(error.code, -32602);
            assert!(error.message.contains("lvol"), "{}", error.message);
        }
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
