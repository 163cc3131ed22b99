//! Stripes that wait before they begin: those of which a stream has written a part, for the rest;
//! and those that would read before they write, for the budget of such stripes.

use std::time::{Duration, Instant};

use super::batch::{Charge, LinkId};
use super::gather::Batch;
use super::message::Job;
use super::shard::Shard;
use super::stripe::Phase;

/// Streams that a shard, or a router, keeps in mind.
const STREAMS: usize = 16;
/// Stripes that do not wait after a first wait in vain, and after many.
const PENALTY: std::ops::RangeInclusive<u32> = 16..=16384;
/// Waits in a row that were worth while and halve the penalty.
const WINS: u32 = 64;

/// Where the latest sequential writers have come to.
#[derive(Debug)]
pub(super) struct Streams {
    ends: [u64; STREAMS],
    /// The one to be forgotten next.
    next: usize,
    /// The one that went on last.
    latest: usize,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            ends: [u64::MAX; STREAMS],
            next: 0,
            latest: 0,
        }
    }

    /// Notes a write of `offset..end`, and says whether it goes on where an earlier one ended, give
    /// or take `slack` bytes (requests of a stream overtake one another on their way).
    pub(super) fn follows(&mut self, offset: u64, end: u64, slack: u64) -> bool {
        // As differences of numbers without a sign: a comparison for each.
        let least = offset.saturating_sub(slack);
        let near = |known: &u64| known.wrapping_sub(least) <= offset - least + slack;
        if !near(&self.ends[self.latest]) {
            // Nearly all writes at random are near none; all of them are looked at, without a branch.
            if !self.ends.iter().fold(false, |any, known| any | near(known)) {
                self.ends[self.next] = end;
                self.next = (self.next + 1) % STREAMS;
                return false;
            }
            self.latest = self.ends.iter().position(near).expect("one is near");
        }
        let latest = &mut self.ends[self.latest];
        *latest = end.max(*latest);
        true
    }
}

/// Learns from waits that were in vain: after each, twice as many stripes do not wait at all. It is
/// forgotten slowly: a wait in vain costs a stream far more than one that was worth while brings.
#[derive(Debug, Default)]
pub(super) struct Patience {
    skip: u32,
    penalty: u32,
    wins: u32,
}

impl Patience {
    fn allows(&mut self) -> bool {
        let allowed = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        allowed
    }

    fn won(&mut self) {
        self.wins += 1;
        if self.wins == WINS {
            self.wins = 0;
            self.penalty /= 2;
        }
    }

    fn lost(&mut self) {
        self.wins = 0;
        self.penalty = (2 * self.penalty).clamp(*PENALTY.start(), *PENALTY.end());
        self.skip = self.penalty;
    }
}

/// Counts the turns of a shard, so that no wait ends before others had a turn to end it: where a
/// turn takes long, the time alone would be over at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub now: Instant,
    turn: u64,
}

/// When a wait ends at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub at: Instant,
    turn: u64,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self { now, turn: 0 }
    }

    /// It is `now`; a turn has gone by if time has.
    pub(super) fn advance(&mut self, now: Instant) {
        self.turn += u64::from(now != self.now);
        self.now = now;
    }

    pub(super) fn after(&self, wait: Duration) -> Limit {
        Limit {
            at: self.now + wait,
            turn: self.turn + 2,
        }
    }

    pub(super) fn is_over(&self, limit: Limit) -> bool {
        self.now >= limit.at && self.turn >= limit.turn
    }
}

impl Shard {
    /// Whether the write of `job` to `row` may wait for more: it is a stream's, more is likely to
    /// come, and nobody is in a hurry.
    pub(super) fn may_wait(&self, job: &Job, row: u64) -> bool {
        if !job.streams || job.alone || job.op.is_fua() || self.batching.partial_wait.is_zero() {
            return false;
        }
        !self.geometry.covers_row(job.offset, job.len, row) && self.clock.is_some()
    }

    /// Lets a stripe with its first fragment wait, if waiting has been worth while.
    pub(super) fn begin_wait(&mut self, at: u32, bytes: u32) -> bool {
        let Some(clock) = self.clock.filter(|_| self.patience.allows()) else {
            return false;
        };
        let stripe = &mut self.cache[at];
        stripe.filled = bytes;
        stripe.wait = Some(clock.after(self.batching.partial_wait));
        self.cache.wait(at);
        self.counters.waits += 1;
        true
    }

    /// More came for a stripe that waits. It begins if it has all it can get, or if what came is
    /// in a hurry.
    pub(super) fn fill(&mut self, at: u32, bytes: u32, hurry: bool) {
        let all = self.geometry.stripe_bytes() * self.geometry.data() as u32;
        let stripe = &mut self.cache[at];
        stripe.filled = stripe.filled.saturating_add(bytes);
        if stripe.filled >= all {
            self.patience.won();
            self.counters.waits_filled += 1;
        } else if !hurry {
            return;
        }
        self.cache.wake(at);
        self.ready.push_back(at);
    }

