//! Hosts that ask for much at once are given it in portions, in turn, and nothing is forgotten between
//! two turns.

use std::sync::Arc;

use super::commands::{flush, read};
use super::device::Puppet;
use super::host::Host;
use super::world::{Plan, World};
use crate::memory::Class;
use crate::nvmf::{PayloadSizes, TransportOptions};

/// Reads that one host has in flight: more than are taken in one turn.
const READS: usize = 400;

/// Hosts that have so many in flight at most.
const GREEDY: usize = 10;

/// One group, with memory for all that is asked for.
fn plan() -> Plan {
    let bulk = vec![Class {
        slot_size: 4096,
        slots: GREEDY * READS,
    }];
    Plan {
        groups: 1,
        options: TransportOptions {
            max_queue_depth: 512,
            ..TransportOptions::default()
        },
        sizes: PayloadSizes {
            bulk,
            ..Plan::default().sizes
        },
        ..Plan::default()
    }
}

fn world() -> World {
    World::with(plan())
}

fn ask(host: &mut Host) {
    for n in 0..READS as u64 {
        host.submit_read(read(n, 1), 512);
    }
}

#[test]
fn two_hosts_are_given_their_portions_in_turn() {
    let mut world = world();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut hosts = [1, 2].map(|qid| Host::deep(&mut world, cntlid, qid, 512));
    hosts.iter_mut().for_each(ask);
    world.turn();
    let first = hosts.each_mut().map(Host::answered);
    assert!(first.iter().all(|&n| n > 0), "{first:?}");
    assert!(first.iter().sum::<usize>() < READS, "{first:?}");
    world.settle();
    let rest = hosts.each_mut().map(Host::answered);
    assert_eq!([first[0] + rest[0], first[1] + rest[1]], [READS; 2]);
    assert!(world.memory_is_whole());
}

/// A host that has answers asks for more while the rest of what it had asked for is done.
#[test]
fn what_a_round_has_brought_is_sent_before_the_next() {
    let mut world = world();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::deep(&mut world, cntlid, 1, 512);
    let before = io.pipe.sends();
    // A round takes 128 commands of a connection.
    let commands = 200;
    for _ in 0..commands {
        io.submit(flush(), &[]);
    }
    world.turn();
    assert_eq!(io.answered(), commands, "all in one turn");
    assert_eq!(io.pipe.sends() - before, 2);
}

#[test]
fn large_reads_count_as_several() {
    let mut world = World::bare(&plan());
    let puppet = Puppet::new("Test0", 16384, |_| {});
    world.export(Arc::new(puppet.clone()));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut hosts = [1, 2].map(|qid| Host::deep(&mut world, cntlid, qid, 512));
    let (reads, blocks) = (40, 256);
    for host in &mut hosts {
        for n in 0..reads as u64 {
            host.submit_read(read(n, blocks), blocks * 512);
        }
    }
    world.turn();
    // 128 KiB each: four in each of four rounds.
    assert_eq!(puppet.seen().len(), 16);
    world.settle();
    assert_eq!(hosts.each_mut().map(Host::answered), [reads; 2]);
    assert!(world.memory_is_whole());
}

#[test]
fn what_a_turn_has_left_is_done_in_the_next_though_nothing_more_comes() {
    let mut world = world();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::deep(&mut world, cntlid, 1, 512);
    ask(&mut io);
    world.turn();
    let mut count = io.answered();
    assert!((1..READS).contains(&count), "{count}");
    // From now on the group looks only at connections of which it knows that they have something.
    world.side.borrow_mut().groups[0].watch_nobody();
    world.settle();
    count += io.answered();
    assert_eq!(count, READS);
}

#[test]
fn who_waits_for_room_in_its_queue_is_not_forgotten_among_greedy_hosts() {
    let mut world = world();
    let (_admin, cntlid) = Host::admin(&mut world);
    let qids = 1..=GREEDY as u16;
    let deep = |qid| Host::deep(&mut world, cntlid, qid, 512);
    let mut greedy: Vec<Host> = qids.map(deep).collect();
    let mut modest = Host::io(&mut world, cntlid, GREEDY as u16 + 1);
    greedy.iter_mut().for_each(ask);
    // One more than there is room for: it is taken when an answer has left.
    for _ in 0..33 {
        modest.submit(flush(), &[]);
    }
    world.turn();
    world.side.borrow_mut().groups[0].watch_nobody();
    world.settle();
    assert_eq!(modest.answered(), 33);
    assert_eq!(
        greedy.iter_mut().map(Host::answered).sum::<usize>(),
        GREEDY * READS
    );
}
