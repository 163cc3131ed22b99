//! A controller in memory, for tests: it works as the specification says, waits where it is told
//! to, and lies where it is told to.
//!
//! It sees memory as a device does: through a file that the arena is made of too, at addresses of
//! its own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, memfd_create};
use zerocopy::{FromBytes, IntoBytes};

use super::bar::Bar;
use super::controller::Access;
use crate::memory::{Arena, Windows};
use crate::nvme::dsm::ranges_of;
use crate::nvme::feature::NumberOfQueues;
use crate::nvme::identify::{
    DescriptorList, IdentifyController, IdentifyNamespace, NamespaceDescriptor, NamespaceList,
};
use crate::nvme::io::{BlockRange, IoCommand};
use crate::nvme::property::Capabilities;
use crate::nvme::{Command, Completion, SglDescriptor, Status};

/// Where the device sees the first byte of memory.
const IOVA: u64 = 0x12_3400_0000;

/// Bytes of memory.
const MEMORY: usize = 48 << 20;

/// A controller, and the memory that it shares with its host.
#[derive(Debug)]
pub(crate) struct Scripted {
    file: File,
    pub(super) arena: Arena,
    pub(super) windows: Windows,
    /// It is to be pulled out.
    pub(crate) wanted: AtomicBool,
    state: Mutex<State>,
}

