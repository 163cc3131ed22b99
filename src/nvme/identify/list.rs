//! The lists that Identify returns: namespaces, controllers, the names of a namespace, command sets (Base 5.17.2).

use thiserror::Error;
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::IDENTIFY_SIZE;
use crate::nvme::NSID_MAX;

/// Namespace list (Base, "Namespace List"): up to 1024 identifiers, ascending, 0 behind the last. Also log page 04h.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct NamespaceList {
    /// The identifiers.
    pub ids: [U32; 1024],
}

layout!(NamespaceList, 4096 bytes, { ids at 0 });

impl NamespaceList {
    /// The first 1024 of the identifiers given, which must come in ascending order.
    #[must_use]
    pub fn from_ids(ids: impl IntoIterator<Item = u32>) -> Self {
        let mut list = Self::new_zeroed();
        for (slot, id) in list.ids.iter_mut().zip(ids) {
            *slot = id.into();
        }
        list
    }

    /// The changed namespaces page that says: more than 1024, look at all.
    #[must_use]
    pub fn overflow() -> Self {
        Self::from_ids([u32::MAX])
    }

    /// The identifiers up to the first 0.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids.iter().map(|id| id.get()).take_while(|&id| id != 0)
    }

    /// The identifiers up to the first 0, at most `most`: each names one namespace, and they ascend.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn checked(&self, most: usize) -> Result<Vec<u32>, u32> {
        let ids: Vec<u32> = self.iter().take(most).collect();
        let before = std::iter::once(0).chain(ids.iter().copied());
        let wrong = before
            .zip(&ids)
            .find(|&(before, &id)| id > NSID_MAX || before >= id);
        match wrong {
            Some((_, &id)) => Err(id),
            None => Ok(ids),
        }
    }
}

/// Controller list (Base, "Controller List"): up to 2047 identifiers, ascending.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ControllerList {
    /// How many identifiers there are.
    pub count: U16,
    /// The identifiers.
    pub ids: [U16; 2047],
}

layout!(ControllerList, 4096 bytes, { count at 0, ids at 2 });

impl ControllerList {
    /// The first 2047 of the identifiers given, which must come in ascending order.
    #[must_use]
    pub fn from_ids(ids: impl IntoIterator<Item = u16>) -> Self {
        let mut list = Self::new_zeroed();
        let mut count = 0;
        for (slot, id) in list.ids.iter_mut().zip(ids) {
            *slot = id.into();
            count += 1;
        }
        list.count = count.into();
        list
    }

    /// The identifiers that the count covers.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids
            .iter()
            .take(usize::from(self.count.get()))
            .map(|id| id.get())
    }
}

/// Identify I/O Command Set (CNS 1Ch): combinations of command sets that a controller supports at once.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct CommandSets {
    /// Each a vector of command sets: bit 0 the NVM command set. 0 for an unused place.
    pub vectors: [U64; 512],
}

layout!(CommandSets, 4096 bytes, { vectors at 0 });

impl CommandSets {
    /// A controller that has the NVM command set and no other.
    #[must_use]
    pub fn nvm_only() -> Self {
        let mut sets = Self::new_zeroed();
        sets.vectors[0] = 1.into();
        sets
    }
}

/// One entry of the Namespace Identification Descriptor list (CNS 03h): a name of the namespace, or its command set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceDescriptor {
    /// IEEE extended unique identifier.
    Eui64([u8; 8]),
    /// Namespace globally unique identifier.
    Nguid([u8; 16]),
    /// Namespace UUID.
    Uuid(Uuid),
    /// Command set identifier.
    CommandSet(u8),
}

/// Why a descriptor list can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DescriptorError {
    /// The length is not that of the type.
    #[error("namespace descriptor of type {kind:#04x} has a length of {length} bytes")]
    Length {
        /// Type of the descriptor.
        kind: u8,
        /// The length it gives itself.
        length: u8,
    },
    /// The list ends inside a descriptor.
    #[error("the namespace descriptor list ends inside a descriptor of type {0:#04x}")]
    Truncated(u8),
}

const DESCRIPTOR_HEADER: usize = 4;

/// A descriptor list being made: 4096 bytes, zeros behind the last descriptor.
#[derive(Debug, Clone)]
pub struct DescriptorList {
    bytes: [u8; IDENTIFY_SIZE],
    used: usize,
}

impl DescriptorList {
    /// A list of the descriptors given. There are four kinds of at most 20 bytes and one of each is all
    /// that the specification allows, so any proper list fits; what does not fit is left out.
    #[must_use]
    pub fn from_descriptors(descriptors: impl IntoIterator<Item = NamespaceDescriptor>) -> Self {
        let mut list = Self {
            bytes: [0; IDENTIFY_SIZE],
            used: 0,
        };
        for descriptor in descriptors {
            match descriptor {
                NamespaceDescriptor::Eui64(id) => list.push(0x01, &id),
                NamespaceDescriptor::Nguid(id) => list.push(0x02, &id),
                NamespaceDescriptor::Uuid(id) => list.push(0x03, id.as_bytes()),
                NamespaceDescriptor::CommandSet(id) => list.push(0x04, &[id]),
            }
        }
        list
    }

