//! New arrays against the figures that `mdadm --create` gives, and read back from devices.

use proptest::prelude::*;
use uuid::Uuid;

use super::super::create::{CreateError, Created, NewArray, NewDevice, NewPolicy, create};
use super::super::placement::{Area, PlacementError};
use super::super::superblock::{IN_SYNC, Minor};
use super::super::{
    BadBlockLog, Features, Freshness, Member, Policy, PplHeader, SetName, Time, Unsupported,
};
use super::Blocks;

const GIB: u64 = 2 << 20;

fn device(number: u128, sectors: u64) -> Option<NewDevice> {
    Some(NewDevice {
        sectors,
        uuid: Uuid::from_u128(number + 1),
    })
}

fn array(sectors: &[u64]) -> NewArray {
    let slots = sectors.iter().enumerate();
    NewArray::new(
        Uuid::from_u128(99),
        SetName::new("host:0").expect("fits"),
        Time::from_seconds(1_700_000_000),
        slots.map(|(n, &s)| device(n as u128, s)).collect(),
    )
}

fn first(created: &Created) -> &super::super::Superblock {
    created.superblocks[0].as_ref().expect("a device")
}

#[test]
fn three_gibibytes_are_laid_out_as_mdadm_does() {
    let created = create(&array(&[GIB, GIB, GIB])).expect("possible");
    let sb = first(&created);
    assert_eq!((sb.super_offset, sb.data_offset), (8, 4096));
    assert_eq!((sb.size, sb.data_size), (2_093_056, 2_093_056));
    assert_eq!(
        sb.bad_block_log,
        BadBlockLog {
            shift: 0,
            size: 8,
            offset: 16
        }
    );
    assert_eq!(sb.roles.len(), 128);
    assert_eq!(sb.roles[..4], [0, 1, 2, 0xffff]);
    assert_eq!((sb.events, sb.resync_offset), (0, 0));
    assert_eq!(
        (sb.chunk, sb.layout, sb.level, sb.raid_disks),
        (1024, 2, 5, 3)
    );
    assert_eq!(
        (sb.policy, created.bitmap.is_none()),
        (Policy::Resync, true)
    );
    let numbers = created.superblocks.iter().flatten().map(|s| s.dev_number);
    assert!(numbers.eq(0..3));
}

#[test]
fn a_bitmap_lies_behind_the_superblock_with_all_bits_set() {
    let mut wanted = array(&[GIB, GIB, GIB]);
    wanted.policy = NewPolicy::Bitmap { chunk_bytes: None };
    let created = create(&wanted).expect("possible");
    assert_eq!(first(&created).policy, Policy::Bitmap { offset: 8 });
    assert_eq!(first(&created).bad_block_log.offset, 16);
    let (header, bits) = created.bitmap.as_ref().expect("asked for");
    assert_eq!(
        (header.chunk_bytes, header.sync_size),
        (64 << 20, 2_093_056)
    );
    assert_eq!(
        (header.version, header.daemon_sleep, header.sectors_reserved),
        (4, 5, 0)
    );
    assert_eq!((bits.bits(), bits.count()), (16, 16));
    wanted.assume_clean = true;
    let created = create(&wanted).expect("possible");
    assert_eq!(created.bitmap.expect("asked for").1.count(), 0);
    assert_eq!(
        created.superblocks[2].as_ref().map(|s| s.resync_offset),
        Some(IN_SYNC)
    );
}

