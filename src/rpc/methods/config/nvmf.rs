//! The configuration of the target: transports, subsystems with their hosts and namespaces, and
//! listeners last, so that no host comes in before everything is there.

use serde_json::{Map, json};

use super::Call;
use crate::control::System;
use crate::nvmf::{
    Access, Algorithms, HostInfo, NamespaceInfo, SubsystemInfo, SubsystemKind, TransportInfo,
};
use crate::rpc::methods::discovery::referral;
use crate::rpc::methods::hosts::put_keys;
use crate::rpc::methods::listen::address;
use crate::rpc::methods::nvmf::hex;

pub(super) fn calls(system: &System) -> Vec<Call> {
    let target = &system.target;
    let mut calls = vec![Call::new(
        "nvmf_set_max_subsystems",
        json!({"max_subsystems": target.max_subsystems()}),
    )];
    calls.push(authentication(target.authentication()));
    let [crdt1, crdt2, crdt3] = target.retry_delays();
    calls.push(Call::new(
        "nvmf_set_crdt",
        json!({"crdt1": crdt1, "crdt2": crdt2, "crdt3": crdt3}),
    ));
    calls.extend(target.transports().iter().map(transport));
    let referrals = target.referrals().iter().map(referral);
    calls.extend(referrals.map(|r| Call::new("nvmf_discovery_add_referral", r)));
    let subsystems = target.subsystems();
    let own = subsystems.iter().filter(|s| s.kind == SubsystemKind::Nvme);
    calls.extend(own.flat_map(subsystem));
    calls.extend(subsystems.iter().flat_map(listeners));
    if system.announcement.is_some() {
        calls.push(Call::new("nvmf_publish_mdns_prr", json!({})));
    }
    calls
}

fn authentication(algorithms: &Algorithms) -> Call {
    let hashes = algorithms.hashes.iter().map(|hash| hash.word());
    let groups = algorithms.groups.iter().map(|group| group.word());
    Call::new(
        "nvmf_set_config",
        json!({
            "dhchap_digests": hashes.collect::<Vec<_>>(),
            "dhchap_dhgroups": groups.collect::<Vec<_>>(),
        }),
    )
}

fn transport(info: &TransportInfo) -> Call {
    let o = &info.options;
    Call::new(
        "nvmf_create_transport",
        json!({
            "trtype": info.trtype,
            "max_queue_depth": o.max_queue_depth,
            "max_io_qpairs_per_ctrlr": o.max_io_qpairs_per_ctrlr,
            "in_capsule_data_size": o.in_capsule_data_size,
            "max_io_size": o.max_io_size,
            "max_aq_depth": o.max_aq_depth,
            "c2h_success": o.c2h_success,
        }),
    )
}

fn subsystem(info: &SubsystemInfo) -> Vec<Call> {
    let o = &info.options;
    let mut calls = vec![Call::new(
        "nvmf_create_subsystem",
        json!({
            "nqn": o.nqn,
            "allow_any_host": o.allow_any_host,
            "serial_number": o.serial_number,
            "model_number": o.model_number,
            "max_namespaces": o.max_namespaces,
            "min_cntlid": o.min_cntlid,
            "max_cntlid": o.max_cntlid,
            "ana_reporting": o.ana_reporting,
        }),
    )];
    if let Some(log) = &info.event_log {
        let file = log.file.to_string_lossy();
        let params = json!({"nqn": o.nqn, "file": file, "size_kb": log.size_kib});
        calls.push(Call::new("nvmf_subsystem_set_event_log", params));
    }
    calls.extend(info.hosts.iter().map(|info| host(&o.nqn, info)));
    for namespace in &info.namespaces {
        calls.push(self::namespace(&o.nqn, namespace));
        calls.extend(visible(&o.nqn, namespace));
    }
    calls
}

/// The hosts that see a namespace, where not every host does.
fn visible(nqn: &str, info: &NamespaceInfo) -> impl Iterator<Item = Call> {
    let hosts = info.hosts.iter().flat_map(|hosts| hosts.iter());
    hosts.map(move |host| {
        let params = json!({"nqn": nqn, "nsid": info.nsid, "host": host});
        Call::new("nvmf_ns_add_host", params)
    })
}

fn host(nqn: &str, info: &HostInfo) -> Call {
    let mut params = Map::new();
    params.insert("nqn".into(), nqn.into());
    params.insert("host".into(), info.nqn.clone().into());
    put_keys(info, &mut params);
    Call::new("nvmf_subsystem_add_host", params.into())
}

fn namespace(nqn: &str, info: &NamespaceInfo) -> Call {
    let mut namespace = json!({
        "nsid": info.nsid,
        "bdev_name": info.bdev_name,
        "nguid": hex(&info.nguid),
        "uuid": info.uuid.to_string(),
    });
    if let Some(eui64) = &info.eui64 {
        namespace["eui64"] = hex(eui64).into();
    }
    if info.anagrpid != info.nsid {
        namespace["anagrpid"] = info.anagrpid.into();
    }
    if info.hosts.is_some() {
        namespace["no_auto_visible"] = true.into();
    }
    if let Some(file) = &info.ptpl_file {
        namespace["ptpl_file"] = file.to_string_lossy().into();
    }
    Call::new(
        "nvmf_subsystem_add_ns",
        json!({"nqn": nqn, "namespace": namespace}),
    )
}

fn listeners(info: &SubsystemInfo) -> Vec<Call> {
    let nqn = &info.options.nqn;
    let mut calls = Vec::new();
    for at in &info.listen_addresses {
        let reach = info.reaches.get(at).cloned().unwrap_or_default();
        let mut params = json!({"nqn": nqn, "listen_address": address(at)});
        if reach.most() != Access::Optimized {
            params["ana_state"] = reach.most().word().into();
        }
        calls.push(Call::new("nvmf_subsystem_add_listener", params));
        calls.extend(reach.exceptions().map(|(group, access)| {
            Call::new(
                "nvmf_subsystem_listener_set_ana_state",
                json!({
                    "nqn": nqn, "listen_address": address(at), "ana_state": access.word(),
                    "anagrpid": group,
                }),
            )
        }));
    }
    calls
}
