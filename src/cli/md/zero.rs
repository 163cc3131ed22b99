//! `stripewise md zero-superblock`: a device that belongs to no array any more.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{MdError, detail};
use crate::bdev::{UringError, open_alone};
use crate::md::FileDisk;
use crate::md::member::zero_superblock;

#[derive(Debug, clap::Args)]
pub struct ZeroSuperblock {
    /// Files or block devices.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl ZeroSuperblock {
    /// Does it, to one after the other.
    pub fn run(self) -> Result<(), MdError> {
        for path in &self.files {
            let said = match zero(path)? {
                0 => "had no superblock",
                _ => "belongs to no array any more",
            };
            detail::print(&format!("{} {said}\n", path.display()));
        }
        Ok(())
    }
}

/// Removes all superblocks of a device that nobody uses; how many there were.
fn zero(path: &Path) -> Result<usize, MdError> {
    let open = |source| MdError::Open {
        path: path.to_owned(),
        source,
    };
    let is_device = std::fs::metadata(path)
        .map_err(open)?
        .file_type()
        .is_block_device();
    // Held until it is done.
    let _lock = open_alone(path, is_device).map_err(|error| match error {
        UringError::Denied { errno, .. } => open(errno.into()),
        _ => MdError::Busy(path.to_owned()),
    })?;
    let mut disk = FileDisk::open(path, true).map_err(open)?;
    zero_superblock(&mut disk).map_err(|source| MdError::Disk {
        path: path.to_owned(),
        source,
    })
}
