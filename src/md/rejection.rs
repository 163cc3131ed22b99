//! Why a device that was found is not used in an array.

use uuid::Uuid;

use super::{AreaError, Unsupported};

/// The reason, in words that follow the name of the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It belongs to another array.
    #[error("belongs to the array {0}")]
    Foreign(Uuid),
    /// The array was written to without it.
    #[error(
        "is out of date: it has seen {events} events, the array {newest}; add it again to have it rebuilt"
    )]
    Stale {
        /// Its event count.
        events: u64,
        /// That of the array.
        newest: u64,
    },
    /// The freshest member says so.
    #[error("has failed or was removed, says the freshest member; add it again to have it rebuilt")]
    Failed,
    /// It says so itself.
    #[error("is marked as faulty; add it again to have it rebuilt")]
    Faulty,
    /// It was used while the freshest member was not.
    #[error(
        "takes the freshest member, in slot {0}, for failed; if this one has the right data, start the array without the other"
    )]
    Disagrees(u16),
    /// A newer copy of the same member is there.
    #[error("is an older copy of the member {0}")]
    OldCopy(String),
    /// A fresher device has its slot.
    #[error("is replaced in slot {slot} by {by}; add it again to have it as a spare")]
    SlotTaken {
        /// The slot.
        slot: u16,
        /// The device that has it.
        by: String,
    },
    /// It was to take the place of a member that is still there, and so is another one.
    #[error(
        "was being made the replacement of slot {0}, and another device was that of a member, too; one at a time can be continued, so add it again to have it as a spare"
    )]
    Replacement(u16),
    /// Its role makes no sense.
    #[error("has the role {0:#x}, which this array does not have")]
    Role(u16),
    /// It describes the array differently.
    #[error("has another {0} than the freshest member; add it again to have it rebuilt")]
    Shape(&'static str),
    /// It needs something that we do not have.
    #[error("cannot be used: {0}")]
    Unsupported(#[from] Unsupported),
    /// Which of its blocks are bad is not known.
    #[error("has a bad-block log that cannot be used: {0}")]
    BadBlocks(AreaError),
}
