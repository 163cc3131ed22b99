//! Moving a queue's bytes: one nonblocking TCP socket.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, connect, ipproto, recv, socket_with, sockopt,
};

use super::error::QueueError;
use super::queue::{Done, Queue};

/// Ends a connection from wherever it is: the [`Socket`] finds out at its next turn.
#[derive(Debug)]
pub struct Hangup(TcpStream);

impl Hangup {
    /// Ends it.
    pub fn hang_up(&self) {
        // It may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection to a target, or the attempt at one. It never blocks.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    connecting: bool,
    /// Stands for what is received unseen. The kernel writes nothing here.
    unseen: Vec<u8>,
}

/// Most bytes that are received unseen at once.
const UNSEEN: usize = 256 << 10;

impl Socket {
    /// Begins to connect.
    ///
    /// # Errors
    /// What the operating system says at once; what it says later comes from [`Socket::turn`].
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        // A turn's commands leave in one send; waiting for more would only delay them.
        sockopt::set_tcp_nodelay(&socket, true)?;
        // What is not sent when the socket is closed must never be: the command is sent again on another
        // connection, and the kernel would go on to send the old one where the network comes back.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let connecting = match connect(&socket, &address) {
            Ok(()) => false,
            Err(Errno::INPROGRESS) => true,
            Err(errno) => return Err(errno.into()),
        };
        Ok(Self {
            stream: TcpStream::from(socket as OwnedFd),
            connecting,
            unseen: Vec::new(),
        })
    }

    /// What ends this connection from another thread.
    ///
    /// # Errors
    /// The process has no more descriptors.
    pub fn hangup(&self) -> io::Result<Hangup> {
        self.stream.try_clone().map(Hangup)
    }

    /// Whether the connection is not made yet: then it is worth a turn when it can be written to.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Moves what there is to move: one gathered send and one receive. What is over is appended
    /// to `done`. Says whether anything moved.
    ///
    /// # Errors
    /// [`QueueError`]: the queue has failed; a last word to the target was sent if it could be.
    pub fn turn(
        &mut self,
        queue: &mut Queue,
        done: &mut Vec<Done>,
        now: Instant,
    ) -> Result<bool, QueueError> {
        let received = self.receive(queue, done, now)?;
        let sent = self.send(queue, done)?;
        Ok(received || sent)
    }

    /// Receives once. Says whether anything came.
    ///
    /// # Errors
    /// [`QueueError`], as for [`Socket::turn`].
    pub fn receive(
        &mut self,
        queue: &mut Queue,
        done: &mut Vec<Done>,
        now: Instant,
    ) -> Result<bool, QueueError> {
        if self.still_connecting(queue)? {
            return Ok(false);
        }
        let unseen = queue.unseen();
        if unseen > 0 {
            return self.skip(unseen, queue, done);
        }
        let mut trouble = None;
        let read = |slices: &mut [IoSliceMut<'_>]| match read(&self.stream, slices) {
            Ok(0) => {
                trouble = Some(QueueError::Closed);
                0
            }
            Ok(count) => count,
            Err(error) => {
                trouble = fatal(&error);
                0
            }
        };
        let received = queue.receive(done, now, read);
        if let Err(error) = received {
            // The last word, if there is one. Nobody waits for it to get through.
            queue.transmit(done, |slices| write(&self.stream, slices).unwrap_or(0));
            return Err(error);
        }
        match trouble {
            Some(error) => Err(queue.fail(error)),
            None => Ok(received != Ok(0)),
        }
    }

    /// Has the kernel drop so many bytes, as far as they are there, instead of copying them: a load should cost
    /// less than what it measures. Says whether anything came.
    fn skip(
        &mut self,
        bytes: usize,
        queue: &mut Queue,
        done: &mut Vec<Done>,
    ) -> Result<bool, QueueError> {
        self.unseen.resize(UNSEEN, 0);
        let some = &mut self.unseen[..bytes.min(UNSEEN)];
        match recv(&self.stream, &mut *some, RecvFlags::TRUNC) {
            Ok((_, 0)) => Err(queue.fail(QueueError::Closed)),
            Ok((_, count)) => {
                queue.skipped(&some[..count], done);
                Ok(true)
            }
            Err(errno) => match fatal(&errno.into()) {
                Some(error) => Err(queue.fail(error)),
                None => Ok(false),
            },
        }
    }

    /// Sends once, in one gathered send. Says whether anything left.
    ///
    /// # Errors
    /// [`QueueError::Io`].
    pub fn send(&mut self, queue: &mut Queue, done: &mut Vec<Done>) -> Result<bool, QueueError> {
        if !queue.has_output() || self.still_connecting(queue)? {
            return Ok(false);
        }
        let mut trouble = None;
        let sent = queue.transmit(done, |slices| {
            write(&self.stream, slices).unwrap_or_else(|error| {
                trouble = fatal(&error);
                0
            })
        });
        match trouble {
            Some(error) => Err(queue.fail(error)),
            None => Ok(sent > 0),
        }
    }

    /// Whether the connection is not made yet.
    fn still_connecting(&mut self, queue: &mut Queue) -> Result<bool, QueueError> {
        if !self.connecting {
            return Ok(false);
        }
        let mut ready = [PollFd::new(&self.stream, PollFlags::OUT)];
        match poll(&mut ready, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => return Ok(true),
            Ok(_) => {}
            Err(errno) => return Err(queue.fail(QueueError::Io(errno.kind()))),
        }
        match self.stream.take_error() {
            Ok(None) => {
                self.connecting = false;
                Ok(false)
            }
            Ok(Some(error)) | Err(error) => Err(queue.fail(QueueError::Io(error.kind()))),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// One piece of memory is received into with a cheaper system call: a queue that spins makes it all the time.
fn read(mut stream: &TcpStream, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match slices {
        [slice] => stream.read(slice),
        slices => stream.read_vectored(slices),
    }
}

fn write(mut stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    stream.write_vectored(slices)
}

/// The error, unless it only says "later".
fn fatal(error: &io::Error) -> Option<QueueError> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => None,
        kind => Some(QueueError::Io(kind)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A command that is given up is sent again elsewhere. Whatever of it is still here must not arrive
    /// later, when it is old.
    #[test]
    fn what_was_not_sent_when_a_connection_is_given_up_never_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        // More than the peer's side of the connection holds, which nobody reads.
        let mut sent = 0;
        while let Ok(count) = (&socket.stream).write(&[7; 1 << 16]) {
            sent += count;
        }
        socket.hangup().unwrap().hang_up();
        drop(socket);
        let mut arrived = 0;
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = peer.read(&mut bytes) {
            arrived += count;
        }
        assert!(arrived < sent, "all {sent} bytes have arrived");
    }
}
