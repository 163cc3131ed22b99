//! The persistent event log (0Dh, Base 5.16.1.14): a header, then events, the oldest first.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LogPageId;
use crate::nvme::NQN_FIELD_SIZE;
use crate::nvme::text::ascii_field;

codes! {
    /// What Get Log Page does besides reading (bits 1:0 of LSP).
    pub enum PersistentLogAction: u8 {
        Read = 0x0, "Read Log Data";
        EstablishAndRead = 0x1, "Establish Context and Read Log Data";
        Release = 0x2, "Release Context";
        EstablishAndReadHeader = 0x3, "Establish Context and Read 512 Bytes of Header";
    }
}

impl PersistentLogAction {
    /// The action in a log specific parameter, of which the other bits are reserved.
    #[must_use]
    pub fn of_lsp(lsp: u8) -> Self {
        Self::from_code(lsp & 0b11).expect("every pair of bits is an action")
    }
}

codes! {
    /// Types of events that are told here.
    pub enum PersistentEventType: u8 {
        HealthSnapshot = 0x01, "SMART / Health Log Snapshot";
        PowerOnOrReset = 0x04, "Power-on or Reset";
        VendorSpecific = 0xde, "Vendor Specific Event";
    }
}

/// The data of a vendor specific event are a text.
const ASCII_STRING: u8 = 2;

/// What the page begins with.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct PersistentLogHeader {
    /// Log identifier: 0Dh.
    pub lid: u8,
    /// Reserved.
    pub reserved1: [u8; 3],
    /// Total number of events.
    pub events: U32,
    /// Bytes of the page, this header and all events.
    pub length: U64,
    /// Revision of this header: [`PersistentLogHeader::REVISION`].
    pub revision: u8,
    /// Reserved.
    pub reserved17: u8,
    /// Bytes of this header from byte 20 on: 492.
    pub header_length: U16,
    /// When the reporting context was established, as feature 0Eh tells time.
    pub timestamp: U64,
    /// Hours with power.
    pub power_on_hours: U128,
    /// Power cycles.
    pub power_cycles: U64,
    /// PCI vendor identifier; 0 on fabrics.
    pub vid: U16,
    /// PCI subsystem vendor identifier; 0 on fabrics.
    pub ssvid: U16,
    /// Serial number, ASCII padded with spaces.
    pub sn: [u8; 20],
    /// Model number, ASCII padded with spaces.
    pub mn: [u8; 40],
    /// Name of the subsystem, NUL-terminated.
    pub subnqn: [u8; NQN_FIELD_SIZE],
    /// Another one with each reporting context.
    pub generation: U16,
    /// Reporting context that was there already when this one was asked for: its port in bits 15:0, the type
    /// of port in bits 17:16 and whether there was one in bit 18.
    pub reporting_context: U32,
    /// Reserved.
    pub reserved378: [u8; 102],
    /// A bit for each type of event that may be in the log.
    pub supported_events: [u8; 32],
}

layout!(PersistentLogHeader, 512 bytes, {
    lid at 0, events at 4, length at 8, revision at 16, header_length at 18, timestamp at 20, power_on_hours at 28,
    power_cycles at 44, vid at 52, ssvid at 54, sn at 56, mn at 76, subnqn at 116, generation at 372,
    reporting_context at 374, supported_events at 480,
});

impl PersistentLogHeader {
    /// Revision of the header in Base 2.0.
    pub const REVISION: u8 = 2;
}

/// What each event begins with.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct PersistentEventHeader {
    /// Type, a [`PersistentEventType`].
    pub kind: u8,
    /// Revision of that type of event.
    pub revision: u8,
    /// Bytes of this header from byte 3 on: [`PersistentEventHeader::LENGTH`].
    pub header_length: u8,
    /// Additional information: the type of port in bits 1:0, 3 for an event of no port.
    pub additional: u8,
    /// Controller that had the event; [`PersistentEventHeader::NO_CONTROLLER`] for none.
    pub cntlid: U16,
    /// When, as feature 0Eh tells time.
    pub timestamp: U64,
    /// Port.
    pub port: U16,
    /// Reserved.
    pub reserved16: [u8; 4],
    /// Bytes of vendor specific information in front of the data.
    pub vendor_length: U16,
    /// Bytes of both.
    pub length: U16,
}

layout!(PersistentEventHeader, 24 bytes, {
    kind at 0, revision at 1, header_length at 2, additional at 3, cntlid at 4, timestamp at 6, port at 14,
    vendor_length at 20, length at 22,
});

impl PersistentEventHeader {
    /// The header length of every event.
    pub const LENGTH: u8 = 21;
    /// Additional information: the event is not associated with a port.
    pub const NO_PORT: u8 = 3;
    /// The event is not specific to a controller.
    pub const NO_CONTROLLER: u16 = 0xffff;

    /// The header of an event of the subsystem, whose data are `length` bytes; `timestamp` in milliseconds
    /// since 1970.
    #[must_use]
    pub fn of_subsystem(kind: PersistentEventType, timestamp: u64, length: u16) -> Self {
        Self {
            kind: kind.code(),
            revision: 1,
            header_length: Self::LENGTH,
            additional: Self::NO_PORT,
            cntlid: Self::NO_CONTROLLER.into(),
            timestamp: timestamp.into(),
            length: length.into(),
            ..Self::new_zeroed()
        }
    }

