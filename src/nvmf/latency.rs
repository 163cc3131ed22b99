//! How long commands are with a device, from the first of their requests to the last.

use std::time::Duration;

/// What a command does, as far as latencies are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Zeroes or deallocates.
    Unmap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Unmap];

    /// SPDK's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Unmap => "unmap",
        }
    }
}

/// Latencies of one kind since the device was opened, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Their sum.
    pub sum: u64,
    /// The longest.
    pub most: u64,
    /// The shortest; 0 where there are none, and the largest number where it was forgotten since.
    pub least: u64,
    /// How many.
    pub count: u64,
}

impl Latency {
    fn record(&mut self, ns: u64) {
        self.add(&Self {
            sum: ns,
            most: ns,
            least: ns,
            count: 1,
        });
    }

    /// Adds those of another reactor.
    pub fn add(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.least = match self.count {
            0 => other.least,
            _ => self.least.min(other.least),
        };
        self.sum += other.sum;
        self.most = self.most.max(other.most);
        self.count += other.count;
    }
}

/// Latencies of a device on one reactor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    kinds: [Latency; Kind::ALL.len()],
    /// How they are spread, where that was asked for.
    pub histogram: Option<Box<Histogram>>,
}

impl Latencies {
    /// Those of one kind.
    pub fn of(&self, kind: Kind) -> &Latency {
        &self.kinds[kind as usize]
    }

    /// Forgets what was longest and shortest, and with `all` everything else but the shape of the
    /// histogram.
    pub(super) fn reset(&mut self, all: bool) {
        for latency in &mut self.kinds {
            (latency.most, latency.least) = (0, u64::MAX);
            if all {
                *latency = Latency::default();
            }
        }
        if let Some(histogram) = &mut self.histogram
            && all
        {
            histogram.buckets.fill(0);
        }
    }

    /// A command is done.
    pub(super) fn record(&mut self, kind: Kind, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.kinds[kind as usize].record(ns);
        if let Some(histogram) = &mut self.histogram {
            histogram.record(kind, ns);
        }
    }

    /// Adds those of another reactor. Histograms that are not of the same shape are not added.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.kinds.iter_mut().zip(&other.kinds) {
            own.add(other);
        }
        match (&mut self.histogram, &other.histogram) {
            (Some(own), Some(other)) => own.add(other),
            (own @ None, Some(other)) => *own = Some(other.clone()),
            (_, None) => {}
        }
    }
}

/// What a histogram tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramShape {
    /// Each power of two is cut into 2 to the power of this, 1 to 10.
    pub granularity: u32,
    /// Shortest time of interest in nanoseconds; what is shorter is in the first bucket.
    pub least: u64,
    /// What is longer in nanoseconds is in the last bucket; more than `least`.
    pub most: u64,
    /// Commands of which kind; all, if none is given.
    pub kind: Option<Kind>,
}

/// A shape that is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a histogram needs a granularity of 1 to 10, and min_nsec less than max_nsec")]
pub struct ShapeError;

impl Default for HistogramShape {
    /// Everything up to two minutes, to within one part in 128.
    fn default() -> Self {
        Self {
            granularity: 7,
            least: 0,
            most: 1 << 37,
            kind: None,
        }
    }
}

/// How latencies are spread: buckets of equal width within each power of two, as SPDK lays them
/// out (`spdk/histogram_data.h`), and as its tools read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    shape: HistogramShape,
    first: u32,
    last: u32,
    buckets: Box<[u64]>,
}

impl Histogram {
    /// An empty one.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn new(shape: HistogramShape) -> Result<Self, ShapeError> {
        if !(1..=10).contains(&shape.granularity) || shape.least >= shape.most {
            return Err(ShapeError);
        }
        let first = range(shape.granularity, shape.least);
        let last = range(shape.granularity, shape.most - 1);
        let count = ((last - first + 1) as usize) << shape.granularity;
        Ok(Self {
            shape,
            first,
            last,
            buckets: vec![0; count].into(),
        })
    }

    /// What it tells apart.
    pub fn shape(&self) -> &HistogramShape {
        &self.shape
    }

    /// The first and the last power of two that it has buckets of, counted as SPDK does.
    pub fn ranges(&self) -> (u32, u32) {
        (self.first, self.last)
    }

    /// Its buckets, shortest times first.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    fn record(&mut self, kind: Kind, ns: u64) {
        if self.shape.kind.is_some_and(|only| only != kind) {
            return;
        }
        let granularity = self.shape.granularity;
        let range = range(granularity, ns);
        let at = if range < self.first {
            0
        } else if range > self.last {
            self.buckets.len() - 1
        } else {
            let width = range.saturating_sub(1);
            let within = (ns >> width) as usize & ((1 << granularity) - 1);
            (((range - self.first) as usize) << granularity) + within
        };
        self.buckets[at] += 1;
    }

    fn add(&mut self, other: &Self) {
        if self.shape == other.shape {
            let pairs = self.buckets.iter_mut().zip(&other.buckets);
            pairs.for_each(|(own, other)| *own += other);
        }
    }
}

