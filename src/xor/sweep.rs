//! The pass over the blocks that all vector kernels share, written once for any register.
//!
//! Each step takes a stretch of [`HELD`] lanes: it reads that stretch of every source into registers, XORing on the way,
//! then stores or tests the registers. What is left below a stretch goes lane by lane, and below a lane byte by byte. More
//! sources than [`ABREAST`] are walked some at a time, a [`TILE`] of each.
//!
//! Everything here is `#[inline(always)]`, so that it is compiled inside the kernels' `#[target_feature]` functions, where
//! a lane is a plain register. Loops over lanes are plain ones: a step of an iterator is a function of its own, and one that the
//! compiler does not inline here takes several times as long as the lane.

use super::zigzag;

/// Lanes held in registers while the sources are walked: enough that walking costs little, and few enough that the loads of
/// several sources are under way at once (eight measured slower than four from nine sources on).
const HELD: usize = 4;

/// Sources that are walked abreast. Where blocks lie at a multiple of 4 KiB from one another, a stretch of each falls into
/// the same sets of the nearest cache, which have eight or twelve places. It is faster where blocks come from memory, too.
pub(super) const ABREAST: usize = 8;

/// Bytes of each source that are added up to those of the others before the next such bytes: the sum stays in the nearest
/// cache.
pub(super) const TILE: usize = 2048;

/// Bytes of a cache line; where it is more, a few hints are given twice.
const CACHE_LINE: usize = 64;

/// A vector register, or a few that are treated as one.
///
/// # Safety
///
/// An implementation touches exactly `BYTES` bytes of memory in `load` and `store`.
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

    /// Asks for the cache line at `at` to be fetched for writing. A hint that may do nothing.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions.
    unsafe fn expect_store(at: *const u8);

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

/// What becomes of the destination.
pub(super) trait Rule<L: Lane> {
    /// Whether what the destination held takes part in the XOR.
    const TAKES_PART: bool;

    /// From so many bytes on, more sources than [`ABREAST`] are walked some at a time. Below that it does not pay where
    /// all is in the near caches.
    const TILED_FROM: usize;

    /// From so many bytes on, [`zigzag::SOURCES`] to [`ABREAST`] sources are taken in zigzag. Fewer bytes are in the nearest cache.
    const ZIGZAG_FROM: usize;

    /// Told of each cache line of the destination before the sources are read for it.
    ///
    /// # Safety
    ///
    /// The CPU has the lane's instructions.
    unsafe fn expect(line: *const u8);

    /// Writes one lane of the result.
    ///
    /// # Safety
    ///
    /// That of [`Lane::store`], and whatever more the rule says.
    unsafe fn store(lane: L, to: *mut u8);
}

/// The destination becomes the XOR of the sources.
pub(super) struct Replace;

impl<L: Lane> Rule<L> for Replace {
    const TAKES_PART: bool = false;
    const TILED_FROM: usize = 4 * TILE;
    const ZIGZAG_FROM: usize = 16 << 10;

    // A destination that is in no near cache then comes in along with the sources, instead of after them when the stores
    // are already waiting for it: a tenth faster from L2 and from memory, a fifth slower where all was in L1.
    #[inline(always)]
    unsafe fn expect(line: *const u8) {
        // SAFETY: the caller's promise.
        unsafe { L::expect_store(line) }
    }

    #[inline(always)]
    unsafe fn store(lane: L, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { lane.store(to) }
    }
}

/// The destination becomes the XOR of the sources and itself.
pub(super) struct Assign;

impl<L: Lane> Rule<L> for Assign {
    const TAKES_PART: bool = true;
    const TILED_FROM: usize = 4 * TILE;
    const ZIGZAG_FROM: usize = 16 << 10;

    #[inline(always)]
    unsafe fn expect(_line: *const u8) {}

    #[inline(always)]
    unsafe fn store(lane: L, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { lane.store(to) }
    }
}

