//! The NVMe PCIe driver against QEMU's NVMe controllers: real registers, queues, doorbells and DMA,
//! without a guest.
//!
//! QEMU is started with a processor that is halted. Its test socket (qtest) reads and writes
//! registers and PCI configuration, and the memory of the machine is a file that is mapped here too:
//! what the driver's arena holds is what the controller reads and writes.

// The conformance test of the room names these as it does there.
use stripewise::bdev::{Bdev, Channel, Completion, Data, IoStat, Op, Request, Status};
use stripewise::memory;

mod allocations;
mod array;
#[allow(dead_code)]
#[path = "../../src/bdev/conformance.rs"]
mod conformance;
mod failures;
mod interrupts;
mod io;
mod machine;
mod qtest;
mod vfio;
