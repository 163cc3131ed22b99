//! Who is connected, and what has been counted.

use super::Target;
use crate::nvmf::counts::Counts;
use crate::nvmf::error::TargetError;
use crate::nvmf::error_log::Failures;
use crate::nvmf::latency::Histogram;
use crate::nvmf::message::{ConnectionId, GroupCommand};
use crate::nvmf::stats::{ControllerInfo, GroupStats, QpairInfo};

impl Target {
    /// Commands of an I/O queue have failed: its controller is told.
    pub(super) fn failed(&mut self, queue: ConnectionId, failures: Box<Failures>) {
        self.count(queue, &Counts::default(), &failures);
        self.tell_controller(queue, |connection| GroupCommand::Failed {
            connection,
            failures,
        });
    }

    /// An I/O queue has moved something: its controller is told.
    pub(super) fn moved(&mut self, queue: ConnectionId, counts: Counts) {
        self.count(queue, &counts, &Failures::default());
        self.tell_controller(queue, |connection| GroupCommand::Moved {
            connection,
            counts,
        });
    }

    /// Sends a command to the admin queue of the controller that a connection is a queue of.
    fn tell_controller(
        &mut self,
        queue: ConnectionId,
        command: impl FnOnce(ConnectionId) -> GroupCommand,
    ) {
        let association = self.associations.association(queue);
        let admin = association.and_then(|a| a.queues.get(&0).copied());
        let entry = admin.and_then(|admin| Some((admin, self.associations.connection(admin)?)));
        if let Some((admin, entry)) = entry {
            self.groups.send(entry.group, command(admin));
        }
    }

    /// Controllers of a subsystem, by identifier.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn controllers(&self, nqn: &str) -> Result<Vec<ControllerInfo>, TargetError> {
        Ok(self.associations.controllers(self.subsystem(nqn)?.id))
    }

    /// Queues of a subsystem, by controller and queue identifier.
    ///
    /// # Errors
    /// [`TargetError::NotFound`].
    pub fn qpairs(&self, nqn: &str) -> Result<Vec<QpairInfo>, TargetError> {
        let subsystem = self.subsystem(nqn)?;
        let name = |group| self.groups.name(group);
        Ok(self.associations.qpairs(subsystem.id, name))
    }

    /// Counts of every poll group. Waits for reactors; groups that do not answer in time are left
    /// out.
    pub fn stats(&mut self) -> Vec<GroupStats> {
        let ticket = self.groups.begin(GroupCommand::Stats);
        self.wait(ticket);
        let mut stats = self.groups.finish(ticket).stats;
        stats.sort_by(|a, b| a.name.cmp(&b.name));
        stats
    }

    /// Has the spread of a device's latencies counted from now on, or no longer.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] for a device that is not exported.
    pub fn set_histogram(
        &mut self,
        device: &str,
        histogram: Option<&Histogram>,
    ) -> Result<(), TargetError> {
        let &(place, _) = self.devices.open.get(device).ok_or_else(|| {
            TargetError::Invalid(format!(
                "bdev {device} is not exported, so that it has no latencies; nvmf_subsystem_add_ns exports it"
            ))
        })?;
        self.groups.broadcast(|| GroupCommand::Histogram {
            device: place,
            histogram: histogram.cloned().map(Box::new),
        });
        Ok(())
    }

    /// Forgets the longest and shortest latencies of a device, and with `all` the others. Does
    /// nothing for one that is not exported.
    pub fn reset_latencies(&mut self, device: &str, all: bool) {
        if let Some(&(device, _)) = self.devices.open.get(device) {
            self.groups
                .broadcast(|| GroupCommand::ResetLatencies { device, all });
        }
    }
}
