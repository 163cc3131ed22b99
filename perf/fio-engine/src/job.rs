//! What one job of fio has in flight: a fixed table of requests, each with a buffer of its own that fio fills and reads, over
//! the links to the namespaces of the job.
//!
//! A request is as large as fio wants; where the controller takes less with one command, it is several. Buffers are never
//! copied here: they are what the socket is written from. What is read in small PDUs passes through the queue's inbox.

use std::collections::VecDeque;
use std::time::Instant;

use stripewise::initiator::{CommandError, Done, Payload};
use stripewise::memory::{Arena, Buf, BufMut, Pool, PoolError, SLOT_ALIGN};
use stripewise::nvme::dsm::{DatasetManagement, DsmRange};
use stripewise::nvme::io::{BlockRange, IoCommand};
use zerocopy::IntoBytes;

use crate::link::Link;

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read into the request's buffer.
    Read,
    /// Write the request's buffer.
    Write,
    /// Deallocate.
    Trim,
    /// Make what was written durable.
    Flush,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error number that comes closest.
    pub errno: i32,
    /// What happened, and to what.
    pub message: String,
}

/// A request that is over.
#[derive(Debug)]
pub struct Finished {
    /// Its place in the table.
    pub index: usize,
    /// How it went.
    pub outcome: Result<(), Failure>,
}

/// What a request keeps of its buffer.
#[derive(Debug, Default)]
enum Held {
    /// It has none.
    #[default]
    Nothing,
    /// All of it: the request is idle, or needs none.
    Whole(BufMut),
    /// The parts that have been read, in their places, and what is behind the last one.
    Parts(Vec<Option<BufMut>>, BufMut),
    /// A view of all of it, while it is being written.
    Shared(Buf),
}

#[derive(Debug)]
struct Request {
    link: usize,
    operation: Operation,
    offset: u64,
    bytes: u64,
    /// Commands that are not over.
    left: u32,
    failure: Option<Failure>,
    held: Held,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Job {
    links: Vec<Link>,
    requests: Vec<Request>,
    /// Lists of ranges for trims.
    ranges: Pool,
    done: Vec<Done>,
    finished: VecDeque<Finished>,
}

/// A command's token: the request's place in the table, and the place of the part in the request.
fn token(index: usize, part: usize) -> u64 {
    (index as u64) << 32 | part as u64
}

impl Job {
    /// A job of at most `depth` requests at once, without buffers yet.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(links: Vec<Link>, depth: usize) -> Result<Self, PoolError> {
        let arena = Arena::ordinary(SLOT_ALIGN * depth)?;
        let request = || Request {
            link: 0,
            operation: Operation::Flush,
            offset: 0,
            bytes: 0,
            left: 0,
            failure: None,
            held: Held::Nothing,
        };
        Ok(Self {
            links,
            requests: std::iter::repeat_with(request).take(depth).collect(),
            ranges: Pool::new(&arena, SLOT_ALIGN, depth)?,
            done: Vec::new(),
            finished: VecDeque::new(),
        })
    }

    /// Gives each request a buffer of at least `bytes` bytes. Those of neighbours are neighbours.
    ///
    /// # Errors
    /// There is no memory.
    pub fn make_buffers(&mut self, bytes: usize) -> Result<(), PoolError> {
        let slot = bytes.max(1).next_multiple_of(SLOT_ALIGN);
        let arena = Arena::ordinary(slot.saturating_mul(self.requests.len()))?;
        let pool = Pool::new(&arena, slot, self.requests.len())?;
        for request in &mut self.requests {
            request.held = Held::Whole(pool.take().expect("a slot for each request"));
        }
        Ok(())
    }

    /// Takes the buffers back; those in flight go when they are done.
    pub fn drop_buffers(&mut self) {
        for request in &mut self.requests {
            request.held = Held::Nothing;
        }
    }

