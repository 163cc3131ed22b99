//! Commands whose meaning depends on how the array is: adding a device, and checks.

use serde_json::{Value, json};

use super::action::said;
use super::{Asking, MdError, detail, device, watch};

#[derive(Debug, clap::Args)]
pub struct Add {
    #[command(flatten)]
    asking: Asking,
    /// The array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// The devices: names of bdevs, or paths of files or block devices.
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// Overwrite what the devices hold of other arrays.
    #[arg(short, long)]
    force: bool,
}

impl Add {
    /// Adds them, one after the other.
    pub fn run(self) -> Result<(), MdError> {
        let client = &self.asking.client;
        for device in device::all_named(client, &self.devices)? {
            let array = detail::one(client, &self.name)?;
            let mut params = json!({"raid_bdev": self.name, "base_bdev": device});
            if self.force {
                params["force"] = true.into();
            }
            let (method, became) = match () {
                // A device that was away, or a spare, may have found its place by itself.
                () if belongs(&array, &device) => {
                    said(
                        &self.asking,
                        &format!("{device} belongs to {} already", self.name),
                    );
                    continue;
                }
                () if lacks_a_member(&array) => {
                    ("bdev_raid_add_base_bdev", "a member, and rebuilt")
                }
                () => ("bdev_raid_add_spare", "a spare"),
            };
            client.call(method, Some(params))?;
            said(&self.asking, &format!("{device} is {became}"));
        }
        Ok(())
    }
}

/// Whether a slot is free.
fn lacks_a_member(array: &Value) -> bool {
    let slots = array["base_bdevs_list"].as_array();
    slots
        .into_iter()
        .flatten()
        .any(|slot| slot["name"].is_null())
}

/// Whether a device is a member or a spare.
fn belongs(array: &Value, device: &str) -> bool {
    let spares = array["md"]["spares"].as_array();
    let is_spare = spares.into_iter().flatten().any(|spare| spare == device);
    is_spare || super::action::slot_of(array, device).is_some()
}

#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    asking: Asking,
    /// The array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// Wait until it is done, and show how far it is.
    #[arg(short, long)]
    wait: bool,
    /// Leave the one that is under way.
    #[arg(long, conflicts_with_all = ["wait", "pause", "resume"])]
    stop: bool,
    /// Put off what the array does besides serving hosts: rebuilds and resyncs too.
    #[arg(long, conflicts_with_all = ["wait", "resume"])]
    pause: bool,
    /// Go on with what was put off.
    #[arg(long, conflicts_with = "wait")]
    resume: bool,
}

impl Check {
    /// Begins it, or does what is asked for instead.
    pub fn run(self, kind: &str) -> Result<(), MdError> {
        let client = &self.asking.client;
        let action = match (self.stop, self.pause, self.resume) {
            (true, ..) => "stop",
            (_, true, _) => "pause",
            (.., true) => "resume",
            _ => kind,
        };
        let params = json!({"name": self.name, "action": action});
        client.call("bdev_raid_check", Some(params))?;
        if !self.wait {
            let done = match action {
                "stop" => "the check is left",
                "pause" => "rebuilds and resyncs are put off",
                "resume" => "what was put off goes on",
                "repair" => "the repair is under way",
                _ => "the check is under way",
            };
            said(&self.asking, &format!("{}: {done}", self.name));
            return Ok(());
        }
        let array = watch::wait(client, &self.name)?;
        let sectors = array["md"]["mismatch_sectors"].as_u64();
        match (self.asking.json, sectors) {
            (true, _) => detail::print(&format!("{array:#}\n")),
            (false, Some(0)) => said(&self.asking, &format!("{}: parity matches", self.name)),
            (false, Some(n)) => {
                let repaired = match kind {
                    "repair" => "and was made to",
                    _ => "; `stripewise md repair` makes it match",
                };
                said(
                    &self.asking,
                    &format!(
                        "{}: parity did not match in {n} sectors {repaired}",
                        self.name
                    ),
                );
            }
            (false, None) => said(&self.asking, &format!("{}: done", self.name)),
        }
        Ok(())
    }
}
