//! Controllers of this machine that are polled directly, and the devices that their namespaces are.
//!
//! All of them see the arena of the process, through one VFIO container that is opened for the first
//! of them. What takes a controller a while (to come up, to reset, to shut down) is waited for by
//! threads that do nothing else; the control thread looks in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ControlError;
use super::detachment::Detachment;
use super::devices::Kind;
use super::system::System;
use crate::bdev::nvme::pcie::vfio::{Container, IovaMode, VfioError};
use crate::bdev::nvme::pcie::{Access, Controller, NvmeError, Options};
use crate::memory::Arena;
use crate::nvme::log_page::Health;

/// How often controllers are looked at that are coming up.
const INTERVAL: Duration = Duration::from_millis(10);

/// How often controllers are looked at that work: one may be wanted back.
const WATCH: Duration = Duration::from_millis(250);

/// I/O queue pairs for each reactor that there is: for more than one namespace, and for a while of
/// overlap when a device changes hands.
const QUEUES_PER_REACTOR: usize = 4;

/// All controllers of this machine that are polled.
#[derive(Debug, Default)]
pub struct Locals {
    container: Option<Container>,
    iova_mode: IovaMode,
    controllers: BTreeMap<String, Local>,
    /// Those that shut down.
    leaving: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Local {
    address: String,
    /// I/O queue pairs that were asked for, if not the usual number.
    queues: Option<u16>,
    /// Whoever attached it did not wait until it was up.
    unawaited: bool,
    stage: Stage,
    /// The devices that it has become.
    devices: Vec<String>,
    /// It is wanted back, and on its way.
    leaving: Option<Detachment>,
    /// Whether it was said that it is wanted back and cannot go.
    told: bool,
}

#[derive(Debug)]
enum Stage {
    ComingUp(Answer<Result<Controller, NvmeError>>),
    Up(Arc<Controller>),
    /// It did not come up, and why.
    Failed(String),
}

/// Something that a thread is waiting for.
#[derive(Debug)]
pub struct Answer<T>(Receiver<T>);

impl<T: Send + 'static> Answer<T> {
    /// Has a thread find it out.
    fn of(find_out: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::spawn(move || {
            // Nobody may want to know any more.
            let _ = sender.send(find_out());
        });
        Self(receiver)
    }

