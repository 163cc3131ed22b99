//! Fabrics commands: Connect, Disconnect, Property Get and Set, authentication (Base 6).

mod connect;

pub use connect::{
    CNTLID_DYNAMIC, CNTLID_MAX, CNTLID_STATIC_ANY, ConnectData, ConnectParameter, ConnectResult,
};

use super::command::Command;
use super::opcode::{DataDirection, FABRICS, FabricsType};
use super::property::PropertySize;
use super::status::Status;

/// Connect (Base, "Connect Command and Response"): the dwords; what they mean together with the data is the controller's to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connect {
    /// Record format, 0.
    pub recfmt: u16,
    /// Queue identifier, 0 for the admin queue.
    pub qid: u16,
    /// SQSIZE: entries of the submission queue, 0's based; 0 is not allowed.
    pub sqsize: u16,
    /// CATTR bits 1:0, priority class.
    pub priority: u8,
    /// CATTR bit 2: the host disables submission queue flow control, so that SQHD need not be kept.
    pub disable_sq_flow_control: bool,
    /// CATTR bit 3: the host may delete single I/O queues with Disconnect.
    pub io_queue_deletion: bool,
    /// KATO: keep alive timeout in milliseconds, 0 for none.
    pub kato_ms: u32,
}

impl Connect {
    /// Entries of the submission queue.
    #[must_use]
    pub fn queue_entries(&self) -> u32 {
        u32::from(self.sqsize) + 1
    }
}

/// Authentication Send or Receive (Base, "Authentication Send Command and Response" and its neighbour).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Authentication {
    /// Security protocol, E9h for NVMe.
    pub protocol: u8,
    /// Protocol specific, 1 for NVMe in-band authentication.
    pub specific0: u8,
    /// Protocol specific, 1 for NVMe in-band authentication.
    pub specific1: u8,
    /// Bytes to transfer: TL or AL.
    pub len: u32,
}

/// One fabrics command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FabricsCommand {
    /// Make a queue, and with queue 0 an association.
    Connect(Connect),
    /// Delete the I/O queue that carries the command.
    Disconnect {
        /// Record format, 0.
        recfmt: u16,
    },
    /// Read a property.
    PropertyGet {
        /// Bytes to read.
        size: PropertySize,
        /// Offset of the property: a [`super::property::Property`] where it is known.
        offset: u32,
    },
    /// Write a property.
    PropertySet {
        /// Bytes to write.
        size: PropertySize,
        /// Offset of the property: a [`super::property::Property`] where it is known.
        offset: u32,
        /// The value; the upper half is 0 for 4 bytes.
        value: u64,
    },
    /// Carry an authentication message to the controller.
    AuthenticationSend(Authentication),
    /// Fetch an authentication message from the controller.
    AuthenticationReceive(Authentication),
}

const DISABLE_SQ_FLOW_CONTROL: u32 = 1 << 2;
const IO_QUEUE_DELETION: u32 = 1 << 3;

