//! From stripes that are ready to be written whole to batches: runs of one owner's stripes first,
//! without a lock; and, at the edge of its rows, together with what its neighbour has.

use std::time::Instant;

use smallvec::SmallVec;

use super::batch::{
    BatchOp, Body, Closed, Followers, Joined, LinkId, Mine, Needs, Offer, Refusal, Side,
};
use super::batching::BatchScope;
use super::member_io::PageOp;
use super::mutation::{self, Mutation};
use super::shard::Shard;
use super::stripe::NONE;
use super::waiting::Limit;
use crate::memory::{Buf, Segments};

/// A run of this shard's stripes that are written together.
#[derive(Debug)]
pub(super) struct Batch {
    /// In the order of their numbers.
    pub stripes: Run,
    pub op: BatchOp,
    pub needs: Needs,
    pub stage: Stage,
    /// Runs of others that are written with it.
    pub guests: SmallVec<[Guest; 1]>,
    /// Member requests in flight.
    pub in_flight: u32,
    /// Slots whose member failed one of them.
    pub failed: u64,
}

/// Stripes of one shard, by their place in the cache.
pub(super) type Run = SmallVec<[u32; 16]>;

/// Another owner's run, written with a batch of ours.
#[derive(Debug)]
pub(super) struct Guest {
    pub link: LinkId,
    pub generation: u32,
    pub first: u64,
    pub stripes: u32,
    pub body: Body,
    /// Slots that may not be written here.
    pub missing: u64,
}

/// How far a batch is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Never offered to anyone.
    Private,
    /// At an edge, and open.
    Open(Open),
    /// A neighbour writes it.
    Away,
    /// Was open, and is closed.
    Closed,
}

/// What is known of a batch that neighbours may join.
#[derive(Debug)]
pub(super) struct Open {
    /// When it closes at the latest.
    until: Limit,
    /// The first stripe behind it, followers included.
    end: u64,
    /// Edges at which it is posted, and the links that were tried there.
    front: Edge,
    back: Edge,
}

#[derive(Clone, Copy, Debug, Default)]
struct Edge {
    posted: bool,
    /// Whether it is worth while to wait there.
    wanted: bool,
    tried: Option<LinkId>,
}

impl Shard {
    /// Makes batches of what has gathered in this turn.
    pub(super) fn form_batches(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.sort_unstable_by_key(|&at| self.cache[at].number);
        let mut rest = gathered.drain(..).peekable();
        while let Some(first) = rest.next() {
            let mut run = self.lists.runs.pop().unwrap_or_default();
            run.push(first);
            let mut last = first;
            let follows = |next: u32, last: u32, len: usize| {
                let (a, b) = (&self.cache[last], &self.cache[next]);
                let near = self.batching.scope > BatchScope::Row || a.row == b.row;
                b.number == a.number + 1
                    && near
                    && len < self.merge
                    && batch_op(a.op).0 == batch_op(b.op).0
            };
            while let Some(next) = rest.next_if(|&next| follows(next, last, run.len())) {
                run.push(next);
                last = next;
            }
            self.begin_batch(run);
        }
        drop(rest);
        self.gathered = gathered;
    }

    fn begin_batch(&mut self, stripes: Run) {
        let (op, _) = batch_op(self.cache[stripes[0]].op);
        let mut needs = Needs::default();
        let key = self.batches.vacant_key() as u32;
        for &at in &stripes {
            let stripe = &mut self.cache[at];
            needs = needs.union(batch_op(stripe.op).1);
            stripe.batch = key;
        }
        self.counters.batches += u64::from(stripes.len() > 1);
        self.counters.batched_stripes += stripes.len() as u64;
        let (first, last) = (stripes[0], stripes[stripes.len() - 1]);
        let room = self.batching.scope == BatchScope::Owners && stripes.len() < self.merge;
        self.batches.insert(Batch {
            stripes,
            op,
            needs,
            stage: Stage::Private,
            guests: SmallVec::new(),
            in_flight: 0,
            failed: 0,
        });
        let (number, end) = (self.cache[first].number, self.cache[last].number + 1);
        let front = room && self.geometry.is_edge(number);
        let back = room && self.geometry.is_edge(end);
        if !front && !back {
            return self.write_batch(key);
        }
        let links = self.crossing.links();
        let waits = !self.batching.join_wait.is_zero();
        let edge = |posted: bool, reach: bool| Edge {
            posted,
            wanted: posted && reach && waits,
            tried: None,
        };
        let front = edge(front, self.cache[first].reach.before);
        let back = edge(back, self.cache[last].reach.after);
        let met = front.posted && links.seek(number, Side::Before).is_some()
            || back.posted && links.seek(end, Side::After).is_some();
        match self.clock {
            Some(clock) if met || front.wanted || back.wanted => {
                self.batches[key as usize].stage = Stage::Open(Open {
                    until: clock.after(self.batching.join_wait),
                    end,
                    front,
                    back,
                });
                self.offer(key);
            }
            _ => self.write_batch(key),
        }
    }

