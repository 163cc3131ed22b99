//! Controller properties: the registers that a fabrics host reads and sets with Property Get and Set (Base 3.1.3).

use super::status::Status;

codes! {
    /// Offsets of the properties.
    pub enum Property: u32 {
        Capabilities = 0x00, "Controller Capabilities (CAP)";
        Version = 0x08, "Version (VS)";
        Configuration = 0x14, "Controller Configuration (CC)";
        Status = 0x1c, "Controller Status (CSTS)";
        SubsystemReset = 0x20, "NVM Subsystem Reset (NSSR)";
        AdminQueueAttributes = 0x24, "Admin Queue Attributes (AQA)";
        AdminSubmissionQueue = 0x28, "Admin Submission Queue Base Address (ASQ)";
        AdminCompletionQueue = 0x30, "Admin Completion Queue Base Address (ACQ)";
        SubsystemShutdown = 0x64, "NVM Subsystem Shutdown (NSSD)";
        ReadyTimeouts = 0x68, "Controller Ready Timeouts (CRTO)";
    }
}

impl Property {
    /// How many bytes the property has.
    #[must_use]
    pub const fn size(self) -> PropertySize {
        match self {
            Self::Capabilities | Self::AdminSubmissionQueue | Self::AdminCompletionQueue => {
                PropertySize::Eight
            }
            _ => PropertySize::Four,
        }
    }
}

/// The size that Property Get and Set name (ATTRIB bits 2:0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PropertySize {
    /// 4 bytes, code 000b.
    Four,
    /// 8 bytes, code 001b.
    Eight,
}

impl PropertySize {
    /// Reads ATTRIB.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] with Do Not Retry for other sizes.
    pub const fn from_attrib(attrib: u8) -> Result<Self, Status> {
        match attrib & 0x7 {
            0 => Ok(Self::Four),
            1 => Ok(Self::Eight),
            _ => Err(Status::INVALID_FIELD.with_do_not_retry()),
        }
    }

    /// The code in ATTRIB.
    #[must_use]
    pub const fn attrib(self) -> u8 {
        match self {
            Self::Four => 0,
            Self::Eight => 1,
        }
    }
}

/// Takes `width` bits from bit `at`.
const fn bits(value: u64, at: u32, width: u32) -> u64 {
    (value >> at) & ((1 << width) - 1)
}

/// Controller Capabilities (CAP, Base 3.1.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// MQES: entries of the largest I/O queue, 0's based; at least 1.
    pub max_queue_entries: u16,
    /// CQR: queues must be contiguous; always set on fabrics.
    pub contiguous_queues: bool,
    /// TO: the longest that CSTS.RDY takes to follow CC.EN, in units of 500 ms.
    pub timeout: u8,
    /// DSTRD: doorbell stride, 2^(2 + n) bytes; 0 on fabrics.
    pub doorbell_stride: u8,
    /// NSSRS: NVM subsystem reset is supported.
    pub subsystem_reset: bool,
    /// CSS: command sets, as in [`Capabilities::CSS_NVM`] and its neighbours.
    pub command_sets: u8,
    /// MPSMIN: smallest host page, 2^(12 + n) bytes.
    pub min_page_size: u8,
    /// MPSMAX: largest host page, 2^(12 + n) bytes.
    pub max_page_size: u8,
    /// CRWMS: CSTS.RDY with media ready is supported; CRTO.CRWMT then says how long.
    pub ready_with_media: bool,
    /// CRIMS: CSTS.RDY before the media is ready is supported.
    pub ready_independent_of_media: bool,
}

impl Capabilities {
    /// The NVM command set.
    pub const CSS_NVM: u8 = 1 << 0;
    /// One or more I/O command sets, chosen by the host.
    pub const CSS_IO_COMMAND_SETS: u8 = 1 << 6;
    /// Only the admin command set.
    pub const CSS_ADMIN_ONLY: u8 = 1 << 7;

    /// The value of the property.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.max_queue_entries as u64
            | (self.contiguous_queues as u64) << 16
            | (self.timeout as u64) << 24
            | (self.doorbell_stride as u64 & 0xf) << 32
            | (self.subsystem_reset as u64) << 36
            | (self.command_sets as u64) << 37
            | (self.min_page_size as u64 & 0xf) << 48
            | (self.max_page_size as u64 & 0xf) << 52
            | (self.ready_with_media as u64) << 59
            | (self.ready_independent_of_media as u64) << 60
    }

    /// Reads the property; bits that have no field here are left out.
    #[must_use]
    pub const fn from_value(value: u64) -> Self {
        Self {
            max_queue_entries: bits(value, 0, 16) as u16,
            contiguous_queues: bits(value, 16, 1) == 1,
            timeout: bits(value, 24, 8) as u8,
            doorbell_stride: bits(value, 32, 4) as u8,
            subsystem_reset: bits(value, 36, 1) == 1,
            command_sets: bits(value, 37, 8) as u8,
            min_page_size: bits(value, 48, 4) as u8,
            max_page_size: bits(value, 52, 4) as u8,
            ready_with_media: bits(value, 59, 1) == 1,
            ready_independent_of_media: bits(value, 60, 1) == 1,
        }
    }
}

