//! Every kernel that this CPU can run, against a loop over bytes.

use std::panic::catch_unwind;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The definition: byte `i` of the result is the XOR of byte `i` of every block.
fn naive(blocks: &[&[u8]]) -> Vec<u8> {
    let mut result = vec![0; blocks[0].len()];
    for block in blocks {
        for i in 0..result.len() {
            result[i] ^= block[i];
        }
    }
    result
}

/// Bytes without a pattern that a misplaced read could hit by chance.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The widest lane of any kernel; misalignment is counted from its multiples.
const LANE: usize = 64;

/// Where a buffer has to be entered to be `misaligned` bytes past a multiple of [`LANE`].
fn entry(buffer: &[u8], misaligned: usize) -> usize {
    buffer.as_ptr().align_offset(LANE) + misaligned
}

/// Sources of `len` bytes, each at its own misalignment.
struct Blocks {
    buffers: Vec<Vec<u8>>,
    offsets: Vec<usize>,
    len: usize,
}

impl Blocks {
    fn new(len: usize, misaligned: &[usize], seed: u64) -> Self {
        let buffers: Vec<_> = misaligned
            .iter()
            .enumerate()
            .map(|(i, by)| noise(LANE + by + len, seed + i as u64))
            .collect();
        let offsets = buffers
            .iter()
            .zip(misaligned)
            .map(|(buffer, &by)| entry(buffer, by))
            .collect();
        Self {
            buffers,
            offsets,
            len,
        }
    }

    fn slices(&self) -> Vec<&[u8]> {
        self.buffers
            .iter()
            .zip(&self.offsets)
            .map(|(buffer, &at)| &buffer[at..at + self.len])
            .collect()
    }
}

/// A destination with noise on both sides, which must stay as it was.
struct Guarded {
    before: Vec<u8>,
    now: Vec<u8>,
    at: usize,
    len: usize,
}

impl Guarded {
    fn new(len: usize, misaligned: usize) -> Self {
        let before = noise(LANE + misaligned + len + 80, 99);
        let now = before.clone();
        Self {
            at: entry(&now, misaligned),
            now,
            before,
            len,
        }
    }

    fn block(&mut self) -> &mut [u8] {
        &mut self.now[self.at..self.at + self.len]
    }

    fn held_before(&self) -> &[u8] {
        &self.before[self.at..self.at + self.len]
    }

    fn check(&self, expected: &[u8], what: &str) {
        let end = self.at + self.len;
        assert!(self.now[self.at..end] == *expected, "{what}: wrong result");
        assert!(
            self.now[..self.at] == self.before[..self.at],
            "{what}: wrote before the block"
        );
        assert!(
            self.now[end..] == self.before[end..],
            "{what}: wrote after the block"
        );
    }
}

/// All operations of one kernel on one set of sources.
fn check_all(kernel: &Kernel, blocks: &Blocks, dst_at: usize) {
    let sources = blocks.slices();
    let what = format!(
        "{}, {} sources of {} bytes, dst at {dst_at}",
        kernel.name(),
        sources.len(),
        blocks.len
    );
    let sum = naive(&sources);

    let mut dst = Guarded::new(blocks.len, dst_at);
    kernel.xor_into(dst.block(), &sources);
    dst.check(&sum, &format!("xor_into, {what}"));

    let mut dst = Guarded::new(blocks.len, dst_at);
    kernel.xor_into_uncached(dst.block(), &sources);
    dst.check(&sum, &format!("xor_into_uncached, {what}"));

    let pieces: Vec<&[u8]> = sources[0].chunks(100).collect();
    let mut dst = Guarded::new(blocks.len, dst_at);
    kernel.fill_uncached(dst.block(), &pieces);
    dst.check(sources[0], &format!("fill_uncached by 100 bytes, {what}"));
    let (head, tail) = sources[0].split_at((blocks.len / 2) & !63);
    let mut dst = Guarded::new(blocks.len, dst_at);
    kernel.fill_uncached(dst.block(), &[head, tail]);
    dst.check(sources[0], &format!("fill_uncached by halves, {what}"));

    let mut dst = Guarded::new(blocks.len, dst_at);
    kernel.xor_assign(dst.block(), &sources);
    dst.check(
        &naive(&[dst.held_before(), &sum]),
        &format!("xor_assign, {what}"),
    );

    assert_eq!(
        kernel.equal_xor(&sources),
        sum.iter().all(|&byte| byte == 0),
        "equal_xor, {what}"
    );
    let whole: Vec<_> = sources.iter().copied().chain([&sum[..]]).collect();
    assert!(
        kernel.equal_xor(&whole),
        "equal_xor with the parity, {what}"
    );
}

