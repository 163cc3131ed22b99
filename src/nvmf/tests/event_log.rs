//! The persistent event log as a host reads it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use zerocopy::FromBytes;

use super::host::{Answer, Host};
use super::world::{NQN, Plan, World};
use crate::bdev::Null;
use crate::nvme::admin::{AdminCommand, GetLogPage, Identify};
use crate::nvme::identify::IdentifyController;
use crate::nvme::property::Property;
use crate::nvmf::{EventLogOptions, TargetError, VolumeEvent};

const READ: u8 = 0;
const ESTABLISH: u8 = 1;
const RELEASE: u8 = 2;
const ESTABLISH_AND_HEADER: u8 = 3;

const SEQUENCE_ERROR: u16 = 0x00c;
const INVALID_FIELD: u16 = 0x002;
const INVALID_LOG_PAGE: u16 = 0x109;

fn keep(world: &mut World, file: &Path) -> Result<(), TargetError> {
    let options = EventLogOptions {
        file: file.into(),
        size_kib: 128,
    };
    world.target.set_event_log(NQN, Some(options))
}

/// A world that exports `volume`, and keeps a log in this file.
fn world(file: &Path) -> World {
    let mut world = World::bare(&Plan::default());
    world.export(Null::new("volume", 512, 8, None).expect("a device"));
    keep(&mut world, file).expect("a log");
    world
}

fn get(admin: &mut Host, world: &mut World, lsp: u8, offset: u64, len: u32) -> Answer {
    let page = GetLogPage {
        lsp,
        offset,
        ..GetLogPage::new(0x0d, len.into())
    };
    let command = AdminCommand::GetLogPage(page).to_command(0);
    admin.fetch(world, command, len)
}

fn status(admin: &mut Host, world: &mut World, lsp: u8) -> u16 {
    get(admin, world, lsp, 0, 512).status().code()
}

/// The whole page, read anew, in pieces of 512 bytes: numbers are read from it where Base 2.0 has them.
fn page(admin: &mut Host, world: &mut World) -> Vec<u8> {
    world.settle();
    let mut page = get(admin, world, ESTABLISH, 0, 512).data;
    let total = number(&page[8..16]);
    while (page.len() as u64) < total {
        let piece = get(admin, world, READ, page.len() as u64, 512);
        assert_eq!(piece.status().code(), 0);
        page.extend(piece.data);
    }
    assert_eq!(status(admin, world, RELEASE), 0);
    page.truncate(total as usize);
    page
}

fn number(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(wide)
}

/// Type and data of each event, as libnvme walks through them.
fn events(page: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut at = 512;
    let mut events = Vec::new();
    for _ in 0..number(&page[4..8]) {
        let header = &page[at..];
        let data = at + usize::from(header[2]) + 3;
        let end = data + number(&header[22..24]) as usize;
        events.push((header[0], page[data..end].to_vec()));
        at = end;
    }
    assert_eq!(at, page.len());
    events
}

fn kinds(page: &[u8]) -> Vec<u8> {
    events(page).iter().map(|(kind, _)| *kind).collect()
}

/// Log page attributes and PELS.
fn offered(admin: &mut Host, world: &mut World) -> (u8, u32) {
    let cns = crate::nvme::identify::Cns::Controller.code();
    let identify = AdminCommand::Identify(Identify {
        cns,
        ..Identify::default()
    });
    let answer = admin.fetch(world, identify.to_command(0), 4096);
    let told = IdentifyController::read_from_bytes(&answer.data).expect("4096 bytes");
    (told.lpa, told.pels.get())
}

/// Whether page 00h has page 0Dh.
fn listed(admin: &mut Host, world: &mut World) -> u64 {
    let pages = AdminCommand::GetLogPage(GetLogPage::new(0, 1024)).to_command(0);
    let answer = admin.fetch(world, pages, 1024);
    number(&answer.data[0x0d * 4..][..4])
}

#[test]
fn a_subsystem_without_a_file_has_no_such_page() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    assert_eq!(offered(&mut admin, &mut world), (0x26, 0));
    assert_eq!(listed(&mut admin, &mut world), 0);
    for lsp in [READ, ESTABLISH, RELEASE] {
        assert_eq!(status(&mut admin, &mut world, lsp), INVALID_LOG_PAGE);
    }
}

