//! A RAM disk. What it holds is gone with the process.

use std::sync::Arc;

use uuid::Uuid;

use super::create::{CreateError, check_shape};
use super::cursor::{Gather, Scatter};
use super::immediate::{Immediate, ImmediateChannel};
use super::{Bdev, Channel, Data, Info, Op, OpenError, Status};
use crate::memory::{self, Ahead, Ram};

/// Largest request in bytes.
const MAX_BYTES: u32 = 1 << 20;

/// Writes of so many bytes go around the caches: what they overwrite has hardly been read just before, and they
/// would push out what the core is working on.
const UNCACHED: usize = 32 << 10;

/// Reads of at most so many bytes fetch what the next one reads.
const FETCHED: usize = 4 << 10;

/// A RAM disk. On huge pages it has all of its memory from the start, on ordinary ones only what was written.
/// All reactors work on it at once; no 4 KiB that begin at a multiple of 4 KiB are ever torn.
#[derive(Debug)]
pub struct Malloc {
    disk: Arc<Disk>,
}

impl Malloc {
    /// Makes one of `num_blocks` blocks of `block_size` bytes (512 or 4096), all zeros. Without a
    /// UUID it is given a random one.
    ///
    /// # Errors
    /// [`CreateError`]: the shape makes no device, or there is not as much memory.
    pub fn new(
        name: &str,
        block_size: u32,
        num_blocks: u64,
        uuid: Option<Uuid>,
    ) -> Result<Arc<Self>, CreateError> {
        let bytes = check_shape(name, block_size, num_blocks)?;
        let ram = Ram::new(bytes).map_err(|e| CreateError::Memory {
            name: name.to_owned(),
            reason: e.to_string(),
        })?;
        let info = Info {
            name: name.to_owned(),
            product: "Malloc disk",
            uuid: uuid.unwrap_or_else(Uuid::new_v4),
            block_size,
            blocks: num_blocks,
            io_boundary: 0,
            write_unit: 0,
            max_blocks: MAX_BYTES / block_size,
            write_cache: false,
            deallocates: true,
            in_memory: true,
        };
        let disk = Arc::new(Disk { info, ram });
        Ok(Arc::new(Self { disk }))
    }
}

impl Bdev for Malloc {
    fn info(&self) -> &Info {
        &self.disk.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(ImmediateChannel::new(self.disk.clone())))
    }
}

#[derive(Debug)]
struct Disk {
    info: Info,
    ram: Ram,
}

/// The part of one page that a request covers.
struct Piece {
    page: usize,
    start: usize,
    end: usize,
}

impl Disk {
    /// The pages that `blocks` blocks from `lba` lie on, in order.
    fn pieces(&self, lba: u64, blocks: u32) -> impl Iterator<Item = Piece> + use<> {
        // The range was found inside the disk, whose bytes are mapped: no sum overflows.
        let block = self.info.block_size as usize;
        let (start, end) = (
            lba as usize * block,
            (lba as usize + blocks as usize) * block,
        );
        (start / Ram::PAGE..end.div_ceil(Ram::PAGE)).map(move |page| {
            let first = page * Ram::PAGE;
            Piece {
                page,
                start: start.max(first) - first,
                end: end.min(first + Ram::PAGE) - first,
            }
        })
    }
}

impl Disk {
    /// Executes what most requests are, a small one of one page with one buffer; says whether this
    /// was one.
    #[inline]
    fn execute_plain(
        &self,
        op: Op,
        lba: u64,
        blocks: u32,
        data: &mut Data,
        next: Option<u64>,
    ) -> bool {
        let block = self.info.block_size as usize;
        let (start, len) = (lba as usize * block, blocks as usize * block);
        let (page, start) = (start / Ram::PAGE, start % Ram::PAGE);
        let end = start + len;
        if end > Ram::PAGE {
            return false;
        }
        // A longer one is fetched by the core itself, most of it.
        let ahead = || {
            let next = next.filter(|_| len <= FETCHED);
            let ahead = next.map(|lba| self.ram.ahead(lba as usize * block, len));
            ahead.unwrap_or(Ahead::NOTHING)
        };
        match (op, data) {
            (Op::Read, Data::Read(buffers)) if buffers.len() == 1 => {
                let bytes = &self.ram.read(page)[start..end];
                memory::copy(&mut buffers[0], bytes, ahead());
            }
            (Op::XdWriteRead { .. }, Data::Read(buffers)) if buffers.len() == 1 => {
                let mut bytes = self.ram.write(page);
                memory::exchange(&mut bytes[start..end], &mut buffers[0], ahead());
            }
            (Op::XpWrite { .. }, Data::Write(buffers)) if buffers.len() == 1 => {
                let mut bytes = self.ram.write(page);
                memory::add(&mut bytes[start..end], &buffers[0], ahead());
            }
            (Op::Write { .. }, Data::Write(buffers)) if buffers.len() == 1 && len < UNCACHED => {
                self.ram.write(page)[start..end].copy_from_slice(&buffers[0]);
            }
            _ => return false,
        }
        true
    }
}

