//! The association with one controller: its admin queue, and what has to be known before I/O.
//!
//! Bring-up is a chain of admin commands, each sent when the one before is answered: properties,
//! enable, wait until ready, identify, number of queues. After that keep-alives are sent, events are
//! taken if they are wanted, and the owner may ask for more. A discovery controller has neither
//! queues nor namespaces: it is ready when it is identified.
//! Like [`Queue`] it takes bytes and time, and touches neither socket nor clock.

use std::time::{Duration, Instant};

use smallvec::smallvec;
use zerocopy::FromBytes;

use super::error::{CommandError, QueueError};
use super::payload::Payload;
use super::queue::{Done, Queue, QueueSettings};
use crate::memory::{Arena, Buf, Pool, PoolError};
use crate::nvme::admin::{AdminCommand, Identify, SetFeatures};
use crate::nvme::event::AsyncEvent;
use crate::nvme::fabrics::{CNTLID_DYNAMIC, ConnectData, FabricsCommand};
use crate::nvme::feature::{AsyncEventConfiguration, FeatureId, NumberOfQueues};
use crate::nvme::identify::{
    Cns, IDENTIFY_SIZE, IdentifyController, IdentifyNamespace, NamespaceList,
};
use crate::nvme::log_page::Health;
use crate::nvme::property::{
    Capabilities, Configuration, ControllerStatus, Property, ShutdownNotification, Version,
};
use crate::nvme::tcp::ADMIN_IN_CAPSULE_DATA;
use crate::nvme::{Command, Completion, Nqn};

/// Whom to connect to, and how.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    /// Name of the subsystem.
    pub subsystem: Nqn,
    /// Name of this host.
    pub host: Nqn,
    /// Identifier of this host; the same for all of its associations.
    pub host_id: [u8; 16],
    /// Ask for header digests on all queues.
    pub header_digest: bool,
    /// Ask for data digests on all queues.
    pub data_digest: bool,
    /// The controller gives us up after so long without a sign of life; zero for never.
    pub keep_alive: Duration,
    /// We give a queue up when an answer takes longer than this.
    pub patience: Duration,
    /// I/O queues wanted, at least 1.
    pub io_queues: u16,
    /// The one namespace of interest; `None` for all that are active.
    pub namespace: Option<u32>,
    /// Have the controller tell of events, for [`Controller::next_event`].
    pub events: bool,
}

/// A namespace that I/O can go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Namespace identifier.
    pub id: u32,
    /// Size in logical blocks.
    pub blocks: u64,
    /// Logical block in bytes.
    pub block_size: u32,
    /// Globally unique identifier; zeros where there is none.
    pub nguid: [u8; 16],
    /// Whether blocks that are deallocated by Write Zeroes read as zeros.
    pub deallocates: bool,
    /// Whether more than one controller may have it.
    pub shared: bool,
}

/// What is known about a controller that is ready for I/O.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Controller identifier.
    pub id: u16,
    /// Capabilities property.
    pub capabilities: Capabilities,
    /// Version property.
    pub version: Version,
    /// Identify Controller.
    pub identify: Box<IdentifyController>,
    /// Namespaces asked for.
    pub namespaces: Vec<Namespace>,
    /// I/O queues granted.
    pub io_queues: u16,
}

/// Why an association can't be made, or is over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The admin queue is lost.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A command of the bring-up failed.
    #[error("{what} failed: {error}")]
    Command {
        /// Which.
        what: &'static str,
        /// How.
        error: CommandError,
    },
    /// CSTS.CFS is set.
    #[error("the controller reports a fatal error; reset it")]
    Fatal,
    /// CSTS.RDY does not come.
    #[error("the controller did not become ready within {} s", .0.as_secs_f64())]
    NotReady(Duration),
    /// The controller contradicts itself or the specification.
    #[error("the controller can't be used: {0}")]
    Unusable(String),
    /// The namespace is not there, or not active.
    #[error("namespace {0} is not active on this controller")]
    NoNamespace(u32),
    /// The queue would be longer than the controller's queues are.
    #[error(
        "{depth} commands in flight do not fit into a queue of this controller; at most {most} do"
    )]
    TooDeep {
        /// Commands asked for.
        depth: u16,
        /// Commands possible.
        most: u16,
    },
    /// There is no memory for the buffers of the admin queue.
    #[error(transparent)]
    Memory(#[from] PoolError),
}

