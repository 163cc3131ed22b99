//! Where every byte of the volume, and its parity, lies on the members.
//!
//! A *row* is one chunk of every member at the same offset; one of them holds parity. A *stripe*
//! is [`Geometry::stripe_bytes`] of a row at the same offset of every member. Inside a row and a
//! stripe, blocks are named by *role*: data `0..data()` in the order of the volume, then parity.

use super::VolumeError;

/// Which member holds parity of a row, and in which order the others hold its data: md's layouts
/// for RAID5, by md's numbers (`layout` in the superblock).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Layout {
    /// 0: parity moves from the last member to the first; data in the order of the members.
    LeftAsymmetric = 0,
    /// 1: parity moves from the first member to the last; data in the order of the members.
    RightAsymmetric = 1,
    /// 2: parity moves from the last member to the first; data starts behind parity and wraps.
    #[default]
    LeftSymmetric = 2,
    /// 3: parity moves from the first member to the last; data starts behind parity and wraps.
    RightSymmetric = 3,
    /// 4: parity is always on the first member.
    ParityFirst = 4,
    /// 5: parity is always on the last member.
    ParityLast = 5,
}

impl Layout {
    /// All layouts, by number.
    pub const ALL: [Layout; 6] = [
        Layout::LeftAsymmetric,
        Layout::RightAsymmetric,
        Layout::LeftSymmetric,
        Layout::RightSymmetric,
        Layout::ParityFirst,
        Layout::ParityLast,
    ];

    /// mdadm's name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::LeftAsymmetric => "left-asymmetric",
            Layout::RightAsymmetric => "right-asymmetric",
            Layout::LeftSymmetric => "left-symmetric",
            Layout::RightSymmetric => "right-symmetric",
            Layout::ParityFirst => "parity-first",
            Layout::ParityLast => "parity-last",
        }
    }

    /// The layout of mdadm's name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.name() == name)
    }
}

/// A set of roles of a stripe: bit `k` for role `k`.
pub type Mask = u64;

/// Smallest and largest number of members.
pub const MEMBERS: std::ops::RangeInclusive<usize> = 3..=64;
/// Smallest and largest chunk in bytes; a power of two.
pub const CHUNK_BYTES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
/// Smallest stripe in bytes.
pub const STRIPE_BYTES_MIN: u32 = 4096;

/// The shape of an array. Plain arithmetic, no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    members: u32,
    chunk_bytes: u32,
    stripe_bytes: u32,
    layout: Layout,
    rows: u64,
    shards: u32,
    shard_run: u32,
}

/// A byte of the volume on its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Row, from 0.
    pub row: u64,
    /// Data role in the row.
    pub role: usize,
    /// Byte inside the chunk.
    pub within: u32,
}

impl Geometry {
    /// The shape of an array of `members` members with `member_bytes` usable bytes each, cut into
    /// chunks of `chunk_bytes` and stripes of `stripe_bytes`. The tail of a member that makes no
    /// whole chunk is not used.
    ///
    /// # Errors
    /// [`VolumeError`] naming the number that is out of range.
    pub fn new(
        members: usize,
        member_bytes: u64,
        chunk_bytes: u32,
        stripe_bytes: u32,
        layout: Layout,
    ) -> Result<Self, VolumeError> {
        if !MEMBERS.contains(&members) {
            return Err(VolumeError::Members(members));
        }
        if !CHUNK_BYTES.contains(&chunk_bytes) || !chunk_bytes.is_power_of_two() {
            return Err(VolumeError::Chunk(chunk_bytes));
        }
        let stripes = STRIPE_BYTES_MIN..=chunk_bytes;
        if !stripes.contains(&stripe_bytes) || !stripe_bytes.is_power_of_two() {
            return Err(VolumeError::Stripe {
                stripe: stripe_bytes,
                chunk: chunk_bytes,
            });
        }
        let rows = member_bytes / u64::from(chunk_bytes);
        if rows == 0 {
            return Err(VolumeError::TooSmall {
                bytes: member_bytes,
                chunk: chunk_bytes,
            });
        }
        Ok(Self {
            members: members as u32,
            chunk_bytes,
            stripe_bytes,
            layout,
            rows,
            shards: 1,
            shard_run: 1,
        })
    }