/// Which range of buckets a time is in: 0 for those with a bucket of their own that have no more
/// than `granularity` bits, and one more for each bit beyond that.
fn range(granularity: u32, ns: u64) -> u32 {
    (u64::BITS - ns.leading_zeros()).saturating_sub(granularity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_by_kind() {
        let mut all = Latencies::default();
        for (kind, us) in [(Kind::Read, 5), (Kind::Write, 7), (Kind::Read, 3)] {
            all.record(kind, Duration::from_micros(us));
        }
        let read = Latency {
            sum: 8000,
            most: 5000,
            least: 3000,
            count: 2,
        };
        assert_eq!(all.of(Kind::Read), &read);
        assert_eq!(all.of(Kind::Unmap), &Latency::default());
        let mut sum = Latencies::default();
        sum.add(&all);
        sum.add(&Latencies::default());
        sum.add(&all);
        assert_eq!(
            (sum.of(Kind::Write).count, sum.of(Kind::Write).least),
            (2, 7000)
        );
        assert_eq!(sum.of(Kind::Read).sum, 16000);
    }

    /// The table in `spdk/histogram_data.h`: range 0 has the times 0 to 127, range 1 128 to 255 one
    /// each, range 2 two each from 256, range 5 sixteen each from 2048.
    #[test]
    fn buckets_are_where_spdks_tools_look_for_them() {
        for (ns, range, index) in [
            (0, 0, 0),
            (1, 0, 1),
            (127, 0, 127),
            (128, 1, 0),
            (255, 1, 127),
            (256, 2, 0),
            (257, 2, 0),
            (258, 2, 1),
            (511, 2, 127),
            (2048, 5, 0),
            (2063, 5, 0),
            (2064, 5, 1),
            (4095, 5, 127),
        ] {
            let mut histogram = Histogram::new(HistogramShape::default()).unwrap();
            histogram.record(Kind::Read, ns);
            let at = histogram.buckets().iter().position(|&count| count == 1);
            assert_eq!(at, Some((range << 7) + index), "{ns}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_at_the_ends() {
        let shape = HistogramShape {
            granularity: 3,
            least: 64,
            most: 1024,
            kind: Some(Kind::Write),
        };
        let mut histogram = Histogram::new(shape).unwrap();
        // 64 has 7 bits, 1023 has 10.
        assert_eq!(histogram.ranges(), (4, 7));
        assert_eq!(histogram.buckets().len(), 4 * 8);
        for ns in [0, 63, 64, 1023, 1024, u64::MAX] {
            histogram.record(Kind::Write, ns);
            histogram.record(Kind::Read, ns);
        }
        assert_eq!(histogram.buckets()[0], 3);
        assert_eq!(histogram.buckets()[31], 3);
        let mut sum = histogram.clone();
        sum.add(&histogram);
        assert_eq!(sum.buckets()[0], 6);
        let other = Histogram::new(HistogramShape::default()).unwrap();
        sum.add(&other);
        assert_eq!(sum.buckets().iter().sum::<u64>(), 12);
    }

    #[test]
    fn latencies_are_forgotten() {
        let mut all = Latencies {
            histogram: Some(Box::new(Histogram::new(HistogramShape::default()).unwrap())),
            ..Latencies::default()
        };
        all.record(Kind::Read, Duration::from_nanos(100));
        all.reset(false);
        assert_eq!((all.of(Kind::Read).sum, all.of(Kind::Read).most), (100, 0));
        all.record(Kind::Read, Duration::from_nanos(30));
        assert_eq!(
            (all.of(Kind::Read).least, all.of(Kind::Read).most),
            (30, 30)
        );
        all.reset(true);
        assert_eq!(all.of(Kind::Read), &Latency::default());
        assert!(all.histogram.unwrap().buckets().iter().all(|&n| n == 0));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let good = HistogramShape::default();
        for shape in [
            HistogramShape {
                granularity: 0,
                ..good
            },
            HistogramShape {
                granularity: 11,
                ..good
            },
            HistogramShape {
                least: 5,
                most: 5,
                ..good
            },
        ] {
            assert_eq!(Histogram::new(shape), Err(ShapeError));
        }
    }
}
