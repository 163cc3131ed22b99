//! NVMe qualified names (Base, "NVMe Qualified Names"): what names a subsystem or a host.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::NQN_FIELD_SIZE;
use super::text::{nul_padded, nul_terminated};

/// The most bytes that a name has, without its closing NUL.
pub const MAX_LEN: usize = 223;

/// The name of every discovery subsystem.
pub const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// What stands before the UUID in a name that is made of one.
pub const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The longest label of a domain name (RFC 1034).
const MAX_LABEL: usize = 63;

/// A well-formed qualified name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nqn(Arc<str>);

/// Why a text is not a qualified name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NqnError {
    /// Too long.
    #[error("the name has {0} bytes, a qualified name has at most {MAX_LEN}")]
    TooLong(usize),
    /// A field on the wire without its end.
    #[error("the name is not closed by a NUL inside its field of 256 bytes, or is not UTF-8")]
    Unterminated,
    /// Not a name at all.
    #[error(
        "`{0}` does not begin with `nqn.`; a name looks like `nqn.2026-11.org.example:volume1`"
    )]
    Prefix(String),
    /// The date is wrong.
    #[error("`{0}` does not go on with year and month, as in `nqn.2026-11.org.example:volume1`")]
    Date(String),
    /// The domain is wrong.
    #[error(
        "`{domain}` in `{name}` is not a reversed domain name: labels of letters, digits and inner hyphens, \
         at most 63 bytes each, as in `org.example`"
    )]
    Domain {
        /// The whole name.
        name: String,
        /// What stands where the domain should.
        domain: String,
    },
    /// Nothing behind the domain.
    #[error(
        "`{0}` has no `:` and text of its own behind the domain, as in `nqn.2026-11.org.example:volume1`"
    )]
    NoUserText(String),
    /// A character that would break logs and tools.
    #[error("the name has a control character at byte {0}")]
    Control(usize),
    /// The UUID form without a UUID.
    #[error("`{0}` should end in a UUID of 36 characters behind `:uuid:`")]
    Uuid(String),
}

impl Nqn {
    /// Checks a text and keeps it.
    ///
    /// Accepted are the discovery name, `nqn.2014-08.org.nvmexpress:uuid:` with a UUID, and
    /// `nqn.yyyy-mm.reversed.domain:text`. Letters keep their case, and names compare byte by byte.
    ///
    /// # Errors
    /// [`NqnError`] names the first thing that is wrong.
    pub fn new(name: &str) -> Result<Self, NqnError> {
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The discovery name.
    #[must_use]
    pub fn discovery() -> Self {
        Self(DISCOVERY.into())
    }

    /// The name made of a UUID.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(format!("{UUID_PREFIX}{}", uuid.hyphenated()).into())
    }

    /// Reads a NUL-terminated field of the wire.
    ///
    /// # Errors
    /// [`NqnError::Unterminated`] without a NUL or if not UTF-8, otherwise what [`Nqn::new`] says.
    pub fn from_field(field: &[u8; NQN_FIELD_SIZE]) -> Result<Self, NqnError> {
        Self::new(nul_terminated(field).ok_or(NqnError::Unterminated)?)
    }

    /// The NUL-padded field of the wire.
    #[must_use]
    pub fn to_field(&self) -> [u8; NQN_FIELD_SIZE] {
        nul_padded(&self.0).expect("a name has at most 223 bytes")
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the discovery name.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        &*self.0 == DISCOVERY
    }
}

fn check(name: &str) -> Result<(), NqnError> {
    if name.len() > MAX_LEN {
        return Err(NqnError::TooLong(name.len()));
    }
    if let Some(at) = name.bytes().position(|byte| byte.is_ascii_control()) {
        return Err(NqnError::Control(at));
    }
    if name == DISCOVERY {
        return Ok(());
    }
    if let Some(uuid) = name.strip_prefix(UUID_PREFIX) {
        return match Uuid::try_parse(uuid) {
            Ok(_) if uuid.len() == 36 => Ok(()),
            _ => Err(NqnError::Uuid(name.to_owned())),
        };
    }
    let rest = name
        .strip_prefix("nqn.")
        .ok_or_else(|| NqnError::Prefix(name.to_owned()))?;
    let rest = strip_date(rest).ok_or_else(|| NqnError::Date(name.to_owned()))?;
    let (domain, text) = rest.split_once(':').unwrap_or((rest, ""));
    if !domain.split('.').all(is_label) {
        return Err(NqnError::Domain {
            name: name.to_owned(),
            domain: domain.to_owned(),
        });
    }
    if text.is_empty() {
        return Err(NqnError::NoUserText(name.to_owned()));
    }
    Ok(())
}

