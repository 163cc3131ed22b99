//! What a peer can do wrong in a PDU, and the termination request that tells it.

use thiserror::Error;

use super::pdu::{PduType, Sender, offset};
use super::term::FatalError;

/// A PDU that the connection does not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PduError {
    /// PDU-Type is reserved, or belongs to the other direction.
    #[error("PDU type {code:#04x} is none that a {sender} sends")]
    Type {
        /// The type received.
        code: u8,
        /// Who sent it.
        sender: Sender,
    },
    /// ICReq or ICResp a second time, or something else before it.
    #[error("{pdu} came {}", if pdu.is_init() { "a second time" } else { "before the connection was initialized" })]
    Sequence {
        /// The PDU received.
        pdu: PduType,
    },
    /// FLAGS has bits that the type does not have, or digests other than agreed.
    #[error("{pdu} has flags {flags:#04x}, which its type or the digests agreed on do not allow")]
    Flags {
        /// The PDU received.
        pdu: PduType,
        /// Its flags.
        flags: u8,
    },
    /// HLEN is not that of the type.
    #[error("{pdu} has a header length (HLEN) of {hlen}, it must be {expected}")]
    HeaderLength {
        /// The PDU received.
        pdu: PduType,
        /// Its header length.
        hlen: u8,
        /// The header length of its type.
        expected: u8,
    },
    /// PDO points into the header, beyond the PDU, or is not aligned.
    #[error(
        "{pdu} has a data offset (PDO) of {pdo}, it must be a multiple of {alignment} behind the header and inside the PDU"
    )]
    DataOffset {
        /// The PDU received.
        pdu: PduType,
        /// Its data offset.
        pdo: u8,
        /// The alignment agreed on.
        alignment: u32,
    },
    /// PLEN leaves no room for what must be there, or has room for what must not.
    #[error("{pdu} has a length (PLEN) of {plen}, which does not fit its header and data")]
    Length {
        /// The PDU received.
        pdu: PduType,
        /// Its length.
        plen: u32,
    },
    /// More data than the receiver takes in one PDU.
    #[error("{pdu} carries {payload} bytes of data, at most {limit} are allowed")]
    TooMuchData {
        /// The PDU received.
        pdu: PduType,
        /// Its data.
        payload: u32,
        /// The most that is allowed.
        limit: u32,
    },
    /// The header digest does not match.
    #[error("{pdu} has header digest {received:#010x}, its header gives {computed:#010x}")]
    HeaderDigest {
        /// The PDU received.
        pdu: PduType,
        /// The digest received.
        received: u32,
        /// The digest of the header received.
        computed: u32,
    },
    /// Another field of the header is out of range.
    #[error("{pdu} has {field} {value}, allowed is {allowed}")]
    Field {
        /// The PDU received.
        pdu: PduType,
        /// The field.
        field: &'static str,
        /// Its byte offset in the PDU.
        offset: u32,
        /// Its value.
        value: u32,
        /// What it may be.
        allowed: &'static str,
    },
    /// A field asks for something that is not supported.
    #[error("{pdu} has {field} {value}, which is not supported")]
    Unsupported {
        /// The PDU received.
        pdu: PduType,
        /// The field.
        field: &'static str,
        /// Its byte offset in the PDU.
        offset: u32,
        /// Its value.
        value: u32,
    },
    /// A termination request with impossible lengths. It is not answered: the peer is about to go anyway.
    #[error(
        "{pdu} has a header length of {hlen} and a length of {plen}, it must be 24 and 24 to 152"
    )]
    TermReq {
        /// The PDU received.
        pdu: PduType,
        /// Its header length.
        hlen: u8,
        /// Its length.
        plen: u32,
    },
}

impl PduError {
    /// The reason to give in a termination request; `None` where the connection is closed without one.
    #[must_use]
    pub const fn fatal(&self) -> Option<FatalError> {
        Some(match *self {
            Self::Type { .. } => FatalError::InvalidHeaderField {
                offset: offset::TYPE,
            },
            Self::Sequence { .. } => FatalError::SequenceError,
            Self::Flags { .. } => FatalError::InvalidHeaderField {
                offset: offset::FLAGS,
            },
            Self::HeaderLength { .. } => FatalError::InvalidHeaderField {
                offset: offset::HLEN,
            },
            Self::DataOffset { .. } => FatalError::InvalidHeaderField {
                offset: offset::PDO,
            },
            Self::Length { .. } => FatalError::InvalidHeaderField {
                offset: offset::PLEN,
            },
            // A host has no limit of its own on C2HData: more than it takes is more than any command asked for.
            Self::TooMuchData {
                pdu: PduType::C2hData,
                ..
            } => FatalError::DataOutOfRange,
            Self::TooMuchData { .. } => FatalError::LimitExceeded,
            Self::HeaderDigest { received, .. } => FatalError::HeaderDigest { received },
            Self::Field { offset, .. } => FatalError::InvalidHeaderField { offset },
            Self::Unsupported { offset, .. } => FatalError::UnsupportedParameter { offset },
            Self::TermReq { .. } => return None,
        })
    }
}
