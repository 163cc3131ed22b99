//! The reactors and the target that serves from them.

use std::time::{Duration, Instant};

use crate::memory::{Arena, Class};
use crate::nvmf::{PayloadSizes, Target, TargetError, TargetSetup};
use crate::reactor::{CoreMask, IdlePolicy, ReactorError, Reactors, Waker};

/// The least payload memory in bytes that a poll group works with.
const LEAST_PAYLOAD: usize = 4 << 20;

/// The reactors cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A core or a thread cannot be had.
    #[error(transparent)]
    Reactors(#[from] ReactorError),
    /// The target cannot be made.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The arena is too small for so many reactors.
    #[error(
        "{have} MiB of memory are too little for {reactors} reactors; give {need} MiB at least (-s), or fewer cores (-m)"
    )]
    Memory {
        /// What there is, in MiB.
        have: usize,
        /// How many reactors.
        reactors: usize,
        /// What is needed, in MiB.
        need: usize,
    },
}

/// The reactors, each of which runs a poll group of the target, and the target.
#[derive(Debug)]
pub struct Machine {
    /// The target.
    pub target: Target,
    /// The reactors; none in tools and tests that do no I/O.
    pub reactors: Option<Reactors>,
}

impl Machine {
    /// Starts a reactor on each core. `on_exit` is called when one ends.
    ///
    /// # Errors
    /// [`StartError`]; no thread is left behind then.
    pub fn start(
        cores: &CoreMask,
        idle: IdlePolicy,
        arena: &Arena,
        on_exit: Waker,
    ) -> Result<Self, StartError> {
        let sizes = payload(arena.size(), cores.count())?;
        let mut setup = Reactors::prepare(cores, idle)?;
        setup.wake_on_exit(on_exit);
        let mut target = Target::new(TargetSetup::default());
        let mut seeds = Vec::with_capacity(cores.count());
        for (id, waker) in setup.ids().zip(setup.wakers()) {
            seeds.push(target.add_group(&id.to_string(), waker, arena, &sizes)?);
        }
        let mut seeds = seeds.into_iter();
        let reactors = setup.start(|_| {
            let seed = seeds.next().expect("one was made for each reactor");
            move || seed.grow()
        })?;
        Ok(Self {
            target,
            reactors: Some(reactors),
        })
    }

    /// A target that nobody can reach, for tools and tests that do no I/O.
    pub fn without_reactors() -> Self {
        Self {
            target: Target::new(TargetSetup::default()),
            reactors: None,
        }
    }

    /// Ends what hosts do, giving their commands until `patience` has passed, then what `last`
    /// does while the devices are still open, and then the reactors. Says whether everything came
    /// to a good end.
    pub fn stop(mut self, patience: Duration, last: impl FnOnce() -> bool) -> bool {
        let clean = self.target.stop(Instant::now() + patience);
        if !clean {
            tracing::warn!("hosts had commands under way when the time was up");
        }
        let closed = last();
        let told = self.target.finish();
        let ended = self.reactors.map_or(Ok(()), Reactors::join);
        clean && closed && told && ended.is_ok()
    }
}

/// How much payload memory each of `reactors` poll groups has of an arena of `bytes`: half of the
/// arena in all (the rest is for stripes), and not more than it has use for.
fn payload(bytes: usize, reactors: usize) -> Result<PayloadSizes, StartError> {
    let full = PayloadSizes::default();
    let share = bytes / 2 / reactors;
    if share < LEAST_PAYLOAD {
        return Err(StartError::Memory {
            have: bytes >> 20,
            reactors,
            need: (LEAST_PAYLOAD * 2 * reactors) >> 20,
        });
    }
    if share >= full.bytes() {
        return Ok(full);
    }
    let scale = |classes: &[Class]| {
        let scaled = classes.iter().map(|class| Class {
            slots: (class.slots * share / full.bytes()).max(1),
            ..*class
        });
        scaled.collect()
    };
    Ok(PayloadSizes {
        at_once: scale(&full.at_once),
        bulk: scale(&full.bulk),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_memory_is_half_of_what_there_is_and_no_more_than_is_of_use() {
        let full = PayloadSizes::default();
        assert_eq!(payload(1 << 30, 1).unwrap(), full);
        for (mib, reactors) in [(64, 1), (64, 4), (512, 8), (1024, 32)] {
            let sizes = payload(mib << 20, reactors).unwrap();
            assert!(sizes.bytes() * reactors <= (mib << 20) / 2);
            assert!(sizes.bytes() < full.bytes());
            // A command of the default size must fit.
            let bulk: usize = sizes.bulk.iter().map(|c| c.slot_size * c.slots).sum();
            assert!(bulk >= 1 << 20, "{mib} MiB for {reactors}: {bulk} bytes");
        }
        let error = payload(64 << 20, 16).unwrap_err().to_string();
        assert!(error.contains("128 MiB at least"), "{error}");
    }
}
