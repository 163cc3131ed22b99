//! One flipped bit in the metadata of a member is found, or does no harm.

use std::collections::BTreeSet;

use stripewise::md::{
    Found, Freshness, Member, Policy, PplHeader, SECTOR, Superblock, assemble, ppl,
};

use super::golden::Golden;

/// Golden arrays with different metadata.
const KINDS: [&str; 8] = [
    "left-symmetric",
    "metadata-1.0",
    "metadata-1.1",
    "bitmap",
    "ppl",
    "rebuilding",
    "bad-blocks",
    "resyncing",
];

/// Bytes with one bit the other way round.
fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// What is found on the members, without those that have no superblock that can be read.
fn found(images: &mut [Vec<u8>]) -> Vec<Found> {
    let members = images.iter_mut().enumerate().filter_map(|(index, image)| {
        let member = Member::read(image).ok()?;
        let name = format!("member {index}");
        Some(Found { name, member })
    });
    members.collect()
}

/// Calls `look` with each of these bits of a member flipped, one at a time: what is then found on
/// the members, this one included if it has a superblock that can be read.
fn with_flipped(
    images: &mut [Vec<u8>],
    member: usize,
    bits: impl Iterator<Item = usize>,
    mut look: impl FnMut(usize, &[Found]),
) {
    let mut all = found(images);
    let whole = all.remove(member);
    for bit in bits {
        let image = &mut images[member];
        image[bit / 8] ^= 1 << (bit % 8);
        let read = Member::read(image);
        image[bit / 8] ^= 1 << (bit % 8);
        let mut with = all.clone();
        if let Ok(read) = read {
            let name = whole.name.clone();
            with.insert(member, Found { name, member: read });
        }
        look(bit, &with);
    }
}

#[test]
fn a_superblock_with_a_flipped_bit_is_none() {
    for name in KINDS {
        let image = &Golden::named(name).images[0];
        let sb = Member::read(&mut image.clone())
            .expect("a member")
            .superblock;
        let start = (sb.super_offset * SECTOR) as usize;
        let page = &image[start..start + 4096];
        for bit in 0..8 * 4096 {
            match Superblock::parse(&flipped(page, bit)) {
                Err(_) => assert!(bit < 8 * sb.bytes(), "{name}: bit {bit} means nothing"),
                Ok(read) => {
                    assert!(bit >= 8 * sb.bytes(), "{name}: nobody sees bit {bit}");
                    assert_eq!(read, sb, "{name}, bit {bit}");
                }
            }
        }
    }
}

#[test]
fn a_log_header_with_a_flipped_bit_is_none() {
    let golden = Golden::named("killed-ppl");
    for (index, image) in golden.images.iter().enumerate() {
        let sb = Member::read(&mut image.clone())
            .expect("a member")
            .superblock;
        let Policy::Ppl { offset, .. } = sb.policy else {
            panic!("member {index} has a log");
        };
        let start = ((sb.super_offset as i64 + i64::from(offset)) * 512) as usize;
        let header = &image[start..start + 4096];
        let signature = ppl::signature(&sb.set_uuid);
        PplHeader::parse(header, signature).expect("a header at the start");
        for bit in 0..8 * 4096 {
            let read = PplHeader::parse(&flipped(header, bit), signature);
            assert!(read.is_err(), "member {index}: nobody sees bit {bit}");
        }
    }
}

/// What an array believes of its bitmap: which sectors have to be resynced, and how old a member may
/// be to be let in by it.
fn belief(found: &[Found]) -> (BTreeSet<u64>, u64) {
    let uuid = found[0].member.superblock.set_uuid;
    let assembly = assemble(uuid, found, false).expect("an array");
    let (header, bits) = assembly.bitmap.expect("a bitmap");
    let sectors = bits.iter().flat_map(|bit| bits.sectors_of(bit)).collect();
    (sectors, header.events_cleared)
}

#[test]
fn a_bitmap_with_a_flipped_bit_has_no_write_forgotten() {
    // There is no checksum here, but there is a copy on each member.
    for (name, member) in [("killed-bitmap", 0), ("killed-bitmap", 3), ("bitmap", 0)] {
        let mut images = Golden::named(name).images.clone();
        let (dirty, cleared) = belief(&found(&mut images));
        let whole = Member::read(&mut images[member]).expect("a member");
        let bitmap = whole.bitmap.expect("a bitmap").expect("a whole one");
        let Policy::Bitmap { offset } = whole.superblock.policy else {
            panic!("{name} has a bitmap");
        };
        let start = (whole.superblock.super_offset as i64 + i64::from(offset)) as usize * 512;
        let bits = 8 * 256 + bitmap.bits.bits() as usize;
        let (mut seen, mut mistrusted) = (0, 0);
        let bits = (8 * start..).take(bits);
        with_flipped(&mut images, member, bits, |bit, found| {
            let bit = bit - 8 * start;
            let at = format!("{name}, member {member}, bit {bit}");
            assert_eq!(found.len(), 4, "{at}: the superblock is whole");
            match found[member].member.bitmap.as_ref().expect("a bitmap") {
                Err(_) => seen += 1,
                Ok(stored) if stored.freshness == Freshness::Stale => mistrusted += 1,
                Ok(_) => {}
            }
            let (now, now_cleared) = belief(found);
            assert!(now.is_superset(&dirty), "{at}: a write is forgotten");
            assert!(now_cleared >= cleared, "{at}: an old member is let in");
        });
        assert!(seen > 100, "{name}: only {seen} bits make the header bad");
        assert!(mistrusted > 0, "{name}: no bit makes it stale");
    }
}

#[test]
fn no_flipped_bit_is_a_panic() {
    for name in KINDS {
        let mut images = Golden::named(name).images.clone();
        let sb = Member::read(&mut images[1]).expect("a member").superblock;
        // The superblock and the areas behind it; in front of it with version 1.0.
        let start = (sb.super_offset * SECTOR) as usize;
        let area = start.saturating_sub(2 * 4096)..(start + 3 * 4096).min(images[1].len());
        let bits = (8 * area.start..8 * area.end).step_by(7);
        with_flipped(&mut images, 1, bits, |_, found| {
            let _ = assemble(sb.set_uuid, found, true);
        });
    }
}
