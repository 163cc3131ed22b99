//! Physical region pages: how a transfer's memory is told to the device (Base 4.1.1).
//!
//! A transfer is a row of pages of 4 KiB. Only its first page may be entered in the middle, and only
//! its last may be left before its end; what is cut in another way can't be said, and goes into
//! several commands, or through a buffer.

use crate::memory::DeviceMemory;

/// Bytes of a page: CC.MPS is 0.
pub(super) const PAGE: u64 = 4096;

/// What an address in the first entry must be a multiple of, in bytes.
const ALIGN: u64 = 4;

/// Where the list of one command is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    /// The memory.
    pub(super) memory: &'a DeviceMemory,
    /// First word of the list.
    pub(super) first: usize,
    /// Entries that there is room for. The room must not cross a page.
    pub(super) capacity: usize,
    /// The device's address of the list.
    pub(super) address: u64,
}

/// The two entries of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prps {
    /// First entry.
    pub(super) first: u64,
    /// Second entry: nothing, a page, or the list.
    pub(super) second: u64,
    /// Bytes that they stand for.
    pub(super) len: usize,
}

/// Says a transfer of one piece that is within two pages, as most are; `None` for any other.
pub(super) fn one_piece(address: u64, len: usize) -> Option<Prps> {
    let end = address % PAGE + len as u64;
    (address.is_multiple_of(ALIGN) && end <= 2 * PAGE).then(|| Prps {
        first: address,
        second: match end > PAGE {
            true => address - address % PAGE + PAGE,
            false => 0,
        },
        len,
    })
}

