//! What Identify says of a controller and its namespaces, checked: none of it is believed as it is.

use std::time::Duration;

use uuid::Uuid;

use super::super::identity::Identity;
use super::admin::Admin;
use super::error::Fault;
use super::sgl::Rules;
use crate::nvme::identify::{
    Cns, DescriptorList, IdentifyController, IdentifyNamespace, NamespaceDescriptor, NamespaceList,
    descriptors,
};

/// Bytes of the largest transfer that this driver makes in one command.
pub(super) const MAX_TRANSFER: usize = 1 << 20;

/// Longest that a controller may take to shut down.
const MAX_SHUTDOWN: Duration = Duration::from_secs(60);

/// The unit of CRDT1 to CRDT3.
const DELAY_UNIT: Duration = Duration::from_millis(100);

/// Namespaces that are looked at: of more, nobody makes members.
const MAX_NAMESPACES: usize = 256;

/// What a controller can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) identity: Identity,
    /// Bytes of the largest transfer of one command.
    pub(super) max_transfer: usize,
    /// There is a volatile write cache.
    pub(super) write_cache: bool,
    pub(super) compare: bool,
    pub(super) write_zeroes: bool,
    /// How it takes SGLs, if it does.
    pub(super) sgls: Option<Rules>,
    /// Doorbells may be in memory.
    pub(super) shadow_doorbells: bool,
    /// How long a command is to rest before it is sent again, by CRD of its status less 1; nothing where the controller does
    /// not say.
    pub(super) retry_delays: [Duration; 3],
    /// Most commands in flight on a queue, where the controller says.
    pub(super) max_commands: Option<u16>,
    /// How long a shutdown may take, where the controller says.
    pub(super) shutdown: Option<Duration>,
}

/// What a namespace is, and how it wants to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) nsid: u32,
    pub(super) blocks: u64,
    pub(super) block_size: u32,
    /// Blocks at whose multiples commands are split; 0 for nowhere.
    pub(super) boundary: u32,
    /// Write Zeroes may give space back, and the blocks read as zeros then.
    pub(super) deallocates: bool,
    /// More than one controller may have it.
    pub(super) shared: bool,
    pub(super) uuid: Uuid,
}

impl Abilities {
    /// Asks a controller of version `version`.
    ///
    /// # Errors
    /// What the admin queue says, or [`Fault::Identify`].
    pub(super) fn ask(admin: &mut Admin, version: u32) -> Result<Self, Fault> {
        let what = "identify itself";
        let identify: IdentifyController = admin.identify(Cns::Controller, 0, what)?;
        Self::of(&identify, version)
    }

    /// Tells a controller that was started what its host understands, and asks for its events.
    ///
    /// # Errors
    /// What the admin queue says.
    pub(super) fn introduce(&self, admin: &mut Admin) -> Result<(), Fault> {
        if self.retry_delays != [Duration::ZERO; 3] {
            admin.understand_retry_delays()?;
        }
        admin.ask_for_events()
    }

    fn of(identify: &IdentifyController, version: u32) -> Result<Self, Fault> {
        for (field, entry, sizes) in [("SQES", 6, identify.sqes), ("CQES", 4, identify.cqes)] {
            let (least, most) = (sizes & 0xf, sizes >> 4);
            if !(least..=most).contains(&entry) {
                return Err(Fault::Identify {
                    field,
                    value: u64::from(sizes),
                    reason: "entries of 64 and 16 bytes are not among them; this is no working \
                             NVMe controller",
                });
            }
        }
        let has = |bit| identify.oncs.get() & bit != 0;
        Ok(Self {
            identity: Identity::of(identify, version),
            max_transfer: max_transfer(identify.mdts),
            write_cache: identify.vwc & IdentifyController::VWC_PRESENT != 0,
            compare: has(IdentifyController::ONCS_COMPARE),
            write_zeroes: has(IdentifyController::ONCS_WRITE_ZEROES),
            sgls: Rules::of(identify.sgls.get()),
            shadow_doorbells: identify.oacs.get() & IdentifyController::OACS_DOORBELL_BUFFER != 0,
            retry_delays: [identify.crdt1, identify.crdt2, identify.crdt3]
                .map(|units| DELAY_UNIT * u32::from(units.get())),
            // Microseconds; more than a minute is no one's to wait for.
            shutdown: Some(Duration::from_micros(u64::from(identify.rtd3e.get())))
                .filter(|time| !time.is_zero())
                .map(|time| time.min(MAX_SHUTDOWN)),
            max_commands: Some(identify.maxcmd.get()).filter(|&most| most > 0),
        })
    }
}

