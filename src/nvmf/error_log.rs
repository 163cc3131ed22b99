//! The error information of a controller (log page 01h), and how it comes there from the queues,
//! which other reactors serve.

use std::collections::VecDeque;

use zerocopy::{FromZeros, IntoBytes};

use crate::nvme::io::IoCommand;
use crate::nvme::log_page::ErrorEntry;
use crate::nvme::{Command, Status};

/// Entries of the page. ELPE is one less.
pub const ERROR_ENTRIES: usize = 128;

/// TRTYPE of an entry: NVMe/TCP.
const TCP: u8 = 3;

/// PEL of an entry: no field in particular.
const NO_FIELD: u16 = 0xffff;

/// A command that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its queue.
    pub qid: u16,
    /// Its identifier.
    pub cid: u16,
    /// Why.
    pub status: Status,
    /// Its first block, 0 where it has none.
    pub lba: u64,
    /// Its namespace.
    pub nsid: u32,
    /// Its opcode.
    pub opcode: u8,
}

impl Failure {
    /// That of a command of an I/O queue that was refused as it came.
    pub fn of_io(command: &Command, qid: u16, status: Status) -> Self {
        let range = IoCommand::parse(command).ok().and_then(|c| c.range());
        Self {
            qid,
            cid: command.cid.get(),
            status,
            lba: range.map_or(0, |range| range.slba),
            nsid: command.nsid.get(),
            opcode: command.opcode,
        }
    }

    /// That of an admin command.
    pub fn of_admin(command: &Command, status: Status) -> Self {
        Self {
            qid: 0,
            cid: command.cid.get(),
            status,
            lba: 0,
            nsid: command.nsid.get(),
            opcode: command.opcode,
        }
    }
}

/// Failures of a queue on their way to its controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// The newest ones, oldest first.
    pub newest: VecDeque<Failure>,
    /// How many there were besides.
    pub more: u64,
}

/// Failures that are told of one by one, at once; what comes beyond, in the same time, is counted.
const NEWEST: usize = 16;

/// How often a queue may report between two ticks, so that a host whose commands all fail does not
/// keep the control thread busy.
const REPORTS_A_TICK: u8 = 2;

/// What a queue has to report.
#[derive(Debug)]
pub struct FailureReport {
    waiting: Failures,
    left: u8,
}

impl Default for FailureReport {
    fn default() -> Self {
        Self {
            waiting: Failures::default(),
            left: REPORTS_A_TICK,
        }
    }
}

impl FailureReport {
    /// A command has failed.
    pub fn note(&mut self, failure: Failure) {
        self.waiting.note(failure);
    }

    /// What is to be reported now, if there is anything and it may be.
    pub fn take(&mut self) -> Option<Failures> {
        if self.waiting.newest.is_empty() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        Some(std::mem::take(&mut self.waiting))
    }

    /// Some time has passed.
    pub fn tick(&mut self) {
        self.left = REPORTS_A_TICK;
    }
}

impl Failures {
    fn note(&mut self, failure: Failure) {
        if self.newest.len() == NEWEST {
            self.newest.pop_front();
            self.more += 1;
        }
        self.newest.push_back(failure);
    }
}

/// The failures of one controller, for as long as its association lasts.
#[derive(Debug, Default)]
pub struct ErrorLog {
    /// Newest first.
    entries: VecDeque<ErrorEntry>,
    count: u64,
}

impl ErrorLog {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Commands of a queue have failed.
    pub fn add(&mut self, failures: &Failures) {
        self.count += failures.more;
        for failure in &failures.newest {
            self.note(failure);
        }
    }

    /// A command has failed.
    pub fn note(&mut self, failure: &Failure) {
        self.count += 1;
        self.entries.truncate(ERROR_ENTRIES - 1);
        self.entries.push_front(ErrorEntry {
            error_count: self.count.into(),
            sqid: failure.qid.into(),
            cid: failure.cid.into(),
            status_field: failure.status.field().into(),
            parameter_location: NO_FIELD.into(),
            lba: failure.lba.into(),
            nsid: failure.nsid.into(),
            trtype: TCP,
            opcode: failure.opcode,
            version: 1,
            ..ErrorEntry::new_zeroed()
        });
    }

    /// The page: the newest first, then zeros.
    pub fn page(&self) -> Vec<u8> {
        let entries = self.entries.iter();
        let mut page: Vec<u8> = entries.flat_map(|e| e.as_bytes()).copied().collect();
        page.resize(ERROR_ENTRIES * size_of::<ErrorEntry>(), 0);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cid: u16) -> Failure {
        Failure {
            qid: 2,
            cid,
            status: Status::LBA_OUT_OF_RANGE.with_do_not_retry(),
            lba: 0x1234,
            nsid: 1,
            opcode: 2,
        }
    }

    #[test]
    fn the_newest_comes_first_and_what_is_lost_is_counted() {
        let mut log = ErrorLog::default();
        assert_eq!(log.page(), vec![0; 8192]);
        for cid in 0..200 {
            log.note(&failure(cid));
        }
        let page = log.page();
        // Number 200, queue 2, command 199, the status field with Do Not Retry, no field, block 1234h.
        let first = [
            200, 0, 0, 0, 0, 0, 0, 0, 2, 0, 199, 0, 0, 0x81, 0xff, 0xff, 0x34, 0x12, 0, 0, 0, 0, 0,
            0, 1, 0, 0, 0, 0, 3, 0, 2,
        ];
        assert_eq!(page[..32], first);
        assert_eq!(page[63], 1);
        // The last of the 128 entries is number 73.
        assert_eq!(page[127 * 64], 73);
        assert_eq!((page.len(), log.count()), (8192, 200));
    }

    #[test]
    fn who_only_fails_reports_in_bulk() {
        let mut report = FailureReport::default();
        assert_eq!(report.take(), None);
        let mut log = ErrorLog::default();
        let mut reports = 0;
        for cid in 0..1000 {
            report.note(failure(cid));
            if let Some(failures) = report.take() {
                log.add(&failures);
                reports += 1;
            }
        }
        assert_eq!((reports, log.count()), (2, 2));
        report.tick();
        log.add(&report.take().expect("the rest"));
        assert_eq!(log.count(), 1000);
        assert_eq!(log.page()[10..12], 999_u16.to_le_bytes());
        assert_eq!(report.take(), None);
    }
}
