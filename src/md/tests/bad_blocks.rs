//! The bad-block log against hand-made words and a set of sectors.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::bad_blocks::{BadBlocksError, SECTOR_LIMIT};
use super::super::{BadBlockLog, BadBlocks};

const LOG: BadBlockLog = BadBlockLog {
    shift: 0,
    size: 1,
    offset: 16,
};

/// A log of one sector with these words, and ones behind them.
fn log(words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0xff; 512];
    for (place, word) in bytes.chunks_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn ranges(set: &BadBlocks) -> Vec<(u64, u64)> {
    set.iter().map(|r| (r.start, r.end)).collect()
}

#[test]
fn an_entry_is_a_start_and_a_length() {
    let bytes = log(&[
        1000 << 10 | 8,
        5000 << 10 | 512,
        5512 << 10 | 1,
        u64::MAX,
        1,
    ]);
    let set = BadBlocks::parse(&LOG, &bytes).expect("a log");
    assert_eq!(ranges(&set), [(1000, 1008), (5000, 5513)]);
    assert_eq!((set.entries(), set.sectors(), set.capacity()), (3, 521, 64));
    let mut written = vec![0; 512];
    set.write(&mut written);
    assert_eq!(
        written,
        log(&[1000 << 10 | 8, 5000 << 10 | 512, 5512 << 10 | 1])
    );

    let shifted = BadBlockLog { shift: 3, ..LOG };
    let set = BadBlocks::parse(&shifted, &log(&[10 << 10 | 2])).expect("a log");
    assert_eq!(ranges(&set), [(80, 96)]);
}

#[test]
fn entries_that_name_no_sectors_are_refused() {
    for word in [0, 77 << 10, u64::MAX - 1, 0xffff_ffff_ffff_fc02] {
        let refused = BadBlocks::parse(&LOG, &log(&[1 << 10 | 1, word]));
        let entry = BadBlocksError::Entry {
            index: 1,
            value: word,
        };
        assert_eq!(refused, Err(entry));
    }
    let huge = BadBlockLog { shift: 200, ..LOG };
    assert!(BadBlocks::parse(&huge, &log(&[1 << 10 | 1])).is_err());
    let wide = BadBlockLog { shift: 60, ..LOG };
    assert!(BadBlocks::parse(&wide, &log(&[1 << 10 | 1])).is_err());
}

#[test]
fn a_log_that_is_not_there_is_refused() {
    let gone = BadBlockLog { offset: 0, ..LOG };
    assert_eq!(
        BadBlocks::parse(&gone, &log(&[])),
        Err(BadBlocksError::Missing)
    );
    assert_eq!(BadBlocks::for_log(&gone).capacity(), 0);
    let long = BadBlockLog { size: 9, ..LOG };
    assert_eq!(
        BadBlocks::parse(&long, &[0xff; 9 * 512]),
        Err(BadBlocksError::TooLong(9))
    );
    let short = BadBlocksError::Short {
        needed: 512,
        got: 511,
    };
    assert_eq!(BadBlocks::parse(&LOG, &[0xff; 511]), Err(short));
}

#[test]
fn lengths_that_only_a_reader_knows_are_taken_as_long_as_there_is_room() {
    let set = BadBlocks::parse(&LOG, &log(&[1023])).expect("a log");
    assert_eq!((ranges(&set), set.entries()), (vec![(0, 1023)], 2));
    let words: Vec<_> = (0..64).map(|n| (n * 2000) << 10 | 1023).collect();
    assert!(matches!(
        BadBlocks::parse(&LOG, &log(&words)),
        Err(BadBlocksError::Full(_))
    ));
}

