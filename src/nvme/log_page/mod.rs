//! Log pages (Base 5.16.1): identifiers, and the shapes of those that a fabrics controller has.

mod ana;
mod discovery;
mod effects;
mod health;
mod persistent;

pub use ana::{AnaGroup, AnaHeader, AnaState};
pub use discovery::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, SecureChannel, SubsystemType, TransportType,
    discovery_entries,
};
pub use effects::{CommandEffects, FeatureEffects, SupportedLogPages};
pub use health::{ErrorEntry, FirmwareSlots, Health};
pub use persistent::{
    PersistentEventHeader, PersistentEventType, PersistentLogAction, PersistentLogHeader,
    health_event, persistent_header, power_on_event, vendor_event,
};

codes! {
    /// Log page identifiers.
    pub enum LogPageId: u8 {
        SupportedLogPages = 0x00, "Supported Log Pages";
        ErrorInformation = 0x01, "Error Information";
        Health = 0x02, "SMART / Health Information";
        FirmwareSlots = 0x03, "Firmware Slot Information";
        ChangedNamespaces = 0x04, "Changed Namespace List";
        CommandEffects = 0x05, "Commands Supported and Effects";
        Ana = 0x0c, "Asymmetric Namespace Access";
        PersistentEvents = 0x0d, "Persistent Event Log";
        FeatureEffects = 0x12, "Feature Identifiers Supported and Effects";
        MiEffects = 0x13, "NVMe-MI Commands Supported and Effects";
        Discovery = 0x70, "Discovery";
        ReservationNotification = 0x80, "Reservation Notification";
    }
}

/// The bytes of a page that a request for `len` bytes from `offset` gets: a page that ends before the
/// request does is followed by zeros, which the caller adds. `None` where the offset is behind the end of
/// the page: the command is then refused with Invalid Field in Command (Base 5.16).
#[must_use]
pub fn portion(page: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset)
        .ok()
        .filter(|&start| start <= page.len())?;
    let rest = &page[start..];
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
    Some(&rest[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_stays_inside_its_page() {
        let page = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(portion(&page, 0, 4), Some(&page[..4]));
        assert_eq!(portion(&page, 4, 100), Some(&page[4..]));
        assert_eq!(portion(&page, 8, 4), Some(&page[8..]));
        assert_eq!(portion(&page, 9, 4), None);
        assert_eq!(portion(&page, u64::MAX, u64::MAX), None);
        assert_eq!(portion(&page, 2, u64::MAX), Some(&page[2..]));
    }
}
