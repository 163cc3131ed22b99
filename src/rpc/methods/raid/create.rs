//! `bdev_raid_create`.

use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::batching::BatchingParams;
use super::policy;
use super::settling::Settling;
use crate::control::{ArrayOptions, NewMetadata, System, Tuning};
use crate::raid::Layout;
use crate::rpc::RpcError;
use crate::rpc::methods::{Answer, Params, Pending};

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
    consistency_policy: Option<String>,
    bitmap_chunk_kb: Option<u32>,
    assume_clean: Option<bool>,
    spares: Option<Vec<String>>,
    force: Option<bool>,
}

impl Create {
    /// What is to be kept on the members, if anything.
    fn metadata(&mut self) -> Result<Option<NewMetadata>, RpcError> {
        let given = [
            ("consistency_policy", self.consistency_policy.is_some()),
            ("bitmap_chunk_kb", self.bitmap_chunk_kb.is_some()),
            ("assume_clean", self.assume_clean.is_some()),
            ("spares", self.spares.is_some()),
            ("force", self.force.is_some()),
        ];
        if !self.superblock {
            let odd = given.iter().find(|(_, given)| *given);
            return odd.map_or(Ok(None), |(name, _)| {
                Err(RpcError::invalid_params(format!(
                    "{name}: means something only with superblock: true"
                )))
            });
        }
        let policy = match (&self.consistency_policy, self.bitmap_chunk_kb) {
            (None, None) => None,
            (None, chunk) => Some(policy::wanted("bitmap", chunk)?),
            (Some(name), chunk) => Some(policy::wanted(name, chunk)?),
        };
        Ok(Some(NewMetadata {
            policy,
            assume_clean: self.assume_clean.unwrap_or(false),
            spares: self.spares.take().unwrap_or_default(),
            force: self.force.unwrap_or(false),
        }))
    }
}

pub fn bdev_raid_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let mut p: Create = params.read()?;
    let metadata = p.metadata()?;
    let layout = match p.layout.as_deref() {
        None => Layout::default(),
        Some(name) => Layout::by_name(name).ok_or_else(|| {
            let all = Layout::ALL.map(Layout::name).join(", ");
            RpcError::invalid_params(format!("layout: there is no {name:?}; use one of {all}"))
        })?,
    };
    let options = ArrayOptions {
        name: p.name.clone(),
        uuid: p.uuid,
        level: level(&p.raid_level)?,
        strip_kb: p.strip_size_kb,
        layout,
        members: p.base_bdevs,
        tuning: Tuning {
            stripe_kb: p.stripe_size_kb,
            shard_run: p.shard_run,
            batching: p.batching.read()?,
        },
    };
    system.create_array(options, metadata.as_ref())?;
    // One that has come back may still wait for a member that is away.
    let mut settling = Settling::of(Some(p.name));
    match settling.poll(system, Instant::now()) {
        Some(outcome) => Ok(outcome?.into()),
        None => Ok(Answer::Later(Box::new(settling))),
    }
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
