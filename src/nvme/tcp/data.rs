//! H2CData, C2HData and R2T: how data moves (TCP, "Host to Controller Data Transfer" and its neighbours).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::PduError;
use super::pdu::{CommonHeader, EncodedHeader, PduFormat, PduType, flags, offset};

/// Behind the common header, alike for all three; C2HData has no transfer tag.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DataBody {
    cccid: U16,
    ttag: U16,
    data_offset: U32,
    data_len: U32,
    reserved: U32,
}

layout!(DataBody, 16 bytes, { cccid at 0, ttag at 2, data_offset at 4, data_len at 8, reserved at 12 });

/// Byte offset of DATAL and R2TL in the PDU, for the fatal error information.
const DATA_LEN: u32 = 16;

fn read(header: &[u8]) -> (u8, &DataBody) {
    let (common, rest) =
        CommonHeader::ref_from_prefix(header).expect("the caller has the whole header");
    let (body, _) = DataBody::ref_from_prefix(rest).expect("the caller has the whole header");
    (common.flags, body)
}

fn write(
    kind: PduType,
    more_flags: u8,
    body: [u32; 4],
    format: &PduFormat,
    payload: u32,
) -> EncodedHeader {
    let [cccid, ttag, data_offset, data_len] = body;
    let body = DataBody {
        cccid: (cccid as u16).into(),
        ttag: (ttag as u16).into(),
        data_offset: data_offset.into(),
        data_len: data_len.into(),
        reserved: 0.into(),
    };
    EncodedHeader::new(kind, more_flags, body.as_bytes(), format, payload)
}

/// Checks that DATAL is what the lengths of the PDU leave for data.
fn check_len(kind: PduType, data_len: u32, payload: u32) -> Result<(), PduError> {
    if data_len == payload {
        return Ok(());
    }
    Err(PduError::Field {
        pdu: kind,
        field: "DATAL",
        offset: DATA_LEN,
        value: data_len,
        allowed: "the length of the data that PLEN and PDO leave",
    })
}

/// Data of a command, from the host, in answer to an R2T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct H2cData {
    /// CCCID: the command.
    pub cccid: u16,
    /// TTAG: the R2T that this answers.
    pub ttag: u16,
    /// DATAO: where in the data of the command.
    pub offset: u32,
    /// DATAL: how many bytes, not 0.
    pub len: u32,
    /// The last of the data that the R2T asked for.
    pub last: bool,
}

impl H2cData {
    /// The bytes in front of the data.
    #[must_use]
    pub fn encode(&self, format: &PduFormat) -> EncodedHeader {
        let more_flags = if self.last { flags::LAST } else { 0 };
        let body = [self.cccid.into(), self.ttag.into(), self.offset, self.len];
        write(PduType::H2cData, more_flags, body, format, self.len)
    }

    /// The byte behind the data, in the data of the command.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }

    /// Reads a whole header of a PDU with `payload` bytes of data.
    pub(super) fn parse(header: &[u8], payload: u32) -> Result<Self, PduError> {
        let (bits, body) = read(header);
        check_len(PduType::H2cData, body.data_len.get(), payload)?;
        Ok(Self {
            cccid: body.cccid.get(),
            ttag: body.ttag.get(),
            offset: body.data_offset.get(),
            len: body.data_len.get(),
            last: bits & flags::LAST != 0,
        })
    }
}

/// Data of a command, from the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct C2hData {
    /// CCCID: the command.
    pub cccid: u16,
    /// DATAO: where in the data of the command.
    pub offset: u32,
    /// DATAL: how many bytes, not 0.
    pub len: u32,
    /// The last of the command's data.
    pub last: bool,
    /// The command has succeeded and no response capsule follows; only with `last`, and only where the
    /// host disabled submission queue flow control.
    pub success: bool,
}

impl C2hData {
    /// The bytes in front of the data.
    ///
    /// # Panics
    /// Where `success` is set without `last`.
    #[must_use]
    pub fn encode(&self, format: &PduFormat) -> EncodedHeader {
        assert!(
            self.last || !self.success,
            "only the last data of a command can complete it"
        );
        let mut more_flags = 0;
        if self.last {
            more_flags |= flags::LAST;
        }
        if self.success {
            more_flags |= flags::SUCCESS;
        }
        let body = [self.cccid.into(), 0, self.offset, self.len];
        write(PduType::C2hData, more_flags, body, format, self.len)
    }

    /// The byte behind the data, in the data of the command.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }

