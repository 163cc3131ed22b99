//! Reservations: hosts that fence one another, on two poll groups.

use std::sync::Arc;

use super::commands::{compare, deallocate, flush, halves, read, write, zeroes};
use super::device::Puppet;
use super::party::{Party, Report, entry, register};
use super::world::{NQN, Plan, World};
use crate::bdev::Status as DeviceStatus;
use crate::nvme::Command;
use crate::nvme::admin::{AdminCommand, GetLogPage};
use crate::nvme::reservation::{
    AcquireAction, Keys, RegisterAction, ReleaseAction, ReservationCommand, ReservationType,
};

const CONFLICT: u16 = 0x083;
const INVALID: u16 = 0x002;

fn two(world: &mut World) -> (Party, Party) {
    let a = Party::new(world, 1);
    let b = Party::new(world, 2);
    let queues = world.target.qpairs(NQN).expect("there");
    let io: Vec<_> = queues.iter().filter(|q| q.qid == 1).collect();
    assert_ne!(io[0].thread, io[1].thread, "one on each poll group");
    (a, b)
}

/// What the second host says, whose key is 2, to be rid of the first, whose key is 1.
fn preempt_and_abort(kind: ReservationType) -> (Command, Vec<u8>) {
    let action = AcquireAction::PreemptAndAbort;
    entry(
        ReservationCommand::Acquire { action, kind },
        Keys::new(2, 1),
    )
}

#[test]
fn one_host_shuts_out_the_other() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::WriteExclusive;
    // Who is not registered cannot reserve.
    assert_eq!(a.acquire(&mut world, kind, 0xa), CONFLICT);
    assert_eq!(a.register(&mut world, 0xa), 0);
    assert_eq!(a.acquire(&mut world, kind, 0xb), CONFLICT);
    assert_eq!(a.acquire(&mut world, kind, 0xa), 0);
    // Again is no error; another type is.
    assert_eq!(a.acquire(&mut world, kind, 0xa), 0);
    let other = ReservationType::ExclusiveAccess;
    assert_eq!(a.acquire(&mut world, other, 0xa), CONFLICT);
    assert_eq!((a.read(&mut world), a.write(&mut world)), (0, 0));
    assert_eq!((b.read(&mut world), b.write(&mut world)), (0, CONFLICT));
    // Registered or not makes no difference with this type.
    assert_eq!(b.register(&mut world, 0xb), 0);
    assert_eq!((b.read(&mut world), b.write(&mut world)), (0, CONFLICT));
    assert_eq!(b.acquire(&mut world, kind, 0xb), CONFLICT);
    let report = b.report(&mut world);
    let expected = Report {
        generation: 2,
        kind: 1,
        persists: false,
        registrants: vec![([1; 16], 0xa, true), ([2; 16], 0xb, false)],
    };
    assert_eq!(report, expected);
    // Preempted, it is the other way round, and the loser is not registered any more.
    assert_eq!(b.preempt(&mut world, other, 0xb, 0xa), 0);
    assert_eq!(
        (a.read(&mut world), a.write(&mut world)),
        (CONFLICT, CONFLICT)
    );
    assert_eq!((b.read(&mut world), b.write(&mut world)), (0, 0));
    assert_eq!(a.clear(&mut world, 0xa), CONFLICT);
    assert_eq!(b.release(&mut world, other, 0xb), 0);
    assert_eq!((a.read(&mut world), a.write(&mut world)), (0, 0));
    assert_eq!(a.report(&mut world).registrants, [([2; 16], 0xb, false)]);
}

