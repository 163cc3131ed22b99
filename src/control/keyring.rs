//! The keyring: secrets that were read from files, by name.
//!
//! A file is read once, when its key is added. Who wants another secret adds it under another name
//! and has hosts use that one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::nvme::dhchap::{Secret, SecretError};
use crate::nvmf::Key;

/// Largest key file in bytes; a key has at most 107.
const MAX_SIZE: u64 = 512;

/// Bits of a file's mode that let others in.
const OTHERS: u32 = 0o077;

/// Why a key cannot be had or not be given up. Names the file, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key needs a name.
    #[error("a key needs a name")]
    Nameless,
    /// A key itself was given, and is not to be told on. EINVAL.
    #[error(
        "a key itself was given where its name or the path of its file belongs; it goes into a file with mode 0600"
    )]
    Pasted,
    /// The name is taken. EEXIST.
    #[error("key {0} already exists; keyring_file_remove_key removes it, or choose another name")]
    Exists(String),
    /// There is no such key. ENOKEY.
    #[error("key {0} does not exist; keyring_get_keys lists those that do")]
    Missing(String),
    /// Hosts use it. EBUSY.
    #[error(
        "key {name} is used by {user}; give that host another key first (nvmf_subsystem_set_keys)"
    )]
    Used {
        /// The key.
        name: String,
        /// Who uses it.
        user: String,
    },
    /// The path depends on where the process runs. EPERM.
    #[error("key file {0}: the path must be absolute")]
    Relative(PathBuf),
    /// The file cannot be read. The errno of the operating system.
    #[error("key file {path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is no file of a fitting size. EINVAL.
    #[error("key file {0}: it must be a file of at most {MAX_SIZE} bytes with one key in it")]
    NoFile(PathBuf),
    /// Others may read it, or it belongs to somebody else. EPERM.
    #[error(
        "key file {path}: it has mode {mode:04o} and owner {owner}; only the user that this process runs as, {user}, may have access: chown {user} and chmod 0600"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        user: u32,
    },
    /// It holds no key. EINVAL.
    #[error("key file {path}: {source}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SecretError,
    },
}

impl KeyError {
    /// What SPDK's dialect answers.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Nameless | Self::Pasted | Self::NoFile(_) | Self::Secret { .. } => Errno::INVAL,
            Self::Exists(_) => Errno::EXIST,
            Self::Missing(_) => Errno::NOKEY,
            Self::Used { .. } => Errno::BUSY,
            Self::Relative(_) | Self::Open { .. } => Errno::PERM,
            Self::Unreadable { source, .. } => source
                .raw_os_error()
                .map_or(Errno::IO, Errno::from_raw_os_error),
        }
    }
}

/// A key and where it came from.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    key: Arc<Key>,
}

/// All keys, by name.
#[derive(Debug, Default)]
pub struct Keyring {
    entries: BTreeMap<String, Entry>,
}

impl Keyring {
    /// Reads a key from a file that nobody else may read.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn add(&mut self, name: &str, path: &Path) -> Result<(), KeyError> {
        if name.is_empty() {
            return Err(KeyError::Nameless);
        }
        if is_secret(name) || path.to_str().is_some_and(is_secret) {
            return Err(KeyError::Pasted);
        }
        if self.entries.contains_key(name) {
            return Err(KeyError::Exists(name.to_owned()));
        }
        let key = Arc::new(Key {
            name: name.to_owned(),
            secret: read(path)?,
        });
        let path = path.to_owned();
        self.entries.insert(name.to_owned(), Entry { path, key });
        Ok(())
    }

    /// Forgets a key that `users` do not use.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::Used`].
    pub fn remove(&mut self, name: &str, users: &[String]) -> Result<(), KeyError> {
        self.find(name)?;
        if let Some(user) = users.first() {
            return Err(KeyError::Used {
                name: name.to_owned(),
                user: user.clone(),
            });
        }
        self.entries.remove(name);
        Ok(())
    }

    /// The key of this name.
    ///
    /// # Errors
    /// [`KeyError::Missing`].
    pub fn find(&self, name: &str) -> Result<Arc<Key>, KeyError> {
        let entry = self.entries.get(name);
        entry
            .map(|entry| entry.key.clone())
            .ok_or_else(|| match is_secret(name) {
                true => KeyError::Pasted,
                false => KeyError::Missing(name.to_owned()),
            })
    }

    /// Names and files of all keys, by name.
    pub fn list(&self) -> impl Iterator<Item = (&str, &Path)> {
        let entries = self.entries.iter();
        entries.map(|(name, entry)| (name.as_str(), entry.path.as_path()))
    }
}

/// Whether a text is a secret where it should be something else.
fn is_secret(text: &str) -> bool {
    text.trim_start().starts_with("DHHC-1:")
}

