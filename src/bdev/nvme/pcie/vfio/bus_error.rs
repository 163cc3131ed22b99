//! Registers that are no longer there.
//!
//! The kernel takes a mapping of registers away when their device is switched off or reset by somebody else, or is gone.
//! Whoever reads one then gets a bus error (SIGBUS), and the process would end. Here it goes on: memory of ones takes the
//! place of the mapping, which is what a device that is gone reads as, and the driver gives the controller up.
//!
//! A handler of our own, because ours must be asked first: the one of Rust's runtime, which would come first with the crates
//! that stack handlers, takes the signal for a stack overflow or for the end. All other bus errors are passed on to it.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::lock;

/// Mappings that can be watched at a time: far more than there are controllers.
const MOST: usize = 1024;

/// A mapping that is watched. The handler reads it at any time, so it is made of atomics.
struct Range {
    /// Its first address, 0 where there is none.
    base: AtomicUsize,
    /// Its size in bytes; stored before `base` is, and not changed while there is one.
    size: AtomicUsize,
}

static RANGES: [Range; MOST] = [const {
    Range {
        base: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
    }
}; MOST];

/// Who makes entries of [`RANGES`]: how many bytes [`ONES`] has.
static MAKING: Mutex<u64> = Mutex::new(0);

/// A file full of ones.
static ONES: OnceLock<File> = OnceLock::new();

/// Who handled bus errors before.
static EARLIER: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping whose bytes read as ones from its first bus error on. To be dropped before it is unmapped.
#[derive(Debug)]
pub(super) struct Watch {
    index: usize,
}

impl Watch {
    /// Watches the mapping of `size` bytes at `base`, both multiples of a page.
    ///
    /// # Errors
    /// There is no memory for the ones, or there are too many mappings.
    ///
    /// # Safety
    /// It is a mapping of the caller's that holds nothing but registers: others may take their place at any time.
    pub(super) unsafe fn new(base: NonNull<u8>, size: usize) -> io::Result<Self> {
        let mut ones = lock::exclusive(&MAKING);
        prepare(&mut ones, size as u64)?;
        let free = |range: &Range| range.base.load(Ordering::Relaxed) == 0;
        let index = RANGES.iter().position(free);
        let index = index.ok_or_else(|| io::Error::other("more than 1024 controllers"))?;
        RANGES[index].size.store(size, Ordering::Relaxed);
        let base = base.as_ptr().expose_provenance();
        RANGES[index].base.store(base, Ordering::Release);
        Ok(Self { index })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        RANGES[self.index].base.store(0, Ordering::Release);
    }
}

