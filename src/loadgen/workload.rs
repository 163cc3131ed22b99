//! What to ask of the device next: a pure, seeded sequence.
//!
//! The room knows blocks and chance, nothing of queues, time or buffers.

use std::fmt;
use std::str::FromStr;

use super::distribution::{Distribution, Zipf, spread};
use super::random::Random;

/// The mixture and order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Reads in order of address, again from the start at the end.
    Read,
    /// Writes in order of address.
    Write,
    /// Reads at random addresses.
    RandRead,
    /// Writes at random addresses.
    RandWrite,
    /// Reads and writes in order of address, one stream.
    Rw,
    /// Reads and writes at random addresses.
    RandRw,
}

impl Pattern {
    const NAMES: [(&'static str, Pattern); 6] = [
        ("read", Pattern::Read),
        ("write", Pattern::Write),
        ("randread", Pattern::RandRead),
        ("randwrite", Pattern::RandWrite),
        ("rw", Pattern::Rw),
        ("randrw", Pattern::RandRw),
    ];

    /// Whether it writes at all.
    pub fn writes(self) -> bool {
        !matches!(self, Pattern::Read | Pattern::RandRead)
    }

    /// Whether it both reads and writes.
    pub fn is_mixed(self) -> bool {
        matches!(self, Pattern::Rw | Pattern::RandRw)
    }

    /// Whether addresses are random.
    #[inline]
    pub fn is_random(self) -> bool {
        matches!(
            self,
            Pattern::RandRead | Pattern::RandWrite | Pattern::RandRw
        )
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = Self::NAMES.iter().find(|(_, p)| p == self).expect("listed");
        out.write_str(name)
    }
}

impl FromStr for Pattern {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|&(_, pattern)| pattern)
            .ok_or_else(|| WorkloadError::UnknownPattern(text.to_owned()))
    }
}

/// Blocks `first .. first + blocks` of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First logical block.
    pub first: u64,
    /// Number of logical blocks, at least 1.
    pub blocks: u64,
}

impl Region {
    /// The block behind the last.
    pub fn end(&self) -> u64 {
        self.first + self.blocks
    }
}

/// Everything that decides a sequence of requests.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Mixture and order.
    pub pattern: Pattern,
    /// Share of reads where the pattern is mixed, 0 to 100.
    pub read_percent: u8,
    /// Smallest request in blocks, at least 1. Addresses and sizes are multiples of it, counted
    /// from the region's first block.
    pub min_blocks: u32,
    /// Largest request in blocks.
    pub max_blocks: u32,
    /// Where.
    pub region: Region,
    /// Which places of it, where addresses are random.
    pub distribution: Distribution,
    /// A flush after this many writes; 0 for none.
    pub flush_every: u64,
    /// The same seed gives the same sequence.
    pub seed: u64,
}

/// Why a shape, or a part of it, makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// No such pattern.
    #[error("{0:?} is not a workload; choose read, write, randread, randwrite, rw or randrw")]
    UnknownPattern(String),
    /// A share above 100.
    #[error("{0} is not a percentage; give 0 to 100")]
    Percentage(u8),
    /// A request of no blocks, or a smallest above the largest.
    #[error(
        "requests of {min} to {max} blocks make no sense; give at least one block, the smaller number first"
    )]
    Sizes {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// The largest request does not fit.
    #[error(
        "a request of {request} blocks does not fit into a region of {region} blocks; enlarge the region or use a smaller block size"
    )]
    TooLarge {
        /// Largest request in blocks.
        request: u32,
        /// Blocks of the region.
        region: u64,
    },
    /// A distribution of addresses that are not random.
    #[error(
        "{distribution} says where random requests go, and {pattern} has none; choose randread, randwrite or randrw"
    )]
    NotRandom {
        /// The distribution.
        distribution: String,
        /// The pattern.
        pattern: Pattern,
    },
}

/// One request to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read blocks.
    Read {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u32,
    },
    /// Write blocks.
    Write {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u32,
    },
    /// Make what is written durable.
    Flush,
}

/// An endless sequence of [`Step`]s.
#[derive(Clone, Debug)]
pub struct Workload {
    shape: Shape,
    random: Random,
    /// Ranks of the region's places, unless all are alike.
    zipf: Option<Zipf>,
    /// Places of the region, for requests of the smallest size.
    places: u64,
    /// How many sizes requests may have.
    sizes: u64,
    /// Blocks from the region's start where a sequential stream goes on.
    cursor: u64,
    writes_since_flush: u64,
}

