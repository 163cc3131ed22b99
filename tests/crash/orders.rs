//! What must be durable before something else happens: for each of these orders, a short history
//! that goes wrong if it is not kept. `scripts/mutations` breaks one after another (D1 to D14 of
//! `src/raid/mutation.rs`), and sees the test that is named after it fail.
//!
//! A history is stopped at each of its steps, and every disk may come out of that in either of two
//! ways: in all combinations.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use stripewise::raid::{BatchScope, Batching, Layout, ProcessOptions};

use crate::disk::Luck;
use crate::history::{Act, Failure};
use crate::machine::Target;
use crate::random::Random;
use crate::shape::{Consistency, Shape};
use crate::start;
use crate::tally::Tally;
use crate::trial;
use crate::world::{Stop, World, Wreck};

/// What was in flight is lost; of what was acknowledged, all that was not forced is lost, or none.
const CACHES: [Luck; 2] = [Luck::Acknowledged, Luck::Nothing];
/// All that was in flight, or in a cache, is there or lost.
const EITHER: [Luck; 2] = [Luck::Everything, Luck::Nothing];

/// The slots whose members have the first two blocks of the volume; they are of one row.
const FIRST: usize = 0;
const SECOND: usize = 1;

/// Three members of four rows, whose disks have caches.
fn shape(consistency: Consistency) -> Shape {
    let chunk = 4096;
    Shape {
        members: 3,
        chunk,
        stripe: chunk,
        block: 4096,
        rows: 4,
        nodes: 2,
        run: 1,
        layout: Layout::LeftSymmetric,
        consistency,
        logs: true,
        owes: false,
        cached: u64::MAX,
        batching: Batching {
            scope: BatchScope::Off,
            request_bytes: 65536,
            preread_limit: 4,
            partial_wait: Duration::ZERO,
            join_wait: Duration::ZERO,
        },
        pace: ProcessOptions {
            window_bytes: u64::from(chunk),
            ..ProcessOptions::default()
        },
    }
}

const RESYNC: Consistency = Consistency::Resync;
const BITMAP: Consistency = Consistency::Bitmap(4096);
/// With logs that are rings.
const PPL: Consistency = Consistency::Ppl(536);

/// The first member is out, and the disks say so.
const WITHOUT_FIRST: [Act; 3] = [Act::Fail(FIRST, Failure::Removed), Act::Noticed, Act::Quiet];

/// A write of so many blocks.
fn write(lba: u64, blocks: u32) -> Act {
    Act::Write {
        lba,
        blocks,
        fua: false,
    }
}

/// The same, forced to the medium.
fn force(lba: u64, blocks: u32) -> Act {
    Act::Write {
        lba,
        blocks,
        fua: true,
    }
}

/// A new array after these acts.
fn world(shape: Shape, acts: &[Act]) -> World {
    let mut world = World::new(shape, Random(1));
    assert!(world.run(acts, &mut |_| true));
    world
}

/// What may be left of an array if it stops at some step of these acts, or behind them. What is
/// `late` is served last of all.
fn wrecks(world: &mut World, acts: &[Act], late: Target, luck: [Luck; 2]) -> Vec<Wreck> {
    let mut wrecks = Vec::new();
    let mut stop = |world: &World| {
        let ways = match luck[0] == luck[1] {
            true => 1,
            false => 1 << world.disks().len(),
        };
        let mut random = Random(wrecks.len() as u64);
        let stops = (0..ways).map(|first| Stop::Split(first, luck));
        wrecks.extend(stops.map(|stop| world.stop(stop, &mut random)));
        true
    };
    world.machine.late = Some(late);
    world.run(acts, &mut stop);
    stop(world);
    wrecks
}

/// All of these must start, without the disk of a slot if one is lost, too, and come to be in order.
fn survive(wrecks: Vec<Wreck>, lost: Option<usize>) {
    assert!(wrecks.len() > 5, "only {} wrecks", wrecks.len());
    for (at, wreck) in wrecks.into_iter().enumerate() {
        let mut random = Random(at as u64);
        let what = start::describe(&wreck.disks);
        let mut tally = Tally::default();
        let survives = || trial::survive(wreck, lost, 0, &mut random, &mut tally);
        std::panic::catch_unwind(AssertUnwindSafe(survives)).unwrap_or_else(|panic| {
            eprintln!("wreck {at}, slot {lost:?} lost:\n{what}");
            std::panic::resume_unwind(panic)
        });
    }
}