/// Has a file with at least `size` ones, and the handler in its place.
fn prepare(ones: &mut u64, size: u64) -> io::Result<()> {
    let file = match ONES.get() {
        Some(file) => file,
        None => {
            let file = File::from(memfd_create("ones", MemfdFlags::CLOEXEC)?);
            ONES.get_or_init(|| file)
        }
    };
    while *ones < size {
        file.write_all_at(&[0xff; 4096], *ones)?;
        *ones += 4096;
    }
    if EARLIER.get().is_none() {
        let mut earlier = MaybeUninit::uninit();
        // SAFETY: it only asks, and fills the structure.
        let earlier = unsafe {
            told(libc::sigaction(
                libc::SIGBUS,
                std::ptr::null(),
                earlier.as_mut_ptr(),
            ))?;
            earlier.assume_init()
        };
        // There before the handler is.
        EARLIER.get_or_init(|| earlier);
        // SAFETY: all zeros is an action with no flags and an empty set.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handle as *const () as usize;
        // On the stack for signals, where the thread has one, because it may be passed on to who needs that.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: the handler does nothing that a signal handler may not: it reads atomics and makes system calls, and
        // neither allocates nor takes a lock.
        told(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

fn told(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The signal handler.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes what it says it does.
    let (code, at) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Only the kernel's codes are positive, and only those come with an address.
    let replaced = code > 0 && RANGES.iter().any(|range| range.replace(at));
    if !replaced {
        pass_on(signal, info, context);
    }
}

impl Range {
    /// Puts ones in the place of this mapping, if the address is in it.
    fn replace(&self, at: usize) -> bool {
        let base = self.base.load(Ordering::Acquire);
        let size = self.size.load(Ordering::Relaxed);
        let inside = base != 0 && (base..base + size).contains(&at);
        let Some(ones) = ONES.get().filter(|_| inside) else {
            return false;
        };
        // SAFETY: the file is never closed. Who made the entry has said that the mapping may be replaced, and keeps it while
        // the entry is there. Raw system calls, so errno stays as it was.
        unsafe {
            let base = std::ptr::with_exposed_provenance_mut(base);
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            let ones = BorrowedFd::borrow_raw(ones.as_raw_fd());
            mmap(
                base,
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                ones,
                0,
            )
            .is_ok()
        }
    }
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Plain = extern "C" fn(c_int);
    type Informed = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

    let Some(earlier) = EARLIER.get() else { return };
    let handler = earlier.sa_sigaction;
    if matches!(handler, libc::SIG_DFL | libc::SIG_IGN) {
        // Once more, without us: the signal comes when this handler returns.
        // SAFETY: an action that was in place before; both calls are allowed in a handler.
        unsafe {
            libc::sigaction(signal, std::ptr::from_ref(earlier), std::ptr::null_mut());
            libc::raise(signal);
        }
    } else if earlier.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with this flag it is the address of such a function.
        let handler = unsafe { std::mem::transmute::<usize, Informed>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without it, of such a one.
        let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
        handler(signal);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use rustix::mm::munmap;

    use super::*;

    const SIZE: usize = 16384;

    /// A mapping of a file. When the file is cut, the kernel has no page for it any more: a bus error, as with registers
    /// that are gone.
    fn registers() -> (File, NonNull<u8>) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0x5a; SIZE], 0).unwrap();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                SIZE,
                access,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
        .unwrap();
        (file, NonNull::new(base.cast()).unwrap())
    }

    fn read(base: NonNull<u8>, offset: usize) -> u32 {
        // SAFETY: inside the mapping, and aligned.
        unsafe { base.add(offset).cast::<u32>().read_volatile() }
    }

    fn unmap(base: NonNull<u8>) {
        // SAFETY: nobody looks there any more.
        unsafe { munmap(base.as_ptr().cast(), SIZE) }.unwrap();
    }

    #[test]
    fn registers_that_are_gone_read_as_ones() {
        for _ in 0..2 {
            let (file, base) = registers();
            let (_other_file, other) = registers();
            // SAFETY: mappings of this test.
            let watches = unsafe { [Watch::new(base, SIZE), Watch::new(other, SIZE)] };
            assert_eq!(read(base, 0x1c), 0x5a5a_5a5a);
            file.set_len(0).unwrap();
            for offset in [SIZE - 4, 0, 0x1c, 4096] {
                assert_eq!(read(base, offset), u32::MAX, "{offset:#x}");
            }
            // SAFETY: inside the mapping.
            unsafe { base.add(0x1000).write_volatile(1) };
            assert_eq!(read(base, 0x1c), u32::MAX);
            assert_eq!(read(other, 0x1c), 0x5a5a_5a5a);
            drop(watches);
            unmap(base);
            unmap(other);
        }
    }

    #[test]
    fn writing_to_registers_that_are_gone_does_no_harm() {
        let (file, base) = registers();
        // SAFETY: a mapping of this test.
        let watch = unsafe { Watch::new(base, SIZE) }.unwrap();
        file.set_len(0).unwrap();
        // SAFETY: inside the mapping.
        unsafe { base.add(0x1008).cast::<u32>().write_volatile(7) };
        assert_eq!(read(base, 0x1c), u32::MAX);
        drop(watch);
        unmap(base);
    }

    /// Says to the test below, when it has started itself once more, which bus error to make.
    const VARIABLE: &str = "STRIPEWISE_BUS_ERROR";

    #[test]
    fn other_bus_errors_end_the_process_as_ever() {
        if let Ok(which) = std::env::var(VARIABLE) {
            if which == "raised" {
                // SAFETY: it takes away what Rust's runtime has put there.
                unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            }
            let ((file, base), (watched_file, watched)) = (registers(), registers());
            // SAFETY: a mapping of this test.
            let watch = unsafe { Watch::new(watched, SIZE) }.unwrap();
            watched_file.set_len(0).unwrap();
            assert_eq!(read(watched, 0), u32::MAX);
            drop(watch);
            match which.as_str() {
                "other" => {
                    file.set_len(0).unwrap();
                    read(base, 0);
                }
                // SAFETY: a signal like any other.
                _ => drop(unsafe { libc::raise(libc::SIGBUS) }),
            }
            return;
        }
        for which in ["other", "raised"] {
            let name = concat!(module_path!(), "::other_bus_errors_end_the_process_as_ever");
            let (_, name) = name.split_once("::").unwrap();
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", name]).env(VARIABLE, which);
            let output = test.output().unwrap();
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGBUS),
                "{which}: {output:?}"
            );
        }
    }
}
