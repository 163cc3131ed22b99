//! How much memory to set aside, and on which pages.

#[cfg(feature = "dpdk")]
use crate::memory::dpdk;
use crate::memory::{Arena, ArenaError, FreeMemory, PageKind};

/// What is set aside unless told otherwise, in MiB, where there is as much.
const DEFAULT_MIB: u64 = 1024;

/// The least that is of any use, in MiB.
pub const LEAST_MIB: u64 = 64;

/// The memory cannot be set aside.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Less than anything can be done with.
    #[error("a memory size of {0} MiB (-s) is too little; give {LEAST_MIB} at least")]
    TooLittle(u64),
    /// More than there is.
    #[error(
        "a memory size of {wanted} MiB (-s) is more than the {free} MiB that are free; give less, or free memory"
    )]
    TooMuch {
        /// What was asked for, in MiB.
        wanted: u64,
        /// What there is, in MiB.
        free: u64,
    },
    /// The allocator refused.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// DPDK has none.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] dpdk::DpdkError),
}

/// Where memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From the kernel, on huge pages where there are enough.
    #[default]
    Kernel,
    /// From DPDK's environment, on huge pages.
    #[cfg(feature = "dpdk")]
    Dpdk,
}

/// Sets aside `asked` MiB, or without that a default that the machine can bear: on huge pages if
/// enough of them are free, else on ordinary ones. DPDK gives huge ones, or none.
///
/// # Errors
/// [`MemoryError`].
pub fn set_aside(asked: Option<u64>, source: Source) -> Result<Arena, MemoryError> {
    let mib = choose(asked, FreeMemory::now())?;
    let bytes = mib as usize * (1 << 20);
    let arena = match source {
        Source::Kernel => Arena::new(bytes)?,
        #[cfg(feature = "dpdk")]
        Source::Dpdk => dpdk::Environment::start(dpdk::Pages::Huge)?.arena(bytes)?,
    };
    match arena.page_kind() {
        PageKind::Huge => tracing::info!("memory: {mib} MiB on huge pages"),
        PageKind::Ordinary => tracing::info!(
            "memory: {mib} MiB on ordinary pages; for huge ones, set enough of them aside in /proc/sys/vm/nr_hugepages"
        ),
    }
    Ok(arena)
}

fn choose(asked: Option<u64>, free: Option<FreeMemory>) -> Result<u64, MemoryError> {
    if let Some(asked) = asked.filter(|&mib| mib < LEAST_MIB) {
        return Err(MemoryError::TooLittle(asked));
    }
    let Some(free) = free else {
        return Ok(asked.unwrap_or(LEAST_MIB));
    };
    let most = free.ordinary.max(free.huge);
    match asked {
        Some(wanted) if wanted > most => Err(MemoryError::TooMuch { wanted, free: most }),
        Some(wanted) => Ok(wanted),
        // A little less on huge pages is better than more on ordinary ones.
        None if free.huge >= DEFAULT_MIB / 4 => Ok(DEFAULT_MIB.min(free.huge)),
        None => Ok(DEFAULT_MIB.min(free.ordinary / 2).max(LEAST_MIB)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ordinary: u64, huge: u64) -> Option<FreeMemory> {
        Some(FreeMemory { ordinary, huge })
    }

    #[test]
    fn the_default_is_what_the_machine_can_bear() {
        let default = |free| choose(None, free).unwrap();
        assert_eq!(default(with(16_000, 0)), 1024);
        assert_eq!(default(with(16_000, 2048)), 1024);
        assert_eq!(default(with(16_000, 512)), 512);
        assert_eq!(
            default(with(16_000, 100)),
            1024,
            "too few huge pages to be worth it"
        );
        assert_eq!(default(with(1000, 0)), 500);
        assert_eq!(default(with(50, 0)), LEAST_MIB);
        assert_eq!(default(None), LEAST_MIB);
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_can() {
        assert_eq!(choose(Some(300), with(1000, 0)).unwrap(), 300);
        let error = choose(Some(2000), with(1000, 100)).unwrap_err().to_string();
        assert!(
            error.contains("2000 MiB") && error.contains("1000 MiB that are free"),
            "{error}"
        );
        let error = choose(Some(1), with(1000, 0)).unwrap_err().to_string();
        assert!(error.contains("64 at least"), "{error}");
    }
}
