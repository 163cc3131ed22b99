//! The partial parity log against hand-made bytes, and the search for its newest header against a ring that
//! was really written around.

use proptest::prelude::*;

use super::super::ppl::{self, HEADER_BYTES, newest, parity_checksum, signature};
use super::super::{PplArea, PplEntry, PplError, PplHeader};
use super::sample;

/// CRC-32C, a bit at a time, as RFC 3720 has it: start with ones, end by turning all bits over.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn header() -> PplHeader {
    PplHeader {
        signature: signature(&sample().set_uuid),
        generation: 0x0102_0304_0506_0708,
        entries: vec![
            PplEntry {
                data_sector: 0x1122_3344,
                pp_size: 8192,
                data_size: 16384,
                parity_disk: 2,
                checksum: 0xdead_beef,
            },
            PplEntry {
                data_sector: 4096,
                pp_size: 0,
                data_size: 8192,
                parity_disk: 2,
                checksum: 0,
            },
        ],
    }
}

#[test]
fn checksums_are_crc_32c() {
    // The check value of the algorithm, from the catalogue of CRCs.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(parity_checksum([b"1234".as_slice(), b"56789"]), 0xe306_9283);
    assert_eq!(parity_checksum([]), 0);
    let uuid = sample().set_uuid;
    assert_eq!(signature(&uuid), crc32c(uuid.as_bytes()));
}

