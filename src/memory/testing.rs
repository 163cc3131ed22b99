//! Where the tests of this room have their memory from: with the feature `dpdk`, from DPDK.

use super::Arena;

/// An arena of `bytes`.
pub(super) fn arena(bytes: usize) -> Arena {
    #[cfg(feature = "dpdk")]
    return super::dpdk::Environment::start(super::dpdk::Pages::Ordinary(256))
        .and_then(|environment| environment.arena(bytes))
        .unwrap();
    #[cfg(not(feature = "dpdk"))]
    Arena::ordinary(bytes).unwrap()
}
