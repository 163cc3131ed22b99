//! The engine's options, as fio's option table.

use std::ffi::{CStr, c_char, c_uint, c_void};
use std::fmt;
use std::mem::{offset_of, zeroed};
use std::time::Duration;

use crate::fio;
use crate::target::Words;

/// What fio stores the options of a job in. The layout is told in [`table`].
#[repr(C)]
pub struct Options {
    /// fio takes an offset of zero for none.
    unused: *mut c_void,
    traddr: *mut c_char,
    subnqn: *mut c_char,
    hostnqn: *mut c_char,
    trsvcid: c_uint,
    nsid: c_uint,
    header_digest: c_uint,
    data_digest: c_uint,
    patience: c_uint,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: fio keeps the texts as long as the options.
        let words = unsafe { self.words() };
        f.debug_tuple("Options").field(&words).finish()
    }
}

impl Options {
    /// What they say of the target.
    ///
    /// # Safety
    /// The texts are C strings, or null.
    pub unsafe fn words(&self) -> Words {
        let text = |text: *mut c_char| {
            if text.is_null() {
                return None;
            }
            // SAFETY: the caller's promise.
            let text = unsafe { CStr::from_ptr(text) };
            Some(text.to_string_lossy().into_owned())
        };
        Words {
            traddr: text(self.traddr),
            adrfam: None,
            trsvcid: Some(self.trsvcid as u16),
            subnqn: text(self.subnqn),
            nsid: Some(self.nsid),
            hostnqn: text(self.hostnqn),
            header_digest: Some(self.header_digest != 0),
            data_digest: Some(self.data_digest != 0),
        }
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.patience))
    }
}

/// One row of the table.
struct Row {
    name: &'static CStr,
    kind: fio::fio_opt_type,
    offset: usize,
    default: Option<&'static CStr>,
    /// Most and least, for numbers.
    range: (u64, i32),
    help: &'static CStr,
}

const ROWS: [Row; 8] = [
    Row {
        name: c"traddr",
        kind: fio::FIO_OPT_STR_STORE,
        offset: offset_of!(Options, traddr),
        default: None,
        range: (0, 0),
        help: c"Address of the target; or in filename=, with all that follows, as key=value",
    },
    Row {
        name: c"trsvcid",
        kind: fio::FIO_OPT_INT,
        offset: offset_of!(Options, trsvcid),
        default: Some(c"4420"),
        range: (65535, 1),
        help: c"TCP port of the target",
    },
    Row {
        name: c"subnqn",
        kind: fio::FIO_OPT_STR_STORE,
        offset: offset_of!(Options, subnqn),
        default: None,
        range: (0, 0),
        help: c"Name of the subsystem",
    },
    Row {
        name: c"nsid",
        kind: fio::FIO_OPT_INT,
        offset: offset_of!(Options, nsid),
        default: Some(c"1"),
        range: (0xffff_fffe, 1),
        help: c"Namespace identifier",
    },
    Row {
        name: c"hostnqn",
        kind: fio::FIO_OPT_STR_STORE,
        offset: offset_of!(Options, hostnqn),
        default: None,
        range: (0, 0),
        help: c"Name of this host (default: one of its own for each job)",
    },
    Row {
        name: c"hdgst",
        kind: fio::FIO_OPT_BOOL,
        offset: offset_of!(Options, header_digest),
        default: Some(c"0"),
        range: (0, 0),
        help: c"Header digests",
    },
    Row {
        name: c"ddgst",
        kind: fio::FIO_OPT_BOOL,
        offset: offset_of!(Options, data_digest),
        default: Some(c"0"),
        range: (0, 0),
        help: c"Data digests",
    },
    Row {
        name: c"answer_timeout",
        kind: fio::FIO_OPT_INT,
        offset: offset_of!(Options, patience),
        default: Some(c"30"),
        range: (86_400, 1),
        help: c"Seconds to wait for any answer before the connection is given up",
    },
];

/// The table that fio reads, and writes notes of its own into. It ends with an empty row.
pub fn table() -> Box<[fio::fio_option]> {
    let row = |row: &Row| {
        // SAFETY: all of the structure is numbers, and pointers that may be null.
        let mut option: fio::fio_option = unsafe { zeroed() };
        option.name = row.name.as_ptr();
        option.lname = row.name.as_ptr();
        option.type_ = row.kind;
        option.off1 = row.offset as c_uint;
        (option.maxval, option.minval) = row.range;
        option.help = row.help.as_ptr();
        option.def = row.default.map_or(std::ptr::null(), CStr::as_ptr);
        option.category = u64::from(fio::FIO_OPT_C_ENGINE);
        option.group = fio::FIO_OPT_G_INVALID;
        option
    };
    // SAFETY: as above.
    let end: fio::fio_option = unsafe { zeroed() };
    ROWS.iter().map(row).chain([end]).collect()
}
