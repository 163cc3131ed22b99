//! The arena: one region of memory from which every pool is carved.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use super::free::huge_page_size;
use super::{SLOT_ALIGN, mapping};
use crate::lock;

/// Which pages back an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// The kernel's default huge pages (`/proc/sys/vm/nr_hugepages`).
    Huge,
    /// Ordinary pages, which cost memory, and are zeroed, when they are first touched.
    Ordinary,
}

/// Why an arena, or a piece of it, could not be had.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArenaError {
    /// A size of zero or one that overflows when rounded to pages.
    #[error(
        "an arena of {0} bytes cannot be made; give a size between 4 KiB and the memory of the machine"
    )]
    Size(usize),
    /// The kernel refused.
    #[error("no memory for an arena of {0} bytes; lower the memory size or free memory")]
    OutOfMemory(usize),
    /// A file could not be mapped.
    #[error(
        "{bytes} bytes from {offset} of a shared file cannot be the arena: {reason}; give a range of whole pages that lies inside the file"
    )]
    Shared {
        /// First byte of the file.
        offset: u64,
        /// Bytes asked for.
        bytes: usize,
        /// What was wrong, or what the kernel said.
        reason: String,
    },
    /// The arena has no room left for a pool.
    #[error(
        "the memory arena has no {wanted} bytes in one piece left ({free} of {size} free in all); start with more memory"
    )]
    Exhausted {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free in all.
        free: usize,
        /// Bytes of the arena.
        size: usize,
    },
}

/// Bytes of the smallest huge pages; arenas on huge pages begin at such multiples.
const HUGE_PAGE: usize = 2 << 20;

/// A region of zeroed memory with a fixed size, from huge pages where the machine has them.
///
/// Cloning is cheap: it is another handle to the same region, which is given back when the last
/// handle, pool and buffer are gone.
#[derive(Clone, Debug)]
pub struct Arena {
    region: Arc<Region>,
}

impl Arena {
    /// Makes an arena of `bytes`, rounded up to whole pages, on huge pages; where the machine has
    /// not enough of them, on ordinary pages ([`Arena::page_kind`] tells which).
    pub fn new(bytes: usize) -> Result<Self, ArenaError> {
        match Region::huge(bytes) {
            Some(region) => Ok(Self::from_region(region)),
            None => Self::ordinary(bytes),
        }
    }

    /// Makes an arena of `bytes`, rounded up to whole pages, on ordinary pages.
    pub fn ordinary(bytes: usize) -> Result<Self, ArenaError> {
        Ok(Self::from_region(Region::ordinary(bytes)?))
    }

    /// Makes an arena of `bytes` (whole pages) of a file, from `offset` on: memory that another
    /// process has mapped too, as a machine emulator has that of its guest. The bytes are what the
    /// file holds. The file must not be cut shorter while the arena lives.
    ///
    /// # Errors
    /// [`ArenaError::Shared`]: the range is not of whole pages, or not in the file, or cannot be
    /// mapped.
    pub fn shared(file: &File, offset: u64, bytes: usize) -> Result<Self, ArenaError> {
        Ok(Self::from_region(Region::shared(file, offset, bytes)?))
    }

    /// Takes over a zone of `size` bytes.
    #[cfg(feature = "dpdk")]
    pub(super) fn of_dpdk(zone: super::dpdk::Zone, size: usize, kind: PageKind) -> Self {
        let layout = Layout::from_size_align(size, SLOT_ALIGN).expect("it exists");
        let base = zone.base();
        Self::from_region(Region::from_parts(base, layout, kind, Owner::Dpdk(zone)))
    }

    /// Whether it is a zone of DPDK's environment.
    #[cfg(feature = "dpdk")]
    pub(super) fn is_of_dpdk(&self) -> bool {
        matches!(self.region.owner, Owner::Dpdk(_))
    }

    fn from_region(region: Region) -> Self {
        Self {
            region: Arc::new(region),
        }
    }

    /// Which pages back this arena.
    pub fn page_kind(&self) -> PageKind {
        self.region.kind
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.region.layout.size()
    }

    /// Bytes that no pool holds.
    pub fn free(&self) -> usize {
        self.region.extents().values().sum()
    }

    /// First address and size in bytes, for registering the region with a device or the kernel.
    pub fn range(&self) -> (*const u8, usize) {
        (self.region.base.as_ptr(), self.size())
    }

