//! The whole driver against the scripted controller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::super::super::conformance::{User, buffers, conforms};
use super::super::super::super::{Bdev, Channel, Completion, Data, Op, Request, Status};
use super::super::scripted::Scripted;
use super::*;
use crate::memory::{Pool, Segments, SegmentsMut};
use crate::nvme::identify::{IdentifyController, IdentifyNamespace, NamespaceList};
use crate::nvme::property::Capabilities;
use crate::nvme::{Completion as Entry, Status as NvmeStatus};
use crate::reactor::{CoreMask, IdlePolicy, Poller, Progress, Reactors, Turn};

/// Nothing in these tests takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

const WRITE: u8 = 0x01;
const WRITE_ZEROES: u8 = 0x08;

fn access(device: &Arc<Scripted>) -> Access {
    device.access()
}

fn attach(device: &Arc<Scripted>) -> Controller {
    Controller::attach(access(device), Options::new("Nvme0")).unwrap()
}

/// With a timeout so short that tests can wait for it.
fn attach_impatient(device: &Arc<Scripted>) -> Controller {
    let options = Options {
        timeout: Duration::from_millis(50),
        ..Options::new("Nvme0")
    };
    Controller::attach(access(device), options).unwrap()
}

fn refusal(device: &Arc<Scripted>) -> String {
    let error = Controller::attach(access(device), Options::new("Nvme0")).unwrap_err();
    error.to_string()
}

fn only(controller: &Controller) -> Arc<dyn Bdev> {
    let mut namespaces = controller.namespaces();
    assert_eq!(namespaces.len(), 1);
    namespaces.remove(0)
}

/// Buffers in memory that the device sees.
fn pool(device: &Scripted) -> Pool {
    Pool::new(&device.arena, 64 * 1024, 272).unwrap()
}

fn write(token: u64, pool: &Pool, lba: u64, bytes: &[u8]) -> Request {
    let mut buffer = pool.take().unwrap();
    buffer.truncate(bytes.len());
    buffer.copy_from_slice(bytes);
    Request {
        token,
        op: Op::Write { fua: false },
        lba,
        blocks: (bytes.len() / 512) as u32,
        data: Data::Write(Segments::from_iter([buffer.freeze()])),
    }
}

