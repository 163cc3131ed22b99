//! An I/O queue: its commands from admission to outcome. No bytes, no sockets: the session moves
//! the payload, this decides what is done with it.

mod fence;
mod fused;

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use self::fused::Fusing;
use super::ana::Access;
use super::command::{self, Action, Carriage, Limits, Work};
use super::counts::Counts;
use super::device::Devices;
use super::latency::Kind;
use super::message::FenceChange;
use super::reservation::{Bars, Fence, HostId};
use super::status;
use super::tcp::SlotId;
use super::view::{DeviceId, NamespaceBlocks, SubsystemView};
use crate::bdev::{self, Data, Op, Request};
use crate::memory::{Cuts, SegmentsMut};
use crate::nvme::dsm::ranges_of;
use crate::nvme::{Command, Fuse, Status};

/// Requests of one command that are with the device at once, where the command covers more blocks
/// than a device takes and has no payload to bound it.
const STREAM_WINDOW: u16 = 4;

/// What is to happen with a command that has just arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is refused with this status. The queue has forgotten it.
    Refused(Status),
    /// It needs no payload: [`IoQueue::launch`] it.
    Launch,
    /// It needs memory; then [`IoQueue::launch`] it, if nothing comes from the host.
    Memory(MemoryNeed),
    /// It is half of a fused pair. Its one block is to be kept in ordinary memory until the other
    /// half is complete ([`IoQueue::half`]), so that nobody holds payload memory while waiting for
    /// another command.
    Half {
        /// How the block comes.
        carriage: Carriage,
        /// Bytes of it.
        len: u32,
    },
}

/// The memory that an admitted command needs, all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Bytes.
    pub bytes: usize,
    /// Where it must be cut.
    pub cuts: Cuts,
    /// Bytes that come from the host into the first part of the memory.
    pub from_host: u32,
    /// How they come. What is in the capsule must be taken before anything else can be read.
    pub carriage: Carriage,
}

impl MemoryNeed {
    /// Whether it must come from the memory that never waits for a host.
    pub fn at_once(&self) -> bool {
        self.carriage == Carriage::InCapsule && self.from_host > 0
    }
}

/// A command that is done.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub slot: SlotId,
    /// How it went.
    pub status: Status,
    /// What the host gets; nothing unless it went well.
    pub payload: SegmentsMut,
    /// Its opcode, its namespace and its first block.
    pub about: (u8, u32, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for memory or for data from the host.
    Held,
    /// Half of a fused pair, with its data, waiting for the other.
    Parked,
    /// With the device.
    Running,
}

#[derive(Debug)]
struct Job {
    state: State,
    work: Work,
    /// The blocks of its namespace.
    on: NamespaceBlocks,
    /// What it ends with as soon as it can, whatever becomes of its data.
    doom: Option<Status>,
    /// The other half.
    mate: Option<SlotId>,
    /// Data that came from the host.
    data: SegmentsMut,
    /// The block of half of a fused pair.
    half: Vec<u8>,
    /// When the first of its requests went to the device.
    since: Option<Instant>,
    /// Requests with the device.
    in_flight: u16,
    /// Next request's number.
    next_part: u16,
    /// The first failure.
    failure: Option<bdev::Status>,
    /// Pieces of a read that the device could not do in one.
    pieces: Vec<SegmentsMut>,
    /// Ranges still to be worked on: first block and number of blocks.
    ranges: SmallVec<[(u64, u64); 1]>,
    /// Its host was preempted, and somebody waits for it to end.
    preempted: bool,
    /// What it ends with where something of it is not done, because its host was shut out meanwhile.
    shut_out: Option<Status>,
    /// Ranges were given up for that.
    cut_short: bool,
}