#[test]
fn every_command_is_of_its_group() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    let (unmap, ranges) = deallocate(&[(0, 1)], 16);
    let block = [0; 512];
    for (kind, of_reads) in [
        (ReservationType::WriteExclusive, 0),
        (ReservationType::ExclusiveAccess, CONFLICT),
        (ReservationType::WriteExclusiveRegistrants, 0),
        (ReservationType::ExclusiveAccessRegistrants, CONFLICT),
        (ReservationType::WriteExclusiveAll, 0),
        (ReservationType::ExclusiveAccessAll, CONFLICT),
    ] {
        assert_eq!(a.register(&mut world, 7), 0);
        assert_eq!(a.acquire(&mut world, kind, 7), 0);
        for (party, registered) in [(&mut a, true), (&mut b, false)] {
            let reads = if registered { 0 } else { of_reads };
            let writes = if registered { 0 } else { CONFLICT };
            assert_eq!(party.write(&mut world), writes);
            assert_eq!(party.run(&mut world, flush(), &[]), writes);
            assert_eq!(party.run(&mut world, zeroes(0, 1, false), &[]), writes);
            assert_eq!(party.run(&mut world, unmap, &ranges), writes);
            assert_eq!(party.read(&mut world), reads);
            assert_eq!(party.run(&mut world, compare(0, 1), &block), reads);
        }
        // A second host that registers may do as much, where registrants may.
        assert_eq!(b.register(&mut world, 8), 0);
        let may = kind.code() > 2;
        assert_eq!(b.write(&mut world), if may { 0 } else { CONFLICT });
        assert_eq!(b.read(&mut world), if may { 0 } else { of_reads });
        assert_eq!(a.clear(&mut world, 7), 0);
        assert_eq!((b.read(&mut world), b.write(&mut world)), (0, 0));
    }
}

#[test]
fn a_fused_pair_is_let_through_or_not() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    assert_eq!(a.register(&mut world, 1), 0);
    let kind = ReservationType::WriteExclusive;
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    let (first, second) = halves(0, 1);
    let pair = |world: &mut World, party: &mut Party| {
        let one = party.io.submit(first, &[0; 512]);
        let two = party.io.submit(second, &[9; 512]);
        let one = party.io.finish(world, one).status().code();
        (one, party.io.finish(world, two).status().code())
    };
    // The Compare alone would be let through.
    assert_eq!(pair(&mut world, &mut b), (0x009, CONFLICT));
    assert_eq!(a.io.fetch(&mut world, read(0, 1), 512).data, [0; 512]);
    assert_eq!(a.release(&mut world, kind, 1), 0);
    let kind = ReservationType::ExclusiveAccess;
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    assert_eq!(pair(&mut world, &mut b), (CONFLICT, 0x009));
    // A half that waits for the other when the reservation comes.
    assert_eq!(a.release(&mut world, kind, 1), 0);
    let one = b.io.submit(first, &[0; 512]);
    assert!(b.io.is_silent(&mut world));
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    assert_eq!(b.io.finish(&mut world, one).status().code(), CONFLICT);
    let two = b.io.submit(second, &[9; 512]);
    assert_eq!(b.io.finish(&mut world, two).status().code(), 0x009);
    // A reservation command between the halves parts them.
    let one = a.io.submit(first, &[0; 512]);
    assert_eq!(a.register(&mut world, 1), 0);
    let two = a.io.submit(second, &[9; 512]);
    assert_eq!(a.io.finish(&mut world, one).status().code(), 0x00a);
    assert_eq!(a.io.finish(&mut world, two).status().code(), 0x00a);
    assert_eq!(pair(&mut world, &mut a), (0, 0));
}

#[test]
fn a_write_that_waits_for_its_data_does_not_slip_through() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    let kind = ReservationType::WriteExclusive;
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    let late = a.io.submit_large(write(5, 1), 512);
    let request = a.io.expect_r2t(&mut world);
    assert_eq!(b.preempt(&mut world, kind, 2, 1), 0);
    a.io.answer(&request, &[7; 512], 512);
    assert_eq!(a.io.finish(&mut world, late).status().code(), CONFLICT);
    assert_eq!(puppet.seen(), []);
    drop((a, b));
    world.settle();
    assert!(world.memory_is_whole());
}

