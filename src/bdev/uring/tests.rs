//! Files through io_uring: what goes well, and what does not.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::super::conformance::{User, buffers, conforms, contents};
use super::super::{Data, Op, Request, Status};
use super::*;
use crate::memory::{BufMut, SegmentsMut};

fn file(bytes: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    file
}

/// Comes back when it is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn device(file: &NamedTempFile, block_size: u32, arenas: &[Arena]) -> Arc<Uring> {
    Uring::new("u", file.path(), Some(block_size), None, arenas).unwrap()
}

/// Hands in `count` requests of `blocks` blocks of 512 bytes each, side by side from block `first`.
fn hand_in(
    user: &mut User,
    op: Op,
    (first, blocks, count): (u64, u32, u64),
    data: impl Fn(&User) -> Data,
) {
    for token in 0..count {
        let data = data(user);
        let request = Request {
            token,
            op,
            lba: first + token * u64::from(blocks),
            blocks,
            data,
        };
        user.channel.submit(request).unwrap();
    }
}

#[test]
fn conforms_with_512_byte_blocks_and_registered_memory() {
    let (arena, pool) = buffers();
    let file = file(1_000_000);
    conforms(device(&file, 512, &[arena]), &pool);
}

#[test]
fn conforms_with_4096_byte_blocks_and_registered_memory() {
    let (arena, pool) = buffers();
    let file = file(2_000_000);
    conforms(device(&file, 4096, &[arena]), &pool);
}

#[test]
fn conforms_with_memory_that_is_not_registered() {
    let (_arena, pool) = buffers();
    let file = file(1_000_000);
    conforms(device(&file, 512, &[]), &pool);
}

/// Memory file systems have no way to zero a range but to write zeros to it.
#[test]
fn conforms_on_a_memory_file_system() {
    let (arena, pool) = buffers();
    let file = NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().set_len(1_000_000).unwrap();
    conforms(device(&file, 512, &[arena]), &pool);
}

/// What is written is in the file, at its place; what was in the file is read.
#[test]
fn the_device_is_the_file() {
    let (arena, pool) = buffers();
    let mut file = file(0);
    let bytes: Vec<u8> = (0..200 * 512_u32).map(|i| (i / 7 % 256) as u8).collect();
    file.write_all(&bytes).unwrap();
    let bdev = device(&file, 512, &[arena]);
    assert_eq!(bdev.info().blocks, 200);
    let mut user = User::new(&*bdev, &pool);
    assert_eq!(user.read(3, 100).unwrap(), bytes[3 * 512..103 * 512]);
    let data = user.write_data(&[9; 2048]);
    let fua = Op::Write { fua: true };
    assert_eq!(user.run(fua, 5, 4, data).0, Status::Ok);
    let mut expected = bytes;
    expected[5 * 512..9 * 512].fill(9);
    let mut found = Vec::new();
    let mut other = File::open(file.path()).unwrap();
    other.read_to_end(&mut found).unwrap();
    assert!(found == expected);
}

#[test]
fn shows_its_file_and_keeps_its_identity() {
    let file = file(8192);
    let uuid = {
        let bdev = device(&file, 512, &[]);
        let shown = bdev.driver_specific();
        let path = file.path().to_str().unwrap();
        assert_eq!(shown["uring"]["filename"], path);
        bdev.info().uuid
    };
    assert_eq!(device(&file, 512, &[]).info().uuid, uuid);
}

#[test]
fn a_size_that_is_no_multiple_of_the_block_is_rounded_down() {
    let file = file(3 * 4096 + 4095);
    assert_eq!(device(&file, 4096, &[]).info().blocks, 3);
}

#[test]
fn what_cannot_be_opened_is_named_with_its_mend() {
    let directory = tempfile::tempdir().unwrap();
    let small = file(4095);
    let enough = file(8192);
    let open = |path: &Path, block_size| {
        let error = Uring::new("u", path, block_size, None, &[]).unwrap_err();
        error.to_string()
    };
    let named = |path: &Path, error: String, mend: &str| {
        let path = path.to_str().unwrap();
        assert!(error.contains(path) && error.contains(mend), "{error}");
    };
    let missing = directory.path().join("none");
    named(&missing, open(&missing, None), "truncate -s");
    let path = directory.path();
    named(path, open(path, None), "is a directory");
    let null = Path::new("/dev/null");
    named(null, open(null, None), "is a character device");
    let path = small.path();
    named(path, open(path, Some(4096)), "less than one block");
    // Nobody may write to a program that runs, not even root.
    let program = std::env::current_exe().unwrap();
    named(&program, open(&program, None), "check its permissions");
    assert!(open(enough.path(), Some(1024)).contains("use 512 or 4096"));
    let error = Uring::new("", enough.path(), None, None, &[]).unwrap_err();
    assert!(error.to_string().contains("needs a name"));
}

