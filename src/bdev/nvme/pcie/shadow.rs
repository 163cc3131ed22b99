//! Shadow doorbells (Base, "Doorbell Buffer Config command"): doorbells in memory.
//!
//! A controller that is software traps on every write to a register. It may be told of doorbells in
//! memory instead, and says in a second page up to which value it has looked: only a doorbell that
//! passes that value has to be rung in earnest.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::admin::device_memory;
use super::error::Fault;
use crate::memory::{Arena, DeviceMemory, Windows};

/// Bytes of each of the two pages.
const PAGE: usize = 4096;

/// Bytes of arena that they take.
pub(super) const MEMORY: usize = 2 * PAGE;

/// The two pages of a controller, laid out as its doorbells are where CAP.DSTRD is 0: for each queue
/// pair a word, the tail in its lower half and the head in its upper one.
#[derive(Debug)]
pub(super) struct ShadowPages {
    /// What the host writes.
    doorbells: DeviceMemory,
    /// What the controller writes.
    events: DeviceMemory,
    addresses: (u64, u64),
}

impl ShadowPages {
    pub(super) fn new(arena: &Arena, windows: &Windows) -> Result<Arc<Self>, Fault> {
        let (doorbells, events) = (device_memory(arena, PAGE)?, device_memory(arena, PAGE)?);
        let address = |page: &DeviceMemory| page.address(windows, 0).ok_or(Fault::Unmapped);
        Ok(Arc::new(Self {
            addresses: (address(&doorbells)?, address(&events)?),
            doorbells,
            events,
        }))
    }

    /// Zeroes both, for a controller that does not know of them, and answers where they are.
    pub(super) fn renew(&self) -> (u64, u64) {
        self.doorbells.clear();
        self.events.clear();
        self.addresses
    }

    /// The doorbells of queue pair `id`; `None` where the pages have no room for it.
    pub(super) fn of(self: &Arc<Self>, id: u16) -> Option<Shadow> {
        (usize::from(id) < self.doorbells.len()).then(|| Shadow {
            pages: self.clone(),
            index: usize::from(id),
        })
    }
}

/// The shadow doorbells of one queue pair.
#[derive(Debug)]
pub(super) struct Shadow {
    pages: Arc<ShadowPages>,
    index: usize,
}

impl Shadow {
    /// Sets both to 0, for a queue that the device does not know.
    pub(super) fn reset(&self) {
        self.pages.doorbells.store(self.index, 0);
        self.pages.events.store(self.index, 0);
    }

    /// Changes the tail from `old` to `new`; says whether the real one must be rung.
    pub(super) fn tail(&self, old: u16, new: u16) -> bool {
        let word = self.pages.doorbells.load(self.index);
        let event = self.publish(word >> 32 << 32 | u64::from(new));
        must_ring(event as u16, old, new)
    }

    /// Changes the head from `old` to `new`; says whether the real one must be rung.
    pub(super) fn head(&self, old: u16, new: u16) -> bool {
        let word = self.pages.doorbells.load(self.index);
        let event = self.publish(word & 0xffff_ffff | u64::from(new) << 32);
        must_ring((event >> 32) as u16, old, new)
    }

    /// Stores the doorbells, and looks what the device has seen of them.
    fn publish(&self, word: u64) -> u64 {
        // The entries are in memory before the doorbell is, and that before the look: a device that
        // does not see it says before that that it wants to be rung.
        fence(Ordering::SeqCst);
        self.pages.doorbells.store(self.index, word);
        fence(Ordering::SeqCst);
        self.pages.events.load(self.index)
    }
}

/// Whether the way from `old` to `new` passes `event`, in numbers that wrap. Where the ring itself
/// wrapped, it mostly does.
fn must_ring(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_is_rung_when_it_passes_what_the_device_has_seen() {
        // The device has seen 5 and sleeps: 5 to 6 wakes it.
        assert!(must_ring(5, 5, 6));
        assert!(must_ring(5, 3, 9));
        // It has seen more than that by now, or is to look again by itself.
        assert!(!must_ring(5, 6, 7));
        assert!(!must_ring(9, 5, 6));
        assert!(!must_ring(6, 5, 6));
        // Round the ring.
        assert!(must_ring(7, 7, 0));
        assert!(must_ring(7, 6, 2));
    }

    #[test]
    fn tails_and_heads_are_where_the_doorbells_are() {
        let arena = Arena::ordinary(MEMORY).unwrap();
        let mut windows = Windows::new();
        windows.add(&arena, 0);
        let pages = ShadowPages::new(&arena, &windows).unwrap();
        assert!(pages.of(512).is_none());
        let shadow = pages.of(3).unwrap();
        assert!(shadow.tail(0, 1));
        assert!(shadow.head(0, 2));
        // Doorbell n is at 4 n bytes: the tail of queue 3 is the 6th, its head the 7th.
        let mut bytes = [0; 32];
        pages.doorbells.copy_to(&mut bytes);
        assert_eq!(bytes[24..], [1, 0, 0, 0, 2, 0, 0, 0]);
        pages.events.store(3, 7 | 9 << 32);
        assert!(!shadow.tail(1, 2));
        assert!(!shadow.head(2, 3));
        shadow.reset();
        assert!(shadow.tail(0, 1));
    }
}
