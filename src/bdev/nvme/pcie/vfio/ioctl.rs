//! VFIO's requests (include/uapi/linux/vfio.h).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{Ioctl, c_int, c_ulong};
use smallvec::{SmallVec, smallvec};
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_GROUP_FLAGS_VIABLE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_NOIOMMU_IOMMU, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX, VFIO_TYPE,
    VFIO_TYPE1v2_IOMMU, vfio_group_status, vfio_iommu_type1_dma_map, vfio_irq_info, vfio_irq_set,
    vfio_region_info,
};

/// The version that this code speaks.
pub(super) const API_VERSION: i32 = VFIO_API_VERSION as i32;

/// `_IO(VFIO_TYPE, VFIO_BASE + n)`: none of VFIO's requests says its direction or size.
const fn request(number: u32) -> Ioctl {
    ((VFIO_TYPE as u32) << 8 | (VFIO_BASE + number)) as Ioctl
}

const GET_API_VERSION: Ioctl = request(0);
const CHECK_EXTENSION: Ioctl = request(1);
const SET_IOMMU: Ioctl = request(2);
const GROUP_GET_STATUS: Ioctl = request(3);
const GROUP_SET_CONTAINER: Ioctl = request(4);
const GROUP_GET_DEVICE_FD: Ioctl = request(6);
const DEVICE_GET_REGION_INFO: Ioctl = request(8);
const DEVICE_GET_IRQ_INFO: Ioctl = request(9);
const DEVICE_SET_IRQS: Ioctl = request(10);
const IOMMU_MAP_DMA: Ioctl = request(13);

/// Runs a request whose argument is a number.
fn with_number(file: &File, request: Ioctl, number: u32) -> io::Result<c_int> {
    // SAFETY: the request takes a number, and touches no memory of ours.
    told(unsafe { libc::ioctl(file.as_raw_fd(), request, c_ulong::from(number)) })
}

/// Runs a request whose argument is a structure, which the kernel reads and fills.
///
/// # Safety
/// The request takes a `T`, and follows no address in it but those that are valid for it.
unsafe fn with_structure<T>(fd: RawFd, request: Ioctl, structure: &mut T) -> io::Result<c_int> {
    // SAFETY: the structure is ours alone during the call, and of the request's type.
    told(unsafe { libc::ioctl(fd, request, std::ptr::from_mut(structure)) })
}

fn told(result: c_int) -> io::Result<c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// The version that the kernel speaks.
pub(super) fn api_version(container: &File) -> io::Result<i32> {
    with_number(container, GET_API_VERSION, 0)
}

/// Whether there are type 1 IOMMUs, x86's and Arm's.
pub(super) fn has_type1(container: &File) -> io::Result<bool> {
    Ok(with_number(container, CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU)? == 1)
}

/// Chooses a type 1 IOMMU for a container with a group.
pub(super) fn set_type1(container: &File) -> io::Result<()> {
    with_number(container, SET_IOMMU, VFIO_TYPE1v2_IOMMU).map(drop)
}

/// Says of a container that no IOMMU is to look after its group.
pub(super) fn set_no_iommu(container: &File) -> io::Result<()> {
    with_number(container, SET_IOMMU, VFIO_NOIOMMU_IOMMU).map(drop)
}

/// Whether all devices of a group can be used from here.
pub(super) fn is_viable(group: &File) -> io::Result<bool> {
    let mut status = vfio_group_status {
        argsz: size_of::<vfio_group_status>() as u32,
        flags: 0,
    };
    // SAFETY: the request takes this structure, which has no addresses.
    unsafe { with_structure(group.as_raw_fd(), GROUP_GET_STATUS, &mut status) }?;
    Ok(status.flags & VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// Puts a group into a container.
pub(super) fn set_container(group: &File, container: &File) -> io::Result<()> {
    let mut fd: c_int = container.as_raw_fd();
    // SAFETY: the request takes a descriptor.
    unsafe { with_structure(group.as_raw_fd(), GROUP_SET_CONTAINER, &mut fd) }.map(drop)
}

/// Opens a device of a group.
pub(super) fn device(group: &File, address: &str) -> io::Result<File> {
    let name = CString::new(address)?;
    // SAFETY: the request takes a string that ends with a NUL, and only reads it.
    let fd = told(unsafe { libc::ioctl(group.as_raw_fd(), GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
    // SAFETY: a new descriptor, which nobody else has.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Where a region of a device is in its file.
pub(super) fn region(device: &File, index: u32) -> io::Result<vfio_region_info> {
    let mut info = vfio_region_info {
        argsz: size_of::<vfio_region_info>() as u32,
        index,
        flags: 0,
        cap_offset: 0,
        size: 0,
        offset: 0,
    };
    // SAFETY: the request takes this structure, which has no addresses, and fills no more than it.
    unsafe { with_structure(device.as_raw_fd(), DEVICE_GET_REGION_INFO, &mut info) }?;
    Ok(info)
}

/// How many MSI-X vectors a device has.
pub(super) fn vectors(device: &File) -> io::Result<u32> {
    let mut info = vfio_irq_info {
        argsz: size_of::<vfio_irq_info>() as u32,
        flags: 0,
        index: VFIO_PCI_MSIX_IRQ_INDEX,
        count: 0,
    };
    // SAFETY: the request takes this structure, which has no addresses.
    unsafe { with_structure(device.as_raw_fd(), DEVICE_GET_IRQ_INFO, &mut info) }?;
    Ok(info.count)
}

/// Has the MSI-X vectors from `first` on signal one of `events` each, or nothing. The first call decides how many there are.
pub(super) fn bind(device: &File, first: u16, events: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
    signal(device, VFIO_PCI_MSIX_IRQ_INDEX, first, events)
}

/// Has the kernel signal an event when it wants the device back.
pub(super) fn signal_when_wanted(device: &File, event: BorrowedFd<'_>) -> io::Result<()> {
    signal(device, VFIO_PCI_REQ_IRQ_INDEX, 0, &[Some(event)])
}

/// Has the interrupts from `first` on of a kind signal one of `events` each, or nothing.
fn signal(
    device: &File,
    kind: u32,
    first: u16,
    events: &[Option<BorrowedFd<'_>>],
) -> io::Result<()> {
    // A `vfio_irq_set`, and behind it a descriptor, or -1, for each.
    let header = size_of::<vfio_irq_set>() / size_of::<u32>();
    let mut words: SmallVec<[u32; 6]> = smallvec![
        0,
        VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        kind,
        u32::from(first),
        events.len() as u32,
    ];
    debug_assert_eq!(words.len(), header);
    words.extend(
        events
            .iter()
            .map(|event| event.map_or(-1, |fd| fd.as_raw_fd()) as u32),
    );
    words[0] = (words.len() * size_of::<u32>()) as u32;
    // SAFETY: the request takes such a structure with as many descriptors as it says, and only reads it.
    told(unsafe { libc::ioctl(device.as_raw_fd(), DEVICE_SET_IRQS, words.as_ptr()) }).map(drop)
}

/// Makes `size` bytes from `base` readable and writable for all devices of a container, from `iova`
/// on, until the container is closed.
pub(super) fn map(container: &File, base: *const u8, size: usize, iova: u64) -> io::Result<()> {
    let mut map = vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
        flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: base.expose_provenance() as u64,
        iova,
        size: size as u64,
    };
    // SAFETY: the request takes this structure. It pins the pages of the range, which is an arena's;
    // the container, which its owner closes before it lets go of the arena, unpins them.
    unsafe { with_structure(container.as_raw_fd(), IOMMU_MAP_DMA, &mut map) }.map(drop)
}
