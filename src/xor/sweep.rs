//! The pass over the blocks that all vector kernels share, written once for any register.
//!
//! Each step takes a stretch of [`HELD`] lanes: it reads that stretch from every source into registers and XORs on the
//! way, then stores or tests the registers. What is left below a stretch goes lane by lane, and below a lane byte by byte.
//!
//! Everything here is `#[inline(always)]`, so that it is compiled inside the kernel's `#[target_feature]` functions and its
//! lanes become plain registers.

/// Lanes held in registers across the sources. With fewer, the cost of walking the list of sources shows; AVX2 has sixteen
/// registers in all.
const HELD: usize = 8;

/// A vector register (or a few that are treated as one).
///
/// # Safety
///
/// `load` and `store` touch exactly `BYTES` bytes, at any alignment.
pub(super) unsafe trait Lane: Copy {
    /// Bytes in a lane.
    const BYTES: usize;

    /// Reads a lane from memory.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions, and `BYTES` bytes from `from` can be read.
    unsafe fn load(from: *const u8) -> Self;

    /// Writes the lane to memory.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions, and `BYTES` bytes from `to` can be written.
    unsafe fn store(self, to: *mut u8);

    /// Bitwise exclusive or.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions.
    unsafe fn xor(self, other: Self) -> Self;

    /// Bitwise or.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions.
    unsafe fn or(self, other: Self) -> Self;

    /// Whether all bits are zero.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions.
    unsafe fn is_zero(self) -> bool;
}

/// Writes to `dst` the XOR of all sources and, if `KEEP`, of what `dst` held.
///
/// # Safety
///
/// The CPU has the lane's instructions; there is at least one source; every source is as long as `dst`.
#[inline(always)]
pub(super) unsafe fn write<L: Lane, const KEEP: bool>(dst: &mut [u8], sources: &[&[u8]]) {
    let len = dst.len();
    let to = dst.as_mut_ptr();
    let mut at = 0;
    while len - at >= HELD * L::BYTES {
        // SAFETY: the loop's condition leaves room for a stretch in `dst`, hence in all sources.
        unsafe { write_stretch::<L, HELD, KEEP>(to, sources, at) };
        at += HELD * L::BYTES;
    }
    while len - at >= L::BYTES {
        // SAFETY: as above, for one lane.
        unsafe { write_stretch::<L, 1, KEEP>(to, sources, at) };
        at += L::BYTES;
    }
    for (i, byte) in dst.iter_mut().enumerate().skip(at) {
        *byte = xor_of_byte(sources, i) ^ if KEEP { *byte } else { 0 };
    }
}

/// Whether the XOR of all sources is zero everywhere.
///
/// # Safety
///
/// The CPU has the lane's instructions; there is at least one source; all sources have one length.
#[inline(always)]
pub(super) unsafe fn cancels<L: Lane>(sources: &[&[u8]]) -> bool {
    let len = sources[0].len();
    let mut at = 0;
    while len - at >= HELD * L::BYTES {
        // SAFETY: the loop's condition leaves room for a stretch in all sources.
        if unsafe { !stretch_cancels::<L, HELD>(sources, at) } {
            return false;
        }
        at += HELD * L::BYTES;
    }
    while len - at >= L::BYTES {
        // SAFETY: as above, for one lane.
        if unsafe { !stretch_cancels::<L, 1>(sources, at) } {
            return false;
        }
        at += L::BYTES;
    }
    (at..len).all(|i| xor_of_byte(sources, i) == 0)
}

/// # Safety
///
/// As for [`write`]; `N` lanes from `at` are inside the blocks.
#[inline(always)]
unsafe fn write_stretch<L: Lane, const N: usize, const KEEP: bool>(
    to: *mut u8,
    sources: &[&[u8]],
    at: usize,
) {
    // SAFETY: the caller's promise covers every access: `at` plus `N` lanes is inside each block. Nothing in `dst` is
    // written before it was read.
    unsafe {
        let to = to.add(at);
        let held = if KEEP {
            gather::<L, N>(load::<L, N>(to), sources, at)
        } else {
            gather_all::<L, N>(sources, at)
        };
        for (i, lane) in held.into_iter().enumerate() {
            lane.store(to.add(i * L::BYTES));
        }
    }
}

/// # Safety
///
/// As for [`cancels`]; `N` lanes from `at` are inside the blocks.
#[inline(always)]
unsafe fn stretch_cancels<L: Lane, const N: usize>(sources: &[&[u8]], at: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let held = gather_all::<L, N>(sources, at);
        let mut any = held[0];
        for lane in &held[1..] {
            any = any.or(*lane);
        }
        any.is_zero()
    }
}

/// The XOR of a stretch of all sources.
///
/// # Safety
///
/// The CPU has the lane's instructions; there is a source; `N` lanes from `at` are inside every source.
#[inline(always)]
unsafe fn gather_all<L: Lane, const N: usize>(sources: &[&[u8]], at: usize) -> [L; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, rest) = sources.split_first().unwrap_unchecked();
        gather::<L, N>(load::<L, N>(first.as_ptr().add(at)), rest, at)
    }
}

/// `held` with a stretch of all sources XORed in.
///
/// # Safety
///
/// The CPU has the lane's instructions; `N` lanes from `at` are inside every source.
#[inline(always)]
unsafe fn gather<L: Lane, const N: usize>(
    mut held: [L; N],
    sources: &[&[u8]],
    at: usize,
) -> [L; N] {
    for source in sources {
        // SAFETY: the caller's promise.
        unsafe {
            let from = source.as_ptr().add(at);
            for (i, lane) in held.iter_mut().enumerate() {
                *lane = lane.xor(L::load(from.add(i * L::BYTES)));
            }
        }
    }
    held
}

/// # Safety
///
/// The CPU has the lane's instructions; `N` lanes from `from` can be read.
#[inline(always)]
unsafe fn load<L: Lane, const N: usize>(from: *const u8) -> [L; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut held = [L::load(from); N];
        for (i, lane) in held.iter_mut().enumerate().skip(1) {
            *lane = L::load(from.add(i * L::BYTES));
        }
        held
    }
}

/// The XOR of the sources' bytes at `i`.
#[inline(always)]
fn xor_of_byte(sources: &[&[u8]], i: usize) -> u8 {
    let mut byte = 0;
    for source in sources {
        byte ^= source[i];
    }
    byte
}
