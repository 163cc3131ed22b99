//! What is said of parity by an array with partial parity logs, after a start that was itself cut off
//! perhaps.

use std::cell::Cell;

use uuid::Uuid;

use super::super::assembly::{Assembly, Found, assemble};
use super::super::create::{NewArray, NewDevice, NewPolicy, create};
use super::super::disk::{Disk, DiskError};
use super::super::first_stripe::FIRST_STRIPE;
use super::super::member::{find_superblock, write_superblock};
use super::super::ppl::{parity_checksum, signature};
use super::super::recovery::recover;
use super::super::superblock::IN_SYNC;
use super::super::{Member, Policy, PplEntry, PplHeader, SetName, Superblock, Time};
use super::Blocks;

const SET: Uuid = Uuid::from_u128(7);
const SECTORS: u64 = 8192;

/// A disk of a machine that stops after so many more writes of all its disks.
struct Stopping<'a> {
    disk: &'a mut Blocks,
    writes_left: &'a Cell<u32>,
}

impl Disk for Stopping<'_> {
    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn block_size(&self) -> u32 {
        self.disk.block_size()
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read(offset, into)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        let left = self.writes_left.get().checked_sub(1);
        self.writes_left.set(left.ok_or(DiskError::Failed {
            doing: "writing",
            offset,
            reason: "the machine has stopped".into(),
        })?);
        self.disk.write(offset, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.disk.flush()
    }
}

/// Three members that hold different bytes, with logs. They say that parity is right, but that the array
/// was being written to.
fn disks() -> Vec<Option<Blocks>> {
    let slots = (1..=3).map(|n| {
        Some(NewDevice {
            sectors: SECTORS,
            uuid: Uuid::from_u128(n),
        })
    });
    let created = create(&NewArray {
        chunk: 8,
        policy: NewPolicy::Ppl,
        assume_clean: true,
        ..NewArray::new(
            SET,
            SetName::new("host:ppl").expect("fits"),
            Time::from_seconds(1),
            slots.collect(),
        )
    });
    let mut created = created.expect("possible");
    let blank = |number: usize| {
        let mut disk = Blocks::new(SECTORS);
        disk.bytes.fill(number as u8 + 1);
        disk
    };
    for superblock in created.superblocks.iter_mut().flatten() {
        superblock.resync_offset = 0;
        superblock.events = 5;
    }
    let disk = |number| {
        let mut disk = blank(number);
        created.write(number, &mut disk).expect("room");
        Some(disk)
    };
    (0..3).map(disk).collect()
}

/// Puts an entry of one block, which was written alone, into the log of slot 2, which has the first
/// parity; of another disk's parity if it is to make no sense.
fn log(disks: &mut [Option<Blocks>], makes_sense: bool) {
    let disk = disks[2].as_mut().expect("there");
    let superblock = find_superblock(disk).expect("a member");
    let Policy::Ppl { offset, .. } = superblock.policy else {
        panic!("no log");
    };
    let partial = vec![9; 4096];
    let header = PplHeader {
        signature: signature(&SET),
        generation: 1,
        entries: vec![PplEntry {
            data_sector: 0,
            pp_size: 4096,
            data_size: 4096,
            parity_disk: if makes_sense { 2 } else { 1 },
            checksum: parity_checksum([partial.as_slice()]),
        }],
    };
    let at = (superblock.super_offset as i64 + i64::from(offset)) as usize * 512;
    header.write(&mut disk.bytes[at..]);
    disk.bytes[at + 4096..][..4096].copy_from_slice(&partial);
}

fn start(
    disks: &mut [Option<Blocks>],
    force: bool,
    writes: u32,
) -> Result<Assembly, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for (at, disk) in disks.iter_mut().enumerate() {
        let Some(disk) = disk else { continue };
        found.push(Found {
            name: at.to_string(),
            member: Member::read(disk)?,
        });
    }
    let mut assembly = assemble(SET, &found, force)?;
    let writes_left = Cell::new(writes);
    let mut members: Vec<_> = disks
        .iter_mut()
        .map(|disk| {
            Some(Stopping {
                disk: disk.as_mut()?,
                writes_left: &writes_left,
            })
        })
        .collect();
    recover(&mut assembly, &mut found, &mut members, force)?;
    Ok(assembly)
}