/// Turns a channel until all requests are done.
fn finish(channel: &mut dyn Channel) -> Vec<Completion> {
    let start = Instant::now();
    let mut done = Vec::new();
    while channel.in_flight() > 0 {
        channel.kick();
        channel.poll(Instant::now(), &mut done);
        assert!(start.elapsed() < PATIENCE, "{channel:?} is stuck");
    }
    done
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn conforms_with_512_byte_blocks() {
    let device = Scripted::new(3000, 9);
    let controller = attach(&device);
    conforms(only(&controller), &pool(&device));
}

#[test]
fn conforms_with_4096_byte_blocks() {
    let device = Scripted::new(1000, 12);
    let controller = attach(&device);
    conforms(only(&controller), &pool(&device));
}

#[test]
fn conforms_with_small_transfers_and_odd_boundaries() {
    let device = Scripted::new(3000, 9);
    device.state().controller.mdts = 1;
    device.state().namespace.noiob = 13.into();
    let controller = attach(&device);
    assert_eq!(only(&controller).info().io_boundary, 13);
    conforms(only(&controller), &pool(&device));
}

#[test]
fn conforms_with_two_entries_and_without_write_zeroes() {
    let device = Scripted::new(3000, 9);
    device.state().controller.oncs = 0.into();
    device.state().capabilities &= !0xffff;
    device.state().capabilities |= 3;
    let controller = attach(&device);
    conforms(only(&controller), &pool(&device));
    assert!(!device.state().executed.contains(&WRITE_ZEROES));
}

#[test]
fn conforms_with_buffers_that_the_device_does_not_see() {
    let device = Scripted::new(3000, 9);
    let controller = attach(&device);
    let (_arena, pool) = buffers();
    conforms(only(&controller), &pool);
}

#[test]
fn conforms_with_sgls() {
    // Aligned to nothing, to dwords, and with at most 1 or 3 descriptors.
    for sgls in [0x0001, 0x0002, 0x0101, 0x0302] {
        let device = Scripted::new(3000, 9);
        device.state().controller.sgls = sgls.into();
        let controller = attach(&device);
        conforms(only(&controller), &pool(&device));
        assert!(device.state().by_sgl > 0);
        let (_arena, foreign) = buffers();
        conforms(only(&controller), &foreign);
    }
}

#[test]
fn sgls_tell_what_prps_cannot() {
    // 128 KiB that begin at an odd address and are cut at one: by SGL whole, else by way of buffers of 64 KiB.
    // The buffers are one piece each.
    let cases = [
        (0, true, 2, 0),
        (1, true, 1, 1),
        (1, false, 2, 0),
        (2, true, 2, 2),
    ];
    for (sgls, wanted, commands, by_sgl) in cases {
        let device = Scripted::new(3000, 9);
        device.state().controller.sgls = sgls.into();
        let options = Options {
            sgls: wanted,
            ..Options::new("Nvme0")
        };
        let controller = Controller::attach(access(&device), options).unwrap();
        let mut channel = only(&controller).open().unwrap();
        let pool = Pool::new(&device.arena, 256 * 1024, 2).unwrap();
        let bytes: Vec<u8> = (0..128 << 10).map(|i: u32| (i / 7) as u8).collect();
        let mut front = pool.take().unwrap().split_off(1);
        let mut back = pool.take().unwrap().split_off(5);
        front.truncate(777);
        back.truncate(bytes.len() - 777);
        front.copy_from_slice(&bytes[..777]);
        back.copy_from_slice(&bytes[777..]);
        let request = Request {
            token: 1,
            op: Op::Write { fua: false },
            lba: 7,
            blocks: 256,
            data: Data::Write(Segments::from_iter([front.freeze(), back.freeze()])),
        };
        channel.submit(request).unwrap();
        assert_eq!(finish(&mut *channel)[0].status, Status::Ok);
        assert_eq!(device.state().executed.len(), commands, "SGLS {sgls}");
        assert_eq!(device.state().by_sgl, by_sgl, "SGLS {sgls}");
        let mut user = User::new(&*only(&controller), &pool);
        assert!(user.read(7, 256).unwrap() == bytes, "SGLS {sgls}");
    }
}

#[test]
fn the_largest_request_is_cut_into_what_the_device_takes() {
    for mdts in [0, 1, 5] {
        let device = Scripted::new(4096, 9);
        device.state().controller.mdts = mdts;
        let controller = attach(&device);
        let bdev = only(&controller);
        let pool = Pool::new(&device.arena, 1 << 20, 2).unwrap();
        let mut user = User::new(&*bdev, &pool);
        assert_eq!(bdev.info().max_blocks, 2048);
        let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i / 7) as u8).collect();
        assert_eq!(user.write(5, &bytes), Status::Ok);
        assert!(user.read(5, 2048).unwrap() == bytes, "MDTS {mdts}");
        let commands = device.state().executed.len();
        let expected = [2, 2 * 128, 2, 2, 2, 16][usize::from(mdts)];
        assert_eq!(commands, expected, "MDTS {mdts}");
    }
}

#[test]
fn one_doorbell_tells_of_all_that_one_turn_brings() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let mut channel = only(&controller).open().unwrap();
    let pool = pool(&device);
    device.state().doorbells.clear();
    for token in 0..20 {
        channel
            .submit(write(token, &pool, token, &[7; 512]))
            .unwrap();
    }
    channel.kick();
    let mut done = Vec::new();
    channel.poll(Instant::now(), &mut done);
    assert_eq!(done.len(), 20);
    channel.kick();
    channel.poll(Instant::now(), &mut done);
    // The tail, and no head: the ring has places enough.
    assert_eq!(device.state().doorbells.len(), 1);
}

#[test]
fn fua_and_deallocate_are_said_to_the_device() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let bdev = only(&controller);
    assert!(bdev.info().write_cache && bdev.info().deallocates);
    let mut channel = bdev.open().unwrap();
    let pool = pool(&device);
    device.state().hold = true;
    let mut request = write(0, &pool, 3, &[1; 1024]);
    request.op = Op::Write { fua: true };
    channel.submit(request).unwrap();
    for (fua, deallocate) in [(true, false), (false, true)] {
        let op = Op::WriteZeroes { fua, deallocate };
        let data = Data::None;
        let (token, lba, blocks) = (1, 5, 7);
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        channel.submit(request).unwrap();
    }
    channel.kick();
    let said: Vec<(u8, u32)> = device
        .state()
        .held
        .iter()
        .map(|(_, command)| (command.opcode, command.cdw12.get()))
        .collect();
    // FUA is bit 30, DEAC bit 25, the blocks are 0's based (NVM 3.2).
    let expected = [
        (WRITE, 1 << 30 | 1),
        (WRITE_ZEROES, 1 << 30 | 6),
        (WRITE_ZEROES, 1 << 25 | 6),
    ];
    assert_eq!(said, expected);
    for _ in 0..3 {
        device.release(0);
    }
    assert_eq!(finish(&mut *channel).len(), 3);
}

