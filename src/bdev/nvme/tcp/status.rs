//! What is known of a remote controller, for those who are not on its I/O path.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::initiator::Facts;

/// How it stands with a controller, and what is known of it.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Number of its association: another for each, 0 before the first.
    pub generation: u64,
    /// Where it can be reached, the address in use or last in use first.
    pub addresses: Vec<SocketAddr>,
    /// What it said of itself when the last association was made.
    pub facts: Option<Arc<Facts>>,
    /// Why it is away, or why the last attempt to reach it failed.
    pub trouble: Option<String>,
    /// Rounds of attempts to reach it that have failed since it was there last.
    pub failed_rounds: u64,
}
