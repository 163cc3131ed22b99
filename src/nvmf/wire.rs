//! The byte stream under a connection.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// A non-blocking, reliable stream of bytes in both directions.
pub trait Wire: Read + Write + Debug + Send {
    /// What to watch for readiness; `None` for a stream that is to be tried in every turn.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Ends the outgoing direction behind the bytes already written.
    fn finish(&mut self);
}

impl Wire for TcpStream {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn finish(&mut self) {
        // It fails only if the peer has closed already, and then there is nothing to end.
        let _ = self.shutdown(Shutdown::Write);
    }
}
