//! The status of a completion: status code type, status code, and what the host may do next (Base 3.3.3.2.1).

use core::fmt;

codes! {
    /// Status code types (SCT).
    pub enum StatusType: u8 {
        Generic = 0x0, "Generic Command Status";
        CommandSpecific = 0x1, "Command Specific Status";
        Media = 0x2, "Media and Data Integrity Errors";
        Path = 0x3, "Path Related Status";
        VendorSpecific = 0x7, "Vendor Specific";
    }
}

/// The 15 bits of a completion's status field, without the phase tag: SC in bits 7:0, SCT in 10:8, CRD in
/// 12:11, More in 13, Do Not Retry in 14.
///
/// The constants carry neither More, CRD nor Do Not Retry. Compare with [`Status::is`] where only the
/// meaning counts; `==` compares all bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

const SC_SCT: u16 = 0x07ff;
const CRD_SHIFT: u16 = 11;
const MORE: u16 = 1 << 13;
const DNR: u16 = 1 << 14;

impl Status {
    /// A status from its type and code, both as on the wire; a type above 7 is cut to its low 3 bits.
    #[must_use]
    pub const fn new(sct: u8, sc: u8) -> Self {
        Self(((sct as u16 & 0x7) << 8) | sc as u16)
    }

    /// Reads the 16-bit field of a completion; the phase tag in bit 0 is dropped.
    #[must_use]
    pub const fn from_field(field: u16) -> Self {
        Self(field >> 1)
    }

    /// The 16-bit field of a completion with phase tag 0, as fabrics completions have it.
    #[must_use]
    pub const fn field(self) -> u16 {
        self.0 << 1
    }

    /// SCT and SC as one number, `sct << 8 | sc`: the form in which tools print a status.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0 & SC_SCT
    }

    /// The status code type, 0 to 7.
    #[must_use]
    pub const fn sct(self) -> u8 {
        ((self.0 >> 8) & 0x7) as u8
    }

    /// The status code.
    #[must_use]
    pub const fn sc(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Whether the command did what it was asked.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.code() == 0
    }

    /// Whether both mean the same, whatever the retry bits say.
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        self.code() == other.code()
    }

    /// Whether the same command would fail again on any controller path.
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & DNR != 0
    }

    /// The same status with Do Not Retry set.
    #[must_use]
    pub const fn with_do_not_retry(self) -> Self {
        Self(self.0 | DNR)
    }

    /// Whether the error log page says more about this failure.
    #[must_use]
    pub const fn more(self) -> bool {
        self.0 & MORE != 0
    }

    /// The same status with More set.
    #[must_use]
    pub const fn with_more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// Command retry delay: 0 for none, 1 to 3 to choose CRDT1 to CRDT3 of Identify Controller.
    #[must_use]
    pub const fn retry_delay(self) -> u8 {
        ((self.0 >> CRD_SHIFT) & 0x3) as u8
    }

    /// The same status with a retry delay; only the low 2 bits of `index` count.
    #[must_use]
    pub const fn with_retry_delay(self, index: u8) -> Self {
        Self((self.0 & !(0x3 << CRD_SHIFT)) | ((index as u16 & 0x3) << CRD_SHIFT))
    }
}

