//! Methods of subsystems and what they export.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::hosts::host;
use super::listen::address;
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::nvmf::{
    NamespaceInfo, NamespaceOptions, SubsystemInfo, SubsystemKind, SubsystemOptions,
};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_create_subsystem",
        aliases: &["nvmf_subsystem_create"],
        when: When::Runtime,
        params: &[
            "nqn",
            "tgt_name?",
            "serial_number?",
            "model_number?",
            "max_namespaces?",
            "allow_any_host?",
            "min_cntlid?",
            "max_cntlid?",
            "ana_reporting?",
            "passthrough?",
            "enable_nssr?",
            "admin_label?",
            "dmrsl?",
            "wzsl?",
        ],
        help: "Makes a subsystem, which exports nothing yet",
        run: nvmf_create_subsystem,
    },
    Method {
        name: "nvmf_delete_subsystem",
        aliases: &["delete_nvmf_subsystem"],
        when: When::Runtime,
        params: &["nqn", "tgt_name?"],
        help: "Deletes a subsystem and disconnects its hosts",
        run: nvmf_delete_subsystem,
    },
    Method {
        name: "nvmf_get_subsystems",
        aliases: &["get_nvmf_subsystems"],
        when: When::Runtime,
        params: &["nqn?", "tgt_name?"],
        help: "Describes all subsystems, that of discovery first, or one",
        run: nvmf_get_subsystems,
    },
    Method {
        name: "nvmf_subsystem_add_ns",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "namespace", "tgt_name?"],
        help: "Exports a device and answers the number of its namespace",
        run: nvmf_subsystem_add_ns,
    },
    Method {
        name: "nvmf_subsystem_remove_ns",
        aliases: &[],
        when: When::Runtime,
        params: &["nqn", "nsid", "tgt_name?"],
        help: "Takes a namespace away from hosts",
        run: nvmf_subsystem_remove_ns,
    },
];

/// There is one target, and SPDK's clients that name it mean it.
const TARGET: &str = "nvmf_tgt";

/// Checks the name of the target, where one is given.
pub fn check_target(name: Option<&str>) -> Result<(), RpcError> {
    match name {
        None | Some(TARGET) => Ok(()),
        Some(other) => Err(RpcError::invalid_params(format!(
            "tgt_name: NVMf target '{other}' not found; there is one, {TARGET}, so leave tgt_name out"
        ))),
    }
}

/// Checks the name of a transport.
pub fn check_trtype(trtype: &str) -> Result<(), RpcError> {
    if trtype.eq_ignore_ascii_case("tcp") {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "trtype: Invalid transport type '{trtype}'; use TCP"
    )))
}

/// Refuses a feature of SPDK that there is not.
pub fn absent(name: &str, is_wanted: bool) -> Result<(), RpcError> {
    if !is_wanted {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "{name}: is not supported; leave it out"
    )))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateSubsystem {
    nqn: String,
    tgt_name: Option<String>,
    serial_number: Option<String>,
    model_number: Option<String>,
    max_namespaces: Option<u32>,
    #[serde(default)]
    allow_any_host: bool,
    min_cntlid: Option<u16>,
    max_cntlid: Option<u16>,
    #[serde(default)]
    ana_reporting: bool,
    #[serde(default)]
    passthrough: bool,
    #[serde(default)]
    enable_nssr: bool,
    admin_label: Option<String>,
    dmrsl: Option<u32>,
    wzsl: Option<u8>,
}

