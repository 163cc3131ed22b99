//! What is on a member, in words: as `mdadm --examine` prints it, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use uuid::Uuid;

use super::bitmap::area_bytes;
use super::{
    BadBlocks, Features, Freshness, Member, PAGE, Policy, Role, SECTOR, StoredBitmap, Superblock,
};

/// md's name of a RAID level, if it has one.
fn level_name(level: i32) -> Option<&'static str> {
    Some(match level {
        -1 => "linear",
        0 => "raid0",
        1 => "raid1",
        4 => "raid4",
        5 => "raid5",
        6 => "raid6",
        10 => "raid10",
        _ => return None,
    })
}

/// md's name of a layout of RAID5, if it has one.
fn layout_name(layout: u32) -> Option<&'static str> {
    Some(match layout {
        0 => "left-asymmetric",
        1 => "right-asymmetric",
        2 => "left-symmetric",
        3 => "right-symmetric",
        4 => "parity-first",
        5 => "parity-last",
        _ => return None,
    })
}

/// A size as mdadm adds it in brackets: in binary and decimal units, to a hundredth; nothing if it is small.
fn human(bytes: u128) -> String {
    const KIB: u128 = 1 << 10;
    let (binary, decimal, name) = match bytes {
        small if small < 5000 * KIB => return String::new(),
        mega if mega < 2 << 30 => (1 << 20, 1_000_000, 'M'),
        giga if giga < 2 << 40 => (1 << 30, 1_000_000_000, 'G'),
        _ => (1u128 << 40, 1_000_000_000_000, 'T'),
    };
    let rounded = |unit: u128| (bytes * 200 / unit).div_ceil(2);
    let [b, d] = [rounded(binary), rounded(decimal)];
    format!(
        " ({}.{:02} {name}iB {}.{:02} {name}B)",
        b / 100,
        b % 100,
        d / 100,
        d % 100
    )
}

/// A UUID as md writes it: four groups of eight digits.
fn md_uuid(uuid: &Uuid) -> String {
    let digits = uuid.simple().to_string();
    let groups = [0, 8, 16, 24].map(|at| &digits[at..at + 8]);
    groups.join(":")
}

/// Which members are there, by the table of roles: a letter for each slot.
fn array_state(sb: &Superblock) -> String {
    let mut state = String::new();
    for slot in 0..sb.raid_disks.min(super::superblock::MAX_DEVICES as u32) {
        let holders = sb.roles.iter().filter(|&&role| u32::from(role) == slot);
        state.push(match holders.count() {
            0 => '.',
            1 => 'A',
            2 if sb.level > 0 => 'R',
            _ => '?',
        });
    }
    state
}

/// What this member is to the array, by its own word.
fn role_text(sb: &Superblock) -> String {
    match sb.role() {
        Role::Spare | Role::Faulty => "spare".into(),
        Role::Journal => "Journal".into(),
        Role::Slot(slot) | Role::Unknown(slot) => {
            if sb.features.contains(Features::REPLACEMENT) {
                format!("Replacement device {slot}")
            } else {
                format!("Active device {slot}")
            }
        }
    }
}

/// Bytes of the array, where the level says how they come from the members.
fn array_bytes(sb: &Superblock) -> Option<u128> {
    let data = match sb.level {
        1 => 1,
        4 | 5 => sb.raid_disks.checked_sub(1)?,
        6 => sb.raid_disks.checked_sub(2)?,
        _ => return None,
    };
    Some(u128::from(sb.size) * u128::from(SECTOR) * u128::from(data))
}

