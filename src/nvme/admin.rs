//! The admin commands of a fabrics controller, read from and written to queue entries (Base 5).

use super::command::Command;
use super::feature::Select;
use super::opcode::AdminOpcode;
use super::status::Status;

/// Identify (Base 5.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identify {
    /// Which structure: a [`super::identify::Cns`], kept as a number so that unknown ones can be named.
    pub cns: u8,
    /// Controller identifier, for lists of controllers.
    pub cntid: u16,
    /// Command set identifier, for structures of a command set.
    pub csi: u8,
    /// CNS specific identifier.
    pub cns_specific: u16,
    /// Index into the UUID list, 0 for none.
    pub uuid_index: u8,
}

/// Get Log Page (Base 5.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetLogPage {
    /// Which page: a [`super::log_page::LogPageId`], kept as a number so that unknown ones can be named.
    pub lid: u8,
    /// Log specific parameter, 7 bits.
    pub lsp: u8,
    /// Retain asynchronous event: reading does not re-arm the event.
    pub retain_event: bool,
    /// Bytes to transfer, 4 to 16 GiB in steps of 4.
    pub len: u64,
    /// Log specific identifier.
    pub lsi: u16,
    /// First byte to transfer; an index where `by_index` is set.
    pub offset: u64,
    /// OT: the offset counts entries, not bytes.
    pub by_index: bool,
    /// Command set identifier.
    pub csi: u8,
    /// Index into the UUID list, 0 for none.
    pub uuid_index: u8,
}

/// Set Features (Base 5.27).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetFeatures {
    /// Which feature: a [`super::feature::FeatureId`], kept as a number so that unknown ones can be named.
    pub fid: u8,
    /// Keep the value over resets and power cycles.
    pub save: bool,
    /// Dword 11: the value, or a part of it.
    pub value: u32,
    /// Dword 12, for features that need more.
    pub value2: u32,
    /// Index into the UUID list, 0 for none.
    pub uuid_index: u8,
}

/// Get Features (Base 5.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetFeatures {
    /// Which feature: a [`super::feature::FeatureId`], kept as a number so that unknown ones can be named.
    pub fid: u8,
    /// Which of its values.
    pub select: Select,
    /// Dword 11, for features that need it.
    pub value: u32,
    /// Index into the UUID list, 0 for none.
    pub uuid_index: u8,
}

/// One command of the admin queue that is not a fabrics command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminCommand {
    /// Ask for a data structure.
    Identify(Identify),
    /// Ask for a log page.
    GetLogPage(GetLogPage),
    /// Try to abort a command.
    Abort {
        /// Submission queue of that command.
        sqid: u16,
        /// Its command identifier.
        cid: u16,
    },
    /// Change a feature.
    SetFeatures(SetFeatures),
    /// Ask for a feature.
    GetFeatures(GetFeatures),
    /// Leave a request with the controller, to be completed by an event.
    AsyncEventRequest,
    /// The host is alive.
    KeepAlive,
}

const UUID_INDEX: u32 = 0x7f;