/// One I/O queue of a host.
#[derive(Debug)]
pub struct IoQueue {
    view: Arc<SubsystemView>,
    jobs: Vec<Option<Job>>,
    fusing: Fusing,
    /// Put into every token, so that the poll group finds the queue again.
    origin: u32,
    /// Requests with devices.
    in_flight: usize,
    /// The connection is lost: nothing new is started.
    lost: bool,
    max_transfer: u32,
    /// What was moved since the controller was last told.
    counts: Counts,
    host: HostId,
    /// What reservations keep this host from, by namespace. Empty, as a rule.
    bars: SmallVec<[(u32, Bars); 2]>,
}

/// Which queue, command and part a device's completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The queue, as [`IoQueue::new`] was told.
    pub origin: u32,
    /// The command.
    pub slot: SlotId,
    /// The part.
    pub part: u16,
}

impl Token {
    /// Reads a request's token.
    pub fn from_bits(bits: u64) -> Self {
        Self {
            origin: (bits >> 32) as u32,
            slot: SlotId((bits >> 16) as u16),
            part: bits as u16,
        }
    }

    /// The request's token.
    pub fn bits(self) -> u64 {
        u64::from(self.origin) << 32 | u64::from(self.slot.0) << 16 | u64::from(self.part)
    }
}

impl IoQueue {
    /// A queue of `slots` commands at most, whose device requests carry `origin`.
    pub fn new(
        view: Arc<SubsystemView>,
        slots: usize,
        origin: u32,
        max_transfer: u32,
        host: HostId,
        fences: &[(u32, Arc<Fence>)],
    ) -> Self {
        let barred = |(nsid, fence): &(u32, Arc<Fence>)| Some((*nsid, fence.bars(&host)?));
        Self {
            bars: fences.iter().filter_map(barred).collect(),
            counts: Counts::default(),
            host,
            view,
            jobs: (0..slots).map(|_| None).collect(),
            fusing: Fusing::No,
            origin,
            in_flight: 0,
            lost: false,
            max_transfer,
        }
    }

    /// The subsystem.
    pub fn view(&self) -> &Arc<SubsystemView> {
        &self.view
    }

    /// What was moved since this was last asked, if anything was.
    pub fn take_counts(&mut self) -> Option<Counts> {
        self.counts.take()
    }

    /// Requests with devices.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A command has arrived; `in_capsule` bytes of data are in its capsule. What this means for
    /// commands before it is put in `out`.
    pub fn admit(
        &mut self,
        slot: SlotId,
        command: &Command,
        in_capsule: u32,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) -> Admission {
        assert!(self.jobs[slot.index()].is_none(), "a slot has one command");
        let limits = Limits {
            max_transfer: self.max_transfer,
            in_capsule,
        };
        let examined = command::examine(command, &self.view, limits);
        let examined = examined.and_then(|examined| {
            let gone = Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry();
            if !devices.serves(examined.2.device) {
                return Err(gone);
            }
            if !self.bars.is_empty() && self.is_barred(examined.2.nsid, &examined.0) {
                return Err(Status::RESERVATION_CONFLICT.with_do_not_retry());
            }
            Ok(examined)
        });
        let fuse = command.fuse().unwrap_or(Fuse::Normal);
        let mate = match self.meet(fuse, &examined, devices, out) {
            Ok(mate) => mate,
            Err(status) => return Admission::Refused(status),
        };
        let (work, carriage, on) = match examined {
            Ok(examined) => examined,
            Err(status) => {
                if fuse == Fuse::First {
                    self.fusing = Fusing::Refused;
                }
                return Admission::Refused(status);
            }
        };
        if fuse == Fuse::First {
            if work.range.blocks > 1 {
                self.fusing = Fusing::Refused;
                let status = Status::ATOMIC_WRITE_UNIT_EXCEEDED.with_do_not_retry();
                return Admission::Refused(status);
            }
            self.fusing = Fusing::Waiting(slot);
        }
        if let Some(first) = mate {
            self.must(first).mate = Some(slot);
        }
        devices.expect(on.device);
        let cuts = command::cuts(&work, &on);
        self.jobs[slot.index()] = Some(Job {
            state: State::Held,
            work,
            on,
            doom: None,
            mate,
            data: SegmentsMut::new(),
            half: Vec::new(),
            since: None,
            in_flight: 0,
            next_part: 0,
            failure: None,
            pieces: Vec::new(),
            ranges: SmallVec::new(),
            preempted: false,
            shut_out: None,
            cut_short: false,
        });
        let own = (work.from_host + work.to_host) as usize;
        if own == 0 {
            return Admission::Launch;
        }
        if fuse != Fuse::Normal {
            return Admission::Half {
                carriage,
                len: work.from_host,
            };
        }
        Admission::Memory(MemoryNeed {
            bytes: own,
            cuts,
            from_host: work.from_host,
            carriage,
        })
    }

