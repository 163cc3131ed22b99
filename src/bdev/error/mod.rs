//! A device that spoils what goes to another one, as it is told at run time; for tests.

mod injection;
mod table;

#[cfg(test)]
mod tests;

pub use injection::{Fault, InjectError, Injection, IoType};

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use injection::{Hit, Spoil};
use table::Table;

use super::cursor::Gather;
use super::slots::Slots;
use super::{Bdev, Channel, Completion, Data, Info, IoStat, Op, OpenError, Request, Status};
use crate::memory::{Arena, Pool, Segments};

/// Requests of a channel, running below or held.
const DEPTH: u32 = 4096;

/// How often a channel that holds requests looks whether it may let them go.
const HELD_CHECK: Duration = Duration::from_millis(10);

/// Writes of a channel that are being corrupted at a time.
const CORRUPT_WRITES: usize = 16;

/// A device named `EE_<base>` that does what its base does until errors are injected. The
/// injections are shared by all its channels.
#[derive(Debug)]
pub struct ErrorBdev {
    info: Info,
    base: Arc<dyn Bdev>,
    table: Arc<Table>,
}

impl ErrorBdev {
    /// Puts one on top of `base`, with nothing injected.
    pub fn new(base: Arc<dyn Bdev>) -> Arc<Self> {
        let name = format!("EE_{}", base.info().name);
        let info = Info {
            product: "Error Injection Disk",
            uuid: Uuid::new_v5(&base.info().uuid, name.as_bytes()),
            name,
            // An array asks members in memory for less: faults of reads and writes are for what devices are asked.
            in_memory: false,
            ..base.info().clone()
        };
        Arc::new(Self {
            info,
            base,
            table: Arc::default(),
        })
    }

    /// Injects an error, after those that are there: a request is hit by the first that fits.
    /// Requests that run already are not hit.
    ///
    /// # Errors
    /// [`InjectError`]: it makes no sense.
    pub fn inject(&self, injection: Injection) -> Result<(), InjectError> {
        injection.check(&self.info)?;
        self.table.add(injection);
        Ok(())
    }

    /// Ends all injections; what they held back is done.
    pub fn clear(&self) {
        self.table.clear();
    }

    /// The injections that may still hit, each with the number that is left of it.
    pub fn injections(&self) -> Vec<Injection> {
        self.table.injections()
    }
}

impl ErrorBdev {
    /// A channel over one of the base.
    fn over(&self, base: Box<dyn Channel>) -> Result<Box<dyn Channel>, OpenError> {
        let name = &self.info.name;
        let no_memory = |reason: String| OpenError {
            name: name.clone(),
            reason,
        };
        let block = crate::memory::SLOT_ALIGN;
        let arena =
            Arena::ordinary(CORRUPT_WRITES * block).map_err(|e| no_memory(e.to_string()))?;
        let spoiled =
            Pool::new(&arena, block, CORRUPT_WRITES).map_err(|e| no_memory(e.to_string()))?;
        Ok(Box::new(ErrorChannel {
            name: name.clone(),
            block_size: self.info.block_size,
            base,
            table: self.table.clone(),
            running: Slots::new(DEPTH),
            arrived: Vec::new(),
            answered: Vec::new(),
            held: Vec::new(),
            held_check: None,
            queue: VecDeque::new(),
            spoiled,
            stat: IoStat::default(),
        }))
    }
}

impl Bdev for ErrorBdev {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        self.over(self.base.open()?)
    }

    fn open_briefly(&self) -> Result<Box<dyn Channel>, OpenError> {
        self.over(self.base.open_briefly()?)
    }

    fn driver_specific(&self) -> Value {
        json!({"error_disk": {"base_bdev": self.base.info().name}})
    }
}

/// A request that the base has not completed yet.
#[derive(Debug)]
struct Running {
    token: u64,
    op: Op,
    lbas: Range<u64>,
    /// Injections with a lower number were there when it began.
    began: u64,
    spoil: Option<Spoil>,
    /// What the user gave to be written, where the base was given something else.
    original: Option<Data>,
}

#[derive(Debug)]
struct ErrorChannel {
    name: String,
    block_size: u32,
    base: Box<dyn Channel>,
    table: Arc<Table>,
    running: Slots<Running>,
    arrived: Vec<Completion>,
    /// Hit by a failure, not yet told.
    answered: Vec<Completion>,
    /// Hit by `Pending`, each with the table's count of clears then.
    held: Vec<(u64, Request)>,
    held_check: Option<Instant>,
    /// Hit and counted, or held and let go, but not yet taken by the base.
    queue: VecDeque<(Request, Option<Spoil>)>,
    spoiled: Pool,
    stat: IoStat,
}

