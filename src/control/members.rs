//! Members of volumes: how they are added and taken out.

use std::sync::Arc;

use super::ControlError;
use super::array::Array;
use super::arrays::{Arrays, Place, release};
use super::changes::{Addition, Change, What};
use super::devices::Devices;
use super::newcomer;
use super::spares::Takeover;
use crate::bdev::{Bdev, Claim};
use crate::raid::{NewMember, Volume, VolumeError};

impl Arrays {
    /// Begins to put a device into the free slot of a volume. A volume without metadata that is
    /// configuring takes it at once, in place of a member that is not there, and is returned if it
    /// starts with it. What the device holds of another array is overwritten with `force` only.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_member(
        &mut self,
        name: &str,
        member: &str,
        force: bool,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Addition, ControlError> {
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.to_owned()))?;
        let refused = |source| ControlError::Volume {
            name: name.to_owned(),
            source,
        };
        if let Some(volume) = array.volume.clone() {
            has_free_slot(&volume).map_err(refused)?;
            let bdev = devices.registry.claim(member, name)?;
            let new = new_member(array, &volume, &bdev, force);
            let asked = new.and_then(|new| {
                let ticket = volume.add_member(bdev, new.clone()).map_err(refused)?;
                Ok((new, ticket))
            });
            return match asked {
                Ok((new, ticket)) => Ok(Addition::UnderWay(Change {
                    array: name.to_owned(),
                    member: Some(member.to_owned()),
                    what: What::Add,
                    new: new.map(Box::new),
                    spare: None,
                    ticket,
                })),
                Err(error) => {
                    devices.registry.release(member);
                    Err(error)
                }
            };
        }
        if array.kept.is_some() {
            // Who belongs to it is said by its members alone.
            self.started(name)?;
            return Err(ControlError::NoVolume(name.to_owned()));
        }
        let is_absent = |slot: &Option<String>| {
            slot.as_ref()
                .is_none_or(|m| devices.registry.get(m).is_err())
        };
        let free = array.slots.iter().position(is_absent);
        let free = free.ok_or_else(|| refused(VolumeError::NoFreeSlot))?;
        devices.registry.claim(member, name)?;
        array.slots[free] = Some(member.to_owned());
        Ok(Addition::Done(self.start(name, devices, place)?))
    }

    /// Begins to take a member out of its volume. A volume that is configuring lets it go at once,
    /// and so does one that has it as a spare.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn remove_member(
        &mut self,
        member: &str,
        devices: &mut Devices,
    ) -> Result<Option<Change>, ControlError> {
        devices.registry.get(member)?;
        let holder = match devices.registry.claim_of(member) {
            Some(Claim::Bdev(holder)) => holder.clone(),
            _ => return Err(ControlError::NotAMember(member.to_owned())),
        };
        let array = self.arrays.get_mut(&holder);
        let array = array.ok_or_else(|| ControlError::NotAMember(member.to_owned()))?;
        if let Some(kept) = &mut array.kept
            && kept.lose(member)
        {
            release(&holder, member, devices);
            let is_left = array.volume.is_some() || kept.asked_for || !kept.found.is_empty();
            if !is_left {
                self.forget(&holder, devices);
            }
            return Ok(None);
        }
        let waits = |t: &Takeover| t.device == member && t.ticket.is_none();
        if self.takeovers.iter().any(waits) {
            self.takeovers.retain(|t| !waits(t));
            release(&holder, member, devices);
            return Ok(None);
        }
        let Some(volume) = &array.volume else {
            for slot in &mut array.slots {
                slot.take_if(|m| m == member);
            }
            devices.registry.release(member);
            return Ok(None);
        };
        let ticket = volume
            .remove_member(member)
            .map_err(|source| ControlError::Volume {
                name: holder.clone(),
                source,
            })?;
        Ok(Some(Change {
            array: holder,
            member: Some(member.to_owned()),
            what: What::Remove,
            new: None,
            spare: None,
            ticket,
        }))
    }
}

/// That a slot is free, before anything is written to a device that is to have it.
fn has_free_slot(volume: &Volume) -> Result<(), VolumeError> {
    let slots = volume.status().slots;
    match slots.iter().any(|slot| slot.name.is_none()) {
        true => Ok(()),
        false => Err(VolumeError::NoFreeSlot),
    }
}

/// What a device brings along that becomes a member: nothing, where the members have no metadata;
/// what it has, if it was a member that lacks no more than the bitmap says; or else new metadata.
fn new_member(
    array: &Array,
    volume: &Volume,
    bdev: &Arc<dyn Bdev>,
    force: bool,
) -> Result<Option<NewMember>, ControlError> {
    let Some(kept) = &array.kept else {
        return Ok(None);
    };
    let status = volume.status();
    let found = newcomer::look(bdev, &kept.set, force)?;
    if let Some(member) = found
        && newcomer::returns(kept, &member, &status)
    {
        return Ok(Some(newcomer::returning(member)));
    }
    newcomer::fresh(kept, &status, bdev, None).map(Some)
}
