//! fio's interface: what bindgen makes of its headers, and the few of its symbols that are used.

use std::ffi::{CStr, CString, c_char, c_int};

pub use bindings::*;

#[allow(
    missing_docs,
    missing_debug_implementations,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    unreachable_pub,
    unnecessary_transmutes,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/fio.rs"));
}

/// The version of fio whose headers these are.
pub const VERSION: &str = env!("FIO_VERSION");

/// fio's `log_err`.
type Log = unsafe extern "C" fn(*const c_char, ...) -> isize;

/// The version of the fio that has loaded us, if it is one.
pub fn running_version() -> Option<String> {
    // Looked up instead of linked, so that unit tests can do without a fio.
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"fio_version_string".as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: fio has an array of characters by this name, which ends with a zero.
    let version = unsafe { CStr::from_ptr(found.cast::<c_char>()) };
    Some(version.to_string_lossy().into_owned())
}

/// Has fio report an error, wherever its output goes.
pub fn log_error(message: &str) {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"log_err".as_ptr()) };
    if found.is_null() {
        eprintln!("stripewise: {message}");
        return;
    }
    let text = CString::new(message.replace('\0', "?")).unwrap_or_default();
    // SAFETY: fio's function by this name has this type; the format takes one string.
    unsafe {
        let log: Log = std::mem::transmute(found);
        log(c"stripewise: %s\n".as_ptr(), text.as_ptr());
    }
}

/// What `td_verror` of fio does: the job fails with `errno`, if it has not failed before.
///
/// # Safety
/// `td` is a job of fio's that nobody else changes meanwhile.
pub unsafe fn fail_job(td: *mut thread_data, errno: c_int, message: &str) {
    // SAFETY: the caller's promise. The text is cut to the room there is and ends with a zero.
    unsafe {
        if (*td).error != 0 {
            return;
        }
        (*td).error = errno;
        let room = &mut (*td).verror;
        let most = room.len() - 1;
        room.fill(0);
        for (to, from) in room[..most].iter_mut().zip(message.bytes()) {
            *to = from as c_char;
        }
    }
}
