use super::*;

fn limiter(limits: RateLimits) -> Arc<Limiter> {
    Limiter::new(&limits, Instant::now()).expect("there are limits")
}

/// The time in the middle of a slice.
fn within(slice: u64) -> Ticks {
    Ticks(slice * SLICE + SLICE / 2)
}

/// How many requests go in a slice, all of which came at its beginning.
fn go(limiter: &Limiter, way: Way, bytes: u64, slice: u64) -> u64 {
    let now = within(slice);
    let asked = std::iter::repeat_with(|| limiter.admit(way, bytes, now, now));
    asked.take(1000).take_while(Result::is_ok).count() as u64
}

#[test]
fn a_slice_lets_through_what_is_allowed_and_no_more() {
    let ios = limiter(RateLimits {
        rw_ios: 20_000,
        ..RateLimits::default()
    });
    for slice in 0..50 {
        assert_eq!(go(&ios, Way::Read, 4096, slice), 20);
        assert_eq!(go(&ios, Way::Write, 4096, slice), 0);
    }
    // 4,096,000 bytes in a second: one block of 4 KiB in a slice.
    let bytes = limiter(RateLimits {
        rw_bytes: 4_096_000,
        ..RateLimits::default()
    });
    for slice in 0..50 {
        assert_eq!(go(&bytes, Way::Write, 4096, slice), 1);
    }
}

/// A request that is larger than a slice's budget goes, and others wait until it is paid for.
#[test]
fn what_was_taken_too_much_is_paid_for() {
    let bytes = limiter(RateLimits {
        w_bytes: 1 << 20,
        ..RateLimits::default()
    });
    let now = within(0);
    assert_eq!(bytes.admit(Way::Write, 1 << 19, now, now), Ok(()));
    // Half of a second's bytes are half a second.
    let paid = Ticks(500 * SLICE);
    assert_eq!(bytes.admit(Way::Write, 512, now, now), Err(paid));
    let early = Ticks(paid.0 - 1);
    assert_eq!(bytes.admit(Way::Write, 512, now, early), Err(paid));
    assert_eq!(bytes.admit(Way::Write, 512, paid, paid), Ok(()));
    // Reads are not limited.
    assert_eq!(go(&bytes, Way::Read, 512, 0), 1000);
}

#[test]
fn all_limits_that_concern_a_request_hold() {
    let all = limiter(RateLimits {
        rw_ios: 10_000,
        rw_bytes: 8 * 4_096_000,
        r_bytes: 2 * 4_096_000,
        w_bytes: 0,
    });
    // Two reads for their bytes, then six writes for those of both.
    assert_eq!(go(&all, Way::Read, 4096, 0), 2);
    assert_eq!(go(&all, Way::Write, 4096, 0), 6);
    // Small ones are limited by their number.
    assert_eq!(go(&all, Way::Write, 512, 1), 10);
}

/// What nobody asked for is lost, but for a request that has been waiting.
#[test]
fn what_was_left_goes_to_those_who_waited() {
    let limits = RateLimits {
        rw_ios: 1000,
        ..RateLimits::default()
    };
    let idle = limiter(limits);
    assert_eq!(go(&idle, Way::Read, 512, 0), 1);
    assert_eq!(go(&idle, Way::Read, 512, 100), 1);
    let waiting = |slices: u64| {
        let limiter = limiter(limits);
        let (since, now) = (within(1), within(1 + slices));
        let asked = std::iter::repeat_with(|| limiter.admit(Way::Read, 512, since, now));
        asked.take_while(Result::is_ok).count() as u64
    };
    assert_eq!(waiting(3), 4);
    assert_eq!(waiting(500), CARRIED + 1);
}

#[test]
fn instants_and_ticks_are_the_same_times() {
    let limiter = limiter(RateLimits {
        rw_ios: 1000,
        ..RateLimits::default()
    });
    let later = limiter.epoch + Duration::from_micros(12_345);
    assert_eq!(limiter.ticks(later), Ticks(12_345_000 * PER_NANOSECOND));
    assert_eq!(limiter.instant(limiter.ticks(later)), later);
    // Never early.
    let odd = Ticks(12_345_000 * PER_NANOSECOND + 1);
    assert!(limiter.ticks(limiter.instant(odd)) >= odd);
    assert!(Limiter::new(&RateLimits::default(), later).is_none());
}

/// Threads that take from one budget take no more than it has, but for one request each.
#[test]
fn reactors_share_one_budget() {
    let limiter = limiter(RateLimits {
        rw_ios: 100_000,
        ..RateLimits::default()
    });
    const THREADS: u64 = 4;
    const SLICES: u64 = 200;
    let taken: u64 = std::thread::scope(|scope| {
        let work = || {
            (0..SLICES)
                .map(|slice| go(&limiter, Way::Read, 512, slice))
                .sum::<u64>()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert!(taken <= SLICES * 100 + THREADS, "{taken}");
    assert!(taken >= 100, "{taken}");
}
