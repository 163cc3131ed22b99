//! Devices that join an array later.

use super::super::create::create;
use super::super::superblock::Minor;
use super::super::{
    JoinError, NewArray, NewDevice, NewPolicy, PlacementError, Role, SetName, Time, free_number,
    join,
};
use uuid::Uuid;

fn device(sectors: u64, number: u128) -> NewDevice {
    NewDevice {
        sectors,
        uuid: Uuid::from_u128(number),
    }
}

/// A device joins with what it would have been given at the start, as a spare of the same size.
#[test]
fn it_says_what_a_spare_says_that_was_there_from_the_start() {
    for minor in Minor::ALL {
        for policy in [
            NewPolicy::Resync,
            NewPolicy::Bitmap { chunk_bytes: None },
            NewPolicy::Ppl,
        ] {
            let slots = (1..=3).map(|n| Some(device(1 << 18, n))).collect();
            let name = SetName::new("a").unwrap();
            let array = NewArray {
                minor,
                policy,
                chunk: 128,
                spares: vec![device(1 << 18, 4)],
                ..NewArray::new(Uuid::from_u128(9), name, Time::from_seconds(1), slots)
            };
            let created = create(&array).unwrap();
            let member = created.superblocks[0].as_ref().unwrap();
            let header = created.bitmap.as_ref().map(|(header, _)| header);
            let joined = join(member, header, device(1 << 18, 4), 3).unwrap();
            assert_eq!(
                Some(&joined),
                created.superblocks[3].as_ref(),
                "{minor:?} {policy:?}"
            );
            assert_eq!(joined.role(), Role::Spare);

            let larger = join(member, header, device((1 << 18) + 4096, 4), 3).unwrap();
            assert_eq!(larger.data_size, joined.data_size + 4096);
            let sectors = (1 << 18) - 4096;
            match join(member, header, device(sectors, 4), 3) {
                Err(JoinError::Placement(PlacementError::TooSmall { needed, .. })) => {
                    assert!(needed > sectors && needed <= 1 << 18, "{needed}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn its_number_is_one_that_nobody_has() {
    assert_eq!(free_number(3, |_| false), Ok(3));
    assert_eq!(free_number(3, |n| n < 7), Ok(7));
    assert_eq!(free_number(3, |_| true), Err(JoinError::Devices));
}

/// What the member has that it was copied from is no part of the copy.
#[test]
fn what_is_another_members_own_is_left_out() {
    let slots = (1..=3).map(|n| Some(device(1 << 18, n))).collect();
    let name = SetName::new("a").unwrap();
    let array = NewArray::new(Uuid::from_u128(9), name, Time::from_seconds(1), slots);
    let mut member = create(&array).unwrap().superblocks[1].clone().unwrap();
    member.features.0 |= 2 | 8 | 128;
    member.recovery_offset = 77;
    member.corrected_reads = 5;
    member.devflags = 1;
    let joined = join(&member, None, device(1 << 18, 4), 200).unwrap();
    assert_eq!((joined.features.0, joined.recovery_offset), (0, 0));
    assert_eq!((joined.corrected_reads, joined.devflags), (0, 0));
    assert_eq!(joined.dev_number, 200);
    assert_eq!(joined.role(), Role::Spare);
    assert_eq!(joined.slots(), [Some(0), Some(1), Some(2)]);
}
