//! A closed batch on its way to the members and back: one request a member for all its stripes, an
//! outcome for each of them, and the runs of others sent home.

use super::batch::BatchOp;
use super::gather::{Batch, Stage, push, push_view};
use super::member_io::{MemberIo, Page, PageIo};
use super::message::{Home, NodeId};
use super::mutation::{self, Mutation};
use super::shard::Shard;
use super::stripe::{Fragments, NONE, Phase};
use crate::bdev::{Data, Op, Status};
use crate::memory::Segments;

/// A request being put together: the pages of stripes that follow one another.
struct Draft {
    first: u64,
    count: u32,
    bytes: Segments,
}

impl Shard {
    /// Hands a batch to the members: a request for each, or more where a member is being rebuilt
    /// and has to be written in some of the rows only.
    pub(super) fn write_batch(&mut self, key: u32) {
        let mut batch = std::mem::replace(&mut self.batches[key as usize], Batch::nothing());
        if self.view.online {
            // The mirror first, because what is lent by others is used up by its original.
            if let Some(replacement) = self.view.replacement {
                self.write_slot(key, &mut batch, replacement.slot, true);
            }
            for slot in 0..self.geometry.members() {
                self.write_slot(key, &mut batch, slot, false);
            }
        }
        let idle = batch.in_flight == 0;
        self.batches[key as usize] = batch;
        if idle {
            self.end_batch(key);
        }
    }

    /// Hands what is for a slot to its member, or to the one that is to replace that.
    fn write_slot(&mut self, key: u32, batch: &mut Batch, slot: usize, mirror: bool) {
        let to = match mirror {
            true => self.geometry.members(),
            false => slot,
        };
        let bay = self.view.bay(to);
        let view = self.view.clone();
        let takes = |row| match mirror {
            true => view.mirrors(slot, row),
            false => view.writable(slot, row),
        };
        let writes = batch.op == BatchOp::Write;
        let mut draft = Draft {
            first: 0,
            count: 0,
            bytes: self.lists.from.pop().unwrap_or_default(),
        };
        for index in 0..batch.stripes.len() {
            let stripe = &mut self.cache[batch.stripes[index]];
            if !takes(stripe.row) {
                if !mirror {
                    stripe.not_stored(bay, self.geometry.members(), &self.settled);
                }
                self.send_draft(key, batch, bay, &mut draft);
                continue;
            }
            if draft.count == 0 {
                draft.first = stripe.number;
            }
            draft.count += 1;
            if writes {
                let role = self.geometry.role_beside(stripe.parity, slot);
                push_view(&mut draft.bytes, stripe.stored(role));
            }
        }
        for index in 0..batch.guests.len() {
            let guest = &mut batch.guests[index];
            let first_row = self.geometry.row_of(guest.first);
            let last_row = self
                .geometry
                .row_of(guest.first + u64::from(guest.stripes) - 1);
            if !takes(first_row) || !takes(last_row) {
                // Its owner sees to it.
                let needed = !mirror || takes(first_row) || takes(last_row);
                guest.missing |= u64::from(needed) << to;
                self.send_draft(key, batch, bay, &mut draft);
                continue;
            }
            if draft.count == 0 {
                draft.first = guest.first;
            }
            draft.count += guest.stripes;
            let pages = &mut guest.body.by_slot[slot];
            if mirror {
                for page in pages.iter() {
                    push_view(&mut draft.bytes, page);
                }
            } else {
                for page in pages.drain(..) {
                    push(&mut draft.bytes, page);
                }
            }
        }
        self.send_draft(key, batch, bay, &mut draft);
        self.lists.keep_from(draft.bytes);
    }

    /// Sends what is in the draft, if there is anything, and empties it.
    fn send_draft(&mut self, key: u32, batch: &mut Batch, bay: usize, draft: &mut Draft) {
        let count = std::mem::take(&mut draft.count);
        if count == 0 {
            return;
        }
        let fua = batch.needs.fua;
        let (op, data) = match batch.op {
            BatchOp::Write => {
                let bytes = std::mem::take(&mut draft.bytes);
                (Op::Write { fua }, Data::Write(bytes))
            }
            BatchOp::Zero { deallocate } => (Op::WriteZeroes { fua, deallocate }, Data::None),
        };
        batch.in_flight += 1;
        let io = MemberIo::Batch {
            bay: bay as u8,
            key,
        };
        let token = self.ios.insert(io) as u64;
        self.ask(bay, token, op, (draft.first, count), data);
    }

