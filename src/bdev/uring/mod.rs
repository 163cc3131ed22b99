//! A file or a kernel block device, through io_uring.
//!
//! Each channel has a ring of its own. I/O goes past the page cache where the file takes it, from
//! and to registered memory; buffers that direct I/O would refuse are copied through a few
//! aligned ones. What the file cannot do (punching holes, zeroing) is found out once, and replaced
//! by writing zeros.

#![allow(unsafe_code)]

mod channel;
mod file;
mod release;
mod remains;
mod ring;
mod transfer;

#[cfg(test)]
mod tests;

pub use file::{UringError, open_alone};

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use uuid::Uuid;

use super::create::{CreateError, check_shape};
use super::{Bdev, Channel, Info, OpenError};
use crate::memory::{Arena, Buf, Pool};
use channel::UringChannel;
use file::Medium;
use ring::Ring;
use transfer::Step;

/// Largest request in bytes.
const MAX_BYTES: u32 = 1 << 20;

/// Bytes of the zeros that are written where a file cannot zero.
const ZEROS: usize = 64 * 1024;

/// A file or a kernel block device. Nobody else may use it meanwhile: a file is locked, a block
/// device taken exclusively.
#[derive(Debug)]
pub struct Uring {
    info: Info,
    shared: Arc<Shared>,
}

/// Which of SPDK's modules a device is shown as. Both of ours are the same underneath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileApi {
    /// `bdev_uring_create`.
    Uring,
    /// `bdev_aio_create`.
    Aio,
}

impl FileApi {
    /// In a word, as it is in the names of its methods and in `driver_specific`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Aio => "aio",
        }
    }

    /// SPDK's `product_name`.
    fn product(self) -> &'static str {
        match self {
            Self::Uring => "URING bdev",
            Self::Aio => "AIO disk",
        }
    }
}

impl Uring {
    /// Opens `path`, an existing regular file or block device, for blocks of `block_size` bytes
    /// (512 or 4096; `None`: what it has). What does not fill a block at its end is left out.
    ///
    /// Buffers in `arenas` are registered with the kernel; others work as well, but cost more.
    /// Without a UUID the device is given one that depends on the path alone, so that it is the
    /// same in every run.
    ///
    /// # Errors
    /// [`UringError`], which names the path and the mend.
    pub fn new(
        name: &str,
        path: &Path,
        block_size: Option<u32>,
        uuid: Option<Uuid>,
        arenas: &[Arena],
    ) -> Result<Arc<Self>, UringError> {
        Self::new_as(FileApi::Uring, name, path, block_size, uuid, arenas)
    }

    /// As [`Uring::new`], shown as a device of one of SPDK's modules.
    ///
    /// # Errors
    /// As [`Uring::new`].
    pub fn new_as(
        api: FileApi,
        name: &str,
        path: &Path,
        block_size: Option<u32>,
        uuid: Option<Uuid>,
        arenas: &[Arena],
    ) -> Result<Arc<Self>, UringError> {
        let chosen = block_size.is_some();
        check_shape(name, block_size.unwrap_or(512), 1)?;
        let medium = Medium::open(path, block_size)?;
        let block_size = medium.block_size;
        let blocks = medium.bytes / u64::from(block_size);
        check_shape(name, block_size, blocks)?;
        if medium.direct.is_none() {
            tracing::warn!(
                bdev = name,
                "{} does not take direct I/O in blocks of {block_size} bytes; it goes through the \
                 page cache",
                path.display()
            );
        }
        let rest = medium.bytes % u64::from(block_size);
        if rest != 0 {
            tracing::warn!(
                bdev = name,
                "the last {rest} bytes of {} do not fill a block of {block_size} and are not used",
                path.display()
            );
        }
        // Told now rather than by every reactor later.
        Ring::new(1, medium.as_fd()).map_err(|error| UringError::System {
            path: path.to_owned(),
            what: "set up io_uring",
            reason: format!("{error}; it takes Linux 5.11 and kernel.io_uring_disabled=0"),
        })?;
        let info = Info {
            name: name.to_owned(),
            product: api.product(),
            uuid: uuid.unwrap_or_else(|| identity(path)),
            block_size,
            blocks,
            io_boundary: 0,
            write_unit: 0,
            max_blocks: MAX_BYTES / block_size,
            write_cache: medium.write_cache,
            deallocates: medium.deallocates,
            in_memory: false,
        };
        let shared = Arc::new(Shared {
            info: info.clone(),
            api,
            block_size_chosen: chosen,
            blocks: AtomicU64::new(blocks),
            path: path.to_owned(),
            medium,
            arenas: arenas.to_vec(),
            zeros: zeros(name)?,
            punches: AtomicBool::new(true),
            zeroes: AtomicBool::new(true),
            unregistered: AtomicBool::new(false),
        });
        Ok(Arc::new(Self { info, shared }))
    }