    /// The same array with its rows dealt out to `shards` owners in runs of `shard_run` rows.
    pub fn with_shards(mut self, shards: usize, shard_run: u32) -> Self {
        assert!(shards > 0 && shard_run > 0, "somebody must own the rows");
        self.shards = shards as u32;
        self.shard_run = shard_run;
        self
    }

    /// Number of members, `3..=64`.
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// Data roles of a row: one less than the members. It is also the number of the parity role.
    pub fn data(&self) -> usize {
        self.members as usize - 1
    }

    /// Mask of all data roles.
    pub fn data_mask(&self) -> Mask {
        (1 << self.data()) - 1
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Bytes of a stripe on each member.
    pub fn stripe_bytes(&self) -> u32 {
        self.stripe_bytes
    }

    /// Bytes of data of a row.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.chunk_bytes) * self.data() as u64
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u64 {
        self.rows * self.stripes_per_row()
    }

    /// Stripes of a row.
    pub fn stripes_per_row(&self) -> u64 {
        1 << self.stripes_per_row_shift()
    }

    fn stripes_per_row_shift(&self) -> u32 {
        self.chunk_bytes.trailing_zeros() - self.stripe_bytes.trailing_zeros()
    }

    /// Bytes of the volume.
    pub fn volume_bytes(&self) -> u64 {
        self.rows * self.row_bytes()
    }

    /// Bytes used on each member.
    pub fn member_bytes(&self) -> u64 {
        self.rows * u64::from(self.chunk_bytes)
    }

    /// The row and role of a byte of the volume.
    pub fn place(&self, offset: u64) -> Place {
        debug_assert!(offset < self.volume_bytes(), "byte {offset} of the volume");
        // Chunks and stripes are powers of two: this is asked too often for more than one division.
        let chunk = offset >> self.chunk_bytes.trailing_zeros();
        let data = self.data() as u64;
        Place {
            row: chunk / data,
            role: (chunk % data) as usize,
            within: offset as u32 & (self.chunk_bytes - 1),
        }
    }

    /// The byte of its member's data that a place is.
    pub fn on_member(&self, place: Place) -> u64 {
        place.row * u64::from(self.chunk_bytes) + u64::from(place.within)
    }

    /// Whether `len` bytes from `offset` on hold all of `row`.
    pub fn covers_row(&self, offset: u64, len: u64, row: u64) -> bool {
        let start = row * self.row_bytes();
        offset <= start && offset + len >= start + self.row_bytes()
    }

    /// The stripe that a place is in, and the byte inside the stripe.
    pub fn stripe_of(&self, place: Place) -> (u64, u32) {
        let index = u64::from(place.within >> self.stripe_bytes.trailing_zeros());
        let stripe = place.row * self.stripes_per_row() + index;
        (stripe, place.within & (self.stripe_bytes - 1))
    }

    /// The row of a stripe.
    pub fn row_of(&self, stripe: u64) -> u64 {
        stripe >> self.stripes_per_row_shift()
    }

    /// First byte of a stripe, the same on every member.
    pub fn member_offset(&self, stripe: u64) -> u64 {
        stripe * u64::from(self.stripe_bytes)
    }

    /// The member that holds parity of `row`.
    pub fn parity_member(&self, row: u64) -> usize {
        let n = u64::from(self.members);
        let turn = (row % n) as usize;
        let last = self.members() - 1;
        match self.layout {
            Layout::LeftAsymmetric | Layout::LeftSymmetric => last - turn,
            Layout::RightAsymmetric | Layout::RightSymmetric => turn,
            Layout::ParityFirst => 0,
            Layout::ParityLast => last,
        }
    }

    /// The member that holds `role` of `row`.
    pub fn member(&self, row: u64, role: usize) -> usize {
        self.member_beside(self.parity_member(row), role)
    }

    /// The member that holds `role` of a row whose parity is held by the member `parity`.
    pub fn member_beside(&self, parity: usize, role: usize) -> usize {
        if role == self.data() {
            return parity;
        }
        match self.layout {
            Layout::LeftSymmetric | Layout::RightSymmetric => self.around(parity + 1 + role),
            _ => role + usize::from(role >= parity),
        }
    }

    /// The role that `member` plays in `row`: the inverse of [`Geometry::member`].
    pub fn role(&self, row: u64, member: usize) -> usize {
        self.role_beside(self.parity_member(row), member)
    }

    /// The role that `member` plays in a row whose parity is held by the member `parity`.
    pub fn role_beside(&self, parity: usize, member: usize) -> usize {
        if member == parity {
            return self.data();
        }
        match self.layout {
            Layout::LeftSymmetric | Layout::RightSymmetric => {
                self.around(member + self.members() - parity - 1)
            }
            _ => member - usize::from(member > parity),
        }
    }

    /// A member's number that may have run past the last one, once at most.
    fn around(&self, member: usize) -> usize {
        match member.checked_sub(self.members()) {
            Some(wrapped) => wrapped,
            None => member,
        }
    }

    /// The shard that owns `row`.
    pub fn owner(&self, row: u64) -> usize {
        ((row / u64::from(self.shard_run)) % u64::from(self.shards)) as usize
    }

    /// Whether an edge between two owners' rows lies before this stripe.
    pub fn is_edge(&self, stripe: u64) -> bool {
        let run = self.stripes_per_row() * u64::from(self.shard_run);
        self.shards > 1 && stripe.is_multiple_of(run) && stripe > 0 && stripe < self.stripes()
    }

    /// Whether a byte of the volume is the first of an owner's run of rows, behind another's.
    pub fn is_run_start(&self, offset: u64) -> bool {
        let run = self.row_bytes() * u64::from(self.shard_run);
        self.shards > 1 && offset.is_multiple_of(run) && offset > 0 && offset < self.volume_bytes()
    }

    /// The first byte behind the run of rows around `offset` that have one owner.
    pub fn run_end(&self, offset: u64) -> u64 {
        if self.shards == 1 {
            return self.volume_bytes();
        }
        let run = self.row_bytes() * u64::from(self.shard_run);
        ((offset / run + 1) * run).min(self.volume_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u32 = 65536;

    fn geometry(members: usize, layout: Layout) -> Geometry {
        Geometry::new(members, 1 << 30, CHUNK, 4096, layout).unwrap()
    }

    /// Rows 0..4 of four members, drawn by hand from the definition of each layout: which data
    /// chunk of the volume each member holds, `P` for parity.
    #[test]
    fn four_members_by_hand() {
        const P: i64 = -1;
        #[rustfmt::skip]
        let tables: [(Layout, [[i64; 4]; 5]); 6] = [
            (Layout::LeftAsymmetric,  [[0, 1, 2, P], [3, 4, P, 5], [6, P, 7, 8], [P, 9, 10, 11], [12, 13, 14, P]]),
            (Layout::RightAsymmetric, [[P, 0, 1, 2], [3, P, 4, 5], [6, 7, P, 8], [9, 10, 11, P], [P, 12, 13, 14]]),
            (Layout::LeftSymmetric,   [[0, 1, 2, P], [4, 5, P, 3], [8, P, 6, 7], [P, 9, 10, 11], [12, 13, 14, P]]),
            (Layout::RightSymmetric,  [[P, 0, 1, 2], [5, P, 3, 4], [7, 8, P, 6], [9, 10, 11, P], [P, 12, 13, 14]]),
            (Layout::ParityFirst,     [[P, 0, 1, 2], [P, 3, 4, 5], [P, 6, 7, 8], [P, 9, 10, 11], [P, 12, 13, 14]]),
            (Layout::ParityLast,      [[0, 1, 2, P], [3, 4, 5, P], [6, 7, 8, P], [9, 10, 11, P], [12, 13, 14, P]]),
        ];
        for (layout, table) in tables {
            let g = geometry(4, layout);
            for (row, chunks) in table.iter().enumerate() {
                for (member, &chunk) in chunks.iter().enumerate() {
                    let role = g.role(row as u64, member);
                    if chunk == P {
                        assert_eq!(role, g.data(), "{layout:?} row {row} member {member}");
                        assert_eq!(g.parity_member(row as u64), member);
                    } else {
                        let place = g.place(chunk as u64 * u64::from(CHUNK));
                        assert_eq!((place.row, place.role), (row as u64, role), "{layout:?}");
                        assert_eq!(g.member(row as u64, role), member, "{layout:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let make = |m, b, c, s| Geometry::new(m, b, c, s, Layout::default()).unwrap_err();
        assert_eq!(make(2, 1 << 20, CHUNK, 4096), VolumeError::Members(2));
        assert_eq!(make(65, 1 << 20, CHUNK, 4096), VolumeError::Members(65));
        assert_eq!(make(4, 1 << 20, 65537, 4096), VolumeError::Chunk(65537));
        assert_eq!(make(4, 1 << 20, 2048, 2048), VolumeError::Chunk(2048));
        assert_eq!(make(4, 1 << 22, 2 << 20, 4096), VolumeError::Chunk(2 << 20));
        let stripe = VolumeError::Stripe {
            stripe: 8192,
            chunk: 4096,
        };
        assert_eq!(make(4, 1 << 20, 4096, 8192), stripe);
        let small = VolumeError::TooSmall {
            bytes: 65535,
            chunk: CHUNK,
        };
        assert_eq!(make(4, 65535, CHUNK, 4096), small);
    }

    proptest! {
        #[test]
        fn roles_and_members_are_inverse(
            members in MEMBERS,
            layout in prop::sample::select(Layout::ALL.to_vec()),
            row in 0u64..1 << 40,
        ) {
            let g = Geometry::new(members, 1 << 60, CHUNK, 4096, layout).unwrap();
            let mut seen = 0u64;
            for role in 0..members {
                let member = g.member(row, role);
                prop_assert_eq!(g.role(row, member), role);
                seen |= 1 << member;
            }
            prop_assert_eq!(seen.count_ones() as usize, members);
        }

        #[test]
        fn every_byte_has_its_own_place(
            members in MEMBERS,
            chunk in 12u32..=20,
            offset in 0u64..1 << 40,
        ) {
            let g = Geometry::new(members, 1 << 50, 1 << chunk, 4096, Layout::default()).unwrap();
            let place = g.place(offset);
            let back = (place.row * g.data() as u64 + place.role as u64) * u64::from(g.chunk_bytes())
                + u64::from(place.within);
            prop_assert_eq!(back, offset);
            let (stripe, within) = g.stripe_of(place);
            prop_assert_eq!(g.row_of(stripe), place.row);
            let on_member = place.row * u64::from(g.chunk_bytes()) + u64::from(place.within);
            prop_assert_eq!(g.member_offset(stripe) + u64::from(within), on_member);
        }

        #[test]
        fn a_run_has_one_owner(
            shards in 1usize..9,
            run in 1u32..5,
            offset in 0u64..1 << 28,
        ) {
            let g = geometry(5, Layout::default()).with_shards(shards, run);
            let end = g.run_end(offset);
            prop_assert!(end > offset);
            let owner = g.owner(g.place(offset).row);
            prop_assert_eq!(g.owner(g.place(end - 1).row), owner);
            if shards > 1 && end < g.volume_bytes() {
                prop_assert_ne!(g.owner(g.place(end).row), owner);
            }
        }
    }
}
