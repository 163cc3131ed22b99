//! A volume as `bdev_raid_get_bdevs` shows it.

use serde_json::{Map, Value, json};

use crate::control::{ArrayInfo, ArrayState};

/// What a volume is, as `driver_specific.raid` shows it too.
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
    put("superblock", false.into());
    put("num_base_bdevs", info.slots.len().into());
    put("num_base_bdevs_discovered", present.into());
    put("num_base_bdevs_operational", operational.into());
    if let Some(process) = &info.process {
        let percent = process.rows_done * 100 / process.rows.max(1);
        put(
            "process",
            json!({
                "type": process.kind,
                "target": process.target,
                "progress": {
                    "blocks": process.rows_done * info.row_blocks,
                    "percent": percent,
                },
            }),
        );
    }
    let slots = info.slots.iter().map(|slot| {
        json!({
            "name": slot.name,
            "uuid": slot.uuid.to_string(),
            "is_configured": slot.is_configured,
            "data_offset": 0,
            "data_size": slot.data_blocks,
        })
    });
    put("base_bdevs_list", slots.collect());
    object
}