#[test]
fn a_log_has_a_mebibyte() {
    let mut wanted = array(&[GIB, GIB, GIB]);
    wanted.policy = NewPolicy::Ppl;
    let ppl = |offset| Policy::Ppl {
        offset,
        size: 2048,
        multiple: true,
    };
    let created = create(&wanted).expect("possible");
    assert_eq!(first(&created).policy, ppl(8));
    assert_eq!(first(&created).bad_block_log.offset, 2056);
    // 24 + 2048 + 2048 sectors of headroom, rounded up to 1 MiB.
    assert_eq!(first(&created).data_offset, 6144);
    wanted.minor = Minor::V0;
    let created = create(&wanted).expect("possible");
    assert_eq!(first(&created).policy, ppl(-2056));
    assert_eq!(first(&created).bad_block_log.offset, -8);
    assert_eq!(first(&created).data_offset, 0);
    assert_eq!(first(&created).super_offset, GIB - 16);
    assert_eq!(first(&created).data_size, GIB - 16 - 2056);
}

#[test]
fn a_missing_member_makes_a_clean_degraded_array() {
    let mut wanted = array(&[GIB, GIB, GIB, GIB]);
    wanted.slots[1] = None;
    wanted.spares = vec![device(7, GIB).expect("a device")];
    wanted.policy = NewPolicy::Bitmap { chunk_bytes: None };
    let created = create(&wanted).expect("possible");
    assert_eq!(created.superblocks.len(), 5);
    assert_eq!(created.superblocks[1], None);
    let spare = created.superblocks[4].as_ref().expect("a device");
    assert_eq!(spare.roles[..6], [0, 0xffff, 2, 3, 0xffff, 0xffff]);
    assert_eq!((spare.dev_number, spare.resync_offset), (4, IN_SYNC));
    assert_eq!(spare.role(), super::super::Role::Spare);
    assert_eq!(created.bitmap.expect("asked for").1.count(), 0);
}

#[test]
fn members_of_different_size_use_what_the_smallest_has() {
    let created = create(&array(&[2 * GIB, GIB, 3 * GIB])).expect("possible");
    // The first device says where the data starts.
    let [a, b, c] = [0, 1, 2].map(|n| created.superblocks[n].clone().expect("a device"));
    assert_eq!([a.data_offset, b.data_offset, c.data_offset], [6144; 3]);
    assert_eq!([a.size, b.size, c.size], [GIB - 6144; 3]);
    assert_eq!([a.data_size, c.data_size], [2 * GIB - 6144, 3 * GIB - 6144]);
    let mut smaller = array(&[GIB, GIB, GIB]);
    smaller.size = Some(10_000);
    assert_eq!(first(&create(&smaller).expect("possible")).size, 9216);
}

#[test]
fn what_can_not_be_made_is_said() {
    let refused = |change: fn(&mut NewArray)| {
        let mut wanted = array(&[GIB, GIB, GIB]);
        change(&mut wanted);
        create(&wanted).expect_err("refused")
    };
    assert_eq!(
        refused(|a| a.slots.truncate(2)),
        Unsupported::Members(2).into()
    );
    assert_eq!(
        refused(|a| a.slots[1..].fill(None)),
        CreateError::Missing {
            missing: 2,
            slots: 3
        }
    );
    assert_eq!(refused(|a| a.chunk = 12), Unsupported::Chunk(12).into());
    assert_eq!(refused(|a| a.layout = 6), Unsupported::Layout(6).into());
    assert_eq!(
        refused(|a| a.slots[2] = a.slots[0]),
        CreateError::Twice(Uuid::from_u128(1))
    );
    assert_eq!(
        refused(|a| a.size = Some(GIB)),
        CreateError::Size {
            size: GIB,
            chunk: 1024,
            most: 2_093_056
        }
    );
    assert!(matches!(
        refused(|a| a.size = Some(1023)),
        CreateError::Size { .. }
    ));
    assert!(matches!(
        refused(|a| a.slots[1] = device(1, 4096)),
        CreateError::Placement {
            device: 1,
            error: PlacementError::TooSmall { .. }
        }
    ));
    assert!(matches!(
        refused(|a| a.data_offset = Some(8)),
        CreateError::Placement {
            error: PlacementError::Overlap(Area::Superblock, Area::Data),
            ..
        }
    ));
    assert!(matches!(
        refused(|a| a.policy = NewPolicy::Bitmap {
            chunk_bytes: Some(1000)
        }),
        CreateError::Placement {
            error: PlacementError::BitmapChunk { .. },
            ..
        }
    ));
    let spare = device(9, GIB).expect("a device");
    let mut wanted = array(&[GIB, GIB, GIB]);
    wanted.spares = (0..1918)
        .map(|n| NewDevice {
            uuid: Uuid::from_u128(100 + n),
            ..spare
        })
        .collect();
    assert_eq!(create(&wanted), Err(CreateError::Devices(1921)));
}

