//! CapsuleCmd and CapsuleResp: a queue entry each way (TCP, "Command Capsule" and "Response Capsule").

use zerocopy::{FromBytes, IntoBytes};

use super::pdu::{COMMON_HEADER_SIZE, EncodedHeader, PduFormat, PduType};
use crate::nvme::command::Command;
use crate::nvme::completion::Completion;

/// A command, with or without data in the capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapsuleCmd {
    /// The command.
    pub command: Command,
}

impl CapsuleCmd {
    /// The bytes in front of `in_capsule` bytes of data, 0 for none.
    #[must_use]
    pub fn encode(&self, format: &PduFormat, in_capsule: u32) -> EncodedHeader {
        EncodedHeader::new(
            PduType::CapsuleCmd,
            0,
            self.command.as_bytes(),
            format,
            in_capsule,
        )
    }

    /// Reads a whole header.
    pub(super) fn parse(header: &[u8]) -> Self {
        let (command, _) = Command::read_from_prefix(&header[COMMON_HEADER_SIZE..])
            .expect("the caller has the whole header");
        Self { command }
    }
}

/// A completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapsuleResp {
    /// The completion.
    pub completion: Completion,
}

impl CapsuleResp {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self, format: &PduFormat) -> EncodedHeader {
        EncodedHeader::new(
            PduType::CapsuleResp,
            0,
            self.completion.as_bytes(),
            format,
            0,
        )
    }

    /// Reads a whole header.
    pub(super) fn parse(header: &[u8]) -> Self {
        let (completion, _) = Completion::read_from_prefix(&header[COMMON_HEADER_SIZE..])
            .expect("the caller has the whole header");
        Self { completion }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvme::sgl::SglDescriptor;
    use crate::nvme::status::Status;

    #[test]
    fn a_command_with_data_says_where_the_data_is() {
        let command = Command::new(0x01, 1)
            .with_cid(7)
            .with_sgl(SglDescriptor::in_capsule(4096));
        let capsule = CapsuleCmd { command };
        let bytes = capsule.encode(&PduFormat::default(), 4096);
        // PLEN 72 + 4096 = 1048h.
        assert_eq!(
            bytes[..12],
            [4, 0, 72, 72, 0x48, 0x10, 0, 0, 0x01, 0x40, 7, 0]
        );
        assert_eq!(CapsuleCmd::parse(&bytes), capsule);
    }

    #[test]
    fn a_completion_is_24_bytes() {
        let capsule = CapsuleResp {
            completion: Completion::new(7, Status::INVALID_FIELD),
        };
        let bytes = capsule.encode(&PduFormat::default());
        assert_eq!(bytes[..8], [5, 0, 24, 0, 24, 0, 0, 0]);
        assert_eq!(bytes[20..], [7, 0, 0x04, 0]);
        assert_eq!(CapsuleResp::parse(&bytes), capsule);
    }
}
