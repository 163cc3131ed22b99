//! The injections of one device, shared by its channels.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::super::Request;
use super::injection::{Hit, Injection};
use crate::lock;

/// The injections of a device. The lock is taken only while there are any.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Mutex<Vec<Entry>>,
    armed: AtomicBool,
    clears: AtomicU64,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    /// Ascending, so that a write does not heal what was injected after it began.
    id: u64,
    injection: Injection,
}

impl Table {
    /// Adds an injection after the others.
    pub(super) fn add(&self, injection: Injection) {
        let mut entries = self.entries();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        entries.push(Entry { id, injection });
        self.armed.store(true, Ordering::Release);
    }

    /// Removes all of them.
    pub(super) fn clear(&self) {
        let mut entries = self.entries();
        entries.clear();
        self.armed.store(false, Ordering::Release);
        self.clears.fetch_add(1, Ordering::Release);
    }

    /// Those that are left.
    pub(super) fn injections(&self) -> Vec<Injection> {
        let entries = self.entries();
        entries.iter().map(|e| e.injection.clone()).collect()
    }

    /// How often the table was cleared.
    pub(super) fn clears(&self) -> u64 {
        self.clears.load(Ordering::Acquire)
    }

    /// The number of the next injection.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        lock::exclusive(&self.entries)
    }

    /// Counts the first injection that fits the request, and answers what it does.
    pub(super) fn hit(&self, request: &Request, block_size: u32) -> Option<Hit> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut entries = self.entries();
        let clears = self.clears.load(Ordering::Relaxed);
        let mut hits = entries
            .iter()
            .enumerate()
            .filter_map(|(at, e)| Some((at, e.injection.hit(request, block_size, clears)?)));
        let (at, hit) = hits.next()?;
        let injection = &mut entries[at].injection;
        if let Some(num) = &mut injection.num {
            *num -= 1;
            if *num == 0 {
                entries.remove(at);
                self.armed.store(!entries.is_empty(), Ordering::Release);
            }
        }
        Some(hit)
    }

    /// Ends what a write over these blocks heals, if it was injected before the write began.
    pub(super) fn heal(&self, lbas: &Range<u64>, before: u64) {
        if !self.armed.load(Ordering::Acquire) {
            return;
        }
        let mut entries = self.entries();
        entries.retain(|Entry { id, injection }| {
            let covered = |r: &Range<u64>| lbas.start <= r.start && r.end <= lbas.end;
            let healed = injection.write_heals
                && *id < before
                && injection.lbas.as_ref().is_some_and(covered);
            !healed
        });
        self.armed.store(!entries.is_empty(), Ordering::Release);
    }
}
