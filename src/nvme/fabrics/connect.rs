//! What goes with Connect: its data, its result, and how a refusal names the field at fault (Base, "Connect
//! Command and Response").

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::nvme::NQN_FIELD_SIZE;
use crate::nvme::nqn::{Nqn, NqnError};
use crate::nvme::text::nul_terminated;

/// The controller identifier with which a host asks for any controller of a dynamic subsystem.
pub const CNTLID_DYNAMIC: u16 = 0xffff;

/// The controller identifier with which a host asks for any controller of a static subsystem.
pub const CNTLID_STATIC_ANY: u16 = 0xfffe;

/// The largest identifier that a controller may have; FFF0h to FFFFh are reserved.
pub const CNTLID_MAX: u16 = 0xffef;

/// The data of Connect, 1024 bytes (Base, "Connect Command and Response").
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ConnectData {
    /// HOSTID: 128-bit host identifier.
    pub hostid: [u8; 16],
    /// CNTLID: FFFFh for the admin queue of a dynamic controller, otherwise the controller to use.
    pub cntlid: U16,
    /// Reserved.
    pub reserved18: [u8; 238],
    /// SUBNQN: the subsystem, NUL-terminated.
    pub subnqn: [u8; NQN_FIELD_SIZE],
    /// HOSTNQN: the host, NUL-terminated.
    pub hostnqn: [u8; NQN_FIELD_SIZE],
    /// Reserved.
    pub reserved768: [u8; 256],
}

layout!(ConnectData, 1024 bytes, {
    hostid at 0, cntlid at 16, reserved18 at 18, subnqn at 256, hostnqn at 512, reserved768 at 768,
});

impl ConnectData {
    /// The data with which `host` connects to `subsystem`.
    #[must_use]
    pub fn new(hostid: [u8; 16], cntlid: u16, subsystem: &Nqn, host: &Nqn) -> Self {
        Self {
            hostid,
            cntlid: cntlid.into(),
            subnqn: subsystem.to_field(),
            hostnqn: host.to_field(),
            ..Self::new_zeroed()
        }
    }

    /// The subsystem that the host asks for.
    ///
    /// # Errors
    /// Where the field is not a qualified name.
    pub fn subsystem(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.subnqn)
    }

    /// The host that asks.
    ///
    /// # Errors
    /// Where the field is not a qualified name.
    pub fn host(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.hostnqn)
    }

    /// The text of SUBNQN as it came, well-formed name or not; `None` without a closing NUL or if not UTF-8.
    #[must_use]
    pub fn subsystem_text(&self) -> Option<&str> {
        nul_terminated(&self.subnqn)
    }

    /// The text of HOSTNQN as it came, well-formed name or not; `None` without a closing NUL or if not UTF-8.
    #[must_use]
    pub fn host_text(&self) -> Option<&str> {
        nul_terminated(&self.hostnqn)
    }
}

/// The field of a Connect that was not acceptable; the completion with
/// [`CONNECT_INVALID_PARAMETERS`](crate::nvme::Status::CONNECT_INVALID_PARAMETERS) says it in dword 0 (IPO and IATTR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectParameter {
    /// Record format, in the command.
    RecordFormat,
    /// Queue identifier, in the command.
    QueueId,
    /// Submission queue size, in the command.
    QueueSize,
    /// Connect attributes, in the command.
    Attributes,
    /// Keep alive timeout, in the command.
    KeepAliveTimeout,
    /// Host identifier, in the data.
    HostId,
    /// Controller identifier, in the data.
    ControllerId,
    /// Subsystem name, in the data.
    SubsystemNqn,
    /// Host name, in the data.
    HostNqn,
}

impl ConnectParameter {
    /// Every parameter.
    pub const ALL: [Self; 9] = [
        Self::RecordFormat,
        Self::QueueId,
        Self::QueueSize,
        Self::Attributes,
        Self::KeepAliveTimeout,
        Self::HostId,
        Self::ControllerId,
        Self::SubsystemNqn,
        Self::HostNqn,
    ];

