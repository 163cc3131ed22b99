//! Everything there is, in one place, owned by one thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ControlError;
use super::arrays::{Addition, ArrayOptions, Arrays, Change, Place};
use super::devices::{Devices, Kind};
use super::log::LogSwitch;
use super::start::Machine;
use crate::bdev::{Bdev, Claim, IoStat, RegistryError};
use crate::memory::Arena;
use crate::nvmf::Target;
use crate::raid::Volume;
use crate::reactor::{ReactorId, Reactors, Waker};

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Options may be set; nothing is served.
    Startup,
    /// The rest may be done.
    Runtime,
}

/// The devices, volumes, target and reactors of the process.
#[derive(Debug)]
pub struct System {
    /// All devices.
    pub devices: Devices,
    /// All RAID volumes.
    pub arrays: Arrays,
    /// The NVMe-oF target.
    pub target: Target,
    /// The reactors; none in tools that do no I/O.
    pub reactors: Option<Reactors>,
    /// Where payload and stripes are kept.
    pub arena: Arena,
    /// How much is logged.
    pub log: LogSwitch,
    started: Instant,
    phase: Phase,
}

/// What went through a device on one reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCounts {
    /// The device.
    pub device: String,
    /// The reactor.
    pub reactor: ReactorId,
    /// The counts.
    pub stat: IoStat,
}

/// What became of a device that was to be deleted.
#[derive(Debug)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// The volume that it is a member of has been asked to do without it.
    UnderWay(Change),
}

impl System {
    /// A system with nothing in it.
    pub fn new(machine: Machine, arena: Arena, log: LogSwitch) -> Self {
        Self {
            devices: Devices::default(),
            arrays: Arrays::default(),
            target: machine.target,
            reactors: machine.reactors,
            arena,
            log,
            started: Instant::now(),
            phase: Phase::Startup,
        }
    }

    /// How far the start has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The start is complete.
    pub fn finish_startup(&mut self) {
        self.phase = Phase::Runtime;
    }

