//! Rebuild, resync, check and repair: rows of an array worked through, window by window.
//!
//! Each window is granted by a view of its own; when every node has done its rows of it, the next
//! one follows. How far a process has come is written to the members now and then, so that it
//! goes on from there after a restart.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::VolumeError;
use super::array::Array;
use super::message::NodeId;
use super::status;
use super::view::{Window, Work};
use super::window::Found;

/// How often the members are told how far a process has come.
const CHECKPOINT: Duration = Duration::from_secs(10);

/// How fast processes may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Bytes of a member that are worked on under one view.
    pub window_bytes: u64,
    /// Bytes of a member per second; 0 is no limit. md's `sync_speed_max`.
    pub bytes_per_second: u64,
    /// Bytes of a member per second while hosts write; 0 for no other limit than the one above.
    /// md's `sync_speed_min`.
    pub busy_bytes_per_second: u64,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self {
            window_bytes: 4 << 20,
            bytes_per_second: 0,
            busy_bytes_per_second: 0,
        }
    }
}

/// A process under way.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) work: Work,
    /// Rows below this are done.
    done: u64,
    /// The row behind the last one granted.
    granted: u64,
    /// Nodes that have not finished the window of the view's epoch.
    waiting: BTreeSet<NodeId>,
    /// When the window was granted, and when the next one may be.
    since: Instant,
    next_at: Option<Instant>,
    busy: bool,
    mismatches: u64,
    /// When its members were told last how far it has come.
    told: Option<Instant>,
}

impl Process {
    pub(super) fn new(work: Work, from: u64, now: Instant) -> Self {
        Self {
            work,
            done: from,
            granted: from,
            waiting: BTreeSet::new(),
            since: now,
            next_at: Some(now),
            busy: false,
            mismatches: 0,
            told: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_at.filter(|_| self.waiting.is_empty())
    }

    pub(super) fn status(&self, array: &Array) -> status::Process {
        let (kind, target) = match self.work {
            Work::Rebuild(slot) => ("rebuild", array.slots[slot].name.clone()),
            Work::Replace(_) => {
                let place = array.geometry.members();
                ("replace", array.slots[place].name.clone())
            }
            Work::Resync => ("resync", None),
            Work::Check => ("check", None),
            Work::Repair => ("repair", None),
        };
        status::Process {
            kind,
            target,
            rows_done: self.done,
            rows: array.geometry.rows(),
            mismatches: self.mismatches,
        }
    }
}

impl Array {
    /// Begins what the view says has to be done, unless that is put off.
    pub(super) fn begin_due(&mut self) {
        if self.paused || self.process.is_some() || !self.view.online {
            return;
        }
        let due = match (&self.view.degraded, &self.view.unsynced) {
            // What parity does not tell for certain is not made up and stored.
            (Some(d), _) if d.attached && !self.is_doubtful() => {
                Some((Work::Rebuild(d.slot), d.rebuilt))
            }
            (None, Some(u)) => Some((Work::Resync, u.from)),
            _ => None,
        };
        if let Some((work, from)) = due {
            self.process = Some(Process {
                next_at: None,
                ..Process::new(work, from, Instant::now())
            });
        }
    }

    /// Begins a check or a repair.
    pub(super) fn start(&mut self, work: Work) -> Result<(), VolumeError> {
        if !self.view.online {
            return Err(VolumeError::Offline);
        }
        if let Some(process) = &self.process {
            let kind = process.status(self).kind;
            return Err(VolumeError::Busy(kind));
        }
        if self.view.degraded.is_some() || self.view.unsynced.is_some() {
            return Err(VolumeError::NothingToCompare);
        }
        self.process = Some(Process {
            next_at: None,
            ..Process::new(work, 0, Instant::now())
        });
        self.status.update(|s| s.last_process_error = None);
        self.show();
        Ok(())
    }

    /// Puts off what has to be done, and leaves what has not; or goes on with what has to be done.
    pub(super) fn pause(&mut self, pause: bool) {
        self.paused = pause;
        if pause && self.view.replacement.is_some() {
            self.cancel_replacement(None);
        }
        if pause && self.process.take().is_some() {
            if let Some(metadata) = &mut self.metadata {
                metadata.checkpoint();
            }
            let view = self.next_view();
            self.publish(view);
        }
        self.begin_due();
        self.show();
    }

