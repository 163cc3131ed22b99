//! The layouts against tables drawn by hand.

use super::super::layout::Layout;
use super::sample;

/// Rows 0 to 4 of four members: which data chunk of the array each one has, `P` for parity.
const P: u64 = u64::MAX;
#[rustfmt::skip]
const TABLES: [[[u64; 4]; 5]; 6] = [
    [[0, 1, 2, P], [3, 4, P, 5], [6, P, 7, 8], [P, 9, 10, 11], [12, 13, 14, P]],
    [[P, 0, 1, 2], [3, P, 4, 5], [6, 7, P, 8], [9, 10, 11, P], [P, 12, 13, 14]],
    [[0, 1, 2, P], [4, 5, P, 3], [8, P, 6, 7], [P, 9, 10, 11], [12, 13, 14, P]],
    [[P, 0, 1, 2], [5, P, 3, 4], [7, 8, P, 6], [9, 10, 11, P], [P, 12, 13, 14]],
    [[P, 0, 1, 2], [P, 3, 4, 5], [P, 6, 7, 8], [P, 9, 10, 11], [P, 12, 13, 14]],
    [[0, 1, 2, P], [3, 4, 5, P], [6, 7, 8, P], [9, 10, 11, P], [12, 13, 14, P]],
];

#[test]
fn every_chunk_is_where_the_tables_have_it() {
    for (number, table) in TABLES.iter().enumerate() {
        let mut superblock = sample();
        superblock.layout = number as u32;
        (superblock.raid_disks, superblock.chunk, superblock.size) = (4, 16, 80);
        let layout = Layout::of(&superblock).expect("supported");
        assert_eq!(layout.sectors(), 15 * 16);
        for (row, chunks) in table.iter().enumerate() {
            let parity = chunks.iter().position(|&c| c == P).expect("one");
            assert_eq!(layout.parity(row as u64), parity);
            for (slot, &chunk) in chunks.iter().enumerate().filter(|(_, c)| **c != P) {
                let place = layout.locate(chunk * 16 + 5).expect("inside");
                assert_eq!(
                    (place.row, place.slot),
                    (row as u64, slot),
                    "layout {number}"
                );
                assert_eq!((place.parity, place.sector), (parity, row as u64 * 16 + 5));
                assert_eq!(place.role, chunk % 3);
            }
        }
        assert_eq!(layout.locate(15 * 16), None);
    }
}

#[test]
fn there_is_no_layout_of_what_is_not_supported() {
    let mut superblock = sample();
    superblock.layout = 6;
    assert_eq!(Layout::of(&superblock), None);
}