/// Version (VS, Base 3.1.3.2), also VER of Identify Controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u8,
    /// Tertiary version.
    pub tertiary: u8,
}

impl Version {
    /// NVM Express 2.0.
    pub const V2_0: Self = Self {
        major: 2,
        minor: 0,
        tertiary: 0,
    };

    /// The value of the property.
    #[must_use]
    pub const fn value(self) -> u32 {
        (self.major as u32) << 16 | (self.minor as u32) << 8 | self.tertiary as u32
    }

    /// Reads the property.
    #[must_use]
    pub const fn from_value(value: u32) -> Self {
        Self {
            major: (value >> 16) as u16,
            minor: (value >> 8) as u8,
            tertiary: value as u8,
        }
    }
}

codes! {
    /// Shutdown notification (CC.SHN).
    pub enum ShutdownNotification: u8 {
        None = 0b00, "No notification";
        Normal = 0b01, "Normal shutdown notification";
        Abrupt = 0b10, "Abrupt shutdown notification";
    }
}

codes! {
    /// Shutdown status (CSTS.SHST).
    pub enum ShutdownStatus: u8 {
        Normal = 0b00, "Normal operation";
        Occurring = 0b01, "Shutdown processing occurring";
        Complete = 0b10, "Shutdown processing complete";
    }
}

/// Controller Configuration (CC, Base 3.1.3.5). Kept as the dword, since a host reads back what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Configuration(pub u32);

impl Configuration {
    /// EN: the controller is to process commands.
    #[must_use]
    pub const fn enabled(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same configuration, enabled or not.
    #[must_use]
    pub const fn with_enabled(self, enabled: bool) -> Self {
        Self(self.0 & !1 | enabled as u32)
    }

    /// CSS: 000b for the NVM command set, 110b for all supported I/O command sets, 111b for admin only.
    #[must_use]
    pub const fn command_set(self) -> u8 {
        bits(self.0 as u64, 4, 3) as u8
    }

    /// MPS: host page of 2^(12 + n) bytes.
    #[must_use]
    pub const fn page_size(self) -> u8 {
        bits(self.0 as u64, 7, 4) as u8
    }

    /// AMS: arbitration mechanism, 0 for round robin.
    #[must_use]
    pub const fn arbitration(self) -> u8 {
        bits(self.0 as u64, 11, 3) as u8
    }

    /// SHN; `None` for the reserved value 11b.
    #[must_use]
    pub const fn shutdown(self) -> Option<ShutdownNotification> {
        ShutdownNotification::from_code(bits(self.0 as u64, 14, 2) as u8)
    }

    /// The same configuration with a shutdown notification.
    #[must_use]
    pub const fn with_shutdown(self, notification: ShutdownNotification) -> Self {
        Self(self.0 & !(0b11 << 14) | (notification.code() as u32) << 14)
    }

    /// IOSQES: I/O submission queue entry of 2^n bytes, 6 for the NVM command set.
    #[must_use]
    pub const fn submission_entry_size(self) -> u8 {
        bits(self.0 as u64, 16, 4) as u8
    }

    /// IOCQES: I/O completion queue entry of 2^n bytes, 4 for the NVM command set.
    #[must_use]
    pub const fn completion_entry_size(self) -> u8 {
        bits(self.0 as u64, 20, 4) as u8
    }

    /// What a host of this crate writes: enabled, NVM command set, 4 KiB pages, 64 and 16-byte entries.
    #[must_use]
    pub const fn nvm_host() -> Self {
        Self(1 | 6 << 16 | 4 << 20)
    }
}

/// Controller Status (CSTS, Base 3.1.3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControllerStatus {
    /// RDY: the controller processes commands.
    pub ready: bool,
    /// CFS: a fatal error; only a reset helps.
    pub fatal: bool,
    /// SHST; the reserved value 11b is read as complete, since such a controller can't be used either.
    pub shutdown: ShutdownStatus,
    /// NSSRO: an NVM subsystem reset occurred.
    pub subsystem_reset: bool,
    /// PP: processing is paused.
    pub paused: bool,
}

impl ControllerStatus {
    /// The value of the property.
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.ready as u32
            | (self.fatal as u32) << 1
            | (self.shutdown.code() as u32) << 2
            | (self.subsystem_reset as u32) << 4
            | (self.paused as u32) << 5
    }

    /// Reads the property.
    #[must_use]
    pub const fn from_value(value: u32) -> Self {
        Self {
            ready: value & 1 != 0,
            fatal: value >> 1 & 1 != 0,
            shutdown: match ShutdownStatus::from_code((value >> 2 & 0b11) as u8) {
                Some(status) => status,
                None => ShutdownStatus::Complete,
            },
            subsystem_reset: value >> 4 & 1 != 0,
            paused: value >> 5 & 1 != 0,
        }
    }
}

