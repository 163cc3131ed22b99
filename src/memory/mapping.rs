//! Memory straight from the kernel: zeroed, and free of charge until it is touched.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Maps `bytes` that only this process sees.
///
/// # Errors
/// What the kernel said.
pub(super) fn map(bytes: usize) -> Result<NonNull<u8>, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
    let base = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }?;
    Ok(NonNull::new(base.cast()).expect("the kernel maps nothing at address 0"))
}

/// Maps `bytes`, a multiple of the kernel's default huge page, on huge pages that only this process
/// sees. They are set aside now, so touching them never fails; they are zeroed when they are touched.
///
/// # Errors
/// What the kernel said: there are not as many free.
pub(super) fn map_huge(bytes: usize) -> Result<NonNull<u8>, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
    let base = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::HUGETLB,
        )
    }?;
    Ok(NonNull::new(base.cast()).expect("the kernel maps nothing at address 0"))
}

/// Maps `bytes` of a file from `offset` on, for all who map it to see.
///
/// # Errors
/// What the kernel said.
pub(super) fn map_shared(
    file: BorrowedFd<'_>,
    offset: u64,
    bytes: usize,
) -> Result<NonNull<u8>, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            file,
            offset,
        )
    }?;
    Ok(NonNull::new(base.cast()).expect("the kernel maps nothing at address 0"))
}

/// Gives back what [`map`], [`map_huge`] or [`map_shared`] gave.
///
/// # Safety
/// `base` and `bytes` are those of one call of these, and nobody points there any more.
pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: passed on to the caller.
    let unmapped = unsafe { munmap(base.as_ptr().cast(), bytes) };
    debug_assert_eq!(unmapped, Ok(()));
}
