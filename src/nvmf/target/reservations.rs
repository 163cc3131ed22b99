//! Reservations: commands of hosts, from poll groups and back to them.

use std::sync::Arc;

use super::Target;
use crate::nvme::Status;
use crate::nvmf::error::TargetError;
use crate::nvmf::message::{
    ConnectionId, FenceChange, GroupCommand, ReservationNotice, ReservationRequest, Ticket,
};
use crate::nvmf::reservation::{Answer, Next, Request, Reservation, ReservationFile};
use crate::nvmf::view::SubsystemId;

/// The answer to a host whose namespace is not there.
const GONE: Status = Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry();

impl Target {
    /// What a file says of the reservations of a namespace that is to come.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] for a file that is damaged or of another device,
    /// [`TargetError::Busy`] for one that is in use.
    pub(super) fn read_reservation(
        &self,
        file: Option<&ReservationFile>,
    ) -> Result<Reservation, TargetError> {
        let Some(file) = file else {
            return Ok(Reservation::default());
        };
        let path = file.path.display();
        if let Some((id, nsid)) = self.ledger.owner(&file.path) {
            let mut subsystems = self.subsystems.values();
            let owner = subsystems.find(|s| s.id == id);
            let nqn = owner.map_or("a subsystem", |s| s.nqn.as_str());
            return Err(TargetError::Busy(format!(
                "ptpl_file {path} is that of namespace {nsid} of {nqn}; give each namespace its own"
            )));
        }
        if self.reservation_writer.is_writing(&file.path) {
            return Err(TargetError::Busy(format!(
                "ptpl_file {path} is still being written; try again"
            )));
        }
        file.read().map_err(TargetError::Invalid)
    }

    /// A namespace comes, and with it what keeps hosts from it: told before the namespace is.
    pub(super) fn begin_reservation(
        &mut self,
        subsystem: SubsystemId,
        nsid: u32,
        reservation: Reservation,
        file: Option<ReservationFile>,
    ) {
        self.ledger.add((subsystem, nsid), reservation, file);
        self.tell_fence(subsystem, nsid);
    }

    /// A namespace has gone, and so has its reservation.
    pub(super) fn end_reservation(&mut self, subsystem: SubsystemId, nsid: u32) {
        let (requests, ticket) = self.ledger.remove((subsystem, nsid));
        for request in requests {
            self.answer_reservation(request, Err(GONE));
        }
        if let Some(ticket) = ticket {
            self.groups.finish(ticket);
        }
        self.tell_fence(subsystem, nsid);
    }

    /// Tells the groups what keeps hosts from a namespace, without waiting for them.
    fn tell_fence(&mut self, subsystem: SubsystemId, nsid: u32) {
        let change = Arc::new(FenceChange {
            subsystem,
            nsid,
            fence: self.ledger.fence((subsystem, nsid)),
            aborted: Vec::new(),
        });
        self.groups.broadcast(|| GroupCommand::Fence {
            change: change.clone(),
            ticket: None,
        });
    }

    /// A host wants something of a reservation.
    pub(super) fn reserve(&mut self, group: usize, request: ReservationRequest) {
        let association = self.associations.association(request.connection);
        let of = association.map(|a| (a.subsystem, a.hostid));
        let request = Request {
            connection: request.connection,
            group,
            slot: request.slot,
            host: of.map_or([0; 16], |(_, host)| host),
            wish: request.wish,
            rest: request.nsids,
        };
        let Some((subsystem, _)) = of else {
            return self.answer_reservation(request, Err(GONE));
        };
        self.next_namespace(subsystem, request);
    }

    /// Has a command wait for the next of its namespaces, or answers it when there is none.
    fn next_namespace(&mut self, subsystem: SubsystemId, mut request: Request) {
        match request.rest.pop() {
            None => self.answer_reservation(request, Ok((Vec::new(), 0))),
            Some(nsid) => match self.ledger.push((subsystem, nsid), request) {
                Ok(()) => self.work_on(subsystem, nsid),
                Err(request) => self.answer_reservation(request, Err(GONE)),
            },
        }
    }

