//! Devices that wait to be used, and members that come without anybody asking: a spare where a
//! member is lost, a member that was away.

use std::time::{Duration, Instant};

use super::ControlError;
use super::arrays::{Arrays, release};
use super::devices::Devices;
use super::kept::Spare;
use super::newcomer;
use crate::md::{Member, Role};
use crate::raid::{NewMember, State, Ticket, VolumeError};

/// How often a takeover under way is looked at: nothing wakes the control thread for it.
const INTERVAL: Duration = Duration::from_millis(10);

/// How often volumes that have spares are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// A member that comes without anybody asking. Its device is held for the volume.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) array: String,
    pub(super) device: String,
    new: NewMember,
    /// The spare that it was.
    spare: Option<Spare>,
    /// The member that it is to replace, which works.
    replaces: Option<String>,
    /// Once the volume was asked.
    pub(super) ticket: Option<Ticket>,
}

impl Arrays {
    /// Makes a device a spare of a started volume: it takes the place of the next member that is
    /// lost. What the device holds of another array is overwritten with `force` only.
    ///
    /// # Errors
    /// [`ControlError`]; the device has not become one then.
    pub fn add_spare(
        &mut self,
        name: &str,
        device: &str,
        force: bool,
        devices: &mut Devices,
    ) -> Result<(), ControlError> {
        let volume = self.started(name)?;
        let array = self.arrays.get_mut(name).expect("it is started");
        let Some(kept) = &mut array.kept else {
            return Err(ControlError::NotKept(name.to_owned()));
        };
        let bdev = devices.registry.claim(device, name)?;
        let (info, of_volume) = (bdev.info(), crate::bdev::Bdev::info(&*volume));
        let checked = match info.block_size == of_volume.block_size {
            true => newcomer::look(&bdev, &kept.set, force).map(drop),
            false => Err(ControlError::Volume {
                name: name.to_owned(),
                source: VolumeError::MixedBlocks {
                    name: device.to_owned(),
                    found: info.block_size,
                    wanted: of_volume.block_size,
                },
            }),
        };
        let spare = checked.and_then(|()| newcomer::spare(kept, &volume.status(), &bdev));
        match spare {
            Ok(spare) => kept.spares.push(spare),
            Err(error) => {
                devices.registry.release(device);
                return Err(error);
            }
        }
        tracing::info!("RAID volume {name}: {device} is a spare");
        Ok(())
    }

