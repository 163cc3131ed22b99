//! The commands of a queue that are not answered yet.

use super::sink::Sink;

/// A command that is not answered yet, by place in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u16);

impl SlotId {
    /// For use as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One command.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) cid: u16,
    /// Its identifier was in use by another command, and stays that one's.
    pub(super) conflicting: bool,
    /// The data that comes from the host.
    pub(super) transfer: Option<Transfer>,
}

/// Data on its way from the host.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) sink: Sink,
    pub(super) received: u32,
    pub(super) total: u32,
    /// It was asked for with an R2T, not sent in the capsule.
    pub(super) requested: bool,
    /// A data digest did not match.
    pub(super) corrupt: bool,
}

/// The command identifiers in use: a bit for each that there is, 8 KiB for a queue.
#[derive(Debug)]
struct Identifiers(Box<[u64]>);

impl Identifiers {
    fn none() -> Self {
        Self(vec![0; 1 << (16 - 6)].into_boxed_slice())
    }

    /// Puts one in; says whether it is new.
    fn insert(&mut self, cid: u16) -> bool {
        let (word, bit) = Self::place(cid);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn remove(&mut self, cid: u16) {
        let (word, bit) = Self::place(cid);
        self.0[word] &= !bit;
    }

    fn contains(&self, cid: u16) -> bool {
        let (word, bit) = Self::place(cid);
        self.0[word] & bit != 0
    }

    fn place(cid: u16) -> (usize, u64) {
        (usize::from(cid >> 6), 1 << (cid & 63))
    }
}

/// All commands of one queue; as many as the queue has entries.
#[derive(Debug)]
pub(super) struct Slots {
    table: Vec<Option<Slot>>,
    free: Vec<u16>,
    identifiers: Identifiers,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        let mut slots = Self {
            table: Vec::new(),
            free: Vec::new(),
            identifiers: Identifiers::none(),
        };
        slots.grow(count);
        slots
    }

    /// Makes room for `count` commands in all.
    pub(super) fn grow(&mut self, count: usize) {
        let before = self.table.len();
        if count <= before {
            return;
        }
        self.table.resize_with(count, || None);
        // Low places first, so that a queue at low depth stays in few cache lines.
        self.free.splice(0..0, (before as u16..count as u16).rev());
    }

    /// Puts in a command; `None` without room. The flag says whether its identifier is in use.
    pub(super) fn insert(&mut self, cid: u16) -> Option<(SlotId, bool)> {
        let place = self.free.pop()?;
        let conflicting = !self.identifiers.insert(cid);
        self.table[usize::from(place)] = Some(Slot {
            cid,
            conflicting,
            transfer: None,
        });
        Some((SlotId(place), conflicting))
    }

    pub(super) fn get(&mut self, slot: SlotId) -> Option<&mut Slot> {
        self.table.get_mut(slot.index())?.as_mut()
    }

    /// The command that a caller has been told of.
    pub(super) fn must(&mut self, slot: SlotId) -> &mut Slot {
        self.get(slot)
            .expect("a command stays until it is answered")
    }

    /// The place of the command with this identifier.
    pub(super) fn find(&self, cid: u16) -> Option<SlotId> {
        if !self.identifiers.contains(cid) {
            return None;
        }
        let is_it = |slot: &Option<Slot>| {
            let slot = slot.as_ref();
            slot.is_some_and(|s| s.cid == cid && !s.conflicting)
        };
        let place = self.table.iter().position(is_it)?;
        Some(SlotId(place as u16))
    }

    pub(super) fn remove(&mut self, slot: SlotId) {
        let gone = self.table[slot.index()].take();
        let gone = gone.expect("a command is removed once");
        if !gone.conflicting {
            self.identifiers.remove(gone.cid);
        }
        self.free.push(slot.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_in_use_is_told_and_stays_the_first_ones() {
        let mut slots = Slots::new(3);
        let (a, conflict) = slots.insert(7).unwrap();
        assert!(!conflict);
        let (b, conflict) = slots.insert(7).unwrap();
        assert!(conflict);
        slots.remove(b);
        assert!(slots.insert(7).unwrap().1);
        assert_eq!(slots.find(7), Some(a));
        slots.remove(a);
        assert_eq!(slots.find(7), None);
        assert!(!slots.insert(7).unwrap().1);
    }

    #[test]
    fn every_identifier_is_one_of_its_own() {
        let mut identifiers = Identifiers::none();
        assert!((0..=u16::MAX).all(|cid| identifiers.insert(cid)));
        for cid in [0, 63, 64, u16::MAX] {
            identifiers.remove(cid);
            let free = |&cid: &u16| !identifiers.contains(cid);
            assert_eq!((0..=u16::MAX).filter(free).collect::<Vec<_>>(), [cid]);
            assert!(identifiers.insert(cid));
            assert!(!identifiers.insert(cid));
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut slots = Slots::new(1);
        slots.insert(0).unwrap();
        assert!(slots.insert(1).is_none());
        slots.grow(3);
        assert!(slots.insert(1).is_some() && slots.insert(2).is_some());
        assert!(slots.insert(3).is_none());
    }
}
