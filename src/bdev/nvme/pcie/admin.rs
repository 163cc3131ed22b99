//! The admin queue: one command at a time, waited for.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::bar::{Bar, Doorbells};
use super::bring_up::{self, AdminRings};
use super::error::Fault;
use super::queue::{QueuePair, Reaped, ring_bytes};
use crate::memory::{Arena, DeviceMemory, Pool, PoolError, Windows};
use crate::nvme::admin::{AdminCommand, GetLogPage, Identify, SetFeatures};
use crate::nvme::event::AsyncEvent;
use crate::nvme::feature::{AsyncEventConfiguration, FeatureId, HostBehavior, NumberOfQueues};
use crate::nvme::identify::Cns;
use crate::nvme::log_page::{Health, LogPageId};
use crate::nvme::opcode::AdminOpcode;
use crate::nvme::property::Capabilities;
use crate::nvme::{Command, NSID_ALL, Status};

/// Entries of the admin queue: a command and an event request at a time need few.
const ENTRIES: u16 = 32;

/// Bytes of the data of a command.
const PAGE: usize = 4096;

/// Bytes of arena that the admin queue takes.
pub(super) const MEMORY: usize = 3 * PAGE;

/// The rings of an I/O queue pair, as the controller is told of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueRings {
    pub(super) id: u16,
    pub(super) entries: u16,
    pub(super) submission: u64,
    pub(super) completion: u64,
    /// The interrupt vector of its completions, if it has one.
    pub(super) vector: Option<u16>,
}

/// The admin queue of a controller.
#[derive(Debug)]
pub(super) struct Admin {
    bar: Arc<dyn Bar>,
    queue: QueuePair,
    rings: AdminRings,
    /// Data of the command under way.
    page: DeviceMemory,
    page_address: u64,
    timeout: Duration,
    reaped: Vec<Reaped>,
    /// The event request that the controller has, if any.
    request: Option<u16>,
    events: Vec<AsyncEvent>,
}

/// A slot of `bytes` for a queue, which a device sees.
pub(super) fn device_memory(arena: &Arena, bytes: usize) -> Result<DeviceMemory, PoolError> {
    let slot = Pool::new(arena, bytes.next_multiple_of(PAGE), 1)?;
    Ok(DeviceMemory::new(
        slot.take().expect("a new pool has its slot"),
    ))
}

impl Admin {
    /// The queue of a controller with these capabilities, which is not told of it yet.
    pub(super) fn new(
        bar: Arc<dyn Bar>,
        capabilities: &Capabilities,
        arena: &Arena,
        windows: &Windows,
        timeout: Duration,
    ) -> Result<Self, Fault> {
        // CAP.MQES is of I/O queues only.
        let (submission, completion) = ring_bytes(ENTRIES);
        let queue = QueuePair::new(
            0,
            ENTRIES,
            Doorbells::of(0, capabilities.doorbell_stride),
            device_memory(arena, submission)?,
            device_memory(arena, completion)?,
        );
        let page = device_memory(arena, PAGE)?;
        let (submission, completion) = queue.addresses(windows).ok_or(Fault::Unmapped)?;
        Ok(Self {
            bar,
            page_address: page.address(windows, 0).ok_or(Fault::Unmapped)?,
            page,
            rings: AdminRings {
                entries: queue.entries(),
                submission,
                completion,
            },
            queue,
            timeout,
            reaped: Vec::new(),
            request: None,
            events: Vec::new(),
        })
    }

    /// Makes the rings empty, for a controller that is disabled, and answers where they are.
    pub(super) fn renew(&mut self) -> AdminRings {
        self.queue.reset();
        self.request = None;
        self.rings
    }

    /// Reads a structure of 4096 bytes.
    pub(super) fn identify<T: FromBytes>(
        &mut self,
        cns: Cns,
        nsid: u32,
        what: &'static str,
    ) -> Result<T, Fault> {
        let command = AdminCommand::Identify(Identify {
            cns: cns.code(),
            ..Identify::default()
        });
        self.execute_with_page(command.to_command(nsid), what)?;
        let mut bytes = vec![0; PAGE];
        self.page.copy_to(&mut bytes);
        Ok(T::read_from_prefix(&bytes)
            .expect("a structure of 4096 bytes")
            .0)
    }