/// Writes to `dst` the XOR that the rule says.
///
/// # Safety
///
/// The CPU has the lane's instructions; there is at least one source; every source is as long as `dst`; what the rule's
/// store asks holds for `dst`.
#[inline(always)]
pub(super) unsafe fn write<L: Lane, R: Rule<L>>(dst: &mut [u8], sources: &[&[u8]]) {
    let len = dst.len();
    let to = dst.as_mut_ptr();
    // SAFETY: the caller's promise, and the number of sources is as matched; for the single lanes, the loop's condition
    // leaves room for one in `dst`, hence in all sources.
    let at = unsafe {
        let mut at = match sources.len() {
            zigzag::SOURCES..=ABREAST if len >= R::ZIGZAG_FROM => {
                zigzag::write::<L, R>(to, sources, len)
            }
            ..=ABREAST => write_abreast::<L, R>(to, sources, len),
            _ if len >= R::TILED_FROM => write_tiles::<L, R>(to, sources, len),
            _ => write_stretches::<L, R>(to, sources, len),
        };
        while len - at >= L::BYTES {
            write_lanes::<L, R, 1>(to, sources, at);
            at += L::BYTES;
        }
        at
    };
    for (i, byte) in dst.iter_mut().enumerate().skip(at) {
        *byte = xor_of_byte(sources, i) ^ if R::TAKES_PART { *byte } else { 0 };
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
        if unsafe { !lanes_cancel::<L, HELD>(sources, at) } {
            return false;
        }
        at += HELD * L::BYTES;
    }
    while len - at >= L::BYTES {
        // SAFETY: as above, for one lane.
        if unsafe { !lanes_cancel::<L, 1>(sources, at) } {
            return false;
        }
        at += L::BYTES;
    }
    (at..len).all(|i| xor_of_byte(sources, i) == 0)
}

/// [`write_stretches`] for [`ABREAST`] sources at most.
///
/// # Safety
///
/// As for [`write_stretches`].
#[inline(always)]
unsafe fn write_abreast<L: Lane, R: Rule<L>>(to: *mut u8, sources: &[&[u8]], len: usize) -> usize {
    // SAFETY: the caller's promise, and the number of sources is as matched.
    unsafe {
        match sources.len() {
            1 => write_stretches_of::<L, R, 1>(to, sources, len),
            2 => write_stretches_of::<L, R, 2>(to, sources, len),
            3 => write_stretches_of::<L, R, 3>(to, sources, len),
            4 => write_stretches_of::<L, R, 4>(to, sources, len),
            5 => write_stretches_of::<L, R, 5>(to, sources, len),
            6 => write_stretches_of::<L, R, 6>(to, sources, len),
            7 => write_stretches_of::<L, R, 7>(to, sources, len),
            _ => write_stretches_of::<L, R, 8>(to, sources, len),
        }
    }
}

/// [`write_stretches`] for a number of sources that the compiler knows, so that it keeps their addresses in registers and
/// unrolls the walk over them.
///
/// # Safety
///
/// As for [`write_stretches`]; there are `COUNT` sources.
#[inline(always)]
unsafe fn write_stretches_of<L: Lane, R: Rule<L>, const COUNT: usize>(
    to: *mut u8,
    sources: &[&[u8]],
    len: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let sources: [&[u8]; COUNT] = *sources.first_chunk().unwrap_unchecked();
        write_stretches::<L, R>(to, &sources, len)
    }
}

/// What the sources of a tile add up to so far; no lane of it is on two cache lines.
#[repr(align(64))]
struct Sum([u8; TILE]);

/// Writes all whole tiles and says where the rest begins.
///
/// # Safety
///
/// As for [`write_stretches`]; there are more than [`ABREAST`] sources.
#[inline(always)]
unsafe fn write_tiles<L: Lane, R: Rule<L>>(to: *mut u8, sources: &[&[u8]], len: usize) -> usize {
    let mut sum = Sum([0; TILE]);
    let (first, rest) = sources.split_at(ABREAST);
    // The last ones leave a place for the sum of all before them.
    let (middle, last) = rest.split_at((rest.len() - 1) / (ABREAST - 1) * (ABREAST - 1));
    let mut at = 0;
    while len - at >= TILE {
        // SAFETY: the caller's promise for `to` and the sources, of which a tile is left; the sum is as long as that.
        unsafe {
            let sum_at = sum.0.as_mut_ptr();
            write_abreast::<L, Replace>(sum_at, &tile(first, at, &[]), TILE);
            for group in middle.chunks_exact(ABREAST - 1) {
                let sources = &tile(group, at, &[])[..ABREAST - 1];
                write_abreast::<L, Assign>(sum_at, sources, TILE);
            }
            let sources = &tile(last, at, &sum.0)[..=last.len()];
            write_abreast::<L, R>(to.add(at), sources, TILE);
        }
        at += TILE;
    }
    at
}

