//! The header of a write-intent bitmap, and whether what follows it may be believed.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Superblock, Unsupported};

/// The first word: "bitm".
pub const MAGIC: u32 = 0x6d74_6962;
/// Bytes of the header. The bits follow at once.
pub const HEADER_BYTES: usize = 256;

/// Bits that the machine's own byte order gave a place; the same as [`VERSION`] on little-endian ones.
pub const VERSION_HOST_ENDIAN: u32 = 3;
/// Bits in little-endian order: what mdadm makes.
pub const VERSION: u32 = 4;
/// A bitmap for each node of a cluster.
pub const VERSION_CLUSTERED: u32 = 5;
/// A byte instead of a bit for each chunk.
pub const VERSION_LOCKLESS: u32 = 6;

/// `state`: the bitmap missed writes and is worth nothing.
pub const STATE_STALE: u32 = 1 << 1;
/// `state`: the bitmap could not be written.
pub const STATE_WRITE_ERROR: u32 = 1 << 2;

/// The header (`bitmap_super_t`). Reading one and writing it again gives the same bytes, except for its
/// unused end, which becomes zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapHeader {
    /// `version`.
    pub version: u32,
    /// `uuid`: that of the array.
    pub uuid: Uuid,
    /// `events` of the superblock that was written after this header.
    pub events: u64,
    /// `events_cleared`: events when a bit was cleared last. A member that is older than this may have
    /// missed writes whose bits are gone.
    pub events_cleared: u64,
    /// `sync_size`: sectors of a member that the bits stand for.
    pub sync_size: u64,
    /// `state`: [`STATE_STALE`], [`STATE_WRITE_ERROR`].
    pub state: u32,
    /// `chunksize`: bytes of a member that a bit stands for.
    pub chunk_bytes: u32,
    /// `daemon_sleep`: seconds between looks for bits that can be cleared.
    pub daemon_sleep: u32,
    /// `write_behind`: writes that may be under way to write-mostly members; 0 for RAID5.
    pub write_behind: u32,
    /// `sectors_reserved` for header and bits; 0 if not said.
    pub sectors_reserved: u32,
    /// `nodes` of the cluster; 0 if there is none.
    pub nodes: u32,
    /// `cluster_name`.
    pub cluster_name: [u8; 64],
}

/// A bitmap that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitmapError {
    /// Fewer bytes than the header and its bits need.
    #[error("the bitmap needs {needed} bytes, and there are {got}; remake it (mdadm --grow)")]
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        got: u64,
    },
    /// Something else lies there.
    #[error(
        "no bitmap where the superblock says: the first word is {0:#010x}, not 0x6d746962; start without this member, or remake the bitmap (mdadm --assemble --update=no-bitmap)"
    )]
    Magic(u32),
    /// A version that nobody has defined.
    #[error("the bitmap has version {0}, which is not known; use the md that made it")]
    Version(u32),
    /// It is the bitmap of another array.
    #[error("the bitmap belongs to the array {found}, not to {wanted}; remake it (mdadm --grow)")]
    Uuid {
        /// The identity in the bitmap.
        found: Uuid,
        /// The identity in the superblock.
        wanted: Uuid,
    },
    /// A field out of range.
    #[error("the bitmap's {field} is {value}, out of range; remake it (mdadm --grow)")]
    Range {
        /// md's name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A kind of bitmap that we do not keep.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// What the bits are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// They are right.
    Current,
    /// The array was written to without them: each bit has to be taken as set.
    Stale,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: U32,
    uuid: [u8; 16],
    events: U64,
    events_cleared: U64,
    sync_size: U64,
    state: U32,
    chunksize: U32,
    daemon_sleep: U32,
    write_behind: U32,
    sectors_reserved: U32,
    nodes: U32,
    cluster_name: [u8; 64],
    pad: [u8; 120],
}

const _: () = {
    assert!(size_of::<Raw>() == HEADER_BYTES);
    assert!(std::mem::offset_of!(Raw, events) == 24);
    assert!(std::mem::offset_of!(Raw, cluster_name) == 72);
};

/// The most writes that md can have under way to write-mostly members.
const WRITE_BEHIND_MAX: u32 = 16383;

