//! Identify Controller (CNS 01h, Base 5.17.2.1) and its part for the NVM command set (CNS 06h, NVM 4.1.5.4).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::nvme::NQN_FIELD_SIZE;
use crate::nvme::nqn::Nqn;
use crate::nvme::text::nul_terminated;

codes! {
    /// What kind of controller this is (CNTRLTYPE).
    pub enum ControllerType: u8 {
        NotReported = 0x0, "not reported";
        Io = 0x1, "I/O controller";
        Discovery = 0x2, "Discovery controller";
        Administrative = 0x3, "Administrative controller";
    }
}

/// Identify Controller. Field names are the specification's; the constants are bits of the fields.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor identifier; 0 on fabrics.
    pub vid: U16,
    /// PCI subsystem vendor identifier; 0 on fabrics.
    pub ssvid: U16,
    /// Serial number of the NVM subsystem, ASCII padded with spaces.
    pub sn: [u8; 20],
    /// Model number, ASCII padded with spaces.
    pub mn: [u8; 40],
    /// Firmware revision, ASCII padded with spaces.
    pub fr: [u8; 8],
    /// Recommended arbitration burst, 2^n commands.
    pub rab: u8,
    /// IEEE OUI of the vendor, least significant byte first.
    pub ieee: [u8; 3],
    /// Multi-path and namespace sharing capabilities.
    pub cmic: u8,
    /// Largest data transfer: 2^n pages of CAP.MPSMIN; 0 for no limit.
    pub mdts: u8,
    /// Controller identifier; the same as Connect gave.
    pub cntlid: U16,
    /// Version, as the VS property.
    pub ver: U32,
    /// RTD3 resume latency, microseconds.
    pub rtd3r: U32,
    /// RTD3 entry latency, microseconds.
    pub rtd3e: U32,
    /// Optional asynchronous events supported.
    pub oaes: U32,
    /// Controller attributes.
    pub ctratt: U32,
    /// Read recovery levels supported.
    pub rrls: U16,
    /// Reserved.
    pub reserved102: [u8; 9],
    /// Controller type, a [`ControllerType`].
    pub cntrltype: u8,
    /// FRU globally unique identifier; 0 for none.
    pub fguid: [u8; 16],
    /// Command retry delay time 1, in 100 ms.
    pub crdt1: U16,
    /// Command retry delay time 2, in 100 ms.
    pub crdt2: U16,
    /// Command retry delay time 3, in 100 ms.
    pub crdt3: U16,
    /// Reserved.
    pub reserved134: [u8; 119],
    /// NVM subsystem report.
    pub nvmsr: u8,
    /// VPD write cycle information.
    pub vwci: u8,
    /// Management endpoint capabilities.
    pub mec: u8,
    /// Optional admin command support.
    pub oacs: U16,
    /// Abort command limit, 0's based.
    pub acl: u8,
    /// Asynchronous event request limit, 0's based.
    pub aerl: u8,
    /// Firmware updates.
    pub frmw: u8,
    /// Log page attributes.
    pub lpa: u8,
    /// Error log page entries, 0's based.
    pub elpe: u8,
    /// Number of power states, 0's based.
    pub npss: u8,
    /// Admin vendor specific command configuration.
    pub avscc: u8,
    /// Autonomous power state transition attributes.
    pub apsta: u8,
    /// Warning composite temperature threshold, kelvin.
    pub wctemp: U16,
    /// Critical composite temperature threshold, kelvin.
    pub cctemp: U16,
    /// Maximum time for firmware activation, in 100 ms.
    pub mtfa: U16,
    /// Host memory buffer preferred size.
    pub hmpre: U32,
    /// Host memory buffer minimum size.
    pub hmmin: U32,
    /// Total NVM capacity, bytes.
    pub tnvmcap: U128,
    /// Unallocated NVM capacity, bytes.
    pub unvmcap: U128,
    /// Replay protected memory block support.
    pub rpmbs: U32,
    /// Extended device self-test time, minutes.
    pub edstt: U16,
    /// Device self-test options.
    pub dsto: u8,
    /// Firmware update granularity.
    pub fwug: u8,
    /// Keep alive support: granularity of the timer in 100 ms; 0 for no keep alive.
    pub kas: U16,
    /// Host controlled thermal management attributes.
    pub hctma: U16,
    /// Minimum thermal management temperature, kelvin.
    pub mntmt: U16,
    /// Maximum thermal management temperature, kelvin.
    pub mxtmt: U16,
    /// Sanitize capabilities.
    pub sanicap: U32,
    /// Host memory buffer minimum descriptor entry size.
    pub hmminds: U32,
    /// Host memory maximum descriptor entries.
    pub hmmaxd: U16,
    /// Largest NVM set identifier.
    pub nsetidmax: U16,
    /// Largest endurance group identifier.
    pub endgidmax: U16,
    /// ANA transition time, seconds.
    pub anatt: u8,
    /// Asymmetric namespace access capabilities.
    pub anacap: u8,
    /// Largest ANA group identifier.
    pub anagrpmax: U32,
    /// Number of ANA group identifiers.
    pub nanagrpid: U32,
    /// Persistent event log size.
    pub pels: U32,
    /// Domain identifier.
    pub domainid: U16,
    /// Reserved.
    pub reserved358: [u8; 10],
    /// Largest endurance group capacity.
    pub megcap: U128,
    /// Reserved.
    pub reserved384: [u8; 128],
    /// I/O submission queue entry size: 2^n bytes, minimum in bits 3:0, maximum in bits 7:4; 66h for 64 bytes.
    pub sqes: u8,
    /// I/O completion queue entry size, likewise; 44h for 16 bytes.
    pub cqes: u8,
    /// Most commands outstanding on one I/O queue.
    pub maxcmd: U16,
    /// Largest namespace identifier that the NVM subsystem may have.
    pub nn: U32,
    /// Optional NVM command support.
    pub oncs: U16,
    /// Fused operation support.
    pub fuses: U16,
    /// Format NVM attributes.
    pub fna: u8,
    /// Volatile write cache.
    pub vwc: u8,
    /// Atomic write unit normal, blocks, 0's based.
    pub awun: U16,
    /// Atomic write unit power fail, blocks, 0's based.
    pub awupf: U16,
    /// I/O command set vendor specific command configuration.
    pub icsvscc: u8,
    /// Namespace write protection capabilities.
    pub nwpc: u8,
    /// Atomic compare and write unit, blocks, 0's based.
    pub acwu: U16,
    /// Copy descriptor formats supported.
    pub cdfs: U16,
    /// SGL support.
    pub sgls: U32,
    /// Most namespaces that the subsystem supports at once; 0 where it is NN.
    pub mnan: U32,
    /// Most namespace attachments of a domain.
    pub maxdna: U128,
    /// Most namespace attachments of a controller.
    pub maxcna: U32,
    /// Reserved.
    pub reserved564: [u8; 204],
    /// Name of the NVM subsystem, NUL-terminated.
    pub subnqn: [u8; NQN_FIELD_SIZE],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// I/O queue command capsule size, in 16 bytes; at least 4.
    pub ioccsz: U32,
    /// I/O queue response capsule size, in 16 bytes; at least 1.
    pub iorcsz: U32,
    /// In-capsule data offset, in 16 bytes; 0 for NVMe/TCP.
    pub icdoff: U16,
    /// Fabrics controller attributes: bit 0 is 1 for static controllers.
    pub fcatt: u8,
    /// Most SGL data block descriptors a command; 0 for no limit.
    pub msdbd: u8,
    /// Optional fabrics commands support: bit 0 is 1 for Disconnect.
    pub ofcs: U16,
    /// Discovery controller type.
    pub dctype: u8,
    /// Reserved.
    pub reserved1807: [u8; 241],
    /// Power state descriptors.
    pub psd: [[u8; 32]; 32],
    /// Vendor specific.
    pub vs: [u8; 1024],
}

