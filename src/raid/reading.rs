//! Rounds that only read: what is at hand is copied to the hosts' buffers, what is lost is summed up there.

use smallvec::SmallVec;

use super::payload;
use super::plan::Method;
use super::shard::Shard;
use super::stripe::{FragmentKind, NONE};
use crate::bdev::{Data, Status};

impl Shard {
    /// Whether all that this round does is answer reads.
    pub(super) fn only_reads(&self, at: u32) -> bool {
        let stripe = &self.cache[at];
        let quiet = stripe.heal | stripe.copy == 0 && stripe.verify.is_none();
        if !quiet || stripe.plan.is_none_or(|p| p.method != Method::None) {
            return false;
        }
        let mut next = stripe.round.first;
        while next != NONE {
            let fragment = &self.fragments[next as usize];
            if fragment.kind != FragmentKind::Read {
                return false;
            }
            next = fragment.next;
        }
        true
    }

    /// Answers the reads of a round that does nothing else. All that the plan reads is at hand.
    pub(super) fn answer_reads(&mut self, at: u32) {
        let stripe = &self.cache[at];
        let mut lost = false;
        let mut next = stripe.round.first;
        while next != NONE {
            let f = &self.fragments[next as usize];
            next = f.next;
            let Data::Read(segments) = &mut self.jobs[f.job as usize].job.data else {
                unreachable!("a read has buffers to fill");
            };
            let role = usize::from(f.role);
            let (range, place) = (f.start as usize..(f.start + f.len) as usize, f.at as usize);
            match &stripe.pages[role] {
                Some(page) => payload::fill(segments, place, &page[range]),
                None => {
                    lost = true;
                    let others = stripe.pages.iter().enumerate().filter(|&(k, _)| k != role);
                    let sources: SmallVec<[&[u8]; 16]> = others
                        .map(|(_, page)| {
                            &page.as_ref().expect("the plan read all others")[range.clone()]
                        })
                        .collect();
                    payload::fill_sum(segments, place, &sources);
                }
            }
        }
        self.counters.reconstructed += u64::from(lost);
        self.end_round(at, Status::Ok);
    }
}