/// Controller Ready Timeouts (CRTO): both in units of 500 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyTimeouts {
    /// CRWMT: until ready with media.
    pub with_media: u16,
    /// CRIMT: until ready independent of media.
    pub independent_of_media: u16,
}

impl ReadyTimeouts {
    /// The value of the property.
    #[must_use]
    pub const fn value(self) -> u32 {
        (self.independent_of_media as u32) << 16 | self.with_media as u32
    }

    /// Reads the property.
    #[must_use]
    pub const fn from_value(value: u32) -> Self {
        Self {
            with_media: value as u16,
            independent_of_media: (value >> 16) as u16,
        }
    }
}

/// What a host writes to NSSR to reset the NVM subsystem: "NVMe" in ASCII.
pub const SUBSYSTEM_RESET_VALUE: u32 = 0x4e56_4d65;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_match_a_value_worked_by_hand() {
        let capabilities = Capabilities {
            max_queue_entries: 127,
            contiguous_queues: true,
            timeout: 30,
            doorbell_stride: 0,
            subsystem_reset: false,
            command_sets: Capabilities::CSS_NVM,
            min_page_size: 0,
            max_page_size: 0,
            ready_with_media: true,
            ready_independent_of_media: false,
        };
        // Bits 59, 37, 28:25 (TO 30), 16 and 6:0.
        assert_eq!(capabilities.value(), 0x0800_0020_1e01_007f);
        assert_eq!(
            Capabilities::from_value(0x0800_0020_1e01_007f),
            capabilities
        );
    }

    #[test]
    fn capabilities_of_a_known_device_are_read() {
        // What QEMU's NVMe controller answers: 2048 entries, contiguous queues, 7.5 s, pages of 4 to 64 KiB,
        // every choice of command sets.
        let capabilities = Capabilities::from_value(0x0040_1820_0f01_07ff);
        assert_eq!(capabilities.max_queue_entries, 2047);
        assert_eq!(capabilities.timeout, 15);
        assert_eq!(capabilities.max_page_size, 4);
        assert_eq!(capabilities.min_page_size, 0);
        assert_eq!(
            capabilities.command_sets,
            Capabilities::CSS_NVM
                | Capabilities::CSS_IO_COMMAND_SETS
                | Capabilities::CSS_ADMIN_ONLY
        );
        assert!(capabilities.contiguous_queues && !capabilities.ready_with_media);
    }

    #[test]
    fn what_linux_writes_to_cc_is_understood() {
        // Enabled, 4 KiB pages, 64-byte and 16-byte entries.
        let configuration = Configuration(0x0046_0001);
        assert_eq!(configuration, Configuration::nvm_host());
        assert!(configuration.enabled());
        assert_eq!(configuration.command_set(), 0);
        assert_eq!(configuration.page_size(), 0);
        assert_eq!(configuration.arbitration(), 0);
        assert_eq!(configuration.submission_entry_size(), 6);
        assert_eq!(configuration.completion_entry_size(), 4);
        assert_eq!(configuration.shutdown(), Some(ShutdownNotification::None));
        let configuration = configuration.with_shutdown(ShutdownNotification::Normal);
        assert_eq!(configuration.0, 0x0046_4001);
        assert_eq!(Configuration(0xc000).shutdown(), None);
        assert_eq!(configuration.with_enabled(false).0, 0x0046_4000);
    }

    #[test]
    fn status_version_and_timeouts_are_in_place() {
        let status = ControllerStatus {
            ready: true,
            fatal: false,
            shutdown: ShutdownStatus::Complete,
            subsystem_reset: true,
            paused: false,
        };
        assert_eq!(status.value(), 0x19);
        assert_eq!(ControllerStatus::from_value(0x19), status);
        assert_eq!(Version::V2_0.value(), 0x0002_0000);
        assert_eq!(
            Version::from_value(0x0001_0403),
            Version {
                major: 1,
                minor: 4,
                tertiary: 3
            }
        );
        let timeouts = ReadyTimeouts {
            with_media: 30,
            independent_of_media: 2,
        };
        assert_eq!(timeouts.value(), 0x0002_001e);
        assert_eq!(ReadyTimeouts::from_value(0x0002_001e), timeouts);
    }

    #[test]
    fn properties_have_their_sizes() {
        assert_eq!(Property::from_code(0x1c), Some(Property::Status));
        assert_eq!(Property::from_code(0x0c), None);
        assert_eq!(Property::Capabilities.size(), PropertySize::Eight);
        assert_eq!(Property::Configuration.size(), PropertySize::Four);
        assert_eq!(PropertySize::from_attrib(1), Ok(PropertySize::Eight));
        assert!(PropertySize::from_attrib(2).is_err());
    }
}
