//! Controllers that are let go, of this machine or another: their devices leave their arrays first.

use super::ControlError;
use super::changes::Change;
use super::devices::Kind;
use super::system::{Deletion, System};
use crate::bdev::{Claim, RegistryError};

/// A controller that is being detached: its devices leave their arrays one after another.
#[derive(Debug)]
pub struct Detachment {
    name: String,
    change: Option<Change>,
}

impl System {
    /// Begins to detach a controller: its devices leave their arrays, which go on without them.
    ///
    /// # Errors
    /// [`ControlError::NoController`]; [`RegistryError::Busy`] where something other than an array
    /// holds one of its devices.
    pub fn detach(&mut self, name: &str) -> Result<Detachment, ControlError> {
        let devices = self.devices_of(name);
        let devices = devices.ok_or_else(|| ControlError::NoController(name.to_owned()))?;
        for device in devices.clone() {
            let holder = self.devices.registry.claim_of(&device);
            let of_array = matches!(holder, Some(Claim::Bdev(h)) if self.arrays.contains(h));
            if !of_array && self.devices.registry.get(&device).is_ok() {
                self.devices.registry.check_free(&device)?;
            }
        }
        Ok(Detachment {
            name: name.to_owned(),
            change: None,
        })
    }

    /// Whether a controller is detached, and how that has ended.
    pub fn poll_detachment(
        &mut self,
        detachment: &mut Detachment,
    ) -> Option<Result<(), ControlError>> {
        let name = detachment.name.clone();
        loop {
            if let Some(mut change) = detachment.change.take() {
                match self.poll_change(&mut change) {
                    None => {
                        detachment.change = Some(change);
                        return None;
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    Some(Ok(())) => {}
                }
            }
            let Some(devices) = self.devices_of(&name) else {
                return Some(Ok(()));
            };
            let Some(device) = devices.last().cloned() else {
                self.remotes.forget(&name);
                self.locals.forget(&name);
                return Some(Ok(()));
            };
            match self.delete_device(&device, Kind::NVME) {
                Ok(Deletion::UnderWay(change)) => detachment.change = Some(change),
                Ok(Deletion::Done) | Err(ControlError::Registry(RegistryError::NotFound(_))) => {
                    if let Some(devices) = self.devices_of(&name) {
                        devices.pop();
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The devices of a controller, of either kind.
    fn devices_of(&mut self, name: &str) -> Option<&mut Vec<String>> {
        match self.locals.contains(name) {
            true => self.locals.devices_mut(name),
            false => self.remotes.devices_mut(name),
        }
    }
}