impl Workload {
    /// The sequence of this shape.
    ///
    /// # Errors
    /// [`WorkloadError`] where the shape makes no sense.
    pub fn new(shape: Shape) -> Result<Self, WorkloadError> {
        let (min, max) = (shape.min_blocks, shape.max_blocks);
        if shape.read_percent > 100 {
            return Err(WorkloadError::Percentage(shape.read_percent));
        }
        if min == 0 || min > max {
            return Err(WorkloadError::Sizes { min, max });
        }
        if u64::from(max) > shape.region.blocks {
            return Err(WorkloadError::TooLarge {
                request: max,
                region: shape.region.blocks,
            });
        }
        let unit = u64::from(min);
        let zipf = match shape.distribution {
            Distribution::Uniform => None,
            distribution @ Distribution::Zipf(exponent) => {
                if !shape.pattern.is_random() {
                    return Err(WorkloadError::NotRandom {
                        distribution: distribution.to_string(),
                        pattern: shape.pattern,
                    });
                }
                Some(Zipf::new(shape.region.blocks / unit, exponent))
            }
        };
        Ok(Self {
            shape,
            random: Random::new(shape.seed),
            zipf,
            places: shape.region.blocks / unit,
            sizes: u64::from(max / min),
            cursor: 0,
            writes_since_flush: 0,
        })
    }

    /// The next step.
    #[inline]
    pub fn next_step(&mut self) -> Step {
        let flush_every = self.shape.flush_every;
        if flush_every > 0 && self.writes_since_flush >= flush_every {
            self.writes_since_flush = 0;
            return Step::Flush;
        }
        let reads = match self.shape.pattern {
            Pattern::Read | Pattern::RandRead => true,
            Pattern::Write | Pattern::RandWrite => false,
            Pattern::Rw | Pattern::RandRw => {
                self.random.below(100) < u64::from(self.shape.read_percent)
            }
        };
        let (lba, blocks) = self.place();
        if reads {
            Step::Read { lba, blocks }
        } else {
            self.writes_since_flush += 1;
            Step::Write { lba, blocks }
        }
    }

    #[inline]
    fn place(&mut self) -> (u64, u32) {
        let unit = u64::from(self.shape.min_blocks);
        let size = match self.sizes {
            1 => unit,
            sizes => unit * (1 + self.random.below(sizes)),
        };
        let offset = if self.shape.pattern.is_random() {
            unit * self.random_place(size)
        } else {
            if self.cursor + size > self.shape.region.blocks {
                self.cursor = 0;
            }
            let at = self.cursor;
            self.cursor += size;
            at
        };
        (self.shape.region.first + offset, size as u32)
    }