    /// Moves everything on that needs no call. Returns when it wants to be asked again at the
    /// latest.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        self.arrays.reconcile(&mut self.devices);
        self.target.poll(now)
    }

    /// Nanoseconds since the start: the clock of everything that is counted in ticks.
    pub fn ticks(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Ends everything: hosts' commands are given `patience` to end, then volumes close, the
    /// reactors leave, and what file members hold is made durable. Says whether everything came to
    /// a good end.
    pub fn stop(self, patience: Duration) -> bool {
        let machine = Machine {
            target: self.target,
            reactors: self.reactors,
        };
        let arrays = self.arrays;
        let clean = machine.stop(patience, || arrays.close(CLOSE_PATIENCE));
        let mut synced = true;
        for path in self.devices.files() {
            let done = File::open(path).and_then(|file| file.sync_all());
            if let Err(error) = done {
                tracing::error!("{}: cannot be made durable: {error}", path.display());
                synced = false;
            }
        }
        clean && synced
    }

    /// What went through each device on each reactor since the start.
    pub fn iostat(&mut self) -> Vec<DeviceCounts> {
        let reactors = self.reactors.as_ref().map(Reactors::ids);
        let ids: BTreeMap<String, ReactorId> = reactors
            .into_iter()
            .flatten()
            .map(|id| (id.to_string(), id))
            .collect();
        let groups = self.target.stats();
        let counts = groups.into_iter().filter_map(|group| {
            let reactor = *ids.get(&group.name)?;
            let devices = group.devices.into_iter();
            Some(devices.map(move |(device, stat)| DeviceCounts {
                device,
                reactor,
                stat,
            }))
        });
        counts.flatten().collect()
    }

    /// Adds a device, and starts the volume that waited for it.
    ///
    /// # Errors
    /// [`RegistryError::Exists`].
    pub fn add_device(&mut self, bdev: Arc<dyn Bdev>, kind: Kind) -> Result<(), ControlError> {
        let name = bdev.info().name.clone();
        self.check_free(&name)?;
        self.devices.add(bdev, kind)?;
        self.examine(&name)
    }

    /// Adds the device that `make` makes on top of `base`, and starts the volume that waited for
    /// it.
    ///
    /// # Errors
    /// As [`Devices::stack`].
    pub fn stack_device(
        &mut self,
        base: &str,
        name: &str,
        make: impl FnOnce(Arc<dyn Bdev>) -> Result<(Arc<dyn Bdev>, Kind), ControlError>,
    ) -> Result<(), ControlError> {
        self.check_free(name)?;
        let base = self.devices.find(base)?.info().name.clone();
        self.devices.stack(&base, name, make)?;
        self.examine(name)
    }

    /// Deletes the device of this name or UUID, which must be of the kind that `word` names. A
    /// volume that it is a member of goes on without it.
    ///
    /// # Errors
    /// [`ControlError`], among them that something else holds the device, or that the volume would
    /// lose data without it.
    pub fn delete_device(
        &mut self,
        name: &str,
        word: &'static str,
    ) -> Result<Deletion, ControlError> {
        let (name, _) = self.devices.of_kind(name, word)?;
        let holder = self.devices.registry.claim_of(&name);
        if let Some(Claim::Bdev(holder)) = holder
            && self.arrays.contains(holder)
            && let Some(change) = self.arrays.remove_member(&name, &mut self.devices)?
        {
            return Ok(Deletion::UnderWay(change));
        }
        self.devices.remove(&name)?;
        Ok(Deletion::Done)
    }

    /// Makes a RAID volume; see [`Arrays::create`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn create_array(&mut self, options: ArrayOptions) -> Result<(), ControlError> {
        let name = options.name.clone();
        let place = Place {
            wakers: wakers(&self.reactors),
            arena: &self.arena,
        };
        let volume = self.arrays.create(options, &mut self.devices, &place)?;
        let opened = self.open(volume);
        if opened.is_err() {
            self.arrays.forget(&name, &mut self.devices);
        }
        opened
    }

    /// Deletes a RAID volume that nobody uses.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`], [`RegistryError::Busy`], [`ControlError::Target`] when it
    /// could not be closed in time: it may be tried again.
    pub fn delete_array(&mut self, name: &str) -> Result<(), ControlError> {
        if self.arrays.volume(name)?.is_some() {
            self.devices.registry.check_free(name)?;
            self.target.let_close(&mut self.devices.registry, name)?;
            self.devices.remove(name)?;
        }
        self.arrays.forget(name, &mut self.devices);
        Ok(())
    }

    /// Begins to add a member to a volume; see [`Arrays::add_member`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_member(&mut self, name: &str, member: &str) -> Result<Option<Change>, ControlError> {
        let member = self.devices.find(member)?.info().name.clone();
        let place = Place {
            wakers: wakers(&self.reactors),
            arena: &self.arena,
        };
        match self
            .arrays
            .add_member(name, &member, &mut self.devices, &place)?
        {
            Addition::UnderWay(change) => Ok(Some(change)),
            Addition::Done(volume) => self.open(volume).map(|()| None),
        }
    }

    /// Begins to take a member out of its volume; see [`Arrays::remove_member`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn remove_member(&mut self, member: &str) -> Result<Option<Change>, ControlError> {
        let member = self.devices.find(member)?.info().name.clone();
        self.arrays.remove_member(&member, &mut self.devices)
    }

    /// Whether a change has come to its end, and how.
    pub fn poll_change(&mut self, change: &Change) -> Option<Result<(), ControlError>> {
        self.arrays.poll_change(change, &mut self.devices)
    }

    /// Starts the volume that waited for a device.
    fn examine(&mut self, device: &str) -> Result<(), ControlError> {
        let place = Place {
            wakers: wakers(&self.reactors),
            arena: &self.arena,
        };
        let volume = self.arrays.examine(device, &mut self.devices, &place);
        if let Err(error) = self.open(volume) {
            tracing::error!("{error}");
        }
        Ok(())
    }

    /// Has every reactor open a volume that was started; it keeps waiting if they cannot.
    fn open(&mut self, volume: Option<Arc<Volume>>) -> Result<(), ControlError> {
        let Some(volume) = volume else {
            return Ok(());
        };
        let name = volume.info().name.clone();
        let opened = self.target.keep_open(&mut self.devices.registry, volume);
        match &opened {
            Ok(()) => tracing::info!("RAID volume {name} is online"),
            Err(_) => self.arrays.unstart(&name, &mut self.devices),
        }
        Ok(opened?)
    }

    /// That a volume which waits for its members has not this name.
    fn check_free(&self, name: &str) -> Result<(), RegistryError> {
        if self.arrays.contains(name) {
            return Err(RegistryError::Exists(name.to_owned()));
        }
        Ok(())
    }
}

fn wakers(reactors: &Option<Reactors>) -> &[Waker] {
    reactors.as_ref().map_or(&[], |r| r.wakers())
}

/// How long volumes may take until their members say that they are clean.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// [`System::ticks`] in a second.
pub const TICK_RATE: u64 = 1_000_000_000;
