//! Whole arrays on virtual time: nodes, disks, messages and hosts driven in an order that a seed
//! decides, against a flat model of what each block may hold.
//!
//! Every run checks that each request completes exactly once, that no read returns bytes that no
//! write could have left there, that nothing hangs, and, at the end, that parity holds on the
//! disks. A failure prints the seed; `STRIPEWISE_SIM_SEED=n` runs that seed alone.

mod disk;
mod host;
mod world;

use std::time::{Duration, Instant};

use world::{Faults, World};

/// Runs one seed of one kind of weather.
fn run(seed: u64, faults: Faults) {
    let outcome = std::panic::catch_unwind(|| World::new(seed, faults).run());
    if let Err(panic) = outcome {
        eprintln!("simulator: seed {seed} with {faults:?} failed");
        std::panic::resume_unwind(panic);
    }
}

fn run_all(faults: Faults, seeds: std::ops::Range<u64>) {
    match std::env::var("STRIPEWISE_SIM_SEED") {
        Ok(seed) => run(seed.parse().expect("a number"), faults),
        Err(_) => seeds.for_each(|seed| run(seed, faults)),
    }
}

#[test]
fn calm() {
    run_all(Faults::None, 0..60);
}

#[test]
fn latent_read_errors_are_healed() {
    run_all(Faults::Latent, 0..60);
}

#[test]
fn a_member_is_lost_and_another_rebuilt_under_load() {
    run_all(Faults::Loss, 0..60);
}

#[test]
fn a_member_is_removed_and_added_back_under_load() {
    run_all(Faults::Removal, 0..60);
}

#[test]
fn anything_may_fail_but_nothing_is_wrong() {
    run_all(Faults::Chaos, 0..80);
}

/// As many new seeds as fit into a few seconds (`STRIPEWISE_SIM_SECONDS`).
#[test]
fn new_seeds_for_a_while() {
    let seconds = std::env::var("STRIPEWISE_SIM_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(5);
    let until = Instant::now() + Duration::from_secs(seconds);
    let first = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_nanos() as u64;
    let mut seed = first;
    let mut ran = 0u64;
    while ran < 5 || Instant::now() < until {
        for faults in Faults::ALL {
            run(seed, faults);
        }
        seed = seed.wrapping_add(1);
        ran += 1;
    }
    println!("simulator: seeds {first}..{seed}, each in all weathers");
}
