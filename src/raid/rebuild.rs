//! A shard's part of a rebuild: its own stripes of the window that the view grants.

use super::shard::{Pace, Shard};
use super::stripe::{Fragment, FragmentKind, NONE};
use crate::bdev::Status;

/// Stripes of one shard being rebuilt at once.
const IN_FLIGHT: u32 = 64;

/// The rows `rebuilt..window` of a view, being worked through.
#[derive(Debug)]
pub(super) struct Window {
    epoch: u64,
    slot: usize,
    /// The next stripe to look at, and the first behind the window.
    next: u64,
    end: u64,
    in_flight: u32,
    /// The first stripe that could not be rebuilt.
    unreadable: Option<u64>,
}

impl Shard {
    /// Begins the window of the view just adopted, unless it is the one under way.
    pub(super) fn open_window(&mut self) {
        let Some(d) = self
            .view
            .degraded
            .filter(|d| self.view.online && d.window > d.rebuilt)
        else {
            self.window = None;
            return;
        };
        let per_row = self.geometry.stripes_per_row();
        self.window = Some(Window {
            epoch: self.view.epoch,
            slot: d.slot,
            next: d.rebuilt * per_row,
            end: d.window * per_row,
            in_flight: 0,
            unreadable: None,
        });
    }

    /// Hands stripes of the window to their rounds, and reports when all are done.
    pub(super) fn fill_window(&mut self) {
        loop {
            let Some(window) = &mut self.window else {
                return;
            };
            if window.next >= window.end || window.unreadable.is_some() {
                if window.in_flight == 0 {
                    self.out.rebuilt = Some((window.epoch, window.unreadable));
                    self.window = None;
                }
                return;
            }
            if window.in_flight >= IN_FLIGHT {
                return;
            }
            let number = window.next;
            let row = self.geometry.row_of(number);
            if self.geometry.owner(row) != self.id {
                window.next = (row + 1) * self.geometry.stripes_per_row();
                continue;
            }
            let fragment = Fragment {
                job: NONE,
                next: NONE,
                kind: FragmentKind::Rebuild,
                role: self.geometry.role(row, window.slot) as u8,
                start: 0,
                len: self.geometry.stripe_bytes(),
                at: window.epoch as u32,
            };
            if !self.attach(number, row, fragment, Pace::Prompt) {
                return;
            }
            let window = self.window.as_mut().expect("looked at above");
            window.next += 1;
            window.in_flight += 1;
        }
    }

    pub(super) fn end_rebuild(&mut self, fragment: &Fragment, number: u64, status: Status) {
        let Some(window) = &mut self.window else {
            return;
        };
        // One of an earlier window counts for nothing in this.
        if window.epoch as u32 != fragment.at {
            return;
        }
        window.in_flight -= 1;
        if status != Status::Ok {
            window.unreadable.get_or_insert(number);
        }
    }
}
