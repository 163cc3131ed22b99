//! The superblock of one member: what it says of the array, of this member, and of the others.

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Features, PAGE, SECTOR, SetName, Time};

/// The first word of every superblock.
pub const MAGIC: u32 = 0xa92b_4efc;
/// Bytes of a superblock before its table of roles.
pub const FIXED_BYTES: usize = 256;
/// The most roles that fit into the 4 KiB of a superblock.
pub const MAX_DEVICES: usize = (PAGE - FIXED_BYTES) / 2;
/// `resync_offset` of an array whose parity is right everywhere.
pub const IN_SYNC: u64 = u64::MAX;

/// Where a superblock lies: the minor number of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Minor {
    /// 1.0: near the end, 8 to 12 KiB before it, at a multiple of 4 KiB.
    V0,
    /// 1.1: at the start.
    V1,
    /// 1.2: 4 KiB behind the start.
    V2,
}

impl Minor {
    /// In the order in which to look for a superblock.
    pub const ALL: [Minor; 3] = [Minor::V2, Minor::V1, Minor::V0];

    /// The sector at which the superblock of a device of `device_sectors` starts; `None` if the device is
    /// too small to have one there.
    pub fn offset(self, device_sectors: u64) -> Option<u64> {
        let page = (PAGE as u64) / SECTOR;
        let at = match self {
            Minor::V0 => device_sectors.checked_sub(2 * page)? & !(page - 1),
            Minor::V1 => 0,
            Minor::V2 => page,
        };
        (at + page <= device_sectors).then_some(at)
    }

    /// The number behind the point.
    pub fn number(self) -> u8 {
        match self {
            Minor::V0 => 0,
            Minor::V1 => 1,
            Minor::V2 => 2,
        }
    }
}

/// How the array learns, after a crash, where parity may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It does not: everything is read and put right.
    Resync,
    /// A write-intent bitmap says which parts.
    Bitmap {
        /// Where it starts: sectors from the start of the superblock, negative if before it.
        offset: i32,
    },
    /// A partial parity log on each member says which blocks, and what is needed to put them right even
    /// with a member lost.
    Ppl {
        /// Where the log starts: sectors from the start of the superblock, negative if before it.
        offset: i16,
        /// Sectors of the log.
        size: u16,
        /// Whether the log is a ring of several headers (feature 2048), or has one place only (1024).
        multiple: bool,
    },
}

impl Policy {
    const FEATURES: Features = Features::BITMAP
        .with(Features::PPL)
        .with(Features::MULTIPLE_PPLS);

    /// The bits of the feature map that say so.
    pub fn features(self) -> Features {
        match self {
            Policy::Resync => Features(0),
            Policy::Bitmap { .. } => Features::BITMAP,
            Policy::Ppl {
                multiple: false, ..
            } => Features::PPL,
            Policy::Ppl { multiple: true, .. } => Features::MULTIPLE_PPLS,
        }
    }

    /// The four bytes that hold the place, in either meaning.
    fn to_field(self) -> [u8; 4] {
        match self {
            Policy::Resync => [0; 4],
            Policy::Bitmap { offset } => offset.to_le_bytes(),
            Policy::Ppl { offset, size, .. } => {
                let ([a, b], [c, d]) = (offset.to_le_bytes(), size.to_le_bytes());
                [a, b, c, d]
            }
        }
    }

    fn from_field(features: Features, [a, b, c, d]: [u8; 4]) -> Result<Self, SuperblockError> {
        let ppl = features.intersects(Features::PPL.with(Features::MULTIPLE_PPLS));
        let multiple = features.contains(Features::MULTIPLE_PPLS);
        if multiple && features.contains(Features::PPL) {
            return Err(SuperblockError::Contradiction(
                "it has a single and a multiple partial parity log",
            ));
        }
        if ppl && features.contains(Features::BITMAP) {
            return Err(SuperblockError::Contradiction(
                "it has a bitmap and a partial parity log in one place",
            ));
        }
        if ppl && features.contains(Features::JOURNAL) {
            return Err(SuperblockError::Contradiction(
                "it has a journal and a partial parity log",
            ));
        }
        Ok(if features.contains(Features::BITMAP) {
            Policy::Bitmap {
                offset: i32::from_le_bytes([a, b, c, d]),
            }
        } else if ppl {
            Policy::Ppl {
                offset: i16::from_le_bytes([a, b]),
                size: u16::from_le_bytes([c, d]),
                multiple,
            }
        } else {
            Policy::Resync
        })
    }
}

