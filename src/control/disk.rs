//! A device as the control thread reads metadata from it and writes it there: one request at a
//! time, each waited for, but not for long.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::bdev::{Bdev, Channel, Completion, Data, Op, Request, Status};
use crate::md::{Disk, DiskError};
use crate::memory::{Arena, BufMut, Pool, Segments, SegmentsMut};

/// How long a request may take. A disk that takes longer is no use to an array either.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the one buffer, and so of a request at most.
const BUFFER: usize = 256 * 1024;

/// How long an answer is waited for without sleep; most devices need no more.
const SPIN: Duration = Duration::from_micros(100);

/// A device that the control thread has opened for itself. Once a request has not been answered in
/// time, it answers no other: nothing waits for a dead device twice.
pub struct MemberDisk {
    bytes: u64,
    block_size: u32,
    /// Bytes of a request at most.
    request: usize,
    channel: Option<Box<dyn Channel>>,
    pool: Pool,
    patience: Duration,
    done: Vec<Completion>,
}

impl fmt::Debug for MemberDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberDisk")
            .field("bytes", &self.bytes)
            .field("answers", &self.channel.is_some())
            .finish_non_exhaustive()
    }
}

impl MemberDisk {
    /// Opens a device for the calling thread.
    ///
    /// # Errors
    /// [`DiskError::Failed`]: it cannot be opened, or there is no memory for a buffer.
    pub fn open(bdev: &Arc<dyn Bdev>) -> Result<Self, DiskError> {
        Self::with_patience(bdev, PATIENCE)
    }

    fn with_patience(bdev: &Arc<dyn Bdev>, patience: Duration) -> Result<Self, DiskError> {
        let info = bdev.info();
        let channel = bdev.open_briefly().map_err(|e| failed("opening", 0, &e))?;
        let most = info.max_blocks.max(1) as usize * info.block_size as usize;
        let size = BUFFER.min(most).next_multiple_of(crate::memory::SLOT_ALIGN);
        let arena = Arena::ordinary(size).map_err(|e| failed("opening", 0, &e))?;
        let pool = Pool::new(&arena, size, 1).map_err(|e| failed("opening", 0, &e))?;
        Ok(Self {
            bytes: info.bytes(),
            block_size: info.block_size,
            request: size.min(most),
            channel: Some(channel),
            pool,
            patience,
            done: Vec::new(),
        })
    }

    /// The buffer, cut to `len` bytes.
    fn buffer(&self, doing: &'static str, offset: u64, len: usize) -> Result<BufMut, DiskError> {
        // It is missing where a request was given up that the device may still answer.
        let missing = || failed(doing, offset, &"the device has not answered before");
        let mut buffer = self.pool.take().ok_or_else(missing)?;
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Has the device do something, and waits for it.
    fn perform(
        &mut self,
        doing: &'static str,
        op: Op,
        offset: u64,
        data: Data,
    ) -> Result<Data, DiskError> {
        let failed = |reason: &dyn fmt::Display| failed(doing, offset, reason);
        let Some(channel) = &mut self.channel else {
            return Err(failed(&"the device has not answered before"));
        };
        let block = u64::from(self.block_size);
        let request = Request {
            token: 0,
            op,
            lba: offset / block,
            blocks: (data.len() as u64 / block) as u32,
            data,
        };
        if channel.submit(request).is_err() {
            return Err(failed(&"the device takes no request"));
        }
        let start = Instant::now();
        let completion = loop {
            channel.kick();
            let now = Instant::now();
            channel.poll(now, &mut self.done);
            if let Some(completion) = self.done.pop() {
                break completion;
            }
            let waited = now - start;
            if waited > self.patience {
                self.channel = None;
                let limit = self.patience.as_secs_f32();
                return Err(failed(&format!("no answer within {limit} seconds")));
            }
            match waited < SPIN {
                true => std::hint::spin_loop(),
                false => thread::sleep(SPIN),
            }
        };
        match completion.status {
            Status::Ok => Ok(completion.data),
            status => Err(failed(&status)),
        }
    }

    /// That all of these bytes exist, and are whole blocks.
    fn check(&self, doing: &'static str, offset: u64, len: usize) -> Result<(), DiskError> {
        let (len, bytes) = (len as u64, self.bytes);
        if offset.checked_add(len).is_none_or(|end| end > bytes) {
            return Err(DiskError::Range { offset, len, bytes });
        }
        let block = u64::from(self.block_size);
        if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
            let reason = format!("{len} bytes are no whole blocks of {block}");
            return Err(failed(doing, offset, &reason));
        }
        Ok(())
    }
}

