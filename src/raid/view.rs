//! The array's view: which members may be read and written, as one immutable value.
//!
//! Every node holds a copy, replaced whole by message. A view takes effect for the outside (a
//! write that relied on it is acknowledged) only when every node has confirmed it.

use super::geometry::{Geometry, Mask};

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
}

/// A member that is missing or being rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// Its slot.
    pub slot: usize,
    /// Rows below this are rebuilt: read and written like any other.
    pub rebuilt: u64,
    /// Rows below this and not below `rebuilt` are being rebuilt: written, not read. Equal to
    /// `rebuilt` when no rebuild is under way.
    pub window: u64,
}

impl View {
    /// A healthy array, or one without the member of a slot.
    pub fn first(missing: Option<usize>) -> Self {
        Self {
            epoch: 1,
            online: true,
            degraded: missing.map(|slot| Degraded {
                slot,
                rebuilt: 0,
                window: 0,
            }),
        }
    }

    /// Whether the member in `slot` may be read in `row`.
    pub fn readable(&self, slot: usize, row: u64) -> bool {
        match self.degraded {
            Some(d) => d.slot != slot || row < d.rebuilt,
            None => true,
        }
    }

    /// Whether the member in `slot` must be written in `row`.
    pub fn writable(&self, slot: usize, row: u64) -> bool {
        match self.degraded {
            Some(d) => d.slot != slot || row < d.window,
            None => true,
        }
    }

    /// Whether the member in `slot` is there at all: in sync, or with a rebuild under way.
    pub fn present(&self, slot: usize) -> bool {
        match self.degraded {
            Some(d) => d.slot != slot || d.window > 0,
            None => true,
        }
    }

    /// The slot whose member is lost and not being replaced yet.
    pub fn lost(&self) -> Option<usize> {
        self.degraded.filter(|d| d.window == 0).map(|d| d.slot)
    }

    /// The roles of `row` that may not be read.
    pub fn unreadable(&self, geometry: &Geometry, row: u64) -> Mask {
        match self.degraded {
            Some(d) if row >= d.rebuilt => 1 << geometry.role(row, d.slot),
            _ => 0,
        }
    }
}
