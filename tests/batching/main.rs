//! Batches of two owners, step by step: the interleavings of `docs/batching.md` that are about the
//! engine around the links (`src/raid/batch/loom_tests.rs` has those that are about the links).
//! `scripts/mutations` puts md's defect into our code and sees each of these tests fail.
//!
//! Unless it is said, row 0 is node 0's and row 1 is node 1's.

#[path = "../simulator/disk.rs"]
mod disk;
mod patches;
mod rig;
mod swaths;

use std::ops::Range;

use rig::{MEMBERS, PLAN, Plan, Rig, WAIT, ZERO};
use stripewise::bdev::{Op, Status};

const WRITE: Op = Op::Write { fua: false };

/// All members are asked the same.
fn all_asked(node: usize, op: Op, blocks: Range<u64>) -> Vec<rig::Ask> {
    let ask = |slot| (node, slot, op, blocks.clone());
    (0..MEMBERS).map(ask).collect()
}

/// A write of rows 0 and 1 that comes in at node 1 has become one batch, with node 0, and is on
/// its way to the members.
fn crossing(plan: Plan) -> (Rig, u64) {
    let mut rig = Rig::new(plan);
    let write = rig.write(1, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(1);
    rig.deliver(0);
    rig.run(0);
    assert_eq!(rig.counters().joins, 1);
    (rig, write)
}

/// Row 1 of a write that comes in at node 1 is written by node 0, together with another host's
/// write of row 0. The first one's row 0 is still in the mail.
fn crossing_of_two_hosts(fua: [bool; 2]) -> (Rig, [u64; 2]) {
    let mut rig = Rig::new(PLAN);
    let follower = rig.write(1, 0, &[0x10, 0x11, 0x12, 0x14], fua[1]);
    rig.run(1);
    let head = rig.write(0, 0, &[0x20, 0x21], fua[0]);
    rig.run(0);
    assert_eq!(rig.counters().joins, 1);
    (rig, [head, follower])
}

/// Both nodes do without the member of a slot, and what was written at first can be read.
fn check_loss(rig: &mut Rig, slot: usize) {
    for node in 0..2 {
        let lost = rig.view(node).degraded.as_ref().map(|d| d.slot);
        assert_eq!(lost, Some(slot), "node {node}");
    }
    for (lba, byte) in [0x10, 0x11, 0x12, 0x14].into_iter().enumerate() {
        assert_eq!(rig.read(1, lba as u64), Ok(byte));
    }
}

#[test]
fn rows_of_two_owners_are_one_request_to_each_member() {
    let (mut rig, write) = crossing(PLAN);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..2));
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01]);
    assert_eq!(rig.on_disks(1), [0x12, 0x14, 0x06]);
    assert_eq!(rig.counters().crossings, 1);
}

/// I17: neither owner goes on while one member has not answered.
#[test]
fn a_batch_ends_when_the_last_member_has_written_it() {
    for last in 0..MEMBERS {
        let (mut rig, [head, follower]) = crossing_of_two_hosts([false; 2]);
        rig.serve(|asked| asked.slot != last);
        for node in [0, 1, 0, 1] {
            rig.deliver(node);
            rig.run(node);
        }
        assert_eq!(rig.ended(head), None);
        assert_eq!(rig.asked().len(), 1, "nothing else has begun");
        rig.settle();
        assert_eq!(rig.ended(head), Some(Status::Ok));
        assert_eq!(rig.ended(follower), Some(Status::Ok));
    }
}

/// I4 for every stripe of a run that is away: what is urgent there is charged when it has come
/// home, and keeps nobody else from reading meanwhile.
#[test]
fn r1_no_stripe_of_a_run_that_is_away_is_charged() {
    let mut rig = Rig::new(Plan { run: 2, ..PLAN });
    let write = rig.write(1, 0, &[0x10; 8], false);
    rig.run(1);
    rig.deliver(0);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..4));
    for row in [2, 3] {
        rig.write(1, 2 * row, &[0x30], true);
        assert_eq!(rig.counters().preread_active, 0, "row {row}");
    }
    rig.serve(|_| true);
    rig.deliver(1);
    rig.run(1);
    assert_eq!(rig.ended(write), Some(Status::Ok));
}

