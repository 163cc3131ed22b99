//! How listeners reach groups of namespaces.

use super::{Target, missing};
use crate::nvmf::address::ListenAddress;
use crate::nvmf::ana::{Access, Reach};
use crate::nvmf::error::TargetError;

impl Target {
    /// Sets how a listener reaches one group of namespaces, or all of them; hosts are told.
    ///
    /// # Errors
    /// [`TargetError::NotFound`] (subsystem or listener), [`TargetError::Invalid`]: a group that
    /// cannot be, a subsystem whose hosts are not told.
    pub fn set_access(
        &mut self,
        nqn: &str,
        address: ListenAddress,
        group: Option<u32>,
        access: Access,
    ) -> Result<(), TargetError> {
        self.check_reporting(nqn)?;
        let subsystem = self.subsystem_mut(nqn)?;
        if !subsystem.listeners.contains(&address) {
            return Err(TargetError::NotFound(format!(
                "listener {address} of {nqn}"
            )));
        }
        let mut reach = Reach::uniform(access);
        if let Some(group) = group {
            subsystem.check_group(group)?;
            reach = subsystem.reach(address);
            reach.set(group, access);
        }
        subsystem.reaches.insert(address, reach);
        self.publish(nqn);
        Ok(())
    }

    /// How a listener reaches each group of namespaces; `None` where hosts are not told.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn access(
        &self,
        nqn: &str,
        address: ListenAddress,
    ) -> Result<Option<Vec<(u32, Access)>>, TargetError> {
        let subsystem = self.subsystem(nqn)?;
        let (reach, options) = (subsystem.reach(address), &subsystem.options);
        let all = (1..=options.max_namespaces).map(|group| (group, reach.of(group)));
        Ok(options.ana_reporting.then(|| all.collect()))
    }

    /// Puts a namespace into another ANA group; hosts are told, where they are told of groups.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`] for a group that cannot be.
    pub fn set_namespace_group(
        &mut self,
        nqn: &str,
        nsid: u32,
        anagrpid: u32,
    ) -> Result<(), TargetError> {
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| missing(nqn))?;
        subsystem.check_group(anagrpid)?;
        let namespace = subsystem.namespaces.get_mut(&nsid);
        let namespace =
            namespace.ok_or_else(|| TargetError::NotFound(format!("namespace {nsid} of {nqn}")))?;
        namespace.anagrpid = anagrpid;
        self.publish(nqn);
        Ok(())
    }

    /// Refuses what hosts of the subsystem would never hear of.
    pub(super) fn check_reporting(&self, nqn: &str) -> Result<(), TargetError> {
        if self.subsystem(nqn)?.options.ana_reporting {
            return Ok(());
        }
        Err(TargetError::Invalid(format!(
            "{nqn} does not tell hosts of ANA states; create it with ana_reporting: true"
        )))
    }
}
