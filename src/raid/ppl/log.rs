//! The log of one member: what is to be noted, what its newest header says, and the write between.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::LogPlace;
use super::entries::{self, Record};
use super::flush::Flushed;
use super::logs::Means;
use crate::bdev::Status;
use crate::md::ppl::{ENTRIES_MAX, HEADER_BYTES};
use crate::md::{PplArea, PplHeader, SECTOR};
use crate::memory::{Buf, BufMut, Segments};
use crate::raid::message::{Message, NodeId};
use crate::raid::mutation::{self, Mutation};

/// Stripes for which there is room at first.
const STRIPES: usize = 512;

#[derive(Debug)]
pub(super) struct Log {
    bay: usize,
    /// Which member of the bay.
    pub generation: u32,
    /// First byte of the area on the member.
    start: u64,
    area: PplArea,
    /// The newest header, or the one being written.
    header: PplHeader,
    notes: Slab<Note>,
    /// Notes that are in the newest header, or in the one being written, by stripe.
    by_stripe: FxHashMap<u64, u32>,
    /// Notes that are in no header, in order of arrival.
    waiting: VecDeque<u32>,
    /// Notes of open stripes, which every new header carries.
    open: Vec<u32>,
    /// Bytes of partial parity of those.
    open_bytes: u64,
    /// Notes that must be out of the newest header, and those that are out of the one being
    /// written.
    strikes: Vec<u32>,
    striking: Vec<u32>,
    write: Option<Write>,
    /// New notes of the header being written.
    fresh: Vec<u32>,
    /// Notes of a header in the order of its entries.
    order: Vec<u32>,
    /// Nodes whose pages are free when the present write has ended.
    late: u64,
    /// The member is not lost.
    alive: bool,
}

/// What is known of a stripe.
#[derive(Debug)]
struct Note {
    record: Record,
    /// The node that owns the stripe.
    from: NodeId,
    state: State,
    /// It was counted as waiting.
    waited: bool,
    /// Where it is in [`Log::open`].
    place: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In no header.
    Waiting,
    /// In the header being written.
    Writing,
    /// Its entry is on the medium, and its round writes.
    Open,
    /// Its round has ended.
    Ended(Left),
    /// It must be out of the newest header.
    Struck,
}

/// What must be so before the entry of a stripe is dropped whose round has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The members in these bays have flushed their caches,
    pub bays: u64,
    /// with a flush that began after this one;
    pub flush: u64,
    /// every node, and every superblock, knows what this view says;
    pub epoch: u64,
    /// and the owner waits until it is dropped.
    pub strike: bool,
}

/// A header on its way to the member.
#[derive(Debug, Default)]
struct Write {
    in_flight: u32,
    failed: bool,
    /// What follows when all before is on the medium, one step after the other: where, and what.
    then: [Option<(u64, Segments)>; 2],
}

impl Log {
    /// A log without entries; `None` where the place is too small for any.
    pub(super) fn new(
        bay: usize,
        generation: u32,
        place: LogPlace,
        signature: u32,
    ) -> Option<Self> {
        let mut by_stripe = FxHashMap::default();
        by_stripe.reserve(STRIPES);
        Some(Self {
            bay,
            generation,
            start: place.start,
            area: PplArea::new(place.sectors)?,
            header: PplHeader {
                signature,
                generation: 0,
                entries: Vec::with_capacity(ENTRIES_MAX),
            },
            notes: Slab::with_capacity(STRIPES),
            by_stripe,
            waiting: VecDeque::with_capacity(STRIPES),
            open: Vec::with_capacity(STRIPES),
            open_bytes: 0,
            strikes: Vec::new(),
            striking: Vec::new(),
            write: None,
            fresh: Vec::with_capacity(STRIPES),
            order: Vec::with_capacity(STRIPES),
            late: 0,
            alive: true,
        })
    }

    /// Whether it has a member.
    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    /// A node's stripe is to be noted.
    pub(super) fn note(&mut self, from: NodeId, record: Record) {
        let at = self.notes.insert(Note {
            record,
            from,
            state: State::Waiting,
            waited: false,
            place: 0,
        });
        self.waiting.push_back(at as u32);
    }

    /// The round of a stripe has ended, and this is left to be waited for. Views up to `settled`
    /// are known to all.
    pub(super) fn ended(&mut self, number: u64, left: Left, settled: u64, means: &mut Means) {
        // It may have gone on without, after the member before this one was lost.
        if let Some(&at) = self.by_stripe.get(&number) {
            let note = &mut self.notes[at as usize];
            debug_assert_eq!(note.state, State::Open, "only what is noted is written");
            note.state = State::Ended(left);
            self.drop_if_done(at, settled, means);
        }
    }

    /// Drops the entries for which nothing is left to be waited for, after a flush or a view that
    /// is settled.
    pub(super) fn drop_ended(&mut self, flushed: Option<Flushed>, settled: u64, means: &mut Means) {
        let mut place = 0;
        while let Some(&at) = self.open.get(place) {
            if let State::Ended(left) = &mut self.notes[at as usize].state
                && let Some(flushed) = flushed.filter(|f| left.flush < f.number)
            {
                left.bays &= !flushed.bays;
            }
            // If it is dropped, another one comes into its place.
            place += usize::from(!self.drop_if_done(at, settled, means));
        }
    }

