//! What poll groups are told of subsystems and of the discovery log.

use std::sync::Arc;

use super::Target;
use crate::nvmf::message::GroupCommand;
use crate::nvmf::subsystem::Subsystem;
use crate::nvmf::view::{DiscoverySubsystem, DiscoveryView, SubsystemId, SubsystemView};

impl Target {
    /// Tells the groups what a subsystem is now.
    pub(super) fn publish(&mut self, nqn: &str) {
        if let Some(subsystem) = self.subsystems.get(nqn) {
            let view = Arc::new(subsystem.view());
            self.groups
                .broadcast(|| GroupCommand::Subsystem(view.clone()));
        }
    }

    /// Tells the groups what the discovery log is now, if it has changed.
    pub(super) fn publish_discovery(&mut self) {
        let tell = |s: &Subsystem| DiscoverySubsystem {
            nqn: s.nqn.clone(),
            access: s.access.clone(),
            listeners: s.listeners.iter().map(|l| l.0).collect(),
        };
        let subsystems: Vec<_> = self.subsystems.values().map(tell).collect();
        let before = &self.discovery_view;
        let admin_queue_entries = self.transport.as_ref().map_or(0, |t| t.max_aq_depth);
        if before.subsystems == subsystems
            && before.referrals == self.referrals
            && before.admin_queue_entries == admin_queue_entries
        {
            return;
        }
        let view = Arc::new(DiscoveryView {
            generation: before.generation + 1,
            subsystems,
            referrals: self.referrals.clone(),
            admin_queue_entries,
        });
        self.discovery_view = view.clone();
        self.groups
            .broadcast(|| GroupCommand::Discovery(view.clone()));
    }

    pub(super) fn view_of(&self, id: SubsystemId) -> Arc<SubsystemView> {
        let mut others = self.subsystems.values();
        let found = others.find(|s| s.id == id).unwrap_or(&self.discovery);
        Arc::new(found.view())
    }
}
