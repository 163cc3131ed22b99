//! The functions that fio calls.
//!
//! Each job of fio, a process or a thread, calls them from itself alone. What belongs to it is an [`Engine`] behind its
//! `io_ops_data`. Buffers are lent: they are the slots of the [`Job`](crate::job::Job), and fio touches them through plain
//! pointers only while their request is idle, when nobody here looks at them.

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::mem::zeroed;
use std::ptr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use stripewise::memory::{Arena, BufMut, Pool, PoolError, SLOT_ALIGN};

use crate::fio;
use crate::job::{Failure, Finished, Job, Operation};
use crate::link::{Link, LinkError};
use crate::options::{self, Options};
use crate::target::{Target, TargetError, Words};

/// Why a job can't run.
#[derive(Debug, thiserror::Error)]
enum EngineError {
    /// The target can't be told.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It can't be reached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There is no memory for the buffers.
    #[error("no memory for the buffers: {0}; use a smaller bs= or iodepth=")]
    Memory(#[from] PoolError),
    /// Too much in flight.
    #[error("iodepth={0} is more than a queue can hold; use at most 65535")]
    Depth(u32),
    /// This is not the fio that the engine was built for.
    #[error(
        "this fio lays out its structures in another way than the headers of {}; build the engine again",
        fio::VERSION
    )]
    Layout,
}

impl EngineError {
    /// The error number that comes closest. Never ENOENT, which fio passes over.
    fn errno(&self) -> c_int {
        match self {
            EngineError::Target(_) | EngineError::Depth(_) => libc::EINVAL,
            EngineError::Link(LinkError::Association(error)) if error.is_timeout() => {
                libc::ETIMEDOUT
            }
            EngineError::Link(_) => libc::ECONNREFUSED,
            EngineError::Memory(_) => libc::ENOMEM,
            EngineError::Layout => libc::ENOEXEC,
        }
    }
}

/// What belongs to one job.
struct Engine {
    job: Job,
    /// fio's names for the requests, by their place in the table.
    units: Vec<*mut fio::io_u>,
    /// fio's memory, where it is not the job's buffers: then data is copied.
    apart: Option<BufMut>,
    /// What the last `getevents` has brought.
    events: Vec<*mut fio::io_u>,
}

/// The engine's table, as fio knows it. fio links it into a list and notes things in it.
struct Table {
    ops: UnsafeCell<fio::ioengine_ops>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

// SAFETY: nobody here looks into it once it is made; fio changes it from one thread, as it does its own engines' tables.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

static TABLE: OnceLock<Table> = OnceLock::new();

/// Hands the engine to a fio that has loaded this library; nothing, if it is not the one that the library was built for.
///
/// # Safety
/// To be called by fio, with a place for the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_ioengine(answer: *mut *mut fio::ioengine_ops) {
    let running = fio::running_version();
    let fits = running.as_deref() == Some(fio::VERSION);
    if !fits {
        fio::log_error(&format!(
            "this engine was built for {}, and can't be used with {}; build it again: perf/fio-engine/build",
            fio::VERSION,
            running
                .as_deref()
                .unwrap_or("a program that does not say which fio it is"),
        ));
    }
    let table = || {
        TABLE.get_or_init(|| Table {
            ops: UnsafeCell::new(ops()),
        })
    };
    // SAFETY: fio's place for the answer.
    unsafe {
        *answer = if fits {
            table().ops.get()
        } else {
            ptr::null_mut()
        }
    };
}

fn ops() -> fio::ioengine_ops {
    fio::ioengine_ops {
        name: c"stripewise".as_ptr(),
        version: fio::FIO_IOOPS_VERSION as c_int,
        flags: (fio::FIO_RAWIO
            | fio::FIO_DISKLESSIO
            | fio::FIO_NOEXTEND
            | fio::FIO_NODISKUTIL
            | fio::FIO_MEMALIGN
            | fio::FIO_NO_OFFLOAD) as c_int,
        get_file_size: Some(get_file_size),
        init: Some(init),
        cleanup: Some(cleanup),
        open_file: Some(open_file),
        close_file: Some(close_file),
        iomem_alloc: Some(iomem_alloc),
        iomem_free: Some(iomem_free),
        io_u_init: Some(io_u_init),
        io_u_free: Some(io_u_free),
        queue: Some(queue),
        commit: Some(commit),
        getevents: Some(getevents),
        event: Some(event),
        errdetails: Some(errdetails),
        option_struct_size: size_of::<Options>() as c_int,
        options: Box::leak(options::table()).as_mut_ptr(),
        // SAFETY: the rest is numbers, pointers and functions that may be null.
        ..unsafe { zeroed() }
    }
}