    fn drop_if_done(&mut self, at: u32, settled: u64, means: &mut Means) -> bool {
        let State::Ended(left) = self.notes[at as usize].state else {
            return false;
        };
        if left.bays != 0 || left.epoch > settled {
            return false;
        }
        self.unlist(at);
        if left.strike {
            self.notes[at as usize].state = State::Struck;
            self.strikes.push(at);
        } else {
            self.forget(at, means);
        }
        true
    }

    /// Takes a note from those that are carried.
    fn unlist(&mut self, at: u32) {
        let note = &self.notes[at as usize];
        let place = note.place as usize;
        self.open_bytes -= note.record.parity_bytes();
        self.open.swap_remove(place);
        if let Some(&moved) = self.open.get(place) {
            self.notes[moved as usize].place = place as u32;
        }
    }

    fn forget(&mut self, at: u32, means: &mut Means) {
        let note = self.notes.remove(at as usize);
        self.by_stripe.remove(&note.record.number);
        if note.record.parity.is_some() {
            // A write may still have the page.
            match self.write {
                Some(_) => self.late |= Means::node_bit(note.from),
                None => means.freed |= Means::node_bit(note.from),
            }
        }
    }

    /// Members are lost: nothing is flushed there, but every node and superblock must know.
    pub(super) fn forsake(&mut self, present: u64, epoch: u64) {
        for &at in &self.open {
            if let State::Ended(left) = &mut self.notes[at as usize].state
                && left.bays & !present != 0
            {
                left.bays &= present;
                left.epoch = epoch;
            }
        }
    }

    /// Members that have something to be flushed.
    pub(super) fn unflushed(&self) -> u64 {
        let left = |&at: &u32| match &self.notes[at as usize].state {
            State::Ended(left) => left.bays,
            _ => 0,
        };
        self.open.iter().map(left).fold(0, |bays, more| bays | more)
    }

    /// The member is lost: nobody relies on its log any more.
    pub(super) fn close(&mut self, means: &mut Means) {
        self.alive = false;
        self.notes.clear();
        self.by_stripe.clear();
        self.waiting.clear();
        self.open.clear();
        self.open_bytes = 0;
        self.strikes.clear();
        self.striking.clear();
        self.fresh.clear();
        means.freed = u64::MAX;
        match &mut self.write {
            Some(write) if write.in_flight > 0 => {
                write.then = [None, None];
                self.late = u64::MAX;
            }
            _ => self.write = None,
        }
    }

