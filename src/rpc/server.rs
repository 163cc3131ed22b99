//! The server: clients, their sockets, and fairness between them.
//!
//! The control thread's loop drives it: [`Server::ready`] for what its events told,
//! [`Server::next_call`] and [`Server::answer`] for the work, [`Server::flush`] at the end of each
//! turn. No client can make it wait.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::address::{Address, Listener, Stream};
use super::request::Request;
use super::session::{self, Session};
use super::{Outcome, SocketError};
use crate::reactor::{Events, Interest, Ready, Registration};

/// Most clients at once. Further ones wait until one leaves.
pub const MAX_CLIENTS: usize = 64;

/// How long a client that is owed nothing may be silent and keep others waiting.
pub const MAX_SILENCE: Duration = Duration::from_secs(10);

/// Bytes read from a client at once.
const READ_SIZE: usize = 64 * 1024;

/// The right and duty to answer one call of one client.
#[derive(Debug)]
pub struct Ticket {
    client: u64,
    session: session::Ticket,
}

/// A JSON-RPC server.
#[derive(Debug)]
pub struct Server {
    events: Events,
    /// The listener's token; a client's is this and its number.
    first_token: u64,
    listening: Registration,
    listener: Listener,
    /// By number, counted from 1. A number is never used twice.
    clients: BTreeMap<u64, Client>,
    last_client: u64,
    /// Whose turn it was last.
    served: u64,
    /// Somebody may be waiting whom there is no room for.
    is_full: bool,
    scratch: Box<[u8]>,
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    session: Session,
    /// Gone when there is nothing more to be told.
    registration: Option<Registration>,
    interest: Interest,
    /// When it last sent something.
    heard: Instant,
    /// Nobody is there to read what we send.
    is_gone: bool,
}

impl Server {
    /// Listens at `address`. Of the tokens of `events` it uses those from `first_token` on.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(address: &Address, events: &Events, first_token: u64) -> Result<Self, SocketError> {
        let listener = Listener::bind(address)?;
        let listening = events
            .register(&listener, first_token, Interest::READABLE)
            .map_err(|source| SocketError::Io {
                path: address.to_string().into(),
                what: "wait for clients",
                source,
            })?;
        Ok(Self {
            events: events.clone(),
            first_token,
            listening,
            listener,
            clients: BTreeMap::new(),
            last_client: 0,
            served: 0,
            is_full: false,
            scratch: vec![0; READ_SIZE].into(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn address(&self) -> io::Result<Address> {
        self.listener.address()
    }

    /// Takes in what an event told, if the event is one of ours.
    pub fn ready(&mut self, ready: &Ready, now: Instant) {
        let Some(number) = ready.token.checked_sub(self.first_token) else {
            return;
        };
        if number == 0 {
            self.accept(now);
        } else if let Some(client) = self.clients.get_mut(&number) {
            client.is_gone |= ready.hangup;
            if ready.readable || ready.hangup {
                client.read(&mut self.scratch, now);
            }
        }
    }

    /// The next call of any client, each client in its turn, until there is none for now. The
    /// ticket must come back with [`Server::answer`].
    pub fn next_call(&mut self) -> Option<(Ticket, Request)> {
        let (after, before) = (self.served + 1.., ..=self.served);
        let numbers = self.clients.range(after).chain(self.clients.range(before));
        let numbers: Vec<u64> = numbers.map(|(&n, _)| n).collect();
        for number in numbers {
            let client = self.clients.get_mut(&number).expect("listed above");
            if let Some((session, request)) = client.session.next_call() {
                self.served = number;
                let ticket = Ticket {
                    client: number,
                    session,
                };
                return Some((ticket, request));
            }
        }
        None
    }

    /// Answers a call. A client that has left is not told.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(client) = self.clients.get_mut(&ticket.client) {
            client.session.answer(ticket.session, outcome);
        }
    }

    /// Sends what can be sent, lets clients go that are done, and says whether
    /// [`Server::next_call`] is worth asking again at once.
    pub fn flush(&mut self, now: Instant) -> bool {
        let events = &self.events;
        self.clients.retain(|_, client| client.flush(events));
        if self.is_full && (self.clients.len() < MAX_CLIENTS || self.longest_silent(now).is_some())
        {
            self.is_full = false;
            self.set_listening(Interest::READABLE);
        }
        self.clients.values().any(|c| c.session.may_have_calls())
    }

    /// When [`Server::flush`] must be called even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let quiet = self.clients.values().filter(|c| c.session.is_quiet());
        let heard = quiet.map(|c| c.heard).min();
        heard.filter(|_| self.is_full).map(|h| h + MAX_SILENCE)
    }

