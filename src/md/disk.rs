//! The one way in which this room reaches a device.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::SECTOR;

/// A device or file that may hold a member. Offsets and lengths are multiples of the block size; for those
/// that are not, there are [`read_span`] and [`write_span`].
pub trait Disk {
    /// Size in bytes.
    fn bytes(&self) -> u64;

    /// Bytes of a block: 512 or 4096.
    fn block_size(&self) -> u32;

    /// Reads the bytes at `offset`, all of them.
    ///
    /// # Errors
    /// [`DiskError`], if they can't be read or do not exist.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// Writes the bytes at `offset`, all of them. They may be lost in a crash until [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`DiskError`], if they can't be written or do not exist.
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// [`DiskError`]; then nothing is known of what was written since the last time.
    fn flush(&mut self) -> Result<(), DiskError>;
}

/// A read or write that did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The bytes are not on the device.
    #[error(
        "{len} bytes at {offset} are beyond the device's {bytes}; it may have been made smaller"
    )]
    Range {
        /// Where they should start.
        offset: u64,
        /// How many.
        len: u64,
        /// Size of the device.
        bytes: u64,
    },
    /// The device or the operating system refused.
    #[error("{doing} at byte {offset} failed: {reason}; check the device")]
    Failed {
        /// "reading", "writing" or "flushing".
        doing: &'static str,
        /// Where.
        offset: u64,
        /// What was said.
        reason: String,
    },
}

/// Checks that the bytes exist.
fn within(bytes: u64, offset: u64, len: usize) -> Result<(), DiskError> {
    let len = len as u64;
    let end = offset.checked_add(len);
    if end.is_some_and(|end| end <= bytes) {
        return Ok(());
    }
    Err(DiskError::Range { offset, len, bytes })
}

/// The whole blocks around `len` bytes at `offset`: where they start, and how many bytes they have.
fn blocks_around(disk: &dyn Disk, offset: u64, len: usize) -> Result<(u64, usize), DiskError> {
    within(disk.bytes(), offset, len)?;
    let block = u64::from(disk.block_size());
    let start = offset - offset % block;
    let end = (offset + len as u64).next_multiple_of(block);
    within(disk.bytes(), start, (end - start) as usize)?;
    Ok((start, (end - start) as usize))
}

/// Reads `len` bytes at any `offset`.
///
/// # Errors
/// [`DiskError`], if they can't be read or do not exist.
pub fn read_span(disk: &mut dyn Disk, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
    let (start, whole) = blocks_around(disk, offset, len)?;
    let mut bytes = vec![0; whole];
    disk.read(start, &mut bytes)?;
    bytes.drain(..(offset - start) as usize);
    bytes.truncate(len);
    Ok(bytes)
}

/// Writes bytes at any `offset`. What shares a block with them is read first and stays.
///
/// # Errors
/// [`DiskError`], if they can't be written or do not exist.
pub fn write_span(disk: &mut dyn Disk, offset: u64, from: &[u8]) -> Result<(), DiskError> {
    let (start, whole) = blocks_around(disk, offset, from.len())?;
    if (start, whole) == (offset, from.len()) {
        return disk.write(offset, from);
    }
    let mut bytes = vec![0; whole];
    disk.read(start, &mut bytes)?;
    bytes[(offset - start) as usize..][..from.len()].copy_from_slice(from);
    disk.write(start, &bytes)
}

/// Writes bytes at any `offset`, so that they are durable on return; see [`write_span`].
///
/// # Errors
/// [`DiskError`], as of writing and flushing.
pub fn write_span_durable(disk: &mut dyn Disk, offset: u64, from: &[u8]) -> Result<(), DiskError> {
    write_span(disk, offset, from)?;
    disk.flush()
}

/// Memory as a device with blocks of 512 bytes, durable at once.
impl Disk for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn block_size(&self) -> u32 {
        SECTOR as u32
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        within(self.bytes(), offset, into.len())?;
        into.copy_from_slice(&self[offset as usize..][..into.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        within(self.bytes(), offset, from.len())?;
        self[offset as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// A file or block device, for looking at a member that nobody uses.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    bytes: u64,
}

impl FileDisk {
    /// Opens a file or block device, for reading only unless `writable`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path, writable: bool) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(writable).open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, bytes })
    }
}

/// An error of the operating system, with what was being done.
fn failed(doing: &'static str, offset: u64) -> impl Fn(std::io::Error) -> DiskError {
    move |error| DiskError::Failed {
        doing,
        offset,
        reason: error.to_string(),
    }
}

impl Disk for FileDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn block_size(&self) -> u32 {
        SECTOR as u32
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        within(self.bytes, offset, into.len())?;
        let read = self.file.read_exact_at(into, offset);
        read.map_err(failed("reading", offset))
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        within(self.bytes, offset, from.len())?;
        let written = self.file.write_all_at(from, offset);
        written.map_err(failed("writing", offset))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(failed("flushing", 0))
    }
}
