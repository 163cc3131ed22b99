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
        Failure::Removed,
    ]);
    let quiet = random.one_in(2);
    let mut acts = vec![write(0, row + 1, false), Act::Drain, Act::Flush];
    acts.extend(quiet.then_some(Act::Quiet));
    acts.extend([
        write(0, 1, false),
        Act::Fail(slot, failure),
        write(0, 1, true),
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
