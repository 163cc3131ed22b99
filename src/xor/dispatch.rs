//! Which kernels this CPU can run, and the one that the process uses.
//!
//! The only place that asks the CPU what it has. A [`Kernel`] can be reached in no other way, so holding one is the proof
//! that its instructions exist. The checks that make a call sound (lengths, at least one source) are made here too, once
//! for all kernels.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// One implementation of the parity operations, which this CPU is known to be able to run.
///
/// The functions of [`crate::xor`] use [`Kernel::active`]; the others are there to be tested and measured.
#[derive(Debug)]
pub struct Kernel {
    name: &'static str,
    write: Write,
    write_uncached: Write,
    fill_uncached: Fill,
    assign: Write,
    cancels: Check,
}

/// Writes to the first argument from the sources. Callers guarantee what [`Kernel`] promises: the CPU has the
/// instructions, there is at least one source, and all blocks have one length.
type Write = unsafe fn(&mut [u8], &[&[u8]]);

/// Fills the first argument with the others, one after another, which together are as long. The CPU has the
/// instructions.
type Fill = unsafe fn(&mut [u8], &[&[u8]]);

/// Reads the sources only. The same guarantees as for [`Write`].
type Check = unsafe fn(&[&[u8]]) -> bool;

#[cfg(target_arch = "x86_64")]
static AVX512: Kernel = Kernel {
    name: "avx512",
    write: avx512::xor_into,
    write_uncached: avx512::xor_into_uncached,
    fill_uncached: avx512::fill_uncached,
    assign: avx512::xor_assign,
    cancels: avx512::equal_xor,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Kernel = Kernel {
    name: "avx2",
    write: avx2::xor_into,
    write_uncached: avx2::xor_into_uncached,
    fill_uncached: avx2::fill_uncached,
    assign: avx2::xor_assign,
    cancels: avx2::equal_xor,
};

#[cfg(target_arch = "aarch64")]
static NEON: Kernel = Kernel {
    name: "neon",
    write: neon::xor_into,
    // Its non-temporal store is only a hint, and has no intrinsic.
    write_uncached: neon::xor_into,
    fill_uncached: portable::fill,
    assign: neon::xor_assign,
    cancels: neon::equal_xor,
};

static PORTABLE: Kernel = Kernel {
    name: "portable",
    write: portable::xor_into,
    write_uncached: portable::xor_into,
    fill_uncached: portable::fill,
    assign: portable::xor_assign,
    cancels: portable::equal_xor,
};

impl Kernel {
    /// The kernel that the whole process uses: the best available one, chosen on the first call.
    pub fn active() -> &'static Kernel {
        static ACTIVE: OnceLock<&'static Kernel> = OnceLock::new();
        ACTIVE.get_or_init(|| Self::available().next().unwrap_or(&PORTABLE))
    }

    /// Every kernel that this CPU can run, the best first; `portable` is always there and last.
    #[cfg(target_arch = "x86_64")]
    pub fn available() -> impl Iterator<Item = &'static Kernel> {
        // The kernel needs AVX512F alone. VBMI2 came with the generation (Ice Lake, Zen 4) that no longer lowers its clock
        // much for 512-bit instructions; before that they would slow everything else on the core.
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vbmi2");
        let avx2 = is_x86_feature_detected!("avx2");
        [
            avx512.then_some(&AVX512),
            avx2.then_some(&AVX2),
            Some(&PORTABLE),
        ]
        .into_iter()
        .flatten()
    }

    /// Every kernel that this CPU can run, the best first; `portable` is always there and last.
    #[cfg(target_arch = "aarch64")]
    pub fn available() -> impl Iterator<Item = &'static Kernel> {
        let neon = std::arch::is_aarch64_feature_detected!("neon");
        [neon.then_some(&NEON), Some(&PORTABLE)]
            .into_iter()
            .flatten()
    }

    /// Every kernel that this CPU can run, the best first; `portable` is always there and last.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn available() -> impl Iterator<Item = &'static Kernel> {
        std::iter::once(&PORTABLE)
    }

    /// The kernel's name: `avx512`, `avx2`, `neon` or `portable`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// See [`crate::xor::xor_into`].
    pub fn xor_into(&self, dst: &mut [u8], sources: &[&[u8]]) {
        assert_one_length(dst.len(), sources);
        // SAFETY: a kernel is only handed out where the CPU has its instructions; the lengths were just checked.
        unsafe { (self.write)(dst, sources) }
    }

    /// See [`crate::xor::xor_into_uncached`].
    pub fn xor_into_uncached(&self, dst: &mut [u8], sources: &[&[u8]]) {
        assert_one_length(dst.len(), sources);
        // SAFETY: as in `xor_into`.
        unsafe { (self.write_uncached)(dst, sources) }
    }

    /// See [`crate::xor::fill_uncached`].
    pub fn fill_uncached(&self, dst: &mut [u8], pieces: &[&[u8]]) {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(len, dst.len(), "bytes of pieces, and of what they fill");
        // SAFETY: a kernel is only handed out where the CPU has its instructions; the lengths were just checked.
        unsafe { (self.fill_uncached)(dst, pieces) }
    }

    /// See [`crate::xor::xor_assign`].
    pub fn xor_assign(&self, dst: &mut [u8], sources: &[&[u8]]) {
        assert_one_length(dst.len(), sources);
        // SAFETY: as in `xor_into`.
        unsafe { (self.assign)(dst, sources) }
    }

    /// See [`crate::xor::is_zero`].
    pub fn is_zero(&self, block: &[u8]) -> bool {
        self.equal_xor(&[block])
    }

    /// See [`crate::xor::equal_xor`].
    pub fn equal_xor(&self, sources: &[&[u8]]) -> bool {
        assert_one_length(sources.first().map_or(0, |source| source.len()), sources);
        // SAFETY: as in `xor_into`.
        unsafe { (self.cancels)(sources) }
    }
}

/// The kernels read every source up to `len` without looking at its own length: this is what makes that sound.
fn assert_one_length(len: usize, sources: &[&[u8]]) {
    assert!(!sources.is_empty(), "xor needs at least one source");
    for (i, source) in sources.iter().enumerate() {
        assert_eq!(
            source.len(),
            len,
            "xor source {i} differs in length from the other blocks"
        );
    }
}
