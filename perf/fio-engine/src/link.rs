//! The connection to one namespace: an association with one I/O queue, and what waits for a place on it.

use std::collections::VecDeque;
use std::time::Instant;

use stripewise::initiator::{CommandError, ControllerError, Done, Namespace, Payload};
use stripewise::loadgen::association::{Association, AssociationError};
use stripewise::nvme::Command;

use crate::target::Target;

/// Most blocks that one command can name.
const MOST_BLOCKS: u64 = 1 << 16;

/// Why a link can't be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No association.
    #[error(transparent)]
    Association(#[from] AssociationError),
    /// The controller takes less than a block at once.
    #[error(
        "the controller moves at most {most} bytes with a command, which is less than a block of {block}"
    )]
    Transfer {
        /// Bytes of a command.
        most: u64,
        /// Bytes of a block.
        block: u32,
    },
}

/// A command that the queue has no place for yet.
#[derive(Debug)]
struct Waiting {
    token: u64,
    command: Command,
    payload: Payload,
}

/// One namespace, connected. See the head of this file.
#[derive(Debug)]
pub struct Link {
    association: Option<Association>,
    namespace: Namespace,
    most: u32,
    waiting: VecDeque<Waiting>,
    /// Why it is lost, if it is.
    lost: Option<AssociationError>,
}

impl Link {
    /// Connects, and waits until it is. The queue is made for `depth` commands in flight, or for as many as the controller
    /// has room for; then the others wait here.
    ///
    /// # Errors
    /// [`LinkError`]. An answer that takes longer than the target's patience is one.
    pub fn connect(target: &Target, depth: u16) -> Result<Self, LinkError> {
        let association = match attempt(target, depth) {
            Err(AssociationError::Controller {
                source: ControllerError::TooDeep { most, .. },
                ..
            }) if (1..depth).contains(&most) => attempt(target, most)?,
            attempted => attempted?,
        };
        let facts = association.facts().expect("the association is up");
        let namespace = facts.namespaces.first().expect("one was asked for").clone();
        let block = u64::from(namespace.block_size);
        let most = facts
            .max_transfer()
            .unwrap_or(u64::MAX)
            .min(MOST_BLOCKS * block);
        let most = u32::try_from(most / block * block)
            .unwrap_or(u32::MAX - u32::MAX % namespace.block_size);
        if most == 0 {
            return Err(LinkError::Transfer {
                most: facts.max_transfer().unwrap_or(0),
                block: namespace.block_size,
            });
        }
        Ok(Self {
            association: Some(association),
            namespace,
            most,
            waiting: VecDeque::new(),
            lost: None,
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Bytes of the namespace.
    pub fn capacity(&self) -> u64 {
        self.namespace
            .blocks
            .saturating_mul(u64::from(self.namespace.block_size))
    }

    /// Most bytes that one command may move, in whole blocks.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Why the link is lost, if it is.
    pub fn lost(&self) -> Option<&AssociationError> {
        self.lost.as_ref()
    }

    /// Takes a command. Once the link is lost, it comes out of the next turn, as lost.
    pub fn submit(&mut self, token: u64, command: Command, payload: Payload) {
        self.waiting.push_back(Waiting {
            token,
            command,
            payload,
        });
    }

    /// Sends what can be sent.
    pub fn send(&mut self, done: &mut Vec<Done>, now: Instant) {
        let result = self.try_send(done, now);
        self.settle(result, done);
    }

    /// Receives, sends, and looks for answers that are overdue. What is over is appended to `done`.
    pub fn turn(&mut self, done: &mut Vec<Done>, now: Instant) {
        let received = match &mut self.association {
            Some(association) => association.receive(0, done, now),
            None => Ok(()),
        };
        let result = received.and_then(|()| self.try_send(done, now));
        let result = result.and_then(|()| match &mut self.association {
            Some(association) => association.tick(now),
            None => Ok(()),
        });
        self.settle(result, done);
    }

    fn try_send(&mut self, done: &mut Vec<Done>, now: Instant) -> Result<(), AssociationError> {
        let Some(association) = &mut self.association else {
            return Ok(());
        };
        while let Some(Waiting {
            token,
            command,
            payload,
        }) = self.waiting.pop_front()
        {
            if let Err(payload) = association.submit(0, token, &command, payload, now) {
                self.waiting.push_front(Waiting {
                    token,
                    command,
                    payload,
                });
                break;
            }
        }
        association.send(0, done)
    }

    /// Gives up the association after an error, and whatever waits.
    fn settle(&mut self, result: Result<(), AssociationError>, done: &mut Vec<Done>) {
        if let Err(error) = result {
            self.lost = Some(error);
            if let Some(association) = self.association.take() {
                association.abandon(done);
            }
        }
        if self.association.is_none() {
            done.extend(self.waiting.drain(..).map(|waiting| Done {
                token: waiting.token,
                outcome: Err(CommandError::Lost),
                payload: waiting.payload,
            }));
        }
    }

    /// Says goodbye.
    pub fn close(self) {
        if let Some(association) = self.association {
            association.close();
        }
    }
}

fn attempt(target: &Target, depth: u16) -> Result<Association, AssociationError> {
    let mut association =
        Association::begin(target.address, &target.settings, depth, Instant::now())?;
    while !association.bring_up(Instant::now())? {
        std::thread::yield_now();
    }
    Ok(association)
}
