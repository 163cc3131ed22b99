//! One stripe in the cache: what is known of its bytes, who waits for it, what it is doing.

use super::geometry::Mask;
use super::member_io::PageOp;
use super::plan::Plan;
use super::waiting::Limit;
use crate::memory::{Buf, BufMut};

/// No index.
pub(super) const NONE: u32 = u32::MAX;

/// A host request's (or a window's) business with one stripe: with a part of one role, or with several
/// data roles, all of each.
#[derive(Debug)]
pub(super) struct Fragment {
    /// The job it is part of; [`NONE`] for a window's.
    pub job: u32,
    /// The next fragment of the same stripe, in order of arrival.
    pub next: u32,
    /// What it does.
    pub kind: FragmentKind,
    /// The (first) role it is about.
    pub role: u8,
    /// How many roles it is about, one behind the other.
    pub roles: u8,
    /// First byte inside the stripe.
    pub start: u32,
    /// Number of bytes of each role.
    pub len: u32,
    /// First byte inside the job's payload. That of the next role lies a chunk behind it.
    pub at: u32,
}

impl Fragment {
    /// Number of bytes in all.
    pub(super) fn bytes(&self) -> u32 {
        self.len * u32::from(self.roles)
    }

    /// Each role, and its first byte inside the job's payload, where chunks have so many bytes.
    pub(super) fn blocks(&self, chunk_bytes: u32) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (role, at) = (usize::from(self.role), self.at as usize);
        (0..usize::from(self.roles)).map(move |k| (role + k, at + k * chunk_bytes as usize))
    }
}

/// What a fragment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FragmentKind {
    Read,
    Write,
    Zero,
    Compare,
    CompareAndWrite,
    /// Compute the role from the others and store it: its member is being rebuilt, or it is parity
    /// that may not match.
    Rebuild,
    /// Copy the role to the member that is to replace another.
    Copy,
    /// Count it if parity does not match.
    Check,
    /// As `Check`, and store parity that does.
    Repair,
}

/// A first-in-first-out list of fragments, linked through [`Fragment::next`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragments {
    pub first: u32,
    pub last: u32,
}

impl Fragments {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

/// Where the requests that wrote a stripe go on, beyond the rows of its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub before: bool,
    pub after: bool,
}

/// Where a stripe is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the pool, for no stripe in particular.
    Free,
    /// Nothing to do; what it has cached may be thrown away.
    Idle,
    /// Has writes of a part of it, and waits for the rest.
    Waiting,
    /// Has fragments, begins its round at the end of the turn.
    Ready,
    /// Waits until the members say that there is being written where it is.
    Intending,
    /// As many stripes read before they write as may: waits until one of them is done.
    Delayed,
    /// Could not begin for want of pages.
    Starved,
    /// Reads of its round are in flight.
    Reading,
    /// Waits until the log of its parity's member says what it writes.
    Logging,
    /// Overwritten whole: what is to be written is a part of a batch, here or at a neighbour's.
    Batched,
    /// Writes of its round are in flight.
    Writing,
    /// Written, but for a member that failed: waits until every node knows of it.
    Settling,
    /// Written, but for a block that is known to be lost: waits until no log says that it was.
    Striking,
}

/// A stripe. The arrays have one entry per role.
#[derive(Debug)]
pub(super) struct Stripe {
    pub number: u64,
    pub row: u64,
    /// The member that holds parity of the row.
    pub parity: usize,
    pub phase: Phase,
    /// The bytes that the members hold (or would, if they were there).
    pub pages: Box<[Option<Buf>]>,
    /// The bytes that this round stores.
    pub fresh: Box<[Option<Buf>]>,
    /// For each role, which granules of it this round overwrites.
    pub covered: Box<[u64]>,
    /// Fragments for the next round.
    pub pending: Fragments,
    /// Fragments of this round.
    pub round: Fragments,
    /// Bytes of the pending fragments, counted while it waits.
    pub filled: u32,
    /// When its wait ends at the latest.
    pub wait: Option<Limit>,
    /// It asked for a charge of the pre-read budget since it last gave one back.
    pub charged: bool,
    /// Its round may write: the members say that there is being written where it is.
    pub intended: bool,
    /// What the round's writes do.
    pub op: PageOp,
    /// What the blocks that the round does not write add up to.
    pub partial: Option<Buf>,
    /// Bays to whose logs it was sent, and those where it is noted.
    pub noted: u64,
    pub logged: u64,
    /// A host's request goes on before the first, or behind the last stripe of the row.
    pub reach: Reach,
    /// A stream writes to it.
    pub streams: bool,
    /// The batch that it is in.
    pub batch: u32,
    /// Take one fragment a round: together they can't be served, alone some may.
    pub solo: bool,
    pub plan: Option<Plan>,
    /// Parity is to be compared with the data, and mended if so.
    pub verify: Option<bool>,
    /// Pages set aside for this round.
    pub spare: Vec<BufMut>,
    /// Member I/Os of this round in flight.
    pub in_flight: u32,
    /// Roles whose member could not read them in this round.
    pub unread: Mask,
    /// Of those, the ones to be written again with what was reconstructed.
    pub heal: Mask,
    /// Roles to be copied to the member that is to replace another.
    pub copy: Mask,
    /// Bays whose member did not get what this round stores, and not every node knows yet.
    pub unwritten: u64,
    /// Roles whose fresh bytes are in a page of ours, which may stay cached.
    pub own: Mask,
    /// Roles written in this round.
    pub dirty: Mask,
    /// Neighbours in the list of idle stripes.
    pub newer: u32,
    pub older: u32,
}

impl Stripe {
    pub(super) fn new(members: usize) -> Self {
        Self {
            number: u64::MAX,
            row: 0,
            parity: 0,
            phase: Phase::Free,
            pages: vec![None; members].into(),
            fresh: vec![None; members].into(),
            covered: vec![0; members].into(),
            pending: Fragments::EMPTY,
            round: Fragments::EMPTY,
            filled: 0,
            wait: None,
            charged: false,
            intended: false,
            op: PageOp::Read,
            partial: None,
            noted: 0,
            logged: 0,
            reach: Reach::default(),
            streams: false,
            batch: NONE,
            solo: false,
            plan: None,
            verify: None,
            spare: Vec::with_capacity(members + 2),
            in_flight: 0,
            unread: 0,
            heal: 0,
            copy: 0,
            unwritten: 0,
            own: 0,
            dirty: 0,
            newer: NONE,
            older: NONE,
        }
    }

    /// Roles whose old bytes are at hand.
    pub(super) fn cached(&self) -> Mask {
        let mut mask = 0;
        for (role, page) in self.pages.iter().enumerate() {
            mask |= Mask::from(page.is_some()) << role;
        }
        mask
    }

    /// Throws away what is cached.
    pub(super) fn forget(&mut self) {
        self.pages.fill(None);
    }
}
