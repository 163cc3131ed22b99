//! The name of an array, as its superblocks have it.

use std::fmt;

/// `set_name`: up to 32 bytes, by habit `host:name`. What lies on disk is kept as it is, even if it is no
/// UTF-8.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SetName([u8; Self::BYTES]);

/// A name does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// More bytes than the field has.
    #[error("the array name {0:?} has {len} bytes; use at most 32", len = .0.len())]
    TooLong(String),
    /// It would be cut there by whoever reads it.
    #[error("the array name {0:?} has a zero byte; leave it out")]
    Zero(String),
}

impl SetName {
    /// Size of the field. A name that fills it has no zero byte at its end.
    pub const BYTES: usize = 32;

    /// A name.
    ///
    /// # Errors
    /// [`NameError`] if it has more than 32 bytes, or a zero byte.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.len() > Self::BYTES {
            return Err(NameError::TooLong(name.to_owned()));
        }
        if name.contains('\0') {
            return Err(NameError::Zero(name.to_owned()));
        }
        let mut bytes = [0; Self::BYTES];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }

    /// The field as it lies on disk.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The field as it lies on disk.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0
    }

    /// The bytes before the first zero.
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&b| b == 0);
        &self.0[..end.unwrap_or(Self::BYTES)]
    }

    /// The name without the host before the colon, if there is one.
    pub fn without_host(&self) -> String {
        let name = self.to_string();
        match name.split_once(':') {
            Some((_, rest)) => rest.to_owned(),
            None => name,
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for SetName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.to_string())
    }
}

impl PartialEq<str> for SetName {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
