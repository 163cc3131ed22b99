//! What can be wrong with a controller.

use std::time::Duration;

use super::queue::QueueFault;
use crate::memory::PoolError;
use crate::nvme::Status;

/// A controller could not be attached, or does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("NVMe controller {address}: {fault}")]
pub struct NvmeError {
    /// Where it is: its PCI address.
    pub address: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a controller.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its registers read as all ones.
    #[error(
        "is not there any more (its registers read as all ones); plug it in again and attach it"
    )]
    Gone,
    /// It does not do something in the time that it may take.
    #[error("did not {what} within {} ms; reset or replace it", .after.as_millis())]
    Timeout {
        /// What it should have done.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// CSTS.CFS.
    #[error("reports a fatal error (CSTS.CFS) while it should {0}; power-cycle or replace it")]
    Fatal(&'static str),
    /// Registers say what no usable controller says.
    #[error("{register} is {value:#x}: {reason}")]
    Register {
        /// The register or field.
        register: &'static str,
        /// What it reads as.
        value: u64,
        /// Why that can't be used, and what to do about it.
        reason: &'static str,
    },
    /// A command of the admin queue failed.
    #[error("refused to {what}: {status}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// What it answered.
        status: Status,
    },
    /// Its completions are not to be believed.
    #[error("broke the rules of its queues ({0}); reset or replace it")]
    Queue(#[from] QueueFault),
    /// Identify says what can't be.
    #[error("Identify says {field} of {value}: {reason}")]
    Identify {
        /// The field.
        field: &'static str,
        /// What it says.
        value: u64,
        /// Why that can't be used, and what to do about it.
        reason: &'static str,
    },
    /// No room for its queues.
    #[error("its queues do not fit into the memory arena: {0}")]
    Memory(#[from] PoolError),
    /// The arena has no address for the device.
    #[error("the memory arena has no address for the device; map it for DMA before attaching")]
    Unmapped,
    /// The options make no queue.
    #[error("{option} of {value} is not possible; give {range}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was asked for.
        value: u64,
        /// What is possible.
        range: &'static str,
    },
    /// The operating system gave no thread.
    #[error("no thread can be started to look after it: {0}; raise the limit of threads")]
    Thread(std::io::Error),
    /// After a reset it is another one than before.
    #[error("came back from a reset with another {0}; detach and attach it again")]
    Changed(&'static str),
}

/// Why a namespace of a controller is not offered as a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NVMe controller {address}, namespace {nsid}: {reason}")]
pub struct NamespaceError {
    /// Where the controller is.
    pub address: String,
    /// The namespace.
    pub nsid: u32,
    /// Why, and what to do about it.
    pub reason: String,
}