layout!(IdentifyController, 4096 bytes, {
    vid at 0, ssvid at 2, sn at 4, mn at 24, fr at 64, rab at 72, ieee at 73, cmic at 76, mdts at 77,
    cntlid at 78, ver at 80, rtd3r at 84, rtd3e at 88, oaes at 92, ctratt at 96, rrls at 100,
    cntrltype at 111, fguid at 112, crdt1 at 128, crdt2 at 130, crdt3 at 132, nvmsr at 253, vwci at 254,
    mec at 255, oacs at 256, acl at 258, aerl at 259, frmw at 260, lpa at 261, elpe at 262, npss at 263,
    avscc at 264, apsta at 265, wctemp at 266, cctemp at 268, mtfa at 270, hmpre at 272, hmmin at 276,
    tnvmcap at 280, unvmcap at 296, rpmbs at 312, edstt at 316, dsto at 318, fwug at 319, kas at 320,
    hctma at 322, mntmt at 324, mxtmt at 326, sanicap at 328, hmminds at 332, hmmaxd at 336,
    nsetidmax at 338, endgidmax at 340, anatt at 342, anacap at 343, anagrpmax at 344, nanagrpid at 348,
    pels at 352, domainid at 356, megcap at 368, sqes at 512, cqes at 513, maxcmd at 514, nn at 516,
    oncs at 520, fuses at 522, fna at 524, vwc at 525, awun at 526, awupf at 528, icsvscc at 530,
    nwpc at 531, acwu at 532, cdfs at 534, sgls at 536, mnan at 540, maxdna at 544, maxcna at 560,
    subnqn at 768, ioccsz at 1792, iorcsz at 1796, icdoff at 1800, fcatt at 1802, msdbd at 1803,
    ofcs at 1804, dctype at 1806, psd at 2048, vs at 3072,
});

