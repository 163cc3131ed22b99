//! Arbitrary bytes as the metadata of the members of an array, with the checksums of superblocks and logs made
//! right: reading, describing, assembling and replaying them is no panic, and what is put together keeps the
//! rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::md::ppl::parity_checksum;
use stripewise::md::{
    BadBlocks, Found, LogMember, Member, Standing, assemble, empty_logs, member, replay,
};

/// Bytes of the image of one member.
const IMAGE: usize = 128 << 10;
/// Members of the array, and the most devices found.
const MEMBERS: usize = 4;

/// What the members have beside their superblocks, by a byte of the input.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Bitmap,
    Ppl,
}

/// The bytes of a superblock of this array: 512 at 4 KiB, where the input may change any but those that would
/// only make it none at all.
fn superblock(image: &mut [u8], number: u8, kind: Kind, changes: &[u8]) {
    let bytes = &mut image[4096..4608];
    bytes.fill(0);
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(72, &5u32.to_le_bytes());
    put(76, &2u32.to_le_bytes());
    put(80, &64u64.to_le_bytes());
    put(88, &8u32.to_le_bytes());
    put(92, &(MEMBERS as u32).to_le_bytes());
    put(128, &128u64.to_le_bytes());
    put(136, &128u64.to_le_bytes());
    put(160, &[number, 0, 0, 0]);
    put(168, &[number; 16]);
    put(200, &20u64.to_le_bytes());
    put(256, &[0xff; 256]);
    put(256, &[0, 0, 1, 0, 2, 0, 3, 0]);
    match kind {
        Kind::Plain => {}
        Kind::Bitmap => {
            put(8, &[1]);
            put(96, &[8]);
        }
        Kind::Ppl => {
            put(8, &[0, 8]);
            put(96, &[8, 0, 80, 0]);
        }
    }
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        bytes[at % 512] ^= change[2];
    }
    bytes[..4].copy_from_slice(&stripewise::md::superblock::MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    bytes[12..16].fill(0);
    bytes[16..32].fill(7);
    bytes[144..152].copy_from_slice(&8u64.to_le_bytes());
    bytes[220..224].copy_from_slice(&128u32.to_le_bytes());
    bytes[228..256].fill(0);
    bytes[216..220].fill(0);
    let words = bytes.as_chunks().0.iter();
    let sum: u64 = words.map(|w| u64::from(u32::from_le_bytes(*w))).sum();
    let folded = (sum as u32).wrapping_add((sum >> 32) as u32);
    bytes[216..220].copy_from_slice(&folded.to_le_bytes());
}

