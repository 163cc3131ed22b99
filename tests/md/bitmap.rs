//! The bits of write-intent bitmaps stand for the blocks that were written.

use std::collections::BTreeSet;

use stripewise::md::{Bitmap, Member};

use super::golden::Golden;
use super::linux::{Shape, Slots};

/// The bitmap of each member, as it lies there.
fn bitmaps(golden: &Golden) -> Vec<Bitmap> {
    let read = |image: &Vec<u8>| {
        let member = Member::read(&mut image.clone()).expect("a member");
        member.bitmap.expect("a bitmap").expect("a whole one").bits
    };
    golden.images.iter().map(read).collect()
}

#[test]
fn bits_are_set_where_an_array_without_a_member_was_written() {
    let golden = Golden::named("bitmap-degraded");
    let shape = Shape::of(golden);
    // See golden.sh: these blocks were written after the member had failed; a bit is 16 KiB.
    let written: BTreeSet<u64> = (200..300).map(|block| shape.locate(block).1 / 4).collect();
    for (member, bits) in bitmaps(golden).iter().enumerate() {
        // The one that failed has seen nothing of it.
        let wanted = if member == 2 {
            BTreeSet::new()
        } else {
            written.clone()
        };
        assert_eq!(
            bits.iter().collect::<BTreeSet<_>>(),
            wanted,
            "member {member}"
        );
        let looked_up = (0..bits.bits()).filter(|&bit| bits.is_set(bit));
        assert_eq!(
            looked_up.collect::<BTreeSet<_>>(),
            wanted,
            "member {member}"
        );
    }
}

#[test]
fn bits_are_set_where_an_array_was_being_written_when_it_was_killed() {
    let golden = Golden::named("killed-bitmap");
    let torn = Slots::of(golden).mismatches();
    assert!(!torn.is_empty(), "something was being written");
    for (member, bits) in bitmaps(golden).iter().enumerate() {
        for block in &torn {
            let bit = bits.bit_of(block * 8);
            assert!(
                bits.is_set(bit),
                "member {member}: nothing says that block {block} is torn"
            );
        }
    }
}
