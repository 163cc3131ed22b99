//! How deep the queue of a device is, looked at now and then by all reactors together.
//!
//! Each reactor notes what it has with the device whenever it looks after it. Once a period has passed, the
//! first that finds so adds up what all have noted. Between two looks nothing is known, as in SPDK.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is looked at, and what was seen.
#[derive(Debug)]
pub struct QueueDepth {
    epoch: Instant,
    period: Duration,
    /// By reactor.
    noted: Box<[AtomicU64]>,
    /// When to add up next, in nanoseconds.
    next: AtomicU64,
    depth: AtomicU64,
    busy_periods: AtomicU64,
    weighted_periods: AtomicU64,
}

/// What was seen of a device's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepthInfo {
    /// How often it is looked at.
    pub period: Duration,
    /// Requests with the device at the last look.
    pub depth: u64,
    /// How long there was any, in periods.
    pub busy: Duration,
    /// The same, times how many there were.
    pub weighted: Duration,
}

impl QueueDepth {
    /// Nothing seen yet, by so many reactors. `epoch` is not in the future.
    pub fn new(period: Duration, reactors: usize, epoch: Instant) -> Self {
        Self {
            epoch,
            period,
            noted: (0..reactors).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(0),
            depth: AtomicU64::new(0),
            busy_periods: AtomicU64::new(0),
            weighted_periods: AtomicU64::new(0),
        }
    }

    /// A reactor has so many requests with the device.
    pub fn note(&self, reactor: usize, requests: u64, now: Instant) {
        self.noted[reactor].store(requests, Ordering::Relaxed);
        let now = nanoseconds(now.saturating_duration_since(self.epoch));
        let due = self.next.load(Ordering::Relaxed);
        if now < due {
            return;
        }
        let next = now.saturating_add(nanoseconds(self.period));
        let order = Ordering::Relaxed;
        if self.next.compare_exchange(due, next, order, order).is_err() {
            // Another one has just done it.
            return;
        }
        let depth: u64 = self.noted.iter().map(|n| n.load(order)).sum();
        self.depth.store(depth, order);
        self.busy_periods.fetch_add(u64::from(depth > 0), order);
        self.weighted_periods.fetch_add(depth, order);
    }

    /// When to look next.
    pub fn deadline(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.next.load(Ordering::Relaxed))
    }

    /// What was seen.
    pub fn info(&self) -> QueueDepthInfo {
        let period = nanoseconds(self.period);
        let times = |periods: &AtomicU64| {
            let periods = periods.load(Ordering::Relaxed);
            Duration::from_nanos(periods.saturating_mul(period))
        };
        QueueDepthInfo {
            period: self.period,
            depth: self.depth.load(Ordering::Relaxed),
            busy: times(&self.busy_periods),
            weighted: times(&self.weighted_periods),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_reactors_have_is_added_up_once_a_period() {
        let epoch = Instant::now();
        let ms = Duration::from_millis;
        let depth = QueueDepth::new(ms(10), 2, epoch);
        depth.note(0, 3, epoch);
        // Two looks within a period are one.
        depth.note(1, 4, epoch + ms(5));
        assert_eq!(depth.info().depth, 3);
        assert_eq!(depth.deadline(), epoch + ms(10));
        depth.note(1, 4, epoch + ms(10));
        depth.note(0, 3, epoch + ms(19));
        let seen = QueueDepthInfo {
            period: ms(10),
            depth: 7,
            busy: ms(20),
            weighted: ms(3 * 10 + 7 * 10),
        };
        assert_eq!(depth.info(), seen);
        // An idle queue is looked at late, and counts for nothing.
        depth.note(0, 0, epoch + ms(19));
        depth.note(1, 0, epoch + ms(5000));
        assert_eq!(depth.info(), QueueDepthInfo { depth: 0, ..seen });
    }
}
