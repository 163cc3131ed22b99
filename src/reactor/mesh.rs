//! The mesh: a bounded ring from each reactor to each, itself included.
//!
//! A message is moved, never shared. A full ring gives the message back to its sender, which holds
//! it until the receiver has caught up; nothing here grows, waits or drops.

use super::ReactorId;
use super::doorbell::{Waker, publish};

/// Makes the rings between as many reactors as there are wakers, each for `capacity` messages
/// (at least 1), and gives the port of each reactor in order of their ids.
///
/// The room for all messages, the square of the number of reactors times `capacity`, is taken at
/// once.
///
/// # Panics
/// When `capacity` is 0.
pub fn mesh<T>(wakers: &[Waker], capacity: usize) -> Vec<Port<T>> {
    assert!(capacity > 0, "a ring of no messages passes none");
    let ids = || (0..wakers.len()).map(|index| ReactorId(index as u16));
    let mut ports: Vec<Port<T>> = ids()
        .map(|id| Port {
            id,
            peers: Vec::with_capacity(wakers.len()),
            inbound: Vec::with_capacity(wakers.len()),
            unflushed: Vec::with_capacity(wakers.len()),
            first: 0,
        })
        .collect();
    for from in ids() {
        for (to, waker) in ids().zip(wakers) {
            let (producer, consumer) = rtrb::RingBuffer::new(capacity);
            ports[from.index()].peers.push(Peer {
                ring: producer,
                waker: waker.clone(),
                unflushed: false,
            });
            ports[to.index()].inbound.push(consumer);
        }
    }
    ports
}

/// One reactor's end of the mesh.
#[derive(Debug)]
pub struct Port<T> {
    id: ReactorId,
    /// The ways out, by reactor.
    peers: Vec<Peer<T>>,
    /// The ways in, by reactor.
    inbound: Vec<rtrb::Consumer<T>>,
    /// The reactors that were sent to since the last flush.
    unflushed: Vec<ReactorId>,
    /// The way in that is emptied first next time, so that a talkative peer starves nobody.
    first: usize,
}

#[derive(Debug)]
struct Peer<T> {
    ring: rtrb::Producer<T>,
    waker: Waker,
    unflushed: bool,
}

impl<T> Port<T> {
    /// The reactor that this port is for.
    pub fn id(&self) -> ReactorId {
        self.id
    }

    /// Reactors in the mesh, this one included.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Puts a message on its way. It may be received at once, and will be after [`Port::flush`].
    ///
    /// # Errors
    /// The message, when the ring is full: keep it and try again in a later turn.
    ///
    /// # Panics
    /// When there is no reactor `to` in the mesh.
    pub fn send(&mut self, to: ReactorId, message: T) -> Result<(), T> {
        let peer = &mut self.peers[to.index()];
        peer.ring
            .push(message)
            .map_err(|rtrb::PushError::Full(message)| message)?;
        // A reactor that sends to itself is awake, and looks before it sleeps.
        if !peer.unflushed && to != self.id {
            peer.unflushed = true;
            self.unflushed.push(to);
        }
        Ok(())
    }

    /// Messages that [`Port::send`] to this reactor takes for certain.
    pub fn room(&self, to: ReactorId) -> usize {
        self.peers[to.index()].ring.slots()
    }

    /// Wakes each reactor that was sent to since the last time, if it sleeps. To be called once,
    /// at the end of a turn.
    pub fn flush(&mut self) {
        if self.unflushed.is_empty() {
            return;
        }
        publish();
        for to in self.unflushed.drain(..) {
            let peer = &mut self.peers[to.index()];
            peer.unflushed = false;
            peer.waker.wake_published();
        }
    }

