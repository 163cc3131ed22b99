//! The end of a round that a member failed to store: it waits until every node knows of that member, so that none
//! reads there what was before; or it fails, where too many did.

use super::round::roles;
use super::shard::Shard;
use super::stripe::{Phase, Stripe};
use super::view::View;
use crate::bdev::Status;

impl Stripe {
    /// The member in `bay` does not get what this round stores. Until every node knows that it is
    /// lost, one of them may still read the old bytes there, and the round must not end.
    pub(super) fn not_stored(&mut self, bay: usize, members: usize, settled: &View) {
        let known = !settled.takes(bay, self.row, members);
        self.unwritten |= u64::from(!known) << bay;
    }
}

impl Shard {
    /// Finishes a round once every node knows of the members that failed to store it.
    pub(super) fn settle(&mut self, at: u32) {
        // Mostly there is none.
        let known = self.cache[at].unwritten == 0 || self.is_known(at);
        if known && self.is_lost(at) {
            // What it stored can't be told any more from what the members hold.
            return self.fail_round(at, Status::WriteFault);
        }
        if !known || self.clears(at) {
            self.cache[at].phase = Phase::Settling;
            self.settling.push(at);
        } else if !self.strikes(at) {
            self.finish(at);
        }
    }

    /// The bytes of a stripe on every member.
    fn extent(&self, at: u32) -> std::ops::Range<u64> {
        let start = self.geometry.member_offset(self.cache[at].number);
        start..start + u64::from(self.geometry.stripe_bytes())
    }

    /// Whether every node knows of the members that failed to store a round.
    fn is_known(&self, at: u32) -> bool {
        let stripe = &self.cache[at];
        let (settled, members) = (&self.settled, self.geometry.members());
        let extent = self.extent(at);
        roles(stripe.unwritten).all(|bay| {
            let noted = || settled.is_bad(settled.slot_in(bay), extent.start, extent.end);
            !settled.takes(bay, stripe.row, members) || noted()
        })
    }

    /// Whether so many members failed to store a round that what it stored is lost.
    fn is_lost(&self, at: u32) -> bool {
        let stripe = &self.cache[at];
        if stripe.unwritten == 0 {
            return false;
        }
        let (settled, row) = (&self.settled, stripe.row);
        let extent = self.extent(at);
        // What this round has stored is not bad any more.
        let stored = roles(stripe.dirty | stripe.heal)
            .map(|role| self.geometry.member(row, role))
            .filter(|&slot| stripe.unwritten & (1 << self.view.bay(slot)) == 0)
            .fold(0u64, |slots, slot| slots | 1 << slot);
        let is_bad =
            |slot| stored & (1u64 << slot) == 0 && settled.is_bad(slot, extent.start, extent.end);
        let is_lost = |slot| !settled.writable(slot, row) || is_bad(slot);
        (0..self.geometry.members()).filter(|&s| is_lost(s)).count() > 1
    }
}
