//! Which ways of authentication are allowed.

use super::error::TargetError;
use crate::nvme::dhchap::{DhGroup, Hash};

/// The hash functions and Diffie-Hellman groups that may be used. Of those that a host can do as
/// well, the strongest are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// Hash functions, at least one.
    pub hashes: Vec<Hash>,
    /// Groups, at least one; [`DhGroup::Null`] is one of them.
    pub groups: Vec<DhGroup>,
}

impl Default for Algorithms {
    /// All.
    fn default() -> Self {
        Self {
            hashes: Hash::ALL.to_vec(),
            groups: DhGroup::ALL.to_vec(),
        }
    }
}

impl Algorithms {
    /// Checks that there are some.
    ///
    /// # Errors
    /// [`TargetError::Invalid`].
    pub fn validate(&self) -> Result<(), TargetError> {
        for (name, none) in [
            ("dhchap_digests", self.hashes.is_empty()),
            ("dhchap_dhgroups", self.groups.is_empty()),
        ] {
            if none {
                return Err(TargetError::Invalid(format!(
                    "{name} is empty: no host could be authenticated; name one at least"
                )));
            }
        }
        Ok(())
    }
}
