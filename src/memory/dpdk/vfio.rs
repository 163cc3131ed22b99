//! VFIO by way of DPDK's environment: a container of its own beside EAL's default one, with the memory that it is given and
//! no other.
//!
//! EAL keeps tables of containers, groups and mappings, and does not lock them: here one lock does.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use super::super::arena::Arena;
use super::{Environment, bindings};
use crate::lock;

/// Where EAL looks devices up.
const DEVICES: &CStr = c"/sys/bus/pci/devices";

static TABLES: Mutex<()> = Mutex::new(());

/// EAL refused; why is in what it has written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpdkVfioError {
    /// No container: VFIO is not there, or EAL has as many as it can.
    #[error(
        "DPDK's environment opens no VFIO container (its own words are above); load the module vfio-pci before the start"
    )]
    Container,
    /// The group of a device.
    #[error("DPDK's environment cannot open IOMMU group {0} (its own words are above)")]
    Group(u32),
    /// The device.
    #[error("DPDK's environment cannot open {0} (its own words are above)")]
    Device(String),
    /// Memory.
    #[error(
        "DPDK's environment cannot show {0} bytes of memory to devices (its own words are above); raise the locked-memory limit (ulimit -l) above the memory size"
    )]
    Memory(usize),
}

/// A VFIO container of EAL's.
#[derive(Debug)]
pub struct Container {
    fd: c_int,
}

impl Container {
    /// Makes one.
    ///
    /// # Errors
    /// [`DpdkVfioError::Container`].
    pub fn new(_started: Environment) -> Result<Self, DpdkVfioError> {
        let _tables = tables();
        // SAFETY: EAL has been started.
        match unsafe { bindings::rte_vfio_container_create() } {
            fd if fd >= 0 => Ok(Self { fd }),
            _ => Err(DpdkVfioError::Container),
        }
    }

    /// Opens the device at a PCI address, which is in this IOMMU group. Give it back with [`Container::close`].
    ///
    /// # Errors
    /// [`DpdkVfioError::Group`], [`DpdkVfioError::Device`].
    pub fn open(&self, address: &str, group: u32) -> Result<File, DpdkVfioError> {
        let _tables = tables();
        let refused = || DpdkVfioError::Device(address.to_owned());
        let name = CString::new(address).map_err(|_| refused())?;
        let number = c_int::try_from(group).map_err(|_| refused())?;
        // SAFETY: EAL has been started, and the lock is held; so below.
        if unsafe { bindings::rte_vfio_container_group_bind(self.fd, number) } < 0 {
            return Err(DpdkVfioError::Group(group));
        }
        let mut fd = -1;
        let mut info = MaybeUninit::<bindings::vfio_device_info>::zeroed();
        // SAFETY: the strings have their ends. EAL passes the structure to the kernel, which is to know its size and fills no
        // more of it.
        let opened = unsafe {
            (*info.as_mut_ptr()).argsz = size_of::<bindings::vfio_device_info>() as u32;
            bindings::rte_vfio_setup_device(
                DEVICES.as_ptr(),
                name.as_ptr(),
                &raw mut fd,
                info.as_mut_ptr(),
            )
        };
        if opened != 0 || fd < 0 {
            return Err(refused());
        }
        // SAFETY: a new descriptor, which EAL leaves to its caller.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes an arena readable and writable for the container's devices, from `iova` on, until [`Container::unmap`]. One of
    /// them is open.
    ///
    /// # Errors
    /// [`DpdkVfioError::Memory`].
    pub fn map(&self, arena: &Arena, iova: u64) -> Result<(), DpdkVfioError> {
        let _tables = tables();
        let (base, size) = arena.range();
        let base = base.expose_provenance() as u64;
        // SAFETY: the kernel pins the range. The arena's owner keeps it until it is unmapped.
        match unsafe { bindings::rte_vfio_container_dma_map(self.fd, base, iova, size as u64) } {
            0 => Ok(()),
            _ => Err(DpdkVfioError::Memory(size)),
        }
    }

    /// Takes an arena back that was mapped at `iova`. A device is still open: without one the kernel knows no mappings,
    /// while EAL does.
    pub fn unmap(&self, arena: &Arena, iova: u64) {
        let _tables = tables();
        let (base, size) = arena.range();
        let base = base.expose_provenance() as u64;
        // SAFETY: it looks its own tables up, and asks the kernel.
        let unmapped =
            unsafe { bindings::rte_vfio_container_dma_unmap(self.fd, base, iova, size as u64) };
        if unmapped != 0 {
            // The kernel drops the mapping with the last device of the container.
            tracing::error!("DPDK's environment keeps {size} bytes of memory mapped for devices");
        }
    }

    /// Closes a device, and its group if this was the last one in it.
    pub fn close(&self, address: &str, device: File) {
        let _tables = tables();
        let fd = device.into_raw_fd();
        let name = CString::new(address).expect("it was opened by this name");
        let name: *const c_char = name.as_ptr();
        // SAFETY: EAL closes the descriptor, which is nobody else's.
        let closed = unsafe { bindings::rte_vfio_release_device(DEVICES.as_ptr(), name, fd) };
        if closed != 0 {
            tracing::error!("{address}: DPDK's environment does not close it in good order");
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _tables = tables();
        // SAFETY: it was made by EAL, and nobody uses it any more.
        let destroyed = unsafe { bindings::rte_vfio_container_destroy(self.fd) };
        debug_assert_eq!(destroyed, 0);
    }
}

fn tables() -> MutexGuard<'static, ()> {
    lock::exclusive(&TABLES)
}
