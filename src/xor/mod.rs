//! Parity arithmetic of RAID5: the exclusive or of byte blocks, as fast as the machine moves them.
//!
//! RAID5 parity is the XOR of a stripe's data blocks, so this one operation computes parity, rebuilds a lost block and
//! checks a stripe. Every function here makes a single pass: the running XOR of a stretch stays in registers while each
//! source is read once, and the destination is written once (or never, for the checks).
//!
//! This module owns the kernels and the choice between them, which is made once per process from what the CPU has.
//! It never allocates, keeps no state besides that choice, and knows nothing of stripes, chunks or members.
//!
//! Blocks may have any length and any alignment. All blocks of a call must have one length: a mismatch is a bug of the
//! caller and panics. 512-byte multiples, such as stripes are made of, run entirely in vector registers.

mod dispatch;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod sweep;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod zigzag;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(test)]
mod tests;

pub use dispatch::Kernel;

/// Sets `dst` to the XOR of all `sources`.
///
/// This is parity from a whole stripe (`sources` are the data blocks) or a lost block (`sources` are the surviving data
/// blocks and the parity). One source is a copy. What `dst` held before does not matter.
///
/// # Panics
///
/// If there is no source, or a source differs in length from `dst`.
///
/// # Example
///
/// ```
/// let mut parity = [0; 4];
/// stripewise::xor::xor_into(&mut parity, &[&[1, 2, 3, 4], &[4, 4, 4, 4]]);
/// assert_eq!(parity, [5, 6, 7, 0]);
/// ```
pub fn xor_into(dst: &mut [u8], sources: &[&[u8]]) {
    Kernel::active().xor_into(dst, sources);
}

/// As [`xor_into`], but `dst` is written around the CPU's caches where the kernel can (x86-64, `dst` aligned to 64 bytes).
///
/// It pays when nobody on this CPU reads `dst` soon and it isn't in a near cache: memory then need not be read before it is
/// written. Rebuilt blocks on their way to a device are such a case. It costs dearly when `dst` is in L1 or L2, or is read
/// next. `perf/parity` measures both.
///
/// # Panics
///
/// As [`xor_into`].
pub fn xor_into_uncached(dst: &mut [u8], sources: &[&[u8]]) {
    Kernel::active().xor_into_uncached(dst, sources);
}

/// Fills `dst` with `pieces`, one after another, around the CPU's caches where the kernel can (x86-64, pieces that begin
/// at a multiple of 64 bytes): a copy that pays where [`xor_into_uncached`] does. The CPU waits once for all pieces.
///
/// # Panics
///
/// If the pieces together are not as long as `dst`.
///
/// ```
/// let mut block = [0; 5];
/// stripewise::xor::fill_uncached(&mut block, &[&[1, 2], &[], &[3, 4, 5]]);
/// assert_eq!(block, [1, 2, 3, 4, 5]);
/// ```
pub fn fill_uncached(dst: &mut [u8], pieces: &[&[u8]]) {
    Kernel::active().fill_uncached(dst, pieces);
}

/// XORs all `sources` into `dst`, which takes part itself.
///
/// This is the parity update of a read-modify-write: with the old and the new data as sources, parity that held the old
/// data then holds the new.
///
/// # Panics
///
/// If there is no source, or a source differs in length from `dst`.
pub fn xor_assign(dst: &mut [u8], sources: &[&[u8]]) {
    Kernel::active().xor_assign(dst, sources);
}

/// Whether every byte of `block` is zero. An empty block is.
pub fn is_zero(block: &[u8]) -> bool {
    Kernel::active().is_zero(block)
}

/// Whether the XOR of all `sources` is zero everywhere, without writing it anywhere.
///
/// For the data blocks and the parity of one stripe this says whether the stripe is consistent. It stops at the first
/// stretch that is not.
///
/// # Panics
///
/// If there is no source, or the sources differ in length.
pub fn equal_xor(sources: &[&[u8]]) -> bool {
    Kernel::active().equal_xor(sources)
}

/// The name of the kernel that this process uses: `avx512`, `avx2`, `neon` or `portable`.
pub fn kernel_name() -> &'static str {
    Kernel::active().name()
}