#[test]
fn a_flush_is_sent_where_there_is_a_cache() {
    for cache in [true, false] {
        let device = Scripted::new(256, 9);
        device.state().controller.vwc = u8::from(cache);
        let controller = attach(&device);
        let bdev = only(&controller);
        assert_eq!(bdev.info().write_cache, cache);
        let mut user = User::new(&*bdev, &pool(&device));
        assert_eq!(user.run(Op::Flush, 0, 0, Data::None).0, Status::Ok);
        let sent: &[u8] = if cache { &[0] } else { &[] };
        assert_eq!(device.state().executed, sent);
    }
}

#[test]
fn compare_tells_what_differs() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let mut user = User::new(&*only(&controller), &pool(&device));
    assert_eq!(user.write(9, &[3; 1024]), Status::Ok);
    let data = user.write_data(&[3; 1024]);
    assert_eq!(user.run(Op::Compare, 9, 2, data).0, Status::Ok);
    let mut other = [3; 1024];
    other[1023] = 4;
    let data = user.write_data(&other);
    assert_eq!(user.run(Op::Compare, 9, 2, data).0, Status::Miscompare);
    let both = user.write_data(&other);
    let op = Op::CompareAndWrite { fua: false };
    assert_eq!(user.run(op, 9, 1, both).0, Status::Unsupported);

    let device = Scripted::new(256, 9);
    device.state().controller.oncs = 0.into();
    let controller = attach(&device);
    let mut user = User::new(&*only(&controller), &pool(&device));
    let data = user.write_data(&[3; 1024]);
    assert_eq!(user.run(Op::Compare, 9, 2, data).0, Status::Unsupported);
}

#[test]
fn a_bad_block_fails_its_request_and_no_other() {
    let device = Scripted::new(256, 9);
    device.state().bad = Some((40, NvmeStatus::UNRECOVERED_READ_ERROR.with_do_not_retry()));
    let controller = attach(&device);
    let mut user = User::new(&*only(&controller), &pool(&device));
    assert_eq!(user.read(39, 2), Err(Status::MediumError));
    assert!(user.read(39, 1).is_ok() && user.read(41, 1).is_ok());
    device.state().bad = Some((40, NvmeStatus::WRITE_FAULT));
    assert_eq!(user.write(40, &[0; 512]), Status::WriteFault);
}

#[test]
fn what_may_pass_is_sent_again_a_bounded_number_of_times() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let mut user = User::new(&*only(&controller), &pool(&device));
    device.state().failures = vec![NvmeStatus::COMMAND_INTERRUPTED; 2];
    assert_eq!(user.write(0, &[1; 512]), Status::Ok);
    assert_eq!(device.state().executed, [WRITE; 3]);
    device.state().failures = vec![NvmeStatus::INTERNAL_ERROR; 3];
    assert_eq!(user.write(0, &[1; 512]), Status::WriteFault);
    assert_eq!(device.state().executed, [WRITE; 6]);
}

/// A device whose retry delays are 0.1, 3 and 3600 seconds, and whose next I/O commands end like this; a channel with a write
/// of a block in it, in flight.
fn interrupted(failures: &[NvmeStatus]) -> (Arc<Scripted>, Controller, Box<dyn Channel>) {
    let device = Scripted::new(256, 9);
    {
        let mut state = device.state();
        state.controller.crdt1 = 1.into();
        state.controller.crdt2 = 30.into();
        state.controller.crdt3 = 36_000.into();
        state.failures = failures.to_vec();
    }
    let options = Options {
        timeout: Duration::from_secs(600),
        ..Options::new("Nvme0")
    };
    let controller = Controller::attach(access(&device), options).unwrap();
    let mut channel = only(&controller).open().unwrap();
    let pool = Pool::new(&device.arena, 4096, 1).unwrap();
    channel.submit(write(7, &pool, 3, &[1; 512])).unwrap();
    channel.kick();
    (device, controller, channel)
}

