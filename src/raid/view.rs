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
    /// The member that another one is to replace, if there is one.
    pub replacement: Option<Replacement>,
    /// Where nodes have the member of each slot.
    pub bays: Bays,
}

/// A member in sync, and the one that is to replace it, which is its mirror as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The slot of the member to be replaced.
    pub slot: usize,
    /// Rows below this are copied.
    pub copied: u64,
    /// Rows below this are written to both.
    pub window: u64,
}

/// In which bay a node has the member of each slot. There is one bay more than slots: it is where
/// a member is put that is to replace another, as the member of the slot behind the last one. When
/// it does, the two change slots, and stay where they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bays([u8; 64]);

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
    /// Copy the member of this slot to the one that is to replace it.
    Replace(usize),
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
            replacement: None,
            bays: Bays::default(),
        }
    }

    /// Whether every member is there and holds all that it should, and parity matches everywhere.
    pub fn is_whole(&self) -> bool {
        self.online
            && self.degraded.is_none()
            && self.unsynced.is_none()
            && self.bad.is_none()
            && self.replacement.is_none()
    }

    /// The bay of the member in `slot`.
    pub fn bay(&self, slot: usize) -> usize {
        self.bays.0[slot].into()
    }

    /// The slot of the member in `bay`.
    pub fn slot_in(&self, bay: usize) -> usize {
        let slot = self.bays.0.iter().position(|b| usize::from(*b) == bay);
        slot.expect("every bay has a slot")
    }

    /// Whether what is written to the slot of a member that is to be replaced is written to the
    /// other one too, in `row`.
    pub fn mirrors(&self, slot: usize, row: u64) -> bool {
        let here = |r: &Replacement| r.slot == slot && row < r.window;
        self.replacement.as_ref().is_some_and(here)
    }

    /// Whether the member in `bay` must be written in `row` of an array of `members`.
    pub fn takes(&self, bay: usize, row: u64, members: usize) -> bool {
        match self.slot_in(bay) {
            slot if slot < members => self.writable(slot, row),
            _ => self.replacement.is_some_and(|r| row < r.window),
        }
    }

    /// Whether there is a member in `bay` at all.
    pub fn occupies(&self, bay: usize, members: usize) -> bool {
        match self.slot_in(bay) {
            slot if slot < members => self.present(slot),
            _ => self.replacement.is_some(),
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
            Work::Replace(_) | Work::Check | Work::Repair => true,
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

impl Work {
    /// Whether members are only read and compared, as long as parity matches.
    pub(super) fn is_comparison(self) -> bool {
        matches!(self, Work::Check | Work::Repair)
    }
}

impl Bays {
    /// The members of two slots change their slots.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.0.swap(one, other);
    }
}

impl Default for Bays {
    /// Each member is in the bay of its slot's number.
    fn default() -> Self {
        Self(std::array::from_fn(|slot| slot as u8))
    }
}

impl std::fmt::Debug for Bays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moved = self
            .0
            .iter()
            .enumerate()
            .filter(|&(s, b)| s != usize::from(*b));
        f.debug_map().entries(moved).finish()
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
