//! A device with limits, as hosts meet it.

use std::sync::Arc;
use std::time::Duration;

use super::commands::{flush, halves, read, write};
use super::device::Puppet;
use super::host::Host;
use super::party::Party;
use super::world::{NQN, Plan, World};
use crate::bdev::RateLimits;
use crate::nvme::Status;
use crate::nvme::reservation::{AcquireAction, Keys, ReservationCommand, ReservationType};

fn ios(rw_ios: u64) -> RateLimits {
    RateLimits {
        rw_ios,
        ..RateLimits::default()
    }
}

/// A world whose one device is the test's and may be used so much.
fn world(limits: RateLimits) -> (World, Puppet) {
    let mut world = World::bare(&Plan::default());
    let puppet = Puppet::new("p", 1024, |_| {});
    world.export(Arc::new(puppet.clone()));
    set(&mut world, limits);
    (world, puppet)
}

fn set(world: &mut World, limits: RateLimits) {
    world.registry.set_limits("p", limits).expect("it is there");
    world.target.limit("p", &limits);
}

/// How many requests have gone to the device since the last look.
fn gone(puppet: &Puppet) -> usize {
    puppet.seen().len()
}

#[test]
fn hosts_get_what_is_allowed_on_all_queues_together() {
    let (mut world, puppet) = world(ios(1000));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut queues = [1, 2].map(|qid| Host::io(&mut world, cntlid, qid));
    // Time stands still until it is let go.
    world.pass(Duration::from_secs(1));
    for queue in &mut queues {
        for n in 0..10 {
            queue.submit(write(n, 1), &[1; 512]);
        }
    }
    world.settle();
    assert_eq!(gone(&puppet), 1);
    // A step of 100 ms, in which both reactors were late: they take what was left of the last slices.
    world.pass(Duration::from_millis(100));
    let first = gone(&puppet);
    assert!((1..=11).contains(&first), "{first}");
    // Flushes do not wait.
    queues[0].submit(flush(), &[]);
    world.settle();
    assert_eq!(gone(&puppet), 1);
    world.pass(Duration::from_secs(10));
    assert_eq!(1 + first + gone(&puppet), 20);
    let answers: usize = queues.iter_mut().map(Host::answered).sum();
    assert_eq!(answers, 21);
    assert!(world.memory_is_whole());
}

#[test]
fn limits_that_change_or_go_take_effect_at_once() {
    let (mut world, puppet) = world(ios(1000));
    let (_admin, mut io) = Host::queue(&mut world);
    for n in 0..20 {
        io.submit(write(n, 1), &[1; 512]);
    }
    world.settle();
    assert_eq!(gone(&puppet), 1);
    set(&mut world, ios(5000));
    world.settle();
    assert_eq!(gone(&puppet), 5);
    set(&mut world, RateLimits::default());
    world.settle();
    assert_eq!(gone(&puppet), 14);
    assert_eq!(io.answered(), 20);
}

#[test]
fn a_namespace_is_removed_without_waiting_for_its_limits() {
    let (mut world, puppet) = world(ios(1000));
    let (_admin, mut io) = Host::queue(&mut world);
    for n in 0..20 {
        io.submit(write(n, 1), &[1; 512]);
    }
    world.settle();
    let removed = world.target.remove_namespace(&mut world.registry, NQN, 1);
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(gone(&puppet), 20);
    world.settle();
    assert_eq!(io.answered(), 20);
    assert_eq!(world.registry.claim_of("p"), None);
}

#[test]
fn a_device_is_exported_with_the_limits_that_it_has() {
    let mut world = World::bare(&Plan::default());
    let puppet = Puppet::new("p", 1024, |_| {});
    world
        .registry
        .add(Arc::new(puppet.clone()))
        .expect("a new name");
    set(&mut world, ios(1000));
    let options = crate::nvmf::NamespaceOptions {
        bdev_name: "p".into(),
        ..Default::default()
    };
    let added = world
        .target
        .add_namespace(&mut world.registry, NQN, options);
    added.expect("a namespace");
    let (_admin, mut io) = Host::queue(&mut world);
    for n in 0..20 {
        io.submit(write(n, 1), &[1; 512]);
    }
    world.settle();
    assert_eq!(gone(&puppet), 1);
}

