//! The devices of the process by name, and who holds each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Bdev, RateLimits};

/// Who uses a device, so that nobody else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A device stacked on top (a RAID volume, a delay or error device), by name.
    Bdev(String),
    /// Exported as a namespace of these subsystems, by NQN, once per namespace.
    Namespaces(Vec<String>),
}

/// Why the registry refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// The name is taken.
    #[error("bdev {0} already exists; choose another name or delete it first")]
    Exists(String),
    /// There is no such device.
    #[error("bdev {0} does not exist; bdev_get_bdevs lists those that do")]
    NotFound(String),
    /// Somebody else holds it.
    #[error("bdev {name} is in use by {holder}; remove it there first")]
    Busy {
        /// The device.
        name: String,
        /// Its holder.
        holder: String,
    },
}

/// All devices of the process. Owned by the control thread; reactors never see it.
#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    bdev: Arc<dyn Bdev>,
    claim: Option<Claim>,
    limits: RateLimits,
}

impl Registry {
    /// Adds a device under its own name.
    ///
    /// # Errors
    /// [`RegistryError::Exists`].
    pub fn add(&mut self, bdev: Arc<dyn Bdev>) -> Result<(), RegistryError> {
        let name = bdev.info().name.clone();
        if self.entries.contains_key(&name) {
            return Err(RegistryError::Exists(name));
        }
        let entry = Entry {
            bdev,
            claim: None,
            limits: RateLimits::default(),
        };
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Removes a device that nobody holds and returns it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Busy`].
    pub fn remove(&mut self, name: &str) -> Result<Arc<dyn Bdev>, RegistryError> {
        let entry = self.entry(name)?;
        if let Some(claim) = &entry.claim {
            return Err(busy(name, claim));
        }
        let entry = self.entries.remove(name);
        Ok(entry.expect("looked up above").bdev)
    }

    /// Tells a device anew, which has changed its size; it keeps its name and its holder.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn replace(&mut self, bdev: Arc<dyn Bdev>) -> Result<(), RegistryError> {
        let name = bdev.info().name.clone();
        self.entry_mut(&name)?.bdev = bdev;
        Ok(())
    }

    /// The device of this name.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn get(&self, name: &str) -> Result<Arc<dyn Bdev>, RegistryError> {
        Ok(self.entry(name)?.bdev.clone())
    }

    /// How much of the device hosts may use.
    pub fn limits(&self, name: &str) -> RateLimits {
        self.entries
            .get(name)
            .map_or_else(RateLimits::default, |e| e.limits)
    }

    /// Sets how much of the device hosts may use. Whoever serves hosts has to be told, too.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub fn set_limits(&mut self, name: &str, limits: RateLimits) -> Result<(), RegistryError> {
        self.entry_mut(name)?.limits = limits;
        Ok(())
    }

    /// Who holds the device of this name, if it exists and somebody does.
    pub fn claim_of(&self, name: &str) -> Option<&Claim> {
        self.entries.get(name)?.claim.as_ref()
    }

    /// That the device is there and nobody holds it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Busy`].
    pub fn check_free(&self, name: &str) -> Result<(), RegistryError> {
        match &self.entry(name)?.claim {
            Some(claim) => Err(busy(name, claim)),
            None => Ok(()),
        }
    }

    /// Takes the device for a device stacked on top of it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Busy`].
    pub fn claim(&mut self, name: &str, holder: &str) -> Result<Arc<dyn Bdev>, RegistryError> {
        let entry = self.entry_mut(name)?;
        if let Some(claim) = &entry.claim {
            return Err(busy(name, claim));
        }
        entry.claim = Some(Claim::Bdev(holder.to_owned()));
        Ok(entry.bdev.clone())
    }

