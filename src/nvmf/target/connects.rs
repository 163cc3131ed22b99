//! Connections that come in, and what becomes of their Connect.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Target;
use super::takeover::Newcomer;
use crate::nvme::Status;
use crate::nvme::fabrics::ConnectParameter;
use crate::nvmf::association::{Candidate, ConnectionEntry, Terms, Verdict};
use crate::nvmf::groups::{ADMIN_WEIGHT, IO_WEIGHT};
use crate::nvmf::message::{
    AdminGrant, ConnectAnswer, ConnectRequest, ConnectionId, GroupCommand, IoGrant, NewConnection,
};
use crate::nvmf::perspective::Perspective;
use crate::nvmf::wire::Wire;

/// How often the log says that connections are turned away.
const COMPLAINT: Duration = Duration::from_secs(10);

impl Target {
    /// Takes a connection that was accepted.
    pub(super) fn welcome(&mut self, stream: TcpStream, now: Instant) {
        let addresses = stream
            .local_addr()
            .and_then(|local| Ok((local, stream.peer_addr()?)));
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true));
        match (addresses, prepared) {
            (Ok((local, peer)), Ok(())) => {
                self.serve(Box::new(stream), canonical(local), canonical(peer), now);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!("a connection was gone before it was served: {error}");
            }
        }
    }

    /// Has a new connection served by the group that has the least to do.
    pub(in crate::nvmf) fn serve(
        &mut self,
        wire: Box<dyn Wire>,
        local: SocketAddr,
        peer: SocketAddr,
        now: Instant,
    ) {
        let Some(options) = self.transport.clone() else {
            return;
        };
        let Some(group) = self.groups.least_loaded() else {
            return;
        };
        if self.associations.connections() >= self.setup.connections {
            if self.complained.is_none_or(|at| now >= at + COMPLAINT) {
                self.complained = Some(now);
                tracing::warn!(
                    "there are {} connections, as many as there may be: {peer} is turned away",
                    self.setup.connections
                );
            }
            return;
        }
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let entry = ConnectionEntry {
            group,
            weight: IO_WEIGHT,
            local,
            peer,
            association: None,
            authentication: None,
        };
        self.groups.load(group, IO_WEIGHT);
        self.associations.connect(id, entry);
        let new = NewConnection {
            id,
            wire,
            local,
            peer,
            options,
        };
        self.groups.send(group, GroupCommand::Serve(Box::new(new)));
    }

    /// Decides on a Connect; one that takes over waits until what it takes over from has gone.
    pub(super) fn connect(&mut self, request: Box<ConnectRequest>, until: Instant) {
        let id = request.connection;
        let answer = match self.judge(&request) {
            (Verdict::After(first), _) => {
                return self.take_over(first, Newcomer::Connect(request), until);
            }
            (Verdict::Refused { status, result }, _) => {
                let peer = self.associations.connection(id).map(|c| c.peer);
                if let Some(peer) = peer {
                    tracing::info!("Connect from {peer} refused: {status}");
                }
                ConnectAnswer::Refused { status, result }
            }
            (Verdict::Admin(cntlid), Some((candidate, terms))) => {
                let view = self.view_of(terms.subsystem);
                let (hostnqn, hostid) = (candidate.hostnqn.clone(), candidate.hostid);
                self.expect_authentication(id, terms.authenticate);
                self.associations.admit_admin(id, candidate, &terms, cntlid);
                if let Some(entry) = self.associations.connection_mut(id) {
                    self.groups.unload(entry.group, entry.weight);
                    entry.weight = ADMIN_WEIGHT;
                    self.groups.load(entry.group, entry.weight);
                }
                tracing::info!("host {hostnqn} has controller {cntlid} of {}", view.nqn);
                ConnectAnswer::Admin(AdminGrant {
                    cntlid,
                    view,
                    discovery: self.discovery_view.clone(),
                    hostnqn,
                    hostid,
                    retry_delays: self.retry_delays,
                    authenticate: terms.authenticate,
                })
            }
            (Verdict::Io(association), Some((candidate, terms))) => {
                let qid = candidate.command.qid;
                self.expect_authentication(id, terms.authenticate);
                let perspective = Perspective {
                    hostnqn: candidate.hostnqn,
                    local: self.associations.local(association, candidate.local),
                };
                ConnectAnswer::Io(IoGrant {
                    cntlid: self.associations.admit_io(id, association, qid, &terms),
                    view: self.view_of(terms.subsystem),
                    perspective,
                    hostid: candidate.hostid,
                    fences: self.ledger.fences(terms.subsystem),
                    authenticate: terms.authenticate,
                })
            }
            (Verdict::Admin(_) | Verdict::Io(_), None) => {
                unreachable!("a verdict in favour is about a candidate")
            }
        };
        if let Some(entry) = self.associations.connection(id) {
            let command = GroupCommand::Connected {
                connection: id,
                answer: Box::new(answer),
            };
            self.groups.send(entry.group, command);
        }
    }

    pub(super) fn judge(
        &mut self,
        request: &ConnectRequest,
    ) -> (Verdict, Option<(Candidate, Terms)>) {
        let invalid = |parameter| (Verdict::invalid(parameter), None);
        let refused = |status: Status| {
            let status = status.with_do_not_retry();
            (Verdict::Refused { status, result: 0 }, None)
        };
        let Some(entry) = self.associations.connection(request.connection) else {
            return refused(Status::INTERNAL_ERROR);
        };
        let (Some(options), false) = (&self.transport, self.stopping) else {
            return refused(Status::CONNECT_CONTROLLER_BUSY);
        };
        let Some(subsystem) = request
            .data
            .subsystem_text()
            .and_then(|nqn| self.subsystem(nqn).ok())
            .filter(|s| s.listens_at(entry.local))
        else {
            return invalid(ConnectParameter::SubsystemNqn);
        };
        let Ok(hostnqn) = request.data.host() else {
            return invalid(ConnectParameter::HostNqn);
        };
        if !subsystem.access.allows(hostnqn.as_str()) {
            return refused(Status::CONNECT_INVALID_HOST);
        }
        let candidate = Candidate {
            command: request.command,
            cntlid: request.data.cntlid.get(),
            hostnqn,
            hostid: request.data.hostid,
            local: entry.local,
            peer: entry.peer,
        };
        let terms = Terms {
            subsystem: subsystem.id,
            kind: subsystem.kind,
            cntlids: (subsystem.options.min_cntlid, subsystem.options.max_cntlid),
            allow_duplicates: subsystem.options.allow_duplicate_associations,
            entries: (options.max_aq_depth, options.max_queue_depth),
            io_queues: options.max_io_qpairs_per_ctrlr,
            authenticate: subsystem.keys.contains_key(candidate.hostnqn.as_str()),
        };
        let verdict = self.associations.examine(&candidate, &terms);
        (verdict, Some((candidate, terms)))
    }
}

/// An IPv4 address as such, also where it came in over IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
