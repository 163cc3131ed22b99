//! Methods that attach and detach NVMe controllers, whose namespaces are devices.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::nvmf::absent;
use super::{Answer, Method, Params, Pending, When};
use crate::bdev::nvme::tcp::{HealthAnswer, Phase, Recovery, TcpOptions};
use crate::control::{ControlError, Detachment, RemoteDefaults, RemoteInfo, System};
use crate::nvme::log_page::Health;
use crate::nvme::{Nqn, ascii_text};
use crate::rpc::{Outcome, RpcError};

mod discovery;
mod pcie;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "bdev_nvme_attach_controller",
        aliases: &["construct_nvme_bdev"],
        when: When::Runtime,
        params: &[
            "name",
            "trtype",
            "traddr",
            "adrfam?",
            "trsvcid?",
            "subnqn?",
            "hostnqn?",
            "hdgst?",
            "ddgst?",
            "multipath?",
            "num_io_queues?",
            "ctrlr_loss_timeout_sec?",
            "reconnect_delay_sec?",
            "fast_io_fail_timeout_sec?",
            "wait_for_attach?",
            "prchk_reftag?",
            "prchk_guard?",
            "allow_unrecognized_csi?",
            "disable_sq_flow_control?",
        ],
        help: "Attaches an NVMe controller, or adds an address to a remote one, and answers its devices",
        run: bdev_nvme_attach_controller,
    },
    Method {
        name: "bdev_nvme_start_discovery",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "name",
            "trtype",
            "traddr",
            "adrfam?",
            "trsvcid?",
            "hostnqn?",
            "wait_for_attach?",
            "ctrlr_loss_timeout_sec?",
            "reconnect_delay_sec?",
            "fast_io_fail_timeout_sec?",
        ],
        help: "Attaches all NVMe/TCP controllers that a discovery service knows now, as NAME0, NAME1 and so on",
        run: discovery::bdev_nvme_start_discovery,
    },
    Method {
        name: "bdev_nvme_detach_controller",
        aliases: &["delete_nvme_controller"],
        when: When::Runtime,
        params: &["name"],
        help: "Detaches an NVMe controller; arrays go on without its devices",
        run: bdev_nvme_detach_controller,
    },
    Method {
        name: "bdev_nvme_get_controllers",
        aliases: &["get_nvme_controllers"],
        when: When::Runtime,
        params: &["name?"],
        help: "Describes all NVMe controllers, or one",
        run: bdev_nvme_get_controllers,
    },
    Method {
        name: "bdev_nvme_reset_controller",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Ends the connections to an NVMe controller and makes new ones; I/O waits meanwhile",
        run: bdev_nvme_reset_controller,
    },
    Method {
        name: "bdev_nvme_get_controller_health_info",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Tells what an NVMe controller says of its health",
        run: bdev_nvme_get_controller_health_info,
    },
    Method {
        name: "bdev_nvme_set_options",
        aliases: &["set_bdev_nvme_options"],
        when: When::Always,
        params: &[
            "action_on_timeout?",
            "timeout_us?",
            "timeout_admin_us?",
            "keep_alive_timeout_ms?",
            "io_queue_requests?",
            "ctrlr_loss_timeout_sec?",
            "reconnect_delay_sec?",
            "fast_io_fail_timeout_sec?",
            "delay_cmd_submit?",
            "disable_auto_failback?",
            "generate_uuids?",
            "nvme_error_stat?",
            "io_path_stat?",
            "allow_accel_sequence?",
            "enable_flush?",
        ],
        help: "Sets how NVMe controllers are kept that are attached from now on",
        run: bdev_nvme_set_options,
    },
];

/// The port of NVMe/TCP where none is given.
const PORT: &str = "4420";

/// Longest wait for a controller that is being attached; and for its health.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a call that is under way is looked at: nothing wakes the control thread for it.
const INTERVAL: Duration = Duration::from_millis(10);

/// The times that may be given for all controllers and for one, in seconds as SPDK has them.
#[derive(Clone, Copy)]
struct Times {
    ctrlr_loss_timeout_sec: Option<i64>,
    reconnect_delay_sec: Option<u32>,
    fast_io_fail_timeout_sec: Option<u32>,
}

