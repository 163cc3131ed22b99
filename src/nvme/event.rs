//! Asynchronous events: dword 0 of the completion of an Asynchronous Event Request (Base 5.2).

use super::log_page::LogPageId;

codes! {
    /// Kinds of events, bits 2:0.
    pub enum EventType: u8 {
        Error = 0b000, "Error Status";
        Smart = 0b001, "SMART / Health Status";
        Notice = 0b010, "Notice";
        Immediate = 0b011, "Immediate";
        IoCommandSet = 0b110, "I/O Command Set Specific Status";
        VendorSpecific = 0b111, "Vendor Specific";
    }
}

/// One event: its kind, what happened, and the log page that says more and re-arms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncEvent {
    /// Kind of event, 0 to 7: an [`EventType`] where it is known.
    pub kind: u8,
    /// What happened, by kind.
    pub information: u8,
    /// The log page to read.
    pub log_page: u8,
}

impl AsyncEvent {
    /// A namespace came, went or changed: read the changed namespace list.
    pub const NAMESPACE_ATTRIBUTE_CHANGED: Self = Self::notice(0x00, LogPageId::ChangedNamespaces);
    /// The access state of a namespace changed: read the ANA page.
    pub const ANA_CHANGE: Self = Self::notice(0x03, LogPageId::Ana);
    /// The discovery log changed: read it again.
    pub const DISCOVERY_LOG_CHANGE: Self = Self::notice(0xf0, LogPageId::Discovery);

    /// There is a reservation notification: read that page.
    pub const RESERVATION_NOTIFICATION: Self = Self {
        kind: EventType::IoCommandSet.code(),
        information: 0x00,
        log_page: LogPageId::ReservationNotification.code(),
    };

    const fn notice(information: u8, log_page: LogPageId) -> Self {
        Self {
            kind: EventType::Notice.code(),
            information,
            log_page: log_page.code(),
        }
    }

    /// Dword 0 of the completion.
    #[must_use]
    pub const fn dword(self) -> u32 {
        (self.log_page as u32) << 16 | (self.information as u32) << 8 | (self.kind as u32 & 0x7)
    }

    /// Reads dword 0 of a completion.
    #[must_use]
    pub const fn from_dword(dword: u32) -> Self {
        Self {
            kind: (dword & 0x7) as u8,
            information: ((dword >> 8) & 0xff) as u8,
            log_page: ((dword >> 16) & 0xff) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_dwords_of_the_specification() {
        assert_eq!(AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED.dword(), 0x0004_0002);
        assert_eq!(AsyncEvent::ANA_CHANGE.dword(), 0x000c_0302);
        assert_eq!(AsyncEvent::DISCOVERY_LOG_CHANGE.dword(), 0x0070_f002);
        assert_eq!(AsyncEvent::RESERVATION_NOTIFICATION.dword(), 0x0080_0006);
        assert_eq!(
            AsyncEvent::from_dword(0x0070_f002),
            AsyncEvent::DISCOVERY_LOG_CHANGE
        );
    }
}
