//! A queue pair: the two rings in memory that the device sees, and who is behind each command
//! identifier.
//!
//! A command identifier is an index into the table of commands, and in its upper bits how often the
//! entry was used. So a completion that names a command of before, a second completion of the same
//! command, and one that was never asked for are told from a true one.

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::bar::{Bar, Doorbells};
use super::shadow::Shadow;
use crate::memory::{DeviceMemory, Windows};
use crate::nvme::{Command, Completion, Status};

/// Completions that are taken in one poll at most: the rest can wait for the next turn.
pub(super) const BATCH: usize = 64;

/// Bits of a command identifier that are the index.
const INDEX_BITS: u32 = 10;

/// Entries of the largest rings. The last index is never used, so that no identifier is FFFFh,
/// which means none in the error log.
pub(super) const MAX_ENTRIES: u16 = 1 << INDEX_BITS;

/// Words of a submission entry, of 64 bytes.
const COMMAND_WORDS: usize = 8;

/// Words of a completion entry, of 16 bytes.
const COMPLETION_WORDS: usize = 2;

/// Bytes of the rings of a queue pair of `entries` entries: submission, completion.
pub(super) fn ring_bytes(entries: u16) -> (usize, usize) {
    (usize::from(entries) * 64, usize::from(entries) * 16)
}

/// The device broke the rules of its queues; nothing of the queue can be believed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueFault {
    /// A completion of a command that is not in flight: never sent, or completed before.
    #[error("queue {queue}: completion of command {cid:#06x}, which is not in flight")]
    Unknown {
        /// The queue pair.
        queue: u16,
        /// Command identifier of the completion.
        cid: u16,
    },
    /// A completion says that the device has taken entries that it was not given.
    #[error(
        "queue {queue}: completion with submission queue head {head}, which is not in the ring"
    )]
    Head {
        /// The queue pair.
        queue: u16,
        /// SQHD of the completion.
        head: u16,
    },
    /// A completion of another queue's command.
    #[error("queue {queue}: completion for queue {named}")]
    Queue {
        /// The queue pair.
        queue: u16,
        /// SQID of the completion.
        named: u16,
    },
}

/// A completed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reaped {
    /// Index of the command.
    pub(super) index: u16,
    /// How it went.
    pub(super) status: Status,
    /// Dword 0: its result, where it has one.
    pub(super) result: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// How often the entry was used; cut to the upper bits of an identifier.
    uses: u16,
    in_flight: bool,
}

/// A submission queue, the completion queue that goes with it, and the commands in flight.
#[derive(Debug)]
pub(super) struct QueuePair {
    id: u16,
    entries: u16,
    doorbells: Doorbells,
    submission: DeviceMemory,
    completion: DeviceMemory,
    /// Where the next command goes.
    tail: u16,
    /// The tail that the device was told last.
    told: u16,
    /// Up to where the device has taken commands, as its completions say.
    taken: u16,
    /// Where the next completion comes.
    head: u16,
    /// The head that the device was told last: from there to `head` are places that it does not know to be free.
    freed: u16,
    /// The phase tag of new completions.
    phase: bool,
    commands: Box<[Entry]>,
    free: Vec<u16>,
    fault: Option<QueueFault>,
    /// Doorbells in memory, where the device has them.
    shadow: Option<Shadow>,
}

impl QueuePair {
    /// A queue pair of `entries` entries, 2 to [`MAX_ENTRIES`], over rings of [`ring_bytes`].
    ///
    /// # Panics
    /// Where the rings are smaller, or the number of entries is out of range.
    pub(super) fn new(
        id: u16,
        entries: u16,
        doorbells: Doorbells,
        submission: DeviceMemory,
        completion: DeviceMemory,
    ) -> Self {
        assert!((2..=MAX_ENTRIES).contains(&entries), "{entries} entries");
        let (submissions, completions) = ring_bytes(entries);
        assert!(submission.len() * 8 >= submissions && completion.len() * 8 >= completions);
        let mut queue = Self {
            id,
            entries,
            doorbells,
            submission,
            completion,
            tail: 0,
            told: 0,
            taken: 0,
            head: 0,
            freed: 0,
            phase: true,
            // A ring of n entries holds n - 1: full and empty must differ.
            commands: vec![Entry::default(); usize::from(entries) - 1].into(),
            free: Vec::with_capacity(usize::from(entries) - 1),
            fault: None,
            shadow: None,
        };
        queue.reset();
        queue
    }

    /// Tells the device by doorbells in memory from now on.
    pub(super) fn shadow_with(&mut self, shadow: Shadow) {
        self.shadow = Some(shadow);
    }

    /// Identifier of the queue pair.
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Entries of each ring.
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Most commands in flight.
    pub(super) fn capacity(&self) -> usize {
        self.commands.len()
    }

