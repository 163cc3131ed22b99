//! What every device must do, tested through the seam alone against a flat array of bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bdev, Channel, Completion, Data, Op, Request, Status};
use crate::memory::{Arena, BufMut, Pool, Segments, SegmentsMut};

/// No device of these tests takes as long as this for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a slot of the tests' buffers.
const SLOT: usize = 64 * 1024;

/// Slots: more than 4096 blocks of 4 KiB, the deepest queue there is.
const SLOTS: usize = 272;

/// A source of numbers that is the same in every run (SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// Buffers for a test, and the arena they lie in.
pub(crate) fn buffers() -> (Arena, Pool) {
    let arena = Arena::ordinary(SLOTS * SLOT).unwrap();
    let pool = Pool::new(&arena, SLOT, SLOTS).unwrap();
    (arena, pool)
}

/// One user of one channel, one request at a time.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) channel: Box<dyn Channel>,
    pool: Pool,
    block_size: usize,
    done: Vec<Completion>,
}

impl User {
    pub(crate) fn new(bdev: &dyn Bdev, pool: &Pool) -> Self {
        Self {
            channel: bdev.open().unwrap(),
            pool: pool.clone(),
            block_size: bdev.info().block_size as usize,
            done: Vec::new(),
        }
    }

    /// One buffer of `len` bytes that hold something.
    pub(crate) fn buffer(&self, len: usize) -> BufMut {
        let mut buffer = self.pool.take().expect("tests hold few buffers");
        buffer.truncate(len);
        assert_eq!(buffer.len(), len);
        buffer.fill(0xA5);
        buffer
    }

    pub(crate) fn write_data(&self, bytes: &[u8]) -> Data {
        let mut buffer = self.buffer(bytes.len());
        buffer.copy_from_slice(bytes);
        Data::Write(Segments::from_iter([buffer.freeze()]))
    }

    pub(crate) fn read_data(&self, len: usize) -> Data {
        Data::Read(SegmentsMut::from_iter([self.buffer(len)]))
    }

    /// Turns the loop until something is done, and takes it.
    pub(crate) fn next(&mut self) -> Completion {
        let start = Instant::now();
        while self.done.is_empty() {
            self.channel.kick();
            self.channel.poll(Instant::now(), &mut self.done);
            assert!(start.elapsed() < PATIENCE, "{:?} is stuck", self.channel);
        }
        self.done.remove(0)
    }

    /// One request from submit to completion, alone.
    pub(crate) fn run(&mut self, op: Op, lba: u64, blocks: u32, data: Data) -> (Status, Data) {
        let request = Request {
            token: 99,
            op,
            lba,
            blocks,
            data,
        };
        self.channel.submit(request).expect("an idle channel");
        let completion = self.next();
        assert_eq!(completion.token, 99);
        (completion.status, completion.data)
    }

    pub(crate) fn write(&mut self, lba: u64, bytes: &[u8]) -> Status {
        let blocks = (bytes.len() / self.block_size) as u32;
        let data = self.write_data(bytes);
        self.run(Op::Write { fua: false }, lba, blocks, data).0
    }

    pub(crate) fn read(&mut self, lba: u64, blocks: u32) -> Result<Vec<u8>, Status> {
        let data = self.read_data(blocks as usize * self.block_size);
        match self.run(Op::Read, lba, blocks, data) {
            (Status::Ok, data) => Ok(contents(&data)),
            (status, _) => Err(status),
        }
    }

    /// What the channel counts under `name`.
    pub(crate) fn iostat(&self, name: &str) -> super::IoStat {
        let mut found = None;
        self.channel.iostat(&mut |device, stat| {
            if device == name {
                found = Some(*stat);
            }
        });
        found.expect("the channel reports its device")
    }
}

/// All bytes of a request's buffers.
pub(crate) fn contents(data: &Data) -> Vec<u8> {
    match data {
        Data::None => Vec::new(),
        Data::Read(segments) => segments.iter().flat_map(|s| s.to_vec()).collect(),
        Data::Write(segments) => segments.iter().flat_map(|s| s.to_vec()).collect(),
    }
}

/// Everything that is asked of a device of at least 256 blocks, whose contents are lost.
pub(crate) fn conforms(bdev: Arc<dyn Bdev>, pool: &Pool) {
    matches_the_model(&*bdev, pool);
    refuses_what_does_not_exist(&*bdev, pool);
    gives_back_what_is_too_much(&*bdev, pool);
    counts(&*bdev, pool);
    changes_blocks_by_xor(&*bdev, pool);
}

/// Cuts a buffer at up to three places; at any byte where `unit` is 1.
fn cut(dice: &mut Dice, mut buffer: BufMut, unit: usize) -> SegmentsMut {
    let mut segments = SegmentsMut::new();
    for _ in 0..dice.below(4) {
        let units = (buffer.len() / unit) as u64;
        let rest = buffer.split_off(dice.below(units + 1) as usize * unit);
        segments.push(std::mem::replace(&mut buffer, rest));
    }
    segments.push(buffer);
    segments
}

