//! The listening UNIX socket: one process a path, reachable by its owner only.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process holds it.
    #[error(
        "RPC socket {0} is in use by another process; stop that one, or choose another path with -r"
    )]
    InUse(PathBuf),
    /// Something that is not a socket has the path.
    #[error(
        "RPC socket {0}: there is a file of that name that is not a socket; move it away, or choose another path with -r"
    )]
    NotASocket(PathBuf),
    /// The kernel takes paths of 107 bytes at most.
    #[error("RPC socket {0}: the path is too long for a socket; choose a shorter one with -r")]
    TooLong(PathBuf),
    /// The TCP address cannot be had.
    #[error(
        "RPC at {address}: cannot listen: {source}; check that the address is one of this machine's and the port is free, or choose another with -r"
    )]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// What the operating system said.
    #[error(
        "RPC socket {path}: cannot {what}: {source}; check that its directory exists and may be written, or choose another path with -r"
    )]
    Io {
        /// The socket or its lock file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A listening socket. Removed, with its lock file, when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Held until the socket's file is gone.
    _lock: Lock,
}

impl Socket {
    /// Listens at `path`, in place of a socket that a process left behind there.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let address = SocketAddrUnix::new(path).map_err(|e| match e {
            Errno::NAMETOOLONG => SocketError::TooLong(path.to_owned()),
            e => failed(path, "use the path")(e.into()),
        })?;
        let lock = Lock::take(path)?;
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .map_err(|e| failed(path, "make a socket")(e.into()))?;
        // Before the bind, so that the file never exists with other rights.
        fchmod(&listener, Mode::RUSR | Mode::WUSR)
            .map_err(|e| failed(path, "set the rights")(e.into()))?;
        rustix::net::bind(&listener, &address).map_err(|e| failed(path, "bind")(e.into()))?;
        rustix::net::listen(&listener, BACKLOG).map_err(|e| failed(path, "listen")(e.into()))?;
        Ok(Self {
            path: path.to_owned(),
            listener: listener.into(),
            _lock: lock,
        })
    }

    /// Takes a connection if one waits.
    ///
    /// # Errors
    /// What the operating system said; `WouldBlock` when none waits.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("RPC socket {}: not removed: {error}", self.path.display());
        }
    }
}

/// An exclusive lock on the file `PATH.lock`.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, SocketError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600);
            let file = options
                .open(&path)
                .map_err(failed(&path, "open the lock file"))?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
                Errno::WOULDBLOCK => SocketError::InUse(socket.to_owned()),
                e => failed(&path, "lock the lock file")(e.into()),
            })?;
            // The last holder removes the file when it goes, maybe between our open and our lock;
            // then it is the lock of nothing.
            let ours = file
                .metadata()
                .map_err(failed(&path, "look at the lock file"))?;
            let there = fs::metadata(&path);
            if there.is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("lock file {}: not removed: {error}", self.path.display());
        }
    }
}

/// Removes the socket of a process that is gone. We hold the lock, so nobody listens there.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(path, "look at it")(e)),
        Ok(m) if !m.file_type().is_socket() => Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed(path, "remove the stale socket")),
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { path, what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_private_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpc.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(socket.accept().is_ok());
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn two_cannot_have_the_same_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpc.sock");
        let first = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        assert!(error.to_string().contains("in use by another process"));
        drop(first);
        assert!(Socket::bind(&path).is_ok());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpc.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn paths_that_cannot_be_are_named_with_the_mend() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing").join("rpc.sock");
        let long = dir.path().join("x".repeat(200));
        for path in [missing, long] {
            let error = Socket::bind(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("-r"), "{error}");
        }
    }
}
