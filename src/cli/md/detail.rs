//! `stripewise md detail`: how arrays are.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::device::text;
use super::{Asking, MdError, watch};
use crate::cli::client::Client;

#[derive(Debug, clap::Args)]
pub struct Detail {
    #[command(flatten)]
    asking: Asking,
    /// Arrays; all of them if none is named.
    #[arg(value_name = "ARRAY")]
    names: Vec<String>,
    /// Wait until nothing is rebuilt, resynced or checked any more, and show how far it is.
    #[arg(short, long)]
    wait: bool,
}

impl Detail {
    /// Shows them.
    pub fn run(self) -> Result<(), MdError> {
        let client = &self.asking.client;
        let mut arrays = all(client)?;
        if !self.names.is_empty() {
            for name in &self.names {
                find(&arrays, name)?;
            }
            arrays.retain(|a| self.names.iter().any(|name| a["name"] == name.as_str()));
        }
        if self.wait {
            for array in &mut arrays {
                *array = watch::wait(client, &text(&array["name"]))?;
            }
        }
        if self.asking.json {
            print(&format!("{:#}\n", Value::from(arrays)));
            return Ok(());
        }
        for array in &arrays {
            show(client, array)?;
        }
        Ok(())
    }
}

/// All arrays.
///
/// # Errors
/// [`MdError::Client`].
pub fn all(client: &Client) -> Result<Vec<Value>, MdError> {
    let all = client.call("bdev_raid_get_bdevs", Some(json!({"category": "all"})))?;
    Ok(all.as_array().cloned().unwrap_or_default())
}

/// One array.
///
/// # Errors
/// [`MdError::Refused`], if there is none of this name.
pub fn one(client: &Client, name: &str) -> Result<Value, MdError> {
    find(&all(client)?, name).cloned()
}

fn find<'a>(arrays: &'a [Value], name: &str) -> Result<&'a Value, MdError> {
    let found = arrays.iter().find(|a| a["name"] == name);
    found.ok_or_else(|| {
        let names: Vec<String> = arrays.iter().map(|a| text(&a["name"])).collect();
        let there = match names.is_empty() {
            true => "there is none; `stripewise md assemble` starts one".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        MdError::Refused(format!("there is no array {name}; {there}"))
    })
}

/// Shows an array.
///
/// # Errors
/// [`MdError::Client`].
pub fn show(client: &Client, array: &Value) -> Result<(), MdError> {
    let params = json!({"name": array["name"]});
    // Only what is started is a device.
    let bytes = match client.call("bdev_get_bdevs", Some(params)) {
        Ok(bdevs) => {
            let number = |key: &str| bdevs[0][key].as_u64();
            number("num_blocks").zip(number("block_size"))
        }
        Err(_) => None,
    };
    print(&describe(array, bytes.map(|(n, size)| n * size)));
    Ok(())
}

/// Writes to the standard output; a reader that has left is no failure.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// An array of so many bytes in words.
fn describe(array: &Value, bytes: Option<u64>) -> String {
    let mut out = format!("{}:\n", text(&array["name"]));
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{what:>18} : {value}");
    };
    let md = &array["md"];
    let slots = array["base_bdevs_list"].as_array();
    let slots = slots.map_or(&[][..], Vec::as_slice);
    let spares = md["spares"].as_array().map_or(0, Vec::len);
    let present = slots.iter().filter(|s| s["is_configured"] == true).count();
    line("UUID", text(&array["uuid"]));
    line("Raid Level", text(&array["raid_level"]));
    if let Some(bytes) = bytes {
        line("Array Size", size(bytes));
    }
    line("Raid Devices", slots.len().to_string());
    line(
        "Persistence",
        match array["superblock"] == true {
            true => format!("Superblock is persistent ({})", text(&md["name"])),
            false => "None: made anew at each start".to_owned(),
        },
    );
    line("State", state(array, present, slots.len()));
    if let Some(reason) = array["reason"].as_str() {
        line("Waits", reason.to_owned());
    }
    line("Active Devices", present.to_string());
    line("Spare Devices", spares.to_string());
    if let Some(layout) = array["layout"].as_str() {
        line("Layout", layout.to_owned());
    }
    line("Chunk Size", format!("{}K", array["strip_size_kb"]));
    if let Some(policy) = md["consistency_policy"].as_str() {
        let chunk = md["bitmap_chunk_kb"].as_u64();
        let chunk = chunk.map_or(String::new(), |kb| format!(", {kb}K a bit"));
        line("Consistency Policy", format!("{policy}{chunk}"));
    }
    if let Some(events) = md["events"].as_u64() {
        line("Events", events.to_string());
    }
    if let Some(process) = array["process"].as_object() {
        let percent = &process["progress"]["percent"];
        line(title(&process["type"]), format!("{percent}% complete"));
    }
    if let Some(sectors) = md["mismatch_sectors"].as_u64().filter(|&n| n > 0) {
        line("Mismatches", format!("{sectors} sectors in the last check"));
    }
    if let Some(error) = md["last_process_error"].as_str() {
        line("Stopped", error.to_owned());
    }
    out.push('\n');
    members(&mut out, slots, md);
    out
}