#[test]
fn a_command_rests_as_long_as_the_controller_says() {
    let start = Instant::now();
    // CRD; none, and more than a command may take, which is cut.
    for (crd, delay) in [(1, 100), (2, 3_000), (3, 600_000)] {
        let failure = NvmeStatus::COMMAND_INTERRUPTED.with_retry_delay(crd);
        let (device, _controller, mut channel) = interrupted(&[failure]);
        let due = start + Duration::from_millis(delay);
        let mut done = Vec::new();
        channel.poll(start, &mut done);
        assert_eq!(channel.deadline(), Some(due), "CRD {crd}");
        channel.kick();
        channel.poll(due - Duration::from_nanos(1), &mut done);
        channel.kick();
        assert_eq!((device.state().executed.len(), done.len()), (1, 0));
        channel.poll(due, &mut done);
        assert_eq!(device.state().executed, [WRITE; 2]);
        assert_eq!(channel.deadline(), Some(due), "it is looked for again");
        channel.poll(due, &mut done);
        assert_eq!((done[0].token, done[0].status), (7, Status::Ok));
        assert_eq!(channel.deadline(), None);
    }
}

#[test]
fn delayed_commands_are_sent_a_bounded_number_of_times_and_never_against_the_controllers_word() {
    let start = Instant::now();
    let failure = NvmeStatus::NAMESPACE_NOT_READY.with_retry_delay(2);
    let (device, _controller, mut channel) = interrupted(&[failure; 3]);
    let mut done = Vec::new();
    for turn in 0..3 {
        let now = start + Duration::from_secs(3) * turn;
        channel.poll(now, &mut done);
        assert_eq!(device.state().executed.len(), turn as usize + 1);
        // What has failed is found in the next turn.
        channel.poll(now, &mut done);
    }
    assert_eq!(device.state().executed.len(), 3);
    assert_eq!(done[0].status, Status::WriteFault);

    let (device, _controller, mut channel) = interrupted(&[failure.with_do_not_retry()]);
    assert_eq!(finish(&mut *channel)[0].status, Status::WriteFault);
    assert_eq!(device.state().executed.len(), 1);
}

#[test]
fn commands_that_rest_keep_their_places() {
    let failure = NvmeStatus::COMMAND_INTERRUPTED.with_retry_delay(2);
    let device = Scripted::new(256, 9);
    device.state().controller.crdt2 = 30.into();
    device.state().failures = vec![failure; 2];
    let options = Options {
        entries: 4,
        ..Options::new("Nvme0")
    };
    let controller = Controller::attach(access(&device), options).unwrap();
    let mut channel = only(&controller).open().unwrap();
    let pool = pool(&device);
    for token in 0..6 {
        channel
            .submit(write(token, &pool, token, &[1; 512]))
            .unwrap();
    }
    channel.kick();
    let start = Instant::now();
    let mut done = Vec::new();
    // Three at once at first, and then one at a time beside the two that rest.
    for sent in 3..=6 {
        assert_eq!(device.state().executed.len(), sent);
        channel.poll(start, &mut done);
    }
    assert_eq!((done.len(), device.state().executed.len()), (4, 6));
    for _ in 0..2 {
        channel.poll(start + Duration::from_secs(3), &mut done);
    }
    assert_eq!((done.len(), device.state().executed.len()), (6, 8));
    assert!(done.iter().all(|c| c.status == Status::Ok));
}

#[test]
fn a_controller_with_retry_delays_hears_that_they_are_understood() {
    for refuses in [false, true] {
        let device = Scripted::new(256, 9);
        device.state().controller.crdt3 = 1.into();
        device.state().refuses_behaviors = refuses;
        let controller = attach(&device);
        // It forgets that when it is reset.
        controller.reset().unwrap();
        let mut user = User::new(&*only(&controller), &pool(&device));
        assert_eq!(user.write(0, &[1; 512]), Status::Ok);
        let mut acre = vec![0; 512];
        acre[0] = 1;
        assert_eq!(device.state().behaviors, [acre.clone(), acre]);
    }
    let device = Scripted::new(256, 9);
    attach(&device);
    assert!(device.state().behaviors.is_empty());
}

#[test]
fn a_command_that_takes_too_long_is_aborted() {
    let device = Scripted::new(256, 9);
    let controller = attach_impatient(&device);
    let mut channel = only(&controller).open().unwrap();
    let pool = pool(&device);
    device.state().hold = true;
    channel.submit(write(4, &pool, 0, &[1; 512])).unwrap();
    let done = finish(&mut *channel);
    assert_eq!((done[0].token, done[0].status), (4, Status::WriteFault));
    assert_eq!(device.state().enabled, 1, "no reset");
}

