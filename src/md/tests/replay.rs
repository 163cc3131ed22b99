//! Recovery from the partial parity logs, against arrays that were really stopped in the middle of writes:
//! each block on its way has reached its disk or has not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::disk::DiskError;
use super::super::layout::Layout;
use super::super::member::write_empty_ppl;
use super::super::ppl::{parity_checksum, signature};
use super::super::replay::{LogMember, Mismatch, Replay, ReplayError, empty_logs, replay};
use super::super::superblock::IN_SYNC;
use super::super::{BadBlocks, Disk, Policy, PplEntry, PplHeader, Superblock};
use super::{Blocks, sample};

const LOG_AT: u64 = 16;
const LOG: u16 = 600;
const DATA: u64 = 1024;
const ROWS: u64 = 8;
const BLOCK: usize = 4096;

/// A write to consecutive blocks of the chunks of some roles of one row.
#[derive(Clone, Debug)]
struct Write {
    row: u64,
    blocks: std::ops::Range<u64>,
    roles: std::ops::Range<u64>,
    /// Which of its blocks have reached their disks: one bit each, the last of each row of blocks for parity.
    reached: u64,
    /// Whether its partial parity was still being written, and so no data yet.
    torn: bool,
}

/// An array of `members` disks of random data with right parity.
struct Array {
    superblock: Superblock,
    layout: Layout,
    disks: Vec<Blocks>,
}

fn pattern(seed: u64) -> Vec<u8> {
    let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    word.wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .to_le_bytes()
        .repeat(BLOCK / 8)
}