#[test]
fn every_small_length() {
    for kernel in Kernel::available() {
        for len in 0..=300 {
            for count in [1, 2, 3, 4, 5, 8, 9, 13] {
                let misaligned: Vec<_> = (0..count).map(|i| (len + i * 11) % 64).collect();
                check_all(
                    kernel,
                    &Blocks::new(len, &misaligned, len as u64),
                    len % 3 * 16,
                );
            }
        }
    }
}

#[test]
fn lengths_around_every_stretch() {
    for kernel in Kernel::available() {
        for stretch in [256, 512, 1024, 2048, 4096] {
            for len in [
                stretch - 65,
                stretch - 1,
                stretch,
                stretch + 1,
                stretch + 63,
                stretch + 64,
                stretch + 97,
            ] {
                check_all(kernel, &Blocks::new(len, &[0, 1, 63], 7), 5);
            }
        }
    }
}

#[test]
fn every_misalignment() {
    for kernel in Kernel::available() {
        for at in 0..LANE {
            check_all(kernel, &Blocks::new(777, &[at, 0, 0], 1), 0);
            check_all(kernel, &Blocks::new(777, &[0, at, 0], 2), 0);
            check_all(kernel, &Blocks::new(777, &[0, 0, at], 3), 0);
            check_all(kernel, &Blocks::new(777, &[0, 0, 0], 4), at);
            check_all(kernel, &Blocks::new(777, &[at, at, at], 5), at);
        }
    }
}

