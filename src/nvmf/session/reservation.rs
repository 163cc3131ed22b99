//! Reservation commands on their way to the control side and back, and what it says of reservations.

use zerocopy::FromBytes;

use super::{Role, Session, Site, Stage};
use crate::nvme::reservation::{Keys, ReservationCommand};
use crate::nvme::{Command, Fuse, NSID_ALL, Status};
use crate::nvmf::ana::Access;
use crate::nvmf::command::{self, Need};
use crate::nvmf::error_log::Failure;
use crate::nvmf::message::{FenceChange, GroupEvent, ReservationNotice, ReservationRequest};
use crate::nvmf::reservation::{Answer, Wish};
use crate::nvmf::tcp::SlotId;

/// A reservation command that is not answered.
#[derive(Debug)]
pub struct Reserving {
    slot: SlotId,
    nsids: Vec<u32>,
    wish: Wish,
    /// The control side has it; it is answered even if the connection is lost.
    asked: bool,
}

impl Reserving {
    /// A command that needs no data from the host.
    pub fn new(slot: SlotId, nsids: Vec<u32>, wish: Wish) -> Self {
        Self {
            slot,
            nsids,
            wish,
            asked: false,
        }
    }

    /// Whether it is this command.
    pub fn is(&self, slot: SlotId) -> bool {
        self.slot == slot
    }

    /// Whether the control side has it.
    pub fn is_asked(&self) -> bool {
        self.asked
    }
}

impl Session {
    /// A reservation command has come on an I/O queue.
    pub(super) fn reserve(
        &mut self,
        slot: SlotId,
        command: &Command,
        in_capsule: u32,
        site: &mut Site,
    ) {
        let Role::Io(queue) = &mut self.role else {
            unreachable!("reservation commands come on I/O queues");
        };
        queue.pass(&mut site.devices, &mut site.outcomes);
        let most = self.options.max_io_size;
        let nsid = command.nsid.get();
        let namespace = queue.view().namespace(nsid).filter(|_| nsid != NSID_ALL);
        let access = namespace.map(|namespace| namespace.access);
        self.settle(site);
        let examined = match examine(command, access.is_some(), most) {
            // Another path may do it.
            Ok(_) if access == Some(Access::Inaccessible) => Err(Status::ANA_INACCESSIBLE),
            Ok((wanted, need)) => command::carriage(command, need, in_capsule)
                .map(|(carriage, len)| (wanted, carriage, len)),
            Err(status) => Err(status),
        };
        let (wanted, carriage, len) = match examined {
            Ok(examined) => examined,
            Err(status) => {
                site.stats.completed_nvme_io += 1;
                self.failures
                    .note(Failure::of_io(command, self.qid, status));
                self.report_failures(site);
                return self.refuse(slot, status);
            }
        };
        let reserving = Reserving::new(slot, vec![nsid], Wish::Command(wanted, Keys::new(0, 0)));
        if len == 0 {
            self.connection.drain();
            return self.ask_for_reservation(reserving, site);
        }
        self.reserving.push(reserving);
        self.take_on_heap(slot, carriage, len);
    }

    /// The keys of a reservation command have come.
    pub(super) fn reserve_with(
        &mut self,
        slot: SlotId,
        bytes: &[u8],
        intact: bool,
        site: &mut Site,
    ) {
        let Some(at) = self.reserving.iter().position(|r| r.is(slot)) else {
            return;
        };
        let mut reserving = self.reserving.swap_remove(at);
        if !intact {
            site.stats.completed_nvme_io += 1;
            let status = Status::TRANSIENT_TRANSPORT_ERROR;
            return self.connection.respond(slot, status, 0);
        }
        // Release has the first key only.
        let mut both = [0; size_of::<Keys>()];
        let given = bytes.len().min(both.len());
        both[..given].copy_from_slice(&bytes[..given]);
        if let (Wish::Command(_, keys), Ok(given)) =
            (&mut reserving.wish, Keys::read_from_bytes(&both))
        {
            *keys = given;
        }
        self.ask_for_reservation(reserving, site);
    }