/// A step of the bring-up: the command that is out. Its number is the command's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Capabilities,
    Version,
    Enable,
    Status,
    Identify,
    Queues,
    Events,
    ActiveNamespaces,
    Namespace(u32),
    Ready,
}

/// Tokens of commands that are sent once the controller is ready.
const KEEP_ALIVE: u64 = u64::MAX;
const SHUTDOWN: u64 = u64::MAX - 1;
const EVENT: u64 = u64::MAX - 2;
const ASKED: u64 = u64::MAX - 3;
/// Pause between two looks at CSTS.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Namespaces that are looked at: of more, nobody makes members.
const MAX_NAMESPACES: usize = 256;
/// Commands in flight on the admin queue: one of the bring-up, a keep-alive, and some to spare.
const ADMIN_DEPTH: u16 = 31;

/// An association. See the head of this file.
#[derive(Debug)]
pub struct Controller {
    settings: ControllerSettings,
    queue: Queue,
    pool: Pool,
    step: Step,
    /// Whether the command of the step is out.
    asked: bool,
    /// When the controller was enabled, and when CSTS is to be looked at again.
    enabled: Instant,
    look_at: Instant,
    /// Namespaces still to be identified, the next one last.
    to_identify: Vec<u32>,
    capabilities: Capabilities,
    version: Version,
    identify: Option<Box<IdentifyController>>,
    namespaces: Vec<Namespace>,
    io_queues: u16,
    facts: Option<Facts>,
    alive_at: Instant,
    shut_down: bool,
    /// Whether a request for an event is to be left with the controller.
    listens: bool,
    /// The last event that nobody has taken yet.
    event: Option<AsyncEvent>,
    /// The answer to [`Controller::ask`].
    answer: Option<Done>,
}

impl Controller {
    /// An association that is about to be made.
    ///
    /// # Errors
    /// [`ControllerError::Memory`].
    pub fn new(settings: ControllerSettings, now: Instant) -> Result<Self, ControllerError> {
        let arena = Arena::ordinary(IDENTIFY_SIZE).map_err(PoolError::from)?;
        let pool = Pool::new(&arena, IDENTIFY_SIZE, 1)?;
        let queue = Queue::new(
            QueueSettings {
                id: 0,
                depth: ADMIN_DEPTH,
                header_digest: settings.header_digest,
                data_digest: settings.data_digest,
                in_capsule: ADMIN_IN_CAPSULE_DATA,
                keep_alive: settings.keep_alive,
                patience: settings.patience,
                identity: Box::new(identity(&settings, CNTLID_DYNAMIC)),
            },
            now,
        );
        Ok(Self {
            settings,
            queue,
            pool,
            step: Step::Connect,
            asked: true,
            enabled: now,
            look_at: now,
            to_identify: Vec::new(),
            capabilities: Capabilities::from_value(0),
            version: Version::from_value(0),
            identify: None,
            namespaces: Vec::new(),
            io_queues: 0,
            facts: None,
            alive_at: now,
            shut_down: false,
            listens: false,
            event: None,
            answer: None,
        })
    }

    /// The admin queue, for moving its bytes. What comes out as done belongs to
    /// [`Controller::advance`].
    pub fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Whether the admin queue has something to send.
    pub fn has_output(&self) -> bool {
        self.queue.has_output()
    }

