//! What superblocks say when members change places.

use super::*;
use crate::md::{BadBlockLog, Reshape, SetName};
use crate::memory::Arena;
use crate::raid::Layout;

const MEMBERS: usize = 3;
const PAGE: usize = 4096;

fn superblock(number: u32) -> Superblock {
    Superblock {
        features: Features(0),
        set_uuid: Uuid::from_u128(1),
        set_name: SetName::new("test").unwrap(),
        created: Time::from_seconds(1),
        level: 5,
        layout: 0,
        size: 2048,
        chunk: 128,
        raid_disks: MEMBERS as u32,
        policy: Policy::Resync,
        reshape: Reshape::default(),
        data_offset: 2048,
        data_size: 2048,
        super_offset: 8,
        recovery_offset: 0,
        dev_number: number,
        corrected_reads: 0,
        device_uuid: Uuid::from_u128(number.into()),
        devflags: 0,
        bad_block_log: BadBlockLog {
            shift: 0,
            size: 8,
            offset: 40,
        },
        updated: Time::from_seconds(1),
        events: 5,
        resync_offset: IN_SYNC,
        logical_block_size: 0,
        roles: vec![0, 1, 2],
    }
}

fn bad_blocks(superblock: &Superblock, bad: bool) -> BadBlocks {
    let mut blocks = BadBlocks::for_log(&superblock.bad_block_log);
    if bad {
        blocks.insert(2048..2056).unwrap();
    }
    blocks
}

/// Metadata of an array in which some members have bad blocks, and then one that replaces that of slot 1.
fn replaced(old_is_bad: bool, new_is_bad: bool) -> Metadata {
    let geometry = Geometry::new(MEMBERS, 1 << 20, 64 << 10, 4096, Layout::LeftSymmetric).unwrap();
    let superblocks: Vec<_> = (0..MEMBERS as u32).map(superblock).collect();
    let bad = |(slot, s)| bad_blocks(s, slot == 1 && old_is_bad);
    let stored = Stored {
        bad_blocks: superblocks.iter().enumerate().map(bad).collect(),
        superblocks: superblocks.into_iter().map(Some).collect(),
        marks: None,
        dirty: false,
    };
    let arena = Arena::ordinary(4 * PAGE).unwrap();
    let config = MetadataConfig {
        stored,
        pool: Pool::new(&arena, PAGE, 4).unwrap(),
        booted: (Instant::now(), Time::from_seconds(10)),
    };
    let mut metadata = Metadata::new(config, geometry, 4096, &View::first(None));
    let new = superblock(7);
    let bad = bad_blocks(&new, new_is_bad);
    metadata.gain(MEMBERS, 1, new, bad, false);
    metadata.hand_over(1);
    metadata.swap(1, MEMBERS);
    metadata
}

/// A superblock that says nothing of a log would have its bad blocks forgotten.
#[test]
fn a_member_that_replaces_another_brings_its_bad_blocks() {
    for (old_is_bad, new_is_bad) in [(false, true), (true, false), (true, true), (false, false)] {
        let metadata = replaced(old_is_bad, new_is_bad);
        let block = metadata.superblock(1, true, Instant::now());
        assert_eq!(block.dev_number, 7);
        let says = block.features.contains(Features::BAD_BLOCKS);
        assert_eq!(says, new_is_bad, "the old one: {old_is_bad}");
        assert_eq!(!metadata.bad_blocks(1).is_empty(), new_is_bad);
        // Whoever comes to the place behind the slots next has nothing to do with either.
        assert_eq!(metadata.logged >> MEMBERS, 0);
    }
}
