//! Controllers of this machine, through Linux's VFIO: their registers mapped into the process, and
//! their DMA confined by an IOMMU to the memory that is mapped for them.
//!
//! A [`Container`] holds the arenas, at addresses that it chooses; every controller opened through
//! it sees the same. Who speaks to the kernel about it (`Groups`) is this room, or DPDK's environment for
//! memory of its own. What VFIO is: Documentation/driver-api/vfio.rst of the kernel.

#![allow(unsafe_code)]

mod address;
mod bus_error;
mod device;
#[cfg(feature = "dpdk")]
mod dpdk;
mod groups;
mod ioctl;

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::controller::Access;
#[cfg(feature = "dpdk")]
use crate::memory::dpdk::{DpdkVfioError, Environment};
use crate::memory::{Arena, PhysicalError, Windows};
use address::identify;
use device::VfioBar;
use groups::{Device, Groups, Mapping, OwnGroups};

/// Where devices see the first arena: above what the architecture keeps for interrupts, and low
/// enough for the 39 bits of the smallest IOMMUs.
const FIRST_IOVA: u64 = 1 << 32;

/// Arenas begin at such multiples, so that the IOMMU can use large pages for them.
const IOVA_ALIGN: u64 = 1 << 30;

/// A controller, or memory for it, can't be had through VFIO.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// Not the form of a PCI address.
    #[error("{0:?} is no PCI address; give one as 0000:5e:00.0 (lspci -D shows them)")]
    Address(String),
    /// There is no such device.
    #[error("{0}: no such PCI device; lspci -D shows those there are")]
    Missing(String),
    /// A device of another class.
    #[error("{address}: is no NVMe controller (its PCI class is {class})")]
    Class {
        /// The device.
        address: String,
        /// Its class, as sysfs has it.
        class: String,
    },
    /// Another driver has it.
    #[error("{address}: is used by {driver}; bind it to vfio-pci first (scripts/setup config)")]
    Driver {
        /// The device.
        address: String,
        /// Its driver, or "no driver".
        driver: String,
    },
    /// No IOMMU looks after it.
    #[error(
        "{0}: no IOMMU looks after it; switch the IOMMU on (in the firmware, and intel_iommu=on or its like on the kernel's command line), or see docs/hardware.md for how to do without one"
    )]
    NoIommu(String),
    /// An IOMMU looks after it, and physical addresses mean nothing to that.
    #[error(
        "{0}: an IOMMU looks after it, so that it needs no physical addresses; leave --iova-mode pa out"
    )]
    HasIommu(String),
    /// Memory has no physical addresses that stay.
    #[error(transparent)]
    Physical(#[from] PhysicalError),
    /// Other devices of its group are used by the kernel.
    #[error(
        "{address}: devices of its IOMMU group {group} are used by other drivers; bind all of them to vfio-pci, or none (ls /sys/kernel/iommu_groups/{group}/devices)"
    )]
    Group {
        /// The device.
        address: String,
        /// Number of the group.
        group: u32,
    },
    /// DPDK's environment, which keeps the container of its memory, refused.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] DpdkVfioError),
    /// The kernel refused something else.
    #[error("{what}: {error}{}", hint(.error))]
    System {
        /// What was tried, with the name of the device or file.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The mend of what the kernel says most.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => "; raise the locked-memory limit (ulimit -l) above the memory size",
        Some(libc::ENOENT) => "; load the modules vfio-pci and vfio_iommu_type1",
        Some(libc::EACCES | libc::EPERM) => "; run as root, or give this user the group's device",
        Some(libc::EBUSY) => "; another process has it",
        _ => "",
    }
}

/// Which addresses controllers are given of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IovaMode {
    /// Those that an IOMMU translates.
    #[default]
    Va,
    /// Those of the machine itself, because there is no IOMMU: then a fault of a controller or of this process can overwrite
    /// any memory of the machine.
    Pa,
}

/// The memory that controllers see, and the IOMMU groups that see it.
#[derive(Debug)]
pub struct Container {
    groups: Arc<dyn Groups>,
    windows: Windows,
}

impl Container {
    /// Opens VFIO for controllers that shall see these arenas. They are mapped, and so taken out of
    /// the kernel's paging, as long as a controller is open. Arenas of DPDK's environment have a
    /// container of that environment.
    ///
    /// # Errors
    /// [`VfioError::System`]; with the feature `dpdk`, `VfioError::Dpdk`; without an IOMMU,
    /// [`VfioError::Physical`].
    pub fn new(arenas: &[Arena], mode: IovaMode) -> Result<Self, VfioError> {
        if mode == IovaMode::Pa {
            let windows = Windows::physical(arenas)?;
            // Nothing is mapped, so that no address counts.
            let memory = arenas.iter().map(|arena| (arena.clone(), 0)).collect();
            let groups = Arc::new(OwnGroups::new(memory, mode)?);
            tracing::warn!(
                "NO IOMMU (--iova-mode pa): a fault of a controller or of this process can overwrite ANY memory of this machine"
            );
            return Ok(Self { groups, windows });
        }
        let mut windows = Windows::new();
        let mut memory = Vec::new();
        let mut iova = FIRST_IOVA;
        for arena in arenas {
            windows.add(arena, iova);
            memory.push((arena.clone(), iova));
            iova += (arena.size() as u64).next_multiple_of(IOVA_ALIGN);
        }
        let groups = container(memory)?;
        Ok(Self { groups, windows })
    }

    /// Opens a controller that is bound to vfio-pci, for this process alone. Its queues will be in
    /// `arena`, one of the container's.
    ///
    /// # Errors
    /// [`VfioError`], which names the device and the mend.
    pub fn open(&self, address: &str, arena: &Arena) -> Result<Access, VfioError> {
        let group = identify(address)?;
        let device = Device::open(&self.groups, address, group)?;
        let bar = VfioBar::map(device).map_err(said(address))?;
        Ok(Access {
            address: address.to_owned(),
            bar: Arc::new(bar),
            windows: self.windows.clone(),
            arena: arena.clone(),
        })
    }
}

/// A container of whoever the memory is from.
fn container(memory: Vec<Mapping>) -> Result<Arc<dyn Groups>, VfioError> {
    #[cfg(feature = "dpdk")]
    if let Some(environment) = memory.iter().find_map(|(arena, _)| Environment::of(arena)) {
        return Ok(Arc::new(dpdk::DpdkGroups::new(environment, memory)?));
    }
    Ok(Arc::new(OwnGroups::new(memory, IovaMode::Va)?))
}

fn open(path: &str) -> Result<File, VfioError> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(said(path))
}

fn said(what: &str) -> impl Fn(io::Error) -> VfioError {
    let what = what.to_owned();
    move |error| VfioError::System {
        what: what.clone(),
        error,
    }
}
