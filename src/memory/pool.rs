//! Pools of equal slots, free for any core to return to.

use std::ptr::NonNull;
use std::sync::Arc;

use super::SLOT_ALIGN;
use super::arena::{Arena, ArenaError, Extent};
use super::buffer::BufMut;
use super::stack::Stack;
use super::sync::AtomicU32;

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolError {
    /// The slot size is not a positive multiple of [`SLOT_ALIGN`], or there are no slots.
    #[error(
        "a pool of {slots} slots of {slot_size} bytes cannot be made; slots are multiples of 4096 bytes"
    )]
    Shape {
        /// Bytes of a slot.
        slot_size: usize,
        /// Number of slots.
        slots: usize,
    },
    /// The arena has no room.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// A fixed number of slots of one size. Cloning gives another handle to the same slots.
///
/// The memory goes back to the arena when the last handle and the last buffer are gone.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Carves `slots` slots of `slot_size` bytes (a multiple of [`SLOT_ALIGN`]) out of `arena`.
    pub fn new(arena: &Arena, slot_size: usize, slots: usize) -> Result<Self, PoolError> {
        let shape = PoolError::Shape { slot_size, slots };
        if slot_size == 0 || !slot_size.is_multiple_of(SLOT_ALIGN) || slots == 0 {
            return Err(shape);
        }
        let bytes = slot_size.checked_mul(slots).ok_or(shape)?;
        let extent = arena.carve(bytes)?;
        let base = extent.base();
        let shared = Arc::new_cyclic(|weak: &std::sync::Weak<Shared>| Shared {
            free: Stack::full(slots),
            slots: (0..slots)
                .map(|index| Slot {
                    refs: AtomicU32::new(0),
                    index: index as u32,
                    // SAFETY: index < slots, so the slot lies inside the extent.
                    data: unsafe { base.add(index * slot_size) },
                    pool: weak.as_ptr(),
                })
                .collect(),
            slot_size,
            _extent: extent,
        });
        Ok(Self { shared })
    }

    /// Takes a slot, or `None` while every slot is in use. The bytes are what the last user left.
    pub fn take(&self) -> Option<BufMut> {
        let index = self.shared.free.pop()?;
        let slot = &self.shared.slots[index as usize];
        // SAFETY: `shared` is alive through `self`; the count taken here is given back when the
        // slot is released, so that the pool outlives its buffers.
        unsafe { Arc::increment_strong_count(Arc::as_ptr(&self.shared)) };
        Some(BufMut::of_slot(NonNull::from(slot), self.shared.slot_size))
    }

    /// Slots free now.
    pub fn available(&self) -> usize {
        self.shared.free.len()
    }

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Bytes of a slot.
    pub fn slot_size(&self) -> usize {
        self.shared.slot_size
    }
}

#[derive(Debug)]
struct Shared {
    free: Stack,
    slots: Box<[Slot]>,
    slot_size: usize,
    _extent: Extent,
}

/// The header of one slot; buffers point at it.
#[derive(Debug)]
pub(super) struct Slot {
    /// Views of the slot: buffers alive.
    pub(super) refs: AtomicU32,
    index: u32,
    pub(super) data: NonNull<u8>,
    pool: *const Shared,
}

// SAFETY: `data` and `pool` never change after the pool is made; `refs` is atomic.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    /// Puts the slot back on the free list.
    ///
    /// # Safety
    /// The caller has just dropped the last view of the slot, and `take` counted the pool for it.
    pub(super) unsafe fn release(slot: NonNull<Slot>) {
        // SAFETY: the count that `take` added keeps the pool, and so the slot, alive until the
        // decrement below.
        let (pool, index) = unsafe { (slot.as_ref().pool, slot.as_ref().index) };
        // SAFETY: as above; a shared reference is enough.
        unsafe { (*pool).free.push(index) };
        // SAFETY: gives back the count of `take`; `pool` came from `Arc::as_ptr`'s allocation.
        unsafe { Arc::decrement_strong_count(pool) };
    }
}
