//! What can go wrong between us and a target.

use std::time::Duration;

use crate::nvme::Status;
use crate::nvme::fabrics::ConnectParameter;
use crate::nvme::tcp::{FatalError, PduError, TermReq};

/// Why a queue is of no use any more. Every command in flight on it is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The target sent a PDU that makes no sense in itself.
    #[error("the target broke the protocol: {0}")]
    Pdu(#[from] PduError),
    /// The target sent a PDU that makes no sense here.
    #[error("the target broke the protocol: {what}")]
    Breach {
        /// What it did.
        what: String,
        /// What we tell it.
        reason: FatalError,
    },
    /// The target found fault with us and ended the connection.
    #[error("the target ended the connection: {0}")]
    Terminated(TermReq),
    /// A command, or the greeting, was not answered in time.
    #[error("no answer to {what} within {} s", .patience.as_secs_f64())]
    Timeout {
        /// To what.
        what: String,
        /// The time that it had.
        patience: Duration,
    },
    /// The target hung up without a word.
    #[error("the target closed the connection")]
    Closed,
    /// The operating system lost the connection, or never had it.
    #[error("the connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// The target will not have us.
    #[error("the target refused queue {queue}: {status}{}", because(*.parameter))]
    Refused {
        /// Queue identifier.
        queue: u16,
        /// Status of Connect.
        status: Status,
        /// The parameter that it did not like, where it names one.
        parameter: Option<ConnectParameter>,
    },
    /// The target does not grant digests that were asked for.
    #[error("the target does no {0} digests; connect without them")]
    NoDigest(&'static str),
    /// The target wants the host to prove who it is.
    #[error("the target asks for authentication, which this initiator does not do")]
    Authentication,
}

fn because(parameter: Option<ConnectParameter>) -> String {
    parameter.map_or_else(String::new, |name| format!(", because of {name}"))
}

impl QueueError {
    /// What to tell the target in a termination request, where it is to blame.
    pub(super) fn reason(&self) -> Option<FatalError> {
        match self {
            QueueError::Pdu(error) => error.fatal(),
            QueueError::Breach { reason, .. } => Some(*reason),
            _ => None,
        }
    }
}

/// Why one command failed, while its queue may go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The controller said so.
    #[error("{0}")]
    Status(Status),
    /// The data arrived damaged.
    #[error("the data arrived damaged: its digest does not match")]
    DataDigest,
    /// The controller reported success, but did not move all data.
    #[error("success was reported after {moved} of {wanted} bytes")]
    Short {
        /// Bytes moved.
        moved: u32,
        /// Bytes that belong to the command.
        wanted: u32,
    },
    /// The queue was lost before an answer came: the command may have been done or not.
    #[error("the connection was lost before an answer came")]
    Lost,
}
