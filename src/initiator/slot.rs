//! The commands in flight on a queue. A command's slot number is its command identifier.

use std::time::Instant;

use super::payload::Payload;
use crate::nvme::Completion;

/// One command in flight.
#[derive(Debug)]
pub(super) struct Slot {
    /// The owner's name for it.
    pub token: u64,
    /// Its data.
    pub payload: Payload,
    /// Where in the payload its data begins.
    pub base: u32,
    /// Bytes of its data.
    pub wanted: u32,
    /// Bytes of its data that the controller sent, or asked us for.
    pub moved: u32,
    /// Bytes of its data that are on their way out.
    pub unsent: u32,
    /// Whether a piece of its data arrived damaged.
    pub damaged: bool,
    /// When it was handed in; `None` where the answer may take for ever.
    pub since: Option<Instant>,
    /// The controller's answer, while the last of its data is on its way out.
    pub answer: Option<Completion>,
}

impl Slot {
    /// The buffer for the next byte of its data, and for what follows in one piece; `None` where
    /// nothing keeps it.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        self.payload.room_at((self.base + self.moved) as usize)
    }

    /// Keeps the next bytes of its data.
    pub fn fill(&mut self, bytes: &[u8]) {
        let at = (self.base + self.moved) as usize;
        self.payload.fill(at, bytes);
        self.moved += bytes.len() as u32;
    }
}

/// A fixed number of slots.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Option<Slot>]>,
    /// The slot that was freed last is used first: it is the warmest.
    free: Vec<u16>,
}

impl Slots {
    /// Room for `depth` commands.
    pub fn new(depth: u16) -> Self {
        Self {
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
        }
    }

    /// Whether there is no free slot.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Number of commands in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a command into a free slot, if there is one.
    pub fn put(&mut self, slot: Slot) -> Option<u16> {
        let id = self.free.pop()?;
        self.slots[usize::from(id)] = Some(slot);
        Some(id)
    }

    /// The command with this identifier, if there is one in flight.
    pub fn get(&self, id: u16) -> Option<&Slot> {
        self.slots.get(usize::from(id))?.as_ref()
    }

    /// Likewise, to change it.
    pub fn get_mut(&mut self, id: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(id))?.as_mut()
    }

    /// Takes a command out.
    pub fn take(&mut self, id: u16) -> Option<Slot> {
        let slot = self.slots.get_mut(usize::from(id))?.take()?;
        self.free.push(id);
        Some(slot)
    }

    /// All commands in flight.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Slot)> {
        let numbered = (0..).zip(self.slots.iter());
        numbered.filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Takes all commands out.
    pub fn drain(&mut self) -> impl Iterator<Item = Slot> {
        self.free.clear();
        self.free.extend((0..self.slots.len() as u16).rev());
        self.slots.iter_mut().filter_map(Option::take)
    }
}
