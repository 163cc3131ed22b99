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

/// A write of the first block that is on its way to the members.
fn under_way() -> (Rig, u64) {
    let mut rig = filled(MEMORY);
    let write = rig.write(0, 0, &[0x10], false);
    assert_eq!(
        rig.asked(),
        [ask(1, Op::Read)],
        "it does not wait for a turn"
    );
    rig.serve(|asked| asked.request.op == Op::Read);
    assert_eq!(rig.asked(), [ask(0, WRITE), ask(2, WRITE)]);
    (rig, write)
}

#[test]
fn a_small_write_asks_for_no_more_than_it_needs() {
    let (mut rig, write) = under_way();
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01]);
    assert_eq!(rig.counters().reconstruct_writes, 1);
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
    assert_eq!(rig.asked(), [ask(0, WRITE), ask(2, WRITE)]);
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
    let read = rig.asked();
    assert_eq!(read, [(0, 1, Op::Read, 1..2)]);
    let row = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    let of_stripe = |rig: &Rig| {
        let asked = rig.asked().into_iter();
        asked.filter(|ask| ask.3.end > 1).collect::<Vec<_>>()
    };
    assert_eq!(of_stripe(&rig), read);
    rig.settle();
    assert_eq!(rig.ended(block), Some(Status::Ok));
    assert_eq!(rig.ended(row), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x12, 0x02]);
    assert_eq!(rig.on_disks(1), [0x11, 0x14, 0x05]);
}

#[test]
fn r21_a_block_that_fails_once_is_stored() {
    for slot in [0, 2] {
        let (mut rig, write) = under_way();
        rig.disks[slot].bad_pages.insert(0, 1);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01], "slot {slot}");
        assert_eq!(rig.view(0).degraded, None);
    }
}

#[test]
fn r21_a_block_that_can_not_be_stored_costs_the_member_and_no_data() {
    for slot in [0, 2] {
        let (mut rig, write) = under_way();
        rig.disks[slot].bad_pages.insert(0, u32::MAX);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        let lost = rig.view(1).degraded.as_ref().map(|d| d.slot);
        assert_eq!(lost, Some(slot));
        assert_eq!(rig.read(1, 0), Ok(0x10));
        assert_eq!(rig.read(1, 1), Ok(0x11));
    }
}

/// Parity that was written, or data, is not what the other was read with any more.
#[test]
fn r22_a_block_of_which_a_part_is_written_is_not_read_again() {
    for bad in [0, 3] {
        let mut rig = Rig::new(Plan {
            members: 4,
            ..MEMORY
        });
        for (disk, byte) in rig.disks.iter_mut().zip([0x30, 0x11, 0x12, 0x33]) {
            disk.bytes.fill(byte);
        }
        let write = rig.write(0, 0, &[0x10], false);
        assert_eq!(rig.asked(), [ask(0, Op::Read), ask(3, Op::Read)]);
        rig.disks[bad].bad_pages.insert(0, 1);
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x12, 0x13], "slot {bad}");
    }
}

/// It is told from what can be read, and stored where it could not be.
#[test]
fn a_block_that_can_not_be_read_is_left_to_a_round() {
    let mut rig = filled(MEMORY);
    rig.disks[1].latent.insert(0);
    let write = rig.write(0, 0, &[0x10], false);
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01]);
    assert!(rig.disks[1].latent.is_empty(), "it is written again");
}

/// The member is lost while its block is being read: before anything is written.
#[test]
fn a_member_that_is_lost_meanwhile_is_written_around() {
    for slot in 0..MEMBERS {
        let mut rig = filled(MEMORY);
        let write = rig.write(0, 0, &[0x10], false);
        rig.disks[slot].gone = true;
        rig.settle();
        assert_eq!(rig.ended(write), Some(Status::Ok));
        assert_eq!(rig.read(1, 0), Ok(0x10));
        assert_eq!(rig.read(1, 1), Ok(0x11));
    }
}

/// What the first of them have read is written before others read, as for rounds.
#[test]
fn patches_are_begun_in_waves() {
    let mut rig = Rig::new(Plan {
        chunk: 32,
        ..MEMORY
    });
    // None goes on where another has ended.
    let writes: Vec<_> = (0..20)
        .rev()
        .map(|lba| rig.write(0, lba, &[lba as u8], false))
        .collect();
    assert_eq!(rig.asked().len(), 16);
    rig.run(0);
    assert_eq!(rig.asked().len(), 16, "the members are asked in between");
    rig.run(0);
    assert_eq!(rig.asked().len(), 20);
    rig.settle();
    for write in writes {
        assert_eq!(rig.ended(write), Some(Status::Ok));
    }
    assert_eq!(rig.on_disks(19), [19, 0, 19]);
}
