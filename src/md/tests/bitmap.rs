//! The bitmap against hand-made bytes and a set of numbers.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::bitmap_header::{BitmapError, Freshness, STATE_STALE};
use super::super::{Bitmap, BitmapHeader, Unsupported};
use super::sample;

#[test]
fn the_header_is_that_of_the_format() {
    let mut header = BitmapHeader::new(&sample(), 64 << 20, 8);
    header.events_cleared = 16;
    let mut bytes = [0xff; 256];
    header.write(&mut bytes);
    let mut wanted = [0; 256];
    wanted[..4].copy_from_slice(b"bitm");
    wanted[4] = 4;
    wanted[8..24].copy_from_slice(sample().set_uuid.as_bytes());
    wanted[24] = 17;
    wanted[32] = 16;
    wanted[40..48].copy_from_slice(&2_095_104u64.to_le_bytes());
    wanted[52..56].copy_from_slice(&(64u32 << 20).to_le_bytes());
    wanted[56] = 5;
    wanted[64] = 8;
    assert_eq!(bytes, wanted);
    assert_eq!(BitmapHeader::parse(&bytes), Ok(header));
}

#[test]
fn a_header_that_the_kernel_refuses_is_refused() {
    let header = BitmapHeader::new(&sample(), 64 << 20, 8);
    let with = |change: fn(&mut BitmapHeader)| {
        let mut header = header.clone();
        change(&mut header);
        let mut bytes = [0; 256];
        header.write(&mut bytes);
        BitmapHeader::parse(&bytes).and_then(|h| h.check(&sample()))
    };
    let out_of_range = |field, value| Err(BitmapError::Range { field, value });
    assert_eq!(with(|_| ()), Ok(Freshness::Current));
    assert_eq!(
        with(|h| h.chunk_bytes = 256),
        out_of_range("chunksize", 256)
    );
    assert_eq!(
        with(|h| h.chunk_bytes = 768),
        out_of_range("chunksize", 768)
    );
    assert_eq!(
        with(|h| h.daemon_sleep = 0),
        out_of_range("daemon_sleep", 0)
    );
    assert_eq!(
        with(|h| h.write_behind = 16384),
        out_of_range("write_behind", 16384)
    );
    assert_eq!(with(|h| h.version = 2), Err(BitmapError::Version(2)));
    assert_eq!(with(|h| h.version = 7), Err(BitmapError::Version(7)));
    for version in [5, 6] {
        let mut other = header.clone();
        other.version = version;
        let unsupported = Unsupported::BitmapVersion(version);
        assert_eq!(other.check(&sample()), Err(unsupported.into()));
    }
    assert!(matches!(
        with(|h| h.uuid = uuid::Uuid::nil()),
        Err(BitmapError::Uuid { .. })
    ));
    assert!(matches!(
        BitmapHeader::parse(&[0; 256]),
        Err(BitmapError::Magic(0))
    ));
    assert!(matches!(
        BitmapHeader::parse(&[0; 255]),
        Err(BitmapError::Short { .. })
    ));
}

#[test]
fn a_bitmap_that_missed_writes_is_stale() {
    let mut header = BitmapHeader::new(&sample(), 64 << 20, 8);
    for (events, freshness) in [
        (16, Freshness::Stale),
        (17, Freshness::Current),
        (18, Freshness::Current),
    ] {
        header.events = events;
        assert_eq!(header.check(&sample()), Ok(freshness), "events {events}");
    }
    header.state = STATE_STALE;
    assert_eq!(header.check(&sample()), Ok(Freshness::Stale));
}

#[test]
fn bits_follow_the_header_the_lowest_first() {
    let header = BitmapHeader::new(&sample(), 4096, 256);
    let mut bitmap = Bitmap::new(8 * 40000, 4096).expect("possible");
    for bit in [0, 9, 30719, 30720, 39999] {
        assert!(bitmap.set(bit));
        assert!(!bitmap.set(bit));
    }
    let area = bitmap.to_bytes(&header, 512);
    let set: Vec<_> = (256..area.len()).filter(|&at| area[at] != 0).collect();
    assert_eq!(set, [256, 257, 4095, 4096, 5255]);
    assert_eq!([area[256], area[257]], [1, 2]);
    assert_eq!([area[4095], area[4096], area[5255]], [0x80, 1, 0x80]);
    assert_eq!(area.len(), 5632);
    assert_eq!(
        [0, 30719, 30720, 39999].map(|b| bitmap.page_of(b)),
        [0, 0, 1, 1]
    );
    assert_eq!((bitmap.pages(), bitmap.area_bytes()), (2, 5256));
    assert_eq!([0, 1].map(|p| bitmap.page_bytes(p, 512)), [4096, 1536]);
    assert_eq!(bitmap.page_bytes(1, 4096), 4096);
    for page in 0..2 {
        let from = page as usize * 4096;
        let mut bytes = vec![0xa5; bitmap.page_bytes(page, 512)];
        bitmap.render(page, &header, &mut bytes);
        assert_eq!(bytes, area[from..from + bytes.len()]);
    }
}

