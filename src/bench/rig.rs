//! The whole rig: members, array, reactors, and the thread that watches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::driver::{Driver, Share, Signals};
use super::members::{assembled, check_memory, member};
use super::{BenchError, Load, Outcome, Rebuilt};
use crate::bdev::Bdev;
use crate::loadgen::tally::Tally;
use crate::memory::{Arena, Pool};
use crate::raid::{Volume, VolumeConfig};
use crate::reactor::{IdlePolicy, Reactors};

/// How often the watching thread looks.
const LOOK: Duration = Duration::from_millis(1);
/// How long requests may take beyond the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// A volume publishes its counters ten times a second.
const COUNTERS: Duration = Duration::from_millis(120);
/// Memory of the engine for each reactor, beside the stripe cache: metadata, logs.
const SPARE_BYTES: u64 = 64 << 20;

/// Makes members and an array, drives them, and takes them down again. Waits for the end of it, or
/// for `stop`.
///
/// # Errors
/// [`BenchError`].
pub fn measure(load: &Load, stop: &AtomicBool) -> Result<Outcome, BenchError> {
    load.check()?;
    let target = &load.target;
    let slot = load.request.0.max(1).next_multiple_of(4096);
    let payloads = slot.saturating_mul(u64::from(load.depth));
    let payloads = payloads.saturating_mul(load.drivers as u64);
    let arena_bytes = engine_bytes(&target.config, load.cores.count()).saturating_add(payloads);
    let devices = match target.raw {
        true => load.drivers,
        false => target.members + usize::from(load.rebuild),
    };
    let ram = target.member_bytes.saturating_mul(devices as u64);
    check_memory(ram.saturating_add(arena_bytes))?;
    let setup = Reactors::prepare(&load.cores, IdlePolicy::Busy)?;
    let arena = Arena::new(arena_bytes as usize)?;
    let missing = target.missing.or(load.rebuild.then_some(0));
    let slots = if target.raw {
        load.drivers
    } else {
        target.members
    };
    let members = (0..slots)
        .map(|slot| match Some(slot) == missing && !target.raw {
            true => Ok(None),
            false => member(target, &format!("m{slot}"), &arena).map(Some),
        })
        .collect::<Result<Vec<_>, BenchError>>()?;
    let volume = match target.raw {
        true => None,
        false => {
            let assembled = target.policy.map(|policy| assembled(target, policy));
            let (config, members) = (target.config.clone(), members.clone());
            let wakers = setup.wakers();
            Some(Volume::new(
                config,
                members,
                assembled.transpose()?,
                wakers,
                &arena,
            )?)
        }
    };
    // What each reactor opens.
    let device = |reactor: usize| match &volume {
        Some(volume) => volume.clone() as Arc<dyn Bdev>,
        None => members[reactor % slots]
            .clone()
            .expect("no bare member is missing"),
    };
    let (answer, answers) = mpsc::channel();
    let signals = Signals::default();
    let stays = load.cores.count() > 1 || load.counted || load.rebuild;
    let mut parts = Vec::new();
    for reactor in 0..load.cores.count() {
        let device = device(reactor);
        let info = device.info();
        let (workload, depth) = match reactor < load.drivers && load.depth > 0 {
            true => {
                let rows = u64::from(info.write_unit);
                let workload = load.workload(reactor, info.blocks, rows, info.max_blocks)?;
                (Some(workload), load.depth as usize)
            }
            false => (None, 1),
        };
        let pool = Pool::new(&arena, slot as usize, depth)?;
        parts.push(Some((device, workload, pool)));
    }
    let reactors = setup.start(|reactor| {
        let (device, workload, pool) = parts[reactor.index()].take().expect("one each");
        let (load, wires) = (load.clone(), (signals.clone(), answer.clone()));
        move || {
            let channel = device.open().expect("memory opens");
            Driver::new(
                reactor.index(),
                &load,
                channel,
                workload,
                &pool,
                stays,
                wires,
            )
        }
    })?;
    drop(answer);
    let rebuild = match (&volume, load.rebuild) {
        (Some(volume), true) => {
            let spare = member(target, "spare", &arena)?;
            volume.add_member(spare, None)?.wait(PATIENCE)?;
            Some(Instant::now())
        }
        _ => None,
    };
    signals.go.store(true, Ordering::Release);
    let mut watch = Watch {
        load,
        volume: volume.as_deref(),
        rebuild,
        rebuilt: None,
        shares: Vec::new(),
    };
    watch.until_the_end(&answers, &reactors, &signals, stop)?;
    if load.counted {
        std::thread::sleep(COUNTERS);
    }
    let counters = volume.as_ref().map(|v| v.counters()).unwrap_or_default();
    signals.over.store(true, Ordering::Relaxed);
    reactors.join()?;
    let mut outcome = watch.outcome();
    outcome.counters = counters;
    outcome.interrupted = stop.load(Ordering::Relaxed);
    Ok(outcome)
}