    /// Grants the next window of a process if its time has come.
    pub(super) fn grant_window(&mut self, now: Instant) {
        let Some(process) = &mut self.process else {
            return;
        };
        let next_at = *process.next_at.get_or_insert(now);
        if next_at > now || !process.waiting.is_empty() || !self.unconfirmed.is_empty() {
            return;
        }
        let done = process.granted;
        process.done = done;
        let work = process.work;
        let next = match work {
            Work::Rebuild(_) => {
                let stale = self.view.degraded.as_ref().and_then(|d| d.stale.as_ref());
                stale.map_or(Some(done), |s| s.next(done))
            }
            Work::Resync => {
                let regions = self.view.unsynced.as_ref().and_then(|u| u.regions.as_ref());
                regions.map_or(Some(done), |r| r.next(done))
            }
            Work::Replace(_) | Work::Check | Work::Repair => Some(done),
        };
        let rows = self.geometry.rows();
        let Some(from) = next.filter(|&from| from < rows) else {
            return self.finish_process();
        };
        let chunk = u64::from(self.geometry.chunk_bytes());
        let span = (self.options.window_bytes / chunk).max(1);
        let to = (from + span).min(rows);
        process.granted = to;
        process.since = now;
        process.waiting = (0..self.nodes).collect();
        let tell = *process.told.get_or_insert(now) + CHECKPOINT <= now;
        if tell {
            process.told = Some(now);
        }
        let mut view = self.next_view();
        view.window = Some(Window { work, from, to });
        match work {
            Work::Rebuild(_) => {
                let d = view.degraded.as_mut().expect("a member is rebuilt");
                d.rebuilt = from;
                d.window = to;
            }
            Work::Resync => {
                view.unsynced.as_mut().expect("parity is resynced").from = from;
            }
            Work::Replace(_) => {
                let r = view.replacement.as_mut().expect("a member is copied");
                r.copied = from;
                r.window = to;
            }
            Work::Check | Work::Repair => {}
        }
        self.publish(view);
        if let Some(metadata) = self.metadata.as_mut().filter(|_| tell) {
            metadata.checkpoint();
        }
    }

    /// The window under way was granted again, under another view.
    pub(super) fn reopen_window(&mut self) {
        let nodes = self.nodes;
        if let Some(process) = self.process.as_mut().filter(|_| self.view.window.is_some()) {
            process.waiting = (0..nodes).collect();
        }
    }

    /// A process has come to the end of the array.
    fn finish_process(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        if let Work::Replace(_) = process.work {
            return self.end_copying();
        }
        let mut view = self.next_view();
        match process.work {
            Work::Rebuild(_) => view.degraded = None,
            Work::Replace(_) => unreachable!("looked at above"),
            Work::Resync => view.unsynced = None,
            Work::Check | Work::Repair => {
                let found = process.mismatches;
                self.status.update(|s| s.mismatches = found);
                tracing::info!(
                    sectors = found,
                    "parity checked: sectors that did not match"
                );
            }
        }
        if let (Work::Rebuild(_) | Work::Resync, Some(metadata)) =
            (process.work, &mut self.metadata)
        {
            metadata.checkpoint();
        }
        self.publish(view);
        self.begin_due();
    }

    /// A node has done its rows of a window.
    pub(super) fn worked(&mut self, from: NodeId, epoch: u64, found: Found, now: Instant) {
        if epoch != self.view.epoch {
            return;
        }
        let Some(process) = &mut self.process else {
            return;
        };
        process.waiting.remove(&from);
        process.mismatches += found.mismatches;
        process.busy |= found.busy;
        let mismatches = process.mismatches;
        if let Some(stripe) = found.unreadable {
            self.fail_process(stripe);
        }
        let Some(process) = &mut self.process else {
            return;
        };
        if process.waiting.is_empty() {
            let busy = std::mem::take(&mut process.busy);
            let rate = match (busy, self.options.busy_bytes_per_second) {
                (true, slow @ 1..) => slow,
                _ => self.options.bytes_per_second,
            };
            let window = self.view.window.map_or(0, |w| w.to - w.from);
            let bytes = window * u64::from(self.geometry.chunk_bytes());
            let pace = match rate {
                0 => Duration::ZERO,
                rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
            };
            process.next_at = Some(now.max(process.since + pace));
        }
        if mismatches > 0 {
            self.status.update(|s| s.mismatches = mismatches);
        }
    }

    /// A stripe can't be worked on, because a member can't be read there.
    fn fail_process(&mut self, stripe: u64) {
        let Some(process) = &self.process else {
            return;
        };
        let work = process.work;
        let offset = self.geometry.member_offset(stripe);
        let why = format!(
            "another member can't be read at byte {offset}: write there anew, or replace that member"
        );
        tracing::error!(why, "{} stopped", process.status(self).kind);
        match work {
            Work::Rebuild(slot) => self.drop_member(slot),
            Work::Replace(_) => self.cancel_replacement(None),
            Work::Resync => {
                self.process = None;
                let view = self.next_view();
                self.publish(view);
            }
            // The rest is looked at all the same.
            Work::Check | Work::Repair => {}
        }
        self.status.update(|s| s.last_process_error = Some(why));
    }
}
