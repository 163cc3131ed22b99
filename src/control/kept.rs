//! What an array keeps on its members, as far as the control thread knows it: who belongs to it,
//! who waits to be used, and why it is not started.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

use crate::md::{Features, Found, Member, Policy, Role, SetName, Superblock};

/// An array that keeps its state on its members.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its identity.
    pub(super) set: Uuid,
    /// Its name as it is on the members, with that of a host perhaps.
    pub(super) name: SetName,
    /// How it learns after a crash where parity may be wrong.
    pub(super) policy: Policy,
    /// Bytes of a member for each bit of its bitmap.
    pub(super) bitmap_chunk: Option<u32>,
    /// Until it serves: the devices that say that they belong to it, and what is on them.
    pub(super) found: BTreeMap<String, Member>,
    /// When the last of them came.
    pub(super) came: Instant,
    /// Whether it was tried since then to start without those that are missing.
    pub(super) tried: bool,
    /// What its freshest member said when it was put together in this run.
    pub(super) freshest: Option<Superblock>,
    /// Devices that wait to be used.
    pub(super) spares: Vec<Spare>,
    /// Devices that were found and are not used, and why.
    pub(super) rejected: Vec<(String, String)>,
    /// Why it is not started.
    pub(super) reason: Option<String>,
    /// Whether somebody has asked for it by name in this run.
    pub(super) asked_for: bool,
}

/// A device that waits to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    /// The device.
    pub(super) device: String,
    /// Its identity as a member.
    pub(super) uuid: Uuid,
    /// Its number in the superblocks.
    pub(super) number: u32,
    /// Whether it could not be used when it was needed.
    pub(super) refused: bool,
    /// The slot whose member it is to replace: it was being made its mirror when the array stopped.
    pub(super) replaces: Option<usize>,
}

impl Spare {
    pub(super) fn new(device: &str, superblock: &Superblock) -> Self {
        Self {
            device: device.to_owned(),
            uuid: superblock.device_uuid,
            number: superblock.dev_number,
            refused: false,
            replaces: None,
        }
    }
}

/// What is shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptInfo {
    /// Its name as it is on the members.
    pub name: String,
    /// How it learns after a crash where parity may be wrong: `resync`, `bitmap` or `ppl`.
    pub policy: &'static str,
    /// Bytes of a member for each bit of its bitmap, if it has one.
    pub bitmap_chunk: Option<u32>,
    /// Devices that wait to be used.
    pub spares: Vec<String>,
    /// Devices that were found and are not used, and why.
    pub rejected: Vec<(String, String)>,
    /// Until it is started: the devices that say that they belong to it.
    pub found: Vec<String>,
}

impl Kept {
    /// The array that `superblock` describes, of which nothing was found yet.
    pub(super) fn new(superblock: &Superblock, now: Instant) -> Self {
        Self {
            set: superblock.set_uuid,
            name: superblock.set_name,
            policy: superblock.policy,
            bitmap_chunk: None,
            found: BTreeMap::new(),
            came: now,
            tried: false,
            freshest: None,
            spares: Vec::new(),
            rejected: Vec::new(),
            reason: None,
            asked_for: false,
        }
    }

    /// A device that belongs to it has come.
    pub(super) fn find(&mut self, device: &str, member: Member, now: Instant) {
        self.rejected.retain(|(rejected, _)| rejected != device);
        self.found.insert(device.to_owned(), member);
        self.came = now;
        self.tried = false;
    }

    /// A device has left, or cannot be used any more. Says whether it was known.
    pub(super) fn lose(&mut self, device: &str) -> bool {
        let known = self.found.len() + self.spares.len();
        self.found.remove(device);
        self.spares.retain(|spare| spare.device != device);
        known > self.found.len() + self.spares.len()
    }

    /// The slot whose member a device was being made the mirror of when the array stopped.
    pub(super) fn replaces(&self, superblock: &Superblock) -> Option<usize> {
        let freshest = self.freshest.as_ref()?;
        let Role::Slot(slot) = superblock.role() else {
            return None;
        };
        let is_meant = superblock.features.contains(Features::REPLACEMENT)
            && superblock.events + 1 >= freshest.events
            && freshest.role_of(superblock.dev_number) == Role::Slot(slot);
        is_meant.then_some(usize::from(slot))
    }

    /// What was found, as md decides about it.
    pub(super) fn all_found(&self) -> Vec<Found> {
        let found = self.found.iter().map(|(name, member)| Found {
            name: name.clone(),
            member: member.clone(),
        });
        found.collect()
    }

    pub(super) fn info(&self) -> KeptInfo {
        KeptInfo {
            name: self.name.to_string(),
            policy: policy_name(self.policy),
            bitmap_chunk: self.bitmap_chunk,
            spares: self.spares.iter().map(|s| s.device.clone()).collect(),
            rejected: self.rejected.clone(),
            found: self.found.keys().cloned().collect(),
        }
    }
}

/// mdadm's word for a consistency policy.
pub fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Resync => "resync",
        Policy::Bitmap { .. } => "bitmap",
        Policy::Ppl { .. } => "ppl",
    }
}
