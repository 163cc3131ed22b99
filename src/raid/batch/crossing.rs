//! What the shards of a volume share: the links of all their stripes, and the board.

use super::board::{Board, Side};
use super::budget::{Budget, Charge};
use super::link::{Closed, Joined, LinkId, Mine, Offer, Refusal, StripeLink, Waits};
use crate::memory::Segments;

/// Edges on the board: more than runs that a volume can have open at once, mostly.
const EDGES: usize = 1024;

/// What the shards of a volume share, and nothing else is shared by them: a link for
/// each stripe of each cache, their budgets, and the board.
#[derive(Debug)]
pub struct Crossing(Links<Body>);

impl Crossing {
    /// For shards with so many stripes in their caches, of each of which at most
    /// `preread_limit` may read before they write.
    ///
    /// # Panics
    /// With more than 256 shards, or more than 16 million stripes in one.
    pub fn new(stripes: &[usize], preread_limit: u32) -> Self {
        Self(Links::new(stripes, preread_limit, EDGES))
    }

    pub(in crate::raid) fn links(&self) -> &Links<Body> {
        &self.0
    }
}

/// The bytes of a run that another owner writes: for each slot, in the order of the stripes.
#[derive(Debug, Default)]
pub(in crate::raid) struct Body {
    pub by_slot: Vec<Segments>,
}

/// The links of all shards.
#[derive(Debug)]
pub(in crate::raid) struct Links<B> {
    shards: Box<[Shared<B>]>,
    board: Board,
}

/// What one shard shares.
#[derive(Debug)]
struct Shared<B> {
    links: Box<[StripeLink<B>]>,
    budget: Budget,
    waits: Waits,
}

impl<B> Links<B> {
    pub(super) fn new(stripes: &[usize], preread_limit: u32, edges: usize) -> Self {
        assert!(stripes.len() <= 256, "a word of the board names 256 shards");
        let shared = |&count: &usize| {
            assert!(count < 0xff_ffff, "a word of the board names 2^24 links");
            Shared {
                links: (0..count).map(|_| StripeLink::new()).collect(),
                budget: Budget::new(preread_limit),
                waits: Waits::default(),
            }
        };
        Self {
            shards: stripes.iter().map(shared).collect(),
            board: Board::new(edges),
        }
    }

    fn shared(&self, id: LinkId) -> &Shared<B> {
        &self.shards[usize::from(id.shard)]
    }

    pub(super) fn link(&self, id: LinkId) -> &StripeLink<B> {
        &self.shared(id).links[id.index as usize]
    }

    /// See [`StripeLink::charge`].
    pub(in crate::raid) fn charge(&self, id: LinkId) -> Charge {
        let shared = self.shared(id);
        self.link(id).charge(&shared.budget, &shared.waits)
    }

    /// See [`StripeLink::discharge`].
    pub(in crate::raid) fn discharge(&self, id: LinkId) {
        let shared = self.shared(id);
        self.link(id).discharge(&shared.budget, &shared.waits);
    }

    /// See [`StripeLink::offer`].
    pub(in crate::raid) fn offer(&self, id: LinkId, offer: Offer<B>) {
        self.link(id).offer(offer, &self.shared(id).waits);
    }

    /// See [`StripeLink::standing`].
    pub(in crate::raid) fn standing(&self, id: LinkId) -> Option<Joined> {
        self.link(id).standing(&self.shared(id).waits)
    }

    /// See [`StripeLink::close`].
    pub(in crate::raid) fn close(&self, id: LinkId) -> Closed<B> {
        self.link(id).close(&self.shared(id).waits)
    }

    /// See [`StripeLink::finish`].
    pub(in crate::raid) fn finish(&self, id: LinkId) {
        self.link(id).finish(&self.shared(id).waits);
    }

    /// See [`StripeLink::release`].
    pub(in crate::raid) fn release(&self, id: LinkId, from: u16, generation: u32) -> bool {
        self.link(id)
            .release(from, generation, &self.shared(id).waits)
    }

    /// See [`StripeLink::at_rest`].
    pub(in crate::raid) fn at_rest(&self, id: LinkId) -> bool {
        self.link(id).at_rest(&self.shared(id).waits)
    }

    /// See [`StripeLink::join`].
    pub(in crate::raid) fn join(
        &self,
        earlier: LinkId,
        later: LinkId,
        limit: u32,
        mine: Mine,
    ) -> Result<Joined, Refusal> {
        if earlier == later {
            return Err(Refusal::Apart);
        }
        let joiner = match mine {
            Mine::Earlier => earlier,
            Mine::Later => later,
        };
        StripeLink::join(
            (self.link(earlier), earlier),
            (self.link(later), later),
            &self.shared(later).budget,
            limit,
            mine,
            &self.shared(joiner).waits,
        )
    }

    /// See [`Board::post`].
    pub(in crate::raid) fn post(&self, edge: u64, side: Side, id: LinkId) {
        self.board.post(edge, side, id);
    }

    /// See [`Board::withdraw`].
    pub(in crate::raid) fn withdraw(&self, edge: u64, side: Side, id: LinkId) {
        self.board.withdraw(edge, side, id);
    }

    /// See [`Board::seek`].
    pub(in crate::raid) fn seek(&self, edge: u64, side: Side) -> Option<LinkId> {
        self.board.seek(edge, side)
    }

    /// Stripes of a shard that hold a charge.
    pub(in crate::raid) fn preread_active(&self, shard: usize) -> u32 {
        self.shards[shard].budget.active()
    }

    /// Times that a shard had to wait for a link.
    pub(in crate::raid) fn lock_waits(&self, shard: usize) -> u64 {
        self.shards[shard].waits.count()
    }
}
