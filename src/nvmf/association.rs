//! Who is connected: associations, their connections, and what becomes of each Connect.
//!
//! A host that comes back takes over from what it has left behind, the whole association or one I/O
//! queue. Where it has to prove who it is, it takes nothing over before it has: until then it stands
//! beside what it claims to be the successor of, and is allowed nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::message::{AssociationId, ConnectionId};
use super::stats::{
    AuthenticationInfo, AuthenticationState, ControllerInfo, QpairInfo, QpairState,
};
use super::subsystem::SubsystemKind;
use super::view::SubsystemId;
use crate::nvme::Nqn;
use crate::nvme::Status;
use crate::nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectParameter};

/// One connection, as the control side knows it.
#[derive(Clone, Debug)]
pub struct ConnectionEntry {
    /// The group that serves it.
    pub group: usize,
    /// What it weighs there.
    pub weight: u32,
    /// Local end.
    pub local: SocketAddr,
    /// The host's end.
    pub peer: SocketAddr,
    /// The association that it is a queue of.
    pub association: Option<AssociationId>,
    /// How far its host is with proving who it is, where it has to.
    pub authentication: Option<AuthenticationInfo>,
}

impl ConnectionEntry {
    fn is_authenticating(&self) -> bool {
        let info = self.authentication;
        info.is_some_and(|info| info.state != AuthenticationState::Completed)
    }
}

/// One host's controller.
#[derive(Clone, Debug)]
pub struct Association {
    /// Which; those that come later have larger ones.
    pub id: AssociationId,
    /// Its subsystem.
    pub subsystem: SubsystemId,
    /// Its controller's identifier.
    pub cntlid: u16,
    /// The host.
    pub hostnqn: Nqn,
    /// The host's identifier.
    pub hostid: [u8; 16],
    /// Where the host came in, and from where.
    pub local: SocketAddr,
    /// The host's end.
    pub peer: SocketAddr,
    /// Whether the controller is enabled.
    pub enabled: bool,
    /// It is being torn down.
    pub dying: bool,
    /// Its host has proven who it is, or need not.
    pub proven: bool,
    /// Whether it takes over, once it is proven, from older ones of the same host over the same path.
    pub takes_over: bool,
    /// Its connections by queue, lost ones too as long as devices have requests of theirs.
    pub queues: BTreeMap<u16, ConnectionId>,
    /// Connections that are to become I/O queues when their host has proven who it is.
    pub claims: BTreeMap<ConnectionId, u16>,
}

impl Association {
    fn state(&self, qid: u16) -> QpairState {
        match (self.dying, self.enabled || qid > 0) {
            (true, _) => QpairState::Deactivating,
            (false, true) => QpairState::Enabled,
            (false, false) => QpairState::Connecting,
        }
    }

    /// Everything that belongs to it: queue and connection.
    fn connections(&self) -> impl Iterator<Item = (u16, ConnectionId)> {
        let queues = self
            .queues
            .iter()
            .map(|(&qid, &connection)| (qid, connection));
        let claims = self.claims.iter();
        queues.chain(claims.map(|(&connection, &qid)| (qid, connection)))
    }

    /// Whether it is of the same host over the same path.
    fn is_like(&self, other: &Self) -> bool {
        self.subsystem == other.subsystem
            && self.hostnqn == other.hostnqn
            && self.hostid == other.hostid
            && self.local == other.local
            && self.peer.ip() == other.peer.ip()
    }
}

/// A Connect, read.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The command.
    pub command: Connect,
    /// CNTLID of the data.
    pub cntlid: u16,
    /// The host.
    pub hostnqn: Nqn,
    /// The host's identifier.
    pub hostid: [u8; 16],
    /// Local end of its connection.
    pub local: SocketAddr,
    /// The host's end.
    pub peer: SocketAddr,
}

/// What a subsystem demands of a Connect.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Which subsystem.
    pub subsystem: SubsystemId,
    /// What it is for.
    pub kind: SubsystemKind,
    /// Controller identifiers that it gives out.
    pub cntlids: (u16, u16),
    /// Whether a host may have several associations over one path.
    pub allow_duplicates: bool,
    /// Entries of an admin queue, and of an I/O queue, at most.
    pub entries: (u16, u16),
    /// I/O queues of a controller at most.
    pub io_queues: u16,
    /// Whether the host has to prove who it is on the queue.
    pub authenticate: bool,
}

