//! What is done to the members of an array before it is used, and what is said of it.

use std::sync::Arc;

use super::disk::MemberDisk;
use crate::bdev::Bdev;
use crate::md::{self, Assembly, Found, Replay};

/// What could not be recovered: the slot of the member that is of no use, if it is the fault of one,
/// and why.
pub(super) type Failure = (Option<usize>, String);

/// Makes an array ready to be used, and changes what is known of it accordingly. `members` are the
/// devices of its slots. `force` takes blocks for what they are that are lost and can't be noted.
///
/// # Errors
/// [`Failure`].
pub(super) fn recover(
    assembly: &mut Assembly,
    found: &mut [Found],
    members: &[Option<Arc<dyn Bdev>>],
    force: bool,
) -> Result<(), Failure> {
    let mut disks = Vec::new();
    for (slot, member) in members.iter().enumerate() {
        let disk = member.as_ref().map(MemberDisk::open).transpose();
        disks.push(disk.map_err(|e| (Some(slot), e.to_string()))?);
    }
    let recovered = md::recover(assembly, found, &mut disks, force);
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
