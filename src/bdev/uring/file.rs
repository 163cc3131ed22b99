//! The file or block device under a uring device: how it is opened, and what it can do.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;

use super::super::create::CreateError;

/// How long a holder that is going away may take. A killed process's ring outlives it: for some hundredths of a
/// second as a rule, for five seconds where the machine is busy (seen on Linux 6.18).
const HOLDER_PATIENCE: Duration = Duration::from_secs(10);

/// A file or block device that cannot become a device as it was described.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// Name or block size are wrong.
    #[error(transparent)]
    Shape(#[from] CreateError),
    /// There is no such file.
    #[error("{0}: no such file or device; create it first, with truncate -s SIZE for a file")]
    Missing(PathBuf),
    /// A directory, a pipe, a terminal.
    #[error("{path}: is {kind}; give a regular file or a block device")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It may not be written.
    #[error(
        "{path}: cannot be opened for reading and writing: {errno}; check its permissions and that nothing in the path is read-only"
    )]
    Denied {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// Another bdev or process has it, or it is mounted.
    #[error("{0}: is in use (mounted, or open in another target); stop that first")]
    Busy(PathBuf),
    /// It does not hold one block.
    #[error("{path}: has {bytes} bytes, less than one block of {block_size}; make it larger")]
    TooSmall {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The block size in bytes.
        block_size: u32,
    },
    /// The device cannot do I/O in blocks as small as that.
    #[error(
        "{path}: has logical blocks of {logical} bytes, more than the block size of {block_size}; use a block size of {logical}"
    )]
    LogicalBlock {
        /// The path.
        path: PathBuf,
        /// What the device has, in bytes.
        logical: u32,
        /// What was asked for, in bytes.
        block_size: u32,
    },
    /// The kernel refused something else.
    #[error("{path}: cannot {what}: {reason}")]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel said, and what to do about it.
        reason: String,
    },
}

/// An open file or block device, and its properties at that time.
#[derive(Debug)]
pub(super) struct Medium {
    file: File,
    /// Size in bytes.
    pub(super) bytes: u64,
    /// I/O unit: the logical block of the device where it is known, else 512.
    pub(super) block_size: u32,
    /// What addresses and lengths of buffers must be multiples of, in bytes, where I/O goes past
    /// the page cache; `None` where it goes through it.
    pub(super) direct: Option<Alignment>,
    /// Whether what was written may be lost with the power.
    pub(super) write_cache: bool,
    /// Whether space can be given back, and reads as zeros then.
    pub(super) deallocates: bool,
}

/// What direct I/O asks of buffers, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) address: usize,
    pub(super) length: usize,
}

impl Medium {
    /// Opens `path` for this process alone, for blocks of `block_size` bytes or what suits it.
    pub(super) fn open(path: &Path, block_size: Option<u32>) -> Result<Self, UringError> {
        let owned = || path.to_owned();
        let system = |what| {
            move |errno: Errno| UringError::System {
                path: path.to_owned(),
                what,
                reason: errno.to_string(),
            }
        };
        let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => UringError::Missing(owned()),
            _ => UringError::System {
                path: owned(),
                what: "look at it",
                reason: e.to_string(),
            },
        })?;
        let kind = metadata.file_type();
        let is_device = kind.is_block_device();
        if !is_device && !kind.is_file() {
            let kind = match kind {
                k if k.is_dir() => "a directory",
                k if k.is_char_device() => "a character device",
                k if k.is_fifo() => "a pipe",
                k if k.is_socket() => "a socket",
                _ => "no file with contents",
            };
            return Err(UringError::Kind {
                path: owned(),
                kind,
            });
        }

        let properties = Properties::of(metadata.rdev());
        if is_device && properties.read("ro") == "1" {
            // It could be opened, and would refuse every write.
            return Err(UringError::Denied {
                path: owned(),
                errno: Errno::ROFS,
            });
        }
        let file = open_alone(path, is_device)?;
        let bytes = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(system("find its size"))?;
        let logical = match is_device {
            true => rustix::fs::ioctl_blksszget(&file).map_err(system("find its block size"))?,
            false => 512,
        };
        let alignment = direct_alignment(&file, is_device.then_some(logical));
        let suits = alignment.map_or(logical, |a| (a.length as u32).max(logical));
        let block_size = block_size.unwrap_or(suits);
        if logical > block_size {
            return Err(UringError::LogicalBlock {
                path: owned(),
                logical,
                block_size,
            });
        }
        if bytes < u64::from(block_size) {
            return Err(UringError::TooSmall {
                path: owned(),
                bytes,
                block_size,
            });
        }
        let direct = alignment.filter(|a| a.length <= block_size as usize && go_direct(&file));
        Ok(Self {
            file,
            bytes,
            block_size,
            direct,
            write_cache: !is_device
                || direct.is_none()
                || properties.queue("write_cache") != "write through",
            deallocates: !is_device || properties.queue("discard_max_bytes") != "0",
        })
    }

    /// How many bytes it has now.
    pub(super) fn measure(&self) -> rustix::io::Result<u64> {
        rustix::fs::seek(&self.file, SeekFrom::End(0))
    }
}

