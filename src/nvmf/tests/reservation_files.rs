//! Reservations that outlive the target: the file that SPDK would write and read, too.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use super::party::Party;
use super::world::{NQN, Plan, World};
use crate::bdev::Malloc;
use crate::nvme::Command;
use crate::nvme::reservation::{Keys, RegisterAction, ReservationCommand, ReservationType};
use crate::nvmf::{NamespaceOptions, TargetError};

const CONFLICT: u16 = 0x083;

/// A world whose namespace has its reservations in this file; or what is said against it.
fn try_world(file: &Path, device: u128) -> Result<World, TargetError> {
    let mut world = World::bare(&Plan::default());
    let uuid = Some(Uuid::from_u128(device));
    let bdev = Malloc::new("Malloc0", 512, 1000, uuid).expect("a RAM disk");
    world.registry.add(bdev).expect("new");
    let options = NamespaceOptions {
        bdev_name: "Malloc0".into(),
        ptpl_file: Some(file.into()),
        ..NamespaceOptions::default()
    };
    world
        .target
        .add_namespace(&mut world.registry, NQN, options)?;
    Ok(world)
}

fn world(file: &Path) -> World {
    try_world(file, 7).expect("a namespace")
}

fn persisting(on: bool) -> ReservationCommand {
    ReservationCommand::Register {
        action: RegisterAction::Register,
        ignore_key: false,
        persist: Some(on),
    }
}

fn content(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON")
}

#[test]
fn a_reservation_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("r.json");
    let kind = ReservationType::WriteExclusive;
    {
        let mut world = world(&file);
        let mut a = Party::new(&mut world, 1);
        let mut b = Party::new(&mut world, 2);
        assert_eq!(b.register(&mut world, 0xb), 0);
        // Nothing is written before somebody asks for it.
        assert!(!file.exists());
        let register = a.reserve(&mut world, persisting(true), Keys::new(0, u64::MAX));
        assert_eq!(register, 0);
        assert_eq!(a.acquire(&mut world, kind, u64::MAX), 0);
        assert!(a.report(&mut world).persists);
    }
    // What SPDK's reader looks for.
    let expected = json!({
        "ptpl": true, "rtype": 1, "crkey": u64::MAX,
        "bdev_uuid": "00000000-0000-0000-0000-000000000007",
        "holder_uuid": "01010101-0101-0101-0101-010101010101",
        "registrants": [
            {"rkey": 0xb, "host_uuid": "02020202-0202-0202-0202-020202020202"},
            {"rkey": u64::MAX, "host_uuid": "01010101-0101-0101-0101-010101010101"},
        ],
    });
    assert_eq!(content(&file), expected);
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    {
        let mut world = world(&file);
        let mut b = Party::new(&mut world, 2);
        assert_eq!((b.read(&mut world), b.write(&mut world)), (0, CONFLICT));
        let mut a = Party::new(&mut world, 1);
        assert_eq!(a.write(&mut world), 0);
        let report = a.report(&mut world);
        assert_eq!(
            (report.generation, report.kind, report.persists),
            (0, 1, true)
        );
        assert_eq!(report.registrants.len(), 2);
        assert_eq!(b.preempt(&mut world, kind, 0xb, u64::MAX), 0);
        assert_eq!(
            content(&file)["holder_uuid"],
            expected["registrants"][0]["host_uuid"]
        );
        // Switched off by the feature: nothing of it is there the next time.
        let off = Command {
            cdw10: 0x83.into(),
            ..Command::new(0x09, u32::MAX)
        };
        assert_eq!(a.ask(&mut world, off).status().code(), 0);
        let get = Command {
            cdw10: 0x83.into(),
            ..Command::new(0x0a, 1)
        };
        assert_eq!(a.ask(&mut world, get).completion.result64(), 0);
        assert_eq!(content(&file)["ptpl"], false);
        assert_eq!(content(&file)["registrants"], json!([]));
        assert_eq!(a.write(&mut world), CONFLICT);
    }
    let mut world = world(&file);
    let mut a = Party::new(&mut world, 1);
    assert_eq!(a.write(&mut world), 0);
    assert_eq!(a.report(&mut world).registrants, []);
    let on = Command {
        cdw10: 0x83.into(),
        cdw11: 1.into(),
        ..Command::new(0x09, 1)
    };
    assert_eq!(a.ask(&mut world, on).status().code(), 0);
    assert!(a.report(&mut world).persists);
}

