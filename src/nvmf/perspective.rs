//! What one host sees of a subsystem from where it came in.

use std::net::SocketAddr;
use std::sync::Arc;

use super::view::{NamespaceView, SubsystemView};
use crate::nvme::Nqn;

/// A host, and the way it came: that of its admin queue for all of its queues, so that what the
/// controller tells of access is true of each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perspective {
    /// The host.
    pub hostnqn: Nqn,
    /// Local end of its admin queue's connection.
    pub local: SocketAddr,
}

impl Perspective {
    /// The subsystem as this host sees it.
    pub fn of(&self, whole: &Arc<SubsystemView>) -> Arc<SubsystemView> {
        let seen: Vec<_> = whole
            .namespaces
            .iter()
            .map(|n| self.see(whole, n.as_ref()?))
            .collect();
        if seen == whole.namespaces {
            return whole.clone();
        }
        Arc::new(SubsystemView {
            namespaces: seen,
            ..(**whole).clone()
        })
    }

    fn see(
        &self,
        whole: &SubsystemView,
        namespace: &Arc<NamespaceView>,
    ) -> Option<Arc<NamespaceView>> {
        let hosts = namespace.hosts.as_ref();
        if hosts.is_some_and(|hosts| !hosts.contains(self.hostnqn.as_str())) {
            return None;
        }
        let reaches = whole.reaches.as_ref();
        let access = reaches.map(|reaches| reaches.of(self.local, namespace.group));
        let access = access.unwrap_or_default();
        if access == namespace.access {
            return Some(namespace.clone());
        }
        Some(Arc::new(NamespaceView {
            access,
            ..(**namespace).clone()
        }))
    }
}