#[test]
fn a_file_has_one_user() {
    let file = file(8192);
    let first = device(&file, 512, &[]);
    let error = Uring::new("v", file.path(), None, None, &[]).unwrap_err();
    assert!(matches!(error, UringError::Busy(_)), "{error}");
    drop(first);
    device(&file, 512, &[]);
}

/// Blocks that the file has lost are errors, and neither a hang nor what the buffer held.
#[test]
fn a_file_truncated_in_use_gives_errors_beyond_its_end() {
    let (arena, pool) = buffers();
    let file = file(1 << 20);
    let bdev = device(&file, 512, &[arena]);
    let mut user = User::new(&*bdev, &pool);
    assert_eq!(user.write(0, &[5; 64 * 512]), Status::Ok);
    // In the middle of block 11.
    file.as_file().set_len(11 * 512 + 100).unwrap();
    assert_eq!(user.read(0, 11).unwrap(), [5; 11 * 512]);
    for (lba, blocks) in [(0, 12), (8, 16), (11, 1), (12, 1), (2000, 48)] {
        assert_eq!(user.read(lba, blocks), Err(Status::MediumError));
    }
    // Through the aligned buffers as well.
    let mut buffer = user.buffer(3 * 512 + 1);
    let buffer = buffer.split_off(1);
    let data = Data::Read(SegmentsMut::from_iter([buffer]));
    let (status, _) = user.run(Op::Read, 10, 3, data);
    assert_eq!(status, Status::MediumError);
}

/// The kernel writes into the buffers of a read until it is done with it, whoever has lost
/// interest meanwhile: they are not free before.
#[test]
fn a_channel_that_goes_away_has_its_buffers_back_from_the_kernel() {
    let (arena, pool) = buffers();
    let mut file = file(0);
    // Not a hole, which is read without waiting for anything.
    file.write_all(&vec![0xD1; 8 << 20]).unwrap();
    file.as_file().sync_all().unwrap();
    for kicked in [true, false] {
        let bdev = device(&file, 512, std::slice::from_ref(&arena));
        let mut user = User::new(&*bdev, &pool);
        hand_in(&mut user, Op::Read, (0, 128, 100), |user| {
            user.read_data(65_536)
        });
        let write = Op::Write { fua: true };
        hand_in(&mut user, write, (13_000, 8, 50), |user| {
            user.write_data(&[7; 4096])
        });
        let zeroes = Op::WriteZeroes {
            fua: true,
            deallocate: true,
        };
        hand_in(&mut user, zeroes, (14_000, 8, 20), |_| Data::None);
        if kicked {
            user.channel.kick();
        }
        drop((user, bdev));
        // Whatever is free is someone else's from now on.
        let mut free: Vec<BufMut> = Vec::new();
        until("every buffer is free", || {
            free.extend(std::iter::from_fn(|| {
                let mut buffer = pool.take()?;
                buffer.fill(0x5E);
                Some(buffer)
            }));
            free.len() == pool.capacity()
        });
        // The kernel has the file open, and so locked, until its last I/O has ended.
        until("the file is free", || {
            Uring::new("u", file.path(), None, None, &[]).is_ok()
        });
        for buffer in free {
            assert!(buffer.iter().all(|&byte| byte == 0x5E));
        }
    }
}

/// A buffer cut every `len` bytes.
fn every(len: usize, mut buffer: BufMut) -> SegmentsMut {
    let mut segments = SegmentsMut::new();
    while buffer.len() > len {
        let rest = buffer.split_off(len);
        segments.push(std::mem::replace(&mut buffer, rest));
    }
    segments.push(buffer);
    segments
}

