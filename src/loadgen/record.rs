//! What one logical block may hold, in 64 bits.
//!
//! Generations of a block are consecutive, and at most one write of it is in flight. So what it may
//! hold is always an interval: from the newest generation that it certainly held to the newest
//! that was ever sent.

/// The largest generation.
pub const MAX_GENERATION: u32 = (1 << 31) - 1;

const IN_FLIGHT: u64 = 1 << 31;
const SETTLED: u64 = 1 << 63;
const GENERATION: u64 = MAX_GENERATION as u64;

/// The record of one block. All zeros: never written, content unknown.
///
/// Bits 30:0 oldest generation it may hold (0: what was there before the first write), bit 31 a
/// write is in flight, bits 62:32 newest generation sent, bit 63 the content is the oldest one for
/// certain, although newer ones were sent and never acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record(pub u64);

impl Record {
    /// Oldest generation that the block may hold; 0 is what was there before the first write.
    pub fn oldest(self) -> u32 {
        (self.0 & GENERATION) as u32
    }

    /// Newest generation ever sent.
    pub fn newest(self) -> u32 {
        (self.0 >> 32 & GENERATION) as u32
    }

    /// Whether a write of the block is in flight.
    pub fn is_in_flight(self) -> bool {
        self.0 & IN_FLIGHT != 0
    }

    /// Whether the block holds exactly one known generation: [`Record::oldest`].
    pub fn is_settled(self) -> bool {
        self.0 & SETTLED != 0 || self.oldest() == self.newest()
    }

    /// Whether the block may hold this generation.
    pub fn allows(self, generation: u32) -> bool {
        if self.is_settled() {
            generation == self.oldest()
        } else {
            (self.oldest()..=self.newest()).contains(&generation)
        }
    }

    /// The record while the next generation is in flight; `None` at [`MAX_GENERATION`].
    #[must_use]
    pub fn sent(self) -> Option<Self> {
        debug_assert!(!self.is_in_flight());
        let newest = self.newest();
        (newest < MAX_GENERATION).then(|| Self::of(self.oldest(), newest + 1, IN_FLIGHT))
    }

    /// The record when the write in flight was acknowledged.
    #[must_use]
    pub fn acknowledged(self) -> Self {
        debug_assert!(self.is_in_flight());
        Self::of(self.newest(), self.newest(), 0)
    }

    /// The record when the write in flight failed or was never answered.
    #[must_use]
    pub fn unanswered(self) -> Self {
        Self(self.0 & !IN_FLIGHT)
    }

    /// The record when a read has shown which of the allowed generations it is. From then on it has
    /// to stay that one.
    #[must_use]
    pub fn seen(self, generation: u32) -> Self {
        debug_assert!(self.allows(generation) && !self.is_in_flight());
        Self::of(generation, self.newest(), SETTLED)
    }

    fn of(oldest: u32, newest: u32, flags: u64) -> Self {
        Self(u64::from(oldest) | u64::from(newest) << 32 | flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_unanswered_write_may_have_happened() {
        let first = Record::default().sent().unwrap().acknowledged();
        assert!(first.is_settled());
        let unsure = first.sent().unwrap().unanswered();
        let allowed: Vec<u32> = (0..5).filter(|&g| unsure.allows(g)).collect();
        assert_eq!(allowed, [1, 2]);
        assert!(!unsure.is_settled());
        let seen = unsure.seen(1);
        let allowed: Vec<u32> = (0..5).filter(|&g| seen.allows(g)).collect();
        assert_eq!(allowed, [1]);
        // Generation 2 is never used again.
        assert_eq!(seen.sent().unwrap().newest(), 3);
    }

    #[test]
    fn generations_end() {
        let last = Record(GENERATION | GENERATION << 32);
        assert_eq!(last.sent(), None);
        assert_eq!(last.newest(), 2_147_483_647);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Acknowledged,
        Unanswered,
        Seen(prop::sample::Index),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Acknowledged),
            Just(Event::Unanswered),
            any::<prop::sample::Index>().prop_map(Event::Seen),
        ]
    }

    proptest! {
        /// Against the plain set of generations that the block may hold: none of them is ever
        /// forbidden, and nothing else is allowed as long as no write fails after a read that
        /// found an older generation than the newest (the interval then has a hole).
        #[test]
        fn it_allows_what_a_plain_set_allows(events in prop::collection::vec(event(), 0..40)) {
            let mut record = Record::default();
            let mut set = BTreeSet::from([0]);
            let mut exact = true;
            let mut newest = 0;
            for event in events {
                match event {
                    Event::Acknowledged => {
                        newest += 1;
                        set = BTreeSet::from([newest]);
                        record = record.sent().unwrap().acknowledged();
                        exact = true;
                    }
                    Event::Unanswered => {
                        exact &= set.contains(&newest);
                        newest += 1;
                        set.insert(newest);
                        let sent = record.sent().unwrap();
                        prop_assert!(set.iter().all(|&g| sent.allows(g)));
                        record = sent.unanswered();
                    }
                    Event::Seen(which) => {
                        let found = *which.get(&Vec::from_iter(set.iter().copied()));
                        set = BTreeSet::from([found]);
                        record = record.seen(found);
                        exact = true;
                    }
                }
                for generation in 0..=newest + 1 {
                    let allowed = record.allows(generation);
                    prop_assert!(allowed || !set.contains(&generation));
                    prop_assert!(!exact || allowed == set.contains(&generation));
                }
                prop_assert_eq!(record.newest(), newest);
            }
        }
    }
}
