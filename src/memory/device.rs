//! Memory as a device sees it: under which address, and while both sides use it.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::Arena;
use super::buffer::BufMut;

/// A part of an arena, and the address under which a device sees its first byte (IOVA). Keeps the arena
/// alive.
#[derive(Clone, Debug)]
pub struct Window {
    arena: Arena,
    /// Bytes of the arena.
    part: Range<usize>,
    iova: u64,
}

/// All memory that a device may be asked to read or write. What is in none of the windows has no
/// address for it.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    windows: Vec<Window>,
}

impl Windows {
    /// No memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an arena that the device sees from `iova` on, all in one piece.
    pub fn add(&mut self, arena: &Arena, iova: u64) {
        self.add_part(arena, 0..arena.size(), iova);
    }

    /// Adds these bytes of an arena, which the device sees from `iova` on, in one piece.
    ///
    /// # Panics
    /// Where the arena has not as many bytes.
    pub fn add_part(&mut self, arena: &Arena, part: Range<usize>, iova: u64) {
        assert!(part.end <= arena.size(), "a part of the arena");
        self.windows.push(Window {
            arena: arena.clone(),
            part,
            iova,
        });
    }

    /// The device's address of `len` bytes from `start`; `None` unless all of them are in one
    /// window.
    #[must_use]
    pub fn address(&self, start: *const u8, len: usize) -> Option<u64> {
        self.windows.iter().find_map(|window| {
            let (base, _) = window.arena.range();
            let part = &window.part;
            let offset = start.addr().checked_sub(base.addr() + part.start)?;
            let inside = offset.checked_add(len).is_some_and(|end| end <= part.len());
            inside.then(|| window.iova + offset as u64)
        })
    }
}

/// A slot that a device reads and writes at times of its own choice, as 64-bit words. Words are
/// loaded and stored whole, and kept little-endian, as devices have them.
#[derive(Debug)]
pub struct DeviceMemory {
    words: NonNull<AtomicU64>,
    len: usize,
    /// Keeps the slot; its bytes are reached through `words` only.
    buffer: BufMut,
}

// SAFETY: the words are atomic, and the slot is owned.
unsafe impl Send for DeviceMemory {}
// SAFETY: as above.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    /// Takes a buffer over, and zeroes it.
    ///
    /// # Panics
    /// Where the buffer is not of whole aligned words, or empty.
    #[must_use]
    pub fn new(mut buffer: BufMut) -> Self {
        buffer.fill(0);
        let words = buffer.as_mut_ptr().cast::<AtomicU64>();
        let len = buffer.len() / 8;
        assert!(
            words.is_aligned() && buffer.len().is_multiple_of(8) && len > 0,
            "device memory is of whole words"
        );
        let words = NonNull::new(words).expect("a slot has an address");
        Self { words, len, buffer }
    }

    /// Number of words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no word: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The device's address of word `index`; `None` where no window has the whole of this memory.
    #[must_use]
    pub fn address(&self, windows: &Windows, index: usize) -> Option<u64> {
        let base = windows.address(self.words.as_ptr().cast(), self.len * 8)?;
        Some(base + 8 * index as u64)
    }

    /// A word, and nothing said of others. Panics if there is no such word.
    #[must_use]
    pub fn load(&self, index: usize) -> u64 {
        u64::from_le(self.word(index).load(Ordering::Relaxed))
    }

    /// A word; what is loaded later was stored before it was. Panics if there is no such word.
    #[must_use]
    pub fn load_first(&self, index: usize) -> u64 {
        u64::from_le(self.word(index).load(Ordering::Acquire))
    }

    /// Stores a word. Panics if there is no such word.
    pub fn store(&self, index: usize, value: u64) {
        self.word(index).store(value.to_le(), Ordering::Relaxed);
    }

    /// Stores words in a row, from `first` on. Panics if there are not as many.
    pub fn store_all<const N: usize>(&self, first: usize, values: &[u64; N]) {
        assert!(
            N <= self.len && first <= self.len - N,
            "words {first} to {}",
            first + N
        );
        for (index, value) in values.iter().enumerate() {
            self.store(first + index, *value);
        }
    }

    /// Zeroes all words.
    pub fn clear(&self) {
        for index in 0..self.len {
            self.store(index, 0);
        }
    }

    /// Fills `bytes` from the first word on. Panics if there are not as many.
    pub fn copy_to(&self, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&self.load(index).to_le_bytes()[..chunk.len()]);
        }
    }

    /// Stores `bytes` from the first word on; the last word is filled up with zeros. Panics if
    /// there is not as much room.
    pub fn copy_from(&self, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.store(index, u64::from_le_bytes(word));
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        debug_assert_eq!(self.buffer.len(), self.len * 8);
        // SAFETY: the index is inside the slot, which is mapped and initialised, is aligned, and is
        // reached by nobody but through these atomics and by the device.
        unsafe { self.words.add(index).as_ref() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::{Pool, SLOT_ALIGN};
    use super::*;

    #[test]
    fn addresses_are_offsets_in_the_window() {
        let arena = super::super::testing::arena(4 * SLOT_ALIGN);
        let other = super::super::testing::arena(SLOT_ALIGN);
        let mut windows = Windows::new();
        windows.add(&other, 0);
        windows.add(&arena, 0x10_0000);
        let base = arena.range().0;
        assert_eq!(windows.address(base, 1), Some(0x10_0000));
        let later = base.wrapping_add(5000);
        assert_eq!(windows.address(later, 16384 - 5000), Some(0x10_0000 + 5000));
        assert_eq!(windows.address(later, 16384 - 4999), None);
        let mut alone = Windows::new();
        alone.add(&arena, 0x10_0000);
        assert_eq!(alone.address(base.wrapping_sub(1), 1), None);
        assert_eq!(windows.address(later, usize::MAX), None);
        let foreign = super::super::testing::arena(SLOT_ALIGN);
        assert_eq!(windows.address(foreign.range().0, 1), None);
    }

    #[test]
    fn both_sides_see_little_endian_words() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SLOT_ALIGN as u64).unwrap();
        file.write_all_at(&[1; 100], 0).unwrap();
        let arena = Arena::shared(&file, 0, SLOT_ALIGN).unwrap();
        let mut windows = Windows::new();
        windows.add(&arena, 0x8000);
        let slot = Pool::new(&arena, SLOT_ALIGN, 1).unwrap().take().unwrap();
        let memory = DeviceMemory::new(slot);
        assert_eq!(memory.len(), 512);
        assert_eq!(memory.load(0), 0);
        assert_eq!(memory.address(&windows, 2), Some(0x8010));
        memory.store(1, 0x0807_0605_0403_0201);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 8).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
        file.write_all_at(&[9, 0, 0, 0, 0, 0, 0, 0x80], 16).unwrap();
        assert_eq!(memory.load_first(2), 0x8000_0000_0000_0009);
        memory.store_all(510, &[5, 6]);
        assert_eq!((memory.load(510), memory.load(511)), (5, 6));
        memory.copy_from(b"twelve bytes");
        let mut bytes = [0xff; 13];
        memory.copy_to(&mut bytes);
        assert_eq!(&bytes, b"twelve bytes\0");
        memory.clear();
        assert_eq!(memory.load(2), 0);
    }
}
