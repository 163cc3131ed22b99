//! The same methods for controllers of this machine.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::{Value, json};

use super::{Attach, INTERVAL, Of, show};
use crate::bdev::nvme::pcie::{Identity, NvmeError};
use crate::control::{Answer as Later, LocalInfo, System};
use crate::nvme::log_page::Health;
use crate::rpc::methods::{Answer, Pending};
use crate::rpc::{Outcome, RpcError};

/// How long a controller may take to come up or to be reset: CAP.TO ends at 128 s, and a reset has two attempts.
const PATIENCE: Duration = Duration::from_secs(300);

/// Begins to attach one.
pub(super) fn attach(system: &mut System, p: &Attach) -> Result<Answer, RpcError> {
    let misplaced = [
        ("trsvcid", p.trsvcid.is_some()),
        ("adrfam", p.adrfam.is_some()),
        ("subnqn", p.subnqn.is_some()),
        ("hostnqn", p.hostnqn.is_some()),
        ("hdgst", p.hdgst),
        ("ddgst", p.ddgst),
        ("multipath", p.multipath.is_some()),
    ];
    if let Some((parameter, _)) = misplaced.iter().find(|(_, given)| *given) {
        return Err(RpcError::invalid_params(format!(
            "{parameter}: a PCIe controller has none; leave it out"
        )));
    }
    system.attach_local(&p.name, &address(&p.traddr), p.num_io_queues)?;
    if p.wait_for_attach == Some(false) {
        system.locals.do_not_await(&p.name);
        return Ok(Value::Array(Vec::new()).into());
    }
    Ok(Answer::Later(Box::new(Attaching {
        name: p.name.clone(),
        until: Instant::now() + PATIENCE,
    })))
}

/// A PCI address in full. SPDK takes it without the domain, too.
fn address(text: &str) -> String {
    match text.matches(':').count() {
        1 => format!("0000:{text}").to_ascii_lowercase(),
        _ => text.to_ascii_lowercase(),
    }
}

/// A controller that is coming up.
#[derive(Debug)]
struct Attaching {
    name: String,
    until: Instant,
}