#[test]
fn a_host_that_goes_leaves_nothing_behind() {
    let (mut world, puppet) = world(ios(1000));
    let (admin, mut io) = Host::queue(&mut world);
    for n in 0..20 {
        match n % 2 {
            0 => io.submit(write(n, 1), &[1; 512]),
            _ => io.submit_read(read(n, 1), 512),
        };
    }
    world.settle();
    assert!(!world.memory_is_whole());
    drop(io);
    drop(admin);
    world.settle();
    assert!(world.memory_is_whole());
    // None of it was done that had not begun.
    assert!(gone(&puppet) <= 2);
    assert!(world.target.controllers(NQN).expect("there").is_empty());
}

#[test]
fn the_target_stops_without_waiting_for_limits() {
    let (mut world, puppet) = world(ios(1000));
    let (_admin, mut io) = Host::queue(&mut world);
    for n in 0..20 {
        io.submit(write(n, 1), &[1; 512]);
    }
    world.settle();
    let deadline = world.now() + Duration::from_secs(20);
    assert!(world.target.stop(deadline));
    assert_eq!(gone(&puppet), 20);
}

/// What a host was not let do before it was shut out is not done afterwards, and whoever shuts it out does not wait for it.
#[test]
fn a_host_that_is_preempted_has_nothing_done_that_waited() {
    const ABORTED_PREEMPT: u16 = Status::ABORTED_PREEMPT.code();
    let (mut world, puppet) = world(RateLimits::default());
    let (mut a, mut b) = (Party::new(&mut world, 1), Party::new(&mut world, 2));
    let kind = ReservationType::WriteExclusive;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    set(&mut world, ios(1000));
    world.settle();
    let waiting: Vec<u16> = (0..6)
        .map(|n| a.io.submit(write(n, 1), &[1; 512]))
        .collect();
    world.settle();
    assert_eq!(gone(&puppet), 1);
    let abort = ReservationCommand::Acquire {
        action: AcquireAction::PreemptAndAbort,
        kind,
    };
    assert_eq!(b.reserve(&mut world, abort, Keys::new(2, 1)), 0);
    let ends = waiting
        .into_iter()
        .map(|cid| a.io.finish(&mut world, cid).status().code());
    let ends: Vec<u16> = ends.collect();
    assert_eq!(ends[0], 0);
    assert!(
        ends[1..].iter().all(|&end| end == ABORTED_PREEMPT),
        "{ends:x?}"
    );
    world.pass(Duration::from_secs(1));
    assert_eq!(gone(&puppet), 0);
    assert!(world.memory_is_whole());
}

/// The same without an abort: what is not with the device yet may not go there any more. Reads may.
#[test]
fn a_preempted_hosts_writes_that_waited_are_conflicts() {
    const CONFLICT: u16 = Status::RESERVATION_CONFLICT.code();
    const FAILED_FUSED: u16 = Status::ABORTED_FAILED_FUSED.code();
    let (mut world, puppet) = world(RateLimits::default());
    let (mut a, mut b) = (Party::new(&mut world, 1), Party::new(&mut world, 2));
    let kind = ReservationType::WriteExclusive;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    set(&mut world, ios(1000));
    world.settle();
    let first = a.io.submit(write(0, 1), &[1; 512]);
    world.settle();
    assert_eq!(gone(&puppet), 1);
    let reads: Vec<u16> = (0..3).map(|n| a.io.submit_read(read(n, 1), 512)).collect();
    let mut writes: Vec<u16> = (0..3)
        .map(|n| a.io.submit(write(n, 1), &[1; 512]))
        .collect();
    let (compare, written) = halves(5, 1);
    let compare = a.io.submit(compare, &[0; 512]);
    let written = a.io.submit(written, &[1; 512]);
    world.settle();
    assert_eq!(gone(&puppet), 0);
    assert_eq!(b.preempt(&mut world, kind, 2, 1), 0);
    let mut end = |cid| a.io.finish(&mut world, cid).status().code();
    assert_eq!(end(first), 0);
    writes.push(compare);
    let ends: Vec<u16> = writes.into_iter().map(&mut end).collect();
    assert!(ends.iter().all(|&end| end == CONFLICT), "{ends:x?}");
    assert_eq!(end(written), FAILED_FUSED);
    world.pass(Duration::from_secs(1));
    // The reads, and nothing else.
    assert_eq!(gone(&puppet), 3);
    for cid in reads {
        assert_eq!(a.io.finish(&mut world, cid).status().code(), 0);
    }
    assert!(world.memory_is_whole());
}
