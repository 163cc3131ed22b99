//! The payload memory that the commands of an I/O queue have and wait for.

use std::collections::VecDeque;

use super::{Role, Session, Site};
use crate::memory::SegmentsMut;
use crate::nvme::Status;
use crate::nvmf::io_queue::MemoryNeed;
use crate::nvmf::payload::Shortage;
use crate::nvmf::poll_group::READ;
use crate::nvmf::tcp::{Sink, SlotId};

/// What the commands of one queue have and wait for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// A command whose data is next in the stream and has no memory yet.
    held: Option<(SlotId, MemoryNeed)>,
    /// Commands that wait for bulk memory.
    waiting: VecDeque<(SlotId, MemoryNeed)>,
    /// Whether the poll group knows that there are some.
    in_turn: bool,
    /// Bulk bytes of each command, and of all.
    charges: Vec<u32>,
    charged: usize,
}

impl Demand {
    /// It is that of a queue of so many commands.
    pub(super) fn open(&mut self, commands: usize) {
        self.charges = vec![0; commands];
    }

    fn charge(&mut self, slot: SlotId, bytes: usize) {
        self.charges[slot.index()] = bytes as u32;
        self.charged += bytes;
    }

    /// The answer of this command has left, and its memory with it.
    pub(super) fn settle(&mut self, slot: SlotId) {
        if let Some(charge) = self.charges.get_mut(slot.index()) {
            self.charged -= std::mem::take(charge) as usize;
        }
    }
}

impl Session {
    /// Whether data that is next in its stream waits for memory.
    pub fn is_held(&self) -> bool {
        self.demand.held.is_some()
    }

    /// Finds memory for the data that is next in the stream, if there is some by now.
    pub(super) fn provide_held(&mut self, site: &mut Site) {
        if let Some((slot, need)) = self.demand.held.take() {
            self.provide(slot, need, site);
        }
    }

    /// Finds memory for an I/O command, or has it wait.
    pub(super) fn provide(&mut self, slot: SlotId, need: MemoryNeed, site: &mut Site) {
        if need.at_once() {
            match site.memory.take_at_once(need.bytes, need.cuts) {
                Ok(memory) => self.connection.take_in_capsule(slot, Sink::Buffers(memory)),
                Err(Shortage::Now) => self.demand.held = Some((slot, need)),
                Err(Shortage::Ever) => {
                    self.connection.drain();
                    self.fail(slot, Status::INTERNAL_ERROR.with_do_not_retry(), site);
                }
            }
            return;
        }
        let is_free = !site.memory.is_waited_for();
        // Nobody waits, and there is enough: the rule.
        if is_free && self.demand.waiting.is_empty() && self.grant(slot, need, site).is_ok() {
            return;
        }
        self.demand.waiting.push_back((slot, need));
        if is_free {
            self.take_turn(site);
        } else {
            self.queue_up(site);
        }
    }

    /// Takes bulk memory for commands that wait, as far as there is some and this connection may
    /// have it. Says whether it failed for want of memory.
    pub fn take_turn(&mut self, site: &mut Site) -> bool {
        self.demand.in_turn = false;
        while let Some(&(slot, need)) = self.demand.waiting.front() {
            if !site.memory.within_share(self.demand.charged, need.bytes) {
                // Its own answers will make room; see `send`.
                return false;
            }
            match self.grant(slot, need, site) {
                Ok(()) => {
                    self.demand.waiting.pop_front();
                    if site.memory.is_waited_for() {
                        // One command a turn, where others wait.
                        break;
                    }
                }
                Err(Shortage::Now) => {
                    self.demand.in_turn = true;
                    site.memory.return_turn(self.place);
                    return true;
                }
                Err(Shortage::Ever) => {
                    self.demand.waiting.pop_front();
                    self.fail(slot, Status::INTERNAL_ERROR.with_do_not_retry(), site);
                }
            }
        }
        self.queue_up(site);
        false
    }

    /// Waits for a turn, if commands wait and the poll group does not know yet.
    pub(super) fn queue_up(&mut self, site: &mut Site) {
        if !self.demand.waiting.is_empty() && !self.demand.in_turn {
            self.demand.in_turn = true;
            site.memory.wait(self.place);
        }
    }

    /// Takes bulk memory for a command, which goes on with it.
    fn grant(&mut self, slot: SlotId, need: MemoryNeed, site: &mut Site) -> Result<(), Shortage> {
        let charged = self.demand.charged;
        let memory = site.memory.take_bulk(charged, need.bytes, need.cuts)?;
        self.demand.charge(slot, need.bytes);
        self.granted(slot, need, memory, site);
        Ok(())
    }

    fn granted(&mut self, slot: SlotId, need: MemoryNeed, memory: SegmentsMut, site: &mut Site) {
        let Role::Io(queue) = &mut self.role else {
            return;
        };
        let doomed = queue.doomed(slot).is_some();
        if need.from_host > 0 && !doomed {
            self.connection.request(slot, Sink::Buffers(memory));
        } else {
            let reads = need.bytes.div_ceil(READ).max(1);
            site.portion = site.portion.saturating_sub(reads);
            queue.launch(slot, memory, &mut site.devices, &mut site.outcomes);
            self.settle(site);
        }
    }

    /// Lets go of everything that waits.
    pub(super) fn demand_nothing(&mut self, site: &mut Site) {
        self.demand.held = None;
        self.demand.waiting.clear();
        if std::mem::take(&mut self.demand.in_turn) {
            site.memory.forget(self.place);
        }
    }
}
