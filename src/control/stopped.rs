//! Arrays that are not started: what is done with them by command.

use std::time::Instant;

use uuid::Uuid;

use super::ControlError;
use super::assembly::{self, Enough};
use super::devices::Kind;
use super::newcomer;
use super::system::System;
use crate::md::{Member, Superblock};

/// Which array is meant. What is not given is left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// Its identity.
    pub uuid: Option<Uuid>,
    /// Its name: the volume's, or what its members have, with or without the host.
    pub name: Option<String>,
}

impl System {
    /// Starts an array of what is there of it, and nothing else than `only` if that names any
    /// devices; one member may be missing. With `force`, also if its parity cannot be trusted, or if
    /// members have to be taken that it had gone on without. Returns the name of its volume.
    ///
    /// # Errors
    /// [`ControlError`]; nothing is started then.
    pub fn assemble(
        &mut self,
        which: &Which,
        only: &[String],
        force: bool,
    ) -> Result<String, ControlError> {
        let found = self.find_array(which, only)?;
        let Some((_, first)) = found.first() else {
            return Err(ControlError::NoArray);
        };
        let set = first.superblock.set_uuid;
        let now = Instant::now();
        let waited = self.arrays.of_set(&set).is_some();
        let name = self.arrays.volume_of(&first.superblock, &self.devices, now);
        if self.arrays.volume(&name)?.is_some() {
            return Err(ControlError::Started(name));
        }
        if !only.is_empty() {
            for device in self.arrays.devices_of(&name) {
                if !found.iter().any(|(named, _)| *named == device) {
                    self.arrays.take_from_waiting(&device, &mut self.devices);
                }
            }
            // It is gone if it had no other devices.
            self.arrays.volume_of(&first.superblock, &self.devices, now);
        }
        for (device, member) in found {
            if self.arrays.waits_with(&device, &self.devices).is_none() {
                self.devices.registry.claim(&device, &name)?;
            }
            if let Some(kept) = self.arrays.kept_mut(&name) {
                kept.find(&device, member, now);
            }
        }
        let enough = match force {
            true => Enough::Forced,
            false => Enough::Degraded,
        };
        let (arrays, devices, place) = self.parts();
        let started = arrays.assemble(&name, enough, devices, &place);
        let opened = started.and_then(|volume| self.open(Some(volume)));
        match opened {
            Ok(()) => Ok(name),
            Err(error) => {
                if !waited {
                    self.arrays.forget(&name, &mut self.devices);
                }
                Err(error)
            }
        }
    }

    /// All that a device holds of an array, as it is there now.
    ///
    /// # Errors
    /// [`ControlError`], among them that it holds nothing.
    pub fn examine_member(&self, device: &str) -> Result<Member, ControlError> {
        let bdev = self.devices.find(device)?;
        newcomer::read(&bdev).map_err(|source| ControlError::Member {
            device: bdev.info().name.clone(),
            source,
        })
    }

    /// The devices of one array that is not started, with what they hold: all of those that nothing
    /// else uses, or `only` some.
    pub(super) fn find_array(
        &self,
        which: &Which,
        only: &[String],
    ) -> Result<Vec<(String, Member)>, ControlError> {
        let mut found: Vec<(String, Member)> = Vec::new();
        if let Some(name) = &which.name
            && self.arrays.contains(name)
            && self.arrays.volume(name)?.is_some()
        {
            return Err(ControlError::Started(name.clone()));
        }
        for device in self.candidates(only)? {
            let bdev = self.devices.find(&device)?;
            match assembly::examine(&bdev) {
                Ok(Some(member)) if self.is_meant(which, &member.superblock) => {
                    found.push((device, member));
                }
                Ok(Some(member)) if !only.is_empty() => {
                    return Err(newcomer::holds_other(&bdev, &member.superblock));
                }
                Ok(None) if !only.is_empty() => return Err(ControlError::HoldsNothing(device)),
                Ok(_) => {}
                Err(error) if !only.is_empty() => return Err(error),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        let Some((_, first)) = found.first() else {
            return Ok(found);
        };
        let set = first.superblock.set_uuid;
        let other = found.iter().find(|(_, m)| m.superblock.set_uuid != set);
        match other {
            None => Ok(found),
            Some((_, other)) => Err(ControlError::Ambiguous {
                one: set,
                other: other.superblock.set_uuid,
            }),
        }
    }

    /// The devices that may be taken for an array that is not started.
    fn candidates(&self, only: &[String]) -> Result<Vec<String>, ControlError> {
        if only.is_empty() {
            let all = self.devices.registry.iter();
            let names = all.map(|(bdev, _)| bdev.info().name.clone());
            let free = names.filter(|name| {
                let is_volume = matches!(self.devices.kind(name), Some(Kind::Volume));
                !is_volume && self.is_free(name)
            });
            return Ok(free.collect());
        }
        let mut named = Vec::new();
        for device in only {
            let device = self.devices.find(device)?.info().name.clone();
            if !self.is_free(&device) {
                self.devices.registry.check_free(&device)?;
            }
            named.push(device);
        }
        Ok(named)
    }

    /// Whether nothing uses a device, but for an array that waits with it.
    fn is_free(&self, device: &str) -> bool {
        let unclaimed = self.devices.registry.claim_of(device).is_none();
        unclaimed || self.arrays.waits_with(device, &self.devices).is_some()
    }

    fn is_meant(&self, which: &Which, superblock: &Superblock) -> bool {
        let set = superblock.set_uuid;
        let is_named = |name: &String| {
            let volume = self.arrays.of_set(&set);
            let full = superblock.set_name.to_string();
            volume == Some(name.as_str())
                || full == *name
                || superblock.set_name.without_host() == *name
        };
        which.uuid.is_none_or(|uuid| uuid == set) && which.name.as_ref().is_none_or(is_named)
    }
}
