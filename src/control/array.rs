//! One RAID volume: how it is to be made, and how it is now.

use std::sync::Arc;

use uuid::Uuid;

use super::ControlError;
use super::devices::Devices;
use super::kept::{Kept, KeptInfo};
use super::volume_events::Seen;
use crate::bdev::Bdev;
use crate::raid::{Batching, Geometry, Layout, Process, State, Status, Volume};

/// Chunk sizes that can be had, in KiB.
const STRIP_KB: std::ops::RangeInclusive<u32> = 4..=1024;

/// Numbers of members that can be had.
const MEMBERS: std::ops::RangeInclusive<usize> = 3..=64;

/// What stands for a member that is not there yet, as mdadm has it.
pub const MISSING: &str = "missing";

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
    /// What is in no member's metadata.
    pub tuning: Tuning,
}

/// How a volume does its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
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
    /// The rebuild, resync or check under way.
    pub process: Option<Process>,
    /// Blocks of a row, without parity.
    pub row_blocks: u64,
    /// Blocks of the volume, 0 while it is configuring.
    pub blocks: u64,
    /// Why it is not started, if it is not.
    pub reason: Option<String>,
    /// What the engine says of it, if it is started.
    pub status: Option<Status>,
    /// What is known from its members' metadata, if they have any.
    pub kept: Option<KeptInfo>,
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
    /// Blocks before those that the volume uses.
    pub data_offset: u64,
    /// Blocks of it that the volume uses.
    pub data_blocks: u64,
}

/// A volume.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) options: ArrayOptions,
    /// Name of the member of each slot, whether it is there or not.
    pub(super) slots: Vec<Option<String>>,
    /// Once it is started.
    pub(super) volume: Option<Arc<Volume>>,
    /// The device that is to replace a member, and its mirror so far.
    pub(super) replacing: Option<String>,
    /// What it keeps on its members, if anything.
    pub(super) kept: Option<Kept>,
    /// How it was looked at last, once it is started.
    pub(super) seen: Option<Seen>,
}

impl Array {
    /// All of its devices: members, those that wait to be used, and those found so far.
    pub(super) fn devices(&self) -> Vec<String> {
        let mut all: Vec<String> = self.slots.iter().flatten().cloned().collect();
        if let Some(kept) = &self.kept {
            let spares = kept.spares.iter().map(|s| &s.device);
            for device in spares.chain(kept.found.keys()) {
                if !all.contains(device) {
                    all.push(device.clone());
                }
            }
        }
        all
    }

    pub(super) fn info(&self, devices: &Devices) -> ArrayInfo {
        let volume = self.volume.as_ref();
        let status = volume.map(|v| v.status());
        let block = volume.map_or(1, |v| u64::from(v.info().block_size));
        let geometry: Option<&Geometry> = volume.map(|v| v.geometry());
        let data_blocks = geometry.map_or(0, |g| g.member_bytes() / block);
        let metadata = status.as_ref().and_then(|s| s.metadata.as_ref());
        let slots = self.slots.iter().enumerate().map(|(slot, name)| {
            let bdev = name.as_deref().and_then(|n| devices.registry.get(n).ok());
            let superblock = metadata.and_then(|m| m.superblocks.get(slot)?.as_ref());
            let offset = superblock.map_or(0, |s| s.data_offset * 512 / block);
            SlotInfo {
                name: name.clone(),
                uuid: bdev.as_ref().map_or(Uuid::nil(), |b| b.info().uuid),
                is_configured: bdev.is_some(),
                data_offset: if bdev.is_some() { offset } else { 0 },
                data_blocks: if bdev.is_some() { data_blocks } else { 0 },
            }
        });
        let slots: Vec<SlotInfo> = slots.collect();
        ArrayInfo {
            options: self.options.clone(),
            state: match status.as_ref().map(|s| s.state) {
                None => ArrayState::Configuring,
                Some(State::Online) => ArrayState::Online,
                Some(State::Offline) => ArrayState::Offline,
            },
            reason: self.reason(&slots),
            process: status.as_ref().and_then(|s| s.process.clone()),
            row_blocks: geometry.map_or(0, |g| g.row_bytes() / block),
            blocks: volume.map_or(0, |v| v.info().blocks),
            kept: self.kept.as_ref().map(Kept::info),
            status,
            slots,
        }
    }

    /// Why it is not started.
    fn reason(&self, slots: &[SlotInfo]) -> Option<String> {
        if self.volume.is_some() {
            return None;
        }
        if let Some(kept) = &self.kept {
            return kept.reason.clone();
        }
        let asked = slots.iter().zip(&self.options.members);
        let absent = asked.filter(|(slot, asked)| !slot.is_configured && *asked != MISSING);
        let absent: Vec<&str> = absent
            .map(|(slot, _)| slot)
            .map(|slot| slot.name.as_deref().unwrap_or("another member"))
            .collect();
        Some(match absent.is_empty() {
            true => "it has all members and could not be started; the log says why".to_owned(),
            false => format!("waits for {}; make it first", absent.join(", ")),
        })
    }
}

impl ArrayOptions {
    /// Checks what a volume is described by.
    pub(super) fn check(&self) -> Result<(), ControlError> {
        let Self {
            name,
            strip_kb,
            members,
            ..
        } = self;
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
            if members[..slot].contains(member) && member != MISSING {
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
}
