//! Devices as they are named on the command line: a bdev, or a file that becomes one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::MdError;
use crate::cli::client::Client;
use crate::control::MISSING;

/// The name of a device for the serving process. A word with a slash in it is the path of a file or
/// block device; it becomes a bdev if it is none yet.
///
/// # Errors
/// [`MdError`].
pub fn named(client: &Client, word: &str) -> Result<String, MdError> {
    if !word.contains('/') || word == MISSING {
        return Ok(word.to_owned());
    }
    let path = fs::canonicalize(word).map_err(|source| MdError::Open {
        path: word.into(),
        source,
    })?;
    let all = client.call("bdev_get_bdevs", None)?;
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    if let Some(bdev) = all.iter().find(|bdev| is_of(bdev, &path)) {
        return Ok(text(&bdev["name"]));
    }
    let name = free_name(&path, all);
    let params = json!({"name": name, "filename": path});
    client.call("bdev_uring_create", Some(params))?;
    Ok(name)
}

/// The names of several devices.
///
/// # Errors
/// As [`named`].
pub fn all_named(client: &Client, words: &[String]) -> Result<Vec<String>, MdError> {
    words.iter().map(|word| named(client, word)).collect()
}

/// Whether a bdev is made of this file.
fn is_of(bdev: &Value, path: &Path) -> bool {
    let file = bdev["driver_specific"]["uring"]["filename"].as_str();
    let file = file.map(PathBuf::from);
    file.is_some_and(|file| fs::canonicalize(&file).unwrap_or(file) == path)
}

/// The file's own name, with a number behind it if something else has it.
fn free_name(path: &Path, all: &[Value]) -> String {
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let numbered = (1u64..).map(|n| format!("{own}_{n}"));
    let mut names = std::iter::once(own.clone().into_owned()).chain(numbered);
    let is_free = |name: &String| all.iter().all(|bdev| bdev["name"] != name.as_str());
    names
        .find(is_free)
        .expect("there are fewer devices than numbers")
}

/// A value as text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_name_unless_that_is_taken() {
        let path = Path::new("/disks/sda");
        assert_eq!(free_name(path, &[]), "sda");
        let all = [json!({"name": "sda"}), json!({"name": "sda_1"})];
        assert_eq!(free_name(path, &all), "sda_2");
    }

    #[test]
    fn a_bdev_is_known_by_its_file_whatever_way_leads_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("disk");
        fs::write(&file, "").unwrap();
        let bdev = |path: &Path| json!({"driver_specific": {"uring": {"filename": path}}});
        let around = dir.path().join("./disk");
        assert!(is_of(&bdev(&around), &file));
        assert!(!is_of(&bdev(&dir.path().join("other")), &file));
        assert!(!is_of(&json!({"driver_specific": {}}), &file));
    }
}
