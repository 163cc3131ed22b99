//! From power-on to a controller that takes admin commands, as the specification orders it
//! (Base 3.5.1), and back.

use std::thread;
use std::time::{Duration, Instant};

use super::bar::{ALL_ONES, Bar, read, write};
use super::error::Fault;
use crate::nvme::property::{
    Capabilities, Configuration, ControllerStatus, Property, ReadyTimeouts, ShutdownNotification,
    ShutdownStatus,
};

/// Between two looks at CSTS.
const LOOK: Duration = Duration::from_millis(1);

/// The unit of CAP.TO and CRTO.
const TIMEOUT_UNIT: Duration = Duration::from_millis(500);

/// Longest that a shutdown may take where the controller does not say.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// The rings of the admin queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminRings {
    /// Entries of each.
    pub(super) entries: u16,
    /// The device's address of the submission ring.
    pub(super) submission: u64,
    /// The device's address of the completion ring.
    pub(super) completion: u64,
}

/// CAP, if this driver can work with it.
///
/// # Errors
/// [`Fault::Gone`], or [`Fault::Register`] with the field that is in the way.
pub(super) fn capabilities(bar: &dyn Bar) -> Result<Capabilities, Fault> {
    let value = bar.read64(Property::Capabilities.code());
    if value == u64::MAX {
        return Err(Fault::Gone);
    }
    let refused = |register, value: u64, reason| {
        Err(Fault::Register {
            register,
            value,
            reason,
        })
    };
    let capabilities = Capabilities::from_value(value);
    let Capabilities {
        max_queue_entries,
        command_sets,
        min_page_size,
        ..
    } = capabilities;
    if max_queue_entries == 0 {
        return refused(
            "CAP.MQES",
            0,
            "a queue needs two entries at least; this is no working NVMe controller",
        );
    }
    if command_sets & Capabilities::CSS_NVM == 0 {
        let sets = u64::from(command_sets);
        return refused("CAP.CSS", sets, "the NVM command set is not among them");
    }
    if min_page_size != 0 {
        return refused(
            "CAP.MPSMIN",
            u64::from(min_page_size),
            "it needs pages of more than 4 KiB, which are not supported",
        );
    }
    Ok(capabilities)
}

/// Ends all that the controller does: CC.EN is 0, and so is CSTS.RDY. After that it reads and
/// writes no memory.
///
/// # Errors
/// [`Fault::Gone`] or [`Fault::Timeout`].
pub(super) fn disable(bar: &dyn Bar, capabilities: &Capabilities) -> Result<(), Fault> {
    let patience = patience(bar, capabilities);
    let configuration = configuration(bar)?;
    if configuration.enabled() && !status(bar)?.fatal {
        // It should not be disabled while it is still on its way up, unless it never gets there.
        match wait(bar, patience, "become ready", |s| s.ready || s.fatal) {
            Ok(_) | Err(Fault::Timeout { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    if configuration.enabled() {
        let off = configuration
            .with_enabled(false)
            .with_shutdown(ShutdownNotification::None);
        write(bar, Property::Configuration, off.0);
    }
    wait(bar, patience, "stop (CSTS.RDY 0)", |s| !s.ready)?;
    Ok(())
}

/// Starts a controller that was disabled, on the rings given.
///
/// # Errors
/// [`Fault::Gone`], [`Fault::Fatal`] or [`Fault::Timeout`].
pub(super) fn enable(
    bar: &dyn Bar,
    capabilities: &Capabilities,
    rings: AdminRings,
) -> Result<(), Fault> {
    let zeros_based = u32::from(rings.entries - 1);
    let attributes = zeros_based << 16 | zeros_based;
    write(bar, Property::AdminQueueAttributes, attributes);
    bar.write64(Property::AdminSubmissionQueue.code(), rings.submission);
    bar.write64(Property::AdminCompletionQueue.code(), rings.completion);
    write(bar, Property::Configuration, Configuration::nvm_host().0);
    let what = "become ready";
    let status = wait(bar, patience(bar, capabilities), what, |s| {
        s.ready || s.fatal
    })?;
    if status.fatal {
        return Err(Fault::Fatal(what));
    }
    Ok(())
}

/// Lets the controller bring what it holds to its media, and waits for that as long as `patience`,
/// or some seconds where that is not known.
///
/// # Errors
/// [`Fault::Gone`] or [`Fault::Timeout`].
pub(super) fn shut_down(bar: &dyn Bar, patience: Option<Duration>) -> Result<(), Fault> {
    let configuration = configuration(bar)?;
    if !configuration.enabled() {
        return Ok(());
    }
    let off = configuration.with_shutdown(ShutdownNotification::Normal);
    write(bar, Property::Configuration, off.0);
    wait(bar, patience.unwrap_or(SHUTDOWN), "shut down", |s| {
        s.shutdown == ShutdownStatus::Complete || s.fatal
    })?;
    Ok(())
}

/// CSTS.
///
/// # Errors
/// [`Fault::Gone`].
pub(super) fn status(bar: &dyn Bar) -> Result<ControllerStatus, Fault> {
    match read(bar, Property::Status) {
        ALL_ONES => Err(Fault::Gone),
        value => Ok(ControllerStatus::from_value(value)),
    }
}

fn configuration(bar: &dyn Bar) -> Result<Configuration, Fault> {
    match read(bar, Property::Configuration) {
        ALL_ONES => Err(Fault::Gone),
        value => Ok(Configuration(value)),
    }
}

/// How long RDY may take to follow EN.
fn patience(bar: &dyn Bar, capabilities: &Capabilities) -> Duration {
    let mut units = u32::from(capabilities.timeout.max(1));
    if capabilities.ready_with_media {
        let timeouts = ReadyTimeouts::from_value(read(bar, Property::ReadyTimeouts));
        units = units.max(u32::from(timeouts.with_media));
    }
    TIMEOUT_UNIT * units
}

fn wait(
    bar: &dyn Bar,
    patience: Duration,
    what: &'static str,
    reached: impl Fn(&ControllerStatus) -> bool,
) -> Result<ControllerStatus, Fault> {
    let start = Instant::now();
    loop {
        // Asked before the look, so that a late look at a controller that has done it counts.
        let late = start.elapsed() > patience;
        let status = status(bar)?;
        if reached(&status) {
            return Ok(status);
        }
        if late {
            let after = patience;
            return Err(Fault::Timeout { what, after });
        }
        thread::sleep(LOOK);
    }
}
