//! The payload memory of one poll group, and who waits for it.
//!
//! Two parts. What is taken **at once** serves data that is already in the stream, in a capsule:
//! nothing else can be read from that connection before, so whoever holds it must never wait for
//! data of another command. All the rest is **bulk**: a command that finds none waits its turn, and
//! its connection goes on. So no holder of memory waits for memory, and what is taken always comes
//! back.

use std::collections::VecDeque;

use crate::memory::{Arena, Class, Classes, Cuts, PoolError, SegmentsMut};

/// How much payload memory a poll group has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadSizes {
    /// For data in capsules.
    pub at_once: Vec<Class>,
    /// For everything else.
    pub bulk: Vec<Class>,
}

impl Default for PayloadSizes {
    /// 6 MiB at once and 48 MiB of bulk.
    fn default() -> Self {
        let class = |slot_size: usize, slots| Class {
            slot_size: slot_size << 10,
            slots,
        };
        Self {
            at_once: vec![class(4, 512), class(8, 512)],
            bulk: vec![
                class(4, 1024),
                class(16, 256),
                class(64, 128),
                class(128, 256),
            ],
        }
    }
}

impl PayloadSizes {
    /// Bytes of arena that one poll group needs.
    pub fn bytes(&self) -> usize {
        Classes::bytes(&self.at_once) + Classes::bytes(&self.bulk)
    }
}

/// One connection's share of the bulk: so many of these parts it may hold, and others still work.
const SHARES: usize = 8;

/// The memory of one poll group.
#[derive(Debug)]
pub struct PayloadMemory {
    at_once: Classes,
    bulk: Classes,
    share: usize,
    /// Connections with commands that wait, in the order of their turns.
    waiting: VecDeque<u32>,
}

/// Why memory was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is not enough now.
    Now,
    /// There will never be enough.
    Ever,
}

impl PayloadMemory {
    /// Carves it out of `arena`.
    ///
    /// # Errors
    /// Sizes that are none, or an arena without room.
    pub fn new(arena: &Arena, sizes: &PayloadSizes) -> Result<Self, PoolError> {
        let bulk = Classes::new(arena, &sizes.bulk)?;
        Ok(Self {
            at_once: Classes::new(arena, &sizes.at_once)?,
            share: bulk.capacity() / SHARES,
            bulk,
            waiting: VecDeque::new(),
        })
    }

    /// Bytes of bulk in all.
    pub fn bulk_capacity(&self) -> usize {
        self.bulk.capacity()
    }

    /// Bytes of the memory that is taken at once.
    pub fn at_once_capacity(&self) -> usize {
        self.at_once.capacity()
    }

    /// Whether nobody holds any.
    #[cfg(test)]
    pub fn is_whole(&self) -> bool {
        self.at_once.is_whole() && self.bulk.is_whole()
    }

    /// Takes memory for data that is already in the stream.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn take_at_once(&self, bytes: usize, cuts: Cuts) -> Result<SegmentsMut, Shortage> {
        take(&self.at_once, bytes, cuts)
    }

    /// Takes bulk for a connection that holds `held` bytes of it already.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn take_bulk(
        &self,
        held: usize,
        bytes: usize,
        cuts: Cuts,
    ) -> Result<SegmentsMut, Shortage> {
        if held > 0 && held + bytes > self.share {
            return Err(Shortage::Now);
        }
        take(&self.bulk, bytes, cuts)
    }

    /// Whether a connection that holds `held` bytes of bulk could have `bytes` more if there were
    /// enough.
    pub fn within_share(&self, held: usize, bytes: usize) -> bool {
        held == 0 || held + bytes <= self.share
    }

    /// Whether anybody waits. Then nobody may take bulk out of turn.
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A connection waits from now on.
    pub fn wait(&mut self, connection: u32) {
        self.waiting.push_back(connection);
    }

    /// Whose turn it is; if it still waits for more after this turn, it calls
    /// [`PayloadMemory::wait`] again.
    pub fn next_turn(&mut self) -> Option<u32> {
        self.waiting.pop_front()
    }

    /// Gives a turn back that could not be used for want of memory.
    pub fn return_turn(&mut self, connection: u32) {
        self.waiting.push_front(connection);
    }

    /// Connections that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A connection does not wait any more.
    pub fn forget(&mut self, connection: u32) {
        self.waiting.retain(|&c| c != connection);
    }
}

fn take(classes: &Classes, bytes: usize, cuts: Cuts) -> Result<SegmentsMut, Shortage> {
    classes.take(bytes, cuts).ok_or_else(|| {
        if classes.is_whole() {
            Shortage::Ever
        } else {
            Shortage::Now
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> PayloadMemory {
        let class = |slots| {
            vec![Class {
                slot_size: 4096,
                slots,
            }]
        };
        let sizes = PayloadSizes {
            at_once: class(1),
            bulk: class(16),
        };
        let arena = Arena::ordinary(sizes.bytes()).unwrap();
        PayloadMemory::new(&arena, &sizes).unwrap()
    }

    #[test]
    fn what_can_never_be_is_told_apart() {
        let memory = memory();
        let taken = memory.take_at_once(4096, Cuts::NONE).unwrap();
        let short = memory.take_at_once(4096, Cuts::NONE).unwrap_err();
        assert_eq!(short, Shortage::Now);
        drop(taken);
        let short = memory.take_at_once(4097, Cuts::NONE).unwrap_err();
        assert_eq!(short, Shortage::Ever);
    }

    #[test]
    fn one_connection_gets_its_share_and_a_large_command_still_passes() {
        let memory = memory();
        // A share is 16 slots / 8 = 8 KiB.
        assert!(memory.take_bulk(0, 5 * 4096, Cuts::NONE).is_ok());
        assert!(memory.take_bulk(4096, 4096, Cuts::NONE).is_ok());
        let short = memory.take_bulk(2 * 4096, 4096, Cuts::NONE).unwrap_err();
        assert_eq!(short, Shortage::Now);
        assert!(!memory.within_share(2 * 4096, 1));
    }
}
