//! Targets that do whatever some bytes say: what property tests and fuzz targets (`fuzz/`) share.
//!
//! A trial reads its input as [`Choices`], plays a target with them against the real initiator, and
//! asserts what must hold whatever a target does. So any input is a fair one, and a finding of
//! the fuzzer is a test when it is kept.

mod choices;
mod session;

pub use choices::Choices;
pub use session::session;

/// The inputs in `fuzz/seeds` for a fuzz target: real structures, and what it has found.
///
/// # Panics
/// Where there are none.
#[cfg(test)]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let files = std::fs::read_dir(folder.join(target)).expect("a folder of seeds");
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file?.path());
    let seeds: Vec<Vec<u8>> = files.map(|file| read(file).expect("a seed")).collect();
    assert!(!seeds.is_empty(), "no seeds of {target}");
    seeds
}