    const IN_DATA: u32 = 1 << 16;

    /// Dword 0 of the completion: byte offset of the field in bits 15:0, bit 16 set where it is in the data.
    #[must_use]
    pub const fn result(self) -> u32 {
        match self {
            Self::RecordFormat => 40,
            Self::QueueId => 42,
            Self::QueueSize => 44,
            Self::Attributes => 46,
            Self::KeepAliveTimeout => 48,
            Self::HostId => Self::IN_DATA,
            Self::ControllerId => Self::IN_DATA | 16,
            Self::SubsystemNqn => Self::IN_DATA | 256,
            Self::HostNqn => Self::IN_DATA | 512,
        }
    }

    /// Reads dword 0 of the completion; `None` where it points into the middle of nothing known.
    #[must_use]
    pub fn from_result(result: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|parameter| parameter.result() == result & 0x00ff_ffff)
    }

    /// The name of the field in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordFormat => "RECFMT",
            Self::QueueId => "QID",
            Self::QueueSize => "SQSIZE",
            Self::Attributes => "CATTR",
            Self::KeepAliveTimeout => "KATO",
            Self::HostId => "HOSTID",
            Self::ControllerId => "CNTLID",
            Self::SubsystemNqn => "SUBNQN",
            Self::HostNqn => "HOSTNQN",
        }
    }
}

impl core::fmt::Display for ConnectParameter {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(self.name())
    }
}

/// Dword 0 of a successful Connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectResult {
    /// The controller that the queue belongs to.
    pub cntlid: u16,
    /// ATR: the host must authenticate before any other command.
    pub authentication_required: bool,
    /// ASCR: authentication must end in a secure channel.
    pub secure_channel_required: bool,
}

impl ConnectResult {
    /// The dword.
    #[must_use]
    pub const fn dword(self) -> u32 {
        self.cntlid as u32
            | (self.authentication_required as u32) << 17
            | (self.secure_channel_required as u32) << 18
    }

    /// Reads the dword.
    #[must_use]
    pub const fn from_dword(dword: u32) -> Self {
        Self {
            cntlid: dword as u16,
            authentication_required: dword >> 17 & 1 != 0,
            secure_channel_required: dword >> 18 & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_parameters_are_named_by_offset_and_place() {
        assert_eq!(ConnectParameter::QueueSize.result(), 44);
        assert_eq!(ConnectParameter::SubsystemNqn.result(), 0x0001_0100);
        for parameter in ConnectParameter::ALL {
            assert_eq!(
                ConnectParameter::from_result(parameter.result()),
                Some(parameter)
            );
        }
        assert_eq!(ConnectParameter::from_result(1), None);
    }

    #[test]
    fn connect_data_holds_both_names() {
        let subsystem: Nqn = "nqn.2026-11.io.stripewise:demo".parse().expect("a name");
        let host: Nqn = "nqn.2014-08.org.nvmexpress:uuid:5c2d1a3e-0a56-4a5b-9d5f-0123456789ab"
            .parse()
            .expect("a name");
        let data = ConnectData::new([7; 16], CNTLID_DYNAMIC, &subsystem, &host);
        let bytes = data.as_bytes();
        assert_eq!(bytes[16..18], [0xff, 0xff]);
        assert_eq!(&bytes[256..260], b"nqn.");
        assert_eq!(data.subsystem(), Ok(subsystem));
        assert_eq!(data.host(), Ok(host));
        let mut unterminated = data;
        unterminated.subnqn = [b'n'; 256];
        assert!(unterminated.subsystem().is_err());
        assert_eq!(unterminated.subsystem_text(), None);
    }

    #[test]
    fn the_result_of_connect_carries_the_controller() {
        let result = ConnectResult {
            cntlid: 5,
            authentication_required: true,
            secure_channel_required: false,
        };
        assert_eq!(result.dword(), 0x0002_0005);
        assert_eq!(ConnectResult::from_dword(0x0002_0005), result);
    }
}
