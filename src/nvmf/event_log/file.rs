//! The file of an event log; `docs/on-disk-format.md` has its layout.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use crc_fast::crc32_iscsi;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::nvme::log_page::PersistentEventHeader;
use crate::nvme::{NQN_FIELD_SIZE, Nqn};

const MAGIC: [u8; 8] = *b"SWEVLOG1";

/// Most that a file may be, in bytes: the largest log with the smallest events, and some.
const MOST: u64 = 4 << 20;

/// What a file begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    /// Starts so far.
    cycles: U64,
    /// Milliseconds that the subsystem had served when this was written.
    served_ms: U64,
    /// Name of the subsystem, NUL-terminated.
    nqn: [u8; NQN_FIELD_SIZE],
    /// CRC-32C of the bytes before.
    crc: U32,
}

/// What is in front of each event.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHead {
    /// CRC-32C of `len` and the event.
    crc: U32,
    /// Bytes of the event.
    len: U16,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Starts so far.
    pub cycles: u64,
    /// How long the subsystem had served when this was written; whole milliseconds.
    pub served: Duration,
    /// The events, the oldest first.
    pub events: VecDeque<Vec<u8>>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is something else.
    Foreign,
    /// It is the log of a subsystem of this name.
    Other(String),
    /// It is damaged, and not only at its end.
    Damaged(String),
}

/// Reads the log of a subsystem. A file that is not there, or is empty, is of a new log. A last record that
/// is torn is left out.
///
/// # Errors
/// In words, with the name of the file and the mend.
pub fn read(path: &Path, nqn: &Nqn) -> Result<Content, String> {
    let shown = path.display();
    let bytes = match load(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::default()),
        Err(error) => return Err(format!("event log {shown} cannot be read: {error}")),
    };
    if bytes.is_empty() {
        return Ok(Content::default());
    }
    let decoded = decode(&bytes, nqn).map_err(|flaw| match flaw {
        Flaw::Foreign => format!(
            "{shown} is not an event log; name another file, so that this one is not overwritten"
        ),
        Flaw::Other(other) => format!(
            "event log {shown} is of the subsystem {other}, and this one is {nqn}; name the file of this subsystem, or remove it, and with it all events"
        ),
        Flaw::Damaged(what) => format!(
            "event log {shown} is damaged ({what}); put back a copy of it, or remove it, and with it all events"
        ),
    })?;
    let (content, torn) = decoded;
    if torn {
        tracing::warn!("event log {shown}: its last record is torn, and is left out");
    }
    Ok(content)
}

fn load(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than is taken, so that what is too long is seen as such.
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a file.
pub fn encode(nqn: &Nqn, content: &Content) -> Vec<u8> {
    let mut head = Head {
        magic: MAGIC,
        cycles: content.cycles.into(),
        served_ms: (content.served.as_millis() as u64).into(),
        nqn: nqn.to_field(),
        crc: 0.into(),
    };
    let covered = size_of::<Head>() - 4;
    head.crc = crc32_iscsi(&head.as_bytes()[..covered]).into();
    let mut bytes = head.as_bytes().to_vec();
    for event in &content.events {
        let len = U16::new(event.len() as u16);
        let crc = crc32_iscsi(&[len.as_bytes(), event].concat()).into();
        bytes.extend_from_slice(RecordHead { crc, len }.as_bytes());
        bytes.extend_from_slice(event);
    }
    bytes
}

/// What a file says, and whether its last record is torn.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8], nqn: &Nqn) -> Result<(Content, bool), Flaw> {
    if !bytes.starts_with(&MAGIC) || bytes.len() as u64 > MOST {
        return Err(Flaw::Foreign);
    }
    let damaged = || Flaw::Damaged("its first bytes".into());
    let (head, mut rest) = Head::read_from_prefix(bytes).map_err(|_| damaged())?;
    let covered = size_of::<Head>() - 4;
    if crc32_iscsi(&bytes[..covered]) != head.crc.get() {
        return Err(damaged());
    }
    if head.nqn != nqn.to_field() {
        let end = head.nqn.iter().position(|&byte| byte == 0);
        let other = &head.nqn[..end.unwrap_or(head.nqn.len())];
        return Err(Flaw::Other(String::from_utf8_lossy(other).into_owned()));
    }
    let mut content = Content {
        cycles: head.cycles.get(),
        served: Duration::from_millis(head.served_ms.get()),
        events: VecDeque::new(),
    };
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let Ok((record, behind)) = RecordHead::read_from_prefix(rest) else {
            return Ok((content, true));
        };
        let len = usize::from(record.len.get());
        // A file that was made longer before its bytes came ends in zeros.
        let Some(event) = behind.get(..len).filter(|_| len > 0) else {
            let torn = len > 0 || rest.iter().all(|&byte| byte == 0);
            return match torn {
                true => Ok((content, true)),
                false => Err(Flaw::Damaged(format!("the record at byte {at}"))),
            };
        };
        let crc = crc32_iscsi(&rest[4..6 + len]);
        let is_whole = crc == record.crc.get();
        rest = &behind[len..];
        match is_whole {
            true if PersistentEventHeader::is_event(event) => {
                content.events.push_back(event.to_vec());
            }
            false if rest.is_empty() => return Ok((content, true)),
            _ => return Err(Flaw::Damaged(format!("the record at byte {at}"))),
        }
    }
    Ok((content, false))
}

/// What must hold for any bytes as a file: they are taken, or refused, and what is taken is kept when it is
/// written again. For property tests and the fuzzer.
///
/// # Panics
/// Where it does not hold.
pub fn trial(bytes: &[u8]) {
    let nqn = Nqn::new("nqn.2026-11.io.example:a").expect("a name");
    if let Ok((content, torn)) = decode(bytes, &nqn) {
        let again = encode(&nqn, &content);
        assert_eq!(decode(&again, &nqn), Ok((content, false)));
        assert!(bytes.starts_with(&again));
        assert_eq!(torn, bytes.len() > again.len());
    }
}