impl Terms {
    /// Whether a host that comes back takes over from what it has left behind. Discovery controllers
    /// live for a moment, and a host may well have several.
    fn takes_over(&self) -> bool {
        self.kind == SubsystemKind::Nvme && !self.allow_duplicates
    }
}

/// What becomes of a Connect.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A new controller of this identifier.
    Admin(u16),
    /// A new I/O queue of this association.
    Io(AssociationId),
    /// These connections must go first; then it is looked at again.
    After(Vec<ConnectionId>),
    /// Refused.
    Refused {
        /// Why.
        status: Status,
        /// Dword 0 of the completion.
        result: u32,
    },
}

impl Verdict {
    fn refused(status: Status) -> Self {
        Self::Refused {
            status: status.with_do_not_retry(),
            result: 0,
        }
    }

    /// Connect Invalid Parameters.
    pub fn invalid(parameter: ConnectParameter) -> Self {
        Self::Refused {
            status: Status::CONNECT_INVALID_PARAMETERS.with_do_not_retry(),
            result: parameter.result(),
        }
    }
}

/// All connections and associations.
#[derive(Debug, Default)]
pub struct Associations {
    connections: FxHashMap<ConnectionId, ConnectionEntry>,
    associations: BTreeMap<AssociationId, Association>,
    /// By subsystem and controller identifier.
    by_cntlid: FxHashMap<(SubsystemId, u16), AssociationId>,
    next_association: u64,
    /// The identifier given out last, by subsystem.
    last_cntlid: FxHashMap<SubsystemId, u16>,
}

impl Associations {
    /// Connections in all.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// A connection has come.
    pub fn connect(&mut self, id: ConnectionId, entry: ConnectionEntry) {
        self.connections.insert(id, entry);
    }

    /// A connection that has not gone.
    pub fn connection(&self, id: ConnectionId) -> Option<&ConnectionEntry> {
        self.connections.get(&id)
    }

    /// A connection that has not gone, to be changed.
    pub fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut ConnectionEntry> {
        self.connections.get_mut(&id)
    }

    /// What a connection is a queue of, if it is one.
    pub fn association(&self, id: ConnectionId) -> Option<&Association> {
        let id = self.connections.get(&id)?.association?;
        self.associations.get(&id)
    }

    /// Where the host of an association came in, or `otherwise` where there is none.
    pub fn local(&self, id: AssociationId, otherwise: SocketAddr) -> SocketAddr {
        self.associations.get(&id).map_or(otherwise, |a| a.local)
    }

    /// Looks at a Connect for a subsystem that exists, and that this host may use.
    pub fn examine(&mut self, candidate: &Candidate, terms: &Terms) -> Verdict {
        let command = &candidate.command;
        if command.recfmt != 0 {
            return Verdict::refused(Status::CONNECT_INCOMPATIBLE_FORMAT);
        }
        let most = match command.qid {
            0 => terms.entries.0,
            _ => terms.entries.1,
        };
        if command.sqsize == 0 || command.sqsize >= most {
            return Verdict::invalid(ConnectParameter::QueueSize);
        }
        match command.qid {
            0 => self.examine_admin(candidate, terms),
            _ => self.examine_io(candidate, terms),
        }
    }

    fn examine_admin(&mut self, candidate: &Candidate, terms: &Terms) -> Verdict {
        if candidate.cntlid != CNTLID_DYNAMIC {
            return Verdict::invalid(ConnectParameter::ControllerId);
        }
        // Who has to prove who it is takes over when it has.
        if terms.takes_over() && !terms.authenticate {
            let elder = |a: &&Association| {
                a.subsystem == terms.subsystem
                    && a.hostnqn == candidate.hostnqn
                    && a.hostid == candidate.hostid
                    && a.local == candidate.local
                    && a.peer.ip() == candidate.peer.ip()
            };
            let elders = self.associations.values().filter(elder);
            let first = connections_of(elders);
            if !first.is_empty() {
                return Verdict::After(first);
            }
        }
        if let Some(cntlid) = self.free_cntlid(terms) {
            return Verdict::Admin(cntlid);
        }
        // Whoever has not proven who it is must not keep others out.
        let mut all = self.associations.values();
        match all.find(|a| a.subsystem == terms.subsystem && !a.proven) {
            Some(unproven) => Verdict::After(connections_of([unproven])),
            None => Verdict::Refused {
                status: Status::CONNECT_CONTROLLER_BUSY,
                result: 0,
            },
        }
    }

