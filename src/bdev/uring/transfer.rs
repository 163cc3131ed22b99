//! One request under way: what it asks of the kernel next, and what the kernel's answer means.

use io_uring::opcode::{Fallocate, Fsync, Read, ReadFixed, Readv, Write, WriteFixed, Writev};
use io_uring::squeue::Entry;
use io_uring::types::FsyncFlags;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::super::cursor::{Gather, Scatter};
use super::super::{Completion, Data, Op, Request, Status};
use super::file::Alignment;
use super::ring::{FILE, Ring};
use crate::memory::{Buf, BufMut};

/// Pieces of memory that one vectored operation takes (`UIO_MAXIOV`).
const PIECES: usize = 1024;

/// Pieces of zeros in one write of zeros.
const ZERO_PIECES: usize = 32;

/// Bytes of one unvectored operation at most; the rest follows.
const SINGLE_MAX: usize = 1 << 30;

/// How often the kernel may ask for patience about one request.
const RETRIES: u32 = 1000;

/// What a request does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Reads into or writes from its buffers.
    Transfer,
    /// Gives the range's space back.
    PunchHole,
    /// Zeroes the range without writing it.
    ZeroRange,
    /// Writes zeros to the range.
    WriteZeros,
    /// Makes everything durable.
    Sync,
}

/// What to do after the kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The request is done.
    Done(Status),
    /// It has more to ask.
    Again,
    /// As `Again`; the file cannot do this step, now or ever.
    Without(Step),
}

/// A request that the kernel works on.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) token: u64,
    pub(super) op: Op,
    pub(super) data: Data,
    /// Size of the range in bytes.
    pub(super) total: usize,
    /// Where the range begins, in bytes.
    start: u64,
    /// Bytes of the range that are dealt with.
    done: usize,
    /// What progress is counted in: a block in bytes.
    block: usize,
    step: Step,
    /// Stands in for buffers that direct I/O would refuse, a piece at a time.
    bounce: Option<BufMut>,
    retries: u32,
}

/// The pieces of memory of one vectored operation; the kernel reads the list when it is handed
/// over, or even later, so it stays with the slot.
pub(super) type Pieces = Vec<libc::iovec>;

impl Transfer {
    /// A request over blocks that exist, of `block` bytes each, that begins with `step`.
    pub(super) fn new(request: Request, block: usize, step: Step, bounce: Option<BufMut>) -> Self {
        Self {
            token: request.token,
            op: request.op,
            data: request.data,
            total: request.blocks as usize * block,
            start: request.lba * block as u64,
            done: 0,
            block,
            step,
            bounce,
            retries: 0,
        }
    }

    /// What the request's user is told in the end.
    pub(super) fn into_completion(self, status: Status) -> Completion {
        Completion {
            token: self.token,
            status,
            data: self.data,
        }
    }

