//! Rows that are worked on as one: with chunks of two pages, row 0 is stripes 0 and 1, and node 0's.

use super::rig::Ask;
use super::{MEMBERS, PLAN, Plan, Rig, WRITE, all_asked, check_loss};
use stripewise::bdev::{Op, Status};

const ROWS_OF_TWO: Plan = Plan { chunk: 2, ..PLAN };

/// A write of all of row 0 that is on its way to the members.
fn under_way(plan: Plan) -> (Rig, u64) {
    let mut rig = Rig::new(plan);
    let write = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..2));
    (rig, write)
}

#[test]
fn rows_that_follow_one_another_are_one_request_to_each_member() {
    let mut rig = Rig::new(Plan {
        run: 2,
        ..ROWS_OF_TWO
    });
    // Of two hosts, and one asks that it is on the medium.
    let second = rig.write(0, 4, &[1, 2, 4, 8], true);
    let first = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, Op::Write { fua: true }, 0..4));
    rig.settle();
    assert_eq!(rig.ended(first), Some(Status::Ok));
    assert_eq!(rig.ended(second), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x12, 0x02]);
    assert_eq!(rig.on_disks(1), [0x11, 0x14, 0x05]);
    assert_eq!(rig.on_disks(2), [1, 4, 5]);
    assert_eq!(rig.on_disks(3), [2, 8, 10]);
    assert_eq!(rig.counters().full_writes, 4);
}

/// Parity of the second would push the first out of the core's cache, before it is copied.
#[test]
fn rows_are_written_one_after_another_where_members_are_memory() {
    let mut rig = Rig::new(Plan {
        run: 2,
        in_memory: true,
        ..ROWS_OF_TWO
    });
    let write = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14, 1, 2, 4, 8], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..2));
    rig.run(0);
    let both = (0..MEMBERS).flat_map(|slot| [(0, slot, WRITE, 0..2), (0, slot, WRITE, 2..4)]);
    assert_eq!(rig.asked(), both.collect::<Vec<_>>());
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(3), [2, 8, 10]);
}

/// The same for rounds: what the first have read is written before others read.
#[test]
fn rounds_are_begun_in_waves_where_members_are_memory() {
    let begun = |in_memory| {
        let mut rig = Rig::new(Plan {
            chunk: 32,
            preread_limit: 32,
            in_memory,
            ..PLAN
        });
        let row: Vec<_> = [0x11; 32].into_iter().chain([0x33; 32]).collect();
        let old = rig.write(0, 0, &row, false);
        rig.settle();
        assert_eq!(rig.ended(old), Some(Status::Ok));
        let zeroed: Vec<_> = (0..20).map(|lba| rig.zero(0, lba, 1, false)).collect();
        rig.run(0);
        let first = rig.asked();
        rig.run(0);
        let all = rig.asked();
        rig.settle();
        for request in zeroed {
            assert_eq!(rig.ended(request), Some(Status::Ok));
        }
        assert_eq!(rig.on_disks(19), [0, 0x33, 0x33]);
        [first, all]
    };
    // The other data is read, to which parity is added up.
    let read = |blocks| (0, 1, Op::Read, blocks);
    assert_eq!(
        begun(true),
        [vec![read(0..16)], vec![read(0..16), read(16..20)]]
    );
    assert_eq!(begun(false), [vec![read(0..20)], vec![read(0..20)]]);
}

/// A round of a stripe would read what is being overwritten, and parity of it.
#[test]
fn r18_what_comes_for_a_row_that_is_written_as_one_waits() {
    let (mut rig, whole) = under_way(ROWS_OF_TWO);
    let part = rig.write(0, 1, &[0x20], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..2));
    rig.settle();
    assert_eq!(rig.ended(whole), Some(Status::Ok));
    assert_eq!(rig.ended(part), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x12, 0x02]);
    assert_eq!(rig.on_disks(1), [0x20, 0x14, 0x34]);
}