    fn accept(&mut self, now: Instant) {
        loop {
            if self.clients.len() >= MAX_CLIENTS {
                let Some(number) = self.longest_silent(now) else {
                    self.is_full = true;
                    self.set_listening(Interest::NONE);
                    return;
                };
                tracing::info!("RPC: a client that was silent made room for another");
                self.clients.remove(&number);
            }
            let admitted = self
                .listener
                .accept()
                .and_then(|stream| self.admit(stream, now));
            match admitted {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!("RPC: a client could not be taken: {error}");
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: Stream, now: Instant) -> io::Result<()> {
        let number = self.last_client + 1;
        let token = self.first_token + number;
        let interest = Interest::READABLE;
        let registration = self.events.register(&stream, token, interest)?;
        self.last_client = number;
        let client = Client {
            stream,
            session: Session::default(),
            registration: Some(registration),
            interest,
            heard: now,
            is_gone: false,
        };
        self.clients.insert(number, client);
        Ok(())
    }

    /// The client that has been silent longest, if it has been so for too long.
    fn longest_silent(&self, now: Instant) -> Option<u64> {
        let quiet = self.clients.iter().filter(|(_, c)| c.session.is_quiet());
        let (number, client) = quiet.min_by_key(|(_, c)| c.heard)?;
        (now.saturating_duration_since(client.heard) >= MAX_SILENCE).then_some(*number)
    }

    fn set_listening(&self, interest: Interest) {
        if let Err(error) = self.events.modify(&self.listening, interest) {
            tracing::warn!("RPC: cannot change what to wait for: {error}");
        }
    }
}

impl Client {
    /// Reads once. What is left comes with the next event.
    fn read(&mut self, scratch: &mut [u8], now: Instant) {
        if !self.session.wants_input() {
            return;
        }
        match self.stream.read(scratch) {
            Ok(0) => self.session.end_input(),
            Ok(bytes) => {
                self.heard = now;
                self.session.receive(&scratch[..bytes]);
            }
            Err(e) if is_transient(&e) => {}
            Err(_) => {
                self.is_gone = true;
                self.session.end_input();
            }
        }
    }

    /// Sends what can be sent; says whether the client stays.
    fn flush(&mut self, events: &Events) -> bool {
        while !self.is_gone && !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(bytes) => self.session.sent(bytes),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.is_gone = true,
            }
        }
        if self.is_gone {
            self.session.sent(self.session.output().len());
        }
        if self.session.is_clogged() {
            tracing::warn!("RPC: a client that leaves too much unread is cut off");
            return false;
        }
        !self.session.is_over() && self.listen(events)
    }

    /// Asks to be told of what matters now; says whether that could be done.
    fn listen(&mut self, events: &Events) -> bool {
        let interest = Interest {
            readable: self.session.wants_input(),
            writable: !self.session.output().is_empty(),
        };
        if self.is_gone && self.session.has_ended() {
            // Nothing more can come, and the hang-up would be told again and again.
            self.registration = None;
        }
        let Some(registration) = &self.registration else {
            return true;
        };
        if interest == self.interest {
            return true;
        }
        self.interest = interest;
        events.modify(registration, interest).is_ok()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