#[test]
fn preempt_and_abort_waits_for_what_is_in_flight_and_preempt_does_not() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::WriteExclusive;
    let abort = ReservationCommand::Acquire {
        action: AcquireAction::PreemptAndAbort,
        kind,
    };
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    puppet.hold(true);
    let running = a.io.submit(write(5, 1), &[7; 512]);
    let asked = a.io.submit_large(write(6, 1), 512);
    let request = a.io.expect_r2t(&mut world);
    let other = b.io.submit_read(read(9, 1), 512);
    assert_eq!(b.preempt(&mut world, kind, 2, 1), 0, "at once");
    assert_eq!(a.register(&mut world, 1), 0);
    let (command, keys) = entry(abort, Keys::new(1, 2));
    // The one that preempts now has a read in flight itself, and so has the one that is preempted.
    let preempt = a.io.submit(command, &keys);
    assert!(
        a.io.is_silent(&mut world),
        "a read of the other is in flight"
    );
    // Meanwhile everybody else is served.
    let mut third = Party::new(&mut world, 3);
    assert_eq!(third.write(&mut world), CONFLICT);
    puppet.hold(false);
    assert_eq!(b.io.finish(&mut world, other).status().code(), 0);
    assert_eq!(a.io.finish(&mut world, preempt).status().code(), 0);
    assert_eq!(a.io.finish(&mut world, running).status().code(), 0);
    a.io.answer(&request, &[7; 512], 512);
    assert_eq!(a.io.finish(&mut world, asked).status().code(), CONFLICT);
    assert_eq!(b.write(&mut world), CONFLICT);
}

#[test]
fn a_long_command_of_a_host_that_is_preempted_is_cut_short() {
    let puppet = Puppet::new("Test0", 60_000, |info| info.max_blocks = 8);
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::WriteExclusive;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    puppet.hold(true);
    let long = a.io.submit(zeroes(0, 50_000, false), &[]);
    let waiting = a.io.submit_large(write(6, 1), 512);
    let request = a.io.expect_r2t(&mut world);
    let (command, keys) = preempt_and_abort(kind);
    let preempt = b.io.submit(command, &keys);
    assert!(b.io.is_silent(&mut world));
    puppet.hold(false);
    assert_eq!(b.io.finish(&mut world, preempt).status().code(), 0);
    assert_eq!(a.io.finish(&mut world, long).status().code(), 0x01b);
    a.io.answer(&request, &[7; 512], 512);
    assert_eq!(a.io.finish(&mut world, waiting).status().code(), 0x01b);
    // The four requests that were with the device, and no other.
    assert_eq!(puppet.seen().len(), 4);
}

/// The same without an abort: nobody waits for what is in flight, and what is left is not begun.
#[test]
fn the_rest_of_a_long_command_is_not_let_through_either() {
    let puppet = Puppet::new("Test0", 60_000, |info| info.max_blocks = 8);
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::WriteExclusive;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    puppet.hold(true);
    let long = a.io.submit(zeroes(0, 50_000, false), &[]);
    world.settle();
    assert_eq!(b.preempt(&mut world, kind, 2, 1), 0);
    assert!(a.io.is_silent(&mut world));
    puppet.hold(false);
    assert_eq!(a.io.finish(&mut world, long).status().code(), CONFLICT);
    assert_eq!(puppet.seen().len(), 4);
}

