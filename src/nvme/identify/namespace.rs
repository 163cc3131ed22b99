//! Identify Namespace: of the NVM command set (CNS 00h, NVM 4.1.5.1; CNS 05h, NVM 4.1.5.3), and independent of it
//! (CNS 08h, Base 5.17.2.8).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One format that a namespace can have.
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[repr(C)]
pub struct LbaFormat {
    /// Metadata bytes a block.
    pub ms: U16,
    /// Data bytes a block, 2^n; 9 or more.
    pub lbads: u8,
    /// Relative performance, 0 best to 3 degraded.
    pub rp: u8,
}

layout!(LbaFormat, 4 bytes, { ms at 0, lbads at 2, rp at 3 });

/// Identify Namespace. Field names are the specification's; counts marked 0's based are one less than they say.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size in blocks.
    pub nsze: U64,
    /// Blocks that may be allocated at once.
    pub ncap: U64,
    /// Blocks allocated now.
    pub nuse: U64,
    /// Features.
    pub nsfeat: u8,
    /// Number of formats, 0's based.
    pub nlbaf: u8,
    /// The format in use: index in bits 3:0 (and 6:5 above 15).
    pub flbas: u8,
    /// Metadata capabilities.
    pub mc: u8,
    /// Protection capabilities.
    pub dpc: u8,
    /// Protection settings.
    pub dps: u8,
    /// Sharing: bit 0, more than one controller may attach.
    pub nmic: u8,
    /// Reservation capabilities.
    pub rescap: u8,
    /// Format progress.
    pub fpi: u8,
    /// What deallocated blocks read as, and whether Write Zeroes may deallocate.
    pub dlfeat: u8,
    /// Atomic write unit normal, blocks, 0's based.
    pub nawun: U16,
    /// Atomic write unit power fail, blocks, 0's based.
    pub nawupf: U16,
    /// Atomic compare and write unit, blocks, 0's based.
    pub nacwu: U16,
    /// Atomic boundary size normal, blocks, 0's based; 0 for none.
    pub nabsn: U16,
    /// Atomic boundary offset, blocks.
    pub nabo: U16,
    /// Atomic boundary size power fail, blocks, 0's based; 0 for none.
    pub nabspf: U16,
    /// Optimal I/O boundary, blocks; 0 for none.
    pub noiob: U16,
    /// Capacity in bytes.
    pub nvmcap: U128,
    /// Preferred write granularity, blocks, 0's based.
    pub npwg: U16,
    /// Preferred write alignment, blocks, 0's based.
    pub npwa: U16,
    /// Preferred deallocate granularity, blocks, 0's based.
    pub npdg: U16,
    /// Preferred deallocate alignment, blocks, 0's based.
    pub npda: U16,
    /// Optimal write size, blocks, 0's based.
    pub nows: U16,
    /// Copy: longest source range, blocks.
    pub mssrl: U16,
    /// Copy: most blocks.
    pub mcl: U32,
    /// Copy: most source ranges, 0's based.
    pub msrc: u8,
    /// Reserved.
    pub reserved81: [u8; 11],
    /// ANA group; 0 where there is no ANA.
    pub anagrpid: U32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// Attributes: bit 0, write protected.
    pub nsattr: u8,
    /// NVM set.
    pub nvmsetid: U16,
    /// Endurance group.
    pub endgid: U16,
    /// Globally unique identifier, most significant byte first; 0 for none.
    pub nguid: [u8; 16],
    /// IEEE extended unique identifier, most significant byte first; 0 for none.
    pub eui64: [u8; 8],
    /// The formats.
    pub lbaf: [LbaFormat; 64],
    /// Vendor specific.
    pub vs: [u8; 3712],
}

