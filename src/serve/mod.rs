//! The control thread of a serving process: its start, its loop, its end.
//!
//! The loop waits for clients of the RPC socket, for messages of reactors and hosts, and for
//! signals; it does what they ask, one thing at a time, and goes back to waiting. It never touches
//! a host's data.

#![forbid(unsafe_code)]

mod config;
mod memory;
mod service;
mod signals;

pub use config::{Call, Config, ConfigError};
pub use memory::{MemoryError, Source};
pub use service::{Options, ServeError, run};
