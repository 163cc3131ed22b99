//! Members that are replaced while they still work.

use super::ControlError;
use super::arrays::{Arrays, release};
use super::changes::{Change, What};
use super::devices::Devices;
use super::newcomer;
use crate::bdev::Claim;
use crate::raid::VolumeError;

impl Arrays {
    /// Begins to make a device, which may be a spare of the volume, the mirror of a member; it takes
    /// the member's place when it is. What the device holds of another array is overwritten with
    /// `force` only.
    ///
    /// # Errors
    /// [`ControlError`]; nothing has changed then.
    pub fn replace_member(
        &mut self,
        member: &str,
        by: &str,
        force: bool,
        devices: &mut Devices,
    ) -> Result<Change, ControlError> {
        devices.registry.get(member)?;
        let holder = match devices.registry.claim_of(member) {
            Some(Claim::Bdev(holder)) if self.contains(holder) => holder.clone(),
            _ => return Err(ControlError::NotAMember(member.to_owned())),
        };
        let volume = self.started(&holder)?;
        let refused = |source| ControlError::Volume {
            name: holder.clone(),
            source,
        };
        let status = volume.status();
        // Before anything is written.
        if status.slots.iter().any(|slot| slot.name.is_none()) || !status.in_sync {
            return Err(refused(VolumeError::NotWhole));
        }
        if !status
            .slots
            .iter()
            .any(|s| s.name.as_deref() == Some(member))
        {
            return Err(ControlError::NotAMember(member.to_owned()));
        }
        let spare = self.kept_mut(&holder).and_then(|kept| {
            let at = kept.spares.iter().position(|s| s.device == by)?;
            Some(kept.spares.remove(at))
        });
        let bdev = match &spare {
            Some(_) => devices.registry.get(by)?,
            None => devices.registry.claim(by, &holder)?,
        };
        let new = match self.kept_mut(&holder) {
            None => Ok(None),
            Some(kept) => {
                let looked = match &spare {
                    Some(_) => Ok(None),
                    None => newcomer::look(&bdev, &kept.set, force),
                };
                looked.and_then(|_| newcomer::fresh(kept, &status, &bdev, spare.as_ref()).map(Some))
            }
        };
        let asked = new.and_then(|new| {
            let asked = volume.replace_member(member, bdev, new);
            asked.map_err(refused)
        });
        match asked {
            Ok(ticket) => Ok(Change {
                array: holder,
                member: Some(by.to_owned()),
                what: What::Replace,
                new: None,
                spare,
                ticket,
            }),
            Err(error) => {
                self.keep_or_release(&holder, by, spare, devices);
                Err(error)
            }
        }
    }

    /// A device did not become a member: it is a spare again if it was one, or else let go.
    pub(super) fn keep_or_release(
        &mut self,
        name: &str,
        device: &str,
        spare: Option<super::kept::Spare>,
        devices: &mut Devices,
    ) {
        match (self.kept_mut(name), spare) {
            (Some(kept), Some(spare)) => kept.spares.insert(0, spare),
            _ => release(name, device, devices),
        }
    }

    /// Lets go of what was to replace a member, where that was given up.
    pub(super) fn reconcile_replacements(&mut self, devices: &mut Devices) {
        for (name, array) in &mut self.arrays {
            let (Some(volume), Some(by)) = (&array.volume, &array.replacing) else {
                continue;
            };
            let status = volume.status();
            let is_by = |name: &Option<String>| name.as_ref() == Some(by);
            if status
                .process
                .is_some_and(|p| p.kind == "replace" && is_by(&p.target))
            {
                continue;
            }
            if !status.slots.iter().any(|slot| is_by(&slot.name)) {
                tracing::warn!("RAID volume {name}: {by} has not replaced a member");
                release(name, by, devices);
            }
            array.replacing = None;
        }
    }
}
