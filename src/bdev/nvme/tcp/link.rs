//! What the keeper of an association and the channels on the reactors know of one another.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use rustix::event::{EventfdFlags, eventfd};

use super::status::Status;
use crate::initiator::{Hangup, QueueSettings};
use crate::lock;
use crate::nvme::log_page::Health;

/// How it stands with a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes I/O.
    Ready,
    /// It is away, or was never there; I/O waits for it.
    Away,
    /// It is away for too long; I/O fails, and attempts to reach it go on.
    Failing,
    /// It has been given up, or detached. I/O fails for ever.
    Gone,
}

/// A phase, and the number of the association that it belongs to. Each association has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) phase: Phase,
}

impl State {
    fn to_bits(self) -> u64 {
        let phase = match self.phase {
            Phase::Ready => 0,
            Phase::Away => 1,
            Phase::Failing => 2,
            Phase::Gone => 3,
        };
        self.generation << 2 | phase
    }

    fn from_bits(bits: u64) -> Self {
        let phase = match bits & 3 {
            0 => Phase::Ready,
            1 => Phase::Away,
            2 => Phase::Failing,
            _ => Phase::Gone,
        };
        Self {
            generation: bits >> 2,
            phase,
        }
    }
}

/// What a channel needs to know to connect its queue to an association.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    /// All but the queue's number.
    pub(super) queue: QueueSettings,
    /// Most bytes of data of one command.
    pub(super) max_transfer: u32,
}

/// What the keeper is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// A queue of this association has failed for this reason.
    Failed(u64, String),
    /// Begin anew.
    Reset,
    /// Another address of the same subsystem, to be tried after those that are known.
    Address(SocketAddr),
    /// Ask for the health log page.
    Health(mpsc::Sender<Result<Box<Health>, String>>),
    /// End.
    Detach,
}

/// Numbers of I/O queues.
#[derive(Debug)]
struct Numbers {
    /// Those that no channel has, the one that was freed last at the end.
    free: VecDeque<u16>,
    /// The highest that may be had.
    most: u16,
}

/// Shared by the keeper, the devices and their channels. Channels look at the state in each turn;
/// everything else is looked at when it changes.
pub(super) struct Link {
    state: AtomicU64,
    terms: Mutex<Option<Arc<Terms>>>,
    numbers: Mutex<Numbers>,
    /// What ends the connections of the channels.
    hangups: Mutex<BTreeMap<u16, Hangup>>,
    orders: Mutex<VecDeque<Order>>,
    bell: OwnedFd,
    pub(super) status: Mutex<Status>,
}

impl Link {
    pub(super) fn new(io_queues: u16) -> io::Result<Self> {
        let away = State {
            generation: 0,
            phase: Phase::Away,
        };
        Ok(Self {
            state: AtomicU64::new(away.to_bits()),
            terms: Mutex::default(),
            numbers: Mutex::new(Numbers {
                free: (1..=io_queues).collect(),
                most: io_queues,
            }),
            hangups: Mutex::default(),
            orders: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            status: Mutex::default(),
        })
    }

    pub(super) fn state(&self) -> State {
        State::from_bits(self.state.load(Ordering::Acquire))
    }

    /// The terms of this association, as long as it is the present one.
    pub(super) fn terms(&self, generation: u64) -> Option<Arc<Terms>> {
        let terms = lock::exclusive(&self.terms).clone();
        terms.filter(|terms| terms.generation == generation)
    }

    /// An association is ready for I/O.
    pub(super) fn open(&self, terms: Terms) {
        let state = State {
            generation: terms.generation,
            phase: Phase::Ready,
        };
        *lock::exclusive(&self.terms) = Some(Arc::new(terms));
        self.state.store(state.to_bits(), Ordering::Release);
    }

    /// The association is over, or still is. All of its connections are ended.
    pub(super) fn close(&self, phase: Phase) {
        let state = State {
            phase,
            ..self.state()
        };
        self.state.store(state.to_bits(), Ordering::Release);
        let hangups = std::mem::take(&mut *lock::exclusive(&self.hangups));
        for hangup in hangups.values() {
            hangup.hang_up();
        }
    }

    /// Has the keeper end this connection with its association.
    pub(super) fn enter(&self, generation: u64, queue: u16, hangup: Hangup) {
        let mut hangups = lock::exclusive(&self.hangups);
        let state = self.state();
        // The keeper changes the state first and looks here then, so one of us sees the other.
        if state.generation == generation && state.phase == Phase::Ready {
            hangups.insert(queue, hangup);
        } else {
            hangup.hang_up();
        }
    }

    /// The connection of this queue is over.
    pub(super) fn leave(&self, queue: u16) {
        lock::exclusive(&self.hangups).remove(&queue);
    }

    /// A number for an I/O queue, the one that has been free for longest.
    pub(super) fn take_queue(&self) -> Option<u16> {
        lock::exclusive(&self.numbers).free.pop_front()
    }

    /// Gives a number back.
    pub(super) fn free_queue(&self, queue: u16) {
        lock::exclusive(&self.numbers).free.push_back(queue);
    }

    /// Makes do with so many I/O queues. Says whether no channel has one beyond them.
    pub(super) fn grant(&self, io_queues: u16) -> bool {
        let mut numbers = lock::exclusive(&self.numbers);
        let beyond = io_queues.saturating_add(1)..=numbers.most;
        if !beyond.into_iter().all(|id| numbers.free.contains(&id)) {
            return false;
        }
        numbers.free.retain(|id| *id <= io_queues);
        numbers.most = numbers.most.min(io_queues);
        true
    }

    /// Tells the keeper.
    pub(super) fn order(&self, order: Order) {
        let mut orders = lock::exclusive(&self.orders);
        // One complaint about an association is enough.
        let heard = matches!(&order, Order::Failed(generation, _)
            if orders.iter().any(|o| matches!(o, Order::Failed(g, _) if g == generation)));
        if !heard {
            orders.push_back(order);
        }
        drop(orders);
        // A full counter is readable all the same.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// What the keeper was told, in order.
    pub(super) fn next_order(&self) -> Option<Order> {
        lock::exclusive(&self.orders).pop_front()
    }

    /// Quiets what told the keeper of orders.
    pub(super) fn quiet(&self) {
        let mut count = [0; 8];
        // There may be nothing to read.
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl AsFd for Link {
    /// Readable when there are orders.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_their_bits() {
        for phase in [Phase::Ready, Phase::Away, Phase::Failing, Phase::Gone] {
            for generation in [0, 1, 1 << 40] {
                let state = State { generation, phase };
                assert_eq!(State::from_bits(state.to_bits()), state);
            }
        }
    }

    #[test]
    fn numbers_that_are_not_granted_must_be_free() {
        let link = Link::new(4).unwrap();
        assert_eq!(link.take_queue(), Some(1));
        assert!(link.grant(3));
        assert_eq!((link.take_queue(), link.take_queue()), (Some(2), Some(3)));
        assert_eq!(link.take_queue(), None);
        link.free_queue(2);
        assert!(!link.grant(2));
        assert!(link.grant(3) && link.grant(7));
        assert_eq!(link.take_queue(), Some(2));
        link.free_queue(3);
        assert!(link.grant(2));
        assert_eq!(link.take_queue(), None);
    }

    #[test]
    fn a_complaint_is_heard_once() {
        let link = Link::new(1).unwrap();
        for generation in [1, 1, 2] {
            link.order(Order::Failed(generation, "why".to_owned()));
        }
        let heard = std::iter::from_fn(|| link.next_order());
        assert_eq!(heard.count(), 2);
    }
}