/// A reactor that has written a block through a channel of its own, ends when that is done, and sleeps without end until
/// somebody wakes it.
fn writer(device: &Arc<Scripted>, idle: IdlePolicy) -> (Controller, Reactors) {
    struct Writer {
        channel: Box<dyn Channel>,
        done: Vec<Completion>,
    }

    impl Poller for Writer {
        fn poll(&mut self, turn: &Turn<'_>) -> Progress {
            self.channel.kick();
            let worked = self.channel.poll(turn.now, &mut self.done);
            match worked {
                _ if !self.done.is_empty() => Progress::Finished,
                true => Progress::Busy,
                false => Progress::Idle,
            }
        }

        fn deadline(&self) -> Option<Instant> {
            self.channel.deadline()
        }
    }

    // No command is found overdue before the test gives up.
    let options = Options {
        timeout: Duration::from_secs(360_000),
        nap: Duration::from_secs(3_600),
        ..Options::new("Nvme0")
    };
    let controller = Controller::attach(access(device), options).unwrap();
    let mask = CoreMask::of(CoreMask::available().unwrap().cores().take(1)).unwrap();
    let setup = Reactors::prepare(&mask, idle).unwrap().without_net(idle);
    let (bdev, pool) = (only(&controller), pool(device));
    let reactors = setup.start(|_| {
        let (bdev, pool) = (bdev.clone(), pool.clone());
        move || {
            let mut channel = bdev.open().unwrap();
            channel.submit(write(1, &pool, 0, &[1; 512])).unwrap();
            let done = Vec::new();
            Writer { channel, done }
        }
    });
    (controller, reactors.unwrap())
}

const SLEEPY: IdlePolicy = IdlePolicy::Adaptive {
    quiet: Duration::ZERO,
};

fn has_ended(reactors: &mut Reactors) -> bool {
    reactors.next_exit().is_some_and(|exit| {
        exit.outcome.unwrap();
        true
    })
}

#[test]
fn a_reactor_that_sleeps_on_a_command_is_woken_by_its_completion() {
    let device = Scripted::new(256, 9);
    device.state().vectors = 9;
    device.state().hold = true;
    let (_controller, mut reactors) = writer(&device, SLEEPY);
    until("a vector", || device.state().bindings > 0);
    // Most likely it is asleep by now; if not, it finds the completion before it sleeps.
    std::thread::sleep(Duration::from_millis(50));
    assert!(!has_ended(&mut reactors));
    device.release(0);
    until("the end", || has_ended(&mut reactors));
    assert!(device.state().bound.is_empty(), "no interrupts after it");
}

#[test]
fn a_completion_that_comes_while_the_reactor_falls_asleep_is_found() {
    let device = Scripted::new(256, 9);
    device.state().vectors = 9;
    device.state().hold = true;
    device.state().completes_on_binding = true;
    let (_controller, mut reactors) = writer(&device, SLEEPY);
    until("the end", || has_ended(&mut reactors));
    assert_eq!(device.state().bindings, 1);
}

#[test]
fn reactors_that_do_not_sleep_have_no_interrupts() {
    for (idle, vectors) in [(IdlePolicy::Busy, 9), (SLEEPY, 0)] {
        let device = Scripted::new(256, 9);
        device.state().vectors = vectors;
        device.state().hold = true;
        let (_controller, mut reactors) = writer(&device, idle);
        until("a command", || !device.state().held.is_empty());
        std::thread::sleep(Duration::from_millis(5));
        device.release(0);
        until("the end", || has_ended(&mut reactors));
        assert_eq!(device.state().bindings, 0);
    }
}

