//! What no host should send: each fault is answered as the specification says, on its own
//! connection, and reaches nobody else and no data.

use stripewise::nvme::SglDescriptor;
use stripewise::nvme::fabrics::FabricsCommand;
use stripewise::nvme::tcp::H2cData;

use super::host::{Association, Name, Pdu, Queue, R2t, connect, icreq, nvm};
use super::plan::Plan;
use super::process::{Site, wait_for};
use super::witness::{self, Witness};

/// Bytes of a block of the volumes here.
const BLOCK: u32 = 4096;

/// The largest transfer of one command (MDTS) that the transport allows by default.
const MAX_TRANSFER: u32 = 1 << 20;

/// A common header.
fn header(kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32) -> Vec<u8> {
    let mut bytes = vec![kind, flags, hlen, pdo];
    bytes.extend(plen.to_le_bytes());
    bytes
}

/// `bytes` with the byte at `at` replaced.
fn with(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

/// A whole PDU of `plen` bytes with nothing behind its common header.
fn blank(kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32) -> Vec<u8> {
    let mut bytes = header(kind, flags, hlen, pdo, plen);
    bytes.resize(plen as usize, 0);
    bytes
}

/// Sends bytes that end a connection, and checks that they do it for the right reason.
fn expect_fault(queue: &mut Queue, bytes: &[u8], fes: u16, fei: u32, what: &str) {
    // The target may close the connection before it has taken all of them.
    let _ = queue.try_send(bytes);
    let term = queue.expect_term();
    assert_eq!((term.fes, term.fei), (fes, fei), "{what}");
    assert!(!term.header.is_empty(), "{what}: no copy of the header");
    assert!(bytes.starts_with(&term.header), "{what}: another header");
}

/// Fatal error status, by its name in the specification.
mod fes {
    pub const INVALID_HEADER_FIELD: u16 = 0x01;
    pub const SEQUENCE: u16 = 0x02;
    pub const HEADER_DIGEST: u16 = 0x03;
    pub const OUT_OF_RANGE: u16 = 0x04;
    pub const LIMIT_EXCEEDED: u16 = 0x05;
    pub const UNSUPPORTED: u16 = 0x06;
}

#[test]
fn a_fault_in_the_first_pdu_ends_its_connection_only() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let good = icreq(false, false).encode().to_vec();
    let cases = [
        (
            "a type that does not exist",
            blank(0x0f, 0, 24, 0, 24),
            fes::INVALID_HEADER_FIELD,
            0,
        ),
        (
            "a controller's PDU",
            blank(0x01, 0, 128, 0, 128),
            fes::INVALID_HEADER_FIELD,
            0,
        ),
        (
            "a command before ICReq",
            blank(0x04, 0, 72, 0, 72),
            fes::SEQUENCE,
            0,
        ),
        (
            "data before ICReq",
            blank(0x06, 0, 24, 24, 28),
            fes::SEQUENCE,
            0,
        ),
        (
            "HLEN 24",
            with(good.clone(), 2, 24),
            fes::INVALID_HEADER_FIELD,
            2,
        ),
        (
            "PLEN 129",
            with(good.clone(), 4, 129),
            fes::INVALID_HEADER_FIELD,
            4,
        ),
        ("PFV 1", with(good.clone(), 8, 1), fes::UNSUPPORTED, 8),
        (
            "HPDA 32",
            with(good.clone(), 10, 32),
            fes::INVALID_HEADER_FIELD,
            10,
        ),
    ];
    let count = cases.len() as u64;
    for (what, bytes, fes, fei) in cases {
        let mut queue = Queue::dial(site.address());
        expect_fault(&mut queue, &bytes, fes, fei, what);
        witness.check(what);
    }
    assert_eq!(target.transport_stat("connection_faults"), count);
    witness.finish();
}

