//! The devices, of which kind each is and what it stands on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::ControlError;
use super::notices::{Event, Notices};
use crate::bdev::{Bdev, Delay, ErrorBdev, Null, Registry, RegistryError, Uring};

/// Which kind a device is of, and what only that kind has.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A RAM disk.
    Malloc,
    /// Accepts everything and keeps nothing.
    Null {
        /// Can be given another size.
        device: Arc<Null>,
    },
    /// A file or kernel block device.
    File {
        /// Knows its path, and finds out how large it is.
        device: Arc<Uring>,
    },
    /// Makes `base` slow.
    Delay {
        /// The device below.
        base: String,
        /// Knows how slow.
        delay: Arc<Delay>,
    },
    /// Spoils what goes to `base`.
    Error {
        /// The device below.
        base: String,
        /// Takes the orders.
        injector: Arc<ErrorBdev>,
    },
    /// A namespace of an NVMe controller.
    Nvme {
        /// The controller.
        controller: String,
    },
    /// A RAID volume.
    Volume,
}

impl Kind {
    /// The word for namespaces of NVMe controllers.
    pub const NVME: &'static str = "NVMe";

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Malloc => "malloc",
            Kind::Null { .. } => "null",
            Kind::File { device } => device.api().word(),
            Kind::Delay { .. } => "delay",
            Kind::Error { .. } => "error injection",
            Kind::Nvme { .. } => Self::NVME,
            Kind::Volume => "RAID",
        }
    }

    fn base(&self) -> Option<&str> {
        match self {
            Kind::Delay { base, .. } | Kind::Error { base, .. } => Some(base),
            _ => None,
        }
    }
}

/// All devices of the process.
#[derive(Debug, Default)]
pub struct Devices {
    /// By name, with who holds each.
    pub registry: Registry,
    /// What has happened to them.
    pub notices: Notices,
    kinds: BTreeMap<String, Made>,
    /// How many were ever made.
    made: u64,
}

/// Which kind a device is of, and when it was made.
#[derive(Debug)]
struct Made {
    kind: Kind,
    number: u64,
}

impl Devices {
    /// Adds a device.
    ///
    /// # Errors
    /// [`RegistryError::Exists`].
    pub fn add(&mut self, bdev: Arc<dyn Bdev>, kind: Kind) -> Result<(), RegistryError> {
        let name = bdev.info().name.clone();
        self.registry.add(bdev)?;
        let number = self.made;
        self.made += 1;
        self.notices.add(Event::Register, &name);
        self.kinds.insert(name, Made { kind, number });
        Ok(())
    }

    /// Adds the device that `make` makes on top of `base`, and holds `base` for it under `name`.
    ///
    /// # Errors
    /// [`RegistryError`] about `base` or the new name; what `make` says.
    pub fn stack(
        &mut self,
        base: &str,
        name: &str,
        make: impl FnOnce(Arc<dyn Bdev>) -> Result<(Arc<dyn Bdev>, Kind), ControlError>,
    ) -> Result<(), ControlError> {
        let below = self.registry.claim(base, name)?;
        let added = make(below).and_then(|(bdev, kind)| Ok(self.add(bdev, kind)?));
        if added.is_err() {
            self.registry.release(base);
        }
        added
    }