/// What is left when the first superblocks of all are on their way: each of them there or not.
fn cut_off() -> impl Iterator<Item = Wreck> {
    let mut world = world(shape(RESYNC), &[]);
    let acts = [write(0, 1), Act::Drain];
    let wrecks = wrecks(&mut world, &acts, Target::Superblock, EITHER);
    wrecks.into_iter().take(1 << 3)
}

/// The only member that has, or that lacks, the latest event.
fn only(wreck: &Wreck, has: bool) -> Option<usize> {
    let events = |disk| start::superblock(disk).expect("a member").events;
    let events: Vec<u64> = wreck.disks.iter().map(events).collect();
    let latest = events.iter().max();
    let mut such = (0..events.len()).filter(|&at| (Some(&events[at]) == latest) == has);
    such.next().filter(|_| such.next().is_none())
}

/// A block is written whose parity does not get there.
#[test]
fn d1_bits_are_set_before_anything_is_written() {
    let mut world = world(shape(BITMAP), &[]);
    let acts = [write(0, 1), Act::Drain];
    survive(wrecks(&mut world, &acts, Target::Marks, CACHES), None);
}

/// An array whose bitmap is so fine that its header and the bits of its last row lie in different
/// sectors, so that either may reach the disks first. A member is removed, misses a write to the last
/// row, and is replaced; the bits of that row are cleared. The machine is stopped while the bitmap
/// is written, and the new member lost: the old one must not take its place.
#[test]
fn d2_bits_that_a_member_lacks_are_cleared_after_it_is_known_to_lack_them() {
    let shape = Shape {
        block: 512,
        rows: 258,
        pace: ProcessOptions::default(),
        ..shape(Consistency::Bitmap(512))
    };
    let last = shape.sectors() - 1;
    let place = shape.geometry().place(last * 512);
    let slot = shape.geometry().member(place.row, place.role);
    let before = [
        force(last, 1),
        Act::Drain,
        Act::Quiet,
        Act::Fail(slot, Failure::Removed),
        Act::Noticed,
        force(last, 1),
        Act::Drain,
        Act::Replace,
        Act::Healthy,
    ];
    let mut world = world(shape, &before);
    let headless = [Luck::Headless; 2];
    survive(
        wrecks(&mut world, &[Act::Quiet], Target::Marks, headless),
        Some(slot),
    );
}

/// A member does not answer, misses a write that is acknowledged, and is back after the crash.
#[test]
fn d3_a_member_is_known_to_be_lost_before_anything_is_acknowledged_that_it_lacks() {
    let mut world = world(shape(RESYNC), &[]);
    let acts = [
        Act::Fail(FIRST, Failure::Gone),
        force(0, 1),
        Act::Drain,
        Act::Rest,
    ];
    survive(wrecks(&mut world, &acts, Target::Superblock, CACHES), None);
}

/// A block is on its member, and its parity in a cache.
#[test]
fn d4_caches_are_empty_before_bits_are_cleared() {
    let mut world = world(shape(BITMAP), &[write(0, 1), Act::Drain]);
    survive(
        wrecks(&mut world, &[Act::Quiet], Target::Flush, CACHES),
        None,
    );
}

/// The same, where there are no bits.
#[test]
fn d5_caches_are_empty_before_an_array_is_clean() {
    let mut world = world(shape(RESYNC), &[write(0, 1), Act::Drain]);
    survive(
        wrecks(&mut world, &[Act::Quiet], Target::Flush, CACHES),
        None,
    );
}

/// A new member is rebuilt, and loses what is in its cache.
#[test]
fn d6_caches_are_empty_before_a_process_is_said_to_have_come_so_far() {
    let mut world = world(shape(RESYNC), &WITHOUT_FIRST);
    let acts = [Act::Replace, Act::Rest];
    survive(wrecks(&mut world, &acts, Target::Flush, CACHES), None);
}

