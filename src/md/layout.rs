//! Where a sector of an array lies on its members: md's six layouts of RAID5 (`raid5_compute_sector`).
//!
//! `raid::Geometry` knows the same for the engine, in bytes of a running array. This room needs it for what a
//! log says, and may not look up there.

use super::Superblock;

/// The shape of an array, as its superblock has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Slots.
    members: u64,
    /// Sectors of a chunk.
    chunk: u64,
    /// md's number.
    layout: u32,
    /// Whole chunks on each member.
    rows: u64,
}

/// A sector of the array on its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Which chunk of each member, from 0.
    pub row: u64,
    /// Which data chunk of the row, in the order of the array.
    pub role: u64,
    /// The slot of the member that has it.
    pub slot: usize,
    /// The slot of the member that has the row's parity.
    pub parity: usize,
    /// The sector of the member's data. Parity has the same.
    pub sector: u64,
}

impl Layout {
    /// The shape that a superblock describes; `None` if it is not one that we [support](Superblock::support).
    pub fn of(superblock: &Superblock) -> Option<Self> {
        superblock.support().ok()?;
        let chunk = u64::from(superblock.chunk);
        Some(Self {
            members: u64::from(superblock.raid_disks),
            chunk,
            layout: superblock.layout,
            rows: superblock.size / chunk,
        })
    }

    /// Data chunks of a row.
    pub fn data(&self) -> u64 {
        self.members - 1
    }

    /// Sectors of a chunk.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Sectors of the array.
    pub fn sectors(&self) -> u64 {
        self.rows * self.chunk * self.data()
    }

    /// The slot of the member that has the parity of a row.
    pub fn parity(&self, row: u64) -> usize {
        let last = self.members - 1;
        let turn = row % self.members;
        let slot = match self.layout {
            0 | 2 => last - turn,
            1 | 3 => turn,
            4 => 0,
            _ => last,
        };
        slot as usize
    }

    /// Where a sector of the array lies; `None` behind its end.
    pub fn locate(&self, sector: u64) -> Option<Location> {
        if sector >= self.sectors() {
            return None;
        }
        let (chunk, within) = (sector / self.chunk, sector % self.chunk);
        let (row, role) = (chunk / self.data(), chunk % self.data());
        let parity = self.parity(row) as u64;
        let slot = match self.layout {
            2 | 3 => (parity + 1 + role) % self.members,
            _ => role + u64::from(role >= parity),
        };
        Some(Location {
            row,
            role,
            slot: slot as usize,
            parity: parity as usize,
            sector: row * self.chunk + within,
        })
    }
}
