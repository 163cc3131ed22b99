//! A namespace as a device.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::{Bdev, Channel, Info, OpenError};
use super::channel::PcieChannel;
use super::controller::Inner;
use super::shape::{MAX_TRANSFER, Shape};
use crate::lock;

/// A namespace of an attached controller.
#[derive(Debug)]
pub(super) struct Namespace {
    inner: Arc<Inner>,
    offer: Arc<Offer>,
}

/// What a namespace is, for the driver and for its users.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) shape: Shape,
    pub(super) info: Info,
}

impl Namespace {
    pub(super) fn new(inner: &Arc<Inner>, shape: &Shape) -> Arc<Self> {
        let info = Info {
            name: format!("{}n{}", inner.options.name, shape.nsid),
            product: "NVMe disk",
            uuid: shape.uuid,
            block_size: shape.block_size,
            blocks: shape.blocks,
            io_boundary: shape.boundary,
            write_unit: 0,
            // What is more than one command may carry is cut by the channel.
            max_blocks: MAX_TRANSFER as u32 / shape.block_size,
            write_cache: inner.abilities.write_cache,
            deallocates: shape.deallocates && inner.abilities.write_zeroes,
            in_memory: false,
        };
        Arc::new(Self {
            inner: inner.clone(),
            offer: Arc::new(Offer {
                shape: shape.clone(),
                info,
            }),
        })
    }
}

impl Bdev for Namespace {
    fn info(&self) -> &Info {
        &self.offer.info
    }

    fn open(&self) -> Result<Box<dyn Channel>, OpenError> {
        let refused = |reason: String| OpenError {
            name: self.offer.info.name.clone(),
            reason,
        };
        let common = &self.inner.common;
        if let Some(reason) = common.failure.get() {
            let address = &self.inner.address;
            return Err(refused(format!("NVMe controller {address}: {reason}")));
        }
        let lane = lock::exclusive(&common.spares).pop();
        let lane = lane.ok_or_else(|| {
            refused(format!(
                "all {} I/O queues of NVMe controller {} are in use; attach it with more",
                self.inner.queues, self.inner.address
            ))
        })?;
        let (inner, offer) = (self.inner.clone(), self.offer.clone());
        Ok(Box::new(PcieChannel::new(inner, offer, lane)))
    }

    fn driver_specific(&self) -> Value {
        let trid = json!({"trtype": "PCIe", "traddr": self.inner.address});
        let shape = &self.offer.shape;
        let identity = &self.inner.abilities.identity;
        identity.describe(trid, shape.nsid, shape.shared)
    }
}
