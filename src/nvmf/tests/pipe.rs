//! A byte stream in memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::nvmf::wire::Wire;

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: VecDeque<u8>,
    closed: bool,
    /// Bytes that fit; 0 for any number.
    room: usize,
    /// Bytes that one read gives at most; 0 for any number.
    grain: usize,
    /// How often something was sent.
    sends: usize,
}

type Shared = Arc<Mutex<Lane>>;

/// One end of a stream; the other is the peer's.
#[derive(Debug)]
pub struct Pipe {
    incoming: Shared,
    outgoing: Shared,
}

fn lock(lane: &Shared) -> MutexGuard<'_, Lane> {
    lane.lock().expect("nobody panics while holding it")
}

impl Pipe {
    /// Both ends of a new stream.
    pub fn pair() -> (Self, Self) {
        let (a, b) = (Shared::default(), Shared::default());
        let here = Self {
            incoming: a.clone(),
            outgoing: b.clone(),
        };
        let there = Self {
            incoming: b,
            outgoing: a,
        };
        (here, there)
    }

    /// The peer reads at most so many bytes at a time.
    pub fn set_grain(&self, grain: usize) {
        lock(&self.outgoing).grain = grain;
    }

    /// At most so many bytes wait to be read here; the peer is held up beyond that.
    pub fn set_room(&self, room: usize) {
        lock(&self.incoming).room = room;
    }

    /// Sends bytes, however many.
    pub fn put(&mut self, bytes: &[u8]) {
        lock(&self.outgoing).bytes.extend(bytes);
    }

    /// How often the peer has sent something.
    pub fn sends(&self) -> usize {
        lock(&self.incoming).sends
    }

    /// Takes what has come.
    pub fn take(&mut self) -> Vec<u8> {
        lock(&self.incoming).bytes.drain(..).collect()
    }

    /// Whether the peer has closed its direction.
    pub fn is_closed(&self) -> bool {
        lock(&self.incoming).closed
    }

    /// Bytes that the peer has not read.
    pub fn unread(&self) -> usize {
        lock(&self.outgoing).bytes.len()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        lock(&self.outgoing).closed = true;
        lock(&self.incoming).closed = true;
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut lane = lock(&self.incoming);
        if lane.bytes.is_empty() {
            return if lane.closed {
                Ok(0)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
        }
        let limit = if lane.grain > 0 {
            lane.grain
        } else {
            usize::MAX
        };
        let taken = into.len().min(lane.bytes.len()).min(limit);
        for (slot, byte) in into.iter_mut().zip(lane.bytes.drain(..taken)) {
            *slot = byte;
        }
        Ok(taken)
    }

    fn read_vectored(&mut self, into: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for slice in into {
            match self.read(slice) {
                Ok(0) => break,
                Ok(taken) => total += taken,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
            if lock(&self.incoming).grain > 0 {
                break;
            }
        }
        Ok(total)
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let mut lane = lock(&self.outgoing);
        if lane.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = match lane.room {
            0 => usize::MAX,
            room => room.saturating_sub(lane.bytes.len()),
        };
        let taken = from.len().min(room);
        if taken == 0 && !from.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        lane.bytes.extend(&from[..taken]);
        Ok(taken)
    }

    fn write_vectored(&mut self, from: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for slice in from {
            match self.write(slice) {
                Ok(taken) => {
                    total += taken;
                    if taken < slice.len() {
                        break;
                    }
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        lock(&self.outgoing).sends += 1;
        Ok(total)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Pipe {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn finish(&mut self) {
        lock(&self.outgoing).closed = true;
    }
}
