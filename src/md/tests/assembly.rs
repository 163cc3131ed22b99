//! Which members are taken, against what mdadm and the kernel take.

use proptest::prelude::*;
use uuid::Uuid;

use super::super::assembly::{AssemblyError, Found, Standing, arrays, assemble};
use super::super::superblock::IN_SYNC;
use super::super::{
    Assembly, BadBlocks, Bitmap, BitmapHeader, Features, Freshness, Member, Policy, Rejection,
    StoredBitmap, Superblock, Unsupported,
};
use super::sample;

const EVENTS: u64 = 20;
const FAULTY: u16 = 0xfffe;
const SPARE: u16 = 0xffff;

/// Four members and no spare, stopped cleanly.
fn four() -> Vec<Found> {
    (0..4).map(|number| member(number, number as u16)).collect()
}

fn member(number: u32, role: u16) -> Found {
    let mut superblock = sample();
    superblock.raid_disks = 4;
    superblock.roles = vec![0, 1, 2, 3, SPARE, SPARE];
    superblock.roles[number as usize] = role;
    superblock.dev_number = number;
    superblock.device_uuid = Uuid::from_u128(u128::from(number) + 1);
    superblock.events = EVENTS;
    Found {
        name: format!("disk{number}"),
        member: Member {
            device_sectors: 2048 + superblock.data_size,
            block_size: 512,
            bad_blocks: Ok(BadBlocks::for_log(&superblock.bad_block_log)),
            superblock,
            bitmap: None,
            ppl: None,
        },
    }
}

fn sb(found: &mut [Found], index: usize) -> &mut Superblock {
    &mut found[index].member.superblock
}

fn each(found: &mut [Found], change: impl Fn(&mut Superblock)) {
    found
        .iter_mut()
        .for_each(|f| change(&mut f.member.superblock));
}

/// Gives every member a bitmap with these bits, as its superblock expects it.
fn with_bitmap(found: &mut [Found], cleared: u64, bits: &[u64]) {
    for f in found {
        let superblock = &mut f.member.superblock;
        superblock.policy = Policy::Bitmap { offset: 8 };
        let mut header = BitmapHeader::new(superblock, 1 << 20, 0);
        header.events_cleared = cleared;
        let mut bitmap = Bitmap::new(superblock.size, 1 << 20).expect("possible");
        for &bit in bits {
            bitmap.set(bit);
        }
        f.member.bitmap = Some(Ok(StoredBitmap {
            freshness: Freshness::Current,
            header,
            bits: bitmap,
        }));
    }
}

fn start(found: &[Found]) -> Result<Assembly, AssemblyError> {
    assemble(sample().set_uuid, found, false)
}

fn by_force(found: &[Found]) -> Result<Assembly, AssemblyError> {
    assemble(sample().set_uuid, found, true)
}

fn slots(assembly: &Assembly) -> Vec<Option<usize>> {
    let slots = assembly.slots.iter();
    slots.map(|s| s.map(|s| s.found)).collect()
}

#[test]
fn members_are_taken_in_any_order() {
    let mut found = four();
    found.reverse();
    found.push(member(4, SPARE));
    let assembly = start(&found).expect("whole");
    assert_eq!(slots(&assembly), [Some(3), Some(2), Some(1), Some(0)]);
    assert_eq!((assembly.spares, assembly.rejected), (vec![4], vec![]));
    assert_eq!((assembly.degraded, assembly.doubtful), (None, false));
    assert_eq!((assembly.events, assembly.resync_offset), (EVENTS, IN_SYNC));
}

#[test]
fn other_arrays_are_left_alone() {
    let mut found = four();
    let mut foreign = member(2, 2);
    foreign.member.superblock.set_uuid = Uuid::nil();
    foreign.member.superblock.events = 1000;
    found.insert(0, foreign);
    assert_eq!(arrays(&found), [Uuid::nil(), sample().set_uuid]);
    let assembly = start(&found).expect("whole");
    assert_eq!(assembly.rejected, [(0, Rejection::Foreign(Uuid::nil()))]);
    assert_eq!(assembly.events, EVENTS);
    assert_eq!(
        assemble(Uuid::max(), &found, true).expect_err("no member"),
        AssemblyError::NoMember(Uuid::max())
    );
}

