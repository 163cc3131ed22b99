//! The array that we would start is the one that Linux started, from all members and from all but
//! one.

use std::collections::BTreeMap;

use serde_json::Value;
use stripewise::md::{Assembly, AssemblyError, Found, Member, Standing, assemble};

use super::golden::{Golden, number};

/// What is found on the members that Linux was given in a look.
fn found(golden: &Golden, look: &str) -> Vec<Found> {
    let without = look.strip_prefix("without-").map(|n| number(n) as usize);
    let given = golden.images.iter().enumerate();
    let given = given.filter(|&(index, _)| Some(index) != without);
    given
        .map(|(index, image)| Found {
            name: format!("loop{index}"),
            member: Member::read(&mut image.clone()).expect("a member"),
        })
        .collect()
}

/// A look of Linux at an array, and what we make of the same members.
struct Look {
    name: String,
    linux: &'static Value,
    found: Vec<Found>,
    ours: Result<Assembly, AssemblyError>,
}

/// Every look at every array.
fn looks() -> Vec<Look> {
    let mut looks = Vec::new();
    for golden in Golden::ours() {
        for (look, linux) in golden.record["assembled"].as_object().expect("looks") {
            let found = found(golden, look);
            let uuid = found[0].member.superblock.set_uuid;
            looks.push(Look {
                name: format!("{} {look}", golden.name),
                linux,
                ours: assemble(uuid, &found, look == "forced"),
                found,
            });
        }
    }
    assert!(looks.len() > 100);
    looks
}

/// Members by slot, each with whether it is in sync; and the spares.
type Table = (BTreeMap<usize, (String, bool)>, Vec<String>);

fn our_table(found: &[Found], assembly: &Assembly) -> Table {
    let slots = assembly.slots.iter().enumerate();
    let seated = slots.filter_map(|(slot, seat)| {
        let seat = seat.as_ref()?;
        let in_sync = seat.standing == Standing::InSync;
        Some((slot, (found[seat.found].name.clone(), in_sync)))
    });
    let spares = assembly
        .spares
        .iter()
        .map(|&spare| found[spare].name.clone());
    (seated.collect(), spares.collect())
}

fn their_table(look: &Value) -> Table {
    let (mut slots, mut spares) = (BTreeMap::new(), Vec::new());
    for row in look["detail"]["Devices"].as_array().expect("a table") {
        let word = |key: &str| row[key].as_str().expect("a text");
        let device = word("Device").to_owned();
        let in_sync = match word("State") {
            "spare" => {
                spares.push(device);
                continue;
            }
            "spare rebuilding" => false,
            state if state.starts_with("active sync") => true,
            other => panic!("state {other:?}"),
        };
        let slot = number(word("RaidDevice")) as usize;
        // Beside the member that is being replaced comes its replacement.
        slots.entry(slot).or_insert((device, in_sync));
    }
    (slots, spares)
}

#[test]
fn what_linux_starts_we_start() {
    for Look {
        name, linux, ours, ..
    } in looks()
    {
        let started = linux["status"] == 0;
        match ours {
            Ok(_) => assert!(started, "{name}: Linux said {}", linux["message"]),
            Err(error) => assert!(!started, "{name}: Linux starts it, we say {error}"),
        }
    }
}

#[test]
fn what_linux_refuses_we_refuse_for_the_same_reason() {
    let mut refused = 0;
    for Look {
        name, linux, ours, ..
    } in looks()
    {
        let Err(error) = ours else { continue };
        let message = linux["message"].to_string();
        let unclean = message.contains("while not clean");
        let same = match error {
            AssemblyError::DirtyDegraded { .. } => unclean,
            AssemblyError::Missing { .. } => !unclean && message.contains("Not enough devices"),
            _ => false,
        };
        assert!(same, "{name}: Linux said {message}, we say {error}");
        refused += 1;
    }
    assert!(refused > 20, "only {refused} were refused");
}

#[test]
fn members_are_where_linux_has_them() {
    for Look {
        name,
        linux,
        found,
        ours,
    } in looks()
    {
        let Ok(assembly) = ours else { continue };
        let (mut theirs, spares) = their_table(linux);
        let (mut slots, our_spares) = our_table(&found, &assembly);
        match name.as_str() {
            // mdadm leaves it to its user to add a member again that was away; we do it at once
            // where the bitmap knows what it missed.
            "bitmap-degraded all" => {
                assert_eq!(
                    slots.remove(&2),
                    Some(("loop2".to_owned(), false)),
                    "{name}"
                );
            }
            // A replacement that was half made is not continued here.
            "replacing without-1" => {
                assert_eq!(
                    theirs.remove(&1),
                    Some(("loop3".to_owned(), false)),
                    "{name}"
                );
            }
            _ => {}
        }
        assert_eq!(slots, theirs, "{name}");
        assert_eq!(our_spares, spares, "{name}");
        let degraded = u64::from(assembly.degraded.is_some());
        assert_eq!(linux["degraded"], degraded, "{name}");
    }
}

#[test]
fn a_resync_is_due_where_linux_has_one_due() {
    for Look {
        name, linux, ours, ..
    } in looks()
    {
        let Ok(assembly) = ours else { continue };
        let due = assembly.dirty().then_some(assembly.resync_offset);
        let theirs = linux["resync_start"].as_u64();
        if name.starts_with("killed-ppl") {
            // Linux has read its logs by then; we have yet to.
            assert_eq!((due, theirs), (Some(0), None), "{name}");
        } else if name.ends_with("forced") {
            // mdadm calls it clean; we know better, and say so.
            assert_eq!(theirs, None, "{name}");
            assert!(assembly.doubtful, "{name}");
        } else {
            assert_eq!(due, theirs, "{name}");
        }
    }
}

#[test]
fn foreign_arrays_are_refused() {
    for golden in Golden::all().filter(|golden| golden.is_foreign()) {
        let members: Vec<_> = golden
            .images
            .iter()
            .map(|image| Member::read(&mut image.clone()))
            .collect();
        if golden.name == "metadata-0.90" {
            assert!(members.iter().all(Result::is_err), "it is another format");
            continue;
        }
        let found: Vec<Found> = members
            .into_iter()
            .map(|member| Found {
                name: golden.name.clone(),
                member: member.expect("a superblock"),
            })
            .collect();
        let uuid = found[0].member.superblock.set_uuid;
        let refused = assemble(uuid, &found, true);
        let Err(AssemblyError::Unsupported(reason)) = refused else {
            panic!("{}: {refused:?}", golden.name);
        };
        let words = match golden.name.as_str() {
            "raid6" => "RAID level 6",
            "raid4" => "RAID level 4",
            "raid1" => "RAID level 1",
            "journal" => "journal",
            "reshaping" => "reshape",
            other => panic!("{other} is new"),
        };
        assert!(
            reason.to_string().contains(words),
            "{}: {reason}",
            golden.name
        );
    }
}
