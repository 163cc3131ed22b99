//! Cache lines that will be needed soon.

/// Asks the core to fetch the cache line of an address. Only a hint, whatever the address: it changes
/// nothing, waits for nothing and fails nowhere.
#[inline(always)]
pub(super) fn line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction is part of every x86-64, and faults for no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks the core to fetch all of `bytes`, which will be read soon: a hint, as for [`line`]. It pays for a few KiB of
/// memory that was not read lately, while other work is done: by itself a core fetches ahead up to the next
/// multiple of 4 KiB, and begins anew there.
pub fn fetch(bytes: &[u8]) {
    for at in bytes.chunks(64) {
        line(at.as_ptr());
    }
}