    /// Takes `bytes` (rounded up to [`SLOT_ALIGN`]) out of the arena until the extent is dropped.
    pub(super) fn carve(&self, bytes: usize) -> Result<Extent, ArenaError> {
        let wanted = bytes
            .checked_next_multiple_of(SLOT_ALIGN)
            .filter(|&b| b > 0)
            .ok_or(ArenaError::Size(bytes))?;
        let mut free = self.region.extents();
        let huge = self.region.kind == PageKind::Huge;
        let Some((offset, len, start)) = find(&free, wanted, huge) else {
            return Err(ArenaError::Exhausted {
                wanted,
                free: free.values().sum(),
                size: self.size(),
            });
        };
        free.remove(&offset);
        if start > offset {
            free.insert(offset, start - offset);
        }
        if offset + len > start + wanted {
            free.insert(start + wanted, offset + len - start - wanted);
        }
        drop(free);
        Ok(Extent {
            region: self.region.clone(),
            offset: start,
            len: wanted,
        })
    }
}

/// The free extent to take `wanted` bytes of, and where they begin: the first with room, but on huge pages rather the first
/// where they are in one page. A device sees them in one piece then, without an IOMMU, too.
fn find(free: &BTreeMap<usize, usize>, wanted: usize, huge: bool) -> Option<(usize, usize, usize)> {
    let mut extents = free.iter().map(|(&offset, &len)| (offset, len));
    let within = |(offset, len)| {
        let start = in_one_page(offset, wanted);
        (start + wanted <= offset + len).then_some((offset, len, start))
    };
    let whole = if huge {
        extents.clone().find_map(within)
    } else {
        None
    };
    let first = extents.find(|&(_, len)| len >= wanted);
    whole.or(first.map(|(offset, len)| (offset, len, offset)))
}

/// Where a piece of `len` bytes can begin, from `offset` on, so that it is in one huge page, if that can be.
fn in_one_page(offset: usize, len: usize) -> usize {
    let end = offset.next_multiple_of(HUGE_PAGE);
    match len <= HUGE_PAGE && offset + len > end {
        true => end,
        false => offset,
    }
}

/// A piece of an arena that nobody else holds.
#[derive(Debug)]
pub(super) struct Extent {
    region: Arc<Region>,
    offset: usize,
    len: usize,
}

impl Extent {
    /// Address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        // SAFETY: `carve` took offset..offset + len out of the region, so the sum stays inside
        // the region's one allocation.
        unsafe { self.region.base.add(self.offset) }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let mut free = self.region.extents();
        let (mut offset, mut len) = (self.offset, self.len);
        if let Some(next) = free.remove(&(offset + len)) {
            len += next;
        }
        let before = free.range(..offset).next_back().map(|(&o, &l)| (o, l));
        if let Some((o, l)) = before
            && o + l == offset
        {
            free.remove(&o);
            offset = o;
            len += l;
        }
        free.insert(offset, len);
    }
}

/// Who gets the memory back.
#[derive(Debug)]
enum Owner {
    /// The allocator of huge pages.
    HugePages,
    /// The kernel.
    Kernel,
    /// DPDK's environment; the zone gives itself back.
    #[cfg(feature = "dpdk")]
    Dpdk(#[expect(dead_code, reason = "it is kept, and dropped")] super::dpdk::Zone),
}

#[derive(Debug)]
struct Region {
    base: NonNull<u8>,
    layout: Layout,
    kind: PageKind,
    owner: Owner,
    /// Free extents, offset to length; neighbours are always merged. Only set-up and tear-down of
    /// pools take this lock, never the I/O path.
    free: Mutex<BTreeMap<usize, usize>>,
}

// SAFETY: the region owns its memory, hands out disjoint extents only, and the bookkeeping is
// behind a mutex.
unsafe impl Send for Region {}
// SAFETY: as above; a shared reference gives access to the mutex and to plain numbers only.
unsafe impl Sync for Region {}

impl Region {
    fn huge(bytes: usize) -> Option<Self> {
        let page = huge_page_size()?;
        let size = bytes.checked_next_multiple_of(page).filter(|&b| b > 0)?;
        let layout = Layout::from_size_align(size, page).ok()?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { hugepage_rs::alloc(layout) };
        Some(Self::from_parts(
            NonNull::new(base)?,
            layout,
            PageKind::Huge,
            Owner::HugePages,
        ))
    }