#[test]
fn what_cannot_be_aborted_is_reset_and_sent_again() {
    let device = Scripted::new(256, 9);
    let controller = attach_impatient(&device);
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let mut other = bdev.open().unwrap();
    let pool = pool(&device);
    {
        let mut state = device.state();
        state.hold = true;
        state.aborts = false;
    }
    for token in 0..10 {
        channel
            .submit(write(token, &pool, 2 * token, &[token as u8; 1024]))
            .unwrap();
    }
    channel.kick();
    other.submit(write(99, &pool, 200, &[99; 512])).unwrap();
    other.kick();
    // What is held stays so; what comes after the reset is done at once.
    device.state().hold = false;
    let mut done = Vec::new();
    let mut others = Vec::new();
    until("a reset", || {
        channel.poll(Instant::now(), &mut done);
        other.poll(Instant::now(), &mut others);
        device.state().enabled == 2
    });
    done.extend(finish(&mut *channel));
    others.extend(finish(&mut *other));
    // Both channels kept their rings as they were until the device was stopped.
    let stopped_with = device.state().stopped_with.clone();
    assert!(
        stopped_with.iter().filter(|&&queue| queue > 0).count() >= 2,
        "{stopped_with:?}"
    );
    assert_eq!((done.len(), others.len()), (10, 1));
    assert!(done.iter().chain(&others).all(|c| c.status == Status::Ok));
    let mut user = User::new(&*bdev, &pool);
    for token in 0..10 {
        assert_eq!(user.read(2 * token, 2).unwrap(), [token as u8; 1024]);
    }
    assert_eq!(user.read(200, 1).unwrap(), [99; 512]);
    assert_eq!(controller.failure(), None);
}

#[test]
fn a_device_that_never_answers_is_not_waited_for_without_end() {
    let device = Scripted::new(256, 9);
    let controller = attach_impatient(&device);
    let mut channel = only(&controller).open().unwrap();
    let pool = pool(&device);
    {
        let mut state = device.state();
        state.hold = true;
        state.aborts = false;
    }
    channel.submit(write(4, &pool, 0, &[1; 512])).unwrap();
    let done = finish(&mut *channel);
    assert_eq!(done[0].status, Status::Gone);
    // At first, for each time that it is sent again, and maybe already for those who come next.
    let enabled = device.state().enabled;
    assert!((3..=4).contains(&enabled), "{enabled}");
    assert_eq!(
        pool.available(),
        271,
        "the request's buffer is held by the completion"
    );
}

#[test]
fn a_device_that_does_not_stop_loses_its_memory_before_others_get_it() {
    let device = Scripted::new(256, 9);
    let controller = attach_impatient(&device);
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let pool = pool(&device);
    device.state().stuck = true;
    channel.submit(write(4, &pool, 0, &[1; 512])).unwrap();
    channel.kick();
    let mut done = Vec::new();
    until("an end", || {
        channel.kick();
        channel.poll(Instant::now(), &mut done);
        assert!(done.is_empty() || !device.state().dma);
        !done.is_empty()
    });
    assert_eq!(done[0].status, Status::Gone);
    let failure = controller.failure().unwrap();
    assert!(
        failure.contains("did not stop (CSTS.RDY 0) within 500 ms"),
        "{failure}"
    );
    let error = bdev.open().unwrap_err().to_string();
    assert!(
        error.contains("Nvme0n1") && error.contains("0000:5c:00.0"),
        "{error}"
    );
    channel.submit(write(5, &pool, 0, &[1; 512])).unwrap();
    assert_eq!(finish(&mut *channel)[0].status, Status::Gone);
}

#[test]
fn a_device_that_is_pulled_out_ends_all_io() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let mut channel = only(&controller).open().unwrap();
    let pool = pool(&device);
    device.state().hold = true;
    for token in 0..255 {
        channel.submit(write(token, &pool, 0, &[1; 512])).unwrap();
    }
    channel.kick();
    device.state().gone = true;
    let done = finish(&mut *channel);
    assert_eq!(done.len(), 255);
    assert!(done.iter().all(|c| c.status == Status::Gone));
    assert!(controller.failure().unwrap().contains("all ones"));
    assert!(controller.reset().is_err());
    assert!(controller.health().is_err());
}

#[test]
fn a_lie_in_the_middle_of_io_leads_to_a_reset_and_nothing_is_lost() {
    let device = Scripted::new(256, 9);
    // No command is found overdue before the test gives up.
    let options = Options {
        timeout: Duration::from_secs(3600),
        ..Options::new("Nvme0")
    };
    let controller = Controller::attach(access(&device), options).unwrap();
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let pool = pool(&device);
    device.state().hold = true;
    for token in 0..5 {
        channel
            .submit(write(token, &pool, token, &[8; 512]))
            .unwrap();
    }
    channel.kick();
    let queue = device.state().held[0].0;
    let mut lie = Entry::new(77, NvmeStatus::SUCCESS).with_sqhd(5);
    lie.sqid = queue.into();
    device.post(queue, lie);
    // What is held stays so; what comes after the reset is done at once.
    device.state().hold = false;
    let mut done = Vec::new();
    until("a reset", || {
        channel.poll(Instant::now(), &mut done);
        device.state().enabled == 2
    });
    done.extend(finish(&mut *channel));
    assert_eq!(done.iter().filter(|c| c.status == Status::Ok).count(), 5);
}