    /// Whether nothing is under way, and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        let waits = !self.waiting.is_empty() || !self.strikes.is_empty() || self.unflushed() != 0;
        !self.alive || self.write.is_none() && !waits
    }

    /// Begins a write if there is something to be noted, and room for it.
    pub(super) fn run(&mut self, means: &mut Means) {
        if self.alive && self.write.is_none() && self.choose(means) && !self.begin(means) {
            // It waits for a page.
            self.fresh.clear();
        }
        for &at in self.waiting.iter().rev() {
            let note = &mut self.notes[at as usize];
            if std::mem::replace(&mut note.waited, true) {
                break;
            }
            means.waits += 1;
        }
    }

    /// Chooses what to note in the next header, and says whether it may be written now.
    fn choose(&mut self, means: &Means) -> bool {
        debug_assert!(self.fresh.is_empty());
        let strikes = !self.strikes.is_empty();
        let carries = !self.open.is_empty();
        if self.waiting.is_empty() && !strikes || carries && !self.area.is_ring() {
            return false;
        }
        let most = self.area.parity_bytes_max();
        let mut bytes = self.open_bytes;
        for &at in &self.waiting {
            let record = &self.notes[at as usize].record;
            if self.by_stripe.contains_key(&record.number) {
                // Its last entry is still needed.
                continue;
            }
            if bytes + record.parity_bytes() > most {
                break;
            }
            bytes += record.parity_bytes();
            self.fresh.push(at);
        }
        let excess = loop {
            self.order.clear();
            self.order.extend(self.open.iter().chain(&self.fresh));
            let notes = &self.notes;
            let number = |&at: &u32| notes[at as usize].record.number;
            self.order.sort_unstable_by_key(number);
            let excess = self.runs(means).count().saturating_sub(ENTRIES_MAX);
            if excess == 0 || self.fresh.is_empty() {
                break excess;
            }
            // Without the latest there are at most so many fewer; mostly one look is enough.
            let kept = self.fresh.len().saturating_sub(excess);
            for at in self.fresh.drain(kept..) {
                bytes -= self.notes[at as usize].record.parity_bytes();
            }
        };
        let wanted = !self.fresh.is_empty() || strikes;
        // What is struck counts as much as what is new: somebody waits for it.
        let page = u64::from(means.geometry.stripe_bytes());
        let brings = bytes - self.open_bytes + page * self.strikes.len() as u64;
        let may =
            excess == 0 && (!carries || self.open_bytes <= brings && !self.area.starts_over(bytes));
        if !wanted || !may {
            self.fresh.clear();
        }
        wanted && may
    }

    /// The entries of [`Log::order`], as the notes of each.
    fn runs<'a>(&'a self, means: &'a Means) -> impl Iterator<Item = &'a [u32]> {
        self.order.chunk_by(move |&a, &b| {
            let (a, b) = (&self.notes[a as usize], &self.notes[b as usize]);
            a.record.goes_on_with(&b.record, &means.geometry)
        })
    }

    /// Writes the chosen header; `false` while there is no page for it.
    fn begin(&mut self, means: &mut Means) -> bool {
        let Some(page) = means.pool.take() else {
            return false;
        };
        let bytes = self.bytes_to_write();
        let one_request = HEADER_BYTES as u64 + bytes <= means.request_bytes();
        let overwrites = match self.area.is_ring() {
            true => self.area.starts_over(bytes),
            false => !one_request,
        };
        let empty = match overwrites && bytes > 0 {
            true => match means.pool.take() {
                Some(page) => Some(page),
                None => return false,
            },
            false => None,
        };
        let mut entries = std::mem::take(&mut self.header.entries);
        entries.clear();
        let mut parity = means.list();
        for run in self.runs(means) {
            let records = run.iter().map(|&at| &self.notes[at as usize].record);
            entries.push(entries::entry(records.clone(), &means.geometry));
            parity.extend(records.filter_map(|record| record.parity.clone()));
        }
        means.entries += entries.len() as u64;
        means.pages += parity.len() as u64;
        means.writes += 1;
        // First without its entries, where one is needed that ends the chain.
        let empty = empty.map(|page| {
            self.header.generation += 1;
            self.written_to(page)
        });
        self.header.entries = entries;
        self.header.generation += 1;
        let page = self.written_to(page);
        debug_assert_eq!(bytes, self.header.parity_bytes());
        let at = self.start + self.area.place(bytes) * SECTOR;
        let behind = at + HEADER_BYTES as u64;
        let mut header = means.list();
        header.push(page);
        let mut write = Write::default();
        // See the room's third rule.
        let (at, first) = if let Some(empty) = empty {
            write.then = [Some((behind, parity)), Some((at, header))];
            let mut first = means.list();
            first.push(empty);
            (at, first)
        } else if parity.is_empty() || self.open_bytes == 0 && one_request {
            header.extend(parity.drain(..));
            means.keep(parity);
            (at, header)
        } else {
            write.then = [Some((at, header)), None];
            (behind, parity)
        };
        write.in_flight = means.write(self.bay, at, first);
        self.write = Some(write);
        self.striking.append(&mut self.strikes);
        for &at in &self.fresh {
            let note = &mut self.notes[at as usize];
            note.state = State::Writing;
            self.by_stripe.insert(note.record.number, at);
        }
        let notes = &self.notes;
        self.waiting
            .retain(|&at| notes[at as usize].state == State::Waiting);
        if mutation::on(Mutation::D12) {
            self.open_fresh(means);
        }
        true
    }

    /// Bytes of partial parity of the chosen notes.
    fn bytes_to_write(&self) -> u64 {
        let notes = self.order.iter().map(|&at| &self.notes[at as usize]);
        notes.map(|note| note.record.parity_bytes()).sum()
    }

    /// The header as it is now.
    fn written_to(&self, mut page: BufMut) -> Buf {
        page.truncate(HEADER_BYTES);
        self.header.write(&mut page);
        page.freeze()
    }

    /// The new notes of a header are on the medium: their rounds go on.
    fn open_fresh(&mut self, means: &mut Means) {
        for at in self.fresh.drain(..) {
            let note = &mut self.notes[at as usize];
            note.state = State::Open;
            note.place = self.open.len() as u32;
            self.open.push(at);
            self.open_bytes += note.record.parity_bytes();
            let logged = note.record.logged(self.bay, self.generation);
            means.outbox.push((note.from, Message::Logged(logged)));
        }
    }

    /// A part of the present write has ended.
    pub(super) fn written(&mut self, status: Status, means: &mut Means) {
        let write = self.write.as_mut().expect("somebody was asked");
        write.in_flight -= 1;
        write.failed |= status != Status::Ok;
        if write.in_flight > 0 {
            return;
        }
        if self.alive && write.failed {
            // Nothing more is noted: the member is lost as soon as the array knows.
            return;
        }
        let [next, last] = &mut write.then;
        if let Some((at, bytes)) = next.take().or_else(|| last.take()) {
            write.in_flight = means.write(self.bay, at, bytes);
            return;
        }
        self.write = None;
        means.freed |= std::mem::take(&mut self.late);
        self.open_fresh(means);
        while let Some(at) = self.striking.pop() {
            let note = &self.notes[at as usize];
            let struck = note.record.logged(self.bay, self.generation);
            means.outbox.push((note.from, Message::Struck(struck)));
            self.forget(at, means);
        }
    }
}
