//! What is done to the members of an array before it is used, and what is said of it.

use std::sync::Arc;

use super::disk::MemberDisk;
use crate::bdev::Bdev;
use crate::md::{self, Assembly, Found, Replay};

/// A member that could not be recovered: its slot, and why.
pub(super) type Failure = (usize, String);

/// Makes an array ready to be used, and changes what is known of it accordingly. `members` are the
/// devices of its slots.
///
/// # Errors
/// The member that is of no use.
pub(super) fn recover(
    assembly: &mut Assembly,
    found: &mut [Found],
    members: &[Option<Arc<dyn Bdev>>],
) -> Result<(), Failure> {
    let mut disks = Vec::new();
    for (slot, member) in members.iter().enumerate() {
        let disk = member.as_ref().map(MemberDisk::open).transpose();
        disks.push(disk.map_err(|e| (slot, e.to_string()))?);
    }
    let recovered = md::recover(assembly, found, &mut disks);
    if let Some(replay) = recovered.map_err(|e| (e.slot(), e.to_string()))? {
        tell(assembly, &replay);
    }
    Ok(())
}

fn tell(assembly: &Assembly, replay: &Replay) {
    let name = assembly.superblock.set_name;
    tracing::info!(
        "array {name}: {} entries of its partial parity logs replayed, {} not usable, {} blocks lost",
        replay.entries,
        replay.mismatches.len(),
        replay.lost.len()
    );
    for mismatch in &replay.mismatches {
        tracing::warn!("array {name}: {mismatch}");
    }
    for lost in &replay.lost {
        tracing::error!(
            "array {name}: sectors {:?} are lost: they were being written, and slot {} is missing",
            lost.array,
            lost.slot
        );
    }
}
