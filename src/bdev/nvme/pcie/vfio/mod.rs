//! Controllers of this machine, through Linux's VFIO: their registers mapped into the process, and
//! their DMA confined by an IOMMU to the memory that is mapped for them.
//!
//! A [`Container`] holds the arenas, at addresses that it chooses; every controller opened through
//! it sees the same. What VFIO is: Documentation/driver-api/vfio.rst of the kernel.

#![allow(unsafe_code)]

mod device;
mod ioctl;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::controller::Access;
use crate::lock;
use crate::memory::{Arena, Windows};
use device::VfioBar;

/// Where devices see the first arena: above what the architecture keeps for interrupts, and low
/// enough for the 39 bits of the smallest IOMMUs.
const FIRST_IOVA: u64 = 1 << 32;

/// Arenas begin at such multiples, so that the IOMMU can use large pages for them.
const IOVA_ALIGN: u64 = 1 << 30;

/// The PCI class of NVMe controllers.
const NVME_CLASS: &str = "0x010802";

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
        "{0}: is in no IOMMU group; switch the IOMMU on (in the firmware, and intel_iommu=on or its like on the kernel's command line)"
    )]
    NoIommu(String),
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

/// The memory that controllers see, and the IOMMU groups that see it.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
    arenas: Vec<Arena>,
    windows: Windows,
}

/// What must stay open as long as one of the controllers is. Closing it ends all DMA.
#[derive(Debug)]
struct Shared {
    groups: Mutex<HashMap<u32, File>>,
    container: File,
    /// Mapped as long as the container is open: dropped after it.
    _arenas: Vec<Arena>,
}

impl Container {
    /// Opens VFIO for controllers that shall see these arenas. They are mapped, and so taken out of
    /// the kernel's paging, when the first controller is opened.
    ///
    /// # Errors
    /// [`VfioError::System`].
    pub fn new(arenas: &[Arena]) -> Result<Self, VfioError> {
        let container = open("/dev/vfio/vfio")?;
        let version = ioctl::api_version(&container).map_err(said("the version of VFIO"))?;
        let has_type1 = ioctl::has_type1(&container).map_err(said("the IOMMU types of VFIO"))?;
        if version != ioctl::API_VERSION || !has_type1 {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(said("VFIO with a type 1 IOMMU")(error));
        }
        let mut windows = Windows::new();
        let mut iova = FIRST_IOVA;
        for arena in arenas {
            windows.add(arena, iova);
            iova += (arena.size() as u64).next_multiple_of(IOVA_ALIGN);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                groups: Mutex::new(HashMap::new()),
                container,
                _arenas: arenas.to_vec(),
            }),
            arenas: arenas.to_vec(),
            windows,
        })
    }

    /// Opens a controller that is bound to vfio-pci, for this process alone. Its queues will be in
    /// `arena`, one of the container's.
    ///
    /// # Errors
    /// [`VfioError`], which names the device and the mend.
    pub fn open(&self, address: &str, arena: &Arena) -> Result<Access, VfioError> {
        let group = identify(address)?;
        self.join(address, group)?;
        let groups = lock::exclusive(&self.shared.groups);
        let device = ioctl::device(&groups[&group], address).map_err(said(address))?;
        drop(groups);
        let bar = VfioBar::map(device, self.shared.clone()).map_err(said(address))?;
        Ok(Access {
            address: address.to_owned(),
            bar: Arc::new(bar),
            windows: self.windows.clone(),
            arena: arena.clone(),
        })
    }

    /// Makes a group see the container's memory.
    fn join(&self, address: &str, group: u32) -> Result<(), VfioError> {
        let mut groups = lock::exclusive(&self.shared.groups);
        if groups.contains_key(&group) {
            return Ok(());
        }
        let path = format!("/dev/vfio/{group}");
        let file = open(&path)?;
        if !ioctl::is_viable(&file).map_err(said(&path))? {
            let address = address.to_owned();
            return Err(VfioError::Group { address, group });
        }
        let container = &self.shared.container;
        ioctl::set_container(&file, container).map_err(said(&path))?;
        if groups.is_empty() {
            // The first group decides on the kind of IOMMU; only then can memory be mapped.
            ioctl::set_type1(container).map_err(said(&path))?;
            for arena in &self.arenas {
                let (base, size) = arena.range();
                let iova = self.windows.address(base, size);
                let iova = iova.expect("every arena of the container has a window");
                ioctl::map(container, base, size, iova).map_err(|error| VfioError::System {
                    what: format!("{size} bytes of memory for {address}"),
                    error,
                })?;
            }
        }
        groups.insert(group, file);
        Ok(())
    }
}

/// Checks that a device can be opened; answers its IOMMU group.
fn identify(address: &str) -> Result<u32, VfioError> {
    let owned = || address.to_owned();
    if !is_address(address) {
        return Err(VfioError::Address(owned()));
    }
    let folder = Path::new("/sys/bus/pci/devices").join(address);
    let class = fs::read_to_string(folder.join("class"))
        .map_err(|_| VfioError::Missing(owned()))?
        .trim()
        .to_owned();
    if class != NVME_CLASS {
        let address = owned();
        return Err(VfioError::Class { address, class });
    }
    let link = |name: &str| -> Option<String> {
        let target = fs::read_link(folder.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    let driver = link("driver").unwrap_or_else(|| "no driver".to_owned());
    if driver != "vfio-pci" {
        let address = owned();
        return Err(VfioError::Driver { address, driver });
    }
    link("iommu_group")
        .and_then(|group| group.parse().ok())
        .ok_or_else(|| VfioError::NoIommu(owned()))
}

/// Whether this is a PCI address in full: domain, bus, device, function.
fn is_address(text: &str) -> bool {
    let is_hex = |part: &str, len| {
        part.len() == len
            && part
                .bytes()
                .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
    };
    let parts: Vec<&str> = text.split([':', '.']).collect();
    match parts[..] {
        [domain, bus, device, function] => {
            is_hex(domain, 4)
                && is_hex(bus, 2)
                && is_hex(device, 2)
                && is_hex(function, 1)
                && text.len() == "0000:00:00.0".len()
                && text.as_bytes()[10] == b'.'
                && text.as_bytes()[4] == b':'
                && text.as_bytes()[7] == b':'
        }
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pci_addresses_become_paths() {
        for good in ["0000:00:04.0", "0000:5e:1f.7", "abcd:ef:00.1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "04:00.0",
            "0000:00:04.0/",
            "../0:00:04.0",
            "0000.00.04.0",
            "0000:00:04:0",
            "0000:00:04.00",
            "0000:00:0G.0",
            "0000:5E:00.0",
        ] {
            assert!(!is_address(bad), "{bad}");
            let error = identify(bad).unwrap_err().to_string();
            assert!(error.contains("no PCI address"), "{error}");
        }
        let error = identify("ffff:ff:1f.7").unwrap_err().to_string();
        assert!(
            error.contains("ffff:ff:1f.7: no such PCI device"),
            "{error}"
        );
    }
}
