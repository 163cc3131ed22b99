//! Why a volume can't be made or changed.

/// Each names the thing and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// Too few or too many members.
    #[error("RAID5 needs 3 to 64 members, not {0}")]
    Members(usize),
    /// Not a power of two, or out of range.
    #[error("a chunk of {0} bytes is not possible; use a power of two from 4 KiB to 1 MiB")]
    Chunk(u32),
    /// Not a power of two, or out of range.
    #[error(
        "a stripe of {stripe} bytes is not possible; use a power of two from 4 KiB to the chunk of {chunk} bytes"
    )]
    Stripe {
        /// The stripe asked for, in bytes.
        stripe: u32,
        /// The chunk, in bytes.
        chunk: u32,
    },
    /// A run of no rows.
    #[error("a shard run of 0 rows is not possible; use 1 or more")]
    ShardRun,
    /// How stripes are to be gathered is out of range.
    #[error("batching: {0}")]
    Batching(String),
    /// The smallest member holds no row.
    #[error(
        "the smallest member has {bytes} bytes, less than one chunk of {chunk}; use larger members or a smaller chunk"
    )]
    TooSmall {
        /// Bytes of the smallest member.
        bytes: u64,
        /// The chunk, in bytes.
        chunk: u32,
    },
    /// A block size that is neither 512 nor 4096.
    #[error("member {name} has blocks of {block_bytes} bytes; members need 512 or 4096")]
    BlockSize {
        /// The member.
        name: String,
        /// Its block in bytes.
        block_bytes: u32,
    },
    /// Members whose blocks differ.
    #[error(
        "member {name} has blocks of {found} bytes, the others {wanted}; use members of one block size"
    )]
    MixedBlocks {
        /// The member.
        name: String,
        /// Its block in bytes.
        found: u32,
        /// The block of the others.
        wanted: u32,
    },
    /// One device in two slots.
    #[error("member {0} is named twice; each slot needs a device of its own")]
    Twice(String),
    /// More than one slot is empty.
    #[error("{missing} of {members} members are missing; RAID5 can start without one at most")]
    TooManyMissing {
        /// Slots without a device.
        missing: usize,
        /// Slots in all.
        members: usize,
    },
    /// A new member is smaller than the part of a member that the array uses.
    #[error("member {name} has {bytes} bytes; this array needs {needed}")]
    MemberTooSmall {
        /// The device.
        name: String,
        /// Its bytes.
        bytes: u64,
        /// Bytes used on every member.
        needed: u64,
    },
    /// No member of this name.
    #[error("{0} is not a member of this volume; bdev_raid_get_bdevs lists them")]
    NoSuchMember(String),
    /// Removing it would lose data.
    #[error(
        "without {0} data would be lost, because another member is missing or being rebuilt; add a member and let it be rebuilt first"
    )]
    LastRedundancy(String),
    /// A partial parity log that can't hold what a stripe needs.
    #[error(
        "a partial parity log of {sectors} sectors has no room for a stripe of {stripe} bytes, or does not begin with a block; use smaller stripes, or make the log larger with mdadm"
    )]
    Log {
        /// Sectors of 512 bytes of the log.
        sectors: u16,
        /// Bytes of a stripe on each member.
        stripe: u32,
    },
    /// A new member without a partial parity log, in an array with that policy.
    #[error(
        "member {0} has no partial parity log, or one that is too small; this array needs one on every member"
    )]
    NoLog(String),
    /// Every slot has a member.
    #[error("every slot has a member; remove one first")]
    NoFreeSlot,
    /// A change of members is under way.
    #[error("another change of members is under way; try again when it is done")]
    Changing,
    /// A process is under way.
    #[error("a {0} is under way; wait until it is done, or stop it first")]
    Busy(&'static str),
    /// A check of an array that is not in sync.
    #[error(
        "there is nothing to compare while a member is missing or parity is being made; check again when the volume is in sync"
    )]
    NothingToCompare,
    /// Blocks can only be told from parity that may not match.
    #[error(
        "a member is missing and parity may not match what is left, so that a rebuild might make up data; bring the member back, or accept parity as it is"
    )]
    Doubtful,
    /// A replacement in an array without full redundancy.
    #[error(
        "a member can be replaced only while all are there and in sync; add the new device as a member, or wait for the process under way"
    )]
    NotWhole,
    /// A replacement in the largest of arrays.
    #[error(
        "an array of 64 members has no place for one more; remove the member, and add the new one"
    )]
    NoPlace,
    /// Nothing to accept.
    #[error("there is no doubt about parity that could be accepted")]
    NotDoubtful,
    /// The volume has lost too many members.
    #[error("the volume is offline, because two members are lost; delete it and create it anew")]
    Offline,
    /// The volume has gone before a change was made.
    #[error("the volume was deleted before the change was made")]
    Ended,
    /// A device could not be opened on a reactor.
    #[error("member {name} cannot be opened: {reason}")]
    Open {
        /// The device.
        name: String,
        /// Why.
        reason: String,
    },
    /// No memory for stripes.
    #[error("no memory for the stripe cache: {0}")]
    Memory(String),
    /// The reactors did not answer in time.
    #[error("the reactors did not answer within {0} seconds; the change may still take effect")]
    Timeout(u64),
}
