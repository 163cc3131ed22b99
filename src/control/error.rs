//! Why the system refused a change.

use rustix::io::Errno;

use crate::bdev::{CreateError, InjectError, OpenError, RegistryError, UringError};
use crate::nvmf::TargetError;
use crate::raid::VolumeError;

/// Names the thing and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A name is taken, unknown or in use.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A device cannot be made as it was described.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A file cannot be made a device.
    #[error(transparent)]
    Uring(#[from] UringError),
    /// An injection makes no sense.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// A reactor could not open a device.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target refused.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A volume refused.
    #[error("RAID volume {name}: {source}")]
    Volume {
        /// The volume.
        name: String,
        /// Why.
        source: VolumeError,
    },
    /// There is no such volume.
    #[error("raid bdev {0} not found; bdev_raid_get_bdevs lists those there are")]
    NoVolume(String),
    /// The device is of another kind than the method is for.
    #[error("bdev {name} is no {wanted} device but a {found} device; use the method for those")]
    Kind {
        /// The device.
        name: String,
        /// What the method is for.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The device is no member of any volume.
    #[error("bdev {0} is no member of a RAID volume; bdev_raid_get_bdevs lists the members")]
    NotAMember(String),
    /// A description that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Reactors are needed and there are none.
    #[error("a RAID volume needs reactors to run on, and this process has none")]
    NoReactors,
}

impl ControlError {
    /// The errno that says the same in a word.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Registry(RegistryError::Exists(_)) => Errno::EXIST,
            Self::Registry(RegistryError::Busy { .. }) => Errno::BUSY,
            Self::Registry(RegistryError::NotFound(_)) => Errno::NODEV,
            Self::NoVolume(_) | Self::NotAMember(_) | Self::Kind { .. } => Errno::NODEV,
            Self::Create(CreateError::Memory { .. }) => Errno::NOMEM,
            Self::Uring(error) => uring_errno(error),
            Self::Create(_) | Self::Inject(_) | Self::Invalid(_) => Errno::INVAL,
            Self::Open(_) => Errno::IO,
            Self::Target(error) => Errno::from_raw_os_error(error.errno()),
            Self::NoReactors => Errno::OPNOTSUPP,
            Self::Volume { source, .. } => volume_errno(source),
        }
    }
}

fn volume_errno(error: &VolumeError) -> Errno {
    match error {
        VolumeError::NoSuchMember(_) => Errno::NODEV,
        VolumeError::LastRedundancy(_) | VolumeError::Changing => Errno::BUSY,
        VolumeError::Twice(_) | VolumeError::NoFreeSlot => Errno::EXIST,
        VolumeError::Offline | VolumeError::Open { .. } => Errno::IO,
        VolumeError::Memory(_) => Errno::NOMEM,
        VolumeError::Timeout(_) => Errno::TIMEDOUT,
        _ => Errno::INVAL,
    }
}

fn uring_errno(error: &UringError) -> Errno {
    match error {
        UringError::Missing(_) => Errno::NOENT,
        UringError::Denied { errno, .. } => *errno,
        UringError::Busy(_) => Errno::BUSY,
        UringError::System { .. } => Errno::IO,
        UringError::Shape(_)
        | UringError::Kind { .. }
        | UringError::TooSmall { .. }
        | UringError::LogicalBlock { .. } => Errno::INVAL,
    }
}
