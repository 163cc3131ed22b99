//! Features: their identifiers, and the dwords of those that a fabrics controller has (Base 5.27.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::status::Status;

codes! {
    /// Feature identifiers.
    pub enum FeatureId: u8 {
        Arbitration = 0x01, "Arbitration";
        PowerManagement = 0x02, "Power Management";
        LbaRangeType = 0x03, "LBA Range Type";
        TemperatureThreshold = 0x04, "Temperature Threshold";
        ErrorRecovery = 0x05, "Error Recovery";
        VolatileWriteCache = 0x06, "Volatile Write Cache";
        NumberOfQueues = 0x07, "Number of Queues";
        InterruptCoalescing = 0x08, "Interrupt Coalescing";
        InterruptVectorConfiguration = 0x09, "Interrupt Vector Configuration";
        WriteAtomicity = 0x0a, "Write Atomicity Normal";
        AsyncEventConfiguration = 0x0b, "Asynchronous Event Configuration";
        AutonomousPowerStateTransition = 0x0c, "Autonomous Power State Transition";
        HostMemoryBuffer = 0x0d, "Host Memory Buffer";
        Timestamp = 0x0e, "Timestamp";
        KeepAliveTimer = 0x0f, "Keep Alive Timer";
        HostBehaviorSupport = 0x16, "Host Behavior Support";
        IoCommandSetProfile = 0x19, "I/O Command Set Profile";
        HostIdentifier = 0x81, "Host Identifier";
        ReservationNotificationMask = 0x82, "Reservation Notification Mask";
        ReservationPersistence = 0x83, "Reservation Persistence";
        NamespaceWriteProtection = 0x84, "Namespace Write Protection Config";
    }
}

codes! {
    /// Which value of a feature Get Features asks for.
    pub enum Select: u8 {
        Current = 0b000, "Current";
        Default = 0b001, "Default";
        Saved = 0b010, "Saved";
        SupportedCapabilities = 0b011, "Supported Capabilities";
    }
}

/// Answer to [`Select::SupportedCapabilities`]: the feature survives resets when saved.
pub const CAPABILITY_SAVEABLE: u32 = 1 << 0;
/// Answer to [`Select::SupportedCapabilities`]: the feature is of a namespace.
pub const CAPABILITY_NAMESPACE_SPECIFIC: u32 = 1 << 1;
/// Answer to [`Select::SupportedCapabilities`]: the feature can be set.
pub const CAPABILITY_CHANGEABLE: u32 = 1 << 2;

/// Number of Queues (07h): I/O queues asked for or given, counted from 1; 0's based on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberOfQueues {
    /// I/O submission queues, 1 to 65 535.
    pub submission: u16,
    /// I/O completion queues, 1 to 65 535.
    pub completion: u16,
}

impl NumberOfQueues {
    /// Reads dword 11 of the command, or dword 0 of the completion.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] with Do Not Retry where either count is 65 536: the specification forbids it.
    pub fn from_dword(dword: u32) -> Result<Self, Status> {
        let count = |half: u32| match half & 0xffff {
            0xffff => Err(Status::INVALID_FIELD.with_do_not_retry()),
            count => Ok(count as u16 + 1),
        };
        Ok(Self {
            submission: count(dword)?,
            completion: count(dword >> 16)?,
        })
    }

    /// Dword 11 of the command, and dword 0 of its completion. A count of 0 is sent as 1: the specification
    /// has no way to say none.
    #[must_use]
    pub fn dword(&self) -> u32 {
        let zeros_based = |count: u16| u32::from(count.saturating_sub(1));
        zeros_based(self.completion) << 16 | zeros_based(self.submission)
    }
}

/// Asynchronous Event Configuration (0Bh): the notices that the host wants, as the dword has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AsyncEventConfiguration(pub u32);

impl AsyncEventConfiguration {
    /// SMART critical warnings, bits 7:0.
    pub const SMART_WARNINGS: u32 = 0xff;
    /// Namespace attribute notices.
    pub const NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// Firmware activation notices.
    pub const FIRMWARE_ACTIVATION: u32 = 1 << 9;
    /// Telemetry log notices.
    pub const TELEMETRY: u32 = 1 << 10;
    /// Asymmetric namespace access change notices.
    pub const ANA_CHANGE: u32 = 1 << 11;
    /// Discovery log page change notices.
    pub const DISCOVERY_LOG_CHANGE: u32 = 1 << 31;

    /// Whether all the notices of `bits` are wanted.
    #[must_use]
    pub const fn wants(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// Host Behavior Support (16h), 512 bytes of data.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct HostBehavior {
    /// 1: the host understands Command Interrupted and retry delays.
    pub acre: u8,
    /// 1: the host understands extended telemetry.
    pub etdas: u8,
    /// 1: the host understands extended LBA formats.
    pub lbafee: u8,
    /// Reserved.
    pub reserved: [u8; 509],
}

layout!(HostBehavior, 512 bytes, { acre at 0, etdas at 1, lbafee at 2 });

/// Volatile Write Cache (06h): bit 0, whether the cache is on.
pub const VOLATILE_WRITE_CACHE_ENABLED: u32 = 1;

/// Host Identifier (81h): bit 0, whether the identifier has 128 bits. Fabrics has no other.
pub const EXTENDED_HOST_IDENTIFIER: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_counts_are_zeros_based() {
        let queues = NumberOfQueues::from_dword(0x0007_0003).expect("8 and 4");
        assert_eq!(
            queues,
            NumberOfQueues {
                submission: 4,
                completion: 8
            }
        );
        assert_eq!(queues.dword(), 0x0007_0003);
        assert!(NumberOfQueues::from_dword(0xffff_0000).is_err());
        assert!(NumberOfQueues::from_dword(0x0000_ffff).is_err());
        let most = NumberOfQueues::from_dword(0xfffe_fffe).expect("65535 each");
        assert_eq!(most.dword(), 0xfffe_fffe);
        assert_eq!(
            NumberOfQueues {
                submission: 0,
                completion: 1
            }
            .dword(),
            0
        );
    }

    #[test]
    fn the_notices_that_linux_asks_for_are_understood() {
        // Namespace attribute, firmware activation and ANA: what a kernel host enables.
        let wanted = AsyncEventConfiguration(0x0000_0b00);
        assert!(wanted.wants(AsyncEventConfiguration::NAMESPACE_ATTRIBUTE));
        assert!(wanted.wants(AsyncEventConfiguration::ANA_CHANGE));
        assert!(!wanted.wants(AsyncEventConfiguration::DISCOVERY_LOG_CHANGE));
    }
}
