//! The array's own actor: decides what every node's view is, and has the members' metadata say
//! so. It lives on node 0, does no I/O, and speaks with the nodes by message only.
//!
//! A change goes out as a new [`View`]; when every node has confirmed it, and the members'
//! superblocks say what it relies on, everybody is told that it is settled. A rebuild, a resync
//! or a check is a row of such changes, each granting the next window of rows; see `process.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use super::VolumeError;
use super::geometry::Geometry;
use super::message::{Message, NodeId};
use super::metadata::{Metadata, MetadataConfig};
use super::mutation::{self, Mutation};
use super::ppl::LogPlace;
use super::process::{Process, ProcessOptions};
use super::regions::Regions;
use super::status::{MetadataStatus, SlotStatus, State, Status, StatusCell};
use super::view::{Degraded, Unsynced, View, Work};
use crate::bdev::{self, Bdev};
use crate::md::{BadBlocks, Superblock};

/// Where an answer of the array goes. It comes when the change has settled.
pub type Answer = mpsc::Sender<Result<(), VolumeError>>;

/// What the control thread asks of an array.
#[derive(Debug)]
pub enum Control {
    /// Take this member out. Refused when the array can't bear it.
    Remove {
        /// The member's name.
        member: String,
        /// Where the answer goes.
        answer: Answer,
    },
    /// Make this device the missing member and rebuild it.
    Add {
        /// The device.
        bdev: Arc<dyn Bdev>,
        /// What is to be written to it, if the members have metadata.
        metadata: Option<Box<NewMember>>,
        /// Where the answer goes.
        answer: Answer,
    },
    /// Make this device the mirror of a member, and put it in its place once it is.
    Replace {
        /// The member's name.
        member: String,
        /// The device.
        bdev: Arc<dyn Bdev>,
        /// What is to be written to it, if the members have metadata.
        metadata: Option<Box<NewMember>>,
        /// Where the answer goes.
        answer: Answer,
    },
    /// Rebuild, resync and check at this pace from now on.
    Pace(ProcessOptions),
    /// Begin a check or a repair.
    Start(Work, Answer),
    /// Leave a check or repair, or put off a rebuild or resync until it is resumed.
    Pause(bool, Answer),
    /// Take parity that may not match for what it should be: some blocks of the missing member
    /// may come out wrong.
    AcceptParity(Answer),
    /// Have the members say that the array is clean, as soon as nothing is written.
    Close(Answer),
}

/// The metadata of a device that becomes a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Its superblock: who it is, and where it has what.
    pub superblock: Superblock,
    /// Ranges that it is known not to hold.
    pub bad_blocks: BadBlocks,
    /// It was a member before, and lacks only what the write-intent bitmap says.
    pub returns: bool,
}

#[derive(Debug)]
pub(super) struct Array {
    pub(super) geometry: Geometry,
    pub(super) nodes: usize,
    pub(super) view: Arc<View>,
    /// Nodes that have not confirmed the view.
    pub(super) unconfirmed: BTreeSet<NodeId>,
    /// The slots, and behind them the place of a member that is to replace another.
    pub(super) slots: Vec<Slot>,
    pub(super) process: Option<Process>,
    /// Processes that have to be done wait until they are resumed.
    pub(super) paused: bool,
    /// A removal whose view has not settled.
    removing: Option<(u64, Answer)>,
    /// An addition that not every node has opened.
    adding: Option<Adding>,
    closing: Vec<Answer>,
    pub(super) options: ProcessOptions,
    pub(super) metadata: Option<Metadata>,
    /// The superblocks that must be on the members before the view can settle.
    pub(super) gate: u64,
    settled: u64,
    pub(super) status: StatusCell,
    /// Messages to nodes, this one included.
    pub(super) outbox: VecDeque<(NodeId, Message)>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Option<String>,
    generation: u32,
    /// Nodes that still have the member of this slot open.
    open: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Adding {
    slot: usize,
    /// The slot of the member that it is to replace.
    replaces: Option<usize>,
    waiting: BTreeSet<NodeId>,
    error: Option<String>,
    metadata: Option<Box<NewMember>>,
    answer: Answer,
}

/// What an array's actor is made of.
#[derive(Debug)]
pub(super) struct ArrayConfig<'a> {
    pub geometry: Geometry,
    pub block_bytes: u32,
    pub nodes: usize,
    pub view: Arc<View>,
    /// Names of the members, `None` for one missing.
    pub members: &'a [Option<String>],
    pub metadata: Option<MetadataConfig>,
    pub status: StatusCell,
}

