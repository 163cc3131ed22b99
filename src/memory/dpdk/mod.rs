//! DPDK's environment (EAL) as a source of memory that devices see: huge pages that stay where they are, and their
//! addresses for devices; and as the keeper of the VFIO container in which devices see that memory. Nothing else of DPDK is
//! used: no buses are scanned, no driver takes a device, nothing listens for telemetry, and no file is left behind.
//!
//! A process has one environment, for good: EAL cannot be started twice.

mod bindings;
mod vfio;

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::SLOT_ALIGN;
use super::arena::{Arena, ArenaError, PageKind};
use super::device::Windows;
use crate::lock;

pub use vfio::{Container, DpdkVfioError};

/// Why DPDK gives no memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpdkError {
    /// EAL said no; why is in what it has written to standard error.
    #[error(
        "DPDK's environment cannot be started (its own words are above); set huge pages aside with scripts/setup config, or do without DPDK"
    )]
    Start,
    /// The zone could not be had.
    #[error(
        "DPDK has no {0} bytes in one piece; set more huge pages aside (HUGEMEM=... scripts/setup config) or lower the memory size"
    )]
    OutOfMemory(usize),
    /// A size of zero, or one that overflows.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A page has no address for devices.
    #[error("DPDK knows no device address of memory at {0:#x}; run as root, or turn the IOMMU on")]
    NoAddress(usize),
}

/// Which pages the environment gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages that are set aside, as they are needed.
    Huge,
    /// So many MiB of ordinary pages: for tests. Devices cannot use them without an IOMMU.
    Ordinary(u32),
}

/// The DPDK environment of this process, started.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    pages: Pages,
}

/// The one that was started.
static STARTED: Mutex<Option<Environment>> = Mutex::new(None);

impl Environment {
    /// Starts the environment, or returns the one that was started before, whatever `pages` says then.
    ///
    /// # Errors
    /// [`DpdkError::Start`]. It may not be tried again in this process.
    pub fn start(pages: Pages) -> Result<Self, DpdkError> {
        let mut started = lock::exclusive(&STARTED);
        if let Some(environment) = *started {
            return Ok(environment);
        }
        // EAL binds the thread that starts it to a core, for the life of that thread.
        let thread = std::thread::spawn(move || initialise(&arguments(pages)));
        let initialised = thread.join().unwrap_or(false);
        if !initialised {
            return Err(DpdkError::Start);
        }
        let environment = Self { pages };
        *started = Some(environment);
        Ok(environment)
    }

    /// The environment that an arena is of, if it is of one.
    #[must_use]
    pub fn of(arena: &Arena) -> Option<Self> {
        let started = *lock::exclusive(&STARTED);
        started.filter(|_| arena.is_of_dpdk())
    }

    /// An arena of `bytes`, rounded up to whole pages, on any NUMA node. It is zeroed.
    ///
    /// # Errors
    /// [`DpdkError::OutOfMemory`], [`DpdkError::Arena`].
    pub fn arena(&self, bytes: usize) -> Result<Arena, DpdkError> {
        let size = bytes
            .checked_next_multiple_of(SLOT_ALIGN)
            .filter(|&b| b > 0)
            .ok_or(ArenaError::Size(bytes))?;
        let zone = Zone::reserve(size).ok_or(DpdkError::OutOfMemory(bytes))?;
        let kind = match self.pages {
            Pages::Huge => PageKind::Huge,
            Pages::Ordinary(_) => PageKind::Ordinary,
        };
        Ok(Arena::of_dpdk(zone, size, kind))
    }

    /// Where devices see an arena of this environment. Pages that follow one another for them, too, are one window.
    ///
    /// # Errors
    /// [`DpdkError::NoAddress`].
    pub fn windows(&self, arena: &Arena) -> Result<Windows, DpdkError> {
        let (base, size) = arena.range();
        let mut windows = Windows::new();
        let (mut start, mut first) = (0, device_address(base)?);
        for offset in (SLOT_ALIGN..size).step_by(SLOT_ALIGN) {
            let address = device_address(base.wrapping_add(offset))?;
            if address != first + (offset - start) as u64 {
                windows.add_part(arena, start..offset, first);
                (start, first) = (offset, address);
            }
        }
        windows.add_part(arena, start..size, first);
        Ok(windows)
    }
}