/// Nor is what waits for a device that takes no more at once.
#[test]
fn what_waits_for_a_full_device_is_not_let_through_either() {
    let kind = ReservationType::WriteExclusive;
    for (abort, end) in [(false, CONFLICT), (true, 0x01b)] {
        let puppet = Puppet::new("Test0", 60_000, |_| {});
        let mut world = World::bare(&Plan::default());
        world.export(Arc::new(puppet.clone()));
        let (mut a, mut b) = two(&mut world);
        assert_eq!(
            (a.register(&mut world, 1), b.register(&mut world, 2)),
            (0, 0)
        );
        assert_eq!(a.acquire(&mut world, kind, 1), 0);
        puppet.hold(true);
        puppet.set_depth(1);
        let writes = [0, 1, 2].map(|n| a.io.submit(write(n, 1), &[1; 512]));
        world.settle();
        let (command, keys) = match abort {
            true => preempt_and_abort(kind),
            false => {
                let action = AcquireAction::Preempt;
                entry(
                    ReservationCommand::Acquire { action, kind },
                    Keys::new(2, 1),
                )
            }
        };
        let preempt = b.io.submit(command, &keys);
        world.settle();
        puppet.hold(false);
        assert_eq!(b.io.finish(&mut world, preempt).status().code(), 0);
        let ends = writes.map(|cid| a.io.finish(&mut world, cid).status().code());
        assert_eq!(ends, [0, end, end]);
        assert_eq!(puppet.seen().len(), 1);
        assert!(world.memory_is_whole());
    }
}

#[test]
fn the_queue_of_a_lost_connection_counts() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::ExclusiveAccess;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    puppet.hold(true);
    a.io.submit(write(5, 1), &[7; 512]);
    world.settle();
    drop(a);
    world.settle();
    let (command, keys) = preempt_and_abort(kind);
    let preempt = b.io.submit(command, &keys);
    assert!(
        b.io.is_silent(&mut world),
        "its write is still with the device"
    );
    puppet.fail_next(DeviceStatus::WriteFault);
    puppet.hold(false);
    assert_eq!(b.io.finish(&mut world, preempt).status().code(), 0);
    assert_eq!(b.write(&mut world), 0);
}

#[test]
fn a_host_is_one_host_over_all_its_paths() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    let mut path = Party::over(&mut world, 1, 99);
    let kind = ReservationType::ExclusiveAccess;
    assert_eq!(a.register(&mut world, 1), 0);
    // Registering the same key over another path is no error, another key is.
    assert_eq!(path.register(&mut world, 1), 0);
    assert_eq!(path.register(&mut world, 2), CONFLICT);
    assert_eq!(path.acquire(&mut world, kind, 1), 0);
    assert_eq!((a.write(&mut world), path.write(&mut world)), (0, 0));
    assert_eq!(b.write(&mut world), CONFLICT);
    // The host comes back after its connections were lost, and so does a queue of the other.
    drop((a, path));
    world.settle();
    assert_eq!(b.write(&mut world), CONFLICT);
    let mut again = Party::queue(&mut world, b.id, b.cntlid, 2);
    let write = again.run(&mut world, write(0, 1), &[0; 512]);
    assert_eq!(write.status().code(), CONFLICT);
    let mut a = Party::new(&mut world, 1);
    assert_eq!(a.write(&mut world), 0);
    assert_eq!(a.report(&mut world).registrants, [([1; 16], 1, true)]);
}

#[test]
fn keys_are_replaced_and_given_up() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    let with = |action, ignore_key| ReservationCommand::Register {
        action,
        ignore_key,
        persist: None,
    };
    let (replace, unregister) = (RegisterAction::Replace, RegisterAction::Unregister);
    let does = |world: &mut World, command, current, other, party: &mut Party| {
        party.reserve(world, command, Keys::new(current, other))
    };
    // Nobody yet: only with IEKEY.
    let a = &mut a;
    let b = &mut b;
    assert_eq!(does(&mut world, with(replace, false), 0, 5, a), CONFLICT);
    assert_eq!(does(&mut world, with(replace, true), 0, 5, a), 0);
    assert_eq!(does(&mut world, with(replace, false), 4, 6, a), CONFLICT);
    assert_eq!(does(&mut world, with(replace, false), 5, 6, a), 0);
    assert_eq!(does(&mut world, with(replace, true), 4, 7, a), 0);
    assert_eq!(does(&mut world, with(replace, true), 4, 0, a), INVALID);
    assert_eq!(b.register(&mut world, 0), INVALID);
    assert_eq!(does(&mut world, with(unregister, true), 0, 0, b), CONFLICT);
    assert_eq!(b.register(&mut world, 7), 0);
    let kind = ReservationType::WriteExclusiveAll;
    assert_eq!(a.acquire(&mut world, kind, 7), 0);
    // All registrants hold it, and the last of them takes it along.
    assert_eq!(does(&mut world, with(unregister, false), 8, 0, a), CONFLICT);
    assert_eq!(does(&mut world, with(unregister, false), 7, 0, a), 0);
    assert_eq!(a.write(&mut world), CONFLICT);
    let report = b.report(&mut world);
    assert_eq!(
        (report.kind, report.registrants),
        (5, vec![([2; 16], 7, true)])
    );
    assert_eq!(does(&mut world, with(unregister, true), 0, 0, b), 0);
    assert_eq!(a.write(&mut world), 0);
    let report = b.report(&mut world);
    assert_eq!((report.kind, report.registrants), (0, vec![]));
    // Six commands that were about registrants have succeeded.
    assert_eq!(report.generation, 6);
}

