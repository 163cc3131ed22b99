//! Arrays whose members have partial parity logs.

use stripewise::md::{Policy, PplHeader, Superblock, ppl};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::Geometry;

use crate::disk::Disk;
use crate::metadata;
use crate::random::Random;

/// Where members have their logs, the same on all of them.
#[derive(Debug)]
pub struct Logged {
    /// Sectors of the log.
    sectors: u16,
}

/// The first byte of a superblock, and of a log.
const SUPERBLOCK: u64 = 4096;
const LOG: u64 = metadata::DATA;
/// Sectors from which on a log is a ring.
const RING: u16 = 528;

impl Logged {
    pub fn new(random: &mut Random, geometry: &Geometry) -> Self {
        let stripe = (geometry.stripe_bytes() / 512) as u16;
        let few = 24 + stripe + 8 * random.below(8) as u16;
        let ring = RING + 8 * random.below(16) as u16;
        Self {
            sectors: random.pick(&[few, ring, ring]),
        }
    }

    /// First byte of the data.
    pub fn data(&self) -> u64 {
        LOG + u64::from(self.sectors) * 512
    }

    /// Bytes of a member that are its log.
    pub fn area(&self) -> std::ops::Range<usize> {
        LOG as usize..self.data() as usize
    }

    pub fn signature(&self) -> u32 {
        ppl::signature(&metadata::SET)
    }

    /// Says so in a superblock.
    pub fn add_to(&self, superblock: &mut Superblock) {
        superblock.policy = Policy::Ppl {
            offset: ((LOG - SUPERBLOCK) / 512) as i16,
            size: self.sectors,
            multiple: self.sectors >= RING,
        };
        superblock.data_offset = self.data() / 512;
    }

    /// Puts a superblock and an empty log there.
    pub fn format(&self, disk: &mut Disk, geometry: &Geometry, number: u32) {
        let mut superblock = metadata::superblock(geometry, false, number);
        self.add_to(&mut superblock);
        superblock.write(&mut disk.bytes[SUPERBLOCK as usize..][..4096]);
        disk.bytes[metadata::BAD_BLOCKS as usize..][..4096].fill(0xff);
        let area = &mut disk.bytes[self.area()];
        area.fill(0);
        PplHeader::empty(&metadata::SET).write(area);
    }

    /// What the superblock on a disk says.
    pub fn read(&self, disk: &Disk) -> Superblock {
        let bytes = &disk.bytes[SUPERBLOCK as usize..][..4096];
        Superblock::parse(bytes).expect("whole")
    }
}

pub fn page_pool(pages: usize) -> Pool {
    let arena = Arena::ordinary(pages * 4096).expect("memory");
    Pool::new(&arena, 4096, pages).expect("room")
}