    /// The answer, once it is there.
    pub fn poll(&self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// What is known of one of them.
#[derive(Debug)]
pub struct LocalInfo {
    /// Its name.
    pub name: String,
    /// Its PCI address.
    pub address: String,
    /// I/O queue pairs that were asked for, if not the usual number.
    pub queues: Option<u16>,
    /// Whether a start of the process goes on without it; see [`Locals::do_not_await`].
    pub unawaited: bool,
    /// The controller, once it is up.
    pub controller: Option<Arc<Controller>>,
    /// Why it is of no use, if it is not.
    pub failure: Option<String>,
    /// The devices that it has become.
    pub devices: Vec<String>,
}

impl Locals {
    /// Says which addresses controllers are given, before the first one is attached.
    pub fn set_iova_mode(&mut self, mode: IovaMode) {
        self.iova_mode = mode;
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.controllers.keys().map(String::as_str)
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.controllers.contains_key(name)
    }

    /// What is known of one.
    ///
    /// # Errors
    /// [`ControlError::NoController`].
    pub fn info(&self, name: &str) -> Result<LocalInfo, ControlError> {
        let local = self.find(name)?;
        let (controller, failure) = match &local.stage {
            Stage::ComingUp(_) => (None, None),
            Stage::Up(controller) => {
                let failure = controller.failure().map(str::to_owned);
                (Some(controller.clone()), failure)
            }
            Stage::Failed(why) => (None, Some(why.clone())),
        };
        Ok(LocalInfo {
            name: name.to_owned(),
            address: local.address.clone(),
            queues: local.queues,
            unawaited: local.unawaited,
            controller,
            failure,
            devices: local.devices.clone(),
        })
    }

    /// A start from a saved configuration is not to wait for this controller either.
    pub fn do_not_await(&mut self, name: &str) {
        if let Some(local) = self.controllers.get_mut(name) {
            local.unawaited = true;
        }
    }

    /// Begins to reset a controller; what is in flight is sent again.
    ///
    /// # Errors
    /// [`ControlError::NoController`].
    pub fn reset(&self, name: &str) -> Result<Answer<Result<(), String>>, ControlError> {
        let controller = self.up(name)?;
        Ok(Answer::of(move || controller.reset()))
    }

    /// Begins to read a controller's health log page.
    ///
    /// # Errors
    /// [`ControlError::NoController`].
    pub fn ask_health(
        &self,
        name: &str,
    ) -> Result<Answer<Result<Box<Health>, NvmeError>>, ControlError> {
        let controller = self.up(name)?;
        Ok(Answer::of(move || controller.health()))
    }

    /// Forgets one that holds no device any more: it is shut down.
    pub(super) fn forget(&mut self, name: &str) {
        let Some(local) = self.controllers.remove(name) else {
            return;
        };
        let left = thread::spawn(move || match local.stage {
            Stage::Up(controller) => shut_down(controller),
            // It must not outlive its name in silence.
            Stage::ComingUp(Answer(answer)) => {
                if let Ok(Ok(controller)) = answer.recv() {
                    controller.detach();
                }
            }
            Stage::Failed(_) => {}
        });
        self.leaving.retain(|thread| !thread.is_finished());
        self.leaving.push(left);
    }

    /// The devices of one.
    pub(super) fn devices_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        Some(&mut self.controllers.get_mut(name)?.devices)
    }

    /// Shuts all of them down, and waits for that. Nobody uses their devices any more.
    pub(super) fn stop(mut self) {
        let names: Vec<String> = self.names().map(str::to_owned).collect();
        names.iter().for_each(|name| self.forget(name));
        for thread in self.leaving {
            // One that panicked has ended as well.
            let _ = thread.join();
        }
    }

    /// Opens the controller at a PCI address.
    fn open(&mut self, address: &str, arena: &Arena) -> Result<Access, VfioError> {
        let container = match &mut self.container {
            Some(container) => container,
            none => none.insert(Container::new(std::slice::from_ref(arena), self.iova_mode)?),
        };
        container.open(address, arena)
    }

    fn find(&self, name: &str) -> Result<&Local, ControlError> {
        let found = self.controllers.get(name);
        found.ok_or_else(|| ControlError::NoController(name.to_owned()))
    }

    fn up(&self, name: &str) -> Result<Arc<Controller>, ControlError> {
        match &self.find(name)?.stage {
            Stage::Up(controller) => Ok(controller.clone()),
            Stage::ComingUp(_) => Err(ControlError::Invalid(format!(
                "controller {name} is still coming up; try again"
            ))),
            Stage::Failed(why) => Err(ControlError::Invalid(format!("controller {name}: {why}"))),
        }
    }
}

/// Shuts a controller down as soon as nobody asks it anything any more.
fn shut_down(mut controller: Arc<Controller>) {
    loop {
        match Arc::try_unwrap(controller) {
            Ok(alone) => return alone.detach(),
            Err(shared) => controller = shared,
        }
        thread::sleep(INTERVAL);
    }
}

impl System {
    /// Begins to attach a controller of this machine, which vfio-pci has; [`Locals::info`] shows how
    /// far it has come. `queues` is how many I/O queue pairs it is asked for, if not the usual.
    ///
    /// # Errors
    /// [`ControlError::ControllerExists`] where the name is taken, or the controller attached;
    /// [`ControlError::Vfio`].
    pub fn attach_local(
        &mut self,
        name: &str,
        address: &str,
        queues: Option<u16>,
    ) -> Result<(), ControlError> {
        if name.is_empty() {
            let reason = "a controller needs a name; give one that is not empty";
            return Err(ControlError::Invalid(reason.to_owned()));
        }
        let mut all = self.locals.controllers.iter();
        let same = all.find(|(_, local)| local.address == address);
        if let Some((other, _)) = same {
            return Err(ControlError::ControllerExists {
                name: other.clone(),
                what: "at this address; detach it first",
            });
        }
        if self.locals.contains(name) || self.remotes.contains(name) {
            return Err(ControlError::ControllerExists {
                name: name.to_owned(),
                what: "give another name",
            });
        }
        let reactors = self.reactors.as_ref().map_or(1, |r| r.ids().count());
        let usual = (reactors * QUEUES_PER_REACTOR).clamp(8, 256) as u16;
        let options = Options {
            queues: queues.unwrap_or(usual),
            ..Options::new(name)
        };
        let access = self.locals.open(address, &self.arena)?;
        self.bring_up_local(access, options, queues);
        Ok(())
    }

