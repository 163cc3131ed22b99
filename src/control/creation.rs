//! New arrays that keep their state on their members.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::ControlError;
use super::array::{Array, ArrayOptions, MISSING};
use super::arrays::{Arrays, Place};
use super::devices::Devices;
use super::disk::MemberDisk;
use super::kept::{Kept, Spare};
use super::newcomer;
use crate::bdev::{Bdev, Claim};
use crate::md::{
    AreaError, CreateError, Created, MemberError, NewArray, NewDevice, NewPolicy, ReplayError,
    SECTOR, SetName, Time, create,
};
use crate::raid::{Assembled, Volume, VolumeError};

/// What a new array is to keep on its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMetadata {
    /// How it is to learn after a crash where parity may be wrong; with a bitmap, if not given.
    pub policy: Option<NewPolicy>,
    /// Whether parity is right already: the members hold zeros, or an array of this shape.
    pub assume_clean: bool,
    /// Devices that are to wait until they are used.
    pub spares: Vec<String>,
    /// Whether what the devices hold of other arrays may be overwritten.
    pub force: bool,
}

/// A new array, of which nothing is written yet.
struct Plan {
    members: Vec<Option<Arc<dyn Bdev>>>,
    spares: Vec<Arc<dyn Bdev>>,
    created: Created,
    assembled: Assembled,
}

impl Arrays {
    /// Makes an array of devices that are all there, except for one perhaps that is called
    /// [`MISSING`], writes to them what makes them its members, and starts it. Returns its volume: it
    /// still has to be opened on every reactor.
    ///
    /// # Errors
    /// [`ControlError`]; then the devices are no members of it.
    pub fn create_kept(
        &mut self,
        options: ArrayOptions,
        new: &NewMetadata,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Arc<Volume>, ControlError> {
        let name = options.name.clone();
        if place.wakers.is_empty() {
            return Err(ControlError::NoReactors);
        }
        let plan = self.plan(&options, new, devices)?;
        let all: Vec<_> = plan.members.iter().flatten().chain(&plan.spares).collect();
        for bdev in &all {
            let device = &bdev.info().name;
            self.take_from_waiting(device, devices);
            devices.registry.claim(device, &name)?;
        }
        self.arrays.insert(name.clone(), plan.array(options));
        let superblocks = plan.created.superblocks.iter().enumerate();
        let numbers = superblocks.filter(|(_, s)| s.is_some()).map(|(n, _)| n);
        let mut written = sync_first_stripe(&plan);
        for (number, bdev) in numbers.zip(all) {
            written = written.and_then(|()| write(&plan.created, number, bdev));
        }
        let Plan {
            members, assembled, ..
        } = plan;
        let launched =
            written.and_then(|()| self.launch(&name, members, Some(assembled), devices, place));
        if launched.is_err() {
            self.undo(&name, devices);
        }
        launched
    }

    /// What is to be made of which devices, if that can be.
    fn plan(
        &self,
        options: &ArrayOptions,
        new: &NewMetadata,
        devices: &Devices,
    ) -> Result<Plan, ControlError> {
        options.check()?;
        let name = &options.name;
        self.check_name(name, devices)?;
        let invalid =
            |reason: String| ControlError::Invalid(format!("RAID volume {name}: {reason}"));
        let set_name = SetName::new(name).map_err(|e| invalid(e.to_string()))?;
        for (at, spare) in new.spares.iter().enumerate() {
            if options.members.contains(spare) || new.spares[..at].contains(spare) {
                let reason = format!("{spare} is named twice; each device can be used once");
                return Err(invalid(reason));
            }
        }
        let mut members = Vec::new();
        for member in &options.members {
            members.push(match member.as_str() {
                MISSING => None,
                device => Some(self.look_at_new(device, new.force, devices)?),
            });
        }
        let mut spares = Vec::new();
        for spare in &new.spares {
            spares.push(self.look_at_new(spare, new.force, devices)?);
        }
        let block = check_blocks(name, members.iter().flatten().chain(&spares))?;

        let device = |bdev: &Arc<dyn Bdev>| NewDevice {
            sectors: bdev.info().bytes() / SECTOR,
            uuid: Uuid::new_v4(),
        };
        let default = NewPolicy::Bitmap { chunk_bytes: None };
        let slots = members.iter().map(|m| m.as_ref().map(device)).collect();
        let set = options.uuid.unwrap_or_else(Uuid::new_v4);
        let now = Time::from_system(SystemTime::now());
        let created = create(&NewArray {
            chunk: options.strip_kb * 2,
            layout: options.layout as u32,
            policy: new.policy.unwrap_or(default),
            assume_clean: new.assume_clean,
            spares: spares.iter().map(device).collect(),
            ..NewArray::new(set, set_name, now, slots)
        });
        let created = created.map_err(|error| match error {
            CreateError::Placement { device, error } => {
                let mut all = options.members.iter().chain(&new.spares);
                let device = all.nth(device).map_or("a device", String::as_str);
                invalid(format!("{device}: {error}"))
            }
            other => invalid(other.to_string()),
        })?;
        let assembled = Assembled::new(&created, block).map_err(|source| ControlError::Shape {
            name: name.clone(),
            source,
        })?;
        Ok(Plan {
            members,
            spares,
            created,
            assembled,
        })
    }

    /// Undoes the making of an array that could not be started.
    pub(super) fn undo(&mut self, name: &str, devices: &mut Devices) {
        let members = self.devices_of(name);
        self.forget(name, devices);
        if let Err(error) = newcomer::clear_all(&members, devices) {
            tracing::warn!("RAID volume {name} was not made, but: {error}");
        }
    }

    /// A device that is to become a member: nothing may use it, and it may hold nothing of an array,
    /// unless `force`.
    fn look_at_new(
        &self,
        device: &str,
        force: bool,
        devices: &Devices,
    ) -> Result<Arc<dyn Bdev>, ControlError> {
        let bdev = devices.registry.get(device)?;
        if self.waits_with(device, devices).is_none() {
            devices.registry.check_free(device)?;
        }
        match newcomer::read(&bdev) {
            Err(MemberError::None) => Ok(bdev),
            Err(MemberError::Superblock(_) | MemberError::Placement(_)) | Ok(_) if force => {
                Ok(bdev)
            }
            Ok(member) => Err(newcomer::holds(&bdev, &member.superblock)),
            Err(source) => Err(ControlError::Member {
                device: device.to_owned(),
                source,
            }),
        }
    }

    /// The array that is not started and holds a device because of what the device says.
    pub(super) fn waits_with(&self, device: &str, devices: &Devices) -> Option<&str> {
        let Some(Claim::Bdev(holder)) = devices.registry.claim_of(device) else {
            return None;
        };
        let (name, array) = self.arrays.get_key_value(holder)?;
        let waits = array.volume.is_none() && array.kept.is_some();
        waits.then_some(name)
    }

    /// Takes a device from the array that waits with it, if one does.
    pub(super) fn take_from_waiting(&mut self, device: &str, devices: &mut Devices) {
        if self.waits_with(device, devices).is_some()
            && let Err(error) = self.remove_member(device, devices)
        {
            tracing::warn!("{error}");
        }
    }
}

impl Plan {
    /// The array, as it is before it is started.
    fn array(&self, options: ArrayOptions) -> Array {
        let superblocks = &self.created.superblocks;
        let any = superblocks.iter().flatten().next();
        let any = any.expect("a plan has devices");
        let spares = superblocks.iter().skip(self.members.len()).flatten();
        let spares = self.spares.iter().zip(spares);
        let name = |m: &Option<Arc<dyn Bdev>>| m.as_ref().map(|b| b.info().name.clone());
        Array {
            slots: self.members.iter().map(name).collect(),
            options: ArrayOptions {
                uuid: Some(any.set_uuid),
                ..options
            },
            volume: None,
            replacing: None,
            seen: None,
            kept: Some(Kept {
                asked_for: true,
                bitmap_chunk: self.created.bitmap.as_ref().map(|(h, _)| h.chunk_bytes),
                spares: spares.map(|(b, s)| Spare::new(&b.info().name, s)).collect(),
                ..Kept::new(any, Instant::now())
            }),
        }
    }
}

/// The block size of all devices, which must be one.
fn check_blocks<'a>(
    name: &str,
    devices: impl Iterator<Item = &'a Arc<dyn Bdev>> + Clone,
) -> Result<u32, ControlError> {
    let infos = devices.map(|b| b.info());
    let wanted = infos.clone().next().map_or(512, |i| i.block_size);
    match infos.clone().find(|i| i.block_size != wanted) {
        None => Ok(wanted),
        Some(odd) => Err(ControlError::Volume {
            name: name.to_owned(),
            source: VolumeError::MixedBlocks {
                name: odd.name.clone(),
                found: odd.block_size,
                wanted,
            },
        }),
    }
}

