//! Referrals: other discovery services that hosts are told of.

use super::address::ListenAddress;
use crate::nvme::Nqn;

/// Another discovery service (Base, Discovery Log Page: a referral).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referral {
    /// Where it is; the port is not 0.
    pub address: ListenAddress,
    /// Its name. That of a subsystem of another kind sends hosts to that subsystem.
    pub subnqn: Nqn,
    /// Whether it demands a secure channel.
    pub secure_channel: bool,
}

impl Referral {
    /// Whether it is to the same service.
    pub fn is_like(&self, address: ListenAddress, subnqn: &Nqn) -> bool {
        self.address == address && self.subnqn == *subnqn
    }
}