impl AdminCommand {
    /// Reads a queue entry.
    ///
    /// # Errors
    /// Both with Do Not Retry: [`Status::INVALID_OPCODE`] for commands that no fabrics controller here has,
    /// [`Status::INVALID_FIELD`] for a log page offset that is not a multiple of 4 bytes and for a reserved
    /// choice in Get Features.
    pub fn parse(command: &Command) -> Result<Self, Status> {
        let opcode = AdminOpcode::from_code(command.opcode)
            .ok_or(Status::INVALID_OPCODE.with_do_not_retry())?;
        let dword10 = command.cdw10.get();
        let dword11 = command.cdw11.get();
        let uuid_index = (command.cdw14.get() & UUID_INDEX) as u8;
        match opcode {
            AdminOpcode::Identify => Ok(Self::Identify(Identify {
                cns: (dword10 & 0xff) as u8,
                cntid: (dword10 >> 16) as u16,
                csi: (dword11 >> 24) as u8,
                cns_specific: (dword11 & 0xffff) as u16,
                uuid_index,
            })),
            AdminOpcode::GetLogPage => GetLogPage::parse(command).map(Self::GetLogPage),
            AdminOpcode::Abort => Ok(Self::Abort {
                sqid: (dword10 & 0xffff) as u16,
                cid: (dword10 >> 16) as u16,
            }),
            AdminOpcode::SetFeatures => Ok(Self::SetFeatures(SetFeatures {
                fid: (dword10 & 0xff) as u8,
                save: dword10 >> 31 == 1,
                value: dword11,
                value2: command.cdw12.get(),
                uuid_index,
            })),
            AdminOpcode::GetFeatures => {
                let select = Select::from_code(((dword10 >> 8) & 0x7) as u8)
                    .ok_or(Status::INVALID_FIELD.with_do_not_retry())?;
                Ok(Self::GetFeatures(GetFeatures {
                    fid: (dword10 & 0xff) as u8,
                    select,
                    value: dword11,
                    uuid_index,
                }))
            }
            AdminOpcode::AsyncEventRequest => Ok(Self::AsyncEventRequest),
            AdminOpcode::KeepAlive => Ok(Self::KeepAlive),
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }

    /// The opcode of the command.
    #[must_use]
    pub fn opcode(&self) -> AdminOpcode {
        match self {
            Self::Identify(_) => AdminOpcode::Identify,
            Self::GetLogPage(_) => AdminOpcode::GetLogPage,
            Self::Abort { .. } => AdminOpcode::Abort,
            Self::SetFeatures(_) => AdminOpcode::SetFeatures,
            Self::GetFeatures(_) => AdminOpcode::GetFeatures,
            Self::AsyncEventRequest => AdminOpcode::AsyncEventRequest,
            Self::KeepAlive => AdminOpcode::KeepAlive,
        }
    }

    /// The queue entry of the command, without command identifier and data pointer.
    ///
    /// # Panics
    /// Where the length of a log page is 0, not a multiple of 4 or above 16 GiB: NUMD can't say that.
    #[must_use]
    pub fn to_command(&self, nsid: u32) -> Command {
        let mut command = Command::new(self.opcode().code(), nsid);
        match self {
            Self::Identify(identify) => {
                command.cdw10 = (u32::from(identify.cntid) << 16 | u32::from(identify.cns)).into();
                command.cdw11 =
                    (u32::from(identify.csi) << 24 | u32::from(identify.cns_specific)).into();
                command.cdw14 = (u32::from(identify.uuid_index) & UUID_INDEX).into();
            }
            Self::GetLogPage(page) => page.write_to(&mut command),
            Self::Abort { sqid, cid } => {
                command.cdw10 = (u32::from(*cid) << 16 | u32::from(*sqid)).into()
            }
            Self::SetFeatures(set) => {
                command.cdw10 = (u32::from(set.save) << 31 | u32::from(set.fid)).into();
                command.cdw11 = set.value.into();
                command.cdw12 = set.value2.into();
                command.cdw14 = (u32::from(set.uuid_index) & UUID_INDEX).into();
            }
            Self::GetFeatures(get) => {
                command.cdw10 = (u32::from(get.select.code()) << 8 | u32::from(get.fid)).into();
                command.cdw11 = get.value.into();
                command.cdw14 = (u32::from(get.uuid_index) & UUID_INDEX).into();
            }
            Self::AsyncEventRequest | Self::KeepAlive => {}
        }
        command
    }
}

const BY_INDEX: u32 = 1 << 23;
const RETAIN_EVENT: u32 = 1 << 15;

impl GetLogPage {
    /// A request for the first `len` bytes of a page.
    #[must_use]
    pub fn new(lid: u8, len: u64) -> Self {
        Self {
            lid,
            len,
            ..Self::default()
        }
    }

    fn parse(command: &Command) -> Result<Self, Status> {
        let dword10 = command.cdw10.get();
        let dword11 = command.cdw11.get();
        let dword14 = command.cdw14.get();
        let dwords = u64::from(dword11 & 0xffff) << 16 | u64::from(dword10 >> 16);
        let page = Self {
            lid: (dword10 & 0xff) as u8,
            lsp: ((dword10 >> 8) & 0x7f) as u8,
            retain_event: dword10 & RETAIN_EVENT != 0,
            len: (dwords + 1) * 4,
            lsi: (dword11 >> 16) as u16,
            offset: u64::from(command.cdw13.get()) << 32 | u64::from(command.cdw12.get()),
            by_index: dword14 & BY_INDEX != 0,
            csi: (dword14 >> 24) as u8,
            uuid_index: (dword14 & UUID_INDEX) as u8,
        };
        if !page.by_index && !page.offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        Ok(page)
    }

