//! Why the control side refused.

use std::io;

use super::address::ListenAddress;
use crate::bdev::RegistryError;

/// What went wrong in a call to [`Target`](super::Target), and the mend.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A parameter is malformed or out of its range. EINVAL.
    #[error("{0}")]
    Invalid(String),
    /// Something of this name is there already. EEXIST.
    #[error("{0} already exists")]
    Exists(String),
    /// There is no such thing. ENOENT.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It is held by something else, or the target is stopping. EBUSY.
    #[error("{0}")]
    Busy(String),
    /// A limit that was set at start is reached. ENOSPC.
    #[error("{0}")]
    Limit(String),
    /// The device cannot be exported. ENODEV for an absent one, else EBUSY.
    #[error(transparent)]
    Bdev(#[from] RegistryError),
    /// A reactor could not open the device. EIO.
    #[error("{0}")]
    Open(String),
    /// The address cannot be listened on. The errno of the operating system.
    #[error("cannot listen on {address}: {source}; {}", listen_hint(source))]
    Listen {
        /// The address.
        address: ListenAddress,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused something else at start.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Not every reactor has confirmed in time; the change will still take effect. ETIMEDOUT.
    #[error("{0}: not every reactor confirmed in time")]
    Timeout(String),
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address: choose one that `ip address` shows"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023 or run as root",
        _ => "choose another address",
    }
}

impl TargetError {
    /// The errno that SPDK's dialect answers for this error, as a positive number.
    pub fn errno(&self) -> i32 {
        use rustix::io::Errno;
        match self {
            Self::Invalid(_) => Errno::INVAL.raw_os_error(),
            Self::Exists(_) => Errno::EXIST.raw_os_error(),
            Self::NotFound(_) => Errno::NOENT.raw_os_error(),
            Self::Busy(_) => Errno::BUSY.raw_os_error(),
            Self::Limit(_) => Errno::NOSPC.raw_os_error(),
            Self::Bdev(RegistryError::NotFound(_)) => Errno::NODEV.raw_os_error(),
            Self::Bdev(RegistryError::Exists(_)) => Errno::EXIST.raw_os_error(),
            Self::Bdev(RegistryError::Busy { .. }) => Errno::BUSY.raw_os_error(),
            Self::Open(_) => Errno::IO.raw_os_error(),
            Self::Listen { source, .. } | Self::Io { source, .. } => source
                .raw_os_error()
                .unwrap_or_else(|| Errno::IO.raw_os_error()),
            Self::Timeout(_) => Errno::TIMEDOUT.raw_os_error(),
        }
    }
}
