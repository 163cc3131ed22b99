//! Methods about where hosts come in, and who is connected.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::ana::read_state;
use super::nvmf::{check_target, check_trtype};
use super::{Answer, Method, Params, When};
use crate::control::{System, TICK_RATE};
use crate::nvmf::{Access, ControllerInfo, DISCOVERY_NQN, GroupStats, ListenAddress, QpairInfo};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_subsystem_add_listener",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "nqn",
            "listen_address",
            "tgt_name?",
            "secure_channel?",
            "ana_state?",
            "sock_impl?",
        ],
        help: "Lets hosts of a subsystem come in at an address",
        run: nvmf_subsystem_add_listener,
    },
    Method {
        name: "nvmf_subsystem_remove_listener",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "listen_address", "tgt_name?"],
        help: "Ends listening at an address and disconnects the hosts that came in there",
        run: nvmf_subsystem_remove_listener,
    },
    Method {
        name: "nvmf_subsystem_get_listeners",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "tgt_name?"],
        help: "Lists where a subsystem listens",
        run: nvmf_subsystem_get_listeners,
    },
    Method {
        name: "nvmf_subsystem_get_controllers",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "tgt_name?"],
        help: "Lists the controllers that hosts have of a subsystem",
        run: nvmf_subsystem_get_controllers,
    },
    Method {
        name: "nvmf_subsystem_get_qpairs",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "tgt_name?"],
        help: "Lists the queues that hosts have of a subsystem",
        run: nvmf_subsystem_get_qpairs,
    },
    Method {
        name: "nvmf_get_stats",
        aliases: &[],
        when: When::Runtime,
        params: &["tgt_name?"],
        help: "Tells what each reactor serves and has served",
        run: nvmf_get_stats,
    },
];

/// An address in the parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    trtype: String,
    adrfam: Option<String>,
    traddr: String,
    #[serde(default, deserialize_with = "string_or_number")]
    trsvcid: String,
}

impl Address {
    /// Reads it; `what` is the parameter that it is.
    ///
    /// # Errors
    /// Invalid parameters, naming the parameter and the field.
    pub fn parse(&self, what: &str) -> Result<ListenAddress, RpcError> {
        check_trtype(&self.trtype)?;
        let address = ListenAddress::parse(&self.traddr, &self.trsvcid, self.adrfam.as_deref());
        address.map_err(|e| RpcError::invalid_params(format!("{what}: {e}")))
    }
}

/// A port is a string in NVMe's terms, but people write a number.
fn string_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a port as a string or a number")]
    enum Port {
        Text(String),
        Number(u64),
    }
    Ok(match Port::deserialize(from)? {
        Port::Text(text) => text,
        Port::Number(number) => number.to_string(),
    })
}

/// An address as SPDK shows it.
pub fn address(address: &ListenAddress) -> Value {
    json!({
        "trtype": address.trtype(),
        "adrfam": address.adrfam(),
        "traddr": address.traddr(),
        "trsvcid": address.trsvcid(),
    })
}