    /// Ends a stacked device's hold. Harmless when there is none.
    pub fn release(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.claim = None;
        }
    }

    /// Notes that the device is exported by a subsystem; several may.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Busy`] when it is stacked upon.
    pub fn export(&mut self, name: &str, nqn: &str) -> Result<Arc<dyn Bdev>, RegistryError> {
        let entry = self.entry_mut(name)?;
        match &mut entry.claim {
            Some(claim @ Claim::Bdev(_)) => return Err(busy(name, claim)),
            Some(Claim::Namespaces(nqns)) => nqns.push(nqn.to_owned()),
            None => entry.claim = Some(Claim::Namespaces(vec![nqn.to_owned()])),
        }
        Ok(entry.bdev.clone())
    }

    /// Notes that a subsystem exports the device once less.
    pub fn unexport(&mut self, name: &str, nqn: &str) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if let Some(Claim::Namespaces(nqns)) = &mut entry.claim {
            if let Some(at) = nqns.iter().position(|n| n == nqn) {
                nqns.remove(at);
            }
            if nqns.is_empty() {
                entry.claim = None;
            }
        }
    }

    /// All devices, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<dyn Bdev>, Option<&Claim>)> {
        self.entries.values().map(|e| (&e.bdev, e.claim.as_ref()))
    }

    fn entry(&self, name: &str) -> Result<&Entry, RegistryError> {
        let missing = || RegistryError::NotFound(name.to_owned());
        self.entries.get(name).ok_or_else(missing)
    }

    fn entry_mut(&mut self, name: &str) -> Result<&mut Entry, RegistryError> {
        let missing = || RegistryError::NotFound(name.to_owned());
        self.entries.get_mut(name).ok_or_else(missing)
    }
}

fn busy(name: &str, claim: &Claim) -> RegistryError {
    let holder = match claim {
        Claim::Bdev(holder) => format!("bdev {holder}"),
        Claim::Namespaces(nqns) => format!("subsystem {}", nqns.join(", ")),
    };
    RegistryError::Busy {
        name: name.to_owned(),
        holder,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Null;
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for name in ["b", "a"] {
            let bdev = Null::new(name, 512, 8, None).unwrap();
            registry.add(bdev).unwrap();
        }
        registry
    }

    fn busy(holder: &str) -> RegistryError {
        RegistryError::Busy {
            name: "a".to_owned(),
            holder: holder.to_owned(),
        }
    }

    #[test]
    fn names_are_unique_and_listed_in_order() {
        let mut registry = registry();
        let again = Null::new("a", 4096, 1, None).unwrap();
        let taken = RegistryError::Exists("a".to_owned());
        assert_eq!(registry.add(again), Err(taken));
        let names: Vec<_> = registry.iter().map(|(b, _)| &b.info().name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(registry.get("a").unwrap().info().block_size, 512);
        let missing = RegistryError::NotFound("c".to_owned());
        assert_eq!(registry.get("c").unwrap_err(), missing);
        assert_eq!(registry.claim("c", "v").unwrap_err(), missing);
        assert_eq!(registry.export("c", "n").unwrap_err(), missing);
        assert_eq!(registry.remove("c").unwrap_err(), missing);
    }

    #[test]
    fn a_claimed_device_is_nobody_elses_until_released() {
        let mut registry = registry();
        registry.claim("a", "v").unwrap();
        assert_eq!(registry.claim("a", "w").unwrap_err(), busy("bdev v"));
        assert_eq!(registry.export("a", "n").unwrap_err(), busy("bdev v"));
        assert_eq!(registry.remove("a").unwrap_err(), busy("bdev v"));
        registry.claim("b", "v").unwrap();
        registry.release("a");
        assert_eq!(registry.claim_of("a"), None);
        registry.remove("a").unwrap();
        assert!(registry.get("a").is_err());
        // Of a device that is gone.
        registry.release("a");
    }

    #[test]
    fn an_exported_device_is_held_until_its_last_namespace_goes() {
        let mut registry = registry();
        for nqn in ["x", "y", "x"] {
            registry.export("a", nqn).unwrap();
        }
        let holders = "subsystem x, y, x";
        assert_eq!(registry.claim("a", "v").unwrap_err(), busy(holders));
        registry.unexport("a", "x");
        registry.unexport("a", "not there");
        assert_eq!(registry.remove("a").unwrap_err(), busy("subsystem y, x"));
        registry.unexport("a", "x");
        registry.unexport("a", "y");
        assert_eq!(registry.claim_of("a"), None);
        registry.claim("a", "v").unwrap();
    }
}
