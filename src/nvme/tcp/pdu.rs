//! PDU types, the common header, and how a header is put on the wire (TCP, "PDU Definitions").

use core::fmt;
use core::ops::Deref;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DIGEST_SIZE;
use super::digest::crc32c;

codes! {
    /// PDU types.
    pub enum PduType: u8 {
        IcReq = 0x00, "ICReq";
        IcResp = 0x01, "ICResp";
        H2cTermReq = 0x02, "H2CTermReq";
        C2hTermReq = 0x03, "C2HTermReq";
        CapsuleCmd = 0x04, "CapsuleCmd";
        CapsuleResp = 0x05, "CapsuleResp";
        H2cData = 0x06, "H2CData";
        C2hData = 0x07, "C2HData";
        R2t = 0x09, "R2T";
    }
}

/// Who sends a PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The host.
    Host,
    /// The controller.
    Controller,
}

impl fmt::Display for Sender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Host => "host",
            Self::Controller => "controller",
        })
    }
}

impl PduType {
    /// Who sends PDUs of this type.
    #[must_use]
    pub const fn sender(self) -> Sender {
        match self {
            Self::IcReq | Self::H2cTermReq | Self::CapsuleCmd | Self::H2cData => Sender::Host,
            Self::IcResp | Self::C2hTermReq | Self::CapsuleResp | Self::C2hData | Self::R2t => {
                Sender::Controller
            }
        }
    }

    /// HLEN: bytes of the header, its digest not counted.
    #[must_use]
    pub const fn header_len(self) -> u8 {
        match self {
            Self::IcReq | Self::IcResp => 128,
            Self::CapsuleCmd => 72,
            _ => 24,
        }
    }

    /// Whether a PDU of this type may carry data at a data offset. (Termination requests carry a copy of a
    /// header instead, right behind their own.)
    #[must_use]
    pub const fn carries_data(self) -> bool {
        matches!(self, Self::CapsuleCmd | Self::H2cData | Self::C2hData)
    }

    /// Whether this is ICReq or ICResp, the PDUs that start a connection.
    #[must_use]
    pub const fn is_init(self) -> bool {
        matches!(self, Self::IcReq | Self::IcResp)
    }

    /// Whether this is a termination request.
    #[must_use]
    pub const fn is_term(self) -> bool {
        matches!(self, Self::H2cTermReq | Self::C2hTermReq)
    }

    /// The flags that a PDU of this type may have.
    #[must_use]
    pub const fn allowed_flags(self) -> u8 {
        match self {
            Self::IcReq | Self::IcResp | Self::H2cTermReq | Self::C2hTermReq => 0,
            Self::CapsuleCmd => flags::HEADER_DIGEST | flags::DATA_DIGEST,
            Self::CapsuleResp | Self::R2t => flags::HEADER_DIGEST,
            Self::H2cData => flags::HEADER_DIGEST | flags::DATA_DIGEST | flags::LAST,
            Self::C2hData => {
                flags::HEADER_DIGEST | flags::DATA_DIGEST | flags::LAST | flags::SUCCESS
            }
        }
    }
}

/// Bits of the FLAGS field.
pub mod flags {
    /// HDGSTF: a header digest follows the header.
    pub const HEADER_DIGEST: u8 = 1 << 0;
    /// DDGSTF: a data digest follows the data.
    pub const DATA_DIGEST: u8 = 1 << 1;
    /// LAST_PDU: the last data PDU of its transfer.
    pub const LAST: u8 = 1 << 2;
    /// SUCCESS: the command is complete without a response capsule.
    pub const SUCCESS: u8 = 1 << 3;
}

/// Byte offsets of the common header, for the fatal error information of a termination request.
pub mod offset {
    /// PDU-Type.
    pub const TYPE: u32 = 0;
    /// FLAGS.
    pub const FLAGS: u32 = 1;
    /// HLEN.
    pub const HLEN: u32 = 2;
    /// PDO.
    pub const PDO: u32 = 3;
    /// PLEN.
    pub const PLEN: u32 = 4;
}

/// The first 8 bytes of every PDU.
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
pub struct CommonHeader {
    /// A [`PduType`].
    pub pdu_type: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Bytes of the header, its digest not counted.
    pub hlen: u8,
    /// Bytes from the start of the PDU to its data.
    pub pdo: u8,
    /// Bytes of the whole PDU: header, digests, padding and data.
    pub plen: U32,
}

layout!(CommonHeader, 8 bytes, { pdu_type at 0, flags at 1, hlen at 2, pdo at 3, plen at 4 });

/// Bytes of the common header.
pub const COMMON_HEADER_SIZE: usize = size_of::<CommonHeader>();

/// The alignment of data in a PDU, as HPDA and CPDA give it: the data offset is a multiple of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DataAlignment(u8);

impl DataAlignment {
    /// The largest value of HPDA and CPDA.
    pub const MAX_CODE: u8 = 31;

    /// From HPDA or CPDA, 0's based dwords; `None` above 31.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        if code <= Self::MAX_CODE {
            Some(Self(code))
        } else {
            None
        }
    }

    /// HPDA or CPDA.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The alignment in bytes, 4 to 128.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        (self.0 as u32 + 1) * 4
    }
}

/// What both ends have agreed on for one direction: which digests there are, and how data is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PduFormat {
    /// Every header but those of ICReq, ICResp and termination requests is followed by its digest.
    pub header_digest: bool,
    /// Data is followed by its digest.
    pub data_digest: bool,
    /// The receiver's alignment: CPDA for what a host sends, HPDA for what a controller sends.
    pub alignment: DataAlignment,
}

