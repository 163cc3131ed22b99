//! What the members say of the array: superblocks, write-intent bitmap and bad-block logs, kept
//! true by the array's actor.
//!
//! Everything that must be durable before something else may happen goes through here, as one
//! commit after another; `commit.rs` has their steps and the order of these. Without I/O: requests
//! to members go out, completions come in.

mod commit;
mod intent;
mod proven;
#[cfg(test)]
mod tests;

pub(super) use intent::Intents;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::commit::Commit;
use self::proven::{Proven, Rebuilt};
use super::geometry::Geometry;
use super::message::NodeId;
use super::mutation::{self, Mutation};
use super::regions::Regions;
use super::view::View;
use crate::bdev::{Request, Status};
use crate::md::superblock::IN_SYNC;
use crate::md::{
    BadBlocks, Bitmap, BitmapHeader, FIRST_STRIPE, Features, Policy, Role, Superblock, Time,
};
use crate::memory::Pool;

/// How long after the last write an array without a bitmap is said to be clean: md's safe mode.
const SAFE_MODE: Duration = Duration::from_millis(200);

/// What the members say of an array, when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The superblock of each slot's member, `None` where one is missing.
    pub superblocks: Vec<Option<Superblock>>,
    /// The bad blocks of each slot's member.
    pub bad_blocks: Vec<BadBlocks>,
    /// The write-intent bitmap, if the array has one.
    pub marks: Option<Marks>,
    /// Whether the superblocks on the members say that the array is being written to.
    pub dirty: bool,
}

/// What an array begins with that keeps its state on its members.
#[derive(Clone, Debug)]
pub struct MetadataConfig {
    /// What they say now.
    pub stored: Stored,
    /// Pages of 4 KiB in which metadata is written.
    pub pool: Pool,
    /// What the clock on the wall said at a moment.
    pub booted: (Instant, Time),
}

/// The write-intent bitmap, as it is on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// What stands before the bits.
    pub header: BitmapHeader,
    /// The bits: set where members may disagree.
    pub bits: Bitmap,
}

impl Marks {
    /// The rows of a region: a bit stands for some rows, or a row for some bits.
    pub fn rows_per_region(&self, geometry: &Geometry) -> u64 {
        let row_sectors = u64::from(geometry.chunk_bytes()) / 512;
        (self.bits.chunk_sectors() / row_sectors).max(1)
    }

    /// The bits of a region of so many rows.
    fn bits_of(&self, region: u64, rows: u64, geometry: &Geometry) -> std::ops::Range<u64> {
        let sectors = rows * u64::from(geometry.chunk_bytes()) / 512;
        self.bits.bits_of(region * sectors..(region + 1) * sectors)
    }
}

impl Stored {
    /// The rows of a region: all of them, in an array without a bitmap.
    pub fn rows_per_region(&self, geometry: &Geometry) -> u64 {
        let marks = self.marks.as_ref();
        marks.map_or(geometry.rows(), |m| m.rows_per_region(geometry))
    }
}

