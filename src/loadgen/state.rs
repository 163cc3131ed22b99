//! The state file: what was acknowledged, kept for a later run.
//!
//! One header page, then one 8-byte record per logical block, at its own place: the file *is* the
//! model. A record is written before the write command that it announces is sent, and again when
//! that command is acknowledged, so that the file is right whenever this process dies, and a record
//! never straddles a page. It is not synced at each step: it outlives the process, not a loss of
//! power of the machine that runs it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use rustix::fs::{FlockOperation, flock};

use super::workload::Region;

const MAGIC: [u8; 16] = *b"stripewise-state";
const VERSION: u32 = 1;
/// Records begin here.
const HEADER: u64 = 4096;
/// Header bytes that the checksum covers.
const COVERED: usize = 64;
/// Records read or written at once.
const BATCH: usize = 8192;

/// What a state file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The volume id in every block's stamp; never 0.
    pub volume: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// The blocks it keeps records of.
    pub region: Region,
    /// Which namespace: its NGUID, or zeros where it has none.
    pub nguid: [u8; 16],
}

/// Why a state file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system said no.
    #[error("state file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("state file {0} is in use by another run; give each run a file of its own")]
    InUse(PathBuf),
    /// Not one of ours, or damaged.
    #[error(
        "{path} is not a state file of this program: {reason}; give another name, or remove it to begin anew"
    )]
    NotAState {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: &'static str,
    },
}

