//! What the outside may see of an array.

use std::sync::{Arc, Mutex};

use crate::lock;

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

/// A rebuild under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Name of the member being rebuilt.
    pub target: String,
    /// Rows done.
    pub rows_done: u64,
    /// Rows in all.
    pub rows: u64,
}

/// What the outside may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it serves.
    pub state: State,
    /// The slots, in order.
    pub slots: Vec<SlotStatus>,
    /// The rebuild under way.
    pub process: Option<Process>,
    /// Why the last rebuild stopped, if it did not finish.
    pub last_process_error: Option<String>,
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
            last_process_error: None,
        })))
    }

    pub(super) fn read(&self) -> Status {
        lock::exclusive(&self.0).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock::exclusive(&self.0));
    }
}
