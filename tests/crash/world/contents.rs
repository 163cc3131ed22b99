//! What the disks of a healthy array must hold.

use super::World;
use crate::disk::SECTOR;
use crate::start;

impl World {
    /// On an array that lacks nothing, looks at the disks themselves: everywhere the data that the
    /// host may expect, and parity that adds up.
    pub fn check_disks(&mut self) {
        let view = self.machine.view();
        assert!(view.degraded.is_none() && view.unsynced.is_none());
        let geometry = self.shape.geometry();
        let chunk = self.shape.chunk as usize;
        let slots = self.machine.slots();
        let members = slots.iter().map(|at| {
            let disk = &self.disks[at.expect("lacks nothing")];
            let superblock = start::superblock(disk).expect("a member");
            &disk.content()[superblock.data_offset as usize * SECTOR..]
        });
        let members: Vec<&[u8]> = members.collect();
        let view = view.clone();
        let is_bad = |slot, byte: usize| {
            let sector = byte / SECTOR * SECTOR;
            view.is_bad(slot, sector as u64, (sector + SECTOR) as u64)
        };
        for row in 0..self.shape.rows {
            let start = row as usize * chunk;
            for i in (start..start + chunk).step_by(SECTOR) {
                if (0..members.len()).any(|slot| is_bad(slot, i)) {
                    continue;
                }
                let mut sum = [0; SECTOR];
                for member in &members {
                    add(&mut sum, &member[i..i + SECTOR]);
                }
                assert_eq!(sum, [0; SECTOR], "parity of row {row}, byte {}", i - start);
            }
            for role in 0..geometry.data() {
                let slot = geometry.member(row, role);
                let first = (row * geometry.data() as u64 + role as u64) * (chunk / SECTOR) as u64;
                for (i, sector) in members[slot][start..start + chunk]
                    .chunks(SECTOR)
                    .enumerate()
                {
                    if !is_bad(slot, start + i * SECTOR) {
                        self.host.check(first + i as u64, sector);
                    }
                }
            }
        }
    }
}

/// XOR, word by word, independent of the engine's.
fn add(sum: &mut [u8; SECTOR], bytes: &[u8]) {
    let words = bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes);
    for (sum, word) in sum.as_chunks_mut().0.iter_mut().zip(words) {
        *sum = (u64::from_ne_bytes(*sum) ^ word).to_ne_bytes();
    }
}