#[test]
fn a_fault_in_a_header_ends_its_connection_only() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let plain = icreq(false, false);
    let cases = [
        ("a second ICReq", plain.encode().to_vec(), fes::SEQUENCE, 0),
        (
            "type 08h",
            blank(0x08, 0, 24, 0, 24),
            fes::INVALID_HEADER_FIELD,
            0,
        ),
        (
            "a response",
            blank(0x05, 0, 24, 0, 24),
            fes::INVALID_HEADER_FIELD,
            0,
        ),
        (
            "type FFh",
            blank(0xff, 0, 24, 0, 24),
            fes::INVALID_HEADER_FIELD,
            0,
        ),
        (
            "a digest that was not agreed on",
            blank(0x04, 1, 72, 0, 76),
            fes::INVALID_HEADER_FIELD,
            1,
        ),
        (
            "HLEN 64",
            blank(0x04, 0, 64, 0, 72),
            fes::INVALID_HEADER_FIELD,
            2,
        ),
        (
            "HLEN 0",
            blank(0x04, 0, 0, 0, 72),
            fes::INVALID_HEADER_FIELD,
            2,
        ),
        (
            "PDO in the header",
            blank(0x04, 0, 72, 8, 1096),
            fes::INVALID_HEADER_FIELD,
            3,
        ),
        (
            "PDO behind the PDU",
            blank(0x04, 0, 72, 252, 100),
            fes::INVALID_HEADER_FIELD,
            3,
        ),
        (
            "PLEN shorter than the header",
            blank(0x04, 0, 72, 0, 40),
            fes::INVALID_HEADER_FIELD,
            4,
        ),
        (
            "PLEN 0",
            blank(0x04, 0, 72, 0, 0),
            fes::INVALID_HEADER_FIELD,
            4,
        ),
        (
            "H2CData without data",
            blank(0x06, 0, 24, 24, 24),
            fes::INVALID_HEADER_FIELD,
            4,
        ),
        (
            "H2CData for no command",
            {
                let mut bytes = blank(0x06, 4, 24, 24, 28);
                bytes[16..20].copy_from_slice(&4u32.to_le_bytes());
                bytes
            },
            fes::INVALID_HEADER_FIELD,
            8,
        ),
    ];
    for (what, mut bytes, fes, fei) in cases {
        // A length of 0 is sent with as much as a length takes.
        if bytes.len() < 8 {
            bytes = header(0x04, 0, 72, 0, 0);
        }
        for behind_connect in [false, true] {
            let association;
            let mut queue = if behind_connect {
                association = Association::new(site.address(), Name::of(1), plain);
                association.io(1, 8)
            } else {
                Queue::open(site.address(), &plain)
            };
            expect_fault(&mut queue, &bytes, fes, fei, what);
        }
        witness.check(what);
    }

    // More than any capsule holds. The specification has no code for it that fits better than
    // another, but a length that can't be is an end.
    let mut queue = Queue::open(site.address(), &plain);
    queue.send(&header(0x04, 0, 72, 72, u32::MAX));
    let fes = queue.expect_term().fes;
    assert!(
        [fes::INVALID_HEADER_FIELD, fes::LIMIT_EXCEEDED].contains(&fes),
        "{fes}"
    );

    // The host ends the connection: it is not answered, whether it says so rightly or not.
    for bytes in [
        blank(0x02, 0, 24, 0, 24),
        blank(0x02, 0, 24, 0, 152),
        blank(0x02, 0, 99, 0, 999),
    ] {
        let mut queue = Queue::open(site.address(), &plain);
        queue.send(&bytes);
        queue.expect_end();
    }
    witness.finish();
}

