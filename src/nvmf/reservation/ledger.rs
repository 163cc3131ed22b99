//! The reservations of all namespaces, and the commands that wait for them. What is to be done next;
//! the target does it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use super::{Change, Errand, Fence, HostId, Reservation, ReservationFile};
use crate::nvme::Status;
use crate::nvme::reservation::{Keys, ReservationCommand};
use crate::nvmf::message::{ConnectionId, Ticket};
use crate::nvmf::tcp::SlotId;
use crate::nvmf::view::SubsystemId;

/// A namespace: its subsystem and its number.
pub type Place = (SubsystemId, u32);

/// What a host wants of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A reservation command; no keys for a report.
    Command(ReservationCommand, Keys),
    /// To know whether it outlives a loss of power.
    Persistence,
    /// That it does, or does not.
    SetPersistence(bool),
}

/// A command of a host that is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it came from.
    pub connection: ConnectionId,
    /// The group that serves the connection.
    pub group: usize,
    /// Which command of the connection.
    pub slot: SlotId,
    /// The host.
    pub host: HostId,
    /// What it wants.
    pub wish: Wish,
    /// Namespaces of which it wants the same afterwards.
    pub rest: Vec<u32>,
}

/// A command that changes something and is not answered yet.
#[derive(Debug)]
pub struct Active {
    id: u64,
    /// The command.
    pub request: Request,
    /// What it changes.
    pub change: Change,
    /// What the poll groups confirm; none while it is being written.
    ticket: Option<Ticket>,
}

/// Data for the host and dword 0 of the completion, or why not.
pub type Answer = Result<(Vec<u8>, u32), Status>;

/// What is to be done for a namespace.
#[derive(Debug)]
pub enum Next {
    /// Answer a command that has changed nothing.
    Answer(Request, Answer),
    /// Write this; then go on with [`Ledger::saved`].
    Write(Errand),
    /// Tell the change of the active command to the poll groups, where there is anything to tell.
    Publish,
}

#[derive(Debug)]
struct Entry {
    reservation: Reservation,
    file: Option<ReservationFile>,
    active: Option<Active>,
    waiting: VecDeque<Request>,
}

/// All reservations.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Place, Entry>,
    next_id: u64,
}

impl Ledger {
    /// A namespace has come, with what its file says, if it has one.
    pub fn add(&mut self, place: Place, reservation: Reservation, file: Option<ReservationFile>) {
        let entry = Entry {
            reservation,
            file,
            active: None,
            waiting: VecDeque::new(),
        };
        self.entries.insert(place, entry);
    }

    /// A namespace has gone. Gives the commands that were about it, and what poll groups still have to
    /// confirm.
    pub fn remove(&mut self, place: Place) -> (Vec<Request>, Option<Ticket>) {
        let Some(entry) = self.entries.remove(&place) else {
            return (Vec::new(), None);
        };
        let ticket = entry.active.as_ref().and_then(|active| active.ticket);
        let active = entry.active.map(|active| active.request);
        (active.into_iter().chain(entry.waiting).collect(), ticket)
    }

    /// A command has come.
    ///
    /// # Errors
    /// The command, where there is no such namespace.
    pub fn push(&mut self, place: Place, request: Request) -> Result<(), Request> {
        match self.entries.get_mut(&place) {
            Some(entry) => {
                entry.waiting.push_back(request);
                Ok(())
            }
            None => Err(request),
        }
    }

    /// A connection is lost. Gives its commands that have not begun.
    pub fn give_up(&mut self, connection: ConnectionId) -> Vec<Request> {
        let mut given_up = Vec::new();
        for entry in self.entries.values_mut() {
            let (of_it, others): (VecDeque<_>, _) = std::mem::take(&mut entry.waiting)
                .into_iter()
                .partition(|request| request.connection == connection);
            entry.waiting = others;
            given_up.extend(of_it);
        }
        given_up
    }

