//! PCI addresses, and the devices that are there.

use std::fs;
use std::path::Path;

use super::VfioError;

/// The PCI class of NVMe controllers.
const NVME_CLASS: &str = "0x010802";

/// What the kernel calls the group of a device that no IOMMU looks after.
const NO_IOMMU: &str = "vfio-noiommu";

/// The group that VFIO gives a device out with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its number.
    pub(super) number: u32,
    /// Whether an IOMMU looks after it.
    pub(super) has_iommu: bool,
}

/// Checks that a device can be opened; answers its group.
pub(super) fn identify(address: &str) -> Result<Group, VfioError> {
    identify_in(Path::new("/sys/bus/pci/devices"), address)
}

fn identify_in(devices: &Path, address: &str) -> Result<Group, VfioError> {
    let owned = || address.to_owned();
    if !is_address(address) {
        return Err(VfioError::Address(owned()));
    }
    let folder = devices.join(address);
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
    let number = link("iommu_group")
        .and_then(|group| group.parse().ok())
        .ok_or_else(|| VfioError::NoIommu(owned()))?;
    let name = fs::read_to_string(folder.join("iommu_group/name")).unwrap_or_default();
    Ok(Group {
        number,
        has_iommu: name.trim() != NO_IOMMU,
    })
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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

    #[test]
    fn a_group_without_an_iommu_is_told_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let address = "0000:01:00.0";
        let device = folder.path().join(address);
        fs::create_dir_all(folder.path().join("groups/12")).unwrap();
        fs::create_dir(&device).unwrap();
        fs::write(device.join("class"), "0x010802\n").unwrap();
        symlink("/drivers/vfio-pci", device.join("driver")).unwrap();
        let group = |has_iommu| Group {
            number: 12,
            has_iommu,
        };
        let identify = || identify_in(folder.path(), address);
        let alone = identify().unwrap_err().to_string();
        assert!(alone.contains("no IOMMU looks after it"), "{alone}");
        symlink(folder.path().join("groups/12"), device.join("iommu_group")).unwrap();
        // As the kernel does: groups of an IOMMU have no name, on most machines.
        assert_eq!(identify().unwrap(), group(true));
        let name = folder.path().join("groups/12/name");
        fs::write(&name, "vfio-noiommu\n").unwrap();
        assert_eq!(identify().unwrap(), group(false));
        fs::write(&name, "another\n").unwrap();
        assert_eq!(identify().unwrap(), group(true));
    }
}
