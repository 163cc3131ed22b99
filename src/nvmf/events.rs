//! Asynchronous events of one controller: requests that the host has left here, and what there is
//! to tell.

use std::collections::{BTreeSet, VecDeque};

use super::identify::AER_LIMIT;
use super::tcp::SlotId;
use crate::nvme::event::AsyncEvent;
use crate::nvme::feature::AsyncEventConfiguration;

/// The notices that a controller can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A namespace came, went or changed.
    Namespaces,
    /// Namespaces are reached in another way.
    Access,
    /// The discovery log changed.
    DiscoveryLog,
    /// There is a reservation notification. Hosts mask these by namespace, elsewhere.
    Reservation,
}

impl Notice {
    /// The bit of Asynchronous Event Configuration that asks for it; 0 where it need not be asked for.
    pub fn configuration_bit(self) -> u32 {
        match self {
            Self::Namespaces => AsyncEventConfiguration::NAMESPACE_ATTRIBUTE,
            Self::Access => AsyncEventConfiguration::ANA_CHANGE,
            Self::DiscoveryLog => AsyncEventConfiguration::DISCOVERY_LOG_CHANGE,
            Self::Reservation => 0,
        }
    }

    fn event(self) -> AsyncEvent {
        match self {
            Self::Namespaces => AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED,
            Self::Access => AsyncEvent::ANA_CHANGE,
            Self::DiscoveryLog => AsyncEvent::DISCOVERY_LOG_CHANGE,
            Self::Reservation => AsyncEvent::RESERVATION_NOTIFICATION,
        }
    }
}

/// A request that is answered: its command, and dword 0 of the completion.
pub type Told = (SlotId, u32);

/// The controller holds as many requests as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The requests and notices of one controller. A notice is told once; it can be told again when
/// the host has read the log page that says more.
#[derive(Debug, Default)]
pub struct Events {
    requests: VecDeque<SlotId>,
    /// To be told as soon as there is a request.
    pending: BTreeSet<Notice>,
    /// Told, and its log page not read since.
    masked: BTreeSet<Notice>,
    configuration: AsyncEventConfiguration,
}

impl Events {
    /// Notices that the host wants.
    pub fn configuration(&self) -> AsyncEventConfiguration {
        self.configuration
    }

    /// The host chooses the notices that it wants; those not wanted are forgotten.
    pub fn configure(&mut self, configuration: AsyncEventConfiguration) {
        self.configuration = configuration;
        self.pending
            .retain(|n| configuration.wants(n.configuration_bit()));
    }

    /// The host leaves a request; it may be answered at once.
    ///
    /// # Errors
    /// [`TooMany`] beyond [`AER_LIMIT`].
    pub fn request(&mut self, slot: SlotId) -> Result<Option<Told>, TooMany> {
        if self.requests.len() >= AER_LIMIT {
            return Err(TooMany);
        }
        self.requests.push_back(slot);
        Ok(self.tell())
    }

    /// Something happened. Answers a request, if the host wants to know and has left one.
    pub fn happened(&mut self, notice: Notice) -> Option<Told> {
        if self.configuration.wants(notice.configuration_bit()) {
            self.pending.insert(notice);
        }
        self.tell()
    }

    /// The host has read the log page behind a notice, which may then be told again.
    pub fn read(&mut self, notice: Notice) -> Option<Told> {
        self.masked.remove(&notice);
        self.tell()
    }

    /// The host aborts a request; says whether it was here.
    pub fn abort(&mut self, slot: SlotId) -> bool {
        let at = self.requests.iter().position(|&s| s == slot);
        at.is_some_and(|at| self.requests.remove(at).is_some())
    }

    /// The controller is reset: everything is forgotten. Gives the requests that were here.
    pub fn reset(&mut self) -> VecDeque<SlotId> {
        std::mem::take(self).requests
    }

    fn tell(&mut self) -> Option<Told> {
        let ready = self.pending.difference(&self.masked).next().copied()?;
        let slot = self.requests.pop_front()?;
        self.pending.remove(&ready);
        self.masked.insert(ready);
        Some((slot, ready.event().dword()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Event type notice, information 00h, log page 04h (Base, Asynchronous Event Request).
    const NAMESPACES: u32 = 0x0004_0002;
    /// Event type notice, information F0h, log page 70h.
    const DISCOVERY: u32 = 0x0070_f002;

    fn wanting(bits: u32) -> Events {
        let mut events = Events::default();
        events.configure(AsyncEventConfiguration(bits));
        events
    }

    #[test]
    fn a_notice_waits_for_a_request_and_is_told_once() {
        let mut events = wanting(1 << 8);
        assert_eq!(events.happened(Notice::Namespaces), None);
        assert_eq!(events.request(SlotId(7)), Ok(Some((SlotId(7), NAMESPACES))));
        assert_eq!(events.request(SlotId(8)), Ok(None));
        assert_eq!(events.happened(Notice::Namespaces), None);
        let told = events.read(Notice::Namespaces);
        assert_eq!(told, Some((SlotId(8), NAMESPACES)));
        assert_eq!(events.read(Notice::Namespaces), None);
    }

    #[test]
    fn unwanted_notices_are_not_told() {
        let mut events = wanting(1 << 31);
        assert_eq!(events.request(SlotId(1)), Ok(None));
        assert_eq!(events.happened(Notice::Namespaces), None);
        let told = events.happened(Notice::DiscoveryLog);
        assert_eq!(told, Some((SlotId(1), DISCOVERY)));
    }

    #[test]
    fn four_requests_and_no_more_unless_one_is_aborted() {
        let mut events = wanting(0);
        for n in 0..4 {
            assert_eq!(events.request(SlotId(n)), Ok(None));
        }
        assert_eq!(events.request(SlotId(4)), Err(TooMany));
        assert!(events.abort(SlotId(2)));
        assert!(!events.abort(SlotId(2)));
        assert_eq!(events.request(SlotId(4)), Ok(None));
        assert_eq!(events.reset(), [0, 1, 3, 4].map(SlotId));
    }
}
