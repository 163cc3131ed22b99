//! An I/O queue pair, and all memory that goes with it: one reactor's way to a controller.

use std::sync::Arc;

use super::admin::{QueueRings, device_memory};
use super::bar::Doorbells;
use super::error::Fault;
use super::gate::Gate;
use super::prp::{List, PAGE};
use super::queue::{QueuePair, ring_bytes};
use super::shape::MAX_TRANSFER;
use crate::memory::{Arena, DeviceMemory, Pool, Windows};

/// Entries of the list of the largest transfer.
const LIST_ENTRIES: usize = MAX_TRANSFER / PAGE as usize;

/// Bytes of a buffer for what can't be told as it lies, and how many of them there are.
pub(super) const BOUNCE: (usize, usize) = (64 * 1024, 8);

/// A queue pair with its lists and buffers. Owned by a channel, or spare.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: QueuePair,
    pub(super) gate: Arc<Gate>,
    /// The interrupt vector of its completions, if it has one.
    pub(super) vector: Option<u16>,
    pub(super) bounces: Pool,
    lists: DeviceMemory,
    lists_address: u64,
}

impl Lane {
    /// A lane whose queue the device does not know yet.
    pub(super) fn new(
        id: u16,
        entries: u16,
        doorbells: Doorbells,
        vector: Option<u16>,
        arena: &Arena,
        windows: &Windows,
    ) -> Result<Self, Fault> {
        let (submission, completion) = ring_bytes(entries);
        let queue = QueuePair::new(
            id,
            entries,
            doorbells,
            device_memory(arena, submission)?,
            device_memory(arena, completion)?,
        );
        let lists = device_memory(arena, list_bytes(entries))?;
        let (size, count) = BOUNCE;
        Ok(Self {
            queue,
            gate: Arc::new(Gate::new()),
            vector,
            bounces: Pool::new(arena, size, count)?,
            lists_address: lists.address(windows, 0).ok_or(Fault::Unmapped)?,
            lists,
        })
    }

    /// Bytes of arena that a lane takes.
    pub(super) fn memory(entries: u16) -> usize {
        let (submission, completion) = ring_bytes(entries);
        let page = PAGE as usize;
        submission.next_multiple_of(page)
            + completion.next_multiple_of(page)
            + list_bytes(entries).next_multiple_of(page)
            + BOUNCE.0 * BOUNCE.1
    }

    /// The rings, as the device is told of them.
    pub(super) fn rings(&self, windows: &Windows) -> Result<QueueRings, Fault> {
        let (submission, completion) = self.queue.addresses(windows).ok_or(Fault::Unmapped)?;
        Ok(QueueRings {
            id: self.queue.id(),
            entries: self.queue.entries(),
            submission,
            completion,
            vector: self.vector,
        })
    }

    /// Where the list of the command at `index` goes.
    pub(super) fn list(&self, index: u16) -> List<'_> {
        let first = usize::from(index) * LIST_ENTRIES;
        List {
            memory: &self.lists,
            first,
            capacity: LIST_ENTRIES,
            address: self.lists_address + 8 * first as u64,
        }
    }
}

fn list_bytes(entries: u16) -> usize {
    // As a divisor of a page, so that no list crosses one.
    const { assert!((PAGE as usize).is_multiple_of(8 * LIST_ENTRIES)) };
    (usize::from(entries) - 1) * LIST_ENTRIES * 8
}