/// A crash leaves only one member that says that the array is written to. It is written to, stops
/// again, and loses that member.
#[test]
fn d7_all_members_say_what_one_does_before_that_is_relied_on() {
    let mut found = 0;
    for wreck in cut_off() {
        let Some(ahead) = only(&wreck, true) else {
            continue;
        };
        found += 1;
        let mut world = World::restart(wreck, false, Random(1)).expect("all are there");
        let acts = [write(0, 1), Act::Drain];
        let wrecks = wrecks(&mut world, &acts, Target::Superblock, CACHES);
        survive(wrecks, Some(ahead));
    }
    assert_eq!(found, 3, "each member may be the one");
}

/// A crash leaves one member that lacks the last superblock, and another one cuts off its next.
#[test]
fn d8_a_member_has_the_last_event_before_the_next_begins() {
    let mut found = 0;
    for wreck in cut_off().filter(|wreck| only(wreck, false).is_some()) {
        found += 1;
        let mut world = World::restart(wreck, false, Random(1)).expect("all are there");
        let acts = [write(0, 1), Act::Drain];
        let wrecks = wrecks(&mut world, &acts, Target::Superblock, EITHER);
        survive(wrecks, None);
    }
    assert_eq!(found, 3, "each member may be the one");
}

/// A new member's superblock gets there, and those that are to know it do not.
#[test]
fn d9_all_others_know_a_new_member_before_it_speaks() {
    let mut world = world(shape(RESYNC), &WITHOUT_FIRST);
    let acts = [Act::Replace, Act::Rest];
    survive(wrecks(&mut world, &acts, Target::Superblock, EITHER), None);
}

/// The others' superblocks get there, and that of the member that has replaced one does not.
#[test]
fn d10_who_has_replaced_a_member_says_so_before_all_others() {
    let mut world = world(shape(RESYNC), &[write(0, 1), Act::Drain]);
    let acts = [Act::Swap(FIRST), Act::Rest];
    survive(wrecks(&mut world, &acts, Target::Superblock, EITHER), None);
}

/// A member is lost with its cache, and is back after the crash.
#[test]
fn d11_a_member_is_known_to_be_lost_before_a_flush_is_acknowledged_that_it_lacks() {
    let mut world = world(shape(RESYNC), &[write(0, 1), Act::Drain]);
    let mut acts = vec![Act::Fail(FIRST, Failure::Gone), write(0, 1)];
    // They meet the loss at every stage of its becoming known.
    acts.extend((0..8).flat_map(|_| [Act::Wait(4), Act::Flush]));
    acts.extend([Act::Drain, Act::Rest]);
    survive(wrecks(&mut world, &acts, Target::Superblock, CACHES), None);
}

/// A member can't empty its cache any more, and loses what is in it in the crash.
#[test]
fn d14_a_member_that_fails_a_flush_is_known_to_be_lost_before_that_is_acknowledged() {
    let acts = [Act::Fail(FIRST, Failure::Stuck), write(0, 1), Act::Drain];
    let mut world = world(shape(RESYNC), &acts);
    let mut acts = vec![Act::Flush];
    acts.extend((0..8).map(|_| Act::Wait(4)));
    acts.extend([Act::Drain, Act::Rest]);
    survive(wrecks(&mut world, &acts, Target::Superblock, CACHES), None);
}

/// A block is written whose parity does not get there, or the other way round, and the member of
/// the row's other block is lost: what it held can't be told, though nobody has written there.
#[test]
fn d12_a_stripe_is_in_the_log_before_it_is_written() {
    let mut world = world(shape(PPL), &[]);
    let acts = [force(0, 1), Act::Drain];
    survive(
        wrecks(&mut world, &acts, Target::Marks, CACHES),
        Some(SECOND),
    );
}

/// Two blocks of a row are written and acknowledged, and one of the members is lost.
#[test]
fn d13_a_write_of_several_blocks_is_not_in_the_log_when_it_is_acknowledged() {
    let mut world = world(shape(PPL), &[]);
    let acts = [force(0, 2), Act::Drain, Act::Rest];
    survive(
        wrecks(&mut world, &acts, Target::Marks, CACHES),
        Some(FIRST),
    );
}