#[test]
fn a_wrong_header_digest_ends_its_connection_only() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let association = Association::new(site.address(), Name::of(1), icreq(true, false));
    let mut queue = association.io(1, 8);
    let sgl = SglDescriptor::transport(BLOCK);
    let right = queue.capsule(
        &nvm::read(witness::BLOCKS, 1).with_sgl(sgl).with_cid(7),
        &[],
    );
    let digest = u32::from_le_bytes(right[72..76].try_into().expect("a digest"));

    // One bit of the command, and then one of the digest.
    expect_fault(
        &mut queue,
        &with(right.clone(), 30, right[30] ^ 1),
        fes::HEADER_DIGEST,
        digest,
        "a command",
    );
    let mut queue = association.io(1, 8);
    let bad = with(right.clone(), 72, right[72] ^ 1);
    expect_fault(&mut queue, &bad, fes::HEADER_DIGEST, digest ^ 1, "a digest");
    // One that should be there and is not.
    let mut queue = association.io(1, 8);
    let without = with(with(right[..72].to_vec(), 1, 0), 4, 72);
    expect_fault(
        &mut queue,
        &without,
        fes::INVALID_HEADER_FIELD,
        1,
        "no digest",
    );

    let mut queue = association.io(1, 8);
    let (response, _) = queue.fetch(nvm::read(witness::BLOCKS, 1), BLOCK);
    assert_eq!(response.status, (0, 0));
    witness.finish();
}

/// Blocks that writes of this file go to, and what is in them before.
const LBA: u64 = witness::BLOCKS;
const BLOCKS: u32 = 16;
const BYTES: u32 = BLOCKS * BLOCK;

fn before() -> Vec<u8> {
    (0..BYTES).map(|n| (n % 251) as u8).collect()
}

/// The blocks hold what they held before the fault.
fn check_untouched(association: &Association, what: &str) {
    let mut queue = association.io(2, 8);
    let (response, data) = queue.fetch(nvm::read(LBA, BLOCKS), BYTES);
    assert_eq!(response.status, (0, 0), "{what}");
    assert!(data == before(), "{what}: it has been written");
}

