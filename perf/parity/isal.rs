//! ISA-L's `xor_gen`, where the machine has it.
//!
//! It is looked up when the bench runs, so building needs neither the library nor its headers.

use std::ffi::{c_int, c_void};
use std::mem::transmute;

/// `int xor_gen(int vects, int len, void **array)`: the last of `vects` pointers is the destination, all are 32-byte
/// aligned, and zero means success.
type XorGen = unsafe extern "C" fn(c_int, c_int, *mut *mut c_void) -> c_int;

/// The library, loaded for the life of the process.
#[derive(Clone, Copy)]
pub struct Isal {
    xor_gen: XorGen,
}

impl Isal {
    /// Loads the system's ISA-L, or says why there is none to compare with.
    pub fn load() -> Result<Self, &'static str> {
        // SAFETY: loading runs the library's own initialisers and nothing else; both names are C strings.
        let symbol = unsafe {
            let library = libc::dlopen(c"libisal.so.2".as_ptr(), libc::RTLD_NOW);
            if library.is_null() {
                return Err("libisal.so.2 is not installed (Debian: libisal2)");
            }
            libc::dlsym(library, c"xor_gen".as_ptr())
        };
        if symbol.is_null() {
            return Err("libisal.so.2 has no xor_gen");
        }
        // SAFETY: the symbol is the function that isa-l/raid.h declares with this signature.
        let xor_gen = unsafe { transmute::<*mut c_void, XorGen>(symbol) };
        Ok(Self { xor_gen })
    }

    /// Sets the last of `vectors` to the XOR of the others.
    ///
    /// # Safety
    ///
    /// All vectors are 32-byte aligned, `len` bytes long, and the last may be written.
    pub unsafe fn xor_gen(&self, vectors: &mut [*mut u8], len: usize) {
        // SAFETY: the caller's promise; the array holds as many pointers as is said.
        let status = unsafe {
            (self.xor_gen)(
                vectors.len() as c_int,
                len as c_int,
                vectors.as_mut_ptr().cast(),
            )
        };
        assert_eq!(
            status,
            0,
            "xor_gen refused {} vectors of {len} bytes",
            vectors.len()
        );
    }
}
