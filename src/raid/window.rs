//! A shard's part of a rebuild, a resync or a check: its own stripes of the window that the view
//! grants.

use super::shard::{Pace, Shard};
use super::stripe::{Fragment, FragmentKind, NONE};
use super::view::Work;
use crate::bdev::Status;

/// Stripes of one shard being worked on at once.
const IN_FLIGHT: u32 = 64;

/// The rows of the view's window, being worked through.
#[derive(Debug)]
pub(super) struct Progress {
    epoch: u64,
    work: Work,
    /// The next stripe to look at, and the first behind the window.
    next: u64,
    end: u64,
    in_flight: u32,
    found: Found,
}

/// What a node has found in its rows of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The first stripe that could not be worked on, because of a member that can't be read.
    pub unreadable: Option<u64>,
    /// Sectors (512 bytes) of a member in which parity did not match: md's `mismatch_cnt`.
    pub mismatches: u64,
    /// Hosts wrote meanwhile.
    pub busy: bool,
}

impl Shard {
    /// Begins the window of the view just adopted, unless there is none.
    pub(super) fn open_window(&mut self) {
        let view = &self.view;
        self.window = view
            .window
            .filter(|w| view.online && w.to > w.from)
            .map(|w| {
                let per_row = self.geometry.stripes_per_row();
                Progress {
                    epoch: view.epoch,
                    work: w.work,
                    next: w.from * per_row,
                    end: w.to * per_row,
                    in_flight: 0,
                    found: Found::default(),
                }
            });
    }

    /// Hands stripes of the window to their rounds, and reports when all are done.
    pub(super) fn fill_window(&mut self) {
        loop {
            let Some(window) = &mut self.window else {
                return;
            };
            let ends = window.found.unreadable.is_some() && window.work.needs_all();
            if window.next >= window.end || ends {
                if window.in_flight == 0 {
                    let found = Found {
                        busy: std::mem::take(&mut self.busy),
                        ..window.found
                    };
                    self.out.news.worked = Some((window.epoch, found));
                    self.window = None;
                }
                return;
            }
            if window.in_flight >= IN_FLIGHT {
                return;
            }
            let number = window.next;
            let row = self.geometry.row_of(number);
            if self.geometry.owner(row) != self.id || !self.view.wants(window.work, row) {
                window.next = (row + 1) * self.geometry.stripes_per_row();
                continue;
            }
            let (epoch, work) = (window.epoch, window.work);
            if let Some(stripes) = self.take_work(number, row, epoch, work) {
                let window = self.window.as_mut().expect("looked at above");
                window.next += u64::from(stripes);
                window.in_flight += stripes;
                continue;
            }
            let (kind, role) = self.fragment_of(work, row);
            let fragment = Fragment {
                job: NONE,
                next: NONE,
                kind,
                role: role as u8,
                roles: 1,
                start: 0,
                len: self.geometry.stripe_bytes(),
                at: epoch as u32,
            };
            if !self.attach(number, fragment, Pace::Prompt) {
                return;
            }
            let window = self.window.as_mut().expect("looked at above");
            window.next += 1;
            window.in_flight += 1;
        }
    }

    /// What work on a row is to a stripe, and the role that it is about.
    pub(super) fn fragment_of(&self, work: Work, row: u64) -> (FragmentKind, usize) {
        match work {
            Work::Rebuild(slot) => (FragmentKind::Rebuild, self.geometry.role(row, slot)),
            Work::Replace(slot) => (FragmentKind::Copy, self.geometry.role(row, slot)),
            Work::Resync => (FragmentKind::Rebuild, self.geometry.data()),
            Work::Check => (FragmentKind::Check, self.geometry.data()),
            Work::Repair => (FragmentKind::Repair, self.geometry.data()),
        }
    }

    /// Whether the window of this epoch is still being worked through.
    pub(super) fn is_open(&self, epoch: u64) -> bool {
        self.window.as_ref().is_some_and(|w| w.epoch == epoch)
    }

    /// So many stripes of the window of this epoch are done.
    pub(super) fn worked_through(&mut self, epoch: u64, stripes: u32) {
        if let Some(window) = self.window.as_mut().filter(|w| w.epoch == epoch) {
            window.in_flight -= stripes;
        }
    }

    pub(super) fn end_work(&mut self, fragment: &Fragment, number: u64, status: Status) {
        let Some(window) = &mut self.window else {
            return;
        };
        // One of an earlier window counts for nothing in this.
        if window.epoch as u32 != fragment.at {
            return;
        }
        window.in_flight -= 1;
        if status == Status::Ok {
            return;
        }
        // What can't be told is noted as bad where it would be kept, and the work goes on.
        let row = self.geometry.row_of(number);
        let keeps = match window.work {
            Work::Rebuild(slot) => Some(slot),
            Work::Replace(_) => Some(self.geometry.members()),
            Work::Resync => Some(self.geometry.parity_member(row)),
            Work::Check | Work::Repair => None,
        };
        let keeps = keeps.map(|slot| self.view.bay(slot));
        match keeps.filter(|bay| self.logs & (1 << bay) != 0) {
            Some(bay) if self.view.online => self.out.news.bad.push((bay, number)),
            _ => {
                window.found.unreadable.get_or_insert(number);
            }
        }
    }

    /// The parity of a stripe was found not to match.
    pub(super) fn mismatched(&mut self) {
        if let Some(window) = &mut self.window {
            window.found.mismatches += u64::from(self.geometry.stripe_bytes() / 512);
        }
    }
}

impl Work {
    /// Whether it is in vain once a stripe could not be worked on.
    fn needs_all(self) -> bool {
        !matches!(self, Work::Check | Work::Repair)
    }
}
