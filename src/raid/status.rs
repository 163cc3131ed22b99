//! What the outside may see of an array.

use std::sync::{Arc, Mutex};

use crate::lock;
use crate::md::Superblock;

/// State of a volume, in SPDK's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serves I/O, with or without redundancy.
    Online,
    /// Has lost two members: every request ends with an error.
    Offline,
}

/// A slot of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotStatus {
    /// Name of the member, or `None` where it is missing.
    pub name: Option<String>,
    /// Whether the member holds what it should, everywhere.
    pub in_sync: bool,
}

/// A rebuild, resync or check under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `rebuild`, `replace`, `resync`, `check` or `repair`.
    pub kind: &'static str,
    /// Name of the member being rebuilt, or of the one that is to replace another, until it has.
    pub target: Option<String>,
    /// Rows done.
    pub rows_done: u64,
    /// Rows in all.
    pub rows: u64,
    /// Sectors (512 bytes) of a member found so far in which parity did not match.
    pub mismatches: u64,
}

/// What the members say of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataStatus {
    /// Events so far.
    pub events: u64,
    /// Events that a member must have seen to lack no more than the write-intent bitmap says;
    /// `None` without a bitmap.
    pub events_cleared: Option<u64>,
    /// Whether they say that it is being written to.
    pub dirty: bool,
    /// What each device number is, as superblocks have it.
    pub roles: Vec<u16>,
    /// The superblock of each slot's member, as it was written last.
    pub superblocks: Vec<Option<Superblock>>,
}

/// What the outside may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it serves.
    pub state: State,
    /// The slots, in order.
    pub slots: Vec<SlotStatus>,
    /// The process under way.
    pub process: Option<Process>,
    /// Whether processes that have to be done are put off.
    pub paused: bool,
    /// Whether parity matches everywhere, as far as is known.
    pub in_sync: bool,
    /// Whether blocks are refused because only parity that may not match could tell them.
    pub doubtful: bool,
    /// What the members say of the array, if they do.
    pub metadata: Option<MetadataStatus>,
    /// Why the last process stopped, if it did not finish.
    pub last_process_error: Option<String>,
    /// Sectors (512 bytes) of a member in which the last check found parity not to match.
    pub mismatches: u64,
}

/// A status written by the array's node and read by the control thread; never on the I/O path.
#[derive(Clone, Debug)]
pub(super) struct StatusCell(Arc<Mutex<Status>>);

impl StatusCell {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Status {
            state: State::Online,
            slots: Vec::new(),
            process: None,
            paused: false,
            in_sync: true,
            doubtful: false,
            metadata: None,
            last_process_error: None,
            mismatches: 0,
        })))
    }

    pub(super) fn read(&self) -> Status {
        lock::exclusive(&self.0).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock::exclusive(&self.0));
    }
}
