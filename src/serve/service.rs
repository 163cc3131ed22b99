//! The loop.

use std::io;
use std::time::{Duration, Instant};

use super::config::{Config, ConfigError};
use super::memory::{self, MemoryError, Source};
use super::signals::Signals;
use crate::bdev::nvme::pcie::vfio::IovaMode;
use crate::control::{LogSwitch, Machine, Phase, StartError, System};
use crate::reactor::{CoreMask, Events, IdlePolicy, Interest, Ready, Registration};
use crate::rpc::methods::{self, Answer, Pending, When};
use crate::rpc::request::Request;
use crate::rpc::{Address, Outcome, Server, SocketError, Ticket};

/// Tokens of the loop's own descriptors, and the first of each room that has some.
const SIGNAL_TOKEN: u64 = 0;
const TARGET_TOKEN: u64 = 1;
const RPC_TOKEN: u64 = 1 << 32;

/// Calls handled before the loop looks at everything else again.
const CALLS_A_TURN: usize = 64;

/// How long hosts' commands may take to end when the process is to end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait. Nothing relies on it.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What to serve and how.
#[derive(Debug)]
pub struct Options {
    /// Calls to make at start.
    pub config: Option<Config>,
    /// The cores to run reactors on.
    pub cores: CoreMask,
    /// What reactors do when there is nothing to do.
    pub idle: IdlePolicy,
    /// Where to listen for RPC clients.
    pub rpc: Address,
    /// Memory to set aside, in MiB; without it, what suits the machine.
    pub memory: Option<u64>,
    /// Where it comes from.
    pub source: Source,
    /// Which addresses of it controllers of this machine are given.
    pub iova_mode: IovaMode,
    /// Whether to leave the start to framework_start_init.
    pub wait_for_rpc: bool,
    /// Whether to serve what can be served when calls of the configuration fail.
    pub ignore_config_errors: bool,
    /// How much is logged.
    pub log: LogSwitch,
}

