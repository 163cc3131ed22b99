//! The channel of a device that has every answer at once, without waiting for anything.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use super::{Channel, Completion, Data, Info, IoStat, Op, Request, Status};

/// Requests that wait for one poll at most.
const DEPTH: usize = 4096;

/// Requests whose memory is fetched ahead of the one that is executed.
const AHEAD: usize = 2;

/// What such a device does with a request whose blocks exist and whose buffers add up.
pub(super) trait Immediate: Debug {
    fn info(&self) -> &Info;

    /// How many blocks there are now.
    fn blocks(&self) -> u64 {
        self.info().blocks
    }

    /// `next` is the first block of the request that follows, if that looks at blocks that exist.
    fn execute(&self, op: Op, lba: u64, blocks: u32, data: &mut Data, next: Option<u64>) -> Status;

    /// These blocks, which exist, will be asked for soon.
    fn expect(&self, _lba: u64, _blocks: u32) {}
}

/// Whether an operation needs to see what is in its range.
fn looks(op: Op) -> bool {
    matches!(op, Op::Read | Op::XdWriteRead { .. } | Op::XpWrite { .. })
}

/// Takes requests at submit, executes them at kick, tells at the next poll. All of a turn are known by
/// then, so memory for one can be on its way while another is executed.
#[derive(Debug)]
pub(super) struct ImmediateChannel<D> {
    device: Arc<D>,
    taken: Vec<Request>,
    done: Vec<Completion>,
    stat: IoStat,
}

impl<D: Immediate> ImmediateChannel<D> {
    pub(super) fn new(device: Arc<D>) -> Self {
        Self {
            device,
            taken: Vec::with_capacity(DEPTH),
            done: Vec::with_capacity(DEPTH),
            stat: IoStat::default(),
        }
    }
}

impl<D: Immediate> Channel for ImmediateChannel<D> {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        request.assert_sound(self.device.info().block_size);
        if self.in_flight() == DEPTH {
            return Err(request);
        }
        if self.taken.len() < AHEAD && request.is_below(self.device.blocks()) {
            self.device.expect(request.lba, request.blocks);
        }
        self.taken.push(request);
        Ok(())
    }

    fn expect(&mut self, lba: u64, blocks: u32) {
        let end = lba.checked_add(u64::from(blocks));
        if end.is_some_and(|end| end <= self.device.blocks()) {
            self.device.expect(lba, blocks);
        }
    }

    fn kick(&mut self) {
        let block_size = u64::from(self.device.info().block_size);
        let exist = self.device.blocks();
        for at in 0..self.taken.len() {
            if let Some(later) = self.taken.get(at + AHEAD)
                && later.is_below(exist)
            {
                self.device.expect(later.lba, later.blocks);
            }
            let next = self.taken.get(at + 1);
            let next = next.filter(|n| n.is_below(exist) && looks(n.op));
            let next = next.map(|n| n.lba);
            let request = &mut self.taken[at];
            let (op, lba, blocks) = (request.op, request.lba, request.blocks);
            let mut data = std::mem::take(&mut request.data);
            let status = match request.is_below(exist) {
                true => self.device.execute(op, lba, blocks, &mut data, next),
                false => Status::OutOfRange,
            };
            self.stat.count(op, u64::from(blocks) * block_size, status);
            self.done.push(Completion {
                token: request.token,
                status,
                data,
            });
        }
        self.taken.clear();
    }

    fn poll(&mut self, _now: Instant, done: &mut Vec<Completion>) -> bool {
        let worked = !self.done.is_empty();
        done.append(&mut self.done);
        worked
    }

    fn in_flight(&self) -> usize {
        self.taken.len() + self.done.len()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.device.info().name, &self.stat);
    }
}