    fn examine_io(&self, candidate: &Candidate, terms: &Terms) -> Verdict {
        let qid = candidate.command.qid;
        if terms.kind == SubsystemKind::Discovery || qid > terms.io_queues {
            return Verdict::invalid(ConnectParameter::QueueId);
        }
        let id = self.by_cntlid.get(&(terms.subsystem, candidate.cntlid));
        let found = id.and_then(|id| Some((*id, self.associations.get(id)?)));
        let Some((id, association)) = found.filter(|(_, a)| !a.dying) else {
            return Verdict::invalid(ConnectParameter::ControllerId);
        };
        if association.hostnqn != candidate.hostnqn {
            return Verdict::invalid(ConnectParameter::HostNqn);
        }
        if association.hostid != candidate.hostid {
            return Verdict::invalid(ConnectParameter::HostId);
        }
        if !association.enabled {
            return Verdict::refused(Status::COMMAND_SEQUENCE_ERROR);
        }
        match association.queues.get(&qid) {
            Some(&before) if !terms.authenticate => Verdict::After(vec![before]),
            _ => Verdict::Io(id),
        }
    }

    /// The next identifier that nobody has: the one after the last, so that a host that comes back
    /// late does not meet a stranger's controller.
    fn free_cntlid(&self, terms: &Terms) -> Option<u16> {
        let (low, high) = terms.cntlids;
        let last = self.last_cntlid.get(&terms.subsystem).copied();
        let first = last.map_or(low, |last| last.saturating_add(1).max(low));
        let taken = |cntlid: u16| self.by_cntlid.contains_key(&(terms.subsystem, cntlid));
        (first..=high).chain(low..=high).find(|&c| !taken(c))
    }