/// What a test may look at and change.
#[derive(Debug)]
pub(super) struct State {
    /// CAP.
    pub(super) capabilities: u64,
    pub(super) version: u32,
    pub(super) configuration: u32,
    pub(super) csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    submission: HashMap<u16, Ring>,
    completion: HashMap<u16, Ring>,
    /// Every write to a doorbell: offset, value.
    pub(super) doorbells: Vec<(u32, u32)>,
    /// Commands of I/O queues are taken and not answered.
    pub(super) hold: bool,
    /// What was taken meanwhile: queue, command.
    pub(super) held: Vec<(u16, Command)>,
    /// Whether Abort finds what is held.
    pub(super) aborts: bool,
    /// CSTS.RDY does not follow CC.EN any more.
    pub(super) stuck: bool,
    /// The device is not on the bus any more.
    pub(super) gone: bool,
    /// Memory may be read and written.
    pub(super) dma: bool,
    /// Commands that touch this block end like this.
    pub(super) bad: Option<(u64, Status)>,
    /// Commands of I/O queues end like this, the next ones first.
    pub(super) failures: Vec<Status>,
    /// What Set Features grants: submission and completion queues.
    pub(super) queues: u32,
    pub(super) controller: IdentifyController,
    pub(super) namespace: IdentifyNamespace,
    pub(super) namespaces: NamespaceList,
    pub(super) descriptors: DescriptorList,
    /// What Set Features (Host Behavior Support) was told, each time.
    pub(super) behaviors: Vec<Vec<u8>>,
    /// It does not know that feature.
    pub(super) refuses_behaviors: bool,
    /// I/O commands whose memory was told by SGLs.
    pub(super) by_sgl: usize,
    /// Opcodes of all I/O commands that were executed, in order.
    pub(super) executed: Vec<u8>,
    /// Interrupt vectors that it has.
    pub(super) vectors: u16,
    /// Those that signal something, and those that would have.
    pub(super) bound: HashMap<u16, OwnedFd>,
    pending: Vec<u16>,
    /// How often a vector was bound.
    pub(super) bindings: usize,
    /// What is held is completed just before a vector is bound.
    pub(super) completes_on_binding: bool,
    disk: Vec<u8>,
    /// Asynchronous event requests that wait.
    pub(super) events: Vec<u16>,
    /// How often the controller was enabled.
    pub(super) enabled: usize,
    /// Queues whose rings held something when it was stopped.
    pub(super) stopped_with: Vec<u16>,
    /// How often it was told of a shutdown.
    pub(super) shutdowns: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ring {
    base: u64,
    entries: u16,
    /// Next entry: to be taken, or to be posted.
    at: u16,
    /// Of a completion queue: the next entry that the host reads, as far as it has said.
    head: u16,
    phase: bool,
    /// The completion queue of a submission queue.
    completion: u16,
    /// The interrupt vector of a completion queue.
    vector: Option<u16>,
}

impl Scripted {
    /// A well-behaved controller of one namespace: `blocks` blocks of `2^shift` bytes.
    pub(crate) fn new(blocks: u64, shift: u8) -> Arc<Self> {
        let fd: OwnedFd = memfd_create("scripted", MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(MEMORY as u64).unwrap();
        let arena = Arena::shared(&file, 0, MEMORY).unwrap();
        let mut windows = Windows::new();
        windows.add(&arena, IOVA);
        let capabilities = Capabilities {
            max_queue_entries: 255,
            contiguous_queues: true,
            timeout: 1,
            doorbell_stride: 0,
            subsystem_reset: false,
            command_sets: Capabilities::CSS_NVM,
            min_page_size: 0,
            max_page_size: 4,
            ready_with_media: false,
            ready_independent_of_media: false,
        };
        let mut controller = IdentifyController::new();
        controller.sn = *b"SCRIPT              ";
        controller.mdts = 5;
        controller.nn = 1.into();
        controller.vwc = IdentifyController::VWC_PRESENT;
        controller.oncs = (IdentifyController::ONCS_WRITE_ZEROES
            | IdentifyController::ONCS_COMPARE
            | IdentifyController::ONCS_DATASET_MANAGEMENT)
            .into();
        let mut namespace = IdentifyNamespace::new(blocks, shift);
        namespace.dlfeat = IdentifyNamespace::DLFEAT_READS_ZERO
            | IdentifyNamespace::DLFEAT_WRITE_ZEROES_DEALLOCATES;
        Arc::new(Self {
            file,
            arena,
            windows,
            wanted: AtomicBool::new(false),
            state: Mutex::new(State {
                capabilities: capabilities.value(),
                version: 0x0001_0400,
                configuration: 0,
                csts: 0,
                aqa: 0,
                asq: 0,
                acq: 0,
                submission: HashMap::new(),
                completion: HashMap::new(),
                doorbells: Vec::new(),
                hold: false,
                held: Vec::new(),
                aborts: true,
                stuck: false,
                gone: false,
                dma: false,
                bad: None,
                failures: Vec::new(),
                queues: 0x0007_0007,
                controller,
                namespace,
                namespaces: NamespaceList::from_ids([1]),
                descriptors: DescriptorList::from_descriptors([NamespaceDescriptor::Nguid(
                    [7; 16],
                )]),
                behaviors: Vec::new(),
                refuses_behaviors: false,
                by_sgl: 0,
                vectors: 0,
                bound: HashMap::new(),
                pending: Vec::new(),
                bindings: 0,
                completes_on_binding: false,
                executed: Vec::new(),
                disk: vec![0xEE; blocks as usize * (1 << (shift & 0x1f))],
                events: Vec::new(),
                enabled: 0,
                stopped_with: Vec::new(),
                shutdowns: 0,
            }),
        })
    }

    /// How it is reached.
    pub(crate) fn access(self: &Arc<Self>) -> Access {
        Access {
            address: "0000:5c:00.0".to_owned(),
            bar: self.clone(),
            windows: self.windows.clone(),
            arena: self.arena.clone(),
        }
    }

    /// What a test may look at and change.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes rings known without commands: submission and completion queue `id`.
    pub(super) fn know(&self, id: u16, entries: u16, submission: u64, completion: u64) {
        let mut state = self.state();
        state.create(id, entries, submission, completion);
    }

    /// Executes and answers the held command at `index`.
    pub(super) fn release(&self, index: usize) {
        let mut state = self.state();
        let (queue, command) = state.held.remove(index);
        self.answer(&mut state, queue, &command);
    }

    /// Posts a completion as it is, but for the phase tag, which is right.
    pub(super) fn post(&self, queue: u16, completion: Completion) {
        let mut state = self.state();
        self.put(&mut state, queue, completion);
    }

    /// How far the device has come in a submission queue.
    pub(super) fn taken(&self, queue: u16) -> u16 {
        self.state().submission[&queue].at
    }

    fn offset(address: u64, len: usize) -> u64 {
        let offset = address.checked_sub(IOVA).expect("an address of the host");
        assert!(offset + len as u64 <= MEMORY as u64, "{address:#x} + {len}");
        offset
    }

    fn load(&self, state: &State, address: u64, bytes: &mut [u8]) {
        assert!(state.dma, "memory is read after the right to was taken");
        let offset = Self::offset(address, bytes.len());
        self.file.read_exact_at(bytes, offset).unwrap();
    }

    fn store(&self, state: &State, address: u64, bytes: &[u8]) {
        assert!(state.dma, "memory is written after the right to was taken");
        let offset = Self::offset(address, bytes.len());
        self.file.write_all_at(bytes, offset).unwrap();
    }

    fn put(&self, state: &mut State, queue: u16, mut completion: Completion) {
        let ring = state.completion.get_mut(&queue).expect("a queue");
        let address = ring.base + 16 * u64::from(ring.at);
        completion.status_field =
            (completion.status_field.get() & !1 | u16::from(ring.phase)).into();
        ring.at = (ring.at + 1) % ring.entries;
        assert_ne!(
            ring.at, ring.head,
            "queue {queue}: no place for a completion"
        );
        ring.phase ^= ring.at == 0;
        // The half with the phase tag last.
        let bytes = completion.as_bytes();
        self.store(state, address, &bytes[..8]);
        self.store(state, address + 8, &bytes[8..]);
        if let Some(vector) = state.completion[&queue].vector {
            match state.bound.get(&vector) {
                Some(event) => signal(event),
                None => state.pending.push(vector),
            }
        }
    }

    /// Where the `len` bytes of a command are: address and length of each piece.
    fn pieces(&self, state: &State, command: &Command, len: usize) -> Vec<(u64, usize)> {
        match command.flags {
            0 => self.pages(state, command, len),
            0x40 => self.segment(state, command.data, len),
            flags => panic!("flags {flags:#x}"),
        }
    }

    /// What an SGL describes.
    fn segment(&self, state: &State, sgl: SglDescriptor, len: usize) -> Vec<(u64, usize)> {
        let (address, bytes) = (sgl.address.get(), sgl.length.get() as usize);
        let pieces = match sgl.identifier {
            0x00 => vec![(address, bytes)],
            0x30 => {
                assert_eq!((address % 8, bytes % 16), (0, 0), "whole descriptors");
                let mut list = vec![0; bytes];
                self.load(state, address, &mut list);
                let blocks = list.chunks(16).map(|bytes| {
                    let block = SglDescriptor::read_from_bytes(bytes).unwrap();
                    assert_eq!(block.identifier, 0, "a data block");
                    (block.address.get(), block.length.get() as usize)
                });
                blocks.collect()
            }
            other => panic!("descriptor {other:#x}"),
        };
        let align = [None, Some(1), Some(4), None][(state.controller.sgls.get() & 3) as usize];
        let align = align.expect("a controller that takes SGLs");
        for &(address, len) in &pieces {
            assert!(
                (address | len as u64).is_multiple_of(align),
                "{address:#x}, {len}"
            );
        }
        let recommended = (state.controller.sgls.get() >> 8 & 0xff) as usize;
        assert!(recommended == 0 || pieces.len() <= recommended);
        assert_eq!(pieces.iter().map(|piece| piece.1).sum::<usize>(), len);
        pieces
    }

    /// What PRPs describe.
    fn pages(&self, state: &State, command: &Command, len: usize) -> Vec<(u64, usize)> {
        let (first, second) = command.prps();
        let mut pages = vec![(first, len.min(4096 - (first % 4096) as usize))];
        let mut left = len - pages[0].1;
        let mut entry = second;
        let is_list = left > 4096;
        let mut index = 0;
        while left > 0 {
            if is_list {
                let mut word = [0; 8];
                let at = second + 8 * index;
                assert_eq!(at / 4096, second / 4096, "the list stays in its page");
                self.load(state, at, &mut word);
                entry = u64::from_le_bytes(word);
            }
            assert_eq!(entry % 4096, 0, "only the first entry has an offset");
            pages.push((entry, left.min(4096)));
            left -= left.min(4096);
            index += 1;
        }
        pages
    }

    fn send(&self, state: &State, command: &Command, bytes: &[u8]) {
        let mut at = 0;
        for (address, len) in self.pieces(state, command, bytes.len()) {
            self.store(state, address, &bytes[at..at + len]);
            at += len;
        }
    }

    fn receive(&self, state: &State, command: &Command, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut at = 0;
        for (address, len) in self.pieces(state, command, len) {
            self.load(state, address, &mut bytes[at..at + len]);
            at += len;
        }
        bytes
    }

    /// Takes what was put into a submission queue up to `tail`.
    fn take(&self, state: &mut State, queue: u16, tail: u16) {
        while let Some(ring) = state.submission.get_mut(&queue).filter(|r| r.at != tail) {
            assert!(tail < ring.entries, "a tail inside the ring");
            let address = ring.base + 64 * u64::from(ring.at);
            ring.at = (ring.at + 1) % ring.entries;
            let mut bytes = [0; 64];
            self.load(state, address, &mut bytes);
            let command = Command::read_from_bytes(&bytes).unwrap();
            if queue != 0 && state.hold {
                state.held.push((queue, command));
            } else {
                self.answer(state, queue, &command);
            }
        }
    }

    fn answer(&self, state: &mut State, queue: u16, command: &Command) {
        let done = match queue {
            0 => self.administer(state, command),
            _ => Some((self.execute(state, command), 0)),
        };
        if let Some((status, result)) = done {
            self.complete(state, queue, command.cid.get(), status, result);
        }
    }

    fn complete(&self, state: &mut State, queue: u16, cid: u16, status: Status, result: u32) {
        let ring = state.submission[&queue];
        let mut completion = Completion::new(cid, status)
            .with_result(result)
            .with_sqhd(ring.at);
        completion.sqid = queue.into();
        self.put(state, ring.completion, completion);
    }

    fn administer(&self, state: &mut State, command: &Command) -> Option<(Status, u32)> {
        let (dw10, dw11) = (command.cdw10.get(), command.cdw11.get());
        assert_eq!(command.flags, 0, "admin commands have PRPs");
        let id = (dw10 & 0xffff) as u16;
        let entries = (dw10 >> 16) as u16;
        match command.opcode {
            0x06 => {
                let bytes = match dw10 & 0xff {
                    0 => state.namespace.as_bytes().to_vec(),
                    1 => state.controller.as_bytes().to_vec(),
                    2 => state.namespaces.as_bytes().to_vec(),
                    3 => state.descriptors.as_bytes().to_vec(),
                    _ => return Some((Status::INVALID_FIELD, 0)),
                };
                self.send(state, command, &bytes);
            }
            0x09 if dw10 & 0xff == 7 => {
                let asked = NumberOfQueues::from_dword(dw11).expect("a number of queues");
                assert!(asked.submission > 0);
                return Some((Status::SUCCESS, state.queues));
            }
            0x09 if dw10 & 0xff == 0x16 => {
                let behavior = self.receive(state, command, 512);
                state.behaviors.push(behavior);
                if state.refuses_behaviors {
                    return Some((Status::INVALID_FIELD, 0));
                }
            }
            0x09 => {}
            0x02 => {
                let mut page = vec![0; 512];
                page[1] = 0x2c;
                page[2] = 1;
                self.send(state, command, &page);
            }
            0x05 => {
                let vector = (dw11 >> 16) as u16;
                match (state.vectors, dw11 & 0xffff) {
                    (0, 1) => assert_eq!(vector, 0),
                    (vectors, 3) => assert!(vector < vectors),
                    (_, flags) => panic!("contiguous, with interrupts if there are any: {flags}"),
                }
                let base = command.prps().0;
                let mut ring = Ring::new(base, entries + 1, id);
                ring.vector = (dw11 & 2 != 0).then_some(vector);
                state.completion.insert(id, ring);
            }
            0x01 => {
                assert_eq!((dw11 & 1, dw11 >> 16), (1, u32::from(id)));
                let base = command.prps().0;
                let ring = Ring::new(base, entries + 1, id);
                assert!(state.completion.contains_key(&id), "first the other queue");
                state.submission.insert(id, ring);
            }
            0x00 => {
                state.submission.remove(&id);
                state.held.retain(|&(queue, _)| queue != id);
            }
            0x04 => {
                state.completion.remove(&id);
            }
            0x08 => {
                let found = state
                    .held
                    .iter()
                    .position(|(queue, c)| *queue == id && c.cid.get() == entries)
                    .filter(|_| state.aborts);
                let Some(found) = found else {
                    return Some((Status::SUCCESS, 1));
                };
                let (queue, held) = state.held.remove(found);
                self.complete(state, queue, held.cid.get(), Status::ABORT_REQUESTED, 0);
            }
            0x0c => {
                state.events.push(command.cid.get());
                return None;
            }
            _ => return Some((Status::INVALID_OPCODE, 0)),
        }
        Some((Status::SUCCESS, 0))
    }

    fn execute(&self, state: &mut State, command: &Command) -> Status {
        state.executed.push(command.opcode);
        state.by_sgl += usize::from(command.flags == 0x40);
        if !state.failures.is_empty() {
            return state.failures.remove(0);
        }
        if command.nsid.get() != 1 {
            return Status::INVALID_NAMESPACE_OR_FORMAT;
        }
        let mut plain = *command;
        plain.cdw12 = plain.cdw12.get().into();
        let Ok(io) = IoCommand::parse(&plain) else {
            return Status::INVALID_OPCODE;
        };
        let block = state.namespace.block_size().unwrap();
        let bytes = |range: BlockRange| {
            let start = range.slba as usize * block as usize;
            start..start + range.bytes(block) as usize
        };
        let most = match state.controller.mdts {
            0 => usize::MAX,
            mdts => 4096 << mdts,
        };
        if let Some(range) = io.range() {
            if range.check_within(state.namespace.nsze.get()).is_err() {
                return Status::LBA_OUT_OF_RANGE;
            }
            if io.data_len(block) as usize > most {
                return Status::INVALID_FIELD;
            }
            let boundary = u64::from(state.namespace.noiob.get());
            if boundary > 0 && io.data_len(block) > 0 {
                let last = range.slba + u64::from(range.blocks) - 1;
                assert_eq!(range.slba / boundary, last / boundary, "crosses a boundary");
            }
            if let Some((bad, status)) = state.bad
                && (range.slba..range.slba + u64::from(range.blocks)).contains(&bad)
            {
                return status;
            }
        }
        match io {
            IoCommand::Flush => {}
            IoCommand::Read { range, .. } => {
                let data = state.disk[bytes(range)].to_vec();
                self.send(state, command, &data);
            }
            IoCommand::Write { range, .. } => {
                let data = self.receive(state, command, bytes(range).len());
                state.disk[bytes(range)].copy_from_slice(&data);
            }
            IoCommand::Compare { range, .. } => {
                let data = self.receive(state, command, bytes(range).len());
                if state.disk[bytes(range)] != data {
                    return Status::COMPARE_FAILURE;
                }
            }
            IoCommand::WriteZeroes { range, .. } => state.disk[bytes(range)].fill(0),
            IoCommand::DatasetManagement(dsm) => {
                let data = self.receive(state, command, dsm.data_len() as usize);
                assert_eq!(ranges_of(&data).len(), usize::from(dsm.ranges));
            }
        }
        Status::SUCCESS
    }

    fn configure(&self, state: &mut State, value: u32) {
        let was = state.configuration & 1 == 1;
        state.configuration = value;
        if state.stuck {
            return;
        }
        let is = value & 1 == 1;
        if value >> 14 & 0b11 == 0b01 {
            state.shutdowns += 1;
            state.csts |= 0b10 << 2;
        } else if is && !was {
            state.enabled += 1;
            state.csts = 1;
            let (asq, acq) = (state.asq, state.acq);
            assert_eq!(value, 1 | 6 << 16 | 4 << 20);
            let entries = (state.aqa & 0xfff) as u16 + 1;
            assert_eq!(state.aqa >> 16, state.aqa & 0xfff);
            state.create(0, entries, asq, acq);
        } else if !is {
            // Until now it may have read and written the rings of its queues.
            let holds_something = |&(_, ring): &(&u16, &Ring)| {
                let mut word = [0; 8];
                state.dma && {
                    self.load(state, ring.base, &mut word);
                    word != [0; 8]
                }
            };
            let held = state.submission.iter().filter(holds_something);
            let held: Vec<u16> = held.map(|(&id, _)| id).collect();
            state.stopped_with.extend(held);
            state.csts = 0;
            state.submission.clear();
            state.completion.clear();
            state.held.clear();
            state.events.clear();
        }
    }
}

/// An interrupt.
fn signal(event: &OwnedFd) {
    rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
}

impl State {
    fn create(&mut self, id: u16, entries: u16, submission: u64, completion: u64) {
        self.submission
            .insert(id, Ring::new(submission, entries, id));
        self.completion
            .insert(id, Ring::new(completion, entries, id));
    }
}

impl Ring {
    fn new(base: u64, entries: u16, completion: u16) -> Self {
        assert_eq!(base % 4096, 0, "rings begin a page");
        Self {
            base,
            entries,
            at: 0,
            head: 0,
            phase: true,
            completion,
            vector: None,
        }
    }
}

impl Bar for Scripted {
    fn size(&self) -> u32 {
        0x2000
    }

