//! The reservation of one namespace: what each command makes of it. Decisions only.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{Fence, HostId};
use crate::nvme::Status;
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvme::reservation::{
    AcquireAction, Keys, NotificationType, RegisterAction, Registrant as ReportedRegistrant,
    ReleaseAction, ReservationCommand, ReservationStatus, ReservationType,
};

/// Hosts that may be registered with one namespace.
pub const MOST_REGISTRANTS: usize = 256;

/// A host that is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Who.
    pub host: HostId,
    /// The key that it shows.
    pub key: u64,
}

/// Who is registered with a namespace, and who has reserved it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// In the order in which they came.
    pub registrants: Vec<Registrant>,
    /// The type, and who acquired it; with types that all registrants hold, that may be somebody who
    /// has left since.
    pub held: Option<(ReservationType, HostId)>,
    /// Whether all this outlives a loss of power (PTPL).
    pub persists: bool,
    /// Successful commands that were about registrants; wraps.
    pub generation: u32,
}

/// Hosts that are to be told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub kind: NotificationType,
    /// Whom.
    pub hosts: Vec<HostId>,
}

/// What a command makes of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it is then.
    pub after: Reservation,
    /// Who is told what.
    pub notices: Vec<Notice>,
    /// Hosts whose commands in flight must end before it is over.
    pub aborts: Vec<HostId>,
}

/// The status of a host that is not who it would have to be.
const CONFLICT: Status = Status::RESERVATION_CONFLICT.with_do_not_retry();
const INVALID: Status = Status::INVALID_FIELD.with_do_not_retry();

impl Reservation {
    /// What a command of `host` changes, other than a report.
    ///
    /// # Errors
    /// [`Status::RESERVATION_CONFLICT`] for a host that is not registered, has another key or would
    /// need what somebody else holds; [`Status::INVALID_FIELD`] for key 0, a type that is not held, and
    /// persistence where it cannot be (`can_persist`); [`Status::OPERATION_DENIED`] for a host that has
    /// no identifier, or one too many.
    pub fn apply(
        &self,
        host: HostId,
        command: &ReservationCommand,
        keys: Keys,
        can_persist: bool,
    ) -> Result<Change, Status> {
        let (current, other) = (keys.current.get(), keys.other.get());
        let mut change = Change {
            after: self.clone(),
            notices: Vec::new(),
            aborts: Vec::new(),
        };
        match *command {
            ReservationCommand::Register {
                action,
                ignore_key,
                persist,
            } => {
                match action {
                    RegisterAction::Register => change.after.register(host, other)?,
                    RegisterAction::Unregister => {
                        self.check(host, (!ignore_key).then_some(current))?;
                        change.unregister(self, host);
                    }
                    RegisterAction::Replace => {
                        let old = (!ignore_key).then_some(current);
                        change.after.replace(host, old, other)?;
                    }
                }
                if let Some(persist) = persist {
                    change.after.persist(persist, can_persist)?;
                }
                change.after.count();
            }
            ReservationCommand::Acquire { action, kind } => {
                self.check(host, Some(current))?;
                match action {
                    AcquireAction::Acquire => change.after.acquire(host, kind)?,
                    AcquireAction::Preempt | AcquireAction::PreemptAndAbort => {
                        change.preempt(self, host, other, kind)?;
                        if action == AcquireAction::Preempt {
                            change.aborts.clear();
                        }
                        change.after.count();
                    }
                }
            }
            ReservationCommand::Release { action, kind } => {
                self.check(host, Some(current))?;
                match action {
                    ReleaseAction::Release => change.release(self, host, kind)?,
                    ReleaseAction::Clear => {
                        change.tell(NotificationType::ReservationPreempted, self.others(host));
                        change.after.registrants.clear();
                        change.after.held = None;
                        change.after.count();
                    }
                }
            }
            ReservationCommand::Report { .. } => {}
        }
        Ok(change)
    }

    /// What switching persistence on or off changes.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] where it cannot be on.
    pub fn with_persistence(&self, on: bool, can_persist: bool) -> Result<Change, Status> {
        let mut after = self.clone();
        after.persist(on, can_persist)?;
        Ok(Change {
            after,
            notices: Vec::new(),
            aborts: Vec::new(),
        })
    }

    /// The bytes of a report, all of them.
    pub fn report(&self) -> Vec<u8> {
        let head = ReservationStatus {
            generation: self.generation.into(),
            kind: self.held.map_or(0, |(kind, _)| kind.code()),
            registrants: (self.registrants.len() as u16).into(),
            reserved7: [0; 2],
            persists: self.persists.into(),
            reserved10: [0; 54],
        };
        let mut bytes = head.as_bytes().to_vec();
        for registrant in &self.registrants {
            let reported = ReportedRegistrant {
                cntlid: CNTLID_DYNAMIC.into(),
                status: match self.is_holder(registrant.host) {
                    true => ReportedRegistrant::HOLDER,
                    false => 0,
                },
                reserved3: [0; 5],
                key: registrant.key.into(),
                host: registrant.host,
                reserved32: [0; 32],
            };
            bytes.extend_from_slice(reported.as_bytes());
        }
        bytes
    }

    /// What poll groups are to know of it; nothing where nobody is kept from anything.
    pub fn fence(&self) -> Option<Arc<Fence>> {
        let (kind, holder) = self.held?;
        let admitted = match kind.admits_registrants() {
            true => self.registrants.iter().map(|r| r.host).collect(),
            false => vec![holder],
        };
        Some(Arc::new(Fence { kind, admitted }))
    }