#[test]
fn a_host_reads_what_has_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = world(&folder.path().join("events"));
    let (mut admin, _) = Host::admin(&mut world);
    assert_eq!(offered(&mut admin, &mut world), (0x36, 2));
    // Supported; the optional action is not.
    assert_eq!(listed(&mut admin, &mut world), 1);
    let words = "RAID volume volume: member m of slot 0 is out";
    let event = VolumeEvent::MemberOut;
    world.target.note_volume("volume", event, words);
    world
        .target
        .note_volume("another", event, "not of this subsystem");
    let page = loop {
        // The file is written by a thread.
        let page = page(&mut admin, &mut world);
        if number(&page[4..8]) == 3 {
            break page;
        }
        std::thread::yield_now();
    };
    assert_eq!(page[0], 0x0d);
    assert_eq!(number(&page[18..20]), 492);
    assert_eq!(number(&page[44..52]), 1);
    assert_eq!(page[56..76], *b"00000000000000000000");
    assert_eq!(page[76..86], *b"Stripewise");
    assert_eq!(page[116..116 + NQN.len()], *NQN.as_bytes());
    assert_eq!(page[116 + NQN.len()], 0);
    let events = events(&page);
    assert_eq!(kinds(&page), [0x04, 0x01, 0xde]);
    assert_eq!(events[0].1, *b"0.1.0   ");
    // The snapshot: available spare 100 %, one power cycle.
    assert_eq!((events[1].1.len(), events[1].1[3]), (512, 100));
    assert_eq!(number(&events[1].1[112..120]), 1);
    let mut vendor = vec![1, 0, 2, 0, words.len() as u8, 0];
    vendor.extend(words.as_bytes());
    assert_eq!(events[2].1, vendor);
    // Times are of this machine, one after the other.
    let times: Vec<u64> = [512, 512 + 32]
        .map(|at| number(&page[at + 6..at + 14]))
        .into();
    let header = number(&page[20..28]);
    assert!(1_700_000_000_000 < times[0] && times[0] <= times[1] && times[1] <= header);
    // Health says the same of the subsystem's life.
    let health = AdminCommand::GetLogPage(GetLogPage::new(2, 512)).to_command(0);
    let health = admin.fetch(&mut world, health, 512);
    assert_eq!(number(&health.data[112..120]), 1);
}

#[test]
fn a_context_is_the_hosts_until_it_is_released_or_the_controller_reset() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = world(&folder.path().join("events"));
    let (mut admin, _) = Host::admin(&mut world);
    let mut other = super::party::Party::new(&mut world, 2);
    assert_eq!(status(&mut admin, &mut world, READ), SEQUENCE_ERROR);
    assert_eq!(status(&mut admin, &mut world, RELEASE), 0);
    let first = get(&mut admin, &mut world, ESTABLISH, 0, 4096).data;
    assert_eq!(number(&first[4..8]), 2);
    let generation = number(&first[372..374]);
    assert_eq!(status(&mut admin, &mut world, ESTABLISH), SEQUENCE_ERROR);
    assert_eq!(
        status(&mut admin, &mut world, ESTABLISH_AND_HEADER),
        INVALID_FIELD
    );
    // What happens meanwhile is not in it, and is for another controller.
    world
        .target
        .note_volume("volume", VolumeEvent::Offline, "x");
    while kinds(&page(&mut other.admin, &mut world)) != [4, 1, 0xde] {
        std::thread::yield_now();
    }
    assert_eq!(get(&mut admin, &mut world, READ, 0, 4096).data, first);
    // The rest of the page, and not beyond its end.
    let total = number(&first[8..16]);
    let rest = get(&mut admin, &mut world, READ, total - 8, 16);
    assert_eq!(rest.data[..8], first[total as usize - 8..total as usize]);
    assert_eq!(rest.data[8..], [0; 8]);
    let beyond = get(&mut admin, &mut world, READ, total + 4, 4);
    assert_eq!(beyond.status().code(), INVALID_FIELD);
    assert_eq!(status(&mut admin, &mut world, RELEASE), 0);
    assert_eq!(status(&mut admin, &mut world, READ), SEQUENCE_ERROR);
    let second = get(&mut admin, &mut world, ESTABLISH, 0, 512).data;
    assert_eq!(number(&second[4..8]), 3);
    assert_ne!(number(&second[372..374]), generation);
    // A reset ends the context: CC.EN is cleared and set.
    admin.property_set(&mut world, Property::Configuration, 0);
    admin.enable(&mut world);
    assert_eq!(status(&mut admin, &mut world, READ), SEQUENCE_ERROR);
    assert_eq!(status(&mut admin, &mut world, ESTABLISH), 0);
}