    /// Hands up to `budget` messages to `take`, in the order in which each reactor sent its own,
    /// and says how many. There may be more if it is the whole budget.
    pub fn receive(&mut self, budget: usize, mut take: impl FnMut(ReactorId, T)) -> usize {
        let count = self.inbound.len();
        let mut left = budget;
        for step in 0..count {
            let from = (self.first + step) % count;
            let ring = &mut self.inbound[from];
            let ready = ring.slots().min(left);
            if ready == 0 {
                continue;
            }
            // One store for the whole chunk gives the room back to the sender.
            if let Ok(chunk) = ring.read_chunk(ready) {
                for message in chunk {
                    take(ReactorId(from as u16), message);
                }
                left -= ready;
            }
        }
        self.first = (self.first + 1) % count;
        budget - left
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Events;
    use super::*;

    fn wakers(count: usize) -> (Vec<Events>, Vec<Waker>) {
        let events: Vec<_> = (0..count).map(|_| Events::new().unwrap()).collect();
        let wakers = events.iter().map(Events::waker).collect();
        (events, wakers)
    }

    #[test]
    fn messages_arrive_in_the_order_of_each_sender() {
        let (_events, wakers) = wakers(3);
        let mut ports = mesh::<u32>(&wakers, 8);
        for n in 0..5 {
            ports[0].send(ReactorId(2), n).unwrap();
            ports[1].send(ReactorId(2), 10 + n).unwrap();
            ports[2].send(ReactorId(2), 20 + n).unwrap();
        }
        let mut got: Vec<Vec<u32>> = vec![Vec::new(); 3];
        let mut total = 0;
        // Seven at a time, so that a budget ends within a sender's messages.
        loop {
            let n = ports[2].receive(7, |from, m| got[from.index()].push(m));
            total += n;
            if n == 0 {
                break;
            }
            assert!(n <= 7);
        }
        assert_eq!(total, 15);
        assert_eq!(got[0], [0, 1, 2, 3, 4]);
        assert_eq!(got[1], [10, 11, 12, 13, 14]);
        assert_eq!(got[2], [20, 21, 22, 23, 24]);
        assert_eq!(ports[0].receive(7, |_, _| ()), 0);
    }

    #[test]
    fn a_full_ring_gives_the_message_back_and_other_rings_are_free() {
        let (_events, wakers) = wakers(3);
        let mut ports = mesh::<u32>(&wakers, 2);
        assert_eq!(ports[0].room(ReactorId(1)), 2);
        ports[0].send(ReactorId(1), 1).unwrap();
        ports[0].send(ReactorId(1), 2).unwrap();
        assert_eq!(ports[0].room(ReactorId(1)), 0);
        assert_eq!(ports[0].send(ReactorId(1), 3), Err(3));
        assert_eq!(ports[0].send(ReactorId(2), 4), Ok(()));
        assert_eq!(ports[2].send(ReactorId(1), 5), Ok(()));
        let mut got = Vec::new();
        assert_eq!(ports[1].receive(1, |from, m| got.push((from, m))), 1);
        assert_eq!(got, [(ReactorId(0), 1)]);
        assert_eq!(ports[0].send(ReactorId(1), 3), Ok(()));
    }

    #[test]
    fn a_talkative_peer_does_not_starve_another() {
        let (_events, wakers) = wakers(2);
        let mut ports = mesh::<u32>(&wakers, 64);
        let mut heard = false;
        ports[1].send(ReactorId(1), 99).unwrap();
        for _ in 0..4 {
            while ports[0].send(ReactorId(1), 0).is_ok() {}
            ports[1].receive(8, |_, m| heard |= m == 99);
        }
        assert!(heard);
    }

    #[test]
    fn flush_wakes_whoever_was_sent_to_and_nobody_else() {
        let (events, wakers) = wakers(3);
        let mut ports = mesh::<u32>(&wakers, 8);
        ports[0].send(ReactorId(1), 1).unwrap();
        ports[0].send(ReactorId(1), 2).unwrap();
        let woken = |events: &Events| events.set().would_wake();
        assert!(!woken(&events[1]));
        ports[0].flush();
        assert!(woken(&events[1]));
        assert!(!woken(&events[0]) && !woken(&events[2]));
        // Awake now: not again for the same messages.
        events[1].wait(None, &mut Vec::new()).unwrap();
        ports[0].flush();
        assert!(!woken(&events[1]));
        ports[0].send(ReactorId(1), 3).unwrap();
        ports[0].flush();
        assert!(woken(&events[1]));
    }

    #[test]
    fn ports_can_be_moved_to_their_reactors() {
        fn moved<P: Send>(_: P) {}
        let (_events, wakers) = wakers(1);
        moved(mesh::<Vec<u8>>(&wakers, 1));
    }

    #[test]
    fn messages_never_received_are_dropped_with_the_mesh() {
        let (_events, wakers) = wakers(2);
        let message = std::sync::Arc::new(());
        let mut ports = mesh(&wakers, 8);
        ports[0].send(ReactorId(1), message.clone()).unwrap();
        drop(ports);
        assert_eq!(std::sync::Arc::strong_count(&message), 1);
    }
}
