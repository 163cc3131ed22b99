//! The polled loop: it makes requests, times them, judges what they bring, and sees the run
//! through its phases.
//!
//! [`Run::turn`] never sleeps and, but for connecting, never waits: receive on each queue, handle
//! what is over, make new requests, send on each queue. The caller turns it until it ends, and may
//! look at [`Run::progress`] and take [`Run::events`] between turns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::association::{Association, AssociationError};
use super::cpu::cpu_time;
use super::distribution::Distribution;
use super::fault::Fault;
use super::job::{Job, OnDisconnect, Verify};
use super::model::{Model, ModelError};
use super::pace::Pace;
use super::plan::{ModelOrPlanError, Plan, PlanError};
use super::report::{Ending, Report};
use super::requests::Requests;
use super::tally::{Direction, Findings, Tally};
use super::workload::{Step, Workload, WorkloadError};
use crate::initiator::{CommandError, Done, Namespace, Payload};
use crate::memory::PoolError;
use crate::nvme::io::{BlockRange, IoCommand};
use crate::reactor::CoreMask;

/// Events kept until they are taken; more of them are only counted.
const MOST_EVENTS: usize = 1000;
/// Pause between two attempts to connect again.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// Why a run can't start, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No association could be made.
    #[error(transparent)]
    Association(#[from] AssociationError),
    /// The job does not fit the namespace.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The workload makes no sense.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The verify model, or its file, failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is no memory for the payloads.
    #[error("no memory for the payloads: {0}; use fewer or smaller requests")]
    Memory(#[from] PoolError),
    /// The core is not there.
    #[error(
        "can't run on core {0}; see the cores that this process may use with `nproc` or `taskset`"
    )]
    Core(usize),
    /// The namespace is not the same after the target came back.
    #[error("the target came back with another namespace")]
    OtherNamespace,
    /// Stopped before the target was reached.
    #[error("interrupted before the target could be reached")]
    Interrupted,
}

impl From<ModelOrPlanError> for RunError {
    fn from(error: ModelOrPlanError) -> Self {
        match error {
            ModelOrPlanError::Model(error) => error.into(),
            ModelOrPlanError::Plan(error) => error.into(),
        }
    }
}

/// Something that a user should hear of while the run goes on.
#[derive(Debug)]
pub enum Event {
    /// A block does not hold what it must.
    Fault(Box<Fault>),
    /// A request failed.
    Failed {
        /// What it was.
        direction: Direction,
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u32,
        /// Why.
        error: CommandError,
    },
    /// The target went away.
    Disconnected(AssociationError),
    /// It is back.
    Reconnected {
        /// After so long.
        after: Duration,
    },
    /// It did not come back; this is why the last attempt failed.
    GaveUp(AssociationError),
    /// All requests are made; what was written is being read back.
    Checking,
}

/// What a run has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Reads and writes counted.
    pub ios: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Blocks found right.
    pub verified: u64,
    /// Blocks found wrong.
    pub wrong: u64,
    /// Whether what was written is being read back.
    pub checking: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Making requests that do not count yet.
    Ramp { until: Instant },
    /// Making requests that count.
    Work { until: Instant },
    /// Reading back what was written, from this block on.
    Check { next: u64 },
    /// Making no more requests, waiting for those in flight; then maybe checking.
    Drain { then_check: bool },
    /// All done.
    Over,
}

/// A run in progress. See the [module](self).
#[derive(Debug)]
pub struct Run {
    job: Job,
    plan: Plan,
    association: Option<Association>,
    requests: Requests,
    workload: Workload,
    pace: Option<Pace>,
    model: Option<Model>,
    phase: Phase,
    /// A step that was drawn and has to wait for blocks that are being written.
    held: Option<Step>,
    /// Reads of the check that were lost with their connection.
    again: Vec<(u64, u32)>,
    made: u64,
    tally: Tally,
    /// Whether completions count, and since when.
    counting: Option<Instant>,
    runtime: Duration,
    /// When the counting started, on the clock of this thread; then how much it was given.
    cpu: Duration,
    findings: Findings,
    ending: Ending,
    reconnects: u64,
    events: Vec<Event>,
    done: Vec<Done>,
    faults: Vec<Fault>,
}

