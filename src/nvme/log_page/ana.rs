//! Asymmetric namespace access page (0Ch, Base 5.16.1.13): a header, then groups, each with its namespaces.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

codes! {
    /// How a controller reaches the namespaces of a group.
    pub enum AnaState: u8 {
        Optimized = 0x1, "ANA Optimized";
        NonOptimized = 0x2, "ANA Non-Optimized";
        Inaccessible = 0x3, "ANA Inaccessible";
        PersistentLoss = 0x4, "ANA Persistent Loss";
        Change = 0xf, "ANA Change";
    }
}

/// The header of the page.
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[repr(C)]
pub struct AnaHeader {
    /// Changes since the controller started.
    pub change_count: U64,
    /// Groups that follow.
    pub groups: U16,
    /// Reserved.
    pub reserved10: [u8; 6],
}

layout!(AnaHeader, 16 bytes, { change_count at 0, groups at 8 });

/// The head of one group; its namespace identifiers follow it, 4 bytes each, unless the host asked for
/// groups only (LSP bit 0, [`AnaGroup::LSP_GROUPS_ONLY`]).
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[repr(C)]
pub struct AnaGroup {
    /// Group identifier, from 1.
    pub id: U32,
    /// Namespace identifiers that follow.
    pub namespaces: U32,
    /// Changes of this group; 0 where it is not reported.
    pub change_count: U64,
    /// State in bits 3:0, an [`AnaState`].
    pub state: u8,
    /// Reserved.
    pub reserved17: [u8; 15],
}

layout!(AnaGroup, 32 bytes, { id at 0, namespaces at 4, change_count at 8, state at 16, reserved17 at 17 });

impl AnaHeader {
    /// Appends the header of a page of `groups` groups.
    pub fn write(page: &mut Vec<u8>, change_count: u64, groups: u16) {
        let header = Self {
            change_count: change_count.into(),
            groups: groups.into(),
            ..Self::new_zeroed()
        };
        page.extend_from_slice(header.as_bytes());
    }
}

impl AnaGroup {
    /// Bit of the log specific parameter with which a host asks for groups without namespaces (RGO).
    pub const LSP_GROUPS_ONLY: u8 = 1 << 0;

    /// Appends a group and its namespaces, which must come in ascending order.
    pub fn write(
        page: &mut Vec<u8>,
        id: u32,
        change_count: u64,
        state: AnaState,
        namespaces: &[u32],
    ) {
        let head = Self {
            id: id.into(),
            namespaces: (namespaces.len() as u32).into(),
            change_count: change_count.into(),
            state: state.code(),
            ..Self::new_zeroed()
        };
        page.extend_from_slice(head.as_bytes());
        page.extend(namespaces.iter().flat_map(|nsid| nsid.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_bytes_of_the_specification() {
        let mut page = Vec::new();
        AnaHeader::write(&mut page, 7, 1);
        AnaGroup::write(&mut page, 1, 3, AnaState::Optimized, &[1, 2]);
        assert_eq!(page.len(), 16 + 32 + 8);
        assert_eq!(page[..10], [7, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(
            page[16..33],
            [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(page[48..], [1, 0, 0, 0, 2, 0, 0, 0]);
    }
}
