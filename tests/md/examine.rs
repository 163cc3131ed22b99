//! What we read from a member is what `mdadm` reads from it, line by line.

use serde_json::{Map, Value};
use stripewise::md::{Features, Member, Minor, Policy, Role, SECTOR, Superblock, Time};
use uuid::Uuid;

use super::golden::{Golden, number};

/// A report of mdadm that is compared with what we say; every line must have been looked at.
struct Report<'a> {
    of: String,
    lines: &'a Map<String, Value>,
    left: Vec<&'a str>,
}

impl<'a> Report<'a> {
    fn new(golden: &'a Golden, member: usize, name: &str) -> Option<Self> {
        let lines = golden.member(member, name)?;
        Some(Self {
            of: format!("{}, member {member}, {name}", golden.name),
            lines,
            left: lines.keys().map(String::as_str).collect(),
        })
    }

    /// mdadm has this line, with these words.
    fn is(&mut self, key: &str, ours: impl ToString) {
        self.may(key, Some(ours.to_string()));
    }

    /// mdadm has this line just if we have something to say there, and then with these words.
    fn may(&mut self, key: &str, ours: Option<impl ToString>) {
        let said = self.lines.get(key).map(|v| v.as_str().expect("a text"));
        let ours = ours.map(|o| o.to_string());
        assert_eq!(said, ours.as_deref(), "{}: {key}", self.of);
        self.left.retain(|&left| left != key);
    }

    /// mdadm's number at the start of a line.
    fn number(&self, key: &str) -> i64 {
        let said = self.lines.get(key).and_then(Value::as_str);
        number(said.unwrap_or_else(|| panic!("{}: {key}", self.of)))
    }

    fn finish(self) {
        assert!(
            self.left.is_empty(),
            "{}: lines nobody looked at: {:?}",
            self.of,
            self.left
        );
    }
}

#[test]
fn superblocks_say_what_mdadm_says() {
    let mut looked_at = 0;
    for golden in Golden::all() {
        for (index, image) in golden.images.iter().enumerate() {
            let Some(mut report) = Report::new(golden, index, "examine") else {
                continue;
            };
            if report.lines["Version"] == "0.90.00" {
                continue;
            }
            let member = Member::read(&mut image.clone());
            let member = member.unwrap_or_else(|error| panic!("{}: {error}", report.of));
            compare(&mut report, &member);
            report.finish();
            looked_at += 1;
        }
    }
    assert!(looked_at > 100, "only {looked_at} superblocks");
}

fn compare(report: &mut Report<'_>, member: &Member) {
    let sb = &member.superblock;
    report.is("Magic", format!("{:x}", stripewise::md::superblock::MAGIC));
    report.is("Version", format!("1.{}", sb.minor().number()));
    report.is("Feature Map", format!("{:#x}", sb.feature_map().0));
    report.is("Array UUID", in_words(sb.set_uuid));
    report.is("Device UUID", in_words(sb.device_uuid));
    report.is("Name", sb.set_name);
    report.is("Creation Time", date(sb.created));
    report.is("Update Time", date(sb.updated));
    report.is("Events", sb.events);
    report.is("Raid Devices", sb.raid_disks);
    report.is("Raid Level", format!("raid{}", sb.level));
    // What follows a number of sectors or KiB is the same in other units.
    assert_eq!(
        report.number("Avail Dev Size"),
        sb.data_size as i64,
        "{}",
        report.of
    );
    report.left.retain(|&l| l != "Avail Dev Size");
    let data_members = match sb.level {
        1 => 1,
        6 => sb.raid_disks - 2,
        _ => sb.raid_disks - 1,
    };
    let kib = sb.size / 2 * u64::from(data_members);
    assert_eq!(report.number("Array Size"), kib as i64, "{}", report.of);
    report.left.retain(|&l| l != "Array Size");
    let used = sectors(sb.size).filter(|_| sb.size != sb.data_size);
    let said = report.lines.get("Used Dev Size").and_then(Value::as_str);
    assert_eq!(said.map(first_words), used, "{}", report.of);
    report.left.retain(|&l| l != "Used Dev Size");

    let at_end = sb.minor() == Minor::V0;
    report.may("Data Offset", sectors(sb.data_offset).filter(|_| !at_end));
    report.is("Super Offset", format!("{} sectors", sb.super_offset));
    let moves = sb.features.contains(Features::NEW_OFFSET);
    let new_offset = sb.data_offset as i64 + i64::from(sb.reshape.offset);
    report.may("New Offset", moves.then(|| format!("{new_offset} sectors")));
    report.may(
        "Recovery Offset",
        sb.recovering().map(|at| format!("{at} sectors")),
    );
    report.may("Unused Space", (!moves).then(|| unused(member)));
    let clean = sb.resync_offset == stripewise::md::superblock::IN_SYNC;
    report.is("State", if clean { "clean" } else { "active" });
    report.may("Flags", flags(sb.devflags));
    report.may(
        "Reshape pos'n",
        reshaping(sb).then_some(sb.reshape.position / 2),
    );
    let (delta, all) = (sb.reshape.delta_disks, sb.raid_disks.cast_signed());
    report.may(
        "Delta Devices",
        reshaping(sb).then(|| format!("{delta} ({}->{all})", all - delta)),
    );
    let (bitmap, ppl) = match sb.policy {
        Policy::Resync => (None, None),
        Policy::Bitmap { offset } => (Some(format!("{offset} sectors from superblock")), None),
        Policy::Ppl { offset, size, .. } => {
            let place = format!("{size} sectors at offset {offset} sectors from superblock");
            (None, Some(place))
        }
    };
    report.may("Internal Bitmap", bitmap);
    report.may("PPL", ppl);
    report.may("Bad Block Log", bad_block_log(sb));
    // That it is correct, we know by having read it; this is its value.
    let written = sb.to_bytes();
    let sum = u32::from_le_bytes(written[216..220].try_into().expect("four"));
    report.is("Checksum", format!("{sum:x} - correct"));
    report.may("Layout", layout(sb));
    report.may(
        "Chunk Size",
        (sb.level != 1).then(|| format!("{}K", sb.chunk / 2)),
    );
    report.is("Device Role", role(sb));
    let state = report.lines["Array State"].as_str().expect("a text");
    assert_eq!(first_word(state), array_state(sb), "{}", report.of);
    report.left.retain(|&l| l != "Array State");
}

