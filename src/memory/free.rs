//! What the machine has free.

use std::fs;

/// Memory that is free, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeMemory {
    /// In all kinds of pages but huge ones: what can be had without swapping.
    pub ordinary: u64,
    /// In huge pages that are set aside and not used.
    pub huge: u64,
}

impl FreeMemory {
    /// What is free now (`/proc/meminfo`); `None` where the kernel does not tell.
    pub fn now() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn of(meminfo: &str) -> Option<Self> {
        let huge = || Some(field(meminfo, "HugePages_Free:")? * field(meminfo, "Hugepagesize:")?);
        Some(Self {
            ordinary: field(meminfo, "MemAvailable:")? / 1024,
            huge: huge().unwrap_or(0) / 1024,
        })
    }
}

/// The kernel's default huge page size in bytes, or `None` where none is free.
///
/// Asked before the allocator is, because it gives up the process where the line is missing.
pub(super) fn huge_page_size() -> Option<usize> {
    huge_page_size_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn huge_page_size_of(meminfo: &str) -> Option<usize> {
    (field(meminfo, "HugePages_Free:")? > 0).then_some(())?;
    Some(field(meminfo, "Hugepagesize:")? as usize * 1024)
}

/// The number behind a name at the beginning of a line.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ordinary: u64, huge: u64) -> Option<FreeMemory> {
        Some(FreeMemory { ordinary, huge })
    }

    #[test]
    fn the_kernels_table_is_read() {
        let text = "MemTotal:  2048 kB\nMemAvailable:    1048576 kB\nHugePages_Total:  9\n\
                    HugePages_Free:        3\nHugepagesize:       2048 kB\n";
        assert_eq!(FreeMemory::of(text), with(1024, 6));
        assert_eq!(FreeMemory::of("MemAvailable: 2048 kB\n"), with(2, 0));
        assert_eq!(FreeMemory::of(""), None);
        assert_eq!(huge_page_size_of(text), Some(2 << 20));
        assert_eq!(huge_page_size_of(&text.replace('3', "0")), None);
        assert_eq!(huge_page_size_of("HugePages_Free: 1\n"), None);
    }
}
