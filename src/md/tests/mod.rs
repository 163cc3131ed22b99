//! Checks of the format against hand-made bytes and against independent models.

mod bad_blocks;
mod bitmap;
mod ppl;
mod superblock;

use uuid::Uuid;

use super::superblock::IN_SYNC;
use super::{Features, Policy, Reshape, SetName, Superblock, Time};

/// The superblock of the second of three members, as mdadm makes one on a large device.
pub fn sample() -> Superblock {
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
