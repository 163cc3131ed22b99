//! A remote namespace as a device.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::identity::Identity;
use super::channel::TcpChannel;
use super::keeper::max_transfer;
use super::link::{Link, Phase};
use super::options::TcpOptions;
use crate::bdev::create::check_shape;
use crate::bdev::{Bdev, Channel, CreateError, Info, OpenError};
use crate::initiator::{Facts, Namespace};
use crate::lock;
use crate::memory::{Arena, Buf, Pool};
use crate::nvme::identify::IdentifyController;

/// Bytes of zeros that are kept for a controller that has no Write Zeroes.
const ZEROS: usize = 64 * 1024;

/// What is fixed about a remote namespace while it is attached.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) info: Info,
    pub(super) nsid: u32,
    /// More than one controller may have it.
    pub(super) shared: bool,
    pub(super) compares: bool,
    /// Bytes that are 0, where the controller has no Write Zeroes.
    pub(super) zeros: Option<Buf>,
}

/// A remote namespace. Made by [`super::TcpController`].
#[derive(Debug)]
pub struct TcpNamespace {
    device: Arc<Device>,
    link: Arc<Link>,
    options: TcpOptions,
}

impl TcpNamespace {
    pub(super) fn new(
        controller: &str,
        options: &TcpOptions,
        link: &Arc<Link>,
        facts: &Facts,
        namespace: &Namespace,
    ) -> Result<Arc<Self>, CreateError> {
        let name = format!("{controller}n{}", namespace.id);
        check_shape(&name, namespace.block_size, namespace.blocks)?;
        let oncs = facts.identify.oncs.get();
        let has = |bit: u16| oncs & bit != 0;
        let zeroes = has(IdentifyController::ONCS_WRITE_ZEROES);
        let info = Info {
            product: "NVMe disk",
            uuid: identity(options, namespace),
            block_size: namespace.block_size,
            blocks: namespace.blocks,
            io_boundary: 0,
            write_unit: 0,
            max_blocks: (max_transfer(facts) / namespace.block_size).max(1),
            write_cache: facts.identify.vwc & IdentifyController::VWC_PRESENT != 0,
            deallocates: zeroes && namespace.deallocates,
            in_memory: false,
            name,
        };
        let zeros = match zeroes {
            true => None,
            false => Some(zeros(&info.name)?),
        };
        Ok(Arc::new(Self {
            device: Arc::new(Device {
                info,
                nsid: namespace.id,
                shared: namespace.shared,
                compares: has(IdentifyController::ONCS_COMPARE),
                zeros,
            }),
            link: link.clone(),
            options: options.clone(),
        }))
    }

    /// How it stands with its controller.
    pub fn phase(&self) -> Phase {
        self.link.state().phase
    }
}

impl Bdev for TcpNamespace {
    fn info(&self) -> &Info {
        &self.device.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        let refused = |reason: &str| OpenError {
            name: self.device.info.name.clone(),
            reason: reason.to_owned(),
        };
        if self.phase() == Phase::Gone {
            return Err(refused("its controller has been given up; attach it anew"));
        }
        let number = self.link.take_queue();
        let number = number.ok_or_else(|| {
            refused(
                "all I/O queues of its controller are in use; attach it with a larger num_io_queues, or raise max_io_qpairs_per_ctrlr there",
            )
        })?;
        let channel = TcpChannel::new(self.device.clone(), self.link.clone(), number);
        Ok(Box::new(channel))
    }

    fn driver_specific(&self) -> Value {
        let status = lock::exclusive(&self.link.status);
        let address = status.addresses.first();
        let identity = status.facts.as_ref().map(|facts| Identity {
            cntlid: facts.id,
            ..Identity::of(&facts.identify, facts.version.value())
        });
        let trid = json!({
            "trtype": "TCP",
            "adrfam": address.map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" }),
            "traddr": address.map(|a| a.ip().to_string()),
            "trsvcid": address.map(|a| a.port().to_string()),
            "subnqn": self.options.subsystem.as_str(),
        });
        identity.map_or(Value::Null, |identity| {
            identity.describe(trid, self.device.nsid, self.device.shared)
        })
    }
}

/// The namespace's own identity, or else one that is the same for this namespace of this subsystem
/// in every run.
fn identity(options: &TcpOptions, namespace: &Namespace) -> Uuid {
    if namespace.nguid != [0; 16] {
        return Uuid::from_bytes(namespace.nguid);
    }
    let name = format!("{}:{}", options.subsystem.as_str(), namespace.id);
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}

/// A buffer of zeros, outside the arenas.
fn zeros(name: &str) -> Result<Buf, CreateError> {
    let memory = |reason: String| CreateError::Memory {
        name: name.to_owned(),
        reason,
    };
    let arena = Arena::ordinary(ZEROS).map_err(|e| memory(e.to_string()))?;
    let pool = Pool::new(&arena, ZEROS, 1).map_err(|e| memory(e.to_string()))?;
    let mut buffer = pool.take().expect("a new pool has its slot");
    buffer.fill(0);
    Ok(buffer.freeze())
}
