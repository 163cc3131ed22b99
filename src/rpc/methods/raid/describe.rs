//! A volume as `bdev_raid_get_bdevs` shows it.

use serde_json::{Map, Value, json};

use crate::control::{ArrayInfo, ArrayState, KeptInfo};
use crate::raid::{Process, Status};

/// What a volume is, as `driver_specific.raid` shows it too. What SPDK has not comes last.
pub fn describe(info: &ArrayInfo) -> Map<String, Value> {
    let present = info.slots.iter().filter(|s| s.is_configured).count();
    let operational = match info.state {
        ArrayState::Configuring => info.slots.len(),
        _ => present,
    };
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    let uuid = info.options.uuid.unwrap_or_default();
    put("uuid", uuid.to_string().into());
    put("strip_size_kb", info.options.strip_kb.into());
    put("state", info.state.name().into());
    put("raid_level", info.options.level.into());
    put("superblock", info.kept.is_some().into());
    put("num_base_bdevs", info.slots.len().into());
    put("num_base_bdevs_discovered", present.into());
    put("num_base_bdevs_operational", operational.into());
    if let Some(process) = &info.process {
        put("process", describe_process(process, info.row_blocks));
    }
    let slots = info.slots.iter().map(|slot| {
        json!({
            "name": slot.name,
            "uuid": slot.uuid.to_string(),
            "is_configured": slot.is_configured,
            "data_offset": slot.data_offset,
            "data_size": slot.data_blocks,
        })
    });
    put("base_bdevs_list", slots.collect());
    if let Some(reason) = &info.reason {
        put("reason", reason.as_str().into());
    }
    if let Some(kept) = &info.kept {
        put("layout", info.options.layout.name().into());
        put("md", describe_kept(kept, info.status.as_ref()));
    }
    object
}

fn describe_process(process: &Process, row_blocks: u64) -> Value {
    let percent = process.rows_done * 100 / process.rows.max(1);
    let mut object = json!({
        "type": process.kind,
        "target": process.target,
        "progress": {
            "blocks": process.rows_done * row_blocks,
            "percent": percent,
        },
    });
    if process.kind != "rebuild" {
        object["mismatch_sectors"] = process.mismatches.into();
    }
    object
}

/// What the members say of an array, and what it lacks.
fn describe_kept(kept: &KeptInfo, status: Option<&Status>) -> Value {
    let rejected = kept.rejected.iter();
    let rejected = rejected.map(|(name, reason)| json!({"name": name, "reason": reason}));
    let mut object = json!({
        "name": kept.name,
        "consistency_policy": kept.policy,
        "bitmap_chunk_kb": kept.bitmap_chunk.map(|bytes| bytes / 1024),
        "spares": kept.spares,
        "rejected": rejected.collect::<Vec<_>>(),
    });
    let Some(status) = status else {
        object["found"] = kept.found.clone().into();
        return object;
    };
    let metadata = status.metadata.as_ref();
    object["events"] = metadata.map(|m| m.events).into();
    object["dirty"] = metadata.map(|m| m.dirty).into();
    object["in_sync"] = status.in_sync.into();
    object["doubtful"] = status.doubtful.into();
    object["paused"] = status.paused.into();
    object["mismatch_sectors"] = status.mismatches.into();
    object["last_process_error"] = status.last_process_error.clone().into();
    object
}
