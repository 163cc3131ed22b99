//! Listening sockets, one for each address however many subsystems listen there.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::address::ListenAddress;
use super::error::TargetError;
use crate::reactor::{Events, Interest, Ready, Registration};

/// Marks the tokens of listeners in the control thread's events; the low half is the listener.
const TOKEN_TAG: u64 = 0x6e76_6c73 << 32;

/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 1024;

/// How long a listener is left alone that has no descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes that the kernel buffers for each direction of a connection.
const SOCKET_BUFFER: usize = 2 << 20;

/// All listening sockets.
#[derive(Debug)]
pub struct Listeners {
    events: Events,
    sockets: BTreeMap<u32, Listener>,
    next: u32,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// Subsystems that listen here.
    users: usize,
    registration: Registration,
    paused_until: Option<Instant>,
}

impl Listeners {
    /// None yet; they will be watched through `events`.
    pub fn new(events: Events) -> Self {
        Self {
            events,
            sockets: BTreeMap::new(),
            next: 0,
        }
    }

    /// Listens, or shares the socket that listens there already. Gives the address with the port
    /// that it has.
    ///
    /// # Errors
    /// [`TargetError::Listen`].
    pub fn add(&mut self, address: ListenAddress) -> Result<ListenAddress, TargetError> {
        if let Some(l) = self.sockets.values_mut().find(|l| l.address == address.0) {
            l.users += 1;
            return Ok(address);
        }
        let failed = |source| TargetError::Listen { address, source };
        let socket = listen(address.0).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let token = TOKEN_TAG | u64::from(self.next);
        let registration = self.events.register(&socket, token, Interest::READABLE);
        let listener = Listener {
            registration: registration.map_err(failed)?,
            socket,
            address,
            users: 1,
            paused_until: None,
        };
        self.sockets.insert(self.next, listener);
        self.next += 1;
        Ok(ListenAddress(address))
    }

    /// One subsystem listens there no longer; the last closes the socket.
    pub fn remove(&mut self, address: ListenAddress) {
        self.sockets.retain(|_, l| {
            if l.address == address.0 {
                l.users -= 1;
            }
            l.users > 0
        });
    }

    /// Closes all sockets.
    pub fn clear(&mut self) {
        self.sockets.clear();
    }

    /// Accepts up to `budget` connections of the listeners that are ready.
    pub fn accept(&mut self, ready: &[Ready], budget: usize, now: Instant) -> Vec<TcpStream> {
        let mut streams = Vec::new();
        for ready in ready {
            if ready.token & !0xffff_ffff != TOKEN_TAG {
                continue;
            }
            let Some(listener) = self.sockets.get_mut(&(ready.token as u32)) else {
                continue;
            };
            while streams.len() < budget {
                match listener.socket.accept() {
                    Ok((stream, _)) => streams.push(stream),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    // The peer has gone again before it was accepted.
                    Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(
                            "cannot accept at {}: {error}; raise the limit of open files (ulimit -n)",
                            listener.address
                        );
                        listener.paused_until = Some(now + PAUSE);
                        watch(&self.events, listener, Interest::NONE);
                        break;
                    }
                }
            }
        }
        streams
    }

    /// Goes on with listeners that were left alone long enough; says when to look again.
    pub fn resume(&mut self, now: Instant) -> Option<Instant> {
        for listener in self.sockets.values_mut() {
            if listener.paused_until.is_some_and(|until| now >= until) {
                listener.paused_until = None;
                watch(&self.events, listener, Interest::READABLE);
            }
        }
        self.sockets.values().filter_map(|l| l.paused_until).min()
    }
}

fn watch(events: &Events, listener: &Listener, interest: Interest) {
    if let Err(error) = events.modify(&listener.registration, interest) {
        tracing::warn!("listener {} cannot be watched: {error}", listener.address);
    }
}

/// A non-blocking listening socket. Its buffer sizes are those of the connections it accepts: they
/// must be set before, for TCP offers its window in the handshake.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Larger than the system allows is cut to that: a wish, not a need.
    sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER)?;
    sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