    /// Takes the commands that wait for a namespace as far as they go.
    fn work_on(&mut self, subsystem: SubsystemId, nsid: u32) {
        let place = (subsystem, nsid);
        while let Some(next) = self.ledger.begin(place) {
            match next {
                Next::Answer(request, answer) => self.answer_reservation(request, answer),
                Next::Write(errand) => {
                    let id = errand.id;
                    let Some(hub) = &self.hub else { return };
                    let begun = self.reservation_writer.write(errand, &hub.outbox);
                    if let Err(error) = begun {
                        tracing::error!("reservations cannot be written: {error}");
                        self.reservation_not_saved(id);
                    }
                }
                Next::Publish => self.publish_reservation(subsystem, nsid),
            }
        }
    }

    /// A change was written, or not.
    pub(super) fn reservation_saved(&mut self, id: u64, outcome: Result<(), String>) {
        self.reservation_writer.written(id);
        match outcome {
            Ok(()) => {
                if let Some((subsystem, nsid)) = self.ledger.saved(id) {
                    self.publish_reservation(subsystem, nsid);
                    self.work_on(subsystem, nsid);
                }
            }
            Err(error) => {
                tracing::error!("{error}");
                self.reservation_not_saved(id);
            }
        }
    }

    fn reservation_not_saved(&mut self, id: u64) {
        if let Some(((subsystem, nsid), request)) = self.ledger.not_saved(id) {
            let status = Status::INTERNAL_ERROR.with_do_not_retry();
            self.answer_reservation(request, Err(status));
            self.work_on(subsystem, nsid);
        }
    }

    /// Tells the groups what the command under way has changed, and the hosts what concerns them.
    fn publish_reservation(&mut self, subsystem: SubsystemId, nsid: u32) {
        let place = (subsystem, nsid);
        let Some(active) = self.ledger.active(place) else {
            return;
        };
        let aborted = active.change.aborts.clone();
        for notice in active.change.notices.clone() {
            let notice = Arc::new(ReservationNotice {
                subsystem,
                nsid,
                kind: notice.kind,
                hosts: notice.hosts,
            });
            self.groups
                .broadcast(|| GroupCommand::ReservationNotice(notice.clone()));
        }
        let change = Arc::new(FenceChange {
            subsystem,
            nsid,
            fence: self.ledger.fence(place),
            aborted,
        });
        let ticket = self.groups.begin(|ticket| GroupCommand::Fence {
            change: change.clone(),
            ticket: Some(ticket),
        });
        self.ledger.published(place, ticket);
        self.reservation_confirmed(ticket);
    }

    /// A group has confirmed something. If it was the last to confirm a change of a reservation, the
    /// command is answered.
    pub(super) fn reservation_confirmed(&mut self, ticket: Ticket) {
        let Some((subsystem, nsid)) = self.ledger.awaits(ticket) else {
            return;
        };
        if !self.groups.is_complete(ticket) {
            return;
        }
        self.groups.finish(ticket);
        if let Some(request) = self.ledger.end((subsystem, nsid)) {
            self.next_namespace(subsystem, request);
        }
        self.work_on(subsystem, nsid);
    }

    /// A connection is lost: what it has asked for and has not begun is not done.
    pub(super) fn give_up_reservations(&mut self, connection: ConnectionId) {
        for request in self.ledger.give_up(connection) {
            let status = Status::ABORTED_SQ_DELETION.with_do_not_retry();
            self.answer_reservation(request, Err(status));
        }
    }

    /// Answers a command. One of a lost connection is answered, too: its session waits for that.
    fn answer_reservation(&mut self, request: Request, answer: Answer) {
        let command = GroupCommand::Reserved {
            connection: request.connection,
            slot: request.slot,
            answer: Box::new(answer),
        };
        self.groups.send(request.group, command);
    }
}