#[test]
fn what_is_made_is_found_on_the_devices() {
    for minor in Minor::ALL {
        for policy in [
            NewPolicy::Resync,
            NewPolicy::Bitmap {
                chunk_bytes: Some(1 << 20),
            },
            NewPolicy::Ppl,
        ] {
            let mut wanted = array(&[65536, 65536, 65536]);
            wanted.chunk = 128;
            (wanted.minor, wanted.policy) = (minor, policy);
            wanted.spares = vec![device(8, 65536).expect("a device")];
            let created = create(&wanted).expect("possible");
            for number in 0..4 {
                let mut disk = Blocks::new(65536);
                disk.bytes.fill(0xa5);
                created.write(number, &mut disk).expect("room");
                let member = Member::read(&mut disk).expect("a member");
                assert_eq!(
                    Some(&member.superblock),
                    created.superblocks[number].as_ref()
                );
                assert_eq!(member.bad_blocks.as_ref().map(|b| b.capacity()), Ok(512));
                let stored = member.bitmap.clone().transpose().expect("whole");
                assert_eq!(
                    stored.as_ref().map(|s| s.freshness),
                    created.bitmap.as_ref().map(|_| Freshness::Current)
                );
                assert_eq!(stored.map(|s| (s.header, s.bits)), created.bitmap);
                let ppl = member
                    .ppl
                    .clone()
                    .map(|p| p.expect("readable").expect("whole").header);
                assert_eq!(
                    ppl,
                    (policy == NewPolicy::Ppl).then(|| PplHeader::empty(&wanted.set_uuid))
                );
                let data = member
                    .placement()
                    .expect("possible")
                    .area(Area::Data)
                    .expect("there");
                let data = &disk.bytes[data.start as usize * 512..data.end as usize * 512];
                assert!(
                    data.chunks(512).all(|sector| sector == [0xa5; 512]),
                    "data are left alone"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn everything_fits_on_any_devices(
        sizes in prop::collection::vec(8192u64..8_000_000_000, 3..8),
        minor in prop::sample::select(Minor::ALL.to_vec()),
        chunk in 3u32..=11,
        policy in 0u8..3,
    ) {
        let mut wanted = array(&sizes);
        (wanted.minor, wanted.chunk) = (minor, 1 << chunk);
        wanted.policy = match policy {
            0 => NewPolicy::Resync,
            1 => NewPolicy::Bitmap { chunk_bytes: None },
            _ => NewPolicy::Ppl,
        };
        let Ok(created) = create(&wanted) else {
            // Only a device that is much smaller than the first can have no room.
            prop_assert!(sizes.iter().any(|&s| s < sizes[0] / 256 + 16384));
            return Ok(());
        };
        for (superblock, &sectors) in created.superblocks.iter().zip(&sizes) {
            let superblock = superblock.as_ref().expect("a device");
            prop_assert_eq!(superblock.feature_map().without(Features(0xc01)), Features(0));
            let header = created.bitmap.as_ref().map(|(h, _)| h);
            let placed = super::super::Placement::of(superblock, header, sectors);
            prop_assert!(placed.is_ok(), "{:?}", placed);
            prop_assert!(superblock.size <= superblock.data_size);
            prop_assert_eq!(superblock.size % u64::from(wanted.chunk), 0);
        }
    }
}
