//! The load generator behind `stripewise perf`.
//!
//! It drives one namespace of an NVMe/TCP target from one polling thread, counts and times what
//! comes back, and can prove that every block holds what was last acknowledged. What to do next
//! ([`workload`]), what a block holds ([`pattern`]), what it may hold ([`model`]) and how to tell
//! ([`report`]) are pure; only [`run`] touches sockets and the clock.
#![forbid(unsafe_code)]

pub mod fault;
pub mod model;
pub mod pattern;
pub mod quantity;
mod random;
pub mod record;
pub mod report;
pub mod state;
pub mod tally;
pub mod workload;