/// Reads the secret in a file.
fn read(path: &Path) -> Result<Secret, KeyError> {
    if !path.is_absolute() {
        return Err(KeyError::Relative(path.to_owned()));
    }
    let unreadable = |source| KeyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // Of a pipe that nobody writes to, `open` would wait.
    let kind = std::fs::metadata(path).map_err(unreadable)?;
    if !kind.is_file() {
        return Err(KeyError::NoFile(path.to_owned()));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the file that is open, whatever the name means by now.
    let about = file.metadata().map_err(unreadable)?;
    let (mode, owner) = (about.mode() & 0o7777, about.uid());
    let user = rustix::process::getuid().as_raw();
    if mode & OTHERS != 0 || owner != user {
        return Err(KeyError::Open {
            path: path.to_owned(),
            mode,
            owner,
            user,
        });
    }
    if about.len() > MAX_SIZE {
        return Err(KeyError::NoFile(path.to_owned()));
    }
    // Of its full size from the start: memory that is given up on growing would not be wiped.
    let mut text = Zeroizing::new(vec![0; about.len() as usize]);
    file.read_exact(&mut text).map_err(unreadable)?;
    Secret::parse(&text).map_err(|source| KeyError::Secret {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The bytes 0, 1, 2 and so on, as nvme-cli 2.3 tells them.
    const KEY: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

    fn file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn keys_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "a", &format!("{KEY}\n"), 0o600);
        let mut ring = Keyring::default();
        ring.add("host", &path).unwrap();
        assert_eq!(ring.find("host").unwrap().name, "host");
        assert_eq!(ring.list().collect::<Vec<_>>(), [("host", path.as_path())]);
        let again = ring.add("host", &path).unwrap_err();
        assert_eq!(again.errno(), Errno::EXIST);
        let users = ["host nqn.a of nqn.b".to_owned()];
        let used = ring.remove("host", &users).unwrap_err();
        assert_eq!(used.errno(), Errno::BUSY);
        assert!(used.to_string().contains(&users[0]), "{used}");
        ring.remove("host", &[]).unwrap();
        assert_eq!(ring.find("host").unwrap_err().errno(), Errno::NOKEY);
        assert_eq!(ring.remove("host", &[]).unwrap_err().errno(), Errno::NOKEY);
    }

    #[test]
    fn files_that_others_may_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Keyring::default();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o660] {
            let path = file(dir.path(), "open", KEY, mode);
            let error = ring.add("a", &path).unwrap_err();
            assert_eq!(error.errno(), Errno::PERM, "{mode:o}");
            let told = error.to_string();
            assert!(told.contains(&format!("mode {mode:04o}")), "{told}");
            assert!(told.contains("chmod 0600"), "{told}");
        }
        for mode in [0o600, 0o400] {
            let path = file(dir.path(), &format!("own{mode:o}"), KEY, mode);
            ring.add(&format!("{mode:o}"), &path).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_file_is_named_and_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let damaged = KEY.replace("AAEC", "AAED");
        let cases = [
            (Path::new("a").to_owned(), Errno::PERM, "absolute"),
            (dir.path().join("none"), Errno::NOENT, "none"),
            (dir.path().to_owned(), Errno::INVAL, "at most 512 bytes"),
            (
                file(dir.path(), "big", &KEY.repeat(9), 0o600),
                Errno::INVAL,
                "at most 512 bytes",
            ),
            (
                file(dir.path(), "psk", "NVMeTLSkey-1:01:AAECAwQF:", 0o600),
                Errno::INVAL,
                "nvme gen-dhchap-key",
            ),
            (
                file(dir.path(), "damaged", &damaged, 0o600),
                Errno::INVAL,
                "checksum",
            ),
        ];
        let mut ring = Keyring::default();
        for (path, errno, says) in cases {
            let error = ring.add("a", &path).unwrap_err();
            assert_eq!(error.errno(), errno, "{error}");
            let told = format!("{error} {error:?}");
            assert!(told.contains(says), "{told}");
            assert!(told.contains(path.to_str().unwrap()), "{told}");
            assert!(!told.contains("AwQF"), "{told}");
        }
        assert_eq!(
            ring.add("", Path::new("/")).unwrap_err().errno(),
            Errno::INVAL
        );
        assert_eq!(ring.list().count(), 0);
    }

    #[test]
    fn a_key_in_the_place_of_its_name_is_not_told_on() {
        let mut ring = Keyring::default();
        for error in [
            ring.add("a", Path::new(KEY)).unwrap_err(),
            ring.add(KEY, Path::new("/a")).unwrap_err(),
            ring.find(KEY).unwrap_err(),
            ring.remove(KEY, &[]).unwrap_err(),
        ] {
            let told = format!("{error} {error:?}");
            assert!(told.contains("mode 0600"), "{told}");
            assert!(!told.contains("AwQF"), "{told}");
        }
    }

    #[test]
    fn a_keyring_does_not_show_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Keyring::default();
        ring.add("a", &file(dir.path(), "a", KEY, 0o600)).unwrap();
        let shown = format!("{ring:?}");
        assert!(shown.contains("Secret(32 bytes)"), "{shown}");
    }
}