impl Run {
    /// Connects, and gets ready for the first turn. Waits for the target as the job says for a
    /// target that goes away; `stop` ends the waiting.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start(job: Job, stop: &AtomicBool) -> Result<Self, RunError> {
        if let Some(core) = job.core {
            pin(core)?;
        }
        let association = connect(&job, Instant::now(), stop)?.ok_or(RunError::Interrupted)?;
        let facts = association.facts().expect("the association is up");
        let namespace = facts.namespaces.first().expect("the job names one");
        let mut plan = Plan::new(&job, facts, namespace)?;
        let model = plan.model(&job)?;
        let now = Instant::now();
        let mut run = Self {
            requests: Requests::new(
                association.links(),
                job.depth,
                plan.max_bytes(),
                model.is_some(),
                now,
            )?,
            workload: Workload::new(plan.shape(&job))?,
            pace: job.rate.map(|rate| Pace::new(rate, now)),
            association: Some(association),
            model,
            phase: Phase::Ramp {
                until: now + job.ramp,
            },
            held: None,
            again: Vec::new(),
            made: 0,
            tally: Tally::default(),
            counting: None,
            runtime: Duration::ZERO,
            cpu: Duration::ZERO,
            findings: Findings::default(),
            ending: Ending::Finished,
            reconnects: 0,
            events: Vec::new(),
            done: Vec::new(),
            faults: Vec::new(),
            plan,
            job,
        };
        if run.job.verify == Verify::Only {
            run.phase = Phase::Check {
                next: run.plan.region.first,
            };
            run.counting = Some(now);
            run.cpu = cpu_time();
        }
        Ok(run)
    }

    /// One turn. Says whether there will be another.
    ///
    /// # Errors
    /// [`RunError`] where the run can't go on, nor end in order.
    pub fn turn(&mut self, stop: &AtomicBool) -> Result<bool, RunError> {
        if self.phase == Phase::Over {
            return Ok(false);
        }
        let mut done = std::mem::take(&mut self.done);
        let exchanged = self.exchange(&mut done, stop.load(Ordering::Relaxed));
        self.done = done;
        if let Err(error) = exchanged? {
            self.lost(error, stop)?;
        }
        if self.phase == Phase::Over {
            self.close()?;
        }
        Ok(self.phase != Phase::Over)
    }

    /// Receives, handles, makes requests, sends. The inner result is the association's.
    fn exchange(
        &mut self,
        done: &mut Vec<Done>,
        stop: bool,
    ) -> Result<Result<(), AssociationError>, RunError> {
        let Some(association) = &mut self.association else {
            unreachable!("a run that is not over has its association");
        };
        let mut now = Instant::now();
        for link in 0..association.links() {
            if let Err(error) = association.receive(link, done, now) {
                self.complete(done, now)?;
                return Ok(Err(error));
            }
        }
        if !done.is_empty() {
            now = Instant::now();
            self.complete(done, now)?;
        }
        self.advance(now, stop);
        let links = self.association.as_ref().map_or(0, Association::links);
        for link in 0..links {
            while self.requests.has_free(link)
                && let Some(step) = self.next_step(now)
            {
                self.make(link, step, done, now)?;
            }
        }
        let Some(association) = &mut self.association else {
            unreachable!("looked at above");
        };
        for link in 0..links {
            if let Err(error) = association.send(link, done) {
                return Ok(Err(error));
            }
        }
        Ok(association.tick(now))
    }

    /// Goes to the next phase where it is time.
    fn advance(&mut self, now: Instant, stop: bool) {
        if stop && !matches!(self.phase, Phase::Drain { then_check: false } | Phase::Over) {
            self.ending = Ending::Interrupted;
            self.phase = Phase::Drain { then_check: false };
        }
        if let Phase::Ramp { until } = self.phase
            && now >= until
        {
            self.tally = Tally::default();
            self.counting = Some(now);
            self.cpu = cpu_time();
            self.phase = Phase::Work {
                until: now + self.job.runtime,
            };
        }
        let all_made = self.job.io_limit.is_some_and(|most| self.made >= most);
        if let Phase::Work { until } = self.phase
            && (now >= until || all_made)
        {
            self.held = None;
            self.phase = Phase::Drain {
                then_check: self.job.verify == Verify::All,
            };
        }
        if let Phase::Drain { then_check } = self.phase
            && self.requests.in_flight() == 0
        {
            self.stop_counting(now);
            self.phase = match then_check {
                true => Phase::Check {
                    next: self.plan.region.first,
                },
                false => Phase::Over,
            };
            if then_check {
                self.tell(Event::Checking);
            }
        }
    }

    fn stop_counting(&mut self, now: Instant) {
        if let Some(since) = self.counting.take() {
            self.runtime = now.saturating_duration_since(since);
            self.cpu = cpu_time().saturating_sub(self.cpu);
        }
    }

    /// The next request to make, if one is due.
    fn next_step(&mut self, now: Instant) -> Option<Step> {
        match self.phase {
            Phase::Drain { .. } | Phase::Over => None,
            Phase::Check { next } => self.next_check(next),
            Phase::Ramp { .. } | Phase::Work { .. } => {
                let step = match self.held.take() {
                    Some(step) => step,
                    None => {
                        let spent = self.job.io_limit.is_some_and(|most| self.made >= most);
                        let due = |pace: &mut Pace| pace.take(now);
                        if spent || !self.pace.as_mut().is_none_or(due) {
                            return None;
                        }
                        self.made += 1;
                        self.workload.next_step()
                    }
                };
                if let (Step::Write { lba, blocks }, Some(model)) = (step, &self.model)
                    && model.is_busy(lba, blocks)
                {
                    self.held = Some(step);
                    return None;
                }
                Some(step)
            }
        }
    }

    /// The next blocks to read back, from `next` on.
    fn next_check(&mut self, next: u64) -> Option<Step> {
        if let Some((lba, blocks)) = self.again.pop() {
            return Some(Step::Read { lba, blocks });
        }
        let model = self.model.as_ref().expect("a check has a model");
        let found = model.next_written(next, self.plan.max_blocks);
        let end = self.plan.region.end();
        match found.filter(|&(lba, _)| lba < end) {
            Some((lba, blocks)) => {
                let blocks = u64::from(blocks).min(end - lba) as u32;
                self.phase = Phase::Check {
                    next: lba + u64::from(blocks),
                };
                Some(Step::Read { lba, blocks })
            }
            None => {
                if self.requests.in_flight() == 0 {
                    self.stop_counting(Instant::now());
                    self.phase = Phase::Over;
                }
                None
            }
        }
    }

    /// Hands a request to a queue that has one free.
    fn make(
        &mut self,
        link: usize,
        step: Step,
        done: &mut Vec<Done>,
        now: Instant,
    ) -> Result<(), RunError> {
        let block_size = self.plan.namespace.block_size as usize;
        let (token, request) = self.requests.take(link);
        request.since = now;
        let (command, payload) = match step {
            Step::Read { lba, blocks } => {
                request.direction = Direction::Read;
                (request.lba, request.blocks) = (lba, blocks);
                let bytes = blocks as usize * block_size;
                let payload = match &self.model {
                    Some(model) => {
                        model.note(lba, blocks, &mut request.noted);
                        request.read_payload(bytes)
                    }
                    None => Payload::Discard(bytes as u32),
                };
                let range = BlockRange { slba: lba, blocks };
                (IoCommand::Read { range, fua: false }, payload)
            }
            Step::Write { lba, blocks } => {
                request.direction = Direction::Write;
                (request.lba, request.blocks) = (lba, blocks);
                let bytes = blocks as usize * block_size;
                let payload = match &mut self.model {
                    Some(model) => {
                        model.send(lba, request.buffer(bytes))?;
                        request.write_payload(bytes)
                    }
                    None => self.requests.filler(bytes),
                };
                let range = BlockRange { slba: lba, blocks };
                let fua = self.job.fua;
                (IoCommand::Write { range, fua }, payload)
            }
            Step::Flush => {
                request.direction = Direction::Flush;
                (request.lba, request.blocks) = (0, 0);
                (IoCommand::Flush, Payload::None)
            }
        };
        let command = command.to_command(self.plan.namespace.id);
        let association = self.association.as_mut();
        let association = association.expect("requests are made while connected");
        if let Err(payload) = association.submit(link, token, &command, payload, now) {
            // The queue holds as many commands as there are requests, so it can only be lost.
            done.push(Done {
                token,
                outcome: Err(CommandError::Lost),
                payload,
            });
            self.complete(done, now)?;
        }
        Ok(())
    }

    /// Handles requests that are over.
    fn complete(&mut self, done: &mut Vec<Done>, now: Instant) -> Result<(), RunError> {
        for Done {
            token,
            outcome,
            payload,
        } in done.drain(..)
        {
            let request = self.requests.get(token);
            let (direction, lba, blocks) = (request.direction, request.lba, request.blocks);
            let latency = now.saturating_duration_since(request.since);
            let bytes = blocks as usize * self.plan.namespace.block_size as usize;
            request.take_back(payload);
            if let Some(model) = &mut self.model {
                match (direction, &outcome) {
                    (Direction::Write, outcome) => model.finish(lba, blocks, outcome.is_ok())?,
                    (Direction::Read, Ok(_)) => {
                        let noted = std::mem::take(&mut request.noted);
                        let data = request.buffer(bytes);
                        let checked = model.check(lba, data, &noted, &mut self.faults)?;
                        request.noted = noted;
                        self.findings.verified += checked.verified;
                        self.findings.unwritten += checked.unwritten;
                    }
                    (Direction::Read, Err(_)) | (Direction::Flush, _) => {}
                }
            }
            self.requests.put_back(token);
            match outcome {
                Ok(_) if self.counting.is_some() => self.tally.record(direction, bytes, latency),
                Ok(_) => {}
                Err(CommandError::Lost) => {
                    if matches!(self.phase, Phase::Check { .. }) && direction == Direction::Read {
                        self.again.push((lba, blocks));
                    }
                }
                Err(error) => {
                    self.tally.failed += 1;
                    self.tell(Event::Failed {
                        direction,
                        lba,
                        blocks,
                        error,
                    });
                }
            }
        }
        for fault in std::mem::take(&mut self.faults) {
            *self.findings.faults.entry(fault.kind).or_default() += 1;
            self.tell(Event::Fault(Box::new(fault)));
        }
        Ok(())
    }

    /// The association is lost: everything in flight is, too. Connects again if the job says so.
    fn lost(&mut self, error: AssociationError, stop: &AtomicBool) -> Result<(), RunError> {
        let start = Instant::now();
        if let Some(association) = self.association.take() {
            let mut done = std::mem::take(&mut self.done);
            association.abandon(&mut done);
            self.complete(&mut done, start)?;
            self.done = done;
        }
        if error.is_timeout() {
            self.tally.failed += 1;
            self.tally.timed_out += 1;
        }
        self.tell(Event::Disconnected(error));
        let last = match self.job.on_disconnect {
            // Nothing is left to be done but what is in flight, and that is lost.
            _ if self.phase == Phase::Drain { then_check: false } => None,
            OnDisconnect::Stop => None,
            OnDisconnect::Reconnect(_) => match connect(&self.job, start, stop) {
                Ok(Some(association)) => {
                    let facts = association.facts().expect("the association is up");
                    if facts.namespaces.first() != Some(&self.plan.namespace) {
                        return Err(RunError::OtherNamespace);
                    }
                    self.association = Some(association);
                    self.reconnects += 1;
                    let after = start.elapsed();
                    self.tell(Event::Reconnected { after });
                    return Ok(());
                }
                Ok(None) => None,
                Err(error) => Some(error),
            },
        };
        if let Some(error) = last {
            self.tell(Event::GaveUp(error));
        }
        self.ending = Ending::Disconnected;
        self.stop_counting(start);
        self.phase = Phase::Over;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RunError> {
        if let Some(model) = &self.model {
            model.sync()?;
        }
        if let Some(association) = self.association.take() {
            association.close();
        }
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < MOST_EVENTS {
            self.events.push(event);
        }
    }

    /// What has happened since the last call.
    pub fn events(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    /// What has been done so far.
    pub fn progress(&self) -> Progress {
        Progress {
            ios: self.tally.count(),
            bytes: self.tally.bytes(),
            failed: self.tally.failed,
            verified: self.findings.verified,
            wrong: self.findings.fault_count(),
            checking: matches!(self.phase, Phase::Check { .. }),
        }
    }

    /// The namespace that the run is about.
    pub fn namespace(&self) -> &Namespace {
        &self.plan.namespace
    }

    /// The result.
    pub fn report(&self) -> Report {
        let only = self.job.verify == Verify::Only;
        let block = u64::from(self.plan.namespace.block_size);
        let size = |blocks: u32| u64::from(blocks) * block;
        let mixed = self.job.pattern.is_mixed() && !only;
        Report {
            job: format!(
                "{} ns {}",
                self.job.controller.subsystem, self.plan.namespace.id
            ),
            cores: self.job.core.and_then(|core| CoreMask::of([core]).ok()),
            workload: if only {
                "verify".to_owned()
            } else {
                self.job.pattern.to_string()
            },
            read_percent: mixed.then_some(self.job.read_percent),
            distribution: Some(self.job.distribution)
                .filter(|&d| d != Distribution::Uniform && !only)
                .map(|d| d.to_string()),
            ending: self.ending,
            queue_depth: u32::from(self.job.depth),
            queues: self.job.controller.io_queues,
            io_size: (size(self.plan.min_blocks), size(self.plan.max_blocks)),
            runtime: self.runtime,
            tally: self.tally.clone(),
            findings: self.model.is_some().then(|| self.findings.clone()),
            cpu: self.cpu,
            reconnects: Some(self.reconnects),
        }
    }
}

fn pin(core: usize) -> Result<(), RunError> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let found = allowed.into_iter().find(|allowed| allowed.id == core);
    let pinned = found.is_some_and(core_affinity::set_for_current);
    pinned.then_some(()).ok_or(RunError::Core(core))
}

/// Connects; where the job says so, again and again until its time, counted from `start`, is over.
/// `None` where it was stopped.
fn connect(
    job: &Job,
    start: Instant,
    stop: &AtomicBool,
) -> Result<Option<Association>, AssociationError> {
    loop {
        let error = match attempt(job, stop) {
            Ok(association) => return Ok(association),
            Err(error) => error,
        };
        match job.on_disconnect {
            _ if stop.load(Ordering::Relaxed) => return Ok(None),
            OnDisconnect::Reconnect(patience) if start.elapsed() < patience => {
                tracing::info!("{error}; trying again");
                std::thread::sleep(RETRY_EVERY);
            }
            _ => return Err(error),
        }
    }
}

/// One attempt to connect; `None` where it was stopped.
fn attempt(job: &Job, stop: &AtomicBool) -> Result<Option<Association>, AssociationError> {
    let now = Instant::now();
    let mut association = Association::begin(job.address, &job.controller, job.depth, now)?;
    while !association.bring_up(Instant::now())? {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        std::thread::yield_now();
    }
    Ok(Some(association))
}
