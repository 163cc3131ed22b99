//! Controllers: attached, asked, reset, detached.

use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::super::Bdev;
use super::super::identity::Identity;
use super::admin::{self, Admin, device_memory};
use super::bar::{Bar, Doorbells};
use super::bring_up;
use super::error::{Fault, NamespaceError, NvmeError};
use super::gate::Phase;
use super::keeper::{Ask, Common, Keeper};
use super::lane::Lane;
use super::namespace::Namespace;
use super::queue::MAX_ENTRIES;
use super::sgl::Rules;
use super::shadow::{self, ShadowPages};
use super::shape::{self, Abilities, Shape};
use crate::lock;
use crate::memory::{Arena, DeviceMemory, Windows};
use crate::nvme::log_page::Health;
use crate::nvme::property::Property;

/// Longest that the keeper is waited for: two attempts at a reset of the slowest controller.
const KEEPER: Duration = Duration::from_secs(600);

/// Bytes of the page of zeros.
const PAGE: usize = 4096;

/// How a controller is reached.
#[derive(Debug)]
pub struct Access {
    /// Where it is, for messages: its PCI address.
    pub address: String,
    /// Its registers. Dropped when the controller is detached and no device of it is left.
    pub bar: Arc<dyn Bar>,
    /// All memory that it can access; buffers outside are copied.
    pub windows: Windows,
    /// Where its queues go, [`Options::memory`] bytes of it; in one of the windows.
    pub arena: Arena,
}

/// How a controller is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the controller, without spaces; namespace 1 of `Nvme0` is the device `Nvme0n1`.
    pub name: String,
    /// I/O queue pairs: channels that can be open at a time, over all namespaces. 1 to 1024; a
    /// controller may give fewer.
    pub queues: u16,
    /// Entries of an I/O queue, 2 to 1024; a controller may take fewer.
    pub entries: u16,
    /// How long a command may take before it is aborted, and an abort before the controller is
    /// reset.
    pub timeout: Duration,
    /// Whether doorbells are moved to memory where the controller can: better with controllers that
    /// are software.
    pub shadow_doorbells: bool,
    /// Whether SGLs are used where the controller takes them: memory that PRPs can't tell goes without copies and in fewer
    /// commands.
    pub sgls: bool,
    /// How long a reactor looks for completions after it found one or sent a command, before it may sleep until an interrupt:
    /// longer than an SSD takes for reads and writes, because falling asleep costs some of that. Where there are no
    /// interrupts, it looks for ever.
    pub linger: Duration,
    /// Longest sleep with commands in flight: what an interrupt that is lost costs.
    pub nap: Duration,
    /// How often a command is sent again, after errors that may pass and after resets.
    pub retries: u8,
}

impl Options {
    /// The usual: 8 queue pairs of 256 entries, 10 seconds, 2 times.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            queues: 8,
            entries: 256,
            timeout: Duration::from_secs(10),
            shadow_doorbells: true,
            sgls: true,
            linger: Duration::from_millis(1),
            nap: Duration::from_millis(10),
            retries: 2,
        }
    }

    /// Bytes of arena that a controller takes at most.
    #[must_use]
    pub fn memory(&self) -> usize {
        let entries = self.entries.clamp(2, MAX_ENTRIES);
        admin::MEMORY + shadow::MEMORY + PAGE + usize::from(self.queues) * Lane::memory(entries)
    }

    fn check(&self) -> Result<(), Fault> {
        let refused = |option, value, range| Fault::Option {
            option,
            value: u64::from(value),
            range,
        };
        if !(1..=1024).contains(&self.queues) {
            return Err(refused("queues", self.queues, "1 to 1024"));
        }
        if !(2..=MAX_ENTRIES).contains(&self.entries) {
            return Err(refused("entries", self.entries, "2 to 1024"));
        }
        if self.timeout.is_zero() {
            return Err(refused("timeout", 0, "more than nothing"));
        }
        Ok(())
    }
}

