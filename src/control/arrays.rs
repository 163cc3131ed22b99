//! The RAID volumes: which devices each is to have, and since when it has them all.
//!
//! A volume is **configuring** until a device of each of its members' names is there; then it is
//! started, and from then on its own state counts. A member that it loses on its way is let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::ControlError;
use super::devices::{Devices, Kind};
use crate::bdev::{Bdev, Claim, RegistryError};
use crate::memory::Arena;
use crate::raid::{
    Batching, Geometry, Layout, Process, ProcessOptions, State, Status, Ticket, Volume,
    VolumeConfig, VolumeError,
};
use crate::reactor::Waker;

/// Chunk sizes that can be had, in KiB.
const STRIP_KB: std::ops::RangeInclusive<u32> = 4..=1024;

/// Numbers of members that can be had.
const MEMBERS: std::ops::RangeInclusive<usize> = 3..=64;

/// How a volume is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayOptions {
    /// Its name.
    pub name: String,
    /// Its identity; one that depends on its name and members if not given.
    pub uuid: Option<Uuid>,
    /// The RAID level as it was asked for: `raid5` or `raid5f`, which are the same.
    pub level: &'static str,
    /// Chunk in KiB.
    pub strip_kb: u32,
    /// Where parity goes.
    pub layout: Layout,
    /// The members by name, in the order of their slots.
    pub members: Vec<String>,
    /// Stripe in KiB; what a volume has by default if not given.
    pub stripe_kb: Option<u32>,
    /// Rows that follow one another with one owner; as by default if not given.
    pub shard_run: Option<u32>,
    /// How stripes are gathered and batched.
    pub batching: Batching,
}

/// How far a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayState {
    /// Waits for members.
    Configuring,
    /// Serves.
    Online,
    /// Has lost too many members.
    Offline,
}

impl ArrayState {
    /// SPDK's word.
    pub fn name(self) -> &'static str {
        match self {
            ArrayState::Configuring => "configuring",
            ArrayState::Online => "online",
            ArrayState::Offline => "offline",
        }
    }
}

/// A volume as it is now.
#[derive(Debug)]
pub struct ArrayInfo {
    /// How it was made; its members are those of the slots.
    pub options: ArrayOptions,
    /// How far it is.
    pub state: ArrayState,
    /// Its slots, in order.
    pub slots: Vec<SlotInfo>,
    /// The rebuild under way.
    pub process: Option<Process>,
    /// Blocks of a row, without parity.
    pub row_blocks: u64,
    /// Blocks of the volume, 0 while it is configuring.
    pub blocks: u64,
}

/// A slot of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Name of the member; none once it was removed or lost.
    pub name: Option<String>,
    /// Its identity, nil where it is not there.
    pub uuid: Uuid,
    /// Whether it is there and in use.
    pub is_configured: bool,
    /// Blocks of it that the volume uses.
    pub data_blocks: u64,
}

/// All volumes.
#[derive(Debug, Default)]
pub struct Arrays {
    arrays: BTreeMap<String, Array>,
    rebuild: ProcessOptions,
}

#[derive(Debug)]
struct Array {
    options: ArrayOptions,
    /// Name of the member of each slot, whether it is there or not.
    slots: Vec<Option<String>>,
    /// Once it is started.
    volume: Option<Arc<Volume>>,
}

/// A change of a volume's members that is under way.
#[derive(Debug)]
pub struct Change {
    array: String,
    member: String,
    what: What,
    ticket: Ticket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Add,
    Remove,
}

impl Change {
    /// The member that comes or goes.
    pub fn member(&self) -> &str {
        &self.member
    }
}

