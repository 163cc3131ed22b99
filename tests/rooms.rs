//! Dependencies between the rooms of `src` point down only: a room may name those below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top. A room may use every room of an earlier line.
const FLOORS: [&[&str]; 11] = [
    &["memory", "xor", "nvme", "md"],
    &["reactor", "initiator"],
    &["bdev"],
    &["raid"],
    &["nvmf"],
    &["loadgen"],
    &["bench"],
    &["control"],
    &["rpc"],
    &["serve"],
    &["cli"],
];

/// Rooms that must have no unsafe code.
const SAFE: [&str; 12] = [
    "bench",
    "cli",
    "control",
    "initiator",
    "loadgen",
    "md",
    "nvme",
    "nvmf",
    "raid",
    "reactor",
    "rpc",
    "serve",
];

fn sources(room: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(room).expect("a room is a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The rooms that a line of code names, by `crate::room`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).flat_map(|rest| {
        let group = rest.strip_prefix('{').and_then(|r| r.split('}').next());
        let paths: Vec<&str> = match group {
            Some(group) => group.split(',').collect(),
            None => vec![rest],
        };
        paths.into_iter().map(|path| {
            let end = path
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ' ')
                .unwrap_or(path.len());
            path[..end].trim()
        })
    })
}

#[test]
fn dependencies_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all: BTreeSet<&str> = FLOORS.iter().flat_map(|f| f.iter().copied()).collect();
    let mut wrong = Vec::new();
    for (floor, rooms) in FLOORS.iter().enumerate() {
        for room in *rooms {
            for file in sources(&src.join(room)) {
                let text = fs::read_to_string(&file).expect("readable");
                for (number, line) in text.lines().enumerate() {
                    if line.trim_start().starts_with("//") {
                        continue;
                    }
                    for other in named(line).filter(|o| all.contains(o) && o != room) {
                        let below = FLOORS[..floor].iter().any(|f| f.contains(&other));
                        if !below {
                            wrong.push(format!(
                                "{}:{}: {room} uses {other}",
                                file.display(),
                                number + 1
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).expect("src") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("a plain name");
        let known = FLOORS.iter().any(|f| f.contains(&name.as_str()));
        assert!(
            !entry.path().is_dir() || known,
            "src/{name} is on no floor: add it to FLOORS"
        );
    }
}

#[test]
fn rooms_without_unsafe_forbid_it() {
    for room in SAFE {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{room}/mod.rs"));
        let text = fs::read_to_string(&file).expect("a room has a mod.rs");
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{} does not forbid unsafe",
            file.display()
        );
    }
}

#[test]
fn names_are_found_in_every_form_of_use() {
    let named = |line| named(line).collect::<Vec<_>>();
    assert_eq!(named("use crate::memory::Buf;"), ["memory"]);
    assert_eq!(named("use crate::{bdev::Op, raid};"), ["bdev", "raid"]);
    assert_eq!(
        named("let x = crate::nvmf::f(crate::raid::g());"),
        ["nvmf", "raid"]
    );
    assert!(named("use std::fs;").is_empty());
}
