//! What is done to the members of an array that was not stopped cleanly, before it is used: the
//! partial parity logs are replayed, and what they cannot save is noted as lost.

use std::sync::Arc;

use super::disk::MemberDisk;
use crate::bdev::Bdev;
use crate::md::member::{write_bad_blocks, write_superblock};
use crate::md::superblock::IN_SYNC;
use crate::md::{
    AreaError, Assembly, BadBlocks, Disk, Features, Found, LogMember, Lost, Mismatch, Policy,
    Replay, ReplayError, Seat, Standing, Superblock, empty_logs, replay,
};

/// A member that could not be recovered: its slot, and why.
pub(super) type Failure = (usize, String);

/// Replays the logs of an array that has some, where it was not stopped cleanly, and changes what is
/// known of it accordingly. `members` are the devices of its slots.
///
/// # Errors
/// The member that is of no use.
pub(super) fn recover(
    assembly: &mut Assembly,
    found: &mut [Found],
    members: &[Option<Arc<dyn Bdev>>],
) -> Result<(), Failure> {
    let is_ppl = matches!(assembly.superblock.policy, Policy::Ppl { .. });
    if !is_ppl || !assembly.dirty() {
        return Ok(());
    }
    let mut disks = Vec::new();
    for (slot, member) in members.iter().enumerate() {
        let disk = member.as_ref().map(MemberDisk::open).transpose();
        disks.push(disk.map_err(|e| (slot, e.to_string()))?);
    }
    let parts = parts(assembly, found);
    let replayed = {
        let mut logs = logs(&mut disks, &parts);
        replay(&mut logs, assembly.resync_offset).map_err(failure)?
    };
    tracing::info!(
        "array {}: {} entries of its partial parity logs replayed, {} not usable, {} blocks lost",
        assembly.superblock.set_name,
        replayed.entries,
        replayed.mismatches.len(),
        replayed.lost.len()
    );
    for mismatch in &replayed.mismatches {
        tracing::warn!("array {}: {mismatch}", assembly.superblock.set_name);
    }
    for lost in &replayed.lost {
        note(lost, assembly, found, &mut disks)?;
    }
    let mut logs = logs(&mut disks, &parts);
    empty_logs(&mut logs).map_err(failure)?;
    if is_clean(assembly, &replayed) {
        assembly.resync_offset = IN_SYNC;
    }
    Ok(())
}

/// The member with which a replay has failed.
fn failure(error: ReplayError) -> Failure {
    let slot = match &error {
        ReplayError::Disk { slot, .. } | ReplayError::Area { slot, .. } => *slot,
        ReplayError::Shape => 0,
    };
    (slot, error.to_string())
}

/// Whether parity is right after a replay. Where all members are there it is made anew otherwise, as
/// in the kernel. Where one is missing there is nothing to make it of, and nothing of it is in doubt
/// unless a log is: an entry that is not whole was being written when the array stopped, and its
/// data were not begun.
fn is_clean(assembly: &Assembly, replay: &Replay) -> bool {
    let is_torn = |m: &Mismatch| matches!(m, Mismatch::Checksum { .. });
    match assembly.degraded {
        None => replay.proves_clean(assembly.resync_offset),
        Some(_) => assembly.resync_offset == 0 && replay.mismatches.iter().all(is_torn),
    }
}

/// What a replay has to know of the member of each slot.
type Part = Option<(Superblock, BadBlocks, u64)>;

fn parts(assembly: &Assembly, found: &[Found]) -> Vec<Part> {
    let part = |seat: &Option<Seat>| {
        let seat = seat.as_ref()?;
        let member = &found[seat.found].member;
        let bad = member
            .bad_blocks
            .clone()
            .unwrap_or_else(|_| BadBlocks::new(0));
        let right_below = match seat.standing {
            Standing::InSync => u64::MAX,
            Standing::Recovering { offset, .. } => offset,
        };
        Some((member.superblock.clone(), bad, right_below))
    };
    assembly.slots.iter().map(part).collect()
}

fn logs<'a>(disks: &'a mut [Option<MemberDisk>], parts: &'a [Part]) -> Vec<Option<LogMember<'a>>> {
    let both = disks.iter_mut().zip(parts);
    let log = |(disk, part): (&'a mut Option<MemberDisk>, &'a Part)| {
        let (superblock, bad_blocks, right_below) = part.as_ref()?;
        Some(LogMember {
            disk: disk.as_mut()?,
            superblock,
            bad_blocks,
            right_below: *right_below,
        })
    };
    both.map(log).collect()
}

/// Notes on the member that has parity there that a block cannot be told any more.
fn note(
    lost: &Lost,
    assembly: &Assembly,
    found: &mut [Found],
    disks: &mut [Option<MemberDisk>],
) -> Result<(), Failure> {
    let slot = lost.parity;
    let (Some(seat), Some(disk)) = (&assembly.slots[slot], &mut disks[slot]) else {
        return Ok(());
    };
    let member = &mut found[seat.found].member;
    let start = member.superblock.data_offset;
    let sectors = start + lost.sectors.start..start + lost.sectors.end;
    tracing::error!(
        "array {}: sectors {:?} are lost: they were being written, and slot {} is missing",
        assembly.superblock.set_name,
        lost.array,
        lost.slot
    );
    let failed = |error: &dyn std::fmt::Display| (slot, error.to_string());
    let bad = member.bad_blocks.as_mut().map_err(|e| failed(e))?;
    bad.insert(sectors).map_err(|e| failed(&e))?;
    member.superblock.features.set(Features::BAD_BLOCKS, true);
    let disk: &mut dyn Disk = disk;
    let written = write_bad_blocks(disk, &member.superblock, bad)
        .and_then(|()| write_superblock(disk, &member.superblock).map_err(AreaError::from));
    written.map_err(|e| failed(&e))
}
