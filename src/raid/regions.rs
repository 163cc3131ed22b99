//! Sets of rows, kept by region: what a bit of the write-intent bitmap stands for.

/// A set of regions of rows that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    rows_per_region: u64,
    words: Box<[u64]>,
    regions: u64,
}

impl Regions {
    /// The empty set over `rows` rows in regions of `rows_per_region`.
    ///
    /// # Panics
    /// With regions of no rows.
    pub fn new(rows: u64, rows_per_region: u64) -> Self {
        assert!(rows_per_region > 0, "a region has rows");
        let regions = rows.div_ceil(rows_per_region);
        Self {
            rows_per_region,
            words: vec![0; regions.div_ceil(64) as usize].into(),
            regions,
        }
    }

    /// The number of regions, in the set or not.
    pub fn len(&self) -> u64 {
        self.regions
    }

    /// Whether no region is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// The region of a row.
    pub fn region_of(&self, row: u64) -> u64 {
        row / self.rows_per_region
    }

    /// The rows of a region; the last may have fewer than the others.
    pub fn rows_of(&self, region: u64) -> std::ops::Range<u64> {
        region * self.rows_per_region..(region + 1) * self.rows_per_region
    }

    /// Whether the region of `row` is in the set. Rows that do not exist are not.
    pub fn contains(&self, row: u64) -> bool {
        self.has(self.region_of(row))
    }

    /// Whether a region is in the set.
    pub fn has(&self, region: u64) -> bool {
        let word = self.words.get((region / 64) as usize);
        word.is_some_and(|w| w >> (region % 64) & 1 == 1)
    }

    /// Puts a region into the set.
    ///
    /// # Panics
    /// If there is no such region.
    pub fn insert(&mut self, region: u64) {
        assert!(region < self.regions, "there is no region {region}");
        self.words[(region / 64) as usize] |= 1 << (region % 64);
    }

    /// Takes a region out of the set.
    pub fn remove(&mut self, region: u64) {
        if let Some(word) = self.words.get_mut((region / 64) as usize) {
            *word &= !(1 << (region % 64));
        }
    }

    /// The first row at `row` or behind it whose region is in the set.
    pub fn next(&self, row: u64) -> Option<u64> {
        let first = self.region_of(row);
        let region = (first..self.regions).find(|&r| self.has(r))?;
        Some(row.max(region * self.rows_per_region))
    }

    /// The regions of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.regions).filter(|&r| self.has(r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_of_rows(
            rows in 1u64..1000,
            per in 1u64..70,
            changes in prop::collection::vec((any::<bool>(), 0u64..1000), 0..60),
            from in 0u64..1000,
        ) {
            let mut regions = Regions::new(rows, per);
            let mut model = BTreeSet::new();
            for (insert, row) in changes {
                let row = row % rows;
                let region = row / per;
                if insert {
                    regions.insert(region);
                    model.insert(region);
                } else {
                    regions.remove(region);
                    model.remove(&region);
                }
            }
            prop_assert_eq!(regions.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(regions.is_empty(), model.is_empty());
            for row in 0..rows {
                prop_assert_eq!(regions.contains(row), model.contains(&(row / per)));
            }
            let from = from % rows;
            let expected = (from..rows).find(|row| model.contains(&(row / per)));
            prop_assert_eq!(regions.next(from), expected);
        }
    }
}