impl Array {
    /// The actor of an array. What its view says has to be done, it begins to do.
    pub(super) fn new(config: ArrayConfig<'_>) -> Self {
        let ArrayConfig {
            geometry,
            block_bytes,
            nodes,
            view,
            members,
            metadata,
            status,
        } = config;
        let slots = members
            .iter()
            .chain([&None])
            .map(|name| Slot {
                name: name.clone(),
                generation: 0,
                open: name.iter().flat_map(|_| 0..nodes).collect(),
            })
            .collect();
        let metadata = metadata.map(|m| Metadata::new(m, geometry, block_bytes, &view));
        let view_epoch = view.epoch;
        let mut array = Self {
            geometry,
            nodes,
            view,
            unconfirmed: BTreeSet::new(),
            slots,
            process: None,
            paused: false,
            removing: None,
            adding: None,
            closing: Vec::new(),
            options: ProcessOptions::default(),
            metadata,
            gate: 0,
            // All nodes begin with it.
            settled: view_epoch,
            status,
            outbox: VecDeque::new(),
        };
        array.begin_due();
        array.show();
        array
    }

    /// When something is to be done without any message.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let process = self.process.as_ref().and_then(Process::deadline);
        let metadata = self.metadata.as_ref().and_then(Metadata::deadline);
        process.into_iter().chain(metadata).min()
    }

    /// Does what its time has come for.
    pub(super) fn tick(&mut self, now: Instant) {
        self.grant_window(now);
        let Some(metadata) = &mut self.metadata else {
            return self.end_closing();
        };
        if let Some(at_once) = metadata.sweep(now) {
            for node in 0..self.nodes {
                self.outbox.push_back((node, Message::Sweep { at_once }));
            }
        }
        let before = (metadata.events(), metadata.is_dirty());
        metadata.run(&self.view, now);
        let changed = before != (metadata.events(), metadata.is_dirty());
        for (node, region) in metadata.granted.drain(..) {
            self.outbox.push_back((node, Message::Granted(region)));
        }
        if metadata.has_handed_over() {
            self.promote();
        }
        self.settle();
        self.end_closing();
        if changed {
            self.show();
        }
    }

    /// A write to a member's metadata is done.
    pub(super) fn metadata_done(&mut self, bay: usize, status: bdev::Status) {
        let slot = self.view.slot_in(bay);
        let metadata = self.metadata.as_mut().expect("it has asked");
        if let Some(why) = metadata.request_done(slot, status) {
            self.lose(slot, why);
        }
    }

    /// A message from a node to the array.
    pub(super) fn receive(&mut self, from: NodeId, message: Message, now: Instant) {
        match message {
            Message::Confirm(epoch) => {
                if epoch == self.view.epoch && self.unconfirmed.remove(&from) {
                    self.settle();
                }
            }
            Message::Failed {
                bay,
                generation,
                status,
            } => {
                let slot = self.view.slot_in(bay);
                if self.slots[slot].generation == generation {
                    self.lose(slot, status);
                }
            }
            Message::Bad {
                bay,
                generation,
                stripe,
            } => {
                let slot = self.view.slot_in(bay);
                if self.slots[slot].generation == generation {
                    self.note_bad(slot, stripe);
                }
            }
            Message::Good {
                bay,
                generation,
                stripe,
            } => {
                let slot = self.view.slot_in(bay);
                if self.slots[slot].generation == generation {
                    self.note_good(slot, stripe);
                }
            }
            Message::Attached { bay, error } => {
                self.attached(from, self.view.slot_in(bay), error, now);
            }
            Message::Drained { bay } => {
                let slot = self.view.slot_in(bay);
                self.slots[slot].open.remove(&from);
            }
            Message::Worked { epoch, found } => self.worked(from, epoch, found, now),
            Message::Intend(region) => {
                let metadata = self
                    .metadata
                    .as_mut()
                    .expect("nodes ask only with metadata");
                metadata.intend(from, region);
            }
            Message::Relinquish(region) => {
                let metadata = self
                    .metadata
                    .as_mut()
                    .expect("nodes ask only with metadata");
                metadata.relinquish(region);
            }
            other => unreachable!("not a message to the array: {other:?}"),
        }
    }

    /// A request of the control thread.
    pub(super) fn control(&mut self, control: Control) {
        match control {
            Control::Remove { member, answer } => match self.may_remove(&member) {
                Ok(slot) => {
                    tracing::info!(member, slot, "member removed");
                    self.drop_member(slot);
                    self.removing = Some((self.view.epoch, answer));
                }
                Err(error) => reply(&answer, Err(error)),
            },
            Control::Add {
                bdev,
                metadata,
                answer,
            } => match self.may_add(&*bdev, metadata.as_deref()) {
                Ok(slot) => self.attach(slot, None, bdev, metadata, answer),
                Err(error) => reply(&answer, Err(error)),
            },
            Control::Replace {
                member,
                bdev,
                metadata,
                answer,
            } => match self.may_replace(&member, &*bdev, metadata.as_deref()) {
                Ok(slot) => {
                    let place = self.geometry.members();
                    self.attach(place, Some(slot), bdev, metadata, answer);
                }
                Err(error) => reply(&answer, Err(error)),
            },
            Control::Pace(options) => self.options = options,
            Control::Start(work, answer) => {
                let started = self.start(work);
                reply(&answer, started);
            }
            Control::Pause(pause, answer) => {
                self.pause(pause);
                reply(&answer, Ok(()));
            }
            Control::AcceptParity(answer) => {
                let accepted = self.accept_parity();
                reply(&answer, accepted);
            }
            Control::Close(answer) => {
                if let Some(metadata) = self.metadata.as_mut().filter(|_| self.view.online) {
                    if self.process.is_some() {
                        metadata.checkpoint();
                    }
                    metadata.close();
                    self.closing.push(answer);
                } else {
                    reply(&answer, Ok(()));
                }
            }
        }
    }

    /// Answers who waits for a clean array, once it is.
    fn end_closing(&mut self) {
        if self.closing.is_empty() {
            return;
        }
        let at_rest = self.metadata.as_ref().is_none_or(Metadata::is_at_rest);
        if at_rest || !self.view.online {
            if let Some(metadata) = &mut self.metadata {
                metadata.closed();
            }
            for answer in self.closing.drain(..) {
                reply(&answer, Ok(()));
            }
        }
    }

    fn may_remove(&self, member: &str) -> Result<usize, VolumeError> {
        let named = |s: &Slot| s.name.as_deref() == Some(member);
        let Some(slot) = self.slots.iter().position(named) else {
            return Err(VolumeError::NoSuchMember(member.to_owned()));
        };
        if self.adding.is_some() || self.removing.is_some() {
            return Err(VolumeError::Changing);
        }
        match &self.view.degraded {
            Some(d) if d.slot != slot => Err(VolumeError::LastRedundancy(member.to_owned())),
            _ if !self.view.online => Err(VolumeError::Offline),
            None if self.view.unsynced.as_ref().is_some_and(|u| !u.fresh) => {
                Err(VolumeError::LastRedundancy(member.to_owned()))
            }
            _ => Ok(slot),
        }
    }

    fn may_add(&self, bdev: &dyn Bdev, metadata: Option<&NewMember>) -> Result<usize, VolumeError> {
        if self.adding.is_some() || self.removing.is_some() {
            return Err(VolumeError::Changing);
        }
        if !self.view.online {
            return Err(VolumeError::Offline);
        }
        let free = self.view.degraded.as_ref().filter(|d| !d.attached);
        let Some(d) = free else {
            return Err(VolumeError::NoFreeSlot);
        };
        if self.is_doubtful() {
            return Err(VolumeError::Doubtful);
        }
        // Until the loss has settled, rounds may wait for that; they would not know the new member
        // from the old one.
        if !self.slots[d.slot].open.is_empty() || self.settled != self.view.epoch {
            return Err(VolumeError::Changing);
        }
        self.check_device(bdev, metadata)?;
        Ok(d.slot)
    }

    /// Whether a device has room for all that a member has.
    pub(super) fn check_device(
        &self,
        bdev: &dyn Bdev,
        metadata: Option<&NewMember>,
    ) -> Result<(), VolumeError> {
        let data_offset = metadata.map_or(0, |m| m.superblock.data_offset * 512);
        let bytes = bdev.info().bytes();
        let needed = data_offset + self.geometry.member_bytes();
        if bytes < needed {
            return Err(VolumeError::MemberTooSmall {
                name: bdev.info().name.clone(),
                bytes,
                needed,
            });
        }
        if let Some(kept) = self.metadata.as_ref().filter(|m| m.has_logs()) {
            let place = metadata.and_then(|m| LogPlace::of(&m.superblock));
            let stripe_bytes = self.geometry.stripe_bytes();
            if !place.is_some_and(|place| place.suits(stripe_bytes, kept.block_bytes())) {
                return Err(VolumeError::NoLog(bdev.info().name.clone()));
            }
        }
        Ok(())
    }

    /// Whether a change of members is under way.
    pub(super) fn is_changing(&self) -> bool {
        self.adding.is_some()
            || self.removing.is_some()
            || self.view.replacement.is_some()
            || !self.slots[self.geometry.members()].open.is_empty()
            || self.settled != self.view.epoch
    }

    fn accept_parity(&mut self) -> Result<(), VolumeError> {
        if !self.is_doubtful() {
            return Err(VolumeError::NotDoubtful);
        }
        tracing::warn!("parity is taken for right as it is, by command");
        // Where the member holds what it should there is no doubt: parity is made anew there, when
        // the rest of the member is.
        let rows = self.geometry.rows();
        let mut held = Regions::new(rows, 1);
        let certain = |&row: &u64| !self.view.in_sync(row) && !self.is_doubtful_in(row);
        (0..rows).filter(certain).for_each(|row| held.insert(row));
        if let Some(metadata) = &mut self.metadata {
            if held.is_empty() {
                metadata.trust();
            }
            self.gate = metadata.wish();
        }
        let mut view = self.next_view();
        view.unsynced = (!held.is_empty()).then(|| Unsynced {
            from: 0,
            regions: Some(Arc::new(held)),
            fresh: false,
        });
        self.publish(view);
        self.begin_due();
        Ok(())
    }

    /// Whether some blocks could only be told from parity that may not match.
    pub(super) fn is_doubtful(&self) -> bool {
        self.view.unsynced.is_some()
            && self.view.degraded.is_some()
            && (0..self.geometry.rows()).any(|row| self.is_doubtful_in(row))
    }

    fn is_doubtful_in(&self, row: u64) -> bool {
        let lost = self.view.degraded.as_ref();
        lost.is_some_and(|d| self.view.doubtful(d.slot, row))
    }

    /// A member can't be used any more. Another one may be missing already: then it is the end.
    pub(super) fn lose(&mut self, slot: usize, why: bdev::Status) {
        if slot >= self.geometry.members() {
            return self.cancel_replacement(Some(why));
        }
        let known = match &self.view.degraded {
            Some(d) if d.slot == slot => !d.attached,
            _ => false,
        };
        if known || !self.view.online {
            return;
        }
        let name = self.slots[slot].name.clone().unwrap_or_default();
        if self.view.degraded.as_ref().is_some_and(|d| d.slot != slot) {
            tracing::error!(member = name, %why, "second member failed: volume offline");
            self.process = None;
            let mut view = self.next_view();
            view.online = false;
            return self.publish(view);
        }
        tracing::warn!(member = name, %why, "member failed: volume degraded");
        self.drop_member(slot);
    }

    pub(super) fn drop_member(&mut self, slot: usize) {
        self.cancel_replacement(None);
        self.process = None;
        self.slots[slot].name = None;
        let mut view = self.next_view();
        view.degraded = Some(Degraded::lost(slot));
        if view.unsynced.as_ref().is_some_and(|u| u.fresh) {
            // All that was ever written has parity that matches, and the rest has no meaning.
            view.unsynced = None;
            if let Some(metadata) = &mut self.metadata {
                metadata.trust();
            }
        }
        if view.unsynced.is_some() {
            tracing::error!(
                "a member is lost while parity may not match: blocks that only parity could tell \
                 are refused until they are accepted as they are, or the member comes back"
            );
        }
        if let Some(metadata) = &mut self.metadata {
            metadata.lose(slot);
            self.gate = metadata.wish();
        }
        self.publish(view);
    }

    fn attach(
        &mut self,
        slot: usize,
        replaces: Option<usize>,
        bdev: Arc<dyn Bdev>,
        metadata: Option<Box<NewMember>>,
        answer: Answer,
    ) {
        let generation = self.slots[slot].generation + 1;
        self.slots[slot] = Slot {
            name: Some(bdev.info().name.clone()),
            generation,
            open: (0..self.nodes).collect(),
        };
        let superblock = metadata.as_ref().map(|m| &m.superblock);
        let data_offset = superblock.map_or(0, |s| s.data_offset * 512);
        let bad_block_log = superblock.is_some_and(|s| s.bad_block_log.size > 0);
        let log = superblock.and_then(LogPlace::of);
        self.adding = Some(Adding {
            slot,
            replaces,
            waiting: (0..self.nodes).collect(),
            error: None,
            metadata,
            answer,
        });
        for node in 0..self.nodes {
            let bdev = bdev.clone();
            let message = Message::Attach {
                bay: self.view.bay(slot),
                generation,
                bdev,
                data_offset,
                bad_block_log,
                log,
            };
            self.outbox.push_back((node, message));
        }
    }

    fn attached(&mut self, from: NodeId, slot: usize, error: Option<String>, now: Instant) {
        let Some(adding) = self.adding.as_mut().filter(|a| a.slot == slot) else {
            return;
        };
        adding.waiting.remove(&from);
        adding.error = adding.error.take().or(error);
        if !adding.waiting.is_empty() {
            return;
        }
        let Adding {
            error,
            answer,
            metadata,
            replaces,
            ..
        } = self.adding.take().expect("looked at above");
        if !self.view.online {
            return reply(&answer, Err(VolumeError::Offline));
        }
        // A member may have been lost while nodes opened the one that was to replace another.
        let too_late = replaces.is_some() && self.view.degraded.is_some();
        if error.is_some() || too_late {
            let name = self.slots[slot].name.take().unwrap_or_default();
            // The same view again: nodes close what it does not hold to be there.
            let view = self.next_view();
            self.publish(view);
            let why = match error {
                Some(reason) => VolumeError::Open { name, reason },
                None => VolumeError::NotWhole,
            };
            return reply(&answer, Err(why));
        }
        if let Some(replaced) = replaces {
            self.begin_replacement(replaced, metadata, now);
            return reply(&answer, Ok(()));
        }
        let mut degraded = Degraded {
            attached: true,
            ..Degraded::lost(slot)
        };
        if let (Some(new), Some(kept)) = (metadata, &mut self.metadata) {
            if new.returns {
                degraded.stale = kept.marked().map(Arc::new);
            }
            let guided = degraded.stale.is_some();
            kept.gain(slot, slot, new.superblock, new.bad_blocks, guided);
            self.gate = kept.wish();
        }
        let mut view = self.next_view();
        view.degraded = Some(degraded);
        view.bad = self.bad_ranges();
        self.process = Some(Process::new(Work::Rebuild(slot), 0, now));
        self.publish(view);
        reply(&answer, Ok(()));
    }

    /// The view that follows, the same as now, without a window.
    pub(super) fn next_view(&self) -> View {
        View {
            epoch: self.view.epoch + 1,
            window: None,
            ..(*self.view).clone()
        }
    }

    /// Sends out a view.
    pub(super) fn publish(&mut self, view: View) {
        self.view = Arc::new(view);
        self.unconfirmed = (0..self.nodes).collect();
        for node in 0..self.nodes {
            let message = Message::Adopt(self.view.clone());
            self.outbox.push_back((node, message));
        }
        self.show();
    }

    /// Tells everybody once the view is in force everywhere, and on the members.
    fn settle(&mut self) {
        let epoch = self.view.epoch;
        let durable = self
            .metadata
            .as_ref()
            .is_none_or(|m| m.durable() >= self.gate || mutation::on(Mutation::D3));
        // An array that is offline writes no superblocks any more; and nobody waits for them.
        if self.settled == epoch || !self.unconfirmed.is_empty() || (!durable && self.view.online) {
            return;
        }
        self.settled = epoch;
        for node in 0..self.nodes {
            self.outbox.push_back((node, Message::Settled(epoch)));
        }
        if let Some((since, answer)) = self.removing.take() {
            debug_assert!(since <= epoch);
            reply(&answer, Ok(()));
        }
        self.show();
    }

    /// What the outside may see now.
    pub(super) fn seen(&self) -> super::status::Status {
        self.show();
        self.status.read()
    }

    /// Publishes what the outside may see.
    pub(super) fn show(&self) {
        let view = &self.view;
        let members = self.slots[..self.geometry.members()].iter().enumerate();
        let slots = members.map(|(at, slot)| SlotStatus {
            name: slot.name.clone(),
            in_sync: view.online && view.degraded.as_ref().is_none_or(|d| d.slot != at),
        });
        let slots = slots.collect();
        // A member that nodes are opening is named already, and is not rebuilt yet.
        let opening = self.adding.as_ref().filter(|a| a.replaces.is_none());
        let opening = opening.map(|a| Process::new(Work::Rebuild(a.slot), 0, Instant::now()));
        // A member that is the same as another by now is about to replace it, once the superblocks say so.
        let replacing = view.replacement.as_ref();
        let replacing = replacing
            .map(|r| Process::new(Work::Replace(r.slot), self.geometry.rows(), Instant::now()));
        let process = self.process.as_ref().or(opening.as_ref());
        let process = process.or(replacing.as_ref());
        let process = process.map(|p| p.status(self));
        let state = match view.online {
            true => State::Online,
            false => State::Offline,
        };
        let metadata = self.metadata.as_ref().map(|m| MetadataStatus {
            events: m.events(),
            events_cleared: m.events_cleared(),
            dirty: m.is_dirty(),
            roles: m.roles().to_vec(),
            superblocks: (0..self.slots.len())
                .map(|s| m.member(s).cloned())
                .collect(),
        });
        let doubtful = view.unsynced.is_some() && view.degraded.is_some();
        self.status.update(|status| {
            *status = Status {
                state,
                slots,
                process,
                paused: self.paused,
                in_sync: view.unsynced.is_none(),
                doubtful,
                metadata,
                last_process_error: status.last_process_error.take(),
                mismatches: status.mismatches,
            };
        });
    }
}