/// What the engine's own pools need, at most.
fn engine_bytes(config: &VolumeConfig, reactors: usize) -> u64 {
    let cache = 2 * config.stripes as u64 * u64::from(config.stripe_bytes);
    (cache + SPARE_BYTES).saturating_mul(reactors as u64)
}

/// The thread that waits.
struct Watch<'a> {
    load: &'a Load,
    volume: Option<&'a Volume>,
    /// When the rebuild began, if there is one.
    rebuild: Option<Instant>,
    rebuilt: Option<Rebuilt>,
    shares: Vec<Share>,
}

impl Watch<'_> {
    /// Returns when every reactor has told its share.
    fn until_the_end(
        &mut self,
        answers: &mpsc::Receiver<Share>,
        reactors: &Reactors,
        signals: &Signals,
        stop: &AtomicBool,
    ) -> Result<(), BenchError> {
        let load = self.load;
        let last = Instant::now() + load.ramp + load.runtime + PATIENCE;
        while self.shares.len() < load.cores.count() {
            match answers.recv_timeout(LOOK) {
                Ok(share) => self.shares.push(share),
                Err(RecvTimeoutError::Timeout) => {}
                // All of them have gone without a word.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Some(exit) = reactors.next_exit() {
                exit.outcome?;
            }
            self.look_at_rebuild();
            let all_made = (0..load.drivers).all(|d| self.shares.iter().any(|s| s.reactor == d));
            let rebuilt = self.rebuild.is_some() && self.rebuilt.is_some();
            if stop.load(Ordering::Relaxed) || all_made || rebuilt {
                signals.stop.store(true, Ordering::Relaxed);
            }
            if Instant::now() > last {
                return Err(BenchError::Stuck(PATIENCE));
            }
        }
        // The time was up first.
        if let (None, Some(began), Some(volume)) = (self.rebuilt, self.rebuild, self.volume) {
            let process = volume.status().process;
            let rows = process.map_or(0, |p| p.rows_done);
            self.rebuilt = Some(Rebuilt {
                bytes: rows * u64::from(load.target.config.chunk_bytes),
                time: began.elapsed(),
            });
        }
        Ok(())
    }

    fn look_at_rebuild(&mut self) {
        if let (None, Some(began), Some(volume)) = (self.rebuilt, self.rebuild, self.volume)
            && volume.status().process.is_none()
        {
            self.rebuilt = Some(Rebuilt {
                bytes: self.load.target.member_bytes,
                time: began.elapsed(),
            });
        }
    }

    fn outcome(self) -> Outcome {
        let mut tally = Tally::default();
        for share in &self.shares {
            tally.absorb(&share.tally);
        }
        let rate = |s: &Share| match s.runtime.is_zero() {
            true => 0.0,
            false => s.count as f64 / s.runtime.as_secs_f64(),
        };
        Outcome {
            rate: self.shares.iter().map(rate).sum(),
            requests: self.shares.iter().map(|s| s.all).sum(),
            tally,
            runtime: self
                .shares
                .iter()
                .map(|s| s.runtime)
                .max()
                .unwrap_or_default(),
            cpu: self.shares.iter().map(|s| s.cpu).sum(),
            interrupted: false,
            counters: Default::default(),
            rebuilt: self.rebuilt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Target;
    use crate::loadgen::quantity::Bytes;
    use crate::loadgen::workload::Pattern;
    use crate::md::NewPolicy;
    use crate::reactor::CoreMask;

    /// A small array, on the first core, until 500 requests are done.
    fn load(pattern: Pattern) -> Load {
        let target = Target {
            member_bytes: 8 << 20,
            ..Target::new(VolumeConfig::new("bench", 64 << 10))
        };
        Load {
            pattern,
            io_limit: Some(500),
            // A bound only.
            runtime: Duration::from_secs(60),
            ..Load::new(target, Load::first_cores(1).unwrap())
        }
    }

    fn outcome(load: &Load) -> Outcome {
        let outcome = measure(load, &AtomicBool::new(false)).unwrap();
        assert_eq!(outcome.tally.failed, 0);
        assert!(outcome.rate > 0.0 && outcome.cpu > Duration::ZERO);
        outcome
    }

    /// By hand: of 4 members, a block written alone changes one of data and one of parity. Members that are memory do that
    /// by themselves; where the block was written lately, at most two are read for it.
    #[test]
    fn a_small_write_changes_two_blocks() {
        let outcome = outcome(&Load {
            depth: 1,
            ..load(Pattern::RandWrite)
        });
        assert_eq!(outcome.tally.count(), 500);
        assert_eq!(outcome.tally.read.count(), 0);
        let (requests, c) = (outcome.requests, outcome.counters);
        assert!(requests == 500 || requests == 501, "{requests}");
        assert_eq!(c.modify_writes + c.reconstruct_writes, requests);
        assert!((0..=2 * requests).contains(&c.pages_read), "{c:?}");
        assert_eq!(c.member_pages - c.pages_read, 2 * requests);
    }

    #[test]
    fn whole_rows_are_written_without_a_read() {
        let outcome = outcome(&Load {
            request: Bytes(192 << 10),
            ..load(Pattern::Write)
        });
        let (requests, c) = (outcome.requests, outcome.counters);
        assert_eq!(outcome.tally.bytes(), outcome.tally.count() * (192 << 10));
        // 192 KiB are 16 stripes of 3 pages of data, and one of parity each.
        assert_eq!((c.full_writes, c.pages_read), (16 * requests, 0));
        assert_eq!(c.member_pages, 64 * requests);
    }

    #[test]
    fn reads_of_a_missing_member_are_reconstructed() {
        assert_eq!(outcome(&load(Pattern::RandRead)).counters.reconstructed, 0);
        let mut load = load(Pattern::RandRead);
        load.target.missing = Some(1);
        assert!(outcome(&load).counters.reconstructed > 0);
    }

    #[test]
    fn a_mixture_has_both_kinds_and_bare_members_no_array() {
        for raw in [false, true] {
            let mut load = load(Pattern::RandRw);
            load.target.raw = raw;
            let outcome = outcome(&load);
            assert!(outcome.tally.read.count() > outcome.tally.write.count());
            assert!(outcome.tally.write.count() > 0);
            assert_eq!(outcome.counters == Default::default(), raw);
        }
    }

    #[test]
    fn arrays_of_every_policy_work() {
        for policy in [
            NewPolicy::Resync,
            NewPolicy::Bitmap { chunk_bytes: None },
            NewPolicy::Ppl,
        ] {
            let mut load = load(Pattern::RandWrite);
            load.target.member_bytes = 32 << 20;
            load.target.policy = Some(policy);
            let counters = outcome(&load).counters;
            assert_eq!(counters.ppl_entries > 0, policy == NewPolicy::Ppl);
        }
    }

    #[test]
    fn a_member_is_rebuilt_with_and_without_a_load() {
        for depth in [0, 4] {
            let load = Load {
                depth,
                rebuild: true,
                io_limit: None,
                ..load(Pattern::RandWrite)
            };
            let outcome = measure(&load, &AtomicBool::new(false)).unwrap();
            assert_eq!(outcome.rebuilt.expect("asked for").bytes, 8 << 20);
            assert_eq!(outcome.tally.count() > 0, depth > 0);
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let outcome = outcome(&Load {
            rate: Some(2000),
            io_limit: Some(200),
            ..load(Pattern::RandRead)
        });
        // 200 requests, of which the first comes at once.
        assert!(outcome.runtime >= Duration::from_micros(199 * 500));
    }

    #[test]
    fn every_core_makes_requests() {
        let cores = CoreMask::available().unwrap().count().min(2);
        let outcome = outcome(&Load {
            io_limit: Some(300),
            ..Load::new(
                load(Pattern::Write).target,
                Load::first_cores(cores).unwrap(),
            )
        });
        let least = 300 * cores as u64;
        assert!(outcome.tally.count() >= least, "{}", outcome.tally.count());
    }

    #[test]
    fn an_interrupted_run_has_a_result() {
        let load = Load {
            io_limit: None,
            ..load(Pattern::RandRead)
        };
        let outcome = measure(&load, &AtomicBool::new(true)).unwrap();
        assert!(outcome.interrupted);
    }
}
