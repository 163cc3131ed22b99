//! A shard's side of the partial parity log: what a round may write at once, and its wait until
//! that is noted.

use super::{Ended, Record};
use crate::bdev::Status;
use crate::raid::geometry::Mask;
use crate::raid::message::Logged;
use crate::raid::mutation::{self, Mutation};
use crate::raid::plan::{Method, Plan, Situation};
use crate::raid::round::roles;
use crate::raid::shard::Shard;
use crate::raid::stripe::{Fragment, FragmentKind, NONE, Phase};

impl Plan {
    /// Whether a round of this plan may need a page for its partial parity.
    pub(in crate::raid) fn logs(&self) -> bool {
        matches!(self.method, Method::Reconstruct | Method::Modify)
    }
}

impl Situation {
    /// Whether one entry can say what the round writes, and nothing else. A role that is written in
    /// part must be the only one: its page is of old blocks too, which would be lost together with
    /// what is being written if its member were. Where a page is written alone, its parity changes
    /// just where it does itself.
    fn suits_log(&self) -> bool {
        let written = self.full | self.part;
        let shifted = written.checked_shr(written.trailing_zeros()).unwrap_or(0);
        let one_run = shifted & (shifted + 1) == 0;
        one_run && (self.part == 0 || written.count_ones() == 1)
    }
}

/// The roles that a round may write, as it is being cut off.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u8,
    last: u8,
    /// A page of it is written in part.
    alone: bool,
}

impl Span {
    /// The span with one more fragment; `None` where that needs a round of its own.
    fn with(span: Option<Self>, fragment: &Fragment, whole: bool) -> Option<Self> {
        let (from, to) = (fragment.role, fragment.role + fragment.roles - 1);
        let Some(span) = span else {
            return Some(Self {
                first: from,
                last: to,
                alone: !whole,
            });
        };
        let (first, last) = (span.first.min(from), span.last.max(to));
        if (first, last) == (span.first, span.last) {
            let same = whole || span.first == span.last;
            return same.then_some(Self {
                alone: span.alone || !whole,
                ..span
            });
        }
        let near = from <= span.last + 1 && span.first <= to + 1;
        (near && whole && !span.alone).then_some(Self {
            first,
            last,
            ..span
        })
    }
}

impl Shard {
    /// Leaves to the round of a stripe what one entry of the log can say, and the rest to the next
    /// one. Says whether anything was taken from it.
    pub(in crate::raid) fn narrow(&mut self, at: u32, situation: &Situation) -> bool {
        if !self.ppl || !situation.parity_writable || situation.suits_log() {
            return false;
        }
        let stripe_bytes = self.geometry.stripe_bytes();
        let mut span = None;
        let mut before = NONE;
        let mut next = self.cache[at].round.first;
        while next != NONE {
            let fragment = &self.fragments[next as usize];
            let whole = match fragment.kind {
                FragmentKind::Write | FragmentKind::Zero => fragment.len == stripe_bytes,
                FragmentKind::CompareAndWrite => false,
                _ => {
                    (before, next) = (next, fragment.next);
                    continue;
                }
            };
            span = Span::with(span, fragment, whole);
            if span.is_none() {
                break;
            }
            (before, next) = (next, fragment.next);
        }
        if next == NONE {
            debug_assert!(false, "one of the two is wrong");
            return false;
        }
        let stripe = &mut self.cache[at];
        let last = std::mem::replace(&mut stripe.round.last, before);
        self.fragments[before as usize].next = NONE;
        self.fragments[last as usize].next = stripe.pending.first;
        if stripe.pending.is_empty() {
            stripe.pending.last = last;
        }
        stripe.pending.first = next;
        true
    }

    /// All that a round writes is at hand: it is noted first, where that is needed.
    pub(in crate::raid) fn log(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        if !self.ppl || stripe.dirty & self.geometry.data_mask() == 0 {
            return self.store(at);
        }
        let several = (stripe.dirty & self.geometry.data_mask()).count_ones() > 1;
        if several && self.write_caches != 0 {
            // Its entry is struck before it is acknowledged, and has to be needed no more by then.
            stripe.op = stripe.op.forced();
        }
        stripe.phase = Phase::Logging;
        self.pursue_log(at);
    }