/// What the array is changing into; means something only with [`Features::RESHAPE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reshape {
    /// `new_level`.
    pub level: i32,
    /// `reshape_position`: the next sector of the array to move.
    pub position: u64,
    /// `delta_disks`: how many members more.
    pub delta_disks: i32,
    /// `new_layout`.
    pub layout: u32,
    /// `new_chunk` in sectors.
    pub chunk: u32,
    /// `new_offset`: sectors by which the data of this member moves.
    pub offset: i32,
}

/// Where the bad-block log of this member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadBlockLog {
    /// `bblog_shift`: a unit of the log is 2^shift sectors.
    pub shift: u8,
    /// `bblog_size` in sectors.
    pub size: u16,
    /// `bblog_offset`: sectors from the start of the superblock; 0 if there is no log.
    pub offset: i32,
}

/// What a device is to the array: an entry of `dev_roles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member in this slot, being rebuilt or not.
    Slot(u16),
    /// A journal device (0xfffd).
    Journal,
    /// Has failed (0xfffe).
    Faulty,
    /// Waits to be used (0xffff). Also what a device is that the table does not name.
    Spare,
    /// A number between the slots and the special ones, without a meaning.
    Unknown(u16),
}

impl Role {
    /// First number that is not a slot (`MD_DISK_ROLE_MAX`).
    const SLOTS: u16 = 0xff00;

    /// The number on disk.
    pub fn number(self) -> u16 {
        match self {
            Role::Slot(number) | Role::Unknown(number) => number,
            Role::Journal => 0xfffd,
            Role::Faulty => 0xfffe,
            Role::Spare => 0xffff,
        }
    }

    /// The meaning of a number on disk.
    pub fn from_number(number: u16) -> Self {
        match number {
            0xffff => Role::Spare,
            0xfffe => Role::Faulty,
            0xfffd => Role::Journal,
            slot if slot < Self::SLOTS => Role::Slot(slot),
            other => Role::Unknown(other),
        }
    }
}

/// The superblock of one member (`mdp_superblock_1`). Reading one and writing it again gives the same
/// bytes, except for the place of a bitmap or log where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// `feature_map` without bits 1, 1024 and 2048: [`policy`](Self::policy) stands for those. All of them
    /// are in [`feature_map`](Self::feature_map).
    pub features: Features,
    /// `set_uuid`: identity of the array.
    pub set_uuid: Uuid,
    /// `set_name`.
    pub set_name: SetName,
    /// `ctime`: when the array was made.
    pub created: Time,
    /// `level`: 5 for RAID5.
    pub level: i32,
    /// `layout`, in md's numbers.
    pub layout: u32,
    /// `size`: sectors of each member that the array uses.
    pub size: u64,
    /// `chunksize` in sectors.
    pub chunk: u32,
    /// `raid_disks`: slots.
    pub raid_disks: u32,
    /// The consistency policy, with the place of what it needs.
    pub policy: Policy,
    /// A change of shape under way.
    pub reshape: Reshape,
    /// `data_offset`: first sector of the data.
    pub data_offset: u64,
    /// `data_size`: sectors that can hold data.
    pub data_size: u64,
    /// `super_offset`: the sector that this superblock is on.
    pub super_offset: u64,
    /// `recovery_offset`: sectors of the data that are rebuilt; means something only with
    /// [`Features::RECOVERY_OFFSET`]. On a journal device it is the journal's tail.
    pub recovery_offset: u64,
    /// `dev_number`: which entry of the table of roles is this member's. Never changes.
    pub dev_number: u32,
    /// `cnt_corrected_read`: read errors that were mended by writing.
    pub corrected_reads: u32,
    /// `device_uuid`: identity of this member.
    pub device_uuid: Uuid,
    /// `devflags`: 1 write-mostly, 2 fail-fast.
    pub devflags: u8,
    /// The bad-block log.
    pub bad_block_log: BadBlockLog,
    /// `utime`: when the superblock was written last.
    pub updated: Time,
    /// `events`: grows with every write of the superblock.
    pub events: u64,
    /// `resync_offset`: sectors of the members whose parity is right; [`IN_SYNC`] if all. 0 while an array
    /// is written to.
    pub resync_offset: u64,
    /// `logical_block_size` of the array in bytes; 0 if the superblock does not say.
    pub logical_block_size: u32,
    /// `dev_roles`, by device number.
    pub roles: Vec<u16>,
}