/// A tile of each of these sources, fewer than [`ABREAST`] or as many, and `behind` in the places that are left.
#[inline(always)]
fn tile<'a>(sources: &[&'a [u8]], at: usize, behind: &'a [u8]) -> [&'a [u8]; ABREAST] {
    let mut tile = [behind; ABREAST];
    let mut i = 0;
    while i < sources.len() {
        tile[i] = &sources[i][at..at + TILE];
        i += 1;
    }
    tile
}

/// Writes all whole stretches and says where the rest begins.
///
/// # Safety
///
/// As for [`write()`], with `len` bytes from `to` as the destination.
#[inline(always)]
unsafe fn write_stretches<L: Lane, R: Rule<L>>(
    to: *mut u8,
    sources: &[&[u8]],
    len: usize,
) -> usize {
    let mut at = 0;
    while len - at >= HELD * L::BYTES {
        // SAFETY: the loop's condition leaves room for a stretch in the destination, hence in all sources.
        unsafe { write_lanes::<L, R, HELD>(to, sources, at) };
        at += HELD * L::BYTES;
    }
    at
}

/// Writes `N` lanes.
///
/// # Safety
///
/// As for [`write_stretches`]; `N` lanes from `at` are inside the blocks.
#[inline(always)]
unsafe fn write_lanes<L: Lane, R: Rule<L>, const N: usize>(
    to: *mut u8,
    sources: &[&[u8]],
    at: usize,
) {
    // SAFETY: the caller's promise covers every access. A lane of the destination is read before it is written.
    unsafe {
        let to = to.add(at);
        let (held, rest) = begin::<L, R, N>(to, sources, at);
        store::<L, R, N>(gather::<L, N>(held, rest, at), to);
    }
}

/// Tells the rule of the lines of `N` lanes at `to`; gives what is held of them at first, and the sources that are to be
/// added up with it.
///
/// # Safety
///
/// As for [`write_lanes`], where `to` is that of these lanes already.
#[inline(always)]
pub(super) unsafe fn begin<'a, 'b, L: Lane, R: Rule<L>, const N: usize>(
    to: *mut u8,
    sources: &'b [&'a [u8]],
    at: usize,
) -> ([L; N], &'b [&'a [u8]]) {
    // SAFETY: the caller's promise covers every access.
    unsafe {
        for line in (0..N * L::BYTES).step_by(CACHE_LINE) {
            R::expect(to.add(line));
        }
        if R::TAKES_PART {
            (load::<L, N>(to), sources)
        } else {
            let (first, rest) = sources.split_first().unwrap_unchecked();
            (load::<L, N>(first.as_ptr().add(at)), rest)
        }
    }
}

/// Writes `N` lanes to memory.
///
/// # Safety
///
/// As for [`Rule::store`], for `N` lanes.
#[inline(always)]
pub(super) unsafe fn store<L: Lane, R: Rule<L>, const N: usize>(held: [L; N], to: *mut u8) {
    let mut i = 0;
    while i < N {
        // SAFETY: the caller's promise.
        unsafe { R::store(held[i], to.add(i * L::BYTES)) };
        i += 1;
    }
}

/// Whether the XOR of `N` lanes of all sources is zero.
///
/// # Safety
///
/// As for [`gather_all`].
#[inline(always)]
unsafe fn lanes_cancel<L: Lane, const N: usize>(sources: &[&[u8]], at: usize) -> bool {
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

/// The XOR of `N` lanes of all sources.
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

/// `held` with `N` lanes of all sources XORed in.
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
        held = unsafe { add::<L, N>(held, source.as_ptr().add(at)) };
    }
    held
}

/// `held` with `N` lanes from memory XORed in.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
pub(super) unsafe fn add<L: Lane, const N: usize>(mut held: [L; N], from: *const u8) -> [L; N] {
    let mut i = 0;
    while i < N {
        // SAFETY: the caller's promise.
        held[i] = unsafe { held[i].xor(L::load(from.add(i * L::BYTES))) };
        i += 1;
    }
    held
}

/// `N` lanes from memory.
///
/// # Safety
///
/// The CPU has the lane's instructions; `N` lanes from `from` can be read.
#[inline(always)]
unsafe fn load<L: Lane, const N: usize>(from: *const u8) -> [L; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut held = [L::load(from); N];
        let mut i = 1;
        while i < N {
            held[i] = L::load(from.add(i * L::BYTES));
            i += 1;
        }
        held
    }
}

/// The XOR of the sources' bytes at `i`.
#[inline(always)]
fn xor_of_byte(sources: &[&[u8]], i: usize) -> u8 {
    sources.iter().fold(0, |byte, source| byte ^ source[i])
}