/// Which subsystem is meant; "discovery" is short for that of discovery.
fn full_nqn(nqn: String) -> String {
    if nqn == "discovery" {
        return DISCOVERY_NQN.to_owned();
    }
    nqn
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddListener {
    nqn: String,
    listen_address: Address,
    tgt_name: Option<String>,
    #[serde(default)]
    secure_channel: bool,
    ana_state: Option<String>,
    // We have one kind of socket.
    #[serde(rename = "sock_impl")]
    _sock_impl: Option<String>,
}

fn nvmf_subsystem_add_listener(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddListener = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    if p.secure_channel {
        return Err(RpcError::invalid_params(
            "secure_channel: TLS is not supported; leave it out",
        ));
    }
    let access = p.ana_state.as_deref().map(read_state).transpose()?;
    let (nqn, at) = (full_nqn(p.nqn), p.listen_address.parse("listen_address")?);
    let access = access.unwrap_or_default();
    system.target.add_listener_with(&nqn, at, access)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveListener {
    nqn: String,
    listen_address: Address,
    tgt_name: Option<String>,
}

fn nvmf_subsystem_remove_listener(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveListener = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let at = p.listen_address.parse("listen_address")?;
    system.target.remove_listener(&full_nqn(p.nqn), at)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfSubsystem {
    nqn: String,
    tgt_name: Option<String>,
}

impl OfSubsystem {
    fn nqn(params: Params) -> Result<String, RpcError> {
        let p: Self = params.read()?;
        check_target(p.tgt_name.as_deref())?;
        Ok(full_nqn(p.nqn))
    }
}

fn nvmf_subsystem_get_listeners(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let nqn = OfSubsystem::nqn(params)?;
    let listeners = system.target.listeners(&nqn)?;
    let mut shown = Vec::new();
    for listener in &listeners {
        let mut told = json!({"address": address(listener)});
        if let Some(access) = system.target.access(&nqn, *listener)? {
            let state = |(group, access): (u32, Access)| json!({"ana_group": group, "ana_state": access.word()});
            told["ana_states"] = access.into_iter().map(state).collect();
        }
        shown.push(told);
    }
    Ok(shown.into())
}

fn nvmf_subsystem_get_controllers(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let nqn = OfSubsystem::nqn(params)?;
    let kind = if nqn == DISCOVERY_NQN {
        "discovery"
    } else {
        "io"
    };
    let controllers = system.target.controllers(&nqn)?;
    let shown = controllers.iter().map(|c| show_controller(c, kind));
    Ok(shown.collect::<Vec<_>>().into())
}

fn show_controller(controller: &ControllerInfo, kind: &str) -> Value {
    json!({
        "cntlid": controller.cntlid,
        "cntrltype": kind,
        "hostnqn": controller.hostnqn,
        "hostid": controller.hostid.to_string(),
        "num_io_qpairs": controller.num_io_qpairs,
    })
}

fn nvmf_subsystem_get_qpairs(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let nqn = OfSubsystem::nqn(params)?;
    let qpairs = system.target.qpairs(&nqn)?;
    Ok(qpairs.iter().map(show_qpair).collect::<Vec<_>>().into())
}

fn show_qpair(qpair: &QpairInfo) -> Value {
    let mut shown = json!({
        "cntlid": qpair.cntlid,
        "qid": qpair.qid,
        "state": qpair.state.name(),
        "thread": qpair.thread,
        "hostnqn": qpair.hostnqn,
        "listen_address": address(&ListenAddress(qpair.listen_address)),
        "peer_address": address(&ListenAddress(qpair.peer_address)),
    });
    if let Some(info) = qpair.authentication {
        shown["auth"] = json!({
            "state": info.state.name(),
            "digest": info.chosen.map_or("unknown", |(hash, _)| hash.word()),
            "dhgroup": info.chosen.map_or("unknown", |(_, group)| group.word()),
        });
    }
    shown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetStats {
    tgt_name: Option<String>,
}

fn nvmf_get_stats(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetStats = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let transports = system.target.transports();
    let transports: Vec<&str> = transports.iter().map(|t| t.trtype).collect();
    let groups = system.target.stats();
    let groups: Vec<Value> = groups.iter().map(|g| group(g, &transports)).collect();
    Ok(json!({"tick_rate": TICK_RATE, "poll_groups": groups}).into())
}

fn group(stats: &GroupStats, transports: &[&str]) -> Value {
    let transports: Vec<Value> = transports
        .iter()
        .map(|trtype| {
            json!({
                "trtype": trtype,
                "pending_data_buffer": stats.waiting_for_memory,
                "connection_faults": stats.connection_faults,
            })
        })
        .collect();
    json!({
        "name": stats.name,
        "admin_qpairs": stats.admin_qpairs,
        "io_qpairs": stats.io_qpairs,
        "current_admin_qpairs": stats.current_admin_qpairs,
        "current_io_qpairs": stats.current_io_qpairs,
        "pending_bdev_io": stats.pending_bdev_io,
        "completed_nvme_io": stats.completed_nvme_io,
        "transports": transports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvme::dhchap::{DhGroup, Hash};
    use crate::nvmf::{AuthenticationInfo, AuthenticationState, QpairState};
    use crate::rpc::testing::{call_now, keys, system};

    const NQN: &str = "nqn.2026-11.io.stripewise:a";
    const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:7d352e83-fe27-40f2-8fef-64563355e076";

    fn subsystem(system: &mut System) {
        call_now(system, "nvmf_create_transport", json!({"trtype": "TCP"})).unwrap();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
    }

    #[test]
    fn listeners_have_spdks_shape_and_ports_may_be_numbers() {
        let system = &mut system();
        subsystem(system);
        let params = |port: Value| {
            let address =
                json!({"trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1", "trsvcid": port});
            json!({"nqn": NQN, "listen_address": address})
        };
        let port = {
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            probe.local_addr().unwrap().port()
        };
        let added = call_now(system, "nvmf_subsystem_add_listener", params(port.into()));
        assert_eq!(added, Ok(true.into()));
        let shown = call_now(system, "nvmf_subsystem_get_listeners", json!({"nqn": NQN})).unwrap();
        let address = json!({
            "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port.to_string(),
        });
        assert_eq!(shown, json!([{"address": address}]));
        let subsystems = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(subsystems[0]["listen_addresses"], json!([address]));
        let text = params(port.to_string().into());
        let again = call_now(system, "nvmf_subsystem_add_listener", text.clone());
        assert_eq!(again.unwrap_err().code, -32603);
        assert_eq!(
            call_now(system, "nvmf_subsystem_remove_listener", text.clone()),
            Ok(true.into())
        );
        assert_eq!(
            call_now(system, "nvmf_subsystem_remove_listener", text)
                .unwrap_err()
                .code,
            -32602
        );
    }

    #[test]
    fn who_is_connected_has_spdks_shape() {
        let controller = ControllerInfo {
            cntlid: 3,
            hostnqn: HOST.into(),
            hostid: uuid::Uuid::nil(),
            num_io_qpairs: 2,
        };
        let shown = show_controller(&controller, "io");
        assert_eq!(
            keys(&shown),
            ["cntlid", "cntrltype", "hostnqn", "hostid", "num_io_qpairs"]
        );
        let qpair = QpairInfo {
            cntlid: 3,
            qid: 1,
            state: QpairState::Enabled,
            thread: "reactor_0".into(),
            hostnqn: HOST.into(),
            listen_address: "127.0.0.1:4420".parse().unwrap(),
            peer_address: "[::1]:50000".parse().unwrap(),
            authentication: None,
        };
        let shown = show_qpair(&qpair);
        let expected = [
            "cntlid",
            "qid",
            "state",
            "thread",
            "hostnqn",
            "listen_address",
            "peer_address",
        ];
        assert_eq!(keys(&shown), expected);
        assert_eq!(shown["state"], "enabled");
        let peer = json!({"trtype": "TCP", "adrfam": "IPv6", "traddr": "::1", "trsvcid": "50000"});
        assert_eq!(shown["peer_address"], peer);
        let shown = show_qpair(&QpairInfo {
            authentication: Some(AuthenticationInfo {
                state: AuthenticationState::Completed,
                chosen: Some((Hash::Sha384, DhGroup::Ffdhe2048)),
            }),
            ..qpair
        });
        let auth = json!({"state": "completed", "digest": "sha384", "dhgroup": "ffdhe2048"});
        assert_eq!(shown["auth"], auth);
        let shown = group(&GroupStats::default(), &["TCP"]);
        let expected = [
            "name",
            "admin_qpairs",
            "io_qpairs",
            "current_admin_qpairs",
            "current_io_qpairs",
            "pending_bdev_io",
            "completed_nvme_io",
            "transports",
        ];
        assert_eq!(keys(&shown), expected);
        assert_eq!(shown["transports"][0]["trtype"], "TCP");

        let system = &mut system();
        subsystem(system);
        let stats = call_now(system, "nvmf_get_stats", Value::Null).unwrap();
        assert_eq!(keys(&stats), ["tick_rate", "poll_groups"]);
        for method in [
            "nvmf_subsystem_get_controllers",
            "nvmf_subsystem_get_qpairs",
        ] {
            assert_eq!(call_now(system, method, json!({"nqn": NQN})), Ok(json!([])));
        }
    }

    #[test]
    fn bad_addresses_and_hosts_are_named() {
        let system = &mut system();
        subsystem(system);
        let listen = |address: Value| json!({"nqn": NQN, "listen_address": address});
        for (method, params, names) in [
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "RDMA", "traddr": "127.0.0.1"})),
                "use TCP",
            ),
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "TCP"})),
                "listen_address: missing field `traddr`",
            ),
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "TCP", "traddr": "here"})),
                "listen_address: traddr",
            ),
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "TCP", "traddr": "::1", "trsvcid": "x"})),
                "trsvcid",
            ),
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "TCP", "traddr": "::1", "trsvcid": []})),
                "listen_address.trsvcid",
            ),
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "TCP", "traddr": "::1", "trsvcid": 70_000})),
                "trsvcid",
            ),
            (
                "nvmf_subsystem_add_listener",
                listen(json!({"trtype": "TCP", "traddr": "::1", "adrfam": "ipv4"})),
                "adrfam",
            ),
            (
                "nvmf_subsystem_add_listener",
                json!({"nqn": NQN, "listen_address": {"trtype": "TCP", "traddr": "::1"}, "secure_channel": true}),
                "secure_channel",
            ),
            (
                "nvmf_subsystem_add_host",
                json!({"nqn": NQN, "host": HOST, "psk": "key"}),
                "psk",
            ),
            (
                "nvmf_subsystem_add_host",
                json!({"nqn": NQN, "host": HOST, "dhchap_key": "key"}),
                "dhchap_key",
            ),
            (
                "nvmf_subsystem_add_host",
                json!({"nqn": NQN}),
                "missing field `host`",
            ),
            (
                "nvmf_subsystem_get_controllers",
                json!({"nqn": "nqn.2026-11.io.stripewise:b"}),
                "does not exist",
            ),
        ] {
            let error = call_now(system, method, params.clone()).unwrap_err();
            assert_eq!(error.code, -32602, "{params}: {}", error.message);
            assert!(error.message.contains(names), "{params}: {}", error.message);
        }
    }
}
