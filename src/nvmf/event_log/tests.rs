//! The file, the ring and the reporting context.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::context::Context;
use super::file::{self, Content, Flaw};
use super::log::{EventLog, EventLogOptions};
use super::{Lifetime, Owner, Page, Snapshot, trial};
use crate::nvme::log_page::{PersistentLogAction, power_on_event, vendor_event};
use crate::nvme::{Nqn, Status};

fn nqn() -> Nqn {
    Nqn::new("nqn.2026-11.io.example:a").expect("a name")
}

/// A file as `docs/on-disk-format.md` has it, with checksums of a bitwise CRC-32C that is not ours: three
/// starts, 90061.001 s, and one power-on event.
fn by_hand() -> Vec<u8> {
    let mut bytes = b"SWEVLOG1".to_vec();
    bytes.extend(3u64.to_le_bytes());
    bytes.extend(90_061_001u64.to_le_bytes());
    bytes.extend(b"nqn.2026-11.io.example:a");
    bytes.resize(280, 0);
    bytes.extend(0x7e06_2e6eu32.to_le_bytes());
    bytes.extend(0x4612_6c55u32.to_le_bytes());
    bytes.extend([32, 0]);
    bytes.extend([
        4, 1, 21, 3, 0xff, 0xff, 0x12, 0xf0, 0xde, 0xbc, 0x9a, 1, 0, 0,
    ]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
    bytes.extend(b"0.1.0   ");
    bytes
}

fn written() -> Content {
    Content {
        cycles: 3,
        served: Duration::from_millis(90_061_001),
        events: [power_on_event(0x019a_bcde_f012, "0.1.0")].into(),
    }
}

#[test]
fn a_file_is_laid_out_as_documented() {
    assert_eq!(file::encode(&nqn(), &written()), by_hand());
    assert_eq!(file::decode(&by_hand(), &nqn()), Ok((written(), false)));
}

#[test]
fn a_torn_last_record_is_left_out_and_any_other_damage_is_told() {
    let mut content = written();
    let whole = by_hand();
    for words in ["one", "two"] {
        content.events.push_back(vendor_event(1, 1, words));
    }
    let bytes = file::encode(&nqn(), &content);
    let last = bytes.len() - 6 - content.events[2].len();
    content.events.pop_back();
    // Cut anywhere in the last record, filled with zeros from anywhere in it, or changed in it.
    for at in last + 1..bytes.len() {
        let cut = file::decode(&bytes[..at], &nqn());
        assert_eq!(cut, Ok((content.clone(), true)), "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        // A shorter length makes a record in front of more.
        if !(last + 4..last + 6).contains(&at) {
            let changed = file::decode(&changed, &nqn());
            assert_eq!(changed, Ok((content.clone(), true)), "changed at {at}");
        }
    }
    let mut zeros = bytes[..last].to_vec();
    zeros.resize(4096, 0);
    assert_eq!(file::decode(&zeros, &nqn()), Ok((content, true)));
    // Damage before that is told; only a length can hide what is behind it.
    let lengths = [288, 289, whole.len() + 4, whole.len() + 5];
    for at in 0..last {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        if let Ok((_, torn)) = file::decode(&changed, &nqn()) {
            assert!(torn && lengths.contains(&at), "changed at {at}");
        }
    }
    let damaged = |at: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[at] = value;
        file::decode(&changed, &nqn()).expect_err("damage")
    };
    assert_eq!(damaged(0, b'X'), Flaw::Foreign);
    assert_eq!(damaged(9, 1), Flaw::Damaged("its first bytes".into()));
    assert_eq!(
        damaged(300, 1),
        Flaw::Damaged("the record at byte 284".into())
    );
    // The checksum of what is no event may be right, and hosts must not get it.
    let mut no_event = written();
    no_event.events[0][22] += 1;
    let no_event = file::decode(&file::encode(&nqn(), &no_event), &nqn());
    let flaw = Flaw::Damaged("the record at byte 284".into());
    assert_eq!(no_event, Err(flaw));
}

#[test]
fn files_that_will_not_do_are_named_with_the_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events");
    let told = |bytes: &[u8], nqn: &Nqn| {
        fs::write(&path, bytes).expect("written");
        file::read(&path, nqn).expect_err("a flaw")
    };
    let other = Nqn::new("nqn.2026-11.io.example:b").expect("a name");
    let error = told(&by_hand(), &other);
    let both = error.contains("io.example:a") && error.contains("io.example:b");
    assert!(
        both && error.contains("name the file of this subsystem"),
        "{error}"
    );
    let error = told(b"root:x:0:0:root:/root:/bin/sh\n", &nqn());
    assert!(error.contains("events is not an event log"), "{error}");
    let mut damaged = by_hand();
    damaged[100] ^= 1;
    let error = told(&damaged, &nqn());
    assert!(
        error.contains("is damaged") && error.contains("put back"),
        "{error}"
    );
    assert!(told(&vec![0; 5 << 20], &nqn()).contains("is not an event log"));
    fs::write(&path, "").expect("written");
    assert_eq!(file::read(&path, &nqn()), Ok(Content::default()));
    let nowhere = folder.path().join("nowhere");
    assert_eq!(file::read(&nowhere, &nqn()), Ok(Content::default()));
    let error = file::read(folder.path(), &nqn()).expect_err("a folder");
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn the_oldest_events_go_and_the_rest_outlives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = EventLogOptions {
        file: folder.path().join("events"),
        size_kib: 64,
    };
    let start = Instant::now();
    let open = || EventLog::open(options.clone(), nqn(), start).expect("a log");
    let mut log = open();
    assert_eq!(log.lifetime().cycles, 1);
    // 24 bytes of header, 6 of descriptor and 70 of text: 655 of them leave the 65024 bytes behind the
    // header of the page no room.
    let words = |n: u32| format!("{n:070}");
    for n in 0..1000 {
        log.note(vendor_event(n.into(), 1, &words(n)));
    }
    let image = log.image(start + Duration::from_secs(5400));
    assert_eq!((image.snapshot.count, image.snapshot.size), (650, 1));
    assert_eq!(image.snapshot.events.len(), 65_000);
    assert_eq!(
        image.snapshot.events[..100],
        vendor_event(350, 1, &words(350))
    );
    image.write().expect("written");
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    let mut log = open();
    assert_eq!(log.lifetime().cycles, 2);
    assert_eq!(log.lifetime().served, Duration::from_secs(5400));
    let later = start + Duration::from_secs(1800);
    assert_eq!(log.lifetime().hours(later), 2);
    assert_eq!(log.image(start).snapshot.events, image.snapshot.events);
    log.note(vendor_event(1, 1, "last"));
    let now = log.image(start).snapshot;
    assert_eq!(now.count, 650);
    assert_eq!(now.events[..100], vendor_event(351, 1, &words(351)));
    assert!(now.events.ends_with(&vendor_event(1, 1, "last")));
    // What cannot be written is named.
    fs::create_dir(folder.path().join("events.new")).expect("new");
    let error = image.write().expect_err("a folder is in the way");
    assert!(error.contains("events cannot be written"), "{error}");
}

