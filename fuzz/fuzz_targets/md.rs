//! Arbitrary bytes as each structure of md's format, with checksums made right so that the rest is reached: no
//! panic, and what is accepted is the same after it was written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::md::bitmap_header::HEADER_BYTES;
use stripewise::md::ppl::parity_checksum;
use stripewise::md::superblock::{FIXED_BYTES, MAGIC, MAX_DEVICES};
use stripewise::md::{
    BadBlockLog, BadBlocks, Bitmap, BitmapHeader, Placement, Policy, PplHeader, Superblock,
};

/// Gives bytes the magic, version and checksum of a superblock.
fn seal_superblock(bytes: &mut [u8]) {
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    bytes[12..16].fill(0);
    bytes[228..FIXED_BYTES].fill(0);
    let devices = (bytes.len() - FIXED_BYTES) / 2;
    bytes[220..224].copy_from_slice(&(devices as u32).to_le_bytes());
    bytes[216..220].fill(0);
    let words = bytes.chunks(4).map(|word| {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        u64::from(u32::from_le_bytes(whole))
    });
    let sum: u64 = words.sum();
    let folded = (sum as u32).wrapping_add((sum >> 32) as u32);
    bytes[216..220].copy_from_slice(&folded.to_le_bytes());
}

fn superblock(input: &[u8]) {
    let _ = Superblock::parse(input);
    let len = input.len().min(FIXED_BYTES + 2 * MAX_DEVICES) & !1;
    if len < FIXED_BYTES {
        return;
    }
    let mut bytes = input[..len].to_vec();
    seal_superblock(&mut bytes);
    let Ok(read) = Superblock::parse(&bytes) else {
        return;
    };
    if read.policy != Policy::Resync {
        assert_eq!(read.to_bytes(), bytes);
    }
    assert_eq!(Superblock::parse(&read.to_bytes()).as_ref(), Ok(&read));
    let _ = (read.support(), read.role(), read.slots(), read.minor());
    let _ = (read.set_name.to_string(), read.set_name.without_host());
    let _ = (read.created.to_string(), read.updated.micros());
    let _ = Placement::of(&read, None, read.data_offset.wrapping_add(read.size));
}

fn bitmap(input: &[u8]) {
    let mut bytes = input.to_vec();
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(b"mtib");
        magic.reverse();
    }
    let Ok(header) = BitmapHeader::parse(&bytes) else {
        return;
    };
    let mut again = [0; HEADER_BYTES];
    header.write(&mut again);
    assert_eq!(BitmapHeader::parse(&again).as_ref(), Ok(&header));
    if let Ok(bits) = Bitmap::load(&header, header.sync_size, &bytes) {
        let area = bits.to_bytes(&header, 512);
        assert_eq!(
            Bitmap::load(&header, header.sync_size, &area).as_ref(),
            Ok(&bits)
        );
        assert_eq!(bits.iter().count() as u64, bits.count());
        for page in 0..bits.pages() {
            let mut into = vec![0; bits.page_bytes(page, 512)];
            bits.render(page, &header, &mut into);
            assert_eq!(into, area[page as usize * 4096..][..into.len()]);
        }
    }
}

fn bad_blocks(input: &[u8]) {
    let Some((&[shift, size], words)) = input.split_first_chunk() else {
        return;
    };
    for shift in [0, shift] {
        let log = BadBlockLog {
            shift,
            size: size.into(),
            offset: 16,
        };
        let Ok(set) = BadBlocks::parse(&log, words) else {
            continue;
        };
        assert!(set.entries() <= set.capacity());
        let mut bytes = vec![0; usize::from(size) * 512];
        set.write(&mut bytes);
        let log = BadBlockLog { shift: 0, ..log };
        assert_eq!(BadBlocks::parse(&log, &bytes), Ok(set));
    }
}

fn ppl(input: &[u8]) {
    let mut bytes = input.to_vec();
    bytes.resize(4096, 0);
    bytes[532..536].fill(0);
    let checksum = parity_checksum([bytes.as_slice()]);
    bytes[532..536].copy_from_slice(&checksum.to_le_bytes());
    let signature = u32::from_le_bytes([bytes[512], bytes[513], bytes[514], bytes[515]]);
    if let Ok(header) = PplHeader::parse(&bytes, signature) {
        assert_eq!(
            PplHeader::parse(&header.to_bytes(), signature).as_ref(),
            Ok(&header)
        );
        assert!(header.sectors() * 512 <= header.parity_bytes() + 4096);
    }
}

fuzz_target!(|input: &[u8]| {
    superblock(input);
    bitmap(input);
    bad_blocks(input);
    ppl(input);
});
