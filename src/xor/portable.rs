//! The kernel for every CPU: safe Rust in a shape that the compiler turns into the vectors of whatever target it builds for.
//!
//! It works through a window that stays in the L1 cache and takes four sources a time, so that the destination is touched
//! once per four sources rather than once per source.

/// Bytes of every block that are worked on at a time.
const WINDOW: usize = 1024;

/// Sets `dst` to the XOR of all sources.
pub(super) fn xor_into(dst: &mut [u8], sources: &[&[u8]]) {
    let (first, rest) = sources.split_first().expect("at least one source");
    let mut at = 0;
    for window in dst.chunks_mut(WINDOW) {
        window.copy_from_slice(&first[at..][..window.len()]);
        fold(window, rest, at);
        at += window.len();
    }
}

/// XORs all sources into `dst`.
pub(super) fn xor_assign(dst: &mut [u8], sources: &[&[u8]]) {
    let mut at = 0;
    for window in dst.chunks_mut(WINDOW) {
        fold(window, sources, at);
        at += window.len();
    }
}

/// Whether the XOR of all sources is zero everywhere.
pub(super) fn equal_xor(sources: &[&[u8]]) -> bool {
    let (first, rest) = sources.split_first().expect("at least one source");
    let mut held = [0; WINDOW];
    let mut at = 0;
    for piece in first.chunks(WINDOW) {
        let held = &mut held[..piece.len()];
        held.copy_from_slice(piece);
        fold(held, rest, at);
        // All bytes are gathered without an exit on the way: that is what vectorises.
        if held.iter().fold(0, |any, byte| any | byte) != 0 {
            return false;
        }
        at += piece.len();
    }
    true
}

/// XORs into `window` what the sources hold from `at` on.
fn fold(window: &mut [u8], sources: &[&[u8]], at: usize) {
    let len = window.len();
    let (fours, rest) = sources.as_chunks::<4>();
    for [a, b, c, d] in fours {
        let (a, b, c, d) = (
            &a[at..][..len],
            &b[at..][..len],
            &c[at..][..len],
            &d[at..][..len],
        );
        for i in 0..len {
            window[i] ^= a[i] ^ b[i] ^ c[i] ^ d[i];
        }
    }
    for source in rest {
        for (byte, other) in window.iter_mut().zip(&source[at..][..len]) {
            *byte ^= other;
        }
    }
}