#[test]
fn bits_behind_the_last_one_do_not_count() {
    let header = BitmapHeader::new(&sample(), 4096, 8);
    let mut area = vec![0xff; 512];
    header.write(&mut area);
    // 85 sectors are 10 chunks of 8 and a part of an eleventh.
    let bitmap = Bitmap::load(&header, 85, &area).expect("long enough");
    assert_eq!((bitmap.bits(), bitmap.count()), (11, 11));
    assert_eq!(bitmap.sectors_of(10), 80..85);
    assert_eq!(bitmap.to_bytes(&header, 512)[257..259], [0b111, 0]);
    let mut all = Bitmap::new(85, 4096).expect("possible");
    all.set_all();
    assert_eq!(all, bitmap);
}

#[test]
fn an_area_that_is_too_short_is_refused() {
    let header = BitmapHeader::new(&sample(), 4096, 8);
    let short = BitmapError::Short {
        needed: 258,
        got: 257,
    };
    assert_eq!(Bitmap::load(&header, 85, &[0; 257]), Err(short));
    assert!(Bitmap::load(&header, u64::MAX, &[0; 4096]).is_err());
    assert!(Bitmap::new(u64::MAX, 512).is_err());
}

/// What a flipped bit of a header leads to. There is no checksum: what is not refused must do no harm.
#[derive(Debug, PartialEq)]
enum Flip {
    /// The bitmap is not taken at all.
    Refused,
    /// Every bit is taken as set.
    Stale,
    /// It says the same about every part of the members.
    Same,
}

#[test]
fn a_flipped_bit_of_the_header_is_noticed_or_does_no_harm() {
    let header = BitmapHeader::new(&sample(), 1 << 20, 8);
    let mut bytes = [0; 256];
    header.write(&mut bytes);
    for bit in 0..256 * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let read = BitmapHeader::parse(&flipped);
        let flip = match read.as_ref().map(|h| h.check(&sample())) {
            Err(_) | Ok(Err(_)) => Flip::Refused,
            Ok(Ok(Freshness::Stale)) => Flip::Stale,
            Ok(Ok(Freshness::Current)) => Flip::Same,
        };
        let wanted = match (bit / 8, bit % 8) {
            // Magic, version, identity, chunk. Seconds between looks: 5 is never 0 with one bit flipped.
            (0..24 | 52..56, _) => Flip::Refused,
            // Events: 17 becomes less only if a bit of its own goes.
            (24, 0 | 4) => Flip::Stale,
            // Two bits of the state say that the bitmap is worth nothing.
            (48, 1 | 2) => Flip::Stale,
            // Write-behind: more than 16383 is refused.
            (61, 6 | 7) | (62..64, _) => Flip::Refused,
            // Events of the last cleared bit, the size that nobody believes, waits, space, cluster, nothing.
            _ => Flip::Same,
        };
        assert_eq!(flip, wanted, "bit {bit}");
        if let (Ok(read), Flip::Same) = (read, flip) {
            let shape = |h: &BitmapHeader| (h.uuid, h.chunk_bytes);
            assert_eq!(shape(&read), shape(&header), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn a_bitmap_is_a_set_of_numbers(
        sectors in 1u64..100_000,
        chunk in 0u32..8,
        changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..60),
    ) {
        let chunk_bytes = 512 << chunk;
        let header = BitmapHeader::new(&sample(), chunk_bytes, 0);
        let mut bitmap = Bitmap::new(sectors, chunk_bytes).expect("possible");
        let mut model = BTreeSet::new();
        for (set, index) in changes {
            let bit = index.index(bitmap.bits() as usize) as u64;
            if set {
                prop_assert_eq!(bitmap.set(bit), model.insert(bit));
            } else {
                prop_assert_eq!(bitmap.clear(bit), model.remove(&bit));
            }
        }
        prop_assert!(bitmap.iter().eq(model.iter().copied()));
        prop_assert_eq!(bitmap.count(), model.len() as u64);
        let mut at = 0;
        for &bit in &model {
            prop_assert_eq!(bitmap.next_set(at), Some(bit));
            at = bit + 1;
        }
        prop_assert_eq!(bitmap.next_set(at), None);
        for sector in [0, sectors / 2, sectors - 1] {
            prop_assert!(bitmap.sectors_of(bitmap.bit_of(sector)).contains(&sector));
            let bits = bitmap.bits_of(sector..sector + 1);
            prop_assert_eq!(bits, bitmap.bit_of(sector)..bitmap.bit_of(sector) + 1);
        }
        let area = bitmap.to_bytes(&header, 512);
        prop_assert_eq!(Bitmap::load(&header, sectors, &area), Ok(bitmap));
    }
}
