//! What a controller says about itself and its namespaces.

use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::ana::{self, Access};
use super::error_log::ERROR_ENTRIES;
use super::subsystem::SubsystemKind;
use super::transport::TransportOptions;
use super::view::{NamespaceView, SubsystemView};
use crate::nvme::admin::Identify;
use crate::nvme::identify::{
    Cns, CommandSet, CommandSets, ControllerType, DescriptorList, IDENTIFY_SIZE,
    IdentifyController, IdentifyNamespace, IdentifyNvmController, IdentifyNvmNamespace,
    IndependentNamespace, NamespaceDescriptor, NamespaceList,
};
use crate::nvme::property::Version;
use crate::nvme::{NSID_ALL, NSID_MAX, Status, ascii_field};

/// Asynchronous Event Requests that a controller holds.
pub const AER_LIMIT: usize = 4;

/// Granularity of the keep-alive timer in units of 100 ms.
pub const KEEP_ALIVE_GRANULARITY: u16 = 10;

/// Bytes of a command without its data.
const COMMAND_SIZE: u32 = 64;

/// The firmware revision: this crate's version.
pub fn firmware_revision() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// What Identify is answered from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The subsystem.
    pub view: &'a SubsystemView,
    /// The transport.
    pub options: &'a TransportOptions,
    /// The controller.
    pub cntlid: u16,
    /// CRDT1 to CRDT3, in units of 100 ms.
    pub retry_delays: [u16; 3],
}

