//! An admin queue with its connection, for the threads that use one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::options::TcpOptions;
use crate::initiator::{Controller, ControllerError, ControllerSettings, Done, Socket};

/// Patience with a controller that is told goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// See the head of this file.
pub(super) struct Admin {
    pub(super) controller: Controller,
    pub(super) socket: Socket,
    done: Vec<Done>,
}

impl Admin {
    /// Begins to connect.
    pub(super) fn begin(options: &TcpOptions, address: SocketAddr) -> Result<Self, String> {
        let settings = ControllerSettings {
            subsystem: options.subsystem.clone(),
            host: options.host.clone(),
            host_id: options.host_id,
            header_digest: options.header_digest,
            data_digest: options.data_digest,
            keep_alive: options.keep_alive,
            patience: options.admin_timeout,
            io_queues: options.io_queues,
            namespace: None,
            events: true,
        };
        let controller = Controller::new(settings, Instant::now()).map_err(|e| e.to_string())?;
        Ok(Self {
            controller,
            socket: Socket::connect(address).map_err(|e| e.to_string())?,
            done: Vec::new(),
        })
    }

    /// Sends, receives, and does what follows. To be called until it fails.
    pub(super) fn turn(&mut self, now: Instant) -> Result<(), ControllerError> {
        let queue = self.controller.queue_mut();
        self.socket.turn(queue, &mut self.done, now)?;
        self.controller.advance(&mut self.done, now)?;
        // What that has led to leaves at once.
        let queue = self.controller.queue_mut();
        self.socket.send(queue, &mut self.done)?;
        Ok(())
    }

    /// Commands in flight on an I/O queue.
    pub(super) fn depth(&self, options: &TcpOptions) -> u16 {
        let most = self.controller.max_depth().unwrap_or(0);
        options.queue_depth.min(most)
    }

    /// Tells the controller that this host goes, and waits a little for the answer.
    pub(super) fn say_goodbye(&mut self) {
        let start = Instant::now();
        self.controller.shut_down(start);
        while !self.controller.is_shut_down() && start.elapsed() < GOODBYE {
            if self.turn(Instant::now()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
