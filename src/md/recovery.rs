//! What is done to the members of an array before it is used: the partial parity logs are replayed if it
//! was not stopped cleanly, and what they cannot save is noted as lost; and all bitmaps say what has to be
//! believed.
//!
//! All of it can be done again: after a crash on the way, the next start does the same.

use super::member::{write_bad_blocks, write_bitmap, write_superblock};
use super::superblock::IN_SYNC;
use super::{
    AreaError, Assembly, BadBlocks, BadBlocksError, Disk, FIRST_STRIPE, Features, Found, LogMember,
    Lost, Mismatch, Policy, Replay, ReplayError, Seat, Standing, StoredBitmap, Superblock,
    empty_logs, replay, sync_first_stripe,
};

/// An array that can't be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Its log could not be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Something could not be written to it.
    #[error("slot {slot}: {error}")]
    Area {
        /// Its slot.
        slot: usize,
        /// What went wrong.
        error: AreaError,
    },
    /// Blocks of a missing member are lost, and there is nowhere to say so.
    #[error(
        "blocks of slot {slot}, which is missing, were being written, and the member of slot {parity} cannot note that they are lost: {error}; attach the missing one, or start by force and check the data"
    )]
    Lost {
        /// The slot that is missing.
        slot: usize,
        /// That of the member whose log has no room.
        parity: usize,
        /// Why it has none.
        error: BadBlocksError,
    },
}

impl RecoveryError {
    /// The slot of the member that is of no use, if it is the fault of one. Without it, the array can
    /// be put together again.
    pub fn slot(&self) -> Option<usize> {
        match self {
            Self::Replay(ReplayError::Disk { slot, .. } | ReplayError::Area { slot, .. })
            | Self::Area { slot, .. } => Some(*slot),
            Self::Replay(ReplayError::Shape) | Self::Lost { .. } => None,
        }
    }
}

/// Makes an array ready to be used, and changes what is known of it accordingly. `disks` are the
/// devices of its slots. `force` takes blocks for what they are that are lost and can't be noted. Says
/// what came of the logs, if they were replayed.
///
/// # Errors
/// [`RecoveryError`]
pub fn recover<D: Disk>(
    assembly: &mut Assembly,
    found: &mut [Found],
    disks: &mut [Option<D>],
    force: bool,
) -> Result<Option<Replay>, RecoveryError> {
    let is_ppl = matches!(assembly.superblock.policy, Policy::Ppl { .. });
    let replayed = match is_ppl && assembly.dirty() {
        true => Some(replay_logs(assembly, found, disks, force)?),
        false => None,
    };
    if let Some(replayed) = &replayed {
        if is_clean(assembly, replayed) {
            assembly.resync_offset = IN_SYNC;
        } else if !is_precaution(assembly, replayed) {
            // As long as there is something in the logs the next start finds the same.
            owe(assembly, replayed, found, disks, force)?;
        }
    }
    if is_ppl {
        empty(assembly, found, disks)?;
    }
    if let Some((header, _)) = &mut assembly.bitmap {
        // Whatever it missed is in its bits by now.
        header.state = 0;
        header.events = header.events.max(assembly.events);
    }
    settle_bitmaps(assembly, found, disks)?;
    Ok(replayed)
}

fn replay_logs<D: Disk>(
    assembly: &mut Assembly,
    found: &mut [Found],
    disks: &mut [Option<D>],
    force: bool,
) -> Result<Replay, RecoveryError> {
    let parts = parts(assembly, found);
    let replayed = replay(&mut logs(disks, &parts), assembly.resync_offset)?;
    for lost in &replayed.lost {
        give_up(lost, assembly, found, disks, force)?;
    }
    Ok(replayed)
}

/// Has the members say that parity may be wrong, and where, other than by 0: after the next crash that
/// would mean that only what the logs say is in doubt.
fn owe<D: Disk>(
    assembly: &mut Assembly,
    replayed: &Replay,
    found: &mut [Found],
    disks: &mut [Option<D>],
    force: bool,
) -> Result<(), RecoveryError> {
    if !replayed.mismatches.iter().all(is_torn) {
        assembly.resync_offset = 0;
    }
    if assembly.resync_offset < FIRST_STRIPE {
        let lost = sync_first_stripe(&mut logs(disks, &parts(assembly, found)))?;
        if let Some(lost) = lost {
            give_up(&lost, assembly, found, disks, force)?;
        }
        assembly.resync_offset = FIRST_STRIPE;
    }
    for (slot, (seat, disk)) in assembly.slots.iter().zip(disks).enumerate() {
        let (Some(seat), Some(disk)) = (seat, disk) else {
            continue;
        };
        let superblock = &mut found[seat.found].member.superblock;
        superblock.resync_offset = assembly.resync_offset;
        write_superblock(disk, superblock).map_err(|error| RecoveryError::Area {
            slot,
            error: error.into(),
        })?;
    }
    Ok(())
}

