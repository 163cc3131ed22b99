//! `stripewise md` against a target, and without one.

use serde_json::{Value, json};

use super::plan::config;
use super::process::Site;

/// Runs `stripewise md` and gives what it wrote, which must be well.
fn md(site: &Site, words: &str) -> String {
    let (code, out, err) = ran(site, words);
    assert_eq!(code, Some(0), "md {words}: {err}");
    out
}

/// Runs `stripewise md`, which must be refused, and gives what it said.
fn refused(site: &Site, words: &str) -> String {
    let (code, out, err) = ran(site, words);
    assert_eq!(code, Some(1), "md {words}: {out}");
    assert!(!err.contains("panicked"), "md {words}: {err}");
    err
}

/// The words may speak of files of the site as @NAME.
fn ran(site: &Site, words: &str) -> (Option<i32>, String, String) {
    let socket = site.socket();
    let socket = socket.to_str().expect("a path");
    let mut arguments = vec!["md".to_owned()];
    for word in words.split_whitespace() {
        arguments.push(match word.strip_prefix('@') {
            Some(name) => site.file(name).to_str().expect("a path").to_owned(),
            None => word.to_owned(),
        });
    }
    if !words.starts_with("examine") && !words.starts_with("zero") {
        arguments.extend(["-s".to_owned(), socket.to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = super::config::run(site, &arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn files(site: &Site, names: &[&str]) {
    for name in names {
        let file = std::fs::File::create(site.file(name)).expect("a file");
        file.set_len(16 << 20).expect("room");
    }
}

/// The lines all are there, spaces at the start not counted.
fn says(said: &str, lines: &[&str]) {
    for line in lines {
        let found = said.lines().any(|l| l.trim_start().starts_with(line));
        assert!(found, "no {line:?} in:\n{said}");
    }
}

#[test]
fn an_array_lives_its_life_in_mdadms_words() {
    let site = Site::new();
    files(&site, &["a", "b", "c", "d", "s", "t"]);
    let mut target = site.serve(&config(Vec::new()), "0x1");
    let said = md(
        &site,
        "create vol @a @b @c @s -n 3 -x 1 -c 64K --bitmap-chunk 64K -p la",
    );
    says(
        &said,
        &[
            "vol:",
            "Raid Level : raid5",
            "Raid Devices : 3",
            "Spare Devices : 1",
            "Layout : left-asymmetric",
            "Chunk Size : 64K",
            "Consistency Policy : bitmap, 64K a bit",
            "0   active       a",
            "-   spare        s",
        ],
    );
    says(&md(&site, "detail vol --wait"), &["State : clean"]);
    says(&md(&site, "check vol --wait"), &["vol: parity matches"]);
    says(&md(&site, "repair vol --wait"), &["vol: parity matches"]);
    says(&md(&site, "add vol @t"), &["t is a spare"]);
    says(&md(&site, "remove vol t"), &["t is no spare any more"]);
    // The spare takes over by itself; what comes back is a spare then.
    says(&md(&site, "fail vol b"), &["b is out of vol"]);
    super::process::wait_for("the spare", || {
        let detail = md(&site, "detail vol --wait");
        detail.contains("1   active       s").then_some(())
    });
    says(&md(&site, "add vol b"), &["b is a spare"]);
    says(
        &md(&site, "replace vol c --with t"),
        &["t is made the same as c"],
    );
    says(&md(&site, "detail --wait"), &["2   active       t"]);
    says(&md(&site, "replace vol a"), &["b is made the same as a"]);
    says(&md(&site, "detail --wait"), &["0   active       b"]);
    says(&md(&site, "stop vol"), &["vol is stopped"]);
    says(
        &md(&site, "assemble vol"),
        &["State : clean", "0   active       b"],
    );
    let json: Value = serde_json::from_str(&md(&site, "detail vol --json")).expect("JSON");
    assert_eq!(json[0]["base_bdevs_list"][2]["name"], "t");
    let uuid = json[0]["uuid"].as_str().expect("a UUID").to_owned();
    target.signal(rustix::process::Signal::TERM);
    target.wait();

    // Nobody has to serve for this.
    let said = md(&site, "examine @b @s @t");
    says(
        &said,
        &[
            "Version : 1.2",
            "State : clean",
            "Device Role : Active device 2",
        ],
    );
    let all: Value = serde_json::from_str(&md(&site, "examine @b @s --json")).expect("JSON");
    let b = &all[site.file("b").to_str().expect("a path")];
    assert_eq!((&b["array_uuid"], &b["role"]), (&json!(uuid), &json!(0)));
    says(&md(&site, "examine -X @b"), &["Chunksize : 64 KB"]);

    // A target that knows nothing of it is shown the files.
    let target = site.serve(&config(Vec::new()), "0x1");
    let md_uuid = uuid.replace('-', "");
    let md_uuid = [0, 8, 16, 24].map(|at| &md_uuid[at..at + 8]).join(":");
    let said = md(&site, &format!("assemble -u {md_uuid} vol @t @s @b"));
    says(&said, &["State : clean", "1   active       s"]);
    // One that is in use is left alone.
    let said = refused(&site, "zero-superblock @b");
    assert!(said.contains("is in use"), "{said}");
    says(
        &md(&site, "stop vol --zero-superblock"),
        &["vol is stopped"],
    );
    let said = refused(&site, "examine @b");
    assert!(said.contains("no md superblock"), "{said}");
    drop(target);
    // What was lost on the way still says that it belonged to it.
    let said = md(&site, "zero-superblock @a @b");
    says(
        &said,
        &[&format!("{} belongs to no array", site.file("a").display())],
    );
    says(
        &said,
        &[&format!("{} had no superblock", site.file("b").display())],
    );
    assert!(refused(&site, "examine @a").contains("no md superblock"));
}

#[test]
fn what_makes_no_sense_is_told() {
    let site = Site::new();
    files(&site, &["a", "b", "c"]);
    let no_target = refused(&site, "detail");
    assert!(
        no_target.contains("is `stripewise serve` running"),
        "{no_target}"
    );
    let _target = site.serve(&config(Vec::new()), "0x1");
    for (words, parts) in [
        ("detail vol", &["no array vol", "md assemble"][..]),
        ("create vol @a @b @c -n 4", &["4 members", "3 are named"]),
        ("create vol @a @b", &["3 to 64"]),
        ("create vol @a @b @absent", &["absent", "No such file"]),
        ("create vol @a @b x", &["x does not exist"]),
        ("assemble vol", &["no device belongs"]),
        ("stop vol", &["vol not found"]),
        ("examine @a", &["no md superblock", "create an array"]),
        ("examine @absent", &["absent"]),
        ("check vol", &["vol not found"]),
    ] {
        let said = refused(&site, words);
        for part in parts {
            assert!(said.contains(part), "md {words}: no {part:?} in {said}");
        }
    }
    md(&site, "create vol @a @b @c --assume-clean");
    for (words, parts) in [
        ("fail vol x", &["x is no device of vol"][..]),
        ("remove vol a", &["slot 0", "md fail vol a"]),
        ("remove vol x", &["x is no device"]),
        ("replace vol a", &["no spare", "--with"]),
        ("create vol @a @b @c", &["vol already exists"]),
        ("check vol --stop", &["not being checked"]),
        ("assemble vol", &["started already"]),
    ] {
        let said = refused(&site, words);
        for part in parts {
            assert!(said.contains(part), "md {words}: no {part:?} in {said}");
        }
    }
}