#[test]
fn one_event_behind_is_taken_and_two_are_not() {
    let mut found = four();
    sb(&mut found, 1).events = EVENTS - 1;
    assert_eq!(start(&found).expect("whole").degraded, None);
    sb(&mut found, 1).events = EVENTS - 2;
    let assembly = start(&found).expect("enough");
    assert_eq!(assembly.degraded, Some(1));
    let stale = Rejection::Stale {
        events: EVENTS - 2,
        newest: EVENTS,
    };
    assert_eq!(assembly.rejected, [(1, stale)]);
}

#[test]
fn one_event_behind_and_failed_is_not_taken() {
    // md would take it before 6.8: its own superblock says that it is in sync.
    for role in [FAULTY, SPARE] {
        let mut found = four();
        for index in [0, 2, 3] {
            sb(&mut found, index).roles[1] = role;
        }
        sb(&mut found, 1).events = EVENTS - 1;
        let assembly = start(&found).expect("enough");
        assert_eq!(slots(&assembly), [Some(0), None, Some(2), Some(3)]);
        assert_eq!(assembly.rejected, [(1, Rejection::Failed)]);
        // There is no need to force it.
        let assembly = by_force(&found).expect("enough");
        assert_eq!(assembly.rejected, [(1, Rejection::Failed)]);
    }
}

#[test]
fn a_member_that_went_on_alone_is_not_taken() {
    let mut found = four();
    sb(&mut found, 2).events = EVENTS + 5;
    let table = vec![FAULTY, 1, 2, 3, SPARE, SPARE];
    sb(&mut found, 2).roles = table;
    for index in [1, 3] {
        sb(&mut found, index).events = EVENTS + 4;
    }
    sb(&mut found, 1).roles[2] = FAULTY;
    let assembly = start(&found);
    let Err(AssemblyError::Missing {
        missing, rejected, ..
    }) = assembly
    else {
        panic!("{assembly:?}");
    };
    assert_eq!(missing, [0, 1]);
    let reasons: Vec<_> = rejected.into_iter().map(|(_, why)| why).collect();
    let stale = Rejection::Stale {
        events: EVENTS,
        newest: EVENTS + 5,
    };
    assert_eq!(reasons, [stale, Rejection::Disagrees(2)]);
}

#[test]
fn spares_are_spares_whatever_their_events() {
    let mut found = four();
    for (number, events) in [(4, 0), (5, EVENTS + 50)] {
        let mut spare = member(number, SPARE);
        spare.member.superblock.events = events;
        found.push(spare);
    }
    let assembly = start(&found).expect("whole");
    assert_eq!((assembly.spares, assembly.events), (vec![4, 5], EVENTS));
}

#[test]
fn a_spare_that_was_being_made_a_member_is_not_one() {
    let mut found = four();
    found[1] = member(4, SPARE);
    sb(&mut found, 1).events = EVENTS - 1;
    for index in [0, 2, 3] {
        sb(&mut found, index).roles = vec![0, SPARE, 2, 3, 1, SPARE];
    }
    let assembly = start(&found).expect("enough");
    assert_eq!(slots(&assembly), [Some(0), None, Some(2), Some(3)]);
    assert_eq!(assembly.spares, [1]);
}