/// The owner looks after a run that is away, because its wait is over: it stays away, and comes
/// home to where it was.
#[test]
fn r3_a_run_whose_wait_ends_while_it_is_away_comes_home() {
    let (mut rig, write) = crossing(PLAN);
    rig.pass(WAIT);
    for _ in 0..3 {
        rig.run(1);
    }
    assert_eq!(
        rig.asked(),
        all_asked(0, WRITE, 0..2),
        "node 1 adds nothing"
    );
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(1), [0x12, 0x14, 0x06]);
}

/// A stripe that is away is in no list of its owner's, whatever comes for it: I2, I5. That what
/// came is done in the end is R7.
#[test]
fn r6_a_write_to_a_stripe_that_is_away_begins_nothing() {
    let (mut rig, write) = crossing(PLAN);
    rig.pass(WAIT);
    rig.run(1);
    rig.write(1, 2, &[0x22, 0x24], false);
    rig.write(0, 2, &[0x32], true);
    rig.deliver(1);
    for _ in 0..3 {
        rig.run(1);
    }
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..2));
    for _ in 0..20 {
        rig.step();
    }
    assert_eq!(rig.ended(write), Some(Status::Ok));
}

/// What came for a stripe that was away is done when it has come home: I6, I10. It comes while the
/// members write, or when all that is missing is the message.
#[test]
fn r7_a_write_that_came_while_the_stripe_was_away_is_done_afterwards() {
    for late in [false, true] {
        for fill in [&[0x22, 0x24][..], &[0x22]] {
            let (mut rig, first) = crossing(PLAN);
            if late {
                rig.serve(|_| true);
            }
            let second = rig.write(1, 2, fill, false);
            assert_eq!(rig.ended(second), None);
            rig.settle();
            assert_eq!(rig.ended(first), Some(Status::Ok));
            assert_eq!(rig.ended(second), Some(Status::Ok));
            let other = fill.get(1).copied().unwrap_or(0x14);
            assert_eq!(rig.on_disks(1), [0x22, other, 0x22 ^ other]);
        }
    }
}

/// Two members are lost under a batch of two owners: the hosts of both hear of it, once (I7),
/// whether the batch ends before its head knows that the array has failed or behind that.
#[test]
fn r9_a_batch_of_an_array_that_fails_ends_for_all_its_hosts() {
    for known in [false, true] {
        let (mut rig, [head, follower]) = crossing_of_two_hosts([false; 2]);
        rig.disks[0].gone = true;
        rig.disks[1].gone = true;
        rig.serve(|asked| asked.slot < 2);
        if known {
            rig.run(0);
            assert!(!rig.view(0).online);
        }
        rig.serve(|asked| asked.slot == 2);
        rig.settle();
        for request in [head, follower] {
            assert_eq!(rig.ended(request), Some(Status::Offline));
        }
    }
}

/// A member does not take one page, once. Nobody knows which it was, so each is stored again by
/// its owner; then all is as if nothing had been (I9: outcomes are each stripe's own).
#[test]
fn r10_a_page_that_fails_once_is_stored_by_its_owner() {
    for slot in 0..MEMBERS {
        for page in 0..2 {
            let (mut rig, write) = crossing(PLAN);
            rig.disks[slot].bad_pages.insert(page, 1);
            rig.settle();
            assert_eq!(rig.ended(write), Some(Status::Ok));
            assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01]);
            assert_eq!(rig.on_disks(1), [0x12, 0x14, 0x06], "slot {slot}");
            assert_eq!(rig.counters().broken, 1);
            assert_eq!(rig.view(0).degraded, None);
        }
    }
}