    /// Reads a whole header of a PDU with `payload` bytes of data.
    pub(super) fn parse(header: &[u8], payload: u32) -> Result<Self, PduError> {
        let kind = PduType::C2hData;
        let (bits, body) = read(header);
        let last = bits & flags::LAST != 0;
        let success = bits & flags::SUCCESS != 0;
        if success && !last {
            return Err(PduError::Field {
                pdu: kind,
                field: "FLAGS",
                offset: offset::FLAGS,
                value: bits.into(),
                allowed: "SUCCESS only together with LAST_PDU",
            });
        }
        check_len(kind, body.data_len.get(), payload)?;
        Ok(Self {
            cccid: body.cccid.get(),
            offset: body.data_offset.get(),
            len: body.data_len.get(),
            last,
            success,
        })
    }
}

/// Ready to transfer: the controller asks for data of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2t {
    /// CCCID: the command.
    pub cccid: u16,
    /// TTAG: what the data must carry in answer.
    pub ttag: u16,
    /// R2TO: where in the data of the command.
    pub offset: u32,
    /// R2TL: how many bytes, not 0.
    pub len: u32,
}

impl R2t {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self, format: &PduFormat) -> EncodedHeader {
        let body = [self.cccid.into(), self.ttag.into(), self.offset, self.len];
        write(PduType::R2t, 0, body, format, 0)
    }

    /// The byte behind the data asked for, in the data of the command.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }

    /// Reads a whole header.
    pub(super) fn parse(header: &[u8]) -> Result<Self, PduError> {
        let (_, body) = read(header);
        if body.data_len.get() == 0 {
            return Err(PduError::Field {
                pdu: PduType::R2t,
                field: "R2TL",
                offset: DATA_LEN,
                value: 0,
                allowed: "1 or more",
            });
        }
        Ok(Self {
            cccid: body.cccid.get(),
            ttag: body.ttag.get(),
            offset: body.data_offset.get(),
            len: body.data_len.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_pdus_have_the_bytes_of_the_specification() {
        let data = H2cData {
            cccid: 0x0102,
            ttag: 0x0304,
            offset: 0x1000,
            len: 0x2000,
            last: true,
        };
        let bytes = data.encode(&PduFormat::default());
        assert_eq!(
            *bytes,
            [
                6, 0b100, 24, 24, 0x18, 0x20, 0, 0, 2, 1, 4, 3, 0, 0x10, 0, 0, 0, 0x20, 0, 0, 0, 0,
                0, 0
            ]
        );
        assert_eq!(H2cData::parse(&bytes, 0x2000), Ok(data));
        assert_eq!(data.end(), 0x3000);

        let data = C2hData {
            cccid: 9,
            offset: 0,
            len: 4,
            last: true,
            success: true,
        };
        let bytes = data.encode(&PduFormat {
            data_digest: true,
            ..PduFormat::default()
        });
        assert_eq!(bytes[..12], [7, 0b1110, 24, 24, 32, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(C2hData::parse(&bytes, 4), Ok(data));

        let r2t = R2t {
            cccid: 5,
            ttag: 6,
            offset: 7,
            len: 8,
        };
        let bytes = r2t.encode(&PduFormat::default());
        assert_eq!(
            *bytes,
            [
                9, 0, 24, 0, 24, 0, 0, 0, 5, 0, 6, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(R2t::parse(&bytes), Ok(r2t));
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let data = H2cData {
            cccid: 1,
            ttag: 1,
            offset: 0,
            len: 512,
            last: true,
        };
        let fault =
            H2cData::parse(&data.encode(&PduFormat::default()), 508).expect_err("508 is not 512");
        assert_eq!(fault.fatal().map(|fatal| fatal.fei()), Some(16));
        let mut bytes = R2t {
            cccid: 1,
            ttag: 1,
            offset: 0,
            len: 1,
        }
        .encode(&PduFormat::default())
        .to_vec();
        bytes[16] = 0;
        assert!(R2t::parse(&bytes).is_err());
    }

    #[test]
    fn success_needs_last() {
        let data = C2hData {
            cccid: 1,
            offset: 0,
            len: 4,
            last: true,
            success: true,
        };
        let mut bytes = data.encode(&PduFormat::default()).to_vec();
        bytes[1] = flags::SUCCESS;
        let fault = C2hData::parse(&bytes, 4).expect_err("SUCCESS without LAST_PDU");
        assert_eq!(fault.fatal().map(|fatal| fatal.fei()), Some(1));
    }
}
