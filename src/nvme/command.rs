//! The 64-byte submission queue entry (Base 3.3.3.1).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::opcode::{FABRICS, FabricsType};
use super::sgl::SglDescriptor;
use super::status::Status;

/// One command. The fields are those of the common format; the other modules of this room read the dwords by
/// opcode. For fabrics commands the low byte of `nsid` is FCTYPE: see [`Command::fabrics_type_code`].
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
pub struct Command {
    /// Opcode; its meaning depends on the queue.
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// Command identifier, unique among the commands outstanding on the queue.
    pub cid: U16,
    /// Namespace identifier.
    pub nsid: U32,
    /// Command dword 2.
    pub cdw2: U32,
    /// Command dword 3.
    pub cdw3: U32,
    /// Metadata pointer.
    pub metadata: U64,
    /// Data pointer: an SGL descriptor, or two PRP entries.
    pub data: SglDescriptor,
    /// Command dword 10.
    pub cdw10: U32,
    /// Command dword 11.
    pub cdw11: U32,
    /// Command dword 12.
    pub cdw12: U32,
    /// Command dword 13.
    pub cdw13: U32,
    /// Command dword 14.
    pub cdw14: U32,
    /// Command dword 15.
    pub cdw15: U32,
}

layout!(Command, 64 bytes, {
    opcode at 0, flags at 1, cid at 2, nsid at 4, cdw2 at 8, cdw3 at 12, metadata at 16, data at 24,
    cdw10 at 40, cdw11 at 44, cdw12 at 48, cdw13 at 52, cdw14 at 56, cdw15 at 60,
});

/// Whether a command is one half of a fused pair (Base, "Fused Operations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fuse {
    /// Not fused.
    Normal,
    /// The first half: the Compare of a Compare and Write.
    First,
    /// The second half: the Write of a Compare and Write.
    Second,
}

/// How the data pointer is to be read (PSDT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataTransfer {
    /// Two PRP entries. Never on fabrics.
    Prp,
    /// An SGL, the metadata pointer being an address. The form of every fabrics command.
    Sgl,
    /// An SGL, the metadata pointer being an SGL segment.
    SglMetadataSegment,
}

const FUSE_MASK: u8 = 0b0000_0011;
const PSDT_SHIFT: u32 = 6;

/// The flags byte of a command that uses SGLs and is not fused.
pub const FLAGS_SGL: u8 = 1 << PSDT_SHIFT;

impl Command {
    /// An all-zero command with opcode and namespace set; the data pointer is of the SGL kind.
    #[must_use]
    pub fn new(opcode: u8, nsid: u32) -> Self {
        Self {
            opcode,
            flags: FLAGS_SGL,
            nsid: nsid.into(),
            ..Self::new_zeroed()
        }
    }

    /// The same command with another command identifier.
    #[must_use]
    pub fn with_cid(mut self, cid: u16) -> Self {
        self.cid = cid.into();
        self
    }

    /// The same command with an SGL descriptor as its data pointer.
    #[must_use]
    pub fn with_sgl(mut self, sgl: SglDescriptor) -> Self {
        self.flags = (self.flags & FUSE_MASK) | FLAGS_SGL;
        self.data = sgl;
        self
    }

    /// The same command with two PRP entries as its data pointer, for memory-based transports.
    #[must_use]
    pub fn with_prps(mut self, prp1: u64, prp2: u64) -> Self {
        self.flags &= FUSE_MASK;
        let entries = [U64::new(prp1), U64::new(prp2)];
        self.data = zerocopy::transmute!(entries);
        self
    }

    /// The same command as a half of a fused pair, or as a command of its own.
    #[must_use]
    pub fn with_fuse(mut self, fuse: Fuse) -> Self {
        let bits = match fuse {
            Fuse::Normal => 0b00,
            Fuse::First => 0b01,
            Fuse::Second => 0b10,
        };
        self.flags = (self.flags & !FUSE_MASK) | bits;
        self
    }

    /// Reads FUSE.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for the reserved value 11b.
    pub fn fuse(&self) -> Result<Fuse, Status> {
        match self.flags & FUSE_MASK {
            0b00 => Ok(Fuse::Normal),
            0b01 => Ok(Fuse::First),
            0b10 => Ok(Fuse::Second),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// Reads PSDT.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for the reserved value 11b.
    pub fn data_transfer(&self) -> Result<DataTransfer, Status> {
        match self.flags >> PSDT_SHIFT {
            0b00 => Ok(DataTransfer::Prp),
            0b01 => Ok(DataTransfer::Sgl),
            0b10 => Ok(DataTransfer::SglMetadataSegment),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// The data pointer as two PRP entries.
    #[must_use]
    pub fn prps(&self) -> (u64, u64) {
        let entries: [U64; 2] = zerocopy::transmute!(self.data);
        (entries[0].get(), entries[1].get())
    }

    /// Whether this is a fabrics command, which any queue takes.
    #[must_use]
    pub fn is_fabrics(&self) -> bool {
        self.opcode == FABRICS
    }

    /// FCTYPE, byte 4: the kind of a fabrics command.
    #[must_use]
    pub fn fabrics_type_code(&self) -> u8 {
        (self.nsid.get() & 0xff) as u8
    }

    /// The kind of a fabrics command; `None` where FCTYPE is reserved or vendor specific.
    #[must_use]
    pub fn fabrics_type(&self) -> Option<FabricsType> {
        FabricsType::from_code(self.fabrics_type_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_hold_fuse_and_psdt() {
        let command = Command::new(0x01, 7).with_fuse(Fuse::Second);
        assert_eq!(command.flags, 0x42);
        assert_eq!(command.fuse(), Ok(Fuse::Second));
        assert_eq!(command.data_transfer(), Ok(DataTransfer::Sgl));
        assert_eq!(command.with_fuse(Fuse::Normal).flags, 0x40);
        let command = command.with_prps(0x1000, 0x2000);
        assert_eq!(command.flags, 0x02);
        assert_eq!(command.prps(), (0x1000, 0x2000));
        assert_eq!(command.data_transfer(), Ok(DataTransfer::Prp));
        let reserved = Command {
            flags: 0xc3,
            ..command
        };
        assert_eq!(reserved.fuse(), Err(Status::INVALID_FIELD));
        assert_eq!(reserved.data_transfer(), Err(Status::INVALID_FIELD));
    }

    #[test]
    fn bytes_are_little_endian_and_in_place() {
        let command = Command::new(0x02, 0x0403_0201)
            .with_cid(0xbeef)
            .with_sgl(SglDescriptor::transport(512));
        let bytes = command.as_bytes();
        assert_eq!(bytes[..8], [0x02, 0x40, 0xef, 0xbe, 1, 2, 3, 4]);
        assert_eq!(bytes[32..40], [0, 2, 0, 0, 0, 0, 0, 0x5a]);
        assert_eq!(Command::read_from_bytes(bytes).as_ref(), Ok(&command));
    }

    #[test]
    fn fctype_is_byte_four() {
        let mut bytes = [0; 64];
        bytes[0] = 0x7f;
        bytes[4] = 0x01;
        let command = Command::read_from_bytes(&bytes).expect("64 bytes");
        assert!(command.is_fabrics());
        assert_eq!(command.fabrics_type(), Some(FabricsType::Connect));
    }
}
