//! Each kind of injection, over a RAM disk.

use super::super::Malloc;
use super::super::conformance::{User, buffers, conforms, contents};
use super::*;

fn device() -> (Arc<ErrorBdev>, User) {
    let (_arena, pool) = buffers();
    let bdev = ErrorBdev::new(Malloc::new("m", 512, 1024, None).unwrap());
    let mut user = User::new(&*bdev, &pool);
    assert_eq!(user.write(0, &[7; 32 * 512]), Status::Ok);
    (bdev, user)
}

fn injection(io_type: IoType, fault: Fault) -> Injection {
    Injection {
        io_type,
        fault,
        num: None,
        lbas: None,
        write_heals: false,
    }
}

fn zero(user: &mut User, lba: u64, blocks: u32, deallocate: bool) -> Status {
    let op = Op::WriteZeroes {
        fua: false,
        deallocate,
    };
    user.run(op, lba, blocks, Data::None).0
}

#[test]
fn conforms_with_nothing_injected() {
    let (_arena, pool) = buffers();
    conforms(
        ErrorBdev::new(Malloc::new("m", 512, 1024, None).unwrap()),
        &pool,
    );
}

#[test]
fn is_named_and_shown_as_expected() {
    let (bdev, mut user) = device();
    assert_eq!(bdev.info().name, "EE_m");
    assert!(!bdev.info().in_memory, "arrays ask it for reads and writes");
    assert_eq!(bdev.driver_specific()["error_disk"]["base_bdev"], "m");
    bdev.inject(injection(IoType::Read, Fault::Failure))
        .unwrap();
    user.read(0, 1).unwrap_err();
    assert_eq!(user.iostat("EE_m").num_errors, 1);
    assert_eq!(user.iostat("m").num_errors, 0);
}

#[test]
fn failures_hit_their_kind_of_request_as_often_as_told() {
    let (bdev, mut user) = device();
    let twice = |io_type| Injection {
        num: Some(2),
        ..injection(io_type, Fault::Failure)
    };
    bdev.inject(twice(IoType::Read)).unwrap();
    assert_eq!(user.write(0, &[8; 512]), Status::Ok);
    assert_eq!(user.read(0, 1), Err(Status::MediumError));
    assert_eq!(bdev.injections()[0].num, Some(1));
    assert_eq!(user.read(0, 1), Err(Status::MediumError));
    assert_eq!(user.read(0, 1).unwrap(), [8; 512]);
    assert!(bdev.injections().is_empty());

    bdev.inject(twice(IoType::Write)).unwrap();
    assert_eq!(user.write(0, &[9; 512]), Status::WriteFault);
    assert_eq!(user.read(0, 1).unwrap(), [8; 512]);
    assert_eq!(user.write(0, &[9; 512]), Status::WriteFault);
    assert_eq!(user.write(0, &[9; 512]), Status::Ok);

    bdev.inject(twice(IoType::Flush)).unwrap();
    let (status, _) = user.run(Op::Flush, 0, 0, Data::None);
    assert_eq!(status, Status::WriteFault);

    bdev.inject(twice(IoType::Unmap)).unwrap();
    assert_eq!(zero(&mut user, 0, 1, false), Status::Ok);
    assert_eq!(zero(&mut user, 0, 1, true), Status::WriteFault);
    bdev.inject(twice(IoType::WriteZeroes)).unwrap();
    assert_eq!(zero(&mut user, 0, 1, false), Status::WriteFault);

    bdev.clear();
    bdev.inject(twice(IoType::All)).unwrap();
    assert_eq!(zero(&mut user, 0, 1, true), Status::WriteFault);
    assert_eq!(user.read(0, 1), Err(Status::MediumError));
    assert_eq!(user.read(0, 1).unwrap(), [0; 512]);
}

#[test]
fn a_device_that_is_gone_is_gone_for_every_channel_until_cleared() {
    let (bdev, mut user) = device();
    let (_arena, pool) = buffers();
    let mut other = User::new(&*bdev, &pool);
    bdev.inject(injection(IoType::All, Fault::Gone)).unwrap();
    assert_eq!(user.read(0, 1), Err(Status::Gone));
    assert_eq!(other.write(0, &[1; 512]), Status::Gone);
    assert_eq!(other.run(Op::Flush, 0, 0, Data::None).0, Status::Gone);
    bdev.clear();
    assert_eq!(other.read(0, 1).unwrap(), [7; 512]);
}