    /// The next operation. `pieces` is the slot's own list. The memory that it names belongs to
    /// this transfer, to `pieces` or is `zeros`.
    pub(super) fn operation(&mut self, pieces: &mut Pieces, zeros: &Buf, ring: &Ring) -> Entry {
        let offset = self.start + self.done as u64;
        match self.step {
            Step::Transfer => {
                self.gather(pieces);
                self.move_bytes(pieces, offset, ring)
            }
            Step::WriteZeros => {
                pieces.clear();
                let mut left = self.total - self.done;
                while left > 0 && pieces.len() < ZERO_PIECES {
                    let len = left.min(zeros.len());
                    pieces.push(piece(zeros.as_ptr().cast_mut(), len));
                    left -= len;
                }
                self.move_bytes(pieces, offset, ring)
            }
            Step::PunchHole => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                allocate(self.start, self.total, mode)
            }
            Step::ZeroRange => {
                let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
                allocate(self.start, self.total, mode)
            }
            Step::Sync => Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Lists what is left of the buffers, or of as much as bounces at once.
    fn gather(&mut self, pieces: &mut Pieces) {
        pieces.clear();
        if let Some(bounce) = &mut self.bounce {
            let len = bounce.len().min(self.total - self.done);
            if let Data::Write(segments) = &self.data {
                let mut gather = Gather::new(segments);
                gather.skip(self.done);
                gather.take(&mut bounce[..len]);
            }
            pieces.push(piece(bounce.as_mut_ptr(), len));
            return;
        }
        let mut skip = self.done;
        let mut add = |address: *mut u8, len: usize| {
            let over = skip.min(len);
            skip -= over;
            if over < len && pieces.len() < PIECES {
                pieces.push(piece(address.wrapping_add(over), len - over));
            }
        };
        match &mut self.data {
            Data::Read(segments) => {
                for s in segments {
                    let len = s.len();
                    add(s.as_mut_ptr(), len);
                }
            }
            Data::Write(segments) => {
                for s in segments {
                    add(s.as_ptr().cast_mut(), s.len());
                }
            }
            Data::None => {}
        }
    }

    fn move_bytes(&self, pieces: &Pieces, offset: u64, ring: &Ring) -> Entry {
        let reads = self.op == Op::Read;
        let flags = match self.op {
            Op::Write { fua: true } | Op::WriteZeroes { fua: true, .. } => {
                ReadWriteFlags::DSYNC.bits() as i32
            }
            _ => 0,
        };
        let [single] = pieces[..] else {
            let (list, count) = (pieces.as_ptr(), pieces.len() as u32);
            return if reads {
                Readv::new(FILE, list, count).offset(offset).build()
            } else {
                Writev::new(FILE, list, count)
                    .offset(offset)
                    .rw_flags(flags)
                    .build()
            };
        };
        let address = single.iov_base.cast::<u8>();
        let len = single.iov_len.min(SINGLE_MAX) as u32;
        match (reads, ring.region_of(address, len as usize)) {
            (true, Some(region)) => ReadFixed::new(FILE, address, len, region)
                .offset(offset)
                .build(),
            (true, None) => Read::new(FILE, address, len).offset(offset).build(),
            (false, Some(region)) => WriteFixed::new(FILE, address, len, region)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            (false, None) => Write::new(FILE, address, len)
                .offset(offset)
                .rw_flags(flags)
                .build(),
        }
    }

    /// Takes the result of the last operation: a count of bytes, or an error number negated.
    pub(super) fn settle(&mut self, result: i32) -> Next {
        if result < 0 {
            return self.fail(Errno::from_raw_os_error(-result));
        }
        match self.step {
            Step::Transfer | Step::WriteZeros => self.advance(result as usize),
            Step::PunchHole | Step::ZeroRange => match self.op {
                Op::WriteZeroes { fua: true, .. } => {
                    self.step = Step::Sync;
                    Next::Again
                }
                _ => Next::Done(Status::Ok),
            },
            Step::Sync => Next::Done(Status::Ok),
        }
    }

    fn advance(&mut self, moved: usize) -> Next {
        assert!(moved <= self.total - self.done, "more than was asked for");
        // Direct I/O goes on at a whole block only. Less than one more block means that there is
        // no more: the file ends here, or its disk is full.
        let all = self.done + moved;
        let whole = all - all % self.block;
        if whole == self.done {
            return Next::Done(self.fault());
        }
        if let (Some(bounce), Data::Read(segments)) = (&self.bounce, &mut self.data) {
            let mut scatter = Scatter::new(segments);
            scatter.skip(self.done);
            scatter.put(&bounce[..whole - self.done]);
        }
        self.done = whole;
        if self.done == self.total {
            Next::Done(Status::Ok)
        } else {
            Next::Again
        }
    }

    fn fail(&mut self, errno: Errno) -> Next {
        let unsupported = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL].contains(&errno);
        match (errno, self.step) {
            (Errno::INTR | Errno::AGAIN | Errno::NOMEM | Errno::BUSY, _)
                if self.retries < RETRIES =>
            {
                self.retries += 1;
                Next::Again
            }
            (_, Step::PunchHole) if unsupported => {
                self.step = Step::ZeroRange;
                Next::Without(Step::PunchHole)
            }
            (_, Step::ZeroRange) if unsupported => {
                self.step = Step::WriteZeros;
                Next::Without(Step::ZeroRange)
            }
            (
                Errno::NODEV
                | Errno::NXIO
                | Errno::BADF
                | Errno::NOMEDIUM
                | Errno::SHUTDOWN
                | Errno::STALE,
                _,
            ) => Next::Done(Status::Gone),
            _ => Next::Done(self.fault()),
        }
    }

