//! Methods of arrays that are not started: what devices hold, and putting them together.

use serde::Deserialize;
use uuid::Uuid;

use super::batching::BatchingParams;
use super::policy;
use crate::control::{System, Tuning, Which};
use crate::rpc::RpcError;
use crate::rpc::methods::{Answer, Params};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assemble {
    uuid: Option<Uuid>,
    name: Option<String>,
    #[serde(default)]
    base_bdevs: Vec<String>,
    #[serde(default)]
    force: bool,
}

pub fn bdev_raid_assemble(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Assemble = params.read()?;
    if p.uuid.is_none() && p.name.is_none() && p.base_bdevs.is_empty() {
        return Err(RpcError::invalid_params(
            "which array? give its uuid, its name or its base_bdevs",
        ));
    }
    let which = Which {
        uuid: p.uuid,
        name: p.name,
    };
    let name = system.assemble(&which, &p.base_bdevs, p.force)?;
    Ok(name.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetPolicy {
    name: Option<String>,
    uuid: Option<Uuid>,
    consistency_policy: String,
    bitmap_chunk_kb: Option<u32>,
}

pub fn bdev_raid_set_policy(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetPolicy = params.read()?;
    if p.uuid.is_none() && p.name.is_none() {
        return Err(RpcError::invalid_params(
            "which array? give its name or its uuid",
        ));
    }
    let wanted = policy::wanted(&p.consistency_policy, p.bitmap_chunk_kb)?;
    let which = Which {
        uuid: p.uuid,
        name: p.name,
    };
    system.set_policy(&which, wanted)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetTuning {
    name: String,
    stripe_size_kb: Option<u32>,
    shard_run: Option<u32>,
    #[serde(default)]
    batching: BatchingParams,
}

pub fn bdev_raid_set_tuning(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetTuning = params.read()?;
    let tuning = Tuning {
        stripe_kb: p.stripe_size_kb,
        shard_run: p.shard_run,
        batching: p.batching.read()?,
    };
    system.set_tuning(&p.name, tuning)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examine {
    name: String,
}

pub fn bdev_raid_examine(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Examine = params.read()?;
    let member = system.examine_member(&p.name)?;
    Ok(member.to_json().into())
}