impl Member {
    /// Sectors that nobody uses before and behind the data, as mdadm counts them: it keeps 36 KiB for the
    /// superblock.
    fn unused_space(&self) -> (u64, u64) {
        let sb = &self.superblock;
        let (start, end) = (sb.data_offset, sb.data_offset.saturating_add(sb.size));
        let log = sb.bad_block_log;
        let log = (log.offset != 0 && log.size != 0).then_some(log);
        let beside = |offset: i64| sb.super_offset.saturating_add_signed(offset);
        let helper = match sb.policy {
            Policy::Bitmap { offset } => Some((i64::from(offset), self.bitmap_sectors())),
            Policy::Ppl { offset, size, .. } => Some((i64::from(offset), u64::from(size))),
            Policy::Resync => None,
        };
        if start < sb.super_offset {
            let helper = helper.map(|(offset, _)| beside(offset));
            let log = log.map(|log| beside(log.offset.into()));
            let ends = [Some(sb.super_offset), helper, log].into_iter().flatten();
            let room = ends.min().unwrap_or(0);
            return (start, room.saturating_sub(end));
        }
        let helper = helper.filter(|(offset, _)| *offset > 0);
        let helper = helper.map(|(offset, len)| offset as u64 + len);
        let log = log.map(|log| beside(log.offset.into()) + u64::from(log.size));
        let superblock = sb.super_offset + 72;
        let ends = [Some(superblock), helper, log].into_iter().flatten();
        let used = ends.max().unwrap_or(0);
        (
            start.saturating_sub(used),
            self.device_sectors.saturating_sub(end),
        )
    }

    /// Sectors of the bitmap in whole pages.
    fn bitmap_sectors(&self) -> u64 {
        let stored = self.bitmap.as_ref().and_then(|b| b.as_ref().ok());
        stored.map_or(0, |stored| {
            let bytes = area_bytes(stored.header.sync_size, stored.header.chunk_bytes);
            bytes.next_multiple_of(PAGE as u64) / SECTOR
        })
    }

    /// The member in the words of `mdadm --examine`, times in UTC. It starts with `name` and a colon.
    pub fn examine(&self, name: &str) -> String {
        let mut text = format!("{name}:\n");
        // Writing to a string does not fail.
        let _ = self.write_examine(&mut text);
        text
    }