    /// The file or block device.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Which of SPDK's modules it is shown as.
    pub fn api(&self) -> FileApi {
        self.shared.api
    }

    /// How many whole blocks the file has now.
    ///
    /// # Errors
    /// [`UringError::TooSmall`], [`UringError::System`].
    pub fn measure(&self) -> Result<u64, UringError> {
        let path = || self.shared.path.clone();
        let block_size = self.info.block_size;
        let bytes = self.shared.medium.measure();
        let bytes = bytes.map_err(|errno| UringError::System {
            path: path(),
            what: "find its size",
            reason: errno.to_string(),
        })?;
        match bytes / u64::from(block_size) {
            0 => Err(UringError::TooSmall {
                path: path(),
                bytes,
                block_size,
            }),
            blocks => Ok(blocks),
        }
    }

    /// The same device with the number of blocks that was measured. Channels that are open know it
    /// at once.
    pub fn resized(&self, blocks: u64) -> Arc<Self> {
        self.shared.blocks.store(blocks, Ordering::Release);
        Arc::new(Self {
            info: Info {
                blocks,
                ..self.info.clone()
            },
            shared: self.shared.clone(),
        })
    }
}

impl Bdev for Uring {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        let arenas = &self.shared.arenas;
        Ok(Box::new(UringChannel::new(self.shared.clone(), arenas)?))
    }

    fn open_briefly(&self) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(UringChannel::new(self.shared.clone(), &[])?))
    }

    fn driver_specific(&self) -> Value {
        let filename = self.shared.path.to_string_lossy();
        match self.shared.api {
            FileApi::Uring => json!({"uring": {"filename": filename}}),
            FileApi::Aio => json!({"aio": {
                "filename": filename,
                "block_size_override": self.shared.block_size_chosen,
                "readonly": false,
                "fallocate": self.info.deallocates,
            }}),
        }
    }
}

/// What the channels of a device share.
#[derive(Debug)]
struct Shared {
    /// As it was made.
    info: Info,
    api: FileApi,
    block_size_chosen: bool,
    /// How many there are now.
    blocks: AtomicU64,
    path: PathBuf,
    medium: Medium,
    arenas: Vec<Arena>,
    /// Bytes that are 0.
    zeros: Buf,
    /// Whether the file can give space back, as far as is known.
    punches: AtomicBool,
    /// Whether the file can zero without writing, as far as is known.
    zeroes: AtomicBool,
    /// Whether it was said that memory cannot be registered.
    unregistered: AtomicBool,
}

impl Shared {
    /// Notes that the file cannot do this.
    fn cannot(&self, step: Step) {
        match step {
            Step::PunchHole => self.punches.store(false, Ordering::Relaxed),
            Step::ZeroRange => self.zeroes.store(false, Ordering::Relaxed),
            Step::Transfer | Step::WriteZeros | Step::Sync => {}
        }
    }
}

/// The same UUID for the same path in every run.
fn identity(path: &Path) -> Uuid {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_os_str().as_encoded_bytes())
}

/// A buffer of zeros, outside the arenas.
fn zeros(name: &str) -> Result<Buf, CreateError> {
    let memory = |reason: String| CreateError::Memory {
        name: name.to_owned(),
        reason,
    };
    let arena = Arena::ordinary(ZEROS).map_err(|e| memory(e.to_string()))?;
    let pool = Pool::new(&arena, ZEROS, 1).map_err(|e| memory(e.to_string()))?;
    let mut buffer = pool.take().expect("a new pool has its slot");
    buffer.fill(0);
    Ok(buffer.freeze())
}
