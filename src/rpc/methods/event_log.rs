//! The persistent event logs of subsystems: a method of our own.

use std::path::PathBuf;

use serde::Deserialize;

use super::nvmf::check_target;
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::nvmf::EventLogOptions;
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[Method {
    name: "nvmf_subsystem_set_event_log",
    aliases: &[],
    when: When::Runtime,
    params: &["nqn", "file?", "size_kb?", "tgt_name?"],
    help: "Keeps a persistent event log of a subsystem in a file, or none without file",
    run: nvmf_subsystem_set_event_log,
}];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetEventLog {
    nqn: String,
    file: Option<PathBuf>,
    size_kb: Option<u32>,
    tgt_name: Option<String>,
}

fn nvmf_subsystem_set_event_log(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetEventLog = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let options = p.file.map(|file| EventLogOptions {
        file,
        size_kib: p.size_kb.unwrap_or(EventLogOptions::DEFAULT_KIB),
    });
    system.target.set_event_log(&p.nqn, options)?;
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::rpc::testing::{call_and_wait, call_now, end, system, system_with_reactor};

    const NQN: &str = "nqn.2026-11.io.stripewise:a";
    const METHOD: &str = "nvmf_subsystem_set_event_log";

    #[test]
    fn a_log_is_shown_saved_and_ended() {
        let system = &mut system();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events");
        let params = json!({"nqn": NQN, "file": file, "size_kb": 128});
        assert_eq!(call_now(system, METHOD, params.clone()), Ok(true.into()));
        assert!(file.exists());
        let twice = call_now(system, METHOD, params.clone()).unwrap_err();
        assert_eq!(twice.code, -16, "{}", twice.message);
        let kept = json!({"file": file, "size_kb": 128});
        let shown = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(shown[0]["event_log"], kept);
        let config = call_now(system, "framework_get_config", json!({"name": "nvmf"})).unwrap();
        let calls = config.as_array().unwrap();
        let at = |method: &str| calls.iter().position(|call| call["method"] == method);
        assert!(at("nvmf_create_subsystem") < at(METHOD));
        assert_eq!(calls[at(METHOD).unwrap()]["params"], params);
        assert_eq!(
            call_now(system, METHOD, json!({"nqn": NQN})),
            Ok(true.into())
        );
        let shown = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(shown[0]["event_log"], Value::Null);
        assert!(file.exists());
    }

    #[test]
    fn what_happens_to_members_is_kept() {
        let mut system = system_with_reactor();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events");
        let malloc = |name| json!({"name": name, "num_blocks": 8192, "block_size": 512});
        let mut calls: Vec<_> = ["a", "b", "c"]
            .map(|n| ("bdev_malloc_create", malloc(n)))
            .into();
        let raid = json!({
            "name": "r", "raid_level": "raid5", "strip_size_kb": 64, "base_bdevs": ["a", "b", "c"],
        });
        calls.extend([
            ("bdev_raid_create", raid),
            ("nvmf_create_transport", json!({"trtype": "TCP"})),
            ("nvmf_create_subsystem", json!({"nqn": NQN})),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "r"}}),
            ),
            (METHOD, json!({"nqn": NQN, "file": file})),
            ("bdev_raid_remove_base_bdev", json!({"name": "b"})),
            (
                "bdev_raid_add_base_bdev",
                json!({"raid_bdev": "r", "base_bdev": "b"}),
            ),
        ]);
        for (method, params) in calls {
            let made = call_and_wait(&mut system, method, params);
            made.unwrap_or_else(|error| panic!("{method}: {}", error.message));
            // So that the log is not behind.
            system.poll(std::time::Instant::now());
        }
        let kept = || String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        while !kept().contains("RAID volume r: member b of slot 1 is in sync") {
            system.poll(std::time::Instant::now());
            std::thread::yield_now();
        }
        let kept = kept();
        let at = |words: &str| kept.find(words).unwrap();
        assert!(at("member b of slot 1 is out") < at("member b of slot 1 is in sync"));
        end(system);
    }

    #[test]
    fn what_will_not_do_is_told() {
        let system = &mut system();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
        let discovery = "nqn.2014-08.org.nvmexpress.discovery";
        for (params, says) in [
            (
                json!({"nqn": "nqn.2026-11.io.stripewise:b", "file": "/x"}),
                "does not exist",
            ),
            (json!({"nqn": discovery, "file": "/x"}), "does not exist"),
            (json!({"nqn": NQN, "file": ""}), "file is empty"),
            (
                json!({"nqn": NQN, "file": "/x", "size_kb": 0}),
                "multiple of 64",
            ),
            (
                json!({"nqn": NQN, "file": "/x", "size_kb": 100}),
                "multiple of 64",
            ),
            (
                json!({"nqn": NQN, "file": "/x", "size_kb": 2048}),
                "up to 1024",
            ),
            (
                json!({"nqn": NQN, "file": "/no/such/folder/x"}),
                "/no/such/folder/x",
            ),
            (
                json!({"nqn": NQN, "file": "/proc/self/status"}),
                "is not an event log",
            ),
        ] {
            let error = call_now(system, METHOD, params.clone()).unwrap_err();
            assert_eq!(error.code, -32602, "{params}: {}", error.message);
            assert!(error.message.contains(says), "{params}: {}", error.message);
        }
    }
}