    /// Takes a spare out of its volume and removes what makes it one. Says whether the device was
    /// a spare of that volume.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn remove_spare(
        &mut self,
        name: &str,
        device: &str,
        devices: &mut Devices,
    ) -> Result<bool, ControlError> {
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.to_owned()))?;
        let Some(kept) = &mut array.kept else {
            return Ok(false);
        };
        if !kept.spares.iter().any(|s| s.device == device) {
            return Ok(false);
        }
        kept.lose(device);
        release(name, device, devices);
        newcomer::clear(&devices.registry.get(device)?)?;
        Ok(true)
    }

    /// A device came that says that it belongs to the started volume `name`. It becomes a spare if
    /// it says that it is one, or that it was being made a member's mirror; or a member again if it
    /// lacks no more than the bitmap says.
    ///
    /// # Errors
    /// Why it is not used.
    pub(super) fn welcome(
        &mut self,
        name: &str,
        device: &str,
        member: Member,
        devices: &mut Devices,
    ) -> Result<(), ControlError> {
        let volume = self.started(name)?;
        let array = self.arrays.get_mut(name).expect("it is started");
        let Some(kept) = &mut array.kept else {
            return Err(ControlError::NotKept(name.to_owned()));
        };
        let status = volume.status();
        let spare = Spare {
            replaces: kept.replaces(&member.superblock),
            ..Spare::new(device, &member.superblock)
        };
        if member.superblock.role() == Role::Spare || spare.replaces.is_some() {
            let known = status
                .metadata
                .iter()
                .flat_map(|m| m.superblocks.iter().flatten());
            let twice = known
                .map(|s| (s.dev_number, s.device_uuid))
                .chain(kept.spares.iter().map(|s| (s.number, s.uuid)))
                .any(|(number, uuid)| number == spare.number || uuid == spare.uuid);
            if twice {
                return Err(ControlError::Twice(device.to_owned()));
            }
            devices.registry.claim(device, name)?;
            kept.spares.push(spare);
            tracing::info!("RAID volume {name}: {device} is a spare");
            return Ok(());
        }
        if !newcomer::returns(kept, &member, &status) {
            return Err(ControlError::Stale {
                device: device.to_owned(),
                name: name.to_owned(),
            });
        }
        devices.registry.claim(device, name)?;
        tracing::info!("RAID volume {name}: {device} is back, and brought up to date");
        self.takeovers.push(Takeover {
            array: name.to_owned(),
            device: device.to_owned(),
            new: newcomer::returning(member),
            spare: None,
            replaces: None,
            ticket: None,
        });
        Ok(())
    }

    /// Has spares take the places of members that are lost, and sees takeovers through. Returns when
    /// to look again at the latest, if there is anything to look at.
    pub(super) fn take_over(&mut self, devices: &mut Devices, now: Instant) -> Option<Instant> {
        let names: Vec<String> = self.arrays.keys().cloned().collect();
        let mut watched = false;
        for name in names {
            watched |= self.choose_spare(&name, devices);
        }
        for mut takeover in std::mem::take(&mut self.takeovers) {
            if !self.go_on(&mut takeover, devices) {
                self.takeovers.push(takeover);
            }
        }
        let wait = match (self.takeovers.is_empty(), watched) {
            (false, _) => INTERVAL,
            (true, true) => WATCH,
            (true, false) => return None,
        };
        Some(now + wait)
    }

    /// Chooses the spare that is to take the place of a member that is lost, if one is. Says whether
    /// there is a spare that could.
    fn choose_spare(&mut self, name: &str, devices: &Devices) -> bool {
        let array = &self.arrays[name];
        let (Some(volume), Some(kept)) = (&array.volume, &array.kept) else {
            return false;
        };
        let status = volume.status();
        let is_lost = status.slots.iter().any(|slot| slot.name.is_none());
        let is_idle = status.in_sync && status.process.is_none() && !status.paused;
        let may_begin = |s: &&Spare| is_lost || (is_idle && s.replaces.is_some());
        let spares = || kept.spares.iter().filter(|s| !s.refused);
        let Some(spare) = spares().find(may_begin).cloned() else {
            return spares().next().is_some();
        };
        let is_served = self.takeovers.iter().any(|t| t.array == name);
        // What is in doubt would become wrong data on the spare.
        if is_served || status.doubtful || status.state == State::Offline {
            return true;
        }
        let replaces = spare.replaces.filter(|_| !is_lost);
        let replaces = replaces.and_then(|slot| status.slots.get(slot)?.name.clone());
        let bdev = devices.registry.get(&spare.device);
        let new = bdev
            .map_err(ControlError::from)
            .and_then(|bdev| newcomer::fresh(kept, &status, &bdev, Some(&spare)));
        let Some(kept) = self.kept_mut(name) else {
            return false;
        };
        match new {
            Ok(new) => {
                kept.spares.retain(|s| s.device != spare.device);
                self.takeovers.push(Takeover {
                    array: name.to_owned(),
                    device: spare.device.clone(),
                    new,
                    spare: Some(spare),
                    replaces,
                    ticket: None,
                });
            }
            Err(error) => {
                let device = &spare.device;
                tracing::error!("RAID volume {name}: spare {device} is of no use: {error}");
                for failed in &mut kept.spares {
                    failed.refused |= failed.device == *device;
                }
            }
        }
        true
    }

    /// Asks the volume to take a member, or sees what has become of that. Says whether it is over.
    fn go_on(&mut self, takeover: &mut Takeover, devices: &mut Devices) -> bool {
        let (name, device) = (&takeover.array, &takeover.device);
        let answer = match &takeover.ticket {
            Some(ticket) => match ticket.poll() {
                Some(answer) => answer,
                None => return false,
            },
            None => {
                let volume = self.started(name).ok();
                let bdev = devices.registry.get(device).ok();
                let (Some(volume), Some(bdev)) = (volume, bdev) else {
                    release(name, device, devices);
                    return true;
                };
                let new = Some(takeover.new.clone());
                let asked = match &takeover.replaces {
                    Some(member) => volume.replace_member(member, bdev, new),
                    None => volume.add_member(bdev, new),
                };
                match asked {
                    Ok(ticket) => {
                        takeover.ticket = Some(ticket);
                        return false;
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match answer {
            Ok(()) if takeover.replaces.is_some() => {
                tracing::info!("RAID volume {name}: the replacement by {device} goes on");
                if let Some(array) = self.arrays.get_mut(name) {
                    array.replacing = Some(device.clone());
                }
            }
            Ok(()) if takeover.spare.is_some() => {
                tracing::warn!(
                    "RAID volume {name}: spare {device} takes the place of a lost member"
                );
            }
            Ok(()) => {}
            // The loss may not be over yet.
            Err(VolumeError::Changing) => {
                takeover.ticket = None;
                return false;
            }
            Err(error) => {
                let spare = takeover.spare.take();
                let needless = error == VolumeError::NoFreeSlot || takeover.replaces.is_some();
                let kept = self.kept_mut(name);
                match (spare, kept) {
                    // Somebody else was faster.
                    (Some(spare), Some(kept)) if needless => kept.spares.insert(0, spare),
                    (_, kept) => {
                        tracing::error!("RAID volume {name}: {device} is of no use: {error}");
                        if let Some(kept) = kept {
                            kept.rejected.push((device.clone(), error.to_string()));
                        }
                        release(name, device, devices);
                    }
                }
            }
        }
        true
    }
}