    /// A connection becomes the admin queue of a new controller.
    pub fn admit_admin(
        &mut self,
        connection: ConnectionId,
        candidate: Candidate,
        terms: &Terms,
        cntlid: u16,
    ) {
        let id = AssociationId(self.next_association);
        self.next_association += 1;
        self.last_cntlid.insert(terms.subsystem, cntlid);
        self.by_cntlid.insert((terms.subsystem, cntlid), id);
        let association = Association {
            id,
            subsystem: terms.subsystem,
            cntlid,
            hostnqn: candidate.hostnqn,
            hostid: candidate.hostid,
            local: candidate.local,
            peer: candidate.peer,
            enabled: false,
            dying: false,
            proven: !terms.authenticate,
            takes_over: terms.takes_over(),
            queues: BTreeMap::from([(0, connection)]),
            claims: BTreeMap::new(),
        };
        self.associations.insert(id, association);
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.association = Some(id);
        }
    }

    /// A connection becomes an I/O queue, or claims to be one until its host has proven who it is;
    /// gives its controller's identifier.
    pub fn admit_io(
        &mut self,
        connection: ConnectionId,
        id: AssociationId,
        qid: u16,
        terms: &Terms,
    ) -> u16 {
        let association = self.associations.get_mut(&id);
        let association = association.expect("the verdict was about this association");
        if terms.authenticate {
            association.claims.insert(connection, qid);
        } else {
            association.queues.insert(qid, connection);
        }
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.association = Some(id);
        }
        association.cntlid
    }

    /// The host at the end of a connection has proven who it is. Gives the connections that must go
    /// first, after which this is asked again: older associations of this host over this path, or the
    /// queue that this one is to be instead of.
    pub fn prove(&mut self, connection: ConnectionId) -> Vec<ConnectionId> {
        let Some(association) = self.of(connection).filter(|a| !a.dying) else {
            return Vec::new();
        };
        if let Some(&qid) = association.claims.get(&connection) {
            if let Some(&before) = association.queues.get(&qid) {
                return vec![before];
            }
            association.claims.remove(&connection);
            association.queues.insert(qid, connection);
            return Vec::new();
        }
        if association.queues.get(&0) != Some(&connection) {
            return Vec::new();
        }
        association.proven = true;
        if !association.takes_over {
            return Vec::new();
        }
        let own = association.clone();
        let all = self.associations.values();
        connections_of(all.filter(|a| a.id < own.id && a.is_like(&own)))
    }

    /// The controller with this admin queue was enabled or disabled. Gives the connections that
    /// must go: disabled, it has no I/O queues.
    pub fn set_enabled(&mut self, admin: ConnectionId, enabled: bool) -> Vec<ConnectionId> {
        let Some(association) = self.of(admin) else {
            return Vec::new();
        };
        association.enabled = enabled;
        if enabled {
            return Vec::new();
        }
        let io = association.connections().filter(|&(qid, _)| qid > 0);
        io.map(|(_, connection)| connection).collect()
    }

    /// A connection is lost. Gives the connections that must go with it: without its admin queue,
    /// a controller is over.
    pub fn lost(&mut self, connection: ConnectionId) -> Vec<ConnectionId> {
        let Some(association) = self.of(connection) else {
            return Vec::new();
        };
        if association.queues.get(&0) != Some(&connection) {
            return Vec::new();
        }
        association.dying = true;
        let others = association.connections().map(|(_, other)| other);
        others.filter(|&other| other != connection).collect()
    }

    /// Nothing is left of a connection. Gives what it was.
    pub fn closed(&mut self, connection: ConnectionId) -> Option<ConnectionEntry> {
        let entry = self.connections.remove(&connection)?;
        if let Some(id) = entry.association
            && let Some(association) = self.associations.get_mut(&id)
        {
            association.queues.retain(|_, c| *c != connection);
            association.claims.remove(&connection);
            if association.connections().next().is_none() {
                let key = (association.subsystem, association.cntlid);
                self.associations.remove(&id);
                self.by_cntlid.remove(&key);
            }
        }
        Some(entry)
    }

    /// Connections of associations that `choose` chooses.
    pub fn chosen(&self, choose: impl Fn(&Association) -> bool) -> Vec<ConnectionId> {
        connections_of(self.associations.values().filter(|a| choose(a)))
    }

    /// Controllers of a subsystem, by identifier.
    pub fn controllers(&self, subsystem: SubsystemId) -> Vec<ControllerInfo> {
        let of = |a: &&Association| a.subsystem == subsystem;
        let mut controllers: Vec<_> = self
            .associations
            .values()
            .filter(of)
            .map(|a| ControllerInfo {
                cntlid: a.cntlid,
                hostnqn: a.hostnqn.as_str().to_owned(),
                hostid: uuid::Uuid::from_bytes(a.hostid),
                num_io_qpairs: a.queues.keys().filter(|&&qid| qid > 0).count() as u16,
            })
            .collect();
        controllers.sort_by_key(|c| c.cntlid);
        controllers
    }

    /// Queues of a subsystem, by controller and queue; `name` names groups.
    pub fn qpairs<'a>(
        &self,
        subsystem: SubsystemId,
        name: impl Fn(usize) -> &'a str,
    ) -> Vec<QpairInfo> {
        let mut qpairs = Vec::new();
        for association in self.associations.values() {
            if association.subsystem != subsystem {
                continue;
            }
            for (qid, connection) in association.connections() {
                if let Some(entry) = self.connections.get(&connection) {
                    qpairs.push(QpairInfo {
                        cntlid: association.cntlid,
                        qid,
                        state: if entry.is_authenticating() && !association.dying {
                            QpairState::Authenticating
                        } else {
                            association.state(qid)
                        },
                        thread: name(entry.group).to_owned(),
                        hostnqn: association.hostnqn.as_str().to_owned(),
                        listen_address: entry.local,
                        peer_address: entry.peer,
                        authentication: entry.authentication,
                    });
                }
            }
        }
        qpairs.sort_by_key(|q| (q.cntlid, q.qid));
        qpairs
    }

    fn of(&mut self, connection: ConnectionId) -> Option<&mut Association> {
        let id = self.connections.get(&connection)?.association?;
        self.associations.get_mut(&id)
    }
}

fn connections_of<'a>(
    associations: impl IntoIterator<Item = &'a Association>,
) -> Vec<ConnectionId> {
    let all = associations.into_iter().flat_map(Association::connections);
    all.map(|(_, connection)| connection).collect()
}