    /// Hands a command to the control side.
    pub(super) fn ask_for_reservation(&mut self, mut reserving: Reserving, site: &mut Site) {
        reserving.asked = true;
        let request = ReservationRequest {
            connection: self.id,
            slot: reserving.slot,
            nsids: reserving.nsids.clone(),
            wish: reserving.wish,
        };
        self.reserving.push(reserving);
        site.events
            .push_back(GroupEvent::Reserve(Box::new(request)));
    }

    /// The control side has answered a command.
    pub fn reserved(&mut self, slot: SlotId, answer: Answer, site: &mut Site) {
        let Some(at) = self.reserving.iter().position(|r| r.is(slot)) else {
            return;
        };
        let reserving = self.reserving.swap_remove(at);
        if matches!(self.role, Role::Io(_)) {
            site.stats.completed_nvme_io += 1;
        }
        if self.stage != Stage::Open {
            return;
        }
        match answer {
            Err(status) => {
                if let (Role::Io(_), Wish::Command(command, _)) = (&self.role, reserving.wish) {
                    self.failures.note(Failure {
                        qid: self.qid,
                        cid: self.connection.cid(slot),
                        status,
                        lba: 0,
                        nsid: reserving.nsids.first().copied().unwrap_or(0),
                        opcode: command.to_command(0).opcode,
                    });
                    self.report_failures(site);
                }
                self.connection.respond(slot, status, 0);
            }
            Ok((mut data, result)) => match reserving.wish {
                Wish::Command(ReservationCommand::Report { len, .. }, _) => {
                    data.resize(len as usize, 0);
                    self.connection.respond_with_bytes(slot, data, 0);
                }
                _ => {
                    let status = Status::SUCCESS;
                    self.connection.respond(slot, status, result.into());
                }
            },
        }
    }

    /// What keeps hosts from a namespace has changed. Says whether commands have to end before the
    /// change is complete; see [`Session::has_preempted`].
    pub fn set_fence(&mut self, change: &FenceChange, site: &mut Site) -> bool {
        match &mut self.role {
            Role::Io(queue) if queue.view().id == change.subsystem => {
                let waits = queue.set_fence(change, &mut site.devices, &mut site.outcomes);
                self.settle(site);
                waits
            }
            _ => false,
        }
    }

    /// Whether commands of a host that was preempted are still with the device.
    pub fn has_preempted(&self, nsid: u32) -> bool {
        matches!(&self.role, Role::Io(queue) if queue.has_preempted(nsid))
    }

    /// Something has happened to a reservation.
    pub fn notice_reservation(&mut self, notice: &ReservationNotice, site: &mut Site) {
        if let Role::Admin { controller, .. } = &mut self.role
            && controller.view().id == notice.subsystem
        {
            let effects = controller.notice_reservation(notice);
            self.apply(effects, site);
        }
    }
}

/// Checks a reservation command, as far as it can be without its data and the reservation. `known`:
/// its namespace is there. `most`: bytes of the largest transfer.
fn examine(
    command: &Command,
    known: bool,
    most: u32,
) -> Result<(ReservationCommand, Need), Status> {
    let invalid = Status::INVALID_FIELD.with_do_not_retry();
    if command.fuse() != Ok(Fuse::Normal) {
        return Err(invalid);
    }
    let wanted = ReservationCommand::parse(command)?;
    if !known {
        return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry());
    }
    let need = match wanted {
        // Every host identifier here has 128 bits.
        ReservationCommand::Report {
            extended: false, ..
        } => return Err(Status::HOST_ID_INCONSISTENT_FORMAT.with_do_not_retry()),
        ReservationCommand::Report { len, .. } if len > most.into() => return Err(invalid),
        ReservationCommand::Report { len, .. } => Need::ToHost(len as u32),
        _ => Need::PageFromHost(wanted.data_from_host()),
    };
    Ok((wanted, need))
}
