//! Attaching everything that a discovery service knows, in one call.

use std::time::Instant;

use rustix::io::Errno;
use serde::Deserialize;

use super::{Answer, Attach, INTERVAL, PATIENCE, Params, Pending};
use crate::bdev::nvme::tcp::{Discovery, Found, TcpOptions};
use crate::control::{ControlError, System};
use crate::nvme::nqn::DISCOVERY;
use crate::rpc::{Outcome, RpcError};

/// The port of discovery services where none is given.
const PORT: &str = "8009";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartDiscovery {
    name: String,
    trtype: String,
    traddr: String,
    adrfam: Option<String>,
    trsvcid: Option<String>,
    hostnqn: Option<String>,
    wait_for_attach: Option<bool>,
    ctrlr_loss_timeout_sec: Option<i64>,
    reconnect_delay_sec: Option<u32>,
    fast_io_fail_timeout_sec: Option<u32>,
}

/// A service that is being asked, and then its controllers, which are being attached.
#[derive(Debug)]
struct Discovering {
    name: String,
    options: TcpOptions,
    waits: bool,
    service: Option<Discovery>,
    /// Controllers that are waited for.
    begun: Vec<String>,
    until: Instant,
}

pub(super) fn bdev_nvme_start_discovery(
    system: &mut System,
    params: Params,
) -> Result<Answer, RpcError> {
    let p: StartDiscovery = params.read()?;
    if p.name.is_empty() {
        return Err(RpcError::invalid_params(
            "name: controllers need a name to begin with; give one that is not empty",
        ));
    }
    let service = Attach {
        name: p.name,
        trtype: p.trtype,
        traddr: p.traddr,
        adrfam: p.adrfam,
        trsvcid: p.trsvcid.or_else(|| Some(PORT.to_owned())),
        subnqn: Some(DISCOVERY.to_owned()),
        hostnqn: p.hostnqn,
        hdgst: false,
        ddgst: false,
        multipath: None,
        num_io_queues: None,
        ctrlr_loss_timeout_sec: p.ctrlr_loss_timeout_sec,
        reconnect_delay_sec: p.reconnect_delay_sec,
        fast_io_fail_timeout_sec: p.fast_io_fail_timeout_sec,
        wait_for_attach: None,
        prchk_reftag: false,
        prchk_guard: false,
        allow_unrecognized_csi: false,
        disable_sq_flow_control: false,
    };
    if service.is_pcie()? {
        return Err(RpcError::invalid_params(
            "trtype: PCIe controllers are attached one by one; discovery is for TCP",
        ));
    }
    let address = service.address()?;
    let options = service.options(&system.remotes.defaults)?;
    let discovery = Discovery::begin(&options, address);
    let discovery = discovery.map_err(|error| RpcError::errno(Errno::AGAIN, error.to_string()))?;
    Ok(Answer::Later(Box::new(Discovering {
        name: service.name,
        options,
        waits: p.wait_for_attach.unwrap_or(false),
        service: Some(discovery),
        begun: Vec::new(),
        until: Instant::now() + PATIENCE,
    })))
}

impl Discovering {
    /// Begins to attach what is not attached yet.
    fn attach(&mut self, system: &mut System, all: Vec<Found>) -> Result<(), ControlError> {
        let remotes = &mut system.remotes;
        let mut numbers = 0..;
        for found in all {
            let options = TcpOptions {
                subsystem: found.subsystem,
                ..self.options.clone()
            };
            let known = remotes.of_subsystem(&options.subsystem, &options.host);
            let (name, others) = match known {
                Some(name) => (name.to_owned(), &found.addresses[..]),
                None => {
                    let name = numbers
                        .by_ref()
                        .map(|number: u32| format!("{}{number}", self.name))
                        .find(|name| !remotes.contains(name))
                        .expect("there are more numbers than controllers");
                    remotes.attach(&name, options.clone(), found.addresses[0])?;
                    if !self.waits {
                        remotes.do_not_await(&name);
                    }
                    self.begun.push(name.clone());
                    (name, &found.addresses[1..])
                }
            };
            for address in others {
                match remotes.add_address(&name, &options, *address) {
                    // It has that one.
                    Ok(()) | Err(ControlError::ControllerExists { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Pending for Discovering {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        if let Some(service) = &self.service {
            let failed = |reason: String| {
                let message = format!("discovery {}: {reason}", self.name);
                Err(RpcError::errno(Errno::IO, message))
            };
            match service.poll() {
                None if now < self.until => return None,
                None => return Some(failed("there is no answer".to_owned())),
                Some(Err(reason)) => return Some(failed(reason)),
                Some(Ok(all)) => {
                    self.service = None;
                    if let Err(error) = self.attach(system, all) {
                        return Some(Err(error.into()));
                    }
                }
            }
        }
        if !self.waits {
            return Some(Ok(true.into()));
        }
        let mut absent = Vec::new();
        for name in &self.begun {
            // One that was detached meanwhile is not waited for.
            let Ok(info) = system.remotes.info(name) else {
                continue;
            };
            if info.attached {
                continue;
            }
            if info.status.failed_rounds == 0 && now < self.until {
                return None;
            }
            absent.push(format!(
                "{name} ({})",
                info.status.trouble.as_deref().unwrap_or("no answer")
            ));
        }
        if absent.is_empty() {
            return Some(Ok(true.into()));
        }
        let message = format!(
            "these cannot be attached, and are tried again until they are detached: {}",
            absent.join(", ")
        );
        Some(Err(RpcError::errno(Errno::IO, message)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}