impl BitmapHeader {
    /// The header of a new bitmap for the array of `superblock`, with md's defaults for the rest.
    pub fn new(superblock: &Superblock, chunk_bytes: u32, sectors_reserved: u32) -> Self {
        Self {
            version: VERSION,
            uuid: superblock.set_uuid,
            events: superblock.events,
            events_cleared: superblock.events,
            sync_size: superblock.size,
            state: 0,
            chunk_bytes,
            daemon_sleep: 5,
            write_behind: 0,
            sectors_reserved,
            nodes: 0,
            cluster_name: [0; 64],
        }
    }

    /// Reads a header from the start of `bytes`. Checks what the kernel checks, except for what concerns
    /// the superblock; that is [`check`](Self::check).
    ///
    /// # Errors
    /// [`BitmapError`], if there is no header or it makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, BitmapError> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| BitmapError::Short {
            needed: HEADER_BYTES as u64,
            got: bytes.len() as u64,
        })?;
        if raw.magic.get() != MAGIC {
            return Err(BitmapError::Magic(raw.magic.get()));
        }
        let header = Self {
            version: raw.version.get(),
            uuid: Uuid::from_bytes(raw.uuid),
            events: raw.events.get(),
            events_cleared: raw.events_cleared.get(),
            sync_size: raw.sync_size.get(),
            state: raw.state.get(),
            chunk_bytes: raw.chunksize.get(),
            daemon_sleep: raw.daemon_sleep.get(),
            write_behind: raw.write_behind.get(),
            sectors_reserved: raw.sectors_reserved.get(),
            nodes: raw.nodes.get(),
            cluster_name: raw.cluster_name,
        };
        header.check_fields()?;
        Ok(header)
    }

    fn check_fields(&self) -> Result<(), BitmapError> {
        let range = |field, value| {
            Err(BitmapError::Range {
                field,
                value: u64::from(value),
            })
        };
        if !(VERSION_HOST_ENDIAN..=VERSION_LOCKLESS).contains(&self.version) {
            return Err(BitmapError::Version(self.version));
        }
        if self.chunk_bytes < 512 || !self.chunk_bytes.is_power_of_two() {
            return range("chunksize", self.chunk_bytes);
        }
        if self.daemon_sleep == 0 {
            return range("daemon_sleep", 0);
        }
        if self.write_behind > WRITE_BEHIND_MAX {
            return range("write_behind", self.write_behind);
        }
        Ok(())
    }

    /// Whether this is the bitmap of the array of `superblock`, and what its bits are worth.
    ///
    /// # Errors
    /// [`BitmapError`] if it is another array's, or of a kind that we do not keep.
    pub fn check(&self, superblock: &Superblock) -> Result<Freshness, BitmapError> {
        let foreign_order = self.version == VERSION_HOST_ENDIAN && cfg!(target_endian = "big");
        if self.version > VERSION || foreign_order {
            return Err(Unsupported::BitmapVersion(self.version).into());
        }
        if self.uuid != superblock.set_uuid {
            return Err(BitmapError::Uuid {
                found: self.uuid,
                wanted: superblock.set_uuid,
            });
        }
        let missed = self.state & (STATE_STALE | STATE_WRITE_ERROR) != 0;
        Ok(if missed || self.events < superblock.events {
            Freshness::Stale
        } else {
            Freshness::Current
        })
    }

    /// Writes the header to the first 256 bytes of `bytes`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn write(&self, bytes: &mut [u8]) {
        let mut raw = Raw::new_zeroed();
        raw.magic = MAGIC.into();
        raw.version = self.version.into();
        raw.uuid = *self.uuid.as_bytes();
        raw.events = self.events.into();
        raw.events_cleared = self.events_cleared.into();
        raw.sync_size = self.sync_size.into();
        raw.state = self.state.into();
        raw.chunksize = self.chunk_bytes.into();
        raw.daemon_sleep = self.daemon_sleep.into();
        raw.write_behind = self.write_behind.into();
        raw.sectors_reserved = self.sectors_reserved.into();
        raw.nodes = self.nodes.into();
        raw.cluster_name = self.cluster_name;
        bytes[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
    }
}