    /// What is known, once the controller is ready for I/O.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Takes what the admin queue has done, and does what is due. To be called each turn.
    ///
    /// # Errors
    /// [`ControllerError`]: the association is of no use any more.
    pub fn advance(&mut self, done: &mut Vec<Done>, now: Instant) -> Result<(), ControllerError> {
        for done in done.drain(..) {
            self.answered(done, now)?;
        }
        self.queue.tick(now)?;
        if self.step == Step::Connect
            && let Some(id) = self.queue.controller()
        {
            tracing::debug!(controller = id, "admin queue connected");
            self.next(Step::Capabilities);
        }
        if !self.asked {
            self.go_on(now);
        }
        self.keep_alive(now);
        if self.listens && self.facts.is_some() {
            let command = AdminCommand::AsyncEventRequest.to_command(0);
            self.listens = self.queue.leave(EVENT, &command).is_err();
        }
        Ok(())
    }

    /// The last event that the controller told of, once.
    pub fn next_event(&mut self) -> Option<AsyncEvent> {
        self.event.take()
    }

    /// Has a controller that is ready do an admin command whose data, up to 4096 bytes, it sends.
    /// One at a time.
    ///
    /// # Errors
    /// [`ControllerError::Unusable`] before the controller is ready, and before the answer to the
    /// command before was taken.
    pub fn ask(
        &mut self,
        command: &Command,
        bytes: usize,
        now: Instant,
    ) -> Result<(), ControllerError> {
        let busy = || ControllerError::Unusable("its admin queue is not free".to_owned());
        if self.facts.is_none() || self.answer.is_some() {
            return Err(busy());
        }
        let mut buffer = self.pool.take().ok_or_else(busy)?;
        buffer.truncate(bytes);
        let payload = Payload::Read(smallvec![buffer]);
        let taken = self.queue.submit(ASKED, command, payload, now);
        taken.map_err(|_| busy())
    }

    /// The answer to [`Controller::ask`], when it has come.
    pub fn take_answer(&mut self) -> Option<Done> {
        self.answer.take()
    }

    fn next(&mut self, step: Step) {
        self.step = step;
        self.asked = false;
    }

    /// Sends the command of the step.
    fn go_on(&mut self, now: Instant) {
        let identify = |cns: Cns, nsid| {
            let identify = Identify {
                cns: cns.code(),
                ..Identify::default()
            };
            AdminCommand::Identify(identify).to_command(nsid)
        };
        let (command, has_data) = match self.step {
            Step::Connect | Step::Ready => return,
            Step::Status if now < self.look_at => return,
            Step::Status => (property_get(Property::Status), false),
            Step::Capabilities => (property_get(Property::Capabilities), false),
            Step::Version => (property_get(Property::Version), false),
            Step::Enable => (configure(Configuration::nvm_host()), false),
            Step::Identify => (identify(Cns::Controller, 0), true),
            Step::ActiveNamespaces => (identify(Cns::ActiveNamespaces, 0), true),
            Step::Namespace(nsid) => (identify(Cns::Namespace, nsid), true),
            Step::Queues => {
                let queues = NumberOfQueues {
                    submission: self.settings.io_queues,
                    completion: self.settings.io_queues,
                };
                let set = SetFeatures {
                    fid: FeatureId::NumberOfQueues.code(),
                    value: queues.dword(),
                    ..SetFeatures::default()
                };
                (AdminCommand::SetFeatures(set).to_command(0), false)
            }
            Step::Events => {
                let offered = self.identify.as_ref().map_or(0, |i| i.oaes.get());
                let wanted = AsyncEventConfiguration::NAMESPACE_ATTRIBUTE & offered;
                let set = SetFeatures {
                    fid: FeatureId::AsyncEventConfiguration.code(),
                    value: wanted | u32::from(Health::WARNING_RELIABILITY),
                    ..SetFeatures::default()
                };
                (AdminCommand::SetFeatures(set).to_command(0), false)
            }
        };
        let payload = if has_data {
            let buffer = self.pool.take();
            Payload::Read(smallvec![
                buffer.expect("one step at a time has the buffer")
            ])
        } else {
            Payload::None
        };
        let taken = self.queue.submit(0, &command, payload, now);
        debug_assert!(taken.is_ok(), "the admin queue has room to spare");
        self.asked = taken.is_ok();
    }

