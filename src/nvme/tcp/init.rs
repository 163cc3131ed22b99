//! ICReq and ICResp: how a connection starts (TCP, "Initialize Connection Request" and "Response").

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MIN_MAXH2CDATA;
use super::error::PduError;
use super::pdu::{COMMON_HEADER_SIZE, DataAlignment, EncodedHeader, PduFormat, PduType};

/// PDU format version 1.0, the only one there is.
pub const PFV_1_0: u16 = 0;

const HEADER_DIGEST: u8 = 1 << 0;
const DATA_DIGEST: u8 = 1 << 1;

/// Behind the common header, alike for both: ICReq has HPDA and MAXR2T where ICResp has CPDA and MAXH2CDATA.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct InitBody {
    pfv: U16,
    alignment: u8,
    digests: u8,
    limit: U32,
    reserved: [u8; 112],
}

layout!(InitBody, 120 bytes, { pfv at 0, alignment at 2, digests at 3, limit at 4, reserved at 8 });

/// Byte offsets in the PDU, for the fatal error information.
const PFV: u32 = 8;
const PDA: u32 = 10;
const DGST: u32 = 11;
const LIMIT: u32 = 12;

/// The fields that ICReq and ICResp share, checked.
fn read(kind: PduType, header: &[u8]) -> Result<(DataAlignment, bool, bool, u32), PduError> {
    let (body, _) = InitBody::ref_from_prefix(&header[COMMON_HEADER_SIZE..])
        .expect("the caller has the whole header");
    if body.pfv.get() != PFV_1_0 {
        return Err(PduError::Unsupported {
            pdu: kind,
            field: "PFV",
            offset: PFV,
            value: body.pfv.get().into(),
        });
    }
    let alignment = DataAlignment::from_code(body.alignment).ok_or(PduError::Field {
        pdu: kind,
        field: if kind == PduType::IcReq {
            "HPDA"
        } else {
            "CPDA"
        },
        offset: PDA,
        value: body.alignment.into(),
        allowed: "0 to 31",
    })?;
    if body.digests & !(HEADER_DIGEST | DATA_DIGEST) != 0 {
        return Err(PduError::Field {
            pdu: kind,
            field: "DGST",
            offset: DGST,
            value: body.digests.into(),
            allowed: "0 to 3",
        });
    }
    let digest = |bit| body.digests & bit != 0;
    Ok((
        alignment,
        digest(HEADER_DIGEST),
        digest(DATA_DIGEST),
        body.limit.get(),
    ))
}

fn write(
    kind: PduType,
    alignment: DataAlignment,
    header_digest: bool,
    data_digest: bool,
    limit: u32,
) -> EncodedHeader {
    let mut body = InitBody::new_zeroed();
    body.alignment = alignment.code();
    body.digests = (if header_digest { HEADER_DIGEST } else { 0 })
        | (if data_digest { DATA_DIGEST } else { 0 });
    body.limit = limit.into();
    EncodedHeader::new(kind, 0, body.as_bytes(), &PduFormat::default(), 0)
}

/// What a host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcReq {
    /// HPDA: how the data that the controller sends must be aligned.
    pub alignment: DataAlignment,
    /// The host wants header digests.
    pub header_digest: bool,
    /// The host wants data digests.
    pub data_digest: bool,
    /// MAXR2T: R2Ts that may be open for one command, counted from 1; 0's based on the wire.
    pub max_r2t: u64,
}

impl IcReq {
    /// The bytes to send.
    ///
    /// # Panics
    /// Where `max_r2t` is not 1 to 2^32.
    #[must_use]
    pub fn encode(&self) -> EncodedHeader {
        let limit = self
            .max_r2t
            .checked_sub(1)
            .and_then(|limit| u32::try_from(limit).ok());
        let limit = limit.expect("MAXR2T is 1 to 2^32");
        write(
            PduType::IcReq,
            self.alignment,
            self.header_digest,
            self.data_digest,
            limit,
        )
    }

    /// Reads a whole header.
    pub(super) fn parse(header: &[u8]) -> Result<Self, PduError> {
        let (alignment, header_digest, data_digest, limit) = read(PduType::IcReq, header)?;
        Ok(Self {
            alignment,
            header_digest,
            data_digest,
            max_r2t: u64::from(limit) + 1,
        })
    }
}

