//! The pass over five to eight blocks that come from the second cache: with the same few instructions for all of them.
//!
//! Cores fetch ahead by the steps between the addresses that an instruction has loaded from. Where each block has its own
//! instructions, as in [`sweep`], that disturbs five and more of them that come from the second cache. Where all share theirs and lie
//! at even distances, it is worse, for steps from block to block are taken for what goes on; so blocks are taken from both ends in
//! turn, where no two steps are alike. `docs/performance.md` has the figures.

use std::arch::asm;

use super::sweep::{self, ABREAST, Lane, Rule};

/// Lanes held in registers while the sources are walked.
const HELD: usize = 8;

/// The fewest sources for which it pays.
pub(super) const SOURCES: usize = 5;

/// Writes all whole stretches of [`HELD`] lanes and says where the rest begins.
///
/// # Safety
///
/// As for [`sweep::write`], with `len` bytes from `to` as the destination; there are [`ABREAST`] sources at most.
#[inline(always)]
pub(super) unsafe fn write<L: Lane, R: Rule<L>>(
    to: *mut u8,
    sources: &[&[u8]],
    len: usize,
) -> usize {
    let mut zigzag: [&[u8]; ABREAST] = [&[]; ABREAST];
    let mut rest = sources;
    let mut count = 0;
    while let [first, middle @ ..] = rest {
        zigzag[count] = first;
        count += 1;
        rest = middle;
        if let [middle @ .., last] = rest {
            zigzag[count] = last;
            count += 1;
            rest = middle;
        }
    }
    let mut at = 0;
    while len - at >= HELD * L::BYTES {
        // SAFETY: the loop's condition leaves room for so many lanes in the destination, hence in all sources.
        unsafe { write_lanes::<L, R, HELD>(to, &zigzag[..count], at) };
        at += HELD * L::BYTES;
    }
    at
}

/// Writes `N` lanes, with one instruction for each, whichever source it is of.
///
/// # Safety
///
/// As for [`write()`]; `N` lanes from `at` are inside the blocks.
#[inline(always)]
unsafe fn write_lanes<L: Lane, R: Rule<L>, const N: usize>(
    to: *mut u8,
    sources: &[&[u8]],
    at: usize,
) {
    // SAFETY: the caller's promise covers every access. A lane of the destination is read before it is written.
    unsafe {
        let to = to.add(at);
        let (mut held, rest) = sweep::begin::<L, R, N>(to, sources, at);
        for source in rest {
            held = sweep::add::<L, N>(held, source.as_ptr().add(unknown(at)));
        }
        sweep::store::<L, R, N>(held, to);
    }
}

/// The same number, of which the compiler knows nothing: so it does not take steps of a loop together. Asked anew for each step
/// (not `pure`), or it would be asked once for all.
#[inline(always)]
fn unknown(mut at: usize) -> usize {
    // SAFETY: there is no instruction; the register keeps what it holds.
    unsafe { asm!("/* {0} */", inout(reg) at, options(nomem, nostack, preserves_flags)) };
    at
}