/// The job's engine.
///
/// # Safety
/// `td` is a job of fio's for which [`init`] was called and [`cleanup`] was not, and nobody else has its engine.
unsafe fn engine<'a>(td: *mut fio::thread_data) -> &'a mut Engine {
    // SAFETY: `init` has put it there.
    unsafe { &mut *(*td).io_ops_data.cast::<Engine>() }
}

/// The target that a file of the job means.
///
/// # Safety
/// `td` and `file` are fio's, with options of this engine.
unsafe fn target(
    td: *mut fio::thread_data,
    file: *mut fio::fio_file,
) -> Result<Target, EngineError> {
    // SAFETY: fio has filled `eo` as the option table says, and names of files are C strings.
    let (name, options) = unsafe {
        let found = (*td).io_ops;
        if TABLE.get().is_none_or(|table| table.ops.get() != found) || (*td).eo.is_null() {
            return Err(EngineError::Layout);
        }
        (
            CStr::from_ptr((*file).file_name).to_string_lossy(),
            &*(*td).eo.cast::<Options>(),
        )
    };
    let named = Words::of_filename(&name)?;
    // SAFETY: the texts are fio's, or null.
    let words = named.or(unsafe { options.words() });
    Ok(words.target(options.patience())?)
}

/// Reports an error and fails the job with it.
///
/// # Safety
/// `td` is the job of fio's that is calling.
unsafe fn fail(td: *mut fio::thread_data, error: &EngineError) -> c_int {
    fio::log_error(&error.to_string());
    // fio has no room for the whole message, and prints what it has twice.
    // SAFETY: the caller's promise.
    unsafe { fio::fail_job(td, error.errno(), "stripewise has said why") };
    1
}

unsafe extern "C" fn get_file_size(td: *mut fio::thread_data, file: *mut fio::fio_file) -> c_int {
    // SAFETY: fio's job and file. This runs before jobs become processes, so nothing is kept.
    unsafe {
        let linked = target(td, file).and_then(|target| Ok(Link::connect(&target, 1)?));
        match linked {
            Ok(link) => {
                (*file).real_file_size = link.capacity();
                (*file).filetype = fio::FIO_TYPE_BLOCK;
                link.close();
                0
            }
            Err(error) => fail(td, &error),
        }
    }
}

unsafe extern "C" fn init(td: *mut fio::thread_data) -> c_int {
    // A write to a connection that the target has closed must be an error, not the end of fio.
    // SAFETY: nothing of fio's or ours handles this signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // SAFETY: fio's job, in the process or thread that will run it.
    unsafe {
        match start(td) {
            Ok(engine) => {
                (*td).io_ops_data = Box::into_raw(Box::new(engine)).cast::<c_void>();
                0
            }
            Err(error) => {
                fail(td, &error);
                error.errno()
            }
        }
    }
}

/// Connects a job to the targets of all its files.
///
/// # Safety
/// `td` is fio's, with options of this engine.
unsafe fn start(td: *mut fio::thread_data) -> Result<Engine, EngineError> {
    // SAFETY: the caller's promise; files are in an array of that length.
    let (depth, files) = unsafe {
        let count = ((*td).files_index).min((*td).o.nr_files) as usize;
        let files = if count == 0 {
            &[]
        } else {
            std::slice::from_raw_parts((*td).files, count)
        };
        ((*td).o.iodepth, files)
    };
    let in_flight = u16::try_from(depth.max(1)).map_err(|_| EngineError::Depth(depth))?;
    let mut links = Vec::new();
    for &file in files {
        // SAFETY: as above.
        let target = unsafe { target(td, file)? };
        links.push(Link::connect(&target, in_flight)?);
    }
    Ok(Engine {
        job: Job::new(links, usize::from(in_flight))?,
        units: vec![ptr::null_mut(); usize::from(in_flight)],
        apart: None,
        events: Vec::new(),
    })
}

