//! The board: where shards tell their neighbours that a batch ends, or begins, at an edge between
//! their rows.
//!
//! A fixed table of words, keyed by the edge: the number of the first stripe behind it. What is
//! read here is a hint of which link to look at. It may be stale, and a newer one may have taken
//! its place; a join looks again at everything, under the locks. So a word lost costs a batch that
//! could have been, and never more.

use super::link::LinkId;
use super::sync::{AtomicU64, Ordering};

/// On which side of an edge a run lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) enum Side {
    /// It ends there.
    Before,
    /// It begins there.
    After,
}

#[derive(Debug)]
pub(super) struct Board {
    edges: Box<[Edge]>,
}

/// Both sides of one edge, on a cache line of their own.
#[derive(Debug)]
#[repr(align(64))]
struct Edge {
    before: AtomicU64,
    after: AtomicU64,
}

const EMPTY: u64 = 0;

impl Board {
    /// A board with room for `edges` edges, a power of two.
    pub(super) fn new(edges: usize) -> Self {
        assert!(edges.is_power_of_two(), "the table is masked");
        let edge = || Edge {
            before: AtomicU64::new(EMPTY),
            after: AtomicU64::new(EMPTY),
        };
        Self {
            edges: (0..edges).map(|_| edge()).collect(),
        }
    }

    /// Says that the run of `link` lies on `side` of `edge`.
    pub(super) fn post(&self, edge: u64, side: Side, link: LinkId) {
        self.word(edge, side)
            .store(pack(edge, link), Ordering::Release);
    }

    /// Takes that back, if it is still there.
    pub(super) fn withdraw(&self, edge: u64, side: Side, link: LinkId) {
        let word = pack(edge, link);
        // Whatever else is there is somebody else's.
        let _ = self.word(edge, side).compare_exchange(
            word,
            EMPTY,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Who said to be on `side` of `edge` last, as far as is known.
    pub(super) fn seek(&self, edge: u64, side: Side) -> Option<LinkId> {
        let word = self.word(edge, side).load(Ordering::Acquire);
        (word != EMPTY && word >> 32 == edge & 0xffff_ffff).then(|| unpack(word))
    }

    fn word(&self, edge: u64, side: Side) -> &AtomicU64 {
        // Edges are multiples of a run of rows: spread them (Fibonacci hashing, Knuth 6.4).
        let spread = edge.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let edge = &self.edges[spread as usize & (self.edges.len() - 1)];
        match side {
            Side::Before => &edge.before,
            Side::After => &edge.after,
        }
    }
}

/// Low half of the edge, shard, and index of the link; never [`EMPTY`].
fn pack(edge: u64, link: LinkId) -> u64 {
    debug_assert!(link.shard < 256 && link.index < 0xff_ffff, "{link:?}");
    edge << 32 | u64::from(link.shard) << 24 | u64::from(link.index + 1)
}

fn unpack(word: u64) -> LinkId {
    LinkId {
        shard: (word >> 24 & 0xff) as u16,
        index: (word & 0xff_ffff) as u32 - 1,
    }
}
