//! What a session knows of the authentication of its queue.

use std::time::{Duration, Instant};

use super::exchange::{Then, Verdict};
use crate::nvme::dhchap::{Explanation, failure1};
use crate::nvme::fabrics::Authentication;
use crate::nvme::{Command, Fuse, Status};
use crate::nvmf::tcp::SlotId;

/// Largest message in bytes that is taken; the largest there is has 1168.
const LARGEST: u32 = 4096;

/// SECP of NVMe, and SPSP of authentication (Base, "Authentication Send Command").
const PROTOCOL: (u8, u8, u8) = (0xe9, 0x01, 0x01);

/// Where the conversation is.
#[derive(Debug)]
pub enum Step {
    /// The host has the word.
    Idle,
    /// The data of its command is on its way.
    Expecting(SlotId),
    /// Its message is being judged.
    Asked(SlotId),
    /// It is to fetch this; then that happens.
    Ready(Vec<u8>, Then),
}

/// The gate of a queue whose host has keys.
#[derive(Debug)]
pub struct Gate {
    shut: bool,
    step: Step,
    transaction: u16,
    /// How long a conversation may take, and until when this one may.
    patience: Duration,
    until: Option<Instant>,
}

impl Gate {
    /// A gate that is shut.
    pub fn new(patience: Duration, now: Instant) -> Self {
        Self {
            shut: true,
            step: Step::Idle,
            transaction: 0,
            patience,
            until: Some(now + patience),
        }
    }

    /// Whether nothing but authentication is allowed.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether a conversation has taken too long.
    pub fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// Checks an Authentication Send or Receive.
    ///
    /// # Errors
    /// The status with which it is refused.
    pub fn check(&self, command: &Command, authentication: &Authentication) -> Result<(), Status> {
        let &Authentication {
            protocol,
            specific0,
            specific1,
            len,
        } = authentication;
        let meant = (protocol, specific0, specific1) == PROTOCOL;
        if command.fuse() != Ok(Fuse::Normal) || !meant || len == 0 {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        match self.step {
            // The host is to wait for the answer to its last command.
            Step::Expecting(_) | Step::Asked(_) => {
                Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry())
            }
            Step::Idle | Step::Ready(..) => Ok(()),
        }
    }

    /// The host sends a message of `len` bytes with this command.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for one that is too large.
    pub fn expect(&mut self, slot: SlotId, len: u32, now: Instant) -> Result<(), Status> {
        if len > LARGEST {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        self.step = Step::Expecting(slot);
        self.until.get_or_insert(now + self.patience);
        Ok(())
    }

    /// Whether the data of this command is a message.
    pub fn expects(&self, slot: SlotId) -> bool {
        matches!(self.step, Step::Expecting(expected) if expected == slot)
    }

    /// The message is complete and goes to be judged; or it is `damaged`, and may be sent again.
    pub fn received(&mut self, slot: SlotId, damaged: bool) {
        self.step = if damaged {
            Step::Idle
        } else {
            Step::Asked(slot)
        };
    }

    /// A message was judged. Gives the command that brought it, and what happens at once.
    pub fn judged(&mut self, verdict: Verdict) -> Option<(SlotId, Then)> {
        let Step::Asked(slot) = self.step else {
            return None;
        };
        self.transaction = verdict.transaction;
        let now = match verdict.message {
            Some(message) => {
                self.step = Step::Ready(message, verdict.then);
                Then::Continue
            }
            None => {
                self.step = Step::Idle;
                self.happens(verdict.then);
                verdict.then
            }
        };
        Some((slot, now))
    }

    /// The host fetches at most `len` bytes: gives the message, with zeros behind it, and what
    /// happens then. It may only ask when there is something to fetch.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] when the message is longer; it stays to be fetched.
    pub fn fetch(&mut self, len: u32) -> Result<(Vec<u8>, Then), Status> {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        let (mut message, then) = match step {
            Step::Ready(message, then) => (message, then),
            _ => {
                let explanation = Explanation::IncorrectMessage;
                let message = failure1(self.transaction, explanation);
                (message, Then::End(explanation))
            }
        };
        if message.len() > len as usize {
            self.step = Step::Ready(message, then);
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        message.resize(len.min(LARGEST) as usize, 0);
        self.happens(then);
        Ok((message, then))
    }

    fn happens(&mut self, then: Then) {
        match then {
            Then::Continue => {}
            Then::Admit => {
                self.shut = false;
                self.until = None;
            }
            Then::End(_) => self.shut = true,
        }
    }
}