unsafe extern "C" fn cleanup(td: *mut fio::thread_data) {
    // SAFETY: fio's job. What `init` has put there, if it has, comes back once.
    unsafe {
        let engine = (*td).io_ops_data.cast::<Engine>();
        if !engine.is_null() {
            (*td).io_ops_data = ptr::null_mut();
            Box::from_raw(engine).job.close();
        }
    }
}

/// Nothing: a job is connected from its first to its last moment.
unsafe extern "C" fn open_file(_: *mut fio::thread_data, _: *mut fio::fio_file) -> c_int {
    0
}

unsafe extern "C" fn close_file(_: *mut fio::thread_data, _: *mut fio::fio_file) -> c_int {
    0
}

unsafe extern "C" fn iomem_alloc(td: *mut fio::thread_data, bytes: usize) -> c_int {
    // SAFETY: fio's job, after `init`. fio deals out this memory in units of the largest block, from the first page on.
    unsafe {
        let engine = engine(td);
        let most = (*td).o.max_bs.iter().copied().max().unwrap_or(0) as usize;
        let allocated = allocate(engine, most, bytes, (*td).o.mem_align == 0);
        match allocated {
            Ok(memory) => {
                (*td).orig_buffer = memory.cast();
                0
            }
            Err(error) => fail(td, &error.into()),
        }
    }
}

/// Memory for fio: the requests' own buffers, if they lie as fio will deal them out; else `bytes` bytes apart.
fn allocate(
    engine: &mut Engine,
    most: usize,
    bytes: usize,
    aligned: bool,
) -> Result<*mut u8, PoolError> {
    engine.job.make_buffers(most)?;
    let mut starts = Vec::new();
    for index in 0..engine.units.len() {
        starts.extend(engine.job.buffer(index).map(BufMut::as_mut_ptr));
    }
    let as_dealt = |pair: &[*mut u8]| pair[0].wrapping_add(most) == pair[1];
    if aligned && starts.windows(2).all(as_dealt) {
        return Ok(starts[0]);
    }
    let bytes = bytes.next_multiple_of(SLOT_ALIGN);
    let pool = Pool::new(&Arena::ordinary(bytes)?, bytes, 1)?;
    let apart = engine
        .apart
        .insert(pool.take().expect("a new pool has its slot"));
    Ok(apart.as_mut_ptr())
}

unsafe extern "C" fn iomem_free(td: *mut fio::thread_data) {
    // SAFETY: fio's job; it may not have got as far as `init`.
    unsafe {
        if !(*td).io_ops_data.is_null() {
            let engine = engine(td);
            engine.job.drop_buffers();
            engine.apart = None;
        }
    }
}

unsafe extern "C" fn io_u_init(td: *mut fio::thread_data, io_u: *mut fio::io_u) -> c_int {
    // SAFETY: fio's job, after `init`, and its request, which fio has numbered.
    unsafe {
        let index = (*io_u).__bindgen_anon_1.index as usize;
        match engine(td).units.get_mut(index) {
            Some(unit) => {
                *unit = io_u;
                0
            }
            None => fail(td, &EngineError::Layout),
        }
    }
}

unsafe extern "C" fn io_u_free(_: *mut fio::thread_data, io_u: *mut fio::io_u) {
    // SAFETY: fio's request, which may have a message left.
    unsafe { libc::free(take_details(io_u)) };
}

unsafe extern "C" fn queue(td: *mut fio::thread_data, io_u: *mut fio::io_u) -> fio::fio_q_status {
    // SAFETY: fio's job, after `init`, and a request of it that is idle.
    unsafe {
        let engine = engine(td);
        libc::free(take_details(io_u));
        let unit = &mut *io_u;
        let operation = match unit.ddir {
            fio::DDIR_READ => Operation::Read,
            fio::DDIR_WRITE => Operation::Write,
            fio::DDIR_TRIM => Operation::Trim,
            fio::DDIR_SYNC | fio::DDIR_DATASYNC | fio::DDIR_SYNC_FILE_RANGE => Operation::Flush,
            _ => {
                unit.error = libc::EINVAL as c_uint;
                return fio::FIO_Q_COMPLETED;
            }
        };
        let (index, link) = (
            unit.__bindgen_anon_1.index as usize,
            (*unit.file).fileno as usize,
        );
        if operation == Operation::Write {
            copy(engine, unit, true);
        }
        let (offset, bytes) = (unit.offset, unit.xfer_buflen);
        engine.job.submit(index, link, operation, offset, bytes);
        // What can't be done comes out as an event like the rest, for only then fio asks why.
        fio::FIO_Q_QUEUED
    }
}

