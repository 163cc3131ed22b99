//! Methods of RAID volumes.

mod assembly;
mod batching;
mod create;
mod describe;
mod policy;
mod settling;
#[cfg(test)]
mod tests;
mod upkeep;

pub use batching::show as show_batching;
pub use describe::describe;

use serde::Deserialize;
use serde_json::{Map, Value};

pub use settling::Settling;

use std::time::Duration;

use self::assembly::{
    bdev_raid_assemble, bdev_raid_examine, bdev_raid_set_policy, bdev_raid_set_tuning,
};
use self::create::bdev_raid_create;
use self::upkeep::{
    bdev_raid_accept_parity, bdev_raid_add_spare, bdev_raid_check, bdev_raid_remove_spare,
};
use super::changing::{Changing, Then};
use super::{Answer, Method, Params, When};
use crate::control::{ArrayState, System};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "bdev_raid_create",
        aliases: &["construct_raid_bdev"],
        when: When::Runtime,
        params: &[
            "name",
            "strip_size_kb",
            "raid_level",
            "base_bdevs",
            "uuid?",
            "superblock?",
            "layout?",
            "stripe_size_kb?",
            "shard_run?",
            "batching?",
            "consistency_policy?",
            "bitmap_chunk_kb?",
            "assume_clean?",
            "spares?",
            "force?",
        ],
        help: "Makes a RAID5 volume; with superblock, its state is kept on its members as Linux md does",
        run: bdev_raid_create,
    },
    Method {
        name: "bdev_raid_delete",
        aliases: &["destroy_raid_bdev"],
        when: When::Runtime,
        params: &["name", "clear_sb?"],
        help: "Deletes a RAID volume; its members stay as they are, unless clear_sb",
        run: bdev_raid_delete,
    },
    Method {
        name: "bdev_raid_get_bdevs",
        aliases: &["get_raid_bdevs"],
        when: When::Runtime,
        params: &["category"],
        help: "Lists RAID volumes: all, online, configuring or offline",
        run: bdev_raid_get_bdevs,
    },
    Method {
        name: "bdev_raid_add_base_bdev",
        aliases: &[],
        when: When::Runtime,
        params: &["raid_bdev", "base_bdev", "force?"],
        help: "Puts a device into the free slot of a RAID volume and rebuilds it",
        run: bdev_raid_add_base_bdev,
    },
    Method {
        name: "bdev_raid_remove_base_bdev",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Takes a member out of its RAID volume",
        run: bdev_raid_remove_base_bdev,
    },
    Method {
        name: "bdev_raid_replace_base_bdev",
        aliases: &[],
        when: When::Runtime,
        params: &["name", "base_bdev", "force?"],
        help: "Puts a device into the place of a member once it holds the same, at no risk",
        run: bdev_raid_replace_base_bdev,
    },
    Method {
        name: "bdev_raid_set_options",
        aliases: &[],
        when: When::Always,
        params: &[
            "process_window_size_kb?",
            "process_max_bandwidth_mb_sec?",
            "process_busy_bandwidth_mb_sec?",
            "degraded_start_wait_sec?",
        ],
        help: "Sets how fast rebuilds go, and how long a member that is away is waited for",
        run: bdev_raid_set_options,
    },
    Method {
        name: "bdev_raid_add_spare",
        aliases: &[],
        when: When::Runtime,
        params: &["raid_bdev", "base_bdev", "force?"],
        help: "Keeps a device ready for the next member that a RAID volume loses",
        run: bdev_raid_add_spare,
    },
    Method {
        name: "bdev_raid_remove_spare",
        aliases: &[],
        when: When::Runtime,
        params: &["raid_bdev", "base_bdev"],
        help: "Lets go of a spare of a RAID volume",
        run: bdev_raid_remove_spare,
    },
    Method {
        name: "bdev_raid_check",
        aliases: &[],
        when: When::Runtime,
        params: &["name", "action"],
        help: "Begins a check or repair of a RAID volume's parity, or does stop, pause, resume",
        run: bdev_raid_check,
    },
    Method {
        name: "bdev_raid_accept_parity",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Takes the parity of a RAID volume for right that may not be",
        run: bdev_raid_accept_parity,
    },
    Method {
        name: "bdev_raid_assemble",
        aliases: &[],
        when: When::Runtime,
        params: &["uuid?", "name?", "base_bdevs?", "force?"],
        help: "Starts an array of what is there of it and answers the volume's name",
        run: bdev_raid_assemble,
    },
    Method {
        name: "bdev_raid_set_policy",
        aliases: &[],
        when: When::Runtime,
        params: &["name?", "uuid?", "consistency_policy", "bitmap_chunk_kb?"],
        help: "Gives an array that is stopped another consistency policy",
        run: bdev_raid_set_policy,
    },
    Method {
        name: "bdev_raid_set_tuning",
        aliases: &[],
        when: When::Runtime,
        params: &["name", "stripe_size_kb?", "shard_run?", "batching?"],
        help: "Has an array that keeps its state on its members work otherwise; it is started again for it",
        run: bdev_raid_set_tuning,
    },
    Method {
        name: "bdev_raid_examine",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Tells what a device holds of an array",
        run: bdev_raid_examine,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    name: String,
    clear_sb: Option<bool>,
}