/// The words of EAL's command line.
fn arguments(pages: Pages) -> Vec<CString> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut words = vec![
        "stripewise".to_owned(),
        "--no-telemetry".into(),
        // Devices are for those who ask for them.
        "--no-pci".into(),
        "--log-level=lib.eal:4".into(),
        // One logical core, which may run on any.
        format!("--lcores=0@(0-{})", cores - 1),
    ];
    // Nothing in the file system, and no second process.
    words.extend(match pages {
        Pages::Huge => vec!["--in-memory".into()],
        Pages::Ordinary(mib) => vec![
            "--no-shconf".into(),
            "--no-huge".into(),
            "-m".into(),
            mib.to_string(),
        ],
    });
    let word = |word| CString::new(word).expect("no zero byte among them");
    words.into_iter().map(word).collect()
}

/// Whether EAL could be initialised.
fn initialise(words: &[CString]) -> bool {
    // EAL moves the words about.
    let mut pointers: Vec<*mut c_char> = words.iter().map(|w| w.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    // SAFETY: argc words and a null pointer, as for main; EAL permutes the pointers and does not write to the words.
    // The lock of `start` lets nobody else in, and it is called once.
    unsafe { bindings::rte_eal_init(words.len() as c_int, pointers.as_mut_ptr()) >= 0 }
}

/// The address for devices of memory at `at`.
fn device_address(at: *const u8) -> Result<u64, DpdkError> {
    // SAFETY: EAL looks the address up and does not follow it.
    let address = unsafe { bindings::rte_mem_virt2iova(at.cast::<c_void>()) };
    match address {
        u64::MAX => Err(DpdkError::NoAddress(at.addr())),
        address => Ok(address),
    }
}

/// A piece of DPDK's memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Zone {
    zone: NonNull<bindings::rte_memzone>,
    base: NonNull<u8>,
}

// SAFETY: the zone's description is not changed while it is reserved, and EAL locks its own tables.
unsafe impl Send for Zone {}
// SAFETY: as above.
unsafe impl Sync for Zone {}

impl Zone {
    fn reserve(bytes: usize) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("stripewise{number}")).expect("no zero byte");
        // SAFETY: the name is a string with its end; the environment has been started, for whoever has one.
        let zone = unsafe {
            bindings::rte_memzone_reserve_aligned(
                name.as_ptr(),
                bytes,
                bindings::SOCKET_ID_ANY,
                0,
                SLOT_ALIGN as u32,
            )
        };
        let zone = NonNull::new(zone.cast_mut())?;
        // SAFETY: EAL gave a description that is complete; the union's other field is the same number.
        let base = unsafe { (*zone.as_ptr()).__bindgen_anon_1.addr };
        let base = NonNull::new(base.cast::<u8>())?;
        // SAFETY: so many bytes were reserved there, for us alone. EAL clears memory when it gets it back, but does
        // not promise it.
        unsafe { base.write_bytes(0, bytes) };
        Some(Self { zone, base })
    }

    /// Its first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: it is reserved, by us; whoever owned it says with the drop that nobody points there any more.
        let freed = unsafe { bindings::rte_memzone_free(self.zone.as_ptr()) };
        debug_assert_eq!(freed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::*;

    fn environment() -> Environment {
        Environment::start(Pages::Ordinary(256)).unwrap()
    }

    #[test]
    fn every_byte_of_an_arena_has_an_address_and_no_other() {
        let (environment, bytes) = (environment(), 5 * SLOT_ALIGN);
        let arena = environment.arena(bytes - 100).unwrap();
        assert_eq!(arena.size(), bytes, "whole pages");
        let windows = environment.windows(&arena).unwrap();
        let (base, _) = arena.range();
        for page in 0..5 {
            let at = base.wrapping_add(page * SLOT_ALIGN);
            let address = windows
                .address(at, SLOT_ALIGN)
                .expect("a page is in one piece");
            assert_eq!(windows.address(at.wrapping_add(17), 8), Some(address + 17));
            // Without huge pages EAL has devices use our own addresses.
            assert_eq!(address, at.addr() as u64);
        }
        assert_eq!(windows.address(base.wrapping_sub(1), 1), None);
        assert_eq!(windows.address(base.wrapping_add(bytes), 1), None);
    }

    #[test]
    fn what_is_given_back_is_given_out_again_and_zeroed() {
        let environment = environment();
        for round in 0..20 {
            // Twenty of them at once would be more than there is.
            let arena = environment.arena(40 << 20).unwrap();
            let pool = Pool::new(&arena, 1 << 20, 40).unwrap();
            let mut slots: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            assert!(
                slots.iter().all(|slot| slot.iter().all(|&b| b == 0)),
                "round {round}"
            );
            slots.iter_mut().for_each(|slot| slot.fill(0xff));
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        let environment = environment();
        let vast = 1 << 40;
        assert_eq!(
            environment.arena(vast).unwrap_err(),
            DpdkError::OutOfMemory(vast)
        );
        assert_eq!(
            environment.arena(0).unwrap_err(),
            ArenaError::Size(0).into()
        );
    }
}
