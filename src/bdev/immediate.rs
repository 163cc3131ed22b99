//! The channel of a device that has every answer at once, without waiting for anything.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use super::{Channel, Completion, Data, Info, IoStat, Op, Request, Status};

/// Requests that wait for one poll at most.
const DEPTH: usize = 4096;

/// What such a device does with a request whose blocks exist and whose buffers add up.
pub(super) trait Immediate: Debug {
    fn info(&self) -> &Info;

    /// How many blocks there are now.
    fn blocks(&self) -> u64 {
        self.info().blocks
    }

    fn execute(&self, op: Op, lba: u64, blocks: u32, data: &mut Data) -> Status;
}

/// Executes at submit, tells at the next poll.
#[derive(Debug)]
pub(super) struct ImmediateChannel<D> {
    device: Arc<D>,
    done: Vec<Completion>,
    stat: IoStat,
}

impl<D: Immediate> ImmediateChannel<D> {
    pub(super) fn new(device: Arc<D>) -> Self {
        Self {
            device,
            done: Vec::with_capacity(DEPTH),
            stat: IoStat::default(),
        }
    }
}

impl<D: Immediate> Channel for ImmediateChannel<D> {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let info = self.device.info();
        request.assert_sound(info.block_size);
        if self.done.len() == DEPTH {
            return Err(request);
        }
        let exists = request.is_below(self.device.blocks());
        let Request {
            token,
            op,
            lba,
            blocks,
            mut data,
        } = request;
        let status = if exists {
            self.device.execute(op, lba, blocks, &mut data)
        } else {
            Status::OutOfRange
        };
        let bytes = u64::from(blocks) * u64::from(info.block_size);
        self.stat.count(op, bytes, status);
        self.done.push(Completion {
            token,
            status,
            data,
        });
        Ok(())
    }

    fn kick(&mut self) {}

    fn poll(&mut self, _now: Instant, done: &mut Vec<Completion>) -> bool {
        let worked = !self.done.is_empty();
        done.append(&mut self.done);
        worked
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.device.info().name, &self.stat);
    }
}