    /// What a command that waits for memory or data must end with, if it must end.
    pub fn doomed(&mut self, slot: SlotId) -> Option<Status> {
        self.must(slot).doom
    }

    /// Starts a command that has its memory and its data. `data` is what came from the host, or
    /// the memory for what it gets; or the memory that [`IoQueue::half`] asked for.
    pub fn launch(
        &mut self,
        slot: SlotId,
        data: SegmentsMut,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        let job = self.must(slot);
        match (job.doom, job.mate) {
            (Some(status), _) => self.end(slot, status, SegmentsMut::new(), devices, out),
            (None, None) => {
                job.data = data;
                self.start(slot, devices, out);
            }
            (None, Some(second)) => self.start_pair(slot, second, data, devices),
        }
    }

    /// A data digest of this command's data was wrong, or the data cannot be had for another
    /// reason: it ends with `status`, and so does its other half.
    pub fn fail(
        &mut self,
        slot: SlotId,
        status: Status,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        let job = self.must(slot);
        let status = job.doom.unwrap_or(status);
        self.end(slot, status, SegmentsMut::new(), devices, out);
    }

    /// The subsystem has changed. Commands for namespaces that are gone, or are not to be reached
    /// this way any more, end as soon as they can, unless they are with the device already.
    pub fn set_view(
        &mut self,
        view: Arc<SubsystemView>,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        self.view = view;
        for index in 0..self.jobs.len() {
            let Some(job) = &self.jobs[index] else {
                continue;
            };
            let now = self.view.namespace(job.on.nsid);
            let status = match now.filter(|n| n.device == job.on.device) {
                None => Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry(),
                Some(now) if now.access == Access::Inaccessible => Status::ANA_INACCESSIBLE,
                Some(_) => continue,
            };
            if job.state != State::Running {
                self.doom(SlotId(index as u16), status, devices, out);
            }
        }
    }

    /// The connection is lost: commands that have not started never will, those with devices run
    /// to their end.
    pub fn lose(&mut self, devices: &mut Devices) {
        self.lost = true;
        self.fusing = Fusing::No;
        devices.withdraw(self.origin);
        for place in &mut self.jobs {
            if let Some(job) = place
                && job.state != State::Running
            {
                if job.doom.is_none() {
                    devices.forget(job.on.device);
                }
                *place = None;
            }
        }
    }