/// Makes a lost block one that can't be read.
fn give_up<D: Disk>(
    lost: &Lost,
    assembly: &Assembly,
    found: &mut [Found],
    disks: &mut [Option<D>],
    force: bool,
) -> Result<(), RecoveryError> {
    let (slot, parity) = (lost.slot, lost.parity);
    match note(lost, assembly, found, disks) {
        Ok(()) => Ok(()),
        Err(AreaError::BadBlocks(_)) if force => Ok(()),
        Err(AreaError::BadBlocks(error)) => Err(RecoveryError::Lost {
            slot,
            parity,
            error,
        }),
        Err(error) => Err(RecoveryError::Area {
            slot: parity,
            error,
        }),
    }
}

/// Empties the logs. What a clean array has left in them is in the way, too: new headers might lead to
/// old ones behind them.
fn empty<D: Disk>(
    assembly: &Assembly,
    found: &[Found],
    disks: &mut [Option<D>],
) -> Result<(), RecoveryError> {
    Ok(empty_logs(&mut logs(disks, &parts(assembly, found)))?)
}

/// Whether parity is right after a replay. Where all members are there it is made anew otherwise, as
/// in the kernel. Where one is missing there is nothing to make it of, and nothing of it is in doubt
/// unless a log is.
fn is_clean(assembly: &Assembly, replay: &Replay) -> bool {
    let trusted = is_precaution(assembly, replay);
    trusted && (assembly.degraded.is_some() || replay.proves_clean(assembly.resync_offset))
}

/// Whether nothing says that parity is wrong, so that it is made anew as a precaution only. An entry that is
/// not whole was being written when the array stopped, and its data were not begun; so was a header that is
/// not whole, and no other was needed. Members that were taken by force may differ anywhere.
fn is_precaution(assembly: &Assembly, replay: &Replay) -> bool {
    let forced = assembly.slots.iter().flatten().any(|seat| seat.forced);
    !forced && assembly.resync_offset == 0 && replay.mismatches.iter().all(is_torn)
}

/// Whether an entry or a header was being written, as it seems.
fn is_torn(mismatch: &Mismatch) -> bool {
    matches!(
        mismatch,
        Mismatch::Checksum { .. } | Mismatch::NoHeader { .. }
    )
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

fn logs<'a, D: Disk>(disks: &'a mut [Option<D>], parts: &'a [Part]) -> Vec<Option<LogMember<'a>>> {
    let both = disks.iter_mut().zip(parts);
    let log = |(disk, part): (&'a mut Option<D>, &'a Part)| {
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
fn note<D: Disk>(
    lost: &Lost,
    assembly: &Assembly,
    found: &mut [Found],
    disks: &mut [Option<D>],
) -> Result<(), AreaError> {
    let slot = lost.parity;
    let (Some(seat), Some(disk)) = (&assembly.slots[slot], &mut disks[slot]) else {
        return Ok(());
    };
    let member = &mut found[seat.found].member;
    let start = member.superblock.data_offset;
    let bad = member.bad_blocks.as_mut().map_err(|error| error.clone())?;
    bad.insert(start + lost.sectors.start..start + lost.sectors.end)?;
    member.superblock.features.set(Features::BAD_BLOCKS, true);
    write_bad_blocks(disk, &member.superblock, bad)?;
    write_superblock(disk, &member.superblock)?;
    Ok(())
}

/// Has the members' bitmaps say what has to be believed, before anybody relies on them.
fn settle_bitmaps<D: Disk>(
    assembly: &Assembly,
    found: &[Found],
    disks: &mut [Option<D>],
) -> Result<(), RecoveryError> {
    let Some((header, bits)) = &assembly.bitmap else {
        return Ok(());
    };
    for (slot, (seat, disk)) in assembly.slots.iter().zip(disks).enumerate() {
        let (Some(seat), Some(disk)) = (seat, disk) else {
            continue;
        };
        let member = &found[seat.found].member;
        let is_right = |b: &StoredBitmap| b.header == *header && b.bits == *bits;
        if matches!(&member.bitmap, Some(Ok(stored)) if is_right(stored)) {
            continue;
        }
        let written = write_bitmap(disk, &member.superblock, header, bits);
        written.map_err(|error| RecoveryError::Area { slot, error })?;
    }
    Ok(())
}