#[test]
fn the_header_is_that_of_the_format() {
    let mut wanted = vec![0; 4096];
    wanted[..512].fill(0xff);
    let mut put = |at: usize, field: &[u8]| wanted[at..at + field.len()].copy_from_slice(field);
    put(512, &crc32c(sample().set_uuid.as_bytes()).to_le_bytes());
    put(520, &[8, 7, 6, 5, 4, 3, 2, 1]);
    put(528, &[2, 0, 0, 0]);
    put(536, &[0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0]);
    put(
        544,
        &[
            0, 0x20, 0, 0, 0, 0x40, 0, 0, 2, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde,
        ],
    );
    put(560, &[0, 0x10, 0, 0, 0, 0, 0, 0]);
    put(568, &[0, 0, 0, 0, 0, 0x20, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let checksum = crc32c(&wanted);
    wanted[532..536].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(header().to_bytes(), wanted);
    let back = PplHeader::parse(&wanted, header().signature);
    assert_eq!(back, Ok(header()));
    assert_eq!(header().sectors(), 8 + 16);
}

#[test]
fn what_is_no_header_of_this_array_is_refused() {
    let bytes = header().to_bytes();
    let own = header().signature;
    assert_eq!(
        PplHeader::parse(&bytes, own + 1),
        Err(PplError::Signature {
            found: own,
            wanted: own + 1
        })
    );
    assert_eq!(
        PplHeader::parse(&bytes[..4095], own),
        Err(PplError::Short(4095))
    );
    assert!(PplHeader::parse(&[0; 4096], own).is_err());
    let mut forged = bytes.clone();
    forged[528..532].copy_from_slice(&149u32.to_le_bytes());
    forged[532..536].fill(0);
    let checksum = crc32c(&forged);
    forged[532..536].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(PplHeader::parse(&forged, own), Err(PplError::Entries(149)));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = header().to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let parsed = PplHeader::parse(&flipped, header().signature);
        assert!(parsed.is_err(), "bit {bit}");
    }
}

#[test]
fn a_full_header_has_148_entries() {
    let full = PplHeader {
        entries: vec![header().entries[0]; ppl::ENTRIES_MAX],
        ..header()
    };
    let bytes = full.to_bytes();
    assert_eq!(bytes.len(), 4096);
    assert_eq!(PplHeader::parse(&bytes, full.signature), Ok(full));
}

#[test]
fn the_size_of_an_area_says_whether_it_is_a_ring() {
    assert_eq!(PplArea::new(15), None);
    assert_eq!(PplArea::new(0), None);
    let least = PplArea::new(16).expect("room for a block");
    assert_eq!((least.sectors(), least.parity_bytes_max()), (16, 4096));
    assert_eq!(PplArea::new(23), Some(least));
    // 264 KiB are 528 sectors.
    assert!(!PplArea::new(527).expect("large enough").is_ring());
    let single = PplArea::new(264).expect("large enough");
    assert_eq!(single.parity_bytes_max(), 120 << 10);
    assert_eq!(PplArea::new(16).map(|a| a.parity_bytes_max()), Some(4096));
    let ring = PplArea::new(528).expect("large enough");
    assert!(ring.is_ring());
    assert_eq!(ring.parity_bytes_max(), 128 << 10);
}

/// The area of a member, to which headers are written as a running array does.
struct Written {
    bytes: Vec<u8>,
    area: PplArea,
}

impl Written {
    fn new(size: u16) -> Self {
        let area = PplArea::new(size).expect("large enough");
        let mut bytes = vec![0; usize::from(size) * 512];
        let empty = PplHeader::empty(&sample().set_uuid);
        empty.write(&mut bytes);
        Self { bytes, area }
    }

    fn write(&mut self, generation: u64, blocks: u32) -> u64 {
        let pp_size = blocks * 4096;
        let header = PplHeader {
            generation,
            entries: vec![PplEntry {
                pp_size,
                ..header().entries[0]
            }],
            ..header()
        };
        let at = self.area.place(u64::from(pp_size));
        let from = at as usize * 512;
        header.write(&mut self.bytes[from..]);
        self.bytes[from + HEADER_BYTES..][..pp_size as usize].fill(generation as u8);
        at
    }

    fn newest(&self) -> Option<(u64, u64)> {
        let read = |at: u64| {
            let from = at as usize * 512;
            let page = self
                .bytes
                .get(from..from + HEADER_BYTES)
                .expect("inside the area");
            Ok::<_, ()>(page.try_into().expect("as long as asked"))
        };
        let found = newest(&self.area, signature(&sample().set_uuid), read);
        let found = found.expect("no read fails")?;
        Some((found.at, found.header.generation))
    }
}

#[test]
fn an_empty_header_is_the_newest_of_a_new_area() {
    let mut written = Written::new(2048);
    assert_eq!(written.newest(), Some((0, 0)));
    written.bytes[0] ^= 1;
    assert_eq!(written.newest(), None);
}

#[test]
fn a_torn_header_leaves_the_one_before() {
    let mut written = Written::new(2048);
    written.write(1, 2);
    let second = written.write(2, 3);
    assert_eq!((second, written.newest()), (24, Some((24, 2))));
    written.bytes[24 * 512 + 700] ^= 1;
    assert_eq!(written.newest(), Some((0, 1)));
}

#[test]
fn a_write_up_to_the_end_of_the_area_is_found_where_it_is() {
    // The kernel writes so; we do not.
    let mut written = Written::new(24);
    let full = PplHeader {
        generation: 7,
        entries: vec![PplEntry {
            pp_size: 8192,
            ..header().entries[0]
        }],
        ..header()
    };
    full.write(&mut written.bytes);
    assert_eq!(written.newest(), Some((0, 7)));
    let small = |generation| PplHeader {
        generation,
        entries: vec![PplEntry {
            pp_size: 4096,
            ..header().entries[0]
        }],
        ..header()
    };
    small(8).write(&mut written.bytes);
    small(9).write(&mut written.bytes[16 * 512..]);
    assert_eq!(written.newest(), Some((16, 9)));
}

#[test]
fn a_read_that_fails_says_nothing() {
    let area = PplArea::new(2048).expect("large enough");
    assert_eq!(newest(&area, 0, |_| Err("broken")), Err("broken"));
}

proptest! {
    #[test]
    fn the_last_write_is_the_newest(
        size in prop::sample::select(vec![264u16, 528, 1000, 2048]),
        writes in prop::collection::vec(0u32..=30, 1..80),
    ) {
        let mut written = Written::new(size);
        for (number, blocks) in writes.into_iter().enumerate() {
            let generation = number as u64 + 1;
            let at = written.write(generation, blocks);
            prop_assert_eq!(written.newest(), Some((at, generation)));
            prop_assert!(at + 8 + u64::from(blocks) * 8 < u64::from(size) - 8);
        }
    }
}