/// What a block has changed by, added to it again, brings back what was there; in one buffer or in several. Only what is
/// no memory may say that it can't.
fn changes_blocks_by_xor(bdev: &dyn Bdev, pool: &Pool) {
    let mut user = User::new(bdev, pool);
    let mut dice = Dice::new(77);
    let size = bdev.info().block_size as usize;
    for (lba, blocks, cuts) in [
        (3, 1, false),
        (3, 2, true),
        (120, 16, true),
        (127, 1, false),
    ] {
        let bytes = |of: usize| (0..blocks * size).map(move |i| (i * of % 253) as u8);
        assert_eq!(user.write(lba, &bytes(7).collect::<Vec<_>>()), Status::Ok);
        let mut buffer = user.buffer(blocks * size);
        buffer.copy_from_slice(&bytes(11).collect::<Vec<_>>());
        let segments = match cuts {
            true => cut(&mut dice, buffer, 1),
            false => SegmentsMut::from_iter([buffer]),
        };
        let blocks = blocks as u32;
        let store = Op::XdWriteRead { fua: false };
        let (status, data) = user.run(store, lba, blocks, Data::Read(segments));
        let change = contents(&data);
        let can = status != Status::Unsupported;
        assert!(can || !bdev.info().in_memory);
        if !can {
            assert_eq!(change, bytes(11).collect::<Vec<_>>());
        } else {
            assert_eq!(status, Status::Ok);
            let expected: Vec<_> = bytes(7).zip(bytes(11)).map(|(a, b)| a ^ b).collect();
            assert_eq!(change, expected);
            assert_eq!(user.read(lba, blocks), Ok(bytes(11).collect()));
        }
        let Data::Read(segments) = data else {
            panic!("the buffers come back");
        };
        let change = segments.into_iter().map(BufMut::freeze).collect();
        let (status, _) = user.run(Op::XpWrite { fua: false }, lba, blocks, Data::Write(change));
        let expected = if can { Status::Ok } else { Status::Unsupported };
        assert_eq!(status, expected);
        assert_eq!(user.read(lba, blocks), Ok(bytes(7).collect()));
    }
}

/// Random requests, eight at a time where they do not overlap, against a flat array of bytes.
fn matches_the_model(bdev: &dyn Bdev, pool: &Pool) {
    struct Running {
        lba: u64,
        blocks: u32,
        /// What must have been read.
        expected: Option<Vec<u8>>,
    }

    let block = bdev.info().block_size as usize;
    let blocks = bdev.info().blocks.min(2048);
    let first = bdev.info().blocks - blocks;
    let mut user = User::new(bdev, pool);
    let mut dice = Dice::new(u64::from(bdev.info().block_size));
    let mut model = vec![0; blocks as usize * block];
    for lba in 0..blocks {
        let zeroes = Op::WriteZeroes {
            fua: false,
            deallocate: false,
        };
        if lba % 64 == 0 {
            let count = (blocks - lba).min(64) as u32;
            let (status, _) = user.run(zeroes, first + lba, count, Data::None);
            assert_eq!(status, Status::Ok);
        }
    }

    let mut running: HashMap<u64, Running> = HashMap::new();
    let settle = |user: &mut User, running: &mut HashMap<u64, Running>| {
        let completion = user.next();
        let was = running.remove(&completion.token);
        let was = was.expect("a token completes once");
        assert_eq!(completion.status, Status::Ok);
        if let Some(expected) = was.expected {
            assert!(
                contents(&completion.data) == expected,
                "wrong bytes in {} blocks at {}",
                was.blocks,
                was.lba
            );
        }
        assert_eq!(user.channel.in_flight(), running.len() - user.done.len());
    };
    for token in 0..1500_u64 {
        let longest = (SLOT / block) as u64;
        let count = if dice.below(2) == 0 {
            1 + dice.below(4)
        } else {
            1 + dice.below(longest)
        };
        let lba = dice.below(blocks - count + 1);
        let overlaps = |r: &Running| lba < r.lba + u64::from(r.blocks) && r.lba < lba + count;
        while running.len() == 8 || running.values().any(overlaps) {
            settle(&mut user, &mut running);
        }
        let range = lba as usize * block..(lba + count) as usize * block;
        let unit = [1, 512, block][dice.below(3) as usize];
        let mut expected = None;
        let (op, data) = match dice.below(10) {
            0..4 => {
                expected = Some(model[range.clone()].to_vec());
                let segments = cut(&mut dice, user.buffer(range.len()), unit);
                (Op::Read, Data::Read(segments))
            }
            4..8 => {
                let mut buffer = user.buffer(range.len());
                buffer.copy_from_slice(&dice.bytes(range.len()));
                model[range].copy_from_slice(&buffer);
                let segments = cut(&mut dice, buffer, unit);
                let segments = segments.into_iter().map(BufMut::freeze).collect();
                let fua = dice.below(8) == 0;
                (Op::Write { fua }, Data::Write(segments))
            }
            8 => {
                model[range].fill(0);
                let deallocate = dice.below(2) == 0;
                let fua = dice.below(8) == 0;
                (Op::WriteZeroes { fua, deallocate }, Data::None)
            }
            _ => (Op::Flush, Data::None),
        };
        let (lba, blocks) = match op {
            Op::Flush => (0, 0),
            _ => (lba, count as u32),
        };
        let request = Request {
            token,
            op,
            lba: first + lba,
            blocks,
            data,
        };
        user.channel.submit(request).expect("eight are few");
        let run = Running {
            lba,
            blocks,
            expected,
        };
        running.insert(token, run);
    }
    while !running.is_empty() {
        settle(&mut user, &mut running);
    }
    user.channel.kick();
    assert!(!user.channel.poll(Instant::now(), &mut user.done));
    assert!(user.done.is_empty(), "a request completes once");

    // Another channel sees the same device.
    let mut other = User::new(bdev, pool);
    for (index, expected) in model.chunks(SLOT).enumerate() {
        let lba = first + (index * SLOT / block) as u64;
        let read = other.read(lba, (expected.len() / block) as u32).unwrap();
        assert!(read == expected, "wrong bytes from block {lba}");
    }
}

