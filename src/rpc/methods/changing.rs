//! Calls that answer when a volume has changed.

use std::time::{Duration, Instant};

use super::{Answer, Pending};
use crate::control::{Change, System};
use crate::rpc::{Outcome, RpcError};

/// How long a change may take. The reactors may be busy, but they answer within a turn or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked at: nothing wakes the control thread for it.
const INTERVAL: Duration = Duration::from_millis(2);

/// What is done when a change is made.
#[derive(Debug)]
pub enum Then {
    /// No more.
    Nothing,
    /// The member that has left is deleted.
    DeleteMember,
    /// The volume, which is clean now, is deleted.
    DeleteVolume {
        /// And so are its members' superblocks.
        clear: bool,
    },
    /// What was left may be begun again.
    Resume,
}

/// A call that waits for a change.
#[derive(Debug)]
pub struct Changing {
    change: Change,
    then: Then,
    until: Instant,
}

impl Changing {
    /// Answers true when the change is made.
    pub fn answer(change: Change) -> Answer {
        Self::then(change, Then::Nothing)
    }

    /// Does something more when the change is made, and then answers true.
    pub fn then(change: Change, then: Then) -> Answer {
        Answer::Later(Box::new(Self {
            change,
            then,
            until: Instant::now() + PATIENCE,
        }))
    }

    /// Does what is to be done now that the change is made.
    fn finish(&mut self, system: &mut System) -> Option<Outcome> {
        let done = match std::mem::replace(&mut self.then, Then::Nothing) {
            Then::Nothing => Ok(()),
            Then::DeleteMember => match self.change.member() {
                Some(member) => system.devices.remove(member).map_err(RpcError::from),
                None => Ok(()),
            },
            Then::DeleteVolume { clear } => system
                .finish_delete(self.change.array(), clear)
                .map_err(RpcError::from),
            Then::Resume => match system.pause(self.change.array(), false) {
                Ok(change) => {
                    self.change = change;
                    return None;
                }
                Err(error) => Err(error.into()),
            },
        };
        Some(done.map(|()| true.into()))
    }
}

impl Pending for Changing {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        match system.poll_change(&mut self.change) {
            Some(Ok(())) => self.finish(system),
            Some(Err(error)) => Some(Err(error.into())),
            None => (now >= self.until).then(|| {
                let message = format!(
                    "the reactors did not answer within {} seconds; the change may still take effect",
                    PATIENCE.as_secs()
                );
                Err(RpcError::errno(rustix::io::Errno::TIMEDOUT, message))
            }),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}