/// Parity of the one must not meet data of the other.
#[test]
fn r18_a_row_that_is_written_twice_is_written_in_turn() {
    let (mut rig, first) = under_way(ROWS_OF_TWO);
    let second = rig.write(0, 0, &[0x20, 0x21, 0x22, 0x24], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..2));
    rig.serve(|asked| asked.slot != 2);
    rig.run(0);
    assert_eq!(rig.asked(), [(0, 2, WRITE, 0..2)], "the first is not done");
    rig.settle();
    assert_eq!(rig.ended(first), Some(Status::Ok));
    assert_eq!(rig.ended(second), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x20, 0x22, 0x02]);
    assert_eq!(rig.on_disks(1), [0x21, 0x24, 0x05]);
}

/// What a rebuild has computed from old bytes must not be stored over new ones.
#[test]
fn r18_what_comes_for_a_row_that_is_rebuilt_as_one_waits() {
    let mut rig = Rig::new(Plan {
        missing: Some(0),
        ..ROWS_OF_TWO
    });
    let old = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.settle();
    assert_eq!(rig.ended(old), Some(Status::Ok));
    rig.add_spare();
    let reads = |rig: &Rig| {
        let of_row = |ask: &&Ask| ask.3.start < 2;
        rig.asked()
            .iter()
            .filter(of_row)
            .cloned()
            .collect::<Vec<_>>()
    };
    let expected = [1, 2].map(|slot| (0, slot, Op::Read, 0..2));
    for _ in 0..20 {
        if !reads(&rig).is_empty() {
            break;
        }
        for node in 0..2 {
            rig.deliver(node);
            rig.run(node);
        }
    }
    assert_eq!(reads(&rig), expected);
    let new = rig.write(0, 0, &[0x20], false);
    rig.run(0);
    assert_eq!(reads(&rig), expected, "the write waits");
    rig.settle();
    assert_eq!(rig.ended(new), Some(Status::Ok));
    assert_eq!(rig.view(1).degraded, None, "the rebuild is done");
    assert_eq!(rig.on_disks(0), [0x20, 0x12, 0x32]);
    assert_eq!(rig.on_disks(1), [0x11, 0x14, 0x05]);
}

#[test]
fn r19_a_page_that_fails_once_is_stored_with_its_stripe() {
    for slot in 0..MEMBERS {
        for page in 0..2 {
            let (mut rig, write) = under_way(ROWS_OF_TWO);
            rig.disks[slot].bad_pages.insert(page, 1);
            rig.settle();
            assert_eq!(rig.ended(write), Some(Status::Ok));
            assert_eq!(rig.on_disks(0), [0x10, 0x12, 0x02]);
            assert_eq!(rig.on_disks(1), [0x11, 0x14, 0x05], "slot {slot}");
            assert_eq!(rig.view(0).degraded, None);
        }
    }
}

#[test]
fn r19_a_page_that_can_not_be_stored_costs_the_member_and_no_data() {
    for slot in 0..MEMBERS {
        let (mut rig, write) = under_way(ROWS_OF_TWO);
        rig.disks[slot].bad_pages.insert(1, u32::MAX);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        check_loss(&mut rig, slot);
    }
}

/// The page of another member that a rebuild could not read the first time, or not store.
#[test]
fn r19_a_page_that_fails_once_is_rebuilt_with_its_stripe() {
    for slot in 0..MEMBERS {
        let mut rig = Rig::new(Plan {
            missing: Some(0),
            ..ROWS_OF_TWO
        });
        let write = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        rig.add_spare();
        let disk = if slot == 0 { MEMBERS } else { slot };
        rig.disks[disk].bad_pages.insert(1, 1);
        rig.settle();
        assert_eq!(rig.view(1).degraded, None, "the rebuild is done");
        assert_eq!(rig.on_disks(0), [0x10, 0x12, 0x02]);
        assert_eq!(rig.on_disks(1), [0x11, 0x14, 0x05], "slot {slot}");
    }
}
