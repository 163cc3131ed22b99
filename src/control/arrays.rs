//! The RAID volumes: which devices each is to have, and since when it has them all.
//!
//! A volume is **configuring** until a device of each of its members' names is there, or until
//! enough of the devices that say that they belong to it are; then it is started, and from then on
//! its own state counts. A member that it loses on its way is let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::ControlError;
use super::array::{Array, ArrayInfo, ArrayOptions, MISSING};
use super::devices::{Devices, Kind};
use super::spares::Takeover;
use super::volume_events::Seen;
use crate::bdev::{Bdev, Claim, RegistryError};
use crate::memory::Arena;
use crate::nvmf::VolumeEvent;
use crate::raid::{Assembled, ProcessOptions, Volume, VolumeConfig};
use crate::reactor::Waker;

/// How long an array waits for a member that does not come, since the last one came.
const DEGRADED_START_WAIT: Duration = Duration::from_secs(5);

/// All volumes.
#[derive(Debug)]
pub struct Arrays {
    pub(super) arrays: BTreeMap<String, Array>,
    rebuild: ProcessOptions,
    pub(super) degraded_start_wait: Duration,
    /// Members that come without anybody asking.
    pub(super) takeovers: Vec<Takeover>,
}

/// Where volumes run.
#[derive(Debug)]
pub struct Place<'a> {
    /// The wakers of all reactors.
    pub wakers: &'a [Waker],
    /// Where stripes are kept.
    pub arena: &'a Arena,
}

impl Default for Arrays {
    fn default() -> Self {
        Self {
            arrays: BTreeMap::new(),
            rebuild: ProcessOptions::default(),
            degraded_start_wait: DEGRADED_START_WAIT,
            takeovers: Vec::new(),
        }
    }
}