impl Times {
    /// These times where they are given, and those of `before` elsewhere.
    fn over(self, before: Recovery) -> Result<Recovery, RpcError> {
        let seconds = |n: u32| Duration::from_secs(n.into());
        let mut recovery = before;
        if let Some(delay) = self.reconnect_delay_sec {
            recovery.reconnect_delay = seconds(delay);
        }
        match self.ctrlr_loss_timeout_sec {
            None => {}
            Some(-1) => recovery.loss_timeout = None,
            Some(loss) => {
                let loss = u32::try_from(loss).map_err(|_| {
                    RpcError::invalid_params(
                        "ctrlr_loss_timeout_sec: give seconds, or -1 for no limit",
                    )
                })?;
                recovery.loss_timeout = Some(seconds(loss));
            }
        }
        if let Some(fail) = self.fast_io_fail_timeout_sec {
            recovery.fast_io_fail = (fail > 0).then(|| seconds(fail));
        }
        let checked = recovery.check();
        checked.map_err(|error| RpcError::errno(Errno::INVAL, error.to_string()))?;
        Ok(recovery)
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Paths {
    Disable,
    Failover,
    Multipath,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attach {
    name: String,
    trtype: String,
    traddr: String,
    adrfam: Option<String>,
    trsvcid: Option<String>,
    subnqn: Option<String>,
    hostnqn: Option<String>,
    #[serde(default)]
    hdgst: bool,
    #[serde(default)]
    ddgst: bool,
    multipath: Option<Paths>,
    num_io_queues: Option<u16>,
    ctrlr_loss_timeout_sec: Option<i64>,
    reconnect_delay_sec: Option<u32>,
    fast_io_fail_timeout_sec: Option<u32>,
    wait_for_attach: Option<bool>,
    // What SPDK's rpc.py says of features in every call.
    #[serde(default)]
    prchk_reftag: bool,
    #[serde(default)]
    prchk_guard: bool,
    #[serde(default)]
    allow_unrecognized_csi: bool,
    #[serde(default)]
    disable_sq_flow_control: bool,
}

impl Attach {
    /// Refuses features of SPDK that there are not.
    fn check(&self) -> Result<(), RpcError> {
        absent("prchk_reftag", self.prchk_reftag)?;
        absent("prchk_guard", self.prchk_guard)?;
        absent("allow_unrecognized_csi", self.allow_unrecognized_csi)?;
        absent("disable_sq_flow_control", self.disable_sq_flow_control)
    }

    fn is_pcie(&self) -> Result<bool, RpcError> {
        match self.trtype.to_ascii_uppercase().as_str() {
            "TCP" => Ok(false),
            "PCIE" => Ok(true),
            other => Err(RpcError::invalid_params(format!(
                "trtype: {other} is no transport that can be attached; use TCP or PCIe"
            ))),
        }
    }

    fn address(&self) -> Result<SocketAddr, RpcError> {
        let ip: IpAddr = self.traddr.parse().map_err(|_| {
            RpcError::invalid_params(format!(
                "traddr: {:?} is no IP address; give one such as 192.0.2.1 or 2001:db8::1",
                self.traddr
            ))
        })?;
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if let Some(given) = &self.adrfam
            && !given.eq_ignore_ascii_case(family)
        {
            return Err(RpcError::invalid_params(format!(
                "adrfam: {given} does not go with {ip}; give {family}, or leave it out"
            )));
        }
        let port = self.trsvcid.as_deref().unwrap_or(PORT);
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            RpcError::invalid_params(format!("trsvcid: {port:?} is no port; give 1 to 65535"))
        })?;
        Ok(SocketAddr::new(ip, port))
    }

    fn options(&self, defaults: &RemoteDefaults) -> Result<TcpOptions, RpcError> {
        let nqn = |parameter: &str, text: &str| {
            Nqn::new(text)
                .map_err(|error| RpcError::invalid_params(format!("{parameter}: {error}")))
        };
        let subsystem = self.subnqn.as_deref().ok_or_else(|| {
            RpcError::invalid_params(
                "subnqn: an NVMe/TCP controller needs the name of its subsystem",
            )
        })?;
        let host = match &self.hostnqn {
            Some(text) => nqn("hostnqn", text)?,
            None => Nqn::from_uuid(own_identity()),
        };
        let times = Times {
            ctrlr_loss_timeout_sec: self.ctrlr_loss_timeout_sec,
            reconnect_delay_sec: self.reconnect_delay_sec,
            fast_io_fail_timeout_sec: self.fast_io_fail_timeout_sec,
        };
        let unlimited = |time: Duration| match time.is_zero() {
            true => Duration::MAX,
            false => time,
        };
        Ok(TcpOptions {
            subsystem: nqn("subnqn", subsystem)?,
            host_id: *Uuid::new_v5(&Uuid::NAMESPACE_OID, host.as_str().as_bytes()).as_bytes(),
            host,
            header_digest: self.hdgst,
            data_digest: self.ddgst,
            keep_alive: defaults.keep_alive,
            io_timeout: unlimited(defaults.io_timeout),
            admin_timeout: defaults.admin_timeout,
            queue_depth: defaults.queue_depth,
            io_queues: self.num_io_queues.unwrap_or(defaults.io_queues).max(1),
            recovery: times.over(defaults.recovery)?,
        })
    }
}

/// The name of this machine as a host: the same in every run, so that a target ends what an earlier
/// process has left. Without one of its own, it is that of this process.
fn own_identity() -> Uuid {
    static RANDOM: std::sync::OnceLock<Uuid> = std::sync::OnceLock::new();
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    match machine.trim() {
        "" => *RANDOM.get_or_init(Uuid::new_v4),
        machine => Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{machine} host").as_bytes()),
    }
}

fn bdev_nvme_attach_controller(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Attach = params.read()?;
    p.check()?;
    if p.is_pcie()? {
        return pcie::attach(system, &p);
    }
    if system.locals.contains(&p.name) {
        return Err(RpcError::from(ControlError::ControllerExists {
            name: p.name,
            what: "give another name",
        }));
    }
    let address = p.address()?;
    let options = p.options(&system.remotes.defaults)?;
    if p.multipath == Some(Paths::Multipath) {
        return Err(RpcError::invalid_params(
            "multipath: addresses are used one at a time; give failover, or disable",
        ));
    }
    if p.multipath == Some(Paths::Failover) && system.remotes.contains(&p.name) {
        system.remotes.add_address(&p.name, &options, address)?;
        return Ok(system.remotes.info(&p.name)?.devices.into());
    }
    system.remotes.attach(&p.name, options, address)?;
    if p.wait_for_attach == Some(false) {
        system.remotes.do_not_await(&p.name);
        return Ok(Value::Array(Vec::new()).into());
    }
    Ok(Answer::Later(Box::new(Attaching {
        name: p.name,
        until: Instant::now() + PATIENCE,
    })))
}

/// A controller that is being attached.
#[derive(Debug)]
struct Attaching {
    name: String,
    until: Instant,
}

impl Pending for Attaching {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        let info = match system.remotes.info(&self.name) {
            Ok(info) => info,
            Err(error) => return Some(Err(error.into())),
        };
        if info.attached {
            return Some(Ok(info.devices.into()));
        }
        if info.status.failed_rounds == 0 && now < self.until {
            return None;
        }
        system.remotes.forget(&self.name);
        let reason = info.status.trouble;
        let reason = reason.unwrap_or_else(|| "there is no answer".to_owned());
        let message = format!(
            "controller {} cannot be attached: {reason}; wait_for_attach: false keeps trying",
            self.name
        );
        Some(Err(RpcError::errno(Errno::IO, message)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn bdev_nvme_detach_controller(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Named = params.read()?;
    let mut detaching = Detaching {
        detachment: system.detach(&p.name)?,
        until: Instant::now() + PATIENCE,
    };
    match detaching.poll(system, Instant::now()) {
        Some(outcome) => Ok(outcome?.into()),
        None => Ok(Answer::Later(Box::new(detaching))),
    }
}

#[derive(Debug)]
struct Detaching {
    detachment: Detachment,
    until: Instant,
}

impl Pending for Detaching {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        match system.poll_detachment(&mut self.detachment) {
            Some(Ok(())) => Some(Ok(true.into())),
            Some(Err(error)) => Some(Err(error.into())),
            None => (now >= self.until).then(|| {
                let message = format!(
                    "the reactors did not answer within {} seconds; try again",
                    PATIENCE.as_secs()
                );
                Err(RpcError::errno(Errno::TIMEDOUT, message))
            }),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaybeNamed {
    name: Option<String>,
}

fn bdev_nvme_get_controllers(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: MaybeNamed = params.read()?;
    let names: Vec<String> = match p.name {
        Some(name) => vec![name],
        None => {
            let all = system.remotes.names().chain(system.locals.names());
            all.map(str::to_owned).collect()
        }
    };
    let one = |name: &String| match system.locals.contains(name) {
        true => system.locals.info(name).map(|info| pcie::describe(&info)),
        false => system.remotes.info(name).map(|info| describe(&info)),
    };
    let all = names.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into())
}

/// A controller as SPDK describes it.
fn describe(info: &RemoteInfo) -> Value {
    let trid = |address: &SocketAddr| {
        json!({
            "trtype": "TCP",
            "adrfam": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "traddr": address.ip().to_string(),
            "trsvcid": address.port().to_string(),
            "subnqn": info.options.subsystem.as_str(),
        })
    };
    let status = &info.status;
    let state = match info.phase {
        Phase::Ready => "enabled",
        Phase::Away if status.generation == 0 => "resetting",
        Phase::Away | Phase::Failing => "reconnect_is_delayed",
        Phase::Gone => "failed",
    };
    let mut controller = json!({
        "state": state,
        "trid": status.addresses.first().map(trid),
        "cntlid": status.facts.as_ref().map_or(0, |f| f.id),
        "host": {
            "nqn": info.options.host.as_str(),
            "addr": "",
            "svcid": "",
        },
    });
    let members = controller.as_object_mut().expect("made as one");
    let others = status.addresses.iter().skip(1).map(trid);
    let others: Vec<Value> = others.collect();
    if !others.is_empty() {
        members.insert("alternate_trids".into(), others.into());
    }
    if let Some(trouble) = &status.trouble {
        members.insert("trouble".into(), trouble.clone().into());
    }
    json!({"name": info.name, "ctrlrs": [controller]})
}

fn bdev_nvme_reset_controller(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Named = params.read()?;
    if system.locals.contains(&p.name) {
        return pcie::reset(system, p.name);
    }
    system.remotes.reset(&p.name)?;
    Ok(true.into())
}

fn bdev_nvme_get_controller_health_info(
    system: &mut System,
    params: Params,
) -> Result<Answer, RpcError> {
    let p: Named = params.read()?;
    if system.locals.contains(&p.name) {
        return pcie::health(system, p.name);
    }
    let answer = system.remotes.ask_health(&p.name)?;
    Ok(Answer::Later(Box::new(Asking {
        name: p.name,
        answer,
        until: Instant::now() + PATIENCE,
    })))
}

/// A controller that is being asked for its health.
#[derive(Debug)]
struct Asking {
    name: String,
    answer: HealthAnswer,
    until: Instant,
}

impl Pending for Asking {
    fn poll(&mut self, system: &mut System, now: Instant) -> Option<Outcome> {
        let late = || {
            let reason = "there is no answer".to_owned();
            (now >= self.until).then_some(Err(reason))
        };
        let answer = self.answer.poll().or_else(late)?;
        Some(match (answer, system.remotes.info(&self.name)) {
            (Ok(health), Ok(info)) => {
                let facts = info.status.facts.as_ref();
                let of = facts.map(|f| Of {
                    model: ascii_text(&f.identify.mn).to_owned(),
                    serial: ascii_text(&f.identify.sn).to_owned(),
                    firmware: ascii_text(&f.identify.fr).to_owned(),
                });
                let address = info.status.addresses.first().map(|a| a.ip().to_string());
                Ok(show(&health, of.unwrap_or_default(), address))
            }
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(reason), _) => Err(RpcError::errno(
                Errno::IO,
                format!("controller {}: {reason}", self.name),
            )),
        })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + INTERVAL
    }
}

/// What a controller says that it is.
#[derive(Debug, Default)]
struct Of {
    model: String,
    serial: String,
    firmware: String,
}

/// The health log page of the controller at an address, as SPDK shows it.
fn show(health: &Health, of: Of, address: Option<String>) -> Value {
    // SPDK shows what fits into 64 bits.
    let number = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    json!({
        "model_number": of.model,
        "serial_number": of.serial,
        "firmware_revision": of.firmware,
        "traddr": address,
        "critical_warning": health.critical_warning,
        "temperature_celsius": i32::from(health.temperature.get()) - 273,
        "available_spare_percentage": health.available_spare,
        "available_spare_threshold_percentage": health.available_spare_threshold,
        "percentage_used": health.percentage_used,
        "data_units_read": number(health.data_units_read.get()),
        "data_units_written": number(health.data_units_written.get()),
        "host_read_commands": number(health.host_reads.get()),
        "host_write_commands": number(health.host_writes.get()),
        "controller_busy_time": number(health.controller_busy_minutes.get()),
        "power_cycles": number(health.power_cycles.get()),
        "power_on_hours": number(health.power_on_hours.get()),
        "unsafe_shutdowns": number(health.unsafe_shutdowns.get()),
        "media_errors": number(health.media_errors.get()),
        "num_err_log_entries": number(health.error_entries.get()),
        "warning_temperature_time_minutes": health.warning_temperature_minutes.get(),
        "critical_composite_temperature_time_minutes": health.critical_temperature_minutes.get(),
    })
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ActionOnTimeout {
    None,
    Reset,
    Abort,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    action_on_timeout: Option<ActionOnTimeout>,
    timeout_us: Option<u64>,
    timeout_admin_us: Option<u64>,
    keep_alive_timeout_ms: Option<u32>,
    io_queue_requests: Option<u16>,
    ctrlr_loss_timeout_sec: Option<i64>,
    reconnect_delay_sec: Option<u32>,
    fast_io_fail_timeout_sec: Option<u32>,
    // What SPDK's rpc.py says of features in every call. Doorbells are always written once a turn, and
    // flushes always passed on.
    delay_cmd_submit: Option<bool>,
    #[serde(default)]
    disable_auto_failback: bool,
    #[serde(default)]
    generate_uuids: bool,
    #[serde(default)]
    nvme_error_stat: bool,
    #[serde(default)]
    io_path_stat: bool,
    #[serde(default)]
    allow_accel_sequence: bool,
    #[serde(rename = "enable_flush")]
    _enable_flush: Option<bool>,
}

impl SetOptions {
    /// Refuses features of SPDK that there are not.
    fn check(&self) -> Result<(), RpcError> {
        if self.delay_cmd_submit == Some(false) {
            return Err(RpcError::invalid_params(
                "delay_cmd_submit: doorbells are always written once a turn; leave it out",
            ));
        }
        absent("disable_auto_failback", self.disable_auto_failback)?;
        absent("generate_uuids", self.generate_uuids)?;
        absent("nvme_error_stat", self.nvme_error_stat)?;
        absent("io_path_stat", self.io_path_stat)?;
        absent("allow_accel_sequence", self.allow_accel_sequence)
    }
}

fn bdev_nvme_set_options(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: SetOptions = params.read()?;
    p.check()?;
    let defaults = system.remotes.defaults;
    let times = Times {
        ctrlr_loss_timeout_sec: p.ctrlr_loss_timeout_sec,
        reconnect_delay_sec: p.reconnect_delay_sec,
        fast_io_fail_timeout_sec: p.fast_io_fail_timeout_sec,
    };
    let mut io_timeout = p
        .timeout_us
        .map_or(defaults.io_timeout, Duration::from_micros);
    match p.action_on_timeout {
        Some(ActionOnTimeout::Abort) => {
            return Err(RpcError::invalid_params(
                "action_on_timeout: a command that is late costs its connections; give reset, or none",
            ));
        }
        Some(ActionOnTimeout::None) => io_timeout = Duration::ZERO,
        Some(ActionOnTimeout::Reset) | None => {}
    }
    if p.timeout_admin_us == Some(0) {
        return Err(RpcError::invalid_params(
            "timeout_admin_us: without a limit a dead controller would be waited for; give microseconds",
        ));
    }
    if p.io_queue_requests == Some(0) {
        return Err(RpcError::invalid_params(
            "io_queue_requests: a queue must hold a command; give 1 or more",
        ));
    }
    system.remotes.defaults = RemoteDefaults {
        keep_alive: p
            .keep_alive_timeout_ms
            .map_or(defaults.keep_alive, |ms| Duration::from_millis(ms.into())),
        io_timeout,
        admin_timeout: p
            .timeout_admin_us
            .map_or(defaults.admin_timeout, Duration::from_micros),
        queue_depth: p.io_queue_requests.unwrap_or(defaults.queue_depth),
        recovery: times.over(defaults.recovery)?,
        ..defaults
    };
    Ok(true.into())
}

#[cfg(test)]
mod tests;