impl ErrorChannel {
    /// Hands a request to the base, with one byte of it to be spoiled or not.
    fn forward(&mut self, mut request: Request, spoil: Option<Spoil>) -> Result<(), Request> {
        let mut original = None;
        if let (Some(spoil), Data::Write(segments)) = (spoil, &request.data) {
            let Some(bytes) = self.corrupt(segments, spoil) else {
                return Err(request);
            };
            original = Some(std::mem::replace(&mut request.data, Data::Write(bytes)));
        }
        let token = request.token;
        let end = request.lba.saturating_add(u64::from(request.blocks));
        let slot = self.running.insert(Running {
            token,
            op: request.op,
            lbas: request.lba..end,
            began: self.table.next_id(),
            spoil,
            original,
        });
        request.token = u64::from(slot);
        self.base.submit(request).map_err(|mut request| {
            let running = self.running.take(slot);
            request.token = running.token;
            if let Some(original) = running.original {
                request.data = original;
            }
            request
        })
    }

    /// The same bytes but one: views of the user's buffers, and one block of our own between
    /// them. `None` while all of those are in use.
    fn corrupt(&self, segments: &Segments, spoil: Spoil) -> Option<Segments> {
        let block = self.block_size as usize;
        let start = spoil.at / block * block;
        let mut own = self.spoiled.take()?;
        own.truncate(block);
        let mut gather = Gather::new(segments);
        // The last round leaves the block that begins at `start`.
        for _ in 0..=start / block {
            gather.take(&mut own);
        }
        own[spoil.at - start] ^= spoil.value;
        let mut bytes = part(segments, 0..start);
        bytes.push(own.freeze());
        bytes.extend(part(segments, start + block..usize::MAX));
        Some(bytes)
    }

    /// Lets go what was held when the injections were cleared.
    fn release(&mut self, now: Instant) {
        let clears = self.table.clears();
        let free = self.held.extract_if(.., |(held, _)| *held != clears);
        self.queue.extend(free.map(|(_, request)| (request, None)));
        self.held_check = (!self.held.is_empty()).then(|| now + HELD_CHECK);
    }

    /// Hands the queue to the base, as far as it takes it.
    fn advance(&mut self) {
        while let Some((request, spoil)) = self.queue.pop_front() {
            if let Err(request) = self.forward(request, spoil) {
                self.queue.push_front((request, spoil));
                break;
            }
        }
    }
}

/// Views of a range of scattered bytes.
fn part(segments: &Segments, range: Range<usize>) -> Segments {
    let mut at = 0;
    let mut views = Segments::new();
    for segment in segments {
        let start = range.start.clamp(at, at + segment.len()) - at;
        let end = range.end.clamp(at, at + segment.len()) - at;
        if start < end {
            views.push(segment.slice(start..end));
        }
        at += segment.len();
    }
    views
}

impl Channel for ErrorChannel {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        request.assert_sound(self.block_size);
        if self.in_flight() >= DEPTH as usize {
            return Err(request);
        }
        match self.table.hit(&request, self.block_size) {
            None => self.forward(request, None),
            Some(Hit::Spoil(spoil)) => {
                self.queue.push_back((request, Some(spoil)));
                Ok(())
            }
            Some(Hit::Hold(clears)) => {
                self.held.push((clears, request));
                Ok(())
            }
            Some(Hit::Answer(status)) => {
                self.stat.count(request.op, 0, status);
                self.answered.push(Completion {
                    token: request.token,
                    status,
                    data: request.data,
                });
                Ok(())
            }
        }
    }

    fn kick(&mut self) {
        self.advance();
        self.base.kick();
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<Completion>) -> bool {
        let before = done.len();
        done.append(&mut self.answered);
        if !self.held.is_empty() {
            self.release(now);
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        let worked = self.base.poll(now, &mut arrived);
        for mut completion in arrived.drain(..) {
            let running = self.running.take(completion.token as u32);
            completion.token = running.token;
            if let Some(original) = running.original {
                completion.data = original;
            }
            if let (Some(spoil), Data::Read(segments)) = (running.spoil, &mut completion.data) {
                let mut bytes = segments.iter_mut().flat_map(|s| s.iter_mut());
                *bytes.nth(spoil.at).expect("inside the payload") ^= spoil.value;
            }
            let op = running.op;
            if op.modifies() && completion.status == Status::Ok {
                self.table.heal(&running.lbas, running.began);
            }
            let blocks = running.lbas.end - running.lbas.start;
            let bytes = blocks * u64::from(self.block_size);
            self.stat.count(op, bytes, completion.status);
            done.push(completion);
        }
        self.arrived = arrived;
        if !self.queue.is_empty() {
            // No one rings for what was let go, or waited for room.
            self.kick();
        }
        worked || done.len() > before
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.answered.len() + self.held.len() + self.queue.len()
    }

    fn deadline(&self) -> Option<Instant> {
        self.held_check
            .into_iter()
            .chain(self.base.deadline())
            .min()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.name, &self.stat);
        self.base.iostat(report);
    }
}
