//! Which of the devices that were found make up an array, and what is known of its state.
//!
//! The rules are mdadm's (`Assemble`) and the kernel's (`super_1_validate`, `analyze_sbs`, `raid5_run`). Where
//! the two differ, or leave a choice, the safer one is taken:
//!
//! - The freshest member is the one with the most events among those with a slot. What it says of the array
//!   and of the other members counts.
//! - A member may be one event behind: the machine may have stopped between the writes of two superblocks. It
//!   is then used only if the freshest member has it in the same slot.
//! - A member that is more behind is out of date. With a bitmap that knows all that it missed, it comes back
//!   and is rebuilt only there.
//! - What calls itself spare is a spare, even if the freshest member says that it has a slot since.

use std::cmp::Reverse;

use uuid::Uuid;

use super::superblock::IN_SYNC;
use super::{
    AreaError, Bitmap, BitmapError, BitmapHeader, Features, Freshness, Member, Policy, Rejection,
    Role, StoredBitmap, Superblock, Unsupported,
};

/// A device with a superblock.
#[derive(Clone, Debug)]
pub struct Found {
    /// What people call it.
    pub name: String,
    /// What is on it.
    pub member: Member,
}

impl Found {
    fn superblock(&self) -> &Superblock {
        &self.member.superblock
    }
}

/// How much of a member's data is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it.
    InSync,
    /// Some of it; it is being rebuilt.
    Recovering {
        /// Sectors from the start that are right.
        offset: u64,
        /// Whether what is behind them is right too, wherever the bit of the array's bitmap is clear.
        guided: bool,
    },
}

/// A member in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which of the found devices.
    pub found: usize,
    /// How much of its data is right.
    pub standing: Standing,
    /// Whether it is out of date and was only taken because of force.
    pub forced: bool,
}

/// An array that can be started.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// The superblock whose word counts.
    pub superblock: Superblock,
    /// The member of each slot.
    pub slots: Vec<Option<Seat>>,
    /// Found devices that wait to be used.
    pub spares: Vec<usize>,
    /// A found device that was being made the replacement of a slot's member, and that slot.
    pub replacement: Option<(usize, usize)>,
    /// Found devices that are not used.
    pub rejected: Vec<(usize, Rejection)>,
    /// The slot that is missing or not in sync, if there is one.
    pub degraded: Option<usize>,
    /// Sectors of the members below which parity is right; [`IN_SYNC`] if it is everywhere. With a bitmap, it
    /// is right above them too, wherever the bit is clear.
    pub resync_offset: u64,
    /// Whether blocks of the missing member may have become wrong because parity was not right everywhere:
    /// an array that was started by force although it is dirty and degraded.
    pub doubtful: bool,
    /// The bitmap, if the array has one, as it has to be believed.
    pub bitmap: Option<(BitmapHeader, Bitmap)>,
    /// Events of the freshest member. The next superblock has more.
    pub events: u64,
}

impl Assembly {
    /// Whether parity may be wrong somewhere.
    pub fn dirty(&self) -> bool {
        self.resync_offset != IN_SYNC
    }
}

/// An array that can't be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    /// No device of this array has a slot.
    #[error("no member of the array {0} was found; attach its devices")]
    NoMember(Uuid),
    /// It is not for us.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Two devices claim one slot.
    #[error(
        "{one} and {other} both claim slot {slot} and are equally fresh, perhaps one is a copy of the other; detach one of them"
    )]
    Twice {
        /// A device.
        one: String,
        /// Another.
        other: String,
        /// The slot.
        slot: u16,
    },
    /// More than one slot has no member in sync.
    #[error(
        "{} of {slots} members are missing, slots {missing:?}, and RAID5 can start without one at most; attach the others{}",
        missing.len(), list(rejected)
    )]
    Missing {
        /// Slots without a member in sync.
        missing: Vec<usize>,
        /// Slots in all.
        slots: usize,
        /// Devices that were found and not used, by name.
        rejected: Vec<(String, Rejection)>,
    },
    /// Parity can't be trusted, and the missing member's data would be made of it.
    #[error(
        "the array was not stopped cleanly and slot {slot} is missing: blocks of that member that were being written may be wrong; attach it, or start by force and check the data"
    )]
    DirtyDegraded {
        /// The slot.
        slot: usize,
    },
    /// No member has a bitmap that can be read.
    #[error("the array has no bitmap that can be used: {0}")]
    Bitmap(AreaError),
}

/// The reasons, as the end of a sentence.
fn list(rejected: &[(String, Rejection)]) -> String {
    let reasons = rejected.iter().map(|(name, why)| format!("; {name} {why}"));
    reasons.collect()
}

