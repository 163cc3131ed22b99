//! When the next request may be made, where their rate is limited.

use std::time::{Duration, Instant};

/// How much of a stall is made up for.
const CATCH_UP: Duration = Duration::from_millis(100);

/// A schedule of requests at even distances.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// `rate` requests a second, at least 1, beginning at `now`.
    pub fn new(rate: u64, now: Instant) -> Self {
        let interval = Duration::from_secs(1).as_nanos() as u64 / rate.max(1);
        Self {
            interval: Duration::from_nanos(interval),
            next: now,
        }
    }

    /// Whether a request is due; if so, it counts as made.
    pub fn take(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        self.next = self.next.max(earliest) + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(pace: &mut Pace, now: Instant) -> usize {
        (0..100_000).take_while(|_| pace.take(now)).count()
    }

    #[test]
    fn requests_are_spread_over_time() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(made(&mut pace, at(0)), 1);
        assert_eq!(made(&mut pace, at(0)), 0);
        assert_eq!(made(&mut pace, at(10)), 10);
        let total: usize = (11..=1000).map(|ms| made(&mut pace, at(ms))).sum();
        assert_eq!(total, 990);
    }

    #[test]
    fn a_stall_is_made_up_for_only_in_part() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        // A hundred milliseconds' worth, and the one that is due now.
        assert_eq!(made(&mut pace, start + Duration::from_secs(60)), 101);
    }
}
