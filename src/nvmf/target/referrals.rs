//! Other discovery services that hosts are told of, and where our own is.

use std::net::SocketAddr;

use super::Target;
use crate::nvme::Nqn;
use crate::nvmf::address::ListenAddress;
use crate::nvmf::error::TargetError;
use crate::nvmf::referral::Referral;

/// Referrals at most.
const REFERRALS: usize = 256;

impl Target {
    /// Tells hosts of another discovery service. One that they are told of already is no error.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] without a port, [`TargetError::Limit`] beyond 256.
    pub fn add_referral(&mut self, referral: Referral) -> Result<(), TargetError> {
        let address = referral.address;
        if address.0.port() == 0 || address.0.ip().is_unspecified() {
            return Err(TargetError::Invalid(format!(
                "referral {address} is no place that hosts can connect to; name its address and port"
            )));
        }
        if self
            .referrals
            .iter()
            .any(|r| r.is_like(address, &referral.subnqn))
        {
            return Ok(());
        }
        if self.referrals.len() >= REFERRALS {
            return Err(TargetError::Limit(format!(
                "there are {REFERRALS} referrals, as many as there may be; remove one first"
            )));
        }
        self.referrals.push(referral);
        self.publish_discovery();
        Ok(())
    }

    /// Tells hosts of another discovery service no longer.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn remove_referral(
        &mut self,
        address: ListenAddress,
        subnqn: &Nqn,
    ) -> Result<(), TargetError> {
        let at = self
            .referrals
            .iter()
            .position(|r| r.is_like(address, subnqn));
        let at =
            at.ok_or_else(|| TargetError::NotFound(format!("referral to {subnqn} at {address}")))?;
        self.referrals.remove(at);
        self.publish_discovery();
        Ok(())
    }

    /// The other discovery services that hosts are told of, in the order in which they came.
    pub fn referrals(&self) -> &[Referral] {
        &self.referrals
    }

    /// Where hosts find our own discovery service: at its own listeners, or, if it has none, at
    /// those of all subsystems. Sorted, each once.
    pub fn discovery_addresses(&self) -> Vec<SocketAddr> {
        let own = &self.discovery.listeners;
        let mut addresses: Vec<SocketAddr> = match own.is_empty() {
            true => self
                .subsystems
                .values()
                .flat_map(|s| &s.listeners)
                .map(|l| l.0)
                .collect(),
            false => own.iter().map(|l| l.0).collect(),
        };
        addresses.sort();
        addresses.dedup();
        addresses
    }
}
