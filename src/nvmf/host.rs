//! Which hosts may use a subsystem, and what they prove themselves with.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::key::Key;

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

/// The keys of a host that has to prove who it is.
#[derive(Clone, Debug)]
pub struct HostKeys {
    /// The host's.
    pub host: Arc<Key>,
    /// The one with which the subsystem proves to this host what it is; `None` where it does not.
    pub controller: Option<Arc<Key>>,
}

impl HostKeys {
    /// The names of both.
    pub fn names(&self) -> (&str, Option<&str>) {
        (&self.host.name, self.controller.as_ref().map(|k| &*k.name))
    }
}

/// A host as `nvmf_get_subsystems` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// Its qualified name.
    pub nqn: String,
    /// The name of its key, if it has to prove who it is.
    pub dhchap_key: Option<String>,
    /// The name of the key with which the subsystem proves what it is, if it does.
    pub dhchap_ctrlr_key: Option<String>,
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