/// Says as much of a transfer as one command can, at most `limit` bytes and a multiple of `block`
/// bytes. `chunks` are the device's addresses of its bytes, in order: address and length.
///
/// `None` where not even one block can be said: then it has to go through a buffer.
pub(super) fn build(
    chunks: impl Iterator<Item = (u64, usize)>,
    limit: usize,
    block: usize,
    list: List<'_>,
) -> Option<Prps> {
    let mut first = 0;
    // Pages after the first, and the first of those.
    let mut more = 0;
    let mut second = 0;
    let mut total = 0;
    let mut end = 0;
    'chunks: for (address, len) in chunks {
        let len = len.min(limit - total);
        if len == 0 {
            continue;
        }
        if total == 0 {
            if !address.is_multiple_of(ALIGN) {
                break;
            }
            first = address;
        } else if address != end && !(end.is_multiple_of(PAGE) && address.is_multiple_of(PAGE)) {
            break;
        }
        // Every page that begins in this chunk, but for one that `first` stands for.
        let mut page = match total {
            0 => address - address % PAGE + PAGE,
            _ => address.next_multiple_of(PAGE),
        };
        while page < address + len as u64 {
            if more == 0 {
                second = page;
            } else {
                if more == list.capacity {
                    total += (page - address) as usize;
                    break 'chunks;
                }
                if more == 1 {
                    list.memory.store(list.first, second);
                }
                list.memory.store(list.first + more, page);
            }
            more += 1;
            page += PAGE;
        }
        total += len;
        end = address + len as u64;
        if total == limit {
            break;
        }
    }
    let len = total - total % block;
    if len == 0 {
        return None;
    }
    let pages = (first % PAGE + len as u64).div_ceil(PAGE);
    let second = match pages {
        1 => 0,
        2 => second,
        _ => list.address,
    };
    Some(Prps { first, second, len })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::{Arena, Pool};

    const LIST_AT: u64 = 0xABCD_E000;

    fn memory() -> DeviceMemory {
        let arena = Arena::ordinary(4096).unwrap();
        DeviceMemory::new(Pool::new(&arena, 4096, 1).unwrap().take().unwrap())
    }

    fn list(memory: &DeviceMemory, capacity: usize) -> List<'_> {
        List {
            memory,
            first: 0,
            capacity,
            address: LIST_AT,
        }
    }

    /// What the specification makes of two entries: the address of every byte.
    fn read(prps: Prps, memory: &DeviceMemory) -> Vec<u64> {
        let mut bytes = Vec::new();
        let mut page = prps.first;
        let mut next = 0;
        let last = prps.first % PAGE + prps.len as u64 <= 2 * PAGE;
        while bytes.len() < prps.len {
            let until = page - page % PAGE + PAGE;
            let count = (until - page).min((prps.len - bytes.len()) as u64);
            bytes.extend(page..page + count);
            page = if last {
                prps.second
            } else {
                assert_eq!(prps.second, LIST_AT);
                memory.load(next)
            };
            next += 1;
            if bytes.len() < prps.len {
                assert_eq!(page % PAGE, 0, "only the first page has an offset");
            }
        }
        bytes
    }

    /// How many bytes can be said, told byte by byte.
    fn sayable(bytes: &[u64], block: usize, capacity: usize) -> usize {
        if bytes.is_empty() || !bytes[0].is_multiple_of(4) {
            return 0;
        }
        let mut pages = 1;
        let mut said = 1;
        while said < bytes.len() {
            let (before, at) = (bytes[said - 1], bytes[said]);
            let begins = at % PAGE == 0;
            let follows = at == before + 1;
            let jumps = begins && (before + 1) % PAGE == 0;
            if !follows && !jumps {
                break;
            }
            if begins {
                if pages > capacity {
                    break;
                }
                pages += 1;
            }
            said += 1;
        }
        said - said % block
    }

    #[test]
    fn one_two_and_many_pages() {
        let memory = memory();
        let build = |chunks: &[(u64, usize)]| {
            build(chunks.iter().copied(), 1 << 20, 512, list(&memory, 256)).unwrap()
        };
        let prps = build(&[(0x1200, 0xe00)]);
        assert_eq!((prps.first, prps.second, prps.len), (0x1200, 0, 0xe00));
        let prps = build(&[(0x1200, 0xe00), (0x9000, 0x200)]);
        assert_eq!((prps.first, prps.second), (0x1200, 0x9000));
        let prps = build(&[(0x1200, 0xe00), (0x9000, 0x1000), (0x5000, 0x1000)]);
        assert_eq!((prps.first, prps.second), (0x1200, LIST_AT));
        assert_eq!((memory.load(0), memory.load(1)), (0x9000, 0x5000));
    }

    #[test]
    fn one_piece_within_two_pages_is_said_as_any_other() {
        let memory = memory();
        for address in [0x1000, 0x1200, 0x1ffc, 0x1ffe, 0x1001] {
            for len in [512, 3584, 4096, 4608, 8192, 8704] {
                let whole = build([(address, len)].into_iter(), len, 512, list(&memory, 4));
                let short = whole.filter(|_| address % PAGE + len as u64 <= 2 * PAGE);
                assert_eq!(one_piece(address, len), short, "{address:#x}, {len}");
            }
        }
    }

    #[test]
    fn what_cannot_be_said_is_cut_or_refused() {
        let memory = memory();
        let build =
            |chunks: &[(u64, usize)]| build(chunks.iter().copied(), 8192, 512, list(&memory, 2));
        // A second piece that does not begin a page.
        assert_eq!(build(&[(0x1000, 512), (0x3200, 512)]).unwrap().len, 512);
        // Not a block before the cut, and an odd address.
        assert_eq!(build(&[(0x1000, 100), (0x3200, 412)]), None);
        assert_eq!(build(&[(0x1002, 512)]), None);
        assert_eq!(build(&[]), None);
        // The limit.
        assert_eq!(build(&[(0x1000, 1 << 20)]).unwrap().len, 8192);
    }

    proptest! {
        /// Against the specification read byte by byte: what is said is the beginning of the
        /// transfer, and as long as it can be.
        #[test]
        fn prps_say_the_transfer(
            pieces in prop::collection::vec(
                (0u64..40, prop_oneof![3 => Just(0u64), 1 => 0u64..4096], prop_oneof![
                    2 => (1usize..4).prop_map(|p| p * 4096),
                    1 => (1usize..9).prop_map(|b| b * 512),
                    1 => 0usize..5000,
                ], any::<bool>()),
                0..6,
            ),
            block in prop_oneof![Just(512usize), Just(4096)],
            limit in 1usize..10,
            capacity in 1usize..9,
        ) {
            let limit = limit * 4096;
            let mut chunks: Vec<(u64, usize)> = Vec::new();
            for (page, offset, len, follow) in pieces {
                // Some begin where the piece before ends.
                let address = match chunks.last() {
                    Some(&(at, len)) if follow => at + len as u64,
                    _ => (page + 1) * PAGE + offset,
                };
                chunks.push((address, len));
            }
            let bytes: Vec<u64> =
                chunks.iter().flat_map(|&(at, len)| at..at + len as u64).take(limit).collect();
            let memory = memory();
            let expected = sayable(&bytes, block, capacity);
            match build(chunks.iter().copied(), limit, block, list(&memory, capacity)) {
                None => prop_assert_eq!(expected, 0),
                Some(prps) => {
                    prop_assert_eq!(prps.len, expected);
                    prop_assert_eq!(&read(prps, &memory)[..], &bytes[..prps.len]);
                }
            }
        }
    }
}