    fn ordinary(bytes: usize) -> Result<Self, ArenaError> {
        let size = bytes
            .checked_next_multiple_of(SLOT_ALIGN)
            .filter(|&b| b > 0)
            .ok_or(ArenaError::Size(bytes))?;
        let layout =
            Layout::from_size_align(size, SLOT_ALIGN).map_err(|_| ArenaError::Size(bytes))?;
        // A mapping of our own, because the allocator would clear all of it now.
        let base = mapping::map(size).map_err(|_| ArenaError::OutOfMemory(bytes))?;
        let owner = Owner::Kernel;
        Ok(Self::from_parts(base, layout, PageKind::Ordinary, owner))
    }

    fn shared(file: &File, offset: u64, bytes: usize) -> Result<Self, ArenaError> {
        let refused = |reason: &str| ArenaError::Shared {
            offset,
            bytes,
            reason: reason.to_owned(),
        };
        let layout = Layout::from_size_align(bytes, SLOT_ALIGN)
            .ok()
            .filter(|_| bytes > 0 && bytes.is_multiple_of(SLOT_ALIGN))
            .filter(|_| offset.is_multiple_of(SLOT_ALIGN as u64))
            .ok_or_else(|| refused("not whole pages"))?;
        let size = file.metadata().map_err(|e| refused(&e.to_string()))?.len();
        if offset
            .checked_add(bytes as u64)
            .is_none_or(|end| end > size)
        {
            return Err(refused(&format!("the file has {size} bytes")));
        }
        let base = mapping::map_shared(file.as_fd(), offset, bytes)
            .map_err(|e| refused(&e.to_string()))?;
        let owner = Owner::Kernel;
        Ok(Self::from_parts(base, layout, PageKind::Ordinary, owner))
    }

    fn from_parts(base: NonNull<u8>, layout: Layout, kind: PageKind, owner: Owner) -> Self {
        Self {
            base,
            layout,
            kind,
            owner,
            free: Mutex::new(BTreeMap::from([(0, layout.size())])),
        }
    }