    fn answered(&mut self, done: Done, now: Instant) -> Result<(), ControllerError> {
        match done.token {
            KEEP_ALIVE => {
                let failed = |error| ControllerError::Command {
                    what: "Keep Alive",
                    error,
                };
                return done.outcome.map(drop).map_err(failed);
            }
            SHUTDOWN => {
                self.shut_down = true;
                return Ok(());
            }
            EVENT => {
                // A controller that takes no such requests is left in peace.
                if let Ok(completion) = done.outcome {
                    self.event = Some(AsyncEvent::from_dword(completion.dw0.get()));
                    self.listens = true;
                }
                return Ok(());
            }
            ASKED => {
                self.answer = Some(done);
                return Ok(());
            }
            _ => {}
        }
        if self.step == Step::Events {
            self.listens = done.outcome.is_ok();
            self.look_at_namespaces();
            return Ok(());
        }
        let completion = done.outcome.map_err(|error| ControllerError::Command {
            what: self.step.name(),
            error,
        })?;
        let data = match done.payload {
            Payload::Read(mut segments) => segments.pop().map(|buffer| buffer.freeze()),
            _ => None,
        };
        self.learn(&completion, data, now)
    }

    /// Takes in the answer to the step's command, and goes to the next step.
    fn learn(
        &mut self,
        completion: &Completion,
        data: Option<Buf>,
        now: Instant,
    ) -> Result<(), ControllerError> {
        let data = data.as_deref().unwrap_or_default();
        match self.step {
            Step::Connect | Step::Events | Step::Ready => {}
            Step::Capabilities => {
                self.capabilities = Capabilities::from_value(completion.result64());
                if self.capabilities.min_page_size > 0 {
                    let what = "its pages are larger than 4 KiB".to_owned();
                    return Err(ControllerError::Unusable(what));
                }
                self.next(Step::Version);
            }
            Step::Version => {
                self.version = Version::from_value(completion.dw0.get());
                self.next(Step::Enable);
            }
            Step::Enable => {
                self.enabled = now;
                self.look_at = now;
                self.next(Step::Status);
            }
            Step::Status => {
                let status = ControllerStatus::from_value(completion.dw0.get());
                let patience = Duration::from_millis(500) * u32::from(self.capabilities.timeout);
                if status.fatal {
                    return Err(ControllerError::Fatal);
                } else if status.ready {
                    self.next(Step::Identify);
                } else if now.saturating_duration_since(self.enabled) > patience {
                    return Err(ControllerError::NotReady(patience));
                } else {
                    self.look_at = now + LOOK_AGAIN;
                    self.next(Step::Status);
                }
            }
            Step::Identify => {
                let identify = IdentifyController::read_from_bytes(data);
                let identify = identify.map_err(|_| short("Identify Controller"))?;
                self.check(&identify)?;
                self.identify = Some(Box::new(identify));
                match self.settings.subsystem.is_discovery() {
                    // It has admin commands only.
                    true => self.next_namespace(),
                    false => self.next(Step::Queues),
                }
            }
            Step::Queues => {
                let granted = NumberOfQueues::from_dword(completion.dw0.get());
                let granted = granted
                    .map_err(|_| ControllerError::Unusable("it grants 65 536 queues".to_owned()))?;
                let granted = granted.submission.min(granted.completion);
                self.io_queues = granted.min(self.settings.io_queues);
                match self.settings.events {
                    true => self.next(Step::Events),
                    false => self.look_at_namespaces(),
                }
            }
            Step::ActiveNamespaces => {
                let list = NamespaceList::ref_from_bytes(data);
                let list = list.map_err(|_| short("the namespace list"))?;
                let ids = list.checked(MAX_NAMESPACES).map_err(|id| {
                    ControllerError::Unusable(format!(
                        "its list of namespaces has {id}, where identifiers must ascend and name a namespace"
                    ))
                });
                self.to_identify = ids?;
                self.to_identify.reverse();
                self.next_namespace();
            }
            Step::Namespace(id) => {
                let identify = IdentifyNamespace::ref_from_bytes(data);
                let identify = identify.map_err(|_| short("Identify Namespace"))?;
                self.namespaces.push(namespace(id, identify)?);
                self.next_namespace();
            }
        }
        Ok(())
    }