    /// Begins to bring a controller up that was opened; `queues` as they were asked for.
    pub(crate) fn bring_up_local(&mut self, access: Access, options: Options, queues: Option<u16>) {
        let name = options.name.clone();
        let local = Local {
            address: access.address.clone(),
            queues,
            unawaited: false,
            stage: Stage::ComingUp(Answer::of(move || Controller::attach(access, options))),
            devices: Vec::new(),
            leaving: None,
            told: false,
        };
        self.locals.controllers.insert(name, local);
    }

    /// Sees whether controllers have come up, or are wanted back. Returns when to look again at the latest.
    pub(super) fn poll_locals(&mut self, now: Instant) -> Option<Instant> {
        let names: Vec<String> = self.locals.names().map(str::to_owned).collect();
        let pauses = names.iter().filter_map(|name| self.poll_local(name));
        pauses.min().map(|pause| now + pause)
    }

    /// Sees what has become of one. Says when to look again.
    fn poll_local(&mut self, name: &str) -> Option<Duration> {
        let local = self.locals.controllers.get_mut(name)?;
        let answer = match &local.stage {
            Stage::ComingUp(answer) => answer,
            Stage::Up(controller) if controller.is_wanted_back() => return Some(self.let_go(name)),
            Stage::Up(_) => return Some(WATCH),
            Stage::Failed(_) => return None,
        };
        let controller = match answer.poll() {
            None => return Some(INTERVAL),
            Some(Err(error)) => {
                tracing::error!("controller {name}: {error}");
                local.stage = Stage::Failed(error.to_string());
                return None;
            }
            Some(Ok(controller)) => Arc::new(controller),
        };
        local.stage = Stage::Up(controller.clone());
        for namespace in controller.namespaces() {
            let device = namespace.info().name.clone();
            let kind = Kind::Nvme {
                controller: name.to_owned(),
            };
            match self.add_device(namespace, kind) {
                Ok(()) => {
                    if let Some(devices) = self.locals.devices_mut(name) {
                        devices.push(device);
                    }
                }
                Err(error) => tracing::error!("controller {name}: {error}"),
            }
        }
        Some(WATCH)
    }

    /// The kernel wants a controller back: it goes as if it had been asked to, and is asked again for as long as something
    /// cannot do without it.
    fn let_go(&mut self, name: &str) -> Duration {
        let leaving = self.locals.controllers.get_mut(name);
        let under_way = leaving.and_then(|local| local.leaving.take());
        let gone = under_way.map_or_else(|| self.detach(name), Ok);
        let gone = gone.map(|mut detachment| (self.poll_detachment(&mut detachment), detachment));
        let refused = match gone {
            Ok((Some(Ok(())), _)) => {
                tracing::warn!("controller {name}: the kernel wanted it back, and has it");
                return INTERVAL;
            }
            Ok((None, detachment)) => {
                if let Some(local) = self.locals.controllers.get_mut(name) {
                    local.leaving = Some(detachment);
                }
                return INTERVAL;
            }
            Ok((Some(Err(error)), _)) | Err(error) => error,
        };
        if let Some(local) = self.locals.controllers.get_mut(name)
            && !std::mem::replace(&mut local.told, true)
        {
            tracing::error!(
                "controller {name}: the kernel wants it back, and waits; it cannot go: {refused}"
            );
        }
        WATCH
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_answer_is_there_when_its_thread_has_found_out() {
        let (go, wait) = mpsc::channel::<()>();
        let answer = Answer::of(move || wait.recv().is_ok());
        assert_eq!(answer.poll(), None);
        go.send(()).unwrap();
        let found = loop {
            match answer.poll() {
                Some(found) => break found,
                None => thread::yield_now(),
            }
        };
        assert!(found);
    }
}
