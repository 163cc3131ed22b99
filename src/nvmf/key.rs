//! Secrets by the names that operators give them.

use crate::nvme::dhchap::Secret;

/// A secret that a host or a subsystem proves itself with.
#[derive(Debug)]
pub struct Key {
    /// What the operator calls it.
    pub name: String,
    /// The secret.
    pub secret: Secret,
}