/// mdadm writes a UUID as four groups.
fn in_words(uuid: Uuid) -> String {
    let hex = uuid.simple().to_string();
    let groups: Vec<&str> = (0..4).map(|n| &hex[8 * n..8 * n + 8]).collect();
    groups.join(":")
}

/// A time as C's `asctime` writes it, in UTC.
fn date(time: Time) -> String {
    let (days, second) = (time.seconds() / 86400, time.seconds() % 86400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (mut year, mut day) = (1970, days);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let months = [
        ("Jan", 31),
        ("Feb", february),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let mut month = months.iter();
    let name = loop {
        let (name, days) = month.next().expect("a year has so many days");
        if day < *days {
            break name;
        }
        day -= days;
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{weekday} {name} {:2} {hour:02}:{minute:02}:{second:02} {year}",
        day + 1
    )
}

fn sectors(count: u64) -> Option<String> {
    Some(format!("{count} sectors"))
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// "6144 sectors (3.00 MiB 3.15 MB)" without what is in brackets.
fn first_words(text: &str) -> String {
    text.split(" (").next().unwrap_or_default().to_owned()
}

fn flags(devflags: u8) -> Option<String> {
    let names = [(1, "write-mostly"), (2, "failfast")];
    let set = names.iter().filter(|(bit, _)| devflags & bit != 0);
    let set: Vec<&str> = set.map(|&(_, name)| name).collect();
    (!set.is_empty()).then(|| set.join(" "))
}

fn reshaping(sb: &Superblock) -> bool {
    sb.features.contains(Features::RESHAPE)
}

fn bad_block_log(sb: &Superblock) -> Option<String> {
    let log = sb.bad_block_log;
    let present = sb.features.contains(Features::BAD_BLOCKS);
    (log.size > 0 && log.offset != 0).then(|| {
        format!(
            "{} entries available at offset {} sectors{}",
            u64::from(log.size) * SECTOR / 8,
            log.offset,
            if present {
                " - bad blocks present."
            } else {
                ""
            },
        )
    })
}

fn layout(sb: &Superblock) -> Option<&'static str> {
    let names = [
        "left-asymmetric",
        "right-asymmetric",
        "left-symmetric",
        "right-symmetric",
        "parity-first",
        "parity-last",
    ];
    // RAID4 and RAID1 have none.
    (sb.level >= 5).then(|| names[sb.layout as usize])
}

fn role(sb: &Superblock) -> String {
    match sb.role() {
        Role::Slot(slot) if sb.features.contains(Features::REPLACEMENT) => {
            format!("Replacement device {slot}")
        }
        Role::Slot(slot) => format!("Active device {slot}"),
        Role::Journal => "Journal".to_owned(),
        Role::Spare => "spare".to_owned(),
        other => panic!("role {other:?}"),
    }
}

/// A letter for each slot: A, R where two members share it, a dot where there is none.
fn array_state(sb: &Superblock) -> String {
    let slots = 0..sb.raid_disks as u16;
    let members = |slot| sb.roles.iter().filter(|&&role| role == slot).count();
    slots.map(|slot| [".", "A", "R"][members(slot)]).collect()
}

/// What mdadm finds free between the metadata and the data, and behind the data.
fn unused(member: &Member) -> String {
    let sb = &member.superblock;
    let bitmap = member.bitmap.as_ref().map(|b| {
        let bitmap = b.as_ref().expect("a bitmap");
        // It counts whole pages, header and all.
        (256 + bitmap.bits.bits().div_ceil(8)).div_ceil(4096) * 8
    });
    let areas: Vec<(i64, i64)> = match sb.policy {
        Policy::Resync => vec![],
        Policy::Bitmap { offset } => vec![(offset.into(), bitmap.expect("one") as i64)],
        // mdadm leaves out that the log does not begin where the superblock does.
        Policy::Ppl { size, .. } => vec![(0, size.into())],
    };
    let log = sb.bad_block_log;
    let log = (log.size > 0).then(|| (i64::from(log.offset), i64::from(log.size)));
    let areas = areas.into_iter().chain(log);
    let at = sb.super_offset as i64;
    let (before, after) = if sb.minor() == Minor::V0 {
        // Behind the data come the areas, then the superblock.
        let first = areas.map(|(start, _)| at + start).min().unwrap_or(at);
        (0, first - sb.size as i64)
    } else {
        // mdadm keeps 36 KiB free for the superblock.
        let ends = areas.map(|(start, size)| at + start + size);
        let end = ends.chain([at + 72]).max().expect("one");
        // A journal takes all that there is.
        let used = if sb.role() == Role::Journal {
            sb.data_size
        } else {
            sb.size
        };
        (sb.data_offset as i64 - end, (sb.data_size - used) as i64)
    };
    format!("before={before} sectors, after={after} sectors")
}

#[test]
fn bitmaps_say_what_mdadm_says() {
    let mut looked_at = 0;
    for golden in Golden::all() {
        for (index, image) in golden.images.iter().enumerate() {
            let Some(mut report) = Report::new(golden, index, "bitmap") else {
                continue;
            };
            let member = Member::read(&mut image.clone()).expect("a member");
            let bitmap = member
                .bitmap
                .expect("a bitmap")
                .expect("one that can be read");
            let header = &bitmap.header;
            let file = report.lines["Filename"]
                .as_str()
                .expect("a text")
                .to_owned();
            report.is("Filename", file);
            report.is(
                "Magic",
                format!("{:x}", stripewise::md::bitmap_header::MAGIC),
            );
            report.is("Version", header.version);
            report.is("UUID", in_words(header.uuid));
            report.is("Events", header.events);
            report.is("Events Cleared", header.events_cleared);
            report.is(
                "State",
                if header.state == 0 {
                    "OK"
                } else {
                    "Out of date"
                },
            );
            report.is("Chunksize", format!("{} KB", header.chunk_bytes >> 10));
            report.is("Daemon", format!("{}s flush period", header.daemon_sleep));
            report.is("Write Mode", "Normal");
            assert_eq!(header.write_behind, 0, "{}", report.of);
            assert_eq!(
                report.number("Sync Size"),
                header.sync_size as i64 / 2,
                "{}",
                report.of
            );
            report.left.retain(|&l| l != "Sync Size");
            let (bits, set) = (bitmap.bits.bits(), bitmap.bits.count());
            let share = 100.0 * set as f64 / bits as f64;
            report.is(
                "Bitmap",
                format!("{bits} bits (chunks), {set} dirty ({share:.1}%)"),
            );
            report.finish();
            looked_at += 1;
        }
    }
    assert!(looked_at > 10, "only {looked_at} bitmaps");
}

#[test]
fn bad_block_logs_say_what_mdadm_says() {
    let mut lost = 0;
    for golden in Golden::all() {
        for (index, image) in golden.images.iter().enumerate() {
            let record = &golden.record["members"][index.to_string()]["badblocks"];
            let Some(listed) = record.as_array() else {
                continue;
            };
            let field = |range: &Value, name: &str| range[name].as_u64().expect("a number");
            let listed: Vec<_> = listed
                .iter()
                .map(|r| field(r, "sector")..field(r, "sector") + field(r, "sectors"))
                .collect();
            let member = Member::read(&mut image.clone()).expect("a member");
            let bad = member.bad_blocks.expect("a log");
            assert_eq!(
                bad.iter().collect::<Vec<_>>(),
                listed,
                "{}, member {index}",
                golden.name
            );
            lost += bad.sectors();
        }
    }
    assert_eq!(lost, 80, "sectors of the one member that has bad blocks");
}

#[test]
fn superblocks_are_written_as_they_were() {
    for golden in Golden::all() {
        for (index, image) in golden.images.iter().enumerate() {
            let Ok(member) = Member::read(&mut image.clone()) else {
                assert_eq!(golden.name, "metadata-0.90");
                continue;
            };
            let sb = member.superblock;
            let start = (sb.super_offset * SECTOR) as usize;
            let bytes = sb.to_bytes();
            assert!(
                image[start..start + bytes.len()] == bytes[..],
                "{}, member {index}: not the same bytes",
                golden.name,
            );
        }
    }
}