impl Arrays {
    /// Makes a volume without metadata of devices that may not be there yet. Returns it if they all
    /// are: it still has to be opened on every reactor. One member may be [`MISSING`] for good.
    ///
    /// # Errors
    /// [`ControlError`]; nothing has changed then.
    pub fn create(
        &mut self,
        options: ArrayOptions,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Option<Arc<Volume>>, ControlError> {
        options.check()?;
        let name = options.name.clone();
        self.check_name(&name, devices)?;
        if options.members.iter().filter(|m| *m == MISSING).count() > 1 {
            return Err(ControlError::Invalid(format!(
                "RAID volume {name}: more than one base bdev is {MISSING:?}; give devices for the others"
            )));
        }
        for member in &options.members {
            if devices.registry.claim_of(member).is_some() {
                // Tells who holds it.
                devices.registry.claim(member, &name)?;
            }
        }
        let array = Array {
            slots: options.members.iter().map(named).collect(),
            options,
            volume: None,
            replacing: None,
            kept: None,
            seen: None,
        };
        for member in array.slots.iter().flatten() {
            if devices.registry.get(member).is_ok() {
                devices.registry.claim(member, &name)?;
            }
        }
        let is_absent = |member: &&String| devices.registry.get(member).is_err();
        let members = array.slots.iter().flatten();
        let absent: Vec<&String> = members.filter(is_absent).collect();
        if !absent.is_empty() {
            tracing::warn!("RAID volume {name} waits for members that are not there: {absent:?}");
        }
        self.arrays.insert(name.clone(), array);
        let started = self.start(&name, devices, place);
        if started.is_err() {
            self.forget(&name, devices);
        }
        started
    }

    /// That nothing has this name yet.
    pub(super) fn check_name(&self, name: &str, devices: &Devices) -> Result<(), ControlError> {
        if self.arrays.contains_key(name) || devices.registry.get(name).is_ok() {
            return Err(RegistryError::Exists(name.to_owned()).into());
        }
        Ok(())
    }

    /// Whether a volume has this name, started or not.
    pub fn contains(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// Gives a new device to the volume that waits for one of its name, if there is one that does.
    /// Returns whether there is, and the volume if it could be started with it.
    pub fn examine(
        &mut self,
        device: &str,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Option<Option<Arc<Volume>>> {
        let waits = |a: &Array| {
            let named = a.volume.is_none() && a.kept.is_none();
            named && a.slots.iter().flatten().any(|member| member == device)
        };
        let (name, _) = self.arrays.iter().find(|(_, array)| waits(array))?;
        let name = name.clone();
        devices.registry.claim(device, &name).ok()?;
        Some(match self.start(&name, devices, place) {
            Ok(volume) => volume,
            Err(error) => {
                tracing::error!("RAID volume {name} has all members but cannot start: {error}");
                None
            }
        })
    }

    /// Starts a volume without metadata if all of its members are there.
    pub(super) fn start(
        &mut self,
        name: &str,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Option<Arc<Volume>>, ControlError> {
        let array = self.arrays.get_mut(name).expect("the caller has found it");
        let named = array.slots.iter().zip(&array.options.members);
        let members = named.map(|(slot, asked)| match slot {
            Some(member) => devices.registry.get(member).ok().map(Some),
            None => (asked == MISSING).then_some(None),
        });
        let Some(members) = members.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let uuids = members.iter().flatten().map(|m| m.info().uuid);
        let options = &mut array.options;
        options.uuid.get_or_insert_with(|| identity(name, uuids));
        let volume = self.launch(name, members, None, devices, place)?;
        Ok(Some(volume))
    }

    /// Makes the volume of an array, as its options say.
    pub(super) fn launch(
        &mut self,
        name: &str,
        members: Vec<Option<Arc<dyn Bdev>>>,
        assembled: Option<Assembled>,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Arc<Volume>, ControlError> {
        if place.wakers.is_empty() {
            return Err(ControlError::NoReactors);
        }
        let array = self.arrays.get_mut(name).expect("the caller has found it");
        let options = &array.options;
        let default = VolumeConfig::new(name, options.strip_kb.saturating_mul(1024));
        let tuning = &options.tuning;
        let stripe_bytes = tuning.stripe_kb.map(|kb| kb.saturating_mul(1024));
        let config = VolumeConfig {
            uuid: options.uuid,
            layout: options.layout,
            pace: self.rebuild,
            batching: tuning.batching,
            stripe_bytes: stripe_bytes.unwrap_or(default.stripe_bytes),
            shard_run: tuning.shard_run.unwrap_or(default.shard_run),
            ..default
        };
        let refused = |source| ControlError::Volume {
            name: name.to_owned(),
            source,
        };
        let volume =
            Volume::new(config, members, assembled, place.wakers, place.arena).map_err(refused)?;
        devices.add(volume.clone(), Kind::Volume)?;
        array.volume = Some(volume.clone());
        Ok(volume)
    }

    /// Has a volume that could not be opened wait again.
    pub fn unstart(&mut self, name: &str, devices: &mut Devices) {
        if let Some(array) = self.arrays.get_mut(name) {
            array.volume = None;
            if let Some(kept) = &mut array.kept {
                kept.reason = Some("not every reactor could open it; the log says why".to_owned());
            }
            if let Err(error) = devices.remove(name) {
                tracing::error!("{error}");
            }
        }
    }

    /// Forgets a volume, of which nothing must be open, and lets its members go.
    pub fn forget(&mut self, name: &str, devices: &mut Devices) {
        self.arrays.remove(name);
        self.takeovers.retain(|t| t.array != name);
        release_all(name, devices);
    }

    /// What has happened to started volumes since this was last asked: the volume, and words for people.
    pub fn news(&mut self) -> Vec<(String, VolumeEvent, String)> {
        let mut news = Vec::new();
        for (name, array) in &mut self.arrays {
            let Some(volume) = &array.volume else {
                array.seen = None;
                continue;
            };
            let seen = Seen::of(&volume.status());
            if let Some(before) = &array.seen {
                let since = seen.since(before, name).into_iter();
                news.extend(since.map(|(event, words)| (name.clone(), event, words)));
            }
            array.seen = Some(seen);
        }
        news
    }

    /// Lets go of members that volumes have lost.
    pub fn reconcile(&mut self, devices: &mut Devices) {
        self.reconcile_replacements(devices);
        for (name, array) in &mut self.arrays {
            let Some(volume) = &array.volume else {
                continue;
            };
            for (slot, now) in array.slots.iter_mut().zip(volume.status().slots) {
                if *slot == now.name {
                    continue;
                }
                if let Some(lost) = slot.take() {
                    tracing::warn!("RAID volume {name}: member {lost} is out");
                    release(name, &lost, devices);
                }
                *slot = now.name;
            }
        }
    }

    /// Has the members of every started volume say that it is clean, now that nobody writes to it
    /// any more. Says whether all of them do within `patience`.
    pub fn close(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let started = self
            .arrays
            .iter()
            .filter_map(|(name, array)| Some((name, array.volume.as_ref()?)));
        let closing: Vec<_> = started.map(|(name, v)| (name, v.close())).collect();
        let mut all = true;
        for (name, asked) in closing {
            let left = until.saturating_duration_since(Instant::now());
            if let Err(error) = asked.and_then(|ticket| ticket.wait(left)) {
                tracing::error!(
                    "RAID volume {name}: its members do not say that it is clean: {error}; the \
                     next start makes parity match again"
                );
                all = false;
            }
        }
        all
    }

    /// Rebuilds at this pace from now on, in every volume.
    ///
    /// # Errors
    /// [`ControlError::Volume`].
    pub fn set_rebuild(&mut self, rebuild: ProcessOptions) -> Result<(), ControlError> {
        self.rebuild = rebuild;
        for (name, array) in &self.arrays {
            if let Some(volume) = &array.volume {
                volume
                    .set_pace(rebuild)
                    .map_err(|source| ControlError::Volume {
                        name: name.clone(),
                        source,
                    })?;
            }
        }
        Ok(())
    }

    /// The pace of rebuilds.
    pub fn rebuild(&self) -> ProcessOptions {
        self.rebuild
    }

    /// How long an array waits for a member that does not come before it is started without it,
    /// counted from when the last one came.
    pub fn set_degraded_start_wait(&mut self, wait: Duration) {
        self.degraded_start_wait = wait;
    }

    /// How long an array waits for a member that does not come.
    pub fn degraded_start_wait(&self) -> Duration {
        self.degraded_start_wait
    }

    /// Whether a volume keeps its state on its members.
    pub fn is_kept(&self, name: &str) -> bool {
        self.arrays.get(name).is_some_and(|a| a.kept.is_some())
    }

    /// All devices of a volume: members, those that wait to be used, and those found so far.
    pub fn devices_of(&self, name: &str) -> Vec<String> {
        self.arrays.get(name).map_or_else(Vec::new, Array::devices)
    }

    /// All volumes as they are now, by name.
    pub fn infos(&self, devices: &Devices) -> Vec<ArrayInfo> {
        self.arrays.values().map(|a| a.info(devices)).collect()
    }

    /// One volume as it is now.
    pub fn info(&self, name: &str, devices: &Devices) -> Option<ArrayInfo> {
        self.arrays.get(name).map(|a| a.info(devices))
    }

    /// The volume of this name, if it is started.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`].
    pub fn volume(&self, name: &str) -> Result<Option<Arc<Volume>>, ControlError> {
        let array = self.arrays.get(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.to_owned()))?;
        Ok(array.volume.clone())
    }

    /// The volume of this name, which must be started.
    pub(super) fn started(&self, name: &str) -> Result<Arc<Volume>, ControlError> {
        self.volume(name)?.ok_or_else(|| {
            let array = &self.arrays[name];
            let kept = array.kept.as_ref();
            let reason = kept.and_then(|kept| kept.reason.clone());
            ControlError::NotStarted {
                name: name.to_owned(),
                reason: reason.unwrap_or_else(|| "waits for its members".to_owned()),
            }
        })
    }
}

/// Lets go of a device that is held for `holder`.
pub(super) fn release(holder: &str, device: &str, devices: &mut Devices) {
    let held = Claim::Bdev(holder.to_owned());
    if devices.registry.claim_of(device) == Some(&held) {
        devices.registry.release(device);
    }
}

/// Lets go of everything that is held for `holder`.
fn release_all(holder: &str, devices: &mut Devices) {
    let held = Claim::Bdev(holder.to_owned());
    let all = devices.registry.iter();
    let members: Vec<String> = all
        .filter(|(_, claim)| *claim == Some(&held))
        .map(|(bdev, _)| bdev.info().name.clone())
        .collect();
    for member in members {
        devices.registry.release(&member);
    }
}

/// Who is to be in a slot, if anybody.
fn named(member: &String) -> Option<String> {
    (member != MISSING).then(|| member.clone())
}

/// An identity that is the same whenever this machine makes this volume of the same members, so
/// that hosts recognise it after a restart. Members whose data does not survive one have another
/// identity each time, and then so has the volume.
fn identity(name: &str, members: impl Iterator<Item = Uuid>) -> Uuid {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = Uuid::new_v5(&Uuid::NAMESPACE_OID, machine.trim().as_bytes());
    members.fold(Uuid::new_v5(&machine, name.as_bytes()), |so_far, member| {
        Uuid::new_v5(&so_far, member.as_bytes())
    })
}
