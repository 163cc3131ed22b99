//! Calls that answer when a volume has changed its members.

use std::time::{Duration, Instant};

use super::{Answer, Pending};
use crate::control::{Change, System};
use crate::rpc::{Outcome, RpcError};

/// How long a change may take. The reactors may be busy, but they answer within a turn or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked at: nothing wakes the control thread for it.
const INTERVAL: Duration = Duration::from_millis(2);

/// A call that waits for a change.
#[derive(Debug)]
pub struct Changing {
    change: Change,
    /// The member that has left is to be deleted.
    deletes: bool,
    until: Instant,
}

impl Changing {
    /// Answers true when the change is made.
    pub fn answer(change: Change) -> Answer {
        Self::later(change, false)
    }

    /// Deletes the member when the volume has let it go, and then answers true.
    pub fn then_delete(change: Change) -> Answer {
        Self::later(change, true)
    }

    fn later(change: Change, deletes: bool) -> Answer {
        Answer::Later(Box::new(Self {
            change,
            deletes,
            until: Instant::now() + PATIENCE,
        }))
    }
}

impl Pending for Changing {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        let Some(changed) = system.poll_change(&self.change) else {
            return (now >= self.until).then(|| {
                let message = format!(
                    "the reactors did not answer within {} seconds; the change may still take effect",
                    PATIENCE.as_secs()
                );
                Err(RpcError::errno(rustix::io::Errno::TIMEDOUT, message))
            });
        };
        let done = changed.map_err(RpcError::from).and_then(|()| {
            if self.deletes {
                system.devices.remove(self.change.member())?;
            }
            Ok(true.into())
        });
        Some(done)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}