impl IdentifyController {
    /// CMIC: the subsystem may have more than one port.
    pub const CMIC_MULTIPLE_PORTS: u8 = 1 << 0;
    /// CMIC: the subsystem may have more than one controller.
    pub const CMIC_MULTIPLE_CONTROLLERS: u8 = 1 << 1;
    /// CMIC: ANA is reported.
    pub const CMIC_ANA: u8 = 1 << 3;

    /// OAES: namespace attribute notices.
    pub const OAES_NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// OAES: firmware activation notices.
    pub const OAES_FIRMWARE_ACTIVATION: u32 = 1 << 9;
    /// OAES: ANA change notices.
    pub const OAES_ANA_CHANGE: u32 = 1 << 11;
    /// OAES: discovery log page change notices.
    pub const OAES_DISCOVERY_LOG_CHANGE: u32 = 1 << 31;

    /// CTRATT: 128-bit host identifiers; required on fabrics.
    pub const CTRATT_HOST_ID_128: u32 = 1 << 0;
    /// CTRATT: any command restarts the keep alive timer.
    pub const CTRATT_TRAFFIC_KEEP_ALIVE: u32 = 1 << 6;

    /// OACS: Security Send and Security Receive.
    pub const OACS_SECURITY: u16 = 1 << 0;
    /// OACS: Format NVM.
    pub const OACS_FORMAT: u16 = 1 << 1;
    /// OACS: Firmware Commit and Firmware Image Download.
    pub const OACS_FIRMWARE: u16 = 1 << 2;
    /// OACS: Namespace Management and Namespace Attachment.
    pub const OACS_NAMESPACE_MANAGEMENT: u16 = 1 << 3;
    /// OACS: Doorbell Buffer Config.
    pub const OACS_DOORBELL_BUFFER: u16 = 1 << 8;

    /// LPA: SMART page for each namespace.
    pub const LPA_NAMESPACE_SMART: u8 = 1 << 0;
    /// LPA: commands supported and effects page.
    pub const LPA_EFFECTS: u8 = 1 << 1;
    /// LPA: extended data for Get Log Page: 32-bit lengths and offsets.
    pub const LPA_EXTENDED: u8 = 1 << 2;
    /// LPA: persistent event log.
    pub const LPA_PERSISTENT_EVENTS: u8 = 1 << 4;
    /// LPA: supported log pages, feature effects and NVMe-MI effects pages.
    pub const LPA_SUPPORTED_PAGES: u8 = 1 << 5;

    /// ANACAP: the optimized state is reported.
    pub const ANACAP_OPTIMIZED: u8 = 1 << 0;
    /// ANACAP: the non-optimized state is reported.
    pub const ANACAP_NON_OPTIMIZED: u8 = 1 << 1;
    /// ANACAP: the inaccessible state is reported.
    pub const ANACAP_INACCESSIBLE: u8 = 1 << 2;
    /// ANACAP: the persistent loss state is reported.
    pub const ANACAP_PERSISTENT_LOSS: u8 = 1 << 3;
    /// ANACAP: the change state is reported.
    pub const ANACAP_CHANGE: u8 = 1 << 4;
    /// ANACAP: a namespace keeps its group while attached.
    pub const ANACAP_FIXED_GROUP: u8 = 1 << 6;
    /// ANACAP: the group identifier of Identify Namespace may be other than 0.
    pub const ANACAP_NONZERO_GROUP: u8 = 1 << 7;

    /// ONCS: Compare.
    pub const ONCS_COMPARE: u16 = 1 << 0;
    /// ONCS: Write Uncorrectable.
    pub const ONCS_WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// ONCS: Dataset Management.
    pub const ONCS_DATASET_MANAGEMENT: u16 = 1 << 2;
    /// ONCS: Write Zeroes.
    pub const ONCS_WRITE_ZEROES: u16 = 1 << 3;
    /// ONCS: save and select in the features commands.
    pub const ONCS_SAVE_AND_SELECT: u16 = 1 << 4;
    /// ONCS: reservations.
    pub const ONCS_RESERVATIONS: u16 = 1 << 5;
    /// ONCS: timestamp.
    pub const ONCS_TIMESTAMP: u16 = 1 << 6;
    /// ONCS: Verify.
    pub const ONCS_VERIFY: u16 = 1 << 7;
    /// ONCS: Copy.
    pub const ONCS_COPY: u16 = 1 << 8;

