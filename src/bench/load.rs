//! What is driven, and how.

use std::time::Duration;

use super::BenchError;
use crate::loadgen::distribution::Distribution;
use crate::loadgen::quantity::Bytes;
use crate::loadgen::workload::{Pattern, Region, Shape, Workload};
use crate::md::NewPolicy;
use crate::raid::VolumeConfig;
use crate::reactor::CoreMask;

/// What requests go to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Members of the array, 3 to 64.
    pub members: usize,
    /// Bytes of each.
    pub member_bytes: u64,
    /// Bytes of their blocks: 512 or 4096.
    pub block_bytes: u32,
    /// The array.
    pub config: VolumeConfig,
    /// What the members keep of the array; nothing if not said.
    pub policy: Option<NewPolicy>,
    /// The slot without a member.
    pub missing: Option<usize>,
    /// Bare RAM members instead of the array, one for each core that makes requests.
    pub raw: bool,
    /// What members take for a request at least, in microseconds.
    pub delay_us: u64,
}

/// A load on it.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is driven.
    pub target: Target,
    /// One reactor on each of them; all of them own rows of the array.
    pub cores: CoreMask,
    /// How many of the cores make requests, beginning with the first: 1 or more.
    pub drivers: usize,
    /// Mixture and order of requests.
    pub pattern: Pattern,
    /// Share of reads in percent where the pattern is mixed.
    pub read_percent: u8,
    /// Where random requests go.
    pub distribution: Distribution,
    /// Seed of the sequence of requests.
    pub seed: u64,
    /// Bytes of a request.
    pub request: Bytes,
    /// Requests outstanding on each core that makes some; 0 only during a rebuild.
    pub depth: u32,
    /// Requests a second at most on each core that makes some; `None` for as many as can be.
    pub rate: Option<u64>,
    /// How long requests are made before the counting starts.
    pub ramp: Duration,
    /// How long they are counted.
    pub runtime: Duration,
    /// Ends after so many requests of a core, if that is sooner.
    pub io_limit: Option<u64>,
    /// Has a member rebuilt meanwhile, and ends when it is, if that is sooner.
    pub rebuild: bool,
    /// Whether latencies are taken. Takes a few instructions for each request.
    pub timed: bool,
    /// Whether the array's own counters are waited for (a tenth of a second).
    pub counted: bool,
}

impl Target {
    /// 4 members of 256 MiB and the array of this configuration.
    pub fn new(config: VolumeConfig) -> Self {
        Self {
            members: 4,
            member_bytes: 256 << 20,
            block_bytes: 512,
            config,
            policy: None,
            missing: None,
            raw: false,
            delay_us: 0,
        }
    }
}

impl Load {
    /// 4 KiB random reads at depth 32 for a second, made on each of these cores.
    pub fn new(target: Target, cores: CoreMask) -> Self {
        Self {
            target,
            drivers: cores.count(),
            cores,
            pattern: Pattern::RandRead,
            read_percent: 70,
            distribution: Distribution::Uniform,
            seed: 1,
            request: Bytes(4096),
            depth: 32,
            rate: None,
            ramp: Duration::ZERO,
            runtime: Duration::from_secs(1),
            io_limit: None,
            rebuild: false,
            timed: true,
            counted: true,
        }
    }

    /// The first `count` cores that this process may run on.
    ///
    /// # Errors
    /// [`CoreMaskError`](crate::reactor::CoreMaskError), where there are fewer.
    pub fn first_cores(count: usize) -> Result<CoreMask, BenchError> {
        let available = CoreMask::available()?;
        let behind = available.cores().last().map_or(0, |last| last + 1);
        let more = count.saturating_sub(available.count());
        // Cores that are not there are refused by name.
        let beyond = behind..behind.saturating_add(more.min(1));
        let mask = CoreMask::of(available.cores().take(count).chain(beyond))?;
        mask.check(&available)?;
        Ok(mask)
    }

