//! Devices that have another size than before: null devices that are given one, files that have
//! grown.

use std::sync::Arc;

use super::ControlError;
use super::devices::Kind;
use super::system::System;
use crate::bdev::{Bdev, CreateError, FileApi};

impl System {
    /// Gives a null device another size, in MiB. It never becomes smaller. Waits for reactors.
    ///
    /// # Errors
    /// [`ControlError`], among them [`ControlError::Smaller`].
    pub fn resize_null(&mut self, name: &str, mib: u64) -> Result<(), ControlError> {
        let (name, kind) = self.devices.of_kind(name, "null")?;
        let Kind::Null { device } = kind else {
            unreachable!("of_kind has looked");
        };
        let device = device.clone();
        let info = self.devices.find(&name)?.info().clone();
        let per_mib = u64::from((1 << 20) / info.block_size);
        let blocks = mib.checked_mul(per_mib).ok_or(CreateError::Size {
            name: name.clone(),
            block_size: info.block_size,
            num_blocks: u64::MAX,
        })?;
        if blocks < info.blocks {
            let (bytes, now) = (mib << 20, info.bytes());
            return Err(ControlError::Smaller { name, bytes, now });
        }
        match blocks > info.blocks {
            true => self.tell_size(device.resized(blocks)?),
            false => Ok(()),
        }
    }

    /// Looks how large the file of a device is now, which must be of the method family of `api`, and
    /// takes it at that size. Waits for reactors.
    ///
    /// # Errors
    /// [`ControlError`], among them [`ControlError::Shrunk`].
    pub fn rescan(&mut self, name: &str, api: FileApi) -> Result<(), ControlError> {
        let (name, kind) = self.devices.of_kind(name, api.word())?;
        let Kind::File { device } = kind else {
            unreachable!("of_kind has looked");
        };
        let device = device.clone();
        let before = self.devices.find(&name)?.info().blocks;
        let blocks = device.measure()?;
        if blocks < before && self.devices.registry.claim_of(&name).is_some() {
            let path = device.path().to_owned();
            return Err(ControlError::Shrunk { name, path });
        }
        match blocks == before {
            true => Ok(()),
            false => self.tell_size(device.resized(blocks)),
        }
    }

    /// Tells everybody that a device has another size. Its channels know.
    fn tell_size(&mut self, bdev: Arc<dyn Bdev>) -> Result<(), ControlError> {
        let info = bdev.info().clone();
        self.devices.resize(bdev)?;
        tracing::info!("bdev {} has {} blocks now", info.name, info.blocks);
        self.target.resize(&info);
        Ok(())
    }
}