#[test]
fn it_is_reset_when_it_reports_a_fatal_error_or_stops() {
    for csts in [0b11, 0b00] {
        let device = Scripted::new(256, 9);
        let controller = attach(&device);
        device.state().csts = csts;
        until("a reset", || device.state().enabled == 2);
        let mut user = User::new(&*only(&controller), &pool(&device));
        assert_eq!(user.write(0, &[1; 512]), Status::Ok);
    }
}

#[test]
fn a_reset_that_is_asked_for_passes_unnoticed() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let mut user = User::new(&*only(&controller), &pool(&device));
    assert_eq!(user.write(0, &[5; 512]), Status::Ok);
    for _ in 0..3 {
        controller.reset().unwrap();
        assert_eq!(user.read(0, 1).unwrap(), [5; 512]);
    }
    assert_eq!(device.state().enabled, 4);
}

#[test]
fn another_device_behind_the_same_registers_is_not_taken_for_the_old_one() {
    let changes: [fn(&mut IdentifyController, &mut IdentifyNamespace); 2] = [
        |controller, _| controller.sn = *b"OTHER               ",
        |_, namespace| namespace.nsze = 255.into(),
    ];
    for change in changes {
        let device = Scripted::new(256, 9);
        let controller = attach(&device);
        {
            let mut state = device.state();
            let state = &mut *state;
            change(&mut state.controller, &mut state.namespace);
        }
        let error = controller.reset().unwrap_err();
        assert!(
            error.contains("came back from a reset with another"),
            "{error}"
        );
        assert!(!device.state().dma);
    }
}

#[test]
fn memory_of_a_closed_channel_is_free_when_the_device_is_done_with_it() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    let bdev = only(&controller);
    let pool = pool(&device);
    let mut channel = bdev.open().unwrap();
    device.state().hold = true;
    let buffer = SegmentsMut::from_iter([pool.take().unwrap()]);
    let request = Request {
        token: 1,
        op: Op::Read,
        lba: 0,
        blocks: 128,
        data: Data::Read(buffer),
    };
    channel.submit(request).unwrap();
    channel.kick();
    let queue = device.state().held[0].0;
    drop(channel);
    until("the memory", || pool.available() == pool.capacity());
    assert!(
        device.state().held.is_empty(),
        "the device knows no such queue"
    );
    device.state().hold = false;
    // The queue is made anew, and works: one of eight channels has it.
    let mut channels = Vec::new();
    until("eight channels", || {
        channels.extend(bdev.open());
        channels.len() == 8
    });
    device.state().doorbells.clear();
    for channel in &mut channels {
        channel.submit(write(1, &pool, 0, &[1; 512])).unwrap();
        assert_eq!(finish(&mut **channel)[0].status, Status::Ok);
    }
    let doorbell = 0x1000 + 8 * u32::from(queue);
    assert!(device.state().doorbells.contains(&(doorbell, 1)));
}

#[test]
fn there_are_as_many_channels_as_queues() {
    let device = Scripted::new(256, 9);
    device.state().queues = 0x0002_0001;
    let controller = attach(&device);
    let bdev = only(&controller);
    let first = bdev.open().unwrap();
    let _second = bdev.open().unwrap();
    let error = bdev.open().unwrap_err().to_string();
    assert!(
        error.contains("all 2 I/O queues of NVMe controller 0000:5c:00.0"),
        "{error}"
    );
    drop(first);
    until("a spare queue", || bdev.open().is_ok());
}

#[test]
fn a_detached_controller_is_shut_down_and_gives_all_memory_back() {
    let device = Scripted::new(256, 9);
    let before = device.arena.free();
    let options = Options::new("Nvme0");
    let controller = attach(&device);
    let used = before - device.arena.free();
    assert!(used <= options.memory(), "{used} of {}", options.memory());
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let pool = Pool::new(&device.arena, 4096, 1).unwrap();
    device.state().hold = true;
    channel.submit(write(1, &pool, 0, &[1; 512])).unwrap();
    channel.kick();
    controller.detach();
    assert_eq!(device.state().configuration & 1, 0, "disabled");
    assert_eq!(device.state().shutdowns, 1);
    assert_eq!(finish(&mut *channel)[0].status, Status::Gone);
    drop((channel, bdev, pool));
    assert_eq!(device.arena.free(), before);
}

