use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::bdev::{Data, RateLimits};
use crate::nvmf::tcp::SlotId;

const BLOCK: u32 = 512;

fn request(op: Op, blocks: u32, origin: u32, number: u16) -> Request {
    let token = Token {
        origin,
        slot: SlotId(number),
        part: 0,
    };
    Request {
        token: token.bits(),
        op,
        lba: 0,
        blocks,
        data: Data::None,
    }
}

fn read(number: u16) -> Request {
    request(Op::Read, 1, 0, number)
}

fn write(number: u16) -> Request {
    request(Op::Write { fua: false }, 1, 0, number)
}

fn number(request: &Request) -> u16 {
    Token::from_bits(request.token).slot.0
}

fn limits(rw_ios: u64) -> RateLimits {
    RateLimits {
        rw_ios,
        ..RateLimits::default()
    }
}

/// Throttles of one device, each on a reactor of its own, and the time that they begin at.
fn throttles(limits: RateLimits, count: usize) -> (Vec<Throttle>, Instant) {
    let epoch = Instant::now();
    let limiter = Limiter::new(&limits, epoch).unwrap();
    let make = || Throttle::new(limiter.clone(), BLOCK);
    (std::iter::repeat_with(make).take(count).collect(), epoch)
}

fn released(throttle: &mut Throttle, now: Instant) -> Vec<u16> {
    let mut all = Vec::new();
    throttle.release(now, |request| all.push(number(&request)));
    all
}

#[test]
fn requests_wait_in_order_and_say_until_when() {
    let (mut throttles, epoch) = throttles(limits(1000), 1);
    let throttle = &mut throttles[0];
    assert!(throttle.admit(read(0), epoch).is_some());
    for n in 1..4 {
        assert!(throttle.admit(read(n), epoch).is_none());
    }
    assert_eq!(throttle.len(), 3);
    let mut now = epoch;
    for n in 1..4 {
        let due = throttle.deadline().unwrap();
        assert!(due >= epoch + Duration::from_millis(n));
        assert!(due < epoch + Duration::from_millis(n + 1));
        assert!(released(throttle, now).is_empty());
        now = due;
        assert_eq!(released(throttle, now), [n as u16]);
    }
    assert_eq!((throttle.len(), throttle.deadline()), (0, None));
}

#[test]
fn flushes_and_zeroes_never_wait() {
    let (mut throttles, epoch) = throttles(limits(1000), 1);
    let throttle = &mut throttles[0];
    let zeroes = Op::WriteZeroes {
        fua: false,
        deallocate: true,
    };
    assert!(throttle.admit(write(0), epoch).is_some());
    assert!(throttle.admit(write(1), epoch).is_none());
    for op in [Op::Flush, zeroes] {
        assert!(throttle.admit(request(op, 8, 0, 2), epoch).is_some());
    }
    assert!(throttle.admit(read(3), epoch).is_none());
}

/// Writes that wait for a limit of their own do not keep reads.
#[test]
fn reads_pass_writes() {
    let slow_writes = RateLimits {
        w_bytes: 1 << 20,
        ..RateLimits::default()
    };
    let (mut throttles, epoch) = throttles(slow_writes, 1);
    let throttle = &mut throttles[0];
    let large = request(Op::Write { fua: false }, 2048, 0, 0);
    assert!(throttle.admit(large, epoch).is_some());
    assert!(throttle.admit(write(1), epoch).is_none());
    assert!(throttle.admit(read(2), epoch).is_some());
}

#[test]
fn what_is_withdrawn_is_that_queues_and_all_of_it() {
    let (mut throttles, epoch) = throttles(limits(1000), 1);
    let throttle = &mut throttles[0];
    for n in 0..9 {
        let op = match n % 2 {
            0 => Op::Read,
            _ => Op::Write { fua: true },
        };
        let _ = throttle.admit(request(op, 1, u32::from(n) % 3, n), epoch);
    }
    let mut gone = Vec::new();
    throttle.withdraw(
        |token| token.origin == 1,
        |request| gone.push(number(&request)),
    );
    gone.sort_unstable();
    assert_eq!(gone, [1, 4, 7]);
    let left: Vec<u16> = throttles
        .remove(0)
        .into_waiting()
        .map(|r| number(&r))
        .collect();
    assert_eq!(left, [2, 6, 8, 3, 5]);
}

/// Two reactors with more to do than they may: neither goes without for long, and together they have
/// what is allowed.
#[test]
fn reactors_have_equal_shares() {
    for reactors in [2, 3, 4] {
        let (mut throttles, epoch) = throttles(limits(1000), reactors);
        let mut had = vec![0u32; reactors];
        let mut number = 0;
        let mut now = epoch;
        let slices = 1200;
        while now < epoch + Duration::from_millis(slices) {
            // Always the same one looks first.
            for (throttle, had) in throttles.iter_mut().zip(&mut had) {
                while throttle.len() < 8 {
                    number += 1;
                    *had += u32::from(throttle.admit(read(number), now).is_some());
                }
                throttle.release(now, |_| *had += 1);
            }
            now = throttles
                .iter()
                .filter_map(Throttle::deadline)
                .min()
                .unwrap();
        }
        let all: u32 = had.iter().sum();
        let fair = slices as u32 / reactors as u32;
        assert!(all <= slices as u32 && all >= slices as u32 - 2, "{had:?}");
        for had in &had {
            assert!(
                *had >= fair / 2 && *had <= fair * 2,
                "{had} of {all} for one of {reactors}"
            );
        }
    }
}

