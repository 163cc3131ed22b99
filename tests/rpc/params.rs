//! The parameters of the methods that SPDK has too: their names, and which must be given. What SPDK takes is told by its
//! schema; what differs is named here.

use std::collections::BTreeMap;

use stripewise::rpc::methods;

/// What our methods take besides, as `method parameter`.
const ADDITIONS: &[&str] = &[
    "bdev_error_inject_error lba",
    "bdev_error_inject_error num_blocks",
    "bdev_error_inject_error write_heals",
    // The older name of `names`.
    "bdev_get_iostat name",
    "bdev_nvme_attach_controller wait_for_attach",
    "bdev_raid_add_base_bdev force",
    "bdev_raid_create assume_clean",
    "bdev_raid_create batching",
    "bdev_raid_create bitmap_chunk_kb",
    "bdev_raid_create consistency_policy",
    "bdev_raid_create force",
    "bdev_raid_create layout",
    "bdev_raid_create shard_run",
    "bdev_raid_create spares",
    "bdev_raid_create stripe_size_kb",
    "bdev_raid_set_options degraded_start_wait_sec",
    "bdev_raid_set_options process_busy_bandwidth_mb_sec",
];

/// What must be given here, and not in SPDK: a RAID5 has chunks.
const REQUIRED: &[&str] = &["bdev_raid_create strip_size_kb"];

#[test]
fn methods_take_the_parameters_of_spdks_schema() {
    let schema: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("golden/params.json")).expect("a golden file");
    let mut wrong = Vec::new();
    for (name, params) in &schema {
        let Some(method) = methods::all().find(|m| m.name == name) else {
            wrong.push(format!("{name}: is missing"));
            continue;
        };
        let ours: BTreeMap<&str, bool> = method
            .params
            .iter()
            .map(|p| (p.trim_end_matches('?'), !p.ends_with('?')))
            .collect();
        for (param, kind) in params {
            let pair = format!("{name} {param}");
            match (kind.starts_with("required"), ours.get(param.as_str())) {
                (true, Some(true)) | (false, Some(false)) => {}
                (true, _) => wrong.push(format!("{pair}: is not required")),
                (false, Some(true)) if REQUIRED.contains(&pair.as_str()) => {}
                (false, Some(true)) => wrong.push(format!("{pair}: is required")),
                // What is not there is refused by name.
                (false, None) => {}
            }
        }
        for param in ours.keys().filter(|p| !params.contains_key(**p)) {
            let pair = format!("{name} {param}");
            if !ADDITIONS.contains(&pair.as_str()) {
                wrong.push(format!("{pair}: is more than SPDK takes"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(schema.len() > 70, "{}", schema.len());
}