    /// Opens a batch to its neighbours, and joins those that are there already.
    fn offer(&mut self, key: u32) {
        let mut body = self.lists.bodies.pop().unwrap_or_default();
        let batch = &self.batches[key as usize];
        let Stage::Open(open) = &batch.stage else {
            unreachable!("a batch that is offered is open");
        };
        let (first, stripes) = (batch.stripes[0], batch.stripes.len() as u32);
        let number = self.cache[first].number;
        body.by_slot
            .resize_with(self.geometry.members(), Default::default);
        if batch.op == BatchOp::Write {
            for &at in &batch.stripes {
                let stripe = &self.cache[at];
                for role in 0..self.geometry.members() {
                    let slot = self.geometry.member_beside(stripe.parity, role);
                    push_view(&mut body.by_slot[slot], stripe.stored(role));
                }
            }
        }
        let id = self.link(first);
        let links = self.crossing.links();
        links.offer(
            id,
            Offer {
                epoch: self.view.epoch,
                first: number,
                stripes,
                op: batch.op,
                needs: batch.needs,
                more: open.back.wanted,
                body,
            },
        );
        if open.front.posted {
            links.post(number, Side::After, id);
        }
        if open.back.posted {
            links.post(open.end, Side::Before, id);
        }
        self.open.push(key);
        self.counters.offered += 1;
        self.tend(key);
    }

    /// Looks after every open batch.
    pub(super) fn tend_batches(&mut self) {
        let mut at = 0;
        while at < self.open.len() {
            let key = self.open[at];
            self.tend(key);
            // It may have closed, and another taken its place.
            at += usize::from(self.open.get(at) == Some(&key));
        }
    }

    /// Joins a batch with the neighbours that can be seen, and closes it when there is no more to
    /// wait for.
    fn tend(&mut self, key: u32) {
        let first = self.batches[key as usize].stripes[0];
        let (id, number) = (self.link(first), self.cache[first].number);
        let Stage::Open(open) = &mut self.batches[key as usize].stage else {
            unreachable!("only open batches are looked after");
        };
        let (links, limit) = (self.crossing.links(), self.merge as u32);
        let grow = |open: &mut Open, Joined { end, more }| {
            links.withdraw(open.end, Side::Before, id);
            open.end = end;
            let full = end - number >= u64::from(limit);
            let posted = !full && self.geometry.is_edge(end);
            open.back = Edge {
                posted,
                wanted: posted && more,
                tried: None,
            };
            if posted {
                links.post(end, Side::Before, id);
            }
        };
        // Neighbours may have joined from their side.
        match links.standing(id) {
            Some(joined) if joined.end == open.end => {}
            Some(joined) => grow(open, joined),
            None => return self.close(key),
        }
        if let Some(other) = open.front.meet(number, Side::Before, id, links) {
            match links.join(other, id, limit, Mine::Later) {
                Ok(_) => {
                    self.counters.joins += 1;
                    return self.close(key);
                }
                Err(why) => {
                    self.counters.refused(why);
                    open.front.wanted &= why.may_pass();
                }
            }
        }
        while let Some(other) = open.back.meet(open.end, Side::After, id, links) {
            match links.join(id, other, limit, Mine::Earlier) {
                Ok(joined) => {
                    self.counters.joins += 1;
                    grow(open, joined);
                }
                Err(why) => {
                    self.counters.refused(why);
                    open.back.wanted &= why.may_pass();
                }
            }
        }
        let hopeless = !open.front.wanted && !open.back.wanted;
        let late = self.clock.is_some_and(|clock| clock.is_over(open.until))
            && !mutation::on(Mutation::R12);
        let pressed = !self.starved.is_empty() || !self.intake.is_empty();
        if hopeless || late || pressed && !mutation::on(Mutation::R12) {
            self.close(key);
        }
    }

    /// Whether a neighbour writes a stripe, as far as its batch knows.
    pub(super) fn is_away(&self, at: u32) -> bool {
        let batch = self.batches.get(self.cache[at].batch as usize);
        batch.is_some_and(|batch| matches!(batch.stage, Stage::Away))
    }

