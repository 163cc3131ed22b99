//! Checks of the format against hand-made bytes and against independent models.

mod assembly;
mod bad_blocks;
mod bitmap;
mod create;
mod join;
mod layout;
mod member;
mod placement;
mod policy;
mod ppl;
mod recovery;
mod replay;
mod report;
mod superblock;

use uuid::Uuid;

use super::disk::{Disk, DiskError};
use super::superblock::IN_SYNC;
use super::{Features, Policy, Reshape, SetName, Superblock, Time};

/// The superblock of the second of three members, as mdadm makes one on a large device.
fn sample() -> Superblock {
    Superblock {
        features: Features(0),
        set_uuid: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        set_name: SetName::new("host:array").expect("fits"),
        created: Time::from_seconds(1_700_000_000),
        level: 5,
        layout: 2,
        size: 2_095_104,
        chunk: 1024,
        raid_disks: 3,
        policy: Policy::Resync,
        reshape: Reshape::default(),
        data_offset: 2048,
        data_size: 2_095_104,
        super_offset: 8,
        recovery_offset: 0,
        dev_number: 1,
        corrected_reads: 0,
        device_uuid: Uuid::from_u128(0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f),
        devflags: 0,
        bad_block_log: super::BadBlockLog {
            shift: 0,
            size: 8,
            offset: 16,
        },
        updated: Time::from_seconds(1_700_000_100),
        events: 17,
        resync_offset: IN_SYNC,
        logical_block_size: 0,
        roles: [0, 1, 2, 0xffff].into_iter().chain([0xffff; 124]).collect(),
    }
}

/// Memory as a device with blocks of 4 KiB, which refuses what is not whole blocks, and reads of chosen
/// blocks.
struct Blocks {
    bytes: Vec<u8>,
    broken: Vec<u64>,
}

impl Blocks {
    const SIZE: u64 = 4096;

    fn new(sectors: u64) -> Self {
        Self {
            bytes: vec![0; (sectors * 512) as usize],
            broken: Vec::new(),
        }
    }

    fn aligned(offset: u64, len: usize) {
        assert_eq!(offset % Self::SIZE, 0, "whole blocks");
        assert_eq!(len as u64 % Self::SIZE, 0, "whole blocks");
    }
}

impl Disk for Blocks {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn block_size(&self) -> u32 {
        Self::SIZE as u32
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        Self::aligned(offset, into.len());
        let blocks = offset / Self::SIZE..(offset + into.len() as u64) / Self::SIZE;
        if self.broken.iter().any(|block| blocks.contains(block)) {
            return Err(DiskError::Failed {
                doing: "reading",
                offset,
                reason: "broken on purpose".into(),
            });
        }
        self.bytes.read(offset, into)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        Self::aligned(offset, from.len());
        self.bytes.write(offset, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
