//! The link of a stripe: all of it that another core may see.

use smallvec::SmallVec;

use super::budget::{Budget, Charge};
use super::sync::{self, Mutex, MutexGuard};
use crate::raid::mutation::{self, Mutation};

/// Names a link: the shard that owns it, and which of its stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::raid) struct LinkId {
    pub shard: u16,
    pub index: u32,
}

/// What a batch does. All of its stripes do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) enum BatchOp {
    Write,
    Zero { deallocate: bool },
}

/// What has to be so for the member I/O of a stripe. A batch needs what any of its stripes needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::raid) struct Needs {
    /// Durable when it is acknowledged.
    pub fua: bool,
    /// The write-intent record that must be durable before the first byte is written; 0 where no
    /// log is kept.
    pub intent: u64,
}

impl Needs {
    pub(in crate::raid) fn union(self, other: Needs) -> Needs {
        Needs {
            fua: self.fua || other.fua && !mutation::on(Mutation::R16),
            intent: match mutation::on(Mutation::R8) {
                true => self.intent,
                false => self.intent.max(other.intent),
            },
        }
    }
}

/// A run of stripes of one owner, offered to the owners of its neighbours.
#[derive(Debug)]
pub(in crate::raid) struct Offer<B> {
    /// The array's view under which it was made.
    pub epoch: u64,
    /// First stripe, and how many.
    pub first: u64,
    pub stripes: u32,
    pub op: BatchOp,
    pub needs: Needs,
    /// The host's request goes on behind it: there is more to come.
    pub more: bool,
    /// What another owner must have to write it.
    pub body: B,
}

/// A batch after a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) struct Joined {
    /// The first stripe behind it.
    pub end: u64,
    /// There is more to come behind it.
    pub more: bool,
}

/// A run that another owner writes.
#[derive(Debug)]
pub(in crate::raid) struct Follower<B> {
    pub link: LinkId,
    /// Of the link, when it joined.
    pub generation: u32,
    pub first: u64,
    pub stripes: u32,
    pub body: B,
}

/// The followers of a head, in the order of their stripes.
pub(in crate::raid) type Followers<B> = SmallVec<[Follower<B>; 1]>;

/// A link that its owner has closed: nobody can change it any more.
#[derive(Debug)]
pub(in crate::raid) enum Closed<B> {
    /// Nobody joined: the body is back.
    Alone(B),
    /// Others joined: write them too, and send them home.
    Head {
        body: B,
        needs: Needs,
        followers: Followers<B>,
    },
    /// Somebody else writes it, and will send it home.
    Away,
}

/// Why two runs did not become one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) enum Refusal {
    /// One of them is closed, or somebody's follower, or not offered at all.
    Closed,
    /// They do not follow one another (any more).
    Apart,
    /// They do different things.
    Op,
    /// They were made under different views of the array.
    Epoch,
    /// Together they are more than a member takes at once.
    Room,
    /// The later one is a head already.
    Head,
}

impl Refusal {
    /// All of them, in the order of their counters.
    pub(in crate::raid) const ALL: [Refusal; 6] = [
        Refusal::Closed,
        Refusal::Apart,
        Refusal::Op,
        Refusal::Epoch,
        Refusal::Room,
        Refusal::Head,
    ];
}

/// A run whose batch can still grow.
#[derive(Debug)]
struct Open<B> {
    epoch: u64,
    first: u64,
    /// Stripes of the run itself, and of the whole batch.
    own: u32,
    stripes: u32,
    op: BatchOp,
    /// Of the whole batch.
    needs: Needs,
    more: bool,
    body: B,
    followers: Followers<B>,
}

impl<B> Open<B> {
    /// The first stripe behind the batch.
    fn end(&self) -> u64 {
        self.first + u64::from(self.stripes)
    }
}

/// What a stripe is to others. That a follower is listed with its head and knows of it itself is
/// one change, under both locks.
#[derive(Debug)]
enum Role<B> {
    /// Nothing: only its owner is concerned with it.
    Lone,
    /// Offered. It is a head if it has followers.
    Open(Open<B>),
    /// Head of a batch that is closed; its followers are with its owner.
    Head,
    /// Written by the owner of another link.
    Follower(LinkId),
}