    fn write_examine(&self, out: &mut String) -> std::fmt::Result {
        let sb = &self.superblock;
        let unknown = "-unknown-";
        let size = |sectors: u64| human(u128::from(sectors) * u128::from(SECTOR));
        writeln!(out, "          Magic : {:08x}", super::superblock::MAGIC)?;
        writeln!(out, "        Version : 1.{}", sb.minor().number())?;
        writeln!(out, "    Feature Map : {:#x}", sb.feature_map().0)?;
        writeln!(out, "     Array UUID : {}", md_uuid(&sb.set_uuid))?;
        writeln!(out, "           Name : {}", sb.set_name)?;
        writeln!(out, "  Creation Time : {}", sb.created)?;
        let level = level_name(sb.level).unwrap_or(unknown);
        writeln!(out, "     Raid Level : {level}")?;
        writeln!(out, "   Raid Devices : {}\n", sb.raid_disks)?;
        let available = size(sb.data_size);
        writeln!(out, " Avail Dev Size : {} sectors{available}", sb.data_size)?;
        if let Some(bytes) = array_bytes(sb) {
            writeln!(out, "     Array Size : {} KiB{}", bytes >> 10, human(bytes))?;
        }
        if sb.level > 0 && sb.size != sb.data_size {
            writeln!(
                out,
                "  Used Dev Size : {} sectors{}",
                sb.size,
                size(sb.size)
            )?;
        }
        if sb.data_offset != 0 {
            writeln!(out, "    Data Offset : {} sectors", sb.data_offset)?;
        }
        writeln!(out, "   Super Offset : {} sectors", sb.super_offset)?;
        if let Some(offset) = sb.recovering() {
            writeln!(out, "Recovery Offset : {offset} sectors")?;
        }
        let (before, after) = self.unused_space();
        if (before, after) != (0, 0) && after != 1 {
            writeln!(
                out,
                "   Unused Space : before={before} sectors, after={after} sectors"
            )?;
        }
        let state = if sb.resync_offset == super::superblock::IN_SYNC {
            "clean"
        } else {
            "active"
        };
        writeln!(out, "          State : {state}")?;
        writeln!(out, "    Device UUID : {}\n", md_uuid(&sb.device_uuid))?;
        match sb.policy {
            Policy::Bitmap { offset } => {
                writeln!(out, "Internal Bitmap : {offset} sectors from superblock")?;
            }
            Policy::Ppl { offset, size, .. } => {
                let place = format!("{size} sectors at offset {offset} sectors from superblock");
                writeln!(out, "            PPL : {place}")?;
            }
            Policy::Resync => {}
        }
        if sb.features.contains(Features::RESHAPE) {
            let position = sb.reshape.position;
            writeln!(out, "  Reshape pos'n : {}{}", position / 2, size(position))?;
            let delta = i64::from(sb.reshape.delta_disks);
            if delta != 0 {
                let now = i64::from(sb.raid_disks);
                writeln!(out, "  Delta Devices : {delta} ({}->{now})", now - delta)?;
            }
            writeln!(out)?;
        }
        if sb.devflags & 3 != 0 {
            let flags = [(1, " write-mostly"), (2, " failfast")];
            let flags = flags.iter().filter(|(bit, _)| sb.devflags & bit != 0);
            let flags: String = flags.map(|(_, name)| *name).collect();
            writeln!(out, "          Flags :{flags}")?;
        }
        writeln!(out, "    Update Time : {}", sb.updated)?;
        let log = sb.bad_block_log;
        if log.offset != 0 && log.size != 0 {
            let entries = u64::from(log.size) * SECTOR / 8;
            let some = if sb.features.contains(Features::BAD_BLOCKS) {
                " - bad blocks present."
            } else {
                ""
            };
            let place = format!("at offset {} sectors{some}", log.offset);
            writeln!(out, "  Bad Block Log : {entries} entries available {place}")?;
        }
        writeln!(out, "       Checksum : {:x} - correct", sb.checksum())?;
        writeln!(out, "         Events : {}\n", sb.events)?;
        if sb.level == 5 {
            let layout = layout_name(sb.layout).unwrap_or(unknown);
            writeln!(out, "         Layout : {layout}")?;
        }
        if matches!(sb.level, 0 | 4 | 5 | 6 | 10) {
            writeln!(out, "     Chunk Size : {}K", sb.chunk / 2)?;
        }
        writeln!(out, "\n   Device Role : {}", role_text(sb))?;
        let letters = "('A' == active, '.' == missing, 'R' == replacing)";
        writeln!(out, "   Array State : {} {letters}", array_state(sb))
    }

    /// The bitmap in the words of `mdadm --examine-bitmap`, if there is one.
    pub fn examine_bitmap(&self, name: &str) -> Option<String> {
        let stored = match self.bitmap.as_ref()? {
            Ok(stored) => stored,
            Err(error) => return Some(format!("        Filename : {name}\n{error}\n")),
        };
        let header = &stored.header;
        let state = match header.state {
            0 => "OK",
            super::bitmap_header::STATE_STALE => "Out of date",
            _ => "Unknown",
        };
        let chunk = match header.chunk_bytes {
            giga if giga >= 1 << 30 => format!("{} GB", giga >> 30),
            mega if mega >= 1 << 20 => format!("{} MB", mega >> 20),
            kilo if kilo >= 1 << 10 => format!("{} KB", kilo >> 10),
            bytes => format!("{bytes} B"),
        };
        let mode = match header.write_behind {
            0 => "Normal".to_owned(),
            most => format!("Allow write behind, max {most}"),
        };
        let sync = u128::from(header.sync_size) * u128::from(SECTOR);
        let (bits, dirty) = (stored.bits.bits(), stored.bits.count());
        let share = 100.0 * dirty as f64 / bits.max(1) as f64;
        let lines = [
            ("Filename", name.to_owned()),
            ("Magic", format!("{:08x}", super::bitmap_header::MAGIC)),
            ("Version", header.version.to_string()),
            ("UUID", md_uuid(&header.uuid)),
            ("Events", header.events.to_string()),
            ("Events Cleared", header.events_cleared.to_string()),
            ("State", state.to_owned()),
            ("Chunksize", chunk),
            ("Daemon", format!("{}s flush period", header.daemon_sleep)),
            ("Write Mode", mode),
            (
                "Sync Size",
                format!("{}{}", header.sync_size / 2, human(sync)),
            ),
            (
                "Bitmap",
                format!("{bits} bits (chunks), {dirty} dirty ({share:.1}%)"),
            ),
        ];
        let lines = lines
            .iter()
            .map(|(what, value)| format!("{what:>16} : {value}\n"));
        Some(lines.collect())
    }