    /// Begins with the next command of a namespace, unless one is under way.
    pub fn begin(&mut self, place: Place) -> Option<Next> {
        let entry = self.entries.get_mut(&place)?;
        if entry.active.is_some() {
            return None;
        }
        let request = entry.waiting.pop_front()?;
        let now = &entry.reservation;
        let can_persist = entry.file.is_some();
        let change = match request.wish {
            Wish::Command(ReservationCommand::Report { .. }, _) => {
                return Some(Next::Answer(request, Ok((now.report(), 0))));
            }
            Wish::Persistence => {
                let on = now.persists.into();
                return Some(Next::Answer(request, Ok((Vec::new(), on))));
            }
            Wish::Command(command, keys) => now.apply(request.host, &command, keys, can_persist),
            Wish::SetPersistence(on) => now.with_persistence(on, can_persist),
        };
        let change = match change {
            Ok(change) => change,
            Err(status) => return Some(Next::Answer(request, Err(status))),
        };
        let id = self.next_id;
        self.next_id += 1;
        let file = entry.file.clone();
        let file = file.filter(|_| is_saved_differently(now, &change.after));
        let next = match file {
            Some(file) => Next::Write(Errand {
                id,
                file,
                reservation: change.after.clone(),
            }),
            None => {
                entry.reservation.clone_from(&change.after);
                Next::Publish
            }
        };
        entry.active = Some(Active {
            id,
            request,
            change,
            ticket: None,
        });
        Some(next)
    }

    /// Something was written. Gives the namespace, whose change is now to be told to the poll groups;
    /// none where it has gone.
    pub fn saved(&mut self, id: u64) -> Option<Place> {
        let (place, entry) = self.of(id)?;
        let active = entry.active.as_ref()?;
        entry.reservation.clone_from(&active.change.after);
        Some(place)
    }

    /// Something was not written, and nothing changes. Gives the command; none where its namespace
    /// has gone.
    pub fn not_saved(&mut self, id: u64) -> Option<(Place, Request)> {
        let (place, entry) = self.of(id)?;
        let active = entry.active.take()?;
        Some((place, active.request))
    }

    /// The command under way for a namespace.
    pub fn active(&self, place: Place) -> Option<&Active> {
        self.entries.get(&place)?.active.as_ref()
    }

    /// The poll groups have been told; they will confirm with this ticket.
    pub fn published(&mut self, place: Place, ticket: Ticket) {
        let entry = self.entries.get_mut(&place);
        if let Some(active) = entry.and_then(|entry| entry.active.as_mut()) {
            active.ticket = Some(ticket);
        }
    }

    /// The namespace whose change is confirmed with this ticket.
    pub fn awaits(&self, ticket: Ticket) -> Option<Place> {
        let mut entries = self.entries.iter();
        let is_it = |entry: &Entry| {
            let active = entry.active.as_ref();
            active.is_some_and(|active| active.ticket == Some(ticket))
        };
        let (place, _) = entries.find(|(_, entry)| is_it(entry))?;
        Some(*place)
    }

    /// The command under way for a namespace is over.
    pub fn end(&mut self, place: Place) -> Option<Request> {
        let active = self.entries.get_mut(&place)?.active.take()?;
        Some(active.request)
    }

    /// What keeps hosts from a namespace.
    pub fn fence(&self, place: Place) -> Option<Arc<Fence>> {
        self.entries.get(&place)?.reservation.fence()
    }

    /// What keeps hosts from the namespaces of a subsystem, by number.
    pub fn fences(&self, subsystem: SubsystemId) -> Vec<(u32, Arc<Fence>)> {
        let entries = self.entries.range((subsystem, 0)..=(subsystem, u32::MAX));
        entries
            .filter_map(|(&(_, nsid), entry)| Some((nsid, entry.reservation.fence()?)))
            .collect()
    }

    /// The namespace whose file this is.
    pub fn owner(&self, path: &Path) -> Option<Place> {
        let is_its = |entry: &Entry| entry.file.as_ref().is_some_and(|file| file.path == path);
        let mut entries = self.entries.iter();
        entries.find(|(_, e)| is_its(e)).map(|(&place, _)| place)
    }

    fn of(&mut self, id: u64) -> Option<(Place, &mut Entry)> {
        let mut entries = self.entries.iter_mut();
        let is_it = |entry: &Entry| entry.active.as_ref().is_some_and(|active| active.id == id);
        let (place, entry) = entries.find(|(_, entry)| is_it(entry))?;
        Some((*place, entry))
    }
}

/// Whether two reservations are different once they are written.
fn is_saved_differently(one: &Reservation, other: &Reservation) -> bool {
    let saved = |r: &Reservation| {
        let content = (r.registrants.clone(), r.held);
        r.persists.then_some(content)
    };
    saved(one) != saved(other)
}