    /// Commands in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.commands.len() - self.free.len()
    }

    /// The device's addresses of the rings: submission, completion.
    pub(super) fn addresses(&self, windows: &Windows) -> Option<(u64, u64)> {
        let submission = self.submission.address(windows, 0)?;
        Some((submission, self.completion.address(windows, 0)?))
    }

    /// Makes both rings empty, and forgets what is in flight. Only while the device does not know
    /// of them: before it is told, or after it was disabled.
    pub(super) fn reset(&mut self) {
        self.submission.clear();
        self.completion.clear();
        if let Some(shadow) = &self.shadow {
            shadow.reset();
        }
        (self.tail, self.told, self.taken) = (0, 0, 0);
        (self.head, self.freed) = (0, 0);
        self.phase = true;
        self.fault = None;
        self.free.clear();
        for index in (0..self.commands.len()).rev() {
            let entry = &mut self.commands[index];
            if entry.in_flight {
                *entry = Entry {
                    uses: entry.uses.wrapping_add(1),
                    in_flight: false,
                };
            }
            self.free.push(index as u16);
        }
    }

    /// Whether a command can be pushed.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() && self.after(self.tail) != self.taken
    }

    /// The index that the next pushed command will have. Panics when there is no room.
    pub(super) fn next_index(&self) -> u16 {
        *self.free.last().expect("room for a command")
    }

    /// Puts a command into the ring, under an identifier of its own, and answers its index. The
    /// device is told at the next [`QueuePair::ring`]. Panics when there is no room.
    pub(super) fn push(&mut self, command: Command) -> u16 {
        assert!(self.has_room(), "a command for a full queue");
        let index = self.free.pop().expect("room for a command");
        self.commands[usize::from(index)].in_flight = true;
        let command = command.with_cid(self.cid(index));
        let words: [U64; COMMAND_WORDS] = zerocopy::transmute!(command);
        let first = usize::from(self.tail) * COMMAND_WORDS;
        self.submission.store_all(first, &words.map(U64::get));
        self.tail = self.after(self.tail);
        index
    }

    /// The identifier under which the device knows the command in flight at `index`.
    pub(super) fn cid(&self, index: u16) -> u16 {
        self.commands[usize::from(index)].uses << INDEX_BITS | index
    }

    /// Tells the device of all commands that were pushed since the last call, at once; writes
    /// nothing where there are none.
    pub(super) fn ring(&mut self, bar: &dyn Bar) {
        if self.told == self.tail {
            return;
        }
        // Each command in flight has its place in the completion ring, one of which stays empty.
        if self.in_flight() + usize::from(self.unsaid()) >= usize::from(self.entries) {
            self.free_places(bar);
        }
        // Either doorbell has the entries seen before it.
        let must_ring = match &self.shadow {
            Some(shadow) => shadow.tail(self.told, self.tail),
            None => true,
        };
        if must_ring {
            bar.write32(self.doorbells.tail, u32::from(self.tail));
        }
        self.told = self.tail;
    }

    /// Takes up to [`BATCH`] completions, and appends them to `done`. That their places are free the
    /// device is told when half of the ring is, or sooner where [`QueuePair::ring`] needs them.
    ///
    /// # Errors
    /// [`QueueFault`]: then this queue takes nothing more until it is reset. What came before the
    /// fault is in `done`.
    pub(super) fn reap(&mut self, bar: &dyn Bar, done: &mut Vec<Reaped>) -> Result<(), QueueFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut outcome = Ok(());
        for _ in 0..BATCH {
            let Some(completion) = self.peek() else {
                break;
            };
            match self.accept(&completion) {
                Ok(reaped) => done.push(reaped),
                Err(fault) => {
                    self.fault = Some(fault);
                    outcome = Err(fault);
                    break;
                }
            }
            self.head = self.after(self.head);
            self.phase ^= self.head == 0;
        }
        if self.unsaid() >= self.entries / 2 {
            self.free_places(bar);
        }
        outcome
    }

    /// Places of completions that were taken, and that the device does not know to be free.
    fn unsaid(&self) -> u16 {
        self.distance(self.freed, self.head)
    }

    /// Tells the device how far completions were taken.
    fn free_places(&mut self, bar: &dyn Bar) {
        let must_ring = match &self.shadow {
            Some(shadow) => shadow.head(self.freed, self.head),
            None => true,
        };
        if must_ring {
            bar.write32(self.doorbells.head, u32::from(self.head));
        }
        self.freed = self.head;
    }

    /// The next completion, if it is there.
    fn peek(&self) -> Option<Completion> {
        let first = usize::from(self.head) * COMPLETION_WORDS;
        // The word with the phase tag first: the other was stored before it.
        let tail = self.completion.load_first(first + 1);
        let fresh = (tail >> 48) & 1 == u64::from(self.phase);
        if !fresh {
            return None;
        }
        let words = [
            self.completion.load(first).to_le_bytes(),
            tail.to_le_bytes(),
        ];
        Completion::read_from_bytes(words.as_flattened()).ok()
    }

    /// Checks a completion and frees its command.
    fn accept(&mut self, completion: &Completion) -> Result<Reaped, QueueFault> {
        let queue = self.id;
        let named = completion.sqid.get();
        if named != queue {
            return Err(QueueFault::Queue { queue, named });
        }
        let cid = completion.cid.get();
        let index = cid & (MAX_ENTRIES - 1);
        let known = self
            .commands
            .get(usize::from(index))
            .is_some_and(|entry| entry.in_flight)
            && self.cid(index) == cid;
        if !known {
            return Err(QueueFault::Unknown { queue, cid });
        }
        // From the head before to the last tail that was told, round the ring.
        let head = completion.sqhd.get();
        let given = self.distance(self.taken, self.told);
        if head >= self.entries || self.distance(self.taken, head) > given {
            return Err(QueueFault::Head { queue, head });
        }
        self.taken = head;
        let entry = &mut self.commands[usize::from(index)];
        *entry = Entry {
            uses: entry.uses.wrapping_add(1),
            in_flight: false,
        };
        self.free.push(index);
        Ok(Reaped {
            index,
            status: completion.status(),
            result: completion.dw0.get(),
        })
    }

    /// The place behind another, round the ring.
    fn after(&self, place: u16) -> u16 {
        match place + 1 {
            next if next == self.entries => 0,
            next => next,
        }
    }

    /// Steps from one place to another, round the ring.
    fn distance(&self, from: u16, to: u16) -> u16 {
        match to.checked_sub(from) {
            Some(steps) => steps,
            None => to + self.entries - from,
        }
    }
}

#[cfg(test)]
mod tests;