    fn extents(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, usize>> {
        lock::exclusive(&self.free)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.owner {
            // SAFETY: `base` came from this allocator with this layout, and every extent holds an
            // `Arc` of the region, so nobody points into it any more.
            Owner::HugePages => unsafe { hugepage_rs::dealloc(self.base.as_ptr(), self.layout) },
            #[cfg(feature = "dpdk")]
            Owner::Dpdk(_) => {}
            Owner::Kernel => {
                // SAFETY: the mapping is ours, and as above nobody points into it any more.
                unsafe { mapping::unmap(self.base, self.layout.size()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Pool, testing};
    use super::*;

    #[test]
    fn pieces_come_back_and_merge() {
        let arena = testing::arena(8 * SLOT_ALIGN);
        let a = arena.carve(SLOT_ALIGN).unwrap();
        let b = arena.carve(2 * SLOT_ALIGN).unwrap();
        let c = arena.carve(SLOT_ALIGN + 1).unwrap();
        assert_eq!(arena.free(), 3 * SLOT_ALIGN);
        drop(a);
        drop(c);
        drop(b);
        assert_eq!(arena.free(), 8 * SLOT_ALIGN);
        assert_eq!(arena.region.extents().len(), 1);
        assert!(arena.carve(8 * SLOT_ALIGN).is_ok());
    }

    #[test]
    fn a_full_arena_says_what_is_left() {
        let arena = testing::arena(4 * SLOT_ALIGN);
        let _held = arena.carve(3 * SLOT_ALIGN).unwrap();
        let error = arena.carve(2 * SLOT_ALIGN).unwrap_err();
        assert_eq!(
            error,
            ArenaError::Exhausted {
                wanted: 2 * SLOT_ALIGN,
                free: SLOT_ALIGN,
                size: 4 * SLOT_ALIGN
            }
        );
    }

    #[test]
    fn pieces_are_in_one_huge_page_where_they_can_be() {
        let (page, two) = (HUGE_PAGE, 2 * HUGE_PAGE);
        let place = |free: &[(usize, usize)], wanted, huge| {
            let free: BTreeMap<usize, usize> = free.iter().copied().collect();
            find(&free, wanted, huge).map(|(_, _, start)| start)
        };
        let first = page - SLOT_ALIGN;
        let rest = [(first, two - first)];
        // Room in the first page for one slot, and a piece of four.
        assert_eq!(place(&rest, 4 * SLOT_ALIGN, true), Some(page));
        assert_eq!(place(&rest, SLOT_ALIGN, true), Some(first));
        // A later extent is better than an earlier one with a border in it.
        let apart = [
            (first, 4 * SLOT_ALIGN),
            (page + 8 * SLOT_ALIGN, 4 * SLOT_ALIGN),
        ];
        assert_eq!(
            place(&apart, 4 * SLOT_ALIGN, true),
            Some(page + 8 * SLOT_ALIGN)
        );
        // Across the border rather than not at all, and what is larger than a page in any case.
        let middle = [(first, 4 * SLOT_ALIGN)];
        assert_eq!(place(&middle, 4 * SLOT_ALIGN, true), Some(first));
        assert_eq!(place(&[(0, two)], page + SLOT_ALIGN, true), Some(0));
        assert_eq!(place(&middle, 5 * SLOT_ALIGN, true), None);
        // On other pages that would only waste room.
        assert_eq!(place(&rest, 4 * SLOT_ALIGN, false), Some(first));
        assert_eq!(place(&apart, 4 * SLOT_ALIGN, false), Some(first));
    }

    /// Pages of the arena that have memory behind them now, and all pages.
    fn resident(arena: &Arena) -> (usize, usize) {
        let (base, size) = arena.range();
        let mut pages = vec![0_u8; size.div_ceil(rustix::param::page_size())];
        // SAFETY: the range is mapped, and the list has a byte for each of its pages.
        let told = unsafe { libc::mincore(base.cast_mut().cast(), size, pages.as_mut_ptr()) };
        assert_eq!(told, 0);
        let in_memory = pages.iter().filter(|&&p| p & 1 != 0).count();
        (in_memory, pages.len())
    }

    #[test]
    fn ordinary_pages_cost_nothing_until_they_are_touched() {
        let arena = Arena::ordinary(64 << 20).unwrap();
        assert_eq!(resident(&arena).0, 0);
        let pool = Pool::new(&arena, SLOT_ALIGN, 1).unwrap();
        let mut slot = pool.take().unwrap();
        assert!(slot.iter().all(|&byte| byte == 0));
        slot[0] = 1;
        // One page, or what the kernel gives at once where it is set to give more.
        let (touched, all) = resident(&arena);
        assert!((1..all).contains(&touched), "{touched} of {all}");
    }

    #[test]
    fn a_shared_arena_is_the_file() {
        use std::os::unix::fs::FileExt;

        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * SLOT_ALIGN as u64).unwrap();
        let arena = Arena::shared(&file, SLOT_ALIGN as u64, 2 * SLOT_ALIGN).unwrap();
        assert_eq!(arena.size(), 2 * SLOT_ALIGN);
        let pool = Pool::new(&arena, SLOT_ALIGN, 2).unwrap();
        let (mut first, second) = (pool.take().unwrap(), pool.take().unwrap());
        first[7] = 9;
        let mut byte = [0];
        file.read_exact_at(&mut byte, SLOT_ALIGN as u64 + 7)
            .unwrap();
        assert_eq!(byte, [9]);
        file.write_all_at(&[5], 2 * SLOT_ALIGN as u64).unwrap();
        assert_eq!(second[0], 5);

        for (offset, bytes) in [
            (0, 100),
            (5, SLOT_ALIGN),
            (0, 0),
            (u64::MAX - 4095, SLOT_ALIGN),
        ] {
            let error = Arena::shared(&file, offset, bytes).unwrap_err().to_string();
            assert!(error.contains("whole pages"), "{error}");
        }
        let error = Arena::shared(&file, SLOT_ALIGN as u64, 4 * SLOT_ALIGN).unwrap_err();
        assert!(error.to_string().contains("the file has 16384 bytes"));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert_eq!(Arena::ordinary(0).unwrap_err(), ArenaError::Size(0));
        let huge = usize::MAX - 5;
        assert_eq!(Arena::new(huge).unwrap_err(), ArenaError::Size(huge));
        // More than the address space of any machine today.
        let vast = 1 << 60;
        assert_eq!(
            Arena::ordinary(vast).unwrap_err(),
            ArenaError::OutOfMemory(vast)
        );
    }
}
