//! Small writes where members are memory: row 0 is stripe 0, with the blocks 0 and 1 of the volume.

use super::rig::{Ask, Rig};
use super::{MEMBERS, PLAN, Plan, WRITE};
use stripewise::bdev::{Op, Status};

const MEMORY: Plan = Plan {
    in_memory: true,
    ..PLAN
};

fn ask(slot: usize, op: Op) -> Ask {
    (0, slot, op, 0..1)
}

/// An array that holds something.
fn filled(plan: Plan) -> Rig {
    let mut rig = Rig::new(plan);
    for (disk, byte) in rig.disks.iter_mut().zip([0x30, 0x11, 0x21]) {
        disk.bytes.fill(byte);
    }
    rig
}

const STORE: Op = Op::XdWriteRead { fua: false };
const ADD: Op = Op::XpWrite { fua: false };

/// A write of the first block, which its member is to store.
fn begun() -> (Rig, u64) {
    let mut rig = filled(MEMORY);
    let write = rig.write(0, 0, &[0x10], false);
    assert_eq!(rig.asked(), [ask(0, STORE)], "it does not wait for a turn");
    (rig, write)
}

/// The same when the block is stored, and parity does not match.
fn under_way() -> (Rig, u64) {
    let (mut rig, write) = begun();
    rig.serve(|asked| asked.request.op == STORE);
    assert_eq!(rig.asked(), [ask(2, ADD)]);
    (rig, write)
}

#[test]
fn a_small_write_asks_for_no_more_than_it_needs() {
    let (mut rig, write) = under_way();
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01]);
    let counted = rig.counters();
    assert_eq!((counted.modify_writes, counted.pages_read), (1, 0));
}

/// Parity's block is on its way while the other is changed, where nothing else is.
#[test]
fn the_member_of_parity_is_told_if_nothing_else_is_under_way() {
    let mut rig = filled(MEMORY);
    rig.write(0, 0, &[0x10], false);
    rig.write(0, 4, &[0x10], false);
    assert_eq!(rig.expected, [(0, 2, 0..1)]);
    rig.serve(|asked| asked.request.op == STORE);
    let added = rig.asked();
    assert!(added.contains(&ask(2, ADD)), "{added:?}");
    assert_eq!(added.len(), 2, "{added:?}");
    rig.settle();
}

/// What must be durable is so where it was stored, and its parity, too.
#[test]
fn a_write_that_is_forced_is_forced_at_both_members() {
    let mut rig = filled(MEMORY);
    rig.write(0, 0, &[0x10], true);
    assert_eq!(rig.asked(), [ask(0, Op::XdWriteRead { fua: true })]);
    rig.serve(|asked| asked.slot == 0);
    assert_eq!(rig.asked(), [ask(2, Op::XpWrite { fua: true })]);
    rig.settle();
}

/// Who comes back to a stripe may do so again: from then on the cache has it.
#[test]
fn a_stripe_that_is_written_again_is_kept() {
    let (mut rig, _) = under_way();
    rig.settle();
    let asked_for = |rig: &mut Rig, byte: u8| {
        let write = rig.write(0, 0, &[byte], false);
        rig.run(0);
        let asked = rig.asked();
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        assert_eq!(rig.on_disks(0), [byte, 0x11, byte ^ 0x11]);
        asked
    };
    assert_eq!(asked_for(&mut rig, 0x20), [ask(1, Op::Read)]);
    let written = [ask(0, WRITE), ask(2, WRITE)];
    assert_eq!(asked_for(&mut rig, 0x21), written, "nothing is read");
}

/// What both make of the parity that they have read would lack one of the two.
#[test]
fn r20_what_comes_for_a_stripe_that_is_patched_waits() {
    let (mut rig, first) = under_way();
    let second = rig.write(0, 1, &[0x20], false);
    rig.run(0);
    assert_eq!(rig.asked(), [ask(2, ADD)]);
    rig.settle();
    assert_eq!(rig.ended(first), Some(Status::Ok));
    assert_eq!(rig.ended(second), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x20, 0x30]);
}

/// Rows that are written as one may not meet it either.
#[test]
fn r20_a_row_with_a_stripe_that_is_patched_waits() {
    let mut rig = filled(Plan { chunk: 2, ..MEMORY });
    let block = rig.write(0, 1, &[0x20], false);
    let begun = rig.asked();
    assert_eq!(begun, [(0, 0, STORE, 1..2)]);
    let row = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    let of_stripe = |rig: &Rig| {
        let asked = rig.asked().into_iter();
        asked.filter(|ask| ask.3.end > 1).collect::<Vec<_>>()
    };
    assert_eq!(of_stripe(&rig), begun);
    rig.settle();
    assert_eq!(rig.ended(block), Some(Status::Ok));
    assert_eq!(rig.ended(row), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x12, 0x02]);
    assert_eq!(rig.on_disks(1), [0x11, 0x14, 0x05]);
}