/// Makes the bytes behind the superblock a bitmap, or a log with entries that are not all nonsense.
fn seal(image: &mut [u8], kind: Kind) {
    let area = &mut image[8192..];
    match kind {
        Kind::Plain => {}
        Kind::Bitmap => {
            area[..8].copy_from_slice(b"mtib\x04\0\0\0");
            area[8..24].fill(7);
            let (events, chunk) = (u64::from(area[24]), 512u32 << (area[52] % 8));
            area[24..32].copy_from_slice(&events.to_le_bytes());
            area[52..56].copy_from_slice(&chunk.to_le_bytes());
            area[60..64].fill(0);
        }
        Kind::Ppl => {
            let count = usize::from(area[528] % 5);
            let mut parity = 4096;
            for entry in 0..count {
                let at = 536 + 24 * entry;
                let strict = area[at + 16] & 0x80 == 0;
                if strict {
                    let [sector, parts, slot] = [area[at], area[at + 8], area[at + 16]];
                    area[at..at + 24].fill(0);
                    area[at] = sector & 0xf8;
                    area[at + 9] = (parts & 1) << 4;
                    area[at + 13] = (parts >> 1 & 3) << 4;
                    area[at + 16] = slot & 3;
                }
                let size =
                    u32::from_le_bytes([area[at + 8], area[at + 9], area[at + 10], area[at + 11]]);
                let end = (parity + size as usize).min(area.len());
                let checksum = parity_checksum([&area[parity.min(end)..end]]);
                area[at + 20..at + 24].copy_from_slice(&checksum.to_le_bytes());
                parity = parity.saturating_add(size as usize);
            }
            let signature = parity_checksum([[7; 16].as_slice()]);
            area[512..516].copy_from_slice(&signature.to_le_bytes());
            area[528..532].copy_from_slice(&(count as u32).to_le_bytes());
            area[532..536].fill(0);
            let checksum = parity_checksum([&area[..4096]]);
            area[532..536].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // The first byte also says what the members have.
    let Some((&[force, same], rest)) = input.split_first_chunk() else {
        return;
    };
    let kind = match force >> 1 & 3 {
        0 => Kind::Plain,
        1 => Kind::Bitmap,
        _ => Kind::Ppl,
    };
    let mut images: Vec<Vec<u8>> = Vec::new();
    let share = rest.len() / (MEMBERS + 2);
    for number in 0..MEMBERS + 2 {
        let part = &rest[number * share..][..share];
        // How many changes of a member's own; the rest is what lies behind its superblock.
        let own = part.first().map_or(0, |&n| usize::from(n % 4) * 3);
        let (changes, area) = part.split_at(part.len().min(1 + own));
        // Some changes are the same everywhere, so that whole arrays of another kind are reached.
        let common = &rest[..usize::from(same % 4 * 3).min(rest.len())];
        let all = [common, changes.get(1..).unwrap_or_default()].concat();
        let mut image = vec![0; IMAGE];
        superblock(&mut image, number as u8, kind, &all);
        let start = match kind {
            Kind::Ppl => 8192 + 520,
            _ => 8192,
        };
        // Short inputs go round, so that they too fill a header.
        for (place, &byte) in image[start..start + 1024]
            .iter_mut()
            .zip(area.iter().cycle())
        {
            *place = byte;
        }
        seal(&mut image, kind);
        images.push(image);
    }
    let mut found = Vec::new();
    for (index, image) in images.iter_mut().enumerate() {
        let Ok(member) = Member::read(image) else {
            continue;
        };
        let name = format!("image {index}");
        let _ = (
            member.examine(&name),
            member.examine_bitmap(&name),
            member.to_json(),
        );
        member.placement().expect("it was read");
        let mut copy = image.clone();
        member::write_superblock(&mut copy, &member.superblock).expect("it is there already");
        let again = Member::read(&mut copy).expect("it was written");
        assert_eq!(again.superblock, member.superblock);
        found.push(Found { name, member });
    }
    let Some(first) = found.first() else {
        return;
    };
    let set_uuid = first.member.superblock.set_uuid;
    let Ok(assembly) = assemble(set_uuid, &found, force & 1 == 1) else {
        return;
    };
    let mut places: Vec<usize> = assembly.slots.iter().flatten().map(|s| s.found).collect();
    places.extend(&assembly.spares);
    places.extend(assembly.replacement.map(|(found, _)| found));
    places.extend(assembly.rejected.iter().map(|r| r.0));
    places.sort_unstable();
    assert!(
        places.into_iter().eq(0..found.len()),
        "each device is somewhere, once"
    );
    let seats = assembly.slots.iter().flatten();
    let in_sync = seats.filter(|s| s.standing == Standing::InSync).count();
    assert!(in_sync + 1 >= assembly.slots.len());

    let none = BadBlocks::new(0);
    let mut disks: Vec<Option<Vec<u8>>> = images.into_iter().map(Some).collect();
    let mut taken: Vec<_> = assembly
        .slots
        .iter()
        .map(|seat| {
            let found = &found[seat.as_ref()?.found];
            let index: usize = found.name["image ".len()..].parse().ok()?;
            Some((disks[index].take()?, &found.member))
        })
        .collect();
    let members = taken.iter_mut().map(|place| {
        let (disk, member) = place.as_mut()?;
        Some(LogMember {
            disk,
            superblock: &member.superblock,
            bad_blocks: member.bad_blocks.as_ref().unwrap_or(&none),
            right_below: u64::MAX,
        })
    });
    let mut members: Vec<_> = members.collect();
    if replay(&mut members, 0).is_ok() {
        let _ = empty_logs(&mut members);
    }
});