/// An attached controller. Dropping it leaves its devices working until they are dropped too;
/// [`Controller::detach`] ends them.
#[derive(Debug)]
pub struct Controller {
    inner: Arc<Inner>,
    namespaces: Vec<Arc<Namespace>>,
    refused: Vec<NamespaceError>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a controller's devices share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) address: String,
    pub(super) options: Options,
    pub(super) abilities: Abilities,
    pub(super) bar: Arc<dyn Bar>,
    pub(super) windows: Windows,
    /// How SGLs are used, if they are.
    pub(super) sgls: Option<Rules>,
    /// The device's address of a page of zeros.
    pub(super) zeros: u64,
    /// I/O queue pairs.
    pub(super) queues: usize,
    pub(super) common: Arc<Common>,
    asks: Sender<Ask>,
    _zeros: DeviceMemory,
}

/// Takes the right to access memory from a controller that does not come up, before the memory goes
/// to others.
#[derive(Debug)]
struct Leash<'a> {
    bar: Option<&'a Arc<dyn Bar>>,
}

impl<'a> Leash<'a> {
    fn new(bar: &'a Arc<dyn Bar>) -> Self {
        Self { bar: Some(bar) }
    }

    fn loosen(&mut self) {
        self.bar = None;
    }
}

impl Drop for Leash<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar {
            bar.stop_dma();
        }
    }
}

impl Inner {
    /// Asks the keeper. Nothing happens where it has ended: then all I/O has.
    pub(super) fn ask(&self, ask: Ask) {
        let _ = self.asks.send(ask);
    }
}

impl Controller {
    /// Resets a controller and brings it up, waiting for it; no other driver may use it. To be
    /// called on a thread that may wait, never a reactor.
    ///
    /// # Errors
    /// [`NvmeError`]: what the controller does not do, or says that can't be. Then it is disabled
    /// as far as it obeys, and has no right to access memory.
    pub fn attach(access: Access, options: Options) -> Result<Self, NvmeError> {
        let address = access.address.clone();
        Self::bring_up(access, options).map_err(|fault| NvmeError { address, fault })
    }

