//! A controller's registers, and whoever can reach them.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;

use crate::nvme::property::Property;

/// Offset of the first doorbell in bytes (Base 3.1, NVMe over PCIe 3.1.2).
const DOORBELLS: u32 = 0x1000;

/// What a register of a device that is no longer there reads as.
pub const ALL_ONES: u32 = u32::MAX;

/// The memory-mapped registers of one controller (BAR 0), and the one thing outside of them that
/// the driver needs. Reactors and the keeper's thread use it at once.
///
/// Offsets are in bytes, aligned to the access, and below [`Bar::size`]; values are in the order of
/// the host's bytes. A device that is gone reads as all ones, and takes writes without an effect.
pub trait Bar: Debug + Send + Sync {
    /// Bytes of registers that can be reached.
    fn size(&self) -> u32;

    /// Reads 32 bits.
    fn read32(&self, offset: u32) -> u32;

    /// Reads 64 bits.
    fn read64(&self, offset: u32) -> u64;

    /// Writes 32 bits. What was stored to memory before is seen by the device first.
    fn write32(&self, offset: u32, value: u32);

    /// Writes 64 bits, otherwise as [`Bar::write32`].
    fn write64(&self, offset: u32, value: u64);

    /// Whether whoever gave the device out wants it back, because it is to be pulled out. It waits until the registers are
    /// dropped; until then the device works as ever, if it is there.
    fn is_wanted_back(&self) -> bool {
        false
    }

    /// Gives the device the right to access memory (the bus master bit), once it is known to have
    /// nothing to do.
    fn start_dma(&self);

    /// Takes the right to access memory from the device: when this returns,
    /// no DMA of it begins any more.
    fn stop_dma(&self);

    /// Readies up to `wanted` interrupt vectors, none of which signals anything yet, and answers how many there are: numbers
    /// from 0 on. To be called once, before the device has I/O queues. 0 where there are no interrupts.
    fn ready_vectors(&self, _wanted: u16) -> u16 {
        0
    }

    /// Has an interrupt vector signal an eventfd from now on, or nothing.
    ///
    /// # Errors
    /// What the operating system says; then it signals nothing.
    fn bind_vector(&self, _vector: u16, _event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Where the doorbells of a queue pair are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doorbells {
    /// Offset of the submission queue's tail doorbell in bytes.
    pub(super) tail: u32,
    /// Offset of the completion queue's head doorbell in bytes.
    pub(super) head: u32,
}

impl Doorbells {
    /// Those of queue pair `id`, at most [`Doorbells::last`], where CAP.DSTRD is `stride`, 0 to 15.
    pub(super) fn of(id: u16, stride: u8) -> Self {
        let step = 4 << u32::from(stride & 0xf);
        let at = |index: u32| DOORBELLS + index * step;
        Self {
            tail: at(2 * u32::from(id)),
            head: at(2 * u32::from(id) + 1),
        }
    }

    /// The largest queue identifier whose doorbells are inside `size` bytes of registers; `None`
    /// where not even those of the admin queue are.
    pub(super) fn last(size: u32, stride: u8) -> Option<u16> {
        let step = 4 << u32::from(stride & 0xf);
        let doorbells = size.checked_sub(DOORBELLS)? / step;
        let pairs = (doorbells / 2).checked_sub(1)?;
        Some(u16::try_from(pairs).unwrap_or(u16::MAX))
    }
}

/// Reads a property of 4 bytes.
pub(super) fn read(bar: &dyn Bar, property: Property) -> u32 {
    bar.read32(property.code())
}

/// Writes a property of 4 bytes.
pub(super) fn write(bar: &dyn Bar, property: Property, value: u32) {
    bar.write32(property.code(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbells_follow_the_stride() {
        assert_eq!(
            Doorbells::of(0, 0),
            Doorbells {
                tail: 0x1000,
                head: 0x1004
            }
        );
        // DSTRD 4: one doorbell in 64 bytes.
        assert_eq!(
            Doorbells::of(3, 4),
            Doorbells {
                tail: 0x1000 + 6 * 64,
                head: 0x1000 + 7 * 64
            }
        );
        assert_eq!(Doorbells::last(0x1000, 0), None);
        assert_eq!(Doorbells::last(0x1008, 0), Some(0));
        assert_eq!(Doorbells::last(0x2000, 0), Some(511));
        assert_eq!(Doorbells::last(0x4000, 15), None);
    }
}