impl Arrays {
    /// Makes a volume of devices that may not be there yet. Returns it if they all are: it still
    /// has to be opened on every reactor.
    ///
    /// # Errors
    /// [`ControlError`]; nothing has changed then.
    pub fn create(
        &mut self,
        options: ArrayOptions,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Option<Arc<Volume>>, ControlError> {
        check(&options)?;
        let name = options.name.clone();
        if self.arrays.contains_key(&name) || devices.registry.get(&name).is_ok() {
            return Err(RegistryError::Exists(name).into());
        }
        for member in &options.members {
            if devices.registry.claim_of(member).is_some() {
                // Tells who holds it.
                devices.registry.claim(member, &name)?;
            }
        }
        let array = Array {
            slots: options.members.iter().cloned().map(Some).collect(),
            options,
            volume: None,
        };
        for member in array.slots.iter().flatten() {
            if devices.registry.get(member).is_ok() {
                devices.registry.claim(member, &name)?;
            }
        }
        let is_absent = |member: &&String| devices.registry.get(member).is_err();
        let absent: Vec<&String> = array.options.members.iter().filter(is_absent).collect();
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

    /// Whether a volume has this name, started or not.
    pub fn contains(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// Gives a new device to the volume that waits for it, if there is one. Returns the volume if
    /// it could be started with it.
    pub fn examine(
        &mut self,
        device: &str,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Option<Arc<Volume>> {
        let waits = |a: &Array| {
            a.volume.is_none() && a.slots.iter().flatten().any(|member| member == device)
        };
        let (name, _) = self.arrays.iter().find(|(_, array)| waits(array))?;
        let name = name.clone();
        devices.registry.claim(device, &name).ok()?;
        match self.start(&name, devices, place) {
            Ok(volume) => volume,
            Err(error) => {
                tracing::error!("RAID volume {name} has all members but cannot start: {error}");
                None
            }
        }
    }

    /// Starts a volume if all of its members are there.
    fn start(
        &mut self,
        name: &str,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Option<Arc<Volume>>, ControlError> {
        let array = self.arrays.get_mut(name).expect("the caller has found it");
        let mut members = Vec::with_capacity(array.slots.len());
        for slot in &array.slots {
            let Some(member) = slot else {
                return Ok(None);
            };
            let Ok(bdev) = devices.registry.get(member) else {
                return Ok(None);
            };
            members.push(Some(bdev));
        }
        if place.wakers.is_empty() {
            return Err(ControlError::NoReactors);
        }
        let uuids = members.iter().flatten().map(|m| m.info().uuid);
        let uuid = *array
            .options
            .uuid
            .get_or_insert_with(|| identity(name, uuids));
        let options = &array.options;
        let default = VolumeConfig::new(name, options.strip_kb * 1024);
        let stripe_bytes = options.stripe_kb.map(|kb| kb.saturating_mul(1024));
        let config = VolumeConfig {
            uuid: Some(uuid),
            layout: options.layout,
            pace: self.rebuild,
            batching: options.batching,
            stripe_bytes: stripe_bytes.unwrap_or(default.stripe_bytes),
            shard_run: options.shard_run.unwrap_or(default.shard_run),
            ..default
        };
        let refused = |source| ControlError::Volume {
            name: name.to_owned(),
            source,
        };
        let volume =
            Volume::new(config, members, None, place.wakers, place.arena).map_err(refused)?;
        devices.add(volume.clone(), Kind::Volume)?;
        array.volume = Some(volume.clone());
        Ok(Some(volume))
    }

    /// Has a volume that could not be opened wait again.
    pub fn unstart(&mut self, name: &str, devices: &mut Devices) {
        if let Some(array) = self.arrays.get_mut(name) {
            array.volume = None;
            if let Err(error) = devices.remove(name) {
                tracing::error!("{error}");
            }
        }
    }

    /// Forgets a volume, of which nothing must be open, and lets its members go.
    pub fn forget(&mut self, name: &str, devices: &mut Devices) {
        self.arrays.remove(name);
        release_all(name, devices);
    }

    /// Begins to put a device into the free slot of a volume. A volume that is configuring takes
    /// it at once, in place of a member that is not there, and is returned if it starts with it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_member(
        &mut self,
        name: &str,
        member: &str,
        devices: &mut Devices,
        place: &Place<'_>,
    ) -> Result<Addition, ControlError> {
        let array = self.arrays.get_mut(name);
        let array = array.ok_or_else(|| ControlError::NoVolume(name.to_owned()))?;
        let refused = |source| ControlError::Volume {
            name: name.to_owned(),
            source,
        };
        if let Some(volume) = &array.volume {
            let bdev = devices.registry.claim(member, name)?;
            let asked = volume.add_member(bdev, None).map_err(refused);
            return match asked {
                Ok(ticket) => Ok(Addition::UnderWay(Change {
                    array: name.to_owned(),
                    member: member.to_owned(),
                    what: What::Add,
                    ticket,
                })),
                Err(error) => {
                    devices.registry.release(member);
                    Err(error)
                }
            };
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

    /// Begins to take a member out of its volume. A volume that is configuring lets it go at once.
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
            member: member.to_owned(),
            what: What::Remove,
            ticket,
        }))
    }

    /// Whether a change has come to its end, and how.
    pub fn poll_change(
        &mut self,
        change: &Change,
        devices: &mut Devices,
    ) -> Option<Result<(), ControlError>> {
        let answer = change.ticket.poll()?;
        let gone = match (change.what, &answer) {
            (What::Add, Ok(())) => false,
            (What::Remove, Err(_)) => false,
            (What::Add, Err(_)) | (What::Remove, Ok(())) => true,
        };
        if gone {
            devices.registry.release(&change.member);
        }
        self.reconcile(devices);
        Some(answer.map_err(|source| ControlError::Volume {
            name: change.array.clone(),
            source,
        }))
    }

    /// Lets go of members that volumes have lost.
    pub fn reconcile(&mut self, devices: &mut Devices) {
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
                    let held = Claim::Bdev(name.clone());
                    if devices.registry.claim_of(&lost) == Some(&held) {
                        devices.registry.release(&lost);
                    }
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
}

/// What became of a device that was to become a member.
#[derive(Debug)]
pub enum Addition {
    /// It is one. Here is the volume if it was started thereby; it still has to be opened on
    /// every reactor.
    Done(Option<Arc<Volume>>),
    /// The volume has been asked.
    UnderWay(Change),
}

/// Where volumes run.
#[derive(Debug)]
pub struct Place<'a> {
    /// The wakers of all reactors.
    pub wakers: &'a [Waker],
    /// Where stripes are kept.
    pub arena: &'a Arena,
}

impl Array {
    fn info(&self, devices: &Devices) -> ArrayInfo {
        let volume = self.volume.as_ref();
        let status = volume.map(|v| v.status());
        let blocks_of = |bytes: u64| match volume {
            Some(volume) => bytes / u64::from(volume.info().block_size),
            None => 0,
        };
        let geometry: Option<&Geometry> = volume.map(|v| v.geometry());
        let data_blocks = geometry.map_or(0, |g| blocks_of(g.member_bytes()));
        let slots = self.slots.iter().map(|name| {
            let bdev = name.as_deref().and_then(|n| devices.registry.get(n).ok());
            SlotInfo {
                name: name.clone(),
                uuid: bdev.as_ref().map_or(Uuid::nil(), |b| b.info().uuid),
                is_configured: bdev.is_some(),
                data_blocks: if bdev.is_some() { data_blocks } else { 0 },
            }
        });
        ArrayInfo {
            options: self.options.clone(),
            state: match &status {
                None => ArrayState::Configuring,
                Some(Status {
                    state: State::Online,
                    ..
                }) => ArrayState::Online,
                Some(_) => ArrayState::Offline,
            },
            slots: slots.collect(),
            process: status.and_then(|s| s.process),
            row_blocks: geometry.map_or(0, |g| blocks_of(g.row_bytes())),
            blocks: volume.map_or(0, |v| v.info().blocks),
        }
    }
}

/// Checks what a volume is described by.
fn check(options: &ArrayOptions) -> Result<(), ControlError> {
    let ArrayOptions {
        name,
        strip_kb,
        members,
        ..
    } = options;
    let invalid = |reason: String| Err(ControlError::Invalid(reason));
    if name.is_empty() {
        return invalid("a RAID volume needs a name; give one that is not empty".into());
    }
    if !strip_kb.is_power_of_two() || !STRIP_KB.contains(strip_kb) {
        return invalid(format!(
            "RAID volume {name}: strip_size_kb is {strip_kb}; it must be a power of two from {} to {}, such as 64",
            STRIP_KB.start(),
            STRIP_KB.end()
        ));
    }
    if !MEMBERS.contains(&members.len()) {
        return invalid(format!(
            "RAID volume {name}: {} base_bdevs make no RAID5; give {} to {}",
            members.len(),
            MEMBERS.start(),
            MEMBERS.end()
        ));
    }
    for (slot, member) in members.iter().enumerate() {
        if member.is_empty() {
            return invalid(format!(
                "RAID volume {name}: the name of base bdev {slot} is empty"
            ));
        }
        if members[..slot].contains(member) {
            return invalid(format!(
                "RAID volume {name}: base bdev {member} is named twice; each slot needs a device of its own"
            ));
        }
        if member == name {
            return invalid(format!("RAID volume {name} cannot be a member of itself"));
        }
    }
    Ok(())
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