fn xor(into: &mut [u8], other: &[u8]) {
    into.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

impl Array {
    fn new(members: u32, chunk: u32, layout: u32) -> Self {
        let mut superblock = sample();
        (superblock.raid_disks, superblock.chunk, superblock.layout) = (members, chunk, layout);
        superblock.size = ROWS * u64::from(chunk);
        superblock.data_size = superblock.size;
        superblock.data_offset = DATA;
        superblock.policy = Policy::Ppl {
            offset: 8,
            size: LOG,
            multiple: true,
        };
        let mut array = Self {
            layout: Layout::of(&superblock).expect("supported"),
            disks: (0..members)
                .map(|_| Blocks::new(DATA + superblock.size))
                .collect(),
            superblock,
        };
        for disk in &mut array.disks {
            write_empty_ppl(disk, &array.superblock).expect("room");
        }
        for sector in (0..array.superblock.size).step_by(8) {
            let parity = array.layout.parity(sector / array.layout.chunk());
            let mut sum = vec![0; BLOCK];
            for slot in (0..members as usize).filter(|&s| s != parity) {
                let data = pattern(sector * 64 + slot as u64 + 1);
                xor(&mut sum, &data);
                array.put(slot, sector, &data);
            }
            array.put(parity, sector, &sum);
        }
        array
    }

    fn bytes(sector: u64) -> std::ops::Range<usize> {
        let start = ((DATA + sector) * 512) as usize;
        start..start + BLOCK
    }

    fn get(&self, slot: usize, sector: u64) -> Vec<u8> {
        self.disks[slot].bytes[Self::bytes(sector)].to_vec()
    }

    fn put(&mut self, slot: usize, sector: u64, data: &[u8]) {
        self.disks[slot].bytes[Self::bytes(sector)].copy_from_slice(data);
    }

    /// What a block of `slot` is, made from all others.
    fn made_of_others(&self, slot: usize, sector: u64) -> Vec<u8> {
        let mut sum = vec![0; BLOCK];
        for other in (0..self.disks.len()).filter(|&s| s != slot) {
            xor(&mut sum, &self.get(other, sector));
        }
        sum
    }

    /// The slots of a write, in order, and its parity's.
    fn slots(&self, write: &Write) -> (Vec<usize>, usize) {
        let chunk = self.layout.chunk();
        let first = (write.row * self.layout.data()) * chunk;
        let slots = write.roles.clone().map(|role| {
            let place = self.layout.locate(first + role * chunk).expect("inside");
            place.slot
        });
        (slots.collect(), self.layout.parity(write.row))
    }

    /// Logs the writes of one parity member, and lets some of their blocks reach the disks. Returns the old and
    /// new content of each block that was being written.
    fn stop_during(&mut self, parity: usize, generation: u64, writes: &[Write]) -> Blocked {
        let mut blocked = Blocked::new();
        let mut header = PplHeader {
            signature: signature(&self.superblock.set_uuid),
            generation,
            entries: Vec::new(),
        };
        let mut log = Vec::new();
        for write in writes {
            let (slots, _) = self.slots(write);
            let full = slots.len() as u64 == self.layout.data();
            let mut partial = Vec::new();
            let mut bit = 0;
            for block in write.blocks.clone() {
                let sector = write.row * self.layout.chunk() + block * 8;
                let mut unchanged = vec![0; BLOCK];
                let all = 0..self.disks.len();
                for slot in all.filter(|s| !slots.contains(s) && *s != parity) {
                    xor(&mut unchanged, &self.get(slot, sector));
                }
                let mut sum = unchanged.clone();
                for &slot in &slots {
                    let (old, new) = (
                        self.get(slot, sector),
                        pattern((generation << 32) + sector * 64 + slot as u64),
                    );
                    xor(&mut sum, &new);
                    if !write.torn && write.reached >> bit & 1 == 1 {
                        self.put(slot, sector, &new);
                    }
                    bit += 1;
                    blocked.insert((slot, sector), (old, new));
                }
                if !write.torn && write.reached >> bit & 1 == 1 {
                    self.put(parity, sector, &sum);
                }
                bit += 1;
                partial.extend(unchanged);
            }
            if full {
                partial.clear();
            }
            let blocks = write.blocks.end - write.blocks.start;
            let chunk = write.row * self.layout.data() + write.roles.start;
            header.entries.push(PplEntry {
                data_sector: chunk * self.layout.chunk() + write.blocks.start * 8,
                pp_size: partial.len() as u32,
                data_size: (blocks as usize * slots.len() * BLOCK) as u32,
                parity_disk: parity as u32,
                checksum: parity_checksum([partial.as_slice()]),
            });
            if write.torn
                && let Some(last) = partial.last_mut()
            {
                *last ^= 1;
            }
            log.extend(partial);
        }
        let at = LOG_AT as usize * 512;
        let bytes = &mut self.disks[parity].bytes;
        header.write(&mut bytes[at..]);
        bytes[at + BLOCK..][..log.len()].copy_from_slice(&log);
        blocked
    }

    fn replay(&mut self, missing: Option<usize>) -> Result<Replay, ReplayError> {
        let none = BadBlocks::new(512);
        let superblock = self.superblock.clone();
        let mut members = members(&mut self.disks, &superblock, &none);
        if let Some(missing) = missing {
            members[missing] = None;
        }
        replay(&mut members, 0)
    }
}

type Blocked = BTreeMap<(usize, u64), (Vec<u8>, Vec<u8>)>;

fn members<'a>(
    disks: &'a mut [Blocks],
    superblock: &'a Superblock,
    bad_blocks: &'a BadBlocks,
) -> Vec<Option<LogMember<'a>>> {
    let members = disks.iter_mut().map(|disk| LogMember {
        disk,
        superblock,
        bad_blocks,
        right_below: u64::MAX,
    });
    members.map(Some).collect()
}

fn any_write(members: u32, chunk: u32) -> impl Strategy<Value = Write> {
    let (blocks, data) = (u64::from(chunk / 8), u64::from(members - 1));
    let part = |len: u64| (0..len).prop_flat_map(move |start| (Just(start), start + 1..=len));
    let torn = prop::bool::weighted(0.1);
    (0..ROWS, part(blocks), part(data), any::<u64>(), torn).prop_map(
        |(row, blocks, roles, reached, torn)| Write {
            row,
            blocks: blocks.0..blocks.1,
            roles: roles.0..roles.1,
            reached,
            torn,
        },
    )
}

fn any_stop() -> impl Strategy<Value = (u32, u32, u32, Vec<Write>)> {
    (3u32..=6, 3u32..=6, 0u32..6).prop_flat_map(|(members, chunk, layout)| {
        let chunk = 1 << chunk;
        let writes = prop::collection::vec(any_write(members, chunk), 1..8);
        (Just(members), Just(chunk), Just(layout), writes)
    })
}

