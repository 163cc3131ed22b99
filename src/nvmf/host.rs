//! Which hosts may use a subsystem.

use std::collections::BTreeSet;

/// The allow-list of a subsystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// Every host may connect, listed or not.
    pub allow_any: bool,
    /// Hosts that may connect, by NQN.
    pub hosts: BTreeSet<String>,
}

impl HostAccess {
    /// Whether the host of this NQN may connect.
    pub fn allows(&self, hostnqn: &str) -> bool {
        self.allow_any || self.hosts.contains(hostnqn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_hosts_and_nobody_else() {
        let mut access = HostAccess::default();
        assert!(!access.allows("nqn.2014-08.org.example:a"));
        access.hosts.insert("nqn.2014-08.org.example:a".into());
        assert!(access.allows("nqn.2014-08.org.example:a"));
        assert!(!access.allows("nqn.2014-08.org.example:b"));
        access.allow_any = true;
        assert!(access.allows("nqn.2014-08.org.example:b"));
    }
}