impl Pending for Attaching {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        let info = match system.locals.info(&self.name) {
            Ok(info) => info,
            Err(error) => return Some(Err(error.into())),
        };
        if info.controller.is_some() {
            return Some(Ok(info.devices.into()));
        }
        let late = || (now >= self.until).then(|| "it does not come up".to_owned());
        let reason = info.failure.or_else(late)?;
        let mut detachment = match system.detach(&self.name) {
            Ok(detachment) => detachment,
            Err(error) => return Some(Err(error.into())),
        };
        // It has no devices, so that this is all of it.
        let _ = system.poll_detachment(&mut detachment);
        let message = format!("controller {} cannot be attached: {reason}", self.name);
        Some(Err(RpcError::errno(Errno::IO, message)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}

/// A controller as SPDK describes it.
pub(super) fn describe(info: &LocalInfo) -> Value {
    let state = match (&info.controller, &info.failure) {
        (_, Some(_)) => "failed",
        (Some(_), None) => "enabled",
        (None, None) => "resetting",
    };
    let mut controller = json!({
        "state": state,
        "trid": {"trtype": "PCIe", "traddr": info.address},
        "cntlid": info.controller.as_ref().map_or(0, |c| c.identity().cntlid),
        "host": {"nqn": "", "addr": "", "svcid": ""},
    });
    if let Some(why) = &info.failure {
        controller["trouble"] = why.clone().into();
    }
    json!({"name": info.name, "ctrlrs": [controller]})
}

/// Begins to reset one.
pub(super) fn reset(system: &mut System, name: String) -> Result<Answer, RpcError> {
    let answer = system.locals.reset(&name)?;
    Ok(Answer::Later(Box::new(Resetting {
        name,
        answer,
        until: Instant::now() + PATIENCE,
    })))
}

#[derive(Debug)]
struct Resetting {
    name: String,
    answer: Later<Result<(), String>>,
    until: Instant,
}

impl Pending for Resetting {
    fn poll(&mut self, _: &mut System, now: Instant) -> Option<Outcome> {
        let late = || (now >= self.until).then(|| Err("it does not come back".to_owned()));
        let answer = self.answer.poll().or_else(late)?;
        Some(answer.map(|()| true.into()).map_err(|reason| {
            RpcError::errno(Errno::IO, format!("controller {}: {reason}", self.name))
        }))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}

/// Begins to ask one for its health.
pub(super) fn health(system: &mut System, name: String) -> Result<Answer, RpcError> {
    let answer = system.locals.ask_health(&name)?;
    Ok(Answer::Later(Box::new(Asking {
        name,
        answer,
        until: Instant::now() + PATIENCE,
    })))
}

#[derive(Debug)]
struct Asking {
    name: String,
    answer: Later<Result<Box<Health>, NvmeError>>,
    until: Instant,
}

impl Pending for Asking {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        let failed = |reason: String| {
            let message = format!("controller {}: {reason}", self.name);
            Err(RpcError::errno(Errno::IO, message))
        };
        let answer = match self.answer.poll() {
            Some(answer) => answer,
            None if now >= self.until => return Some(failed("there is no answer".to_owned())),
            None => return None,
        };
        let health = match answer {
            Ok(health) => health,
            Err(error) => return Some(failed(error.to_string())),
        };
        let info = match system.locals.info(&self.name) {
            Ok(info) => info,
            Err(error) => return Some(Err(error.into())),
        };
        let of = info.controller.as_ref().map(|c| of(c.identity()));
        Some(Ok(show(
            &health,
            of.unwrap_or_default(),
            Some(info.address),
        )))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}

fn of(identity: &Identity) -> Of {
    Of {
        model: identity.model.clone(),
        serial: identity.serial.clone(),
        firmware: identity.firmware.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::thread;

    use super::*;
    use crate::bdev::nvme::pcie::Options;
    use crate::bdev::nvme::pcie::scripted::Scripted;
    use crate::rpc::testing::{call_and_wait, end, system, system_with_reactor};

    #[test]
    fn addresses_are_taken_with_and_without_the_domain() {
        assert_eq!(address("5E:00.0"), "0000:5e:00.0");
        assert_eq!(address("0001:5e:00.0"), "0001:5e:00.0");
    }

    #[test]
    fn what_is_no_controller_is_told_and_leaves_nothing() {
        let mut system = system();
        let attach = |more: Value| {
            let mut params = json!({"name": "n", "trtype": "PCIe", "traddr": "ffff:ff:1f.7"});
            for (key, value) in more.as_object().unwrap() {
                params[key] = value.clone();
            }
            params
        };
        for (more, why) in [
            (json!({}), "ffff:ff:1f.7"),
            (json!({"traddr": "a disk"}), "a disk"),
            (json!({"subnqn": "nqn.2014-08.org.nvmexpress:a"}), "subnqn"),
            (json!({"multipath": "failover"}), "multipath"),
            (json!({"name": ""}), "name"),
        ] {
            let refused = call_and_wait(&mut system, "bdev_nvme_attach_controller", attach(more));
            let message = refused.unwrap_err().message;
            // A machine without VFIO says that first.
            let told = message.contains(why) || message.contains("/dev/vfio/vfio");
            assert!(told, "{message}");
        }
        let all = call_and_wait(&mut system, "bdev_nvme_get_controllers", Value::Null);
        assert_eq!(all.unwrap(), json!([]));
        for method in [
            "bdev_nvme_reset_controller",
            "bdev_nvme_get_controller_health_info",
            "bdev_nvme_detach_controller",
        ] {
            let refused = call_and_wait(&mut system, method, json!({"name": "n"}));
            assert_eq!(refused.unwrap_err().code, -19, "{method}");
        }
    }

    /// Moves a system on until something is true of it.
    fn until(system: &mut System, mut is_so: impl FnMut(&mut System) -> bool) {
        let start = Instant::now();
        while !is_so(system) {
            system.poll(Instant::now());
            assert!(start.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn ask(system: &mut System, method: &str, params: Value) -> Value {
        call_and_wait(system, method, params).unwrap()
    }

    /// An array of the namespace of a controller, and of two RAM disks m0 and m1.
    fn array(system: &mut System, device: &Arc<Scripted>) {
        system.bring_up_local(device.access(), Options::new("Nvme0"), None);
        until(system, |system| {
            let info = system.locals.info("Nvme0").unwrap();
            info.devices == ["Nvme0n1"]
        });
        for name in ["m0", "m1"] {
            let params = json!({"name": name, "num_blocks": 16384, "block_size": 512});
            ask(system, "bdev_malloc_create", params);
        }
        let members = ["Nvme0n1", "m0", "m1"];
        ask(
            system,
            "bdev_raid_create",
            json!({"name": "r", "raid_level": "raid5", "strip_size_kb": 64, "base_bdevs": members}),
        );
    }

    fn members(system: &mut System) -> Value {
        let arrays = ask(system, "bdev_raid_get_bdevs", json!({"category": "all"}));
        arrays[0]["num_base_bdevs_operational"].clone()
    }

    /// Whether nobody but the test has it: then the kernel has it back.
    fn is_dropped(device: &Arc<Scripted>) -> bool {
        Arc::strong_count(device) == 1
    }

    #[test]
    fn a_controller_that_is_wanted_back_leaves_its_array_and_is_dropped() {
        let mut system = system_with_reactor();
        let device = Scripted::new(16384, 9);
        array(&mut system, &device);
        assert_eq!(members(&mut system), 3);
        device.wanted.store(true, Ordering::Relaxed);
        until(&mut system, |_| is_dropped(&device));
        assert_eq!(members(&mut system), 2);
        let all = ask(&mut system, "bdev_nvme_get_controllers", Value::Null);
        assert_eq!(all, json!([]));
        let devices = ask(&mut system, "bdev_get_bdevs", Value::Null);
        assert!(!devices.to_string().contains("Nvme0"), "{devices}");
        end(system);
    }

    #[test]
    fn a_controller_that_is_wanted_back_stays_while_its_array_needs_it() {
        let mut system = system_with_reactor();
        let device = Scripted::new(16384, 9);
        array(&mut system, &device);
        ask(
            &mut system,
            "bdev_raid_remove_base_bdev",
            json!({"name": "m0"}),
        );
        device.wanted.store(true, Ordering::Relaxed);
        let start = Instant::now();
        until(&mut system, |_| start.elapsed() > Duration::from_secs(1));
        assert_eq!(members(&mut system), 2);
        assert!(!is_dropped(&device));
        ask(&mut system, "bdev_raid_delete", json!({"name": "r"}));
        until(&mut system, |_| is_dropped(&device));
        end(system);
    }
}
