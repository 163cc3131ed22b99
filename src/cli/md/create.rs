//! `stripewise md create`.

use serde_json::json;
use uuid::Uuid;

use super::{Asking, MdError, detail, device};
use crate::raid::Layout;

#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    asking: Asking,
    /// The name of the new array.
    #[arg(value_name = "ARRAY")]
    name: String,
    /// The members, and behind them the spares: names of bdevs, paths of files or block devices, or
    /// `missing` for a member that is not there yet.
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// Members [default: all devices but the spares]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    raid_devices: Option<usize>,
    /// Devices at the end that are to be spares.
    #[arg(short = 'x', long, value_name = "NUMBER", default_value_t = 0)]
    spare_devices: usize,
    /// Chunk: KiB, or with a K or M behind it.
    #[arg(short, long, default_value = "512", value_parser = kib)]
    chunk: u32,
    /// Where parity goes: left-symmetric (ls), left-asymmetric (la), right-symmetric (rs),
    /// right-asymmetric (ra), parity-first or parity-last.
    #[arg(short = 'p', long, default_value = "left-symmetric", value_parser = layout)]
    layout: &'static str,
    /// How to learn after a crash where parity may be wrong: bitmap, resync or ppl.
    #[arg(short = 'k', long, value_name = "POLICY", default_value = "bitmap")]
    consistency_policy: String,
    /// What of a member a bit of the bitmap stands for: KiB, or with a K, M or G behind it.
    #[arg(long, value_name = "SIZE", value_parser = kib)]
    bitmap_chunk: Option<u32>,
    /// Parity is right already: the devices hold zeros, or an array of this shape.
    #[arg(long)]
    assume_clean: bool,
    /// Overwrite what the devices hold of other arrays.
    #[arg(short, long)]
    force: bool,
    /// The array's identity [default: a random one]
    #[arg(short, long)]
    uuid: Option<Uuid>,
}

impl Create {
    /// Makes it and shows it.
    pub fn run(self) -> Result<(), MdError> {
        let members = self.members()?;
        let client = &self.asking.client;
        let devices = device::all_named(client, &self.devices)?;
        let (members, spares) = devices.split_at(members);
        let mut params = json!({
            "name": self.name,
            "raid_level": "raid5",
            "superblock": true,
            "strip_size_kb": self.chunk,
            "layout": self.layout,
            "base_bdevs": members,
            "spares": spares,
            "consistency_policy": self.consistency_policy,
            "assume_clean": self.assume_clean,
            "force": self.force,
        });
        if let Some(kb) = self.bitmap_chunk {
            params["bitmap_chunk_kb"] = kb.into();
        }
        if let Some(uuid) = self.uuid {
            params["uuid"] = uuid.to_string().into();
        }
        client.call("bdev_raid_create", Some(params))?;
        let array = detail::one(client, &self.name)?;
        match self.asking.json {
            true => detail::print(&format!("{array:#}\n")),
            false => detail::show(client, &array)?,
        }
        Ok(())
    }

    /// How many of the devices are members.
    fn members(&self) -> Result<usize, MdError> {
        let given = self.devices.len();
        let spares = self.spare_devices;
        let members = self.raid_devices.unwrap_or(given.saturating_sub(spares));
        if members + spares == given {
            return Ok(members);
        }
        Err(MdError::Refused(format!(
            "{members} members and {spares} spares are {} devices, and {given} are named; name as many, `missing` where one is not there yet",
            members + spares
        )))
    }
}

/// A size in KiB.
fn kib(text: &str) -> Result<u32, String> {
    let unit = text.chars().last().unwrap_or_default();
    let (number, scale) = match unit.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 1),
        'M' => (&text[..text.len() - 1], 1 << 10),
        'G' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let number: u32 = number
        .parse()
        .map_err(|_| format!("{text:?} is no size; give KiB, such as 64, 64K or 1M"))?;
    number
        .checked_mul(scale)
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// A layout by mdadm's names, short ones included.
fn layout(text: &str) -> Result<&'static str, String> {
    let long = match text {
        "ls" | "default" => "left-symmetric",
        "la" => "left-asymmetric",
        "rs" => "right-symmetric",
        "ra" => "right-asymmetric",
        other => other,
    };
    let layout = Layout::by_name(long).ok_or_else(|| {
        let all = Layout::ALL.map(Layout::name).join(", ");
        format!("there is no layout {text:?}; use one of {all}")
    })?;
    Ok(layout.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mdadms() {
        for (text, size) in [("64", 64), ("64k", 64), ("1M", 1024), ("2G", 2 << 20)] {
            assert_eq!(kib(text), Ok(size));
        }
        for text in ["", "K", "64KiB", "-1", "4096G"] {
            assert!(kib(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn layouts_have_short_names() {
        assert_eq!(layout("ra"), Ok("right-asymmetric"));
        assert_eq!(layout("parity-last"), Ok("parity-last"));
        assert!(layout("up").unwrap_err().contains("left-symmetric"));
    }
}