impl FabricsCommand {
    /// Reads a queue entry with opcode 7Fh.
    ///
    /// # Errors
    /// Both with Do Not Retry: [`Status::INVALID_OPCODE`] for another opcode,
    /// [`Status::INVALID_FIELD`] for an unknown FCTYPE or a property size that does not exist.
    pub fn parse(command: &Command) -> Result<Self, Status> {
        if !command.is_fabrics() {
            return Err(Status::INVALID_OPCODE.with_do_not_retry());
        }
        let kind = command
            .fabrics_type()
            .ok_or(Status::INVALID_FIELD.with_do_not_retry())?;
        let dword10 = command.cdw10.get();
        let dword11 = command.cdw11.get();
        let size = || PropertySize::from_attrib((dword10 & 0xff) as u8);
        let authentication = Authentication {
            protocol: (dword10 >> 24) as u8,
            specific0: ((dword10 >> 8) & 0xff) as u8,
            specific1: ((dword10 >> 16) & 0xff) as u8,
            len: dword11,
        };
        Ok(match kind {
            FabricsType::Connect => {
                let attributes = dword11 >> 16;
                Self::Connect(Connect {
                    recfmt: (dword10 & 0xffff) as u16,
                    qid: (dword10 >> 16) as u16,
                    sqsize: (dword11 & 0xffff) as u16,
                    priority: (attributes & 0b11) as u8,
                    disable_sq_flow_control: attributes & DISABLE_SQ_FLOW_CONTROL != 0,
                    io_queue_deletion: attributes & IO_QUEUE_DELETION != 0,
                    kato_ms: command.cdw12.get(),
                })
            }
            FabricsType::Disconnect => Self::Disconnect {
                recfmt: (dword10 & 0xffff) as u16,
            },
            FabricsType::PropertyGet => Self::PropertyGet {
                size: size()?,
                offset: dword11,
            },
            FabricsType::PropertySet => {
                let size = size()?;
                let value = match size {
                    PropertySize::Four => u64::from(command.cdw12.get()),
                    PropertySize::Eight => {
                        u64::from(command.cdw13.get()) << 32 | u64::from(command.cdw12.get())
                    }
                };
                Self::PropertySet {
                    size,
                    offset: dword11,
                    value,
                }
            }
            FabricsType::AuthenticationSend => Self::AuthenticationSend(authentication),
            FabricsType::AuthenticationReceive => Self::AuthenticationReceive(authentication),
        })
    }

    /// FCTYPE of the command.
    #[must_use]
    pub fn kind(&self) -> FabricsType {
        match self {
            Self::Connect(_) => FabricsType::Connect,
            Self::Disconnect { .. } => FabricsType::Disconnect,
            Self::PropertyGet { .. } => FabricsType::PropertyGet,
            Self::PropertySet { .. } => FabricsType::PropertySet,
            Self::AuthenticationSend(_) => FabricsType::AuthenticationSend,
            Self::AuthenticationReceive(_) => FabricsType::AuthenticationReceive,
        }
    }

    /// Which way data flows.
    #[must_use]
    pub fn direction(&self) -> DataDirection {
        DataDirection::of(self.kind().code())
    }

