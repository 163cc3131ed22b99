//! The kernel for every CPU: safe Rust in a shape that the compiler turns into the vectors of whatever target it builds for.
//!
//! A stretch of fixed size is an array that the compiler keeps in registers while it walks the sources, so that the
//! destination is written once however many sources there are.

/// Bytes of a stretch: eight registers of the 16 bytes that x86-64 and aarch64 always have.
const STRETCH: usize = 128;

/// Sets `dst` to the XOR of all sources.
pub(super) fn xor_into(dst: &mut [u8], sources: &[&[u8]]) {
    let (stretches, rest) = dst.as_chunks_mut();
    for (i, stretch) in stretches.iter_mut().enumerate() {
        *stretch = gather([0; STRETCH], sources, i * STRETCH);
    }
    let done = stretches.len() * STRETCH;
    for (i, byte) in rest.iter_mut().enumerate() {
        *byte = xor_of_byte(sources, done + i);
    }
}

/// Fills `dst` with the pieces, which together are as long.
pub(super) fn fill(dst: &mut [u8], pieces: &[&[u8]]) {
    let mut rest = dst;
    for piece in pieces {
        let (now, later) = rest.split_at_mut(piece.len());
        now.copy_from_slice(piece);
        rest = later;
    }
}

/// XORs all sources into `dst`.
pub(super) fn xor_assign(dst: &mut [u8], sources: &[&[u8]]) {
    let (stretches, rest) = dst.as_chunks_mut();
    for (i, stretch) in stretches.iter_mut().enumerate() {
        *stretch = gather(*stretch, sources, i * STRETCH);
    }
    let done = stretches.len() * STRETCH;
    for (i, byte) in rest.iter_mut().enumerate() {
        *byte ^= xor_of_byte(sources, done + i);
    }
}

/// Whether the XOR of all sources is zero everywhere.
pub(super) fn equal_xor(sources: &[&[u8]]) -> bool {
    let len = sources[0].len();
    let done = len - len % STRETCH;
    let stretch_cancels = |at| {
        // All bytes are gathered without an exit on the way: that is what vectorises.
        gather([0; STRETCH], sources, at)
            .iter()
            .fold(0, |any, byte| any | byte)
            == 0
    };
    (0..done).step_by(STRETCH).all(stretch_cancels)
        && (done..len).all(|i| xor_of_byte(sources, i) == 0)
}

/// `held` with the stretch at `at` of all sources XORed in.
#[inline(always)]
fn gather(mut held: [u8; STRETCH], sources: &[&[u8]], at: usize) -> [u8; STRETCH] {
    for source in sources {
        let piece: &[u8; STRETCH] = source[at..]
            .first_chunk()
            .expect("all blocks have one length");
        for i in 0..STRETCH {
            held[i] ^= piece[i];
        }
    }
    held
}

/// The XOR of the sources' bytes at `i`.
fn xor_of_byte(sources: &[&[u8]], i: usize) -> u8 {
    sources.iter().fold(0, |byte, source| byte ^ source[i])
}
