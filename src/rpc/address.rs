//! Where RPC is taken: a UNIX socket, or a TCP address.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::socket::{Socket, SocketError};

/// SPDK's TCP port for RPC.
pub const DEFAULT_PORT: u16 = 5260;

/// A place to take RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket at this path.
    Unix(PathBuf),
    /// TCP. Whoever reaches it may do everything.
    Tcp(SocketAddr),
}

impl From<&str> for Address {
    /// What looks like an IP address, with or without a port, is TCP; all else is a path.
    fn from(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let ip = bare.unwrap_or(text).parse::<IpAddr>();
        let tcp = text
            .parse()
            .or(ip.map(|ip| SocketAddr::new(ip, DEFAULT_PORT)));
        tcp.map_or_else(|_| Self::Unix(text.into()), Self::Tcp)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// Connects as a client, with this patience for each read and write.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn connect(&self, patience: Duration) -> io::Result<Stream> {
        let patience = Some(patience);
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)?;
                Ok(Stream::Unix(stream))
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(Socket),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens. Says in the log who can reach a TCP address.
    pub(super) fn bind(address: &Address) -> Result<Self, SocketError> {
        let address = match address {
            Address::Unix(path) => return Socket::bind(path).map(Self::Unix),
            Address::Tcp(address) => *address,
        };
        let failed = |source| SocketError::Tcp { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let who = match address.ip().is_loopback() {
            true => "every user of this machine",
            false => "whoever reaches it over the network",
        };
        tracing::warn!(
            "RPC at {address} has no authentication: {who} may do everything, delete volumes too"
        );
        Ok(Self::Tcp(listener))
    }

    /// Where it listens: with the port that was chosen, where none was given.
    pub(super) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Unix(socket) => Address::Unix(socket.path().to_owned()),
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
        })
    }

    /// Takes a connection if one waits; `WouldBlock` when none does.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(socket) => socket.accept().map(Stream::Unix),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Stream {
    /// Over a UNIX socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(from),
            Self::Tcp(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_addresses_are_tcp_and_all_else_is_a_path() {
        for (text, told) in [
            ("127.0.0.1", "127.0.0.1:5260"),
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("::1", "[::1]:5260"),
            ("[::1]", "[::1]:5260"),
            ("[fe80::1]:7000", "[fe80::1]:7000"),
        ] {
            let Address::Tcp(address) = Address::from(text) else {
                panic!("{text} is TCP");
            };
            assert_eq!(address.to_string(), told);
        }
        for path in [
            "/var/tmp/spdk.sock",
            "rpc.sock",
            "127.0.0.1.sock",
            "localhost:5260",
        ] {
            assert_eq!(Address::from(path), Address::Unix(path.into()));
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_the_mend() {
        let first = Listener::bind(&Address::from("127.0.0.1:0")).unwrap();
        let address = first.address().unwrap();
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("-r"), "{error}");
    }
}
