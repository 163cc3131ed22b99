//! Memory that many threads read and write at once: the medium of a RAM disk.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::free::huge_page_size;
use super::prefetch::LINE;
use super::{Ahead, mapping, prefetch};
use crate::lock;

/// Locks of one region; a power of two. Pages that are this many pages apart share one.
const LOCKS: usize = 1024;

/// Cache lines that are fetched ahead.
const PREFETCH: usize = 8;

/// The region could not be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{bytes} bytes of memory: {reason}")]
pub struct RamError {
    /// Bytes asked for.
    pub bytes: u64,
    /// What the kernel said.
    pub reason: String,
}

/// A region of zeroed pages, shared by threads a page at a time: a page that is being written is seen by
/// nobody else, so no page is ever torn. It lies on the kernel's huge pages where enough of them are free:
/// a core that goes about in it at random then waits less for the tables of pages (docs/performance.md). Else
/// it costs memory only where it was touched.
#[derive(Debug)]
pub struct Ram {
    base: NonNull<u8>,
    pages: usize,
    /// Bytes of the mapping.
    mapped: usize,
    locks: Box<[Lock]>,
    /// Guards given out so far, for tests that ask in how many steps something was done.
    #[cfg(test)]
    pub(crate) guards: std::sync::atomic::AtomicUsize,
}

/// One lock a cache line, so that neighbouring pages do not meet in the cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Lock(RwLock<()>);

// SAFETY: the region is owned, and its bytes are reached only through guards of the lock that
// covers their page.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Bytes of a page, the unit of sharing: so large that a chunk of a RAID row is one copy under one lock,
    /// and so small that threads seldom meet in one.
    pub const PAGE: usize = 64 << 10;

    /// Sets `bytes` aside, rounded up to whole pages.
    ///
    /// # Errors
    /// [`RamError`] when the size is zero, or the kernel does not give as much.
    pub fn new(bytes: u64) -> Result<Self, RamError> {
        let error = |reason: String| RamError { bytes, reason };
        let size = usize::try_from(bytes)
            .ok()
            .and_then(|b| b.checked_next_multiple_of(Self::PAGE))
            .filter(|&b| b > 0 && isize::try_from(b).is_ok())
            .ok_or_else(|| error("not a size that a process can map".to_owned()))?;
        // No advice to make huge pages of ordinary memory: the first write to each would then clear all of
        // it, tens of milliseconds where the machine itself is a guest that has to be given it first.
        let (base, mapped) = match Self::huge(size) {
            Some(huge) => huge,
            None => (mapping::map(size).map_err(|e| error(e.to_string()))?, size),
        };
        Ok(Self {
            base,
            pages: size / Self::PAGE,
            mapped,
            locks: (0..LOCKS).map(|_| Lock::default()).collect(),
            #[cfg(test)]
            guards: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Huge pages for so many bytes, and how many bytes they have, if enough are free.
    fn huge(bytes: usize) -> Option<(NonNull<u8>, usize)> {
        let bytes = bytes.checked_next_multiple_of(huge_page_size()?)?;
        Some((mapping::map_huge(bytes).ok()?, bytes))
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Reads a page; writers of it wait meanwhile. Panics if there is no such page.
    pub fn read(&self, page: usize) -> Page<'_> {
        self.count_guard();
        Page {
            bytes: self.address(page),
            _guard: lock::read(self.lock(page)),
        }
    }

    /// Writes a page; everybody else waits meanwhile. Panics if there is no such page.
    ///
    /// A thread that holds a guard must not ask for another: they may share a lock.
    pub fn write(&self, page: usize) -> PageMut<'_> {
        self.count_guard();
        PageMut {
            bytes: self.address(page),
            _guard: lock::write(self.lock(page)),
        }
    }

    /// Has the core fetch what begins at a byte, and the lock of its page, without waiting for them. Panics
    /// if there is no such page.
    pub fn prefetch(&self, byte: usize) {
        let page = byte / Self::PAGE;
        let first = self.address(page).as_ptr().wrapping_add(byte % Self::PAGE);
        prefetch::line(std::ptr::from_ref(self.lock(page)).cast());
        for line in 0..PREFETCH {
            prefetch::line(first.wrapping_add(line * LINE));
        }
    }

    /// The bytes from this one on, as far as they are to be fetched. Panics if there is no such page.
    pub fn ahead(&self, byte: usize, bytes: usize) -> Ahead {
        let page = self.address(byte / Self::PAGE).as_ptr();
        Ahead::new(page.wrapping_add(byte % Self::PAGE), bytes)
    }

    fn count_guard(&self) {
        #[cfg(test)]
        self.guards
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn lock(&self, page: usize) -> &RwLock<()> {
        &self.locks[page % LOCKS].0
    }

    fn address(&self, page: usize) -> NonNull<u8> {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page was just shown to lie inside the mapping.
        unsafe { self.base.add(page * Self::PAGE) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and guards borrow `self`, so nobody points into it.
        unsafe { mapping::unmap(self.base, self.mapped) };
    }
}

/// A page that nobody writes while this is held.
#[derive(Debug)]
pub struct Page<'a> {
    bytes: NonNull<u8>,
    _guard: RwLockReadGuard<'a, ()>,
}

impl Deref for Page<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `address` gave a whole page of the mapping, which the guard's borrow keeps; the
        // kernel zeroed it; and the held lock keeps writers of this page out.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), Ram::PAGE) }
    }
}

