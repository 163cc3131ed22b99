//! How much of a device hosts may use.

use super::ControlError;
use super::system::System;
use crate::bdev::{Claim, RateLimits};

impl System {
    /// Sets how much of a device hosts may use, exported or not yet.
    ///
    /// # Errors
    /// [`ControlError::Registry`]: there is no such device, or another stands on it, so that no host uses it.
    pub fn limit(&mut self, device: &str, limits: RateLimits) -> Result<(), ControlError> {
        let registry = &mut self.devices.registry;
        if let (Some(Claim::Bdev(_)), false) = (registry.claim_of(device), limits.is_none()) {
            registry.check_free(device)?;
        }
        registry.set_limits(device, limits)?;
        self.target.limit(device, &limits);
        Ok(())
    }
}
