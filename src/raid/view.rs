//! The array's view: which members may be read and written, and whose parity can be trusted, as
//! one immutable value.
//!
//! Every node holds a copy, replaced whole by message. A view takes effect for the outside (a
//! write that relied on it is acknowledged) only when every node has confirmed it, and the
//! members' superblocks say so, if they have any.

use std::sync::Arc;

use super::geometry::{Geometry, Mask};
use super::regions::Regions;

/// What a node may rely on. RAID5 bears one member that is not in sync; with a second the volume
/// is offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Counts views; a higher one replaces a lower one.
    pub epoch: u64,
    /// Whether the volume serves anything at all.
    pub online: bool,
    /// The member that is not in sync, if there is one.
    pub degraded: Option<Degraded>,
    /// The rows whose parity may not match their data, if there are any.
    pub unsynced: Option<Unsynced>,
    /// Rows that every node works on under this view.
    pub window: Option<Window>,
    /// Ranges that members are known not to hold.
    pub bad: Option<Arc<[BadRange]>>,
}

/// A member that is missing or being rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// Its slot.
    pub slot: usize,
    /// Whether there is a member in the slot at all.
    pub attached: bool,
    /// Rows below this are rebuilt: read and written like any other.
    pub rebuilt: u64,
    /// Rows below this and not below `rebuilt` are being rebuilt: written, not read. Equal to
    /// `rebuilt` when no rebuild is under way.
    pub window: u64,
    /// The only rows in which the member lacks anything, where that is known.
    pub stale: Option<Arc<Regions>>,
}

/// Rows that a crash, or the making of the array, has left with parity that may not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsynced {
    /// Rows below this are in sync.
    pub from: u64,
    /// The only rows that are not, where that is known.
    pub regions: Option<Arc<Regions>>,
    /// The array is new: what was never written has no parity, and all else has.
    pub fresh: bool,
}

/// What nodes do with rows, besides serving hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Compute what the member of this slot lacks, and store it there.
    Rebuild(usize),
    /// Compute parity and store it.
    Resync,
    /// Read all members, and count where parity does not match.
    Check,
    /// As `Check`, and store the parity that does.
    Repair,
}

/// Rows to be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What to do.
    pub work: Work,
    /// The first row.
    pub from: u64,
    /// The row behind the last.
    pub to: u64,
}

/// A range that a member is known not to hold, as its bad-block log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// The member's slot.
    pub slot: usize,
    /// Its first byte, counted from the start of the member's data.
    pub start: u64,
    /// The byte behind its last.
    pub end: u64,
}

impl View {
    /// A healthy array, or one without the member of a slot.
    pub fn first(missing: Option<usize>) -> Self {
        Self {
            epoch: 1,
            online: true,
            degraded: missing.map(Degraded::lost),
            unsynced: None,
            window: None,
            bad: None,
        }
    }

    /// Whether the member in `slot` may be read in `row`.
    pub fn readable(&self, slot: usize, row: u64) -> bool {
        match &self.degraded {
            Some(d) => d.slot != slot || d.holds(row),
            None => true,
        }
    }

    /// Whether the member in `slot` must be written in `row`.
    pub fn writable(&self, slot: usize, row: u64) -> bool {
        match &self.degraded {
            Some(d) => d.slot != slot || row < d.window || d.holds(row),
            None => true,
        }
    }

    /// Whether the member in `slot` is there at all: in sync, or with a rebuild under way.
    pub fn present(&self, slot: usize) -> bool {
        match &self.degraded {
            Some(d) => d.slot != slot || d.attached,
            None => true,
        }
    }

    /// The slot whose member is lost and not being replaced yet.
    pub fn lost(&self) -> Option<usize> {
        let lost = self.degraded.as_ref().filter(|d| !d.attached);
        lost.map(|d| d.slot)
    }

    /// Whether the parity of `row` is known to match.
    pub fn in_sync(&self, row: u64) -> bool {
        self.unsynced.as_ref().is_none_or(|u| !u.contains(row))
    }

    /// The roles of `row` that may not be read. Where a member is missing, parity is all there
    /// is, matching or not; see [`View::doubtful`].
    pub fn unreadable(&self, geometry: &Geometry, row: u64) -> Mask {
        match &self.degraded {
            Some(d) if !d.holds(row) => 1 << geometry.role(row, d.slot),
            _ if !self.in_sync(row) => 1 << geometry.data(),
            _ => 0,
        }
    }

    /// Whether the block of `slot` in `row` could only be told from parity that may not match:
    /// that would be a guess, and is refused.
    pub fn doubtful(&self, slot: usize, row: u64) -> bool {
        self.unsynced.is_some() && !self.readable(slot, row) && !self.in_sync(row)
    }

    /// Whether there is something to do in a row of the window.
    pub fn wants(&self, work: Work, row: u64) -> bool {
        match work {
            Work::Rebuild(slot) => !self.readable(slot, row),
            Work::Resync => !self.in_sync(row),
            Work::Check | Work::Repair => true,
        }
    }

    /// Whether the member in `slot` is known not to hold all of `start..end`, in bytes of its
    /// data.
    pub fn is_bad(&self, slot: usize, start: u64, end: u64) -> bool {
        let Some(bad) = &self.bad else {
            return false;
        };
        bad.iter()
            .any(|b| b.slot == slot && b.start < end && start < b.end)
    }
}

impl Degraded {
    /// A member that is not there.
    pub fn lost(slot: usize) -> Self {
        Self {
            slot,
            attached: false,
            rebuilt: 0,
            window: 0,
            stale: None,
        }
    }

    /// Whether the member holds what it should in `row`.
    fn holds(&self, row: u64) -> bool {
        row < self.rebuilt || self.stale.as_ref().is_some_and(|s| !s.contains(row))
    }
}

impl Unsynced {
    /// Whether the parity of `row` may not match.
    pub fn contains(&self, row: u64) -> bool {
        row >= self.from && self.regions.as_ref().is_none_or(|r| r.contains(row))
    }
}
