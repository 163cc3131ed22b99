//! Reads, writes and their kin on an I/O queue.

use super::commands::{compare, deallocate, flush, pattern, read, write, write_fua, zeroes};
use super::device::Puppet;
use super::host::{Host, connect, connect_data, icreq};
use super::world::{Plan, World};
use crate::bdev::{Op, Status as DeviceStatus};
use crate::nvme::command::Command;
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvme::sgl::SglDescriptor;
use crate::nvme::tcp::{ControllerPdu, DataAlignment, IcReq};
use crate::nvmf::TransportOptions;

/// A world whose one device is the test's, and a queue to it.
fn on_puppet(puppet: &Puppet) -> (World, Host, Host) {
    let mut world = World::bare(&Plan::default());
    world.export(std::sync::Arc::new(puppet.clone()));
    let (admin, io) = Host::queue(&mut world);
    (world, admin, io)
}

fn code(host: &mut Host, world: &mut World, command: Command, data: &[u8]) -> u16 {
    host.run(world, command, data).status().code()
}

#[test]
fn what_is_written_reads_back() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let small = pattern(1, 4096);
    assert_eq!(code(&mut io, &mut world, write(8, 8), &small), 0);
    let large = pattern(2, 200 * 512);
    let answer = io.push(&mut world, write(100, 200), &large);
    assert_eq!(answer.status().code(), 0);
    let answer = io.fetch(&mut world, read(8, 8), 4096);
    assert_eq!(answer.data, small);
    let answer = io.fetch(&mut world, read(100, 200), 200 * 512);
    assert_eq!(answer.data, large);
    // The largest transfer there is.
    let all = pattern(3, 1 << 20);
    assert_eq!(io.push(&mut world, write(0, 2048), &all).status().code(), 0);
    assert_eq!(io.fetch(&mut world, read(0, 2048), 1 << 20).data, all);
}