/// The buffers of a request that fails come back as well.
#[test]
fn a_failed_request_gives_its_buffers_back() {
    let (bdev, mut user) = device();
    bdev.inject(injection(IoType::All, Fault::Failure)).unwrap();
    let data = user.write_data(&[3; 1024]);
    let (_, data) = user.run(Op::Write { fua: true }, 0, 2, data);
    assert_eq!(contents(&data), [3; 1024]);
    let data = user.read_data(1024);
    let (_, data) = user.run(Op::Read, 0, 2, data);
    assert_eq!(data.len(), 1024);
}

/// A latent sector error: only reads that touch it fail, and writing over it cures it.
#[test]
fn a_bad_sector_stays_until_it_is_written() {
    let (bdev, mut user) = device();
    let bad = Injection {
        lbas: Some(10..12),
        write_heals: true,
        ..injection(IoType::Read, Fault::Failure)
    };
    bdev.inject(bad).unwrap();
    for _ in 0..2 {
        assert_eq!(user.read(8, 2).unwrap(), [7; 1024]);
        assert_eq!(user.read(12, 2).unwrap(), [7; 1024]);
        assert_eq!(user.read(8, 3), Err(Status::MediumError));
        assert_eq!(user.read(11, 1), Err(Status::MediumError));
        // Half of it is not enough.
        assert_eq!(user.write(10, &[8; 512]), Status::Ok);
    }
    assert_eq!(user.write(9, &[9; 4 * 512]), Status::Ok);
    assert_eq!(user.read(10, 2).unwrap(), [9; 1024]);
    assert!(bdev.injections().is_empty());
}

/// What was injected while a write ran is not healed by that write.
#[test]
fn a_write_heals_only_what_was_there_before_it() {
    let (bdev, mut user) = device();
    let bad = Injection {
        lbas: Some(10..11),
        write_heals: true,
        ..injection(IoType::Read, Fault::Failure)
    };
    let request = Request {
        token: 1,
        op: Op::Write { fua: false },
        lba: 10,
        blocks: 1,
        data: user.write_data(&[1; 512]),
    };
    user.channel.submit(request).unwrap();
    bdev.inject(bad).unwrap();
    assert_eq!(user.next().status, Status::Ok);
    assert_eq!(user.read(10, 1), Err(Status::MediumError));
}

#[test]
fn pending_requests_wait_for_clear_and_are_then_done() {
    let (bdev, mut user) = device();
    // A clear of earlier injections lets nothing go that is held later.
    bdev.clear();
    bdev.inject(injection(IoType::Write, Fault::Pending))
        .unwrap();
    for token in 0..3 {
        let request = Request {
            token,
            op: Op::Write { fua: false },
            lba: token,
            blocks: 1,
            data: user.write_data(&[9; 512]),
        };
        user.channel.submit(request).unwrap();
    }
    let now = Instant::now();
    let mut done = Vec::new();
    user.channel.kick();
    assert!(!user.channel.poll(now, &mut done));
    assert!(done.is_empty());
    assert_eq!(user.channel.in_flight(), 3);
    assert_eq!(user.channel.deadline(), Some(now + HELD_CHECK));
    bdev.clear();
    let mut tokens: Vec<_> = (0..3).map(|_| user.next().token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2]);
    assert_eq!(user.channel.in_flight(), 0);
    assert_eq!(user.channel.deadline(), None);
    assert_eq!(user.read(0, 4).unwrap()[..3 * 512], [9; 3 * 512]);
}

#[test]
fn a_channel_may_go_while_it_holds_requests() {
    let (bdev, mut user) = device();
    bdev.inject(injection(IoType::All, Fault::Pending)).unwrap();
    let request = Request {
        token: 1,
        op: Op::Read,
        lba: 0,
        blocks: 1,
        data: user.read_data(512),
    };
    user.channel.submit(request).unwrap();
    drop(user);
    bdev.clear();
}

