//! Where subsystems listen.

use std::net::SocketAddr;

use super::Target;
use crate::nvmf::address::ListenAddress;
use crate::nvmf::ana::{Access, Reach};
use crate::nvmf::error::TargetError;

impl Target {
    /// Listens for hosts of a subsystem; subsystems may share an address. Returns the address with
    /// the port that it has. The discovery subsystem answers on every address anyhow.
    ///
    /// # Errors
    /// [`TargetError::NotFound`] (subsystem, or no transport yet), [`TargetError::Exists`],
    /// [`TargetError::Listen`].
    pub fn add_listener(
        &mut self,
        nqn: &str,
        address: ListenAddress,
    ) -> Result<ListenAddress, TargetError> {
        self.add_listener_with(nqn, address, Access::Optimized)
    }

    /// The same; groups of namespaces are reached through this listener in the given way.
    ///
    /// # Errors
    /// As [`Target::add_listener`], and [`TargetError::Invalid`] for another way than the best where
    /// hosts would not be told.
    pub fn add_listener_with(
        &mut self,
        nqn: &str,
        address: ListenAddress,
        access: Access,
    ) -> Result<ListenAddress, TargetError> {
        self.check_running()?;
        if self.transport.is_none() {
            return Err(TargetError::NotFound(
                "transport TCP (nvmf_create_transport makes it)".into(),
            ));
        }
        if self.subsystem(nqn)?.listeners.contains(&address) {
            return Err(TargetError::Exists(format!("listener {address} of {nqn}")));
        }
        if access != Access::Optimized {
            self.check_reporting(nqn)?;
        }
        let address = self.hub()?.listeners.add(address)?;
        let subsystem = self.subsystem_mut(nqn)?;
        subsystem.listeners.push(address);
        subsystem.reaches.insert(address, Reach::uniform(access));
        self.publish_discovery();
        Ok(address)
    }

    /// Listens no longer, and closes the associations of this subsystem that came in there.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn remove_listener(
        &mut self,
        nqn: &str,
        address: ListenAddress,
    ) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        let at = subsystem.listeners.iter().position(|&l| l == address);
        let at = at.ok_or_else(|| TargetError::NotFound(format!("listener {address} of {nqn}")))?;
        subsystem.listeners.remove(at);
        subsystem.reaches.remove(&address);
        let id = subsystem.id;
        if let Some(hub) = &mut self.hub {
            hub.listeners.remove(address);
        }
        let came_in = |a: SocketAddr| address.takes(a);
        self.close(
            self.associations
                .chosen(|a| a.subsystem == id && came_in(a.local)),
        );
        self.publish_discovery();
        Ok(())
    }

    /// Where a subsystem listens.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn listeners(&self, nqn: &str) -> Result<Vec<ListenAddress>, TargetError> {
        Ok(self.subsystem(nqn)?.listeners.clone())
    }
}
