//! Where a new array has its data, against figures of mdadm, and what a superblock may not say.

use super::super::placement::{
    Area, PlacementError, bitmap_chunk, bitmap_space, data_offset, usable,
};
use super::super::superblock::Minor;
use super::super::{BadBlockLog, BitmapHeader, Placement, Policy};
use super::sample;

const GIB: u64 = 2 << 20;

#[test]
fn a_bitmap_gets_the_space_that_mdadm_keeps() {
    assert_eq!(bitmap_space(127), 0);
    assert_eq!(bitmap_space(128), 8);
    assert_eq!(bitmap_space(8 * GIB + 8), 8);
    assert_eq!(bitmap_space(8 * GIB + 9), 128);
    assert_eq!(bitmap_space(200 * GIB + 127), 128);
    assert_eq!(bitmap_space(200 * GIB + 128), 256);
}

#[test]
fn data_starts_where_mdadm_starts_it() {
    // Figures seen in `mdadm --examine` of arrays with chunks of 512 KiB: large disks have 264192 sectors.
    assert_eq!(data_offset(Minor::V2, 2 * 1000 * GIB, 1024, false), 264192);
    assert_eq!(data_offset(Minor::V2, 1000 * GIB, 1024, false), 264192);
    assert_eq!(data_offset(Minor::V2, GIB, 1024, false), 4096);
    // A fixed 128 MiB headroom is more than a thousandth below 128 GiB.
    assert_eq!(data_offset(Minor::V2, 128 * GIB, 1024, false), 264192);
    assert_eq!(data_offset(Minor::V2, 128 * GIB - 1, 1024, false), 133120);
    assert_eq!(data_offset(Minor::V1, GIB, 1024, true), 6144);
    assert_eq!(data_offset(Minor::V0, GIB, 1024, true), 0);
    // Two chunks of 1 MiB are kept on the smallest device.
    assert_eq!(data_offset(Minor::V2, 100_000, 2048, false), 6144);
}

#[test]
fn what_is_left_of_a_device_can_be_used() {
    assert_eq!(usable(Minor::V2, GIB, 4096, false), Ok(GIB - 4096));
    assert_eq!(usable(Minor::V1, GIB, 4096, true), Ok(GIB - 4096));
    assert_eq!(usable(Minor::V0, GIB + 7, 0, false), Ok(GIB - 16 - 8 - 8));
    assert_eq!(usable(Minor::V0, GIB, 0, true), Ok(GIB - 16 - 8 - 2048));
    assert!(usable(Minor::V2, 4096, 4096, false).is_err());
    assert!(usable(Minor::V0, 23, 0, false).is_err());
}

#[test]
fn a_bitmap_has_chunks_of_64_mib_or_what_fits() {
    assert_eq!(bitmap_chunk(None, 100 * GIB, 128), Ok(64 << 20));
    assert_eq!(bitmap_chunk(Some(1 << 20), 10 * GIB, 8), Ok(1 << 20));
    // 8 sectors are 30720 bits; 100 GiB in chunks of 1 MiB are 102400.
    assert_eq!(
        bitmap_chunk(Some(1 << 20), 100 * GIB, 8),
        Err(PlacementError::BitmapChunk {
            chunk_bytes: 1 << 20,
            sectors: 8,
            least: 4 << 20
        })
    );
    assert!(bitmap_chunk(Some(3 << 20), GIB, 8).is_err());
    // 256 sectors are 1046528 bits; 100 TiB need chunks of 128 MiB.
    assert_eq!(bitmap_chunk(None, 100 * 1024 * GIB, 256), Ok(128 << 20));
    assert!(bitmap_chunk(Some(64 << 20), GIB, 0).is_err());
}

#[test]
fn parts_must_be_on_the_device_and_apart() {
    let sectors = 2048 + 2_095_104;
    let mut superblock = sample();
    superblock.policy = Policy::Bitmap { offset: 8 };
    let header = BitmapHeader::new(&superblock, 64 << 20, 0);
    let placement = Placement::of(&superblock, Some(&header), sectors).expect("possible");
    assert_eq!(placement.area(Area::Superblock), Some(8..9));
    assert_eq!(placement.area(Area::Bitmap), Some(16..17));
    assert_eq!(placement.area(Area::BadBlocks), Some(24..32));
    assert_eq!(placement.area(Area::Data), Some(2048..sectors));
    assert_eq!(placement.area(Area::Ppl), None);

    let of = |change: fn(&mut super::super::Superblock), sectors| {
        let mut superblock = superblock.clone();
        change(&mut superblock);
        Placement::of(&superblock, Some(&header), sectors)
    };
    assert!(matches!(
        of(|_| (), sectors - 1),
        Err(PlacementError::Outside {
            area: Area::Data,
            ..
        })
    ));
    let overlap = |a, b| Err(PlacementError::Overlap(a, b));
    assert_eq!(
        of(|s| s.policy = Policy::Bitmap { offset: 0 }, sectors),
        overlap(Area::Superblock, Area::Bitmap)
    );
    assert_eq!(
        of(|s| s.policy = Policy::Bitmap { offset: 2040 }, sectors),
        overlap(Area::Bitmap, Area::Data)
    );
    assert!(matches!(
        of(|s| s.policy = Policy::Bitmap { offset: -9 }, sectors),
        Err(PlacementError::Outside {
            area: Area::Bitmap,
            ..
        })
    ));
    let log = |offset| BadBlockLog {
        shift: 0,
        size: 8,
        offset,
    };
    let mut superblock = superblock.clone();
    superblock.bad_block_log = log(7);
    assert_eq!(
        Placement::of(&superblock, Some(&header), sectors),
        overlap(Area::Bitmap, Area::BadBlocks)
    );
    superblock.bad_block_log = log(i32::MIN);
    assert!(Placement::of(&superblock, Some(&header), sectors).is_err());
    superblock.bad_block_log = log(0);
    superblock.policy = Policy::Ppl {
        offset: 8,
        size: 2048,
        multiple: false,
    };
    assert_eq!(
        Placement::of(&superblock, None, sectors),
        overlap(Area::Ppl, Area::Data)
    );
    superblock.policy = Policy::Ppl {
        offset: 8,
        size: 15,
        multiple: false,
    };
    assert_eq!(
        Placement::of(&superblock, None, sectors),
        Err(PlacementError::SmallPpl(15))
    );
    superblock.data_offset = u64::MAX - 5;
    superblock.policy = Policy::Resync;
    assert!(Placement::of(&superblock, None, sectors).is_err());
}
