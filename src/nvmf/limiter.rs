//! The limits of one device, which all reactors keep together.
//!
//! Time is cut into slices. What a limit allows in a slice is its budget, and what was taken beyond it, as
//! large requests do, is taken from the slices that follow. All of that is one number for each limit: the
//! time up to which its budget is used. A request may go while that is before the end of the slice
//! that is now. Whoever takes it moves the number on, without a lock; two reactors that take the last
//! of a slice at the same time take too much once, and the next slices have less.
//!
//! What nobody takes is lost, but for the slices in which the request has been waiting already: a
//! reactor that looks late takes what was its to take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bdev::RateLimits;

/// A time since the limits were set, in sixteenths of a nanosecond: 512 bytes of 100 GB/s are still told to
/// a hundredth, and it lasts for 36 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

/// Ticks of a nanosecond.
const PER_NANOSECOND: u64 = 16;

/// Ticks of a second.
const PER_SECOND: u64 = 1_000_000_000 * PER_NANOSECOND;

/// Ticks of a slice, which is a millisecond, as in SPDK.
pub const SLICE: u64 = PER_SECOND / 1000;

/// Slices of which a request that was waiting may take what was left.
const CARRIED: u64 = 10;

/// Where the bytes of a request go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the host.
    Read,
    /// From the host.
    Write,
}

/// The limits of a device, and how far each of them is used.
#[derive(Debug)]
pub struct Limiter {
    epoch: Instant,
    ios: Option<Pace>,
    bytes: Option<Pace>,
    read: Option<Pace>,
    written: Option<Pace>,
}

/// One limit.
#[derive(Debug)]
struct Pace {
    per_second: u64,
    /// Up to when the budget is used.
    used: AtomicU64,
}

impl Limiter {
    /// What keeps these limits, if there are any; `epoch` is a time that is not in the future.
    pub fn new(limits: &RateLimits, epoch: Instant) -> Option<Arc<Self>> {
        let pace = |per_second: u64| {
            (per_second > 0).then(|| Pace {
                per_second,
                used: AtomicU64::new(0),
            })
        };
        (!limits.is_none()).then(|| {
            Arc::new(Self {
                epoch,
                ios: pace(limits.rw_ios),
                bytes: pace(limits.rw_bytes),
                read: pace(limits.r_bytes),
                written: pace(limits.w_bytes),
            })
        })
    }

    /// A time.
    pub fn ticks(&self, at: Instant) -> Ticks {
        let since = at.saturating_duration_since(self.epoch).as_nanos();
        Ticks(u64::try_from(since).map_or(u64::MAX, |ns| ns.saturating_mul(PER_NANOSECOND)))
    }

    /// The first moment that is not before a time.
    pub fn instant(&self, at: Ticks) -> Instant {
        self.epoch + Duration::from_nanos(at.0.div_ceil(PER_NANOSECOND))
    }

    /// Lets a request of so many bytes go that has been waiting since then, or says in which slice it
    /// is worth asking again: its beginning.
    ///
    /// # Errors
    /// That beginning.
    pub fn admit(&self, way: Way, bytes: u64, since: Ticks, now: Ticks) -> Result<(), Ticks> {
        let one_way = match way {
            Way::Read => &self.read,
            Way::Write => &self.written,
        };
        let paces = [(&self.ios, 1), (&self.bytes, bytes), (one_way, bytes)];
        let paces = paces.map(|(pace, units)| Some((pace.as_ref()?, units)));
        let used = paces.iter().flatten().map(|(pace, _)| pace.used());
        let opening = slice_of(used.max().unwrap_or_default());
        if opening > now {
            return Err(opening);
        }
        let carried = Ticks(now.0.saturating_sub(CARRIED * SLICE));
        let from = slice_of(since.max(carried));
        for (pace, units) in paces.into_iter().flatten() {
            pace.take(units, from);
        }
        Ok(())
    }
}

/// The beginning of the slice that a time is in.
pub fn slice_of(time: Ticks) -> Ticks {
    Ticks(time.0 - time.0 % SLICE)
}

impl Pace {
    fn used(&self) -> Ticks {
        Ticks(self.used.load(Ordering::Relaxed))
    }

    /// Takes the budget of so many units, of no slice before `from`.
    fn take(&self, units: u64, from: Ticks) {
        let cost = (u128::from(units) * u128::from(PER_SECOND)).div_ceil(self.per_second.into());
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let moved = |used: u64| Some(used.max(from.0).saturating_add(cost));
        // It never refuses.
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }
}

#[cfg(test)]
mod tests;