#[test]
fn corrupted_reads_differ_in_the_one_byte() {
    let (bdev, mut user) = device();
    let mut flip = Injection {
        num: Some(1),
        ..injection(
            IoType::Read,
            Fault::CorruptData {
                offset: 600,
                value: 0x80,
            },
        )
    };
    bdev.inject(flip.clone()).unwrap();
    // The byte is not in this one, which neither differs nor counts.
    assert_eq!(user.read(0, 1).unwrap(), [7; 512]);
    let mut expected = [7; 1024];
    expected[600] = 0x87;
    assert_eq!(user.read(0, 2).unwrap(), expected);
    assert_eq!(user.read(0, 2).unwrap(), [7; 1024]);

    // Within a range the byte is a place on the device.
    flip.lbas = Some(4..6);
    bdev.inject(flip).unwrap();
    assert_eq!(user.read(4, 1).unwrap(), [7; 512]);
    let mut expected = [7; 3 * 512];
    expected[2 * 512 + 88] = 0x87;
    assert_eq!(user.read(3, 3).unwrap(), expected);
}

#[test]
fn corrupted_writes_store_one_wrong_byte_and_leave_the_buffer_alone() {
    let (bdev, mut user) = device();
    for (offset, cuts) in [(0, [1, 2]), (1100, [600, 1040]), (2047, [512, 2000])] {
        let flip = Injection {
            num: Some(1),
            ..injection(IoType::Write, Fault::CorruptData { offset, value: 1 })
        };
        bdev.inject(flip).unwrap();
        let original: Vec<u8> = (0..2048_u32).map(|i| (i % 251) as u8).collect();
        let mut a = user.buffer(2048);
        a.copy_from_slice(&original);
        let c = a.split_off(cuts[1]);
        let b = a.split_off(cuts[0]);
        let data = Data::Write([a, b, c].map(|s| s.freeze()).into_iter().collect());
        let (status, data) = user.run(Op::Write { fua: false }, 20, 4, data);
        assert_eq!(status, Status::Ok);
        assert_eq!(contents(&data), original);
        let mut expected = original.clone();
        expected[offset as usize] ^= 1;
        assert_eq!(user.read(20, 4).unwrap(), expected);
    }
}

/// More corrupted writes at once than there are blocks for: all are done, all are corrupted.
#[test]
fn many_corrupted_writes_wait_for_their_turn() {
    let (bdev, mut user) = device();
    let flip = Fault::CorruptData {
        offset: 0,
        value: 1,
    };
    bdev.inject(injection(IoType::Write, flip)).unwrap();
    let count = 2 * CORRUPT_WRITES as u64 + 3;
    for token in 0..count {
        let request = Request {
            token,
            op: Op::Write { fua: false },
            lba: token,
            blocks: 1,
            data: user.write_data(&[4; 512]),
        };
        user.channel.submit(request).unwrap();
    }
    for _ in 0..count {
        assert_eq!(user.next().status, Status::Ok);
    }
    let read = user.read(0, count as u32).unwrap();
    assert!(read.chunks(512).all(|b| b[0] == 5 && b[1..] == [4; 511]));
}

#[test]
fn injections_without_sense_are_refused() {
    let (bdev, _user) = device();
    let fail = injection(IoType::Read, Fault::Failure);
    let flip = |io_type, offset, value| injection(io_type, Fault::CorruptData { offset, value });
    let refused = [
        Injection {
            num: Some(0),
            ..fail.clone()
        },
        Injection {
            lbas: Some(5..5),
            ..fail.clone()
        },
        Injection {
            lbas: Some(1023..1025),
            ..fail.clone()
        },
        Injection {
            write_heals: true,
            ..fail.clone()
        },
        flip(IoType::Flush, 0, 1),
        flip(IoType::Read, 0, 0),
        Injection {
            lbas: Some(0..1),
            ..flip(IoType::Read, 512, 1)
        },
    ];
    let mends = [
        "num of 1 or more",
        "which has 1024",
        "blocks 1023..1025",
        "needs a range",
        "for read, write and all",
        "must not be 0",
        "outside the 512 bytes",
    ];
    for (injection, mend) in refused.into_iter().zip(mends) {
        let error = bdev.inject(injection).unwrap_err().to_string();
        assert!(error.contains("EE_m") && error.contains(mend), "{error}");
    }
    assert!(bdev.injections().is_empty());
}