#[test]
fn a_replacement_that_was_not_finished_takes_no_slot() {
    let mut found = four();
    for (index, events) in [(4, EVENTS), (5, EVENTS - 1)] {
        found.push(member(index as u32, 1));
        let replacement = sb(&mut found, index);
        replacement.features = Features::REPLACEMENT;
        replacement.events = events;
    }
    for superblock in 0..6 {
        sb(&mut found, superblock).roles = vec![0, 1, 2, 3, 1, 1];
    }
    let assembly = start(&found).expect("whole");
    assert_eq!(slots(&assembly), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(assembly.replacement, Some((4, 1)));
    assert_eq!(assembly.rejected, [(5, Rejection::Replacement(1))]);
    // Its member is gone, or the others know nothing of it: even force does not take it for a member.
    found.truncate(5);
    found.remove(1);
    assert_eq!(start(&found).expect("enough").degraded, Some(1));
    sb(&mut found, 3).events = EVENTS - 5;
    found.remove(0);
    let forced = assemble(sb(&mut found, 0).set_uuid, &found, true);
    assert!(matches!(forced, Err(AssemblyError::Missing { .. })));
}

#[test]
fn devices_that_do_not_fit_are_rejected() {
    let rejected = |change: fn(&mut Found)| {
        let mut found = four();
        change(&mut found[1]);
        let mut assembly = start(&found).expect("enough");
        assert_eq!(assembly.degraded, Some(1));
        assembly.rejected.pop().expect("one").1
    };
    let shape = |change: fn(&mut Found)| match rejected(change) {
        Rejection::Shape(what) => what,
        other => panic!("{other}"),
    };
    assert_eq!(shape(|f| f.member.superblock.layout = 3), "layout");
    assert_eq!(shape(|f| f.member.superblock.chunk = 512), "chunk");
    assert_eq!(shape(|f| f.member.superblock.size -= 1024), "size");
    assert_eq!(
        shape(|f| f.member.superblock.raid_disks = 5),
        "number of members"
    );
    assert_eq!(
        shape(|f| f.member.superblock.super_offset = 0),
        "superblock version"
    );
    assert_eq!(shape(|f| f.member.superblock.data_size -= 1), "size");
    assert_eq!(
        rejected(|f| f.member.superblock.roles[1] = FAULTY),
        Rejection::Faulty
    );
    assert_eq!(
        rejected(|f| f.member.superblock.roles[1] = 4),
        Rejection::Role(4)
    );
    assert_eq!(
        rejected(|f| f.member.superblock.roles[1] = 0xff80),
        Rejection::Role(0xff80)
    );
    assert_eq!(
        rejected(|f| f.member.superblock.features = Features(1 << 20)),
        Rejection::Unsupported(Unsupported::Features(1 << 20))
    );
    assert!(matches!(
        rejected(|f| f.member.bad_blocks = Err(super::super::BadBlocksError::Missing.into())),
        Rejection::BadBlocks(_)
    ));
}

#[test]
fn an_array_that_is_not_for_us_is_refused() {
    let mut found = four();
    each(&mut found, |s| s.features = Features::RESHAPE);
    assert_eq!(
        start(&found).expect_err("refused"),
        Unsupported::Reshape.into()
    );
}

#[test]
fn of_two_in_a_slot_the_fresher_is_taken() {
    for swap in [false, true] {
        let mut found = four();
        let mut copy = member(1, 1);
        copy.member.superblock.events = EVENTS - 1;
        found.push(copy);
        let (fresh, old) = if swap { (4, 1) } else { (1, 4) };
        if swap {
            found.swap(1, 4);
        }
        let assembly = start(&found).expect("whole");
        assert_eq!(assembly.slots[1].map(|s| s.found), Some(fresh));
        let copy = Rejection::OldCopy("disk1".into());
        assert_eq!(assembly.rejected, [(old, copy)]);
    }
}

#[test]
fn of_two_equal_ones_none_is_guessed() {
    let mut found = four();
    found.push(member(1, 1));
    found[4].name = "copy".into();
    let twice = AssemblyError::Twice {
        one: "disk1".into(),
        other: "copy".into(),
        slot: 1,
    };
    assert_eq!(start(&found).expect_err("refused"), twice);
    // Two old copies do not matter.
    for index in [1, 4] {
        sb(&mut found, index).events = EVENTS - 1;
    }
    found.push(member(1, 1));
    assert_eq!(slots(&start(&found).expect("whole"))[1], Some(5));
}

#[test]
fn a_rebuild_goes_on_where_it_was() {
    let mut found = four();
    let recovering = sb(&mut found, 2);
    recovering.features = Features::RECOVERY_OFFSET;
    recovering.recovery_offset = 4096;
    let assembly = start(&found).expect("enough");
    assert_eq!(assembly.degraded, Some(2));
    let standing = |assembly: &Assembly| assembly.slots[2].map(|s| s.standing);
    let at = |guided| {
        Some(Standing::Recovering {
            offset: 4096,
            guided,
        })
    };
    assert_eq!(standing(&assembly), at(false));
    sb(&mut found, 2)
        .features
        .set(Features::RECOVERY_BITMAP, true);
    assert_eq!(standing(&start(&found).expect("enough")), at(false));
    with_bitmap(&mut found, 3, &[1]);
    assert_eq!(standing(&start(&found).expect("enough")), at(true));
    // It does not make up for another one.
    found.remove(0);
    assert!(matches!(start(&found), Err(AssemblyError::Missing { .. })));
}

#[test]
fn too_many_missing_are_named() {
    let mut found = four();
    found.drain(..2);
    sb(&mut found, 1).events = EVENTS - 5;
    let error = start(&found).expect_err("too few");
    assert_eq!(
        error.to_string(),
        "3 of 4 members are missing, slots [0, 1, 3], and RAID5 can start without one at most; attach the \
         others; disk3 is out of date: it has seen 15 events, the array 20; add it again to have it rebuilt"
    );
}

#[test]
fn force_takes_the_newest_that_were_left_behind() {
    let mut found = four();
    for (index, behind) in [(1, 9), (2, 4), (3, 4)] {
        sb(&mut found, index).events = EVENTS - behind;
    }
    assert!(matches!(start(&found), Err(AssemblyError::Missing { .. })));
    let assembly = by_force(&found).expect("enough");
    let forced: Vec<_> = assembly.slots.iter().map(|s| s.map(|s| s.forced)).collect();
    assert_eq!(forced, [Some(false), None, Some(true), Some(true)]);
    assert_eq!((assembly.degraded, assembly.doubtful), (Some(1), true));
    assert_eq!(assembly.resync_offset, 0);
    assert_eq!(assembly.rejected.len(), 1);
    // Those of one age are all taken, needed or not.
    sb(&mut found, 1).events = EVENTS - 4;
    let assembly = by_force(&found).expect("enough");
    assert_eq!((assembly.degraded, assembly.doubtful), (None, false));
    assert!(assembly.dirty());
    // No bitmap knows where they differ.
    with_bitmap(&mut found, 3, &[1]);
    let (_, bits) = by_force(&found).expect("enough").bitmap.expect("one");
    assert_eq!(bits.count(), bits.bits());
    // One that was being rebuilt is no source of data.
    let recovering = sb(&mut found, 1);
    recovering.features = Features::RECOVERY_OFFSET;
    assert_eq!(by_force(&found).expect("enough").degraded, Some(1));
}

#[test]
fn dirty_and_degraded_is_refused_unless_forced() {
    let mut found = four();
    each(&mut found, |s| s.resync_offset = 0);
    let assembly = start(&found).expect("whole");
    assert!(assembly.dirty() && !assembly.doubtful);
    let gone = found.remove(1);
    assert_eq!(
        start(&found).expect_err("refused"),
        AssemblyError::DirtyDegraded { slot: 1 }
    );
    assert!(by_force(&found).expect("forced").doubtful);
    // With a partial parity log it is safe.
    let ppl = Policy::Ppl {
        offset: 8,
        size: 2000,
        multiple: true,
    };
    each(&mut found, |s| s.policy = ppl);
    assert!(!start(&found).expect("safe").doubtful);
    // So it is if the member has no data.
    each(&mut found, |s| {
        (s.policy, s.layout) = (Policy::Resync, 4);
    });
    assert!(start(&found).is_err());
    found[0] = gone;
    each(&mut found, |s| s.layout = 4);
    let assembly = start(&found).expect("safe");
    assert_eq!((assembly.degraded, assembly.doubtful), (Some(0), false));
}

#[test]
fn a_bitmap_without_bits_shows_that_nothing_was_in_flight() {
    let mut found = four();
    each(&mut found, |s| s.resync_offset = 0);
    found.remove(3);
    with_bitmap(&mut found, 3, &[]);
    assert!(!start(&found).expect("safe").doubtful);
    with_bitmap(&mut found, 3, &[7]);
    assert_eq!(
        start(&found).expect_err("refused"),
        AssemblyError::DirtyDegraded { slot: 3 }
    );
    with_bitmap(&mut found, 3, &[]);
    for f in &mut found {
        if let Some(Ok(stored)) = &mut f.member.bitmap {
            stored.freshness = Freshness::Stale;
        }
    }
    assert!(start(&found).is_err());
}

#[test]
fn the_freshest_members_say_whether_parity_is_right() {
    let mut found = four();
    sb(&mut found, 1).events = EVENTS - 1;
    sb(&mut found, 1).resync_offset = 0;
    assert!(!start(&found).expect("whole").dirty());
    sb(&mut found, 2).resync_offset = 512;
    assert_eq!(start(&found).expect("whole").resync_offset, 512);
}

#[test]
fn bits_of_all_fresh_members_count() {
    let mut found = four();
    with_bitmap(&mut found, 3, &[1]);
    with_bitmap(&mut found[2..3], 4, &[2]);
    sb(&mut found, 3).events = EVENTS - 1;
    with_bitmap(&mut found[3..], 9, &[5]);
    let (header, bits) = start(&found).expect("whole").bitmap.expect("one");
    assert_eq!(bits.iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(header.events_cleared, 4);
    let Some(Ok(stored)) = &mut found[1].member.bitmap else {
        panic!("a bitmap");
    };
    stored.freshness = Freshness::Stale;
    let (header, bits) = start(&found).expect("whole").bitmap.expect("one");
    assert_eq!((bits.count(), header.events_cleared), (bits.bits(), EVENTS));
}

#[test]
fn one_whole_bitmap_is_enough_and_none_is_not() {
    let mut found = four();
    with_bitmap(&mut found, 3, &[1]);
    let broken = || Some(Err(super::super::BitmapError::Magic(0).into()));
    for f in &mut found[..3] {
        f.member.bitmap = broken();
    }
    assert_eq!(
        start(&found).expect("whole").bitmap.expect("one").1.count(),
        1
    );
    found[3].member.bitmap = broken();
    assert!(matches!(start(&found), Err(AssemblyError::Bitmap(_))));
    assert!(by_force(&found).is_err());
}

#[test]
fn a_member_comes_back_if_the_bitmap_knows_what_it_missed() {
    let returns = |cleared: u64, change: fn(&mut Vec<Found>)| {
        let mut found = four();
        sb(&mut found, 1).events = EVENTS - 8;
        with_bitmap(&mut found, cleared, &[3, 4]);
        change(&mut found);
        let assembly = start(&found).expect("enough");
        assert_eq!(assembly.degraded, Some(1));
        assembly.slots[1].map(|s| s.standing)
    };
    let guided = Standing::Recovering {
        offset: 0,
        guided: true,
    };
    assert_eq!(returns(EVENTS - 8, |_| ()), Some(guided));
    assert_eq!(returns(EVENTS - 7, |_| ()), None);
    // Not if it was not whole itself, or went on alone.
    assert_eq!(
        returns(1, |f| sb(f, 1).features = Features::RECOVERY_OFFSET),
        None
    );
    assert_eq!(
        returns(1, |f| sb(f, 1).roles =
            vec![FAULTY, 1, FAULTY, FAULTY, SPARE, SPARE]),
        None
    );
    // A bitmap that missed writes itself knows nothing.
    let stale = |f: &mut Vec<Found>| {
        for f in f {
            if let Some(Ok(stored)) = &mut f.member.bitmap {
                stored.freshness = Freshness::Stale;
            }
        }
    };
    assert_eq!(returns(1, stale), None);
}

/// Some state of a device that belongs to the array or did so once.
fn any_member() -> impl Strategy<Value = Found> {
    let role = prop_oneof![8 => 0u16..4, 1 => Just(SPARE), 1 => Just(FAULTY)];
    let table = prop::collection::vec(
        prop_oneof![6 => 0u16..4, 1 => Just(SPARE), 1 => Just(FAULTY)],
        6,
    );
    (
        0u32..6,
        role,
        EVENTS - 3..=EVENTS,
        table,
        0u8..8,
        any::<bool>(),
    )
        .prop_map(|(number, role, events, table, odd, clean)| {
            let mut found = member(number, role);
            let superblock = &mut found.member.superblock;
            superblock.events = events;
            if odd == 0 {
                superblock.roles = table;
            }
            if odd == 1 {
                superblock.features = Features::RECOVERY_OFFSET;
                superblock.recovery_offset = 1024;
            }
            superblock.resync_offset = if clean { IN_SYNC } else { 0 };
            found
        })
}

proptest! {
    #[test]
    fn whatever_is_found_no_rule_is_broken(
        found in prop::collection::vec(any_member(), 0..8),
        force: bool,
        bitmap: bool,
    ) {
        let mut found = found;
        for (index, f) in found.iter_mut().enumerate() {
            f.name = format!("found{index}");
            f.member.superblock.device_uuid = Uuid::from_u128(index as u128);
        }
        if bitmap {
            with_bitmap(&mut found, EVENTS - 2, &[1]);
        }
        let assembled = assemble(sample().set_uuid, &found, force);
        let mut backwards = found.clone();
        backwards.reverse();
        let other = assemble(sample().set_uuid, &backwards, force);
        let Ok(assembly) = assembled else {
            prop_assert!(other.is_err());
            return Ok(());
        };
        let named = |assembly: &Assembly, found: &[Found]| -> Vec<_> {
            let slots = assembly.slots.iter();
            slots.map(|s| s.map(|s| (found[s.found].name.clone(), s.standing, s.forced))).collect()
        };
        let other = other.expect("the order does not matter");
        prop_assert_eq!(named(&assembly, &found), named(&other, &backwards));
        prop_assert_eq!(assembly.degraded, other.degraded);

        // Every device is somewhere, once.
        let mut places: Vec<usize> = assembly.slots.iter().flatten().map(|s| s.found).collect();
        places.extend(&assembly.spares);
        places.extend(assembly.rejected.iter().map(|r| r.0));
        places.sort_unstable();
        prop_assert_eq!(places, (0..found.len()).collect::<Vec<_>>());

        let newest = assembly.events;
        for (slot, seat) in assembly.slots.iter().enumerate() {
            let Some(seat) = seat else { continue };
            let superblock = &found[seat.found].member.superblock;
            prop_assert_eq!(superblock.role().number() as usize, slot);
            prop_assert!(superblock.events <= newest);
            let behind = newest - superblock.events;
            match seat.standing {
                Standing::InSync => prop_assert!(seat.forced && force || behind <= 1),
                Standing::Recovering { guided, .. } => prop_assert!(guided && bitmap || behind <= 1),
            }
            let in_sync = seat.standing == Standing::InSync;
            prop_assert!(in_sync || assembly.degraded == Some(slot));
        }
        let in_sync = assembly.slots.iter().flatten().filter(|s| s.standing == Standing::InSync);
        prop_assert!(in_sync.count() >= 3);
        if assembly.dirty() && assembly.degraded.is_some() {
            prop_assert!(force && assembly.doubtful);
        }
    }
}
