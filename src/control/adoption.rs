//! Arrays that have come back by themselves and are asked for by name afterwards: a configuration
//! that made an array once makes the same call at every start.

use std::sync::Arc;
use std::time::Instant;

use super::ControlError;
use super::array::{Array, ArrayOptions, MISSING, Tuning};
use super::arrays::{Arrays, Place};
use super::assembly::Enough;
use super::creation::NewMetadata;
use super::devices::Devices;
use super::kept::policy_name;
use super::newcomer;
use crate::md::NewPolicy;
use crate::raid::Volume;

impl Arrays {
    /// Whether a volume of this name was found on its members, and not asked for yet.
    pub fn has_come_back(&self, name: &str) -> bool {
        let kept = self.arrays.get(name).and_then(|a| a.kept.as_ref());
        kept.is_some_and(|k| !k.asked_for)
    }

    /// Takes an array that has come back for one that was to be made, if it is what it was to be.
    /// Says whether it works as it should, too; else it has to be started again.
    ///
    /// # Errors
    /// [`ControlError::Differs`].
    pub(super) fn take_as_made(
        &mut self,
        options: &ArrayOptions,
        new: &NewMetadata,
        devices: &Devices,
    ) -> Result<bool, ControlError> {
        let name = &options.name;
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.clone()))?;
        if let Some(what) = difference(array, options, new) {
            return Err(ControlError::Differs {
                name: name.clone(),
                what,
            });
        }
        warn_of_strangers(array, options, devices);
        if let Some(kept) = &mut array.kept {
            kept.asked_for = true;
        }
        array.options.level = options.level;
        Ok(array.tune(options.tuning))
    }

    /// Notes how an array is to work. Says whether it does; else it has to be started again.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`], [`ControlError::NotKept`].
    pub(super) fn set_tuning(&mut self, name: &str, tuning: Tuning) -> Result<bool, ControlError> {
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.to_owned()))?;
        if array.kept.is_none() {
            return Err(ControlError::NotKept(name.to_owned()));
        }
        Ok(array.tune(tuning))
    }

    /// Starts an array again that was stopped just now and still holds its devices.
    pub(super) fn start_again(
        &mut self,
        name: &str,
        tuning: Tuning,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Arc<Volume>, ControlError> {
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.to_owned()))?;
        array.options.tuning = tuning;
        let members = array.devices();
        if let Some(kept) = &mut array.kept {
            for device in members {
                let member = newcomer::read(&devices.registry.get(&device)?);
                let member = member.map_err(|source| ControlError::Member {
                    device: device.clone(),
                    source,
                })?;
                kept.find(&device, member, Instant::now());
            }
        }
        self.assemble(name, Enough::Degraded, devices, place)
    }
}

impl Array {
    /// Notes how it is to work, unless it works otherwise already. Says whether it will.
    fn tune(&mut self, tuning: Tuning) -> bool {
        if self.volume.is_none() {
            self.options.tuning = tuning;
        }
        self.options.tuning == tuning
    }
}

/// In what an array is not what it was to be.
fn difference(array: &Array, options: &ArrayOptions, new: &NewMetadata) -> Option<String> {
    let is = &array.options;
    if options.strip_kb != is.strip_kb {
        return Some(format!("chunks of {} KiB", is.strip_kb));
    }
    if options.layout != is.layout {
        return Some(format!("the layout {}", is.layout.name()));
    }
    if options.members.len() != array.slots.len() {
        return Some(format!("{} members", array.slots.len()));
    }
    if options.uuid.is_some() && options.uuid != is.uuid {
        return Some(format!("the UUID {}", is.uuid.unwrap_or_default()));
    }
    let kept = array.kept.as_ref()?;
    let policy = policy_name(kept.policy);
    if new
        .policy
        .is_some_and(|wanted| new_policy_name(wanted) != policy)
    {
        return Some(format!("the consistency policy {policy}"));
    }
    // Named may be more: a disk that was put in the place of a dead one is no member yet.
    let is_spare = |device: &String| kept.spares.iter().any(|s| s.device == *device);
    let own = array.devices();
    let unnamed = |device: &&String| !is_spare(device) && !options.members.contains(device);
    let other = own.iter().find(unnamed)?;
    Some(format!("another member, {other}"))
}

/// Says which devices were named that are none of its.
fn warn_of_strangers(array: &Array, options: &ArrayOptions, devices: &Devices) {
    let own = array.devices();
    for device in options.members.iter().filter(|m| *m != MISSING) {
        if !own.contains(device) && devices.registry.get(device).is_ok() {
            tracing::warn!(
                "RAID volume {}: {device} is named as a member and holds nothing of it; \
                 bdev_raid_add_base_bdev adds it",
                options.name
            );
        }
    }
}

/// mdadm's word for a consistency policy.
fn new_policy_name(policy: NewPolicy) -> &'static str {
    match policy {
        NewPolicy::Resync => "resync",
        NewPolicy::Bitmap { .. } => "bitmap",
        NewPolicy::Ppl => "ppl",
    }
}
