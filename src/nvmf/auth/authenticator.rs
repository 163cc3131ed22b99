//! The thread that runs the exchanges.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::exchange::{Exchange, Nonces, Parties, Verdict};
use crate::nvmf::message::{ConnectionId, GroupEvent};
use crate::nvmf::stats::AuthenticationInfo;
use crate::reactor::MailboxSender;

/// How long to wait where the control thread has no room for a judgement.
const PATIENCE: Duration = Duration::from_millis(1);

/// A message of a host, and what is needed to judge it.
#[derive(Debug)]
pub struct Job {
    /// The connection that it came from.
    pub connection: ConnectionId,
    /// The poll group that serves it.
    pub group: usize,
    /// Who talks to whom.
    pub parties: Parties,
    /// The message.
    pub message: Vec<u8>,
}

/// What became of a message.
#[derive(Debug)]
pub struct Judgement {
    /// The connection that it came from.
    pub connection: ConnectionId,
    /// What becomes of it.
    pub verdict: Verdict,
    exchange: Exchange,
}

impl Judgement {
    /// How far the authentication has come.
    pub fn info(&self) -> AuthenticationInfo {
        self.exchange.info()
    }
}

type Errand = (Job, Exchange);

/// The exchanges of all connections, and the thread that runs them. There is no thread before the
/// first message; it ends with the target. A connection has one message under way at most, so that
/// what waits is bounded by the number of connections.
#[derive(Debug, Default)]
pub struct Authenticator {
    errands: Option<Sender<Errand>>,
    /// Exchanges that are not with the thread.
    exchanges: FxHashMap<ConnectionId, Exchange>,
}

impl Authenticator {
    /// Has a message judged. The judgement comes back through `outbox`, as a [`GroupEvent::Judged`].
    ///
    /// # Errors
    /// When the thread cannot be made: what the operating system said.
    pub fn hear(
        &mut self,
        job: Job,
        outbox: &MailboxSender<(usize, GroupEvent)>,
    ) -> std::io::Result<()> {
        let exchange = self.exchanges.remove(&job.connection);
        let errand = (job, exchange.unwrap_or_else(Exchange::new));
        let errands = match &mut self.errands {
            Some(errands) => errands,
            none => none.insert(start(outbox.clone())?),
        };
        // The thread ends after this sender only.
        let _ = errands.send(errand);
        Ok(())
    }

    /// A judgement has come; the connection may go on with its exchange.
    pub fn judged(&mut self, judgement: Judgement) -> Verdict {
        let Judgement {
            connection,
            verdict,
            exchange,
        } = judgement;
        self.exchanges.insert(connection, exchange);
        verdict
    }

    /// A connection has gone.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.exchanges.remove(&connection);
    }
}

fn start(outbox: MailboxSender<(usize, GroupEvent)>) -> std::io::Result<Sender<Errand>> {
    let (errands, inbox) = mpsc::channel();
    thread::Builder::new()
        .name("authentication".into())
        .spawn(move || run(&inbox, &outbox))?;
    Ok(errands)
}

fn run(inbox: &Receiver<Errand>, outbox: &MailboxSender<(usize, GroupEvent)>) {
    let mut nonces = Nonces::default();
    for (job, mut exchange) in inbox {
        let verdict = exchange.hear(&job.message, &job.parties, &mut nonces);
        let judgement = Judgement {
            connection: job.connection,
            verdict,
            exchange,
        };
        let mut event = (job.group, GroupEvent::Judged(Box::new(judgement)));
        while let Err(back) = outbox.send(event) {
            if outbox.is_closed() {
                return;
            }
            event = back;
            thread::sleep(PATIENCE);
        }
    }
}
