//! What the members of the golden arrays hold, by md's formula alone. These tests say that the
//! images are what they claim to be, so that others may rely on them.

use sha2::{Digest, Sha256};

use super::golden::{Golden, number};
use super::linux::{Shape, Slots, data_offset, is_pattern, slot};

/// The checksum of some bytes, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn content_is_what_linux_read() {
    for golden in Golden::ours() {
        let record = &golden.record;
        let read = [
            &record["running"],
            &record["assembled"]["all"],
            &record["assembled"]["forced"],
        ]
        .into_iter()
        .find_map(|state| state["sha256"].as_str());
        let read = read.unwrap_or_else(|| panic!("{}: Linux read it", golden.name));
        let content = Slots::of(golden)
            .content()
            .expect("one member is missing at most");
        assert_eq!(sha256(&content), read, "{}", golden.name);
    }
}

#[test]
fn content_without_any_one_member_is_what_linux_read() {
    let mut read = 0;
    for golden in Golden::ours() {
        // What a killed array holds in place of a lost member, only its log may know.
        if golden.name.starts_with("killed") {
            continue;
        }
        let looks = golden.record["assembled"].as_object().expect("looks");
        for (name, look) in looks {
            let without = name.strip_prefix("without-").map(|n| number(n) as usize);
            let (Some(without), Some(sha)) = (without, look["sha256"].as_str()) else {
                continue;
            };
            let slots = Slots::of(golden);
            let slots = match slot(golden, without) {
                Some(slot) if slots.is_from(slot, without) => slots.without(slot),
                _ => slots,
            };
            let content = slots.content();
            let ours = content.map_or("unreadable".to_owned(), |bytes| sha256(&bytes));
            assert_eq!(ours, sha, "{} {name}", golden.name);
            read += 1;
        }
    }
    assert!(read > 70, "Linux read only {read} arrays without a member");
}

/// Blocks that were written twice, and then have generation 1.
fn rewritten(name: &str) -> std::ops::Range<u64> {
    match name {
        "bitmap-degraded" => 200..300,
        "stale" => 100..400,
        "rebuilding-bitmap" => 20..620,
        _ => 0..0,
    }
}

#[test]
fn blocks_tell_their_numbers() {
    for golden in Golden::ours() {
        if golden.name.starts_with("killed") || golden.name == "resyncing" {
            continue;
        }
        let slots = Slots::of(golden);
        let rewritten = rewritten(&golden.name);
        for block in 0..slots.shape.data_blocks() {
            let generation = u64::from(rewritten.contains(&block));
            assert!(
                is_pattern(&slots.read(block).expect("a block"), generation, block),
                "{}: block {block} is not of generation {generation}",
                golden.name,
            );
        }
    }
}

#[test]
fn parity_is_right_where_linux_found_it_right() {
    let mut checked = 0;
    for golden in Golden::ours() {
        if golden.record["mismatch_cnt"] == 0 {
            let wrong = Slots::of(golden).mismatches();
            assert!(wrong.is_empty(), "{}: blocks {wrong:?}", golden.name);
            checked += 1;
        }
    }
    assert!(checked > 15, "Linux checked only {checked} arrays");
}

#[test]
fn a_resync_has_come_to_where_it_was_stopped() {
    let golden = Golden::named("resyncing");
    let slots = Slots::of(golden);
    // 512 sectors of 1024.
    assert_eq!(slots.mismatches(), (64..128).collect::<Vec<_>>());
}

#[test]
fn a_rebuild_has_come_to_where_it_was_stopped() {
    for name in ["rebuilding", "rebuilding-bitmap", "replacing"] {
        let golden = Golden::named(name);
        let offset = |member| golden.examined(member, "Recovery Offset").map(number);
        let mut rebuilt = (0..golden.images.len()).filter(|&member| offset(member).is_some());
        let member = rebuilt.next().expect("a member being rebuilt");
        assert_eq!(rebuilt.next(), None);
        assert_eq!(offset(member), Some(1024));
        let slots = Slots::of(golden);
        let slot = number(
            golden
                .said(member, "Device Role")
                .rsplit(' ')
                .next()
                .expect("a slot"),
        );
        let start = data_offset(golden, member) as usize * 512;
        let holds = |block: u64| {
            let stored = &golden.images[member][start + block as usize * 4096..][..4096];
            stored
                == slots
                    .computed(slot as usize, block)
                    .expect("the others are there")
        };
        let right: Vec<u64> = (0..slots.shape.blocks)
            .filter(|&block| holds(block))
            .collect();
        assert!(
            right.starts_with(&(0..128).collect::<Vec<_>>()),
            "{name}: {right:?}"
        );
        assert!(
            right.len() < slots.shape.blocks as usize,
            "{name}: all is rebuilt"
        );
    }
}

/// The generation of each block that Linux had said was written, of an array that was killed.
pub fn acknowledged(golden: &Golden) -> Option<Vec<u64>> {
    let text = golden.record["acknowledged"].as_str()?;
    let mut generations: Vec<u64> = text
        .split(' ')
        .map(|generation| generation.parse().expect("a number"))
        .collect();
    // Blocks behind the last one that was written have none.
    generations.resize(Shape::of(golden).data_blocks() as usize, 0);
    Some(generations)
}

#[test]
fn killed_arrays_have_what_was_acknowledged() {
    for golden in Golden::ours() {
        let Some(acknowledged) = acknowledged(golden) else {
            continue;
        };
        let slots = Slots::of(golden);
        let (mut unacknowledged, mut computed) = (0, 0);
        for (block, acknowledged) in (0..slots.shape.data_blocks()).zip(acknowledged) {
            let bytes = slots.read(block).expect("one member is missing at most");
            let is = |generation| is_pattern(&bytes, generation, block);
            // The next write may have been under way.
            unacknowledged += u64::from(is(acknowledged + 1));
            if is(acknowledged) || is(acknowledged + 1) {
                continue;
            }
            // A block of the member that is being rebuilt is lost if another one of its stripe was
            // being written: the hole that makes Linux refuse such arrays.
            let (slot, at) = slots.shape.locate(block);
            let stored = slots.stored(slot, at).is_some();
            let name = &golden.name;
            assert!(
                !stored,
                "{name}: block {block} is not of generation {acknowledged} or the next"
            );
            computed += 1;
        }
        assert!(unacknowledged > 0, "{}: nothing was under way", golden.name);
        // Eight processes were writing.
        assert!(computed <= 8, "{}: {computed} blocks are lost", golden.name);
    }
}

#[test]
fn killed_arrays_have_stripes_that_were_being_written() {
    for name in ["killed-resync", "killed-bitmap", "killed-ppl"] {
        let torn = Slots::of(Golden::named(name)).mismatches();
        assert!(
            !torn.is_empty(),
            "{name}: no parity is wrong, so it proves nothing"
        );
    }
}
