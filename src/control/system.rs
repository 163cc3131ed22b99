//! Everything there is, in one place, owned by one thread.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ControlError;
use super::announcement::Announcement;
use super::array::{ArrayOptions, Tuning};
use super::arrays::{Arrays, Place};
use super::assembly;
use super::changes::{Addition, Change, What};
use super::counts::Resets;
use super::creation::NewMetadata;
use super::devices::{Devices, Kind};
use super::keyring::Keyring;
use super::locals::Locals;
use super::log::LogSwitch;
use super::newcomer;
use super::remotes::Remotes;
use super::start::Machine;
use crate::bdev::{Bdev, Claim, RegistryError};
use crate::memory::Arena;
use crate::nvmf::Target;
use crate::raid::Volume;
use crate::reactor::Reactors;

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
    /// All controllers on other machines.
    pub remotes: Remotes,
    /// All controllers of this machine that are polled.
    pub locals: Locals,
    /// The keys that hosts and subsystems prove themselves with.
    pub keyring: Keyring,
    /// The NVMe-oF target.
    pub target: Target,
    /// How hosts find its discovery service by themselves, if they are to.
    pub announcement: Option<Announcement>,
    /// The reactors; none in tools that do no I/O.
    pub reactors: Option<Reactors>,
    /// Where payload and stripes are kept.
    pub arena: Arena,
    /// How much is logged.
    pub log: LogSwitch,
    /// Whether new devices are looked at for what they hold of arrays.
    pub auto_examine: bool,
    /// From when on things are counted.
    pub(super) resets: Resets,
    started: Instant,
    phase: Phase,
}

/// What became of a device or volume that was to be deleted.
#[derive(Debug)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// The volume has been asked to do without it, or to end.
    UnderWay(Change),
}

