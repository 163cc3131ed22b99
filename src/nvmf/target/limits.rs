//! How much of a device hosts may use.

use super::Target;
use crate::bdev::RateLimits;
use crate::nvmf::limiter::Limiter;
use crate::nvmf::message::GroupCommand;

impl Target {
    /// Has all reactors together keep these limits of a device from now on. Does nothing for one that is
    /// not exported: it is told when it is.
    pub fn limit(&mut self, device: &str, limits: &RateLimits) {
        if let Some(&(device, _)) = self.devices.open.get(device) {
            let limiter = Limiter::new(limits, self.epoch);
            self.groups.broadcast(|| GroupCommand::Limit {
                device,
                limiter: limiter.clone(),
            });
        }
    }
}
