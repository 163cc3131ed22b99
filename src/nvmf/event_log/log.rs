//! The events of a subsystem, in memory and in its file.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::file::{self, Content};
use super::snapshot::{Lifetime, Snapshot};
use super::writer::Image;
use crate::nvme::Nqn;
use crate::nvme::log_page::PersistentLogHeader;

/// What Identify counts the size of the log in, in KiB.
pub const SIZE_UNIT_KIB: u32 = 64;

/// Most that a log may be, in KiB.
const MOST_KIB: u32 = 1024;

/// Where a log is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLogOptions {
    /// Its file.
    pub file: PathBuf,
    /// Most that the page may be, in KiB: a multiple of 64 up to 1024.
    pub size_kib: u32,
}

impl EventLogOptions {
    /// The size of a log that is given none, in KiB.
    pub const DEFAULT_KIB: u32 = SIZE_UNIT_KIB;

    /// Checks the ranges.
    ///
    /// # Errors
    /// In words, with the mend.
    pub fn validate(&self) -> Result<(), String> {
        if self.file.as_os_str().is_empty() {
            return Err("file is empty; name a file on a disk that outlives a restart".into());
        }
        let size = self.size_kib;
        if size == 0 || size > MOST_KIB || !size.is_multiple_of(SIZE_UNIT_KIB) {
            return Err(format!(
                "size_kb is {size}; it must be a multiple of {SIZE_UNIT_KIB} up to {MOST_KIB}"
            ));
        }
        Ok(())
    }

    /// Bytes that all events may be.
    fn room(&self) -> usize {
        self.size_kib as usize * 1024 - size_of::<PersistentLogHeader>()
    }
}

/// The log of a subsystem.
#[derive(Debug)]
pub struct EventLog {
    options: EventLogOptions,
    nqn: Nqn,
    lifetime: Lifetime,
    events: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl EventLog {
    /// Goes on with what the file says; one that is not there, or is empty, is a new log. Nothing is written
    /// yet. This is one more start, at `now`.
    ///
    /// # Errors
    /// In words, with the name of the file and the mend: a file that cannot be read, is damaged, or is not of
    /// this subsystem.
    pub fn open(options: EventLogOptions, nqn: Nqn, now: Instant) -> Result<Self, String> {
        let Content {
            cycles,
            served,
            events,
        } = file::read(&options.file, &nqn)?;
        let mut log = Self {
            options,
            nqn,
            lifetime: Lifetime {
                cycles: cycles.saturating_add(1),
                served,
                at: now,
            },
            bytes: events.iter().map(Vec::len).sum(),
            events,
        };
        log.make_room(0);
        Ok(log)
    }

    /// Where it is kept.
    pub fn options(&self) -> &EventLogOptions {
        &self.options
    }

    /// What is told of the subsystem's life.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// Something has happened. The oldest events make room for it.
    pub fn note(&mut self, event: Vec<u8>) {
        self.make_room(event.len());
        self.bytes += event.len();
        self.events.push_back(event);
    }

    fn make_room(&mut self, len: usize) {
        while self.bytes + len > self.options.room() {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
        }
    }

    /// What is to be in the file now.
    pub fn image(&self, now: Instant) -> Image {
        let content = Content {
            cycles: self.lifetime.cycles,
            served: Duration::from_millis(self.lifetime.served_by(now).as_millis() as u64),
            events: self.events.clone(),
        };
        Image {
            file: self.options.file.clone(),
            bytes: file::encode(&self.nqn, &content),
            snapshot: Snapshot {
                count: self.events.len() as u32,
                events: self.events.iter().flatten().copied().collect(),
                size: self.options.size_kib / SIZE_UNIT_KIB,
                lifetime: self.lifetime,
            },
        }
    }
}