impl Subject<'_> {
    /// The 4096 bytes that an Identify command asks for. `nsid` is that of the command.
    ///
    /// # Errors
    /// The status that the specification names; Invalid Field for structures that are not
    /// supported.
    pub fn answer(&self, identify: &Identify, nsid: u32) -> Result<Vec<u8>, Status> {
        let invalid_field = Status::INVALID_FIELD.with_do_not_retry();
        let cns = Cns::from_code(identify.cns).ok_or(invalid_field)?;
        let discovery = self.view.kind == SubsystemKind::Discovery;
        if discovery && cns != Cns::Controller {
            return Err(invalid_field);
        }
        let of_nvm = identify.csi == CommandSet::Nvm.code();
        match cns {
            Cns::Controller => Ok(self.controller().as_bytes().to_vec()),
            Cns::Namespace => self.namespace(nsid),
            Cns::ActiveNamespaces => self.active(nsid),
            Cns::CommandSetActiveNamespaces if of_nvm => self.active(nsid),
            Cns::NamespaceDescriptors => self.descriptors(nsid),
            Cns::CommandSetNamespace if of_nvm => {
                self.known(nsid)?;
                Ok(IdentifyNvmNamespace::new_zeroed().as_bytes().to_vec())
            }
            Cns::CommandSetController if of_nvm => {
                Ok(IdentifyNvmController::new_zeroed().as_bytes().to_vec())
            }
            Cns::IndependentNamespace => {
                let namespace = self.known(nsid)?;
                let mut independent = IndependentNamespace::of(&self.describe(namespace));
                if !namespace.info.write_cache {
                    independent.nsfeat |= IndependentNamespace::NSFEAT_NO_VOLATILE_CACHE;
                }
                Ok(independent.as_bytes().to_vec())
            }
            Cns::CommandSets => Ok(CommandSets::nvm_only().as_bytes().to_vec()),
            _ => Err(invalid_field),
        }
    }

    /// Identify Controller.
    pub fn controller(&self) -> IdentifyController {
        let options = self.options;
        let discovery = self.view.kind == SubsystemKind::Discovery;
        let mut id = IdentifyController::new();
        id.sn = ascii_field(&self.view.serial);
        id.mn = ascii_field(&self.view.model);
        id.fr = ascii_field(firmware_revision());
        id.mdts = mdts(options.max_io_size);
        id.cntlid = self.cntlid.into();
        id.ver = Version::V2_0.value().into();
        id.ctratt = IdentifyController::CTRATT_HOST_ID_128.into();
        id.aerl = (AER_LIMIT - 1) as u8;
        id.acl = 3;
        id.frmw = 0x03;
        id.lpa = IdentifyController::LPA_EXTENDED;
        id.kas = KEEP_ALIVE_GRANULARITY.into();
        id.maxcmd = options.max_queue_depth.into();
        id.sgls = (IdentifyController::SGLS_SUPPORTED
            | IdentifyController::SGLS_OFFSET
            | IdentifyController::SGLS_TRANSPORT)
            .into();
        id.subnqn = self.view.nqn.to_field();
        id.ioccsz = ((COMMAND_SIZE + options.in_capsule_data_size) / 16).into();
        id.iorcsz = 1.into();
        id.msdbd = 1;
        if discovery {
            id.cntrltype = ControllerType::Discovery.code();
            id.oaes = IdentifyController::OAES_DISCOVERY_LOG_CHANGE.into();
            id.sqes = 0;
            id.cqes = 0;
            return id;
        }
        id.cntrltype = ControllerType::Io.code();
        [id.crdt1, id.crdt2, id.crdt3] = self.retry_delays.map(Into::into);
        id.cmic =
            IdentifyController::CMIC_MULTIPLE_PORTS | IdentifyController::CMIC_MULTIPLE_CONTROLLERS;
        id.oaes = IdentifyController::OAES_NAMESPACE_ATTRIBUTE.into();
        id.elpe = (ERROR_ENTRIES - 1) as u8;
        id.lpa |= IdentifyController::LPA_EFFECTS | IdentifyController::LPA_SUPPORTED_PAGES;
        if let Some(log) = &self.view.event_log {
            id.lpa |= IdentifyController::LPA_PERSISTENT_EVENTS;
            id.pels = log.size.into();
        }
        id.wctemp = 343.into();
        id.cctemp = 353.into();
        id.nn = self.view.max_nsid().into();
        id.mnan = self.view.max_nsid().into();
        if self.view.reaches.is_some() {
            id.cmic |= IdentifyController::CMIC_ANA;
            id.oaes = (id.oaes.get() | IdentifyController::OAES_ANA_CHANGE).into();
            id.anatt = ana::TRANSITION_TIME;
            id.anacap = IdentifyController::ANACAP_OPTIMIZED
                | IdentifyController::ANACAP_NON_OPTIMIZED
                | IdentifyController::ANACAP_INACCESSIBLE;
            id.anagrpmax = self.view.max_nsid().into();
            id.nanagrpid = self.view.max_nsid().into();
        }
        id.oncs = (IdentifyController::ONCS_COMPARE
            | IdentifyController::ONCS_DATASET_MANAGEMENT
            | IdentifyController::ONCS_WRITE_ZEROES
            | IdentifyController::ONCS_RESERVATIONS)
            .into();
        id.fuses = IdentifyController::FUSES_COMPARE_AND_WRITE.into();
        // Always there: a host reads this once, and a namespace with a cache may come later.
        id.vwc = IdentifyController::VWC_PRESENT | IdentifyController::VWC_FLUSH_ALL_REFUSED;
        id
    }

    /// Identify Namespace of a namespace that is there.
    pub fn describe(&self, namespace: &NamespaceView) -> IdentifyNamespace {
        let info = &namespace.info;
        let shift = info.block_size.trailing_zeros() as u8;
        let mut id = IdentifyNamespace::new(info.blocks, shift);
        id.nmic = IdentifyNamespace::NMIC_SHARED;
        id.rescap = IdentifyNamespace::RESCAP_ALL_TYPES | IdentifyNamespace::RESCAP_IGNORE_KEY;
        if namespace.persists {
            id.rescap |= IdentifyNamespace::RESCAP_PERSISTS;
        }
        id.nguid = namespace.nguid;
        id.eui64 = namespace.eui64.unwrap_or_default();
        if self.view.reaches.is_some() {
            id.anagrpid = namespace.group.into();
            if namespace.access == Access::Inaccessible {
                id.nuse = 0.into();
            }
        }
        if info.deallocates {
            id.dlfeat = IdentifyNamespace::DLFEAT_READS_ZERO
                | IdentifyNamespace::DLFEAT_WRITE_ZEROES_DEALLOCATES;
        }
        // Linux cannot cope with a boundary larger than a transfer.
        let boundary = u64::from(info.io_boundary) * u64::from(info.block_size);
        if boundary <= u64::from(self.options.max_io_size) {
            id.noiob = u16::try_from(info.io_boundary).unwrap_or(0).into();
        }
        // Preferences only. The atomic units stay at one block: hosts may rely on those.
        if let Some(unit) = info.write_unit.checked_sub(1)
            && let Ok(unit) = u16::try_from(unit)
        {
            id.nsfeat |= IdentifyNamespace::NSFEAT_OPTIMAL_SIZES;
            for field in [
                &mut id.npwg,
                &mut id.npwa,
                &mut id.npdg,
                &mut id.npda,
                &mut id.nows,
            ] {
                *field = unit.into();
            }
        }
        id
    }

    /// CNS 00h: zeros for a number that may be but is not there.
    fn namespace(&self, nsid: u32) -> Result<Vec<u8>, Status> {
        if nsid == NSID_ALL {
            // What all namespaces have in common, and no namespace management.
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry());
        }
        self.check_number(nsid)?;
        Ok(match self.view.namespace(nsid) {
            Some(namespace) => self.describe(namespace).as_bytes().to_vec(),
            None => vec![0; IDENTIFY_SIZE],
        })
    }

    /// CNS 02h: numbers above `nsid`.
    fn active(&self, nsid: u32) -> Result<Vec<u8>, Status> {
        if nsid > NSID_MAX {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry());
        }
        let ids = self.view.active().map(|n| n.nsid).filter(|&id| id > nsid);
        Ok(NamespaceList::from_ids(ids).as_bytes().to_vec())
    }

    fn descriptors(&self, nsid: u32) -> Result<Vec<u8>, Status> {
        let namespace = self.known(nsid)?;
        let mut names = Vec::new();
        if let Some(eui64) = namespace.eui64 {
            names.push(NamespaceDescriptor::Eui64(eui64));
        }
        if namespace.nguid != [0; 16] {
            names.push(NamespaceDescriptor::Nguid(namespace.nguid));
        }
        if namespace.uuid != Uuid::nil() {
            names.push(NamespaceDescriptor::Uuid(namespace.uuid));
        }
        names.push(NamespaceDescriptor::CommandSet(CommandSet::Nvm.code()));
        let list = DescriptorList::from_descriptors(names);
        Ok(list.as_bytes().to_vec())
    }

    fn check_number(&self, nsid: u32) -> Result<(), Status> {
        if (1..=self.view.max_nsid()).contains(&nsid) {
            Ok(())
        } else {
            Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry())
        }
    }

    /// The namespace of this number, which must be there.
    fn known(&self, nsid: u32) -> Result<&NamespaceView, Status> {
        let invalid = Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry();
        self.check_number(nsid)?;
        match self.view.namespace(nsid) {
            Some(namespace) => Ok(namespace),
            None => Err(invalid),
        }
    }
}

/// MDTS for a largest payload that is a power of two from 8 KiB: 2^n pages of 4 KiB.
fn mdts(max_io_size: u32) -> u8 {
    (max_io_size.trailing_zeros() - 12) as u8
}
