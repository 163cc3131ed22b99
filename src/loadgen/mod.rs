//! The load generator behind `stripewise perf`.
//!
//! It drives one namespace of an NVMe/TCP target from one polling thread, counts and times what
//! comes back, and can prove that every block holds what was last acknowledged. What to do next
//! ([`workload`]), what a block holds ([`pattern`]), what it may hold ([`model`]) and how to say it
//! ([`report`]) are pure; only [`run`] touches sockets and the clock.
#![forbid(unsafe_code)]

pub mod association;
pub(crate) mod cpu;
pub mod distribution;
pub mod fault;
pub mod job;
pub mod model;
pub(crate) mod pace;
pub mod pattern;
pub mod plan;
pub mod quantity;
mod random;
pub mod record;
pub mod report;
mod requests;
pub mod run;
pub mod state;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod workload;

pub use job::{Job, OnDisconnect, Verify};
pub use run::{Event, Run, RunError};