/// The arrays that the found devices belong to, each once, in the order in which they were found.
pub fn arrays(found: &[Found]) -> Vec<Uuid> {
    let mut arrays = Vec::new();
    for uuid in found.iter().map(|f| f.superblock().set_uuid) {
        if !arrays.contains(&uuid) {
            arrays.push(uuid);
        }
    }
    arrays
}

/// Puts an array together from the devices that were found; the order does not matter. `force` takes members
/// that are out of date, the newest first, as long as too many are missing, and starts an array that is dirty
/// and degraded.
///
/// # Errors
/// [`AssemblyError`] if it can't be started.
pub fn assemble(set_uuid: Uuid, found: &[Found], force: bool) -> Result<Assembly, AssemblyError> {
    let freshest = freshest(set_uuid, found).ok_or(AssemblyError::NoMember(set_uuid))?;
    found[freshest].superblock().support()?;
    let mut gathering = Gathering::new(found, freshest, force);
    // The fresher of two that claim one slot comes first, in whatever order they were found.
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|&index| {
        let sb = found[index].superblock();
        (Reverse(freshness(sb)), sb.device_uuid)
    });
    for index in order {
        gathering.judge(index)?;
    }
    let bitmap = gathering.bitmap()?;
    if force {
        gathering.raise();
    }
    gathering.return_stale(bitmap.as_ref());
    gathering.finish(bitmap)
}

/// The member with the most events among those with a slot; of several, one that is in sync, then that of the
/// lowest slot.
fn freshest(set_uuid: Uuid, found: &[Found]) -> Option<usize> {
    let members = found.iter().enumerate().filter(|(_, f)| {
        let sb = f.superblock();
        let slot = matches!(sb.role(), Role::Slot(slot) if u32::from(slot) < sb.raid_disks);
        sb.set_uuid == set_uuid && slot && !sb.features.contains(Features::REPLACEMENT)
    });
    let best = members.max_by_key(|(_, f)| {
        let sb = f.superblock();
        (freshness(sb), Reverse((sb.role().number(), sb.device_uuid)))
    });
    best.map(|(index, _)| index)
}

/// What makes one member fresher than another.
fn freshness(sb: &Superblock) -> (u64, bool) {
    (sb.events, sb.recovering().is_none())
}

/// An array while its members are looked for.
struct Gathering<'a> {
    found: &'a [Found],
    freshest: &'a Superblock,
    freshest_slot: u16,
    force: bool,
    slots: Vec<Option<Seat>>,
    spares: Vec<usize>,
    replacement: Option<(usize, usize)>,
    rejected: Vec<(usize, Rejection)>,
    /// Members that the array went on without, with their slot. Force may take them.
    stale: Vec<(usize, u16)>,
}

impl<'a> Gathering<'a> {
    fn new(found: &'a [Found], freshest: usize, force: bool) -> Self {
        let superblock = found[freshest].superblock();
        Self {
            found,
            freshest: superblock,
            freshest_slot: superblock.role().number(),
            force,
            slots: vec![None; superblock.raid_disks as usize],
            spares: Vec::new(),
            replacement: None,
            rejected: Vec::new(),
            stale: Vec::new(),
        }
    }

    /// Takes a device for its slot, as a spare, or not at all.
    fn judge(&mut self, index: usize) -> Result<(), AssemblyError> {
        match self.role(index) {
            Ok(Role::Slot(slot)) if self.is_replacement(index) => match self.replacement {
                None => self.replacement = Some((index, usize::from(slot))),
                Some(_) => self.rejected.push((index, Rejection::Replacement(slot))),
            },
            Ok(Role::Slot(slot)) => self.seat(index, slot)?,
            Ok(_) => self.spares.push(index),
            Err(rejection) => {
                let stale = matches!(
                    rejection,
                    Rejection::Stale { .. } | Rejection::Failed | Rejection::Disagrees(_)
                );
                // What was to become a mirror was never one.
                let stale = stale && !self.is_replacement(index);
                if let (true, Role::Slot(slot)) = (stale, self.found[index].superblock().role()) {
                    self.stale.push((index, slot));
                }
                self.rejected.push((index, rejection));
            }
        }
        Ok(())
    }

    /// Whether a device is to take the place of a member that is still there.
    fn is_replacement(&self, index: usize) -> bool {
        let features = self.found[index].superblock().features;
        features.contains(Features::REPLACEMENT)
    }

