//! What the disks of a simulated array say of it: how they begin, and what must be on them when
//! the array was closed.

use std::time::Instant;

use stripewise::md::superblock::IN_SYNC;
use stripewise::md::{
    BadBlockLog, BadBlocks, Bitmap, BitmapHeader, Features, Policy, Reshape, Role, SetName,
    Superblock, Time,
};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{Geometry, Marks, MetadataConfig, NewMember, Stored, View};
use uuid::Uuid;

use crate::disk::Disk;

/// Where everything lies on a disk, in bytes.
pub const DATA: u64 = 32 << 10;
const SUPERBLOCK: u64 = 4096;
const BITMAP: u64 = 8192;
pub const BAD_BLOCKS: u64 = 24 << 10;

pub const SET: Uuid = Uuid::from_u128(0x5712);

/// The superblock of a new member.
pub fn superblock(geometry: &Geometry, bitmap: bool, number: u32) -> Superblock {
    let sector = |bytes: u64| bytes / 512;
    let behind = |bytes: u64| sector(bytes - SUPERBLOCK) as i32;
    let policy = match bitmap {
        true => Policy::Bitmap {
            offset: behind(BITMAP),
        },
        false => Policy::Resync,
    };
    Superblock {
        features: Features(0),
        set_uuid: SET,
        set_name: SetName::new("simulated").expect("short"),
        created: Time::from_seconds(1),
        level: 5,
        layout: 0,
        size: sector(geometry.member_bytes()),
        chunk: sector(geometry.chunk_bytes().into()) as u32,
        raid_disks: geometry.members() as u32,
        policy,
        reshape: Reshape::default(),
        data_offset: sector(DATA),
        data_size: sector(geometry.member_bytes()),
        super_offset: sector(SUPERBLOCK),
        recovery_offset: 0,
        dev_number: number,
        corrected_reads: 0,
        device_uuid: Uuid::from_u128(number.into()),
        devflags: 0,
        bad_block_log: BadBlockLog {
            shift: 0,
            size: 8,
            offset: behind(BAD_BLOCKS),
        },
        updated: Time::from_seconds(1),
        events: 1,
        resync_offset: IN_SYNC,
        logical_block_size: 0,
        roles: (0..geometry.members() as u16).collect(),
    }
}

/// What the members of a new array say; a bitmap of one bit for `bitmap` bytes, if it has one.
pub fn stored(geometry: &Geometry, bitmap: Option<u32>) -> Stored {
    let members = geometry.members();
    let superblocks: Vec<_> = (0..members as u32)
        .map(|number| Some(superblock(geometry, bitmap.is_some(), number)))
        .collect();
    let marks = bitmap.map(|bytes| {
        let first = superblocks[0].as_ref().expect("made above");
        let header = BitmapHeader {
            daemon_sleep: 1,
            ..BitmapHeader::new(first, bytes, 16)
        };
        Marks {
            header,
            bits: Bitmap::new(first.size, bytes).expect("in range"),
        }
    });
    Stored {
        bad_blocks: superblocks.iter().flatten().map(bad_blocks).collect(),
        superblocks,
        marks,
        dirty: false,
    }
}

fn bad_blocks(superblock: &Superblock) -> BadBlocks {
    BadBlocks::for_log(&superblock.bad_block_log)
}

pub fn config(stored: Stored) -> MetadataConfig {
    let arena = Arena::ordinary(96 * 4096).expect("memory");
    MetadataConfig {
        stored,
        pool: Pool::new(&arena, 4096, 96).expect("room"),
        booted: (Instant::now(), Time::from_seconds(1000)),
    }
}

/// A disk that joins, as a device that it never had before or as one that returns.
pub fn new_member(geometry: &Geometry, bitmap: bool, number: u32, returns: bool) -> NewMember {
    let superblock = superblock(geometry, bitmap, number);
    NewMember {
        bad_blocks: bad_blocks(&superblock),
        superblock,
        returns,
    }
}

/// What the disks in the slots must say of an array that was closed under this view.
pub fn check(geometry: &Geometry, view: &View, slots: &[Option<&Disk>], bitmap: bool) {
    let mut events = None;
    for (slot, disk) in slots.iter().enumerate() {
        let Some(disk) = disk.filter(|_| view.present(slot)) else {
            continue;
        };
        let bytes = &disk.bytes;
        let read = Superblock::parse(&bytes[SUPERBLOCK as usize..BITMAP as usize]);
        let block = read.unwrap_or_else(|e| panic!("slot {slot}: {e}"));
        assert_eq!(block.role(), Role::Slot(slot as u16), "slot {slot}");
        assert_eq!(*events.get_or_insert(block.events), block.events);
        let named = |other: usize| block.roles.contains(&(other as u16));
        for (other, its_disk) in slots.iter().enumerate() {
            let there = its_disk.is_some() && view.present(other);
            assert_eq!(named(other), there, "slot {slot} says of slot {other}");
        }
        let resync = match &view.unsynced {
            Some(unsynced) => unsynced.from * u64::from(geometry.chunk_bytes()) / 512,
            None => IN_SYNC,
        };
        assert_eq!(block.resync_offset, resync, "slot {slot} is clean");
        let rebuilding = view.degraded.as_ref().filter(|d| d.slot == slot);
        assert_eq!(block.recovering().is_some(), rebuilding.is_some());
        let bad = view.bad.iter().flat_map(|b| b.iter());
        let bad: Vec<_> = bad.filter(|b| b.slot == slot).collect();
        assert_eq!(
            block.features.contains(Features::BAD_BLOCKS),
            !bad.is_empty()
        );
        if !bad.is_empty() {
            let log = BadBlocks::parse(&block.bad_block_log, &bytes[BAD_BLOCKS as usize..]);
            let log = log.expect("a log");
            for range in bad {
                let data = block.data_offset * 512;
                let sectors = (data + range.start) / 512..(data + range.end) / 512;
                assert!(
                    log.overlaps(sectors),
                    "slot {slot} has {range:?} in its log"
                );
            }
        }
        if bitmap {
            let area = &bytes[BITMAP as usize..BAD_BLOCKS as usize];
            let header = BitmapHeader::parse(area).expect("a header");
            assert_eq!(header.events, block.events);
            let bits = Bitmap::load(&header, block.size, area).expect("bits");
            if view.degraded.is_none() && view.unsynced.is_none() {
                assert_eq!(bits.count(), 0, "slot {slot}: nothing is being written");
                assert!(header.events_cleared <= block.events);
            }
        }
    }
}
