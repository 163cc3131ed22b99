//! The connections of a run: one association, its admin queue and its I/O queues.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::initiator::{
    Controller, ControllerError, ControllerSettings, Done, Facts, Payload, Queue, QueueError,
    Socket,
};
use crate::nvme::Command;

/// The admin queue has little to say; looking at it each turn would cost a system call.
const ADMIN_EVERY: Duration = Duration::from_millis(2);
/// Patience with a controller that is told goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why there is no association, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum AssociationError {
    /// There is not even a socket.
    #[error("{address}: no connection can be made: {source}")]
    Socket {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The admin queue, or the bring-up.
    #[error("{address}: {source}")]
    Controller {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: ControllerError,
    },
    /// An I/O queue.
    #[error("{address}, queue {queue}: {source}")]
    Queue {
        /// Where to.
        address: SocketAddr,
        /// Which.
        queue: usize,
        /// Why.
        source: QueueError,
    },
    /// The controller grants fewer queues than were asked for.
    #[error("{address}: the controller grants {granted} I/O queues, not {wanted}; use fewer")]
    Queues {
        /// Where to.
        address: SocketAddr,
        /// Queues granted.
        granted: u16,
        /// Queues wanted.
        wanted: u16,
    },
}

impl AssociationError {
    /// Whether an answer took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            AssociationError::Controller {
                source: ControllerError::Queue(QueueError::Timeout { .. }),
                ..
            } | AssociationError::Queue {
                source: QueueError::Timeout { .. },
                ..
            }
        )
    }
}

#[derive(Debug)]
struct Link {
    queue: Queue,
    socket: Socket,
}

/// One association with its sockets. See the [module](self).
#[derive(Debug)]
pub struct Association {
    address: SocketAddr,
    depth: u16,
    wanted: u16,
    controller: Controller,
    admin: Socket,
    admin_done: Vec<Done>,
    admin_at: Instant,
    links: Vec<Link>,
    ready: bool,
}

impl Association {
    /// Begins to make an association with I/O queues of `depth` commands each.
    pub fn begin(
        address: SocketAddr,
        settings: &ControllerSettings,
        depth: u16,
        now: Instant,
    ) -> Result<Self, AssociationError> {
        let controller = Controller::new(settings.clone(), now);
        Ok(Self {
            address,
            depth,
            wanted: settings.io_queues,
            controller: controller
                .map_err(|source| AssociationError::Controller { address, source })?,
            admin: connect(address)?,
            admin_done: Vec::new(),
            admin_at: now,
            links: Vec::new(),
            ready: false,
        })
    }

    /// What is known of the controller, once all queues are connected.
    pub fn facts(&self) -> Option<&Facts> {
        self.controller.facts().filter(|_| self.ready)
    }

    /// Takes the bring-up further. Says whether all queues are connected.
    pub fn bring_up(&mut self, now: Instant) -> Result<bool, AssociationError> {
        let address = self.address;
        self.admin(now)?;
        let Some(facts) = self.controller.facts() else {
            return Ok(false);
        };
        if facts.io_queues < self.wanted {
            return Err(AssociationError::Queues {
                address,
                granted: facts.io_queues,
                wanted: self.wanted,
            });
        }
        while self.links.len() < usize::from(self.wanted) {
            let id = self.links.len() as u16 + 1;
            let queue = self.controller.io_queue(id, self.depth, now);
            self.links.push(Link {
                queue: queue.map_err(|source| AssociationError::Controller { address, source })?,
                socket: connect(address)?,
            });
        }
        // Nothing but Connect is in flight, and that never comes out as done.
        let mut none = Vec::new();
        let mut live = 0;
        for (index, link) in self.links.iter_mut().enumerate() {
            let turned = link.socket.turn(&mut link.queue, &mut none, now);
            let turned = turned.and_then(|_| link.queue.tick(now));
            turned.map_err(|source| queue_error(address, index, source))?;
            live += usize::from(link.queue.controller().is_some());
        }
        self.ready = live == self.links.len();
        Ok(self.ready)
    }

    /// Number of I/O queues.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Receives on one I/O queue. What is over is appended to `done`.
    pub fn receive(
        &mut self,
        index: usize,
        done: &mut Vec<Done>,
        now: Instant,
    ) -> Result<(), AssociationError> {
        let link = &mut self.links[index];
        let received = link.socket.receive(&mut link.queue, done, now);
        received
            .map(drop)
            .map_err(|source| queue_error(self.address, index, source))
    }

    /// Hands a command to one I/O queue.
    ///
    /// # Errors
    /// The payload, where the queue is full or lost.
    pub fn submit(
        &mut self,
        index: usize,
        token: u64,
        command: &Command,
        payload: Payload,
        now: Instant,
    ) -> Result<(), Payload> {
        let queue = &mut self.links[index].queue;
        queue.submit(token, command, payload, now)
    }

    /// Sends what waits on one I/O queue, in one gathered send.
    pub fn send(&mut self, index: usize, done: &mut Vec<Done>) -> Result<(), AssociationError> {
        let link = &mut self.links[index];
        let sent = link.socket.send(&mut link.queue, done);
        sent.map(drop)
            .map_err(|source| queue_error(self.address, index, source))
    }

    /// Looks after the admin queue and overdue answers, now and then.
    pub fn tick(&mut self, now: Instant) -> Result<(), AssociationError> {
        if now < self.admin_at {
            return Ok(());
        }
        self.admin_at = now + ADMIN_EVERY;
        self.admin(now)?;
        for (index, link) in self.links.iter_mut().enumerate() {
            let ticked = link.queue.tick(now);
            ticked.map_err(|source| queue_error(self.address, index, source))?;
        }
        Ok(())
    }

    fn admin(&mut self, now: Instant) -> Result<(), AssociationError> {
        let queue = self.controller.queue_mut();
        let turned = self.admin.turn(queue, &mut self.admin_done, now);
        let advanced = match turned {
            Ok(_) => self.controller.advance(&mut self.admin_done, now),
            Err(error) => Err(error.into()),
        };
        advanced.map_err(|source| AssociationError::Controller {
            address: self.address,
            source,
        })
    }

    /// Gives up all connections. Commands in flight are appended to `done`, as lost.
    pub fn abandon(mut self, done: &mut Vec<Done>) {
        for link in &mut self.links {
            link.queue.abandon(done);
        }
    }

    /// Says goodbye to the controller and waits a little for the answer.
    pub fn close(mut self) {
        let start = Instant::now();
        self.controller.shut_down(start);
        while !self.controller.is_shut_down() && start.elapsed() < GOODBYE {
            if self.admin(Instant::now()).is_err() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

fn connect(address: SocketAddr) -> Result<Socket, AssociationError> {
    Socket::connect(address).map_err(|source| AssociationError::Socket { address, source })
}

fn queue_error(address: SocketAddr, index: usize, source: QueueError) -> AssociationError {
    AssociationError::Queue {
        address,
        queue: index + 1,
        source,
    }
}
