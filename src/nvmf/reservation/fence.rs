//! What a reservation means for the commands of one host.

use super::HostId;
use crate::nvme::reservation::{CommandGroup, ReservationType};

/// A reservation as poll groups know it: who is kept from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Its type.
    pub kind: ReservationType,
    /// Hosts that it does not concern.
    pub admitted: Vec<HostId>,
}

/// What a host may not do with a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bars {
    /// Change anything.
    Writes,
    /// Anything.
    All,
}

impl Fence {
    /// What this host may not do, if there is anything.
    pub fn bars(&self, host: &HostId) -> Option<Bars> {
        if self.admitted.contains(host) {
            None
        } else if self.kind.excludes_reads() {
            Some(Bars::All)
        } else {
            Some(Bars::Writes)
        }
    }
}

impl Bars {
    /// Whether a command of this kind ends with Reservation Conflict.
    pub fn refuse(self, group: CommandGroup) -> bool {
        self == Self::All || group == CommandGroup::Write
    }
}
