//! A device in memory that does what a test wants, when it wants it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use uuid::Uuid;

use crate::bdev::{Bdev, Channel, Completion, Data, Info, IoStat, Op, OpenError, Request, Status};

/// What went by: operation, first block, blocks, and the lengths of the buffers.
pub type Seen = (Op, u64, u32, Vec<usize>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Nothing completes.
    held: bool,
    /// Requests that one channel holds at most; 0 for any number.
    depth: usize,
    /// Ends of the next requests, in order; then all is well.
    faults: VecDeque<Status>,
    seen: Vec<Seen>,
    /// The most requests that one channel held at once.
    deepest: usize,
    /// Opening fails from now on.
    broken: bool,
}

/// The device, and the test's hand on it.
#[derive(Clone, Debug)]
pub struct Puppet {
    info: Info,
    state: Arc<Mutex<State>>,
}

impl Puppet {
    /// A device of `blocks` blocks of 512 bytes; `shape` changes what it says of itself.
    pub fn new(name: &str, blocks: u64, shape: impl FnOnce(&mut Info)) -> Self {
        let mut info = Info {
            name: name.to_owned(),
            product: "Test device",
            uuid: Uuid::from_u128(9),
            block_size: 512,
            blocks,
            io_boundary: 0,
            write_unit: 0,
            max_blocks: 2048,
            write_cache: true,
            deallocates: true,
            in_memory: false,
        };
        shape(&mut info);
        let bytes = vec![0; info.bytes() as usize];
        let state = State {
            bytes,
            ..State::default()
        };
        Self {
            info,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    pub fn hold(&self, held: bool) {
        self.state().held = held;
    }

    pub fn set_depth(&self, depth: usize) {
        self.state().depth = depth;
    }

    pub fn fail_next(&self, status: Status) {
        self.state().faults.push_back(status);
    }

    pub fn break_opening(&self) {
        self.state().broken = true;
    }

    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    pub fn deepest(&self) -> usize {
        self.state().deepest
    }
}

impl Bdev for Puppet {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        if self.state().broken {
            return Err(OpenError {
                name: self.info.name.clone(),
                reason: "it is broken".into(),
            });
        }
        Ok(Box::new(PuppetChannel {
            puppet: self.clone(),
            waiting: VecDeque::new(),
        }))
    }
}

#[derive(Debug)]
struct PuppetChannel {
    puppet: Puppet,
    waiting: VecDeque<Request>,
}

fn lengths(data: &Data) -> Vec<usize> {
    match data {
        Data::None => Vec::new(),
        Data::Read(segments) => segments.iter().map(|s| s.len()).collect(),
        Data::Write(segments) => segments.iter().map(|s| s.len()).collect(),
    }
}

fn joined(data: &Data) -> Vec<u8> {
    match data {
        Data::Write(segments) => segments.iter().flat_map(|s| s.to_vec()).collect(),
        _ => Vec::new(),
    }
}

impl State {
    fn execute(&mut self, request: &mut Request, block: usize) -> Status {
        let start = request.lba as usize * block;
        let range = start..start + request.blocks as usize * block;
        let data = joined(&request.data);
        match request.op {
            Op::Read => {
                let Data::Read(segments) = &mut request.data else {
                    panic!("a read has memory to fill");
                };
                let mut at = start;
                for segment in segments {
                    let end = at + segment.len();
                    segment.copy_from_slice(&self.bytes[at..end]);
                    at = end;
                }
            }
            Op::Write { .. } => self.bytes[range].copy_from_slice(&data),
            Op::WriteZeroes { .. } => self.bytes[range].fill(0),
            Op::Compare if self.bytes[range.clone()] != data => return Status::Miscompare,
            Op::CompareAndWrite { .. } => {
                let (compared, written) = data.split_at(data.len() / 2);
                if self.bytes[range.clone()] != *compared {
                    return Status::Miscompare;
                }
                self.bytes[range].copy_from_slice(written);
            }
            Op::Compare | Op::Flush => {}
            Op::XdWriteRead { .. } | Op::XpWrite { .. } => return Status::Unsupported,
        }
        Status::Ok
    }
}

impl Channel for PuppetChannel {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let info = &self.puppet.info;
        let mut state = self.puppet.state();
        if state.depth > 0 && self.waiting.len() >= state.depth {
            return Err(request);
        }
        assert!(
            request.blocks <= info.max_blocks,
            "larger than the device takes"
        );
        let wanted = request.op.payload(request.blocks, info.block_size);
        assert_eq!(request.data.len(), wanted, "payload of {:?}", request.op);
        assert!(info.contains(request.lba, request.blocks), "checked before");
        let lengths = lengths(&request.data);
        let seen = (request.op, request.lba, request.blocks, lengths);
        state.seen.push(seen);
        self.waiting.push_back(request);
        state.deepest = state.deepest.max(self.waiting.len());
        Ok(())
    }

    fn kick(&mut self) {}

    fn poll(&mut self, _now: Instant, done: &mut Vec<Completion>) -> bool {
        let mut state = self.puppet.state();
        if state.held {
            return false;
        }
        let busy = !self.waiting.is_empty();
        for mut request in self.waiting.drain(..) {
            let status = match state.faults.pop_front() {
                None | Some(Status::Ok) => {
                    state.execute(&mut request, self.puppet.info.block_size as usize)
                }
                Some(fault) => fault,
            };
            done.push(Completion {
                token: request.token,
                status,
                data: request.data,
            });
        }
        busy
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    fn iostat(&self, _report: &mut dyn FnMut(&str, &IoStat)) {}
}