    fn bring_up(access: Access, options: Options) -> Result<Self, Fault> {
        options.check()?;
        let Access {
            address,
            bar,
            windows,
            arena,
        } = access;
        let capabilities = bring_up::capabilities(&*bar)?;
        let stride = capabilities.doorbell_stride;
        let last = Doorbells::last(bar.size(), stride).filter(|&last| last > 0);
        let last = last.ok_or(Fault::Register {
            register: "CAP.DSTRD",
            value: u64::from(stride),
            reason: "the doorbells are not among its registers; this is no working NVMe controller",
        })?;
        bring_up::disable(&*bar, &capabilities)?;
        let mut admin = Admin::new(
            bar.clone(),
            &capabilities,
            &arena,
            &windows,
            options.timeout,
        )?;
        // Behind the admin queue, so that it goes first: no event is written to memory of others.
        let held = bar.clone();
        let mut leash = Leash::new(&held);
        bar.start_dma();
        let rings = admin.renew();
        bring_up::enable(&*bar, &capabilities, rings)?;
        let version = bar.read32(Property::Version.code());
        let abilities = Abilities::ask(&mut admin, version)?;
        let mut shapes = Vec::new();
        let mut refused = Vec::new();
        for nsid in shape::namespaces(&mut admin)? {
            match Shape::ask(&mut admin, nsid, &abilities.identity)? {
                Ok(shape) => shapes.push(shape),
                Err(reason) => {
                    let address = address.clone();
                    let error = NamespaceError {
                        address,
                        nsid,
                        reason,
                    };
                    tracing::warn!(controller = options.name, "{error}");
                    refused.push(error);
                }
            }
        }

        let mut pages = None;
        if options.shadow_doorbells && abilities.shadow_doorbells && stride == 0 {
            let shadow = ShadowPages::new(&arena, &windows)?;
            let obeys = admin.shadow_doorbells(shadow.renew())?;
            pages = obeys.then_some(shadow);
        }
        let queues = admin.set_queues(options.queues.min(last))?;
        abilities.introduce(&mut admin)?;
        let most = capabilities.max_queue_entries.saturating_add(1);
        let in_flight = abilities.max_commands.unwrap_or(u16::MAX);
        let entries = options.entries.min(most).min(in_flight.saturating_add(1));
        let entries = entries.max(2);
        // The first vector is the admin queue's, which is polled.
        let vectors = bar.ready_vectors(queues.saturating_add(1));
        let mut lanes = Vec::new();
        let mut spares = Vec::new();
        for id in (1..=queues).rev() {
            let doorbells = Doorbells::of(id, stride);
            let vector = Some(id).filter(|&id| id < vectors);
            let mut lane = Lane::new(id, entries, doorbells, vector, &arena, &windows)?;
            if let Some(shadow) = pages.as_ref().and_then(|pages| pages.of(id)) {
                lane.queue.shadow_with(shadow);
            }
            let rings = lane.rings(&windows)?;
            admin.create(rings)?;
            lane.gate.set(Phase::Live, 0);
            lanes.push((rings, lane.gate.clone()));
            spares.push(lane);
        }
        let zeros = device_memory(&arena, PAGE)?;
        let common = Arc::new(Common {
            spares: Mutex::new(spares),
            ..Common::default()
        });
        let (asks, inbox) = mpsc::channel();
        let keeper = Keeper {
            name: options.name.clone(),
            bar: bar.clone(),
            admin,
            capabilities,
            abilities: abilities.clone(),
            shapes: shapes.clone(),
            shadow: pages,
            lanes,
            common: common.clone(),
            epoch: 0,
        };
        let inner = Arc::new(Inner {
            address,
            zeros: zeros.address(&windows, 0).ok_or(Fault::Unmapped)?,
            _zeros: zeros,
            sgls: abilities.sgls.filter(|_| options.sgls),
            options,
            abilities,
            bar,
            windows,
            queues: usize::from(queues),
            common,
            asks,
        });
        let thread = thread::Builder::new()
            .name(format!("nvme {}", inner.options.name))
            .spawn(move || keeper.run(&inbox))
            .map_err(Fault::Thread)?;
        leash.loosen();
        let namespaces = shapes
            .iter()
            .map(|shape| Namespace::new(&inner, shape))
            .collect();
        Ok(Self {
            inner,
            namespaces,
            refused,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Its namespaces as devices, in the order of their identifiers.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Arc<dyn Bdev>> {
        self.namespaces
            .iter()
            .map(|namespace| namespace.clone() as Arc<dyn Bdev>)
            .collect()
    }

    /// Namespaces that can't be devices, and why.
    #[must_use]
    pub fn refused(&self) -> &[NamespaceError] {
        &self.refused
    }

    /// What it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.abilities.identity
    }

    /// Why it was given up, or that it was detached; `None` while it works.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.inner.common.failure.get().map(String::as_str)
    }

    /// Whether it is to be pulled out: the kernel waits until it is detached and its devices are dropped.
    #[must_use]
    pub fn is_wanted_back(&self) -> bool {
        self.inner.bar.is_wanted_back()
    }

    /// Resets it, and waits for that; what is in flight is sent again. For the control thread.
    ///
    /// # Errors
    /// Why it did not come back; it is given up then.
    pub fn reset(&self) -> Result<(), String> {
        let gone = || Err("it was detached".to_owned());
        self.wait_for(Ask::ResetNow).unwrap_or_else(gone)
    }

    /// Reads its SMART / health page, and waits for that. For the control thread.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn health(&self) -> Result<Box<Health>, NvmeError> {
        let health = self.wait_for(Ask::Health).unwrap_or(Err(Fault::Gone));
        health.map_err(|fault| NvmeError {
            address: self.inner.address.clone(),
            fault,
        })
    }

    fn wait_for<T>(&self, ask: impl FnOnce(SyncSender<T>) -> Ask) -> Option<T> {
        let (answer, inbox) = mpsc::sync_channel(1);
        self.inner.ask(ask(answer));
        inbox.recv_timeout(KEEPER).ok()
    }

    /// Shuts it down, and waits for that: what is in flight, and all that is asked of its devices
    /// afterwards, ends as gone. For the control thread.
    pub fn detach(self) {
        self.inner.ask(Ask::Stop);
        if let Some(thread) = lock::exclusive(&self.thread).take() {
            // A keeper that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