    /// A device has done a request of this queue.
    pub fn completed(
        &mut self,
        token: Token,
        completion: bdev::Completion,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        self.in_flight -= 1;
        let slot = token.slot;
        let job = self.must(slot);
        job.in_flight -= 1;
        if completion.status != bdev::Status::Ok {
            job.failure.get_or_insert(completion.status);
        }
        if let Data::Read(segments) = completion.data {
            if job.next_part == 1 {
                job.data = segments;
            } else {
                job.pieces[usize::from(token.part)] = segments;
            }
        }
        if job.failure.is_none() && !self.lost {
            self.stream(slot, devices);
        }
        let job = self.must(slot);
        if job.in_flight > 0 {
            return;
        }
        let kind = match job.work.action {
            Action::Read => Some(Kind::Read),
            Action::Write { .. } => Some(Kind::Write),
            Action::Zero { .. } | Action::Deallocate => Some(Kind::Unmap),
            _ => None,
        };
        if let Some(kind) = kind {
            devices.measure(job.on.device, kind, job.since);
        }
        let failure = job.failure;
        let status = match failure {
            // It was not with the device yet, and was withdrawn.
            Some(failure @ bdev::Status::Gone) => {
                let shut_out = job.shut_out;
                shut_out.unwrap_or_else(|| status::of_device(failure))
            }
            Some(failure) => status::of_device(failure),
            None => {
                let shut_out = job.shut_out.filter(|_| job.cut_short);
                shut_out.unwrap_or(Status::SUCCESS)
            }
        };
        let mate = job.mate.take();
        let mut payload = SegmentsMut::new();
        if failure.is_none() && job.work.action == Action::Read {
            payload = std::mem::take(&mut job.data);
            for piece in &mut job.pieces {
                payload.append(piece);
            }
        }
        self.end(slot, status, payload, devices, out);
        if let Some(mate) = mate {
            self.must(mate).mate = None;
            let status = match failure {
                None => Status::SUCCESS,
                Some(_) => Status::ABORTED_FAILED_FUSED,
            };
            self.end(mate, status, SegmentsMut::new(), devices, out);
        }
    }

    fn start(&mut self, slot: SlotId, devices: &mut Devices, out: &mut Vec<Outcome>) {
        let job = self.must(slot);
        let (device, range) = (job.on.device, job.work.range);
        let op = match job.work.action {
            Action::Nothing => {
                self.end(slot, Status::SUCCESS, SegmentsMut::new(), devices, out);
                return;
            }
            Action::Read => Op::Read,
            Action::Write { fua } => Op::Write { fua },
            Action::Compare => Op::Compare,
            Action::Zero { .. } => {
                job.ranges.push((range.slba, u64::from(range.blocks)));
                self.run_stream(slot, devices, out);
                return;
            }
            Action::Deallocate => {
                if let Err(status) = self.read_ranges(slot) {
                    self.end(slot, status, SegmentsMut::new(), devices, out);
                } else {
                    self.run_stream(slot, devices, out);
                }
                return;
            }
            Action::Flush => {
                self.run(slot, devices);
                self.submit(slot, device, Op::Flush, 0, 0, Data::None, devices);
                return;
            }
        };
        let most = job.on.max_blocks.max(1);
        let block = job.on.block_size as usize;
        let mut data = std::mem::take(&mut job.data);
        if range.blocks > most && op == Op::Read {
            let parts = range.blocks.div_ceil(most) as usize;
            job.pieces.resize_with(parts, SegmentsMut::new);
        }
        self.run(slot, devices);
        let mut lba = range.slba;
        let mut left = range.blocks;
        while left > 0 {
            let blocks = left.min(most);
            let rest = if left > most {
                split_off(&mut data, blocks as usize * block)
            } else {
                SegmentsMut::new()
            };
            let part = std::mem::replace(&mut data, rest);
            let part = match op {
                Op::Read => Data::Read(part),
                _ => Data::Write(part.into_iter().map(|buffer| buffer.freeze()).collect()),
            };
            self.submit(slot, device, op, lba, blocks, part, devices);
            lba += u64::from(blocks);
            left -= blocks;
        }
    }

    /// Reads the ranges of a Dataset Management command and drops its payload.
    fn read_ranges(&mut self, slot: SlotId) -> Result<(), Status> {
        let job = self.must(slot);
        let data = std::mem::take(&mut job.data);
        // At most 4096 bytes, and the device does not cut it: one buffer, unless memory is scarce.
        let bytes: SmallVec<[u8; 0]> = data.iter().flat_map(|b| b.iter().copied()).collect();
        let ranges = ranges_of(&bytes);
        let ranges = &ranges[..ranges.len().min(usize::from(job.work.ranges))];
        command::check_ranges(ranges, job.on.blocks)?;
        let whole = ranges
            .iter()
            .map(|r| (r.slba.get(), u64::from(r.blocks.get())));
        job.ranges = whole.filter(|&(_, blocks)| blocks > 0).collect();
        Ok(())
    }

