//! Whether the interesting things have happened.

use crate::machine::Target;
use crate::start::Start;
use crate::world::World;

/// Counts of what happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Steps at which histories were stopped.
    pub stops: u64,
    /// What was in flight then.
    pub superblocks: u64,
    pub marks: u64,
    pub bad_blocks: u64,
    pub data: u64,
    pub flushes: u64,
    /// Starts, and of these: with parity that may not match, in parts that a bitmap says, and with
    /// a member being rebuilt.
    pub starts: u64,
    pub resyncs: u64,
    pub guided: u64,
    pub rebuilds: u64,
    /// Starts that were refused.
    pub refusals: u64,
    /// Requests that failed, and blocks that were refused.
    pub failed: u64,
    pub refused: u64,
    /// Members that came back and lacked only what the bitmap says.
    pub returned: u64,
}

impl Tally {
    /// A machine is stopped now.
    pub fn stopped(&mut self, world: &World) {
        self.stops += 1;
        for asked in &world.machine.asked {
            let count = match asked.target() {
                Target::Superblock => &mut self.superblocks,
                Target::Marks => &mut self.marks,
                Target::BadBlocks => &mut self.bad_blocks,
                Target::Data => &mut self.data,
                Target::Flush => &mut self.flushes,
                Target::Nothing => continue,
            };
            *count += 1;
        }
    }

    pub fn started(&mut self, start: &Start) {
        self.starts += 1;
        if let Some(unsynced) = &start.assembled.view.unsynced {
            self.resyncs += 1;
            self.guided += u64::from(unsynced.regions.is_some());
        }
        self.rebuilds += u64::from(
            start
                .assembled
                .view
                .degraded
                .as_ref()
                .is_some_and(|d| d.attached),
        );
    }

    pub fn add(&mut self, other: &Tally) {
        self.stops += other.stops;
        self.superblocks += other.superblocks;
        self.marks += other.marks;
        self.bad_blocks += other.bad_blocks;
        self.data += other.data;
        self.flushes += other.flushes;
        self.starts += other.starts;
        self.resyncs += other.resyncs;
        self.guided += other.guided;
        self.rebuilds += other.rebuilds;
        self.refusals += other.refusals;
        self.failed += other.failed;
        self.refused += other.refused;
        self.returned += other.returned;
    }
}
