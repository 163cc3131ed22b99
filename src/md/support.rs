//! Which arrays Stripewise can run.

use super::{Features, Role, Superblock};

/// Something that a superblock asks for and we do not have. Each names it, and what can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Features of a newer md.
    #[error(
        "the array uses features that are not known (bits {0:#x} of the feature map); use the md that made it"
    )]
    Features(u32),
    /// Not RAID5.
    #[error("the array has RAID level {0}; only level 5 is supported")]
    Level(i32),
    /// Not one of the six of RAID5.
    #[error("layout {0} of RAID5 is not supported; the layouts are 0 to 5")]
    Layout(u32),
    /// A change of shape has been begun.
    #[error("a reshape is in progress; let mdadm finish it, then start the array again")]
    Reshape,
    /// A write journal.
    #[error(
        "the array has a write journal; start it with mdadm and remove the journal (mdadm --grow --consistency-policy=resync)"
    )]
    Journal,
    /// Shared by a cluster.
    #[error(
        "the array belongs to a cluster; remove the clustered bitmap with mdadm (--grow --bitmap=none) first"
    )]
    Clustered,
    /// A chunk out of range.
    #[error(
        "a chunk of {0} sectors is not supported; it must be a power of two from 8 (4 KiB) to 2048 (1 MiB)"
    )]
    Chunk(u32),
    /// Too few or too many slots.
    #[error("the array has {0} members; 3 to 64 are supported")]
    Members(u32),
    /// Less than a chunk of each member is used, or more than there is.
    #[error(
        "the array uses {size} sectors of each member, and this one has {data_size} for data; the superblock must be repaired with mdadm"
    )]
    Size {
        /// Sectors used of each member.
        size: u64,
        /// Sectors that this member has for data.
        data_size: u64,
    },
    /// A block that no device has.
    #[error("the array has blocks of {0} bytes; 512 and 4096 are supported")]
    LogicalBlock(u32),
    /// A bitmap that we do not keep.
    #[error(
        "the array has a bitmap of version {0}; replace it with mdadm (--grow --bitmap=none, then --bitmap=internal)"
    )]
    BitmapVersion(u32),
    /// Units of the bad-block log that would not be exact.
    #[error(
        "the bad-block log counts in units of 2^{0} sectors; only sectors are supported, remake it with mdadm (--assemble --update=no-bbl, then --update=bbl)"
    )]
    BadBlockShift(u8),
}

impl Superblock {
    /// Whether we can run the array that this superblock describes.
    ///
    /// # Errors
    /// The first thing that we do not have.
    pub fn support(&self) -> Result<(), Unsupported> {
        let features = self.feature_map();
        if features.unknown() != 0 {
            return Err(Unsupported::Features(features.unknown()));
        }
        if self.level != 5 {
            return Err(Unsupported::Level(self.level));
        }
        let reshape = Features::RESHAPE
            .with(Features::RESHAPE_BACKWARDS)
            .with(Features::NEW_OFFSET);
        if features.intersects(reshape) {
            return Err(Unsupported::Reshape);
        }
        if features.contains(Features::JOURNAL) || self.role() == Role::Journal {
            return Err(Unsupported::Journal);
        }
        if features.contains(Features::CLUSTERED) {
            return Err(Unsupported::Clustered);
        }
        if self.layout > 5 {
            return Err(Unsupported::Layout(self.layout));
        }
        if !(8..=2048).contains(&self.chunk) || !self.chunk.is_power_of_two() {
            return Err(Unsupported::Chunk(self.chunk));
        }
        if !(3..=64).contains(&self.raid_disks) {
            return Err(Unsupported::Members(self.raid_disks));
        }
        if self.size < u64::from(self.chunk) || self.size > self.data_size {
            return Err(Unsupported::Size {
                size: self.size,
                data_size: self.data_size,
            });
        }
        if ![0, 512, 4096].contains(&self.logical_block_size) {
            return Err(Unsupported::LogicalBlock(self.logical_block_size));
        }
        if self.bad_block_log.shift != 0 {
            return Err(Unsupported::BadBlockShift(self.bad_block_log.shift));
        }
        Ok(())
    }
}