/// What a controller grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcResp {
    /// CPDA: how the data that the host sends must be aligned.
    pub alignment: DataAlignment,
    /// There are header digests.
    pub header_digest: bool,
    /// There are data digests.
    pub data_digest: bool,
    /// MAXH2CDATA: most bytes of data in one H2CData; at least 4096, a multiple of 4.
    pub max_h2c_data: u32,
}

impl IcResp {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> EncodedHeader {
        write(
            PduType::IcResp,
            self.alignment,
            self.header_digest,
            self.data_digest,
            self.max_h2c_data,
        )
    }

    /// Reads a whole header.
    pub(super) fn parse(header: &[u8]) -> Result<Self, PduError> {
        let kind = PduType::IcResp;
        let (alignment, header_digest, data_digest, max_h2c_data) = read(kind, header)?;
        if max_h2c_data < MIN_MAXH2CDATA || !max_h2c_data.is_multiple_of(4) {
            return Err(PduError::Field {
                pdu: kind,
                field: "MAXH2CDATA",
                offset: LIMIT,
                value: max_h2c_data,
                allowed: "4096 or more, a multiple of 4",
            });
        }
        Ok(Self {
            alignment,
            header_digest,
            data_digest,
            max_h2c_data,
        })
    }

    /// Checks that the controller grants no digest that was not asked for.
    ///
    /// # Errors
    /// [`PduError::Unsupported`], to be answered with a termination request.
    pub fn check_against(&self, request: &IcReq) -> Result<(), PduError> {
        let header = self.header_digest && !request.header_digest;
        let data = self.data_digest && !request.data_digest;
        if header || data {
            let value = u32::from(self.header_digest) | u32::from(self.data_digest) << 1;
            return Err(PduError::Unsupported {
                pdu: PduType::IcResp,
                field: "DGST",
                offset: DGST,
                value,
            });
        }
        Ok(())
    }

    /// The format of PDUs that the host sends from now on.
    #[must_use]
    pub fn host_format(&self) -> PduFormat {
        PduFormat {
            header_digest: self.header_digest,
            data_digest: self.data_digest,
            alignment: self.alignment,
        }
    }

    /// The format of PDUs that the controller sends from now on.
    #[must_use]
    pub fn controller_format(&self, request: &IcReq) -> PduFormat {
        PduFormat {
            alignment: request.alignment,
            ..self.host_format()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_bytes_of_the_specification() {
        let alignment = DataAlignment::from_code(3).expect("3");
        let request = IcReq {
            alignment,
            header_digest: true,
            data_digest: false,
            max_r2t: 4,
        };
        let bytes = request.encode();
        assert_eq!(bytes.len(), 128);
        assert_eq!(
            bytes[..16],
            [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 3, 0b01, 3, 0, 0, 0]
        );
        assert!(bytes[16..].iter().all(|&byte| byte == 0));
        assert_eq!(IcReq::parse(&bytes), Ok(request));
    }

    #[test]
    fn the_response_has_the_bytes_of_the_specification() {
        let alignment = DataAlignment::default();
        let response = IcResp {
            alignment,
            header_digest: false,
            data_digest: true,
            max_h2c_data: 0x2_0000,
        };
        let bytes = response.encode();
        assert_eq!(
            bytes[..16],
            [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 0b10, 0, 0, 2, 0]
        );
        assert_eq!(IcResp::parse(&bytes), Ok(response));
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let alignment = DataAlignment::default();
        let request = IcReq {
            alignment,
            header_digest: true,
            data_digest: false,
            max_r2t: 1,
        };
        let grant = |header_digest, data_digest| {
            IcResp {
                alignment,
                header_digest,
                data_digest,
                max_h2c_data: 4096,
            }
            .check_against(&request)
        };
        assert_eq!(grant(true, false), Ok(()));
        assert_eq!(grant(false, false), Ok(()));
        assert!(grant(true, true).is_err());
    }

    #[test]
    fn fields_out_of_range_are_named_by_offset() {
        let good = IcResp {
            alignment: DataAlignment::default(),
            header_digest: false,
            data_digest: false,
            max_h2c_data: 4096,
        };
        for (at, byte, offset) in [
            (8, 1, 8),
            (10, 32, 10),
            (11, 4, 11),
            (13, 0x0f, 12),
            (12, 1, 12),
        ] {
            let mut bytes = good.encode().to_vec();
            bytes[at] = byte;
            let fault = IcResp::parse(&bytes).expect_err("a fault");
            assert_eq!(
                fault.fatal().map(|fatal| fatal.fei()),
                Some(offset),
                "{fault}"
            );
        }
    }
}
