//! How random requests spread over the places that there are: evenly, or as Zipf has it, where a few
//! places get most of them.

use std::fmt;
use std::str::FromStr;

use super::random::Random;

/// Largest exponent: with it all but one request of a hundred thousand go to three places.
const STEEPEST: f64 = 10.0;

/// Where random requests go.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Distribution {
    /// Each place is as likely as any other. Written `uniform`.
    #[default]
    Uniform,
    /// The place of rank k is as likely as 1 / k^exponent. Written `zipf:1.1`; the exponent is
    /// above 0 and at most 10.
    Zipf(f64),
}

/// A text that is no distribution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} says not where random requests go; write uniform, or zipf: and an exponent above 0 up to 10, such as zipf:1.1"
)]
pub struct DistributionError(String);

impl FromStr for Distribution {
    type Err = DistributionError;

    fn from_str(text: &str) -> Result<Self, DistributionError> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let exponent = text.strip_prefix("zipf:").and_then(|e| e.parse().ok());
        let sensible = exponent.filter(|e: &f64| *e > 0.0 && *e <= STEEPEST);
        let exponent = sensible.ok_or_else(|| DistributionError(text.to_owned()))?;
        Ok(Self::Zipf(exponent))
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => out.write_str("uniform"),
            Self::Zipf(exponent) => write!(out, "zipf:{exponent}"),
        }
    }
}

/// Draws ranks 1 to `count` as Zipf has them, by rejection-inversion (Hörmann and Derflinger,
/// "Rejection-inversion to generate variates from monotone discrete distributions", 1996): no table
/// and no sum over all ranks, and hardly ever a second draw.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    count: u64,
    exponent: f64,
    /// The area from the left edge of the first rank, and to the right edge of the last.
    edges: (f64, f64),
    /// As near to a rank as this, a draw is accepted at once.
    near: f64,
}

impl Zipf {
    /// `count` is at least 1; the exponent is above 0.
    pub fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self {
            count,
            exponent,
            edges: (0.0, 0.0),
            near: 0.0,
        };
        zipf.edges = (zipf.area(1.5) - 1.0, zipf.area(count as f64 + 0.5));
        zipf.near = 2.0 - zipf.place(zipf.area(2.5) - 2f64.powf(-exponent));
        zipf
    }

    /// A rank from 1 to `count`.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let (first, last) = self.edges;
        loop {
            // 53 bits are what a float holds.
            let share = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
            let area = last + share * (first - last);
            let place = self.place(area);
            let rank = place.round().clamp(1.0, self.count as f64);
            if rank - place <= self.near
                || area >= self.area(rank + 0.5) - rank.powf(-self.exponent)
            {
                return rank as u64;
            }
        }
    }

    /// The integral of x^-exponent from 1 to x.
    fn area(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        let log = x.ln();
        if (power * log).abs() < 1e-12 {
            return log;
        }
        (power * log).exp_m1() / power
    }

    /// The x up to which there is this area.
    fn place(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        let scaled = power * area;
        if scaled.abs() < 1e-12 {
            return area.exp();
        }
        // Rounding may put the last bit of an area beyond what there is.
        (scaled.max(-1.0 + f64::EPSILON).ln_1p() / power).exp()
    }
}

/// Where the place of a rank lies among `count`: a bijection that puts neighbours in rank far
/// apart, because what is hot does not lie side by side.
pub(super) fn spread(rank: u64, count: u64) -> u64 {
    // A prime near 2^64 divided by the golden ratio; no device has a multiple of it of blocks.
    const PRIME: u128 = 0x9e37_79b1_85eb_ca87;
    (u128::from(rank) * PRIME % u128::from(count)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_read_back_and_nonsense_is_named() {
        for text in ["uniform", "zipf:1.1", "zipf:0.5", "zipf:1"] {
            let distribution: Distribution = text.parse().unwrap();
            assert_eq!(distribution.to_string(), text);
        }
        for text in [
            "", "zipf", "zipf:", "zipf:0", "zipf:-1", "zipf:nan", "zipf:11", "pareto:1",
        ] {
            let error = text.parse::<Distribution>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains("zipf:1.1"), "{error}");
        }
    }

    /// Against the probabilities by their definition, k^-s over the sum of all.
    #[test]
    fn ranks_are_as_frequent_as_zipf_says() {
        for (count, exponent) in [(10u32, 1.1), (10, 1.0), (100, 0.5), (3, 4.0), (1, 1.2)] {
            let sum: f64 = (1..=count).map(|k| f64::from(k).powf(-exponent)).sum();
            let zipf = Zipf::new(u64::from(count), exponent);
            let mut random = Random::new(5);
            let draws = 200_000;
            let mut seen = vec![0u32; count as usize + 1];
            for _ in 0..draws {
                seen[zipf.draw(&mut random) as usize] += 1;
            }
            for rank in 1..=count {
                let odds = f64::from(rank).powf(-exponent) / sum;
                let expected = odds * f64::from(draws);
                // Six standard deviations.
                let most = 6.0 * (expected * (1.0 - odds)).sqrt() + 1e-9;
                let off = (f64::from(seen[rank as usize]) - expected).abs();
                assert!(off <= most, "{count} {exponent}: rank {rank}: {seen:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn ranks_are_in_bounds(count in 1..u64::MAX >> 1, exponent in 0.01..10.0f64, seed: u64) {
            let zipf = Zipf::new(count, exponent);
            let mut random = Random::new(seed);
            for _ in 0..50 {
                let rank = zipf.draw(&mut random);
                prop_assert!((1..=count).contains(&rank));
            }
        }

        #[test]
        fn every_rank_has_a_place_of_its_own(count in 1..3000u64) {
            let places: std::collections::BTreeSet<u64> =
                (1..=count).map(|rank| spread(rank, count)).collect();
            prop_assert_eq!(places.len() as u64, count);
            prop_assert!(places.iter().all(|&p| p < count));
        }
    }
}
