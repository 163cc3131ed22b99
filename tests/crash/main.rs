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
mod orders;
#[path = "../simulator/random.rs"]
mod random;
mod shape;
mod start;
mod tally;
mod trial;
mod world;

use std::ops::Range;
use std::panic::AssertUnwindSafe;

use history::{Act, History};
use random::Random;
use shape::{Choice, Consistency, Shape};
use tally::Tally;
use world::World;

/// Seeds of each kind of history that always run.
const SEEDS: u64 = 2;

/// Runs a history once, and from each of its steps what is left when it stops there.
fn stop_at_every_step(seed: u64, consistency: Choice, history: History) -> Tally {
    let mut random = Random(seed);
    let shape = Shape::new(&mut random, consistency);
    stop_it_at_every_step(seed, shape, random, history)
}

/// The same with an array that owes its first resync.
fn stop_while_it_owes(seed: u64, consistency: Choice, history: History) -> Tally {
    let mut random = Random(seed);
    let mut shape = Shape::new(&mut random, consistency);
    shape.owes = true;
    stop_it_at_every_step(seed, shape, random, history)
}

fn stop_it_at_every_step(seed: u64, shape: Shape, mut random: Random, history: History) -> Tally {
    let mut world = World::new(shape, Random(random.next()));
    let mut tally = Tally::default();
    let acts = history(&shape, &mut random);
    world.run(&acts, &mut |world| {
        tally.stopped(world);
        let stop = trial::draw_stop(&mut random);
        let lost = random.below(3 * shape.members as u64) as usize;
        let lost = (lost < shape.members).then_some(lost);
        let wreck = world.stop(stop, &mut random);
        let again = u32::from(random.one_in(4));
        let stops = tally.stops;
        let survives = || trial::survive(wreck, lost, again, &mut random, &mut tally);
        std::panic::catch_unwind(AssertUnwindSafe(survives)).unwrap_or_else(|panic| {
            eprintln!("seed {seed}, {stop:?} at {stops}, slot {lost:?} lost, of {shape:?}:");
            eprintln!("{}", world.describe());
            std::panic::resume_unwind(panic)
        });
        true
    });
    tally
}

/// Several lives of an array in which anything may happen, each of which ends at a random step.
fn live_again_and_again(seed: u64, consistency: Choice) -> Tally {
    let mut random = Random(seed);
    let shape = Shape::new(&mut random, consistency);
    let mut world = World::new(shape, Random(random.next()));
    let mut tally = Tally::default();
    let lives = 2 + random.below(4);
    for life in 0..lives {
        let acts = history::anything(&shape, &mut random);
        let mut steps = random.below(40 * acts.len() as u64);
        let mut wreck = None;
        world.run(&acts, &mut |world| {
            steps = steps.wrapping_sub(1);
            if steps == 0 {
                tally.stopped(world);
                wreck = Some(world.stop(trial::draw_stop(&mut random), &mut random));
            }
            wreck.is_none()
        });
        let wreck = wreck.unwrap_or_else(|| {
            world.run(&[Act::Drain, Act::Close], &mut |_| true);
            world.stop(trial::draw_stop(&mut random), &mut random)
        });
        tally.add(&world.tally);
        let lost = random
            .one_in(4)
            .then(|| random.below(shape.members as u64) as usize);
        let before = start::describe(&wreck.disks);
        let goes_on = || {
            let mut world = trial::start(wreck, lost, &mut random, &mut tally)?;
            trial::look(&mut world, &mut |_| true);
            if life + 1 == lives || random.one_in(3) {
                trial::mend(&mut world, &mut |_| true);
            }
            Some(world)
        };
        let next = std::panic::catch_unwind(AssertUnwindSafe(goes_on)).unwrap_or_else(|panic| {
            eprintln!("seed {seed}, life {life}, slot {lost:?} lost, of {shape:?}:\n{before}");
            std::panic::resume_unwind(panic)
        });
        let Some(next) = next else {
            break;
        };
        world = next;
    }
    tally.add(&world.tally);
    tally
}

/// Runs these seeds, or those that are asked for: `STRIPEWISE_CRASH_SEED=n` is one alone,
/// `STRIPEWISE_CRASH_SEEDS=n` all below.
fn run(seeds: Range<u64>, trial: impl Fn(u64) -> Tally) -> Tally {
    let number = |name| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().expect("a number"))
    };
    let (one, end) = (
        number("STRIPEWISE_CRASH_SEED"),
        number("STRIPEWISE_CRASH_SEEDS"),
    );
    let seeds = match (one, end) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(end)) => seeds.start..end,
        (None, None) => seeds,
    };
    let mut tally = Tally::default();
    for seed in seeds {
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| trial(seed)));
        tally.add(&ran.unwrap_or_else(|panic| {
            eprintln!("seed {seed} failed; STRIPEWISE_CRASH_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic)
        }));
    }
    println!("{tally:#?}");
    tally
}

fn resync(_: &mut Random, _: u32) -> Consistency {
    Consistency::Resync
}

fn bitmap(random: &mut Random, chunk: u32) -> Consistency {
    let most = random.pick(&[chunk / 4, chunk / 2, chunk, 2 * chunk, 4 * chunk]);
    Consistency::Bitmap(most)
}

/// A log that holds a stripe and little more, some, or that is a ring.
fn ppl(random: &mut Random, chunk: u32) -> Consistency {
    let least = 24 + chunk as u16 / 512;
    Consistency::Ppl(random.pick(&[least, least + 24, 136.max(least), 536]))
}

#[test]
fn writes_resync() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, resync, history::writes)
    });
}

#[test]
fn writes_bitmap() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, bitmap, history::writes)
    });
}

#[test]
fn loss_resync() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, resync, history::loss)
    });
}

#[test]
fn loss_bitmap() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, bitmap, history::loss)
    });
}

#[test]
fn absence_resync() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, resync, history::absence)
    });
}

#[test]
fn absence_bitmap() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, bitmap, history::absence)
    });
}

#[test]
fn replacement_resync() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, resync, history::replacement)
    });
}

#[test]
fn replacement_bitmap() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, bitmap, history::replacement)
    });
}

#[test]
fn swap_resync() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, resync, history::swap)
    });
}

#[test]
fn swap_bitmap() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, bitmap, history::swap)
    });
}

#[test]
fn lives_resync() {
    run(0..10 * SEEDS, |seed| live_again_and_again(seed, resync));
}

#[test]
fn lives_bitmap() {
    run(0..10 * SEEDS, |seed| live_again_and_again(seed, bitmap));
}

#[test]
fn writes_ppl() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, ppl, history::writes)
    });
}

#[test]
fn loss_ppl() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, ppl, history::loss)
    });
}

#[test]
fn replacement_ppl() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, ppl, history::replacement)
    });
}

#[test]
fn owed_resync() {
    run(0..SEEDS, |seed| {
        stop_while_it_owes(seed, resync, history::writes)
    });
}

#[test]
fn owed_bitmap() {
    run(0..SEEDS, |seed| {
        stop_while_it_owes(seed, bitmap, history::writes)
    });
}

#[test]
fn owed_ppl() {
    run(0..2 * SEEDS, |seed| {
        stop_while_it_owes(seed, ppl, history::writes)
    });
}

#[test]
fn swap_ppl() {
    run(0..SEEDS, |seed| {
        stop_at_every_step(seed, ppl, history::swap)
    });
}

#[test]
fn lives_ppl() {
    run(0..10 * SEEDS, |seed| live_again_and_again(seed, ppl));
}