    /// Whether these bytes are one whole event, and nothing else.
    #[must_use]
    pub fn is_event(bytes: &[u8]) -> bool {
        Self::read_from_prefix(bytes).is_ok_and(|(header, data)| {
            header.header_length == Self::LENGTH
                && usize::from(header.length.get()) == data.len()
                && header.vendor_length <= header.length
        })
    }
}

/// The bitmap of types of events: all of [`PersistentEventType`].
#[must_use]
pub fn supported_events() -> [u8; 32] {
    let mut map = [0; 32];
    for kind in PersistentEventType::ALL {
        map[usize::from(kind.code() / 8)] |= 1 << (kind.code() % 8);
    }
    map
}

/// A SMART / health snapshot (01h): `health` is page 02h.
#[must_use]
pub fn health_event(timestamp: u64, health: &[u8; 512]) -> Vec<u8> {
    event(PersistentEventType::HealthSnapshot, timestamp, health)
}

/// The subsystem begins to serve (04h), with this firmware and no controller yet.
#[must_use]
pub fn power_on_event(timestamp: u64, firmware: &str) -> Vec<u8> {
    let revision = ascii_field::<8>(firmware);
    event(PersistentEventType::PowerOnOrReset, timestamp, &revision)
}

/// Something that only this vendor has (DEh): a code of its own, and what has happened in words, of which
/// the first 1024 bytes are told.
#[must_use]
pub fn vendor_event(timestamp: u64, code: u16, words: &str) -> Vec<u8> {
    let words: Vec<u8> = words
        .bytes()
        .map(|byte| {
            if (0x20..0x7f).contains(&byte) {
                byte
            } else {
                b'_'
            }
        })
        .take(1024)
        .collect();
    let mut data = code.to_le_bytes().to_vec();
    // No UUID says whose codes these are.
    data.extend([ASCII_STRING, 0]);
    data.extend((words.len() as u16).to_le_bytes());
    data.extend(words);
    event(PersistentEventType::VendorSpecific, timestamp, &data)
}

fn event(kind: PersistentEventType, timestamp: u64, data: &[u8]) -> Vec<u8> {
    let header = PersistentEventHeader::of_subsystem(kind, timestamp, data.len() as u16);
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes
}

/// A header with what does not depend on the subsystem, of a page of these events.
#[must_use]
pub fn persistent_header(events: u32, bytes: u64) -> PersistentLogHeader {
    let header_length = size_of::<PersistentLogHeader>();
    PersistentLogHeader {
        lid: LogPageId::PersistentEvents.code(),
        events: events.into(),
        length: (header_length as u64 + bytes).into(),
        revision: PersistentLogHeader::REVISION,
        header_length: (header_length as u16 - 20).into(),
        supported_events: supported_events(),
        ..PersistentLogHeader::new_zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of libnvme's `enum nvme_persistent_event_types`, `nvme_pel_ehai_pit` and `nvme_pel_vsedt_code`,
    /// and of a PM1735 as nvme-cli shows it: header length 492, event header length 21.
    #[test]
    fn events_are_as_libnvme_reads_them() {
        let power_on = power_on_event(0x0102_0304_0506, "0.1.0");
        let mut expected = vec![0x04, 1, 21, 3, 0xff, 0xff, 6, 5, 4, 3, 2, 1, 0, 0];
        expected.extend([0; 8]);
        expected.extend([8, 0]);
        expected.extend(b"0.1.0   ");
        assert_eq!(power_on, expected);
        let vendor = vendor_event(1, 0x203, "m\u{fc}");
        assert_eq!(vendor[0], 0xde);
        // Code, ASCII String, no UUID, length, text.
        assert_eq!(vendor[22..], [9, 0, 3, 2, 2, 0, 3, 0, b'm', b'_', b'_']);
        let health = health_event(2, &[7; 512]);
        assert_eq!((health.len(), health[0]), (536, 0x01));
        assert_eq!(health[22..25], [0, 2, 7]);
        for event in [power_on, vendor, health] {
            assert!(PersistentEventHeader::is_event(&event));
            assert!(!PersistentEventHeader::is_event(&event[..event.len() - 1]));
            assert!(!PersistentEventHeader::is_event(
                &[&event[..], &[0]].concat()
            ));
        }
        assert!(!PersistentEventHeader::is_event(&[0; 24]));
    }

    #[test]
    fn long_words_are_cut_so_that_an_event_has_a_bound() {
        let event = vendor_event(1, 1, &"x".repeat(100_000));
        assert_eq!(event.len(), 24 + 6 + 1024);
        assert!(PersistentEventHeader::is_event(&event));
    }

    #[test]
    fn the_header_says_what_there_is() {
        let header = persistent_header(3, 100);
        let bytes = header.as_bytes();
        assert_eq!(
            bytes[..16],
            [0x0d, 0, 0, 0, 3, 0, 0, 0, 0x64, 2, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(bytes[16..20], [2, 0, 0xec, 1]);
        // Types 1, 4 and DEh: bit 6 of byte 27.
        assert_eq!((bytes[480], bytes[480 + 27]), (0x12, 0x40));
        assert_eq!(bytes[480..].iter().filter(|&&byte| byte != 0).count(), 2);
    }

    #[test]
    fn actions_are_the_two_low_bits() {
        let of = PersistentLogAction::of_lsp;
        assert_eq!(of(0x7c), PersistentLogAction::Read);
        assert_eq!(of(1), PersistentLogAction::EstablishAndRead);
        assert_eq!(of(2), PersistentLogAction::Release);
        assert_eq!(of(0x7f), PersistentLogAction::EstablishAndReadHeader);
    }
}
