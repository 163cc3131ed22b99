//! What happens to an array in its life.

use crate::random::Random;
use crate::shape::Shape;

/// Something that happens, or is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The host sends a write of these blocks.
    Write { lba: u64, blocks: u32, fua: bool },
    /// The host sends zeros.
    Zero { lba: u64, blocks: u32, fua: bool },
    /// The host sends a flush.
    Flush,
    /// The host reads, and waits for all that it has sent.
    Read { lba: u64, blocks: u32 },
    /// As `Read`, after a crash and before a write: what is read is what the crash has left.
    Look { lba: u64, blocks: u32 },
    /// For so many steps.
    Wait(u32),
    /// Until every request of the host has ended.
    Drain,
    /// The member of a slot fails.
    Fail(usize, Failure),
    /// Until the array knows that a member is lost, or has blocks that it can't store.
    Noticed,
    /// The disk that failed comes back, if a slot is free.
    Return,
    /// Another disk is added, if a slot is free.
    Replace,
    /// Another disk is to take the place of the member of a slot, which works.
    Swap(usize),
    /// Parity is checked.
    Check,
    /// Until every member holds what it should.
    Healthy,
    /// Until nothing is left to be done.
    Rest,
    /// Until nothing is left to be done, and the disks say so.
    Quiet,
    /// Parity is taken for right as it is.
    Accept,
    /// The array is to be clean, as soon as can be.
    Close,
}

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does not answer any more.
    Gone,
    /// It can't be written any more.
    Worn,
    /// A part of its first row can't be written any more.
    Broken,
    /// Its cache can't be emptied any more.
    Stuck,
    /// It is removed by command.
    Removed,
}

/// A kind of short history.
pub type History = fn(&Shape, &mut Random) -> Vec<Act>;

/// A write of some blocks.
fn write(lba: u64, blocks: u64, fua: bool) -> Act {
    let blocks = blocks as u32;
    Act::Write { lba, blocks, fua }
}

/// Blocks of a row of the volume.
fn row_blocks(shape: &Shape) -> u64 {
    shape.geometry().row_bytes() / u64::from(shape.block)
}

/// Parts of rows and whole ones, forced and not, with a rest and an end in good order.
pub fn writes(shape: &Shape, _: &mut Random) -> Vec<Act> {
    let row = row_blocks(shape);
    vec![
        write(0, 1, false),
        write(row, row, true),
        Act::Drain,
        Act::Flush,
        write(0, 2, false),
        write(row - 1, 2, false),
        Act::Drain,
        write(0, 1, true),
        Act::Quiet,
        write(2 * row + 1, 1, false),
        Act::Drain,
        Act::Flush,
        Act::Drain,
        Act::Close,
    ]
}

/// A member is lost while the host writes; the host goes on.
pub fn loss(shape: &Shape, random: &mut Random) -> Vec<Act> {
    let row = row_blocks(shape);
    let slot = random.below(shape.members as u64) as usize;
    let failure = random.pick(&[
        Failure::Gone,
        Failure::Worn,
        Failure::Broken,
        Failure::Stuck,
        Failure::Removed,
    ]);
    let quiet = random.one_in(2);
    let mut acts = vec![write(0, row + 1, false), Act::Drain, Act::Flush];
    acts.extend(quiet.then_some(Act::Quiet));
    acts.extend([
        write(0, row, false),
        Act::Drain,
        Act::Fail(slot, failure),
        write(0, 1, true),
    ]);
    // Flushes meet the loss at every stage of its becoming known.
    acts.extend((0..8).flat_map(|_| [Act::Wait(4), Act::Flush]));
    acts.extend([
        write(row, row, true),
        Act::Drain,
        Act::Flush,
        write(1, 2 * row, false),
        Act::Noticed,
        Act::Drain,
        write(0, 1, true),
        Act::Flush,
        Act::Quiet,
        write(row - 1, 2, true),
        Act::Drain,
    ]);
    acts
}

/// As `loss`, and the disk comes back.
pub fn absence(shape: &Shape, random: &mut Random) -> Vec<Act> {
    let row = row_blocks(shape);
    let mut acts = loss(shape, random);
    acts.extend([
        Act::Return,
        write(0, 1, true),
        write(2 * row - 1, 2, false),
        Act::Healthy,
        write(row, 2, true),
        Act::Drain,
        Act::Quiet,
        write(0, 1, true),
        Act::Drain,
    ]);
    acts
}

/// As `loss`, and another disk takes the place of the one that is lost.
pub fn replacement(shape: &Shape, random: &mut Random) -> Vec<Act> {
    let row = row_blocks(shape);
    let mut acts = loss(shape, random);
    acts.extend([
        Act::Replace,
        write(2 * row, 2, false),
        write(0, row, true),
        Act::Drain,
        Act::Flush,
        Act::Healthy,
        write(0, 1, true),
        Act::Drain,
        Act::Close,
    ]);
    acts
}

/// A member that works is replaced by another.
pub fn swap(shape: &Shape, random: &mut Random) -> Vec<Act> {
    let row = row_blocks(shape);
    let slot = random.below(shape.members as u64) as usize;
    vec![
        write(0, row + 1, false),
        Act::Drain,
        Act::Quiet,
        write(0, 1, false),
        Act::Swap(slot),
        write(row, row, true),
        write(1, 1, false),
        Act::Drain,
        Act::Flush,
        Act::Rest,
        write(0, 2, true),
        Act::Drain,
        Act::Quiet,
        write(0, 1, true),
        Act::Drain,
    ]
}

/// Whatever may happen.
pub fn anything(shape: &Shape, random: &mut Random) -> Vec<Act> {
    let blocks = shape.sectors() * 512 / u64::from(shape.block);
    let row = row_blocks(shape);
    let member = |random: &mut Random| random.below(shape.members as u64) as usize;
    let many = 10 + random.below(60);
    let act = |_| {
        // Often in the same few rows, so that requests meet.
        let total = match random.one_in(2) {
            true => blocks,
            false => blocks.min(2 * row),
        };
        let most = random.pick(&[1, 1, 4, row, 2 * row]).min(total).min(256);
        let blocks = 1 + random.below(most);
        let lba = match random.one_in(3) {
            true => random.below(total / blocks) * blocks,
            false => random.below(total - blocks + 1),
        };
        let fua = random.one_in(3);
        match random.below(40) {
            0..=19 => write(lba, blocks, fua),
            20..=21 => Act::Zero {
                lba,
                blocks: blocks as u32,
                fua,
            },
            22..=25 => Act::Flush,
            26..=27 => Act::Drain,
            28..=29 => Act::Wait(random.below(20) as u32),
            30..=31 => Act::Read {
                lba,
                blocks: blocks as u32,
            },
            32 => {
                let failures = [
                    Failure::Gone,
                    Failure::Worn,
                    Failure::Broken,
                    Failure::Removed,
                ];
                Act::Fail(member(random), random.pick(&failures))
            }
            33..=34 => Act::Return,
            35 => Act::Replace,
            36 => Act::Swap(member(random)),
            37 => Act::Check,
            38 => Act::Rest,
            _ => random.pick(&[Act::Quiet, Act::Close]),
        }
    };
    (0..many).map(act).collect()
}
