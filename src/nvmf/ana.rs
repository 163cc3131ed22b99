//! Asymmetric namespace access: how well a listener reaches which groups of namespaces, and what
//! hosts are told of it (Base, "Asymmetric Namespace Access Reporting").
//!
//! The states are an operator's: all listeners lead to the same devices, but perhaps over better and
//! worse networks, or over some that are about to be taken down.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::address::ListenAddress;
use super::view::SubsystemView;
use crate::nvme::log_page::{AnaGroup, AnaHeader, AnaState};

/// ANATT: seconds that a group may be in a change of state. Ours change at once.
pub const TRANSITION_TIME: u8 = 10;

/// How a path reaches a group of namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// As well as can be.
    #[default]
    Optimized,
    /// Hosts are to take it where there is no better one.
    NonOptimized,
    /// Commands are refused, before they touch the device.
    Inaccessible,
}

impl Access {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Optimized, Self::NonOptimized, Self::Inaccessible];

    /// The word of the RPC.
    pub fn word(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non_optimized",
            Self::Inaccessible => "inaccessible",
        }
    }

    fn state(self) -> AnaState {
        match self {
            Self::Optimized => AnaState::Optimized,
            Self::NonOptimized => AnaState::NonOptimized,
            Self::Inaccessible => AnaState::Inaccessible,
        }
    }
}

/// How one listener reaches each group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Groups that are not named below.
    most: Access,
    groups: BTreeMap<u32, Access>,
}

impl Reach {
    /// The same way for every group.
    pub fn uniform(access: Access) -> Self {
        Self {
            most: access,
            groups: BTreeMap::new(),
        }
    }

    /// How it reaches a group.
    pub fn of(&self, group: u32) -> Access {
        self.groups.get(&group).copied().unwrap_or(self.most)
    }

    /// Sets how it reaches a group.
    pub fn set(&mut self, group: u32, access: Access) {
        if access == self.most {
            self.groups.remove(&group);
        } else {
            self.groups.insert(group, access);
        }
    }

    /// How it reaches all groups but the [`Reach::exceptions`].
    pub fn most(&self) -> Access {
        self.most
    }

    /// Groups that it reaches in another way than the others, ascending.
    pub fn exceptions(&self) -> impl Iterator<Item = (u32, Access)> {
        self.groups.iter().map(|(&group, &access)| (group, access))
    }
}

/// How the listeners of a subsystem reach its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaches(pub Vec<(ListenAddress, Reach)>);

impl Reaches {
    /// How connections with this local end reach a group. The listener of that very address decides,
    /// otherwise one on every address. Where there is none any more, connections are about to end.
    pub fn of(&self, local: SocketAddr, group: u32) -> Access {
        let exact = self.0.iter().find(|(at, _)| at.0 == local);
        let found = exact.or_else(|| self.0.iter().find(|(at, _)| at.takes(local)));
        found.map_or(Access::Inaccessible, |(_, reach)| reach.of(group))
    }
}

/// Changes of a controller's log page since it was last reset.
#[derive(Debug, Default)]
pub struct Changes {
    all: u64,
    groups: BTreeMap<u32, u64>,
}

/// The namespaces of each group, and how they are reached.
type Groups = BTreeMap<u32, (Access, Vec<u32>)>;

fn groups(view: &SubsystemView) -> Groups {
    let mut groups = Groups::new();
    for namespace in view.active() {
        let empty = (namespace.access, Vec::new());
        let group = groups.entry(namespace.group).or_insert(empty);
        group.1.push(namespace.nsid);
    }
    groups
}

impl Changes {
    /// Counts what has changed, and says whether the host is to be told: of namespaces that come or
    /// go it hears otherwise.
    pub fn note(&mut self, before: &SubsystemView, now: &SubsystemView) -> bool {
        if now.reaches.is_none() {
            return false;
        }
        let (old, new) = (groups(before), groups(now));
        let mut ids: Vec<u32> = old.keys().chain(new.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| old.get(id) != new.get(id));
        self.all += u64::from(!ids.is_empty());
        for id in ids {
            *self.groups.entry(id).or_default() += 1;
        }
        now.active().any(|namespace| {
            let before = before.namespace(namespace.nsid);
            let told = |n: &super::view::NamespaceView| (n.group, n.access);
            before.is_some_and(|before| told(before) != told(namespace))
        })
    }

    /// The log page (0Ch) of a controller that sees the subsystem so: groups that have namespaces, in
    /// ascending order, with the namespaces unless the host wants `groups_only`.
    pub fn log(&self, view: &SubsystemView, groups_only: bool) -> Vec<u8> {
        let groups = groups(view);
        let mut page = Vec::new();
        AnaHeader::write(&mut page, self.all, groups.len() as u16);
        for (id, (access, mut nsids)) in groups {
            if groups_only {
                nsids.clear();
            }
            let changes = self.groups.get(&id).copied().unwrap_or(0);
            AnaGroup::write(&mut page, id, changes, access.state(), &nsids);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_listener_that_a_connection_came_in_at_decides() {
        let reaches = Reaches(vec![
            (
                ListenAddress(at("0.0.0.0:1")),
                Reach::uniform(Access::NonOptimized),
            ),
            (
                ListenAddress(at("10.0.0.1:1")),
                Reach::uniform(Access::Optimized),
            ),
            (
                ListenAddress(at("[::]:2")),
                Reach::uniform(Access::NonOptimized),
            ),
        ]);
        for (local, access) in [
            ("10.0.0.1:1", Access::Optimized),
            ("10.0.0.2:1", Access::NonOptimized),
            ("10.0.0.1:2", Access::NonOptimized),
            ("[fe80::1]:2", Access::NonOptimized),
            ("[fe80::1]:1", Access::Inaccessible),
            ("10.0.0.1:3", Access::Inaccessible),
        ] {
            assert_eq!(reaches.of(at(local), 1), access, "{local}");
        }
    }

    #[test]
    fn groups_may_be_exceptions_until_all_are_set() {
        let mut reach = Reach::default();
        reach.set(7, Access::Inaccessible);
        reach.set(3, Access::NonOptimized);
        assert_eq!(reach.of(7), Access::Inaccessible);
        assert_eq!(reach.of(8), Access::Optimized);
        let told: Vec<_> = reach.exceptions().collect();
        assert_eq!(told, [(3, Access::NonOptimized), (7, Access::Inaccessible)]);
        reach.set(7, Access::Optimized);
        assert_eq!(reach.exceptions().count(), 1);
        let reach = Reach::uniform(Access::NonOptimized);
        assert_eq!(
            (reach.of(3), reach.most()),
            (Access::NonOptimized, Access::NonOptimized)
        );
    }
}