#[test]
fn every_source_count() {
    for kernel in Kernel::available() {
        for count in 1..=64 {
            let misaligned: Vec<_> = (0..count).map(|i| i * 7 % 64).collect();
            for len in [31, 512, 4096, 4701, 8192, 10_003, 16_384, 17_999] {
                check_all(
                    kernel,
                    &Blocks::new(len, &misaligned, count as u64),
                    count % 4 * 16,
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_blocks(len in 0..20_000usize, misaligned in vec(0..LANE, 1..=64), dst_at in prop_oneof![Just(0), 0..LANE], seed in 1..u64::MAX / 2) {
        let blocks = Blocks::new(len, &misaligned, seed);
        for kernel in Kernel::available() {
            check_all(kernel, &blocks, dst_at);
        }
    }

    #[test]
    fn one_flipped_bit_shows(
        len in 1..20_000usize,
        misaligned in vec(0..LANE, 1..=16),
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut blocks = Blocks::new(len, &misaligned, 3);
        let parity = naive(&blocks.slices());
        let (which, place) = (which.index(misaligned.len()), place.index(len));
        let at = blocks.offsets[which] + place;
        blocks.buffers[which][at] ^= 1u8 << bit;
        let mut whole = blocks.slices();
        whole.push(&parity);
        for kernel in Kernel::available() {
            prop_assert!(!kernel.equal_xor(&whole), "{} missed byte {} of source {}", kernel.name(), place, which);
        }
    }
}

#[test]
fn a_single_bit_anywhere_is_not_zero() {
    for kernel in Kernel::available() {
        for len in (0..=300).chain([512, 1023, 1024, 2111]) {
            let mut block = vec![0; len];
            assert!(kernel.is_zero(&block), "{}: {len} zeroes", kernel.name());
            for i in 0..len {
                block[i] = 1 << (i % 8);
                assert!(
                    !kernel.is_zero(&block),
                    "{}: byte {i} of {len}",
                    kernel.name()
                );
                block[i] = 0;
            }
        }
    }
}

#[test]
fn one_source_is_a_copy_and_two_equal_ones_cancel() {
    for kernel in Kernel::available() {
        let block = noise(4096, 5);
        let mut dst = vec![0xff; 4096];
        kernel.xor_into(&mut dst, &[&block]);
        assert_eq!(dst, block);
        kernel.xor_assign(&mut dst, &[&block]);
        assert_eq!(dst, vec![0; 4096]);
        assert!(kernel.equal_xor(&[&block, &block]));
        assert!(!kernel.equal_xor(&[&block]));
    }
}

#[test]
fn read_modify_write_moves_parity_from_old_data_to_new() {
    for kernel in Kernel::available() {
        let (a, old, new) = (noise(4096, 1), noise(4096, 2), noise(4096, 3));
        let mut parity = naive(&[&a, &old]);
        kernel.xor_assign(&mut parity, &[&old, &new]);
        assert_eq!(parity, naive(&[&a, &new]));
    }
}

#[test]
fn wrong_calls_panic_instead_of_reading_outside() {
    let long = [0; 4096];
    let short = [0; 4095];
    for kernel in Kernel::available() {
        let into = |len: usize, sources: &[&[u8]]| {
            let caught = catch_unwind(|| kernel.xor_into(&mut vec![0; len], sources)).is_err();
            assert_eq!(
                caught,
                catch_unwind(|| kernel.xor_assign(&mut vec![0; len], sources)).is_err()
            );
            caught
        };
        assert!(!into(4096, &[&long, &long]));
        assert!(into(4096, &[]));
        assert!(into(0, &[]));
        assert!(into(4096, &[&long, &short]));
        assert!(into(4096, &[&short, &long]));
        assert!(into(4095, &[&long]));
        assert!(catch_unwind(|| kernel.equal_xor(&[])).is_err());
        assert!(catch_unwind(|| kernel.equal_xor(&[&long, &short])).is_err());
        assert!(catch_unwind(|| kernel.equal_xor(&[&short, &long])).is_err());
    }
}

/// Memory between two pages that can't be touched, so that a read one byte outside is a fault.
#[cfg(target_os = "linux")]
struct Walled {
    map: *mut u8,
}

#[cfg(target_os = "linux")]
impl Walled {
    const ROOM: usize = 64 << 10;
    /// The largest page of the supported architectures.
    const WALL: usize = 64 << 10;

    fn new() -> Self {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let all = Self::WALL + Self::ROOM + Self::WALL;
        // SAFETY: a new mapping; only its middle is made accessible.
        let map = unsafe {
            let map = mmap_anonymous(
                std::ptr::null_mut(),
                all,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
            .unwrap();
            mprotect(
                map.byte_add(Self::WALL),
                Self::ROOM,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
            .unwrap();
            map.cast()
        };
        Self { map }
    }

    fn room(&mut self) -> &mut [u8] {
        // SAFETY: `ROOM` bytes behind the first wall can be read and written, are zeroed, and live as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.map.add(Self::WALL), Self::ROOM) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Walled {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no slice of it outlives `self`.
        unsafe {
            rustix::mm::munmap(self.map.cast(), Self::WALL + Self::ROOM + Self::WALL).unwrap()
        };
    }
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_outside_the_blocks_is_touched() {
    let (mut first, mut second, mut third) = (Walled::new(), Walled::new(), Walled::new());
    for kernel in Kernel::available() {
        let lengths = (0..=300).chain([511, 512, 513, 4095, 4096, 4097, 16_384, 16_895]);
        for (len, count) in lengths.flat_map(|len| [(len, 2), (len, 7)]) {
            for at in [0, Walled::ROOM - len] {
                let block = at..at + len;
                first.room()[block.clone()].copy_from_slice(&noise(len, 1));
                second.room()[block.clone()].copy_from_slice(&noise(len, 2));
                let two = [&first.room()[block.clone()], &second.room()[block.clone()]];
                let sources: Vec<_> = two.into_iter().cycle().take(count).collect();
                let expected = naive(&sources);
                let dst = &mut third.room()[block.clone()];
                kernel.xor_into(dst, &sources);
                assert!(dst == expected);
                dst.fill(0x55);
                kernel.xor_into_uncached(dst, &sources);
                assert!(dst == expected);
                let (head, tail) = expected.split_at(len / 2);
                dst.fill(0x55);
                kernel.fill_uncached(dst, &[head, tail]);
                assert!(dst == expected);
                kernel.xor_assign(dst, &sources);
                assert!(kernel.is_zero(dst));
                assert_eq!(
                    kernel.equal_xor(&sources),
                    expected.iter().all(|&byte| byte == 0)
                );
            }
        }
    }
}

#[test]
fn the_process_uses_the_best_kernel_there_is() {
    assert_eq!(kernel_name(), Kernel::available().next().unwrap().name());
    assert_eq!(Kernel::available().last().unwrap().name(), "portable");
    let (a, b) = (noise(4096, 1), noise(4096, 2));
    let mut parity = vec![0; 4096];
    xor_into(&mut parity, &[&a, &b]);
    assert_eq!(parity, naive(&[&a, &b]));
    assert!(equal_xor(&[&a, &b, &parity]));
    xor_assign(&mut parity, &[&a, &b]);
    assert!(is_zero(&parity));
}