    /// The slot that a device can have, or that it is a spare.
    fn role(&self, index: usize) -> Result<Role, Rejection> {
        let (sb, freshest) = (self.found[index].superblock(), self.freshest);
        if sb.set_uuid != freshest.set_uuid {
            return Err(Rejection::Foreign(sb.set_uuid));
        }
        self.same_array(sb)?;
        if let Err(error) = &self.found[index].member.bad_blocks {
            return Err(Rejection::BadBlocks(error.clone()));
        }
        let slot = match sb.role() {
            Role::Spare => return Ok(Role::Spare),
            Role::Faulty => return Err(Rejection::Faulty),
            Role::Slot(slot) if usize::from(slot) < self.slots.len() => slot,
            role => return Err(Rejection::Role(role.number())),
        };
        let knows_freshest = sb.slots().get(usize::from(self.freshest_slot)).copied();
        if knows_freshest.flatten().is_none() {
            return Err(Rejection::Disagrees(self.freshest_slot));
        }
        if sb.events.saturating_add(1) < freshest.events {
            return Err(Rejection::Stale {
                events: sb.events,
                newest: freshest.events,
            });
        }
        let behind = sb.events < freshest.events;
        if behind && freshest.role_of(sb.dev_number) != Role::Slot(slot) {
            return Err(Rejection::Failed);
        }
        Ok(Role::Slot(slot))
    }

    /// Checks what all members must have in common, and that this one has room.
    fn same_array(&self, sb: &Superblock) -> Result<(), Rejection> {
        let freshest = self.freshest;
        let shape = [
            ("level", sb.level == freshest.level),
            ("layout", sb.layout == freshest.layout),
            ("chunk", sb.chunk == freshest.chunk),
            ("number of members", sb.raid_disks == freshest.raid_disks),
            ("size", sb.size == freshest.size),
            ("superblock version", sb.minor() == freshest.minor()),
        ];
        // A spare is not asked what the array looks like; it only has to be large enough.
        let spare = matches!(sb.role(), Role::Spare);
        let differs = shape.iter().find(|(_, same)| !same && !spare);
        if let Some((what, _)) = differs {
            return Err(Rejection::Shape(what));
        }
        if sb.data_size < freshest.size {
            return Err(Rejection::Shape("size"));
        }
        sb.support()?;
        Ok(())
    }

    /// Puts a device into its slot, unless a fresher one is there.
    fn seat(&mut self, index: usize, slot: u16) -> Result<(), AssemblyError> {
        let sb = self.found[index].superblock();
        let place = &mut self.slots[usize::from(slot)];
        let Some(winner) = place else {
            *place = Some(Seat {
                found: index,
                standing: standing(sb),
                forced: false,
            });
            return Ok(());
        };
        let winner = &self.found[winner.found];
        if freshness(winner.superblock()) == freshness(sb) {
            return Err(AssemblyError::Twice {
                one: winner.name.clone(),
                other: self.found[index].name.clone(),
                slot,
            });
        }
        let by = winner.name.clone();
        let rejection = if winner.superblock().device_uuid == sb.device_uuid {
            Rejection::OldCopy(by)
        } else {
            Rejection::SlotTaken { slot, by }
        };
        self.rejected.push((index, rejection));
        Ok(())
    }

