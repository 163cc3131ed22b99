//! Reservations: the four commands and what goes with them (Base 7.2, 7.3, 7.5, 7.6 and 8.19).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::command::Command;
use super::opcode::IoOpcode;
use super::status::Status;

codes! {
    /// Who may do what while a namespace is reserved (RTYPE).
    pub enum ReservationType: u8 {
        WriteExclusive = 1, "Write Exclusive";
        ExclusiveAccess = 2, "Exclusive Access";
        WriteExclusiveRegistrants = 3, "Write Exclusive - Registrants Only";
        ExclusiveAccessRegistrants = 4, "Exclusive Access - Registrants Only";
        WriteExclusiveAll = 5, "Write Exclusive - All Registrants";
        ExclusiveAccessAll = 6, "Exclusive Access - All Registrants";
    }
}

impl ReservationType {
    /// Whether others may not even read.
    #[must_use]
    pub const fn excludes_reads(self) -> bool {
        matches!(
            self,
            Self::ExclusiveAccess | Self::ExclusiveAccessRegistrants | Self::ExclusiveAccessAll
        )
    }

    /// Whether every registrant may do what the holder may.
    #[must_use]
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether every registrant is a holder.
    #[must_use]
    pub const fn is_held_by_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }
}

/// How a command fares while a namespace is reserved (Base figure "Command Behavior in the
/// Presence of a Reservation").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandGroup {
    /// The read command group: Read, Compare, Verify.
    Read,
    /// The write command group: Write, Write Zeroes, Write Uncorrectable, Dataset Management, Flush.
    Write,
}

codes! {
    /// What a Reservation Register does (RREGA).
    pub enum RegisterAction: u8 {
        Register = 0b000, "Register Reservation Key";
        Unregister = 0b001, "Unregister Reservation Key";
        Replace = 0b010, "Replace Reservation Key";
    }
}

codes! {
    /// What a Reservation Acquire does (RACQA).
    pub enum AcquireAction: u8 {
        Acquire = 0b000, "Acquire";
        Preempt = 0b001, "Preempt";
        PreemptAndAbort = 0b010, "Preempt and Abort";
    }
}

codes! {
    /// What a Reservation Release does (RRELA).
    pub enum ReleaseAction: u8 {
        Release = 0b000, "Release";
        Clear = 0b001, "Clear";
    }
}

/// One reservation command, its dwords checked; keys are in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationCommand {
    /// Become a registrant, stay one under another key, or be one no longer.
    Register {
        /// What.
        action: RegisterAction,
        /// IEKEY: the current key in the data does not matter.
        ignore_key: bool,
        /// CPTPL: whether registrants and reservation outlive a loss of power from now on; `None` for no
        /// change.
        persist: Option<bool>,
    },
    /// Hold a reservation, perhaps by taking it from others.
    Acquire {
        /// What.
        action: AcquireAction,
        /// The type wished for.
        kind: ReservationType,
    },
    /// Hold it no longer.
    Release {
        /// What.
        action: ReleaseAction,
        /// The type that is held, as a number: it only matters to [`ReleaseAction::Release`].
        kind: u8,
    },
    /// Tell who is registered and who holds what.
    Report {
        /// Bytes of data, from 4 up.
        len: u64,
        /// EDS: host identifiers of 128 bits.
        extended: bool,
    },
}

const IEKEY: u32 = 1 << 3;
const EDS: u32 = 1 << 0;

impl ReservationCommand {
    /// Whether an I/O command with this opcode is one of these.
    #[must_use]
    pub const fn is(opcode: u8) -> bool {
        matches!(
            IoOpcode::from_code(opcode),
            Some(
                IoOpcode::ReservationRegister
                    | IoOpcode::ReservationReport
                    | IoOpcode::ReservationAcquire
                    | IoOpcode::ReservationRelease
            )
        )
    }

