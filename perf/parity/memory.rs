//! The blocks that are measured on, out of one large buffer on huge pages, as the target's own buffers are.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// A 2 MiB page, the alignment of the whole.
const HUGE_PAGE: usize = 2 << 20;

/// Memory that is handed out as blocks: the same ones again and again, or ever new ones.
pub struct Memory {
    base: *mut u8,
    layout: Layout,
    drawn: usize,
}

impl Memory {
    /// `bytes` of memory, a power of two, filled with something other than zeroes.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes.is_power_of_two() && bytes >= HUGE_PAGE);
        let layout = Layout::from_size_align(bytes, HUGE_PAGE).expect("a power of two");
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        // Without huge pages the numbers are those of the TLB; refusal is no reason to stop.
        // SAFETY: the range is the allocation; the advice doesn't change what it holds.
        let _ =
            unsafe { rustix::mm::madvise(base.cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
        // SAFETY: the allocation just made, initialised with zeroes, that nothing else refers to.
        let all = unsafe { std::slice::from_raw_parts_mut(base, bytes) };
        for (i, word) in all.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *word = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        }
        Self {
            base,
            layout,
            drawn: 0,
        }
    }

    /// The first `into.len()` blocks of `len` bytes.
    pub fn same(&self, len: usize, into: &mut [*mut u8]) {
        assert!(into.len() * len <= self.layout.size());
        for (i, block) in into.iter_mut().enumerate() {
            // SAFETY: inside the allocation, as asserted.
            *block = unsafe { self.base.add(i * len) };
        }
    }

    /// Blocks of `len` bytes (a power of two) that were not handed out since all others were, in an order that no
    /// prefetcher guesses: buffers of a pool lie anywhere.
    pub fn fresh(&mut self, len: usize, into: &mut [*mut u8]) {
        let count = self.layout.size() / len;
        assert!(len.is_power_of_two() && into.len() <= count);
        for block in into {
            // An odd factor modulo a power of two visits every block once in a round.
            let index = self.drawn.wrapping_mul(0x9e37_79b1) & (count - 1);
            self.drawn = self.drawn.wrapping_add(1);
            // SAFETY: `index` is below the number of blocks.
            *block = unsafe { self.base.add(index * len) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}