/// The writes by parity member, one for each row.
fn by_parity(array: &Array, writes: Vec<Write>) -> BTreeMap<usize, Vec<Write>> {
    let mut sorted = BTreeMap::<usize, Vec<Write>>::new();
    let mut rows = BTreeSet::new();
    for write in writes.into_iter().filter(|w| rows.insert(w.row)) {
        let (slots, parity) = array.slots(&write);
        // A write of the whole row has no partial parity that could be torn.
        let torn = write.torn && (slots.len() as u64) < array.layout.data();
        sorted
            .entry(parity)
            .or_default()
            .push(Write { torn, ..write });
    }
    sorted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn parity_is_right_wherever_the_writes_were_stopped((members, chunk, layout, writes) in any_stop()) {
        let mut array = Array::new(members, chunk, layout);
        let sorted = by_parity(&array, writes);
        let (mut whole, mut torn) = (0, 0);
        for (&parity, writes) in &sorted {
            array.stop_during(parity, 7, writes);
            torn += writes.iter().filter(|w| w.torn).count();
            whole += writes.iter().filter(|w| !w.torn).count();
        }
        let before: Vec<Vec<u8>> = array.disks.iter().map(|d| d.bytes.clone()).collect();
        let replayed = array.replay(None).expect("no disk fails");
        prop_assert_eq!((replayed.entries, replayed.mismatches.len()), (whole, torn));
        prop_assert!(replayed.lost.is_empty());
        prop_assert_eq!(replayed.proves_clean(0), torn == 0);
        for sector in (0..array.superblock.size).step_by(8) {
            let parity = array.layout.parity(sector / array.layout.chunk());
            prop_assert_eq!(array.get(parity, sector), array.made_of_others(parity, sector));
        }
        for (slot, before) in before.iter().enumerate() {
            let changed = before.chunks(4096).zip(array.disks[slot].bytes.chunks(4096)).enumerate();
            for (block, _) in changed.filter(|(_, (a, b))| a != b) {
                let row = (block as u64 * 8).checked_sub(DATA).map(|s| s / array.layout.chunk());
                prop_assert_eq!(row.map(|row| array.layout.parity(row)), Some(slot));
            }
        }
        // Once more changes nothing.
        let after: Vec<Vec<u8>> = array.disks.iter().map(|d| d.bytes.clone()).collect();
        array.replay(None).expect("no disk fails");
        prop_assert!(array.disks.iter().map(|d| &d.bytes).eq(&after));
    }

    #[test]
    fn what_a_missing_member_had_is_old_or_new_or_told_to_be_lost(
        (members, chunk, layout, writes) in any_stop(),
        missing in any::<prop::sample::Index>(),
    ) {
        let mut array = Array::new(members, chunk, layout);
        let missing = missing.index(members as usize);
        let old = array.disks[missing].bytes.clone();
        let mut blocked = Blocked::new();
        for (&parity, writes) in &by_parity(&array, writes) {
            blocked.extend(array.stop_during(parity, 7, writes));
        }
        let replayed = array.replay(Some(missing)).expect("no disk fails");
        let mut lost = BTreeSet::new();
        for block in &replayed.lost {
            prop_assert_eq!(block.slot, missing);
            prop_assert_eq!(block.sectors.end - block.sectors.start, 8);
            let place = array.layout.locate(block.array.start).expect("inside");
            prop_assert_eq!((place.slot, place.sector), (missing, block.sectors.start));
            prop_assert_eq!(place.parity, block.parity);
            prop_assert_ne!(block.parity, missing);
            lost.insert(block.sectors.start);
        }
        for sector in (0..array.superblock.size).step_by(8) {
            if array.layout.parity(sector / array.layout.chunk()) == missing {
                continue;
            }
            let made = array.made_of_others(missing, sector);
            let was = &old[Array::bytes(sector)];
            let other = blocked.get(&(missing, sector));
            let written = blocked.keys().filter(|k| k.1 == sector).count();
            prop_assert!(!lost.contains(&sector) || other.is_some() && written > 1);
            let right = made == was || other.is_some_and(|(_, new)| *new == made);
            prop_assert!(right || lost.contains(&sector), "sector {}", sector);
        }
    }

    #[test]
    fn no_entry_does_harm(
        entries in prop::collection::vec(
            (0u64..400, 0u32..12, 0u32..60, 0u32..5, any::<bool>()), 1..8),
        wild in any::<(u64, u32, u32, u32)>(),
    ) {
        let mut array = Array::new(4, 16, 2);
        let mut header = PplHeader::empty(&array.superblock.set_uuid);
        header.generation = 1;
        header.entries = entries
            .into_iter()
            .map(|(data_sector, parity, data, parity_disk, small)| {
                let unit = if small { 512 } else { 4096 };
                PplEntry {
                    data_sector,
                    pp_size: parity * unit,
                    data_size: data * unit,
                    parity_disk,
                    checksum: parity_checksum([vec![0; (parity * unit) as usize].as_slice()]),
                }
            })
            .collect();
        header.entries.push(PplEntry {
            data_sector: wild.0,
            pp_size: wild.1,
            data_size: wild.2,
            parity_disk: wild.3,
            checksum: 0,
        });
        let total = header.entries.len();
        for disk in &mut array.disks {
            header.write(&mut disk.bytes[LOG_AT as usize * 512..]);
        }
        let before: Vec<Vec<u8>> = array.disks.iter().map(|d| d.bytes.clone()).collect();
        let replayed = array.replay(None).expect("no disk fails");
        prop_assert_eq!(replayed.entries + replayed.mismatches.len(), total * 4);
        for (slot, before) in before.iter().enumerate() {
            let changed = before.chunks(512).zip(array.disks[slot].bytes.chunks(512)).enumerate();
            for (sector, _) in changed.filter(|(_, (a, b))| a != b) {
                let row = (sector as u64).checked_sub(DATA).map(|s| s / 16);
                prop_assert_eq!(row.map(|row| array.layout.parity(row)), Some(slot));
            }
        }
    }
}