    /// A batch does not wait any longer, if it does.
    pub(super) fn hasten(&mut self, key: u32) {
        if key == NONE {
            return;
        }
        if let Stage::Open(open) = &mut self.batches[key as usize].stage {
            open.front.wanted = false;
            open.back.wanted = false;
        }
    }

    /// The view changes: what was made under the old one closes.
    pub(super) fn hasten_all(&mut self) {
        for at in 0..self.open.len() {
            self.hasten(self.open[at]);
        }
    }

    /// When the first open batch, or waiting stripe, has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let until = |&key: &u32| match &self.batches[key as usize].stage {
            Stage::Open(open) => Some(open.until.at),
            _ => None,
        };
        let batch = self.open.iter().filter_map(until).min();
        let stripe = self.cache.longest_waiting();
        let stripe = stripe.and_then(|at| self.cache[at].wait).map(|w| w.at);
        [batch, stripe].into_iter().flatten().min()
    }

    /// Takes an open batch off the board.
    pub(super) fn withdraw(&mut self, key: u32) {
        self.open.retain(|&k| k != key);
        let batch = &self.batches[key as usize];
        let Stage::Open(open) = &batch.stage else {
            return;
        };
        let id = self.link(batch.stripes[0]);
        let links = self.crossing.links();
        if open.front.posted {
            let number = self.cache[batch.stripes[0]].number;
            links.withdraw(number, Side::After, id);
        }
        if open.back.posted {
            links.withdraw(open.end, Side::Before, id);
        }
    }

    /// Closes an open batch. What is then ours alone is written; what is a neighbour's is awaited.
    fn close(&mut self, key: u32) {
        self.withdraw(key);
        let id = self.link(self.batches[key as usize].stripes[0]);
        let batch = &mut self.batches[key as usize];
        match self.crossing.links().close(id) {
            Closed::Alone(body) => {
                batch.stage = Stage::Closed;
                self.lists.keep_body(body);
            }
            Closed::Head {
                body,
                needs,
                followers,
            } => {
                batch.stage = Stage::Closed;
                batch.needs = needs;
                batch.take_in(followers);
                self.lists.keep_body(body);
                self.counters.crossings += 1;
            }
            Closed::Away => {
                batch.stage = Stage::Away;
                return;
            }
        }
        self.write_batch(key);
    }
}

impl Batch {
    /// What stands in a batch's place while it is worked on.
    pub(super) fn nothing() -> Self {
        Self {
            stripes: Run::new(),
            op: BatchOp::Write,
            needs: Needs::default(),
            stage: Stage::Private,
            guests: SmallVec::new(),
            in_flight: 0,
            failed: 0,
        }
    }

    /// Whether it is written here for certain.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.stage, Stage::Private | Stage::Closed)
    }

    fn take_in(&mut self, followers: Followers<Body>) {
        self.guests.extend(followers.into_iter().map(|f| Guest {
            link: f.link,
            generation: f.generation,
            first: f.first,
            stripes: f.stripes,
            body: f.body,
            missing: 0,
        }));
    }
}

impl Edge {
    /// Another owner's run on the other side of this edge that was not tried yet.
    fn meet(
        &mut self,
        edge: u64,
        side: Side,
        me: LinkId,
        links: &super::batch::Links<Body>,
    ) -> Option<LinkId> {
        if !self.posted {
            return None;
        }
        let other = links.seek(edge, side)?;
        if other.shard == me.shard || self.tried.replace(other) == Some(other) {
            return None;
        }
        Some(other)
    }
}

impl Refusal {
    /// Whether another neighbour may come for whom it is worth while to wait.
    fn may_pass(self) -> bool {
        matches!(self, Refusal::Closed | Refusal::Apart | Refusal::Epoch)
    }
}

/// What a batch of stripes that do `op` does, and what it needs.
fn batch_op(op: PageOp) -> (BatchOp, Needs) {
    let (op, fua) = match op {
        PageOp::Write { fua } => (BatchOp::Write, fua),
        PageOp::Zero { fua, deallocate } => (BatchOp::Zero { deallocate }, fua),
        PageOp::Read => unreachable!("what is gathered is written"),
    };
    (op, Needs { fua, intent: 0 })
}

/// Adds a page to the bytes for one slot.
pub(super) fn push(segments: &mut Segments, page: Buf) {
    if !segments.last_mut().is_some_and(|last| last.join(&page)) {
        segments.push(page);
    }
}

/// Adds a view of a page. A new one, which has to be counted, only where the last does not go on in it.
pub(super) fn push_view(segments: &mut Segments, page: &Buf) {
    if !segments.last_mut().is_some_and(|last| last.join(page)) {
        segments.push(page.clone());
    }
}
