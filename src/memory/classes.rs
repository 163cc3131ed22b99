//! Payload memory: pools of several slot sizes, from which a whole payload is taken at once.

use super::arena::Arena;
use super::buffer::BufMut;
use super::pool::{Pool, PoolError};
use super::{SLOT_ALIGN, SegmentsMut};

/// One size of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Bytes of a slot, a multiple of [`SLOT_ALIGN`].
    pub slot_size: usize,
    /// Number of slots.
    pub slots: usize,
}

/// Where a payload must be cut, so that no buffer spans a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Bytes before the first cut, 1 to `every`.
    first: usize,
    /// Bytes between cuts.
    every: usize,
}

impl Cuts {
    /// Nowhere.
    pub const NONE: Self = Self {
        first: usize::MAX,
        every: usize::MAX,
    };

    /// At every multiple of `boundary` bytes of something in which the payload begins at byte
    /// `offset`; nowhere if `boundary` is 0.
    pub fn at_multiples(boundary: u64, offset: u64) -> Self {
        if boundary == 0 {
            return Self::NONE;
        }
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            first: size(boundary - offset % boundary),
            every: size(boundary),
        }
    }
}

/// Pools in ascending order of slot size.
///
/// [`Classes::take`] hands out the whole payload of a command or nothing, so that nobody waits for
/// more memory while holding some.
#[derive(Clone, Debug)]
pub struct Classes {
    pools: Vec<Pool>,
}

impl Classes {
    /// Carves the pools out of `arena`. Classes may come in any order.
    ///
    /// # Errors
    /// A class that is no pool, or an arena without room.
    pub fn new(arena: &Arena, classes: &[Class]) -> Result<Self, PoolError> {
        let mut classes = classes.to_vec();
        classes.sort_by_key(|class| class.slot_size);
        let pools = classes
            .iter()
            .map(|class| Pool::new(arena, class.slot_size, class.slots))
            .collect::<Result<_, _>>()?;
        Ok(Self { pools })
    }

    /// Bytes of arena that these classes need.
    pub fn bytes(classes: &[Class]) -> usize {
        let of = |class: &Class| class.slot_size.next_multiple_of(SLOT_ALIGN) * class.slots;
        classes.iter().map(of).sum()
    }

    /// Takes buffers of `len` bytes in all, cut at `cuts`; or nothing, while there is not enough.
    /// What the bytes are is what their last users left.
    pub fn take(&self, len: usize, cuts: Cuts) -> Option<SegmentsMut> {
        let mut segments = SegmentsMut::new();
        let mut left = len;
        let mut piece = cuts.first;
        while left > 0 {
            let mut wanted = piece.min(left);
            left -= wanted;
            while wanted > 0 {
                let mut slot = self.slot_for(wanted)?;
                slot.truncate(wanted);
                wanted -= slot.len();
                segments.push(slot);
            }
            piece = cuts.every;
        }
        Some(segments)
    }

    /// The smallest free slot that holds `wanted` bytes, or else the largest free slot.
    fn slot_for(&self, wanted: usize) -> Option<BufMut> {
        let fit = self.pools.partition_point(|p| p.slot_size() < wanted);
        let (smaller, larger) = self.pools.split_at(fit);
        let fits = larger.iter().find_map(Pool::take);
        fits.or_else(|| smaller.iter().rev().find_map(Pool::take))
    }

    /// Whether every slot is free: what cannot be taken now can never be.
    pub fn is_whole(&self) -> bool {
        self.pools.iter().all(|p| p.available() == p.capacity())
    }

    /// Bytes of all slots.
    pub fn capacity(&self) -> usize {
        let bytes = |p: &Pool| p.capacity() * p.slot_size();
        self.pools.iter().map(bytes).sum()
    }

    /// Bytes of the free slots.
    pub fn available(&self) -> usize {
        let bytes = |p: &Pool| p.available() * p.slot_size();
        self.pools.iter().map(bytes).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K: usize = 1024;

    fn classes(sizes: &[(usize, usize)]) -> Classes {
        let sizes: Vec<Class> = sizes
            .iter()
            .map(|&(slot_size, slots)| Class { slot_size, slots })
            .collect();
        let arena = super::super::testing::arena(Classes::bytes(&sizes));
        Classes::new(&arena, &sizes).unwrap()
    }

    fn lengths(segments: &SegmentsMut) -> Vec<usize> {
        segments.iter().map(|s| s.len()).collect()
    }

    #[test]
    fn the_smallest_slot_that_fits_is_taken() {
        let classes = classes(&[(64 * K, 2), (4 * K, 2), (16 * K, 2)]);
        let _a = classes.take(512, Cuts::NONE).unwrap();
        assert_eq!(classes.available(), (4 + 2 * 16 + 2 * 64) * K);
        let b = classes.take(5 * K, Cuts::NONE).unwrap();
        assert_eq!(lengths(&b), [5 * K]);
        assert_eq!(classes.available(), (4 + 16 + 2 * 64) * K);
        let c = classes.take(100 * K, Cuts::NONE).unwrap();
        assert_eq!(lengths(&c), [64 * K, 36 * K]);
    }

    #[test]
    fn cuts_follow_the_boundary_of_the_device() {
        let classes = classes(&[(4 * K, 8), (64 * K, 4)]);
        let cuts = Cuts::at_multiples(8 * K as u64, 1021 * 4 * K as u64);
        let a = classes.take(20 * K, cuts).unwrap();
        assert_eq!(lengths(&a), [4 * K, 8 * K, 8 * K]);
        let whole = Cuts::at_multiples(8 * K as u64, 16 * K as u64);
        drop(a);
        assert_eq!(
            lengths(&classes.take(12 * K, whole).unwrap()),
            [8 * K, 4 * K]
        );
    }

    #[test]
    fn all_or_nothing() {
        let classes = classes(&[(4 * K, 3)]);
        let held = classes.take(4 * K, Cuts::NONE).unwrap();
        assert!(classes.take(12 * K, Cuts::NONE).is_none());
        assert_eq!(classes.available(), 8 * K);
        assert!(!classes.is_whole());
        drop(held);
        assert!(classes.is_whole());
        assert_eq!(
            lengths(&classes.take(12 * K, Cuts::NONE).unwrap()),
            [4 * K; 3]
        );
    }

    #[test]
    fn nothing_is_no_buffer() {
        let classes = classes(&[(4 * K, 1)]);
        assert!(classes.take(0, Cuts::NONE).unwrap().is_empty());
        assert!(classes.is_whole());
    }

    proptest! {
        /// Against the rule itself: lengths add up, and the ends are at cuts where there are cuts.
        #[test]
        fn no_buffer_spans_a_cut(
            blocks in 1usize..600,
            boundary in prop_oneof![Just(0u64), (1u64..64).prop_map(|b| b * 512)],
            lba in 0u64..1000,
        ) {
            let classes = classes(&[(4 * K, 700), (16 * K, 8), (64 * K, 4)]);
            let offset = lba * 512;
            let taken = classes.take(blocks * 512, Cuts::at_multiples(boundary, offset)).unwrap();
            let mut at = offset;
            for segment in &taken {
                let end = at + segment.len() as u64;
                prop_assert!(!segment.is_empty());
                if let (Some(first), Some(last)) = (at.checked_div(boundary), (end - 1).checked_div(boundary)) {
                    prop_assert_eq!(first, last);
                }
                at = end;
            }
            prop_assert_eq!(at - offset, blocks as u64 * 512);
        }
    }
}