/// A page that nobody else sees while this is held.
#[derive(Debug)]
pub struct PageMut<'a> {
    bytes: NonNull<u8>,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Deref for PageMut<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: as for `Page`.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), Ram::PAGE) }
    }
}

impl DerefMut for PageMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `Page`, and the lock is held for writing, so this is the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), Ram::PAGE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = Ram::PAGE as u64;

    #[test]
    fn pages_begin_as_zeros_and_keep_what_is_written() {
        let ram = Ram::new(3 * PAGE - 1).unwrap();
        assert_eq!(ram.pages(), 3);
        ram.write(1).fill(7);
        assert!(ram.read(0).iter().all(|&b| b == 0));
        assert!(ram.read(1).iter().all(|&b| b == 7));
        assert!(ram.read(2).iter().all(|&b| b == 0));
    }

    #[test]
    fn sizes_that_cannot_be_had_are_refused() {
        assert!(Ram::new(0).is_err());
        assert!(Ram::new(u64::MAX).is_err());
        // More than the address space of any machine today.
        assert!(Ram::new(1 << 60).is_err());
    }

    /// What a guard keeps out is seen at the lock itself, from this very thread, so that nothing
    /// hangs on which thread happens to run.
    #[test]
    fn a_page_that_is_read_is_closed_to_writers_only() {
        let ram = Ram::new(2 * PAGE).unwrap();
        let page = ram.read(1);
        assert!(ram.lock(1).try_write().is_err());
        assert!(ram.lock(1).try_read().is_ok());
        assert!(ram.lock(0).try_write().is_ok());
        drop(page);
        assert!(ram.lock(1).try_write().is_ok());
    }

    #[test]
    fn a_page_that_is_written_is_closed_to_all() {
        let ram = Ram::new(2 * PAGE).unwrap();
        let page = ram.write(1);
        assert!(ram.lock(1).try_read().is_err());
        assert!(ram.lock(1).try_write().is_err());
        assert!(ram.lock(0).try_write().is_ok());
        drop(page);
        assert!(ram.lock(1).try_write().is_ok());
    }

    /// A thread that panicked with a page in its hands takes the page from nobody.
    #[test]
    fn a_panic_leaves_no_page_locked() {
        let ram = Ram::new(PAGE).unwrap();
        let writer = || {
            let _page = ram.write(0);
            panic!("on purpose");
        };
        let panicked = std::thread::scope(|scope| scope.spawn(writer).join());
        assert!(panicked.is_err() && ram.lock(0).is_poisoned());
        ram.write(0).fill(7);
        assert!(ram.read(0).iter().all(|&b| b == 7));
    }

    #[test]
    #[should_panic(expected = "page 1 of 1")]
    fn a_page_that_does_not_exist_is_a_bug() {
        let _ = Ram::new(PAGE).unwrap().read(1);
    }
}
