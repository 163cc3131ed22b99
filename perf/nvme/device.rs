//! An NVMe controller in memory that does all its commands at once when it is told to, and moves no data: what is left to
//! measure is the driver's own work. It sees the host's memory as a device does, through a file that the arena is made of
//! too.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, memfd_create};
use stripewise::bdev::nvme::pcie::{Access, Bar};
use stripewise::memory::{Arena, Windows};
use stripewise::nvme::identify::{
    Cns, DescriptorList, IdentifyController, IdentifyNamespace, NamespaceList,
};
use stripewise::nvme::opcode::AdminOpcode;
use stripewise::nvme::property::{Capabilities, Property};
use stripewise::nvme::{Command, Completion, Status};
use zerocopy::{FromBytes, IntoBytes};

/// Where the device sees the first byte of memory.
const IOVA: u64 = 1 << 32;

/// Bytes of memory.
const MEMORY: usize = 32 << 20;

/// Blocks of 4 KiB of its namespace.
pub const BLOCKS: u64 = 1 << 20;

/// The admin queue and one I/O queue pair.
const QUEUES: usize = 2;

/// Where doorbells begin (NVMe over PCIe 3.1.2): of each queue a tail and a head of 4 bytes.
const DOORBELLS: u32 = 0x1000;

/// The controller.
#[derive(Debug)]
pub struct Device {
    file: File,
    arena: Arena,
    /// SGLS of Identify Controller.
    sgls: u32,
    state: Mutex<State>,
    /// The tail doorbell of each queue.
    tails: [AtomicU32; QUEUES],
    /// Writes to doorbells of the I/O queue: of its tail, of its head.
    rung: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct State {
    configuration: u32,
    admin_queue: [u64; 2],
    queues: [Queue; QUEUES],
}

/// A queue pair as the device knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// Addresses of its rings: submission, completion.
    rings: [u64; 2],
    entries: u32,
    /// Next entry to be taken.
    taken: u32,
    /// Next entry to be posted, and its phase tag.
    posted: u32,
    phase: bool,
}

impl Device {
    /// A controller of one namespace of blocks of 4 KiB, which takes SGLs or not.
    pub fn new(sgls: bool) -> Arc<Self> {
        let file = File::from(memfd_create("device", MemfdFlags::CLOEXEC).expect("a memory file"));
        file.set_len(MEMORY as u64).expect("memory");
        let arena = Arena::shared(&file, 0, MEMORY).expect("an arena over the file");
        Arc::new(Self {
            file,
            arena,
            sgls: u32::from(sgls) * IdentifyController::SGLS_SUPPORTED,
            state: Mutex::default(),
            tails: Default::default(),
            rung: Default::default(),
        })
    }

    /// How it is reached.
    pub fn access(self: &Arc<Self>) -> Access {
        let mut windows = Windows::new();
        windows.add(&self.arena, IOVA);
        Access {
            address: "0000:00:00.0".to_owned(),
            bar: self.clone(),
            windows,
            arena: self.arena.clone(),
        }
    }

    /// Memory that it sees.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Writes to doorbells so far: submission, completion.
    pub fn rung(&self) -> [u64; 2] {
        [0, 1].map(|which: usize| self.rung[which].load(Ordering::Relaxed))
    }

    /// Completes up to `most` commands of the I/O queue, in order.
    pub fn work(&self, most: usize) {
        self.serve(&mut self.state(), 1, most);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, address: u64, bytes: &[u8]) {
        let stored = self.file.write_all_at(bytes, address - IOVA);
        stored.expect("an address of the host");
    }

    fn serve(&self, state: &mut State, id: usize, most: usize) {
        let tail = self.tails[id].load(Ordering::Acquire);
        for _ in 0..most {
            let queue = &mut state.queues[id];
            if queue.taken == tail {
                break;
            }
            let mut bytes = [0; 64];
            let at = queue.rings[0] + 64 * u64::from(queue.taken) - IOVA;
            let loaded = self.file.read_exact_at(&mut bytes, at);
            loaded.expect("an address of the host");
            queue.taken = (queue.taken + 1) % queue.entries;
            let command = Command::read_from_bytes(&bytes).expect("64 bytes");
            let done = match id {
                0 => self.administer(state, &command),
                _ => Some((Status::SUCCESS, 0)),
            };
            if let Some((status, result)) = done {
                self.post(&mut state.queues[id], id, command.cid.get(), status, result);
            }
        }
    }

