//! Changes of a volume that are under way: members that come and go, checks, its end.

use std::sync::Arc;

use super::ControlError;
use super::arrays::Arrays;
use super::devices::Devices;
use super::kept::Spare;
use crate::raid::{NewMember, Ticket, Volume, VolumeError};

/// A change of a volume that is under way.
#[derive(Debug)]
pub struct Change {
    pub(super) array: String,
    /// The device that comes or goes, if it is about one.
    pub(super) member: Option<String>,
    pub(super) what: What,
    /// What a device brings along that comes.
    pub(super) new: Option<Box<NewMember>>,
    /// The spare that it was.
    pub(super) spare: Option<Spare>,
    pub(super) ticket: Ticket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Add,
    Remove,
    /// A device is to take a member's place.
    Replace,
    /// The members are to say that it is clean.
    Close,
    /// A process is begun, left or gone on with.
    Process,
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

impl Change {
    /// The volume.
    pub fn array(&self) -> &str {
        &self.array
    }

    /// The member that comes or goes, if one does.
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }
}

impl Arrays {
    /// Whether a change has come to its end, and how.
    pub fn poll_change(
        &mut self,
        change: &mut Change,
        devices: &mut Devices,
    ) -> Option<Result<(), ControlError>> {
        let mut answer = change.ticket.poll()?;
        if (change.what, &answer) == (What::Add, &Err(VolumeError::Changing)) {
            // The member before it may not be gone for good yet.
            match self.ask_again(change, devices) {
                Ok(()) => return None,
                Err(error) => answer = Err(error),
            }
        }
        let gone = match (change.what, &answer) {
            (What::Add | What::Replace, Ok(())) | (What::Remove, Err(_)) => false,
            (What::Add | What::Replace, Err(_)) | (What::Remove, Ok(())) => true,
            (What::Close | What::Process, _) => false,
        };
        if let (true, Some(member)) = (gone, &change.member) {
            let spare = change.spare.take();
            self.keep_or_release(&change.array, member, spare, devices);
        }
        if (change.what, &answer) == (What::Replace, &Ok(()))
            && let Some(array) = self.arrays.get_mut(&change.array)
        {
            array.replacing.clone_from(&change.member);
        }
        self.reconcile(devices);
        Some(answer.map_err(|source| ControlError::Volume {
            name: change.array.clone(),
            source,
        }))
    }

    /// Asks a volume again to take a member.
    fn ask_again(&self, change: &mut Change, devices: &Devices) -> Result<(), VolumeError> {
        let (Ok(volume), Some(member)) = (self.started(&change.array), &change.member) else {
            return Err(VolumeError::Offline);
        };
        let gone = |_| VolumeError::NoSuchMember(member.clone());
        let bdev = devices.registry.get(member).map_err(gone)?;
        change.ticket = volume.add_member(bdev, change.new.as_deref().cloned())?;
        Ok(())
    }

    /// Asks a started volume for something about its processes, or for its end.
    ///
    /// # Errors
    /// [`ControlError::NoVolume`], [`ControlError::NotStarted`], [`ControlError::Volume`].
    pub(super) fn ask(
        &self,
        name: &str,
        what: What,
        ask: impl FnOnce(&Volume) -> Result<Ticket, VolumeError>,
    ) -> Result<Change, ControlError> {
        let volume = self.started(name)?;
        let ticket = ask(&volume).map_err(|source| ControlError::Volume {
            name: name.to_owned(),
            source,
        })?;
        Ok(Change {
            array: name.to_owned(),
            member: None,
            what,
            new: None,
            spare: None,
            ticket,
        })
    }
}
