//! Methods of transports.

use serde::Deserialize;
use serde_json::{Value, json};

use super::nvmf::{absent, check_target, check_trtype};
use super::{Answer, Method, Params, When};
use crate::control::System;
use crate::nvmf::{TransportInfo, TransportOptions};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_create_transport",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "trtype",
            "tgt_name?",
            "max_queue_depth?",
            "max_aq_depth?",
            "max_io_qpairs_per_ctrlr?",
            "in_capsule_data_size?",
            "max_io_size?",
            "c2h_success?",
            "io_unit_size?",
            "num_shared_buffers?",
            "buf_cache_size?",
            "iobuf_small_cache_size?",
            "iobuf_large_cache_size?",
            "zcopy?",
            "dif_insert_or_strip?",
            "sock_priority?",
            "acceptor_backlog?",
            "acceptor_poll_rate?",
            "ack_timeout?",
            "abort_timeout_sec?",
            "control_msg_num?",
            "kas?",
            "min_kato?",
            "num_cqe?",
            "max_srq_depth?",
            "no_srq?",
            "no_wr_batching?",
            "data_wr_pool_size?",
            "disable_mappable_bar0?",
            "disable_adaptive_irq?",
            "disable_shadow_doorbells?",
            "disable_command_passthru?",
        ],
        help: "Makes the TCP transport, which listeners need",
        run: nvmf_create_transport,
    },
    Method {
        name: "nvmf_get_transports",
        aliases: &["get_nvmf_transports"],
        when: When::Runtime,
        params: &["trtype?", "tgt_name?"],
        help: "Describes the transports",
        run: nvmf_get_transports,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTransport {
    trtype: String,
    tgt_name: Option<String>,
    max_queue_depth: Option<u16>,
    max_aq_depth: Option<u16>,
    max_io_qpairs_per_ctrlr: Option<u16>,
    in_capsule_data_size: Option<u32>,
    max_io_size: Option<u32>,
    c2h_success: Option<bool>,
    #[serde(default)]
    dif_insert_or_strip: bool,
    // Tuning of SPDK's own insides, of which ours have none.
    #[serde(rename = "io_unit_size")]
    _io_unit_size: Option<u32>,
    #[serde(rename = "num_shared_buffers")]
    _num_shared_buffers: Option<u32>,
    #[serde(rename = "buf_cache_size")]
    _buf_cache_size: Option<u32>,
    #[serde(rename = "iobuf_small_cache_size")]
    _iobuf_small_cache_size: Option<u32>,
    #[serde(rename = "iobuf_large_cache_size")]
    _iobuf_large_cache_size: Option<u32>,
    #[serde(rename = "zcopy")]
    _zcopy: Option<bool>,
    #[serde(rename = "sock_priority")]
    _sock_priority: Option<u32>,
    #[serde(rename = "acceptor_backlog")]
    _acceptor_backlog: Option<i32>,
    #[serde(rename = "acceptor_poll_rate")]
    _acceptor_poll_rate: Option<u32>,
    #[serde(rename = "ack_timeout")]
    _ack_timeout: Option<u32>,
    #[serde(rename = "abort_timeout_sec")]
    _abort_timeout_sec: Option<u32>,
    #[serde(rename = "control_msg_num")]
    _control_msg_num: Option<u16>,
    #[serde(rename = "kas")]
    _kas: Option<u16>,
    #[serde(rename = "min_kato")]
    _min_kato: Option<u32>,
    // Of SPDK's other transports. Its rpc.py sends some of them for each.
    #[serde(rename = "num_cqe")]
    _num_cqe: Option<i32>,
    #[serde(rename = "max_srq_depth")]
    _max_srq_depth: Option<u32>,
    #[serde(rename = "no_srq")]
    _no_srq: Option<bool>,
    #[serde(rename = "no_wr_batching")]
    _no_wr_batching: Option<bool>,
    #[serde(rename = "data_wr_pool_size")]
    _data_wr_pool_size: Option<u32>,
    #[serde(rename = "disable_mappable_bar0")]
    _disable_mappable_bar0: Option<bool>,
    #[serde(rename = "disable_adaptive_irq")]
    _disable_adaptive_irq: Option<bool>,
    #[serde(rename = "disable_shadow_doorbells")]
    _disable_shadow_doorbells: Option<bool>,
    #[serde(rename = "disable_command_passthru")]
    _disable_command_passthru: Option<bool>,
}

fn nvmf_create_transport(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: CreateTransport = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    check_trtype(&p.trtype)?;
    absent("dif_insert_or_strip", p.dif_insert_or_strip)?;
    let defaults = TransportOptions::default();
    system.target.create_transport(TransportOptions {
        max_queue_depth: p.max_queue_depth.unwrap_or(defaults.max_queue_depth),
        max_aq_depth: p.max_aq_depth.unwrap_or(defaults.max_aq_depth),
        max_io_qpairs_per_ctrlr: p
            .max_io_qpairs_per_ctrlr
            .unwrap_or(defaults.max_io_qpairs_per_ctrlr),
        in_capsule_data_size: p
            .in_capsule_data_size
            .unwrap_or(defaults.in_capsule_data_size),
        max_io_size: p.max_io_size.unwrap_or(defaults.max_io_size),
        c2h_success: p.c2h_success.unwrap_or(defaults.c2h_success),
        ..defaults
    })?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetTransports {
    trtype: Option<String>,
    tgt_name: Option<String>,
}

fn nvmf_get_transports(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetTransports = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let transports = system.target.transports();
    let is_asked = |t: &&TransportInfo| {
        p.trtype
            .as_ref()
            .is_none_or(|asked| asked.eq_ignore_ascii_case(t.trtype))
    };
    let shown: Vec<Value> = transports.iter().filter(is_asked).map(transport).collect();
    match p.trtype {
        Some(trtype) if shown.is_empty() => Err(RpcError::errno(
            rustix::io::Errno::NODEV,
            format!("transport '{trtype}' does not exist; nvmf_create_transport makes it"),
        )),
        _ => Ok(shown.into()),
    }
}

fn transport(info: &TransportInfo) -> Value {
    let o = &info.options;
    json!({
        "trtype": info.trtype,
        "max_queue_depth": o.max_queue_depth,
        "max_io_qpairs_per_ctrlr": o.max_io_qpairs_per_ctrlr,
        "in_capsule_data_size": o.in_capsule_data_size,
        "max_io_size": o.max_io_size,
        "io_unit_size": o.max_io_size,
        "max_aq_depth": o.max_aq_depth,
        "dif_insert_or_strip": false,
        "zcopy": false,
        "c2h_success": o.c2h_success,
        "sock_priority": 0,
        "abort_timeout_sec": 1,
        "ack_timeout": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, keys, system};

    #[test]
    fn transports_have_spdks_shape() {
        let system = &mut system();
        let spdks = json!({
            "trtype": "tcp", "max_queue_depth": 64, "max_io_qpairs_per_ctrlr": 7,
            "in_capsule_data_size": 4096, "max_io_size": 131_072, "io_unit_size": 131_072,
            "max_aq_depth": 32, "num_shared_buffers": 511, "buf_cache_size": 4,
            "zcopy": true, "c2h_success": false, "dif_insert_or_strip": false, "sock_priority": 0,
            "acceptor_poll_rate": 10_000, "abort_timeout_sec": 1, "control_msg_num": 32,
        });
        assert_eq!(
            call_now(system, "nvmf_create_transport", spdks.clone()),
            Ok(true.into())
        );
        let shown = call_now(system, "nvmf_get_transports", Value::Null).unwrap();
        let told = keys(&shown[0]);
        for key in [
            "trtype",
            "max_queue_depth",
            "max_io_qpairs_per_ctrlr",
            "in_capsule_data_size",
            "max_io_size",
            "max_aq_depth",
            "c2h_success",
        ] {
            assert!(told.contains(&key), "{key}");
            if key != "trtype" {
                assert_eq!(shown[0][key], spdks[key], "{key}");
            }
        }
        assert_eq!(shown[0]["trtype"], "TCP");
        let again =
            call_now(system, "nvmf_create_transport", json!({"trtype": "TCP"})).unwrap_err();
        assert_eq!(again.code, -32603);
        assert!(
            again
                .message
                .contains("Transport type 'TCP' already exists"),
            "{}",
            again.message
        );
        let by_type = call_now(system, "nvmf_get_transports", json!({"trtype": "tcp"}));
        assert_eq!(by_type, Ok(shown));
        let other = call_now(system, "nvmf_get_transports", json!({"trtype": "rdma"}));
        assert_eq!(other.unwrap_err().code, -19);
    }
}