impl System {
    /// A system with nothing in it.
    pub fn new(machine: Machine, arena: Arena, log: LogSwitch) -> Self {
        Self {
            devices: Devices::default(),
            arrays: Arrays::default(),
            remotes: Remotes::default(),
            locals: Locals::default(),
            keyring: Keyring::default(),
            target: machine.target,
            announcement: None,
            reactors: machine.reactors,
            arena,
            log,
            auto_examine: true,
            resets: Resets::default(),
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
        for (volume, event, words) in self.arrays.news() {
            self.target.note_volume(&volume, event, &words);
        }
        let (arrays, devices, place) = self.parts();
        for volume in arrays.start_degraded(devices, &place, now) {
            if let Err(error) = self.open(Some(volume)) {
                tracing::error!("{error}");
            }
        }
        let remotes = self.poll_remotes(now);
        let locals = self.poll_locals(now);
        let takeovers = self.arrays.take_over(&mut self.devices, now);
        let starts = self.arrays.next_degraded_start(None);
        let target = self.target.poll(now);
        if let Some(announcement) = &mut self.announcement {
            announcement.tell(&self.target.discovery_addresses());
        }
        let deadlines = [remotes, locals, takeovers, starts, target];
        deadlines.into_iter().flatten().min()
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
        // Nobody polls them any more.
        self.locals.stop();
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

    /// Makes a RAID volume; see [`Arrays::create`], and [`Arrays::create_kept`] for one whose state
    /// is kept on its members. One of those that has come back by itself is taken as made, once, if
    /// this is what it is.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn create_array(
        &mut self,
        options: ArrayOptions,
        metadata: Option<&NewMetadata>,
    ) -> Result<(), ControlError> {
        let name = options.name.clone();
        let Some(metadata) = metadata else {
            let (arrays, devices, place) = self.parts();
            let volume = arrays.create(options, devices, &place)?;
            let opened = self.open(volume);
            if opened.is_err() {
                self.arrays.forget(&name, &mut self.devices);
            }
            return opened;
        };
        if self.arrays.has_come_back(&name) {
            let tuned = self
                .arrays
                .take_as_made(&options, metadata, &self.devices)?;
            return match tuned {
                true => Ok(()),
                false => self.restart(&name, options.tuning),
            };
        }
        let (arrays, devices, place) = self.parts();
        let volume = arrays.create_kept(options, metadata, devices, &place)?;
        let opened = self.open(Some(volume));
        if opened.is_err() {
            self.arrays.undo(&name, &mut self.devices);
        }
        opened
    }

    /// Begins to delete a RAID volume that nobody uses. One whose state is kept on its members is
    /// closed first: [`System::finish_delete`] does the rest.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`], [`RegistryError::Busy`], [`ControlError::Volume`].
    pub fn begin_delete(&mut self, name: &str) -> Result<Option<Change>, ControlError> {
        if self.arrays.volume(name)?.is_none() {
            return Ok(None);
        }
        self.devices.registry.check_free(name)?;
        match self.arrays.is_kept(name) {
            true => self.arrays.ask(name, What::Close, |v| v.close()).map(Some),
            false => Ok(None),
        }
    }

    /// Deletes a RAID volume that nobody uses. Its members keep what they hold, unless their
    /// superblocks are to be cleared.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`], [`RegistryError::Busy`], [`ControlError::Target`] when it
    /// could not be closed in time: it may be tried again. [`ControlError::Unwritten`] where a
    /// superblock could not be cleared: the volume is gone then.
    pub fn finish_delete(&mut self, name: &str, clear: bool) -> Result<(), ControlError> {
        if self.arrays.volume(name)?.is_some() {
            self.devices.registry.check_free(name)?;
            self.target.let_close(&mut self.devices.registry, name)?;
            self.devices.remove(name)?;
        }
        let members = self.arrays.devices_of(name);
        let kept = self.arrays.is_kept(name);
        self.arrays.forget(name, &mut self.devices);
        match kept && clear {
            true => newcomer::clear_all(&members, &self.devices),
            false => Ok(()),
        }
    }

    /// Begins to add a member to a volume; see [`Arrays::add_member`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_member(
        &mut self,
        name: &str,
        member: &str,
        force: bool,
    ) -> Result<Option<Change>, ControlError> {
        let member = self.devices.find(member)?.info().name.clone();
        let (arrays, devices, place) = self.parts();
        match arrays.add_member(name, &member, force, devices, &place)? {
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
        let change = self.arrays.remove_member(&member, &mut self.devices)?;
        self.remotes.expect_no_return(&member);
        Ok(change)
    }

    /// Whether a change has come to its end, and how.
    pub fn poll_change(&mut self, change: &mut Change) -> Option<Result<(), ControlError>> {
        self.arrays.poll_change(change, &mut self.devices)
    }

    /// Starts the volume that waited for a device, or that what it holds belongs to.
    fn examine(&mut self, device: &str) -> Result<(), ControlError> {
        let (arrays, devices, place) = self.parts();
        let waited = arrays.examine(device, devices, &place);
        let examined = match waited {
            Some(volume) => self.open(volume),
            None if self.auto_examine => self.look_at(device),
            None => Ok(()),
        };
        if let Err(error) = examined {
            tracing::error!("{error}");
        }
        Ok(())
    }

    /// Looks at what a device holds of an array, unless it is in use, and starts the array if it has
    /// enough of its devices now.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; why what it holds is not used.
    pub fn look_at(&mut self, device: &str) -> Result<(), ControlError> {
        let bdev = self.devices.find(device)?;
        let device = &bdev.info().name;
        let is_volume = matches!(self.devices.kind(device), Some(Kind::Volume));
        if is_volume || self.devices.registry.claim_of(device).is_some() {
            return Ok(());
        }
        let Some(member) = assembly::examine(&bdev)? else {
            return Ok(());
        };
        let now = Instant::now();
        let (arrays, devices, place) = self.parts();
        let started = arrays.gather(device, member, devices, &place, now)?;
        self.open(started)
    }

    /// Has a volume that keeps its state on its members work in another way: from now on if nobody
    /// uses it, and from its start if it is not started.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`], [`ControlError::NotKept`], [`RegistryError::Busy`],
    /// [`ControlError::Volume`].
    pub fn set_tuning(&mut self, name: &str, tuning: Tuning) -> Result<(), ControlError> {
        match self.arrays.set_tuning(name, tuning)? {
            true => Ok(()),
            false => self.restart(name, tuning),
        }
    }

    /// Stops a volume that nobody uses yet, and starts it with another tuning.
    fn restart(&mut self, name: &str, tuning: Tuning) -> Result<(), ControlError> {
        if let Some(volume) = self.arrays.volume(name)? {
            self.devices.registry.check_free(name)?;
            let closed = volume
                .close()
                .and_then(|ticket| ticket.wait(CLOSE_PATIENCE));
            closed.map_err(|source| ControlError::Volume {
                name: name.to_owned(),
                source,
            })?;
            self.target.let_close(&mut self.devices.registry, name)?;
            self.arrays.unstart(name, &mut self.devices);
        }
        let (arrays, devices, place) = self.parts();
        let volume = arrays.start_again(name, tuning, devices, &place)?;
        self.open(Some(volume))
    }

    /// Has every reactor open a volume that was started; it keeps waiting if they cannot.
    pub(super) fn open(&mut self, volume: Option<Arc<Volume>>) -> Result<(), ControlError> {
        let Some(volume) = volume else {
            return Ok(());
        };
        let name = volume.info().name.clone();
        let opened = self.target.keep_open(&mut self.devices.registry, volume);
        match &opened {
            Ok(()) => {
                self.arrays.opened(&name, &mut self.devices);
                tracing::info!("RAID volume {name} is online");
            }
            Err(_) => self.arrays.unstart(&name, &mut self.devices),
        }
        Ok(opened?)
    }

    /// The volumes, the devices that they are made of, and where they run.
    pub(super) fn parts(&mut self) -> (&mut Arrays, &mut Devices, Place<'_>) {
        let place = Place {
            wakers: self.reactors.as_ref().map_or(&[], |r| r.wakers()),
            arena: &self.arena,
        };
        (&mut self.arrays, &mut self.devices, place)
    }

    /// That a volume which waits for its members has not this name.
    fn check_free(&self, name: &str) -> Result<(), RegistryError> {
        if self.arrays.contains(name) {
            return Err(RegistryError::Exists(name.to_owned()));
        }
        Ok(())
    }
}

/// How long volumes may take until their members say that they are clean.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// [`System::ticks`] in a second.
pub const TICK_RATE: u64 = 1_000_000_000;
