//! What has happened to a started volume since it was last looked at, for the event logs of subsystems that
//! export it.

use crate::nvmf::VolumeEvent;
use crate::raid::{SlotStatus, State, Status};

/// A volume as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    state: State,
    slots: Vec<SlotStatus>,
}

impl Seen {
    /// The volume of this status.
    pub(super) fn of(status: &Status) -> Self {
        Self {
            state: status.state,
            slots: status.slots.clone(),
        }
    }

    /// What has happened to the volume `name` since it was as in `before`, with words for people.
    pub(super) fn since(&self, before: &Self, name: &str) -> Vec<(VolumeEvent, String)> {
        let mut events = Vec::new();
        let mut tell = |event, what: String| {
            events.push((event, format!("RAID volume {name}: {what}")));
        };
        for (slot, (now, before)) in self.slots.iter().zip(&before.slots).enumerate() {
            let is_new = now.name != before.name;
            if let Some(member) = before.name.as_ref().filter(|_| is_new) {
                tell(
                    VolumeEvent::MemberOut,
                    format!("member {member} of slot {slot} is out"),
                );
            }
            if let Some(member) = &now.name
                && now.in_sync
                && (is_new || !before.in_sync)
            {
                tell(
                    VolumeEvent::MemberInSync,
                    format!("member {member} of slot {slot} is in sync"),
                );
            }
        }
        if (before.state, self.state) == (State::Online, State::Offline) {
            tell(
                VolumeEvent::Offline,
                "too many members are out; it is offline".into(),
            );
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: State, slots: &[(&str, bool)]) -> Seen {
        let slot = |&(name, in_sync): &(&str, bool)| SlotStatus {
            name: (!name.is_empty()).then(|| name.to_owned()),
            in_sync,
        };
        Seen {
            state,
            slots: slots.iter().map(slot).collect(),
        }
    }

    fn told(before: &Seen, now: &Seen) -> Vec<(VolumeEvent, String)> {
        let events = now.since(before, "v").into_iter();
        let strip = |words: String| words.strip_prefix("RAID volume v: ").map(str::to_owned);
        events
            .map(|(event, words)| (event, strip(words).expect("the name first")))
            .collect()
    }

    #[test]
    fn a_member_goes_another_comes_and_is_rebuilt() {
        use VolumeEvent::{MemberInSync, MemberOut};
        let whole = seen(State::Online, &[("a", true), ("b", true), ("c", true)]);
        let degraded = seen(State::Online, &[("a", true), ("", false), ("c", true)]);
        let rebuilding = seen(State::Online, &[("a", true), ("d", false), ("c", true)]);
        let again = seen(State::Online, &[("a", true), ("d", true), ("c", true)]);
        let event = |kind, words: &str| (kind, words.to_owned());
        assert_eq!(told(&whole, &whole), []);
        let out = event(MemberOut, "member b of slot 1 is out");
        assert_eq!(told(&whole, &degraded), std::slice::from_ref(&out));
        assert_eq!(told(&degraded, &rebuilding), []);
        let in_sync = event(MemberInSync, "member d of slot 1 is in sync");
        assert_eq!(told(&rebuilding, &again), std::slice::from_ref(&in_sync));
        // Nobody has looked meanwhile, as with a replacement.
        assert_eq!(told(&whole, &again), [out, in_sync]);
    }

    #[test]
    fn a_volume_goes_offline_once() {
        let degraded = seen(State::Online, &[("a", true), ("", false), ("c", true)]);
        let offline = seen(State::Offline, &[("a", true), ("", false), ("c", true)]);
        let events = told(&degraded, &offline);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].0, VolumeEvent::Offline);
        assert_eq!(told(&offline, &offline), []);
    }
}
