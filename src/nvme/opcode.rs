//! Opcodes: admin commands (Base 5), I/O commands of the NVM command set (NVM 3.2), fabrics command types (Base 6).

codes! {
    /// Opcodes of the admin queue (Base figure "Opcodes for Admin Commands").
    pub enum AdminOpcode: u8 {
        DeleteIoSq = 0x00, "Delete I/O Submission Queue";
        CreateIoSq = 0x01, "Create I/O Submission Queue";
        GetLogPage = 0x02, "Get Log Page";
        DeleteIoCq = 0x04, "Delete I/O Completion Queue";
        CreateIoCq = 0x05, "Create I/O Completion Queue";
        Identify = 0x06, "Identify";
        Abort = 0x08, "Abort";
        SetFeatures = 0x09, "Set Features";
        GetFeatures = 0x0a, "Get Features";
        AsyncEventRequest = 0x0c, "Asynchronous Event Request";
        NamespaceManagement = 0x0d, "Namespace Management";
        FirmwareCommit = 0x10, "Firmware Commit";
        FirmwareDownload = 0x11, "Firmware Image Download";
        DeviceSelfTest = 0x14, "Device Self-test";
        NamespaceAttachment = 0x15, "Namespace Attachment";
        KeepAlive = 0x18, "Keep Alive";
        DirectiveSend = 0x19, "Directive Send";
        DirectiveReceive = 0x1a, "Directive Receive";
        VirtualizationManagement = 0x1c, "Virtualization Management";
        NvmeMiSend = 0x1d, "NVMe-MI Send";
        NvmeMiReceive = 0x1e, "NVMe-MI Receive";
        CapacityManagement = 0x20, "Capacity Management";
        Lockdown = 0x24, "Lockdown";
        DoorbellBufferConfig = 0x7c, "Doorbell Buffer Config";
        Fabrics = 0x7f, "Fabrics Commands";
        FormatNvm = 0x80, "Format NVM";
        SecuritySend = 0x81, "Security Send";
        SecurityReceive = 0x82, "Security Receive";
        Sanitize = 0x84, "Sanitize";
        GetLbaStatus = 0x86, "Get LBA Status";
    }
}

codes! {
    /// Opcodes of an I/O queue with the NVM command set (NVM figure "Opcodes for NVM Commands").
    pub enum IoOpcode: u8 {
        Flush = 0x00, "Flush";
        Write = 0x01, "Write";
        Read = 0x02, "Read";
        WriteUncorrectable = 0x04, "Write Uncorrectable";
        Compare = 0x05, "Compare";
        WriteZeroes = 0x08, "Write Zeroes";
        DatasetManagement = 0x09, "Dataset Management";
        Verify = 0x0c, "Verify";
        ReservationRegister = 0x0d, "Reservation Register";
        ReservationReport = 0x0e, "Reservation Report";
        ReservationAcquire = 0x11, "Reservation Acquire";
        ReservationRelease = 0x15, "Reservation Release";
        Copy = 0x19, "Copy";
        Fabrics = 0x7f, "Fabrics Commands";
    }
}

codes! {
    /// Fabrics command types, byte 4 of a command with opcode 7Fh (Base 6).
    pub enum FabricsType: u8 {
        PropertySet = 0x00, "Property Set";
        Connect = 0x01, "Connect";
        PropertyGet = 0x04, "Property Get";
        AuthenticationSend = 0x05, "Authentication Send";
        AuthenticationReceive = 0x06, "Authentication Receive";
        Disconnect = 0x08, "Disconnect";
    }
}

/// The opcode of every fabrics command, on admin and I/O queues alike.
pub const FABRICS: u8 = 0x7f;

/// Which way the data of a command flows: bits 1:0 of its opcode, or of FCTYPE for fabrics commands
/// (Base 3.3.3.1, "Data Transfer").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataDirection {
    /// No data.
    None,
    /// The host sends data, as in Write.
    HostToController,
    /// The controller sends data, as in Read.
    ControllerToHost,
    /// Both ways; no command of this crate does that.
    Bidirectional,
}

impl DataDirection {
    /// The direction that an opcode (or an FCTYPE) carries in its two low bits.
    #[must_use]
    pub const fn of(code: u8) -> Self {
        match code & 0b11 {
            0b00 => Self::None,
            0b01 => Self::HostToController,
            0b10 => Self::ControllerToHost,
            _ => Self::Bidirectional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_match_the_specification() {
        assert_eq!(AdminOpcode::from_code(0x06), Some(AdminOpcode::Identify));
        assert_eq!(AdminOpcode::from_code(0x03), None);
        assert_eq!(AdminOpcode::KeepAlive.code(), 0x18);
        assert_eq!(
            IoOpcode::from_code(0x08).map(IoOpcode::name),
            Some("Write Zeroes")
        );
        assert_eq!(FabricsType::from_code(0x04), Some(FabricsType::PropertyGet));
        assert_eq!(FabricsType::from_code(0x02), None);
    }

    #[test]
    fn the_low_bits_say_which_way_data_flows() {
        assert_eq!(
            DataDirection::of(IoOpcode::Flush.code()),
            DataDirection::None
        );
        assert_eq!(
            DataDirection::of(IoOpcode::Write.code()),
            DataDirection::HostToController
        );
        assert_eq!(
            DataDirection::of(IoOpcode::Read.code()),
            DataDirection::ControllerToHost
        );
        assert_eq!(
            DataDirection::of(IoOpcode::Compare.code()),
            DataDirection::HostToController
        );
        assert_eq!(
            DataDirection::of(AdminOpcode::Identify.code()),
            DataDirection::ControllerToHost
        );
        assert_eq!(
            DataDirection::of(FabricsType::Connect.code()),
            DataDirection::HostToController
        );
    }
}