    /// Slots without a member in sync.
    fn missing(&self) -> Vec<usize> {
        let in_sync = |seat: &Option<Seat>| seat.is_some_and(|s| s.standing == Standing::InSync);
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, s)| !in_sync(s)).map(|(n, _)| n).collect()
    }

    /// Takes members that the array went on without, the newest first and all that are as old as it, until
    /// there are enough.
    fn raise(&mut self) {
        while self.missing().len() > 1 {
            let usable = self.stale.iter().filter(|&&(index, slot)| {
                let in_sync = standing(self.found[index].superblock()) == Standing::InSync;
                in_sync && self.slots[usize::from(slot)].is_none()
            });
            let events = |index: usize| self.found[index].superblock().events;
            let Some(newest) = usable.clone().map(|&(index, _)| events(index)).max() else {
                return;
            };
            let vintage: Vec<_> = usable.filter(|s| events(s.0) == newest).copied().collect();
            for (index, slot) in vintage {
                let place = &mut self.slots[usize::from(slot)];
                if place.is_none() {
                    *place = Some(Seat {
                        found: index,
                        standing: Standing::InSync,
                        forced: true,
                    });
                    self.take_back(index);
                }
            }
        }
    }

    /// Forgets that a device was rejected.
    fn take_back(&mut self, index: usize) {
        self.stale.retain(|&(other, _)| other != index);
        self.rejected.retain(|&(other, _)| other != index);
    }

    /// Seats a member that the array went on without if the bitmap knows everything that it missed.
    fn return_stale(&mut self, bitmap: Option<&StoredBitmap>) {
        let Some(bitmap) = bitmap.filter(|b| b.freshness == Freshness::Current) else {
            return;
        };
        for (index, slot) in self.stale.clone() {
            let sb = self.found[index].superblock();
            let whole = standing(sb) == Standing::InSync;
            let seen = sb.events >= bitmap.header.events_cleared;
            let apart = self
                .rejected
                .contains(&(index, Rejection::Disagrees(self.freshest_slot)));
            if whole && seen && !apart && self.slots[usize::from(slot)].is_none() {
                self.slots[usize::from(slot)] = Some(Seat {
                    found: index,
                    standing: Standing::Recovering {
                        offset: 0,
                        guided: true,
                    },
                    forced: false,
                });
                self.take_back(index);
            }
        }
    }

    /// The bitmap of the members that are as fresh as the freshest: a bit that one of them has set is set.
    fn bitmap(&self) -> Result<Option<StoredBitmap>, AssemblyError> {
        if !matches!(self.freshest.policy, Policy::Bitmap { .. }) {
            return Ok(None);
        }
        let seats = self.slots.iter().flatten();
        let fresh = seats
            .map(|seat| &self.found[seat.found].member)
            .filter(|member| member.superblock.events == self.freshest.events);
        let mut whole: Option<StoredBitmap> = None;
        let mut error = AreaError::Bitmap(BitmapError::Magic(0));
        for stored in fresh.filter_map(|member| member.bitmap.as_ref()) {
            match (stored, &mut whole) {
                (Err(why), _) => error = why.clone(),
                (Ok(stored), None) => whole = Some(stored.clone()),
                (Ok(stored), Some(whole)) => join(whole, stored),
            }
        }
        let mut whole = whole.ok_or(AssemblyError::Bitmap(error))?;
        whole.bits = whole.believed();
        if whole.freshness == Freshness::Stale {
            whole.header.events_cleared = self.freshest.events;
        }
        Ok(Some(whole))
    }

    fn finish(mut self, mut bitmap: Option<StoredBitmap>) -> Result<Assembly, AssemblyError> {
        self.spares.sort_unstable();
        self.rejected.sort_by_key(|&(index, _)| index);
        let missing = self.missing();
        if missing.len() > 1 {
            let named = |(index, why): (usize, Rejection)| (self.found[index].name.clone(), why);
            return Err(AssemblyError::Missing {
                missing,
                slots: self.slots.len(),
                rejected: self.rejected.into_iter().map(named).collect(),
            });
        }
        let degraded = missing.first().copied();
        let seats = self.slots.iter().flatten();
        let fresh =
            seats.filter(|seat| self.found[seat.found].superblock().events == self.freshest.events);
        let offsets = fresh.map(|seat| self.found[seat.found].superblock().resync_offset);
        let resync_offset = offsets.min().unwrap_or(0);
        // What was raised by force may differ from the others anywhere.
        let forced = self.slots.iter().flatten().any(|seat| seat.forced);
        if let (true, Some(bitmap)) = (forced, &mut bitmap) {
            bitmap.bits.set_all();
        }
        let clean = resync_offset == IN_SYNC || nothing_in_flight(bitmap.as_ref());
        let ppl = matches!(self.freshest.policy, Policy::Ppl { .. });
        let doubtful = match degraded {
            Some(slot) if parity_only(self.freshest, slot) => false,
            Some(_) if forced => true,
            Some(slot) if !clean && !ppl => {
                if !self.force {
                    return Err(AssemblyError::DirtyDegraded { slot });
                }
                true
            }
            _ => false,
        };
        Ok(Assembly {
            superblock: self.freshest.clone(),
            slots: self.slots,
            spares: self.spares,
            replacement: self.replacement,
            rejected: self.rejected,
            degraded,
            resync_offset: if forced { 0 } else { resync_offset },
            doubtful,
            bitmap: bitmap.map(|b| (b.header, b.bits)),
            events: self.freshest.events,
        })
    }
}

/// How much of a member is right, by its own superblock.
fn standing(sb: &Superblock) -> Standing {
    match sb.recovering() {
        None => Standing::InSync,
        Some(offset) => Standing::Recovering {
            offset,
            guided: sb.features.contains(Features::RECOVERY_BITMAP)
                && matches!(sb.policy, Policy::Bitmap { .. }),
        },
    }
}

/// Adds the bits of another copy of the same bitmap.
fn join(whole: &mut StoredBitmap, other: &StoredBitmap) {
    let shape = |b: &StoredBitmap| (b.bits.bits(), b.header.chunk_bytes);
    if shape(whole) != shape(other) || other.freshness == Freshness::Stale {
        whole.freshness = Freshness::Stale;
        return;
    }
    whole.bits.merge(&other.bits);
    let cleared = whole.header.events_cleared.max(other.header.events_cleared);
    whole.header.events_cleared = cleared;
}

/// Whether the bitmap shows that no write was under way: its bits are durable before any data.
fn nothing_in_flight(bitmap: Option<&StoredBitmap>) -> bool {
    bitmap.is_some_and(|b| b.freshness == Freshness::Current && b.bits.count() == 0)
}

/// Whether a slot never holds data: with layouts 4 and 5, where parity does not move.
fn parity_only(sb: &Superblock, slot: usize) -> bool {
    match sb.layout {
        4 => slot == 0,
        5 => slot + 1 == sb.raid_disks as usize,
        _ => false,
    }
}