    /// Reads the SMART / health page of the controller.
    pub(super) fn health(&mut self) -> Result<Health, Fault> {
        let page = GetLogPage::new(LogPageId::Health.code(), size_of::<Health>() as u64);
        let command = AdminCommand::GetLogPage(page).to_command(NSID_ALL);
        self.execute_with_page(command, "read its health log")?;
        let mut bytes = [0; size_of::<Health>()];
        self.page.copy_to(&mut bytes);
        Ok(Health::read_from_bytes(&bytes).expect("as many bytes"))
    }

    /// Asks for `wanted` I/O queue pairs and answers how many there are: at least 1.
    pub(super) fn set_queues(&mut self, wanted: u16) -> Result<u16, Fault> {
        let asked = NumberOfQueues {
            submission: wanted,
            completion: wanted,
        };
        let command = AdminCommand::SetFeatures(SetFeatures {
            fid: FeatureId::NumberOfQueues.code(),
            value: asked.dword(),
            ..SetFeatures::default()
        });
        let what = "set the number of queues";
        let granted = self.execute(command.to_command(0), what)?;
        // Both counts are 0's based and may be more than was asked for; 65536 is no valid answer.
        let count = |half: u32| (half & 0xffff).saturating_add(1).min(u32::from(wanted)) as u16;
        Ok(count(granted).min(count(granted >> 16)))
    }