/// A header ready to be sent: header, header digest, and padding up to the data. Data and data digest
/// follow it on the wire, from wherever they lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EncodedHeader {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl EncodedHeader {
    /// The most bytes: a termination request with a copy of an ICReq. A command capsule with header digest,
    /// 76 bytes, padded to an alignment of 72 bytes has 144.
    pub const CAPACITY: usize = 152;

    /// Puts the common header in front of `specific` and fills in lengths, offset, flags and digest for
    /// `payload` bytes of data.
    pub(super) fn new(
        kind: PduType,
        more_flags: u8,
        specific: &[u8],
        format: &PduFormat,
        payload: u32,
    ) -> Self {
        let hlen = COMMON_HEADER_SIZE + specific.len();
        assert_eq!(
            hlen,
            usize::from(kind.header_len()),
            "{kind} has a header of fixed length"
        );
        let mut flags = more_flags;
        let mut len = hlen;
        if format.header_digest {
            flags |= flags::HEADER_DIGEST;
            len += DIGEST_SIZE;
        }
        let mut pdo = 0;
        let mut plen = len as u64;
        if payload > 0 {
            len = len.next_multiple_of(format.alignment.bytes() as usize);
            pdo = len as u8;
            plen = len as u64 + u64::from(payload);
            if format.data_digest {
                flags |= flags::DATA_DIGEST;
                plen += DIGEST_SIZE as u64;
            }
        }
        let common = CommonHeader {
            pdu_type: kind.code(),
            flags,
            hlen: hlen as u8,
            pdo,
            plen: u32::try_from(plen)
                .expect("a payload leaves room in PLEN for its header")
                .into(),
        };
        let mut bytes = [0; Self::CAPACITY];
        bytes[..COMMON_HEADER_SIZE].copy_from_slice(common.as_bytes());
        bytes[COMMON_HEADER_SIZE..hlen].copy_from_slice(specific);
        if format.header_digest {
            let digest = crc32c(&bytes[..hlen]);
            bytes[hlen..hlen + DIGEST_SIZE].copy_from_slice(&digest.to_le_bytes());
        }
        Self {
            bytes,
            len: len as u8,
        }
    }

    /// Puts a copy of the header in error behind a termination request; what is beyond 128 bytes is cut.
    pub(super) fn with_copy(mut self, copy: &[u8]) -> Self {
        let start = usize::from(self.len);
        let len = copy.len().min(super::term::MAX_COPY);
        self.bytes[start..start + len].copy_from_slice(&copy[..len]);
        self.len += len as u8;
        let plen = U32::new(u32::from(self.len));
        let at = offset::PLEN as usize;
        self.bytes[at..at + size_of::<U32>()].copy_from_slice(plen.as_bytes());
        self
    }
}

impl Deref for EncodedHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for EncodedHeader {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for EncodedHeader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("EncodedHeader").field(&&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_lengths_and_senders_of_the_specification() {
        let table = [
            (PduType::IcReq, 0, 128, Sender::Host),
            (PduType::IcResp, 1, 128, Sender::Controller),
            (PduType::H2cTermReq, 2, 24, Sender::Host),
            (PduType::C2hTermReq, 3, 24, Sender::Controller),
            (PduType::CapsuleCmd, 4, 72, Sender::Host),
            (PduType::CapsuleResp, 5, 24, Sender::Controller),
            (PduType::H2cData, 6, 24, Sender::Host),
            (PduType::C2hData, 7, 24, Sender::Controller),
            (PduType::R2t, 9, 24, Sender::Controller),
        ];
        for (kind, code, hlen, sender) in table {
            assert_eq!(
                (kind.code(), kind.header_len(), kind.sender()),
                (code, hlen, sender),
                "{kind}"
            );
        }
        assert_eq!(PduType::from_code(8), None);
    }

    #[test]
    fn alignment_is_in_zeros_based_dwords() {
        assert_eq!(
            DataAlignment::from_code(0).map(DataAlignment::bytes),
            Some(4)
        );
        assert_eq!(
            DataAlignment::from_code(31).map(DataAlignment::bytes),
            Some(128)
        );
        assert_eq!(DataAlignment::from_code(32), None);
    }

    #[test]
    fn every_alignment_fits_the_encoded_header() {
        for code in 0..=DataAlignment::MAX_CODE {
            let alignment = DataAlignment::from_code(code).expect("0 to 31");
            for header_digest in [false, true] {
                let format = PduFormat {
                    header_digest,
                    data_digest: true,
                    alignment,
                };
                let header = EncodedHeader::new(PduType::CapsuleCmd, 0, &[0; 64], &format, 512);
                let least = if header_digest { 76 } else { 72 };
                assert!(
                    header.len() >= least
                        && header.len().is_multiple_of(alignment.bytes() as usize)
                );
                assert!(header.len() < least + alignment.bytes() as usize);
                assert_eq!(usize::from(header[3]), header.len());
                assert_eq!(header[4..8], (header.len() as u32 + 512 + 4).to_le_bytes());
            }
        }
    }

    #[test]
    fn a_pdu_without_data_has_no_offset_and_no_padding() {
        let alignment = DataAlignment::from_code(31).expect("31");
        let format = PduFormat {
            header_digest: true,
            data_digest: true,
            alignment,
        };
        let header = EncodedHeader::new(PduType::CapsuleCmd, 0, &[0; 64], &format, 0);
        assert_eq!(header[..8], [4, 0b01, 72, 0, 76, 0, 0, 0]);
        assert_eq!(header.len(), 76);
        assert_eq!(header[72..], crc32c(&header[..72]).to_le_bytes());
    }
}
