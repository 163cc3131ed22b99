//! A shard's side of write intent: which regions it may write to, because the members say that
//! the array is being written to there.

use rustc_hash::FxHashMap;

use crate::raid::shard::Shard;
use crate::raid::stripe::{NONE, Phase};

/// The regions of one shard. An array without metadata has none, and may write anywhere.
#[derive(Debug)]
pub(in crate::raid) struct Intents {
    rows_per_region: u64,
    regions: FxHashMap<u64, Intent>,
    /// Regions that nobody needs any more, to be given back.
    relinquished: Vec<u64>,
}

/// A region that was asked for.
#[derive(Debug)]
enum Intent {
    /// The answer is on its way; these stripes wait for it.
    Asked(Vec<u32>),
    /// May be written to.
    Held {
        /// Rounds that do so now.
        writers: u32,
        /// Some did since the last sweep.
        touched: bool,
    },
}

impl Intents {
    pub(in crate::raid) fn new(rows_per_region: u64) -> Self {
        Self {
            rows_per_region,
            regions: FxHashMap::default(),
            relinquished: Vec::new(),
        }
    }
}

impl Shard {
    /// Whether the round of a stripe may write. If not, the stripe waits, and holds nothing.
    pub(in crate::raid) fn may_write(&mut self, at: u32) -> bool {
        let Some(intents) = &mut self.intents else {
            return true;
        };
        let stripe = &mut self.cache[at];
        if stripe.intended {
            return true;
        }
        let region = stripe.row / intents.rows_per_region;
        match intents.regions.get_mut(&region) {
            Some(Intent::Held { writers, touched }) => {
                *writers += 1;
                *touched = true;
                stripe.intended = true;
                return true;
            }
            Some(Intent::Asked(waiting)) => waiting.push(at),
            None => {
                intents.regions.insert(region, Intent::Asked(vec![at]));
                self.out.news.intents.push(region);
            }
        }
        self.counters.intent_waits += 1;
        stripe.phase = Phase::Intending;
        stripe.forget();
        false
    }

    /// The round of a stripe has ended.
    pub(in crate::raid) fn wrote(&mut self, at: u32) {
        let stripe = &mut self.cache[at];
        if std::mem::take(&mut stripe.intended) {
            let row = stripe.row;
            self.wrote_row(row);
        }
    }

    /// Whether a row may be written to at once.
    pub(in crate::raid) fn may_write_row(&self, row: u64) -> bool {
        self.intents.as_ref().is_none_or(|intents| {
            let region = intents.regions.get(&(row / intents.rows_per_region));
            matches!(region, Some(Intent::Held { .. }))
        })
    }

    /// A row that may be written to is being written, until [`Shard::wrote_row`].
    pub(in crate::raid) fn writes_row(&mut self, row: u64) {
        let Some(intents) = &mut self.intents else {
            return;
        };
        let region = row / intents.rows_per_region;
        match intents.regions.get_mut(&region) {
            Some(Intent::Held { writers, touched }) => {
                *writers += 1;
                *touched = true;
            }
            other => unreachable!("a row is written in a region that is {other:?}"),
        }
    }

    /// A row is not being written any more.
    pub(in crate::raid) fn wrote_row(&mut self, row: u64) {
        let Some(intents) = &mut self.intents else {
            return;
        };
        let region = row / intents.rows_per_region;
        match intents.regions.get_mut(&region) {
            Some(Intent::Held { writers, .. }) => *writers -= 1,
            other => unreachable!("a round wrote to a region that is {other:?}"),
        }
    }

    /// The members say that a region is being written to: what waited for that goes on.
    pub(in crate::raid) fn granted(&mut self, region: u64) {
        let intents = self.intents.as_mut().expect("somebody asked");
        let held = Intent::Held {
            writers: 0,
            touched: true,
        };
        let Some(Intent::Asked(waiting)) = intents.regions.insert(region, held) else {
            unreachable!("only what was asked for is granted");
        };
        for at in waiting {
            self.cache[at].phase = Phase::Ready;
            self.ready.push_back(at);
        }
    }

    /// Gives back regions that were not written to since the last sweep; at once, all that are not
    /// being written to.
    pub(in crate::raid) fn sweep(&mut self, at_once: bool) {
        let Some(intents) = &mut self.intents else {
            return;
        };
        let given_back = &mut intents.relinquished;
        intents.regions.retain(|&region, intent| match intent {
            Intent::Asked(_) => true,
            Intent::Held { writers, touched } => {
                let keep = *writers > 0 || (*touched && !at_once);
                *touched = false;
                if !keep {
                    given_back.push(region);
                }
                keep
            }
        });
    }

    /// A region that was swept up.
    pub(in crate::raid) fn given_back(&mut self) -> Option<u64> {
        self.intents.as_mut()?.relinquished.pop()
    }

    /// The volume is offline: nobody waits for leave to write any more.
    pub(in crate::raid) fn stop_intending(&mut self) {
        let Some(intents) = &mut self.intents else {
            return;
        };
        for intent in intents.regions.values_mut() {
            if let Intent::Asked(waiting) = intent {
                for at in waiting.drain(..) {
                    debug_assert_ne!(at, NONE);
                    self.cache[at].phase = Phase::Ready;
                    self.ready.push_back(at);
                }
            }
        }
    }
}
