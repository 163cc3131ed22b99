//! The authentication of a session's queue: its gate, and the way of messages through it.

use super::{Role, Session, Site, Stage};
use crate::nvme::fabrics::{Authentication, FabricsCommand};
use crate::nvme::{Command, Status};
use crate::nvmf::auth::{Then, Verdict};
use crate::nvmf::command::{self, Need};
use crate::nvmf::message::GroupEvent;
use crate::nvmf::tcp::SlotId;

impl Session {
    /// Takes the commands of authentication, and refuses all others while the gate is shut. Says
    /// whether it has taken or refused this one.
    pub(super) fn at_the_gate(
        &mut self,
        slot: SlotId,
        command: &Command,
        in_capsule: u32,
        site: &mut Site,
    ) -> bool {
        let Some(gate) = &self.gate else {
            return false;
        };
        let shut = gate.is_shut();
        let fabrics = command.is_fabrics().then(|| FabricsCommand::parse(command));
        let outcome = match fabrics {
            Some(Ok(FabricsCommand::AuthenticationSend(wish))) => {
                self.hear(slot, command, &wish, in_capsule, site)
            }
            Some(Ok(FabricsCommand::AuthenticationReceive(wish))) => {
                self.tell(slot, command, &wish, in_capsule, site)
            }
            _ if shut => Err(Status::AUTHENTICATION_REQUIRED.with_do_not_retry()),
            _ => return false,
        };
        if let Err(status) = outcome {
            self.refuse(slot, status);
        }
        if let Role::Admin { controller, .. } = &mut self.role {
            controller.hear(site.now);
        }
        true
    }

    /// Authentication Send: takes the message.
    fn hear(
        &mut self,
        slot: SlotId,
        command: &Command,
        wish: &Authentication,
        in_capsule: u32,
        site: &Site,
    ) -> Result<(), Status> {
        let Some(gate) = &mut self.gate else {
            return Err(Status::INVALID_OPCODE.with_do_not_retry());
        };
        gate.check(command, wish)?;
        let (carriage, len) = command::carriage(command, Need::FromHost(wish.len), in_capsule)?;
        gate.expect(slot, len, site.now)?;
        self.take_on_heap(slot, carriage, len);
        Ok(())
    }

    /// Authentication Receive: gives the message that there is to fetch.
    fn tell(
        &mut self,
        slot: SlotId,
        command: &Command,
        wish: &Authentication,
        in_capsule: u32,
        site: &mut Site,
    ) -> Result<(), Status> {
        let Some(gate) = &mut self.gate else {
            return Err(Status::INVALID_OPCODE.with_do_not_retry());
        };
        gate.check(command, wish)?;
        command::carriage(command, Need::ToHost(wish.len), in_capsule)?;
        let (message, then) = gate.fetch(wish.len)?;
        self.connection.drain();
        self.connection.respond_with_bytes(slot, message, 0);
        self.follow(then, site);
        Ok(())
    }

    /// All of a message has come.
    pub(super) fn message(
        &mut self,
        slot: SlotId,
        message: Vec<u8>,
        intact: bool,
        site: &mut Site,
    ) {
        if let Some(gate) = &mut self.gate {
            gate.received(slot, !intact);
        }
        if intact {
            site.events.push_back(GroupEvent::Authentication {
                connection: self.id,
                message,
            });
        } else {
            let status = Status::TRANSIENT_TRANSPORT_ERROR;
            self.connection.respond(slot, status, 0);
        }
    }

    /// Its message was judged.
    pub fn judged(&mut self, verdict: Verdict, site: &mut Site) {
        if self.stage != Stage::Open {
            return;
        }
        let judged = self.gate.as_mut().and_then(|gate| gate.judged(verdict));
        if let Some((slot, then)) = judged {
            // The command has done its part; what is wrong with the message is told in a message.
            self.connection.respond(slot, Status::SUCCESS, 0);
            self.follow(then, site);
        }
    }

    fn follow(&mut self, then: Then, site: &mut Site) {
        if let Then::End(_) = then {
            self.end(site);
        }
    }
}
