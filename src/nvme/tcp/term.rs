//! H2CTermReq and C2HTermReq: the end of a connection, and why (TCP, "Terminate Connection Request").

use core::fmt;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::pdu::{COMMON_HEADER_SIZE, EncodedHeader, PduFormat, PduType, Sender};

/// Bytes of the header of a termination request.
pub const HEADER_SIZE: u32 = 24;

/// The most bytes of the header in error that a termination request carries behind its own.
pub const MAX_COPY: usize = 128;

/// The most bytes of a whole termination request.
pub const MAX_SIZE: u32 = HEADER_SIZE + MAX_COPY as u32;

/// Behind the common header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TermBody {
    fes: U16,
    fei: [u8; 4],
    reserved: [u8; 10],
}

layout!(TermBody, 16 bytes, { fes at 0, fei at 2, reserved at 6 });

/// Why a connection can't go on: fatal error status (FES) and information (FEI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FatalError {
    /// 01h: a field of a header is invalid.
    InvalidHeaderField {
        /// Byte offset of the field in the PDU.
        offset: u32,
    },
    /// 02h: a PDU came when it should not.
    SequenceError,
    /// 03h: a header digest does not match.
    HeaderDigest {
        /// The digest as it was received.
        received: u32,
    },
    /// 04h: data lies outside what the command or the R2T covers.
    DataOutOfRange,
    /// 05h: from a controller, more data in one H2CData than MAXH2CDATA; from a host, more R2Ts than MAXR2T.
    LimitExceeded,
    /// 06h: a parameter is not supported.
    UnsupportedParameter {
        /// Byte offset of the parameter in the PDU.
        offset: u32,
    },
}

impl FatalError {
    /// Fatal error status.
    #[must_use]
    pub const fn fes(self) -> u16 {
        match self {
            Self::InvalidHeaderField { .. } => 0x01,
            Self::SequenceError => 0x02,
            Self::HeaderDigest { .. } => 0x03,
            Self::DataOutOfRange => 0x04,
            Self::LimitExceeded => 0x05,
            Self::UnsupportedParameter { .. } => 0x06,
        }
    }

    /// Fatal error information; 0 where the status has none.
    #[must_use]
    pub const fn fei(self) -> u32 {
        match self {
            Self::InvalidHeaderField { offset } | Self::UnsupportedParameter { offset } => offset,
            Self::HeaderDigest { received } => received,
            Self::SequenceError | Self::DataOutOfRange | Self::LimitExceeded => 0,
        }
    }

    /// From status and information; `None` for a reserved status.
    #[must_use]
    pub const fn from_wire(fes: u16, fei: u32) -> Option<Self> {
        match fes {
            0x01 => Some(Self::InvalidHeaderField { offset: fei }),
            0x02 => Some(Self::SequenceError),
            0x03 => Some(Self::HeaderDigest { received: fei }),
            0x04 => Some(Self::DataOutOfRange),
            0x05 => Some(Self::LimitExceeded),
            0x06 => Some(Self::UnsupportedParameter { offset: fei }),
            _ => None,
        }
    }

    /// The termination request that `sender` sends, with a copy of the header in error (or of as much of it
    /// as was received) behind it.
    #[must_use]
    pub fn encode(self, sender: Sender, header_in_error: &[u8]) -> EncodedHeader {
        let kind = match sender {
            Sender::Host => PduType::H2cTermReq,
            Sender::Controller => PduType::C2hTermReq,
        };
        let body = TermBody {
            fes: self.fes().into(),
            fei: self.fei().to_le_bytes(),
            reserved: [0; 10],
        };
        EncodedHeader::new(kind, 0, body.as_bytes(), &PduFormat::default(), 0)
            .with_copy(header_in_error)
    }
}

impl fmt::Display for FatalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidHeaderField { offset } => {
                write!(out, "invalid PDU header field at byte {offset}")
            }
            Self::SequenceError => out.write_str("PDU sequence error"),
            Self::HeaderDigest { received } => {
                write!(out, "header digest error, received {received:#010x}")
            }
            Self::DataOutOfRange => out.write_str("data transfer out of range"),
            Self::LimitExceeded => out.write_str("data transfer limit or R2T limit exceeded"),
            Self::UnsupportedParameter { offset } => {
                write!(out, "unsupported parameter at byte {offset}")
            }
        }
    }
}

/// A termination request as received. A copy of the header in error follows it as payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermReq {
    /// Fatal error status.
    pub fes: u16,
    /// Fatal error information.
    pub fei: u32,
}

impl TermReq {
    /// What the peer found wrong; `None` for a reserved status.
    #[must_use]
    pub fn reason(&self) -> Option<FatalError> {
        FatalError::from_wire(self.fes, self.fei)
    }

    /// Reads a whole header.
    pub(super) fn parse(header: &[u8]) -> Self {
        let (body, _) = TermBody::ref_from_prefix(&header[COMMON_HEADER_SIZE..])
            .expect("the caller has the whole header");
        Self {
            fes: body.fes.get(),
            fei: u32::from_le_bytes(body.fei),
        }
    }
}

impl fmt::Display for TermReq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => reason.fmt(out),
            None => write!(out, "reserved fatal error status {:#06x}", self.fes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [FatalError; 6] = [
        FatalError::InvalidHeaderField { offset: 3 },
        FatalError::SequenceError,
        FatalError::HeaderDigest {
            received: 0xdead_beef,
        },
        FatalError::DataOutOfRange,
        FatalError::LimitExceeded,
        FatalError::UnsupportedParameter { offset: 8 },
    ];

    #[test]
    fn every_reason_goes_there_and_back() {
        for reason in ALL {
            let bytes = reason.encode(Sender::Controller, &[]);
            assert_eq!(bytes[..8], [3, 0, 24, 0, 24, 0, 0, 0]);
            assert_eq!(TermReq::parse(&bytes).reason(), Some(reason));
        }
        assert_eq!(TermReq { fes: 7, fei: 0 }.reason(), None);
        assert_eq!(
            TermReq { fes: 7, fei: 0 }.to_string(),
            "reserved fatal error status 0x0007"
        );
    }

    #[test]
    fn the_header_in_error_follows_and_is_bounded() {
        let reason = FatalError::InvalidHeaderField { offset: 0x0102 };
        let bytes = reason.encode(Sender::Host, &[0xaa; 72]);
        assert_eq!(bytes.len(), 96);
        assert_eq!(bytes[..14], [2, 0, 24, 0, 96, 0, 0, 0, 1, 0, 2, 1, 0, 0]);
        assert_eq!(bytes[24..], [0xaa; 72]);
        assert_eq!(reason.encode(Sender::Host, &[0; 500]).len(), 152);
    }
}