    /// The member as JSON: numbers in md's units (sectors, unless the name says otherwise), names of md's
    /// fields.
    pub fn to_json(&self) -> Value {
        let sb = &self.superblock;
        json!({
            "version": format!("1.{}", sb.minor().number()),
            "feature_map": sb.feature_map().0,
            "array_uuid": sb.set_uuid,
            "name": sb.set_name.to_string(),
            "creation_time": sb.created.seconds(),
            "level": sb.level,
            "layout": sb.layout,
            "layout_name": layout_name(sb.layout).filter(|_| sb.level == 5),
            "chunk": sb.chunk,
            "raid_disks": sb.raid_disks,
            "size": sb.size,
            "policy": policy_json(sb),
            "data_offset": sb.data_offset,
            "data_size": sb.data_size,
            "super_offset": sb.super_offset,
            "recovery_offset": sb.recovering(),
            "device_uuid": sb.device_uuid,
            "device_number": sb.dev_number,
            "role": role_json(sb),
            "array_state": array_state(sb),
            "corrected_reads": sb.corrected_reads,
            "update_time": sb.updated.seconds(),
            "events": sb.events,
            "state": if sb.resync_offset == super::superblock::IN_SYNC { "clean" } else { "active" },
            "resync_offset": Some(sb.resync_offset).filter(|&o| o != super::superblock::IN_SYNC),
            "checksum": sb.checksum(),
            "supported": sb.support().err().map_or(Value::Bool(true), |e| e.to_string().into()),
            "bitmap": self.bitmap.as_ref().map(|b| b.as_ref().map_or_else(error_json, bitmap_json)),
            "bad_blocks": self.bad_blocks.as_ref().map_or_else(error_json, bad_blocks_json),
            "ppl": self.ppl.as_ref().map(|p| p.as_ref().map_or_else(error_json, |found| {
                found.as_ref().map_or(Value::Null, |found| json!({
                    "at": found.at,
                    "generation": found.header.generation,
                    "entries": found.header.entries.len(),
                }))
            })),
        })
    }
}

fn error_json(error: &super::AreaError) -> Value {
    json!({ "error": error.to_string() })
}

fn policy_json(sb: &Superblock) -> Value {
    match sb.policy {
        Policy::Resync => json!({ "kind": "resync" }),
        Policy::Bitmap { offset } => json!({ "kind": "bitmap", "offset": offset }),
        Policy::Ppl {
            offset,
            size,
            multiple,
        } => json!({ "kind": "ppl", "offset": offset, "size": size, "multiple": multiple }),
    }
}

fn role_json(sb: &Superblock) -> Value {
    match sb.role() {
        Role::Slot(slot) => slot.into(),
        Role::Journal => "journal".into(),
        Role::Faulty => "faulty".into(),
        Role::Spare => "spare".into(),
        Role::Unknown(number) => format!("unknown {number:#x}").into(),
    }
}

fn bitmap_json(stored: &StoredBitmap) -> Value {
    json!({
        "version": stored.header.version,
        "events": stored.header.events,
        "events_cleared": stored.header.events_cleared,
        "chunk_bytes": stored.header.chunk_bytes,
        "bits": stored.bits.bits(),
        "dirty": stored.bits.count(),
        "stale": stored.freshness == Freshness::Stale,
    })
}

fn bad_blocks_json(bad_blocks: &BadBlocks) -> Value {
    let ranges = bad_blocks.iter().map(|r| json!([r.start, r.end - r.start]));
    json!({ "capacity": bad_blocks.capacity(), "ranges": ranges.collect::<Vec<_>>() })
}
