//! Arrays that crash: whole machines on virtual time over disks with volatile caches, stopped at
//! every step of short histories and at random steps of long ones, and started again from what is
//! left.
//!
//! After each crash every block holds what was acknowledged and forced to the medium, or, where
//! nothing was, what it held before or what was on its way, sector by sector; and parity comes to
//! match everywhere.

mod disk;
mod history;
mod host;
mod machine;
#[path = "../simulator/random.rs"]
mod random;
mod shape;
mod start;
mod tally;
mod trial;
mod world;

use std::ops::Range;
use std::panic::AssertUnwindSafe;

use disk::Luck;
use history::History;
use random::Random;
use shape::{Choice, Consistency, Shape};
use tally::Tally;
use world::World;

/// Runs a history once, and from each of its steps what is left when it stops there.
fn stop_at_every_step(seed: u64, consistency: Choice, history: History) -> Tally {
    let mut random = Random(seed);
    let shape = Shape::new(&mut random, consistency);
    let mut world = World::new(shape, Random(random.next()));
    let mut tally = Tally::default();
    let mut stops = 0;
    let acts = history(&shape, &mut random);
    world.run(&acts, &mut |world| {
        stops += 1;
        let luck = random.pick(&Luck::ALL);
        let lost = random.below(3 * shape.members as u64) as usize;
        let lost = (lost < shape.members).then_some(lost);
        let wreck = world.crash(&[luck, Luck::Torn], &mut random);
        let again = u32::from(random.one_in(4));
        let survives = || trial::survive(wreck, lost, again, &mut random, &mut tally);
        std::panic::catch_unwind(AssertUnwindSafe(survives)).unwrap_or_else(|panic| {
            eprintln!("seed {seed}, stop {stops}, slot {lost:?} lost, of {shape:?}:");
            eprintln!("{}", world.describe());
            std::panic::resume_unwind(panic)
        });
    });
    tally.stops += stops;
    tally
}

/// Runs these seeds, or those that are asked for: `STRIPEWISE_CRASH_SEED=n` is one alone,
/// `STRIPEWISE_CRASH_SEEDS=n` all below.
fn run(seeds: Range<u64>, consistency: Choice, history: History) {
    let number = |name| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().expect("a number"))
    };
    let seeds = match (
        number("STRIPEWISE_CRASH_SEED"),
        number("STRIPEWISE_CRASH_SEEDS"),
    ) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(end)) => seeds.start..end,
        (None, None) => seeds,
    };
    let mut tally = Tally::default();
    seeds.for_each(|seed| tally.add(&stop_at_every_step(seed, consistency, history)));
    println!("{tally:#?}");
}

fn resync(_: &mut Random, _: u32) -> Consistency {
    Consistency::Resync
}

fn bitmap(random: &mut Random, chunk: u32) -> Consistency {
    let most = random.pick(&[chunk / 4, chunk / 2, chunk, 2 * chunk, 4 * chunk]);
    Consistency::Bitmap(most)
}

#[test]
fn writes_resync() {
    run(0..8, resync, history::writes);
}

#[test]
fn writes_bitmap() {
    run(0..8, bitmap, history::writes);
}

#[test]
fn loss_resync() {
    run(0..8, resync, history::loss);
}

#[test]
fn loss_bitmap() {
    run(0..8, bitmap, history::loss);
}

#[test]
fn absence_resync() {
    run(0..8, resync, history::absence);
}

#[test]
fn absence_bitmap() {
    run(0..8, bitmap, history::absence);
}

#[test]
fn replacement_resync() {
    run(0..8, resync, history::replacement);
}

#[test]
fn replacement_bitmap() {
    run(0..8, bitmap, history::replacement);
}
