//! Who looks after a controller: a thread that owns its admin queue. Reactors never wait for it.
//!
//! It aborts commands, resets the controller and brings it back, takes back what channels leave
//! behind, and now and then looks whether the controller is still there. Each of these is bounded;
//! when it can't bring the controller back, it takes its right to access memory, and all I/O ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::admin::{Admin, QueueRings};
use super::bar::Bar;
use super::bring_up;
use super::channel::Remains;
use super::error::Fault;
use super::gate::{Gate, Phase};
use super::lane::Lane;
use super::shadow::ShadowPages;
use super::shape::{Abilities, Shape};
use crate::lock;
use crate::nvme::log_page::Health;
use crate::nvme::property::{Capabilities, Property};

/// Between two looks at a controller that nobody complains about.
const LOOK: Duration = Duration::from_millis(250);

/// Attempts to bring a controller back before it is given up.
const ATTEMPTS: usize = 2;

/// What channels and the control thread ask of the keeper.
#[derive(Debug)]
pub(super) enum Ask {
    /// A command takes too long.
    Abort { epoch: u32, queue: u16, cid: u16 },
    /// The controller does not work as it was after `epoch` resets.
    Reset { epoch: u32, reason: String },
    /// A channel has emptied its rings.
    Revive,
    /// A channel is closed.
    Return { lane: Box<Lane>, remains: Remains },
    /// Reset it in any case, and say how that went.
    ResetNow(SyncSender<Result<(), String>>),
    /// Read its health.
    Health(SyncSender<Result<Box<Health>, Fault>>),
    /// Shut it down, and be done.
    Stop,
}

/// What the keeper shares with the devices.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// Lanes that no channel has.
    pub(super) spares: Mutex<Vec<Lane>>,
    /// The last reset that was asked for, and no fault of anybody: after how many it was.
    pub(super) asked: AtomicU32,
    /// Why the controller was given up.
    pub(super) failure: OnceLock<String>,
}

/// The keeper of one controller, on its thread.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) name: String,
    pub(super) bar: Arc<dyn Bar>,
    pub(super) admin: Admin,
    pub(super) capabilities: Capabilities,
    pub(super) abilities: Abilities,
    pub(super) shapes: Vec<Shape>,
    /// Its doorbells in memory, if it has them there.
    pub(super) shadow: Option<Arc<ShadowPages>>,
    /// Every lane: how the device knows it, and whose it is.
    pub(super) lanes: Vec<(QueueRings, Arc<Gate>)>,
    pub(super) common: Arc<Common>,
    /// Resets so far.
    pub(super) epoch: u32,
}

