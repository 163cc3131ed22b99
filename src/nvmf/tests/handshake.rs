//! ICReq, and every PDU that a connection does not survive.

use zerocopy::IntoBytes;

use super::commands::{flush, write};
use super::host::{Host, icreq};
use super::world::World;
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvme::sgl::SglDescriptor;
use crate::nvme::tcp::digest::crc32c;
use crate::nvme::tcp::{CapsuleCmd, FatalError, Sender};

#[test]
fn what_the_host_asks_for_is_granted() {
    for (header, data) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::new();
        let mut host = world.dial();
        let response = host.initialize(&mut world, &icreq(header, data));
        assert_eq!(response.header_digest, header);
        assert_eq!(response.data_digest, data);
        assert_eq!(response.alignment.code(), 0);
        assert_eq!(response.max_h2c_data, 128 << 10);
    }
}

/// Sends bytes on a fresh connection and expects this end of it.
fn ends_at_once(bytes: &[u8], fes: u16, fei: u32) {
    let mut world = World::new();
    let (_admin, mut bystander) = Host::queue(&mut world);
    let mut host = world.dial();
    host.pipe.put(bytes);
    expect_end(&mut world, &mut host, fes, fei);
    let answer = bystander.run(&mut world, flush(), &[]);
    assert_eq!(answer.status().code(), 0);
}

fn expect_end(world: &mut World, host: &mut Host, fes: u16, fei: u32) {
    let term = host.expect_term(world);
    assert_eq!((term.fes, term.fei), (fes, fei));
    world.settle();
    assert!(
        host.pipe.is_closed(),
        "nothing follows a termination request"
    );
}

#[test]
fn an_icreq_that_cannot_be_granted() {
    let good = icreq(false, false).encode().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    // Unsupported parameter: PDU format version, at byte 8.
    ends_at_once(&with(8, 1), 0x06, 8);
    // Invalid field: HPDA above 31, at byte 10.
    ends_at_once(&with(10, 32), 0x01, 10);
    // Invalid field: HLEN, at byte 2; PLEN, at byte 4; type, at byte 0.
    ends_at_once(&with(2, 127), 0x01, 2);
    ends_at_once(&with(4, 129), 0x01, 4);
    ends_at_once(&with(0, 0x0b), 0x01, 0);
    // A PDU that only a controller sends.
    ends_at_once(&with(0, 0x01), 0x01, 0);
}

#[test]
fn nothing_comes_before_icreq_and_it_does_not_come_twice() {
    let capsule = CapsuleCmd { command: flush() };
    let bytes = capsule.encode(&Default::default(), 0).to_vec();
    ends_at_once(&bytes, 0x02, 0);
    let mut world = World::new();
    let mut host = world.dial();
    host.initialize(&mut world, &icreq(false, false));
    host.pipe.put(&icreq(false, false).encode());
    expect_end(&mut world, &mut host, 0x02, 0);
}

#[test]
fn a_broken_header_ends_the_connection_and_no_other() {
    // The offset of the bytes that are changed, their values, and what is said of it.
    let cases: [(usize, &[u8], u16, u32); 5] = [
        (0, &[0xee], 0x01, 0),       // PDU type
        (1, &[0x01], 0x01, 1),       // header digest, not agreed on
        (2, &[0x40], 0x01, 2),       // HLEN
        (3, &[0x07], 0x01, 3),       // PDO inside the header
        (4, &[0x47, 0x00], 0x01, 4), // PLEN below the header
    ];
    for (at, changed, fes, fei) in cases {
        let mut world = World::new();
        let (_admin, mut io) = Host::queue(&mut world);
        let cntlid = 1;
        let mut bystander = Host::io(&mut world, cntlid, 2);
        let command = write(0, 1).with_sgl(SglDescriptor::in_capsule(512));
        let capsule = CapsuleCmd { command };
        let mut bytes = capsule.encode(&io.format, 512).to_vec();
        bytes.extend_from_slice(&[0; 512]);
        bytes[at..at + changed.len()].copy_from_slice(changed);
        io.pipe.put(&bytes);
        let term = io.expect_term(&mut world);
        assert_eq!((term.fes, term.fei), (fes, fei), "byte {at}");
        world.settle();
        assert!(io.pipe.is_closed());
        let answer = bystander.run(&mut world, flush(), &[]);
        assert_eq!(answer.status().code(), 0);
    }
}

#[test]
fn more_data_than_a_capsule_takes() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let command = write(0, 17).with_sgl(SglDescriptor::in_capsule(17 * 512));
    io.send(&command, &[0; 17 * 512]);
    let term = io.expect_term(&mut world);
    // Data transfer limit exceeded.
    assert_eq!(term.fes, 0x05);
}

#[test]
fn a_header_digest_that_differs_is_fatal() {
    let mut world = World::new();
    let mut host = world.dial();
    host.initialize(&mut world, &icreq(true, false));
    let capsule = CapsuleCmd { command: flush() };
    let mut bytes = capsule.encode(&host.format, 0).to_vec();
    assert_eq!(bytes.len(), 76);
    let digest = crc32c(&bytes[..72]);
    bytes[72] ^= 0x10;
    host.pipe.put(&bytes);
    // The information is the digest as it was received.
    expect_end(&mut world, &mut host, 0x03, digest ^ 0x10);
}

#[test]
fn the_host_may_end_it() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let term = FatalError::SequenceError.encode(Sender::Host, flush().as_bytes());
    io.pipe.put(&term);
    world.settle();
    assert!(io.pipe.is_closed());
    assert!(io.poll().is_none(), "a termination request is not answered");
    let queues = world.target.qpairs(super::world::NQN).expect("a subsystem");
    assert_eq!(queues.iter().map(|q| q.qid).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_connect_is_the_first_command() {
    let mut world = World::new();
    let mut host = world.dial();
    host.initialize(&mut world, &icreq(false, false));
    let answer = host.run(&mut world, flush(), &[]);
    assert_eq!(answer.status().code(), 0x00c);
    // The host may do better.
    let connected = host.connect(
        &mut world,
        super::host::connect(0, 32),
        &super::host::connect_data(CNTLID_DYNAMIC),
    );
    assert_eq!(connected.status().code(), 0);
}
