//! Why the system refused a change.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::bdev::nvme::pcie::vfio::VfioError;
use crate::bdev::nvme::tcp::AttachError;
use crate::bdev::{CreateError, InjectError, OpenError, RegistryError, UringError};
use crate::md::{AreaError, JoinError, MemberError, Unsupported};
use crate::nvmf::TargetError;
use crate::raid::{AssembledError, VolumeError};
use uuid::Uuid;

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
    /// A controller cannot be attached as it was described.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A controller of this machine cannot be had.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// There is no such controller.
    #[error("controller {0} does not exist; bdev_nvme_get_controllers lists those that do")]
    NoController(String),
    /// There is such a controller already.
    #[error("controller {name} exists already: {what}")]
    ControllerExists {
        /// Its name.
        name: String,
        /// What to do.
        what: &'static str,
    },
    /// Multicast DNS cannot be spoken.
    #[error("the discovery service cannot be announced: {0}")]
    Announcement(String),
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
    /// A null device would lose blocks.
    #[error(
        "bdev {name}: {bytes} bytes are less than the {now} that it has, and it does not shrink; delete it and make it anew"
    )]
    Smaller {
        /// The device.
        name: String,
        /// What was asked for.
        bytes: u64,
        /// What it has.
        now: u64,
    },
    /// A file has shrunk under a device that is in use.
    #[error(
        "bdev {name}: {path} has become smaller, and the device is in use; make the file as large as it was, or end the use of the device first"
    )]
    Shrunk {
        /// The device.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// The volume cannot do that before it is started.
    #[error("RAID volume {name} is not started: {reason}")]
    NotStarted {
        /// The volume.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The volume keeps nothing on its members.
    #[error(
        "RAID volume {0} was made without metadata (superblock: false), which this needs; make it anew with superblock: true"
    )]
    NotKept(String),
    /// A volume of that name came back by itself, and is another.
    #[error(
        "RAID volume {name} already exists and has {what}; delete it first, or choose another name"
    )]
    Differs {
        /// The volume.
        name: String,
        /// In what it is another.
        what: String,
    },
    /// There is no check that could be left.
    #[error("RAID volume {0} is not being checked")]
    NoCheck(String),
    /// The device is no spare of that volume.
    #[error(
        "bdev {device} is no spare of RAID volume {name}; bdev_raid_get_bdevs lists them under md.spares"
    )]
    NoSpare {
        /// The device.
        device: String,
        /// The volume.
        name: String,
    },
    /// No device belongs to the array that is meant.
    #[error(
        "no device belongs to such an array, or they are in use; bdev_raid_examine shows what one holds"
    )]
    NoArray,
    /// The devices belong to several arrays.
    #[error("arrays {one} and {other} are both meant; say which by its uuid")]
    Ambiguous {
        /// An array.
        one: Uuid,
        /// Another.
        other: Uuid,
    },
    /// The array is started already.
    #[error("RAID volume {0} is started already; bdev_raid_delete stops it")]
    Started(String),
    /// A device holds nothing of an array.
    #[error(
        "bdev {0} belongs to no array: it has no md superblock; bdev_raid_create makes an array, bdev_raid_add_base_bdev adds to one"
    )]
    HoldsNothing(String),
    /// A device belongs to another array than is meant.
    #[error("bdev {device} belongs to another array, {array:?} ({uuid}); leave it out")]
    HoldsOther {
        /// The device.
        device: String,
        /// The array's name, as it is on its members.
        array: String,
        /// Its identity.
        uuid: Uuid,
    },
    /// A device belongs to an array already.
    #[error(
        "bdev {device} belongs to the array {array:?} ({uuid}); bdev_raid_assemble starts that, and force overwrites it"
    )]
    Holds {
        /// The device.
        device: String,
        /// The array's name, as it is on its members.
        array: String,
        /// Its identity.
        uuid: Uuid,
    },
    /// What a device holds cannot be used, or cannot be read.
    #[error("bdev {device}: {source}")]
    Member {
        /// The device.
        device: String,
        /// Why.
        source: MemberError,
    },
    /// A device belongs to an array that we cannot run.
    #[error("bdev {device} belongs to the array {array:?}, which cannot be used here: {source}")]
    Unsupported {
        /// The device.
        device: String,
        /// The array's name, as it is on its members.
        array: String,
        /// Why.
        source: Unsupported,
    },
    /// Metadata could not be written.
    #[error("bdev {device}: its metadata could not be written: {source}")]
    Unwritten {
        /// The device.
        device: String,
        /// Why.
        source: AreaError,
    },
    /// What was written to a device is not on it.
    #[error(
        "bdev {0} does not give back the superblock that was written to it; use a device that keeps what it is given"
    )]
    KeepsNothing(String),
    /// A device cannot join an array.
    #[error("bdev {device} cannot join: {source}")]
    Join {
        /// The device.
        device: String,
        /// Why.
        source: JoinError,
    },
    /// The metadata of an array makes no volume.
    #[error("RAID volume {name}: {source}")]
    Shape {
        /// The volume.
        name: String,
        /// Why.
        source: AssembledError,
    },
    /// A device has the identity of another that is in use.
    #[error(
        "bdev {0} has the identity of another device of its array, and may be a copy of it; it is not used"
    )]
    Twice(String),
    /// A member that the array has gone on without.
    #[error(
        "bdev {device} was a member of RAID volume {name}, which has gone on without it; bdev_raid_add_base_bdev adds it again, to be rebuilt"
    )]
    Stale {
        /// The device.
        device: String,
        /// The volume.
        name: String,
    },
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
            Self::NoController(_) => Errno::NODEV,
            // As SPDK says it.
            Self::ControllerExists { .. } => Errno::ALREADY,
            Self::Vfio(error) => vfio_errno(error),
            Self::Attach(AttachError::Recovery { .. }) => Errno::INVAL,
            Self::Attach(AttachError::System { .. }) => Errno::NOMEM,
            Self::NoVolume(_) | Self::NotAMember(_) | Self::Kind { .. } => Errno::NODEV,
            Self::Create(CreateError::Memory { .. }) => Errno::NOMEM,
            Self::Uring(error) => uring_errno(error),
            Self::Create(_) | Self::Inject(_) | Self::Invalid(_) => Errno::INVAL,
            Self::Smaller { .. } => Errno::INVAL,
            Self::Shrunk { .. } => Errno::BUSY,
            Self::Open(_) | Self::Announcement(_) => Errno::IO,
            Self::Target(error) => Errno::from_raw_os_error(error.errno()),
            Self::NoReactors | Self::NotKept(_) => Errno::OPNOTSUPP,
            Self::Holds { .. } | Self::Differs { .. } | Self::Twice(_) => Errno::EXIST,
            Self::Started(_) => Errno::EXIST,
            Self::HoldsNothing(_) | Self::HoldsOther { .. } => Errno::INVAL,
            Self::Ambiguous { .. } | Self::NoCheck(_) => Errno::INVAL,
            Self::NoArray | Self::NoSpare { .. } => Errno::NODEV,
            Self::NotStarted { .. } => Errno::AGAIN,
            Self::Member { .. } | Self::Unwritten { .. } | Self::KeepsNothing(_) => Errno::IO,
            Self::Unsupported { .. } | Self::Join { .. } | Self::Shape { .. } => Errno::INVAL,
            Self::Stale { .. } => Errno::STALE,
            Self::Volume { source, .. } => volume_errno(source),
        }
    }
}

fn vfio_errno(error: &VfioError) -> Errno {
    match error {
        VfioError::Missing(_) => Errno::NODEV,
        VfioError::Address(_) | VfioError::Class { .. } => Errno::INVAL,
        VfioError::Driver { .. } | VfioError::Group { .. } => Errno::BUSY,
        VfioError::NoIommu(_) | VfioError::HasIommu(_) | VfioError::Physical(_) => Errno::OPNOTSUPP,
        #[cfg(feature = "dpdk")]
        VfioError::Dpdk(_) => Errno::IO,
        VfioError::System { error, .. } => error
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error),
    }
}

fn volume_errno(error: &VolumeError) -> Errno {
    match error {
        VolumeError::NoSuchMember(_) | VolumeError::Ended => Errno::NODEV,
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