/// A member never takes a page of the follower's: it is lost, and the host hears that the page is
/// stored when everybody knows that, not before.
#[test]
fn r10_a_page_that_can_not_be_stored_costs_the_member_and_no_data() {
    for slot in 0..MEMBERS {
        let (mut rig, write) = crossing(PLAN);
        rig.disks[slot].bad_pages.insert(1, u32::MAX);
        let mut steps = 0..100;
        while rig.ended(write).is_none() && steps.next().is_some() {
            rig.step();
        }
        assert_eq!(rig.ended(write), Some(Status::Ok));
        check_loss(&mut rig, slot);
    }
}

/// I8: the rebuild comes to a stripe that is away. It is not forgotten there.
#[test]
fn r11_a_stripe_that_is_away_is_rebuilt_afterwards() {
    let (mut rig, write) = crossing(Plan {
        missing: Some(0),
        ..PLAN
    });
    rig.add_spare();
    let granted = |rig: &Rig| rig.view(1).degraded.as_ref().is_some_and(|d| d.window > 0);
    for _ in 0..10 {
        rig.run(0);
        rig.deliver(1);
        rig.run(1);
        rig.deliver(0);
    }
    assert!(granted(&rig), "the rebuild has begun");
    assert_eq!(rig.ended(write), None, "and the batch is still under way");
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.view(1).degraded, None, "the rebuild is done");
    assert_eq!(rig.on_disks(0), [0x10, 0x11, 0x01]);
    assert_eq!(rig.on_disks(1), [0x12, 0x14, 0x06]);
    assert_eq!(rig.on_disks(5), [0, 0, 0]);
}

/// I15: nobody waits for ever for a neighbour.
#[test]
fn r12_a_batch_whose_neighbour_never_comes_is_written_after_its_wait() {
    let mut rig = Rig::new(Plan {
        waits: [WAIT, ZERO],
        ..PLAN
    });
    let write = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    assert_eq!(rig.asked(), []);
    assert_eq!(rig.left(0), Some(WAIT));
    // In two turns: one long one is no wait.
    rig.pass(WAIT / 2);
    rig.run(0);
    assert_eq!(rig.asked(), []);
    rig.pass(WAIT / 2);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..1));
    assert_eq!(rig.left(0), None);
    rig.settle();
    assert_eq!(rig.ended(write), Some(Status::Ok));
    assert_eq!(rig.on_disks(1), [0x12, 0x14, 0x06]);
}

/// I15: nor while others wait for what an open batch holds.
#[test]
fn r12_a_batch_does_not_wait_while_others_wait_for_its_stripe() {
    let mut rig = Rig::new(Plan {
        waits: [WAIT, ZERO],
        stripes: 1,
        ..PLAN
    });
    let first = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    assert_eq!(rig.asked(), []);
    let second = rig.write(0, 4, &[0x20], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..1));
    rig.settle();
    assert_eq!(rig.ended(first), Some(Status::Ok));
    assert_eq!(rig.ended(second), Some(Status::Ok));
    assert_eq!(rig.on_disks(2), [0x20, 0, 0x20]);
}

/// Zeros whose space must be kept are not written together with those that may give it back.
#[test]
fn r15_zeros_that_keep_their_space_keep_it() {
    let zeros = |deallocate| Op::WriteZeroes {
        fua: false,
        deallocate,
    };
    let mut rig = Rig::new(PLAN);
    let freed = rig.zero(1, 0, 4, true);
    rig.run(1);
    let kept = rig.zero(0, 0, 2, false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, zeros(false), 0..1));
    rig.serve(|_| true);
    rig.deliver(0);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, zeros(true), 0..2));
    rig.settle();
    assert_eq!(rig.ended(freed), Some(Status::Ok));
    assert_eq!(rig.ended(kept), Some(Status::Ok));
}

/// A discard and the write of its neighbour pass one another.
#[test]
fn r15_a_discard_and_the_write_beside_it_are_two_batches() {
    let mut rig = Rig::new(PLAN);
    let before = rig.write(1, 2, &[0x12, 0x14], false);
    rig.settle();
    let discard = rig.zero(1, 0, 4, true);
    rig.run(1);
    let write = rig.write(0, 0, &[0x20, 0x21], false);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..1));
    rig.settle();
    for request in [before, discard, write] {
        assert_eq!(rig.ended(request), Some(Status::Ok));
    }
    assert_eq!(rig.on_disks(0), [0, 0, 0], "the discard came later");
    assert_eq!(rig.on_disks(1), [0, 0, 0]);
}

