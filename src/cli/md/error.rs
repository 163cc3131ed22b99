//! Why a command about arrays came to nothing.

use std::io;
use std::path::PathBuf;

use crate::cli::client::ClientError;
use crate::md::{DiskError, MemberError};

/// Names the thing and the mend.
#[derive(Debug, thiserror::Error)]
pub enum MdError {
    /// The serving process was not reached, or has refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file cannot be opened.
    #[error("{}: {source}; give a file or block device that can be read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds nothing that could be shown.
    #[error("{}: {source}", path.display())]
    Member {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MemberError,
    },
    /// Somebody uses a device.
    #[error("{}: is in use, by an array, a mount or another process; stop that first", .0.display())]
    Busy(PathBuf),
    /// A device could not be written.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DiskError,
    },
    /// What was asked for makes no sense, or not now.
    #[error("{0}")]
    Refused(String),
}
