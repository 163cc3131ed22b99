//! Arrays that come back by themselves: devices that say that they belong together are gathered,
//! and the array is started once all of its members are there, or enough of them for long enough.
//!
//! Who belongs to it and in which state it is, md decides (`md::assemble`). Here it is decided when
//! to ask, and done what follows: devices are held for the array, metadata is put right, and the
//! volume made.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::ControlError;
use super::array::{Array, ArrayOptions, MISSING, Tuning};
use super::arrays::{Arrays, Place, release};
use super::devices::Devices;
use super::kept::{Kept, Spare};
use super::newcomer;
use super::recovery::recover;
use crate::bdev::Bdev;
use crate::md::{self, Assembly, Found, Member, Role, SECTOR, Superblock};
use crate::raid::{Assembled, Layout, Volume};

/// What is enough for an array to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    /// Every member that it had when it was stopped.
    Whole,
    /// All but one.
    Degraded,
    /// All but one, whatever state they are in.
    Forced,
}

impl Arrays {
    /// A device came that says that it belongs to an array of ours. Returns the array's volume if it
    /// is started thereby: it still has to be opened on every reactor.
    ///
    /// # Errors
    /// Why the device is not used.
    pub(super) fn gather(
        &mut self,
        device: &str,
        member: Member,
        devices: &mut Devices,
        place: &Place<'_>,
        now: Instant,
    ) -> Result<Option<Arc<Volume>>, ControlError> {
        let name = self.volume_of(&member.superblock, devices, now);
        if self.arrays[&name].volume.is_some() {
            self.welcome(&name, device, member, devices)?;
            return Ok(None);
        }
        if let Err(error) = devices.registry.claim(device, &name) {
            self.forget_if_empty(&name, devices);
            return Err(error.into());
        }
        if let Some(kept) = self.kept_mut(&name) {
            kept.find(device, member, now);
        }
        match self.assemble(&name, Enough::Whole, devices, place) {
            Ok(volume) => Ok(Some(volume)),
            Err(error) => {
                tracing::info!("{error}");
                Ok(None)
            }
        }
    }

    /// The name of the volume of the array that a superblock belongs to. If none of its devices was
    /// there before, it begins to wait for the others.
    pub(super) fn volume_of(
        &mut self,
        superblock: &Superblock,
        devices: &Devices,
        now: Instant,
    ) -> String {
        if let Some(name) = self.of_set(&superblock.set_uuid) {
            return name.to_owned();
        }
        let short = superblock.set_uuid.simple().to_string()[..8].to_owned();
        let own = superblock.set_name.without_host();
        let names = [
            own.clone(),
            format!("{own}_{short}"),
            format!("{own}_{}", superblock.set_uuid),
        ];
        let free = |name: &String| !name.is_empty() && self.check_name(name, devices).is_ok();
        let name = names.into_iter().find(free);
        let name = name.unwrap_or_else(|| format!("md_{}", superblock.set_uuid));
        let array = Array {
            options: options(&name, superblock),
            slots: vec![None; superblock.raid_disks as usize],
            volume: None,
            replacing: None,
            kept: Some(Kept::new(superblock, now)),
            seen: None,
        };
        tracing::info!(
            "RAID volume {name}: the first device of array {} ({}) is there",
            superblock.set_name,
            superblock.set_uuid
        );
        self.arrays.insert(name.clone(), array);
        name
    }

    /// The name of the volume of an array, started or not.
    pub(super) fn of_set(&self, set: &Uuid) -> Option<&str> {
        let is_it = |a: &Array| a.kept.as_ref().is_some_and(|k| k.set == *set);
        let found = self.arrays.iter().find(|(_, array)| is_it(array));
        found.map(|(name, _)| name.as_str())
    }

    pub(super) fn kept_mut(&mut self, name: &str) -> Option<&mut Kept> {
        self.arrays.get_mut(name)?.kept.as_mut()
    }

    /// Forgets an array that nobody has asked for and of which nothing is there.
    fn forget_if_empty(&mut self, name: &str, devices: &mut Devices) {
        let kept = self.kept_mut(name);
        if kept.is_some_and(|k| k.found.is_empty() && !k.asked_for) {
            self.forget(name, devices);
        }
    }