#[test]
fn data_that_was_not_asked_for_ends_its_connection_only() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let association = Association::new(site.address(), Name::of(1), icreq(false, false));
    let response = association
        .io(1, 8)
        .push(nvm::write(LBA, BLOCKS), &before());
    assert_eq!(response.status, (0, 0));

    type Fault = fn(&Queue, &R2t) -> Vec<u8>;
    fn send(queue: &Queue, pdu: H2cData) -> Vec<u8> {
        queue.data_pdu(&pdu, &vec![0xee; pdu.len as usize])
    }
    fn first(r2t: &R2t) -> H2cData {
        H2cData {
            cccid: r2t.cid,
            ttag: r2t.tag,
            offset: 0,
            len: BLOCK,
            last: false,
        }
    }
    let cases: &[(&str, Fault, u16, u32)] = &[
        (
            "another command",
            |q, r| {
                send(
                    q,
                    H2cData {
                        cccid: r.cid ^ 0x55,
                        ..first(r)
                    },
                )
            },
            fes::INVALID_HEADER_FIELD,
            8,
        ),
        (
            "another tag",
            |q, r| {
                send(
                    q,
                    H2cData {
                        ttag: r.tag ^ 1,
                        ..first(r)
                    },
                )
            },
            fes::INVALID_HEADER_FIELD,
            10,
        ),
        (
            "a tag beyond all",
            |q, r| {
                send(
                    q,
                    H2cData {
                        ttag: 0xffff,
                        ..first(r)
                    },
                )
            },
            fes::INVALID_HEADER_FIELD,
            10,
        ),
        (
            "the second piece first",
            |q, r| {
                send(
                    q,
                    H2cData {
                        offset: BLOCK,
                        ..first(r)
                    },
                )
            },
            fes::INVALID_HEADER_FIELD,
            12,
        ),
        (
            "more than was asked for",
            |q, r| {
                send(
                    q,
                    H2cData {
                        len: BYTES + BLOCK,
                        last: true,
                        ..first(r)
                    },
                )
            },
            fes::OUT_OF_RANGE,
            0,
        ),
        (
            "data behind the end",
            |q, r| {
                send(
                    q,
                    H2cData {
                        offset: BYTES,
                        ..first(r)
                    },
                )
            },
            fes::OUT_OF_RANGE,
            0,
        ),
        (
            "an offset that overflows",
            |q, r| {
                send(
                    q,
                    H2cData {
                        offset: u32::MAX - 3,
                        ..first(r)
                    },
                )
            },
            fes::OUT_OF_RANGE,
            0,
        ),
        (
            "the last piece that is none",
            |q, r| {
                send(
                    q,
                    H2cData {
                        last: true,
                        ..first(r)
                    },
                )
            },
            fes::INVALID_HEADER_FIELD,
            1,
        ),
        (
            "a last piece that does not say so",
            |q, r| {
                send(
                    q,
                    H2cData {
                        len: BYTES,
                        ..first(r)
                    },
                )
            },
            fes::INVALID_HEADER_FIELD,
            1,
        ),
        (
            "DATAL that is not the length",
            |q, r| with(send(q, first(r)), 16, 8),
            fes::INVALID_HEADER_FIELD,
            16,
        ),
    ];
    for &(what, fault, fes, fei) in cases {
        let mut queue = association.io(1, 8);
        let request = queue.begin_push(nvm::write(LBA, BLOCKS), BYTES);
        let bytes = fault(&queue, &request);
        expect_fault(&mut queue, &bytes, fes, fei, what);
        check_untouched(&association, what);
        witness.check(what);
    }

    // A piece twice.
    let mut queue = association.io(1, 8);
    let request = queue.begin_push(nvm::write(LBA, BLOCKS), BYTES);
    let piece = send(&queue, first(&request));
    queue.send(&piece);
    expect_fault(
        &mut queue,
        &piece,
        fes::INVALID_HEADER_FIELD,
        12,
        "a piece twice",
    );
    check_untouched(&association, "a piece twice");

    // More in one PDU than MAXH2CDATA allows.
    let mut queue = Queue::dial(site.address());
    queue.send(&icreq(false, false).encode());
    let Pdu::IcResp { max_h2c_data, .. } = queue.receive() else {
        panic!("an ICResp comes first");
    };
    assert!(
        max_h2c_data >= 4096 && max_h2c_data.is_multiple_of(4),
        "{max_h2c_data}"
    );
    assert!(
        max_h2c_data < MAX_TRANSFER,
        "nothing can be sent that is more"
    );
    let mut queue = association.io(1, 8);
    let request = queue.begin_push(nvm::write(LBA, MAX_TRANSFER / BLOCK), MAX_TRANSFER);
    let pdu = H2cData {
        len: max_h2c_data + BLOCK,
        ..first(&request)
    };
    let bytes = send(&queue, pdu);
    expect_fault(
        &mut queue,
        &bytes,
        fes::LIMIT_EXCEEDED,
        0,
        "more than MAXH2CDATA",
    );
    check_untouched(&association, "more than MAXH2CDATA");

    // Data of a command that has it already, and of one that takes none.
    let mut queue = association.io(1, 8);
    let request = queue.begin_push(nvm::write(LBA, BLOCKS), BYTES);
    let whole = H2cData {
        len: BYTES,
        last: true,
        ..first(&request)
    };
    let bytes = queue.data_pdu(&whole, &before());
    queue.send(&bytes);
    assert_eq!(queue.finish(request.cid, &[]).0.status, (0, 0));
    expect_fault(
        &mut queue,
        &bytes,
        fes::INVALID_HEADER_FIELD,
        8,
        "data after the end",
    );

    assert!(witness_alone(&target), "queues are left behind");
    drop(association);
    witness.finish();
}

/// Whether all I/O queues but that of the witness are gone, soon.
fn witness_alone(target: &super::process::Target<'_>) -> bool {
    wait_for("queues to go", || {
        (target.stat("current_io_qpairs") == 1).then_some(())
    });
    true
}