    /// Bays whose members keep the parity of a stripe under the present view, and so must have it
    /// in their logs: that of the slot's member, and that of the one that is to replace it.
    fn log_bays(&self, at: u32) -> impl Iterator<Item = usize> + use<> {
        let row = self.cache[at].row;
        let slot = self.geometry.parity_member(row);
        let writable = self.view.writable(slot, row);
        let own = writable.then(|| self.view.bay(slot));
        let mirrors = self.view.mirrors(slot, row);
        let mirror = mirrors.then(|| self.view.bay(self.geometry.members()));
        own.into_iter().chain(mirror)
    }

    /// Whether a restart might still take a member for one that has the parity of a stripe, though
    /// it is lost.
    fn may_return(&self, at: u32) -> bool {
        let row = self.cache[at].row;
        let slot = self.geometry.parity_member(row);
        let (before, now) = (&self.settled, &self.view);
        let lost = before.readable(slot, row) && !now.readable(slot, row);
        // The mirror is given up, and has not become the member.
        let spare = self.geometry.members().min(63);
        let given_up = before.mirrors(slot, row)
            && now.replacement.is_none()
            && before.bay(spare) == now.bay(spare);
        lost || given_up
    }

    /// Has a stripe noted, or goes on with it where there is nothing (more) to be noted.
    fn pursue_log(&mut self, at: u32) {
        if self.may_return(at) {
            return;
        }
        let parity: Mask = 1 << self.geometry.data();
        let mut bays = self.log_bays(at);
        let stripe = &mut self.cache[at];
        // One after the other, and always in this order: what is open in the last one is being
        // written, and waits for no other log.
        let next = bays.find(|bay| stripe.logged & (1 << bay) == 0);
        let Some(bay) = next.filter(|_| stripe.dirty & parity != 0) else {
            return self.store(at);
        };
        if stripe.noted & (1 << bay) != 0 {
            return;
        }
        stripe.noted |= 1 << bay;
        let written = stripe.dirty & self.geometry.data_mask();
        let record = Record {
            number: stripe.number,
            stripe: at,
            first: written.trailing_zeros() as u8,
            roles: written.count_ones() as u8,
            parity: stripe.partial.clone(),
        };
        debug_assert_eq!(
            written >> record.first,
            u64::MAX >> (64 - record.roles),
            "an entry has roles that follow one another"
        );
        self.out.news.records.push((bay, record));
    }

    /// What a stripe writes is noted in a log.
    pub(in crate::raid) fn logged(&mut self, logged: Logged) {
        let stripe = &mut self.cache[logged.stripe];
        let bay = 1 << logged.bay;
        // Its member may be lost, and the stripe have gone on without.
        if stripe.number == logged.number && stripe.noted & bay != 0 {
            stripe.logged |= bay;
            if stripe.phase == Phase::Logging {
                self.pursue_log(logged.stripe);
            }
        }
    }

    /// A view was adopted: logs of members that are lost do not count. But until every node, and every superblock, knows
    /// that, a restart may find what such a log says of a stripe, and can't be told that it has ended: so that is as if
    /// the member had not got what the round stores.
    pub(in crate::raid) fn adopt_logging(&mut self) {
        if !self.ppl {
            return;
        }
        let (settled, members) = (self.settled.clone(), self.geometry.members());
        for at in 0..self.cache.len() as u32 {
            let phase = self.cache[at].phase;
            if self.cache[at].noted != 0 {
                let bays = self.log_bays(at).fold(0, |bays, bay| bays | 1 << bay);
                let stripe = &mut self.cache[at];
                for bay in roles(stripe.noted & !bays) {
                    stripe.not_stored(bay, members, &settled);
                }
                stripe.noted &= bays;
                stripe.logged &= bays;
            }
            let waits = matches!(phase, Phase::Logging | Phase::Striking);
            if waits && !self.view.online {
                if phase == Phase::Striking {
                    // The logs know that it has ended.
                    self.cache[at].logged = 0;
                }
                self.fail_round(at, Status::Offline);
            } else if phase == Phase::Logging {
                self.pursue_log(at);
            }
        }
    }

    /// Every node knows of a view: looks again at the stripes that waited for that.
    pub(in crate::raid) fn pursue_logs(&mut self) {
        if !self.ppl {
            return;
        }
        for at in 0..self.cache.len() as u32 {
            match self.cache[at].phase {
                Phase::Logging => self.pursue_log(at),
                Phase::Striking if self.cache[at].logged == 0 => self.settle(at),
                _ => {}
            }
        }
    }