    /// Reads a queue entry. IEKEY of Acquire and Release must be 0, as from revision 1.3 on.
    ///
    /// # Errors
    /// Both with Do Not Retry: [`Status::INVALID_OPCODE`] for another command,
    /// [`Status::INVALID_FIELD`] for reserved actions and types, and for IEKEY where it must be 0.
    pub fn parse(command: &Command) -> Result<Self, Status> {
        let invalid = Status::INVALID_FIELD.with_do_not_retry();
        let dword10 = command.cdw10.get();
        let action = (dword10 & 0x7) as u8;
        let ignore_key = dword10 & IEKEY != 0;
        let kind = (dword10 >> 8) as u8;
        match IoOpcode::from_code(command.opcode) {
            Some(IoOpcode::ReservationRegister) => Ok(Self::Register {
                action: RegisterAction::from_code(action).ok_or(invalid)?,
                ignore_key,
                persist: match dword10 >> 30 {
                    0b00 => None,
                    0b10 => Some(false),
                    0b11 => Some(true),
                    _ => return Err(invalid),
                },
            }),
            Some(IoOpcode::ReservationAcquire | IoOpcode::ReservationRelease) if ignore_key => {
                Err(invalid)
            }
            Some(IoOpcode::ReservationAcquire) => Ok(Self::Acquire {
                action: AcquireAction::from_code(action).ok_or(invalid)?,
                kind: ReservationType::from_code(kind).ok_or(invalid)?,
            }),
            Some(IoOpcode::ReservationRelease) => Ok(Self::Release {
                action: ReleaseAction::from_code(action).ok_or(invalid)?,
                kind,
            }),
            Some(IoOpcode::ReservationReport) => Ok(Self::Report {
                len: (u64::from(dword10) + 1) * 4,
                extended: command.cdw11.get() & EDS != 0,
            }),
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }

    /// The queue entry of the command, without command identifier and data pointer.
    ///
    /// # Panics
    /// Where the length of a report is not a multiple of 4 from 4 to 2^34: NUMD can't say that.
    #[must_use]
    pub fn to_command(&self, nsid: u32) -> Command {
        let (opcode, dword10) = match *self {
            Self::Register {
                action,
                ignore_key,
                persist,
            } => {
                let cptpl = match persist {
                    None => 0b00,
                    Some(false) => 0b10,
                    Some(true) => 0b11,
                };
                let iekey = if ignore_key { IEKEY } else { 0 };
                let dword = cptpl << 30 | iekey | u32::from(action.code());
                (IoOpcode::ReservationRegister, dword)
            }
            Self::Acquire { action, kind } => {
                let dword = u32::from(kind.code()) << 8 | u32::from(action.code());
                (IoOpcode::ReservationAcquire, dword)
            }
            Self::Release { action, kind } => {
                let dword = u32::from(kind) << 8 | u32::from(action.code());
                (IoOpcode::ReservationRelease, dword)
            }
            Self::Report { len, .. } => {
                assert!(
                    len.is_multiple_of(4) && (4..=4 << 32).contains(&len),
                    "a report has 4 to 2^34 bytes, in steps of 4, not {len}"
                );
                (IoOpcode::ReservationReport, (len / 4 - 1) as u32)
            }
        };
        let mut command = Command::new(opcode.code(), nsid);
        command.cdw10 = dword10.into();
        if let Self::Report { extended: true, .. } = self {
            command.cdw11 = EDS.into();
        }
        command
    }

    /// Bytes that the host sends with it.
    #[must_use]
    pub const fn data_from_host(&self) -> u32 {
        match self {
            Self::Register { .. } | Self::Acquire { .. } => size_of::<Keys>() as u32,
            Self::Release { .. } => size_of::<U64>() as u32,
            Self::Report { .. } => 0,
        }
    }
}

/// The data of Reservation Register and Acquire; that of Release is the first half of it.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct Keys {
    /// CRKEY: the key that the host is registered with.
    pub current: U64,
    /// Register: NRKEY, the new key. Acquire: PRKEY, the key of those to be preempted.
    pub other: U64,
}

layout!(Keys, 16 bytes, { current at 0, other at 8 });

impl Keys {
    /// Both keys.
    #[must_use]
    pub fn new(current: u64, other: u64) -> Self {
        Self {
            current: current.into(),
            other: other.into(),
        }
    }
}

/// The head of what Reservation Report tells about hosts with identifiers of 128 bits; registrants
/// follow.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ReservationStatus {
    /// Counts successful Register, Clear, Preempt, Preempt and Abort; wraps.
    pub generation: U32,
    /// A [`ReservationType`], 0 for no reservation.
    pub kind: u8,
    /// Number of registrants that follow.
    pub registrants: U16,
    /// Reserved.
    pub reserved7: [u8; 2],
    /// Whether all this outlives a loss of power.
    pub persists: u8,
    /// Reserved.
    pub reserved10: [u8; 54],
}

layout!(ReservationStatus, 64 bytes, { generation at 0, kind at 4, registrants at 5, persists at 9 });