/// Copies data between fio's memory and the request's buffer, where the two are not the same.
///
/// # Safety
/// The request is idle, and the memory it names is fio's.
unsafe fn copy(engine: &mut Engine, unit: &mut fio::io_u, out: bool) {
    let (theirs, bytes) = (unit.xfer_buf.cast::<u8>(), unit.xfer_buflen as usize);
    // SAFETY: the union is read as it was written.
    let index = unsafe { unit.__bindgen_anon_1.index } as usize;
    let Some(buffer) = engine.job.buffer(index) else {
        return;
    };
    let ours = buffer.as_mut_ptr();
    if ours == theirs || bytes > buffer.len() {
        return;
    }
    // SAFETY: the caller's promise; the buffer is long enough, and memory apart does not overlap with it.
    unsafe {
        match out {
            true => ptr::copy_nonoverlapping(theirs, ours, bytes),
            false => ptr::copy_nonoverlapping(ours, theirs, bytes),
        }
    }
}

unsafe extern "C" fn commit(td: *mut fio::thread_data) -> c_int {
    // SAFETY: fio's job, after `init`.
    unsafe { engine(td) }.job.send(Instant::now());
    0
}

unsafe extern "C" fn getevents(
    td: *mut fio::thread_data,
    least: c_uint,
    most: c_uint,
    patience: *const fio::timespec,
) -> c_int {
    // SAFETY: fio's job, after `init`; the time is null for as long as it takes.
    let (engine, patience) = unsafe { (engine(td), patience.as_ref()) };
    let (least, most) = (least as usize, most as usize);
    let end = patience
        .map(|time| Instant::now() + Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
    engine.events.clear();
    let mut turned = false;
    loop {
        while engine.events.len() < most
            && let Some(Finished { index, outcome }) = engine.job.next_finished()
        {
            let unit = engine.units[index];
            // SAFETY: fio keeps its requests as long as they are in flight.
            unsafe {
                match outcome {
                    Ok(()) if (*unit).ddir == fio::DDIR_READ => copy(engine, &mut *unit, false),
                    Ok(()) => {}
                    Err(failure) => note(&mut *unit, &failure),
                }
            }
            engine.events.push(unit);
        }
        // What an earlier turn has brought is worth no system call; fio may ask for one event at a time.
        let count = engine.events.len();
        let now = Instant::now();
        if count >= least && (turned || count > 0) || end.is_some_and(|end| turned && now >= end) {
            return count as c_int;
        }
        engine.job.turn(now);
        turned = true;
    }
}

unsafe extern "C" fn event(td: *mut fio::thread_data, number: c_int) -> *mut fio::io_u {
    // SAFETY: fio's job, after `init`.
    unsafe { engine(td) }.events[number as usize]
}

/// Notes how a request failed, and why for [`errdetails`].
fn note(unit: &mut fio::io_u, failure: &Failure) {
    unit.error = failure.errno as c_uint;
    let text = CString::new(failure.message.replace('\0', "?")).unwrap_or_default();
    // SAFETY: the place is for the engine's use. The text is fio's to free, so it is made with C's allocator.
    unsafe { *unit.__bindgen_anon_3.mmap_data.as_mut() = libc::strdup(text.as_ptr()).cast() };
}

/// Takes what [`note`] has left with a request.
///
/// # Safety
/// `io_u` is fio's.
unsafe fn take_details(io_u: *mut fio::io_u) -> *mut c_void {
    // SAFETY: the place is for the engine's use, and fio has filled it with zeros at first.
    unsafe { ptr::replace((*io_u).__bindgen_anon_3.mmap_data.as_mut(), ptr::null_mut()) }
}

unsafe extern "C" fn errdetails(io_u: *mut fio::io_u) -> *mut c_char {
    // SAFETY: fio's request; fio frees what it gets.
    unsafe {
        let text: *mut c_char = take_details(io_u).cast();
        if text.is_null() {
            libc::strdup(c"no more is known".as_ptr())
        } else {
            text
        }
    }
}