#[test]
fn commands_that_are_wrong_in_themselves() {
    let mut world = World::new();
    let (mut a, _b) = two(&mut world);
    let report = ReservationCommand::Report {
        len: 4096,
        extended: false,
    };
    let short = a.io.fetch(&mut world, report.to_command(1), 4096);
    assert_eq!(short.status().code(), 0x018);
    let long = ReservationCommand::Report {
        len: (1 << 20) + 4,
        extended: true,
    };
    let answer = a.io.fetch(&mut world, long.to_command(1), (1 << 20) + 4);
    assert_eq!(answer.status().code(), INVALID);
    let part = ReservationCommand::Report {
        len: 12,
        extended: true,
    };
    assert_eq!(a.register(&mut world, 3), 0);
    let answer = a.io.fetch(&mut world, part.to_command(1), 12);
    assert_eq!(answer.data, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let (command, keys) = entry(register(), Keys::new(0, 3));
    for nsid in [0, 2, 33, u32::MAX] {
        let other = Command {
            nsid: nsid.into(),
            ..command
        };
        assert_eq!(a.run(&mut world, other, &keys), 0x00b, "{nsid}");
    }
    assert_eq!(a.run(&mut world, command, &keys[..8]), 0x00f);
    // Persistence that there is not, IEKEY where it must not be, a type that is none.
    let persist = ReservationCommand::Register {
        action: RegisterAction::Register,
        ignore_key: false,
        persist: Some(true),
    };
    assert_eq!(a.reserve(&mut world, persist, Keys::new(0, 3)), INVALID);
    for (opcode, dword) in [(0x11, 0x0108), (0x11, 0x0700), (0x15, 0x0108), (0x0d, 0x7)] {
        let mut command = Command::new(opcode, 1);
        command.cdw10 = dword.into();
        let len = if opcode == 0x15 { 8 } else { 16 };
        assert_eq!(a.run(&mut world, command, &keys[..len]), INVALID);
    }
    // A release of another type than is held; one of what nobody holds does nothing.
    let kind = ReservationType::WriteExclusive;
    assert_eq!(a.release(&mut world, kind, 3), 0);
    assert_eq!(a.acquire(&mut world, kind, 3), 0);
    let other = ReservationType::WriteExclusiveAll;
    assert_eq!(a.release(&mut world, other, 3), INVALID);
    // Nobody has the key 9; and 0 names nobody here.
    assert_eq!(a.preempt(&mut world, kind, 3, 9), CONFLICT);
    assert_eq!(a.preempt(&mut world, kind, 3, 0), INVALID);
    // A host without an identifier is nobody.
    let mut nobody = Party::over(&mut world, 0, 50);
    assert_eq!(nobody.register(&mut world, 1), 0x015);
}

fn page(party: &mut Party, world: &mut World, retain_event: bool) -> Vec<u8> {
    let page = GetLogPage {
        retain_event,
        ..GetLogPage::new(0x80, 64)
    };
    let command = AdminCommand::GetLogPage(page).to_command(0);
    party.admin.fetch(world, command, 64).data
}

fn feature(opcode: u8, fid: u32, value: u32, nsid: u32) -> Command {
    Command {
        cdw10: fid.into(),
        cdw11: value.into(),
        ..Command::new(opcode, nsid)
    }
}

#[test]
fn hosts_are_told_what_happens_to_them() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    let mut path = Party::over(&mut world, 1, 99);
    let event = Command::new(0x0c, 0);
    let first = a.admin.submit(event, &[]);
    let second = path.admin.submit(event, &[]);
    let of_b = b.admin.submit(event, &[]);
    assert_eq!(page(&mut a, &mut world, false), [0; 64]);
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    let kind = ReservationType::WriteExclusiveRegistrants;
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    assert_eq!(b.preempt(&mut world, kind, 2, 1), 0);
    // Both controllers of the host that was preempted, and not that of the other.
    for (party, cid) in [(&mut a, first), (&mut path, second)] {
        let told = party.admin.finish(&mut world, cid);
        assert_eq!(told.completion.result64(), 0x0080_0006);
        let retained = page(party, &mut world, true);
        let read = page(party, &mut world, false);
        assert_eq!(retained, read);
        // Number 1, registration preempted, no more, namespace 1.
        assert_eq!(read[..16], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(page(party, &mut world, false), [0; 64]);
    }
    assert!(b.admin.is_silent(&mut world));
    // A release of this type is told to those who are registered.
    assert_eq!(a.register(&mut world, 1), 0);
    assert_eq!(b.release(&mut world, kind, 2), 0);
    assert_eq!(b.acquire(&mut world, kind, 2), 0);
    assert_eq!(b.clear(&mut world, 2), 0);
    let read = page(&mut a, &mut world, false);
    assert_eq!(read[..10], [2, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
    let event_after = a.admin.submit(event, &[]);
    let told = a.admin.finish(&mut world, event_after);
    assert_eq!(told.completion.result64(), 0x0080_0006);
    let read = page(&mut a, &mut world, false);
    assert_eq!(read[..10], [3, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    // What is masked is not told, and is no page.
    let mask = feature(0x09, 0x82, 1 << 2, u32::MAX);
    assert_eq!(a.ask(&mut world, mask).status().code(), 0);
    let get = a.ask(&mut world, feature(0x0a, 0x82, 0, 1));
    assert_eq!(get.completion.result64(), 1 << 2);
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(b.acquire(&mut world, kind, 2), 0);
    assert_eq!(b.release(&mut world, kind, 2), 0);
    assert_eq!(page(&mut a, &mut world, false), [0; 64]);
    for (command, code) in [
        (feature(0x09, 0x82, 1, 1), INVALID),
        (feature(0x09, 0x82, 1 << 4, 1), INVALID),
        (feature(0x09, 0x82, 2, 2), 0x00b),
        (feature(0x0a, 0x82, 0, u32::MAX), INVALID),
        (feature(0x0a, 0x82, 0, 0), 0x00b),
        (feature(0x0a, 0x83, 0, u32::MAX), INVALID),
        (feature(0x0a, 0x83, 0, 1), 0),
        (feature(0x09, 0x83, 0, 1), 0),
        (feature(0x09, 0x83, 1, 1), INVALID),
        (feature(0x09, 0x83, 2, 1), INVALID),
        (feature(0x09, 1 << 31 | 0x83, 1, 1), 0x10d),
    ] {
        assert_eq!(a.ask(&mut world, command).status().code(), code);
    }
    assert!(b.admin.is_silent(&mut world));
    let _ = of_b;
}

#[test]
fn who_stays_registered_is_told_that_a_reservation_is_another_one() {
    let mut world = World::new();
    let (mut a, mut b) = two(&mut world);
    let mut c = Party::new(&mut world, 3);
    for (party, key) in [(&mut a, 1), (&mut b, 2), (&mut c, 3)] {
        assert_eq!(party.register(&mut world, key), 0);
    }
    let kind = ReservationType::WriteExclusiveRegistrants;
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    // Of the same type, it is nobody's business but the loser's.
    assert_eq!(b.preempt(&mut world, kind, 2, 1), 0);
    assert_eq!(page(&mut c, &mut world, false), [0; 64]);
    assert_eq!(page(&mut a, &mut world, false)[8], 1);
    // Of another type, others may do other things from now on. Who preempts itself stays registered.
    let other = ReservationType::ExclusiveAccess;
    assert_eq!(b.preempt(&mut world, other, 2, 2), 0);
    assert_eq!(page(&mut c, &mut world, false)[8], 2);
    assert_eq!(page(&mut b, &mut world, false), [0; 64]);
    assert_eq!((b.write(&mut world), c.read(&mut world)), (0, CONFLICT));
    assert_eq!(b.report(&mut world).registrants.len(), 2);
}

#[test]
fn a_namespace_that_goes_answers_who_waits_for_it() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::WriteExclusive;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    puppet.hold(true);
    let running = a.io.submit(write(5, 1), &[7; 512]);
    let (command, keys) = preempt_and_abort(kind);
    let preempt = b.io.submit(command, &keys);
    let (command, keys) = entry(register(), Keys::new(0, 2));
    let waiting = b.io.submit(command, &keys);
    assert!(b.io.is_silent(&mut world));
    puppet.hold(false);
    world
        .target
        .remove_namespace(&mut world.registry, NQN, 1)
        .expect("there");
    let ended = b.io.finish(&mut world, preempt).status().code();
    assert!([0, 0x00b].contains(&ended), "{ended:#x}");
    let ended = b.io.finish(&mut world, waiting).status().code();
    assert!([0, 0x00b].contains(&ended), "{ended:#x}");
    assert_eq!(a.io.finish(&mut world, running).status().code(), 0);
    // Another one of that number begins without reservations.
    let options = crate::nvmf::NamespaceOptions {
        bdev_name: "Test0".into(),
        ..Default::default()
    };
    let added = world
        .target
        .add_namespace(&mut world.registry, NQN, options);
    assert_eq!(added.expect("free"), 1);
    assert_eq!((a.write(&mut world), b.write(&mut world)), (0, 0));
    assert_eq!(a.report(&mut world).registrants, []);
}

#[test]
fn a_connection_may_go_while_its_command_is_under_way() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (mut a, mut b) = two(&mut world);
    let kind = ReservationType::WriteExclusive;
    assert_eq!(
        (a.register(&mut world, 1), b.register(&mut world, 2)),
        (0, 0)
    );
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    puppet.hold(true);
    let running = a.io.submit(write(5, 1), &[7; 512]);
    world.settle();
    let (command, keys) = preempt_and_abort(kind);
    b.io.submit(command, &keys);
    // Behind it, one that will not have begun when the connection is lost.
    let clear = ReservationCommand::Release {
        action: ReleaseAction::Clear,
        kind: 0,
    };
    let (command, keys) = entry(clear, Keys::new(2, 0));
    b.io.submit(command, &keys);
    world.settle();
    let Party { admin, io, .. } = b;
    drop(io);
    world.settle();
    // It is there until its command is over.
    let queues = world.target.qpairs(NQN).expect("there");
    assert_eq!(queues.len(), 4);
    puppet.hold(false);
    assert_eq!(a.io.finish(&mut world, running).status().code(), 0);
    world.settle();
    assert_eq!(world.target.qpairs(NQN).expect("there").len(), 3);
    let report = a.report(&mut world);
    assert_eq!(
        (report.kind, report.registrants),
        (1, vec![([2; 16], 2, true)])
    );
    assert_eq!(a.write(&mut world), CONFLICT);
    drop(admin);
}
