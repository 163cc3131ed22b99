//! What a receiver holds its peer to, and the check of the first 8 bytes of a PDU against it.

use super::DIGEST_SIZE;
use super::error::PduError;
use super::pdu::{CommonHeader, PduFormat, PduType, Sender, flags};
use super::term;

/// What a receiver holds its peer to, once the connection is initialized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Digests and alignment agreed on for this direction.
    pub format: PduFormat,
    /// Most bytes of data in a CapsuleCmd; of no meaning to a host.
    pub max_capsule_data: u32,
    /// Most bytes of data in an H2CData (MAXH2CDATA) or a C2HData.
    pub max_data: u32,
}

/// What the common header of a PDU says about the rest of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub kind: PduType,
    /// Bytes of header and header digest.
    pub header: u8,
    pub header_digest: bool,
    /// Bytes between the header (and its digest) and the payload.
    pub pad: u8,
    pub payload: u32,
    pub data_digest: bool,
}

/// Checks a common header, lowest field first.
pub(super) fn check_common(
    common: &CommonHeader,
    sender: Sender,
    rules: Option<&Rules>,
) -> Result<Shape, PduError> {
    let kind = PduType::from_code(common.pdu_type)
        .filter(|kind| kind.sender() == sender)
        .ok_or(PduError::Type {
            code: common.pdu_type,
            sender,
        })?;
    let plen = common.plen.get();
    if kind.is_term() {
        return check_term(kind, common.hlen, plen);
    }
    let rules = match (kind.is_init(), rules) {
        (true, None) => Rules {
            format: PduFormat::default(),
            max_capsule_data: 0,
            max_data: 0,
        },
        (false, Some(rules)) => *rules,
        (true, Some(_)) | (false, None) => return Err(PduError::Sequence { pdu: kind }),
    };
    let format = rules.format;
    let expected = kind.header_len();
    let header_digest = common.flags & flags::HEADER_DIGEST != 0;
    let data_digest = common.flags & flags::DATA_DIGEST != 0;
    let header = if header_digest {
        expected + DIGEST_SIZE as u8
    } else {
        expected
    };
    // A PDU that could have data has some when there is anything behind its header. The digest flag of
    // one that has none means nothing and is let pass; without its digest, data is not.
    let has_data = kind.carries_data() && plen > u32::from(header);
    if common.flags & !kind.allowed_flags() != 0
        || header_digest != format.header_digest
        || (data_digest && !format.data_digest)
        || (has_data && data_digest != format.data_digest)
    {
        return Err(PduError::Flags {
            pdu: kind,
            flags: common.flags,
        });
    }
    if common.hlen != expected {
        return Err(PduError::HeaderLength {
            pdu: kind,
            hlen: common.hlen,
            expected,
        });
    }
    if !has_data {
        // PDO is reserved here, and reserved fields are not looked at. Data PDUs without data are senseless.
        if plen != u32::from(header) || matches!(kind, PduType::H2cData | PduType::C2hData) {
            return Err(PduError::Length { pdu: kind, plen });
        }
        return Ok(Shape {
            kind,
            header,
            header_digest,
            pad: 0,
            payload: 0,
            data_digest: false,
        });
    }
    let alignment = format.alignment.bytes();
    let pdo = u32::from(common.pdo);
    if pdo < u32::from(header) || pdo > plen || !pdo.is_multiple_of(alignment) {
        return Err(PduError::DataOffset {
            pdu: kind,
            pdo: common.pdo,
            alignment,
        });
    }
    let digest = if data_digest { DIGEST_SIZE as u32 } else { 0 };
    let payload = (plen - pdo)
        .checked_sub(digest)
        .filter(|&payload| payload > 0)
        .ok_or(PduError::Length { pdu: kind, plen })?;
    let limit = if kind == PduType::CapsuleCmd {
        rules.max_capsule_data
    } else {
        rules.max_data
    };
    if payload > limit {
        return Err(PduError::TooMuchData {
            pdu: kind,
            payload,
            limit,
        });
    }
    Ok(Shape {
        kind,
        header,
        header_digest,
        pad: common.pdo - header,
        payload,
        data_digest,
    })
}

/// A termination request is taken at any time; flags and data offset do not matter to it.
fn check_term(kind: PduType, hlen: u8, plen: u32) -> Result<Shape, PduError> {
    let header = kind.header_len();
    if hlen != header || !(term::HEADER_SIZE..=term::MAX_SIZE).contains(&plen) {
        return Err(PduError::TermReq {
            pdu: kind,
            hlen,
            plen,
        });
    }
    let payload = plen - term::HEADER_SIZE;
    Ok(Shape {
        kind,
        header,
        header_digest: false,
        pad: 0,
        payload,
        data_digest: false,
    })
}
