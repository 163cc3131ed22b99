//! Whose an I/O queue pair is: its channel's, or, while the controller is being reset, the keeper's.
//!
//! The channel works on a reactor and must not wait; the keeper works on a thread of its own and
//! must not reset rings that are in use. So they pass the queue to and fro by one word:
//!
//! | phase | who set it | meaning |
//! |---|---|---|
//! | live | keeper | the device knows the queue; the channel works with it |
//! | halted | keeper | the device is being stopped: no doorbells, and memory may still be written |
//! | down | keeper | the device is stopped; the channel empties the rings and keeps what it had in flight |
//! | clean | channel | the rings are empty; the keeper makes them known to the device |
//! | gone | keeper | the device can't be brought back, and accesses no memory |

use std::sync::atomic::{AtomicU32, Ordering};

/// Where a queue pair is in this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Live,
    Halted,
    Down,
    Clean,
    Gone,
}

const PHASES: [Phase; 5] = [
    Phase::Live,
    Phase::Halted,
    Phase::Down,
    Phase::Clean,
    Phase::Gone,
];

const PHASE_BITS: u32 = 3;

/// The phase of a queue pair, and the count of resets at that time, so that a wish for a reset that
/// was fulfilled meanwhile is known as such.
#[derive(Debug)]
pub(super) struct Gate(AtomicU32);

impl Gate {
    /// Clean, before the first reset.
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(Self::word(Phase::Clean, 0)))
    }

    /// The phase and the count of resets.
    pub(super) fn get(&self) -> (Phase, u32) {
        let word = self.0.load(Ordering::Acquire);
        let phase = PHASES[(word & ((1 << PHASE_BITS) - 1)) as usize % PHASES.len()];
        (phase, word >> PHASE_BITS)
    }

    /// The keeper says what holds now.
    pub(super) fn set(&self, phase: Phase, epoch: u32) {
        self.0.store(Self::word(phase, epoch), Ordering::Release);
    }

    /// The channel has emptied rings that were down. It is lost where the keeper has changed the
    /// phase meanwhile.
    pub(super) fn clean(&self, epoch: u32) {
        let (down, clean) = (
            Self::word(Phase::Down, epoch),
            Self::word(Phase::Clean, epoch),
        );
        let _ = self
            .0
            .compare_exchange(down, clean, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn word(phase: Phase, epoch: u32) -> u32 {
        epoch << PHASE_BITS | phase as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_cleans_only_what_is_still_down() {
        let gate = Gate::new();
        assert_eq!(gate.get(), (Phase::Clean, 0));
        for phase in PHASES {
            gate.set(phase, 7);
            assert_eq!(gate.get(), (phase, 7));
        }
        gate.set(Phase::Down, 7);
        gate.clean(6);
        assert_eq!(gate.get(), (Phase::Down, 7));
        gate.clean(7);
        assert_eq!(gate.get(), (Phase::Clean, 7));
        gate.set(Phase::Halted, 8);
        gate.clean(8);
        assert_eq!(gate.get(), (Phase::Halted, 8));
    }
}
