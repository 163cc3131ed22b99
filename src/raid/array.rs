//! The array's own actor: decides what every node's view is. It lives on node 0, does no I/O, and
//! speaks with the nodes by message only.
//!
//! A change goes out as a new [`View`]; when every node has confirmed it, everybody is told that
//! it is settled. A rebuild is a row of such changes, each granting the next window of rows.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::VolumeError;
use super::geometry::Geometry;
use super::message::{Message, NodeId};
use super::status::{Process, SlotStatus, State, Status, StatusCell};
use super::view::{Degraded, View};
use crate::bdev::{self, Bdev};

/// What the control thread asks of an array. The answer comes when the change has settled.
#[derive(Debug)]
pub enum Control {
    /// Take this member out. Refused when the array can't bear it.
    Remove {
        /// The member's name.
        member: String,
        /// Where the answer goes.
        answer: mpsc::Sender<Result<(), VolumeError>>,
    },
    /// Make this device the missing member and rebuild it.
    Add {
        /// The device.
        bdev: Arc<dyn Bdev>,
        /// Where the answer goes.
        answer: mpsc::Sender<Result<(), VolumeError>>,
    },
    /// Rebuild at this pace from now on.
    Pace(RebuildOptions),
}

/// How fast a rebuild may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Bytes of a member that are rebuilt under one view.
    pub window_bytes: u64,
    /// Bytes of a member per second; 0 is no limit.
    pub bytes_per_second: u64,
}