impl Keeper {
    /// Looks after the controller until it is told to stop, or nobody uses it any more.
    pub(super) fn run(mut self, asks: &Receiver<Ask>) {
        let mut next_look = Instant::now() + LOOK;
        loop {
            let rest = next_look.saturating_duration_since(Instant::now());
            match asks.recv_timeout(rest) {
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(ask) => self.serve(ask),
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    next_look = Instant::now() + LOOK;
                }
            }
            self.revive();
        }
        self.finish();
    }

    fn has_failed(&self) -> bool {
        self.common.failure.get().is_some()
    }

    fn serve(&mut self, ask: Ask) {
        match ask {
            Ask::Abort { epoch, queue, cid } if epoch == self.epoch && !self.has_failed() => {
                tracing::warn!(
                    controller = self.name,
                    "queue {queue}: command {cid:#06x} takes too long and is aborted"
                );
                if let Err(fault) = self.admin.abort(queue, cid) {
                    self.reset(&fault.to_string());
                }
            }
            Ask::Reset { epoch, reason } if epoch == self.epoch => self.reset(&reason),
            // It was reset since.
            Ask::Abort { .. } | Ask::Reset { .. } => {}
            Ask::Return { lane, remains } => self.take_back(*lane, remains),
            Ask::ResetNow(answer) => {
                self.common.asked.store(self.epoch + 1, Ordering::Relaxed);
                self.reset("asked for");
                let outcome = match self.common.failure.get() {
                    Some(reason) => Err(reason.clone()),
                    None => Ok(()),
                };
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(outcome);
            }
            Ask::Health(answer) => {
                let health = match self.has_failed() {
                    true => Err(Fault::Gone),
                    false => self.admin.health().map(Box::new),
                };
                let _ = answer.send(health);
            }
            Ask::Revive | Ask::Stop => {}
        }
    }

    /// Whether the controller is there and works; what it has to tell.
    fn look(&mut self) {
        if self.has_failed() {
            return;
        }
        match bring_up::status(&*self.bar) {
            Err(fault) => return self.fail(&fault.to_string()),
            Ok(status) if status.fatal => return self.reset("it reports a fatal error (CSTS.CFS)"),
            Ok(status) if !status.ready => return self.reset("it has stopped by itself"),
            Ok(_) => {}
        }
        loop {
            match self.admin.event() {
                Ok(Some(event)) => {
                    let name = &self.name;
                    tracing::warn!(controller = name, "asynchronous event: {event:?}");
                }
                Ok(None) => break,
                Err(fault) => return self.reset(&fault.to_string()),
            }
        }
    }

    /// Stops the controller and brings it back. What was in flight is sent again by its channel.
    fn reset(&mut self, reason: &str) {
        if self.has_failed() {
            return;
        }
        tracing::warn!(controller = self.name, "reset: {reason}");
        self.epoch += 1;
        self.set_all(Phase::Halted);
        let mut outcome = self.restart();
        for _ in 1..ATTEMPTS {
            match &outcome {
                Ok(()) | Err(Fault::Gone | Fault::Changed(_)) => break,
                Err(fault) => {
                    tracing::warn!(controller = self.name, "reset once more: {fault}");
                    outcome = self.restart();
                }
            }
        }
        match outcome {
            Ok(()) => tracing::info!(controller = self.name, "is back"),
            Err(fault) => self.fail(&fault.to_string()),
        }
    }

    fn restart(&mut self) -> Result<(), Fault> {
        bring_up::disable(&*self.bar, &self.capabilities)?;
        // From now on it accesses no memory.
        for (_, gate) in &self.lanes {
            if gate.get().0 == Phase::Halted {
                gate.set(Phase::Down, self.epoch);
            }
        }
        for lane in lock::exclusive(&self.common.spares).iter_mut() {
            lane.queue.reset();
            lane.gate.clean(self.epoch);
        }
        if bring_up::capabilities(&*self.bar)? != self.capabilities {
            return Err(Fault::Changed("CAP register"));
        }
        let rings = self.admin.renew();
        bring_up::enable(&*self.bar, &self.capabilities, rings)?;
        let version = self.bar.read32(Property::Version.code());
        let abilities = Abilities::ask(&mut self.admin, version)?;
        if abilities.identity != self.abilities.identity {
            return Err(Fault::Changed("serial number, model or firmware"));
        }
        if abilities != self.abilities {
            return Err(Fault::Changed("set of abilities"));
        }
        for shape in &self.shapes {
            let again = Shape::ask(&mut self.admin, shape.nsid, &abilities.identity)?;
            if again.as_ref() != Ok(shape) {
                return Err(Fault::Changed("namespace"));
            }
        }
        if let Some(pages) = &self.shadow
            && !self.admin.shadow_doorbells(pages.renew())?
        {
            return Err(Fault::Changed("set of abilities"));
        }
        let wanted = self.lanes.len() as u16;
        if self.admin.set_queues(wanted)? < wanted {
            return Err(Fault::Changed("number of queues"));
        }
        self.abilities.introduce(&mut self.admin)
    }

    /// Makes queues known whose rings are empty.
    fn revive(&mut self) {
        if self.has_failed() {
            return;
        }
        for index in 0..self.lanes.len() {
            let (rings, gate) = &self.lanes[index];
            if gate.get().0 != Phase::Clean {
                continue;
            }
            match self.admin.create(*rings) {
                Ok(()) => gate.set(Phase::Live, self.epoch),
                Err(fault) => return self.fail(&fault.to_string()),
            }
        }
    }

    /// Gives the controller up: it accesses no memory any more, and all I/O ends.
    fn fail(&mut self, reason: &str) {
        tracing::error!(
            controller = self.name,
            "given up, all its I/O ends with errors: {reason}"
        );
        self.bar.stop_dma();
        let _ = self.common.failure.set(reason.to_owned());
        self.set_all(Phase::Gone);
    }

    fn set_all(&self, phase: Phase) {
        for (_, gate) in &self.lanes {
            gate.set(phase, self.epoch);
        }
    }

    /// Makes a lane spare again, once the device can't touch what is in its queue.
    fn take_back(&mut self, mut lane: Lane, remains: Remains) {
        let id = lane.queue.id();
        if lane.gate.get().0 == Phase::Live && lane.queue.in_flight() > 0 {
            match self.admin.delete(id) {
                Ok(()) => lane.gate.set(Phase::Down, self.epoch),
                Err(fault) => self.reset(&fault.to_string()),
            }
        }
        // Its phase is live with nothing in flight, or one in which the device is stopped.
        drop(remains);
        if lane.gate.get().0 == Phase::Down {
            lane.queue.reset();
            lane.gate.clean(self.epoch);
        }
        lock::exclusive(&self.common.spares).push(lane);
    }

    /// The end: what the controller holds goes to its media, and it is disabled.
    fn finish(mut self) {
        if self.has_failed() {
            return;
        }
        self.set_all(Phase::Halted);
        let stopped = bring_up::shut_down(&*self.bar, self.abilities.shutdown)
            .and_then(|()| bring_up::disable(&*self.bar, &self.capabilities));
        match stopped {
            Ok(()) => {
                let _ = self.common.failure.set("it was detached".to_owned());
                self.set_all(Phase::Gone);
            }
            Err(fault) => self.fail(&fault.to_string()),
        }
    }
}