fn nvmf_create_subsystem(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: CreateSubsystem = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    absent("passthrough", p.passthrough)?;
    absent("enable_nssr", p.enable_nssr)?;
    absent("admin_label", p.admin_label.is_some_and(|l| !l.is_empty()))?;
    absent("dmrsl", p.dmrsl.unwrap_or(0) != 0)?;
    absent("wzsl", p.wzsl.unwrap_or(0) != 0)?;
    let defaults = SubsystemOptions::new(p.nqn);
    system.target.create_subsystem(SubsystemOptions {
        serial_number: p.serial_number.unwrap_or(defaults.serial_number),
        model_number: p.model_number.unwrap_or(defaults.model_number),
        max_namespaces: p.max_namespaces.unwrap_or(defaults.max_namespaces),
        allow_any_host: p.allow_any_host,
        min_cntlid: p.min_cntlid.unwrap_or(defaults.min_cntlid),
        max_cntlid: p.max_cntlid.unwrap_or(defaults.max_cntlid),
        nqn: defaults.nqn,
        allow_duplicate_associations: defaults.allow_duplicate_associations,
        ana_reporting: p.ana_reporting,
    })?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteSubsystem {
    nqn: String,
    tgt_name: Option<String>,
}

fn nvmf_delete_subsystem(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: DeleteSubsystem = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let registry = &mut system.devices.registry;
    system.target.delete_subsystem(registry, &p.nqn)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetSubsystems {
    nqn: Option<String>,
    tgt_name: Option<String>,
}

fn nvmf_get_subsystems(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetSubsystems = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let subsystems = system.target.subsystems();
    let is_asked = |s: &&SubsystemInfo| p.nqn.as_ref().is_none_or(|nqn| *nqn == s.options.nqn);
    let shown: Vec<Value> = subsystems.iter().filter(is_asked).map(subsystem).collect();
    match p.nqn {
        Some(nqn) if shown.is_empty() => Err(RpcError::invalid_params(format!(
            "nqn: Subsystem with NQN '{nqn}' not found; nvmf_get_subsystems without nqn lists all"
        ))),
        _ => Ok(shown.into()),
    }
}

/// A subsystem as SPDK describes it.
fn subsystem(info: &SubsystemInfo) -> Value {
    let o = &info.options;
    let hosts: Vec<Value> = info.hosts.iter().map(host).collect();
    let addresses: Vec<Value> = info.listen_addresses.iter().map(address).collect();
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("nqn", o.nqn.clone().into());
    put("subtype", info.kind.name().into());
    put("listen_addresses", addresses.into());
    put("allow_any_host", o.allow_any_host.into());
    put("hosts", hosts.into());
    if info.kind == SubsystemKind::Nvme {
        put("serial_number", o.serial_number.clone().into());
        put("model_number", o.model_number.clone().into());
        put("max_namespaces", o.max_namespaces.into());
        put("passthrough", false.into());
        put("min_cntlid", o.min_cntlid.into());
        put("max_cntlid", o.max_cntlid.into());
        put("dmrsl", 0.into());
        put("wzsl", 0.into());
        let namespaces = info.namespaces.iter();
        let namespaces = namespaces.map(|n| namespace(n, o.ana_reporting));
        put("namespaces", namespaces.collect());
        if let Some(log) = &info.event_log {
            let kept = json!({"file": log.file.to_string_lossy(), "size_kb": log.size_kib});
            put("event_log", kept);
        }
    }
    object.into()
}

fn namespace(info: &NamespaceInfo, ana_reporting: bool) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("nsid", info.nsid.into());
    put("bdev_name", info.bdev_name.clone().into());
    put("name", info.bdev_name.clone().into());
    put("nguid", hex(&info.nguid).into());
    if let Some(eui64) = &info.eui64 {
        put("eui64", hex(eui64).into());
    }
    put("uuid", info.uuid.to_string().into());
    if ana_reporting {
        put("anagrpid", info.anagrpid.into());
    }
    if let Some(hosts) = &info.hosts {
        put("no_auto_visible", true.into());
        put("hosts", hosts.iter().cloned().collect());
    }
    if let Some(file) = &info.ptpl_file {
        put("ptpl_file", file.to_string_lossy().into());
    }
    object.into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddNs {
    nqn: String,
    namespace: Namespace,
    tgt_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    bdev_name: String,
    nsid: Option<u32>,
    nguid: Option<String>,
    eui64: Option<String>,
    uuid: Option<Uuid>,
    ptpl_file: Option<String>,
    anagrpid: Option<u32>,
    #[serde(default)]
    no_auto_visible: bool,
    #[serde(default)]
    hide_metadata: bool,
}

fn nvmf_subsystem_add_ns(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddNs = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let n = p.namespace;
    absent("namespace.hide_metadata", n.hide_metadata)?;
    let bdev = system.devices.find(&n.bdev_name).map_err(|error| {
        let reason = waits(system, &n.bdev_name).unwrap_or_else(|| error.to_string());
        RpcError::invalid_params(format!("namespace.bdev_name: {reason}"))
    })?;
    let options = NamespaceOptions {
        bdev_name: bdev.info().name.clone(),
        // SPDK's way to ask for the lowest free number.
        nsid: n.nsid.filter(|&nsid| nsid != 0),
        nguid: n.nguid.map(|t| unhex("namespace.nguid", &t)).transpose()?,
        eui64: n.eui64.map(|t| unhex("namespace.eui64", &t)).transpose()?,
        uuid: n.uuid,
        // Likewise for the group of that number.
        anagrpid: n.anagrpid.filter(|&group| group != 0),
        no_auto_visible: n.no_auto_visible,
        ptpl_file: n.ptpl_file.map(PathBuf::from),
    };
    let registry = &mut system.devices.registry;
    let nsid = system.target.add_namespace(registry, &p.nqn, options)?;
    Ok(nsid.into())
}

/// What a volume of this name waits for, if there is one that does.
fn waits(system: &System, name: &str) -> Option<String> {
    let array = system.arrays.info(name, &system.devices)?;
    let reason = array.reason?;
    Some(format!("RAID volume {name} is not started: {reason}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveNs {
    nqn: String,
    nsid: u32,
    tgt_name: Option<String>,
}

fn nvmf_subsystem_remove_ns(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveNs = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let registry = &mut system.devices.registry;
    system.target.remove_namespace(registry, &p.nqn, p.nsid)?;
    Ok(true.into())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads `N` bytes as hexadecimal digits; the parameter is called `name`.
fn unhex<const N: usize>(name: &str, text: &str) -> Result<[u8; N], RpcError> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let digits = digits.filter(|d| d.len() == 2 * N).ok_or_else(|| {
        RpcError::invalid_params(format!(
            "{name}: {text:?} must be {} hexadecimal digits",
            2 * N
        ))
    })?;
    Ok(std::array::from_fn(|at| {
        digits[2 * at] << 4 | digits[2 * at + 1]
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, keys, system};

    const NQN: &str = "nqn.2026-11.io.stripewise:a";

    fn exported(system: &mut System) {
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        call_now(system, "nvmf_create_transport", json!({"trtype": "TCP"})).unwrap();
        call_now(system, "nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
    }

    /// What `rpc.py nvmf_create_transport -t TCP` of SPDK 26.09 sends.
    #[test]
    fn what_spdks_client_sends_is_taken() {
        let sent = json!({
            "no_srq": false, "c2h_success": true, "trtype": "TCP", "zcopy": false,
            "dif_insert_or_strip": false, "no_wr_batching": false, "disable_mappable_bar0": false,
            "disable_adaptive_irq": false, "disable_shadow_doorbells": false,
            "disable_command_passthru": false,
        });
        let made = call_now(&mut system(), "nvmf_create_transport", sent);
        assert_eq!(made, Ok(true.into()));
    }

    #[test]
    fn subsystems_have_spdks_shape_and_discovery_comes_first() {
        let system = &mut system();
        exported(system);
        let namespace = json!({
            "bdev_name": "n0", "nguid": "000102030405060708090A0B0C0D0E0F", "eui64": "00A0b0c0d0e0f000",
        });
        let added = json!({"nqn": NQN, "namespace": namespace});
        assert_eq!(
            call_now(system, "nvmf_subsystem_add_ns", added),
            Ok(1.into())
        );
        let shown = call_now(system, "nvmf_get_subsystems", Value::Null).unwrap();
        let common = [
            "nqn",
            "subtype",
            "listen_addresses",
            "allow_any_host",
            "hosts",
        ];
        assert_eq!(keys(&shown[0]), common);
        assert_eq!(shown[0]["nqn"], "nqn.2014-08.org.nvmexpress.discovery");
        assert_eq!(shown[0]["subtype"], "Discovery");
        let mut all = common.to_vec();
        all.extend([
            "serial_number",
            "model_number",
            "max_namespaces",
            "passthrough",
            "min_cntlid",
            "max_cntlid",
            "dmrsl",
            "wzsl",
            "namespaces",
        ]);
        assert_eq!(keys(&shown[1]), all);
        assert_eq!(
            (&shown[1]["nqn"], &shown[1]["subtype"]),
            (&json!(NQN), &json!("NVMe"))
        );
        let namespace = &shown[1]["namespaces"][0];
        assert_eq!(
            keys(namespace),
            ["nsid", "bdev_name", "name", "nguid", "eui64", "uuid"]
        );
        assert_eq!(namespace["nguid"], "000102030405060708090a0b0c0d0e0f");
        assert_eq!(namespace["eui64"], "00a0b0c0d0e0f000");
        let device = call_now(system, "bdev_get_bdevs", json!({"name": "n0"})).unwrap();
        assert_eq!(namespace["uuid"], device[0]["uuid"]);
        assert_eq!(device[0]["claimed"], true);

        let one = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(one[0], shown[1]);
        let busy = call_now(system, "bdev_null_delete", json!({"name": "n0"})).unwrap_err();
        assert!(
            busy.code == -16 && busy.message.contains(NQN),
            "{}",
            busy.message
        );
        let removed = json!({"nqn": NQN, "nsid": 1});
        assert_eq!(
            call_now(system, "nvmf_subsystem_remove_ns", removed),
            Ok(true.into())
        );
        assert_eq!(
            call_now(system, "bdev_null_delete", json!({"name": "n0"})),
            Ok(true.into())
        );
        let deleted = json!({"nqn": NQN});
        assert_eq!(
            call_now(system, "nvmf_delete_subsystem", deleted),
            Ok(true.into())
        );
        let left = call_now(system, "nvmf_get_subsystems", Value::Null).unwrap();
        assert_eq!(left.as_array().unwrap().len(), 1);
    }

    #[test]
    fn files_of_reservations_are_shown_and_saved() {
        let system = &mut system();
        exported(system);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.json");
        let namespace = json!({"bdev_name": "n0", "ptpl_file": file});
        let added = json!({"nqn": NQN, "namespace": namespace});
        std::fs::write(&file, "[]").unwrap();
        let damaged = call_now(system, "nvmf_subsystem_add_ns", added.clone()).unwrap_err();
        assert!(
            damaged.message.contains("is damaged"),
            "{}",
            damaged.message
        );
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            call_now(system, "nvmf_subsystem_add_ns", added),
            Ok(1.into())
        );
        let shown = call_now(system, "nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(shown[0]["namespaces"][0]["ptpl_file"], json!(file));
        let config = call_now(system, "framework_get_config", json!({"name": "nvmf"})).unwrap();
        let mut calls = config.as_array().unwrap().iter();
        let saved = calls.find(|call| call["method"] == "nvmf_subsystem_add_ns");
        let saved = &saved.unwrap()["params"]["namespace"];
        assert_eq!(saved["ptpl_file"], json!(file));
    }

    #[test]
    fn what_cannot_be_exported_is_told() {
        let system = &mut system();
        exported(system);
        for (method, params, code, names) in [
            (
                "nvmf_create_transport",
                json!({"trtype": "RDMA"}),
                -32602,
                "use TCP",
            ),
            (
                "nvmf_create_transport",
                json!({}),
                -32602,
                "missing field `trtype`",
            ),
            (
                "nvmf_create_transport",
                json!({"trtype": "TCP", "dif_insert_or_strip": true}),
                -32602,
                "dif_insert",
            ),
            (
                "nvmf_create_subsystem",
                json!({"nqn": NQN}),
                -32603,
                "already exists",
            ),
            (
                "nvmf_create_subsystem",
                json!({"nqn": NQN, "serial_number": "x".repeat(21)}),
                -32602,
                "serial_number",
            ),
            (
                "nvmf_create_subsystem",
                json!({"nqn": NQN, "min_cntlid": 70_000}),
                -32602,
                "min_cntlid",
            ),
            (
                "nvmf_create_subsystem",
                json!({"nqn": NQN, "tgt_name": "other"}),
                -32602,
                "tgt_name",
            ),
            (
                "nvmf_delete_subsystem",
                json!({"nqn": "nqn.2026-11.io.stripewise:b"}),
                -32602,
                "does not exist",
            ),
            (
                "nvmf_get_subsystems",
                json!({"nqn": "nqn.2026-11.io.stripewise:b"}),
                -32602,
                "not found",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "x"}}),
                -32602,
                "x does not exist",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "n0", "nguid": "12"}}),
                -32602,
                "32 hexadecimal",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "n0", "eui64": "xyz"}}),
                -32602,
                "16 hexadecimal",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "n0", "size": 1}}),
                -32602,
                "`size`",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": 1}}),
                -32602,
                "namespace.bdev_name: invalid type",
            ),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "n0", "nsid": 4000}}),
                -32602,
                "nsid",
            ),
            (
                "nvmf_subsystem_remove_ns",
                json!({"nqn": NQN, "nsid": 1}),
                -32602,
                "namespace 1",
            ),
        ] {
            let error = call_now(system, method, params.clone()).unwrap_err();
            assert_eq!(error.code, code, "{params}: {}", error.message);
            assert!(error.message.contains(names), "{params}: {}", error.message);
        }
        assert_eq!(system.devices.registry.claim_of("n0"), None);
    }
}