#[test]
fn a_context_is_established_before_it_is_read() {
    use PersistentLogAction::{EstablishAndRead, EstablishAndReadHeader, Read, Release};
    let mut context = Context::default();
    let (log, nqn, now) = (snapshot(2), nqn(), Instant::now());
    let owner = Owner {
        nqn: &nqn,
        serial: "",
        model: "",
    };
    let page = |number: u16| Page::new(&log, &owner, number, 0, now);
    let out_of_order = Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
    assert_eq!(context.act(Read, page), out_of_order);
    assert_eq!(context.act(Release, page), Ok(None));
    assert_eq!(context.act(EstablishAndRead, page), Ok(Some(&page(1))));
    // It stays as it was.
    assert_eq!(context.act(Read, |_| page(9)), Ok(Some(&page(1))));
    assert_eq!(context.act(EstablishAndRead, page), out_of_order);
    assert_eq!(context.act(Read, page), Ok(Some(&page(1))));
    let optional = context.act(EstablishAndReadHeader, page);
    assert_eq!(optional, Err(Status::INVALID_FIELD.with_do_not_retry()));
    assert_eq!(context.act(Release, page), Ok(None));
    assert_eq!(context.act(Read, page), out_of_order);
    assert_eq!(context.act(EstablishAndRead, page), Ok(Some(&page(2))));
    context.reset();
    assert_eq!(context.act(Read, page), out_of_order);
    assert_eq!(context.act(EstablishAndRead, page), Ok(Some(&page(3))));
}

/// A snapshot of as many bytes of events.
fn snapshot(bytes: usize) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        count: 1,
        events: (0..bytes).map(|n| n as u8).collect(),
        size: 1,
        lifetime: Lifetime {
            cycles: 1,
            served: Duration::ZERO,
            at: Instant::now(),
        },
    })
}

#[test]
fn any_portion_is_that_of_the_whole_page() {
    let (log, nqn) = (snapshot(40), nqn());
    let owner = Owner {
        nqn: &nqn,
        serial: "S",
        model: "M",
    };
    let page = Page::new(&log, &owner, 1, 2, Instant::now());
    let whole = page.portion(0, 1 << 34).expect("all of it");
    assert_eq!((whole.len(), &whole[512..]), (552, &log.events[..]));
    for offset in 0..=552 {
        for len in [0, 1, 4, 40, 511, 512, 513, 552, 600] {
            let end = (offset + len).min(552);
            let portion = page.portion(offset as u64, len as u64);
            assert_eq!(
                portion.as_deref(),
                Some(&whole[offset..end]),
                "{offset} {len}"
            );
        }
    }
    assert_eq!(page.portion(553, 4), None);
    assert_eq!(page.portion(u64::MAX, 4), None);
}

proptest! {
    /// Whatever a file holds.
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        trial(&bytes);
        let mut behind = by_hand();
        behind.extend(&bytes);
        trial(&behind);
    }

    /// Whatever is changed in a file, events come back as they were or not at all.
    #[test]
    fn no_other_event_comes_back(
        words in prop::collection::vec("[a-z]{0,20}", 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len in any::<prop::sample::Index>(),
    ) {
        let mut content = written();
        content.events.extend(words.iter().map(|w| vendor_event(7, 1, w)));
        let mut bytes = file::encode(&nqn(), &content);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        bytes.truncate(len.index(bytes.len()) + 1);
        trial(&bytes);
        if let Ok((read, _)) = file::decode(&bytes, &nqn()) {
            prop_assert_eq!((read.cycles, read.served), (content.cycles, content.served));
            let kept: Vec<_> = read.events.iter().zip(&content.events).collect();
            prop_assert!(kept.len() == read.events.len() && kept.iter().all(|(a, b)| a == b));
        }
    }
}