    fn look_at_namespaces(&mut self) {
        match self.settings.namespace {
            Some(id) => self.next(Step::Namespace(id)),
            None => self.next(Step::ActiveNamespaces),
        }
    }

    fn next_namespace(&mut self) {
        if let Some(id) = self.to_identify.pop() {
            return self.next(Step::Namespace(id));
        }
        self.next(Step::Ready);
        let (Some(id), Some(identify)) = (self.queue.controller(), self.identify.take()) else {
            return;
        };
        self.facts = Some(Facts {
            id,
            capabilities: self.capabilities,
            version: self.version,
            identify,
            namespaces: std::mem::take(&mut self.namespaces),
            io_queues: self.io_queues,
        });
    }

    fn check(&self, identify: &IdentifyController) -> Result<(), ControllerError> {
        let unusable = |what: String| Err(ControllerError::Unusable(what));
        let (said, connected) = (identify.cntlid.get(), self.queue.controller());
        if Some(said) != connected {
            return unusable(format!(
                "Connect named controller {connected:?}, Identify names {said}"
            ));
        }
        if self.settings.subsystem.is_discovery() {
            return Ok(());
        }
        if identify.ioccsz.get() < 4 || identify.iorcsz.get() < 1 {
            return unusable(format!(
                "its capsules of {} and {} times 16 bytes hold no command and completion",
                identify.ioccsz, identify.iorcsz
            ));
        }
        if identify.icdoff.get() != 0 {
            return unusable(format!(
                "its in-capsule data offset is {}, NVMe/TCP has 0",
                identify.icdoff
            ));
        }
        Ok(())
    }

    /// Sends a keep-alive when it is due: twice in the time that the controller waits.
    fn keep_alive(&mut self, now: Instant) {
        let Some(facts) = &self.facts else {
            self.alive_at = now;
            return;
        };
        let wanted = !self.settings.keep_alive.is_zero() && facts.identify.kas.get() > 0;
        if wanted && now.saturating_duration_since(self.alive_at) >= self.settings.keep_alive / 2 {
            let command = AdminCommand::KeepAlive.to_command(0);
            let sent = self.queue.submit(KEEP_ALIVE, &command, Payload::None, now);
            if sent.is_ok() {
                self.alive_at = now;
            }
        }
    }

    /// Tells the controller that this host goes; [`Controller::is_shut_down`] when it has heard.
    pub fn shut_down(&mut self, now: Instant) {
        let goodbye = Configuration::nvm_host().with_shutdown(ShutdownNotification::Normal);
        let _ = self
            .queue
            .submit(SHUTDOWN, &configure(goodbye), Payload::None, now);
    }

    /// Whether the controller has answered [`Controller::shut_down`], in whatever way.
    pub fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Most commands in flight on one I/O queue; `None` before the controller is ready.
    pub fn max_depth(&self) -> Option<u16> {
        let facts = self.facts.as_ref()?;
        // A queue is full with one entry left; MQES is 0's based.
        let by_queue = facts.capabilities.max_queue_entries;
        let by_controller = match facts.identify.maxcmd.get() {
            0 => u16::MAX,
            most => most,
        };
        Some(by_queue.min(by_controller))
    }

    /// A new I/O queue of this association, about to say hello. Queues are numbered from 1 to the
    /// number granted.
    ///
    /// # Errors
    /// [`ControllerError::TooDeep`]; [`ControllerError::Unusable`] before the controller is ready.
    pub fn io_queue(&self, id: u16, depth: u16, now: Instant) -> Result<Queue, ControllerError> {
        let settings = self.io_settings(id, depth)?;
        Ok(Queue::new(settings, now))
    }

