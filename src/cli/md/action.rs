//! Commands that one call does: start, stop, take out, replace.

use serde_json::{Value, json};
use uuid::Uuid;

use super::device::{self, text};
use super::{Asking, MdError, detail};

#[derive(Debug, clap::Args)]
pub struct Assemble {
    #[command(flatten)]
    asking: Asking,
    /// The array's name.
    #[arg(value_name = "ARRAY")]
    name: Option<String>,
    /// The devices to take, and no others: names of bdevs, or paths of files or block devices.
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// The array's identity, as mdadm writes it or with dashes.
    #[arg(short, long, value_parser = md_uuid)]
    uuid: Option<Uuid>,
    /// Start it although its parity cannot be trusted, or with members that it had gone on without.
    #[arg(short, long)]
    force: bool,
}

impl Assemble {
    /// Starts it and shows it.
    pub fn run(self) -> Result<(), MdError> {
        let client = &self.asking.client;
        let devices = device::all_named(client, &self.devices)?;
        // Whole arrays start by themselves when their last device comes.
        if let Some(array) = self.already(&devices)? {
            return show(&self.asking, &array);
        }
        let mut params = json!({"base_bdevs": devices, "force": self.force});
        if let Some(name) = &self.name {
            params["name"] = name.as_str().into();
        }
        if let Some(uuid) = self.uuid {
            params["uuid"] = uuid.to_string().into();
        }
        let name = client.call("bdev_raid_assemble", Some(params))?;
        let array = detail::one(client, &text(&name))?;
        show(&self.asking, &array)
    }

    /// The array, if naming its devices has started it.
    fn already(&self, devices: &[String]) -> Result<Option<Value>, MdError> {
        if devices.is_empty() {
            return Ok(None);
        }
        let arrays = detail::all(&self.asking.client)?;
        let found = arrays.into_iter().find(|array| {
            let slots = array["base_bdevs_list"].as_array();
            let is_member = |device: &String| {
                let mut slots = slots.into_iter().flatten();
                slots.any(|slot| slot["name"] == device.as_str())
            };
            array["state"] != "configuring" && devices.iter().any(is_member)
        });
        Ok(found)
    }
}

#[derive(Debug, clap::Args)]
pub struct Stop {
    #[command(flatten)]
    asking: Asking,
    /// The array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// Remove the superblocks of its devices too: it cannot be started again.
    #[arg(long)]
    zero_superblock: bool,
}

impl Stop {
    /// Stops it.
    pub fn run(self) -> Result<(), MdError> {
        let params = json!({"name": self.name, "clear_sb": self.zero_superblock});
        self.asking.client.call("bdev_raid_delete", Some(params))?;
        said(&self.asking, &format!("{} is stopped", self.name));
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub struct Fail {
    #[command(flatten)]
    asking: Asking,
    /// The array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// Its member.
    #[arg(value_name = "DEVICE")]
    device: String,
}

impl Fail {
    /// Takes it out.
    pub fn run(self) -> Result<(), MdError> {
        let client = &self.asking.client;
        let device = device::named(client, &self.device)?;
        let array = detail::one(client, &self.name)?;
        if slot_of(&array, &device).is_none() {
            return Err(no_device(&self.name, &device));
        }
        client.call("bdev_raid_remove_base_bdev", Some(json!({"name": device})))?;
        said(&self.asking, &format!("{device} is out of {}", self.name));
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub struct Remove {
    #[command(flatten)]
    asking: Asking,
    /// The array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// Its spare.
    #[arg(value_name = "DEVICE")]
    device: String,
}

impl Remove {
    /// Lets go of it.
    pub fn run(self) -> Result<(), MdError> {
        let client = &self.asking.client;
        let device = device::named(client, &self.device)?;
        let array = detail::one(client, &self.name)?;
        if let Some(slot) = slot_of(&array, &device) {
            return Err(MdError::Refused(format!(
                "{device} is the member in slot {slot}; `stripewise md fail {} {device}` takes it out",
                self.name
            )));
        }
        if !spares(&array).contains(&device) {
            return Err(no_device(&self.name, &device));
        }
        let params = json!({"raid_bdev": self.name, "base_bdev": device});
        client.call("bdev_raid_remove_spare", Some(params))?;
        said(&self.asking, &format!("{device} is no spare any more"));
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub struct Replace {
    #[command(flatten)]
    asking: Asking,
    /// The array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// The member that is to go.
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The device that is to come [default: a spare]
    #[arg(long, value_name = "DEVICE")]
    with: Option<String>,
    /// Overwrite what the new device holds of another array.
    #[arg(short, long)]
    force: bool,
}

impl Replace {
    /// Begins it.
    pub fn run(self) -> Result<(), MdError> {
        let client = &self.asking.client;
        let old = device::named(client, &self.device)?;
        let array = detail::one(client, &self.name)?;
        if slot_of(&array, &old).is_none() {
            return Err(no_device(&self.name, &old));
        }
        let new = match &self.with {
            Some(word) => device::named(client, word)?,
            None => spares(&array).into_iter().next().ok_or_else(|| {
                MdError::Refused(format!(
                    "{} has no spare; say which device is to come: --with DEVICE",
                    self.name
                ))
            })?,
        };
        let params = json!({"name": old, "base_bdev": new, "force": self.force});
        client.call("bdev_raid_replace_base_bdev", Some(params))?;
        let text = format!(
            "{new} is made the same as {old}, and then takes its place; `stripewise md detail {} --wait` shows how far it is",
            self.name
        );
        said(&self.asking, &text);
        Ok(())
    }
}

/// Shows an array as it was asked for.
pub fn show(asking: &Asking, array: &Value) -> Result<(), MdError> {
    match asking.json {
        true => detail::print(&format!("{array:#}\n")),
        false => detail::show(&asking.client, array)?,
    }
    Ok(())
}

/// Says what was done, or `true` in JSON.
pub fn said(asking: &Asking, text: &str) {
    match asking.json {
        true => detail::print("true\n"),
        false => detail::print(&format!("{text}\n")),
    }
}

/// The slot that a device has.
pub fn slot_of(array: &Value, device: &str) -> Option<usize> {
    let slots = array["base_bdevs_list"].as_array()?;
    slots.iter().position(|slot| slot["name"] == device)
}

/// The spares of an array.
fn spares(array: &Value) -> Vec<String> {
    let spares = array["md"]["spares"].as_array();
    spares.into_iter().flatten().map(text).collect()
}

fn no_device(array: &str, device: &str) -> MdError {
    MdError::Refused(format!(
        "{device} is no device of {array}; `stripewise md detail {array}` lists them"
    ))
}

/// A UUID as mdadm writes it, or as others do.
fn md_uuid(text: &str) -> Result<Uuid, String> {
    let plain = text.replace(':', "");
    Uuid::parse_str(&plain).map_err(|e| format!("{text:?} is no UUID: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_taken_in_both_forms() {
        let uuid = Uuid::from_u128(0x0259_d2a0_74d0_4b7a_9eec_a721_f69b_94c9);
        assert_eq!(md_uuid("0259d2a0:74d04b7a:9eeca721:f69b94c9"), Ok(uuid));
        assert_eq!(md_uuid(&uuid.to_string()), Ok(uuid));
        assert!(md_uuid("0259d2a0:74d04b7a").is_err());
    }
}