    /// Moves the doorbells of I/O queues to memory: what the host writes, and what the controller
    /// says of it, each a page. Answers whether the controller does that.
    pub(super) fn shadow_doorbells(&mut self, pages: (u64, u64)) -> Result<bool, Fault> {
        let opcode = AdminOpcode::DoorbellBufferConfig.code();
        let command = Command::new(opcode, 0).with_prps(pages.0, pages.1);
        match self.execute(command, "move its doorbells to memory") {
            Ok(_) => Ok(true),
            Err(Fault::Refused { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Makes an I/O queue pair known.
    pub(super) fn create(&mut self, rings: QueueRings) -> Result<(), Fault> {
        const CONTIGUOUS: u32 = 1;
        const INTERRUPTS: u32 = 1 << 1;
        let QueueRings { id, entries, .. } = rings;
        let size_and_id = u32::from(entries - 1) << 16 | u32::from(id);
        let make = |opcode: AdminOpcode, address, dword11: u32| {
            let mut command = Command::new(opcode.code(), 0).with_prps(address, 0);
            command.cdw10 = size_and_id.into();
            command.cdw11 = dword11.into();
            command
        };
        let interrupts = rings
            .vector
            .map_or(0, |vector| u32::from(vector) << 16 | INTERRUPTS);
        let shape = interrupts | CONTIGUOUS;
        let completion = make(AdminOpcode::CreateIoCq, rings.completion, shape);
        self.execute(completion, "create an I/O completion queue")?;
        let of_completion = u32::from(id) << 16 | CONTIGUOUS;
        let submission = make(AdminOpcode::CreateIoSq, rings.submission, of_completion);
        self.execute(submission, "create an I/O submission queue")?;
        Ok(())
    }

    /// Makes an I/O queue pair unknown: afterwards nothing that was in it touches memory.
    pub(super) fn delete(&mut self, id: u16) -> Result<(), Fault> {
        for (opcode, what) in [
            (AdminOpcode::DeleteIoSq, "delete an I/O submission queue"),
            (AdminOpcode::DeleteIoCq, "delete an I/O completion queue"),
        ] {
            let mut command = Command::new(opcode.code(), 0).with_prps(0, 0);
            command.cdw10 = u32::from(id).into();
            self.execute(command, what)?;
        }
        Ok(())
    }

    /// Asks the controller to give up a command; whether it does shows at that command.
    pub(super) fn abort(&mut self, queue: u16, cid: u16) -> Result<(), Fault> {
        let command = AdminCommand::Abort { sqid: queue, cid }.to_command(0);
        match self.execute(command, "abort a command") {
            // More aborts than it takes at once, or a command that is done already.
            Ok(_) | Err(Fault::Refused { .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Says that Command Interrupted and retry delays are understood (Host Behavior Support, ACRE). A controller that does
    /// not want to know goes without.
    pub(super) fn understand_retry_delays(&mut self) -> Result<(), Fault> {
        let behavior = HostBehavior {
            acre: 1,
            ..HostBehavior::new_zeroed()
        };
        self.page.copy_from(behavior.as_bytes());
        let command = AdminCommand::SetFeatures(SetFeatures {
            fid: FeatureId::HostBehaviorSupport.code(),
            ..SetFeatures::default()
        });
        let command = command.to_command(0).with_prps(self.page_address, 0);
        match self.execute(command, "learn what its host understands") {
            Ok(_) | Err(Fault::Refused { .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Says which events are wanted, and leaves a request for the next one.
    pub(super) fn ask_for_events(&mut self) -> Result<(), Fault> {
        let wanted =
            AsyncEventConfiguration::SMART_WARNINGS | AsyncEventConfiguration::NAMESPACE_ATTRIBUTE;
        for wanted in [wanted, AsyncEventConfiguration::SMART_WARNINGS] {
            let command = AdminCommand::SetFeatures(SetFeatures {
                fid: FeatureId::AsyncEventConfiguration.code(),
                value: wanted,
                ..SetFeatures::default()
            });
            match self.execute(command.to_command(0), "choose its events") {
                Ok(_) => break,
                // It does not know all of them; what it then tells is its own choice.
                Err(Fault::Refused { .. }) => {}
                Err(fault) => return Err(fault),
            }
        }
        self.leave_request();
        Ok(())
    }

    fn leave_request(&mut self) {
        if !self.queue.has_room() {
            return;
        }
        let command = AdminCommand::AsyncEventRequest.to_command(0);
        self.request = Some(self.queue.push(command.with_prps(0, 0)));
        self.queue.ring(&*self.bar);
    }

    /// The next event that has come; leaves a new request for each.
    pub(super) fn event(&mut self) -> Result<Option<AsyncEvent>, Fault> {
        self.reap(None)?;
        Ok(self.events.pop())
    }

    fn execute_with_page(&mut self, command: Command, what: &'static str) -> Result<u32, Fault> {
        self.page.clear();
        self.execute(command.with_prps(self.page_address, 0), what)
    }

    /// Runs a command to its end; answers dword 0.
    fn execute(&mut self, mut command: Command, what: &'static str) -> Result<u32, Fault> {
        if command.flags != 0 {
            command = command.with_prps(0, 0);
        }
        if !self.queue.has_room() {
            // All of it is taken by commands that were given up.
            let after = self.timeout;
            return Err(Fault::Timeout { what, after });
        }
        let index = self.queue.push(command);
        self.queue.ring(&*self.bar);
        let start = Instant::now();
        loop {
            let late = start.elapsed() > self.timeout;
            if let Some(Reaped { status, result, .. }) = self.reap(Some(index))? {
                return match status.is_success() {
                    true => Ok(result),
                    false => Err(Fault::Refused { what, status }),
                };
            }
            if bring_up::status(&*self.bar)?.fatal {
                return Err(Fault::Fatal(what));
            }
            if late {
                let after = self.timeout;
                return Err(Fault::Timeout { what, after });
            }
            thread::sleep(Duration::from_micros(20));
        }
    }

    /// Takes what has completed; answers the completion of the command at `index`.
    fn reap(&mut self, index: Option<u16>) -> Result<Option<Reaped>, Fault> {
        self.reaped.clear();
        self.queue.reap(&*self.bar, &mut self.reaped)?;
        let mut found = None;
        for reaped in std::mem::take(&mut self.reaped) {
            if Some(reaped.index) == index {
                found = Some(reaped);
            } else if Some(reaped.index) == self.request {
                self.request = None;
                // A refused request is not asked again: it would be refused again.
                if reaped.status.is_success() {
                    self.events.push(AsyncEvent::from_dword(reaped.result));
                    self.leave_request();
                } else if !reaped.status.is(Status::ABORTED_SQ_DELETION) {
                    tracing::debug!("asynchronous event request: {}", reaped.status);
                }
            }
        }
        Ok(found)
    }
}