/// An open state file, locked against other runs.
#[derive(Debug)]
pub struct StateFile {
    file: File,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl StateFile {
    /// Makes a file of empty records. There must be none of that name.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::InUse`].
    pub fn create(path: &Path, subject: &Subject) -> Result<Self, StateError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let state = Self::locked(path, &options)?;
        let mut header = [0; COVERED + 4];
        header[..16].copy_from_slice(&MAGIC);
        header[16..20].copy_from_slice(&VERSION.to_le_bytes());
        header[20..24].copy_from_slice(&subject.block_size.to_le_bytes());
        header[24..32].copy_from_slice(&subject.volume.to_le_bytes());
        header[32..40].copy_from_slice(&subject.region.first.to_le_bytes());
        header[40..48].copy_from_slice(&subject.region.blocks.to_le_bytes());
        header[48..64].copy_from_slice(&subject.nguid);
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &header[..COVERED]) as u32;
        header[COVERED..].copy_from_slice(&crc.to_le_bytes());
        let size = HEADER + subject.region.blocks * 8;
        let made = state.file.set_len(size);
        made.and_then(|()| state.file.write_all_at(&header, 0))
            .map_err(|source| state.io(source))?;
        Ok(state)
    }

    /// Opens an existing file and says what it is about.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Io`] with [`io::ErrorKind::NotFound`] where there is none.
    pub fn open(path: &Path) -> Result<(Self, Subject), StateError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let state = Self::locked(path, &options)?;
        let not_a_state = |reason| StateError::NotAState {
            path: path.to_owned(),
            reason,
        };
        let size = state.file.metadata().map_err(|e| state.io(e))?.len();
        if size < HEADER {
            return Err(not_a_state("it is too short"));
        }
        let mut header = [0; COVERED + 4];
        let read = state.file.read_exact_at(&mut header, 0);
        read.map_err(|e| state.io(e))?;
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4"));
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8"));
        if header[..16] != MAGIC {
            return Err(not_a_state("it does not begin like one"));
        }
        if checksum(CrcAlgorithm::Crc32Iscsi, &header[..COVERED]) as u32 != u32_at(COVERED) {
            return Err(not_a_state("its header is damaged"));
        }
        if u32_at(16) != VERSION {
            return Err(not_a_state("another version wrote it"));
        }
        let subject = Subject {
            volume: u64_at(24),
            block_size: u32_at(20),
            region: Region {
                first: u64_at(32),
                blocks: u64_at(40),
            },
            nguid: header[48..64].try_into().expect("16 bytes"),
        };
        let records = subject.region.blocks.checked_mul(8);
        if records.and_then(|bytes| bytes.checked_add(HEADER)) != Some(size) {
            return Err(not_a_state("it has not as many records as its header says"));
        }
        Ok((state, subject))
    }

    /// Reads all records, one 64-bit number each, into `records`, which must be zeros. Empty parts
    /// are not touched, so that a sparse file costs no memory.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn load(&mut self, records: &mut [u64]) -> Result<(), StateError> {
        let mut bytes = vec![0; BATCH * 8];
        for (batch, offset) in records.chunks_mut(BATCH).zip((HEADER..).step_by(BATCH * 8)) {
            let bytes = &mut bytes[..batch.len() * 8];
            let read = self.file.read_exact_at(bytes, offset);
            read.map_err(|e| self.io(e))?;
            if bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            for (record, bytes) in batch.iter_mut().zip(bytes.chunks_exact(8)) {
                *record = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
            }
        }
        Ok(())
    }

    /// Writes the records of neighbouring blocks, the first of them being number `index`.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn store(&mut self, index: u64, records: &[u64]) -> Result<(), StateError> {
        self.bytes.clear();
        self.bytes
            .extend(records.iter().flat_map(|r| r.to_le_bytes()));
        let written = self.file.write_all_at(&self.bytes, HEADER + index * 8);
        written.map_err(|e| self.io(e))
    }

    /// Makes everything stored so far survive a loss of power.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn sync(&self) -> Result<(), StateError> {
        self.file.sync_all().map_err(|e| self.io(e))
    }

    fn locked(path: &Path, options: &OpenOptions) -> Result<Self, StateError> {
        let io = |source| StateError::Io {
            path: path.to_owned(),
            source,
        };
        let file = options.open(path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                file,
                path: path.to_owned(),
                bytes: Vec::new(),
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(path.to_owned())),
            Err(errno) => Err(io(errno.into())),
        }
    }

    fn io(&self, source: io::Error) -> StateError {
        StateError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject = Subject {
        volume: 0x1234_5678_9abc_def0,
        block_size: 4096,
        region: Region {
            first: 64,
            blocks: 20_000,
        },
        nguid: [7; 16],
    };

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        (dir, path)
    }

    #[test]
    fn records_come_back_from_a_file_that_was_never_closed_properly() {
        let (_dir, path) = place();
        let mut state = StateFile::create(&path, &SUBJECT).unwrap();
        state.store(0, &[1]).unwrap();
        state.store(8190, &[5, 6, 7, 8]).unwrap();
        state.store(19_999, &[u64::MAX]).unwrap();
        drop(state);
        let (mut state, subject) = StateFile::open(&path).unwrap();
        assert_eq!(subject, SUBJECT);
        let mut records = vec![0; 20_000];
        state.load(&mut records).unwrap();
        let set: Vec<(usize, u64)> = records
            .into_iter()
            .enumerate()
            .filter(|&(_, r)| r != 0)
            .collect();
        assert_eq!(
            set,
            [
                (0, 1),
                (8190, 5),
                (8191, 6),
                (8192, 7),
                (8193, 8),
                (19_999, u64::MAX)
            ]
        );
    }

    #[test]
    fn one_run_at_a_time() {
        let (_dir, path) = place();
        let first = StateFile::create(&path, &SUBJECT).unwrap();
        assert!(matches!(StateFile::open(&path), Err(StateError::InUse(_))));
        drop(first);
        assert!(StateFile::open(&path).is_ok());
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_dir, path) = place();
        std::fs::write(&path, "precious").unwrap();
        assert!(StateFile::create(&path, &SUBJECT).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn strangers_and_damage_are_told() {
        let (_dir, path) = place();
        let reason = |path: &Path| match StateFile::open(path) {
            Err(StateError::NotAState { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        std::fs::write(&path, "short").unwrap();
        assert_eq!(reason(&path), "it is too short");
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert_eq!(reason(&path), "it does not begin like one");
        std::fs::remove_file(&path).unwrap();
        drop(StateFile::create(&path, &SUBJECT).unwrap());
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[30] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(reason(&path), "its header is damaged");
        std::fs::write(&path, &good[..good.len() - 8]).unwrap();
        assert_eq!(
            reason(&path),
            "it has not as many records as its header says"
        );
    }
}