/// One write to two of three data chunks, of which only the first block has reached its disk.
fn stopped() -> (Array, Blocked, usize, Vec<usize>) {
    let mut array = Array::new(4, 16, 2);
    let write = Write {
        row: 5,
        blocks: 0..2,
        roles: 1..3,
        reached: 1,
        torn: false,
    };
    let (slots, parity) = array.slots(&write);
    let blocked = array.stop_during(parity, 3, &[write]);
    (array, blocked, parity, slots)
}

#[test]
fn a_clean_array_is_not_touched() {
    let (mut array, ..) = stopped();
    let before = array.disks[0].bytes.clone();
    let none = BadBlocks::new(0);
    let superblock = array.superblock.clone();
    let mut members = members(&mut array.disks, &superblock, &none);
    let nothing = replay(&mut members, IN_SYNC);
    assert_eq!(nothing, Ok(Replay::default()));
    assert!(!Replay::default().proves_clean(0));
    assert_eq!(array.disks[0].bytes, before);
}

#[test]
fn only_an_array_in_use_is_proved_clean() {
    let (mut array, ..) = stopped();
    let replayed = array.replay(None).expect("no disk fails");
    assert_eq!((replayed.entries, replayed.blocks), (1, 2));
    assert!(replayed.proves_clean(0));
    assert!(!replayed.proves_clean(8));
}

#[test]
fn a_log_without_a_header_is_told() {
    let (mut array, _, parity, _) = stopped();
    array.disks[parity].bytes[LOG_AT as usize * 512] ^= 1;
    let replayed = array.replay(None).expect("no disk fails");
    let gone = Mismatch::NoHeader { slot: parity };
    assert_eq!((replayed.entries, replayed.mismatches), (0, vec![gone]));
}

#[test]
fn partial_parity_behind_the_end_of_the_log_is_none() {
    let mut array = Array::new(4, 16, 2);
    let parity = array.layout.parity(0);
    let entry = PplEntry {
        data_sector: 0,
        pp_size: 8192,
        data_size: 8192,
        parity_disk: parity as u32,
        checksum: parity_checksum([[0; 8192].as_slice()]),
    };
    // 592 sectors behind the header have room for 37 of 16 sectors. What follows them reads as zeros, too.
    let mut header = PplHeader::empty(&array.superblock.set_uuid);
    header.entries = vec![entry; 38];
    header.write(&mut array.disks[parity].bytes[LOG_AT as usize * 512..]);
    let replayed = array.replay(None).expect("no disk fails");
    let behind = Mismatch::Entry {
        slot: parity,
        entry,
    };
    assert_eq!((replayed.entries, replayed.mismatches), (37, vec![behind]));
}