#[derive(Debug)]
pub(super) struct Metadata {
    geometry: Geometry,
    block_bytes: u32,
    /// By slot, and behind them that of a member that is to replace another.
    members: Vec<Option<Superblock>>,
    /// What superblocks may say of processes, and what they may once caches are empty that are
    /// being emptied.
    proven: Proven,
    claim: Option<Proven>,
    /// The slot whose member is to be said to be replaced.
    handing_over: Option<usize>,
    /// The members say so.
    handed_over: bool,
    bad_blocks: Vec<BadBlocks>,
    /// What each device number is: the table of every superblock.
    roles: Vec<u16>,
    events: u64,
    marks: Option<Marks>,
    regions: Vec<Region>,
    rows_per_region: u64,
    /// Regions held, counted once for each node.
    held: u32,
    /// Marked regions that nobody holds.
    idle: BTreeSet<u64>,
    /// Regions granted since the members' caches were emptied last, or began to be.
    written: BTreeSet<u64>,
    /// Something has happened since there was nothing to write, under the view of this epoch.
    stirred: bool,
    epoch: u64,
    /// Nodes that wait until they may write to a region.
    waiting: Vec<(NodeId, u64)>,
    /// Grants not sent yet.
    pub(super) granted: Vec<(NodeId, u64)>,
    /// The superblocks on the members say that the array is being written to.
    dirty: bool,
    /// The members have partial parity logs, and say that parity may be wrong beside those.
    owes: bool,
    /// Superblocks wished for, and how many of these wishes are on the members.
    wished: u64,
    durable: u64,
    /// Nothing is granted before so many wishes are on the members: what only one of them says
    /// now would be forgotten with it.
    agreed: u64,
    /// The roles as the freshest superblocks have them, if some other is older. It has to be
    /// brought up first: the next event might be cut off, too, and it would be so far behind that
    /// it counts for stale.
    behind: Option<Vec<u16>>,
    /// Slots whose bad-block log is to be written.
    logs: u64,
    /// Slots whose log on the member has something in it.
    logged: u64,
    /// Every page of the bitmap is to be written: a member is new.
    rewrite: bool,
    /// What was written is to be on the members for good before the next superblocks say so.
    checkpoint: bool,
    /// The array is being closed: regions are given back, and the array is clean, at once.
    closing: bool,
    commit: Option<Commit>,
    pool: Pool,
    booted: (Instant, Time),
    sweep_at: Option<Instant>,
    /// Requests to members, by bay: where they begin, in bytes of the member, is absolute.
    pub(super) requests: Vec<(usize, Request)>,
}

/// What is known of a region.
#[derive(Clone, Copy, Debug)]
struct Region {
    /// Nodes that may write to it.
    holders: u32,
    /// All of its bits are set on the members, or there are none.
    durable: bool,
}

impl Metadata {
    pub(super) fn new(
        config: MetadataConfig,
        geometry: Geometry,
        block_bytes: u32,
        view: &View,
    ) -> Self {
        let MetadataConfig {
            stored,
            pool,
            booted,
        } = config;
        let rows_per_region = stored.rows_per_region(&geometry);
        let Stored {
            superblocks,
            bad_blocks,
            marks,
            dirty,
        } = stored;
        let freshest = superblocks.iter().flatten().max_by_key(|s| s.events);
        let freshest = freshest.expect("an array has members");
        let said = freshest.roles.clone();
        let mut metadata = Self {
            geometry,
            block_bytes,
            roles: said.clone(),
            events: freshest.events,
            members: superblocks.into_iter().chain([None]).collect(),
            proven: Proven::of(view, None),
            claim: None,
            handing_over: None,
            handed_over: false,
            bad_blocks: bad_blocks.into_iter().chain([BadBlocks::new(0)]).collect(),
            regions: Vec::new(),
            held: 0,
            idle: BTreeSet::new(),
            written: BTreeSet::new(),
            stirred: true,
            epoch: 0,
            marks,
            rows_per_region,
            waiting: Vec::new(),
            granted: Vec::new(),
            dirty,
            owes: false,
            wished: 0,
            durable: 0,
            agreed: 0,
            behind: None,
            logs: 0,
            logged: 0,
            rewrite: false,
            checkpoint: false,
            closing: false,
            commit: None,
            pool,
            booted,
            sweep_at: None,
            requests: Vec::new(),
        };
        for at in 0..geometry.rows().div_ceil(rows_per_region) {
            let durable = metadata.marks(at).all(|mark| mark);
            metadata.regions.push(Region {
                holders: 0,
                durable,
            });
            if metadata.marks(at).any(|mark| mark) {
                metadata.idle.insert(at);
            }
        }
        for (slot, bad) in metadata.bad_blocks.iter().enumerate().take(64) {
            metadata.logged |= u64::from(!bad.is_empty()) << slot;
        }
        // A slot may be named by a member that is not there.
        for number in 0..metadata.roles.len() {
            if let Role::Slot(slot) = Role::from_number(metadata.roles[number]) {
                let named = metadata.members.get(usize::from(slot));
                let there = named.and_then(Option::as_ref);
                if there.is_none_or(|s| s.dev_number as usize != number) {
                    metadata.roles[number] = Role::Faulty.number();
                }
            }
        }
        for slot in 0..metadata.members.len() {
            if let Some(member) = &metadata.members[slot] {
                metadata.enroll(member.dev_number, slot, true);
            }
        }
        // A crash may have cut off what was being written to them.
        let members = || metadata.members.iter().flatten();
        let behind = members().any(|s| s.events != metadata.events);
        let differ = behind || members().any(|s| s.roles != metadata.roles);
        let dirty = dirty || members().any(|s| s.resync_offset == 0);
        let positive = members().any(|s| (1..IN_SYNC).contains(&s.resync_offset));
        metadata.owes = metadata.has_logs() && positive;
        metadata.behind = (behind && !mutation::on(Mutation::D8)).then_some(said);
        if dirty || differ {
            let wished = metadata.wish();
            if !mutation::on(Mutation::D7) {
                metadata.agreed = wished;
            }
            metadata.rewrite = metadata.marks.is_some();
        }
        metadata
    }