#[derive(Debug)]
struct State<B> {
    role: Role<B>,
    /// Holds one unit of its shard's budget (md's `STRIPE_PREREAD_ACTIVE`).
    charged: bool,
    /// Its owner has closed it and writes it (md's `STRIPE_ACTIVE`).
    handled: bool,
    /// Counts the times that it was somebody's follower.
    generation: u32,
    /// For [`Mutation::R3`]: its owner has come by while it was away.
    #[cfg(mutations)]
    looked: bool,
}

/// A stripe as far as another core may see it: everything behind one lock, and no way around it.
#[derive(Debug)]
pub(super) struct StripeLink<B> {
    state: Mutex<State<B>>,
}

/// Times that a core found a link locked and had to wait.
#[derive(Debug, Default)]
pub(super) struct Waits(std::sync::atomic::AtomicU64);

impl Waits {
    pub(super) fn count(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl<B> StripeLink<B> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                role: Role::Lone,
                charged: false,
                handled: false,
                generation: 0,
                #[cfg(mutations)]
                looked: false,
            }),
        }
    }

    fn lock(&self, waits: &Waits) -> MutexGuard<'_, State<B>> {
        if let Ok(state) = self.state.try_lock() {
            return state;
        }
        waits.add();
        sync::wait(&self.state)
    }

    /// Asks for the right to read before writing. That the stripe is nobody's follower, the mark
    /// and the count are one step: a join finds all of it, or none.
    pub(super) fn charge(&self, budget: &Budget, waits: &Waits) -> Charge {
        let mut state = self.lock(waits);
        if matches!(state.role, Role::Follower(_)) {
            return Charge::Follower;
        }
        if mutation::on(Mutation::R1) || mutation::on(Mutation::R1Weak) {
            drop(state);
            state = self.lock(waits);
        }
        if !state.charged {
            if !budget.take() {
                return Charge::Full;
            }
            state.charged = true;
        }
        Charge::Held
    }

    /// Gives the charge back, if the stripe holds one.
    pub(super) fn discharge(&self, budget: &Budget, waits: &Waits) {
        let mut state = self.lock(waits);
        if std::mem::take(&mut state.charged) {
            budget.give_back();
        }
    }

    /// Lets others join from now on.
    pub(super) fn offer(&self, offer: Offer<B>, waits: &Waits) {
        let mut state = self.lock(waits);
        assert!(
            matches!(state.role, Role::Lone),
            "only a lone run is offered"
        );
        assert!(!state.handled, "a run that is being written is not offered");
        state.role = Role::Open(Open {
            epoch: offer.epoch,
            first: offer.first,
            own: offer.stripes,
            stripes: offer.stripes,
            op: offer.op,
            needs: offer.needs,
            more: offer.more,
            body: offer.body,
            followers: Followers::new(),
        });
    }

    /// How far the batch of an open run reaches now; `None` if it has become somebody's follower.
    pub(super) fn standing(&self, waits: &Waits) -> Option<Joined> {
        match &self.lock(waits).role {
            Role::Open(open) => Some(Joined {
                end: open.end(),
                more: open.more,
            }),
            _ => None,
        }
    }

    /// Closes what was offered: from here on it is its owner's alone, or somebody else's. It may
    /// be asked any number of times while the run is away.
    pub(super) fn close(&self, waits: &Waits) -> Closed<B> {
        let mut state = self.lock(waits);
        if mutation::on(Mutation::R4) {
            state.handled = true;
            drop(state);
            state = self.lock(waits);
        }
        if matches!(state.role, Role::Follower(_)) {
            #[cfg(mutations)]
            if mutation::on(Mutation::R3) && std::mem::replace(&mut state.looked, true) {
                state.role = Role::Lone;
            }
            state.handled = false;
            return Closed::Away;
        }
        let Role::Open(open) = std::mem::replace(&mut state.role, Role::Lone) else {
            panic!("only a run that was offered is closed");
        };
        state.handled = true;
        if open.followers.is_empty() {
            return Closed::Alone(open.body);
        }
        state.role = Role::Head;
        Closed::Head {
            body: open.body,
            needs: open.needs,
            followers: open.followers,
        }
    }

    /// What was closed is written.
    pub(super) fn finish(&self, waits: &Waits) {
        let mut state = self.lock(waits);
        assert!(state.handled, "only what was closed ends");
        state.handled = false;
        state.role = Role::Lone;
    }

    /// A follower comes home from the shard that wrote it; `false` if it was not that one.
    pub(super) fn release(&self, from: u16, generation: u32, waits: &Waits) -> bool {
        let mut state = self.lock(waits);
        let followed = matches!(state.role, Role::Follower(head) if head.shard == from);
        let home = followed && state.generation == generation;
        if home {
            state.role = Role::Lone;
            state.charged &= !mutation::on(Mutation::R1Weak);
        }
        home
    }

    /// Whether the stripe may be used for another number: it is nothing to others, and holds
    /// nothing.
    pub(super) fn at_rest(&self, waits: &Waits) -> bool {
        let state = self.lock(waits);
        let lone = match state.role {
            Role::Lone => true,
            Role::Head => mutation::on(Mutation::R5),
            Role::Open(_) | Role::Follower(_) => false,
        };
        lone && !state.charged && (!state.handled || mutation::on(Mutation::R5))
    }

    /// Makes the run of `later` a part of the batch of `earlier`, or says why not. `budget` is
    /// that of the later one's shard, `limit` the most stripes of a batch.
    ///
    /// All that makes two runs fit is looked at with both locks held. Locks are taken in the order
    /// of the links' names, whoever joins: which stripes they stand for is known only when they are
    /// locked, because the board may be stale.
    pub(super) fn join(
        earlier: (&Self, LinkId),
        later: (&Self, LinkId),
        budget: &Budget,
        limit: u32,
        mine: Mine,
        waits: &Waits,
    ) -> Result<Joined, Refusal> {
        let earlier_first = match mutation::on(Mutation::R14) {
            true => mine == Mine::Earlier,
            false => earlier.1 < later.1,
        };
        let (mut head, mut follower);
        if earlier_first {
            head = earlier.0.lock(waits);
            follower = later.0.lock(waits);
        } else {
            follower = later.0.lock(waits);
            head = earlier.0.lock(waits);
        }
        let Role::Open(offer) = &follower.role else {
            return Err(Refusal::Closed);
        };
        if !offer.followers.is_empty() {
            return Err(Refusal::Head);
        }
        let Role::Open(batch) = &mut head.role else {
            if mutation::on(Mutation::R13) && !matches!(head.role, Role::Follower(_)) {
                let joined = Joined {
                    end: offer.end(),
                    more: false,
                };
                follower.role = Role::Follower(earlier.1);
                return Ok(joined);
            }
            return Err(Refusal::Closed);
        };
        if batch.end() != offer.first && !mutation::on(Mutation::R17) {
            return Err(Refusal::Apart);
        }
        if batch.op != offer.op {
            let zeros = |op| matches!(op, BatchOp::Zero { .. });
            let alike = zeros(batch.op) && zeros(offer.op);
            if !(alike && mutation::on(Mutation::R15)) {
                return Err(Refusal::Op);
            }
        }
        if batch.epoch != offer.epoch {
            return Err(Refusal::Epoch);
        }
        if batch.stripes + offer.stripes > limit {
            return Err(Refusal::Room);
        }
        let Role::Open(offer) = std::mem::replace(&mut follower.role, Role::Lone) else {
            unreachable!("looked at above");
        };
        follower.generation = follower.generation.wrapping_add(1);
        batch.stripes += offer.stripes;
        batch.needs = batch.needs.union(offer.needs);
        batch.more = offer.more;
        let joined = Joined {
            end: batch.end(),
            more: batch.more,
        };
        batch.followers.push(Follower {
            link: later.1,
            generation: follower.generation,
            first: offer.first,
            stripes: offer.own,
            body: offer.body,
        });
        if mutation::on(Mutation::R2) {
            drop(follower);
            drop(head);
            follower = later.0.lock(waits);
        }
        follower.role = Role::Follower(earlier.1);
        if std::mem::take(&mut follower.charged) {
            budget.give_back();
        }
        Ok(joined)
    }
}

/// Which of the two runs of a join is the joiner's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raid) enum Mine {
    Earlier,
    Later,
}

/// What a link looks like at one moment, for the tests of races.
#[cfg(all(test, loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub follower_of: Option<LinkId>,
    pub charged: bool,
    pub handled: bool,
}

#[cfg(all(test, loom))]
impl<B> StripeLink<B> {
    pub(super) fn look(&self) -> Look {
        let state = sync::wait(&self.state);
        Look {
            follower_of: match state.role {
                Role::Follower(head) => Some(head),
                _ => None,
            },
            charged: state.charged,
            handled: state.handled,
        }
    }
}