/// A reactor that always looks late has both reads and writes go.
#[test]
fn reads_and_writes_have_equal_shares() {
    for step_us in [100, 1000, 5000, 7300] {
        let (mut throttles, epoch) = throttles(limits(1000), 1);
        let throttle = &mut throttles[0];
        let (mut reads, mut writes) = (0u32, 0u32);
        for turn in 0..400 {
            let now = epoch + Duration::from_micros(step_us * turn);
            while throttle.len() < 40 {
                for request in [read(0), write(0)] {
                    let went = throttle.admit(request, now);
                    let is_read = |r: Request| r.op == Op::Read;
                    reads += u32::from(went.is_some_and(is_read));
                }
            }
            throttle.release(now, |request| match request.op {
                Op::Read => reads += 1,
                _ => writes += 1,
            });
        }
        let all = reads + writes;
        assert!(
            reads * 3 > all && writes * 3 > all,
            "{reads}, {writes} at {step_us} us"
        );
    }
}

/// What a test's reactor does at a time.
#[derive(Clone, Debug)]
struct Arrival {
    after_us: u64,
    reactor: usize,
    is_read: bool,
    blocks: u32,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (0..4000u64, 0..3usize, any::<bool>(), 1..256u32).prop_map(
        |(after_us, reactor, is_read, blocks)| Arrival {
            after_us,
            reactor,
            is_read,
            blocks,
        },
    )
}

fn any_limits() -> impl Strategy<Value = RateLimits> {
    let megabytes = || prop_oneof![Just(0), 1..64u64].prop_map(|mb| mb << 20);
    let ios = prop_oneof![Just(0), 1..20u64].prop_map(|n| n * 1000);
    (ios, megabytes(), megabytes(), megabytes()).prop_map(|(rw_ios, rw_bytes, r_bytes, w_bytes)| {
        RateLimits {
            rw_ios,
            rw_bytes,
            r_bytes,
            w_bytes,
        }
    })
}

proptest! {
    /// Whatever comes when: from the beginning of any number of slices on no limit is exceeded by more than the
    /// last request, which is paid for; all go in the end, in order, and nobody looks in vain for ever.
    #[test]
    fn no_limit_is_exceeded_and_everything_goes(
        limits in any_limits(),
        arrivals in prop::collection::vec(arrival(), 1..120),
    ) {
        prop_assume!(!limits.is_none());
        let (mut throttles, epoch) = throttles(limits, 3);
        // When each went, in microseconds, which way, and with how many bytes.
        let mut gone: Vec<(u64, bool, u64)> = Vec::new();
        let mut order: Vec<Vec<u16>> = vec![Vec::new(); 6];
        let mut arrivals = arrivals.into_iter().enumerate().peekable();
        let mut next_arrival = epoch;
        if let Some((_, first)) = arrivals.peek() {
            next_arrival += Duration::from_micros(first.after_us);
        }
        for _ in 0..100_000 {
            let due = throttles.iter().filter_map(Throttle::deadline).min();
            let arrives = arrivals.peek().is_some().then_some(next_arrival);
            let Some(now) = due.into_iter().chain(arrives).min() else {
                break;
            };
            let mut go = |at: usize, request: Request| {
                let is_read = request.op == Op::Read;
                let micros = (now - epoch).as_micros() as u64;
                gone.push((micros, is_read, u64::from(request.blocks) * u64::from(BLOCK)));
                order[2 * at + usize::from(is_read)].push(number(&request));
            };
            if Some(now) == arrives {
                let (n, arrival) = arrivals.next().expect("peeked at");
                let op = match arrival.is_read {
                    true => Op::Read,
                    false => Op::Write { fua: false },
                };
                let request = request(op, arrival.blocks, 0, n as u16);
                if let Some(request) = throttles[arrival.reactor].admit(request, now) {
                    go(arrival.reactor, request);
                }
                if let Some((_, next)) = arrivals.peek() {
                    next_arrival += Duration::from_micros(next.after_us);
                }
            }
            for (at, throttle) in throttles.iter_mut().enumerate() {
                throttle.release(now, |request| go(at, request));
            }
        }
        prop_assert!(throttles.iter().all(|t| t.len() == 0) && arrivals.peek().is_none());
        for lane in order {
            prop_assert!(lane.is_sorted(), "{lane:?}");
        }
        type Counts = fn(bool, u64) -> u64;
        let rules: [(u64, Counts); 4] = [
            (limits.rw_ios, |_, _| 1),
            (limits.rw_bytes, |_, bytes| bytes),
            (limits.r_bytes, |is_read, bytes| if is_read { bytes } else { 0 }),
            (limits.w_bytes, |is_read, bytes| if is_read { 0 } else { bytes }),
        ];
        for (per_second, count) in rules {
            if per_second == 0 {
                continue;
            }
            let mut sum = 0;
            for &(micros, is_read, bytes) in &gone {
                // All before this one were allowed by the end of the slice that it went in.
                let slices = micros / 1000 + 1;
                let allowed = u128::from(per_second) * u128::from(slices) / 1000;
                let counts = count(is_read, bytes);
                prop_assert!(counts == 0 || u128::from(sum) <= allowed, "{sum} of {allowed}");
                sum += counts;
            }
        }
    }
}