    /// Refuses what makes no sense whatever the device.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let target = &self.target;
        let (members, cores, drivers) = (target.members, self.cores.count(), self.drivers);
        if let Some(slot) = target.missing.filter(|&slot| slot >= members) {
            return Err(BenchError::Missing { slot, members });
        }
        if drivers == 0 || drivers > cores {
            return Err(BenchError::Drivers { drivers, cores });
        }
        if self.rebuild && (target.policy.is_some() || target.raw) {
            return Err(BenchError::Rebuild);
        }
        if self.depth == 0 && !self.rebuild {
            return Err(BenchError::Nothing);
        }
        Ok(())
    }

    /// The requests that a core makes to a device of `blocks` blocks, with at most `most` a
    /// request. Streams of several cores begin at parts of their own, of whole `rows` of blocks.
    pub(super) fn workload(
        &self,
        driver: usize,
        blocks: u64,
        rows: u64,
        most: u32,
    ) -> Result<Workload, BenchError> {
        let block = self.target.block_bytes;
        let (bytes, most) = (self.request, Bytes(u64::from(most) * u64::from(block)));
        if !bytes.0.is_multiple_of(u64::from(block)) {
            return Err(BenchError::NotBlocks { bytes, block });
        }
        if bytes > most {
            return Err(BenchError::RequestSize { bytes, most });
        }
        let region = if self.pattern.is_random() || self.target.raw {
            Region { first: 0, blocks }
        } else {
            let part = blocks / self.drivers as u64;
            let part = match part.checked_rem(rows) {
                Some(rest) if part > rows => part - rest,
                _ => part,
            };
            Region {
                first: driver as u64 * part,
                blocks: part,
            }
        };
        let request = (bytes.0 / u64::from(block)) as u32;
        Ok(Workload::new(Shape {
            pattern: self.pattern,
            read_percent: self.read_percent,
            min_blocks: request,
            max_blocks: request,
            region,
            distribution: self.distribution,
            flush_every: 0,
            seed: self.seed.wrapping_add(driver as u64),
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadgen::workload::Step;

    fn load(cores: usize) -> Load {
        let target = Target::new(VolumeConfig::new("bench", 64 << 10));
        Load::new(target, CoreMask::of(0..cores).unwrap())
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |change: fn(&mut Load), words: &str| {
            let mut load = load(2);
            change(&mut load);
            let error = load
                .check()
                .and_then(|()| load.workload(0, 1000, 384, 100).map(drop))
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(|l| l.target.missing = Some(4), "slots 0 to 3");
        refused(|l| l.drivers = 3, "3 cores");
        refused(|l| l.drivers = 0, "1 to 2");
        refused(|l| l.depth = 0, "1 or more");
        refused(
            |l| (l.rebuild, l.target.policy) = (true, Some(NewPolicy::Ppl)),
            "leave out the policy",
        );
        refused(|l| (l.rebuild, l.target.raw) = (true, true), "bare member");
        refused(|l| l.request = Bytes(4000), "blocks of 512 bytes");
        refused(|l| l.request = Bytes(65536), "up to 50k");
        refused(|l| l.request = Bytes(0), "0 to 0 blocks");
        let idle = Load {
            depth: 0,
            rebuild: true,
            ..load(1)
        };
        assert!(idle.check().is_ok());
    }

    #[test]
    fn streams_of_several_cores_keep_out_of_each_others_way() {
        let first =
            |load: &Load, driver| match load.workload(driver, 1000, 384, 1000).unwrap().next_step()
            {
                Step::Write { lba, .. } => lba,
                other => panic!("{other:?}"),
            };
        let mut load = Load {
            pattern: Pattern::Write,
            ..load(2)
        };
        // Half of 1000 blocks is 500, of which whole rows of 384 are used.
        assert_eq!([first(&load, 0), first(&load, 1)], [0, 384]);
        // Of bare members, each core has one of its own.
        load.target.raw = true;
        assert_eq!([first(&load, 0), first(&load, 1)], [0, 0]);
    }

    #[test]
    fn more_cores_than_there_are_are_refused() {
        let all = CoreMask::available().unwrap();
        assert_eq!(Load::first_cores(all.count()).unwrap(), all);
        assert_eq!(Load::first_cores(1).unwrap().count(), 1);
        let error = Load::first_cores(all.count() + 5).unwrap_err().to_string();
        assert!(error.contains("is not there"), "{error}");
        let error = Load::first_cores(0).unwrap_err().to_string();
        assert!(error.contains("names no core"), "{error}");
    }
}
