//! Error information (01h), SMART / health (02h) and firmware slots (03h) (Base 5.16.1.2 to 5.16.1.4).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::nvme::text::ascii_field;

/// One entry of the error information page; the newest comes first, one with count 0 is empty.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ErrorEntry {
    /// Running number of the error, from 1.
    pub error_count: U64,
    /// Submission queue, FFFFh for none.
    pub sqid: U16,
    /// Command identifier, FFFFh for none.
    pub cid: U16,
    /// Status field of the completion.
    pub status_field: U16,
    /// Byte (bits 7:0) and bit (bits 10:8) of the field in error; FFFFh for none.
    pub parameter_location: U16,
    /// First block in error.
    pub lba: U64,
    /// Namespace.
    pub nsid: U32,
    /// Log page with vendor specific information, 0 for none.
    pub vendor_page: u8,
    /// Transport type.
    pub trtype: u8,
    /// Command set of the command.
    pub csi: u8,
    /// Opcode of the command.
    pub opcode: u8,
    /// Command specific information.
    pub command_specific: U64,
    /// Transport type specific information.
    pub trtype_specific: U16,
    /// Reserved.
    pub reserved42: [u8; 21],
    /// Version of the entry: 1 where CSI and opcode are filled in.
    pub version: u8,
}

layout!(ErrorEntry, 64 bytes, {
    error_count at 0, sqid at 8, cid at 10, status_field at 12, parameter_location at 14, lba at 16, nsid at 24,
    vendor_page at 28, trtype at 29, csi at 30, opcode at 31, command_specific at 32, trtype_specific at 40,
    version at 63,
});

/// The SMART / health page.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct Health {
    /// Critical warnings.
    pub critical_warning: u8,
    /// Composite temperature, kelvin; 0 where it is not reported.
    pub temperature: U16,
    /// Available spare, percent.
    pub available_spare: u8,
    /// Available spare threshold, percent.
    pub available_spare_threshold: u8,
    /// Percentage of life used, above 100 where it has been exceeded.
    pub percentage_used: u8,
    /// Summary of endurance group warnings.
    pub endurance_group_summary: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// Data read, in thousands of 512 bytes, rounded up.
    pub data_units_read: U128,
    /// Data written, in thousands of 512 bytes, rounded up.
    pub data_units_written: U128,
    /// Read and Compare commands.
    pub host_reads: U128,
    /// Write commands.
    pub host_writes: U128,
    /// Time busy with commands, minutes.
    pub controller_busy_minutes: U128,
    /// Power cycles.
    pub power_cycles: U128,
    /// Power on hours.
    pub power_on_hours: U128,
    /// Unsafe shutdowns.
    pub unsafe_shutdowns: U128,
    /// Unrecovered data integrity errors.
    pub media_errors: U128,
    /// Error information entries over the life of the controller.
    pub error_entries: U128,
    /// Time above the warning temperature, minutes.
    pub warning_temperature_minutes: U32,
    /// Time above the critical temperature, minutes.
    pub critical_temperature_minutes: U32,
    /// Temperature sensors 1 to 8, kelvin; 0 where there is none.
    pub temperature_sensors: [U16; 8],
    /// Thermal management counts and times.
    pub thermal_management: [U32; 4],
    /// Reserved.
    pub reserved232: [u8; 280],
}

layout!(Health, 512 bytes, {
    critical_warning at 0, temperature at 1, available_spare at 3, available_spare_threshold at 4,
    percentage_used at 5, endurance_group_summary at 6, data_units_read at 32, data_units_written at 48,
    host_reads at 64, host_writes at 80, controller_busy_minutes at 96, power_cycles at 112, power_on_hours at 128,
    unsafe_shutdowns at 144, media_errors at 160, error_entries at 176, warning_temperature_minutes at 192,
    critical_temperature_minutes at 196, temperature_sensors at 200, thermal_management at 216, reserved232 at 232,
});

impl Health {
    /// Critical warning: the NVM subsystem has lost reliability.
    pub const WARNING_RELIABILITY: u8 = 1 << 2;
    /// Critical warning: the media is read-only.
    pub const WARNING_READ_ONLY: u8 = 1 << 3;

    /// Bytes as data units: thousands of 512 bytes, rounded up.
    #[must_use]
    pub fn data_units(bytes: u128) -> u128 {
        bytes.div_ceil(512_000)
    }
}

/// The firmware slot page.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct FirmwareSlots {
    /// Active slot in bits 2:0, next one in bits 6:4.
    pub afi: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// Revisions of slots 1 to 7, ASCII padded with spaces; zeros for an empty slot.
    pub revisions: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}

layout!(FirmwareSlots, 512 bytes, { afi at 0, revisions at 8, reserved64 at 64 });

impl FirmwareSlots {
    /// One slot with one revision, and that active.
    #[must_use]
    pub fn single(revision: &str) -> Self {
        let mut page = Self {
            afi: 1,
            ..Self::new_zeroed()
        };
        page.revisions[0] = ascii_field(revision);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_units_are_thousands_of_512_bytes_rounded_up() {
        assert_eq!(Health::data_units(0), 0);
        assert_eq!(Health::data_units(1), 1);
        assert_eq!(Health::data_units(512_000), 1);
        assert_eq!(Health::data_units(512_001), 2);
    }

    #[test]
    fn a_single_slot_is_active() {
        let page = FirmwareSlots::single("0.1.0");
        assert_eq!(page.as_bytes()[..16], *b"\x01\0\0\0\0\0\0\x000.1.0   ");
    }
}
