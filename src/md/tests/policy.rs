//! Policies that an array is given later.

use super::super::placement::Area;
use super::super::superblock::Minor;
use super::super::{
    BitmapHeader, NewArray, NewDevice, NewPolicy, Placement, Policy, SetName, Superblock, Time,
    create, policy,
};
use uuid::Uuid;

const GIB: u64 = 1 << 21;

fn member(minor: Minor, sectors: u64, made: NewPolicy) -> Superblock {
    let device = |n| NewDevice {
        sectors,
        uuid: Uuid::from_u128(n),
    };
    let slots = (1..=3).map(|n| Some(device(n))).collect();
    let name = SetName::new("a").unwrap();
    let array = NewArray {
        minor,
        policy: made,
        chunk: 128,
        ..NewArray::new(Uuid::from_u128(9), name, Time::from_seconds(1), slots)
    };
    create(&array).unwrap().superblocks[0].clone().unwrap()
}

const POLICIES: [NewPolicy; 3] = [
    NewPolicy::Resync,
    NewPolicy::Bitmap { chunk_bytes: None },
    NewPolicy::Ppl,
];

/// Nothing overlaps, whatever there was before and whatever comes.
#[test]
fn what_comes_has_its_own_sectors() {
    for minor in Minor::ALL {
        for sectors in [1 << 15, 1 << 21, 300 * GIB] {
            for made in POLICIES {
                let member = member(minor, sectors, made);
                for wanted in POLICIES {
                    let changed = policy::change(&member, sectors, wanted);
                    let Ok((policy, bitmap)) = changed else {
                        // A log of 1 MiB has no room where space was kept for a bitmap only.
                        assert_eq!((minor, wanted), (Minor::V0, NewPolicy::Ppl), "{changed:?}");
                        continue;
                    };
                    let after = Superblock {
                        policy,
                        ..member.clone()
                    };
                    let header: Option<&BitmapHeader> = bitmap.as_ref().map(|(h, _)| h);
                    let placement = Placement::of(&after, header, sectors).unwrap();
                    let own = placement.area(match wanted {
                        NewPolicy::Ppl => Area::Ppl,
                        _ => Area::Bitmap,
                    });
                    assert_eq!(own.is_some(), wanted != NewPolicy::Resync);
                    assert!(own.is_none_or(|own| own.start % 8 == 0));
                    if let Some((header, bits)) = bitmap {
                        assert_eq!((bits.count(), header.uuid), (0, member.set_uuid));
                        assert!(header.chunk_bytes >= 64 << 20);
                    }
                }
            }
        }
    }
}

/// mdadm puts a bitmap 4 KiB behind the superblock; so do we if there is room.
#[test]
fn a_bitmap_goes_where_mdadm_would_have_put_it() {
    let without = Superblock {
        bad_block_log: Default::default(),
        ..member(Minor::V2, GIB, NewPolicy::Resync)
    };
    let (policy, _) = policy::change(&without, GIB, POLICIES[1]).unwrap();
    assert_eq!(policy, Policy::Bitmap { offset: 8 });
}

#[test]
fn a_log_is_a_ring_where_there_is_room_for_one() {
    let (policy, _) = policy::change(
        &member(Minor::V2, GIB, NewPolicy::Resync),
        GIB,
        NewPolicy::Ppl,
    )
    .unwrap();
    let Policy::Ppl { size, multiple, .. } = policy else {
        panic!("{policy:?}");
    };
    assert!(multiple && size >= 528, "{size}");
}

#[test]
fn no_room_is_told() {
    let mut full = member(Minor::V2, GIB, NewPolicy::Resync);
    full.bad_block_log = Default::default();
    full.data_offset = 24;
    let error = policy::change(&full, GIB, NewPolicy::Ppl).unwrap_err();
    assert!(error.to_string().contains("8 free sectors"), "{error}");
    let chunk = NewPolicy::Bitmap {
        chunk_bytes: Some(4096),
    };
    assert!(policy::change(&full, GIB, chunk).is_err());
}