layout!(IdentifyNamespace, 4096 bytes, {
    nsze at 0, ncap at 8, nuse at 16, nsfeat at 24, nlbaf at 25, flbas at 26, mc at 27, dpc at 28, dps at 29,
    nmic at 30, rescap at 31, fpi at 32, dlfeat at 33, nawun at 34, nawupf at 36, nacwu at 38, nabsn at 40,
    nabo at 42, nabspf at 44, noiob at 46, nvmcap at 48, npwg at 64, npwa at 66, npdg at 68, npda at 70,
    nows at 72, mssrl at 74, mcl at 76, msrc at 80, anagrpid at 92, nsattr at 99, nvmsetid at 100,
    endgid at 102, nguid at 104, eui64 at 120, lbaf at 128, vs at 384,
});

impl IdentifyNamespace {
    /// NSFEAT: thin provisioning, NCAP may be below NSZE.
    pub const NSFEAT_THIN: u8 = 1 << 0;
    /// NSFEAT: NAWUN, NAWUPF and NACWU are this namespace's own.
    pub const NSFEAT_ATOMIC_UNITS: u8 = 1 << 1;
    /// NSFEAT: reads of deallocated blocks may fail as such.
    pub const NSFEAT_DEALLOCATED_ERROR: u8 = 1 << 2;
    /// NSFEAT: NGUID and EUI64 are never used again.
    pub const NSFEAT_UNIQUE_IDS: u8 = 1 << 3;
    /// NSFEAT: NPWG, NPWA, NPDG, NPDA and NOWS are filled in.
    pub const NSFEAT_OPTIMAL_SIZES: u8 = 1 << 4;

    /// NMIC: more than one controller may attach.
    pub const NMIC_SHARED: u8 = 1 << 0;

    /// DLFEAT: deallocated blocks read as zeros.
    pub const DLFEAT_READS_ZERO: u8 = 0b001;
    /// DLFEAT: Write Zeroes knows the deallocate bit.
    pub const DLFEAT_WRITE_ZEROES_DEALLOCATES: u8 = 1 << 3;

    /// RESCAP of a namespace without reservations.
    pub const RESCAP_NONE: u8 = 0;
    /// RESCAP: registrants and reservations may outlive a loss of power.
    pub const RESCAP_PERSISTS: u8 = 1 << 0;
    /// RESCAP: every type of reservation.
    pub const RESCAP_ALL_TYPES: u8 = 0b111_1110;
    /// RESCAP: IEKEY means what it does from revision 1.3 on.
    pub const RESCAP_IGNORE_KEY: u8 = 1 << 7;

    /// A namespace of `blocks` blocks of `2^block_shift` bytes in its one format, fully allocated; all else 0.
    #[must_use]
    pub fn new(blocks: u64, block_shift: u8) -> Self {
        let mut identify = Self {
            nsze: blocks.into(),
            ncap: blocks.into(),
            nuse: blocks.into(),
            nvmcap: (u128::from(blocks) << (block_shift & 0x3f)).into(),
            ..Self::new_zeroed()
        };
        identify.lbaf[0].lbads = block_shift;
        identify
    }

    /// The format in use.
    #[must_use]
    pub fn format(&self) -> LbaFormat {
        let mut index = usize::from(self.flbas & 0xf);
        if self.nlbaf > 15 {
            index |= usize::from(self.flbas >> 5 & 0b11) << 4;
        }
        self.lbaf[index]
    }

    /// Bytes a block; `None` where the format in use is not filled in, or is of more than 2^31 bytes.
    #[must_use]
    pub fn block_size(&self) -> Option<u32> {
        match self.format().lbads {
            shift @ 9..=31 => Some(1 << shift),
            _ => None,
        }
    }
}

/// What CNS 05h says of a namespace of the NVM command set: its storage tags. All 0 without protection information.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct IdentifyNvmNamespace {
    /// Storage tag mask.
    pub lbstm: U64,
    /// Protection information capabilities.
    pub pic: u8,
    /// Reserved.
    pub reserved9: [u8; 3],
    /// Extended formats: storage tag size and protection information format.
    pub elbaf: [U32; 64],
    /// Reserved.
    pub reserved268: [u8; 3828],
}