    fn post(&self, queue: &mut Queue, id: usize, cid: u16, status: Status, result: u32) {
        let mut entry = Completion::new(cid, status)
            .with_result(result)
            .with_sqhd(queue.taken as u16);
        entry.sqid = (id as u16).into();
        entry.status_field = (entry.status_field.get() | u16::from(queue.phase)).into();
        let at = queue.rings[1] + 16 * u64::from(queue.posted);
        // The half with the phase tag last.
        let bytes = entry.as_bytes();
        self.store(at, &bytes[..8]);
        self.store(at + 8, &bytes[8..]);
        queue.posted = (queue.posted + 1) % queue.entries;
        queue.phase ^= queue.posted == 0;
    }

    /// What is needed to be attached; `None` for what is not answered.
    fn administer(&self, state: &mut State, command: &Command) -> Option<(Status, u32)> {
        let (address, _) = command.prps();
        let (dw10, dw11) = (command.cdw10.get(), command.cdw11.get());
        let (id, entries) = ((dw10 & 0xffff) as usize, (dw10 >> 16) + 1);
        let cns = Cns::from_code((dw10 & 0xff) as u8);
        match AdminOpcode::from_code(command.opcode) {
            Some(AdminOpcode::Identify) => match cns {
                Some(Cns::Namespace) => {
                    self.store(address, IdentifyNamespace::new(BLOCKS, 12).as_bytes());
                }
                Some(Cns::Controller) => {
                    let mut identify = IdentifyController::new();
                    identify.sgls = self.sgls.into();
                    self.store(address, identify.as_bytes());
                }
                Some(Cns::ActiveNamespaces) => {
                    self.store(address, NamespaceList::from_ids([1]).as_bytes());
                }
                _ => self.store(address, DescriptorList::from_descriptors([]).as_bytes()),
            },
            Some(AdminOpcode::CreateIoCq) => state.queues[id] = Queue::new([0, address], entries),
            Some(AdminOpcode::CreateIoSq) => state.queues[id].rings[0] = address,
            Some(AdminOpcode::AsyncEventRequest) => return None,
            // As many queues as asked for.
            _ => return Some((Status::SUCCESS, dw11)),
        }
        Some((Status::SUCCESS, 0))
    }
}

impl Queue {
    fn new(rings: [u64; 2], entries: u32) -> Self {
        Self {
            rings,
            entries,
            phase: true,
            ..Self::default()
        }
    }
}

impl Bar for Device {
    fn size(&self) -> u32 {
        DOORBELLS + 8 * QUEUES as u32
    }

    fn read32(&self, offset: u32) -> u32 {
        let enabled = self.state().configuration & 1;
        match offset {
            _ if offset == Property::Status.code() => enabled,
            _ if offset == Property::Configuration.code() => self.state().configuration,
            _ => 0,
        }
    }

    fn read64(&self, _: u32) -> u64 {
        let capabilities = Capabilities {
            max_queue_entries: 255,
            contiguous_queues: true,
            timeout: 1,
            doorbell_stride: 0,
            subsystem_reset: false,
            command_sets: Capabilities::CSS_NVM,
            min_page_size: 0,
            max_page_size: 0,
            ready_with_media: false,
            ready_independent_of_media: false,
        };
        capabilities.value()
    }

    fn write32(&self, offset: u32, value: u32) {
        if let Some(doorbell) = offset.checked_sub(DOORBELLS) {
            let (id, which) = ((doorbell / 8) as usize, (doorbell / 4 % 2) as usize);
            if which == 0 {
                self.tails[id].store(value, Ordering::Release);
            }
            match id {
                0 => self.serve(&mut self.state(), 0, usize::MAX),
                _ => drop(self.rung[which].fetch_add(1, Ordering::Relaxed)),
            }
        } else if offset == Property::Configuration.code() {
            let mut state = self.state();
            let (rings, was) = (state.admin_queue, state.configuration & 1);
            // Shut down as soon as it is told to be.
            state.configuration = value & 1;
            if value & 1 == 1 && was == 0 {
                let entries = 32;
                state.queues = [Queue::new(rings, entries), Queue::default()];
            }
        }
    }

    fn write64(&self, offset: u32, value: u64) {
        let is_completion = offset == Property::AdminCompletionQueue.code();
        self.state().admin_queue[usize::from(is_completion)] = value;
    }

    fn start_dma(&self) {}

    fn stop_dma(&self) {}
}