    /// Starts an array whose devices were gathered, if there is enough of it. Until the volume is
    /// open on every reactor, see [`Arrays::opened`], nothing that is known of it is let go.
    ///
    /// # Errors
    /// [`ControlError::NotStarted`] with the reason, which is kept and shown.
    pub(super) fn assemble(
        &mut self,
        name: &str,
        enough: Enough,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Arc<Volume>, ControlError> {
        let started = self.try_assemble(name, enough, devices, place);
        started.map_err(|reason| {
            if let Some(kept) = self.kept_mut(name) {
                kept.reason = Some(reason.clone());
            }
            ControlError::NotStarted {
                name: name.to_owned(),
                reason,
            }
        })
    }

    fn try_assemble(
        &mut self,
        name: &str,
        enough: Enough,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Arc<Volume>, String> {
        let wait = self.degraded_start_wait.as_secs();
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| format!("there is no volume {name}"))?;
        let kept = array.kept.as_mut().ok_or("its members have no metadata")?;
        let found = kept.all_found();
        let assembly = md::assemble(kept.set, &found, enough == Enough::Forced);
        let assembly = assembly.map_err(|e| e.to_string())?;
        let sb = &assembly.superblock;
        kept.rejected
            .retain(|(device, _)| !kept.found.contains_key(device));
        for (at, why) in &assembly.rejected {
            kept.rejected
                .push((found[*at].name.clone(), why.to_string()));
        }
        kept.policy = sb.policy;
        let seats = assembly.slots.iter();
        array.slots = seats
            .map(|s| Some(found[(*s)?.found].name.clone()))
            .collect();
        array.options = ArrayOptions {
            tuning: array.options.tuning,
            members: array.slots.iter().map(name_or_missing).collect(),
            ..options(name, sb)
        };
        let numbers = assembly.slots.iter().map(|seat| {
            let seat = seat.as_ref()?;
            Some(found[seat.found].member.superblock.dev_number)
        });
        // Another one may be in its slot that the array had gone on without.
        let expected = sb.slots().into_iter().zip(numbers).enumerate();
        let is_known = |slot: usize, number: Option<u32>| {
            number.is_some_and(|n| sb.role_of(n) == Role::Slot(slot as u16))
        };
        let absent: BTreeSet<usize> = expected
            .filter(|&(slot, (wanted, is))| wanted.is_some() && !is_known(slot, is))
            .map(|(slot, _)| slot)
            .collect();
        if enough == Enough::Whole && !absent.is_empty() {
            return Err(format!(
                "waits for the member of slot {}; it is started without it {wait} seconds after the last \
                 device came, or by bdev_raid_assemble",
                list(&absent)
            ));
        }
        let force = enough == Enough::Forced;
        self.engage(name, assembly, found, force, devices, place)
    }

    /// Makes the volume of an array that can be started.
    fn engage(
        &mut self,
        name: &str,
        mut assembly: Assembly,
        mut found: Vec<Found>,
        force: bool,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Arc<Volume>, String> {
        let mut members: Vec<Option<Arc<dyn Bdev>>> = Vec::new();
        for seat in &assembly.slots {
            let device = seat.map(|seat| devices.registry.get(&found[seat.found].name));
            members.push(device.transpose().map_err(|e| e.to_string())?);
        }
        if let Err((slot, error)) = recover(&mut assembly, &mut found, &members, force) {
            let Some(slot) = slot else {
                return Err(error);
            };
            if let Some(bdev) = &members[slot] {
                self.give_up(name, &bdev.info().name, &error, devices);
            }
            return Err(format!("slot {slot}: {error}"));
        }
        let assembled = Assembled::of(&assembly, &found).map_err(|e| e.to_string())?;
        let volume = self
            .launch(name, members, Some(assembled), devices, place)
            .map_err(|e| e.to_string())?;
        if let Some(kept) = self.kept_mut(name) {
            kept.bitmap_chunk = assembly.bitmap.as_ref().map(|(h, _)| h.chunk_bytes);
            let spare = |&at: &usize| Spare::new(&found[at].name, &found[at].member.superblock);
            kept.spares = assembly.spares.iter().map(spare).collect();
            // It goes on from the beginning: what was written when the array stopped may be on one of
            // the two only.
            kept.spares
                .extend(assembly.replacement.map(|(at, slot)| Spare {
                    replaces: Some(slot),
                    ..spare(&at)
                }));
            kept.freshest = Some(assembly.superblock);
            kept.reason = None;
        }
        Ok(volume)
    }

    /// A device of an array that is not started turns out to be of no use.
    fn give_up(&mut self, name: &str, device: &str, reason: &str, devices: &mut Devices) {
        if let Some(kept) = self.kept_mut(name) {
            kept.lose(device);
            kept.rejected.push((device.to_owned(), reason.to_owned()));
            // What is left may be enough.
            kept.tried = false;
        }
        release(name, device, devices);
        tracing::error!("RAID volume {name}: {device} is not used: {reason}");
    }

    /// Every reactor has opened the volume of an array: it goes on by itself, and devices that it
    /// does not use are let go.
    pub(super) fn opened(&mut self, name: &str, devices: &mut Devices) {
        let Some(array) = self.arrays.get_mut(name) else {
            return;
        };
        let Some(kept) = &mut array.kept else {
            return;
        };
        kept.found.clear();
        let members = array.slots.iter().flatten().map(String::as_str);
        tracing::info!(
            "RAID volume {name}: array {} ({}) of {}",
            kept.name,
            kept.set,
            members.collect::<Vec<_>>().join(", ")
        );
        for (device, reason) in &kept.rejected {
            tracing::warn!("RAID volume {name}: {device} is not used: it {reason}");
            release(name, device, devices);
        }
    }

    /// Starts what has waited long enough for a member that does not come. Returns what was started:
    /// it still has to be opened on every reactor.
    pub(super) fn start_degraded(
        &mut self,
        devices: &mut Devices,
        place: &Place<'_>,
        now: Instant,
    ) -> Vec<Arc<Volume>> {
        let wait = self.degraded_start_wait;
        let is_due = |a: &Array| a.waits_until(wait).is_some_and(|until| until <= now);
        let due = self.arrays.iter().filter(|(_, a)| is_due(a));
        let names: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        let mut started = Vec::new();
        for name in names {
            if let Some(kept) = self.kept_mut(&name) {
                kept.tried = true;
            }
            match self.assemble(&name, Enough::Degraded, devices, place) {
                Ok(volume) => {
                    tracing::warn!("RAID volume {name} is started without a member");
                    started.push(volume);
                }
                Err(error) => tracing::error!("{error}"),
            }
        }
        started
    }

    /// When the next array has waited long enough for a member that does not come, if one waits; the
    /// array of this name, or any.
    pub fn next_degraded_start(&self, name: Option<&str>) -> Option<Instant> {
        let wait = self.degraded_start_wait;
        let arrays = self.arrays.iter();
        let asked = arrays.filter(|(own, _)| name.is_none_or(|name| name == *own));
        asked.filter_map(|(_, a)| a.waits_until(wait)).min()
    }
}

impl Array {
    /// Until when an array waits for members that are missing; `None` when it does not.
    fn waits_until(&self, wait: std::time::Duration) -> Option<Instant> {
        let kept = self
            .kept
            .as_ref()
            .filter(|k| !k.tried && !k.found.is_empty());
        kept.filter(|_| self.volume.is_none())
            .map(|k| k.came + wait)
    }
}

/// The options of an array as its members have it.
fn options(name: &str, superblock: &Superblock) -> ArrayOptions {
    ArrayOptions {
        name: name.to_owned(),
        uuid: Some(superblock.set_uuid),
        level: "raid5",
        strip_kb: (u64::from(superblock.chunk) * SECTOR / 1024) as u32,
        layout: Layout::ALL
            .get(superblock.layout as usize)
            .copied()
            .unwrap_or_default(),
        members: Vec::new(),
        tuning: Tuning::default(),
    }
}

fn name_or_missing(slot: &Option<String>) -> String {
    slot.clone().unwrap_or_else(|| MISSING.to_owned())
}

fn list(slots: &BTreeSet<usize>) -> String {
    let slots: Vec<String> = slots.iter().map(usize::to_string).collect();
    slots.join(", ")
}

/// What a device holds that may belong to an array of ours.
///
/// # Errors
/// [`ControlError::Member`]: what it holds cannot be used; [`ControlError::Unsupported`].
pub(super) fn examine(bdev: &Arc<dyn Bdev>) -> Result<Option<Member>, ControlError> {
    let device = || bdev.info().name.clone();
    match newcomer::read(bdev) {
        Ok(member) => match member.superblock.support() {
            Ok(()) => Ok(Some(member)),
            Err(source) => Err(ControlError::Unsupported {
                device: device(),
                array: member.superblock.set_name.to_string(),
                source,
            }),
        },
        Err(md::MemberError::None) => Ok(None),
        Err(source) => Err(ControlError::Member {
            device: device(),
            source,
        }),
    }
}