/// Bytes of the largest transfer, from MDTS with CAP.MPSMIN 0: 2^n pages, 0 for no limit.
fn max_transfer(mdts: u8) -> usize {
    match mdts {
        0 => MAX_TRANSFER,
        _ => 4096_usize
            .checked_shl(u32::from(mdts))
            .filter(|&bytes| bytes > 0)
            .map_or(MAX_TRANSFER, |bytes| bytes.min(MAX_TRANSFER)),
    }
}

/// The identifiers of all active namespaces.
///
/// # Errors
/// What the admin queue says, or [`Fault::Identify`].
pub(super) fn namespaces(admin: &mut Admin) -> Result<Vec<u32>, Fault> {
    let what = "list its namespaces";
    let list: NamespaceList = admin.identify(Cns::ActiveNamespaces, 0, what)?;
    let ids = list.checked(MAX_NAMESPACES);
    ids.map_err(|id| Fault::Identify {
        field: "the list of namespaces",
        value: u64::from(id),
        reason: "identifiers must ascend and name a namespace; update its firmware",
    })
}

impl Shape {
    /// Asks for a namespace; `Ok(Err(reason))` where it is of no use.
    ///
    /// # Errors
    /// What the admin queue says.
    pub(super) fn ask(
        admin: &mut Admin,
        nsid: u32,
        identity: &Identity,
    ) -> Result<Result<Self, String>, Fault> {
        let what = "identify a namespace";
        let identify: IdentifyNamespace = admin.identify(Cns::Namespace, nsid, what)?;
        let what = "name a namespace";
        let names = match admin.identify::<[u8; 4096]>(Cns::NamespaceDescriptors, nsid, what) {
            Ok(names) => names,
            // Before NVMe 1.3 there are none.
            Err(Fault::Refused { .. }) => *DescriptorList::from_descriptors([]).as_bytes(),
            Err(fault) => return Err(fault),
        };
        Ok(Self::of(
            &identify,
            nsid,
            uuid(&identify, &names, identity, nsid),
        ))
    }

    fn of(identify: &IdentifyNamespace, nsid: u32, uuid: Uuid) -> Result<Self, String> {
        let format = identify.format();
        let blocks = identify.nsze.get();
        let block_size = match identify.block_size() {
            Some(size @ (512 | 4096)) => size,
            _ => {
                return Err(format!(
                    "its blocks are of 2^{} bytes, not 512 or 4096; format it with another LBA \
                     format (nvme format)",
                    format.lbads
                ));
            }
        };
        if format.ms.get() != 0 {
            return Err(format!(
                "its blocks carry {} bytes of metadata, which are not supported; format it with \
                 an LBA format without metadata (nvme format)",
                format.ms
            ));
        }
        if identify.dps & 0b111 != 0 {
            return Err(
                "it has end-to-end protection, which is not supported; format it without"
                    .to_owned(),
            );
        }
        let bytes = blocks.checked_mul(u64::from(block_size));
        if bytes.is_none_or(|bytes| bytes == 0 || i64::try_from(bytes).is_err()) {
            return Err(format!(
                "{blocks} blocks of {block_size} bytes make no device; create it anew (nvme \
                 create-ns)"
            ));
        }
        let dlfeat = identify.dlfeat;
        let zeros = dlfeat & 0b111 == IdentifyNamespace::DLFEAT_READS_ZERO;
        Ok(Self {
            nsid,
            blocks,
            block_size,
            boundary: u32::from(identify.noiob.get()),
            shared: identify.nmic & IdentifyNamespace::NMIC_SHARED != 0,
            deallocates: zeros && dlfeat & IdentifyNamespace::DLFEAT_WRITE_ZEROES_DEALLOCATES != 0,
            uuid,
        })
    }
}

