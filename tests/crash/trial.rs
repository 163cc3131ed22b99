//! What must hold after a crash: the array starts or is refused for a reason, holds what it must,
//! and comes to have parity that matches everywhere.

use std::panic::AssertUnwindSafe;

use stripewise::md::AssemblyError;

use crate::disk::Luck;
use crate::history::Act;
use crate::random::Random;
use crate::start;
use crate::tally::Tally;
use crate::world::{Watch, World, Wreck};

/// Blocks of a read.
const BLOCKS: u64 = 32;

/// Reads everything, part by part.
fn look(world: &mut World, watch: Watch) {
    let shape = &world.shape;
    let blocks = shape.sectors() * 512 / u64::from(shape.block);
    for lba in (0..blocks).step_by(BLOCKS as usize) {
        let blocks = BLOCKS.min(blocks - lba) as u32;
        world.run(&[Act::Look { lba, blocks }], watch);
    }
}

/// Starts what a crash has left, without the disk of a slot that is lost, too; and looks at
/// everything. On the way there it may crash again, so many times.
pub fn survive(
    mut wreck: Wreck,
    lost: Option<usize>,
    again: u32,
    random: &mut Random,
    tally: &mut Tally,
) {
    if let Some(slot) = lost {
        let Some(disk) = wreck.slots[slot] else {
            return;
        };
        wreck.disks[disk].gone = true;
    }
    let (shape, quiet) = (wreck.shape, wreck.quiet);
    let started = World::restart(wreck.clone(), false, Random(random.next()));
    let mut world = match started {
        Ok(world) => world,
        Err(AssemblyError::Missing { .. }) => {
            let both = lost.is_some() && wreck.was_degraded;
            assert!(both, "enough members are there");
            return;
        }
        Err(AssemblyError::DirtyDegraded { .. }) => {
            assert!(!quiet, "it was clean");
            assert!(lost.is_some() || wreck.was_degraded, "no member is missing");
            tally.refusals += 1;
            let forced = World::restart(wreck, true, Random(random.next()));
            forced.unwrap_or_else(|why| panic!("refused by force: {why}"))
        }
        Err(other) => panic!("{other}"),
    };
    let mut second = None;
    let mut steps = if again > 0 {
        random.below(200)
    } else {
        u64::MAX
    };
    let mut watch = |world: &World| {
        if steps == 0 {
            second = Some(world.crash(&Luck::ALL, random));
        }
        steps = steps.wrapping_sub(1);
    };
    look(&mut world, &mut watch);
    world.run(&[Act::Quiet], &mut watch);
    if world.is_doubtful() {
        world.run(&[Act::Accept, Act::Rest], &mut watch);
    }
    let per_block = u64::from(shape.block) / 512;
    for first in std::mem::take(&mut world.refused) {
        if first.is_multiple_of(per_block) {
            let write = Act::Write {
                lba: first / per_block,
                blocks: 1,
                fua: true,
            };
            world.run(&[write, Act::Drain], &mut watch);
        }
    }
    world.run(&[Act::Replace, Act::Healthy, Act::Quiet], &mut watch);
    world.check_disks();
    if world.machine.view().bad.is_some() {
        look(&mut world, &mut watch);
    }
    tally.add(&world.tally);
    if let Some(wreck) = second {
        let what = start::describe(&wreck.disks);
        let survives = || survive(wreck, None, again - 1, random, tally);
        std::panic::catch_unwind(AssertUnwindSafe(survives)).unwrap_or_else(|panic| {
            eprintln!("after another crash:\n{what}");
            std::panic::resume_unwind(panic)
        });
    }
}
