//! Scatter gather list descriptors (Base, "Scatter Gather List (SGL)"): one in each command, which over NVMe/TCP is all there
//! is, and may name a list of more in memory.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::status::Status;

/// One 16-byte SGL descriptor, or the 16 bytes of a command's data pointer whatever they hold.
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
pub struct SglDescriptor {
    /// Memory address, or byte offset inside the capsule for the offset subtype.
    pub address: U64,
    /// Length in bytes (not for keyed descriptors, whose length has 3 bytes and a key behind it).
    pub length: U32,
    /// Reserved, or the rest of a key.
    pub reserved: [u8; 3],
    /// Descriptor type in bits 7:4, subtype in bits 3:0.
    pub identifier: u8,
}

layout!(SglDescriptor, 16 bytes, { address at 0, length at 8, reserved at 12, identifier at 15 });

codes! {
    /// Descriptor types, bits 7:4 of the identifier.
    pub enum SglType: u8 {
        DataBlock = 0x0, "SGL Data Block descriptor";
        BitBucket = 0x1, "SGL Bit Bucket descriptor";
        Segment = 0x2, "SGL Segment descriptor";
        LastSegment = 0x3, "SGL Last Segment descriptor";
        KeyedDataBlock = 0x4, "Keyed SGL Data Block descriptor";
        TransportDataBlock = 0x5, "Transport SGL Data Block descriptor";
        VendorSpecific = 0xf, "Vendor specific";
    }
}

/// Identifier of a data block with a memory address: type 0h, subtype 0h.
pub const DATA_BLOCK_ADDRESS: u8 = 0x00;
/// Identifier of a data block inside the capsule: type 0h, subtype 1h (offset).
pub const DATA_BLOCK_OFFSET: u8 = 0x01;
/// Identifier of the one segment of a list, at a memory address: type 3h, subtype 0h.
pub const LAST_SEGMENT_ADDRESS: u8 = 0x30;
/// Identifier of data that the transport moves by itself: type 5h, subtype Ah.
pub const TRANSPORT_DATA_BLOCK: u8 = 0x5a;

/// What the data pointer of a command on a message-based transport says about its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sgl {
    /// The data came in the capsule, `len` bytes from `offset` bytes behind the start of its data area
    /// (ICDOFF is zero for NVMe/TCP).
    InCapsule {
        /// Bytes from the start of the in-capsule data.
        offset: u64,
        /// Bytes of data.
        len: u32,
    },
    /// The transport moves `len` bytes: by R2T and H2CData to the controller, by C2HData to the host.
    Transport {
        /// Bytes of data.
        len: u32,
    },
    /// A descriptor that does not occur on NVMe/TCP; the identifier byte is kept for the error message.
    Unsupported(u8),
}

impl SglDescriptor {
    /// A descriptor of `len` bytes that follow in the capsule.
    #[must_use]
    pub fn in_capsule(len: u32) -> Self {
        Self {
            length: len.into(),
            identifier: DATA_BLOCK_OFFSET,
            ..Self::default()
        }
    }

    /// A descriptor of `len` bytes that the transport moves.
    #[must_use]
    pub fn transport(len: u32) -> Self {
        Self {
            length: len.into(),
            identifier: TRANSPORT_DATA_BLOCK,
            ..Self::default()
        }
    }

    /// A descriptor of `len` bytes of memory at `address`, for memory-based transports.
    #[must_use]
    pub fn memory(address: u64, len: u32) -> Self {
        Self {
            address: address.into(),
            length: len.into(),
            identifier: DATA_BLOCK_ADDRESS,
            ..Self::default()
        }
    }

    /// A list of `len` bytes of data block descriptors at `address`, for memory-based transports.
    #[must_use]
    pub fn last_segment(address: u64, len: u32) -> Self {
        Self {
            address: address.into(),
            length: len.into(),
            identifier: LAST_SEGMENT_ADDRESS,
            ..Self::default()
        }
    }

    /// The descriptor type; `None` for reserved types.
    #[must_use]
    pub fn kind(&self) -> Option<SglType> {
        SglType::from_code(self.identifier >> 4)
    }

    /// Reads the descriptor for a message-based transport.
    #[must_use]
    pub fn parse(&self) -> Sgl {
        match self.identifier {
            DATA_BLOCK_OFFSET => Sgl::InCapsule {
                offset: self.address.get(),
                len: self.length.get(),
            },
            TRANSPORT_DATA_BLOCK => Sgl::Transport {
                len: self.length.get(),
            },
            other => Sgl::Unsupported(other),
        }
    }
}

impl Sgl {
    /// The status for a descriptor that NVMe/TCP does not know: Invalid SGL Segment Descriptor for segments,
    /// otherwise SGL Descriptor Type Invalid. `None` where the descriptor is one of the known two.
    #[must_use]
    pub fn unsupported(&self) -> Option<Status> {
        let Self::Unsupported(identifier) = *self else {
            return None;
        };
        Some(match SglType::from_code(identifier >> 4) {
            Some(SglType::Segment | SglType::LastSegment) => Status::INVALID_SGL_SEGMENT_DESCRIPTOR,
            _ => Status::INVALID_SGL_DESCRIPTOR_TYPE,
        })
    }

    /// Bytes of data that the descriptor names; 0 for unsupported ones.
    #[must_use]
    pub fn data_len(&self) -> u32 {
        match *self {
            Self::InCapsule { len, .. } | Self::Transport { len } => len,
            Self::Unsupported(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn the_two_descriptors_of_nvme_tcp_have_the_bytes_of_the_specification() {
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x10, 0, 0, 0, 0, 0, 0x01];
        assert_eq!(SglDescriptor::in_capsule(4096).as_bytes(), bytes);
        let bytes = [
            0, 0, 0, 0, 0, 0, 0, 0, 0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0x5a,
        ];
        assert_eq!(SglDescriptor::transport(0x0102_0304).as_bytes(), bytes);
        let bytes = [0, 0x20, 0, 0, 1, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0x30];
        assert_eq!(
            SglDescriptor::last_segment(0x1_0000_2000, 64).as_bytes(),
            bytes
        );
    }

    #[test]
    fn known_descriptors_are_read_and_others_get_their_status() {
        assert_eq!(
            SglDescriptor::in_capsule(512).parse(),
            Sgl::InCapsule {
                offset: 0,
                len: 512
            }
        );
        assert_eq!(
            SglDescriptor::transport(8192).parse(),
            Sgl::Transport { len: 8192 }
        );
        let keyed = SglDescriptor {
            identifier: 0x40,
            ..SglDescriptor::default()
        };
        assert_eq!(
            keyed.parse().unsupported(),
            Some(Status::INVALID_SGL_DESCRIPTOR_TYPE)
        );
        let segment = SglDescriptor {
            identifier: 0x20,
            ..SglDescriptor::default()
        };
        assert_eq!(
            segment.parse().unsupported(),
            Some(Status::INVALID_SGL_SEGMENT_DESCRIPTOR)
        );
        assert_eq!(
            SglDescriptor::memory(0x1000, 4).parse(),
            Sgl::Unsupported(0)
        );
        assert_eq!(Sgl::Transport { len: 1 }.unsupported(), None);
    }
}