/// Why the process cannot serve, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The RPC socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The memory cannot be set aside.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The reactors cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A reactor has ended before it was told to.
    #[error("a reactor has ended, and the volumes it served are out of service: {0}")]
    ReactorLost(String),
    /// The end was not a clean one.
    #[error("not everything came to a good end; the log says what did not")]
    Unclean,
    /// The operating system refused what the loop needs.
    #[error("the control thread cannot {what}: {source}")]
    Loop {
        /// What was tried.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Serves until a signal asks for the end. Calls `announce` once everything is up.
///
/// # Errors
/// [`ServeError`]; what was begun has been taken down then.
pub fn run(options: Options, announce: impl FnOnce(&System)) -> Result<(), ServeError> {
    let failed = |what| move |source| ServeError::Loop { what, source };
    let signals = Signals::watch().map_err(failed("watch for signals"))?;
    let events = Events::new().map_err(failed("wait for events"))?;
    let signal = events
        .register(&signals, SIGNAL_TOKEN, Interest::READABLE)
        .map_err(failed("wait for signals"))?;
    let server = Server::bind(&options.rpc, &events, RPC_TOKEN)?;
    let arena = memory::set_aside(options.memory, options.source)?;
    let machine = Machine::start(&options.cores, options.idle, &arena, events.waker())?;
    let target = machine.target.descriptor().map(|fd| {
        let registered = events.register(fd, TARGET_TOKEN, Interest::READABLE);
        registered.map_err(failed("wait for the target"))
    });
    let mut system = System::new(machine, arena, options.log);
    system.locals.set_iova_mode(options.iova_mode);
    let mut service = Service {
        system,
        server,
        pending: Vec::new(),
        ready: Vec::new(),
        events,
        signals,
        _signal: signal,
        _target: None,
    };
    let start = Start {
        config: options.config,
        ignore_errors: options.ignore_config_errors,
    };
    let served = target.transpose().and_then(|target| {
        service._target = target;
        service.prepare(&start)?;
        if !options.wait_for_rpc {
            service.system.finish_startup();
            service.complete(&start)?;
        }
        service.serve(&start, announce)
    });
    // The socket goes first, so that nobody waits for answers that will not come.
    drop(service.server);
    let clean = service.system.stop(DRAIN_PATIENCE);
    served?;
    if clean {
        Ok(())
    } else {
        Err(ServeError::Unclean)
    }
}

/// What is to be made of a new process.
#[derive(Debug)]
struct Start {
    config: Option<Config>,
    /// Calls that fail are said in the log; otherwise the first of them is the end.
    ignore_errors: bool,
}

#[derive(Debug)]
struct Service {
    system: System,
    server: Server,
    /// Calls under way.
    pending: Vec<(Ticket, Box<dyn Pending>)>,
    ready: Vec<Ready>,
    events: Events,
    signals: Signals,
    _signal: Registration,
    _target: Option<Registration>,
}

impl Start {
    /// Whether to go on after a call of the configuration.
    fn judge(&self, made: Result<(), ConfigError>) -> Result<(), ServeError> {
        match made {
            Err(error) if self.ignore_errors => {
                tracing::error!("{error}");
                Ok(())
            }
            made => Ok(made?),
        }
    }
}

impl Service {
    fn serve(&mut self, start: &Start, announce: impl FnOnce(&System)) -> Result<(), ServeError> {
        announce(&self.system);
        let mut is_complete = self.system.phase() == Phase::Runtime;
        while !self.signals.asked() {
            self.turn()?;
            if !is_complete && self.system.phase() == Phase::Runtime {
                is_complete = true;
                self.complete(start)?;
            }
        }
        Ok(())
    }

    /// Makes the calls of the configuration that may be made before the start is complete, once all
    /// of it is known to be calls that there are.
    fn prepare(&mut self, start: &Start) -> Result<(), ServeError> {
        let Some(config) = &start.config else {
            return Ok(());
        };
        for call in config.calls() {
            if let Err(error) = methods::lookup(&call.method) {
                start.judge(Err(config.failed(call, error)))?;
            }
        }
        self.configure(start, |when| when.includes(Phase::Startup))
    }

    /// Makes the other calls of the configuration.
    fn complete(&mut self, start: &Start) -> Result<(), ServeError> {
        self.configure(start, |when| !when.includes(Phase::Startup))
    }

    /// Makes those calls of the configuration that may be made when `is_due` says, unless a signal
    /// asks for the end first.
    fn configure(&mut self, start: &Start, is_due: fn(When) -> bool) -> Result<(), ServeError> {
        let Some(config) = &start.config else {
            return Ok(());
        };
        for call in config.calls() {
            if self.signals.asked() {
                break;
            }
            if !methods::lookup(&call.method).is_ok_and(|m| is_due(m.when)) {
                continue;
            }
            let answer = methods::call(&mut self.system, &call.method, call.params.clone());
            let outcome = match answer {
                Ok(Answer::Now(value)) => Ok(value),
                Ok(Answer::Later(pending)) => self.wait_for(pending)?,
                Err(error) => Err(error),
            };
            let made = outcome.map(drop);
            start.judge(made.map_err(|error| config.failed(call, error)))?;
        }
        Ok(())
    }

    /// Waits for the end of a call; RPC clients have to wait meanwhile.
    fn wait_for(&mut self, mut pending: Box<dyn Pending>) -> Result<Outcome, ServeError> {
        loop {
            if let Some(outcome) = pending.poll(&mut self.system, Instant::now()) {
                return Ok(outcome);
            }
            self.wait(Some(pending.deadline()))?;
        }
    }

    /// Waits for something to happen, and does what it asks for.
    fn turn(&mut self) -> Result<(), ServeError> {
        let deadlines = self.pending.iter().map(|(_, p)| p.deadline());
        self.wait(deadlines.chain(self.server.deadline()).min())?;
        for _ in 0..CALLS_A_TURN {
            let Some((ticket, request)) = self.server.next_call() else {
                break;
            };
            self.call(ticket, request);
        }
        self.poll_pending();
        if self.server.flush(Instant::now()) {
            // More calls wait already: come back at once.
            self.events.waker().wake();
        }
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), ServeError> {
        let now = Instant::now();
        let next = self.system.poll(now);
        let deadline = deadline.into_iter().chain(next).min();
        let timeout = deadline.map_or(LONGEST_WAIT, |at| {
            at.saturating_duration_since(now).min(LONGEST_WAIT)
        });
        let waited = self.events.wait(Some(timeout), &mut self.ready);
        waited.map_err(|source| ServeError::Loop {
            what: "wait for events",
            source,
        })?;
        let ended = self.system.reactors.as_ref().and_then(|r| r.next_exit());
        if let Some(exit) = ended {
            let reason = match exit.outcome {
                Ok(()) => exit.reactor.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(ServeError::ReactorLost(reason));
        }
        let now = Instant::now();
        for ready in &self.ready {
            match ready.token {
                SIGNAL_TOKEN => self.signals.drain(),
                // Looked at in every turn.
                TARGET_TOKEN => {}
                _ => self.server.ready(ready, now),
            }
        }
        Ok(())
    }

    fn call(&mut self, ticket: Ticket, request: Request) {
        tracing::debug!("RPC: {}", request.method);
        match methods::call(&mut self.system, &request.method, request.params) {
            Ok(Answer::Now(value)) => self.server.answer(ticket, Ok(value)),
            Ok(Answer::Later(pending)) => self.pending.push((ticket, pending)),
            Err(error) => {
                tracing::info!("RPC: {} failed: {error}", request.method);
                self.server.answer(ticket, Err(error));
            }
        }
    }

    fn poll_pending(&mut self) {
        let now = Instant::now();
        for (ticket, mut pending) in std::mem::take(&mut self.pending) {
            match pending.poll(&mut self.system, now) {
                Some(outcome) => self.server.answer(ticket, outcome),
                None => self.pending.push((ticket, pending)),
            }
        }
    }
}
