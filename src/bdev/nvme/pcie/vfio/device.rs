//! The registers of an opened device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};

use super::super::bar::Bar;
use super::bus_error::Watch;
use super::groups::Device;
use super::ioctl;

/// The command register of the configuration space, and bits of it (PCI 6.2.2).
const COMMAND: u64 = 4;
const MEMORY_SPACE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;

/// Bytes of registers that are mapped at most: the doorbells of more queues than anybody makes.
const MOST: u64 = 1 << 20;

/// BAR 0 of a controller, mapped.
#[derive(Debug)]
pub(super) struct VfioBar {
    base: NonNull<u8>,
    size: u32,
    /// Lets go of the mapping before it is unmapped.
    watch: Option<Watch>,
    /// Is signalled when the kernel wants the device back; not every kernel says so.
    wanted: Option<OwnedFd>,
    /// Closed after the registers are unmapped.
    device: Device,
    /// Where the configuration space is in the device's file.
    configuration: u64,
}

// SAFETY: registers are accessed one at a time, volatile, and any thread may do so; the mapping is
// owned.
unsafe impl Send for VfioBar {}
// SAFETY: as above.
unsafe impl Sync for VfioBar {}

impl VfioBar {
    /// Maps the registers of a device; it has no right to access memory yet.
    pub(super) fn map(device: Device) -> io::Result<Self> {
        let file = device.file();
        let bar = ioctl::region(file, VFIO_PCI_BAR0_REGION_INDEX)?;
        let configuration = ioctl::region(file, VFIO_PCI_CONFIG_REGION_INDEX)?;
        let size = bar.size.min(MOST);
        if bar.flags & VFIO_REGION_INFO_FLAG_MMAP == 0 || size < 0x1000 {
            return Err(io::Error::other("its registers (BAR 0) cannot be mapped"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                size as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                bar.offset,
            )
        }?;
        let wanted = event(&device);
        let mut mapped = Self {
            base: NonNull::new(base.cast()).expect("the kernel maps nothing at address 0"),
            size: size as u32,
            watch: None,
            wanted,
            device,
            configuration: configuration.offset,
        };
        // SAFETY: the mapping is ours, and holds registers only.
        mapped.watch = Some(unsafe { Watch::new(mapped.base, size as usize) }?);
        // Without it every access of the mapping is a bus error.
        mapped.set_command(MEMORY_SPACE, BUS_MASTER)?;
        Ok(mapped)
    }

    /// Sets and clears bits of the command register.
    fn set_command(&self, set: u16, clear: u16) -> io::Result<()> {
        let at = self.configuration + COMMAND;
        let mut bytes = [0; 2];
        self.device.file().read_exact_at(&mut bytes, at)?;
        let command = u16::from_le_bytes(bytes) & !clear | set;
        self.device.file().write_all_at(&command.to_le_bytes(), at)
    }

    /// The address of a register of type `T`.
    fn register<T>(&self, offset: u32) -> *mut T {
        let end = offset as usize + size_of::<T>();
        assert!(
            end <= self.size as usize && (offset as usize).is_multiple_of(align_of::<T>()),
            "register {offset:#x} of {:#x}",
            self.size
        );
        // SAFETY: the offset is inside the mapping.
        unsafe { self.base.add(offset as usize) }.as_ptr().cast()
    }
}

/// An event that the kernel signals when it wants the device back.
fn event(device: &Device) -> Option<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
    match ioctl::signal_when_wanted(device.file(), event.as_fd()) {
        Ok(()) => Some(event),
        Err(error) => {
            tracing::warn!("{device}: whether it is to be pulled out is not known: {error}");
            None
        }
    }
}

impl Bar for VfioBar {
    fn size(&self) -> u32 {
        self.size
    }

    fn read32(&self, offset: u32) -> u32 {
        // SAFETY: an aligned register inside the mapping.
        u32::from_le(unsafe { self.register::<u32>(offset).read_volatile() })
    }

    fn read64(&self, offset: u32) -> u64 {
        // In halves, because not every device takes one access of 64 bits.
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    fn write32(&self, offset: u32, value: u32) {
        // Everything in memory before the device hears of it. On x86 the registers are not cached,
        // and stores keep their order; elsewhere this has not been tried.
        fence(Ordering::SeqCst);
        // SAFETY: an aligned register inside the mapping.
        unsafe { self.register::<u32>(offset).write_volatile(value.to_le()) }
    }

    fn write64(&self, offset: u32, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }

    fn is_wanted_back(&self) -> bool {
        let Some(event) = &self.wanted else {
            return false;
        };
        // Looked at and not read, so that it stays true.
        let mut events = [PollFd::new(event, PollFlags::IN)];
        matches!(poll(&mut events, Some(&Timespec::default())), Ok(1))
    }

    fn start_dma(&self) {
        if let Err(error) = self.set_command(BUS_MASTER, 0) {
            // Then it does not come up, and that is told.
            tracing::error!("PCI command register: {error}");
        }
    }

    fn stop_dma(&self) {
        if let Err(error) = self.set_command(0, BUS_MASTER) {
            // The device is gone, or else closing it ends its DMA.
            tracing::error!("PCI command register: {error}");
        }
    }

    fn ready_vectors(&self, wanted: u16) -> u16 {
        let ready = || -> io::Result<u16> {
            let vectors = ioctl::vectors(self.device.file())?.min(u32::from(wanted)) as u16;
            if vectors > 0 {
                // All of them at once: older kernels can't add some later.
                ioctl::bind(self.device.file(), 0, &vec![None; usize::from(vectors)])?;
            }
            Ok(vectors)
        };
        ready().unwrap_or_else(|error| {
            tracing::info!("no interrupts, so no sleep with commands in flight: {error}");
            0
        })
    }

    fn bind_vector(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        ioctl::bind(self.device.file(), vector, &[event])
    }
}

impl Drop for VfioBar {
    fn drop(&mut self) {
        self.stop_dma();
        self.watch = None;
        // SAFETY: the mapping is ours, and its registers are reached through this value only.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.size as usize) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