/// Does what an array needs that owes its first resync.
fn sync_first_stripe(plan: &Plan) -> Result<(), ControlError> {
    let mut disks = Vec::new();
    for member in &plan.members {
        let disk = member.as_ref().map(|bdev| {
            MemberDisk::open(bdev).map_err(|e| newcomer::unwritten(bdev, AreaError::from(e)))
        });
        disks.push(disk.transpose()?);
    }
    let synced = plan.created.sync_first_stripe(&mut disks);
    synced.map_err(|error| {
        let (slot, why) = match error {
            ReplayError::Disk { slot, error } => (slot, AreaError::from(error)),
            ReplayError::Area { slot, error } => (slot, error),
            ReplayError::Shape => return ControlError::Invalid(error.to_string()),
        };
        match plan.members.get(slot) {
            Some(Some(bdev)) => newcomer::unwritten(bdev, why),
            _ => ControlError::Invalid(why.to_string()),
        }
    })
}

/// Writes to a device what makes it a member.
fn write(created: &Created, number: usize, bdev: &Arc<dyn Bdev>) -> Result<(), ControlError> {
    let written = MemberDisk::open(bdev)
        .map_err(AreaError::from)
        .and_then(|mut disk| created.write(number, &mut disk));
    written.map_err(|source| newcomer::unwritten(bdev, source))?;
    match &created.superblocks[number] {
        Some(superblock) => newcomer::check_kept(bdev, superblock),
        None => Ok(()),
    }
}
