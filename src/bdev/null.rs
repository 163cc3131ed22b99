//! A device that keeps nothing: for measuring what is above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::create::{CreateError, check_shape};
use super::immediate::{Immediate, ImmediateChannel};
use super::{Bdev, Channel, Data, Info, Op, OpenError, Status};

/// Largest request in bytes.
const MAX_BYTES: u32 = 1 << 20;

/// Accepts every write and forgets it. Reads give zeros, so that nothing of what a buffer held
/// before gets out.
#[derive(Debug)]
pub struct Null {
    info: Info,
    sink: Arc<Sink>,
}

impl Null {
    /// Makes one of `num_blocks` blocks of `block_size` bytes (512 or 4096). Without a UUID it is
    /// given a random one.
    ///
    /// # Errors
    /// [`CreateError`]: the shape makes no device.
    pub fn new(
        name: &str,
        block_size: u32,
        num_blocks: u64,
        uuid: Option<Uuid>,
    ) -> Result<Arc<Self>, CreateError> {
        check_shape(name, block_size, num_blocks)?;
        let info = Info {
            name: name.to_owned(),
            product: "Null disk",
            uuid: uuid.unwrap_or_else(Uuid::new_v4),
            block_size,
            blocks: num_blocks,
            io_boundary: 0,
            write_unit: 0,
            max_blocks: MAX_BYTES / block_size,
            write_cache: false,
            deallocates: true,
            in_memory: false,
        };
        let sink = Arc::new(Sink {
            info: info.clone(),
            blocks: AtomicU64::new(num_blocks),
        });
        Ok(Arc::new(Self { info, sink }))
    }

    /// The same device with another number of blocks. Channels that are open know it at once.
    ///
    /// # Errors
    /// [`CreateError::Size`].
    pub fn resized(&self, num_blocks: u64) -> Result<Arc<Self>, CreateError> {
        check_shape(&self.info.name, self.info.block_size, num_blocks)?;
        self.sink.blocks.store(num_blocks, Ordering::Release);
        Ok(Arc::new(Self {
            info: Info {
                blocks: num_blocks,
                ..self.info.clone()
            },
            sink: self.sink.clone(),
        }))
    }
}

impl Bdev for Null {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(ImmediateChannel::new(self.sink.clone())))
    }
}

#[derive(Debug)]
struct Sink {
    /// As it was made.
    info: Info,
    /// How many there are now.
    blocks: AtomicU64,
}

impl Immediate for Sink {
    fn info(&self) -> &Info {
        &self.info
    }

    fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    fn execute(
        &self,
        op: Op,
        _lba: u64,
        _blocks: u32,
        data: &mut Data,
        _next: Option<u64>,
    ) -> Status {
        match op {
            Op::Read => {
                if let Data::Read(segments) = data {
                    segments.iter_mut().for_each(|s| s.fill(0));
                }
                Status::Ok
            }
            Op::Write { .. } | Op::Flush | Op::WriteZeroes { .. } => Status::Ok,
            Op::Compare
            | Op::CompareAndWrite { .. }
            | Op::XdWriteRead { .. }
            | Op::XpWrite { .. } => Status::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{User, buffers};
    use super::*;

    #[test]
    fn reads_leak_nothing_and_writes_leave_nothing() {
        let (_arena, pool) = buffers();
        let bdev = Null::new("n", 512, 1 << 40, None).unwrap();
        let mut user = User::new(&*bdev, &pool);
        assert_eq!(user.write(5, &[7; 1024]), Status::Ok);
        assert_eq!(user.read(5, 2).unwrap(), [0; 1024]);
        assert_eq!(user.run(Op::Flush, 0, 0, Data::None).0, Status::Ok);
        assert_eq!(user.read(1 << 40, 1), Err(Status::OutOfRange));
        let data = user.write_data(&[0; 512]);
        let (status, _) = user.run(Op::Compare, 0, 1, data);
        assert_eq!(status, Status::Unsupported);
        let stat = user.iostat("n");
        assert_eq!((stat.bytes_read, stat.bytes_written), (1024, 1024));
        assert_eq!(stat.num_errors, 2);
    }

    #[test]
    fn open_channels_follow_the_size() {
        let (_arena, pool) = buffers();
        let small = Null::new("n", 4096, 8, None).unwrap();
        let mut user = User::new(&*small, &pool);
        assert_eq!(user.read(8, 1), Err(Status::OutOfRange));
        let large = small.resized(16).unwrap();
        assert_eq!((small.info().blocks, large.info().blocks), (8, 16));
        assert_eq!(large.info().uuid, small.info().uuid);
        assert!(user.read(15, 1).is_ok());
        assert_eq!(user.read(16, 1), Err(Status::OutOfRange));
        let none = small.resized(0).unwrap_err().to_string();
        assert!(none.contains("at least one block"), "{none}");
    }
}
