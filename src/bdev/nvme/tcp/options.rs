//! How a remote controller is reached, and how long it may be away.

use std::time::Duration;

use crate::nvme::Nqn;

/// Who connects to what, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Name of the subsystem.
    pub subsystem: Nqn,
    /// Name of this host.
    pub host: Nqn,
    /// Identifier of this host; the same for all of its associations.
    pub host_id: [u8; 16],
    /// Ask for header digests.
    pub header_digest: bool,
    /// Ask for data digests.
    pub data_digest: bool,
    /// The controller gives us up after so long without a sign of life; zero for never.
    pub keep_alive: Duration,
    /// The controller is reset when an I/O command is not answered for so long.
    pub io_timeout: Duration,
    /// Likewise an admin command, or a connection that is being made.
    pub admin_timeout: Duration,
    /// Commands in flight on an I/O queue; as many as the controller takes if that is less.
    pub queue_depth: u16,
    /// I/O queues to ask for: one for each namespace and reactor that uses it, and one for whoever
    /// looks at a namespace for a moment.
    pub io_queues: u16,
    /// What happens while it is away.
    pub recovery: Recovery,
}

/// How long a controller may be away, as `bdev_nvme_attach_controller` of SPDK has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Pause between two rounds of attempts to reach it; zero for one round only.
    pub reconnect_delay: Duration,
    /// It is given up for good after so long; `None` for never.
    pub loss_timeout: Option<Duration>,
    /// I/O fails after so long, while attempts go on; `None` for as long as these go on.
    pub fast_io_fail: Option<Duration>,
}

impl Default for Recovery {
    /// I/O waits for ten seconds, and a controller that comes back later is welcome still.
    fn default() -> Self {
        Self {
            reconnect_delay: Duration::from_secs(2),
            loss_timeout: None,
            fast_io_fail: Some(Duration::from_secs(10)),
        }
    }
}

/// Times that contradict one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Attempts are to go on, without a pause between them.
    #[error(
        "reconnect_delay_sec is 0, which ends attempts after one round: ctrlr_loss_timeout_sec and fast_io_fail_timeout_sec must be 0 too"
    )]
    NoDelay,
    /// Attempts end before the first.
    #[error(
        "ctrlr_loss_timeout_sec is less than reconnect_delay_sec; make it 0 with the others, -1 for no limit, or at least the delay"
    )]
    LossBeforeDelay,
    /// I/O fails before the first attempt.
    #[error(
        "fast_io_fail_timeout_sec is less than reconnect_delay_sec; make it 0 or at least that"
    )]
    FailBeforeDelay,
    /// I/O fails when the controller is given up already.
    #[error(
        "fast_io_fail_timeout_sec is more than ctrlr_loss_timeout_sec; make it 0 or at most that"
    )]
    FailAfterLoss,
}

impl Recovery {
    /// Checks that the times go together, by SPDK's rules.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn check(&self) -> Result<(), RecoveryError> {
        let delay = self.reconnect_delay;
        if delay.is_zero() {
            let ends = self.loss_timeout.is_some_and(|t| t.is_zero());
            return match ends && self.fast_io_fail.is_none() {
                true => Ok(()),
                false => Err(RecoveryError::NoDelay),
            };
        }
        if self.loss_timeout.is_some_and(|loss| loss < delay) {
            return Err(RecoveryError::LossBeforeDelay);
        }
        match (self.fast_io_fail, self.loss_timeout) {
            (Some(fail), _) if fail < delay => Err(RecoveryError::FailBeforeDelay),
            (Some(fail), Some(loss)) if fail > loss => Err(RecoveryError::FailAfterLoss),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The combinations that SPDK's `bdev_nvme_check_io_error_resiliency_params` takes and refuses.
    #[test]
    fn times_go_together_by_spdks_rules() {
        let seconds = Duration::from_secs;
        let check = |delay, loss: i64, fail| {
            let recovery = Recovery {
                reconnect_delay: seconds(delay),
                loss_timeout: u64::try_from(loss).ok().map(seconds),
                fast_io_fail: (fail > 0).then(|| seconds(fail)),
            };
            recovery.check()
        };
        assert_eq!(check(0, 0, 0), Ok(()));
        assert_eq!(check(1, -1, 0), Ok(()));
        assert_eq!(check(1, -1, 5), Ok(()));
        assert_eq!(check(5, 5, 5), Ok(()));
        assert_eq!(check(0, 0, 1), Err(RecoveryError::NoDelay));
        assert_eq!(check(0, -1, 0), Err(RecoveryError::NoDelay));
        assert_eq!(check(0, 5, 0), Err(RecoveryError::NoDelay));
        assert_eq!(check(5, 4, 0), Err(RecoveryError::LossBeforeDelay));
        assert_eq!(check(1, 0, 0), Err(RecoveryError::LossBeforeDelay));
        assert_eq!(check(5, -1, 4), Err(RecoveryError::FailBeforeDelay));
        assert_eq!(check(1, 5, 6), Err(RecoveryError::FailAfterLoss));
        assert_eq!(Recovery::default().check(), Ok(()));
    }
}
