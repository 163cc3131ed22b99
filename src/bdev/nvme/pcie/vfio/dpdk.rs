//! Containers that DPDK's environment keeps, for memory of that environment.

use std::fs::File;
use std::sync::Mutex;

use super::VfioError;
use super::address::Group;
use super::groups::{Groups, Mapping};
use crate::lock;
use crate::memory::dpdk::{Container, Environment};

/// A container of EAL's.
#[derive(Debug)]
pub(super) struct DpdkGroups {
    container: Container,
    memory: Vec<Mapping>,
    /// Devices that are open.
    devices: Mutex<usize>,
}

impl DpdkGroups {
    pub(super) fn new(environment: Environment, memory: Vec<Mapping>) -> Result<Self, VfioError> {
        Ok(Self {
            container: Container::new(environment)?,
            memory,
            devices: Mutex::default(),
        })
    }
}

impl Groups for DpdkGroups {
    fn open(&self, address: &str, group: Group) -> Result<File, VfioError> {
        let mut devices = lock::exclusive(&self.devices);
        if !group.has_iommu {
            return Err(VfioError::NoIommu(address.to_owned()));
        }
        let device = self.container.open(address, group.number)?;
        if *devices == 0 {
            // EAL chooses the kind of IOMMU with the first device; only then can memory be mapped.
            for (number, (arena, iova)) in self.memory.iter().enumerate() {
                if let Err(error) = self.container.map(arena, *iova) {
                    let mapped = &self.memory[..number];
                    mapped
                        .iter()
                        .for_each(|(a, iova)| self.container.unmap(a, *iova));
                    self.container.close(address, device);
                    return Err(error.into());
                }
            }
        }
        *devices += 1;
        Ok(device)
    }

    fn close(&self, address: &str, _: Group, device: File) {
        let mut devices = lock::exclusive(&self.devices);
        *devices -= 1;
        if *devices == 0 {
            // EAL would map it again with the next device, whoever has the memory then.
            for (arena, iova) in &self.memory {
                self.container.unmap(arena, *iova);
            }
        }
        self.container.close(address, device);
    }
}
