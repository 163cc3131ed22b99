//! Logging to stderr, quiet unless asked.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::control::{LogLevel, LogSwitch};

/// Starts logging: warnings and errors, with `verbose` 1 what is done, from 2 on everything;
/// `RUST_LOG`, where set, says it instead.
pub fn start(verbose: u8) -> LogSwitch {
    let level = match verbose {
        0 => LogLevel::Warning,
        1 => LogLevel::Info,
        _ => LogLevel::Debug,
    };
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.directive()));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    LogSwitch::new(level, move |directives| {
        // Fails only once the subscriber is gone, and with it all logging.
        let _ = handle.reload(EnvFilter::new(directives));
    })
}
