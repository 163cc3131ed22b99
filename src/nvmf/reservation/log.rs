//! What a controller has to tell its host of reservations (log page 80h), and what the host does
//! not want to hear.

use std::collections::{BTreeMap, VecDeque};

use zerocopy::{FromZeros, IntoBytes};

use crate::nvme::reservation::{NotificationType, ReservationNotification};

/// Notifications that wait to be read. Older ones are lost beyond that, and the numbers show it.
const MOST: usize = 255;

/// The notifications of one controller.
#[derive(Debug, Default)]
pub struct NotificationLog {
    waiting: VecDeque<ReservationNotification>,
    count: u64,
    /// Bits of the Reservation Notification Mask by namespace, where there are some.
    masks: BTreeMap<u32, u32>,
}

impl NotificationLog {
    /// Something has happened. Says whether the host wants to know.
    pub fn note(&mut self, nsid: u32, kind: NotificationType) -> bool {
        if self.mask(nsid) & kind.mask() != 0 {
            return false;
        }
        self.count = self.count.checked_add(1).unwrap_or(1);
        if self.waiting.len() == MOST {
            self.waiting.pop_front();
        }
        self.waiting.push_back(ReservationNotification {
            count: self.count.into(),
            kind: kind.code(),
            nsid: nsid.into(),
            ..ReservationNotification::new_zeroed()
        });
        true
    }

    /// The page: the oldest notification.
    pub fn page(&self) -> Vec<u8> {
        let mut page = self.waiting.front().copied();
        if let Some(page) = &mut page {
            page.more = (self.waiting.len() - 1).min(255) as u8;
        }
        let page = page.unwrap_or_else(ReservationNotification::new_zeroed);
        page.as_bytes().to_vec()
    }

    /// The host has read the page. Says whether there is another one.
    pub fn read(&mut self) -> bool {
        self.waiting.pop_front();
        !self.waiting.is_empty()
    }

    /// What the host does not want to hear of a namespace.
    pub fn mask(&self, nsid: u32) -> u32 {
        self.masks.get(&nsid).copied().unwrap_or(0)
    }

    /// The host says what it does not want to hear of a namespace.
    pub fn set_mask(&mut self, nsid: u32, mask: u32) {
        if mask == 0 {
            self.masks.remove(&nsid);
        } else {
            self.masks.insert(nsid, mask);
        }
    }

    /// A namespace has gone.
    pub fn forget(&mut self, nsid: u32) {
        self.masks.remove(&nsid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_and_losses_show() {
        let mut log = NotificationLog::default();
        assert_eq!(log.page(), [0; 64]);
        for nsid in 1..=300 {
            assert!(log.note(nsid, NotificationType::ReservationReleased));
        }
        let page = log.page();
        // 300 - 255 are lost.
        assert_eq!(page[..8], 46_u64.to_le_bytes());
        assert_eq!(page[8..16], [2, 254, 0, 0, 46, 0, 0, 0]);
        assert!(log.read());
        assert_eq!(log.page()[..10], [47, 0, 0, 0, 0, 0, 0, 0, 2, 253]);
        for _ in 0..253 {
            assert!(log.read());
        }
        assert!(!log.read());
        assert_eq!(log.page(), [0; 64]);
    }

    #[test]
    fn what_is_masked_is_not_told() {
        let mut log = NotificationLog::default();
        log.set_mask(1, 1 << 1);
        assert!(!log.note(1, NotificationType::RegistrationPreempted));
        assert!(log.note(1, NotificationType::ReservationPreempted));
        assert!(log.note(2, NotificationType::RegistrationPreempted));
        assert_eq!((log.mask(1), log.mask(2)), (2, 0));
        log.set_mask(1, 0);
        assert!(log.note(1, NotificationType::RegistrationPreempted));
    }
}