    fn run_stream(&mut self, slot: SlotId, devices: &mut Devices, out: &mut Vec<Outcome>) {
        self.run(slot, devices);
        self.stream(slot, devices);
        if self.must(slot).in_flight == 0 {
            self.end(slot, Status::SUCCESS, SegmentsMut::new(), devices, out);
        }
    }

    /// Keeps a command that works through ranges supplied with requests.
    fn stream(&mut self, slot: SlotId, devices: &mut Devices) {
        loop {
            let job = self.must(slot);
            if job.in_flight >= STREAM_WINDOW {
                return;
            }
            let Some((lba, left)) = job.ranges.last_mut() else {
                return;
            };
            let most = u64::from(job.on.max_blocks.max(1));
            let (from, blocks) = (*lba, (*left).min(most));
            *lba += blocks;
            *left -= blocks;
            if *left == 0 {
                job.ranges.pop();
            }
            let op = match job.work.action {
                Action::Zero { fua, deallocate } => Op::WriteZeroes { fua, deallocate },
                _ => Op::WriteZeroes {
                    fua: false,
                    deallocate: true,
                },
            };
            let device = job.on.device;
            self.submit(slot, device, op, from, blocks as u32, Data::None, devices);
        }
    }

    /// The command is the device's from now on.
    fn run(&mut self, slot: SlotId, devices: &mut Devices) {
        let job = self.must(slot);
        job.state = State::Running;
        devices.forget(job.on.device);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    fn submit(
        &mut self,
        slot: SlotId,
        device: DeviceId,
        op: Op,
        lba: u64,
        blocks: u32,
        data: Data,
        devices: &mut Devices,
    ) {
        let origin = self.origin;
        let job = self.must(slot);
        job.since = job.since.or(devices.now());
        let part = job.next_part;
        job.next_part = part.wrapping_add(1).max(1);
        job.in_flight += 1;
        self.in_flight += 1;
        let token = Token { origin, slot, part }.bits();
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        devices.submit(device, request);
    }

    /// Makes a command that is not with the device end with `status` as soon as its data is in.
    fn doom(
        &mut self,
        slot: SlotId,
        status: Status,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        let job = self.must(slot);
        match job.state {
            State::Held if job.doom.is_none() => {
                job.doom = Some(status);
                devices.forget(job.on.device);
                self.part_from_mate(slot, devices, out);
            }
            State::Parked => self.end(slot, status, SegmentsMut::new(), devices, out),
            State::Held | State::Running => {}
        }
    }

    /// The command is done; its job is forgotten.
    fn end(
        &mut self,
        slot: SlotId,
        status: Status,
        payload: SegmentsMut,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        self.part_from_mate(slot, devices, out);
        let place = &mut self.jobs[slot.index()];
        let job = place.as_ref().expect("a command is there");
        if job.state != State::Running && job.doom.is_none() {
            devices.forget(job.on.device);
        }
        let work = &job.work;
        if status.is_success() {
            self.counts.note(work, job.on.block_size);
        }
        out.push(Outcome {
            slot,
            status,
            payload,
            about: (work.opcode, job.on.nsid, work.range.slba),
        });
        *place = None;
    }

    fn must(&mut self, slot: SlotId) -> &mut Job {
        self.jobs[slot.index()]
            .as_mut()
            .expect("a command is there")
    }
}

/// Keeps the first `at` bytes in `segments` and returns the rest.
fn split_off(segments: &mut SegmentsMut, mut at: usize) -> SegmentsMut {
    let mut rest = SegmentsMut::new();
    let mut index = 0;
    while index < segments.len() && at >= segments[index].len() {
        at -= segments[index].len();
        index += 1;
    }
    if index < segments.len() && at > 0 {
        rest.push(segments[index].split_off(at));
        index += 1;
    }
    rest.extend(segments.drain(index..));
    rest
}