#[test]
fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).expect("new");
    let file = inside.join("r.json");
    let mut world = world(&file);
    let mut a = Party::new(&mut world, 1);
    let mut b = Party::new(&mut world, 2);
    let kind = ReservationType::ExclusiveAccess;
    assert_eq!(a.reserve(&mut world, persisting(true), Keys::new(0, 1)), 0);
    let before = content(&file);
    let away = folder.path().join("away");
    fs::rename(&inside, &away).expect("moved");
    assert_eq!(a.acquire(&mut world, kind, 1), 0x006);
    assert_eq!(b.register(&mut world, 2), 0x006);
    assert_eq!((a.write(&mut world), b.write(&mut world)), (0, 0));
    let report = b.report(&mut world);
    assert_eq!((report.generation, report.kind), (1, 0));
    assert_eq!(report.registrants, [([1; 16], 1, false)]);
    fs::rename(&away, &inside).expect("moved");
    assert_eq!(content(&file), before);
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    assert_eq!(b.write(&mut world), CONFLICT);
    assert_eq!(content(&file)["rtype"], 2);
}

#[test]
fn files_that_will_not_do_are_named_with_the_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("r.json");
    let told = |device| match try_world(&file, device) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    };
    let good = json!({
        "ptpl": true, "rtype": 5, "crkey": 1,
        "bdev_uuid": "00000000-0000-0000-0000-000000000007", "holder_uuid": "",
        "registrants": [{"rkey": 1, "host_uuid": "02020202-0202-0202-0202-020202020202"}],
    });
    fs::write(&file, good.to_string()).expect("written");
    let error = told(8);
    assert!(
        error.contains("r.json") && error.contains("name the file of this device"),
        "{error}"
    );
    for (key, value) in [
        ("rtype", json!(7)),
        ("rtype", json!(1)),
        ("rtype", json!("1")),
        ("registrants", json!([])),
        ("registrants", json!([{"rkey": 1, "host_uuid": "x"}])),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        fs::write(&file, bad.to_string()).expect("written");
        let error = told(7);
        assert!(
            error.contains("r.json is damaged") && error.contains("put back"),
            "{error}"
        );
    }
    fs::write(&file, &good.to_string()[..50]).expect("written");
    assert!(told(7).contains("damaged"));
    fs::remove_file(&file).expect("there");
    fs::create_dir(&file).expect("new");
    assert!(told(7).contains("cannot be read"));
    fs::remove_dir(&file).expect("there");
    // The device is free again after each of these, and an empty file is none.
    fs::write(&file, "").expect("written");
    let mut world = world(&file);
    let options = NamespaceOptions {
        bdev_name: "Malloc0".into(),
        ptpl_file: Some(file.clone()),
        ..NamespaceOptions::default()
    };
    let twice = world
        .target
        .add_namespace(&mut world.registry, NQN, options);
    let error = twice.expect_err("the same file twice").to_string();
    assert!(
        error.contains("namespace 1 of") && error.contains("its own"),
        "{error}"
    );
}

#[test]
fn spdks_file_is_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("r.json");
    let spdks = r#"{"ptpl": true, "rtype": 6, "crkey": 161, "bdev_uuid": "00000000-0000-0000-0000-000000000007",
        "holder_uuid": "", "registrants": [
        {"rkey": 161, "host_uuid": "01010101-0101-0101-0101-010101010101"},
        {"rkey": 178, "host_uuid": "02020202-0202-0202-0202-020202020202"}]}"#;
    fs::write(&file, spdks).expect("written");
    let mut world = world(&file);
    let mut a = Party::new(&mut world, 1);
    let mut b = Party::new(&mut world, 2);
    let mut c = Party::new(&mut world, 3);
    assert_eq!((a.write(&mut world), b.write(&mut world)), (0, 0));
    assert_eq!(
        (c.read(&mut world), c.write(&mut world)),
        (CONFLICT, CONFLICT)
    );
    let report = c.report(&mut world);
    assert_eq!(
        report.registrants,
        [([1; 16], 161, true), ([2; 16], 178, true)]
    );
}