/// I19: what one of the hosts wants forced to the medium is forced, whoever writes it.
#[test]
fn r16_a_batch_is_forced_if_only_its_follower_is() {
    for fua in [[false, true], [true, false], [false, false]] {
        let (mut rig, requests) = match fua[1] {
            false => crossing_of_two_hosts(fua),
            // What is forced does not wait, but it joins who does.
            true => {
                let waits = [WAIT, ZERO];
                let mut rig = Rig::new(Plan { waits, ..PLAN });
                let head = rig.write(0, 0, &[0x20, 0x21, 0x22, 0x24], false);
                rig.run(0);
                assert_eq!(rig.asked(), []);
                let follower = rig.write(1, 2, &[0x12, 0x14], true);
                rig.run(1);
                rig.run(0);
                (rig, [head, follower])
            }
        };
        let op = Op::Write {
            fua: fua.contains(&true),
        };
        assert_eq!(rig.asked(), all_asked(0, op, 0..2), "{fua:?}");
        rig.settle();
        for request in requests {
            assert_eq!(rig.ended(request), Some(Status::Ok));
        }
    }
}

/// A run that waits for its neighbour is in nobody's way: what is urgent ends the wait, and what
/// it is charged ahead of its round is given back.
#[test]
fn an_offered_run_closes_early_for_an_urgent_write() {
    let mut rig = Rig::new(Plan {
        waits: [WAIT, ZERO],
        ..PLAN
    });
    let write = rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false);
    rig.run(0);
    assert_eq!(rig.asked(), []);
    let patient = rig.write(0, 0, &[0x20], false);
    rig.run(0);
    assert_eq!(rig.asked(), []);
    assert_eq!(rig.counters().preread_active, 0);
    let urgent = rig.write(0, 0, &[0x30], true);
    assert_eq!(rig.counters().preread_active, 1);
    rig.run(0);
    assert_eq!(rig.asked(), all_asked(0, WRITE, 0..1));
    rig.settle();
    for request in [write, patient, urgent] {
        assert_eq!(rig.ended(request), Some(Status::Ok));
    }
    assert_eq!(rig.on_disks(0), [0x30, 0x11, 0x21]);
}

/// I4: whatever a stripe was about when its member failed, it gives its charge back; and what
/// waited for the charge goes on.
#[test]
fn the_budget_is_given_back_whatever_fails() {
    for victims in [&[0][..], &[1], &[2], &[0, 1], &[1, 2]] {
        for lost_at in 0.. {
            let mut rig = Rig::new(Plan {
                waits: [WAIT, ZERO],
                preread_limit: 1,
                ..PLAN
            });
            // One that is charged while it waits for its neighbour, and more that read before they
            // write than may.
            let mut requests = vec![rig.write(0, 0, &[0x10, 0x11, 0x12, 0x14], false)];
            rig.run(0);
            requests.push(rig.write(0, 0, &[0x20], true));
            let partial = |lba| rig.write(lba as usize % 2, lba, &[0x30], false);
            requests.extend([4, 7, 9, 10].map(partial));
            rig.run(0);
            let more = (0..lost_at).take_while(|_| rig.step()).count() == lost_at;
            for &victim in victims {
                rig.disks[victim].gone = true;
            }
            rig.settle();
            let fair = match victims.len() {
                1 => &[Status::Ok][..],
                _ => &[Status::Ok, Status::Offline, Status::MediumError],
            };
            for &request in &requests {
                let status = rig.ended(request).unwrap();
                assert!(
                    fair.contains(&status),
                    "{status}, lost {victims:?} at {lost_at}"
                );
            }
            if !more {
                break;
            }
        }
    }
}