impl Default for RebuildOptions {
    fn default() -> Self {
        Self {
            window_bytes: 4 << 20,
            bytes_per_second: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Array {
    geometry: Geometry,
    nodes: usize,
    view: Arc<View>,
    /// Nodes that have not confirmed the view.
    unconfirmed: BTreeSet<NodeId>,
    slots: Vec<Slot>,
    rebuild: Option<Rebuild>,
    /// A removal whose view has not settled.
    removing: Option<(u64, mpsc::Sender<Result<(), VolumeError>>)>,
    /// An addition that not every node has opened.
    adding: Option<Adding>,
    options: RebuildOptions,
    status: StatusCell,
    /// Messages to nodes, this one included.
    pub(super) outbox: VecDeque<(NodeId, Message)>,
}

#[derive(Debug)]
struct Slot {
    name: Option<String>,
    generation: u32,
    /// Nodes that still have the member of this slot open.
    open: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Adding {
    slot: usize,
    waiting: BTreeSet<NodeId>,
    error: Option<String>,
    answer: mpsc::Sender<Result<(), VolumeError>>,
}

#[derive(Debug)]
struct Rebuild {
    slot: usize,
    /// Nodes that have not finished the window of the view's epoch.
    waiting: BTreeSet<NodeId>,
    /// When the next window may be granted.
    next_at: Option<Instant>,
}

impl Array {
    /// The actor of an array over `nodes` nodes. `members` are the names, `None` for one missing.
    pub(super) fn new(
        geometry: Geometry,
        nodes: usize,
        view: Arc<View>,
        members: &[Option<String>],
        status: StatusCell,
    ) -> Self {
        let slots = members
            .iter()
            .map(|name| Slot {
                name: name.clone(),
                generation: 0,
                open: name.iter().flat_map(|_| 0..nodes).collect(),
            })
            .collect();
        let array = Self {
            geometry,
            nodes,
            view,
            unconfirmed: BTreeSet::new(),
            slots,
            rebuild: None,
            removing: None,
            adding: None,
            options: RebuildOptions::default(),
            status,
            outbox: VecDeque::new(),
        };
        array.show();
        array
    }

    /// When something is to be done without any message.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rebuild.as_ref()?.next_at
    }

    /// Grants the next window of a rebuild if its time has come.
    pub(super) fn tick(&mut self, now: Instant) {
        let Some(rebuild) = &mut self.rebuild else {
            return;
        };
        let due = rebuild.next_at.is_some_and(|at| at <= now);
        if !due || !rebuild.waiting.is_empty() || !self.unconfirmed.is_empty() {
            return;
        }
        rebuild.next_at = None;
        let slot = rebuild.slot;
        let done = self.view.degraded.map_or(0, |d| d.window);
        if done >= self.geometry.rows() {
            self.rebuild = None;
            self.publish(None);
            return;
        }
        let chunk = u64::from(self.geometry.chunk_bytes());
        let rows = (self.options.window_bytes / chunk).max(1);
        let window = (done + rows).min(self.geometry.rows());
        let pace = match self.options.bytes_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(((window - done) * chunk) as f64 / rate as f64),
        };
        rebuild.next_at = Some(now + pace);
        rebuild.waiting = (0..self.nodes).collect();
        self.publish(Some(Degraded {
            slot,
            rebuilt: done,
            window,
        }));
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
                slot,
                generation,
                status,
            } => {
                if self.slots[slot].generation == generation {
                    self.lose(slot, status);
                }
            }
            Message::Attached { slot, error } => self.attached(from, slot, error, now),
            Message::Drained { slot } => {
                self.slots[slot].open.remove(&from);
            }
            Message::Rebuilt { epoch, unreadable } => self.rebuilt(from, epoch, unreadable),
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
            Control::Add { bdev, answer } => match self.may_add(&*bdev) {
                Ok(slot) => self.attach(slot, bdev, answer),
                Err(error) => reply(&answer, Err(error)),
            },
            Control::Pace(options) => self.options = options,
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
        match self.view.degraded {
            Some(d) if d.slot != slot => Err(VolumeError::LastRedundancy(member.to_owned())),
            _ if !self.view.online => Err(VolumeError::Offline),
            _ => Ok(slot),
        }
    }

    fn may_add(&self, bdev: &dyn Bdev) -> Result<usize, VolumeError> {
        if self.adding.is_some() || self.removing.is_some() {
            return Err(VolumeError::Changing);
        }
        if !self.view.online {
            return Err(VolumeError::Offline);
        }
        let Some(d) = self
            .view
            .degraded
            .filter(|d| d.window == 0 && self.rebuild.is_none())
        else {
            return Err(VolumeError::NoFreeSlot);
        };
        if !self.slots[d.slot].open.is_empty() {
            return Err(VolumeError::Changing);
        }
        let bytes = bdev.info().bytes();
        if bytes < self.geometry.member_bytes() {
            return Err(VolumeError::MemberTooSmall {
                name: bdev.info().name.clone(),
                bytes,
                needed: self.geometry.member_bytes(),
            });
        }
        Ok(d.slot)
    }

    /// A member failed. Without it the array is degraded, or offline if it was already.
    fn lose(&mut self, slot: usize, why: bdev::Status) {
        let degraded = self.view.degraded;
        let known = match degraded {
            Some(d) => d.slot == slot && d.window == 0,
            None => false,
        };
        if known || !self.view.online {
            return;
        }
        let name = self.slots[slot].name.clone().unwrap_or_default();
        if degraded.is_some_and(|d| d.slot != slot) {
            tracing::error!(member = name, %why, "second member failed: volume offline");
            self.rebuild = None;
            self.change(View {
                epoch: self.view.epoch + 1,
                online: false,
                degraded,
            });
            return;
        }
        tracing::warn!(member = name, %why, "member failed: volume degraded");
        self.drop_member(slot);
    }

    fn drop_member(&mut self, slot: usize) {
        self.rebuild = None;
        self.slots[slot].name = None;
        self.publish(Some(Degraded {
            slot,
            rebuilt: 0,
            window: 0,
        }));
    }

    fn attach(
        &mut self,
        slot: usize,
        bdev: Arc<dyn Bdev>,
        answer: mpsc::Sender<Result<(), VolumeError>>,
    ) {
        let generation = self.slots[slot].generation + 1;
        self.slots[slot] = Slot {
            name: Some(bdev.info().name.clone()),
            generation,
            open: (0..self.nodes).collect(),
        };
        self.adding = Some(Adding {
            slot,
            waiting: (0..self.nodes).collect(),
            error: None,
            answer,
        });
        for node in 0..self.nodes {
            let bdev = bdev.clone();
            let message = Message::Attach {
                slot,
                generation,
                bdev,
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
        let Adding { error, answer, .. } = self.adding.take().expect("looked at above");
        if !self.view.online {
            return reply(&answer, Err(VolumeError::Offline));
        }
        if let Some(reason) = error {
            let name = self.slots[slot].name.take().unwrap_or_default();
            // The same view again: nodes close what it does not hold to be there.
            self.publish(self.view.degraded);
            return reply(&answer, Err(VolumeError::Open { name, reason }));
        }
        self.rebuild = Some(Rebuild {
            slot,
            waiting: BTreeSet::new(),
            next_at: Some(now),
        });
        self.show();
        reply(&answer, Ok(()));
    }

    fn rebuilt(&mut self, from: NodeId, epoch: u64, unreadable: Option<u64>) {
        if epoch != self.view.epoch {
            return;
        }
        let Some(rebuild) = &mut self.rebuild else {
            return;
        };
        rebuild.waiting.remove(&from);
        if let Some(stripe) = unreadable {
            let slot = rebuild.slot;
            let offset = self.geometry.member_offset(stripe);
            let why = format!(
                "another member can't be read at byte {offset}: write there anew, or replace that member"
            );
            tracing::error!(why, "rebuild stopped");
            self.drop_member(slot);
            self.status.update(|s| s.last_process_error = Some(why));
        }
    }

    /// Sends out a view with this member not in sync.
    fn publish(&mut self, degraded: Option<Degraded>) {
        self.change(View {
            epoch: self.view.epoch + 1,
            online: self.view.online,
            degraded,
        });
    }

    fn change(&mut self, view: View) {
        self.view = Arc::new(view);
        self.unconfirmed = (0..self.nodes).collect();
        for node in 0..self.nodes {
            let message = Message::Adopt(self.view.clone());
            self.outbox.push_back((node, message));
        }
        self.show();
    }

    fn settle(&mut self) {
        if !self.unconfirmed.is_empty() {
            return;
        }
        let epoch = self.view.epoch;
        for node in 0..self.nodes {
            self.outbox.push_back((node, Message::Settled(epoch)));
        }
        if let Some((since, answer)) = self.removing.take() {
            debug_assert!(since <= epoch);
            reply(&answer, Ok(()));
        }
        self.show();
    }

    /// Publishes what the outside may see.
    fn show(&self) {
        let view = &self.view;
        let rebuild = self.rebuild.as_ref().map(|r| r.slot);
        let slots = self.slots.iter().enumerate().map(|(at, slot)| SlotStatus {
            name: slot.name.clone(),
            in_sync: view.online && view.degraded.is_none_or(|d| d.slot != at),
        });
        let slots = slots.collect();
        let process = rebuild.map(|slot| Process {
            target: self.slots[slot].name.clone().unwrap_or_default(),
            rows_done: view.degraded.map_or(0, |d| d.rebuilt),
            rows: self.geometry.rows(),
        });
        let state = match view.online {
            true => State::Online,
            false => State::Offline,
        };
        self.status.update(|status| {
            *status = Status {
                state,
                slots,
                process,
                last_process_error: status.last_process_error.take(),
            };
        });
    }
}

fn reply(answer: &mpsc::Sender<Result<(), VolumeError>>, result: Result<(), VolumeError>) {
    // Whoever asked may have stopped waiting; the change stands all the same.
    let _ = answer.send(result);
}
