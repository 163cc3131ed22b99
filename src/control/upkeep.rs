//! What keeps a started volume whole, as it is asked for: checks, spares, doubts.

use super::ControlError;
use super::changes::{Change, What};
use super::system::System;
use crate::raid::{VolumeError, Work};

impl System {
    /// Begins a check or repair of a volume; see [`Volume::start`](crate::raid::Volume::start).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn check(&mut self, name: &str, work: Work) -> Result<Change, ControlError> {
        self.arrays.ask(name, What::Process, |v| v.start(work))
    }

    /// Puts off what a volume does besides serving hosts, or goes on with it; a check is left.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn pause(&mut self, name: &str, pause: bool) -> Result<Change, ControlError> {
        self.arrays.ask(name, What::Process, |v| v.pause(pause))
    }

    /// Begins to leave a check or repair. What has to be done is put off with it, until the volume is
    /// told to go on.
    ///
    /// # Errors
    /// [`ControlError`], among them that there is no check.
    pub fn leave_check(&mut self, name: &str) -> Result<Change, ControlError> {
        let status = self.arrays.started(name)?.status();
        match status.process.map(|p| p.kind) {
            Some("check" | "repair") => self.pause(name, true),
            Some(kind) => Err(ControlError::Volume {
                name: name.to_owned(),
                source: VolumeError::Busy(kind),
            }),
            None => Err(ControlError::NoCheck(name.to_owned())),
        }
    }

    /// Takes the parity of a volume for right; see
    /// [`Volume::accept_parity`](crate::raid::Volume::accept_parity).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn accept_parity(&mut self, name: &str) -> Result<Change, ControlError> {
        self.arrays.ask(name, What::Process, |v| v.accept_parity())
    }

    /// Begins to replace a member by another device; see [`Arrays::replace_member`].
    ///
    /// [`Arrays::replace_member`]: super::Arrays::replace_member
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn replace_member(
        &mut self,
        member: &str,
        by: &str,
        force: bool,
    ) -> Result<Change, ControlError> {
        let member = self.devices.find(member)?.info().name.clone();
        let by = self.devices.find(by)?.info().name.clone();
        let devices = &mut self.devices;
        self.arrays.replace_member(&member, &by, force, devices)
    }

    /// Makes a device a spare of a volume: it takes the place of the next member that is lost.
    ///
    /// # Errors
    /// [`ControlError`]; the device has not become one then.
    pub fn add_spare(&mut self, name: &str, device: &str, force: bool) -> Result<(), ControlError> {
        let device = self.devices.find(device)?.info().name.clone();
        let devices = &mut self.devices;
        self.arrays.add_spare(name, &device, force, devices)
    }

    /// Takes a spare out of its volume, and removes what makes it one.
    ///
    /// # Errors
    /// [`ControlError`], among them that it is none.
    pub fn remove_spare(&mut self, name: &str, device: &str) -> Result<(), ControlError> {
        let device = self.devices.find(device)?.info().name.clone();
        match self.arrays.remove_spare(name, &device, &mut self.devices)? {
            true => Ok(()),
            false => Err(ControlError::NoSpare {
                device,
                name: name.to_owned(),
            }),
        }
    }
}