    /// The key that a host is registered with.
    pub fn key(&self, host: HostId) -> Option<u64> {
        let mut registrants = self.registrants.iter();
        registrants.find(|r| r.host == host).map(|r| r.key)
    }

    /// Whether a host holds the reservation, alone or with others.
    pub fn is_holder(&self, host: HostId) -> bool {
        self.held.is_some_and(|(kind, holder)| {
            holder == host || kind.is_held_by_all() && self.key(host).is_some()
        })
    }

    /// Checks that a host is registered, and with this key where one is given.
    fn check(&self, host: HostId, key: Option<u64>) -> Result<(), Status> {
        let registered = self.key(host).ok_or(CONFLICT)?;
        match key {
            Some(key) if key != registered => Err(CONFLICT),
            _ => Ok(()),
        }
    }

    /// Everybody who is registered, but for this host.
    fn others(&self, host: HostId) -> Vec<HostId> {
        let hosts = self.registrants.iter().map(|r| r.host);
        hosts.filter(|&other| other != host).collect()
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    fn persist(&mut self, on: bool, can_persist: bool) -> Result<(), Status> {
        if on && !can_persist {
            return Err(INVALID);
        }
        self.persists = on;
        Ok(())
    }

    fn register(&mut self, host: HostId, key: u64) -> Result<(), Status> {
        match self.key(host) {
            // Registering again is no error, with the same key.
            Some(registered) if registered == key => return Ok(()),
            Some(_) => return Err(CONFLICT),
            None if key == 0 => return Err(INVALID),
            None => {}
        }
        // Hosts without an identifier cannot be told apart.
        if host == [0; 16] || self.registrants.len() >= MOST_REGISTRANTS {
            return Err(Status::OPERATION_DENIED.with_do_not_retry());
        }
        self.registrants.push(Registrant { host, key });
        Ok(())
    }

    /// `old` is the key that the host must have; none where it need not even be registered.
    fn replace(&mut self, host: HostId, old: Option<u64>, key: u64) -> Result<(), Status> {
        if key == 0 {
            return Err(INVALID);
        }
        if old.is_none() && self.key(host).is_none() {
            return self.register(host, key);
        }
        self.check(host, old)?;
        let own = self.registrants.iter_mut().find(|r| r.host == host);
        own.ok_or(CONFLICT)?.key = key;
        Ok(())
    }

    fn acquire(&mut self, host: HostId, kind: ReservationType) -> Result<(), Status> {
        match self.held {
            None => self.held = Some((kind, host)),
            Some((held, _)) if held == kind && self.is_holder(host) => {}
            Some(_) => return Err(CONFLICT),
        }
        Ok(())
    }

    /// Takes hosts off the list. A reservation whose last holder goes is over.
    fn remove(&mut self, leaves: impl Fn(&Registrant) -> bool) {
        self.registrants.retain(|r| !leaves(r));
        if let Some((kind, holder)) = self.held {
            let stays = match kind.is_held_by_all() {
                true => !self.registrants.is_empty(),
                false => self.key(holder).is_some(),
            };
            if !stays {
                self.held = None;
            }
        }
    }
}

impl Change {
    fn tell(&mut self, kind: NotificationType, hosts: Vec<HostId>) {
        if !hosts.is_empty() {
            self.notices.push(Notice { kind, hosts });
        }
    }

    fn unregister(&mut self, before: &Reservation, host: HostId) {
        self.after.remove(|r| r.host == host);
        if let (Some((kind, _)), None) = (before.held, self.after.held)
            && kind.admits_registrants()
        {
            self.tell(
                NotificationType::ReservationReleased,
                self.after.others(host),
            );
        }
    }

    fn release(&mut self, before: &Reservation, host: HostId, kind: u8) -> Result<(), Status> {
        let Some((held, _)) = before.held else {
            return Ok(());
        };
        if held.code() != kind {
            return Err(INVALID);
        }
        // It is no error to release what somebody else holds; it does nothing.
        if before.is_holder(host) {
            self.after.held = None;
            if held.admits_registrants() {
                self.tell(NotificationType::ReservationReleased, before.others(host));
            }
        }
        Ok(())
    }

    /// `victim` is the key of those to be preempted; 0, where all registrants hold the reservation,
    /// means all others.
    fn preempt(
        &mut self,
        before: &Reservation,
        host: HostId,
        victim: u64,
        kind: ReservationType,
    ) -> Result<(), Status> {
        let takes_over = match before.held {
            None => false,
            Some((held, _)) if held.is_held_by_all() => victim == 0,
            Some((_, holder)) => before.key(holder) == Some(victim),
        };
        let everybody = takes_over && victim == 0;
        let leaves = |r: &Registrant| {
            let meant = everybody || r.key == victim;
            // Who takes over stays, whatever its key.
            meant && !(takes_over && r.host == host)
        };
        if !takes_over {
            if victim == 0 {
                return Err(INVALID);
            }
            if !before.registrants.iter().any(leaves) {
                return Err(CONFLICT);
            }
        }
        let gone: Vec<HostId> = before
            .registrants
            .iter()
            .filter(|r| leaves(r) && r.host != host)
            .map(|r| r.host)
            .collect();
        self.after.remove(leaves);
        self.aborts.clone_from(&gone);
        self.tell(NotificationType::RegistrationPreempted, gone);
        if takes_over {
            self.after.held = Some((kind, host));
            if before.held.is_some_and(|(held, _)| held != kind) {
                let others = self.after.others(host);
                self.tell(NotificationType::ReservationReleased, others);
            }
        }
        Ok(())
    }
}
