//! Hosts that come back, and wait for what they have left behind to go.

use std::time::{Duration, Instant};

use super::Target;
use crate::nvme::Status;
use crate::nvmf::auth::Verdict;
use crate::nvmf::message::{ConnectAnswer, ConnectRequest, ConnectionId, GroupCommand};

/// How long is waited at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What waits.
#[derive(Debug)]
pub(super) enum Newcomer {
    /// A Connect that is not answered yet.
    Connect(Box<ConnectRequest>),
    /// A host that has proven who it is, and is not told so yet.
    Proven(Proven),
}

/// A host that has proven who it is.
#[derive(Debug)]
pub(super) struct Proven {
    /// The connection on which it has.
    pub connection: ConnectionId,
    /// The poll group that serves it.
    pub group: usize,
    /// What it is told.
    pub verdict: Box<Verdict>,
}

impl Newcomer {
    fn connection(&self) -> ConnectionId {
        match self {
            Self::Connect(request) => request.connection,
            Self::Proven(proven) => proven.connection,
        }
    }
}

impl Target {
    /// Has a newcomer wait for connections to go, which are closed for it.
    pub(super) fn take_over(
        &mut self,
        first: Vec<ConnectionId>,
        newcomer: Newcomer,
        until: Instant,
    ) {
        self.close(first);
        self.takeovers.push((newcomer, until));
    }

    /// Tells a host that it is who it says, as soon as it has taken over: what its older queues have
    /// in flight must not come after what the new ones bring.
    pub(super) fn admit(&mut self, proven: Proven, until: Instant) {
        let first = self.associations.prove(proven.connection);
        if !first.is_empty() {
            return self.take_over(first, Newcomer::Proven(proven), until);
        }
        let Proven {
            connection,
            group,
            verdict,
        } = proven;
        self.groups.send(
            group,
            GroupCommand::Judged {
                connection,
                verdict,
            },
        );
    }

    /// A connection has gone: who has waited for it may go on, and it waits for nothing any more.
    pub(super) fn go_on(&mut self, gone: ConnectionId) {
        for (newcomer, until) in std::mem::take(&mut self.takeovers) {
            match newcomer {
                newcomer if newcomer.connection() == gone => {}
                Newcomer::Connect(request) => self.connect(request, until),
                Newcomer::Proven(proven) => self.admit(proven, until),
            }
        }
    }

    /// Refuses newcomers that have waited too long; says when to look again.
    pub(super) fn give_up_takeovers(&mut self, now: Instant) -> Option<Instant> {
        let late = |&(_, until): &(Newcomer, Instant)| now >= until;
        let (late, waiting) = std::mem::take(&mut self.takeovers)
            .into_iter()
            .partition(late);
        self.takeovers = waiting;
        for (newcomer, _) in late {
            let connection = newcomer.connection();
            let Some(entry) = self.associations.connection(connection) else {
                continue;
            };
            match newcomer {
                Newcomer::Connect(_) => {
                    let answer = Box::new(ConnectAnswer::Refused {
                        status: Status::CONNECT_CONTROLLER_BUSY,
                        result: 0,
                    });
                    let command = GroupCommand::Connected { connection, answer };
                    self.groups.send(entry.group, command);
                }
                Newcomer::Proven(_) => {
                    tracing::warn!(
                        "the host at {} is not admitted: commands of its older queues have not ended",
                        entry.peer
                    );
                    self.close(vec![connection]);
                }
            }
        }
        self.takeovers.iter().map(|&(_, until)| until).min()
    }
}