#[test]
fn commands_that_cannot_be_done_are_refused_and_harm_nothing() {
    let site = Site::new();
    let plan = Plan::default();
    let target = site.serve(&plan.config(&site), "0x1");
    let witness = Witness::new(&target);
    let association = Association::new(site.address(), Name::of(1), icreq(false, true));
    let mut queue = association.io(1, 8);
    assert_eq!(
        queue.push(nvm::write(LBA, BLOCKS), &before()).status,
        (0, 0)
    );
    let end = plan.blocks();

    let sgl = |identifier| SglDescriptor {
        length: BLOCK.into(),
        identifier,
        ..SglDescriptor::default()
    };
    let one = nvm::read(LBA, 1);
    let transport = SglDescriptor::transport;
    let cases = [
        ("a memory address", one.with_sgl(sgl(0x00)), (0, 0x11)),
        ("a bit bucket", one.with_sgl(sgl(0x10)), (0, 0x11)),
        ("a segment", one.with_sgl(sgl(0x20)), (0, 0x0d)),
        ("a last segment", one.with_sgl(sgl(0x30)), (0, 0x0d)),
        ("a keyed data block", one.with_sgl(sgl(0x40)), (0, 0x11)),
        ("a reserved descriptor", one.with_sgl(sgl(0x90)), (0, 0x11)),
        ("PRPs", one.with_prps(4096, 0), (0, 0x02)),
        (
            "a read into the capsule",
            one.with_sgl(sgl(0x01)),
            (0, 0x0f),
        ),
        ("too little memory", one.with_sgl(transport(512)), (0, 0x0f)),
        (
            "a write of less",
            nvm::write(LBA, 1).with_sgl(transport(512)),
            (0, 0x0f),
        ),
        (
            "a write of more",
            nvm::write(LBA, 1).with_sgl(transport(8192)),
            (0, 0x0f),
        ),
        (
            "the block behind the last",
            nvm::read(end, 1).with_sgl(transport(BLOCK)),
            (0, 0x80),
        ),
        (
            "a write across the end",
            nvm::write(end - 1, 2).with_sgl(transport(2 * BLOCK)),
            (0, 0x80),
        ),
        (
            "the last block there can be",
            nvm::read(u64::MAX, 1).with_sgl(transport(BLOCK)),
            (0, 0x80),
        ),
        (
            "an overflow",
            nvm::write(u64::MAX, 2).with_sgl(transport(2 * BLOCK)),
            (0, 0x80),
        ),
        (
            "more than MDTS",
            nvm::read(0, MAX_TRANSFER / BLOCK + 1).with_sgl(transport(MAX_TRANSFER + BLOCK)),
            (0, 0x02),
        ),
        (
            "a write of more than MDTS",
            nvm::write(LBA, MAX_TRANSFER / BLOCK + 1).with_sgl(transport(MAX_TRANSFER + BLOCK)),
            (0, 0x02),
        ),
        (
            "namespace 2",
            nvm::read_of(2, 0, 1).with_sgl(transport(BLOCK)),
            (0, 0x0b),
        ),
        (
            "namespace 0",
            nvm::read_of(0, 0, 1).with_sgl(transport(BLOCK)),
            (0, 0x0b),
        ),
        (
            "all namespaces",
            nvm::read_of(u32::MAX, 0, 1).with_sgl(transport(BLOCK)),
            (0, 0x0b),
        ),
        (
            "an opcode that does not exist",
            stripewise::nvme::Command::new(0x7e, 1),
            (0, 0x01),
        ),
        (
            "an admin command",
            stripewise::nvme::Command::new(0x06, 1).with_sgl(transport(4096)),
            (0, 0x01),
        ),
        (
            "both halves of a fused pair",
            {
                let mut command = one.with_sgl(transport(BLOCK));
                command.flags |= 3;
                command
            },
            (0, 0x02),
        ),
        (
            "a second Connect",
            FabricsCommand::Connect(connect(1, 8))
                .to_command()
                .with_sgl(transport(1024)),
            (0, 0x0c),
        ),
    ];
    for (what, command, status) in cases {
        let (response, data) = queue.run_as_it_is(command, &[]);
        assert_eq!(response.status, status, "{what}");
        assert!(response.do_not_retry, "{what} may be retried");
        assert!(data.is_empty(), "{what}");
        // The connection goes on.
        let (response, data) = queue.fetch(nvm::read(LBA, BLOCKS), BYTES);
        assert_eq!(response.status, (0, 0), "{what}");
        assert!(data == before(), "{what}: it has been written");
    }

    // Data in a capsule: an offset into it, other lengths than the capsule has.
    let data = vec![0xee; BLOCK as usize];
    let mut shifted = SglDescriptor::in_capsule(BLOCK);
    shifted.address = 64.into();
    for (what, sgl, status) in [
        ("an offset into the capsule", shifted, (0, 0x16)),
        (
            "half the capsule",
            SglDescriptor::in_capsule(BLOCK / 2),
            (0, 0x0f),
        ),
        (
            "more than the capsule",
            SglDescriptor::in_capsule(2 * BLOCK),
            (0, 0x0f),
        ),
    ] {
        let (response, _) = queue.run_as_it_is(nvm::write(LBA, 1).with_sgl(sgl), &data);
        assert_eq!(response.status, status, "{what}");
        check_untouched(&association, what);
    }

    // Data that was changed on its way, in a capsule and behind a request. The same command can
    // well succeed when it is sent again.
    let good = nvm::write(LBA, 1)
        .with_sgl(SglDescriptor::in_capsule(BLOCK))
        .with_cid(900);
    let mut capsule = queue.capsule(&good, &data);
    capsule[100] ^= 1;
    queue.send(&capsule);
    let (response, _) = queue.finish(900, &[]);
    assert_eq!((response.status, response.do_not_retry), ((0, 0x22), false));
    check_untouched(&association, "a capsule changed on its way");
    let request = queue.begin_push(nvm::write(LBA, BLOCKS), BYTES);
    let pdu = H2cData {
        cccid: request.cid,
        ttag: request.tag,
        offset: 0,
        len: BYTES,
        last: true,
    };
    let mut bytes = queue.data_pdu(&pdu, &vec![0xee; BYTES as usize]);
    bytes[5000] ^= 0x80;
    queue.send(&bytes);
    let (response, _) = queue.finish(request.cid, &[]);
    assert_eq!((response.status, response.do_not_retry), ((0, 0x22), false));
    check_untouched(&association, "data changed on its way");

    // An identifier that is in use: the new command fails, the old one does not.
    let request = queue.begin_push(nvm::write(LBA, BLOCKS), BYTES);
    let again = one.with_sgl(transport(BLOCK)).with_cid(request.cid);
    queue.send_command(&again, &[]);
    let (response, _) = queue.finish(request.cid, &[]);
    assert_eq!(response.status, (0, 0x03));
    let pdu = H2cData {
        cccid: request.cid,
        ttag: request.tag,
        offset: 0,
        len: BYTES,
        last: true,
    };
    let bytes = queue.data_pdu(&pdu, &before());
    queue.send(&bytes);
    let (response, _) = queue.finish(request.cid, &[]);
    assert_eq!(response.status, (0, 0));
    check_untouched(&association, "an identifier in use");
    witness.finish();
}

