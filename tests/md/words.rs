//! Our words for what is on a member are mdadm's, line by line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use stripewise::md::Member;

use super::golden::Golden;

/// The lines of a text by what stands before the colon.
fn lines(text: &str) -> BTreeMap<&str, &str> {
    let pairs = text.lines().filter_map(|line| line.split_once(" : "));
    pairs
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect()
}

/// Compares our lines with a record of mdadm's; how many there are.
fn compare(what: &str, ours: &str, theirs: &Map<String, Value>) -> usize {
    let ours = lines(ours);
    for (key, value) in theirs {
        let value = value.as_str().expect("a text");
        let said = ours.get(key.as_str()).copied();
        // Which file was looked at is not the same.
        if key != "Filename" {
            assert_eq!(said, Some(value.trim()), "{what}, {key}");
        }
    }
    let keys = ours.keys().filter(|key| !theirs.contains_key(**key));
    assert_eq!(keys.collect::<Vec<_>>(), Vec::<&&str>::new(), "{what}");
    theirs.len()
}

#[test]
fn members_are_described_in_mdadms_words() {
    let (mut members, mut bitmaps) = (0, 0);
    for golden in Golden::ours() {
        for (number, image) in golden.images.iter().enumerate() {
            let Ok(member) = Member::read(&mut image.clone()) else {
                continue;
            };
            let what = format!("{}, member {number}", golden.name);
            let theirs = golden.member(number, "examine").expect("a record");
            members += compare(&what, &member.examine("device"), theirs).min(1);
            if let Some(theirs) = golden.member(number, "bitmap") {
                let ours = member.examine_bitmap("device").expect("a bitmap");
                bitmaps += compare(&what, &ours, theirs).min(1);
            }
        }
    }
    assert!(
        members > 60 && bitmaps > 10,
        "{members} members, {bitmaps} bitmaps"
    );
}