/// A registrant in that report.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct Registrant {
    /// A controller of the host; FFFFh where controllers come and go with hosts.
    pub cntlid: U16,
    /// Bit 0: it holds the reservation.
    pub status: u8,
    /// Reserved.
    pub reserved3: [u8; 5],
    /// Its key.
    pub key: U64,
    /// The host's identifier.
    pub host: [u8; 16],
    /// Reserved.
    pub reserved32: [u8; 32],
}

layout!(Registrant, 64 bytes, { cntlid at 0, status at 2, key at 8, host at 16 });

impl Registrant {
    /// RCSTS: this registrant holds the reservation.
    pub const HOLDER: u8 = 1 << 0;
}

codes! {
    /// What a host is told of reservations, and of which it can say that it does not want to hear
    /// (Reservation Notification Mask, the bit of this number).
    pub enum NotificationType: u8 {
        RegistrationPreempted = 1, "Registration Preempted";
        ReservationReleased = 2, "Reservation Released";
        ReservationPreempted = 3, "Reservation Preempted";
    }
}

impl NotificationType {
    /// Its bit in the Reservation Notification Mask.
    #[must_use]
    pub const fn mask(self) -> u32 {
        1 << self.code()
    }

    /// Every bit of the Reservation Notification Mask.
    pub const MASKS: u32 = 0b1110;
}

/// The reservation notification page (80h): the oldest notification that was not read. All zeros is
/// none.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ReservationNotification {
    /// Running number of the notification, from 1. A gap: some were lost.
    pub count: U64,
    /// A [`NotificationType`].
    pub kind: u8,
    /// How many more there are to be read, 255 for as many or more.
    pub more: u8,
    /// Reserved.
    pub reserved10: [u8; 2],
    /// The namespace.
    pub nsid: U32,
    /// Reserved.
    pub reserved16: [u8; 48],
}

layout!(ReservationNotification, 64 bytes, { count at 0, kind at 8, more at 9, nsid at 12 });

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(opcode: u8, dword10: u32, dword11: u32) -> Result<ReservationCommand, Status> {
        let mut command = Command::new(opcode, 1);
        command.cdw10 = dword10.into();
        command.cdw11 = dword11.into();
        let parsed = ReservationCommand::parse(&command)?;
        let back = parsed.to_command(1);
        assert_eq!((back.cdw10, back.cdw11), (command.cdw10, command.cdw11));
        Ok(parsed)
    }

    /// The dwords that nvme-cli and Linux send.
    #[test]
    fn commands_are_where_the_specification_puts_them() {
        assert_eq!(
            parsed(0x0d, 0xc000_000a, 0),
            Ok(ReservationCommand::Register {
                action: RegisterAction::Replace,
                ignore_key: true,
                persist: Some(true),
            })
        );
        assert_eq!(
            parsed(0x0d, 0x8000_0001, 0),
            Ok(ReservationCommand::Register {
                action: RegisterAction::Unregister,
                ignore_key: false,
                persist: Some(false),
            })
        );
        assert_eq!(
            parsed(0x11, 0x0302, 0),
            Ok(ReservationCommand::Acquire {
                action: AcquireAction::PreemptAndAbort,
                kind: ReservationType::WriteExclusiveRegistrants,
            })
        );
        assert_eq!(
            parsed(0x15, 0x0600, 0),
            Ok(ReservationCommand::Release {
                action: ReleaseAction::Release,
                kind: 6,
            })
        );
        assert_eq!(
            parsed(0x0e, 1023, 1),
            Ok(ReservationCommand::Report {
                len: 4096,
                extended: true,
            })
        );
        // The longest length has more than 32 bits.
        let longest = ReservationCommand::Report {
            len: 1 << 34,
            extended: false,
        };
        assert_eq!(parsed(0x0e, u32::MAX, 0), Ok(longest));
    }

    #[test]
    fn reserved_values_are_refused() {
        for (opcode, dword10) in [
            (0x0d, 3),
            (0x0d, 1 << 30),
            (0x11, 0x0103),
            (0x11, 0x0000),
            (0x11, 0x0700),
            (0x11, 0x0108),
            (0x15, 0x0102),
            (0x15, 0x0108),
        ] {
            let status = parsed(opcode, dword10, 0).expect_err("refused");
            assert_eq!(status.code(), 0x002, "{opcode:#x} {dword10:#x}");
        }
        assert_eq!(parsed(0x01, 0, 0).expect_err("a write").code(), 0x001);
        for opcode in 0..=255 {
            let is = [0x0d, 0x0e, 0x11, 0x15].contains(&opcode);
            assert_eq!(ReservationCommand::is(opcode), is);
        }
    }
}