#[test]
fn events_are_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events");
    {
        let mut world = world(&file);
        world
            .target
            .note_volume("volume", VolumeEvent::MemberOut, "m is out");
        // Nobody has waited for the file.
        assert!(world.target.finish());
    }
    let mut world = world(&file);
    let (mut admin, _) = Host::admin(&mut world);
    let page = page(&mut admin, &mut world);
    assert_eq!(kinds(&page), [4, 1, 0xde, 4, 1]);
    assert_eq!(number(&page[44..52]), 2);
    let error = keep(&mut world, &file).expect_err("twice").to_string();
    assert!(error.contains("give each subsystem its own"), "{error}");
    world.target.set_event_log(NQN, None).expect("none");
    world.settle();
    assert_eq!(status(&mut admin, &mut world, ESTABLISH), INVALID_LOG_PAGE);
}

#[test]
fn health_is_noted_every_day_and_counts_for_all_controllers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = world(&folder.path().join("events"));
    let mut a = super::party::Party::new(&mut world, 1);
    let mut b = super::party::Party::new(&mut world, 2);
    assert_eq!((a.write(&mut world), b.write(&mut world)), (0, 0));
    let beyond = super::commands::read(8, 1);
    assert_eq!(b.io.fetch(&mut world, beyond, 512).status().code(), 0x080);
    world.pass(Duration::from_secs(5));
    drop((a, b));
    world.pass(Duration::from_secs(1));
    world.side.borrow_mut().now += Duration::from_secs(24 * 3600);
    let (mut admin, _) = Host::admin(&mut world);
    let page = loop {
        let page = page(&mut admin, &mut world);
        if number(&page[4..8]) == 3 {
            break page;
        }
        std::thread::yield_now();
    };
    assert_eq!(kinds(&page), [4, 1, 1]);
    let health = &events(&page)[2].1;
    assert_eq!(number(&health[80..88]), 2, "writes");
    assert_eq!(number(&health[176..184]), 1, "errors");
    assert_eq!(number(&health[128..136]), 24, "hours");
    assert_eq!(number(&page[28..36]), 24);
}

#[test]
fn what_could_not_be_written_is_not_told_and_comes_with_the_next_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).expect("new");
    let mut world = world(&inside.join("events"));
    let (mut admin, _) = Host::admin(&mut world);
    let away = folder.path().join("away");
    fs::rename(&inside, &away).expect("moved");
    world
        .target
        .note_volume("volume", VolumeEvent::MemberOut, "one");
    while !world.target.logs_are_written() {
        world.turn();
    }
    assert_eq!(kinds(&page(&mut admin, &mut world)), [4, 1]);
    fs::rename(&away, &inside).expect("moved");
    world
        .target
        .note_volume("volume", VolumeEvent::MemberInSync, "two");
    while kinds(&page(&mut admin, &mut world)) != [4, 1, 0xde, 0xde] {
        std::thread::yield_now();
    }
}

#[test]
fn offsets_count_bytes_not_events() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = world(&folder.path().join("events"));
    let (mut admin, _) = Host::admin(&mut world);
    let mut by_index = AdminCommand::GetLogPage(GetLogPage::new(0x0d, 512)).to_command(0);
    by_index.cdw14 = (1 << 23).into();
    assert_eq!(
        admin.fetch(&mut world, by_index, 512).status().code(),
        INVALID_FIELD
    );
}