    /// What an error is to the user, where it says no more than that it failed.
    fn fault(&self) -> Status {
        match self.op {
            Op::Read => Status::MediumError,
            _ => Status::WriteFault,
        }
    }
}

fn piece(address: *mut u8, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: address.cast(),
        iov_len: len,
    }
}

fn allocate(start: u64, total: usize, mode: FallocateFlags) -> Entry {
    Fallocate::new(FILE, total as u64)
        .offset(start)
        .mode(mode.bits() as i32)
        .build()
}

/// Whether direct I/O takes these buffers as they are.
pub(super) fn is_aligned(data: &Data, alignment: Alignment) -> bool {
    let fits = |s: &[u8]| {
        s.as_ptr().addr().is_multiple_of(alignment.address)
            && s.len().is_multiple_of(alignment.length)
    };
    match data {
        Data::None => true,
        Data::Read(segments) => segments.iter().all(|s| fits(s)),
        Data::Write(segments) => segments.iter().all(|s| fits(s)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{buffers, contents};
    use super::*;
    use crate::memory::{Segments, SegmentsMut};

    const EIO: i32 = -5;
    const EAGAIN: i32 = -11;
    const ENODEV: i32 = -19;
    const EINVAL: i32 = -22;
    const ENOSPC: i32 = -28;
    const EOPNOTSUPP: i32 = -95;

    fn transfer(op: Op, blocks: u32, data: Data, step: Step) -> Transfer {
        let request = Request {
            token: 1,
            op,
            lba: 10,
            blocks,
            data,
        };
        Transfer::new(request, 512, step, None)
    }

    fn read(blocks: u32) -> Transfer {
        let (_arena, pool) = buffers();
        let mut a = pool.take().unwrap();
        a.truncate(blocks as usize * 512);
        let b = a.split_off(600);
        let data = Data::Read(SegmentsMut::from_iter([a, b]));
        transfer(Op::Read, blocks, data, Step::Transfer)
    }

    fn zeroes(fua: bool) -> Transfer {
        let op = Op::WriteZeroes {
            fua,
            deallocate: true,
        };
        transfer(op, 4, Data::None, Step::PunchHole)
    }

    fn lengths(transfer: &mut Transfer) -> Vec<usize> {
        let mut pieces = Pieces::new();
        transfer.gather(&mut pieces);
        pieces.iter().map(|p| p.iov_len).collect()
    }

    /// A short transfer goes on at the block where it stopped, in the right buffer.
    #[test]
    fn short_transfers_go_on() {
        let mut read = read(4);
        assert_eq!(lengths(&mut read), [600, 1448]);
        assert_eq!(read.settle(512), Next::Again);
        assert_eq!(lengths(&mut read), [88, 1448]);
        // A part of a block is asked for again.
        assert_eq!(read.settle(700), Next::Again);
        assert_eq!(lengths(&mut read), [1024]);
        assert_eq!(read.settle(1024), Next::Done(Status::Ok));
    }

    #[test]
    fn the_end_of_the_file_is_an_error() {
        assert_eq!(read(4).settle(0), Next::Done(Status::MediumError));
        assert_eq!(read(4).settle(511), Next::Done(Status::MediumError));
        let mut zeros = zeroes(false);
        zeros.step = Step::WriteZeros;
        assert_eq!(zeros.settle(0), Next::Done(Status::WriteFault));
    }

    #[test]
    fn errors_say_what_is_lost() {
        assert_eq!(read(2).settle(EIO), Next::Done(Status::MediumError));
        assert_eq!(read(2).settle(EINVAL), Next::Done(Status::MediumError));
        assert_eq!(read(2).settle(ENODEV), Next::Done(Status::Gone));
        let write = |result| {
            let (_arena, pool) = buffers();
            let mut buffer = pool.take().unwrap();
            buffer.truncate(512);
            let data = Data::Write(Segments::from_iter([buffer.freeze()]));
            transfer(Op::Write { fua: true }, 1, data, Step::Transfer).settle(result)
        };
        assert_eq!(write(EIO), Next::Done(Status::WriteFault));
        assert_eq!(write(ENOSPC), Next::Done(Status::WriteFault));
        assert_eq!(write(ENODEV), Next::Done(Status::Gone));
        let flush = |result| transfer(Op::Flush, 0, Data::None, Step::Sync).settle(result);
        assert_eq!(flush(0), Next::Done(Status::Ok));
        assert_eq!(flush(EIO), Next::Done(Status::WriteFault));
    }

    #[test]
    fn patience_has_an_end() {
        let mut read = read(2);
        for _ in 0..RETRIES {
            assert_eq!(read.settle(EAGAIN), Next::Again);
        }
        assert_eq!(read.settle(EAGAIN), Next::Done(Status::MediumError));
    }

    /// What cannot be punched is zeroed, what cannot be zeroed is written; other errors are errors.
    #[test]
    fn zeroing_falls_back() {
        let mut zeros = zeroes(false);
        assert_eq!(zeros.settle(EOPNOTSUPP), Next::Without(Step::PunchHole));
        assert_eq!(zeros.settle(EINVAL), Next::Without(Step::ZeroRange));
        assert_eq!(zeros.step, Step::WriteZeros);
        assert_eq!(zeros.settle(512), Next::Again);
        assert_eq!(zeros.settle(3 * 512), Next::Done(Status::Ok));
        assert_eq!(zeroes(false).settle(0), Next::Done(Status::Ok));
        assert_eq!(zeroes(false).settle(EIO), Next::Done(Status::WriteFault));
    }

    #[test]
    fn durable_zeroing_is_followed_by_a_flush() {
        let mut zeros = zeroes(true);
        assert_eq!(zeros.settle(0), Next::Again);
        assert_eq!(zeros.step, Step::Sync);
        assert_eq!(zeros.settle(0), Next::Done(Status::Ok));
    }

    /// A request larger than its bounce buffer goes through it in pieces.
    #[test]
    fn bounces_in_pieces() {
        let (_arena, pool) = buffers();
        let bounce = |len| {
            let mut bounce = pool.take().unwrap();
            bounce.truncate(len);
            bounce
        };
        let mut read = read(4);
        read.bounce = Some(bounce(1024));
        for (value, left) in [(1, 1024), (2, 1024)] {
            assert_eq!(lengths(&mut read), [left]);
            read.bounce.as_mut().unwrap().fill(value);
            let next = read.settle(1024);
            assert_eq!(next == Next::Again, value == 1);
        }
        let bytes = contents(&read.data);
        assert_eq!(bytes[..1024], [1; 1024]);
        assert_eq!(bytes[1024..], [2; 1024]);

        let source: Vec<u8> = (0..1536_u32).map(|i| (i % 200) as u8).collect();
        let mut buffer = bounce(1536);
        buffer.copy_from_slice(&source);
        let data = Data::Write(Segments::from_iter([buffer.freeze()]));
        let mut write = transfer(Op::Write { fua: false }, 3, data, Step::Transfer);
        write.bounce = Some(bounce(1024));
        assert_eq!(lengths(&mut write), [1024]);
        assert_eq!(write.bounce.as_ref().unwrap()[..], source[..1024]);
        assert_eq!(write.settle(1024), Next::Again);
        assert_eq!(lengths(&mut write), [512]);
        assert_eq!(write.bounce.as_ref().unwrap()[..512], source[1024..]);
        assert_eq!(write.settle(512), Next::Done(Status::Ok));
    }
}