fn refuses_what_does_not_exist(bdev: &dyn Bdev, pool: &Pool) {
    let block = bdev.info().block_size as usize;
    let end = bdev.info().blocks;
    let mut user = User::new(bdev, pool);
    let before = user.read(end - 1, 1).unwrap();
    for (lba, blocks) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 2)] {
        let len = blocks as usize * block;
        let data = user.read_data(len);
        let (status, data) = user.run(Op::Read, lba, blocks, data);
        assert_eq!((status, data.len()), (Status::OutOfRange, len));
        let data = user.write_data(&vec![1; len]);
        let (status, data) = user.run(Op::Write { fua: true }, lba, blocks, data);
        assert_eq!((status, data.len()), (Status::OutOfRange, len));
        let zeroes = Op::WriteZeroes {
            fua: false,
            deallocate: true,
        };
        let (status, _) = user.run(zeroes, lba, blocks, Data::None);
        assert_eq!(status, Status::OutOfRange);
    }
    assert_eq!(user.read(end - 1, 1).unwrap(), before);
}

/// Fills the queue without ever polling: the request that is too many comes back untouched, and
/// all others complete.
fn gives_back_what_is_too_much(bdev: &dyn Bdev, pool: &Pool) {
    let block = bdev.info().block_size as usize;
    let mut user = User::new(bdev, pool);
    let mut many = Vec::new();
    while let Some(mut slot) = pool.take() {
        while slot.len() > 512 {
            many.push(slot.split_off(slot.len() - 512));
        }
        many.push(slot);
    }
    let mut accepted = 0;
    let refused = loop {
        let left = many.len() - block / 512;
        let segments = SegmentsMut::from_iter(many.drain(left..));
        let request = Request {
            token: accepted,
            op: Op::Read,
            lba: accepted % bdev.info().blocks,
            blocks: 1,
            data: Data::Read(segments),
        };
        match user.channel.submit(request) {
            Ok(()) => accepted += 1,
            Err(request) => break request,
        }
        assert_eq!(user.channel.in_flight() as u64, accepted);
        assert!(many.len() >= block / 512, "{accepted} requests and no end");
    };
    assert_eq!(refused.token, accepted);
    assert_eq!(refused.op, Op::Read);
    assert_eq!(refused.data.len(), block);
    let mut seen = vec![false; accepted as usize];
    for _ in 0..accepted {
        let completion = user.next();
        assert_eq!(completion.status, Status::Ok);
        assert!(!std::mem::replace(
            &mut seen[completion.token as usize],
            true
        ));
    }
    assert_eq!(user.channel.in_flight(), 0);
    user.channel.submit(refused).expect("there is room again");
    assert_eq!(user.next().status, Status::Ok);
}

fn counts(bdev: &dyn Bdev, pool: &Pool) {
    let block = u64::from(bdev.info().block_size);
    let mut user = User::new(bdev, pool);
    user.read(0, 3).unwrap();
    assert_eq!(user.write(1, &vec![1; 2 * block as usize]), Status::Ok);
    let zeroes = Op::WriteZeroes {
        fua: false,
        deallocate: true,
    };
    assert_eq!(user.run(zeroes, 0, 4, Data::None).0, Status::Ok);
    assert_eq!(user.run(Op::Flush, 0, 0, Data::None).0, Status::Ok);
    user.read(bdev.info().blocks, 1).unwrap_err();
    let stat = user.iostat(&bdev.info().name);
    assert_eq!((stat.num_read_ops, stat.bytes_read), (1, 3 * block));
    assert_eq!((stat.num_write_ops, stat.bytes_written), (1, 2 * block));
    assert_eq!((stat.num_unmap_ops, stat.bytes_unmapped), (1, 4 * block));
    assert_eq!((stat.num_flush_ops, stat.num_errors), (1, 1));
}
