//! Cache lines that will be needed soon.

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Asks the core to fetch the cache line of an address. Only a hint, whatever the address: it changes
/// nothing, waits for nothing and fails nowhere.
#[inline(always)]
pub(super) fn line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction is part of every x86-64, and faults for no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks the core to fetch all of `bytes`, which will be read soon: a hint, as for [`line`]. It pays for a few KiB that go on
/// where what is copied meanwhile ends: of those the core fetches a part by itself. Elsewhere [`copy`] does better.
pub fn fetch(bytes: &[u8]) {
    for at in bytes.chunks(LINE) {
        line(at.as_ptr());
    }
}

/// Memory that will be read soon: something to fetch, not to read here.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    first: *const u8,
    lines: usize,
}

impl Ahead {
    /// Nothing.
    pub const NOTHING: Self = Self {
        first: std::ptr::null(),
        lines: 0,
    };

    /// So many bytes from an address.
    pub(super) fn new(first: *const u8, bytes: usize) -> Self {
        Self {
            first,
            lines: bytes.div_ceil(LINE),
        }
    }

    /// Has the core fetch the line of this number, if there is one.
    #[inline(always)]
    fn line(&self, at: usize) {
        if at < self.lines {
            line(self.first.wrapping_add(at * LINE));
        }
    }
}

/// Copies `from` to `into`, which is as long, and has the core fetch `ahead` meanwhile, at most as much as it
/// copies: a line for each line. A core has room for some dozens of lines that are on their way: it stands still when it is
/// asked for more, and waits for nothing where it always has something to copy in between. It pays where memory was not
/// read lately, and for a few KiB: by itself a core fetches ahead up to the next multiple of 4 KiB, and begins anew there.
///
/// # Panics
/// If the lengths differ.
pub fn copy(into: &mut [u8], from: &[u8], ahead: Ahead) {
    assert_eq!(into.len(), from.len(), "a copy of another length");
    let fetched = ahead.lines.min(from.len() / LINE) * LINE;
    let (with, without) = from.split_at(fetched);
    let (into_with, into_without) = into.split_at_mut(fetched);
    let lines = into_with
        .chunks_exact_mut(LINE)
        .zip(with.chunks_exact(LINE));
    for (at, (into, from)) in lines.enumerate() {
        line(ahead.first.wrapping_add(at * LINE));
        into.copy_from_slice(from);
    }
    into_without.copy_from_slice(without);
}

/// Lines that are fetched ahead in what is changed itself: for the first of several, which nothing before has fetched.
const OWN: usize = 16;

/// Swaps `stored` with `new`, which is as long, and XORs to what comes out what went in; fetches as [`copy`] does.
///
/// # Panics
/// If the lengths differ.
pub fn exchange(stored: &mut [u8], new: &mut [u8], ahead: Ahead) {
    assert_eq!(stored.len(), new.len(), "an exchange of another length");
    let (lines, rest) = stored.as_chunks_mut::<LINE>();
    let (new_lines, new_rest) = new.as_chunks_mut::<LINE>();
    let own = Ahead::new(lines.as_ptr().cast(), lines.len() * LINE);
    for (at, (stored, new)) in lines.iter_mut().zip(new_lines).enumerate() {
        own.line(at + OWN);
        ahead.line(at);
        exchange_bytes(stored, new);
    }
    exchange_bytes(rest, new_rest);
}

#[inline(always)]
fn exchange_bytes(stored: &mut [u8], new: &mut [u8]) {
    for (stored, new) in stored.iter_mut().zip(new) {
        let old = std::mem::replace(stored, *new);
        *new ^= old;
    }
}

/// XORs `more` to `sum`, which is as long; fetches as [`copy`] does.
///
/// # Panics
/// If the lengths differ.
pub fn add(sum: &mut [u8], more: &[u8], ahead: Ahead) {
    assert_eq!(sum.len(), more.len(), "a sum of another length");
    let (lines, rest) = sum.as_chunks_mut::<LINE>();
    let (more_lines, more_rest) = more.as_chunks::<LINE>();
    let own = Ahead::new(lines.as_ptr().cast(), lines.len() * LINE);
    for (at, (sum, more)) in lines.iter_mut().zip(more_lines).enumerate() {
        own.line(at + OWN);
        ahead.line(at);
        add_bytes(sum, more);
    }
    add_bytes(rest, more_rest);
}

#[inline(always)]
fn add_bytes(sum: &mut [u8], more: &[u8]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum ^= more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_one_whatever_is_fetched() {
        let from: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
        for len in [0, 1, 63, 64, 65, 640, 1000] {
            for bytes in [0, 1, 1000] {
                let ahead = Ahead::new(from.as_ptr(), bytes);
                let mut into = vec![0xff; len];
                copy(&mut into, &from[..len], ahead);
                assert_eq!(into, from[..len], "{len} bytes, {ahead:?}");
            }
        }
    }

    #[test]
    fn what_is_stored_and_what_has_changed_come_out_whatever_is_fetched() {
        let old: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
        let new: Vec<u8> = (0..1000).map(|i| (i % 7 * 31) as u8).collect();
        for len in [0, 1, 63, 64, 65, 640, 1000] {
            for bytes in [0, 1, 1000] {
                let ahead = Ahead::new(old.as_ptr(), bytes);
                let (mut stored, mut given) = (old[..len].to_vec(), new[..len].to_vec());
                exchange(&mut stored, &mut given, ahead);
                assert_eq!(stored, new[..len], "{len} bytes, {ahead:?}");
                let change = old.iter().zip(&new).map(|(a, b)| a ^ b);
                assert_eq!(given, change.take(len).collect::<Vec<_>>());
                add(&mut stored, &given, ahead);
                assert_eq!(stored, old[..len], "{len} bytes, {ahead:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "another length")]
    fn lengths_that_differ_are_a_bug() {
        copy(&mut [0; 2], &[0; 3], Ahead::NOTHING);
    }
}
