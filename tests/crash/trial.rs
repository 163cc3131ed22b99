//! What must hold after a stop: the array starts or is refused for a reason, holds what it must,
//! and comes to have parity that matches everywhere.

use std::panic::AssertUnwindSafe;

use stripewise::md::{AssemblyError, RecoveryError};

use crate::disk::{Luck, SECTOR};
use crate::history::Act;
use crate::random::Random;
use crate::shape::Consistency;
use crate::start::{self, StartError};
use crate::tally::Tally;
use crate::world::{Stop, Watch, World, Wreck};

/// Blocks of a read.
const BLOCKS: u64 = 32;

/// Draws how a machine stops.
pub fn draw_stop(random: &mut Random) -> Stop {
    match random.below(6) {
        0 => Stop::Kill,
        1 => Stop::Power(&[Luck::Nothing, Luck::Torn]),
        2 => Stop::Power(&[Luck::Everything, Luck::Torn]),
        3 => Stop::Power(&[Luck::Nothing]),
        _ => Stop::Power(&Luck::ALL),
    }
}

/// Starts what a stop has left, without the disk of a slot that is lost, too, and looks at
/// everything, to the end of all that has to be done. On the way there it may stop again, so many
/// times.
pub fn survive(
    wreck: Wreck,
    lost: Option<usize>,
    again: u32,
    random: &mut Random,
    tally: &mut Tally,
) {
    let Some(mut world) = start(wreck, lost, random, tally) else {
        return;
    };
    let mut second = None;
    let mut steps = match again {
        0 => u64::MAX,
        _ => random.below(200),
    };
    let mut watch = |world: &World| {
        if steps == 0 {
            second = Some(world.stop(draw_stop(random), random));
        }
        steps = steps.wrapping_sub(1);
        true
    };
    look(&mut world, &mut watch);
    mend(&mut world, &mut watch);
    tally.add(&world.tally);
    if let Some(wreck) = second {
        let what = start::describe(&wreck.disks);
        let lost = match lost {
            None if random.one_in(2) => Some(random.below(wreck.slots.len() as u64) as usize),
            _ => None,
        };
        let survives = || survive(wreck, lost, again - 1, random, tally);
        std::panic::catch_unwind(AssertUnwindSafe(survives)).unwrap_or_else(|panic| {
            eprintln!("after another stop:\n{what}");
            std::panic::resume_unwind(panic)
        });
    }
}

/// Starts what a stop has left: by force where it is refused for a reason. `None` if too much is
/// lost.
pub fn start(
    mut wreck: Wreck,
    lost: Option<usize>,
    random: &mut Random,
    tally: &mut Tally,
) -> Option<World> {
    if let Some(disk) = lost.and_then(|slot| wreck.slots[slot]) {
        wreck.disks[disk].gone = true;
    }
    if random.one_in(8) {
        stop_at_start(&mut wreck, random);
    }
    let missing = lost.is_some() || wreck.was_degraded;
    match World::restart(wreck.clone(), false, Random(random.next())) {
        Ok(world) => Some(world),
        Err(StartError::Assembly(AssemblyError::Missing { .. })) => {
            let both = lost.is_some() && wreck.was_degraded;
            assert!(both || wreck.was_offline, "enough members are there");
            None
        }
        Err(StartError::Assembly(AssemblyError::DirtyDegraded { .. })) => {
            assert!(!wreck.quiet, "it was clean");
            let closed = matches!(wreck.shape.consistency, Consistency::Ppl(_));
            assert!(!closed, "the write hole is closed");
            assert!(missing, "no member is missing");
            tally.refusals += 1;
            let forced = World::restart(wreck, true, Random(random.next()));
            Some(forced.unwrap_or_else(|why| panic!("refused by force: {why}")))
        }
        Err(StartError::Recovery(RecoveryError::Lost { .. })) => {
            assert!(missing, "no member is missing");
            assert!(!wreck.shape.logs, "it can be noted");
            tally.refusals += 1;
            let forced = World::restart(wreck, true, Random(random.next()));
            Some(forced.unwrap_or_else(|why| panic!("refused by force: {why}")))
        }
        Err(other) => panic!("{other}"),
    }
}

/// It begins to start, and stops at some write.
fn stop_at_start(wreck: &mut Wreck, random: &mut Random) {
    let disk = random.below(wreck.disks.len() as u64) as usize;
    wreck.disks[disk].writes_left = random.below(4) as u32;
    // Whether that was enough does not matter.
    let _ = start::start(&mut wreck.disks, false);
    let luck = random.pick(&Luck::ALL);
    for disk in &mut wreck.disks {
        let gone = disk.gone;
        *disk = disk.crash(std::iter::empty(), luck, random);
        disk.gone = gone;
        disk.writes_left = u32::MAX;
    }
    wreck.host.stop(true);
}

/// Reads everything, part by part.
pub fn look(world: &mut World, watch: Watch) -> bool {
    let shape = world.shape;
    let blocks = shape.sectors() * SECTOR as u64 / u64::from(shape.block);
    (0..blocks).step_by(BLOCKS as usize).all(|lba| {
        let blocks = BLOCKS.min(blocks - lba) as u32;
        world.run(&[Act::Look { lba, blocks }], watch)
    })
}

/// Does what an operator would, and waits until nothing is left to be done. Then all disks must
/// hold what they should.
pub fn mend(world: &mut World, watch: Watch) -> bool {
    let mended = world.run(&[Act::Drain, Act::Quiet], watch) && accept(world, watch);
    if !mended {
        return false;
    }
    while world.machine.view().lost().is_some() {
        if !world.run(&[Act::Replace, Act::Rest], watch) {
            return false;
        }
    }
    if !world.run(&[Act::Healthy, Act::Quiet], watch) {
        return false;
    }
    world.check_disks();
    world.machine.view().bad.is_none() || look(world, watch)
}

/// Takes parity for right where it is in doubt, and writes again what could not be read.
fn accept(world: &mut World, watch: Watch) -> bool {
    if world.is_doubtful() && !world.run(&[Act::Accept, Act::Rest], watch) {
        return false;
    }
    let per_block = u64::from(world.shape.block) / SECTOR as u64;
    let refused = std::mem::take(&mut world.refused);
    let mut firsts = refused.iter().filter(|s| s.is_multiple_of(per_block));
    firsts.all(|first| {
        let write = Act::Write {
            lba: first / per_block,
            blocks: 1,
            fua: true,
        };
        world.run(&[write, Act::Drain], watch)
    })
}
