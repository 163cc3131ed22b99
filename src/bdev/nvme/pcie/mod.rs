//! The NVMe PCIe driver: queue pairs that are polled directly.

#![deny(unsafe_code)]

mod admin;
mod bar;
mod bell;
mod bring_up;
mod channel;
mod controller;
mod error;
mod gate;
mod keeper;
mod lane;
mod namespace;
mod pointer;
mod prp;
mod queue;
mod sgl;
mod shadow;
mod shape;
mod status;
mod transfer;
pub mod vfio;

#[cfg(test)]
pub(crate) mod scripted;

pub use super::identity::Identity;
pub use bar::{ALL_ONES, Bar};
pub use controller::{Access, Controller, Options};
pub use error::{Fault, NamespaceError, NvmeError};
pub use queue::QueueFault;
#[cfg(any(test, fuzzing))]
pub use shape::trial;
