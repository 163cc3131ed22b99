//! The kernel's containers: memory, and the IOMMU groups whose devices see it.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use super::address::Group;
use super::{IovaMode, VfioError, ioctl, open, said};
use crate::lock;
use crate::memory::Arena;

/// An arena, and the address under which devices see it.
pub(super) type Mapping = (Arena, u64);

/// A container, whoever speaks to the kernel about it. Closing it ends all DMA.
pub(super) trait Groups: Debug + Send + Sync {
    /// Opens a device of a group; its devices see the memory from then on.
    fn open(&self, address: &str, group: Group) -> Result<File, VfioError>;

    /// Closes a device. A group without an open device is given back: while it is held, a controller that is pulled out
    /// does not go.
    fn close(&self, address: &str, group: Group, device: File);
}

/// An opened device, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Device {
    /// `None` only while it is being dropped.
    file: Option<File>,
    address: String,
    group: Group,
    groups: Arc<dyn Groups>,
}

impl Device {
    pub(super) fn open(
        groups: &Arc<dyn Groups>,
        address: &str,
        group: Group,
    ) -> Result<Self, VfioError> {
        Ok(Self {
            file: Some(groups.open(address, group)?),
            address: address.to_owned(),
            group,
            groups: groups.clone(),
        })
    }

    /// Its file.
    pub(super) fn file(&self) -> &File {
        self.file.as_ref().expect("it is open")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.groups.close(&self.address, self.group, file);
        }
    }
}

/// A container that we keep ourselves.
#[derive(Debug)]
pub(super) struct OwnGroups {
    open: Mutex<HashMap<u32, OpenGroup>>,
    container: File,
    mode: IovaMode,
    /// Mapped as long as a group is in the container, if there is an IOMMU; dropped after it in any case.
    memory: Vec<Mapping>,
}

#[derive(Debug)]
struct OpenGroup {
    file: File,
    /// Devices of it that are open.
    devices: usize,
}

impl OwnGroups {
    pub(super) fn new(memory: Vec<Mapping>, mode: IovaMode) -> Result<Self, VfioError> {
        let container = open("/dev/vfio/vfio")?;
        let version = ioctl::api_version(&container).map_err(said("the version of VFIO"))?;
        if version != ioctl::API_VERSION {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(said("this version of VFIO")(error));
        }
        Ok(Self {
            open: Mutex::default(),
            container,
            mode,
            memory,
        })
    }

    /// Opens a group, and makes it see the memory.
    fn join(&self, address: &str, group: Group, is_first: bool) -> Result<File, VfioError> {
        let number = group.number;
        let path = match (group.has_iommu, self.mode) {
            (true, IovaMode::Va) => format!("/dev/vfio/{number}"),
            (false, IovaMode::Pa) => format!("/dev/vfio/noiommu-{number}"),
            (false, IovaMode::Va) => return Err(VfioError::NoIommu(address.to_owned())),
            (true, IovaMode::Pa) => return Err(VfioError::HasIommu(address.to_owned())),
        };
        let file = open(&path)?;
        if !ioctl::is_viable(&file).map_err(said(&path))? {
            let (address, group) = (address.to_owned(), number);
            return Err(VfioError::Group { address, group });
        }
        ioctl::set_container(&file, &self.container).map_err(said(&path))?;
        // The first group decides on the kind of IOMMU; only then can memory be mapped. The last one that goes takes all of
        // that with it.
        match self.mode {
            _ if !is_first => {}
            IovaMode::Pa => ioctl::set_no_iommu(&self.container).map_err(said(&path))?,
            IovaMode::Va => {
                self.set_type1()?;
                self.map(address)?;
            }
        }
        Ok(file)
    }

    fn set_type1(&self) -> Result<(), VfioError> {
        let has_type1 = ioctl::has_type1(&self.container).map_err(said("the types of IOMMUs"))?;
        if !has_type1 {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(said("an IOMMU of type 1 (module vfio_iommu_type1)")(error));
        }
        ioctl::set_type1(&self.container).map_err(said("/dev/vfio/vfio"))
    }

    fn map(&self, address: &str) -> Result<(), VfioError> {
        for (arena, iova) in &self.memory {
            let (base, size) = arena.range();
            ioctl::map(&self.container, base, size, *iova).map_err(|error| VfioError::System {
                what: format!("{size} bytes of memory for {address}"),
                error,
            })?;
        }
        Ok(())
    }
}

impl Groups for OwnGroups {
    fn open(&self, address: &str, group: Group) -> Result<File, VfioError> {
        let mut open = lock::exclusive(&self.open);
        let number = group.number;
        if !open.contains_key(&number) {
            let file = self.join(address, group, open.is_empty())?;
            open.insert(number, OpenGroup { file, devices: 0 });
        }
        let device = ioctl::device(&open[&number].file, address).map_err(said(address));
        match open.get_mut(&number) {
            Some(group) if device.is_ok() => group.devices += 1,
            Some(OpenGroup { devices: 0, .. }) => drop(open.remove(&number)),
            _ => {}
        }
        device
    }

    fn close(&self, _: &str, group: Group, device: File) {
        let mut open = lock::exclusive(&self.open);
        drop(device);
        let Some(entry) = open.get_mut(&group.number) else {
            return;
        };
        entry.devices -= 1;
        if entry.devices == 0 {
            open.remove(&group.number);
        }
    }
}