    /// The round of a stripe is stored. Has its entry struck before that is acknowledged, if it may
    /// not stay a while in the newest header; says whether that is so.
    ///
    /// - Its entry says that several blocks were written. If the member of one is lost together with
    ///   the power, whoever finds the entry can't know whether all were: it has to give that block
    ///   up.
    /// - One of the blocks is not where it should be, but known to be lost there: whoever replayed
    ///   the entry might take for new what is old.
    pub(in crate::raid) fn strikes(&mut self, at: u32) -> bool {
        let stripe = &self.cache[at];
        if stripe.logged == 0 {
            return false;
        }
        let written = stripe.dirty & self.geometry.data_mask();
        let bays = roles(written).map(|role| self.bays_of(stripe.row, role));
        let lost = stripe.unwritten & bays.fold(0, |bays, more| bays | more) != 0;
        let several = written.count_ones() > 1;
        let harmless = (!several && !lost) || mutation::on(Mutation::D13);
        if harmless {
            return false;
        }
        self.cache[at].phase = Phase::Striking;
        self.tell_ended(at, true);
        true
    }

    /// An entry of a stripe is not on the medium any more.
    pub(in crate::raid) fn struck(&mut self, struck: Logged) {
        let stripe = &mut self.cache[struck.stripe];
        if stripe.number == struck.number && stripe.phase == Phase::Striking {
            stripe.logged &= !(1 << struck.bay);
            stripe.noted &= stripe.logged;
            if stripe.logged == 0 {
                self.finish(struck.stripe);
            }
        }
    }

    /// The round of a stripe has ended: its entries are not needed any more, but for what is in
    /// the caches of its members.
    pub(in crate::raid) fn unlog(&mut self, at: u32) {
        if self.cache[at].logged != 0 {
            self.tell_ended(at, false);
        }
        let stripe = &mut self.cache[at];
        stripe.partial = None;
        stripe.noted = 0;
        stripe.logged = 0;
    }

    fn tell_ended(&mut self, at: u32, strike: bool) {
        let stripe = &self.cache[at];
        let mut bays = 0;
        if !stripe.op.is_forced() {
            for role in roles(stripe.dirty | stripe.heal | stripe.copy) {
                bays |= self.bays_of(stripe.row, role);
            }
        }
        let number = stripe.number;
        for bay in roles(stripe.logged) {
            let ended = Ended {
                number,
                bays,
                strike,
            };
            self.out.news.ended.push((bay, ended));
        }
    }

    /// Bays whose members are written with a role of a row.
    fn bays_of(&self, row: u64, role: usize) -> u64 {
        let slot = self.geometry.member(row, role);
        let mut bays = 1 << self.view.bay(slot);
        if self.view.mirrors(slot, row) {
            bays |= 1 << self.view.bay(self.geometry.members());
        }
        bays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(full: Mask, part: Mask) -> Situation {
        Situation {
            data: 5,
            full,
            part,
            wanted: 0,
            cached: 0,
            unreadable: 0,
            parity_writable: true,
            verify: false,
        }
    }

    #[test]
    fn one_entry_says_roles_that_follow_one_another_or_a_part_of_one() {
        for full in [0b0, 0b1, 0b110, 0b11111, 0b10000] {
            assert!(situation(full, 0).suits_log(), "{full:b}");
        }
        for full in [0b101, 0b10001, 0b11011] {
            assert!(!situation(full, 0).suits_log(), "{full:b}");
        }
        assert!(situation(0, 0b100).suits_log());
        assert!(!situation(0, 0b11).suits_log());
        assert!(!situation(0b1, 0b10).suits_log());
    }

    #[test]
    fn a_span_grows_at_its_ends_by_whole_pages() {
        let fragment = |role| Fragment {
            job: 0,
            next: NONE,
            kind: FragmentKind::Write,
            role,
            roles: 1,
            start: 0,
            len: 0,
            at: 0,
        };
        let grow = |roles: &[(u8, bool)]| {
            roles.iter().try_fold(None, |span, &(role, whole)| {
                Span::with(span, &fragment(role), whole).map(Some)
            })
        };
        for fits in [
            &[(2, true), (3, true), (1, true), (2, true)][..],
            &[(2, false), (2, false), (2, true)],
        ] {
            assert!(grow(fits).is_some(), "{fits:?}");
        }
        for does_not in [
            &[(2, true), (4, true)][..],
            &[(4, true), (2, true)],
            &[(2, true), (3, false)],
            &[(2, false), (3, true)],
            &[(2, true), (3, true), (2, false)],
        ] {
            assert!(grow(does_not).is_none(), "{does_not:?}");
        }
    }
}
