//! The bench behind `stripewise bench`: an array on RAM members, driven as hard as its reactors can,
//! in one process and without a network.
//!
//! [`Load`] says what is driven and how, [`measure`] does it, [`Outcome`] says what came of it. What
//! is asked of the array is drawn by the load generator of `stripewise perf`, and counted and
//! printed as there. `perf/engine` and `perf/batching` are tables of such loads.
#![forbid(unsafe_code)]

mod driver;
mod error;
mod load;
mod members;
mod outcome;
mod rig;

pub use error::BenchError;
pub use load::{Load, Target};
pub use outcome::{Outcome, Rebuilt};
pub use rig::measure;