    /// Removes a device that nobody holds, and lets go of what it stands on.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn remove(&mut self, name: &str) -> Result<(), RegistryError> {
        self.registry.remove(name)?;
        self.notices.add(Event::Unregister, name);
        let made = self.kinds.remove(name);
        if let Some(base) = made.as_ref().and_then(|m| m.kind.base()) {
            self.registry.release(base);
        }
        Ok(())
    }

    /// A device has another size now, and is told anew.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn resize(&mut self, bdev: Arc<dyn Bdev>) -> Result<(), RegistryError> {
        let name = bdev.info().name.clone();
        self.registry.replace(bdev)?;
        self.notices.add(Event::Resize, &name);
        Ok(())
    }

    /// The device of this name, or whose UUID this is.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn find(&self, name: &str) -> Result<Arc<dyn Bdev>, RegistryError> {
        let by_uuid = || {
            let uuid: Uuid = name.parse().ok()?;
            let mut all = self.registry.iter().map(|(bdev, _)| bdev);
            all.find(|bdev| bdev.info().uuid == uuid).cloned()
        };
        self.registry.get(name).or_else(|e| by_uuid().ok_or(e))
    }

    /// The files and kernel block devices among the devices.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.kinds.values().filter_map(|made| match &made.kind {
            Kind::File { device } => Some(device.path()),
            _ => None,
        })
    }

    /// All devices in the order in which they were made: none comes before what it stands on.
    pub fn in_order(&self) -> impl Iterator<Item = (Arc<dyn Bdev>, &Kind)> {
        let mut all: Vec<_> = self.kinds.iter().collect();
        all.sort_by_key(|(_, made)| made.number);
        let found = all
            .into_iter()
            .map(|(name, made)| (self.registry.get(name), &made.kind));
        found.filter_map(|(bdev, kind)| Some((bdev.ok()?, kind)))
    }

    /// Which kind a device is of.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name).map(|made| &made.kind)
    }

    /// The device of this name or UUID, if it is of the kind that `word` names.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`ControlError::Kind`].
    pub fn of_kind(&self, name: &str, word: &'static str) -> Result<(String, &Kind), ControlError> {
        let name = self.find(name)?.info().name.clone();
        let kind = self.kind(&name);
        let kind = kind.expect("every device was added with its kind");
        if kind.word() == word {
            return Ok((name, kind));
        }
        Err(ControlError::Kind {
            name,
            wanted: word,
            found: kind.word(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null(name: &str) -> (Arc<dyn Bdev>, Kind) {
        let device = Null::new(name, 512, 8, None).unwrap();
        (device.clone(), Kind::Null { device })
    }

    fn add(devices: &mut Devices, name: &str) {
        let (bdev, kind) = null(name);
        devices.add(bdev, kind).unwrap();
    }

    fn delay(base: Arc<dyn Bdev>, name: &str) -> Result<(Arc<dyn Bdev>, Kind), ControlError> {
        let below = base.info().name.clone();
        let delay = Delay::new(base, name, 1, 1, 1, 1)?;
        let kind = Kind::Delay {
            base: below,
            delay: delay.clone(),
        };
        Ok((delay, kind))
    }

    #[test]
    fn a_stacked_device_holds_its_base_until_it_goes() {
        let mut devices = Devices::default();
        add(&mut devices, "n");
        devices.stack("n", "d", |base| delay(base, "d")).unwrap();
        let busy = devices.remove("n").unwrap_err();
        assert!(matches!(busy, RegistryError::Busy { .. }));
        let again = devices.stack("n", "e", |base| delay(base, "e"));
        assert!(again.is_err());
        devices.remove("d").unwrap();
        devices.remove("n").unwrap();
        assert_eq!(devices.registry.iter().count(), 0);
    }

    #[test]
    fn devices_are_told_in_the_order_in_which_they_were_made() {
        let mut devices = Devices::default();
        for name in ["z", "m"] {
            add(&mut devices, name);
        }
        devices.stack("z", "a", |base| delay(base, "a")).unwrap();
        devices.remove("m").unwrap();
        add(&mut devices, "b");
        let told = devices.in_order().map(|(bdev, _)| bdev.info().name.clone());
        assert_eq!(told.collect::<Vec<_>>(), ["z", "a", "b"]);
    }

    #[test]
    fn a_base_is_let_go_when_the_stacking_fails() {
        let mut devices = Devices::default();
        add(&mut devices, "n");
        add(&mut devices, "taken");
        for name in ["", "taken"] {
            assert!(devices.stack("n", name, |base| delay(base, name)).is_err());
            assert_eq!(devices.registry.claim_of("n"), None);
        }
        assert!(
            devices
                .stack("absent", "d", |base| delay(base, "d"))
                .is_err()
        );
    }

    #[test]
    fn devices_are_found_by_name_and_uuid_and_told_apart_by_kind() {
        let mut devices = Devices::default();
        let (bdev, kind) = null("n");
        let uuid = bdev.info().uuid.to_string();
        devices.add(bdev, kind).unwrap();
        assert_eq!(devices.of_kind(&uuid, "null").unwrap().0, "n");
        assert!(devices.find(&Uuid::new_v4().to_string()).is_err());
        let error = devices.of_kind("n", "malloc").unwrap_err().to_string();
        assert!(
            error.contains("no malloc device but a null device"),
            "{error}"
        );
    }
}
