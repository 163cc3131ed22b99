//! `bdev_raid_create`.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::batching::BatchingParams;
use crate::control::{ArrayOptions, System};
use crate::raid::Layout;
use crate::rpc::RpcError;
use crate::rpc::methods::{Answer, Params};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    strip_size_kb: u32,
    raid_level: Value,
    base_bdevs: Vec<String>,
    uuid: Option<Uuid>,
    #[serde(default)]
    superblock: bool,
    layout: Option<String>,
    stripe_size_kb: Option<u32>,
    shard_run: Option<u32>,
    #[serde(default)]
    batching: BatchingParams,
}

pub fn bdev_raid_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Create = params.read()?;
    if p.superblock {
        return Err(RpcError::invalid_params(
            "superblock: volumes are made without metadata; leave superblock out",
        ));
    }
    let layout = match p.layout.as_deref() {
        None => Layout::default(),
        Some(name) => Layout::by_name(name).ok_or_else(|| {
            let all = Layout::ALL.map(Layout::name).join(", ");
            RpcError::invalid_params(format!("layout: there is no {name:?}; use one of {all}"))
        })?,
    };
    system.create_array(ArrayOptions {
        name: p.name,
        uuid: p.uuid,
        level: level(&p.raid_level)?,
        strip_kb: p.strip_size_kb,
        layout,
        members: p.base_bdevs,
        stripe_kb: p.stripe_size_kb,
        shard_run: p.shard_run,
        batching: p.batching.read()?,
    })?;
    Ok(true.into())
}

/// SPDK's name of the level and ours mean the same; each client is shown the one that it used.
fn level(given: &Value) -> Result<&'static str, RpcError> {
    match given.as_str() {
        Some("raid5f" | "5f") => Ok("raid5f"),
        Some("raid5" | "5") => Ok("raid5"),
        _ if given.as_u64() == Some(5) => Ok("raid5"),
        _ => Err(RpcError::invalid_params(format!(
            "raid_level: {given} is not supported; use \"raid5\" (or \"raid5f\", which is the same here)"
        ))),
    }
}