/// Bytes that are no superblock, or not one to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Not as many bytes as the superblock has.
    #[error("a superblock of {needed} bytes was cut off after {got}; read 4096 bytes")]
    Short {
        /// Bytes that it has, as far as known.
        needed: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// Something else lies there.
    #[error("no md superblock here: the first word is {0:#010x}, not 0xa92b4efc")]
    Magic(u32),
    /// Version 0.90, or one to come.
    #[error("superblock version {0} is not known; only version 1 arrays can be used")]
    Version(u32),
    /// The table of roles is longer than the space for it.
    #[error("the superblock has {0} roles, more than the 1920 possible; it is damaged")]
    TooManyDevices(u32),
    /// Damaged, or half written.
    #[error(
        "the superblock is damaged: its checksum is {stored:#010x}, that of its bytes {computed:#010x}; assemble without this member, then add it again"
    )]
    Checksum {
        /// The one on disk.
        stored: u32,
        /// The right one.
        computed: u32,
    },
    /// A newer md may have put something there.
    #[error(
        "the superblock has values where zeros are expected, perhaps of a newer md; use the md that made it"
    )]
    Padding,
    /// Features that exclude each other.
    #[error("the superblock contradicts itself: {0}; repair it with mdadm")]
    Contradiction(&'static str),
    /// The place for data is less than any array needs.
    #[error("the superblock leaves {0} sectors for data, less than the 10 that md needs")]
    DataSize(u64),
    /// The data would overwrite the superblock.
    #[error(
        "the data starts at sector {data_offset}, inside the superblock, which ends at {end}; repair it with mdadm"
    )]
    DataOffset {
        /// Where it starts.
        data_offset: u64,
        /// The first sector behind the superblock.
        end: u64,
    },
}

/// The fixed part, byte for byte.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: U32,
    major_version: U32,
    feature_map: U32,
    pad0: U32,
    set_uuid: [u8; 16],
    set_name: [u8; 32],
    ctime: U64,
    level: U32,
    layout: U32,
    size: U64,
    chunksize: U32,
    raid_disks: U32,
    bitmap_or_ppl: [u8; 4],
    new_level: U32,
    reshape_position: U64,
    delta_disks: U32,
    new_layout: U32,
    new_chunk: U32,
    new_offset: U32,
    data_offset: U64,
    data_size: U64,
    super_offset: U64,
    recovery_offset: U64,
    dev_number: U32,
    cnt_corrected_read: U32,
    device_uuid: [u8; 16],
    devflags: u8,
    bblog_shift: u8,
    bblog_size: U16,
    bblog_offset: U32,
    utime: U64,
    events: U64,
    resync_offset: U64,
    sb_csum: U32,
    max_dev: U32,
    logical_block_size: U32,
    pad3: [u8; 28],
}

const _: () = {
    assert!(size_of::<Raw>() == FIXED_BYTES);
    assert!(std::mem::offset_of!(Raw, bitmap_or_ppl) == 96);
    assert!(std::mem::offset_of!(Raw, data_offset) == 128);
    assert!(std::mem::offset_of!(Raw, utime) == 192);
    assert!(std::mem::offset_of!(Raw, sb_csum) == CHECKSUM_AT);
};

const CHECKSUM_AT: usize = 216;