#[test]
fn a_full_log_has_no_end() {
    let mut set = BadBlocks::for_log(&LOG);
    for n in 0..64 {
        assert_eq!(set.insert(n * 10..n * 10 + 1), Ok(true));
    }
    let before = set.clone();
    assert_eq!(set.insert(5..6), Err(BadBlocksError::Full(64)));
    assert_eq!(set, before);
    // What makes no entry more is still taken: a neighbour, a bridge, a part.
    assert_eq!(set.insert(1..2), Ok(true));
    assert_eq!(set.insert(2..10), Ok(true));
    assert_eq!(set.entries(), 63);
    assert_eq!(set.insert(5..6), Ok(false));
    let mut bytes = vec![0; 512];
    set.insert(7_000..7_001).expect("room for one");
    set.write(&mut bytes);
    assert_eq!(BadBlocks::parse(&LOG, &bytes), Ok(set.clone()));
    let before = set.clone();
    assert_eq!(set.remove(5..6), Err(BadBlocksError::Full(64)));
    assert_eq!(set, before);
}

#[test]
fn sectors_that_an_entry_can_not_hold_are_refused() {
    let mut set = BadBlocks::for_log(&LOG);
    assert_eq!(set.insert(SECTOR_LIMIT - 1..SECTOR_LIMIT), Ok(true));
    assert_eq!(
        set.insert(SECTOR_LIMIT - 1..SECTOR_LIMIT + 1),
        Err(BadBlocksError::Sector(SECTOR_LIMIT + 1))
    );
    assert_eq!(set.insert(5..5), Ok(false));
}

#[test]
fn a_flipped_bit_is_refused_or_changes_no_other_entry() {
    // The log has no checksum: a flip within an entry can make another one of it.
    let words = [1000 << 10 | 8, 5000 << 10 | 512, 20_000 << 10 | 1];
    let (bytes, entries) = (log(&words), [1000..1008, 5000..5512, 20_000..20_001u64]);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let word = bit / 64;
        match BadBlocks::parse(&LOG, &flipped) {
            Ok(set) => {
                let others = entries.iter().enumerate().filter(|(n, _)| *n != word);
                for (_, entry) in others {
                    let found: u64 = set.within(entry.clone()).map(|r| r.end - r.start).sum();
                    assert_eq!(found, entry.end - entry.start, "bit {bit}");
                }
                // Instead of the end there are sectors that no device has. Behind the end nobody looks.
                if word > 3 {
                    assert_eq!(set.entries(), 3, "bit {bit}");
                }
                if word == 3 {
                    let wrong = set.iter().find(|r| r.start > 30_000).expect("a range");
                    assert!(wrong.start > 1 << 52, "bit {bit}");
                }
            }
            Err(BadBlocksError::Entry { index, .. }) => assert_eq!(index, word, "bit {bit}"),
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_is_a_set_of_sectors(
        steps in prop::collection::vec((any::<bool>(), 0u64..3000, 1u64..1200), 1..40),
        (probe, len) in (0u64..4000, 0u64..700),
    ) {
        let mut set = BadBlocks::for_log(&LOG);
        let mut model = BTreeSet::new();
        for (add, start, len) in steps {
            let range = start..start + len;
            let before = model.clone();
            if add {
                model.extend(range.clone());
                prop_assert_eq!(set.insert(range), Ok(model != before));
            } else {
                model.retain(|s| !range.contains(s));
                prop_assert_eq!(set.remove(range), Ok(model != before));
            }
        }
        let found: BTreeSet<u64> = set.iter().flatten().collect();
        prop_assert_eq!(&found, &model);
        prop_assert!(set.iter().zip(set.iter().skip(1)).all(|(a, b)| a.end < b.start));
        let within: Vec<u64> = set.within(probe..probe + len).flatten().collect();
        let wanted: Vec<u64> = model.range(probe..probe + len).copied().collect();
        prop_assert_eq!(set.overlaps(probe..probe + len), !wanted.is_empty());
        prop_assert_eq!(within, wanted);
        let mut bytes = vec![0; 512];
        set.write(&mut bytes);
        let used = bytes.chunks(8).filter(|w| *w != [0xff; 8]).count();
        prop_assert_eq!(used, set.entries());
        prop_assert_eq!(BadBlocks::parse(&LOG, &bytes), Ok(set));
    }
}
