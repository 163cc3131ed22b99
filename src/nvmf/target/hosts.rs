//! Which hosts a subsystem lets in.

use super::{Target, parse_nqn};
use crate::nvme::nqn::DISCOVERY;
use crate::nvmf::error::TargetError;
use crate::nvmf::host::HostKeys;

impl Target {
    /// Puts a host on a subsystem's allow-list; with keys, it has to prove who it is, even where any
    /// host is allowed. Putting it there twice is no error.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`]: a malformed NQN, a host that is there with
    /// other keys, keys for discovery.
    pub fn add_host(
        &mut self,
        nqn: &str,
        hostnqn: &str,
        keys: Option<HostKeys>,
    ) -> Result<(), TargetError> {
        let host = parse_nqn("host", hostnqn)?;
        let host = host.as_str().to_owned();
        let subsystem = self.subsystem_mut(nqn)?;
        let there = subsystem.keys.get(&host).map(HostKeys::names);
        if subsystem.access.hosts.contains(&host) && there != keys.as_ref().map(HostKeys::names) {
            return Err(TargetError::Invalid(format!(
                "host {host} of {nqn} is there with other keys; nvmf_subsystem_set_keys changes them"
            )));
        }
        check_keys(nqn, keys.as_ref())?;
        subsystem.access.hosts.insert(host.clone());
        subsystem.keys.extend(keys.map(|keys| (host, keys)));
        self.publish_discovery();
        Ok(())
    }

    /// Takes a host off the allow-list, and closes its associations unless any host is allowed.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn remove_host(&mut self, nqn: &str, hostnqn: &str) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        if !subsystem.access.hosts.remove(hostnqn) {
            return Err(TargetError::NotFound(format!("host {hostnqn} of {nqn}")));
        }
        subsystem.keys.remove(hostnqn);
        self.turn_out(nqn)
    }

    /// Allows every host, or only those on the list again; hosts that are not allowed any more
    /// lose their associations.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn set_allow_any_host(&mut self, nqn: &str, allow: bool) -> Result<(), TargetError> {
        self.subsystem_mut(nqn)?.access.allow_any = allow;
        self.turn_out(nqn)
    }

    /// Closes the associations of hosts that are not allowed any more.
    pub(super) fn turn_out(&mut self, nqn: &str) -> Result<(), TargetError> {
        let subsystem = self.subsystem(nqn)?;
        let gone = self.associations.chosen(|a| {
            a.subsystem == subsystem.id && !subsystem.access.allows(a.hostnqn.as_str())
        });
        self.close(gone);
        self.publish_discovery();
        Ok(())
    }
}

/// Discovery is for everybody.
pub(super) fn check_keys(nqn: &str, keys: Option<&HostKeys>) -> Result<(), TargetError> {
    match keys {
        Some(_) if nqn == DISCOVERY => Err(TargetError::Invalid(
            "hosts of discovery are not authenticated; leave the keys out".into(),
        )),
        _ => Ok(()),
    }
}