pub(super) fn reply(answer: &Answer, result: Result<(), VolumeError>) {
    // Whoever asked may have stopped waiting; the change stands all the same.
    let _ = answer.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bdev::Null;
    use crate::raid::Layout;

    /// Whoever waits for an array to be whole looks at names and process, at any time.
    #[test]
    fn a_member_that_is_named_and_not_in_sync_is_being_rebuilt() {
        let layout = Layout::LeftSymmetric;
        let status = StatusCell::new();
        let mut array = Array::new(ArrayConfig {
            geometry: Geometry::new(3, 1 << 20, 64 << 10, 4096, layout).unwrap(),
            block_bytes: 4096,
            nodes: 2,
            view: Arc::new(View::first(Some(1))),
            members: &[Some("a".into()), None, Some("c".into())],
            metadata: None,
            status: status.clone(),
        });
        let (answer, _answered) = mpsc::channel();
        array.control(Control::Add {
            bdev: Null::new("b", 4096, 256, None).unwrap(),
            metadata: None,
            answer,
        });
        let looks_whole = |status: &Status| {
            status.slots.iter().all(|s| s.name.is_some()) && status.process.is_none()
        };
        array.show();
        assert!(!looks_whole(&status.read()), "nodes are opening it");
        let now = Instant::now();
        for node in 0..2 {
            let opened = Message::Attached {
                bay: 1,
                error: None,
            };
            array.receive(node, opened, now);
            let status = status.read();
            assert!(!looks_whole(&status), "it holds nothing yet");
            let target = status.process.and_then(|p| p.target);
            assert!(target.is_none_or(|t| t == "b"));
        }
    }
}