layout!(IdentifyNvmNamespace, 4096 bytes, { lbstm at 0, pic at 8, elbaf at 12, reserved268 at 268 });

/// What CNS 08h says of a namespace of any command set.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct IndependentNamespace {
    /// Common features.
    pub nsfeat: u8,
    /// Sharing, as in [`IdentifyNamespace`].
    pub nmic: u8,
    /// Reservation capabilities, as in [`IdentifyNamespace`].
    pub rescap: u8,
    /// Format progress.
    pub fpi: u8,
    /// ANA group.
    pub anagrpid: U32,
    /// Attributes.
    pub nsattr: u8,
    /// Reserved.
    pub reserved9: u8,
    /// NVM set.
    pub nvmsetid: U16,
    /// Endurance group.
    pub endgid: U16,
    /// Status: bit 0, ready.
    pub nstat: u8,
    /// Reserved.
    pub reserved15: [u8; 4081],
}

layout!(IndependentNamespace, 4096 bytes, {
    nsfeat at 0, nmic at 1, rescap at 2, fpi at 3, anagrpid at 4, nsattr at 8, nvmsetid at 10, endgid at 12,
    nstat at 14, reserved15 at 15,
});

impl IndependentNamespace {
    /// NSFEAT: identifiers are never used again.
    pub const NSFEAT_UNIQUE_IDS: u8 = 1 << 3;
    /// NSFEAT: the media rotates.
    pub const NSFEAT_ROTATIONAL: u8 = 1 << 4;
    /// NSFEAT: this namespace has no volatile write cache.
    pub const NSFEAT_NO_VOLATILE_CACHE: u8 = 1 << 5;
    /// NSTAT: the namespace takes commands.
    pub const NSTAT_READY: u8 = 1 << 0;

    /// The part of Identify Namespace that does not depend on the command set; the namespace is ready.
    #[must_use]
    pub fn of(namespace: &IdentifyNamespace) -> Self {
        Self {
            nsfeat: namespace.nsfeat & IdentifyNamespace::NSFEAT_UNIQUE_IDS,
            nmic: namespace.nmic,
            rescap: namespace.rescap,
            fpi: namespace.fpi,
            anagrpid: namespace.anagrpid,
            nsattr: namespace.nsattr,
            nvmsetid: namespace.nvmsetid,
            endgid: namespace.endgid,
            nstat: Self::NSTAT_READY,
            ..Self::new_zeroed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_in_use_gives_the_block_size() {
        let mut identify = IdentifyNamespace::new(1000, 12);
        assert_eq!(identify.block_size(), Some(4096));
        assert_eq!(identify.nvmcap.get(), 4_096_000);
        identify.flbas = 1;
        assert_eq!(identify.block_size(), None);
        identify.lbaf[1].lbads = 9;
        assert_eq!(identify.block_size(), Some(512));
        identify.lbaf[1].lbads = 32;
        assert_eq!(identify.block_size(), None);
        // The upper index bits count only where there are more than 16 formats.
        identify.flbas = 0b0110_0000;
        assert_eq!(identify.block_size(), Some(4096));
        identify.nlbaf = 63;
        identify.lbaf[48].lbads = 10;
        assert_eq!(identify.block_size(), Some(1024));
    }

    #[test]
    fn the_independent_part_agrees() {
        let mut identify = IdentifyNamespace::new(8, 9);
        identify.nmic = IdentifyNamespace::NMIC_SHARED;
        identify.anagrpid = 3.into();
        identify.nsfeat = 0xff;
        let independent = IndependentNamespace::of(&identify);
        assert_eq!(independent.nmic, 1);
        assert_eq!(independent.anagrpid.get(), 3);
        assert_eq!(independent.nsfeat, IndependentNamespace::NSFEAT_UNIQUE_IDS);
        assert_eq!(independent.nstat, 1);
    }
}