/// One block that is being stored, and one whose parity is, and the member that does it.
fn at_both_members() -> [(usize, Rig, u64); 2] {
    let ((stored, first), (added, second)) = (begun(), under_way());
    [(0, stored, first), (2, added, second)]
}

#[test]
fn r21_a_block_that_fails_once_is_stored() {
    for (slot, mut rig, write) in at_both_members() {
        rig.disks[slot].bad_pages.insert(0, 1);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01], "slot {slot}");
        assert_eq!(rig.view(0).degraded, None);
    }
}

#[test]
fn r21_a_block_that_can_not_be_stored_costs_the_member_and_no_data() {
    for (slot, mut rig, write) in at_both_members() {
        rig.disks[slot].bad_pages.insert(0, u32::MAX);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        let lost = rig.view(1).degraded.as_ref().map(|d| d.slot);
        assert_eq!(lost, Some(slot));
        assert_eq!(rig.read(1, 0), Ok(0x10));
        assert_eq!(rig.read(1, 1), Ok(0x11));
    }
}

/// The block is not what parity was made of any more.
#[test]
fn r22_parity_of_a_block_that_is_stored_is_not_made_of_the_old_one() {
    let mut rig = Rig::new(Plan {
        members: 4,
        ..MEMORY
    });
    for (disk, byte) in rig.disks.iter_mut().zip([0x30, 0x11, 0x12, 0x33]) {
        disk.bytes.fill(byte);
    }
    let write = rig.write(0, 0, &[0x10], false);
    rig.serve(|asked| asked.request.op == STORE);
    assert_eq!(rig.asked(), [ask(3, ADD)]);
    rig.disks[3].bad_pages.insert(0, 1);
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x12, 0x13]);
}

/// It is told from what can be read, and stored where it could not be.
#[test]
fn r21_a_block_that_can_not_be_read_is_left_to_a_round() {
    for (slot, mut rig, write) in at_both_members() {
        rig.disks[slot].latent.insert(0);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01], "slot {slot}");
        assert!(rig.disks[slot].latent.is_empty(), "it is written again");
        assert_eq!(rig.view(0).degraded, None);
    }
}

/// A member is lost before the block is stored, or when parity does not match yet: no matter which.
#[test]
fn a_member_that_is_lost_meanwhile_is_written_around() {
    for slot in 0..MEMBERS {
        for (mut rig, write) in [begun(), under_way()] {
            rig.disks[slot].gone = true;
            rig.settle();
            assert_eq!(rig.ended(write), Some(Status::Ok));
            assert_eq!(rig.read(1, 0), Ok(0x10));
            assert_eq!(rig.read(1, 1), Ok(0x11));
        }
    }
}

/// Another member is known to be lost when parity does not match yet: what that held is told from parity, but not before.
#[test]
fn r20_what_a_lost_member_held_is_not_told_from_parity_that_does_not_match_yet() {
    let (mut rig, write) = under_way();
    rig.disks[1].gone = true;
    let read = rig.read_later(1, 1);
    rig.serve(|asked| asked.slot == 1);
    for _ in 0..20 {
        rig.serve(|asked| asked.request.op != ADD);
        for node in 0..2 {
            rig.deliver(node);
            rig.run(node);
        }
    }
    assert_eq!(rig.ended(read), None);
    assert_eq!(rig.asked(), [ask(2, ADD)]);
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.ended(read), Some(Status::Ok));
    assert_eq!(rig.read(1, 1), Ok(0x11));
}

/// Not all members can do what a patch asks of them any more.
#[test]
fn there_are_none_beside_a_new_member_that_is_no_memory() {
    let mut rig = Rig::new(Plan {
        missing: Some(1),
        // So that the cache forgets what was rebuilt.
        stripes: 1,
        ..MEMORY
    });
    rig.add_spare();
    rig.settle();
    assert_eq!(rig.view(0).degraded, None, "it is rebuilt");
    let write = rig.write(0, 0, &[0x10], false);
    rig.run(0);
    assert_eq!(rig.asked(), [ask(1, Op::Read)]);
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
}

/// What the first of them have changed is added to parity before others begin, as for rounds.
#[test]
fn patches_are_begun_in_waves() {
    let mut rig = Rig::new(Plan {
        chunk: 64,
        ..MEMORY
    });
    // None goes on where another has ended.
    let writes: Vec<_> = (0..40)
        .rev()
        .map(|lba| rig.write(0, lba, &[lba as u8], false))
        .collect();
    assert_eq!(rig.asked().len(), 32);
    rig.run(0);
    assert_eq!(rig.asked().len(), 32, "the members are asked in between");
    rig.run(0);
    assert_eq!(rig.asked().len(), 40);
    rig.settle();
    for write in writes {
        assert_eq!(rig.ended(write), Some(Status::Ok));
    }
    assert_eq!(rig.on_disks(19), [19, 0, 19]);
}