impl Immediate for Disk {
    fn info(&self) -> &Info {
        &self.info
    }

    fn expect(&self, lba: u64, _blocks: u32) {
        // The rest of a long range follows by itself: the core sees that it is read in order.
        self.ram
            .prefetch(lba as usize * self.info.block_size as usize);
    }

    fn execute(&self, op: Op, lba: u64, blocks: u32, data: &mut Data, next: Option<u64>) -> Status {
        if self.execute_plain(op, lba, blocks, data, next) {
            return Status::Ok;
        }
        let pieces = self.pieces(lba, blocks);
        match (op, data) {
            (Op::Read, Data::Read(segments)) => {
                let mut scatter = Scatter::new(segments);
                for p in pieces {
                    scatter.put(&self.ram.read(p.page)[p.start..p.end]);
                }
            }
            (Op::Write { .. }, Data::Write(segments)) => {
                let uncached = blocks as usize * self.info.block_size as usize >= UNCACHED;
                let mut gather = Gather::new(segments);
                for p in pieces {
                    let mut page = self.ram.write(p.page);
                    let bytes = &mut page[p.start..p.end];
                    match uncached {
                        true => gather.take_uncached(bytes),
                        false => gather.take(bytes),
                    }
                }
            }
            (Op::XdWriteRead { .. }, Data::Read(segments)) => {
                let mut scatter = Scatter::new(segments);
                for p in pieces {
                    scatter.exchange(&mut self.ram.write(p.page)[p.start..p.end]);
                }
            }
            (Op::XpWrite { .. }, Data::Write(segments)) => {
                let mut gather = Gather::new(segments);
                for p in pieces {
                    gather.add(&mut self.ram.write(p.page)[p.start..p.end]);
                }
            }
            (Op::Compare, Data::Write(segments)) => {
                let mut gather = Gather::new(segments);
                for p in pieces {
                    if !gather.matches(&self.ram.read(p.page)[p.start..p.end]) {
                        return Status::Miscompare;
                    }
                }
            }
            (Op::CompareAndWrite { .. }, Data::Write(segments)) => {
                if blocks != 1 {
                    return Status::Unsupported;
                }
                // A block never crosses a page, so one lock covers both steps.
                let mut gather = Gather::new(segments);
                for p in pieces {
                    let mut page = self.ram.write(p.page);
                    let block = &mut page[p.start..p.end];
                    if !gather.matches(block) {
                        return Status::Miscompare;
                    }
                    gather.take(block);
                }
            }
            (Op::WriteZeroes { .. }, _) => {
                for p in pieces {
                    let mut page = self.ram.write(p.page);
                    let bytes = &mut page[p.start..p.end];
                    // Pages that were never written stay without memory of their own.
                    if bytes.iter().any(|&b| b != 0) {
                        bytes.fill(0);
                    }
                }
            }
            (Op::Flush, _) => {}
            (op, data) => unreachable!("{op:?} with {data:?} is refused at submit"),
        }
        Status::Ok
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::Ordering;

    use super::super::conformance::{User, buffers, conforms};
    use super::super::{Bdev, CreateError, Data, Op, Status};
    use super::*;
    use crate::memory::{BufMut, Segments, SegmentsMut};

    /// The first `len` bytes of a buffer, as the buffers of a request.
    fn cut(mut buffer: BufMut, len: usize) -> SegmentsMut {
        buffer.truncate(len);
        SegmentsMut::from_iter([buffer])
    }

    /// What was read into one buffer.
    fn bytes(data: &Data) -> &[u8] {
        match data {
            Data::Read(segments) => &segments[0],
            other => panic!("nothing was read: {other:?}"),
        }
    }

    #[test]
    fn conforms_with_512_byte_blocks() {
        let (_arena, pool) = buffers();
        // Not a whole number of pages.
        conforms(Malloc::new("m", 512, 1003, None).unwrap(), &pool);
    }

    #[test]
    fn conforms_with_4096_byte_blocks() {
        let (_arena, pool) = buffers();
        conforms(Malloc::new("m", 4096, 1000, None).unwrap(), &pool);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let error = Malloc::new("m", 4096, 1 << 50, None).unwrap_err();
        assert!(matches!(&error, CreateError::Memory { name, .. } if name == "m"));
        let error = Malloc::new("m", 1024, 1, None).unwrap_err();
        assert!(matches!(error, CreateError::BlockSize { .. }));
    }

    #[test]
    fn the_identity_is_the_one_given() {
        let uuid = Uuid::from_u128(7);
        let bdev = Malloc::new("m", 512, 1, Some(uuid)).unwrap();
        assert_eq!(bdev.info().uuid, uuid);
        let a = Malloc::new("a", 512, 1, None).unwrap();
        let b = Malloc::new("b", 512, 1, None).unwrap();
        assert_ne!(a.info().uuid, b.info().uuid);
    }

    #[test]
    fn compares() {
        let (_arena, pool) = buffers();
        let bdev = Malloc::new("m", 512, 32, None).unwrap();
        let mut user = User::new(&*bdev, &pool);
        assert_eq!(user.write(7, &[5; 1024]), Status::Ok);
        let mut bytes = [5; 1024];
        let data = user.write_data(&bytes);
        assert_eq!(user.run(Op::Compare, 7, 2, data).0, Status::Ok);
        bytes[1023] = 6;
        let data = user.write_data(&bytes);
        assert_eq!(user.run(Op::Compare, 7, 2, data).0, Status::Miscompare);

        let swap = Op::CompareAndWrite { fua: false };
        let pair = |old: u8, new: u8| [[old; 512], [new; 512]].concat();
        let data = user.write_data(&pair(4, 9));
        assert_eq!(user.run(swap, 7, 1, data).0, Status::Miscompare);
        assert_eq!(user.read(7, 1).unwrap(), [5; 512]);
        let data = user.write_data(&pair(5, 9));
        assert_eq!(user.run(swap, 7, 1, data).0, Status::Ok);
        assert_eq!(user.read(7, 2).unwrap(), pair(9, 5));
        let stat = user.iostat("m");
        assert_eq!((stat.num_compare_ops, stat.num_write_ops), (3, 2));
    }

    /// Nothing comes between two steps that are made under one guard, and no page is torn that is
    /// dealt with under one.
    #[test]
    fn each_page_of_a_request_is_dealt_with_in_one_step() {
        let (_arena, pool) = buffers();
        let bdev = Malloc::new("m", 512, 384, None).unwrap();
        let guards = |op, lba, blocks, mut data: Data| {
            let before = bdev.disk.ram.guards.load(Ordering::Relaxed);
            let status = bdev.disk.execute(op, lba, blocks, &mut data, None);
            (
                status,
                bdev.disk.ram.guards.load(Ordering::Relaxed) - before,
            )
        };
        let ones = |len: usize| {
            let mut segments = cut(pool.take().unwrap(), len);
            segments[0].fill(1);
            Data::Write(segments.into_iter().map(BufMut::freeze).collect())
        };
        // A page is 128 blocks of 512 bytes; a buffer has room for as many.
        for (lba, blocks, pages) in [(0, 8, 1), (96, 32, 1), (112, 32, 2), (383, 1, 1)] {
            let len = blocks as usize * 512;
            let write = Op::Write { fua: false };
            assert_eq!(guards(write, lba, blocks, ones(len)), (Status::Ok, pages));
            assert_eq!(
                guards(Op::Compare, lba, blocks, ones(len)),
                (Status::Ok, pages)
            );
            let into = Data::Read(cut(pool.take().unwrap(), len));
            assert_eq!(guards(Op::Read, lba, blocks, into), (Status::Ok, pages));
            let swap = Op::CompareAndWrite { fua: false };
            assert_eq!(guards(swap, lba, 1, ones(1024)), (Status::Ok, 1));
            let zeroes = Op::WriteZeroes {
                fua: false,
                deallocate: false,
            };
            assert_eq!(guards(zeroes, lba, blocks, Data::None), (Status::Ok, pages));
            assert_eq!(guards(swap, lba, 1, ones(1024)), (Status::Miscompare, 1));
        }
    }

    /// Threads that count in one block by compare-and-write lose no step.
    #[test]
    fn compare_and_write_is_one_step_for_all_threads() {
        const THREADS: u64 = 3;
        const STEPS: u64 = 10_000;
        let bdev = Malloc::new("m", 512, 8, None).unwrap();
        let start = Barrier::new(THREADS as usize);
        let count = || {
            let (_arena, pool) = buffers();
            let mut block = Data::Read(cut(pool.take().unwrap(), 512));
            let mut pair = cut(pool.take().unwrap(), 1024);
            pair[0].fill(0);
            start.wait();
            for _ in 0..STEPS {
                loop {
                    bdev.disk.execute(Op::Read, 3, 1, &mut block, None);
                    let value = u64::from_le_bytes(bytes(&block)[..8].try_into().unwrap());
                    pair[0][..8].copy_from_slice(&value.to_le_bytes());
                    pair[0][512..520].copy_from_slice(&(value + 1).to_le_bytes());
                    let mut data = Data::Write(pair.into_iter().map(BufMut::freeze).collect());
                    let swap = Op::CompareAndWrite { fua: false };
                    let status = bdev.disk.execute(swap, 3, 1, &mut data, None);
                    let Data::Write(back) = data else {
                        unreachable!("the buffers stay what they are");
                    };
                    pair = back
                        .into_iter()
                        .map(|b| b.try_into_mut().unwrap())
                        .collect();
                    if status == Status::Ok {
                        break;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(count);
            }
        });
        let (_arena, pool) = buffers();
        let block = User::new(&*bdev, &pool).read(3, 1).unwrap();
        assert_eq!(block[..8], (THREADS * STEPS).to_le_bytes());
    }

    /// Threads write whole 4 KiB that begin at a multiple of 4 KiB, each its own byte: a read of
    /// such a 4 KiB sees one of them.
    #[test]
    fn no_4_kib_are_torn_between_threads() {
        const TURNS: usize = 5_000;
        let bdev = Malloc::new("m", 512, 16, None).unwrap();
        let start = Barrier::new(2);
        let write = |value: u8| {
            let (_arena, pool) = buffers();
            let mut source = pool.take().unwrap();
            source.fill(value);
            source.truncate(8192);
            let mut written = Data::Write(Segments::from_iter([source.freeze()]));
            let mut read = Data::Read(cut(pool.take().unwrap(), 8192));
            start.wait();
            for _ in 0..TURNS {
                let op = Op::Write { fua: false };
                assert_eq!(bdev.disk.execute(op, 0, 16, &mut written, None), Status::Ok);
                assert_eq!(
                    bdev.disk.execute(Op::Read, 0, 16, &mut read, None),
                    Status::Ok
                );
                for page in bytes(&read).chunks(4096) {
                    assert!(page == [1; 4096] || page == [2; 4096]);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| write(1));
            scope.spawn(|| write(2));
        });
    }

    #[test]
    #[should_panic(expected = "do not add up")]
    fn buffers_that_do_not_add_up_are_a_bug() {
        let (_arena, pool) = buffers();
        let bdev = Malloc::new("m", 512, 8, None).unwrap();
        let mut user = User::new(&*bdev, &pool);
        let data = user.read_data(512);
        user.run(Op::Read, 0, 2, data);
    }

    #[test]
    #[should_panic(expected = "buffers of another kind")]
    fn buffers_of_the_wrong_kind_are_a_bug() {
        let (_arena, pool) = buffers();
        let bdev = Malloc::new("m", 512, 8, None).unwrap();
        User::new(&*bdev, &pool).run(Op::Read, 0, 1, Data::None);
    }
}