/// The table of the devices.
fn members(out: &mut String, slots: &[Value], md: &Value) {
    let mut row = |slot: String, what: &str, device: &str| {
        let text = format!("{slot:>6}   {what:<12} {device}");
        let _ = writeln!(out, "{}", text.trim_end());
    };
    for (slot, member) in slots.iter().enumerate() {
        let (what, name) = match (member["name"].as_str(), &member["is_configured"]) {
            (None, _) => ("removed", ""),
            (Some(name), Value::Bool(true)) => ("active", name),
            (Some(name), _) => ("absent", name),
        };
        row(slot.to_string(), what, name);
    }
    let list = |key: &str| md[key].as_array().cloned().unwrap_or_default();
    for spare in list("spares") {
        row("-".into(), "spare", &text(&spare));
    }
    for found in list("found") {
        let seated = slots.iter().any(|slot| slot["name"] == found);
        if !seated {
            row("-".into(), "found", &text(&found));
        }
    }
    for rejected in list("rejected") {
        let why = format!(
            "{}: it {}",
            text(&rejected["name"]),
            text(&rejected["reason"])
        );
        row("-".into(), "not used", &why);
    }
}

/// mdadm's words for the state, and what else has to be known.
fn state(array: &Value, present: usize, slots: usize) -> String {
    let md = &array["md"];
    let mut words = Vec::new();
    match array["state"].as_str() {
        Some("online") if md["dirty"] == true => words.push("active"),
        Some("online") => words.push("clean"),
        Some("offline") => words.push("FAILED"),
        _ => words.push("inactive"),
    }
    if array["state"] == "online" && present < slots {
        words.push("degraded");
    }
    words.extend(match array["process"]["type"].as_str() {
        Some("rebuild") => Some("recovering"),
        Some("resync") => Some("resyncing"),
        Some("check") => Some("checking"),
        Some("repair") => Some("repairing"),
        Some("replace") => Some("replacing"),
        _ => None,
    });
    if md["in_sync"] == false {
        words.push("parity not in sync");
    }
    if md["doubtful"] == true {
        words.push("blocks in doubt are refused");
    }
    if md["paused"] == true {
        words.push("paused");
    }
    words.join(", ")
}

/// What a process is called.
fn title(kind: &Value) -> &'static str {
    match kind.as_str() {
        Some("rebuild") => "Rebuild Status",
        Some("replace") => "Replace Status",
        Some("check") => "Check Status",
        Some("repair") => "Repair Status",
        _ => "Resync Status",
    }
}

/// A size in KiB, as mdadm gives it, and in larger units.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB")];
    let large = units.iter().find(|(shift, _)| bytes >> shift > 0);
    let large = large.map_or(String::new(), |(shift, unit)| {
        let hundredths = ((bytes >> (shift - 10)) * 100) >> 10;
        format!(" ({}.{:02} {unit})", hundredths / 100, hundredths % 100)
    });
    format!("{}{large}", bytes / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array() -> Value {
        json!({
            "name": "r", "uuid": "0259d2a0-74d0-4b7a-9eec-a721f69b94c9", "strip_size_kb": 64,
            "state": "online", "raid_level": "raid5", "superblock": true,
            "base_bdevs_list": [
                {"name": "a", "is_configured": true},
                {"name": null, "is_configured": false},
                {"name": "c", "is_configured": true},
            ],
            "layout": "left-symmetric",
            "process": {"type": "rebuild", "target": "a", "progress": {"blocks": 5, "percent": 42}},
            "md": {
                "name": "host:r", "consistency_policy": "bitmap", "bitmap_chunk_kb": 65536,
                "spares": ["s"], "rejected": [{"name": "b", "reason": "is out of date"}],
                "events": 7, "dirty": true, "in_sync": true, "doubtful": false, "paused": false,
                "mismatch_sectors": 8, "last_process_error": null,
            },
        })
    }

    #[test]
    fn everything_that_has_to_be_known_is_said() {
        let said = describe(&array(), Some(10 << 30));
        for line in [
            "r:",
            "        Array Size : 10485760 (10.00 GiB)",
            "       Persistence : Superblock is persistent (host:r)",
            "             State : active, degraded, recovering",
            "    Active Devices : 2",
            "     Spare Devices : 1",
            "Consistency Policy : bitmap, 65536K a bit",
            "    Rebuild Status : 42% complete",
            "        Mismatches : 8 sectors in the last check",
            "     0   active       a",
            "     1   removed",
            "     -   spare        s",
            "     -   not used     b: it is out of date",
        ] {
            assert!(said.lines().any(|l| l == line), "no {line:?} in:\n{said}");
        }
    }

    #[test]
    fn what_keeps_an_array_from_being_started_is_said() {
        let waiting = json!({
            "name": "r", "state": "configuring", "superblock": true, "strip_size_kb": 64,
            "reason": "waits for the member of slot 1",
            "base_bdevs_list": [{"name": "a", "is_configured": true}, {"name": null}],
            "md": {"name": "r", "consistency_policy": "resync", "spares": [], "rejected": [],
                "found": ["a", "x"]},
        });
        let said = describe(&waiting, None);
        for line in [
            "             State : inactive",
            "             Waits : waits for the member of slot 1",
            "     -   found        x",
        ] {
            assert!(said.lines().any(|l| l == line), "no {line:?} in:\n{said}");
        }
        assert!(!said.contains("Array Size"));
    }

    #[test]
    fn doubts_are_not_kept_back() {
        let mut doubtful = array();
        doubtful["md"]["doubtful"] = true.into();
        doubtful["md"]["in_sync"] = false.into();
        let said = describe(&doubtful, None);
        assert!(
            said.contains("parity not in sync, blocks in doubt are refused"),
            "{said}"
        );
    }

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(size(1024), "1");
        assert_eq!(size(1536 << 20), "1572864 (1.50 GiB)");
        assert_eq!(size((1 << 40) - 1), "1073741823 (1023.99 GiB)");
    }
}
