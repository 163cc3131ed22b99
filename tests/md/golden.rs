//! The golden images: arrays that mdadm and the kernel made, and what Linux said of them.
//!
//! `scripts/guest/md-golden` makes them; see there for what the files hold.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use tar::Archive;

/// One array.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Its name, which is also that of its files.
    pub name: String,
    /// What Linux said of it.
    pub record: Value,
    /// What is on its members, by number.
    pub images: Vec<Vec<u8>>,
}

static ALL: LazyLock<Vec<Golden>> = LazyLock::new(|| {
    let entries = fs::read_dir(folder()).expect("the folder of golden images");
    let mut names: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    names.sort();
    assert!(names.len() > 30, "the golden images are there");
    names.iter().map(|path| Golden::load(path)).collect()
});

impl Golden {
    /// Every array.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ALL.iter()
    }

    /// Every array that is not foreign.
    pub fn ours() -> impl Iterator<Item = &'static Self> {
        Self::all().filter(|golden| !golden.is_foreign())
    }

    /// The array of this name.
    pub fn named(name: &str) -> &'static Self {
        let named = Self::all().find(|golden| golden.name == name);
        named.unwrap_or_else(|| panic!("there is a golden array {name}"))
    }

    fn load(path: &Path) -> Self {
        let name = path.file_name().and_then(|n| n.to_str());
        let name = name.and_then(|n| n.strip_suffix(".json")).expect("a name");
        let record = fs::read_to_string(path).expect("a record");
        let archive = folder().join(format!("{name}.tar.gz"));
        Self {
            name: name.to_owned(),
            record: serde_json::from_str(&record).expect("a record is JSON"),
            images: unpack(&archive),
        }
    }

    /// Whether it is something that Stripewise does not take.
    pub fn is_foreign(&self) -> bool {
        !self.record["foreign"].is_null()
    }

    /// A record of one member, as an object.
    pub fn member(&self, number: usize, record: &str) -> Option<&Map<String, Value>> {
        self.record["members"][number.to_string()][record].as_object()
    }

    /// A line of `mdadm --examine` of one member, by what stands before the colon.
    pub fn examined(&self, number: usize, key: &str) -> Option<&str> {
        self.member(number, "examine")?.get(key)?.as_str()
    }

    /// Like [`examined`](Self::examined), of a line that all members have.
    ///
    /// # Panics
    /// Where this one does not.
    pub fn said(&self, number: usize, key: &str) -> &str {
        let said = self.examined(number, key);
        said.unwrap_or_else(|| panic!("{}: mdadm says the {key} of member {number}", self.name))
    }
}

/// Where the files are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/md/golden")
}

/// The members in an archive, in their order.
fn unpack(path: &Path) -> Vec<Vec<u8>> {
    let file = File::open(path).expect("an archive of images");
    let mut archive = Archive::new(GzDecoder::new(file));
    let mut images: Vec<(usize, Vec<u8>)> = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let number = path.strip_prefix(".").ok().and_then(|p| p.to_str());
        let number = number.and_then(|p| p.strip_prefix('m')?.parse().ok());
        if let Some(number) = number {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("an image");
            images.push((number, bytes));
        }
    }
    images.sort();
    images.into_iter().map(|(_, bytes)| bytes).collect()
}

/// The number at the start of a text: of "2048 sectors" it is 2048.
pub fn number(text: &str) -> i64 {
    let digits = text.split_whitespace().next().unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} begins with a number"))
}