#[test]
fn logs_are_empty_afterwards() {
    let (mut array, _, parity, _) = stopped();
    let none = BadBlocks::new(0);
    let superblock = array.superblock.clone();
    let mut members = members(&mut array.disks, &superblock, &none);
    members[parity ^ 1] = None;
    empty_logs(&mut members).expect("no disk fails");
    let replayed = array.replay(None).expect("no disk fails");
    assert_eq!(replayed, Replay::default());
    let empty = PplHeader::empty(&superblock.set_uuid).to_bytes();
    let log = &array.disks[parity].bytes[LOG_AT as usize * 512..][..usize::from(LOG) * 512];
    assert_eq!(log[..4096], empty);
    assert!(log[4096..].iter().all(|&b| b == 0));
}

#[test]
fn a_bad_block_is_as_good_as_a_missing_one() {
    let (mut array, _, parity, slots) = stopped();
    let mut bad = BadBlocks::new(8);
    let sector = DATA + 5 * 16 + 8;
    bad.insert(sector..sector + 1).expect("room");
    let (none, superblock) = (BadBlocks::new(0), array.superblock.clone());
    let mut members = members(&mut array.disks, &superblock, &none);
    members[slots[1]].as_mut().expect("there").bad_blocks = &bad;
    let replayed = replay(&mut members, 0).expect("no disk fails");
    assert_eq!(replayed.blocks, 1);
    assert_eq!(replayed.lost.len(), 1);
    let lost = &replayed.lost[0];
    assert_eq!((lost.slot, lost.parity), (slots[1], parity));
    assert_eq!(lost.sectors, 88..96);
    assert_eq!(lost.array, (5 * 3 + 2) * 16 + 8..(5 * 3 + 2) * 16 + 16);
}

#[test]
fn a_member_being_rebuilt_has_what_is_rebuilt() {
    for (right_below, blocks) in [(88, 1), (80, 0), (81, 1), (96, 2)] {
        let (mut array, _, _, slots) = stopped();
        let (none, superblock) = (BadBlocks::new(0), array.superblock.clone());
        let mut members = members(&mut array.disks, &superblock, &none);
        members[slots[0]].as_mut().expect("there").right_below = right_below;
        let replayed = replay(&mut members, 0).expect("no disk fails");
        assert_eq!(replayed.blocks, blocks, "below {right_below}");
        assert_eq!(replayed.lost.len() as u64, 2 - blocks);
    }
}

#[test]
fn writes_that_are_no_whole_blocks_are_put_right_too() {
    let mut array = Array::new(4, 16, 2);
    let (row, first) = (2, 3);
    let parity = array.layout.parity(row);
    let array_sector = row * 3 * 16 + first;
    let slot = array.layout.locate(array_sector).expect("inside").slot;
    // Two sectors of one chunk were written; their partial parity is that of the other chunks.
    let device = ((DATA + row * 16 + first) * 512) as usize;
    let mut partial = vec![0; 1024];
    for other in (0..4).filter(|&s| s != slot && s != parity) {
        xor(
            &mut partial,
            &array.disks[other].bytes[device..device + 1024],
        );
    }
    let mut header = PplHeader::empty(&array.superblock.set_uuid);
    header.entries.push(PplEntry {
        data_sector: array_sector,
        pp_size: 1024,
        data_size: 1024,
        parity_disk: parity as u32,
        checksum: parity_checksum([partial.as_slice()]),
    });
    let log = LOG_AT as usize * 512;
    header.write(&mut array.disks[parity].bytes[log..]);
    array.disks[parity].bytes[log + 4096..][..1024].copy_from_slice(&partial);
    array.disks[slot].bytes[device..device + 1024].fill(0x5a);
    let replayed = array.replay(None).expect("no disk fails");
    assert_eq!((replayed.entries, replayed.blocks), (1, 2));
    for sector in (0..array.superblock.size).step_by(8) {
        let parity = array.layout.parity(sector / 16);
        assert_eq!(
            array.get(parity, sector),
            array.made_of_others(parity, sector)
        );
    }
}

#[test]
fn a_disk_that_fails_is_named() {
    let (mut array, _, _, slots) = stopped();
    array.disks[slots[0]].broken = vec![(DATA + 80) / 8];
    let failed = array.replay(None);
    assert!(matches!(
        failed,
        Err(ReplayError::Disk { slot, error: DiskError::Failed { .. } }) if slot == slots[0]
    ));
    let mut none: Vec<Option<LogMember>> = vec![None, None, None];
    assert_eq!(replay(&mut none, 0), Err(ReplayError::Shape));
    assert!(array.disks[0].bytes() > 0);
}
