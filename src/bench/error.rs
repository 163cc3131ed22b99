//! Why nothing can be measured.

use std::time::Duration;

use crate::bdev::CreateError;
use crate::loadgen::quantity::Bytes;
use crate::loadgen::workload::WorkloadError;
use crate::md;
use crate::memory::{ArenaError, PoolError};
use crate::raid::{AssembledError, VolumeError};
use crate::reactor::{CoreMaskError, ReactorError};

/// Each names the thing and the mend.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A request that is not one of whole blocks.
    #[error("requests of {bytes} bytes are not a multiple of the blocks of {block} bytes")]
    NotBlocks {
        /// Bytes of a request.
        bytes: Bytes,
        /// Bytes of a block.
        block: u32,
    },
    /// A request larger than the device takes.
    #[error("requests of {bytes} bytes are too large for this device; it takes up to {most}")]
    RequestSize {
        /// Bytes of a request.
        bytes: Bytes,
        /// Bytes of the largest.
        most: Bytes,
    },
    /// A slot that the array has not.
    #[error("slot {slot} can't be missing: {members} members are in slots 0 to {}", members - 1)]
    Missing {
        /// The slot.
        slot: usize,
        /// Members of the array.
        members: usize,
    },
    /// Neither requests nor a rebuild.
    #[error("a depth of 0 leaves nothing to measure; give 1 or more, or have a member rebuilt")]
    Nothing,
    /// A rebuild where there is none.
    #[error(
        "a rebuild needs an array that keeps nothing on its members; leave out the policy, and the bare member"
    )]
    Rebuild,
    /// More memory than there is.
    #[error(
        "the members and their buffers need {wanted} MiB, and {free} MiB are free; make members smaller or fewer, or free memory"
    )]
    Memory {
        /// MiB needed.
        wanted: u64,
        /// MiB free.
        free: u64,
    },
    /// More drivers than reactors.
    #[error("{drivers} cores can't make requests where there are {cores}; give 1 to {cores}")]
    Drivers {
        /// Cores that should make requests.
        drivers: usize,
        /// Cores that there are.
        cores: usize,
    },
    /// The sequence of requests makes no sense.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A member can't be made.
    #[error(transparent)]
    Member(#[from] CreateError),
    /// No memory for the engine.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No memory for the payloads.
    #[error("no memory for the payloads: {0}; use fewer or smaller requests")]
    Payloads(#[from] PoolError),
    /// The members have no room for md's metadata and data.
    #[error("an array with this policy can't be made: {0}")]
    Created(#[from] md::CreateError),
    /// Metadata that the engine can't keep.
    #[error(transparent)]
    Assembled(#[from] AssembledError),
    /// The array can't be made.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The cores can't be had.
    #[error(transparent)]
    Cores(#[from] CoreMaskError),
    /// The reactors can't be started, or one of them has ended early.
    #[error(transparent)]
    Reactors(#[from] ReactorError),
    /// Requests that never came back: a defect.
    #[error("requests were not done {} s after the end; this is a bug, please report it", .0.as_secs())]
    Stuck(Duration),
}
