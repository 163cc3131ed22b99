//! How deep the queues of devices are.

use std::sync::Arc;
use std::time::Duration;

use super::Target;
use crate::nvmf::depth::{QueueDepth, QueueDepthInfo};
use crate::nvmf::error::TargetError;
use crate::nvmf::message::GroupCommand;

impl Target {
    /// Has the depth of a device's queue looked at once a period from now on, or never with a period of 0.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] for a device that is not exported.
    pub fn set_depth_period(&mut self, device: &str, period: Duration) -> Result<(), TargetError> {
        let &(place, _) = self.devices.open.get(device).ok_or_else(|| {
            TargetError::Invalid(format!(
                "bdev {device} is not exported, so that it has no queue; nvmf_subsystem_add_ns exports it"
            ))
        })?;
        let depth = (!period.is_zero())
            .then(|| Arc::new(QueueDepth::new(period, self.groups.len(), self.epoch)));
        match &depth {
            Some(depth) => self.devices.depths.insert(device.to_owned(), depth.clone()),
            None => self.devices.depths.remove(device),
        };
        self.groups.broadcast(|| GroupCommand::Depth {
            device: place,
            depth: depth.clone(),
        });
        Ok(())
    }

    /// What was seen of a device's queue, if it is looked at.
    pub fn queue_depth(&self, device: &str) -> Option<QueueDepthInfo> {
        self.devices.depths.get(device).map(|depth| depth.info())
    }
}
