//! What has happened to the devices, for clients that ask now and then.

use std::collections::VecDeque;

/// Notices that are kept; older ones are forgotten.
const KEPT: usize = 1024;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device is there.
    Register,
    /// A device is gone.
    Unregister,
    /// A device has another size.
    Resize,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Register, Self::Unregister, Self::Resize];

    /// SPDK's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "bdev_register",
            Self::Unregister => "bdev_unregister",
            Self::Resize => "bdev_resize",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its number: they are numbered from 0 without a gap.
    pub id: u64,
    /// What has happened.
    pub event: Event,
    /// To which device.
    pub device: String,
}

/// The latest of them.
#[derive(Debug, Default)]
pub struct Notices {
    kept: VecDeque<Notice>,
    next: u64,
}

impl Notices {
    /// Something has happened to a device.
    pub fn add(&mut self, event: Event, device: &str) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Notice {
            id: self.next,
            event,
            device: device.to_owned(),
        });
        self.next += 1;
    }

    /// Those from number `first` on that are still known, in order.
    pub fn since(&self, first: u64) -> impl Iterator<Item = &Notice> {
        self.kept.iter().filter(move |n| n.id >= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known_by_number() {
        let mut notices = Notices::default();
        assert_eq!(notices.since(0).count(), 0);
        for n in 0..KEPT as u64 + 5 {
            notices.add(Event::Register, &n.to_string());
        }
        let ids: Vec<u64> = notices.since(0).map(|n| n.id).collect();
        assert_eq!(ids.len(), KEPT);
        assert_eq!((ids[0], ids[KEPT - 1]), (5, KEPT as u64 + 4));
        let last = notices.since(KEPT as u64 + 4).next().unwrap();
        assert_eq!(last.device, last.id.to_string());
    }
}
