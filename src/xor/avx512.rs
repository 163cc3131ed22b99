//! The kernel for x86-64 with AVX-512: 64-byte lanes.

use std::arch::x86_64::*;

use super::sweep::{self, Assign, Lane, Replace, Rule, TILE};

/// One 512-bit register.
#[derive(Clone, Copy)]
struct Zmm(__m512i);

// SAFETY: both instructions move 64 bytes.
unsafe impl Lane for Zmm {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's promise; the instruction needs no alignment.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's promise; the instruction needs no alignment.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn expect_store(at: *const u8) {
        // SAFETY: the caller's promise; a prefetch may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { _mm512_test_epi64_mask(self.0, self.0) == 0 }
    }
}

/// The destination becomes the XOR of the sources and is written around the caches: it must be aligned to a lane, and needs
/// a fence before anything else touches it.
struct ReplaceUncached;

impl Rule<Zmm> for ReplaceUncached {
    const TAKES_PART: bool = false;
    // What is written around the caches is hardly read from them.
    const TILED_FROM: usize = TILE;
    // Sources that come from memory are fetched ahead better with instructions of their own.
    const ZIGZAG_FROM: usize = usize::MAX;

    #[inline(always)]
    unsafe fn expect(_line: *const u8) {}

    #[inline(always)]
    unsafe fn store(lane: Zmm, to: *mut u8) {
        // SAFETY: the caller's promise, the alignment included.
        unsafe { _mm512_stream_si512(to.cast(), lane.0) }
    }
}

/// Sets `dst` to the XOR of all sources.
///
/// # Safety
///
/// The CPU has AVX512F; there is at least one source; every source is as long as `dst`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn xor_into(dst: &mut [u8], sources: &[&[u8]]) {
    // SAFETY: the caller's promise.
    unsafe { sweep::write::<Zmm, Replace>(dst, sources) }
}

/// As [`xor_into`], around the caches if `dst` is aligned to a lane.
///
/// # Safety
///
/// As for [`xor_into`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn xor_into_uncached(dst: &mut [u8], sources: &[&[u8]]) {
    // SAFETY: the caller's promise; the stores get the alignment that they need, and the fence ends them before `dst` can be
    // used by anyone.
    unsafe {
        if dst.as_ptr().addr().is_multiple_of(Zmm::BYTES) {
            sweep::write::<Zmm, ReplaceUncached>(dst, sources);
            _mm_sfence();
        } else {
            xor_into(dst, sources);
        }
    }
}

/// Fills `dst` with the pieces, around the caches where it is aligned to a lane.
///
/// # Safety
///
/// As for [`xor_into`], but that the pieces together are as long as `dst`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn fill_uncached(dst: &mut [u8], pieces: &[&[u8]]) {
    let mut rest = dst;
    for piece in pieces {
        let (now, later) = rest.split_at_mut(piece.len());
        rest = later;
        if now.as_ptr().addr().is_multiple_of(Zmm::BYTES) {
            // SAFETY: the caller's promise; one source, as long as what it is written to, which is aligned.
            unsafe { sweep::write::<Zmm, ReplaceUncached>(now, &[piece]) };
        } else {
            now.copy_from_slice(piece);
        }
    }
    // Once for all: it ends the stores before `dst` can be used by anyone, and waits for all of them.
    _mm_sfence();
}

/// XORs all sources into `dst`.
///
/// # Safety
///
/// As for [`xor_into`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn xor_assign(dst: &mut [u8], sources: &[&[u8]]) {
    // SAFETY: the caller's promise.
    unsafe { sweep::write::<Zmm, Assign>(dst, sources) }
}

/// Whether the XOR of all sources is zero everywhere.
///
/// # Safety
///
/// The CPU has AVX512F; there is at least one source; all sources have one length.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn equal_xor(sources: &[&[u8]]) -> bool {
    // SAFETY: the caller's promise.
    unsafe { sweep::cancels::<Zmm>(sources) }
}
