//! Methods of arrays that are not started: what devices hold, and putting them together.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::policy;
use crate::control::{System, Which};
use crate::md::superblock::IN_SYNC;
use crate::md::{Member, Policy, Role, SECTOR, Superblock};
use crate::raid::Layout;
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
struct Examine {
    name: String,
}

pub fn bdev_raid_examine(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Examine = params.read()?;
    let member = system.examine_member(&p.name)?;
    Ok(Value::from(describe(&member)).into())
}

/// What a member holds. Numbers are those of the superblock; sectors have 512 bytes.
fn describe(member: &Member) -> Map<String, Value> {
    let sb = &member.superblock;
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("version", format!("1.{}", sb.minor().number()).into());
    put("array_name", sb.set_name.to_string().into());
    put("array_uuid", sb.set_uuid.to_string().into());
    put("device_uuid", sb.device_uuid.to_string().into());
    put("raid_level", sb.level.into());
    put("layout", layout(sb));
    put("num_base_bdevs", sb.raid_disks.into());
    put(
        "strip_size_kb",
        (u64::from(sb.chunk) * SECTOR / 1024).into(),
    );
    put("role", role(sb.role()));
    put("device_number", sb.dev_number.into());
    put("events", sb.events.into());
    put("created", sb.created.seconds().into());
    put("updated", sb.updated.seconds().into());
    put("clean", (sb.resync_offset == IN_SYNC).into());
    put("resync_offset", sectors_or_null(sb.resync_offset));
    put("recovery_offset", sb.recovering().into());
    put("feature_map", sb.feature_map().0.into());
    put("size", sb.size.into());
    put("super_offset", sb.super_offset.into());
    put("data_offset", sb.data_offset.into());
    put("data_size", sb.data_size.into());
    put(
        "consistency_policy",
        crate::control::policy_name(sb.policy).into(),
    );
    put("bitmap", bitmap(member));
    put("ppl", ppl(member));
    put("bad_blocks", bad_blocks(member));
    let slots = sb.slots().into_iter();
    let slots = slots.map(|number| number.map_or("missing", |_| "active"));
    put("array_state", slots.collect::<Vec<_>>().into());
    let unsupported = sb.support().err();
    put("unsupported", unsupported.map(|u| u.to_string()).into());
    object
}

fn layout(sb: &Superblock) -> Value {
    match Layout::ALL.get(sb.layout as usize) {
        Some(layout) => layout.name().into(),
        None => sb.layout.into(),
    }
}

fn role(role: Role) -> Value {
    match role {
        Role::Slot(slot) => json!({"slot": slot}),
        Role::Spare => "spare".into(),
        Role::Faulty => "faulty".into(),
        Role::Journal => "journal".into(),
        Role::Unknown(number) => number.into(),
    }
}

/// An offset that may stand for the end.
fn sectors_or_null(sectors: u64) -> Value {
    (sectors != IN_SYNC).then_some(sectors).into()
}

fn bitmap(member: &Member) -> Value {
    match &member.bitmap {
        None => Value::Null,
        Some(Err(error)) => json!({"error": error.to_string()}),
        Some(Ok(stored)) => json!({
            "chunk_kb": stored.header.chunk_bytes / 1024,
            "events": stored.header.events,
            "events_cleared": stored.header.events_cleared,
            "bits": stored.bits.bits(),
            "dirty": stored.bits.count(),
        }),
    }
}

fn ppl(member: &Member) -> Value {
    let Policy::Ppl { size, .. } = member.superblock.policy else {
        return Value::Null;
    };
    let entries = match &member.ppl {
        Some(Ok(Some(found))) => found.header.entries.len().into(),
        Some(Err(error)) => return json!({"error": error.to_string()}),
        _ => Value::Null,
    };
    json!({"size": size, "entries": entries})
}

/// Ranges of sectors, from the start of the device.
fn bad_blocks(member: &Member) -> Value {
    match &member.bad_blocks {
        Err(error) => json!({"error": error.to_string()}),
        Ok(bad) => {
            let ranges = bad.iter().map(|r| json!([r.start, r.end - r.start]));
            ranges.collect()
        }
    }
}
