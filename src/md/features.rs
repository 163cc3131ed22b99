//! The feature map of a superblock: which of its fields mean something.

/// Bits of `feature_map`. A member with a bit that a reader does not know must not be touched by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u32);

impl Features {
    /// A write-intent bitmap lies at the bitmap offset.
    pub const BITMAP: Self = Self(1);
    /// The member is being rebuilt and good below the recovery offset only.
    pub const RECOVERY_OFFSET: Self = Self(1 << 1);
    /// The array is changing its shape.
    pub const RESHAPE: Self = Self(1 << 2);
    /// The bad-block log is not empty.
    pub const BAD_BLOCKS: Self = Self(1 << 3);
    /// The member is to replace another one of the same slot.
    pub const REPLACEMENT: Self = Self(1 << 4);
    /// The reshape goes from the end to the start.
    pub const RESHAPE_BACKWARDS: Self = Self(1 << 5);
    /// The reshape also moves the start of the data.
    pub const NEW_OFFSET: Self = Self(1 << 6);
    /// The rebuild touches only what the bitmap says.
    pub const RECOVERY_BITMAP: Self = Self(1 << 7);
    /// The array is shared by a cluster.
    pub const CLUSTERED: Self = Self(1 << 8);
    /// The array has a write journal on a device of its own.
    pub const JOURNAL: Self = Self(1 << 9);
    /// Each member has a partial parity log with room for one header.
    pub const PPL: Self = Self(1 << 10);
    /// Each member has a partial parity log that is a ring of several headers.
    pub const MULTIPLE_PPLS: Self = Self(1 << 11);
    /// The layout of a RAID0 array of unequal members is stated.
    pub const RAID0_LAYOUT: Self = Self(1 << 12);

    /// Every bit that has a meaning.
    pub const KNOWN: Self = Self((1 << 13) - 1);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These and those of `other`.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those of `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Sets the bits of `other`, or clears them.
    pub fn set(&mut self, other: Self, on: bool) {
        *self = if on {
            self.with(other)
        } else {
            self.without(other)
        };
    }

    /// The bits that have no meaning yet; 0 if there are none.
    pub const fn unknown(self) -> u32 {
        self.0 & !Self::KNOWN.0
    }
}