impl Disk for MemberDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check("reading", offset, into.len())?;
        let mut at = offset;
        for piece in into.chunks_mut(self.request) {
            let buffer = self.buffer("reading", at, piece.len())?;
            let data = Data::Read(SegmentsMut::from_iter([buffer]));
            match self.perform("reading", Op::Read, at, data)? {
                Data::Read(segments) => piece.copy_from_slice(&segments[0]),
                other => return Err(failed("reading", at, &format!("{other:?} came back"))),
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        self.check("writing", offset, from.len())?;
        let mut at = offset;
        for piece in from.chunks(self.request) {
            let mut buffer = self.buffer("writing", at, piece.len())?;
            buffer.copy_from_slice(piece);
            let data = Data::Write(Segments::from_iter([buffer.freeze()]));
            self.perform("writing", Op::Write { fua: false }, at, data)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.perform("flushing", Op::Flush, 0, Data::None)
            .map(|_| ())
    }
}

fn failed(doing: &'static str, offset: u64, reason: &dyn fmt::Display) -> DiskError {
    DiskError::Failed {
        doing,
        offset,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bdev::{Delay, ErrorBdev, Fault, Injection, IoType, Malloc, Null, Uring};

    fn inject(disk: &ErrorBdev, io_type: IoType, fault: Fault) {
        let injection = Injection {
            io_type,
            fault,
            num: Some(1),
            lbas: None,
            write_heals: false,
        };
        disk.inject(injection).unwrap();
    }

    /// More than one request, of every kind of device.
    #[test]
    fn what_is_written_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let malloc = Malloc::new("m", 512, 8192, None).unwrap();
        let slow = Delay::new(malloc.clone(), "d", 500, 500, 500, 500).unwrap();
        let devices: [Arc<dyn Bdev>; 4] = [
            malloc.clone(),
            slow,
            ErrorBdev::new(malloc),
            Uring::new("u", file.path(), Some(4096), None, &[]).unwrap(),
        ];
        let bytes: Vec<u8> = (0..700 * 1024u32).map(|n| (n % 251) as u8).collect();
        for bdev in devices {
            let mut disk = MemberDisk::open(&bdev).unwrap();
            assert_eq!(disk.bytes(), 4 << 20);
            disk.write(8192, &bytes).unwrap();
            disk.flush().unwrap();
            let mut read = vec![1; bytes.len() + 8192];
            disk.read(4096, &mut read).unwrap();
            assert_eq!(read[..4096], [0; 4096]);
            assert_eq!(read[4096..][..bytes.len()], bytes);
            assert_eq!(read[4096 + bytes.len()..], [0; 4096]);
        }
    }

    #[test]
    fn what_does_not_exist_is_refused_with_its_place() {
        let null: Arc<dyn Bdev> = Null::new("n", 4096, 4, None).unwrap();
        let mut disk = MemberDisk::open(&null).unwrap();
        let mut bytes = [0; 8192];
        assert!(disk.read(8192, &mut bytes).is_ok());
        let range = DiskError::Range {
            offset: 12288,
            len: 8192,
            bytes: 16384,
        };
        assert_eq!(disk.read(12288, &mut bytes), Err(range.clone()));
        assert_eq!(disk.write(12288, &bytes), Err(range));
        assert!(disk.write(u64::MAX - 100, &bytes).is_err());
        assert!(disk.read(512, &mut bytes).is_err());
        assert!(disk.write(0, &bytes[..512]).is_err());
    }

    #[test]
    fn an_error_of_the_device_is_told_and_passes() {
        let base = Malloc::new("m", 512, 64, None).unwrap();
        let spoilt = ErrorBdev::new(base);
        let bdev: Arc<dyn Bdev> = spoilt.clone();
        let mut disk = MemberDisk::open(&bdev).unwrap();
        inject(&spoilt, IoType::Read, Fault::Failure);
        inject(&spoilt, IoType::Write, Fault::Gone);
        inject(&spoilt, IoType::Flush, Fault::Failure);
        let mut bytes = [0; 512];
        let read = disk.read(1024, &mut bytes).unwrap_err().to_string();
        assert!(read.contains("reading at byte 1024"), "{read}");
        let written = disk.write(1024, &bytes).unwrap_err().to_string();
        assert!(
            written.contains("writing") && written.contains("gone"),
            "{written}"
        );
        assert!(disk.flush().is_err());
        disk.read(1024, &mut bytes).unwrap();
        disk.write(1024, &bytes).unwrap();
        disk.flush().unwrap();
    }

    #[test]
    fn a_device_that_does_not_answer_is_waited_for_once() {
        let base = Malloc::new("m", 512, 64, None).unwrap();
        let stuck = ErrorBdev::new(base);
        let bdev: Arc<dyn Bdev> = stuck.clone();
        let mut disk = MemberDisk::with_patience(&bdev, Duration::from_millis(20)).unwrap();
        inject(&stuck, IoType::Read, Fault::Pending);
        let mut bytes = [0; 512];
        let read = disk.read(0, &mut bytes).unwrap_err().to_string();
        assert!(read.contains("no answer within 0.02 seconds"), "{read}");
        stuck.clear();
        let again = disk.write(0, &bytes).unwrap_err().to_string();
        assert!(again.contains("has not answered before"), "{again}");
        // Another try is a new one.
        MemberDisk::open(&bdev)
            .unwrap()
            .read(0, &mut bytes)
            .unwrap();
    }
}