/// However the stream is cut, with and without digests: the bytes arrive, in capsules and by
/// request, next to each other.
#[test]
fn any_split_of_the_stream_gives_the_same() {
    for digests in [false, true] {
        for grain in (1..40).chain([71, 72, 73, 76, 500, 512, 600, 4095, 4096, 4172]) {
            let mut world = World::new();
            let (_admin, cntlid) = Host::admin(&mut world);
            let mut io = world.dial();
            io.initialize(&mut world, &icreq(digests, digests));
            let connected = io.connect(&mut world, connect(1, 8), &connect_data(cntlid));
            assert_eq!(connected.status().code(), 0);
            io.pipe.set_grain(grain);
            let (small, large) = (pattern(grain, 1024), pattern(grain + 1, 3 * 512));
            // Both are under way at once, and a Flush comes between.
            let first = io.submit(write(0, 2), &small);
            let by_request = io.submit_large(write(10, 3), large.len());
            let last = io.submit(flush(), &[]);
            let mut open = vec![first, last, by_request];
            while !open.is_empty() {
                let received = io.next(&mut world);
                match received.pdu {
                    ControllerPdu::R2t(request) => io.answer(&request, &large, 700),
                    ControllerPdu::CapsuleResp(response) => {
                        assert_eq!(response.completion.status().code(), 0);
                        open.retain(|&cid| cid != response.completion.cid.get());
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert_eq!(io.fetch(&mut world, read(0, 2), 1024).data, small);
            assert_eq!(io.fetch(&mut world, read(10, 3), 3 * 512).data, large);
        }
    }
}

#[test]
fn data_is_aligned_as_the_host_asks() {
    for hpda in [0, 1, 7, 31] {
        let mut world = World::new();
        let (_admin, cntlid) = Host::admin(&mut world);
        let mut io = world.dial();
        let request = IcReq {
            alignment: DataAlignment::from_code(hpda).expect("0 to 31"),
            ..icreq(true, true)
        };
        // The decoder of the host refuses data that is not aligned.
        io.initialize(&mut world, &request);
        let connected = io.connect(&mut world, connect(1, 8), &connect_data(cntlid));
        assert_eq!(connected.status().code(), 0);
        let data = pattern(5, 512);
        assert_eq!(code(&mut io, &mut world, write(3, 1), &data), 0);
        assert_eq!(io.fetch(&mut world, read(3, 1), 512).data, data);
    }
}

#[test]
fn success_rides_on_the_data_only_without_flow_control() {
    for (disabled, option, rides) in [
        (true, true, true),
        (false, true, false),
        (true, false, false),
    ] {
        let mut world = World::with(Plan {
            options: TransportOptions {
                c2h_success: option,
                ..TransportOptions::default()
            },
            ..Plan::default()
        });
        let (_admin, cntlid) = Host::admin(&mut world);
        let mut io = world.dial();
        io.initialize(&mut world, &icreq(false, false));
        let mut command = connect(1, 8);
        command.disable_sq_flow_control = disabled;
        let connected = io.connect(&mut world, command, &connect_data(cntlid));
        let head = connected.completion.sqhd.get();
        assert_eq!(head == 0xffff, disabled);
        io.submit_read(read(0, 1), 512);
        let received = io.next(&mut world);
        let ControllerPdu::C2hData(data) = received.pdu else {
            panic!("{received:?} is no data");
        };
        assert!(data.last);
        assert_eq!(data.success, rides);
        if rides {
            assert!(io.is_silent(&mut world));
        } else {
            let received = io.next(&mut world);
            assert!(matches!(received.pdu, ControllerPdu::CapsuleResp(_)));
        }
        // A failure is always said in a capsule.
        let answer = io.fetch(&mut world, read(1 << 40, 1), 512);
        assert_eq!(answer.status().code(), 0x080);
    }
}

#[test]
fn the_head_of_the_submission_queue_goes_round() {
    let mut world = World::new();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut io = world.dial();
    io.initialize(&mut world, &icreq(false, false));
    let connected = io.connect(&mut world, connect(1, 4), &connect_data(cntlid));
    assert_eq!(connected.completion.sqhd.get(), 1);
    let heads: Vec<u16> = (0..6)
        .map(|_| io.run(&mut world, flush(), &[]).completion.sqhd.get())
        .collect();
    assert_eq!(heads, [2, 3, 0, 1, 2, 3]);
}

#[test]
fn commands_beyond_the_queue_wait_for_room() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(std::sync::Arc::new(puppet.clone()));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut io = world.dial();
    io.initialize(&mut world, &icreq(false, false));
    io.connect(&mut world, connect(1, 4), &connect_data(cntlid));
    puppet.hold(true);
    let cids: Vec<u16> = (0..20).map(|_| io.submit(flush(), &[])).collect();
    world.settle();
    assert_eq!(puppet.seen().len(), 4);
    puppet.hold(false);
    for cid in cids {
        assert_eq!(io.finish(&mut world, cid).status().code(), 0);
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_status() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let block = pattern(0, 512);
    let with_nsid = |mut command: Command, nsid: u32| {
        command.nsid = nsid.into();
        command
    };
    let cases: Vec<(&str, Command, u16)> = vec![
        ("range behind the end", write(16384, 1), 0x080),
        ("range across the end", write(16383, 2), 0x080),
        ("range beyond 64 bits", write(u64::MAX, 2), 0x080),
        ("no such namespace", with_nsid(write(0, 1), 2), 0x00b),
        ("namespace 0", with_nsid(write(0, 1), 0), 0x00b),
        ("all namespaces", with_nsid(write(0, 1), u32::MAX), 0x00b),
        ("unknown opcode", Command::new(0x7e, 1), 0x001),
        ("verify is not offered", Command::new(0x0c, 1), 0x001),
        ("more data than blocks", write(0, 2), 0x00f),
        (
            "reserved fuse",
            Command {
                flags: 0x43,
                ..write(0, 1)
            },
            0x002,
        ),
        (
            "PRPs",
            Command {
                flags: 0x00,
                ..write(0, 1)
            },
            0x002,
        ),
        (
            "an SGL segment",
            Command {
                data: SglDescriptor {
                    identifier: 0x20,
                    ..SglDescriptor::in_capsule(512)
                },
                ..write(0, 1)
            },
            0x00d,
        ),
        (
            "a keyed SGL",
            Command {
                data: SglDescriptor {
                    identifier: 0x40,
                    ..SglDescriptor::in_capsule(512)
                },
                ..write(0, 1)
            },
            0x011,
        ),
        (
            "an offset into the capsule",
            Command {
                data: SglDescriptor {
                    address: 16.into(),
                    ..SglDescriptor::in_capsule(512)
                },
                ..write(0, 1)
            },
            0x016,
        ),
        (
            "less in the capsule than the SGL says",
            write(0, 2).with_sgl(SglDescriptor::in_capsule(1024)),
            0x00f,
        ),
        (
            "data in the capsule that the SGL does not speak of",
            write(0, 1).with_sgl(SglDescriptor::transport(512)),
            0x00f,
        ),
        (
            "a read into the capsule",
            read(0, 1).with_sgl(SglDescriptor::in_capsule(512)),
            0x011,
        ),
    ];
    for (name, command, expected) in cases {
        let status = io.run(&mut world, command, &block).status();
        assert_eq!(status.code(), expected, "{name}");
        assert!(status.do_not_retry(), "{name}");
        // The data in the capsule was passed over: the stream goes on.
        assert_eq!(code(&mut io, &mut world, flush(), &[]), 0, "{name}");
    }
    // Without data in the capsule.
    let too_long = io.submit_large(write(0, 2049), 2049 * 512);
    assert_eq!(io.finish(&mut world, too_long).status().code(), 0x002);
    let answer = io.fetch(&mut world, read(0, 2049), 2049 * 512);
    assert_eq!(answer.status().code(), 0x002);
    let answer = io.fetch(&mut world, read(0, 2), 512);
    assert_eq!(answer.status().code(), 0x00f);
    let short = io.submit_large(write(0, 2), 512);
    assert_eq!(io.finish(&mut world, short).status().code(), 0x00f);
    // Nothing of all this was written.
    assert_eq!(io.fetch(&mut world, read(0, 2), 1024).data, vec![0; 1024]);
    // A host's memory may be larger than what it gets.
    assert_eq!(io.fetch(&mut world, read(0, 1), 4096).data, vec![0; 512]);
}

#[test]
fn an_identifier_in_use_is_a_conflict() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let (mut world, _admin, mut io) = on_puppet(&puppet);
    puppet.hold(true);
    let first = io.submit(flush(), &[]);
    let again = write(0, 1)
        .with_cid(first)
        .with_sgl(SglDescriptor::in_capsule(512));
    io.send(&again, &[1; 512]);
    let conflict = io.finish(&mut world, first);
    assert_eq!(conflict.status().code(), 0x003);
    puppet.hold(false);
    assert_eq!(io.finish(&mut world, first).status().code(), 0);
    // It is free again now.
    io.send(&again, &[1; 512]);
    assert_eq!(io.finish(&mut world, first).status().code(), 0);
}

#[test]
fn compare_zero_and_deallocate() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let data = pattern(4, 8 * 512);
    assert_eq!(code(&mut io, &mut world, write(16, 8), &data), 0);
    assert_eq!(code(&mut io, &mut world, compare(16, 8), &data), 0);
    let mut other = data.clone();
    other[8 * 512 - 1] ^= 1;
    assert_eq!(code(&mut io, &mut world, compare(16, 8), &other), 0x285);
    assert_eq!(code(&mut io, &mut world, zeroes(17, 2, true), &[]), 0);
    let mut expected = data;
    expected[512..3 * 512].fill(0);
    assert_eq!(io.fetch(&mut world, read(16, 8), 4096).data, expected);
    // Linux sends a whole page however few the ranges are.
    let (command, ranges) = deallocate(&[(20, 1), (0, 0), (22, 2)], 4096);
    assert_eq!(code(&mut io, &mut world, command, &ranges), 0);
    expected[4 * 512..5 * 512].fill(0);
    expected[6 * 512..8 * 512].fill(0);
    assert_eq!(io.fetch(&mut world, read(16, 8), 4096).data, expected);
    // One bad range, and none is worked on.
    let (command, ranges) = deallocate(&[(16, 1), (16384, 1)], 32);
    assert_eq!(code(&mut io, &mut world, command, &ranges), 0x080);
    assert_eq!(io.fetch(&mut world, read(16, 8), 4096).data, expected);
    let (command, ranges) = deallocate(&[(16, 1), (17, 1)], 16);
    assert_eq!(code(&mut io, &mut world, command, &ranges), 0x00f);
}

#[test]
fn the_device_is_asked_for_what_the_host_asked_for() {
    let puppet = Puppet::new("Test0", 100_000, |info| {
        info.max_blocks = 8;
        info.io_boundary = 16;
    });
    let (mut world, _admin, mut io) = on_puppet(&puppet);
    let data = pattern(6, 20 * 512);
    // Cut where the device is cut, and no piece larger than it takes.
    assert_eq!(io.push(&mut world, write(4, 20), &data).status().code(), 0);
    let written: Vec<_> = puppet.seen();
    let expected = [
        (Op::Write { fua: false }, 4, 8, vec![4096]),
        (Op::Write { fua: false }, 12, 8, vec![2048, 2048]),
        (Op::Write { fua: false }, 20, 4, vec![2048]),
    ];
    assert_eq!(written, expected);
    assert_eq!(io.fetch(&mut world, read(4, 20), 20 * 512).data, data);
    assert_eq!(puppet.seen().len(), 3);
    assert_eq!(code(&mut io, &mut world, write_fua(0, 1), &data[..512]), 0);
    assert_eq!(puppet.seen(), [(Op::Write { fua: true }, 0, 1, vec![512])]);
    assert_eq!(code(&mut io, &mut world, flush(), &[]), 0);
    assert_eq!(puppet.seen(), [(Op::Flush, 0, 0, vec![])]);
    // Long ranges go in pieces, a few at a time.
    puppet.hold(true);
    let cid = io.submit(zeroes(0, 100, false), &[]);
    world.settle();
    assert_eq!(puppet.seen().len(), 4);
    puppet.hold(false);
    assert_eq!(io.finish(&mut world, cid).status().code(), 0);
    let blocks: u32 = puppet.seen().iter().map(|seen| seen.2).sum();
    assert_eq!(blocks, 100 - 4 * 8);
}

#[test]
fn a_device_without_cache_or_deallocation_is_not_bothered() {
    let puppet = Puppet::new("Test0", 1000, |info| {
        info.write_cache = false;
        info.deallocates = false;
    });
    let (mut world, _admin, mut io) = on_puppet(&puppet);
    assert_eq!(code(&mut io, &mut world, flush(), &[]), 0);
    let (command, ranges) = deallocate(&[(0, 8)], 4096);
    assert_eq!(code(&mut io, &mut world, command, &ranges), 0);
    assert!(puppet.seen().is_empty());
    assert_eq!(code(&mut io, &mut world, zeroes(0, 1, true), &[]), 0);
    let zero = Op::WriteZeroes {
        fua: false,
        deallocate: false,
    };
    assert_eq!(puppet.seen(), [(zero, 0, 1, vec![])]);
}

#[test]
fn what_the_device_says_reaches_the_host() {
    let puppet = Puppet::new("Test0", 1000, |info| info.max_blocks = 1);
    let (mut world, _admin, mut io) = on_puppet(&puppet);
    for (fault, expected) in [
        (DeviceStatus::MediumError, 0x281),
        (DeviceStatus::Gone, 0x006),
        (DeviceStatus::Offline, 0x006),
    ] {
        // The middle one of three parts fails.
        puppet.fail_next(DeviceStatus::Ok);
        puppet.fail_next(fault);
        let answer = io.fetch(&mut world, read(0, 3), 3 * 512);
        assert_eq!(answer.status().code(), expected);
        assert!(answer.data.is_empty());
    }
    puppet.fail_next(DeviceStatus::WriteFault);
    let data = pattern(0, 512);
    assert_eq!(code(&mut io, &mut world, write(0, 1), &data), 0x280);
    assert_eq!(code(&mut io, &mut world, write(0, 1), &data), 0);
}

#[test]
fn a_full_device_is_fed_as_it_empties() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let (mut world, _admin, mut io) = on_puppet(&puppet);
    puppet.set_depth(3);
    puppet.hold(true);
    let cids: Vec<u16> = (0..20).map(|_| io.submit(flush(), &[])).collect();
    world.settle();
    puppet.hold(false);
    for cid in cids {
        assert_eq!(io.finish(&mut world, cid).status().code(), 0);
    }
    assert_eq!(puppet.deepest(), 3);
    assert_eq!(puppet.seen().len(), 20);
}

#[test]
fn other_block_sizes() {
    let mut world = World::with(Plan {
        block_size: 4096,
        blocks: 100,
        ..Plan::default()
    });
    let (_admin, mut io) = Host::queue(&mut world);
    let data = pattern(8, 8192);
    assert_eq!(code(&mut io, &mut world, write(98, 2), &data), 0);
    assert_eq!(io.fetch(&mut world, read(98, 2), 8192).data, data);
    assert_eq!(code(&mut io, &mut world, write(99, 2), &data), 0x080);
}

#[test]
fn fabrics_commands_have_no_place_on_an_io_queue() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let again = io.connect(&mut world, connect(1, 8), &connect_data(CNTLID_DYNAMIC));
    assert_eq!(again.status().code(), 0x00c);
    let mut property = Command::new(0x7f, 0x04);
    property.cdw11 = 0x14.into();
    assert_eq!(code(&mut io, &mut world, property, &[]), 0x001);
    assert_eq!(code(&mut io, &mut world, flush(), &[]), 0);
}