fn superblocks(disks: &mut [Option<Blocks>]) -> Vec<Superblock> {
    let there = disks.iter_mut().flatten();
    there
        .map(|d| find_superblock(d).expect("a member"))
        .collect()
}

#[test]
fn a_log_that_is_replayed_makes_an_array_clean() {
    let mut disks = disks();
    log(&mut disks, true);
    let assembly = start(&mut disks, false, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, IN_SYNC);
}

#[test]
fn a_resync_that_was_owed_is_still_owed_after_a_replay() {
    let mut disks = disks();
    let said = superblocks(&mut disks);
    for (disk, mut superblock) in disks.iter_mut().flatten().zip(said) {
        superblock.resync_offset = FIRST_STRIPE;
        write_superblock(disk, &superblock).expect("room");
    }
    log(&mut disks, true);
    let assembly = start(&mut disks, false, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, FIRST_STRIPE);
}

#[test]
fn a_log_that_makes_no_sense_leaves_all_parity_in_doubt() {
    let mut disks = disks();
    let said = superblocks(&mut disks);
    for (disk, mut superblock) in disks.iter_mut().flatten().zip(said) {
        superblock.resync_offset = 4 * FIRST_STRIPE;
        write_superblock(disk, &superblock).expect("room");
    }
    log(&mut disks, false);
    let assembly = start(&mut disks, false, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, FIRST_STRIPE);
}

#[test]
fn where_nothing_is_said_parity_is_made_anew_as_a_precaution() {
    let mut disks = disks();
    let assembly = start(&mut disks, false, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, 0);
    let said = superblocks(&mut disks);
    assert!(said.iter().all(|s| s.resync_offset == 0));
    // So it is taken for right when a member is lost meanwhile.
    disks[0] = None;
    let assembly = start(&mut disks, false, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, IN_SYNC);
}

#[test]
fn an_array_that_owes_all_has_its_first_stripe_in_sync_and_says_so() {
    let mut disks = disks();
    log(&mut disks, false);
    let assembly = start(&mut disks, false, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, FIRST_STRIPE);
    let superblocks = superblocks(&mut disks);
    assert!(superblocks.iter().all(|s| s.resync_offset == FIRST_STRIPE));
    // Left-symmetric: slot 2 has the parity of the first row.
    let first = superblocks[0].data_offset as usize * 512;
    let stripe = |slot: usize, at: usize| disks[slot].as_ref().expect("there").bytes[first + at];
    assert!((0..4096).all(|at| stripe(2, at) == 1 ^ 2));
    assert_eq!(stripe(2, 4096), 3, "no more than that");
}

#[test]
fn what_a_log_can_not_save_is_in_doubt_however_often_a_start_is_cut_off() {
    let mut writes = 0;
    loop {
        let mut disks = disks();
        log(&mut disks, false);
        disks[0] = None;
        let whole = start(&mut disks, true, writes);
        if whole.is_err() {
            let again = start(&mut disks, true, u32::MAX).expect("started");
            assert_eq!(again.resync_offset, FIRST_STRIPE, "after {writes} writes");
        }
        let last = start(&mut disks, true, u32::MAX).expect("started");
        assert_eq!(last.resync_offset, FIRST_STRIPE, "after {writes} writes");
        if whole.is_ok() {
            break;
        }
        writes += 1;
    }
    assert!(writes > 4, "superblocks and logs are written");
}

#[test]
fn a_member_that_is_taken_by_force_leaves_all_parity_in_doubt() {
    let mut disks = disks();
    log(&mut disks, true);
    let newer = superblocks(&mut disks);
    for (disk, mut superblock) in disks.iter_mut().zip(newer).take(1) {
        superblock.events += 10;
        write_superblock(disk.as_mut().expect("there"), &superblock).expect("room");
    }
    assert!(start(&mut disks, false, u32::MAX).is_err(), "two are stale");
    let assembly = start(&mut disks, true, u32::MAX).expect("started");
    assert_eq!(assembly.resync_offset, FIRST_STRIPE);
}
