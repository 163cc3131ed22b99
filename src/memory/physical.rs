//! Memory at the addresses that the machine itself uses, for devices that no IOMMU translates for.
//!
//! Such memory must stay where it is: huge pages that are locked, which the kernel neither swaps nor gathers. What says where
//! a page is: Documentation/admin-guide/mm/pagemap.rst of the kernel.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::mm::{Advice, madvise, mlock};

use super::arena::{Arena, PageKind};
use super::device::Windows;

/// Of an entry of the page map: the page is in memory.
const PRESENT: u64 = 1 << 63;

/// Of an entry of a page in memory: the number of its frame, zero for readers without the right to know.
const FRAME: u64 = (1 << 55) - 1;

/// Entries that are read at a time.
const AT_ONCE: usize = 4096;

/// Memory has no address that a device could be given.
#[derive(Debug, thiserror::Error)]
pub enum PhysicalError {
    /// Not on huge pages.
    #[error(
        "without an IOMMU memory must be on huge pages, or it moves; set enough of them aside (HUGEMEM=... scripts/setup config)"
    )]
    Ordinary,
    /// It cannot be kept where it is.
    #[error("memory cannot be kept where it is: {0}; raise the locked-memory limit (ulimit -l)")]
    Lock(io::Error),
    /// The map cannot be read.
    #[error("/proc/self/pagemap: {0}")]
    Map(io::Error),
    /// The map does not say it.
    #[error("the kernel does not say where memory is; run as root (CAP_SYS_ADMIN)")]
    Hidden,
}

impl Windows {
    /// These arenas where they are in the machine, for as long as they are mapped; pages that follow one another there, too,
    /// are one window.
    ///
    /// # Errors
    /// [`PhysicalError`].
    pub fn physical(arenas: &[Arena]) -> Result<Self, PhysicalError> {
        let mut windows = Self::new();
        for arena in arenas {
            if arena.page_kind() != PageKind::Huge {
                return Err(PhysicalError::Ordinary);
            }
            add(&mut windows, arena)?;
        }
        Ok(windows)
    }
}

fn add(windows: &mut Windows, arena: &Arena) -> Result<(), PhysicalError> {
    let (base, size) = arena.range();
    // A child would make us have a copy, elsewhere, of what is written next.
    // SAFETY: the range is mapped, and children have no use for it.
    let kept = unsafe { madvise(base.cast_mut().cast(), size, Advice::LinuxDontFork) };
    // SAFETY: the range is mapped. This brings in what was not touched yet.
    let kept = kept.and_then(|()| unsafe { mlock(base.cast_mut().cast(), size) });
    kept.map_err(|error| PhysicalError::Lock(error.into()))?;

    let map = File::open("/proc/self/pagemap").map_err(PhysicalError::Map)?;
    let page = rustix::param::page_size();
    let mut entries = Vec::with_capacity(size / page);
    let first = base.addr() / page;
    while entries.len() < size / page {
        let mut bytes = [0; 8 * AT_ONCE];
        let bytes = &mut bytes[..8 * AT_ONCE.min(size / page - entries.len())];
        let at = 8 * (first + entries.len()) as u64;
        map.read_exact_at(bytes, at).map_err(PhysicalError::Map)?;
        let words = bytes.as_chunks().0.iter();
        entries.extend(words.map(|word| u64::from_ne_bytes(*word)));
    }
    for (pages, frame) in runs(&entries)? {
        let part = pages.start * page..pages.end * page;
        windows.add_part(arena, part, frame * page as u64);
    }
    Ok(())
}

/// Runs of pages whose frames follow one another, and the first frame of each.
fn runs(entries: &[u64]) -> Result<Vec<(Range<usize>, u64)>, PhysicalError> {
    let mut runs: Vec<(Range<usize>, u64)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let frame = entry & FRAME;
        if entry & PRESENT == 0 || frame == 0 {
            return Err(PhysicalError::Hidden);
        }
        match runs.last_mut() {
            Some((pages, first)) if *first + pages.len() as u64 == frame => pages.end += 1,
            _ => runs.push((index..index + 1, frame)),
        }
    }
    Ok(runs)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::SLOT_ALIGN;
    use super::*;

    #[test]
    fn frames_that_follow_one_another_are_one_window() {
        let entry = |frame: u64| PRESENT | frame;
        let entries = [7, 8, 9, 11, 12, 13, 5].map(entry);
        let expected = [(0..3, 7), (3..6, 11), (6..7, 5)];
        assert_eq!(runs(&entries).unwrap(), expected);
        assert!(runs(&[]).unwrap().is_empty());
        // Bits 55 to 62 say other things.
        assert_eq!(runs(&[entry(7) | 1 << 55 | 1 << 61]).unwrap(), [(0..1, 7)]);
        for hidden in [0, PRESENT, 7, 7 | 1 << 62] {
            let error = runs(&[entry(3), hidden]).unwrap_err();
            assert!(matches!(error, PhysicalError::Hidden), "{hidden:#x}");
        }
    }

    #[test]
    fn memory_that_is_mapped_twice_is_in_one_place() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let pages = 4;
        file.set_len((pages * SLOT_ALIGN) as u64).unwrap();
        let places = [0, 1].map(|_| {
            let arena = Arena::shared(&file, 0, pages * SLOT_ALIGN).unwrap();
            let mut windows = Windows::new();
            match add(&mut windows, &arena) {
                Ok(()) => {}
                // Not everybody may know.
                Err(PhysicalError::Hidden) => return None,
                Err(error) => panic!("{error}"),
            }
            let base = arena.range().0;
            let at = |page| windows.address(base.wrapping_add(page * SLOT_ALIGN), SLOT_ALIGN);
            Some((0..pages).map(at).map(Option::unwrap).collect::<Vec<_>>())
        });
        assert_eq!(places[0], places[1]);
        if let [Some(place), _] = &places {
            let mut sorted = place.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), pages, "{place:#x?}");
        }
    }

    #[test]
    fn ordinary_pages_are_refused() {
        let arena = Arena::ordinary(SLOT_ALIGN).unwrap();
        let error = Windows::physical(&[arena]).unwrap_err();
        assert!(error.to_string().contains("huge pages"), "{error}");
    }
}
