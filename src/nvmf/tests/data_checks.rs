//! Data from the host: digests, and H2CData that is not what was asked for.

use super::commands::{flush, pattern, read, write};
use super::host::{Host, connect, connect_data, icreq};
use super::world::World;
use crate::nvme::sgl::SglDescriptor;
use crate::nvme::tcp::{H2cData, R2t};

fn queue(world: &mut World, header: bool, data: bool) -> (Host, Host) {
    let (admin, cntlid) = Host::admin(world);
    let mut io = world.dial();
    io.initialize(world, &icreq(header, data));
    let connected = io.connect(world, connect(1, 8), &connect_data(cntlid));
    assert_eq!(connected.status().code(), 0);
    (admin, io)
}

#[test]
fn a_corrupt_payload_costs_its_command_only() {
    let mut world = World::new();
    let (_admin, mut io) = queue(&mut world, false, true);
    let data = pattern(1, 512);
    let cid = io.cid();
    let command = write(0, 1).with_sgl(SglDescriptor::in_capsule(512));
    io.send_corrupt(&command.with_cid(cid), &data);
    let status = io.finish(&mut world, cid).status();
    // Transient Transport Error, which the host may well try again.
    assert_eq!(status.code(), 0x022);
    assert!(!status.do_not_retry());
    // By request: one corrupt piece among good ones.
    let large = pattern(2, 3 * 1024);
    let cid = io.submit_large(write(0, 6), large.len());
    let request = io.expect_r2t(&mut world);
    for (n, chunk) in large.chunks(1024).enumerate() {
        let pdu = H2cData {
            cccid: request.cccid,
            ttag: request.ttag,
            offset: n as u32 * 1024,
            len: 1024,
            last: n == 2,
        };
        if n == 1 {
            let mut bytes = pdu.encode(&io.format).to_vec();
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(&[0; 4]);
            io.pipe.put(&bytes);
        } else {
            io.send_data(pdu, chunk);
        }
    }
    assert_eq!(io.finish(&mut world, cid).status().code(), 0x022);
    // A corrupt payload of a command that is refused anyway.
    let cid = io.cid();
    let command = write(1 << 40, 1).with_sgl(SglDescriptor::in_capsule(512));
    io.send_corrupt(&command.with_cid(cid), &data);
    assert_eq!(io.finish(&mut world, cid).status().code(), 0x080);
    assert_eq!(
        io.fetch(&mut world, read(0, 6), 6 * 512).data,
        vec![0; 6 * 512]
    );
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0);
}

#[test]
fn corrupt_data_of_admin_commands_and_of_connect() {
    let mut world = World::new();
    let mut host = world.dial();
    host.initialize(&mut world, &icreq(false, true));
    use crate::nvme::fabrics::{CNTLID_DYNAMIC, FabricsCommand};
    use zerocopy::IntoBytes;
    let data = connect_data(CNTLID_DYNAMIC);
    let command = FabricsCommand::Connect(connect(0, 32)).to_command();
    let command = command.with_sgl(SglDescriptor::in_capsule(1024));
    let cid = host.cid();
    host.send_corrupt(&command.with_cid(cid), data.as_bytes());
    assert_eq!(host.finish(&mut world, cid).status().code(), 0x022);
    let answer = host.run(&mut world, command, data.as_bytes());
    assert_eq!(answer.status().code(), 0);
    host.enable(&mut world);
    // Set Features, Timestamp.
    let mut command = crate::nvme::Command::new(0x09, 0);
    command.cdw10 = 0x0e.into();
    let command = command.with_sgl(SglDescriptor::in_capsule(8));
    let cid = host.cid();
    host.send_corrupt(&command.with_cid(cid), &[1; 8]);
    assert_eq!(host.finish(&mut world, cid).status().code(), 0x022);
    let answer = host.run(&mut world, command, &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer.status().code(), 0);
}

/// Asks for data, answers the R2T with what `wrong` makes of the right answer, and expects this
/// end.
fn ends(len: u32, fes: u16, fei: u32, wrong: impl Fn(R2t) -> H2cData) {
    for digests in [false, true] {
        let mut world = World::new();
        let (_admin, mut io) = queue(&mut world, digests, digests);
        io.submit_large(write(0, 32), 32 * 512);
        let request = io.expect_r2t(&mut world);
        assert_eq!((request.offset, request.len), (0, 32 * 512));
        io.send_data(wrong(request), &vec![0; len as usize]);
        let term = io.expect_term(&mut world);
        assert_eq!((term.fes, term.fei), (fes, fei));
        world.settle();
        assert!(io.pipe.is_closed());
    }
}

fn right(request: R2t, offset: u32, len: u32) -> H2cData {
    H2cData {
        cccid: request.cccid,
        ttag: request.ttag,
        offset,
        len,
        last: u64::from(offset) + u64::from(len) == u64::from(request.len),
    }
}

#[test]
fn data_that_nobody_asked_for() {
    // Invalid field: the command identifier, at byte 8.
    ends(512, 0x01, 8, |r| H2cData {
        cccid: r.cccid + 1,
        ..right(r, 0, 512)
    });
    // Invalid field: the transfer tag, at byte 10.
    ends(512, 0x01, 10, |r| H2cData {
        ttag: r.ttag + 1,
        ..right(r, 0, 512)
    });
    // Data transfer out of range.
    ends(512, 0x04, 0, |r| right(r, 32 * 512, 512));
    ends(1024, 0x04, 0, |r| right(r, 32 * 512 - 512, 1024));
    ends(512, 0x04, 0, |r| right(r, u32::MAX - 511, 512));
    // Invalid field: an offset out of order, at byte 12.
    ends(512, 0x01, 12, |r| right(r, 512, 512));
    // Invalid field: a last PDU that is not, and one that is and does not say so, at byte 1.
    ends(512, 0x01, 1, |r| H2cData {
        last: true,
        ..right(r, 0, 512)
    });
    ends(32 * 512, 0x01, 1, |r| H2cData {
        last: false,
        ..right(r, 0, 32 * 512)
    });
}

#[test]
fn data_for_a_command_without_request() {
    let mut world = World::new();
    let (_admin, mut io) = queue(&mut world, false, false);
    let pdu = H2cData {
        cccid: 77,
        ttag: 0,
        offset: 0,
        len: 512,
        last: true,
    };
    io.send_data(pdu, &[0; 512]);
    let term = io.expect_term(&mut world);
    assert_eq!((term.fes, term.fei), (0x01, 8));
}

#[test]
fn more_data_in_one_pdu_than_was_allowed() {
    let mut world = World::new();
    let (_admin, mut io) = queue(&mut world, false, false);
    let len = (128 << 10) + 512;
    io.submit_large(write(0, len / 512), len as usize);
    let request = io.expect_r2t(&mut world);
    io.send_data(right(request, 0, len), &vec![0; len as usize]);
    let term = io.expect_term(&mut world);
    // Data transfer limit exceeded.
    assert_eq!(term.fes, 0x05);
}

#[test]
fn h2c_data_in_pieces_of_any_size() {
    for piece in [1, 3, 511, 512, 513, 4096, 9999] {
        let mut world = World::new();
        let (_admin, mut io) = queue(&mut world, true, true);
        let data = pattern(piece, 20 * 512);
        let cid = io.submit_large(write(0, 20), data.len());
        let request = io.expect_r2t(&mut world);
        io.answer(&request, &data, piece);
        assert_eq!(io.finish(&mut world, cid).status().code(), 0);
        assert_eq!(io.fetch(&mut world, read(0, 20), 20 * 512).data, data);
    }
}