    /// Where on the grid a request of `size` blocks goes to that is to go anywhere.
    #[inline]
    fn random_place(&mut self, size: u64) -> u64 {
        let unit = u64::from(self.shape.min_blocks);
        let places = match size == unit {
            true => self.places,
            false => (self.shape.region.blocks - size) / unit + 1,
        };
        match &self.zipf {
            None => self.random.below(places),
            // One that reaches beyond the end is moved to it.
            Some(zipf) => {
                let rank = zipf.draw(&mut self.random);
                spread(rank, self.places).min(places - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(pattern: Pattern) -> Shape {
        Shape {
            pattern,
            read_percent: 70,
            min_blocks: 8,
            max_blocks: 8,
            region: Region {
                first: 100,
                blocks: 30,
            },
            distribution: Distribution::Uniform,
            flush_every: 0,
            seed: 1,
        }
    }

    #[test]
    fn sequential_requests_follow_each_other_and_wrap() {
        let mut workload = Workload::new(shape(Pattern::Write)).unwrap();
        let lbas: Vec<Step> = (0..4).map(|_| workload.next_step()).collect();
        let write = |lba| Step::Write { lba, blocks: 8 };
        assert_eq!(lbas, [write(100), write(108), write(116), write(100)]);
    }

    #[test]
    fn random_requests_reach_every_place() {
        let mut workload = Workload::new(shape(Pattern::RandRead)).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            match workload.next_step() {
                Step::Read { lba, blocks: 8 } => seen.insert(lba),
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(Vec::from_iter(seen), [100, 108, 116]);
    }

    #[test]
    fn a_flush_comes_after_every_nth_write() {
        let mut workload = Workload::new(Shape {
            flush_every: 3,
            ..shape(Pattern::Write)
        })
        .unwrap();
        let flushes: Vec<bool> = (0..8)
            .map(|_| workload.next_step() == Step::Flush)
            .collect();
        let (f, t) = (false, true);
        assert_eq!(flushes, [f, f, f, t, f, f, f, t]);
    }

    #[test]
    fn a_few_places_get_most_requests_where_zipf_says_so() {
        let shape = Shape {
            region: Region {
                first: 0,
                blocks: 8000,
            },
            distribution: Distribution::Zipf(1.2),
            ..shape(Pattern::RandWrite)
        };
        let mut workload = Workload::new(shape).unwrap();
        let mut seen = std::collections::BTreeMap::<u64, u32>::new();
        for _ in 0..20_000 {
            match workload.next_step() {
                Step::Write { lba, .. } => *seen.entry(lba).or_default() += 1,
                other => panic!("{other:?}"),
            }
        }
        let mut counts: Vec<u32> = seen.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // By the definition the first ten of 1000 ranks have 0.569 of all requests; six standard
        // deviations are 420.
        let ten: u32 = counts[..10].iter().sum();
        assert!((10_960..11_810).contains(&ten), "{ten}");
    }

    #[test]
    fn senseless_shapes_are_refused() {
        let refused = |change: fn(&mut Shape)| {
            let mut s = shape(Pattern::Rw);
            change(&mut s);
            Workload::new(s).unwrap_err()
        };
        assert_eq!(
            refused(|s| s.read_percent = 101),
            WorkloadError::Percentage(101)
        );
        assert_eq!(
            refused(|s| s.min_blocks = 0),
            WorkloadError::Sizes { min: 0, max: 8 }
        );
        assert_eq!(
            refused(|s| s.min_blocks = 9),
            WorkloadError::Sizes { min: 9, max: 8 }
        );
        assert_eq!(
            refused(|s| s.max_blocks = 31),
            WorkloadError::TooLarge {
                request: 31,
                region: 30
            }
        );
        let error = refused(|s| s.distribution = Distribution::Zipf(1.1)).to_string();
        assert!(error.starts_with("zipf:1.1 says where"), "{error}");
        assert!(error.contains("rw has none"), "{error}");
        assert_eq!(
            "random".parse::<Pattern>(),
            Err(WorkloadError::UnknownPattern("random".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn steps_stay_in_the_region_on_its_grid(
            seed in any::<u64>(),
            first in 0..1000u64,
            min_blocks in 1..16u32,
            times in 1..8u32,
            spare in 0..100u64,
            zipf in any::<bool>(),
            pattern in prop::sample::select(Pattern::NAMES.map(|(_, p)| p).to_vec()),
        ) {
            let max_blocks = min_blocks * times;
            let region = Region { first, blocks: u64::from(max_blocks) + spare };
            let distribution = match zipf && pattern.is_random() {
                true => Distribution::Zipf(0.9),
                false => Distribution::Uniform,
            };
            let shape = Shape {
                pattern, read_percent: 50, min_blocks, max_blocks, region, distribution, flush_every: 0, seed,
            };
            let mut workload = Workload::new(shape).unwrap();
            for _ in 0..100 {
                let (lba, blocks) = match workload.next_step() {
                    Step::Read { lba, blocks } | Step::Write { lba, blocks } => (lba, blocks),
                    Step::Flush => unreachable!("no flush was asked for"),
                };
                prop_assert!(lba >= first && lba + u64::from(blocks) <= region.end());
                prop_assert!(blocks >= min_blocks && blocks <= max_blocks);
                prop_assert!((lba - first).is_multiple_of(u64::from(min_blocks)));
                prop_assert!(blocks.is_multiple_of(min_blocks));
            }
        }

        #[test]
        fn the_mixture_is_what_was_asked(seed in any::<u64>(), percent in 0..=100u8) {
            let mut workload = Workload::new(Shape {
                read_percent: percent, seed, ..shape(Pattern::RandRw)
            }).unwrap();
            let draws = 20_000;
            let reads = (0..draws)
                .filter(|_| matches!(workload.next_step(), Step::Read { .. }))
                .count();
            // Six standard deviations of a fair draw are below 2.2 percent points.
            let share = 100.0 * reads as f64 / f64::from(draws);
            prop_assert!((share - f64::from(percent)).abs() < 2.2, "{share} of {percent}");
        }
    }
}