    fn push(&mut self, kind: u8, id: &[u8]) {
        let end = self.used + DESCRIPTOR_HEADER + id.len();
        if let Some(space) = self.bytes.get_mut(self.used..end) {
            space[0] = kind;
            space[1] = id.len() as u8;
            space[DESCRIPTOR_HEADER..].copy_from_slice(id);
            self.used = end;
        }
    }

    /// The 4096 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; IDENTIFY_SIZE] {
        &self.bytes
    }
}

/// Reads a descriptor list up to its end or its first fault; types that are not known are passed over.
pub fn descriptors(
    list: &[u8],
) -> impl Iterator<Item = Result<NamespaceDescriptor, DescriptorError>> + '_ {
    let mut rest = list;
    core::iter::from_fn(move || {
        loop {
            let [kind @ (1..), length @ (1..), _, _, behind @ ..] = rest else {
                return None;
            };
            let (kind, length) = (*kind, *length);
            let Some((id, next)) = behind.split_at_checked(usize::from(length)) else {
                rest = &[];
                return Some(Err(DescriptorError::Truncated(kind)));
            };
            rest = next;
            let fault = DescriptorError::Length { kind, length };
            let descriptor = match kind {
                0x01 => id
                    .try_into()
                    .map(NamespaceDescriptor::Eui64)
                    .map_err(|_| fault),
                0x02 => id
                    .try_into()
                    .map(NamespaceDescriptor::Nguid)
                    .map_err(|_| fault),
                0x03 => Uuid::from_slice(id)
                    .map(NamespaceDescriptor::Uuid)
                    .map_err(|_| fault),
                0x04 => match id {
                    [set] => Ok(NamespaceDescriptor::CommandSet(*set)),
                    _ => Err(fault),
                },
                _ => continue,
            };
            if descriptor.is_err() {
                rest = &[];
            }
            return Some(descriptor);
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_end_where_they_should() {
        let list = NamespaceList::from_ids([1, 5, 9]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [1, 5, 9]);
        assert_eq!(NamespaceList::from_ids(1..=2000).iter().count(), 1024);
        assert_eq!(
            NamespaceList::overflow().as_bytes()[..8],
            [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]
        );
        let list = ControllerList::from_ids([0, 3]);
        assert_eq!(list.as_bytes()[..8], [2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [0, 3]);
        assert_eq!(ControllerList::from_ids(0..3000).iter().count(), 2047);
        let liar = ControllerList {
            count: u16::MAX.into(),
            ..list
        };
        assert_eq!(liar.iter().count(), 2047);
        assert_eq!(
            CommandSets::nvm_only().as_bytes()[..9],
            [1, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn descriptors_have_the_bytes_of_the_specification() {
        let uuid = Uuid::from_bytes([0xaa; 16]);
        let given = [
            NamespaceDescriptor::Nguid([0x11; 16]),
            NamespaceDescriptor::Uuid(uuid),
            NamespaceDescriptor::CommandSet(0),
        ];
        let list = DescriptorList::from_descriptors(given);
        let bytes = list.as_bytes();
        assert_eq!(bytes[..4], [0x02, 16, 0, 0]);
        assert_eq!(bytes[4..20], [0x11; 16]);
        assert_eq!(bytes[20..24], [0x03, 16, 0, 0]);
        assert_eq!(bytes[40..46], [0x04, 1, 0, 0, 0, 0]);
        let read: Result<Vec<_>, _> = descriptors(bytes).collect();
        assert_eq!(read.expect("a list"), given);
    }

    #[test]
    fn faulty_lists_are_named_and_unknown_types_passed_over() {
        let read = |bytes: &[u8]| descriptors(bytes).collect::<Result<Vec<_>, _>>();
        assert_eq!(
            read(&[2, 3, 0, 0, 1, 2, 3]),
            Err(DescriptorError::Length { kind: 2, length: 3 })
        );
        assert_eq!(read(&[2, 16, 0, 0, 1]), Err(DescriptorError::Truncated(2)));
        assert_eq!(
            read(&[9, 1, 0, 0, 7, 4, 1, 0, 0, 2]),
            Ok(vec![NamespaceDescriptor::CommandSet(2)])
        );
        assert_eq!(read(&[]), Ok(vec![]));
        // A length of 0 ends the list rather than going round for ever.
        assert_eq!(read(&[9, 0, 0, 0, 4, 1, 0, 0, 2]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(bytes in proptest::collection::vec(0_u8..20, 0..200)) {
            prop_assert!(descriptors(&bytes).count() <= bytes.len());
        }
    }
}