#[test]
fn the_health_page_is_read() {
    let device = Scripted::new(256, 9);
    let controller = attach(&device);
    assert_eq!(controller.health().unwrap().temperature.get(), 300);
}

#[test]
fn what_registers_cannot_say_is_refused_by_name() {
    let refused = |change: fn(&mut Capabilities)| {
        let device = Scripted::new(256, 9);
        let mut capabilities = Capabilities::from_value(device.state().capabilities);
        change(&mut capabilities);
        device.state().capabilities = capabilities.value();
        refusal(&device)
    };
    let text = refused(|c| c.max_queue_entries = 0);
    assert!(text.contains("0000:5c:00.0: CAP.MQES is 0x0"), "{text}");
    let text = refused(|c| c.command_sets = Capabilities::CSS_ADMIN_ONLY);
    assert!(text.contains("CAP.CSS is 0x80"), "{text}");
    let text = refused(|c| c.min_page_size = 4);
    assert!(text.contains("CAP.MPSMIN is 0x4"), "{text}");
    let text = refused(|c| c.doorbell_stride = 15);
    assert!(text.contains("CAP.DSTRD is 0xf"), "{text}");

    let device = Scripted::new(256, 9);
    device.state().gone = true;
    assert!(refusal(&device).contains("all ones"));
}

#[test]
fn huge_and_tiny_queues_are_taken_as_they_can_be_used() {
    for entries in [1, 2, 0xfffe, 0xffff] {
        let device = Scripted::new(256, 9);
        device.state().capabilities &= !0xffff;
        device.state().capabilities |= entries;
        let controller = attach(&device);
        let mut user = User::new(&*only(&controller), &pool(&device));
        for lba in 0..20 {
            assert_eq!(user.write(lba, &[1; 512]), Status::Ok);
        }
    }
}

#[test]
fn a_controller_that_never_becomes_ready_is_given_up() {
    let device = Scripted::new(256, 9);
    device.state().stuck = true;
    let text = refusal(&device);
    assert!(
        text.contains("did not become ready within 500 ms"),
        "{text}"
    );
    assert!(!device.state().dma);

    let device = Scripted::new(256, 9);
    {
        // It is fatal from the start and stays so.
        let mut state = device.state();
        state.stuck = true;
        state.csts = 0b10;
    }
    let text = refusal(&device);
    assert!(text.contains("fatal error (CSTS.CFS)"), "{text}");
}

#[test]
fn garbage_in_identify_is_refused_by_name() {
    let device = Scripted::new(256, 9);
    device.state().controller.sqes = 0xff;
    assert!(refusal(&device).contains("SQES of 255"));

    let device = Scripted::new(256, 9);
    device.state().namespaces = NamespaceList::from_ids([3, 3]);
    assert!(refusal(&device).contains("list of namespaces of 3"));
    device.state().namespaces = NamespaceList::overflow();
    assert!(refusal(&device).contains("list of namespaces of 4294967295"));

    // A namespace that is of no use does not harm the controller.
    let device = Scripted::new(256, 9);
    device.state().namespace.lbaf[0].lbads = 200;
    let controller = attach(&device);
    assert!(controller.namespaces().is_empty());
    let refused = controller.refused()[0].to_string();
    assert!(
        refused.contains("0000:5c:00.0, namespace 1: its blocks are of 2^200"),
        "{refused}"
    );
}

#[test]
fn options_that_make_no_queue_are_refused() {
    let device = Scripted::new(256, 9);
    let refused = |change: fn(&mut Options)| {
        let mut options = Options::new("x");
        change(&mut options);
        Controller::attach(access(&device), options)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(|o| o.queues = 0).contains("queues of 0"));
    assert!(refused(|o| o.entries = 1).contains("entries of 1"));
    assert!(refused(|o| o.entries = 1025).contains("entries of 1025"));
    assert!(refused(|o| o.timeout = Duration::ZERO).contains("timeout of 0"));
    let mut small = access(&device);
    small.arena = Arena::ordinary(4096).unwrap();
    let text = Controller::attach(small, Options::new("x"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("do not fit into the memory arena"), "{text}");
    let mut foreign = access(&device);
    foreign.arena = Arena::ordinary(32 << 20).unwrap();
    let text = Controller::attach(foreign, Options::new("x"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("no address for the device"), "{text}");
}