/// The sum of all words with the checksum taken as 0, its upper half added to its lower.
fn checksum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(4);
    let mut sum: u64 = words
        .by_ref()
        .map(|w| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    if let [low, high] = *words.remainder() {
        sum += u64::from(u16::from_le_bytes([low, high]));
    }
    let stored = U32::read_from_bytes(&bytes[CHECKSUM_AT..CHECKSUM_AT + 4]).map_or(0, U32::get);
    sum -= u64::from(stored);
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

impl Superblock {
    /// Reads a superblock from the start of `bytes`; what lies behind it is not looked at. 4096 bytes are
    /// always enough.
    ///
    /// As the kernel does on loading one, this checks the magic, the version, the checksum, the padding,
    /// features that exclude each other, and that the data is not inside the superblock. Unlike the kernel,
    /// it takes features that it does not know: [`support`](Self::support) refuses those.
    ///
    /// # Errors
    /// [`SuperblockError`], if there is none or it can't be trusted.
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let short = |needed| SuperblockError::Short {
            needed,
            got: bytes.len(),
        };
        let (raw, rest) = Raw::ref_from_prefix(bytes).map_err(|_| short(FIXED_BYTES))?;
        if raw.magic.get() != MAGIC {
            return Err(SuperblockError::Magic(raw.magic.get()));
        }
        if raw.major_version.get() != 1 {
            return Err(SuperblockError::Version(raw.major_version.get()));
        }
        let devices = raw.max_dev.get() as usize;
        if devices > MAX_DEVICES {
            return Err(SuperblockError::TooManyDevices(raw.max_dev.get()));
        }
        let length = FIXED_BYTES + 2 * devices;
        let roles = rest.get(..2 * devices).ok_or_else(|| short(length))?;
        let computed = checksum(&bytes[..length]);
        if raw.sb_csum.get() != computed {
            return Err(SuperblockError::Checksum {
                stored: raw.sb_csum.get(),
                computed,
            });
        }
        if raw.pad0.get() != 0 || raw.pad3 != [0; 28] {
            return Err(SuperblockError::Padding);
        }
        let features = Features(raw.feature_map.get());
        let roles = roles.chunks_exact(2);
        let superblock = Self {
            features: features.without(Policy::FEATURES),
            set_uuid: Uuid::from_bytes(raw.set_uuid),
            set_name: SetName::from_bytes(raw.set_name),
            created: Time(raw.ctime.get()),
            level: raw.level.get().cast_signed(),
            layout: raw.layout.get(),
            size: raw.size.get(),
            chunk: raw.chunksize.get(),
            raid_disks: raw.raid_disks.get(),
            policy: Policy::from_field(features, raw.bitmap_or_ppl)?,
            reshape: Reshape {
                level: raw.new_level.get().cast_signed(),
                position: raw.reshape_position.get(),
                delta_disks: raw.delta_disks.get().cast_signed(),
                layout: raw.new_layout.get(),
                chunk: raw.new_chunk.get(),
                offset: raw.new_offset.get().cast_signed(),
            },
            data_offset: raw.data_offset.get(),
            data_size: raw.data_size.get(),
            super_offset: raw.super_offset.get(),
            recovery_offset: raw.recovery_offset.get(),
            dev_number: raw.dev_number.get(),
            corrected_reads: raw.cnt_corrected_read.get(),
            device_uuid: Uuid::from_bytes(raw.device_uuid),
            devflags: raw.devflags,
            bad_block_log: BadBlockLog {
                shift: raw.bblog_shift,
                size: raw.bblog_size.get(),
                offset: raw.bblog_offset.get().cast_signed(),
            },
            updated: Time(raw.utime.get()),
            events: raw.events.get(),
            resync_offset: raw.resync_offset.get(),
            logical_block_size: raw.logical_block_size.get(),
            roles: roles.map(|r| u16::from_le_bytes([r[0], r[1]])).collect(),
        };
        superblock.check_data()?;
        Ok(superblock)
    }

    fn check_data(&self) -> Result<(), SuperblockError> {
        if self.data_size < 10 {
            return Err(SuperblockError::DataSize(self.data_size));
        }
        if self.features.contains(Features::RAID0_LAYOUT) && self.level != 0 {
            return Err(SuperblockError::Contradiction(
                "it has a layout of RAID0, but another level",
            ));
        }
        let end = self.super_offset.saturating_add(self.sectors());
        if self.minor() != Minor::V0 && self.data_offset < end {
            return Err(SuperblockError::DataOffset {
                data_offset: self.data_offset,
                end,
            });
        }
        Ok(())
    }

    /// Bytes of this superblock: 256, and 2 for each role. At most 4096 on what was read or made.
    pub fn bytes(&self) -> usize {
        FIXED_BYTES + 2 * self.roles.len()
    }

    /// Whole sectors of this superblock.
    pub fn sectors(&self) -> u64 {
        (self.bytes() as u64).div_ceil(SECTOR)
    }

    /// Which minor version it is, by the place that it names.
    pub fn minor(&self) -> Minor {
        match self.super_offset {
            0 => Minor::V1,
            8 => Minor::V2,
            _ => Minor::V0,
        }
    }

    /// The feature map as it is written: with the bits of the policy.
    pub fn feature_map(&self) -> Features {
        self.features
            .without(Policy::FEATURES)
            .with(self.policy.features())
    }

    /// The role of the device of this number.
    pub fn role_of(&self, dev_number: u32) -> Role {
        let role = self.roles.get(dev_number as usize);
        role.map_or(Role::Spare, |&number| Role::from_number(number))
    }

    /// The role of this member.
    pub fn role(&self) -> Role {
        self.role_of(self.dev_number)
    }

    /// Sectors of this member that are rebuilt, if it is being rebuilt.
    pub fn recovering(&self) -> Option<u64> {
        let recovering = self.features.contains(Features::RECOVERY_OFFSET);
        recovering.then_some(self.recovery_offset)
    }

    /// The first device number of each slot, `None` where no device has it.
    pub fn slots(&self) -> Vec<Option<u32>> {
        let mut slots = vec![None; (self.raid_disks as usize).min(MAX_DEVICES)];
        for (number, &role) in self.roles.iter().enumerate().rev() {
            if let Some(slot) = slots.get_mut(usize::from(role)) {
                *slot = Some(number as u32);
            }
        }
        slots
    }

    /// Writes the superblock with its checksum to the start of `bytes`, and leaves the rest as it is.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`bytes`](Self::bytes).
    pub fn write(&self, bytes: &mut [u8]) {
        let mut raw = Raw::new_zeroed();
        raw.magic = MAGIC.into();
        raw.major_version = 1.into();
        raw.feature_map = self.feature_map().0.into();
        raw.set_uuid = *self.set_uuid.as_bytes();
        raw.set_name = self.set_name.to_bytes();
        raw.ctime = self.created.0.into();
        raw.level = self.level.cast_unsigned().into();
        raw.layout = self.layout.into();
        raw.size = self.size.into();
        raw.chunksize = self.chunk.into();
        raw.raid_disks = self.raid_disks.into();
        raw.bitmap_or_ppl = self.policy.to_field();
        raw.new_level = self.reshape.level.cast_unsigned().into();
        raw.reshape_position = self.reshape.position.into();
        raw.delta_disks = self.reshape.delta_disks.cast_unsigned().into();
        raw.new_layout = self.reshape.layout.into();
        raw.new_chunk = self.reshape.chunk.into();
        raw.new_offset = self.reshape.offset.cast_unsigned().into();
        raw.data_offset = self.data_offset.into();
        raw.data_size = self.data_size.into();
        raw.super_offset = self.super_offset.into();
        raw.recovery_offset = self.recovery_offset.into();
        raw.dev_number = self.dev_number.into();
        raw.cnt_corrected_read = self.corrected_reads.into();
        raw.device_uuid = *self.device_uuid.as_bytes();
        raw.devflags = self.devflags;
        raw.bblog_shift = self.bad_block_log.shift;
        raw.bblog_size = self.bad_block_log.size.into();
        raw.bblog_offset = self.bad_block_log.offset.cast_unsigned().into();
        raw.utime = self.updated.0.into();
        raw.events = self.events.into();
        raw.resync_offset = self.resync_offset.into();
        raw.max_dev = (self.roles.len() as u32).into();
        raw.logical_block_size = self.logical_block_size.into();

        let (fixed, rest) = bytes.split_at_mut(FIXED_BYTES);
        fixed.copy_from_slice(raw.as_bytes());
        for (place, role) in rest.chunks_exact_mut(2).zip(&self.roles) {
            place.copy_from_slice(&role.to_le_bytes());
        }
        let sum = checksum(&bytes[..self.bytes()]);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// The checksum that it is written with.
    pub fn checksum(&self) -> u32 {
        checksum(&self.to_bytes())
    }

    /// The superblock with its checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes()];
        self.write(&mut bytes);
        bytes
    }
}