/// Takes `yyyy-mm.` off the front.
fn strip_date(text: &str) -> Option<&str> {
    let (date, rest) = text.split_once('.')?;
    let (year, month) = date.split_once('-')?;
    let digits =
        |part: &str, len| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(year, 4) || !digits(month, 2) || !matches!(month.parse(), Ok(1..=12)) {
        return None;
    }
    Some(rest)
}

fn is_label(label: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= MAX_LABEL
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(name: &str) -> Result<Self, NqnError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Nqn {
    type Error = NqnError;

    fn try_from(name: String) -> Result<Self, NqnError> {
        Self::new(&name)
    }
}

impl From<Nqn> for String {
    fn from(name: Nqn) -> Self {
        name.as_str().to_owned()
    }
}

impl AsRef<str> for Nqn {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Nqn {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_seen_in_the_field_are_accepted() {
        for name in [
            "nqn.2026-11.io.stripewise:demo",
            "nqn.2016-06.io.spdk:cnode1",
            "nqn.2014-08.com.vmware:nvme:esx-1",
            "nqn.2014-08.org.nvmexpress.discovery",
            "nqn.2014-08.org.nvmexpress:uuid:5C2D1A3E-0a56-4a5b-9d5f-0123456789ab",
            "nqn.2014-08.org.nvmexpress:NVMf:uuid:5c2d1a3e-0a56-4a5b-9d5f-0123456789ab",
            "nqn.2019-08.org.qemu:nvme-1",
            "nqn.2020-01.local:größe 1",
        ] {
            let parsed = Nqn::new(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(parsed.as_str(), name);
            assert_eq!(Nqn::from_field(&parsed.to_field()), Ok(parsed));
        }
    }

    #[test]
    fn each_fault_is_named() {
        let fault = |name: &str| Nqn::new(name).expect_err(name);
        assert!(matches!(fault(""), NqnError::Prefix(_)));
        assert!(matches!(
            fault("iqn.2016-06.io.spdk:a"),
            NqnError::Prefix(_)
        ));
        for name in [
            "nqn.",
            "nqn.2016",
            "nqn.16-06.io.spdk:a",
            "nqn.2016-13.io.spdk:a",
            "nqn.2016-00.io:a",
        ] {
            assert!(matches!(fault(name), NqnError::Date(_)), "{name}");
        }
        for name in [
            "nqn.2016-06.:a",
            "nqn.2016-06.io..spdk:a",
            "nqn.2016-06.-io:a",
            "nqn.2016-06.i_o:a",
        ] {
            assert!(matches!(fault(name), NqnError::Domain { .. }), "{name}");
        }
        let label = format!("nqn.2016-06.{}:a", "x".repeat(64));
        assert!(matches!(fault(&label), NqnError::Domain { .. }));
        assert!(matches!(
            fault("nqn.2016-06.io.spdk"),
            NqnError::NoUserText(_)
        ));
        assert!(matches!(
            fault("nqn.2016-06.io.spdk:"),
            NqnError::NoUserText(_)
        ));
        assert!(matches!(
            fault("nqn.2016-06.io.spdk:a\nb"),
            NqnError::Control(21)
        ));
        for uuid in ["", "5c2d1a3e", "5c2d1a3e0a564a5b9d5f0123456789ab"] {
            assert!(
                matches!(fault(&format!("{UUID_PREFIX}{uuid}")), NqnError::Uuid(_)),
                "{uuid}"
            );
        }
    }

    #[test]
    fn the_longest_name_has_223_bytes() {
        let name = format!("nqn.2016-06.io.spdk:{}", "a".repeat(203));
        assert_eq!(name.len(), 223);
        assert!(Nqn::new(&name).is_ok());
        assert_eq!(Nqn::new(&format!("{name}a")), Err(NqnError::TooLong(224)));
    }

    #[test]
    fn names_pass_through_json() {
        let name: Nqn = serde_json::from_str("\"nqn.2016-06.io.spdk:a\"").expect("a name");
        assert_eq!(
            serde_json::to_string(&name).expect("a string"),
            "\"nqn.2016-06.io.spdk:a\""
        );
        assert!(serde_json::from_str::<Nqn>("\"spdk\"").is_err());
    }

    #[test]
    fn a_uuid_makes_a_name() {
        let name = Nqn::from_uuid(Uuid::nil());
        assert_eq!(
            name.as_str(),
            "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000000"
        );
        assert_eq!(Nqn::new(name.as_str()), Ok(name));
        assert!(Nqn::discovery().is_discovery());
    }

    proptest! {
        #[test]
        fn any_text_and_any_field_is_read_or_refused(text in ".{0,300}", field in proptest::array::uniform32(any::<u8>())) {
            if let Ok(name) = Nqn::new(&text) {
                prop_assert_eq!(Nqn::from_field(&name.to_field()), Ok(name));
            }
            let mut whole = [0; NQN_FIELD_SIZE];
            whole[..32].copy_from_slice(&field);
            let _ = Nqn::from_field(&whole);
        }
    }
}
