//! How many stripes of a shard may read before they write, and how many do.

use super::sync::{AtomicU32, Ordering};

/// md's `preread_active_stripes`, with a limit. Charged and given back only by
/// [`StripeLink`](super::StripeLink), under the lock of the stripe that holds the charge: so the
/// count is the number of links that are charged, whenever nobody holds a lock.
#[derive(Debug)]
pub(super) struct Budget {
    active: AtomicU32,
    limit: u32,
}

/// What became of asking for a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) enum Charge {
    /// The stripe holds one, since now or before.
    Held,
    /// As many stripes as may read ahead do.
    Full,
    /// The stripe is somebody's follower: it does not read.
    Follower,
}

impl Budget {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            active: AtomicU32::new(0),
            limit,
        }
    }

    /// Takes one charge, if there is one left.
    pub(super) fn take(&self) -> bool {
        // Others only ever give back, so what is seen here is the most there can be.
        if self.active.load(Ordering::Relaxed) >= self.limit {
            return false;
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Gives one charge back.
    pub(super) fn give_back(&self) {
        let before = self.active.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a charge is given back once");
    }

    /// Charges held now.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}