    fn is_wanted_back(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn read32(&self, offset: u32) -> u32 {
        let state = self.state();
        match offset {
            _ if state.gone => u32::MAX,
            0x08 => state.version,
            0x14 => state.configuration,
            0x1c => state.csts,
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn read64(&self, offset: u32) -> u64 {
        let state = self.state();
        match offset {
            _ if state.gone => u64::MAX,
            0x00 => state.capabilities,
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write32(&self, offset: u32, value: u32) {
        let mut state = self.state();
        if state.gone {
            return;
        }
        match offset {
            0x14 => self.configure(&mut state, value),
            0x24 => state.aqa = value,
            0x1000.. => {
                state.doorbells.push((offset, value));
                let (queue, is_head) = (((offset - 0x1000) / 8) as u16, !offset.is_multiple_of(8));
                if is_head {
                    // Of a queue that was there until now, maybe.
                    if let Some(ring) = state.completion.get_mut(&queue) {
                        assert!(value < u32::from(ring.entries), "a head inside the ring");
                        ring.head = value as u16;
                    }
                } else if !state.stuck {
                    self.take(&mut state, queue, value as u16);
                }
            }
            _ => panic!("write of {value:#x} to {offset:#x}"),
        }
    }

    fn write64(&self, offset: u32, value: u64) {
        let mut state = self.state();
        match offset {
            0x28 => state.asq = value,
            0x30 => state.acq = value,
            _ => panic!("write of {value:#x} to {offset:#x}"),
        }
    }

    fn start_dma(&self) {
        let mut state = self.state();
        assert!(state.csts & 1 == 0, "not while it may be at work");
        state.dma = true;
    }

    fn stop_dma(&self) {
        self.state().dma = false;
    }

    fn ready_vectors(&self, wanted: u16) -> u16 {
        self.state().vectors.min(wanted)
    }

    fn bind_vector(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut state = self.state();
        assert!(vector < state.vectors);
        let Some(event) = event else {
            state.bound.remove(&vector);
            return Ok(());
        };
        state.bindings += 1;
        if state.completes_on_binding {
            while !state.held.is_empty() {
                let (queue, command) = state.held.remove(0);
                self.answer(&mut state, queue, &command);
            }
            state.pending.clear();
        }
        let event = event.try_clone_to_owned()?;
        // What was masked is told now.
        let before = state.pending.len();
        state.pending.retain(|&pending| pending != vector);
        if state.pending.len() < before {
            signal(&event);
        }
        state.bound.insert(vector, event);
        Ok(())
    }
}