    /// Whether the bits of a region are set. An array without a bitmap has none.
    fn marks(&self, region: u64) -> impl Iterator<Item = bool> + '_ {
        let rows = self.rows_per_region;
        let marks = self.marks.iter();
        marks.flat_map(move |m| {
            let bits = m.bits_of(region, rows, &self.geometry);
            bits.map(|bit| m.bits.is_set(bit))
        })
    }

    /// The regions that are marked: where a member that was away lacks something.
    pub(super) fn marked(&self) -> Option<Regions> {
        self.marks.as_ref()?;
        let mut regions = Regions::new(self.geometry.rows(), self.rows_per_region);
        let all = 0..self.regions.len() as u64;
        let marked = all.filter(|&r| self.marks(r).any(|mark| mark));
        marked.for_each(|r| regions.insert(r));
        Some(regions)
    }

    /// The member of a slot has this device number.
    fn enroll(&mut self, number: u32, slot: usize, alone: bool) {
        let number = number as usize;
        if self.roles.len() <= number {
            self.roles.resize(number + 1, Role::Spare.number());
        }
        for (other, role) in self.roles.iter_mut().enumerate() {
            if alone && other != number && *role == slot as u16 {
                *role = Role::Faulty.number();
            }
        }
        self.roles[number] = slot as u16;
    }

    /// The member of a slot has failed, or was removed.
    pub(super) fn lose(&mut self, slot: usize) {
        self.logs &= !(1 << slot);
        self.logged &= !(1 << slot);
        if self.proven.rebuilt.is_some_and(|r| r.slot == slot) {
            self.proven.rebuilt = None;
            self.claim = None;
        }
        if slot == self.geometry.members() {
            self.proven.copied = None;
            self.claim = None;
        }
        if let Some(member) = self.members[slot].take()
            && let Some(role) = self.roles.get_mut(member.dev_number as usize)
        {
            *role = Role::Faulty.number();
        }
    }

    /// There is a new member in `place`, in the role of `slot`: the same, or another one whose
    /// member it is to replace. A `guided` one lacks only what the bitmap says.
    pub(super) fn gain(
        &mut self,
        place: usize,
        slot: usize,
        superblock: Superblock,
        bad: BadBlocks,
        guided: bool,
    ) {
        self.enroll(superblock.dev_number, slot, place == slot);
        let rebuilt = Rebuilt {
            slot,
            rows: 0,
            guided,
        };
        match place == slot {
            true => self.proven.rebuilt = Some(rebuilt),
            false => self.proven.copied = Some(0),
        }
        self.claim = None;
        let slot = place;
        self.members[slot] = Some(superblock);
        self.logged |= u64::from(!bad.is_empty()) << slot;
        self.bad_blocks[slot] = bad;
        self.rewrite = self.marks.is_some();
    }

    /// The member behind the last slot is the member of `slot` from now on, and the one that was is
    /// not: that is what superblocks say next.
    pub(super) fn hand_over(&mut self, slot: usize) {
        self.handing_over = Some(slot);
        self.stirred = true;
    }

    /// Whether the members say so.
    pub(super) fn has_handed_over(&self) -> bool {
        self.handed_over
    }

    /// The member of `slot` is its member after all.
    pub(super) fn take_back(&mut self, slot: usize) {
        self.handing_over = None;
        self.handed_over = false;
        self.claim = None;
        if self.proven.replaced.take().is_some() {
            self.set_role(slot, Role::Slot(slot as u16));
        }
    }

    /// The members' caches are empty.
    pub(super) fn prove(&mut self) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        self.proven = claim;
        if let Some(slot) = claim.replaced {
            self.set_role(slot, Role::Faulty);
        }
    }

    /// Parity is taken for right, whatever it is.
    pub(super) fn trust(&mut self) {
        self.proven.synced = None;
        self.claim = None;
    }

    fn set_role(&mut self, slot: usize, role: Role) {
        if let Some(member) = &self.members[slot]
            && let Some(entry) = self.roles.get_mut(member.dev_number as usize)
        {
            *entry = role.number();
        }
    }

    /// The member behind the last slot takes the place of `slot`, whose member goes.
    pub(super) fn swap(&mut self, slot: usize, place: usize) {
        self.handing_over = None;
        self.handed_over = false;
        self.claim = None;
        self.proven = Proven {
            copied: None,
            replaced: None,
            ..self.proven
        };
        self.members.swap(slot, place);
        self.bad_blocks.swap(slot, place);
        self.members[place] = None;
        for slots in [&mut self.logs, &mut self.logged] {
            let moved = *slots >> place & 1;
            *slots = *slots & !(1 << slot | 1 << place) | moved << slot;
        }
    }

    /// The bad blocks of a slot's member.
    pub(super) fn bad_blocks(&self, slot: usize) -> &BadBlocks {
        &self.bad_blocks[slot]
    }

    /// Replaces the bad blocks of a slot's member; they are on it with the next superblock.
    pub(super) fn set_bad_blocks(&mut self, slot: usize, bad: BadBlocks) {
        self.bad_blocks[slot] = bad;
        self.logs |= 1 << slot;
        self.stirred = true;
    }

    /// The slot of this member, if it is still there: one that replaces another moves.
    fn slot_of(&self, member: Uuid) -> Option<usize> {
        let is_it = |s: &Option<Superblock>| s.as_ref().is_some_and(|s| s.device_uuid == member);
        self.members.iter().position(is_it)
    }

    /// The superblock of a slot's member, as it was written last.
    pub(super) fn member(&self, slot: usize) -> Option<&Superblock> {
        self.members[slot].as_ref()
    }

    /// Whether the members have partial parity logs.
    pub(super) fn has_logs(&self) -> bool {
        let mut members = self.members.iter().flatten();
        members.any(|m| matches!(m.policy, Policy::Ppl { .. }))
    }

    /// Logical block of the members in bytes.
    pub(super) fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// Asks for superblocks that say how things are now. They are on the members once
    /// [`Metadata::durable`] is at least what this returns.
    pub(super) fn wish(&mut self) -> u64 {
        self.wished += 1;
        self.stirred = true;
        self.wished
    }

    /// Wishes that are on the members.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Asks for superblocks that say how far a process has come.
    pub(super) fn checkpoint(&mut self) {
        self.checkpoint = true;
        self.stirred = true;
    }

    /// Everything is to be given back, and the array to be clean.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.sweep_at = None;
    }

    /// Nobody waits any more for it to be clean.
    pub(super) fn closed(&mut self) {
        self.closing = false;
    }

    /// Whether the array is clean, and nothing is on its way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.commit.is_none() && !self.dirty && self.wished == self.durable && !self.checkpoint
    }

    /// Events so far.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Events when bits were cleared last, if there is a bitmap.
    pub(super) fn events_cleared(&self) -> Option<u64> {
        self.marks.as_ref().map(|m| m.header.events_cleared)
    }

    /// Whether the members say that the array is being written to.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What each device number is.
    pub(super) fn roles(&self) -> &[u16] {
        &self.roles
    }

    /// A node wants to write to a region.
    pub(super) fn intend(&mut self, node: NodeId, region: u64) {
        self.waiting.push((node, region));
        self.stirred = true;
        self.grant();
    }

    /// A node has nothing more to write to a region.
    pub(super) fn relinquish(&mut self, at: u64) {
        let region = &mut self.regions[at as usize];
        region.holders -= 1;
        self.held -= 1;
        if region.holders == 0 && self.marks.is_some() {
            self.idle.insert(at);
        }
        self.stirred = true;
    }

    /// Grants what the members say already.
    fn grant(&mut self) {
        if !self.dirty || self.durable < self.agreed {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&(node, at)| {
            let region = &mut self.regions[at as usize];
            if region.durable {
                region.holders += 1;
                self.held += 1;
                self.idle.remove(&at);
                self.written.insert(at);
                self.granted.push((node, at));
            }
            !region.durable
        });
        self.waiting = waiting;
    }

    /// How often nodes are asked for what they do not need any more.
    fn sweep_period(&self) -> Duration {
        match &self.marks {
            Some(marks) => Duration::from_secs(marks.header.daemon_sleep.max(1).into()),
            None => SAFE_MODE,
        }
    }

    /// Whether it is time for the nodes to give regions back; all that they can, if at once.
    pub(super) fn sweep(&mut self, now: Instant) -> Option<bool> {
        if self.held == 0 {
            self.sweep_at = None;
            return None;
        }
        let period = self.sweep_period();
        match self.sweep_at {
            Some(at) if at > now => None,
            None if !self.closing => {
                self.sweep_at = Some(now + period);
                None
            }
            _ => {
                let period = match self.closing {
                    true => Duration::from_millis(10),
                    false => period,
                };
                self.sweep_at = Some(now + period);
                Some(self.closing)
            }
        }
    }

    /// When there is something to do without any event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Goes on with what is to be written, as far as it can without an answer.
    pub(super) fn run(&mut self, view: &View, now: Instant) {
        loop {
            if let Some(mut commit) = self.commit.take() {
                self.pump(&mut commit, view, now);
                if !commit.is_done() {
                    self.commit = Some(commit);
                    return;
                }
                self.commit_done(&commit);
            }
            if !self.stirred && self.epoch == view.epoch {
                return;
            }
            self.commit = self.next_commit(view);
            if self.commit.is_none() {
                self.stirred = false;
                self.epoch = view.epoch;
                return;
            }
        }
    }

    /// A request to a member is done. Returns what to report of the member, if it failed.
    pub(super) fn request_done(&mut self, slot: usize, status: Status) -> Option<Status> {
        if let Some(commit) = &mut self.commit {
            commit.answered();
        }
        let is_member = self.members[slot].is_some();
        (status != Status::Ok && is_member).then_some(status)
    }

    /// What a slot's superblock is to say now.
    fn superblock(&self, slot: usize, clean: bool, now: Instant) -> Superblock {
        let mut block = self.members[slot].clone().expect("only of members");
        let chunk = u64::from(self.geometry.chunk_bytes() / 512);
        let (then, wall) = self.booted;
        let passed = now.saturating_duration_since(then).as_secs();
        block.updated = Time::from_seconds(wall.seconds() + passed);
        block.events = self.events;
        block.roles.clone_from(&self.roles);
        block.resync_offset = match (clean, self.proven.synced) {
            // With 0, whoever replays the logs takes all parity for right afterwards.
            (_, Some(rows)) if self.owes => (rows * chunk).max(FIRST_STRIPE),
            // It was made anew as a precaution, and may be taken for right.
            (_, Some(_)) if self.has_logs() => 0,
            (false, _) => 0,
            (true, Some(rows)) => rows * chunk,
            (true, None) => IN_SYNC,
        };
        let rebuilding = self.proven.rebuilt.filter(|r| r.slot == slot);
        let is_extra = slot == self.geometry.members() && self.proven.replaced.is_none();
        let replaces = self.proven.copied.filter(|_| is_extra);
        block
            .features
            .set(Features::REPLACEMENT, replaces.is_some());
        let partial = rebuilding.is_some() || replaces.is_some();
        block.features.set(Features::RECOVERY_OFFSET, partial);
        let guided = rebuilding.is_some_and(|r| r.guided);
        block.features.set(Features::RECOVERY_BITMAP, guided);
        let rows = rebuilding.map_or(0, |r| r.rows);
        block.recovery_offset = replaces.unwrap_or(rows) * chunk;
        let bad = self.logged & (1 << slot) != 0;
        block.features.set(Features::BAD_BLOCKS, bad);
        block
    }
}
