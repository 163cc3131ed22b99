//! Methods of the discovery service: what else it tells hosts of, and how hosts find it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::listen::{Address, address};
use super::nvmf::check_target;
use super::{Answer, Method, Params, When};
use crate::control::{Announcement, System};
use crate::nvme::Nqn;
use crate::nvmf::{ListenAddress, Referral};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "nvmf_discovery_add_referral",
        aliases: &[],
        when: When::Runtime,
        params: &["address", "tgt_name?", "secure_channel?", "subnqn?"],
        help: "Tells hosts of another discovery service",
        run: nvmf_discovery_add_referral,
    },
    Method {
        name: "nvmf_discovery_remove_referral",
        aliases: &[],
        when: When::Runtime,
        params: &["address", "tgt_name?", "subnqn?"],
        help: "Tells hosts of another discovery service no longer",
        run: nvmf_discovery_remove_referral,
    },
    Method {
        name: "nvmf_discovery_get_referrals",
        aliases: &[],
        when: When::Runtime,
        params: &["tgt_name?"],
        help: "Lists the other discovery services that hosts are told of",
        run: nvmf_discovery_get_referrals,
    },
    Method {
        name: "nvmf_publish_mdns_prr",
        aliases: &[],
        when: When::Runtime,
        params: &["tgt_name?"],
        help: "Announces the discovery service by multicast DNS, so that hosts find it by themselves",
        run: nvmf_publish_mdns_prr,
    },
    Method {
        name: "nvmf_stop_mdns_prr",
        aliases: &[],
        when: When::Runtime,
        params: &["tgt_name?"],
        help: "Announces the discovery service no longer",
        run: nvmf_stop_mdns_prr,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddReferral {
    address: Address,
    tgt_name: Option<String>,
    #[serde(default)]
    secure_channel: bool,
    subnqn: Option<String>,
}

fn nvmf_discovery_add_referral(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddReferral = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    system.target.add_referral(Referral {
        address: p.address.parse("address")?,
        subnqn: name(p.subnqn)?,
        secure_channel: p.secure_channel,
    })?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveReferral {
    address: Address,
    tgt_name: Option<String>,
    subnqn: Option<String>,
}

fn nvmf_discovery_remove_referral(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveReferral = params.read()?;
    check_target(p.tgt_name.as_deref())?;
    let at: ListenAddress = p.address.parse("address")?;
    system.target.remove_referral(at, &name(p.subnqn)?)?;
    Ok(true.into())
}

/// The name of what is referred to: discovery, unless another is given.
fn name(subnqn: Option<String>) -> Result<Nqn, RpcError> {
    let Some(text) = subnqn else {
        return Ok(Nqn::discovery());
    };
    Nqn::new(&text).map_err(|error| RpcError::invalid_params(format!("subnqn: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTarget {
    tgt_name: Option<String>,
}

impl OfTarget {
    fn check(params: Params) -> Result<(), RpcError> {
        let p: Self = params.read()?;
        check_target(p.tgt_name.as_deref())
    }
}

fn nvmf_discovery_get_referrals(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    OfTarget::check(params)?;
    let shown = system.target.referrals().iter().map(referral);
    Ok(shown.collect::<Vec<_>>().into())
}

/// A referral as it is shown, and as it is made.
pub fn referral(referral: &Referral) -> Value {
    json!({
        "address": address(&referral.address),
        "secure_channel": referral.secure_channel,
        "subnqn": referral.subnqn.as_str(),
    })
}

fn nvmf_publish_mdns_prr(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    OfTarget::check(params)?;
    if system.announcement.is_some() {
        return Err(RpcError::errno(
            rustix::io::Errno::EXIST,
            "the discovery service is announced already",
        ));
    }
    system.announcement = Some(Announcement::begin()?);
    Ok(true.into())
}

fn nvmf_stop_mdns_prr(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    OfTarget::check(params)?;
    match system.announcement.take() {
        Some(_) => Ok(true.into()),
        None => Err(RpcError::errno(
            rustix::io::Errno::NOENT,
            "the discovery service is not announced",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, system};

    #[test]
    fn referrals_come_are_listed_and_go() {
        let system = &mut system();
        let one = json!({"trtype": "tcp", "traddr": "192.0.2.9", "trsvcid": "8009"});
        let add = json!({"address": one, "secure_channel": true});
        for _ in 0..2 {
            let added = call_now(system, "nvmf_discovery_add_referral", add.clone());
            assert_eq!(added, Ok(true.into()), "again is no error");
        }
        let other = json!({"address": one, "subnqn": "nqn.2026-11.io.example:a"});
        call_now(system, "nvmf_discovery_add_referral", other.clone()).unwrap();
        let shown = |nqn: &str, secure: bool| {
            json!({
                "address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "192.0.2.9",
                    "trsvcid": "8009"},
                "secure_channel": secure,
                "subnqn": nqn,
            })
        };
        let listed = call_now(system, "nvmf_discovery_get_referrals", json!({})).unwrap();
        let discovery = "nqn.2014-08.org.nvmexpress.discovery";
        let both = [
            shown(discovery, true),
            shown("nqn.2026-11.io.example:a", false),
        ];
        assert_eq!(listed, Value::from(both.to_vec()));
        let gone = json!({"address": one});
        call_now(system, "nvmf_discovery_remove_referral", gone.clone()).unwrap();
        let listed = call_now(system, "nvmf_discovery_get_referrals", json!({})).unwrap();
        assert_eq!(listed, Value::from(both[1..].to_vec()));
        let error = call_now(system, "nvmf_discovery_remove_referral", gone).unwrap_err();
        assert_eq!(error.code, -32602, "{}", error.message);
        assert!(
            error.message.contains("192.0.2.9:8009"),
            "{}",
            error.message
        );
    }

    #[test]
    fn bad_referrals_are_refused_by_name() {
        let system = &mut system();
        for (address, subnqn, names) in [
            (
                json!({"trtype": "RDMA", "traddr": "192.0.2.9", "trsvcid": "1"}),
                None,
                "RDMA",
            ),
            (
                json!({"trtype": "TCP", "traddr": "there", "trsvcid": "1"}),
                None,
                "address: ",
            ),
            (
                json!({"trtype": "TCP", "traddr": "192.0.2.9", "trsvcid": "0"}),
                None,
                "port",
            ),
            (
                json!({"trtype": "TCP", "traddr": "0.0.0.0", "trsvcid": "1"}),
                None,
                "address and",
            ),
            (
                json!({"trtype": "TCP", "traddr": "192.0.2.9", "trsvcid": "1"}),
                Some("x"),
                "subnqn",
            ),
        ] {
            let params = json!({"address": address, "subnqn": subnqn});
            let error = call_now(system, "nvmf_discovery_add_referral", params).unwrap_err();
            assert!(error.message.contains(names), "{names}: {}", error.message);
        }
        assert!(system.target.referrals().is_empty());
    }

    #[test]
    fn what_is_not_announced_cannot_be_stopped() {
        let error = call_now(&mut system(), "nvmf_stop_mdns_prr", json!({})).unwrap_err();
        assert_eq!(error.code, -2);
    }
}
