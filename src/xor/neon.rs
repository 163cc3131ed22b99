//! The kernel for aarch64 with NEON: lanes of two 16-byte registers.

use std::arch::aarch64::*;

use super::sweep::{self, Assign, Lane, Replace};

/// Two 128-bit registers, neighbours in memory, so that one load-pair or store-pair instruction moves both.
#[derive(Clone, Copy)]
struct Pair(uint8x16_t, uint8x16_t);

// SAFETY: load and store move twice 16 bytes and need no alignment.
unsafe impl Lane for Pair {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller's promise; the instruction needs no alignment.
        unsafe { Self(vld1q_u8(from), vld1q_u8(from.add(16))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller's promise; the instruction needs no alignment.
        unsafe {
            vst1q_u8(to, self.0);
            vst1q_u8(to.add(16), self.1);
        }
    }

    // The instruction's intrinsic is not stable.
    #[inline(always)]
    unsafe fn expect_store(_at: *const u8) {}

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(veorq_u8(self.0, other.0), veorq_u8(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(vorrq_u8(self.0, other.0), vorrq_u8(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { vmaxvq_u8(vorrq_u8(self.0, self.1)) == 0 }
    }
}

/// Sets `dst` to the XOR of all sources.
///
/// # Safety
///
/// The CPU has NEON; there is at least one source; every source is as long as `dst`.
#[target_feature(enable = "neon")]
pub(super) unsafe fn xor_into(dst: &mut [u8], sources: &[&[u8]]) {
    // SAFETY: the caller's promise.
    unsafe { sweep::write::<Pair, Replace>(dst, sources) }
}

/// XORs all sources into `dst`.
///
/// # Safety
///
/// As for [`xor_into`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn xor_assign(dst: &mut [u8], sources: &[&[u8]]) {
    // SAFETY: the caller's promise.
    unsafe { sweep::write::<Pair, Assign>(dst, sources) }
}

/// Whether the XOR of all sources is zero everywhere.
///
/// # Safety
///
/// The CPU has NEON; there is at least one source; all sources have one length.
#[target_feature(enable = "neon")]
pub(super) unsafe fn equal_xor(sources: &[&[u8]]) -> bool {
    // SAFETY: the caller's promise.
    unsafe { sweep::cancels::<Pair>(sources) }
}