    fn write_to(&self, command: &mut Command) {
        assert!(
            self.len.is_multiple_of(4) && (4..=4 << 32).contains(&self.len),
            "a log page is read in 4 to 2^34 bytes, in steps of 4, not {}",
            self.len
        );
        let dwords = self.len / 4 - 1;
        let mut dword10 = ((dwords & 0xffff) as u32) << 16
            | u32::from(self.lsp & 0x7f) << 8
            | u32::from(self.lid);
        if self.retain_event {
            dword10 |= RETAIN_EVENT;
        }
        command.cdw10 = dword10.into();
        command.cdw11 = (u32::from(self.lsi) << 16 | (dwords >> 16) as u32).into();
        command.cdw12 = ((self.offset & 0xffff_ffff) as u32).into();
        command.cdw13 = ((self.offset >> 32) as u32).into();
        let mut dword14 = u32::from(self.csi) << 24 | u32::from(self.uuid_index) & UUID_INDEX;
        if self.by_index {
            dword14 |= BY_INDEX;
        }
        command.cdw14 = dword14.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(opcode: u8, dwords: [u32; 5]) -> Command {
        let mut command = Command::new(opcode, 1);
        command.cdw10 = dwords[0].into();
        command.cdw11 = dwords[1].into();
        command.cdw12 = dwords[2].into();
        command.cdw13 = dwords[3].into();
        command.cdw14 = dwords[4].into();
        command
    }

    #[test]
    fn identify_fields_are_in_place() {
        let command = entry(0x06, [0x0102_0005, 0x0200_0304, 0, 0, 0x7]);
        assert_eq!(
            AdminCommand::parse(&command),
            Ok(AdminCommand::Identify(Identify {
                cns: 5,
                cntid: 0x0102,
                csi: 2,
                cns_specific: 0x0304,
                uuid_index: 7
            }))
        );
    }

    #[test]
    fn a_log_page_has_a_length_in_dwords_and_an_offset() {
        // 1024 bytes of page 70h from 1024, retaining the event: NUMD is 255.
        let command = entry(0x02, [0x00ff_8070, 0, 1024, 0, 0]);
        assert_eq!(
            AdminCommand::parse(&command),
            Ok(AdminCommand::GetLogPage(GetLogPage {
                lid: 0x70,
                retain_event: true,
                len: 1024,
                offset: 1024,
                ..GetLogPage::default()
            }))
        );
        let command = entry(0x02, [0xffff_0001, 0xffff, 0, 0, 0]);
        let Ok(AdminCommand::GetLogPage(page)) = AdminCommand::parse(&command) else {
            panic!("a log page")
        };
        assert_eq!(page.len, 16 << 30);
        let odd = AdminCommand::parse(&entry(0x02, [2, 0, 2, 0, 0])).expect_err("offset 2");
        assert_eq!(odd, Status::INVALID_FIELD.with_do_not_retry());
        assert!(AdminCommand::parse(&entry(0x02, [2, 0, 2, 0, 1 << 23])).is_ok());
    }

    #[test]
    fn features_and_abort_are_in_place() {
        assert_eq!(
            AdminCommand::parse(&entry(0x09, [0x8000_0007, 0x0003_0003, 9, 0, 0])),
            Ok(AdminCommand::SetFeatures(SetFeatures {
                fid: 7,
                save: true,
                value: 0x0003_0003,
                value2: 9,
                uuid_index: 0
            }))
        );
        assert_eq!(
            AdminCommand::parse(&entry(0x0a, [0x0000_010f, 0, 0, 0, 0])),
            Ok(AdminCommand::GetFeatures(GetFeatures {
                fid: 0x0f,
                select: Select::Default,
                value: 0,
                uuid_index: 0
            }))
        );
        assert!(AdminCommand::parse(&entry(0x0a, [0x0000_0400, 0, 0, 0, 0])).is_err());
        assert_eq!(
            AdminCommand::parse(&entry(0x08, [0x0007_0002, 0, 0, 0, 0])),
            Ok(AdminCommand::Abort { sqid: 2, cid: 7 })
        );
    }

    #[test]
    fn what_is_built_is_read_back() {
        for command in [
            AdminCommand::Identify(Identify {
                cns: 3,
                cntid: 9,
                csi: 1,
                cns_specific: 2,
                uuid_index: 4,
            }),
            AdminCommand::GetLogPage(GetLogPage {
                lid: 0x0c,
                lsp: 0x55,
                retain_event: true,
                len: 0x5_0004,
                lsi: 0x1234,
                offset: 0x1_0000_0008,
                by_index: true,
                csi: 3,
                uuid_index: 5,
            }),
            AdminCommand::Abort {
                sqid: 1,
                cid: 0xffff,
            },
            AdminCommand::SetFeatures(SetFeatures {
                fid: 0x0b,
                value: 0x100,
                ..SetFeatures::default()
            }),
            AdminCommand::GetFeatures(GetFeatures {
                fid: 1,
                select: Select::Saved,
                value: 3,
                uuid_index: 0,
            }),
            AdminCommand::AsyncEventRequest,
            AdminCommand::KeepAlive,
        ] {
            assert_eq!(AdminCommand::parse(&command.to_command(0)), Ok(command));
        }
    }

    #[test]
    fn commands_of_memory_based_transports_are_refused() {
        for opcode in [0x00, 0x01, 0x04, 0x05, 0x0d, 0x80, 0x03, 0xc0] {
            let status = AdminCommand::parse(&Command::new(opcode, 0)).expect_err("opcode");
            assert_eq!(status, Status::INVALID_OPCODE.with_do_not_retry());
        }
    }
}