/// Buffers at odd addresses and with odd cuts; and more of them than one operation takes.
#[test]
fn buffers_need_no_alignment() {
    const BLOCKS: u32 = 117;
    let (arena, pool) = buffers();
    let file = file(1 << 20);
    let bdev = device(&file, 512, &[arena]);
    let mut user = User::new(&*bdev, &pool);
    for (cut, odd) in [(7, 0), (512, 3), (512, 0), (1000, 0), (65_000, 1)] {
        let bytes: Vec<u8> = (0..BLOCKS * 512).map(|i| (i % (200 + cut)) as u8).collect();
        let mut buffer = user.buffer(bytes.len() + odd).split_off(odd);
        buffer.copy_from_slice(&bytes);
        let segments = every(cut as usize, buffer);
        let data = Data::Write(segments.into_iter().map(BufMut::freeze).collect());
        let (status, _) = user.run(Op::Write { fua: false }, 9, BLOCKS, data);
        assert_eq!(status, Status::Ok);
        assert!(user.read(9, BLOCKS).unwrap() == bytes);
        let buffer = user.buffer(bytes.len() + odd).split_off(odd);
        let data = Data::Read(every(cut as usize, buffer));
        let (status, data) = user.run(Op::Read, 9, BLOCKS, data);
        assert_eq!(status, Status::Ok);
        assert!(contents(&data) == bytes);
    }
}

/// Unaligned requests share a few aligned buffers: those that are too many come back, and all
/// others are done.
#[test]
fn unaligned_requests_are_bounded() {
    let (arena, pool) = buffers();
    let file = file(1 << 20);
    let bdev = device(&file, 512, &[arena]);
    let mut user = User::new(&*bdev, &pool);
    let mut accepted = 0;
    for token in 0..100 {
        let buffer = user.buffer(513).split_off(1);
        let request = Request {
            token,
            op: Op::Read,
            lba: token,
            blocks: 1,
            data: Data::Read(SegmentsMut::from_iter([buffer])),
        };
        match user.channel.submit(request) {
            Ok(()) => accepted += 1,
            Err(request) => assert_eq!(request.data.len(), 512),
        }
    }
    assert!(accepted > 0);
    for _ in 0..accepted {
        assert_eq!(user.next().status, Status::Ok);
    }
}

#[test]
fn comparing_is_not_for_files() {
    let (arena, pool) = buffers();
    let file = file(8192);
    let bdev = device(&file, 512, &[arena]);
    let mut user = User::new(&*bdev, &pool);
    let data = user.write_data(&[0; 512]);
    let (status, data) = user.run(Op::Compare, 0, 1, data);
    assert_eq!((status, data.len()), (Status::Unsupported, 512));
    assert_eq!(user.channel.in_flight(), 0);
}

/// Two channels on one thread and one on another, all at once.
#[test]
fn channels_do_not_mind_each_other() {
    let (arena, pool) = buffers();
    let file = file(1 << 20);
    let bdev = device(&file, 512, &[arena]);
    let work = |first: u64| {
        let mut users = [User::new(&*bdev, &pool), User::new(&*bdev, &pool)];
        for turn in 0..50_u64 {
            for (index, user) in users.iter_mut().enumerate() {
                let lba = first + 100 * index as u64 + turn % 50;
                assert_eq!(user.write(lba, &[turn as u8; 512]), Status::Ok);
                assert_eq!(user.read(lba, 1).unwrap(), [turn as u8; 512]);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(0));
        scope.spawn(|| work(500));
    });
}

#[test]
fn a_file_that_has_grown_is_taken_at_its_size_by_open_channels() {
    let (arena, pool) = buffers();
    let file = file(8 * 512);
    let small = device(&file, 512, &[arena]);
    let mut user = User::new(&*small, &pool);
    assert_eq!(small.measure().unwrap(), 8);
    assert_eq!(user.read(8, 1), Err(Status::OutOfRange));
    // 10 blocks and a part of one.
    file.as_file().set_len(10 * 512 + 100).unwrap();
    assert_eq!(small.measure().unwrap(), 10);
    // Nothing is taken before it is said.
    assert_eq!(user.read(8, 1), Err(Status::OutOfRange));
    let large = small.resized(10);
    assert_eq!(large.info().blocks, 10);
    assert_eq!(large.info().uuid, small.info().uuid);
    assert_eq!(user.write(9, &[3; 512]), Status::Ok);
    assert_eq!(user.read(9, 1).unwrap(), [3; 512]);
    assert_eq!(user.read(10, 1), Err(Status::OutOfRange));
    file.as_file().set_len(100).unwrap();
    let gone = large.measure().unwrap_err().to_string();
    assert!(gone.contains("less than one block"), "{gone}");
}