/// The namespace's own UUID, or its NGUID or EUI64 as one, or else one that follows from the
/// controller's serial number: the same in every run.
fn uuid(identify: &IdentifyNamespace, names: &[u8; 4096], identity: &Identity, nsid: u32) -> Uuid {
    let told = descriptors(names).map_while(Result::ok);
    let mut nguid = identify.nguid;
    for name in told {
        match name {
            NamespaceDescriptor::Uuid(uuid) if !uuid.is_nil() => return uuid,
            NamespaceDescriptor::Nguid(id) if nguid == [0; 16] => nguid = id,
            _ => {}
        }
    }
    if nguid != [0; 16] {
        return Uuid::from_bytes(nguid);
    }
    let name = match identify.eui64 {
        [0, 0, 0, 0, 0, 0, 0, 0] => {
            format!("nvme:{}:{}:{nsid}", identity.model, identity.serial)
        }
        eui64 => format!("nvme:eui.{:016x}", u64::from_be_bytes(eui64)),
    };
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}

/// Reads these bytes as Identify Controller, Identify Namespace, and the names of a namespace; property
/// tests and fuzz targets share it. What is not there is 0.
///
/// # Panics
/// Where something is taken that cannot be worked with.
#[cfg(any(test, fuzzing))]
pub fn trial(pages: [&[u8]; 3]) {
    use zerocopy::FromBytes;
    let [controller, namespace, names] = pages.map(|bytes| {
        let mut page = [0; 4096];
        let len = bytes.len().min(4096);
        page[..len].copy_from_slice(&bytes[..len]);
        page
    });
    let (controller, _) = IdentifyController::read_from_prefix(&controller).expect("a page");
    let Ok(abilities) = Abilities::of(&controller, u32::MAX) else {
        return;
    };
    assert!((8192..=MAX_TRANSFER).contains(&abilities.max_transfer));
    assert!(abilities.shutdown.is_none_or(|time| time <= MAX_SHUTDOWN));
    assert_ne!(abilities.max_commands, Some(0));
    let (list, _) = NamespaceList::ref_from_prefix(&names).expect("a page");
    if let Ok(ids) = list.checked(MAX_NAMESPACES) {
        assert!(ids.len() <= MAX_NAMESPACES && ids.is_sorted_by(|a, b| a < b));
        assert!(ids.iter().all(|&id| id > 0 && id <= crate::nvme::NSID_MAX));
    }
    let (namespace, _) = IdentifyNamespace::read_from_prefix(&namespace).expect("a page");
    let uuid = uuid(&namespace, &names, &abilities.identity, 1);
    assert!(!uuid.is_nil());
    if let Ok(shape) = Shape::of(&namespace, 1, uuid) {
        assert!(matches!(shape.block_size, 512 | 4096));
        let bytes = u128::from(shape.blocks) * u128::from(shape.block_size);
        assert!(bytes > 0 && bytes < 1 << 63);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> Identity {
        Identity {
            serial: "S".to_owned(),
            model: "M".to_owned(),
            firmware: "F".to_owned(),
            subsystem: String::new(),
            vendor: 0,
            cntlid: 0,
            version: 0,
            admin_commands: 0,
            sharing: 0,
        }
    }

    #[test]
    fn the_largest_transfer_is_bounded_whatever_mdts_says() {
        assert_eq!(max_transfer(0), 1 << 20);
        assert_eq!(max_transfer(1), 8192);
        assert_eq!(max_transfer(5), 128 * 1024);
        for absurd in [9, 51, 52, 63, 64, 255] {
            assert_eq!(max_transfer(absurd), 1 << 20, "MDTS {absurd}");
        }
    }

    #[test]
    fn namespaces_that_cannot_be_used_say_why() {
        let good = IdentifyNamespace::new(1000, 12);
        let shape = Shape::of(&good, 3, Uuid::nil()).unwrap();
        assert_eq!(
            (shape.nsid, shape.blocks, shape.block_size),
            (3, 1000, 4096)
        );
        let why = |change: fn(&mut IdentifyNamespace)| {
            let mut identify = good;
            change(&mut identify);
            Shape::of(&identify, 1, Uuid::nil()).unwrap_err()
        };
        assert!(why(|i| i.lbaf[0].lbads = 13).contains("2^13 bytes"));
        assert!(why(|i| i.lbaf[0].lbads = 255).contains("2^255 bytes"));
        assert!(why(|i| i.lbaf[0].ms = 8.into()).contains("8 bytes of metadata"));
        assert!(why(|i| i.dps = 1).contains("protection"));
        assert!(why(|i| i.nsze = 0.into()).contains("no device"));
        assert!(why(|i| i.nsze = u64::MAX.into()).contains("no device"));
        assert!(why(|i| i.nsze = (1 << 51).into()).contains("no device"));
    }

    #[test]
    fn deallocation_counts_only_where_zeros_follow() {
        let mut identify = IdentifyNamespace::new(8, 9);
        for (dlfeat, deallocates) in [
            (0b1001, true),
            (0b1000, false),
            (0b0001, false),
            (0b1010, false),
        ] {
            identify.dlfeat = dlfeat;
            let shape = Shape::of(&identify, 1, Uuid::nil()).unwrap();
            assert_eq!(shape.deallocates, deallocates, "DLFEAT {dlfeat:#b}");
        }
    }

    #[test]
    fn a_namespace_is_named_by_the_best_name_it_has() {
        let mut identify = IdentifyNamespace::new(8, 9);
        let none = *DescriptorList::from_descriptors([]).as_bytes();
        let own = Uuid::from_u128(0x1234);
        let names = *DescriptorList::from_descriptors([
            NamespaceDescriptor::Nguid([3; 16]),
            NamespaceDescriptor::Uuid(own),
        ])
        .as_bytes();
        let name = |identify: &IdentifyNamespace, names| uuid(identify, names, &identity(), 1);
        assert_eq!(name(&identify, &names), own);
        let made = name(&identify, &none);
        assert_eq!(made, name(&identify, &none));
        assert_ne!(made, uuid(&identify, &none, &identity(), 2));
        identify.eui64 = [1; 8];
        assert_ne!(name(&identify, &none), made);
        identify.nguid = [9; 16];
        assert_eq!(name(&identify, &none), Uuid::from_bytes([9; 16]));
        assert_eq!(name(&identify, &[0xff; 4096]), Uuid::from_bytes([9; 16]));
    }

    proptest! {
        /// Whatever a device fills its structures with.
        #[test]
        fn any_bytes_are_read_without_harm(
            fill in any::<u8>(),
            bytes in prop::collection::vec((0usize..512, any::<u8>()), 0..200),
        ) {
            let mut page = vec![fill; 4096];
            for (at, byte) in bytes {
                page[at] = byte;
            }
            // Sizes of entries and blocks that pass, so that the rest is looked at too.
            page[512..514].copy_from_slice(&[0x66, 0x44]);
            trial([&page; 3]);
            page[26..30].fill(0);
            page[128..131].copy_from_slice(&[0, 0, 12]);
            trial([&page; 3]);
        }
    }

    #[test]
    fn kept_pages_are_read_without_harm() {
        for seed in crate::initiator::trial::seeds("shape") {
            let mut pages = seed.chunks(4096);
            let mut page = || pages.next().unwrap_or_default();
            trial([page(), page(), page()]);
        }
    }

    #[test]
    fn entry_sizes_must_be_those_of_nvme() {
        let mut identify = IdentifyController::new();
        assert!(Abilities::of(&identify, 0).is_ok());
        identify.sqes = 0;
        let error = Abilities::of(&identify, 0).unwrap_err().to_string();
        assert!(error.contains("SQES of 0"), "{error}");
        identify.sqes = 0x66;
        identify.cqes = 0xff;
        assert!(Abilities::of(&identify, 0).is_err());
    }
}