    /// FUSES: Compare and Write.
    pub const FUSES_COMPARE_AND_WRITE: u16 = 1 << 0;

    /// VWC: there is a volatile write cache.
    pub const VWC_PRESENT: u8 = 1 << 0;
    /// VWC: Flush to all namespaces (FFFFFFFFh) is refused.
    pub const VWC_FLUSH_ALL_REFUSED: u8 = 0b10 << 1;
    /// VWC: Flush to all namespaces (FFFFFFFFh) is supported.
    pub const VWC_FLUSH_ALL_SUPPORTED: u8 = 0b11 << 1;

    /// SGLS: SGLs are supported, with no alignment of their own.
    pub const SGLS_SUPPORTED: u32 = 0b01;
    /// SGLS: SGLs are supported, aligned to dwords.
    pub const SGLS_SUPPORTED_DWORD: u32 = 0b10;
    /// SGLS: keyed SGL data block descriptors.
    pub const SGLS_KEYED: u32 = 1 << 2;
    /// SGLS: the address of a descriptor may be an offset (SAOS): without it Linux sends no data in capsules.
    pub const SGLS_OFFSET: u32 = 1 << 20;
    /// SGLS: Transport SGL data block descriptors.
    pub const SGLS_TRANSPORT: u32 = 1 << 21;

    /// OFCS: Disconnect.
    pub const OFCS_DISCONNECT: u16 = 1 << 0;

    /// FCATT: controllers are static; without it they are dynamic.
    pub const FCATT_STATIC: u8 = 1 << 0;

    /// A structure of zeros, but for what every controller must say: the entry sizes of the NVM command set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sqes: 0x66,
            cqes: 0x44,
            ..Self::new_zeroed()
        }
    }

    /// Largest data transfer in bytes, for pages of `2^(12 + mpsmin)` bytes; `None` for no limit (or one
    /// beyond 64 bits).
    #[must_use]
    pub fn max_transfer(&self, mpsmin: u8) -> Option<u64> {
        if self.mdts == 0 {
            return None;
        }
        1_u64.checked_shl(12 + u32::from(mpsmin & 0xf) + u32::from(self.mdts))
    }

    /// Bytes of data that a command capsule of an I/O queue can carry; 0 where IOCCSZ is below its minimum.
    #[must_use]
    pub fn in_capsule_data(&self) -> u64 {
        (u64::from(self.ioccsz.get()) * 16).saturating_sub(64)
    }

    /// The name of the subsystem; `None` where the field is not a well-formed name, as with older devices.
    #[must_use]
    pub fn subsystem(&self) -> Option<Nqn> {
        Nqn::new(nul_terminated(&self.subnqn)?).ok()
    }
}

impl Default for IdentifyController {
    fn default() -> Self {
        Self::new()
    }
}

/// What the controller says about the NVM command set (CNS 06h, CSI 00h): limits of single commands, each 0 for none.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct IdentifyNvmController {
    /// Verify size limit: 2^n pages.
    pub vsl: u8,
    /// Write Zeroes size limit: 2^n pages.
    pub wzsl: u8,
    /// Write Uncorrectable size limit: 2^n pages.
    pub wusl: u8,
    /// Dataset Management: most ranges.
    pub dmrl: u8,
    /// Dataset Management: most blocks a range.
    pub dmrsl: U32,
    /// Dataset Management: most blocks a command.
    pub dmsl: U64,
    /// Reserved.
    pub reserved16: [u8; 4080],
}

layout!(IdentifyNvmController, 4096 bytes, {
    vsl at 0, wzsl at 1, wusl at 2, dmrl at 3, dmrsl at 4, dmsl at 8, reserved16 at 16,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_sizes_are_powers_of_two_pages() {
        let mut identify = IdentifyController::new();
        assert_eq!(identify.max_transfer(0), None);
        identify.mdts = 5;
        assert_eq!(identify.max_transfer(0), Some(131_072));
        identify.mdts = 0xff;
        assert_eq!(identify.max_transfer(15), None);
    }

    #[test]
    fn the_capsule_holds_the_command_and_its_data() {
        let mut identify = IdentifyController::new();
        assert_eq!(identify.in_capsule_data(), 0);
        // 64 bytes of command and 8 KiB of data.
        identify.ioccsz = 516.into();
        assert_eq!(identify.in_capsule_data(), 8192);
    }

    #[test]
    fn the_name_is_read_or_left_out() {
        let mut identify = IdentifyController::new();
        assert_eq!(identify.subsystem(), None);
        let name: Nqn = "nqn.2026-11.io.stripewise:demo".parse().expect("a name");
        identify.subnqn = name.to_field();
        assert_eq!(identify.subsystem(), Some(name));
    }
}