#[cfg(test)]
impl Medium {
    /// A file of any kind, for tests of I/O that does not come to an end.
    pub(super) fn of(file: File, bytes: u64) -> Self {
        Self {
            file,
            bytes,
            block_size: 512,
            direct: None,
            write_cache: true,
            deallocates: true,
        }
    }
}

impl AsFd for Medium {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens the path so that no other target has it, and waits for one that is going away. A block device
/// is taken exclusively, which also keeps it from being mounted; a file is locked.
///
/// # Errors
/// [`UringError::Busy`], [`UringError::Denied`].
pub fn open_alone(path: &Path, is_device: bool) -> Result<File, UringError> {
    let start = Instant::now();
    loop {
        let exclusive = if is_device {
            OFlags::EXCL
        } else {
            OFlags::empty()
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | exclusive;
        let opened = rustix::fs::open(path, flags, Mode::empty()).and_then(|fd| {
            rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
            Ok(fd)
        });
        match opened {
            Ok(fd) => return Ok(File::from(fd)),
            Err(Errno::BUSY | Errno::WOULDBLOCK) if start.elapsed() < HOLDER_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::BUSY | Errno::WOULDBLOCK) => {
                return Err(UringError::Busy(path.to_owned()));
            }
            Err(errno) => {
                return Err(UringError::Denied {
                    path: path.to_owned(),
                    errno,
                });
            }
        }
    }
}

/// What direct I/O would ask for; `None` where there is no direct I/O. A kernel that does not tell
/// (before 6.1) is taken to ask for whole pages of a file, and for logical blocks of a device.
fn direct_alignment(file: &File, logical: Option<u32>) -> Option<Alignment> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let told = rustix::fs::statx(file, "", flags, StatxFlags::DIOALIGN)
        .ok()
        .filter(|s| s.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let both = |bytes: u32| (bytes, bytes);
    let (address, length) = match (told, logical) {
        (Some(s), _) => (s.stx_dio_mem_align, s.stx_dio_offset_align),
        (None, Some(logical)) => both(logical),
        (None, None) => both(4096),
    };
    (address > 0 && length > 0).then_some(Alignment {
        address: address as usize,
        length: length as usize,
    })
}

/// Whether the file takes direct I/O from now on.
fn go_direct(file: &File) -> bool {
    rustix::fs::fcntl_getfl(file)
        .and_then(|flags| rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT))
        .is_ok()
}

/// What the kernel shows of a block device.
struct Properties(PathBuf);

impl Properties {
    fn of(device: u64) -> Self {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Self(PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
    }

    fn read(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.trim().to_owned()
    }

    /// A property of its queue; a partition has that of its disk.
    fn queue(&self, name: &str) -> String {
        match self.0.join("queue").exists() {
            true => self.read(&format!("queue/{name}")),
            false => self.read(&format!("../queue/{name}")),
        }
    }
}
