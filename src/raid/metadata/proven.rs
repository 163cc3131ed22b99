//! How far processes have come as far as superblocks may say: as far as they had come when the
//! members' caches were emptied last. What was written since may still be in those.

use crate::raid::view::View;

/// Positions in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proven {
    /// The member that is being rebuilt.
    pub rebuilt: Option<Rebuilt>,
    /// The rows whose parity matches, unless all of it does.
    pub synced: Option<u64>,
    /// The rows that the member has that is to replace another.
    pub copied: Option<u64>,
    /// The slot whose member has been replaced, by one that has all rows.
    pub replaced: Option<usize>,
}

/// How much a member has that is being rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// Its slot.
    pub slot: usize,
    /// The rows that it has.
    pub rows: u64,
    /// Behind those it lacks only what the bitmap says.
    pub guided: bool,
}

impl Proven {
    /// What is true under a view, once the members' caches are empty.
    pub(super) fn of(view: &View, replaced: Option<usize>) -> Self {
        let attached = view.degraded.as_ref().filter(|d| d.attached);
        Self {
            rebuilt: attached.map(|d| Rebuilt {
                slot: d.slot,
                rows: d.rebuilt,
                guided: d.stale.is_some(),
            }),
            synced: view.unsynced.as_ref().map(|u| u.from),
            copied: view.replacement.map(|r| r.copied),
            replaced,
        }
    }
}