/// Declares the named statuses and the table behind [`Status::name`].
macro_rules! statuses {
    ($($constant:ident = $sct:literal, $sc:literal, $text:literal;)+) => {
        impl Status {
            $(#[doc = $text] pub const $constant: Self = Self::new($sct, $sc);)+

            /// Every status that has a name here.
            pub const NAMED: &'static [Self] = &[$(Self::$constant),+];

            /// The name that the specification gives; `None` for reserved and vendor specific codes.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match (self.sct(), self.sc()) {
                    $(($sct, $sc) => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0x0, 0x00, "Successful Completion";
    INVALID_OPCODE = 0x0, 0x01, "Invalid Command Opcode";
    INVALID_FIELD = 0x0, 0x02, "Invalid Field in Command";
    COMMAND_ID_CONFLICT = 0x0, 0x03, "Command ID Conflict";
    DATA_TRANSFER_ERROR = 0x0, 0x04, "Data Transfer Error";
    ABORTED_POWER_LOSS = 0x0, 0x05, "Commands Aborted due to Power Loss Notification";
    INTERNAL_ERROR = 0x0, 0x06, "Internal Error";
    ABORT_REQUESTED = 0x0, 0x07, "Command Abort Requested";
    ABORTED_SQ_DELETION = 0x0, 0x08, "Command Aborted due to SQ Deletion";
    ABORTED_FAILED_FUSED = 0x0, 0x09, "Command Aborted due to Failed Fused Command";
    ABORTED_MISSING_FUSED = 0x0, 0x0a, "Command Aborted due to Missing Fused Command";
    INVALID_NAMESPACE_OR_FORMAT = 0x0, 0x0b, "Invalid Namespace or Format";
    COMMAND_SEQUENCE_ERROR = 0x0, 0x0c, "Command Sequence Error";
    INVALID_SGL_SEGMENT_DESCRIPTOR = 0x0, 0x0d, "Invalid SGL Segment Descriptor";
    INVALID_SGL_DESCRIPTOR_COUNT = 0x0, 0x0e, "Invalid Number of SGL Descriptors";
    INVALID_DATA_SGL_LENGTH = 0x0, 0x0f, "Data SGL Length Invalid";
    INVALID_METADATA_SGL_LENGTH = 0x0, 0x10, "Metadata SGL Length Invalid";
    INVALID_SGL_DESCRIPTOR_TYPE = 0x0, 0x11, "SGL Descriptor Type Invalid";
    INVALID_CMB_USE = 0x0, 0x12, "Invalid Use of Controller Memory Buffer";
    INVALID_PRP_OFFSET = 0x0, 0x13, "PRP Offset Invalid";
    ATOMIC_WRITE_UNIT_EXCEEDED = 0x0, 0x14, "Atomic Write Unit Exceeded";
    OPERATION_DENIED = 0x0, 0x15, "Operation Denied";
    INVALID_SGL_OFFSET = 0x0, 0x16, "SGL Offset Invalid";
    HOST_ID_INCONSISTENT_FORMAT = 0x0, 0x18, "Host Identifier Inconsistent Format";
    KEEP_ALIVE_EXPIRED = 0x0, 0x19, "Keep Alive Timer Expired";
    KEEP_ALIVE_INVALID = 0x0, 0x1a, "Keep Alive Timeout Invalid";
    ABORTED_PREEMPT = 0x0, 0x1b, "Command Aborted due to Preempt and Abort";
    SANITIZE_FAILED = 0x0, 0x1c, "Sanitize Failed";
    SANITIZE_IN_PROGRESS = 0x0, 0x1d, "Sanitize In Progress";
    INVALID_SGL_GRANULARITY = 0x0, 0x1e, "SGL Data Block Granularity Invalid";
    NOT_SUPPORTED_IN_CMB = 0x0, 0x1f, "Command Not Supported for Queue in CMB";
    NAMESPACE_WRITE_PROTECTED = 0x0, 0x20, "Namespace is Write Protected";
    COMMAND_INTERRUPTED = 0x0, 0x21, "Command Interrupted";
    TRANSIENT_TRANSPORT_ERROR = 0x0, 0x22, "Transient Transport Error";
    PROHIBITED_BY_LOCKDOWN = 0x0, 0x23, "Command Prohibited by Command and Feature Lockdown";
    ADMIN_MEDIA_NOT_READY = 0x0, 0x24, "Admin Command Media Not Ready";
    LBA_OUT_OF_RANGE = 0x0, 0x80, "LBA Out of Range";
    CAPACITY_EXCEEDED = 0x0, 0x81, "Capacity Exceeded";
    NAMESPACE_NOT_READY = 0x0, 0x82, "Namespace Not Ready";
    RESERVATION_CONFLICT = 0x0, 0x83, "Reservation Conflict";
    FORMAT_IN_PROGRESS = 0x0, 0x84, "Format In Progress";

    COMPLETION_QUEUE_INVALID = 0x1, 0x00, "Completion Queue Invalid";
    INVALID_QUEUE_ID = 0x1, 0x01, "Invalid Queue Identifier";
    INVALID_QUEUE_SIZE = 0x1, 0x02, "Invalid Queue Size";
    ABORT_LIMIT_EXCEEDED = 0x1, 0x03, "Abort Command Limit Exceeded";
    AER_LIMIT_EXCEEDED = 0x1, 0x05, "Asynchronous Event Request Limit Exceeded";
    INVALID_FIRMWARE_SLOT = 0x1, 0x06, "Invalid Firmware Slot";
    INVALID_FIRMWARE_IMAGE = 0x1, 0x07, "Invalid Firmware Image";
    INVALID_INTERRUPT_VECTOR = 0x1, 0x08, "Invalid Interrupt Vector";
    INVALID_LOG_PAGE = 0x1, 0x09, "Invalid Log Page";
    INVALID_FORMAT = 0x1, 0x0a, "Invalid Format";
    INVALID_QUEUE_DELETION = 0x1, 0x0c, "Invalid Queue Deletion";
    FEATURE_NOT_SAVEABLE = 0x1, 0x0d, "Feature Identifier Not Saveable";
    FEATURE_NOT_CHANGEABLE = 0x1, 0x0e, "Feature Not Changeable";
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x1, 0x0f, "Feature Not Namespace Specific";
    OVERLAPPING_RANGE = 0x1, 0x14, "Overlapping Range";
    NAMESPACE_ALREADY_ATTACHED = 0x1, 0x18, "Namespace Already Attached";
    NAMESPACE_IS_PRIVATE = 0x1, 0x19, "Namespace Is Private";
    NAMESPACE_NOT_ATTACHED = 0x1, 0x1a, "Namespace Not Attached";
    CONTROLLER_LIST_INVALID = 0x1, 0x1c, "Controller List Invalid";
    INVALID_CONTROLLER_ID = 0x1, 0x1f, "Invalid Controller Identifier";
    ANA_GROUP_ID_INVALID = 0x1, 0x24, "ANA Group Identifier Invalid";
    ANA_ATTACH_FAILED = 0x1, 0x25, "ANA Attach Failed";
    IO_COMMAND_SET_NOT_SUPPORTED = 0x1, 0x29, "I/O Command Set Not Supported";
    IO_COMMAND_SET_NOT_ENABLED = 0x1, 0x2a, "I/O Command Set Not Enabled";
    IO_COMMAND_SET_COMBINATION_REJECTED = 0x1, 0x2b, "I/O Command Set Combination Rejected";
    INVALID_IO_COMMAND_SET = 0x1, 0x2c, "Invalid I/O Command Set";

    CONNECT_INCOMPATIBLE_FORMAT = 0x1, 0x80, "Connect Incompatible Format";
    CONNECT_CONTROLLER_BUSY = 0x1, 0x81, "Connect Controller Busy";
    CONNECT_INVALID_PARAMETERS = 0x1, 0x82, "Connect Invalid Parameters";
    CONNECT_RESTART_DISCOVERY = 0x1, 0x83, "Connect Restart Discovery";
    CONNECT_INVALID_HOST = 0x1, 0x84, "Connect Invalid Host";
    INVALID_QUEUE_TYPE = 0x1, 0x85, "Invalid Queue Type";
    DISCOVER_RESTART = 0x1, 0x90, "Discover Restart";
    AUTHENTICATION_REQUIRED = 0x1, 0x91, "Authentication Required";

    WRITE_FAULT = 0x2, 0x80, "Write Fault";
    UNRECOVERED_READ_ERROR = 0x2, 0x81, "Unrecovered Read Error";
    GUARD_CHECK_ERROR = 0x2, 0x82, "End-to-end Guard Check Error";
    APPLICATION_TAG_CHECK_ERROR = 0x2, 0x83, "End-to-end Application Tag Check Error";
    REFERENCE_TAG_CHECK_ERROR = 0x2, 0x84, "End-to-end Reference Tag Check Error";
    COMPARE_FAILURE = 0x2, 0x85, "Compare Failure";
    ACCESS_DENIED = 0x2, 0x86, "Access Denied";
    DEALLOCATED_OR_UNWRITTEN = 0x2, 0x87, "Deallocated or Unwritten Logical Block";
    STORAGE_TAG_CHECK_ERROR = 0x2, 0x88, "End-to-End Storage Tag Check Error";

    INTERNAL_PATH_ERROR = 0x3, 0x00, "Internal Path Error";
    ANA_PERSISTENT_LOSS = 0x3, 0x01, "Asymmetric Access Persistent Loss";
    ANA_INACCESSIBLE = 0x3, 0x02, "Asymmetric Access Inaccessible";
    ANA_TRANSITION = 0x3, 0x03, "Asymmetric Access Transition";
    CONTROLLER_PATH_ERROR = 0x3, 0x60, "Controller Pathing Error";
    HOST_PATH_ERROR = 0x3, 0x70, "Host Pathing Error";
    ABORTED_BY_HOST = 0x3, 0x71, "Command Aborted By Host";
}

/// Command specific codes 80h to BFh belong to the command set: the same number means one thing in the
/// completion of a fabrics command and another in that of an I/O command. [`Status::name`] knows the fabrics
/// meaning, these are the others.
impl Status {
    /// Conflicting Attributes (Dataset Management, Read, Write).
    pub const CONFLICTING_ATTRIBUTES: Self = Self::new(0x1, 0x80);
    /// Invalid Protection Information (Compare, Read, Write, Write Zeroes).
    pub const INVALID_PROTECTION_INFORMATION: Self = Self::new(0x1, 0x81);
    /// Attempted Write to Read Only Range (Dataset Management, Write, Write Zeroes).
    pub const READ_ONLY_RANGE: Self = Self::new(0x1, 0x82);
    /// Command Size Limit Exceeded (Dataset Management).
    pub const COMMAND_SIZE_LIMIT_EXCEEDED: Self = Self::new(0x1, 0x83);

    /// The name of the status in the completion of a command of the NVM command set.
    #[must_use]
    pub const fn io_name(self) -> Option<&'static str> {
        match (self.sct(), self.sc()) {
            (0x1, 0x80) => Some("Conflicting Attributes"),
            (0x1, 0x81) => Some("Invalid Protection Information"),
            (0x1, 0x82) => Some("Attempted Write to Read Only Range"),
            (0x1, 0x83) => Some("Command Size Limit Exceeded"),
            (0x1, 0x84..=0xbf) => None,
            _ => self.name(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => out.write_str(name)?,
            None => match StatusType::from_code(self.sct()) {
                Some(kind) => write!(out, "{kind}, code {:#04x}", self.sc())?,
                None => write!(
                    out,
                    "reserved status type {}, code {:#04x}",
                    self.sct(),
                    self.sc()
                )?,
            },
        }
        write!(out, " ({:03X}h", self.code())?;
        if self.do_not_retry() {
            out.write_str(", do not retry")?;
        }
        out.write_str(")")
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Status({self})")
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_holds_each_part_at_its_place() {
        // Worked by hand: P in bit 0, SC 8:1, SCT 11:9, CRD 13:12, M 14, DNR 15.
        let status = Status::LBA_OUT_OF_RANGE.with_do_not_retry();
        assert_eq!(status.field(), 0x8100);
        assert_eq!(Status::from_field(0x8101), status);
        assert_eq!(Status::COMPARE_FAILURE.field(), 0x050a);
        assert_eq!(Status::INTERNAL_PATH_ERROR.field(), 0x0600);
        assert_eq!(
            Status::COMMAND_INTERRUPTED.with_retry_delay(1).field(),
            0x1042
        );
        assert_eq!(Status::INVALID_FIELD.with_more().field(), 0x4004);
    }

    #[test]
    fn the_retry_bits_do_not_change_what_a_status_is() {
        let status = Status::INVALID_FIELD
            .with_do_not_retry()
            .with_more()
            .with_retry_delay(3);
        assert!(status.is(Status::INVALID_FIELD));
        assert_ne!(status, Status::INVALID_FIELD);
        assert!(status.do_not_retry() && status.more());
        assert_eq!(status.retry_delay(), 3);
        assert_eq!(status.with_retry_delay(0).retry_delay(), 0);
        assert!(!status.is_success());
        assert!(Status::SUCCESS.with_do_not_retry().is_success());
    }

    #[test]
    fn names_are_those_of_the_specification() {
        assert_eq!(Status::new(2, 0x85).name(), Some("Compare Failure"));
        assert_eq!(
            Status::new(1, 0x80).name(),
            Some("Connect Incompatible Format")
        );
        assert_eq!(
            Status::new(1, 0x80).io_name(),
            Some("Conflicting Attributes")
        );
        assert_eq!(Status::new(1, 0x84).io_name(), None);
        assert_eq!(Status::new(0, 0x17).name(), None);
        assert_eq!(
            Status::INVALID_FIELD.with_do_not_retry().to_string(),
            "Invalid Field in Command (002h, do not retry)"
        );
        assert_eq!(
            Status::new(7, 0xab).to_string(),
            "Vendor Specific, code 0xab (7ABh)"
        );
        assert_eq!(
            Status::new(5, 1).to_string(),
            "reserved status type 5, code 0x01 (501h)"
        );
    }

    #[test]
    fn no_two_named_statuses_share_a_code() {
        let mut codes: Vec<u16> = Status::NAMED.iter().map(|status| status.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Status::NAMED.len());
    }
}