    /// What an I/O queue of this association needs to know, wherever it is made.
    ///
    /// # Errors
    /// As [`Controller::io_queue`].
    pub fn io_settings(&self, id: u16, depth: u16) -> Result<QueueSettings, ControllerError> {
        let (Some(facts), Some(most)) = (&self.facts, self.max_depth()) else {
            return Err(ControllerError::Unusable("it is not ready yet".to_owned()));
        };
        if depth > most {
            return Err(ControllerError::TooDeep { depth, most });
        }
        let offsets = facts.identify.sgls.get() & IdentifyController::SGLS_OFFSET != 0;
        let in_capsule = if offsets {
            u32::try_from(facts.identify.in_capsule_data()).unwrap_or(u32::MAX)
        } else {
            0
        };
        Ok(QueueSettings {
            id,
            depth,
            header_digest: self.settings.header_digest,
            data_digest: self.settings.data_digest,
            in_capsule,
            keep_alive: Duration::ZERO,
            patience: self.settings.patience,
            identity: Box::new(identity(&self.settings, facts.id)),
        })
    }
}

impl Facts {
    /// Most bytes of data that one command may move; `None` for no limit.
    pub fn max_transfer(&self) -> Option<u64> {
        self.identify.max_transfer(self.capabilities.min_page_size)
    }
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Connect => "Connect",
            Step::Capabilities => "Property Get of CAP",
            Step::Version => "Property Get of VS",
            Step::Enable => "Property Set of CC",
            Step::Status => "Property Get of CSTS",
            Step::Identify => "Identify Controller",
            Step::Queues => "Set Features (Number of Queues)",
            Step::Events => "Set Features (Asynchronous Event Configuration)",
            Step::ActiveNamespaces => "Identify (active namespaces)",
            Step::Namespace(_) => "Identify Namespace",
            Step::Ready => "a command",
        }
    }
}

fn identity(settings: &ControllerSettings, controller: u16) -> ConnectData {
    let (subsystem, host) = (&settings.subsystem, &settings.host);
    ConnectData::new(settings.host_id, controller, subsystem, host)
}

fn property_get(property: Property) -> Command {
    let get = FabricsCommand::PropertyGet {
        size: property.size(),
        offset: property.code(),
    };
    get.to_command()
}

fn configure(configuration: Configuration) -> Command {
    let set = FabricsCommand::PropertySet {
        size: Property::Configuration.size(),
        offset: Property::Configuration.code(),
        value: u64::from(configuration.0),
    };
    set.to_command()
}

fn namespace(id: u32, identify: &IdentifyNamespace) -> Result<Namespace, ControllerError> {
    let blocks = identify.nsze.get();
    if blocks == 0 {
        return Err(ControllerError::NoNamespace(id));
    }
    let format = identify.format();
    let block_size = identify.block_size().ok_or_else(|| {
        ControllerError::Unusable(format!(
            "namespace {id} has blocks of 2^{} bytes",
            format.lbads
        ))
    })?;
    if format.ms.get() > 0 {
        return Err(ControllerError::Unusable(format!(
            "namespace {id} has {} bytes of metadata a block, which this initiator does not do",
            format.ms
        )));
    }
    if u128::from(blocks) * u128::from(block_size) > u128::from(u64::MAX) {
        return Err(ControllerError::Unusable(format!(
            "namespace {id} has {blocks} blocks, more than 2^64 bytes"
        )));
    }
    Ok(Namespace {
        id,
        blocks,
        block_size,
        nguid: identify.nguid,
        deallocates: identify.dlfeat & IdentifyNamespace::DLFEAT_WRITE_ZEROES_DEALLOCATES != 0
            && identify.dlfeat & 0b111 == IdentifyNamespace::DLFEAT_READS_ZERO,
        shared: identify.nmic & IdentifyNamespace::NMIC_SHARED != 0,
    })
}

fn short(what: &str) -> ControllerError {
    ControllerError::Unusable(format!("{what} has not {IDENTIFY_SIZE} bytes"))
}
