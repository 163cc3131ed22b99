//! Methods about which hosts see a namespace.

use serde::Deserialize;

use super::nvmf::check_target;
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_ns_add_host",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "nsid", "host", "tgt_name?"],
        help: "Lets a host see a namespace that was added with no_auto_visible",
        run: nvmf_ns_add_host,
    },
    Method {
        name: "nvmf_ns_remove_host",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "nsid", "host", "tgt_name?"],
        help: "Hides a namespace that was added with no_auto_visible from a host",
        run: nvmf_ns_remove_host,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whom {
    nqn: String,
    nsid: u32,
    host: String,
    tgt_name: Option<String>,
}

fn nvmf_ns_add_host(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    set_visible(system, params, true)
}

fn nvmf_ns_remove_host(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    set_visible(system, params, false)
}

fn set_visible(system: &mut System, params: Params, visible: bool) -> Result<Answer, RpcError> {
    let p: Whom = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let target = &mut system.target;
    target.set_visible(&p.nqn, p.nsid, &p.host, visible)?;
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rpc::testing::{call_now, system};

    const NQN: &str = "nqn.2026-11.io.stripewise:a";
    const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:7d352e83-fe27-40f2-8fef-64563355e076";

    #[test]
    fn hosts_are_named_for_namespaces_that_not_everybody_sees() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
        for namespace in [
            json!({"bdev_name": "n0", "nsid": 1, "no_auto_visible": true}),
            json!({"bdev_name": "n0", "nsid": 2}),
        ] {
            let added = json!({"nqn": NQN, "namespace": namespace});
            call_now(system, "nvmf_subsystem_add_ns", added).unwrap();
        }
        let shown = |system: &mut System| {
            let subsystems = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN}));
            let namespaces = subsystems.unwrap()[0]["namespaces"].clone();
            let told = |at: usize, key: &str| namespaces[at].get(key).cloned();
            assert_eq!(told(0, "no_auto_visible"), Some(true.into()));
            assert_eq!((told(1, "no_auto_visible"), told(1, "hosts")), (None, None));
            told(0, "hosts").unwrap()
        };
        assert_eq!(shown(system), json!([]));
        let (add, remove) = ("nvmf_ns_add_host", "nvmf_ns_remove_host");
        let whom = |nsid: u32| json!({"nqn": NQN, "nsid": nsid, "host": HOST});
        for _ in 0..2 {
            assert_eq!(call_now(system, add, whom(1)), Ok(true.into()));
            assert_eq!(shown(system), json!([HOST]));
        }
        let bad: [(Value, &str); 4] = [
            (whom(2), "no_auto_visible"),
            (whom(3), "namespace 3"),
            (json!({"nqn": NQN, "nsid": 1, "host": "me"}), "host"),
            (
                json!({"nqn": "nqn.2026-11.io.b:c", "nsid": 1, "host": HOST}),
                "does not exist",
            ),
        ];
        for (params, names) in bad {
            for method in [add, remove] {
                let error = call_now(system, method, params.clone()).unwrap_err();
                assert_eq!(error.code, -32602, "{}", error.message);
                assert!(error.message.contains(names), "{}", error.message);
            }
        }
        for _ in 0..2 {
            assert_eq!(call_now(system, remove, whom(1)), Ok(true.into()));
            assert_eq!(shown(system), json!([]));
        }
    }
}