    /// The queue entry of the command, without command identifier and data pointer.
    #[must_use]
    pub fn to_command(&self) -> Command {
        let mut command = Command::new(FABRICS, u32::from(self.kind().code()));
        match self {
            Self::Connect(connect) => {
                command.cdw10 = (u32::from(connect.qid) << 16 | u32::from(connect.recfmt)).into();
                let mut attributes = u32::from(connect.priority & 0b11);
                if connect.disable_sq_flow_control {
                    attributes |= DISABLE_SQ_FLOW_CONTROL;
                }
                if connect.io_queue_deletion {
                    attributes |= IO_QUEUE_DELETION;
                }
                command.cdw11 = (attributes << 16 | u32::from(connect.sqsize)).into();
                command.cdw12 = connect.kato_ms.into();
            }
            Self::Disconnect { recfmt } => command.cdw10 = u32::from(*recfmt).into(),
            Self::PropertyGet { size, offset } => {
                command.cdw10 = u32::from(size.attrib()).into();
                command.cdw11 = (*offset).into();
            }
            Self::PropertySet {
                size,
                offset,
                value,
            } => {
                command.cdw10 = u32::from(size.attrib()).into();
                command.cdw11 = (*offset).into();
                command.cdw12 = ((value & 0xffff_ffff) as u32).into();
                if *size == PropertySize::Eight {
                    command.cdw13 = ((value >> 32) as u32).into();
                }
            }
            Self::AuthenticationSend(auth) | Self::AuthenticationReceive(auth) => {
                command.cdw10 = (u32::from(auth.protocol) << 24
                    | u32::from(auth.specific1) << 16
                    | u32::from(auth.specific0) << 8)
                    .into();
                command.cdw11 = auth.len.into();
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::*;

    /// A queue entry with the given bytes at their offsets.
    fn entry(bytes: &[(usize, u8)]) -> Command {
        let mut raw = [0; 64];
        raw[0] = 0x7f;
        raw[1] = 0x40;
        for &(offset, byte) in bytes {
            raw[offset] = byte;
        }
        Command::read_from_bytes(&raw).expect("64 bytes")
    }

    #[test]
    fn connect_fields_are_at_the_bytes_of_the_specification() {
        let command = entry(&[
            (4, 0x01),
            (42, 0x02),
            (44, 0x7f),
            (46, 0x05),
            (48, 0x98),
            (49, 0x3a),
        ]);
        assert_eq!(
            FabricsCommand::parse(&command),
            Ok(FabricsCommand::Connect(Connect {
                recfmt: 0,
                qid: 2,
                sqsize: 127,
                priority: 1,
                disable_sq_flow_control: true,
                io_queue_deletion: false,
                kato_ms: 15_000,
            }))
        );
    }

    #[test]
    fn property_commands_are_at_the_bytes_of_the_specification() {
        let get = entry(&[(4, 0x04), (40, 0x01), (44, 0x00)]);
        assert_eq!(
            FabricsCommand::parse(&get),
            Ok(FabricsCommand::PropertyGet {
                size: PropertySize::Eight,
                offset: 0
            })
        );
        // The upper dword is reserved for a 4-byte property.
        let set = entry(&[(4, 0x00), (44, 0x14), (48, 0x01), (50, 0x46), (52, 0xee)]);
        assert_eq!(
            FabricsCommand::parse(&set),
            Ok(FabricsCommand::PropertySet {
                size: PropertySize::Four,
                offset: 0x14,
                value: 0x0046_0001
            })
        );
        let size = entry(&[(4, 0x04), (40, 0x03)]);
        assert_eq!(
            FabricsCommand::parse(&size),
            Err(Status::INVALID_FIELD.with_do_not_retry())
        );
    }

    #[test]
    fn authentication_fields_are_at_the_bytes_of_the_specification() {
        let send = entry(&[(4, 0x05), (41, 0x01), (42, 0x02), (43, 0xe9), (45, 0x01)]);
        assert_eq!(
            FabricsCommand::parse(&send),
            Ok(FabricsCommand::AuthenticationSend(Authentication {
                protocol: 0xe9,
                specific0: 1,
                specific1: 2,
                len: 256
            }))
        );
    }

    #[test]
    fn unknown_types_and_other_opcodes_are_refused() {
        assert_eq!(
            FabricsCommand::parse(&entry(&[(4, 0x02)])),
            Err(Status::INVALID_FIELD.with_do_not_retry())
        );
        assert_eq!(
            FabricsCommand::parse(&Command::new(0x06, 1)),
            Err(Status::INVALID_OPCODE.with_do_not_retry())
        );
    }

    #[test]
    fn what_is_built_is_read_back() {
        let auth = Authentication {
            protocol: 0xe9,
            specific0: 1,
            specific1: 1,
            len: 80,
        };
        for command in [
            FabricsCommand::Connect(Connect {
                qid: 3,
                sqsize: 0xffff,
                priority: 3,
                io_queue_deletion: true,
                kato_ms: u32::MAX,
                ..Connect::default()
            }),
            FabricsCommand::Disconnect { recfmt: 0 },
            FabricsCommand::PropertyGet {
                size: PropertySize::Four,
                offset: 0x1c,
            },
            FabricsCommand::PropertySet {
                size: PropertySize::Eight,
                offset: 0x28,
                value: u64::MAX - 1,
            },
            FabricsCommand::AuthenticationSend(auth),
            FabricsCommand::AuthenticationReceive(auth),
        ] {
            assert_eq!(FabricsCommand::parse(&command.to_command()), Ok(command));
        }
        assert_eq!(
            Connect {
                sqsize: 0xffff,
                ..Connect::default()
            }
            .queue_entries(),
            65_536
        );
    }
}