#[test]
fn bytes_without_sense_harm_nobody() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let association = Association::new(site.address(), Name::of(1), icreq(false, false));
    let response = association
        .io(1, 8)
        .push(nvm::write(LBA, BLOCKS), &before());
    assert_eq!(response.status, (0, 0));
    let files = target.open_files();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200 {
        // Half of them begin as a host does, and some keep to the form of a header.
        let mut queue = if round % 2 == 0 {
            Queue::dial(site.address())
        } else {
            Queue::open(site.address(), &icreq(false, false))
        };
        let len = 1 + (next() % 600) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        if round % 3 == 0 && len >= 8 {
            let kind = [0x00, 0x02, 0x04, 0x06][(next() % 4) as usize];
            let hlen = [128, 24, 72, 24][(next() % 4) as usize];
            let plen = 24 + (next() % 1200) as u32;
            bytes[..8].copy_from_slice(&header(
                kind,
                (next() & 7) as u8,
                hlen,
                (next() & 31) as u8 * 4,
                plen,
            ));
        }
        let _ = queue.try_send(&bytes);
        if round % 20 == 0 {
            witness.check("bytes without sense");
        }
    }
    check_untouched(&association, "bytes without sense");
    wait_for("connections to go", || {
        (target.open_files() <= files).then_some(())
    });
    witness.finish();
}