    /// Ends waits whose time has come, and all of them where others wait for stripes or pages.
    pub(super) fn end_waits(&mut self) {
        let pressed = !self.starved.is_empty() || !self.intake.is_empty() || !self.view.online;
        let mut lost = false;
        while let Some(at) = self.cache.longest_waiting() {
            let wait = self.cache[at].wait;
            let over = |clock: Clock| wait.is_none_or(|limit| clock.is_over(limit));
            if !pressed && !self.clock.is_some_and(over) {
                break;
            }
            lost = true;
            self.cache.wake(at);
            self.ready.push_back(at);
        }
        if lost {
            self.patience.lost();
        }
    }

    /// The link of a stripe.
    pub(super) fn link(&self, at: u32) -> LinkId {
        LinkId {
            shard: self.id as u16,
            index: at,
        }
    }

    /// Asks for the right to read before writing; else the stripe waits for it, and holds nothing
    /// meanwhile.
    pub(super) fn charge(&mut self, at: u32) -> bool {
        match self.crossing.links().charge(self.link(at)) {
            Charge::Held => {
                self.cache[at].charged = true;
                true
            }
            Charge::Full => {
                let stripe = &mut self.cache[at];
                stripe.phase = Phase::Delayed;
                stripe.forget();
                self.counters.delayed += 1;
                self.delayed.push_back(at);
                false
            }
            Charge::Follower => unreachable!("a stripe that is away does not begin a round"),
        }
    }

    /// A write in a hurry came for a stripe whose batch may still be open: its charge is taken now,
    /// ahead of those that are delayed, and the batch does not wait any longer.
    pub(super) fn hurry(&mut self, at: u32) {
        let key = self.cache[at].batch;
        // Whoever takes a run away gives back the charge of its first link, and sees no other.
        let stays = |batch: &Batch| batch.stripes[0] == at || batch.is_ours();
        let stays = self.batches.get(key as usize).is_some_and(stays);
        if stays && self.crossing.links().charge(self.link(at)) == Charge::Held {
            self.cache[at].charged = true;
        }
        self.hasten(key);
    }

    /// Gives back what the stripe was charged.
    pub(super) fn discharge(&mut self, at: u32) {
        if std::mem::take(&mut self.cache[at].charged) {
            self.crossing.links().discharge(self.link(at));
        }
    }

    /// Lets as many delayed stripes try again as there are charges left, before any other.
    pub(super) fn end_delays(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let active = self.crossing.links().preread_active(self.id);
        let free = self.batching.preread_limit.saturating_sub(active) as usize;
        for _ in 0..free.min(self.delayed.len()) {
            let at = self.delayed.pop_front().expect("counted above");
            self.cache[at].phase = Phase::Ready;
            self.ready.push_front(at);
        }
    }

    /// Stripes that wait, for more writes or for the budget.
    pub(super) fn waiting(&self) -> usize {
        self.delayed.len() + self.cache.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_where_it_ended() {
        let mut streams = Streams::new();
        assert!(!streams.follows(0, 4096, 0));
        assert!(streams.follows(4096, 8192, 0));
        assert!(!streams.follows(4096, 8192, 0), "it has gone on since");
        assert!(streams.follows(4096, 8192, 4096), "near enough");
        // As many others as are kept in mind push it out.
        for n in 1..=STREAMS as u64 {
            assert!(!streams.follows(n << 30, (n << 30) + 1, 0));
        }
        assert!(!streams.follows(8192, 12288, 0));
    }

    #[test]
    fn waits_in_vain_become_rare() {
        let mut patience = Patience::default();
        assert!(patience.allows());
        let mut refused = |wins: u32| {
            (0..wins).for_each(|_| patience.won());
            patience.lost();
            (0..100_000).take_while(|_| !patience.allows()).count()
        };
        assert_eq!([refused(0), refused(0), refused(0)], [16, 32, 64]);
        assert_eq!(refused(63), 128, "a few good ones change nothing");
        assert_eq!(refused(64), 128, "many do: half, and then twice as many");
        assert_eq!(refused(4 * 64), 16);
        for _ in 0..20 {
            refused(0);
        }
        assert_eq!(refused(0), 16384);
    }

    #[test]
    fn a_wait_is_over_when_its_time_and_two_turns_are() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let limit = clock.after(Duration::from_micros(10));
        clock.advance(start + Duration::from_secs(1));
        assert!(!clock.is_over(limit), "one long turn");
        clock.advance(start + Duration::from_secs(1));
        assert!(!clock.is_over(limit), "the same turn");
        clock.advance(start + Duration::from_secs(2));
        assert!(clock.is_over(limit));

        let limit = clock.after(Duration::from_secs(10));
        for _ in 0..3 {
            clock.advance(clock.now + Duration::from_secs(3));
            assert!(!clock.is_over(limit), "many short turns");
        }
        clock.advance(clock.now + Duration::from_secs(1));
        assert!(clock.is_over(limit));
    }
}