    /// The buffer of an idle request; `None` where it has none, or is not idle.
    pub fn buffer(&mut self, index: usize) -> Option<&mut BufMut> {
        match &mut self.requests.get_mut(index)?.held {
            Held::Whole(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// Takes a request, which must be idle. `offset` and `bytes` are of no meaning for a flush. What can't be done is over
    /// at once.
    pub fn submit(
        &mut self,
        index: usize,
        link: usize,
        operation: Operation,
        offset: u64,
        bytes: u64,
    ) {
        if let Err(failure) = self.try_submit(index, link, operation, offset, bytes) {
            let outcome = Err(failure);
            self.finished.push_back(Finished { index, outcome });
        }
    }

    fn try_submit(
        &mut self,
        index: usize,
        link: usize,
        operation: Operation,
        offset: u64,
        bytes: u64,
    ) -> Result<(), Failure> {
        let request = &mut self.requests[index];
        debug_assert_eq!(request.left, 0, "fio has a request in flight once");
        (request.link, request.operation) = (link, operation);
        (request.offset, request.bytes) = (offset, bytes);
        request.failure = None;
        let link = &mut self.links[link];
        let namespace = link.namespace();
        let (nsid, block) = (namespace.id, u64::from(namespace.block_size));
        if link.lost().is_some() {
            return Err(request.failed(link, &CommandError::Lost));
        }
        let unfit = |why: String| Failure {
            errno: libc::EINVAL,
            message: why,
        };
        if operation != Operation::Flush
            && !(offset.is_multiple_of(block) && bytes.is_multiple_of(block))
        {
            return Err(unfit(format!(
                "{} is not in whole blocks, which have {block} bytes here; see bs= and blockalign=",
                request.describe()
            )));
        }
        match operation {
            Operation::Flush => {
                request.left = 1;
                link.submit(
                    token(index, 0),
                    IoCommand::Flush.to_command(nsid),
                    Payload::None,
                );
            }
            Operation::Trim => {
                let blocks = u32::try_from(bytes / block)
                    .map_err(|_| unfit(format!("{} is too long", request.describe())))?;
                let mut list = self.ranges.take().expect("a list for each request");
                list.truncate(size_of::<DsmRange>());
                list.copy_from_slice(DsmRange::new(offset / block, blocks).as_bytes());
                let command = IoCommand::DatasetManagement(DatasetManagement::deallocate(1));
                request.left = 1;
                let payload = Payload::Write([list.freeze()].into_iter().collect());
                link.submit(token(index, 0), command.to_command(nsid), payload);
            }
            Operation::Read | Operation::Write => {
                let Held::Whole(mut buffer) = std::mem::take(&mut request.held) else {
                    return Err(unfit(format!(
                        "{}: there is no buffer for it",
                        request.describe()
                    )));
                };
                if bytes == 0 || bytes > buffer.len() as u64 {
                    let most = buffer.len();
                    request.held = Held::Whole(buffer);
                    return Err(unfit(format!(
                        "{} does not fit its buffer of {most} bytes",
                        request.describe()
                    )));
                }
                let (bytes, most) = (bytes as usize, link.most() as usize);
                let starts = (0..bytes).step_by(most);
                let range = |start: usize, len: usize| BlockRange {
                    slba: (offset + start as u64) / block,
                    blocks: (len as u64 / block) as u32,
                };
                request.left = starts.len() as u32;
                if operation == Operation::Write {
                    let whole = buffer.freeze();
                    for (part, start) in starts.enumerate() {
                        let len = most.min(bytes - start);
                        let command = IoCommand::Write {
                            range: range(start, len),
                            fua: false,
                        };
                        let payload =
                            Payload::Write([whole.slice(start..start + len)].into_iter().collect());
                        link.submit(token(index, part), command.to_command(nsid), payload);
                    }
                    request.held = Held::Shared(whole);
                } else {
                    let parts = starts.len();
                    for (part, start) in starts.enumerate() {
                        let len = most.min(bytes - start);
                        let rest = buffer.split_off(len);
                        let command = IoCommand::Read {
                            range: range(start, len),
                            fua: false,
                        };
                        let payload = Payload::Read([buffer].into_iter().collect());
                        link.submit(token(index, part), command.to_command(nsid), payload);
                        buffer = rest;
                    }
                    request.held = Held::Parts(
                        std::iter::repeat_with(|| None).take(parts).collect(),
                        buffer,
                    );
                }
            }
        }
        Ok(())
    }

    /// Sends what was submitted, as far as it goes.
    pub fn send(&mut self, now: Instant) {
        for link in &mut self.links {
            link.send(&mut self.done, now);
        }
        self.complete();
    }

    /// One turn of all links: what has come is received, what waits is sent.
    pub fn turn(&mut self, now: Instant) {
        for link in &mut self.links {
            link.turn(&mut self.done, now);
        }
        self.complete();
    }

    /// The next request that is over, in order.
    pub fn next_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    fn complete(&mut self) {
        for Done {
            token,
            outcome,
            payload,
        } in self.done.drain(..)
        {
            let (index, part) = ((token >> 32) as usize, token as u32 as usize);
            let request = &mut self.requests[index];
            if let Err(error) = outcome
                && request.failure.is_none()
            {
                let failed = request.failed(&self.links[request.link], &error);
                request.failure = Some(failed);
            }
            request.take_back(part, payload);
            request.left -= 1;
            if request.left == 0 {
                request.reassemble();
                let outcome = request.failure.take().map_or(Ok(()), Err);
                self.finished.push_back(Finished { index, outcome });
            }
        }
    }

    /// Says goodbye to all targets.
    pub fn close(self) {
        for link in self.links {
            link.close();
        }
    }
}

impl Request {
    fn describe(&self) -> String {
        let name = match self.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Trim => "trim",
            Operation::Flush => return "flush".to_owned(),
        };
        format!("{name} of {} bytes at {}", self.bytes, self.offset)
    }

    fn failed(&self, link: &Link, error: &CommandError) -> Failure {
        let what = self.describe();
        match (error, link.lost()) {
            (CommandError::Lost, Some(reason)) => Failure {
                errno: if reason.is_timeout() {
                    libc::ETIMEDOUT
                } else {
                    libc::ECONNRESET
                },
                message: format!("{what}: the connection was lost: {reason}"),
            },
            _ => Failure {
                errno: libc::EIO,
                message: format!("{what}: {error}"),
            },
        }
    }

    /// Puts a part of the buffer that was read back into its place. Views for writing just go.
    fn take_back(&mut self, part: usize, payload: Payload) {
        if let (Held::Parts(parts, _), Payload::Read(mut segments)) = (&mut self.held, payload) {
            parts[part] = segments.pop();
        }
    }

    /// Makes the buffer whole again.
    fn reassemble(&mut self) {
        self.held = match std::mem::take(&mut self.held) {
            Held::Parts(parts, rest) => {
                let mut pieces = parts.into_iter().flatten().chain([rest]);
                let mut whole = pieces.next().expect("there is a rest");
                for piece in pieces {
                    whole
                        .join(piece)
                        .expect("the parts were split off this buffer, in order");
                }
                Held::Whole(whole)
            }
            Held::Shared(whole) => {
                let alone = whole.try_into_mut();
                Held::Whole(alone.expect("the payloads were the only other views"))
            }
            held => held,
        };
    }
}