fn bdev_raid_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Delete = params.read()?;
    let clear = p.clear_sb.unwrap_or(false);
    match system.begin_delete(&p.name)? {
        Some(closing) => Ok(Changing::then(closing, Then::DeleteVolume { clear })),
        None => {
            system.finish_delete(&p.name, clear)?;
            Ok(true.into())
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Category {
    All,
    Online,
    Configuring,
    Offline,
}

impl Category {
    fn includes(self, state: ArrayState) -> bool {
        match self {
            Category::All => true,
            Category::Online => state == ArrayState::Online,
            Category::Configuring => state == ArrayState::Configuring,
            Category::Offline => state == ArrayState::Offline,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBdevs {
    category: Category,
}

fn bdev_raid_get_bdevs(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetBdevs = params.read()?;
    let infos = system.arrays.infos(&system.devices);
    let shown = infos
        .iter()
        .filter(|i| p.category.includes(i.state))
        .map(|info| {
            let mut object = Map::new();
            object.insert("name".into(), info.options.name.clone().into());
            object.extend(describe(info));
            Value::Object(object)
        });
    Ok(shown.collect::<Vec<_>>().into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBase {
    raid_bdev: String,
    base_bdev: String,
    #[serde(default)]
    force: bool,
}

fn bdev_raid_add_base_bdev(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddBase = params.read()?;
    let change = system.add_member(&p.raid_bdev, &p.base_bdev, p.force)?;
    Ok(change.map_or_else(|| true.into(), Changing::answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveBase {
    name: String,
}

fn bdev_raid_remove_base_bdev(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveBase = params.read()?;
    let change = system.remove_member(&p.name)?;
    Ok(change.map_or_else(|| true.into(), Changing::answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceBase {
    name: String,
    base_bdev: String,
    #[serde(default)]
    force: bool,
}

fn bdev_raid_replace_base_bdev(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: ReplaceBase = params.read()?;
    let change = system.replace_member(&p.name, &p.base_bdev, p.force)?;
    Ok(Changing::answer(change))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    process_window_size_kb: Option<u32>,
    process_max_bandwidth_mb_sec: Option<u32>,
    process_busy_bandwidth_mb_sec: Option<u32>,
    degraded_start_wait_sec: Option<u32>,
}

fn bdev_raid_set_options(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetOptions = params.read()?;
    let mut rebuild = system.arrays.rebuild();
    match p.process_window_size_kb {
        Some(0) => {
            return Err(RpcError::invalid_params(
                "process_window_size_kb: must be 1 or more; leave it out for what it is now",
            ));
        }
        Some(kb) => rebuild.window_bytes = u64::from(kb) << 10,
        None => {}
    }
    if let Some(mb) = p.process_max_bandwidth_mb_sec {
        rebuild.bytes_per_second = u64::from(mb) << 20;
    }
    if let Some(mb) = p.process_busy_bandwidth_mb_sec {
        rebuild.busy_bytes_per_second = u64::from(mb) << 20;
    }
    if let Some(seconds) = p.degraded_start_wait_sec {
        let wait = Duration::from_secs(seconds.into());
        system.arrays.set_degraded_start_wait(wait);
    }
    system.arrays.set_rebuild(rebuild)?;
    Ok(true.into())
}