    /// A member has answered a request of a batch.
    pub(super) fn batch_request_done(&mut self, key: u32, bay: usize, status: Status) {
        let batch = &mut self.batches[key as usize];
        batch.in_flight -= 1;
        if status != Status::Ok {
            // By slot: it may be in another one meanwhile, if it replaced the member there.
            batch.failed |= 1 << self.view.slot_in(bay);
            if status == Status::Gone {
                self.out.news.failures.push((bay, status));
            }
        }
        if batch.in_flight == 0 {
            self.end_batch(key);
        }
    }

    /// Breaks a batch up: every stripe goes on alone, and what a member failed to store is stored
    /// again, page by page, to find out which page it was.
    fn end_batch(&mut self, key: u32) {
        let mut batch = self.batches.remove(key as usize);
        if matches!(batch.stage, Stage::Closed) {
            self.crossing.links().finish(self.link(batch.stripes[0]));
        }
        let missing = match self.view.online {
            true => batch.failed,
            false => u64::MAX,
        };
        self.counters.broken += u64::from(missing != 0);
        let mut stripes = std::mem::take(&mut batch.stripes);
        for at in stripes.drain(..) {
            self.go_on_alone(at, missing);
        }
        self.lists.keep_run(stripes);
        for mut guest in batch.guests.drain(..) {
            if mutation::on(Mutation::R9) && !self.view.online {
                continue;
            }
            for segments in &mut guest.body.by_slot {
                segments.clear();
            }
            let home = Home {
                index: guest.link.index,
                generation: guest.generation,
                missing: match mutation::on(Mutation::R10) {
                    true => 0,
                    false => guest.missing | missing,
                },
                body: guest.body,
            };
            self.out
                .news
                .homes
                .push((usize::from(guest.link.shard), home));
        }
    }

    /// A neighbour has written a run of this shard, and sends it home.
    pub(super) fn come_home(&mut self, from: NodeId, home: Home) {
        let Home {
            index,
            generation,
            missing,
            body,
        } = home;
        let key = self.cache[index].batch;
        assert!(key != NONE, "what comes home was away");
        let id = self.link(index);
        self.withdraw(key);
        let released = self.crossing.links().release(id, from as u16, generation);
        assert!(released, "what comes home is the run that went away");
        self.lists.keep_body(body);
        let mut stripes = self.batches.remove(key as usize).stripes;
        for at in stripes.drain(..) {
            if mutation::on(Mutation::R7) {
                self.cache[at].pending = Fragments::EMPTY;
            }
            self.go_on_alone(at, missing);
        }
        self.lists.keep_run(stripes);
    }

    /// The batch of a stripe has ended. What it lacks, in the slots `missing`, is written alone.
    fn go_on_alone(&mut self, at: u32, missing: u64) {
        let stripe = &mut self.cache[at];
        stripe.batch = NONE;
        stripe.phase = Phase::Writing;
        if missing != 0 && self.view.online {
            let members = self.geometry.members();
            for slot in (0..=members.min(63)).filter(|slot| missing & (1 << slot) != 0) {
                let bay = self.view.bay(slot);
                if !self.view.takes(bay, stripe.row, members) {
                    stripe.not_stored(bay, members, &self.settled);
                    continue;
                }
                let of = match self.view.replacement {
                    Some(replacement) if slot == members => replacement.slot,
                    _ => slot,
                };
                let role = self.geometry.role_beside(stripe.parity, of);
                let page = match stripe.op.is_write() {
                    true => Page::From(stripe.stored(role).clone()),
                    false => Page::None,
                };
                stripe.in_flight += 1;
                self.lanes.push(PageIo {
                    slot: slot as u8,
                    op: stripe.op,
                    number: stripe.number,
                    stripe: at,
                    role: role as u8,
                    page,
                    alone: true,
                });
            }
        }
        if self.cache[at].in_flight == 0 {
            self.all_written(at);
        }
    }
}
