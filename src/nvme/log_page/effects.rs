//! What is supported: log pages (00h), commands (05h), features (12h) (Base 5.16.1.1, 5.16.1.6, 5.16.1.18).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LogPageId;
use crate::nvme::feature::FeatureId;
use crate::nvme::opcode::{AdminOpcode, IoOpcode};

/// Supported log pages: an entry for each identifier.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct SupportedLogPages {
    /// Bit 0: supported; bit 1: offsets may be indices; bits 31:16: by page.
    pub pages: [U32; 256],
}

layout!(SupportedLogPages, 1024 bytes, { pages at 0 });

impl SupportedLogPages {
    /// LSUPP: the page is supported.
    pub const SUPPORTED: u32 = 1 << 0;

    /// The pages given, with no index offsets and nothing page specific.
    #[must_use]
    pub fn from_pages(pages: &[LogPageId]) -> Self {
        let mut log = Self::new_zeroed();
        for page in pages {
            log.pages[usize::from(page.code())] = Self::SUPPORTED.into();
        }
        log
    }
}

/// Commands supported and effects: an entry for each opcode of both kinds of queue.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct CommandEffects {
    /// Admin commands by opcode.
    pub admin: [U32; 256],
    /// I/O commands by opcode.
    pub io: [U32; 256],
    /// Reserved.
    pub reserved2048: [u8; 2048],
}

layout!(CommandEffects, 4096 bytes, { admin at 0, io at 1024, reserved2048 at 2048 });

impl CommandEffects {
    /// CSUPP: the command is supported.
    pub const SUPPORTED: u32 = 1 << 0;
    /// LBCC: the content of blocks may change.
    pub const CONTENT_CHANGE: u32 = 1 << 1;
    /// NCC: capabilities of a namespace may change.
    pub const NAMESPACE_CAPABILITY_CHANGE: u32 = 1 << 2;
    /// NIC: the inventory of namespaces may change.
    pub const NAMESPACE_INVENTORY_CHANGE: u32 = 1 << 3;
    /// CCC: capabilities of the controller may change.
    pub const CONTROLLER_CAPABILITY_CHANGE: u32 = 1 << 4;

    /// The commands given, each with no more effects than its name says: I/O commands that change blocks
    /// are marked so.
    #[must_use]
    pub fn from_commands(admin: &[AdminOpcode], io: &[IoOpcode]) -> Self {
        let mut log = Self::new_zeroed();
        for opcode in admin {
            log.admin[usize::from(opcode.code())] = Self::SUPPORTED.into();
        }
        for opcode in io {
            let changes = match opcode {
                IoOpcode::Write
                | IoOpcode::WriteUncorrectable
                | IoOpcode::WriteZeroes
                | IoOpcode::DatasetManagement
                | IoOpcode::Copy => Self::CONTENT_CHANGE,
                _ => 0,
            };
            log.io[usize::from(opcode.code())] = (Self::SUPPORTED | changes).into();
        }
        log
    }
}

/// Feature identifiers supported and effects: an entry for each identifier.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct FeatureEffects {
    /// Bit 0: supported; bit 20: of a namespace; bit 21: of the controller.
    pub features: [U32; 256],
}

layout!(FeatureEffects, 1024 bytes, { features at 0 });

impl FeatureEffects {
    /// FSUPP: the feature is supported.
    pub const SUPPORTED: u32 = 1 << 0;
    /// Scope: a namespace.
    pub const SCOPE_NAMESPACE: u32 = 1 << 20;
    /// Scope: the controller.
    pub const SCOPE_CONTROLLER: u32 = 1 << 21;

    /// The features given: those of reservations are of a namespace, all others of the controller.
    #[must_use]
    pub fn from_features(features: &[FeatureId]) -> Self {
        let mut log = Self::new_zeroed();
        for feature in features {
            let scope = match feature {
                FeatureId::ReservationNotificationMask | FeatureId::ReservationPersistence => {
                    Self::SCOPE_NAMESPACE
                }
                _ => Self::SCOPE_CONTROLLER,
            };
            log.features[usize::from(feature.code())] = (Self::SUPPORTED | scope).into();
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_at_their_codes() {
        let log = CommandEffects::from_commands(
            &[AdminOpcode::Identify],
            &[IoOpcode::Read, IoOpcode::Write],
        );
        let bytes = log.as_bytes();
        assert_eq!(bytes[24..28], [1, 0, 0, 0]);
        assert_eq!(bytes[1024..1036], [0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]);
        let pages = SupportedLogPages::from_pages(&[LogPageId::Discovery]);
        assert_eq!(pages.as_bytes()[0x70 * 4], 1);
        assert_eq!(
            pages.as_bytes().iter().filter(|&&byte| byte != 0).count(),
            1
        );
        let features = FeatureEffects::from_features(&[FeatureId::NumberOfQueues]);
        assert_eq!(features.as_bytes()[28..32], [1, 0, 0x20, 0]);
    }
}
