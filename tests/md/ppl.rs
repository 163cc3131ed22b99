//! The partial parity logs of an array that was killed: what is read from them, put to use as the
//! kernel's documentation says (`Documentation/driver-api/md/raid5-ppl.rst`), gives the array that
//! Linux made of the same members.

use crc_fast::{CrcAlgorithm, checksum};
use stripewise::md::replay::{LogMember, Replay, replay};
use stripewise::md::{BadBlocks, Disk, Member, Policy, PplEntry, Superblock};

use super::content::{acknowledged, sha256};
use super::golden::{Golden, number};
use super::linux::{BLOCK, Slots, is_pattern, xor};

/// An entry of a log, with its partial parity.
struct Logged {
    entry: PplEntry,
    parity: Vec<u8>,
}

/// The newest header of each member's log, with what lies behind it.
fn logs(golden: &Golden) -> Vec<Vec<Logged>> {
    let read = |image: &Vec<u8>| {
        let member = Member::read(&mut image.clone()).expect("a member");
        let sb = &member.superblock;
        let Policy::Ppl { offset, .. } = sb.policy else {
            panic!("a member of {} has no log", golden.name);
        };
        let found = member.ppl.expect("a log").expect("one that can be read");
        let found = found.expect("a header");
        let area = sb.super_offset as i64 + i64::from(offset);
        // Behind the header, one after another.
        let mut at = (area as u64 + found.at) as usize * 512 + BLOCK;
        let mut logged = Vec::new();
        for entry in found.header.entries {
            let end = at + entry.pp_size as usize;
            let parity = image[at..end].to_vec();
            logged.push(Logged { entry, parity });
            at = end;
        }
        logged
    };
    golden.images.iter().map(read).collect()
}

/// Puts the parity right that was being written: by hand, from what was logged.
fn put_right(slots: &mut Slots, log: &[Logged]) {
    let shape = slots.shape.clone();
    for Logged { entry, parity } in log {
        if checksum(CrcAlgorithm::Crc32Iscsi, parity) != u64::from(entry.checksum) {
            continue; // It was being logged: the write itself had not begun.
        }
        let rows = parity.len() / BLOCK;
        // How many members are written in each of these rows.
        let written = entry.data_size as usize / parity.len();
        for row in 0..rows as u64 {
            let mut sum = parity[row as usize * BLOCK..][..BLOCK].to_vec();
            let mut at = 0;
            let mut known = true;
            for nth in 0..written as u64 {
                let (slot, block) = shape.locate(entry.data_sector / 8 + nth * shape.chunk + row);
                at = block;
                match slots.stored(slot, block) {
                    Some(bytes) => xor(&mut sum, bytes),
                    // The write was to the missing member: what it held is lost either way.
                    None => known = false,
                }
            }
            assert_eq!(shape.parity_slot(shape.row(at)), entry.parity_disk as usize);
            if known {
                slots.store(entry.parity_disk as usize, at, &sum);
            }
        }
    }
}

#[test]
fn logs_know_what_was_being_written() {
    let golden = Golden::named("killed-ppl");
    let logs = logs(golden);
    let mut slots = Slots::of(golden);
    let torn = slots.mismatches();
    assert!(!torn.is_empty(), "something was being written");
    for log in &logs {
        assert!(!log.is_empty(), "each log was used");
        put_right(&mut slots, log);
    }
    assert!(
        slots.mismatches().is_empty(),
        "{torn:?} were to be put right"
    );
}

#[test]
fn what_a_lost_member_held_is_what_linux_makes_of_it() {
    let golden = Golden::named("killed-ppl");
    let logs = logs(golden);
    let acknowledged = acknowledged(golden).expect("some were");
    let mut mattered = 0;
    for lost in 0..golden.images.len() {
        // Members were given their slots in order.
        assert_eq!(
            golden.said(lost, "Device Role"),
            format!("Active device {lost}")
        );
        let torn = Slots::of(golden).without(lost);
        let mut slots = torn.clone();
        for (member, log) in logs.iter().enumerate() {
            // Its log is lost with it, and so is the parity that it is about.
            if member != lost {
                put_right(&mut slots, log);
            }
        }
        let content = slots.content().expect("one member is missing");
        let look = &golden.record["assembled"][format!("without-{lost}")];
        assert_eq!(look["status"], 0, "Linux started it without member {lost}");
        let read = look["sha256"].as_str().expect("Linux read it");
        assert_eq!(sha256(&content), read, "without member {lost}");
        mattered += u64::from(torn.content().expect("blocks") != content);
        for (block, (bytes, generation)) in content.chunks(BLOCK).zip(&acknowledged).enumerate() {
            let is = |generation| is_pattern(bytes, generation, block as u64);
            let lost_write = slots.shape.locate(block as u64).0 == lost;
            assert!(
                is(*generation) || is(generation + 1) || lost_write,
                "without member {lost}: block {block} is not of generation {generation}",
            );
        }
    }
    assert!(
        mattered > 0,
        "the logs were not needed, so it proves nothing"
    );
}

/// Replays the logs of an array without one of its members, if one is named.
fn replayed(golden: &Golden, lost: Option<usize>) -> (Golden, Replay) {
    let mut golden = golden.clone();
    let superblocks: Vec<Superblock> = golden
        .images
        .iter_mut()
        .map(|image| Member::read(image).expect("a member").superblock)
        .collect();
    let none = BadBlocks::new(0);
    let mut members: Vec<Option<LogMember<'_>>> = (golden.images.iter_mut().zip(&superblocks))
        .enumerate()
        .map(|(slot, (image, superblock))| {
            let disk: &mut dyn Disk = image;
            let member = LogMember {
                disk,
                superblock,
                bad_blocks: &none,
                right_below: u64::MAX,
            };
            (Some(slot) != lost).then_some(member)
        })
        .collect();
    let replay = replay(&mut members, superblocks[0].resync_offset).expect("a replay");
    (golden, replay)
}

#[test]
fn a_replay_makes_what_linux_makes() {
    let golden = Golden::named("killed-ppl");
    for lost in [None, Some(0), Some(1), Some(2), Some(3)] {
        let (golden, replay) = replayed(golden, lost);
        let mut slots = Slots::of(&golden);
        let look = match lost {
            None => {
                assert!(slots.mismatches().is_empty(), "all parity is right");
                &golden.record["assembled"]["all"]
            }
            Some(lost) => {
                slots = slots.without(lost);
                &golden.record["assembled"][format!("without-{lost}")]
            }
        };
        let content = slots.content().expect("blocks");
        let read = look["sha256"].as_str().expect("Linux read it");
        assert_eq!(sha256(&content), read, "without {lost:?}");
        // Linux sees no need of a resync then.
        assert_eq!(
            replay.proves_clean(0),
            look["resync_start"] == "none",
            "without {lost:?}"
        );
    }
}

#[test]
fn nothing_is_replayed_where_the_array_was_stopped() {
    for name in ["ppl", "ppl-single"] {
        let golden = Golden::named(name);
        let (after, replay) = replayed(golden, None);
        assert_eq!(replay, Replay::default(), "{name}");
        assert!(after.images == golden.images, "{name}");
        // The last write is still there, for the kernel leaves it.
        let logged = logs(golden).into_iter().flatten().count();
        assert!(logged > 0, "{name}: there was nothing to replay");
    }
    let single = Golden::named("ppl-single").said(0, "PPL");
    assert_eq!(number(single), 264, "a log with room for one write");
}
