//! Scatter-gather lists: how a transfer's memory is told where PRPs can't say it (Base, "Scatter Gather List").
//!
//! A transfer is a row of pieces of any length, anywhere. One piece goes into the command itself; more are in a list, which
//! the command calls its last segment.

use super::prp::List;
use crate::nvme::SglDescriptor;
use crate::nvme::identify::IdentifyController;

/// Words of a descriptor in a list.
const WORDS: usize = 2;

/// How a controller takes SGLs, as SGLS of Identify Controller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// What addresses and lengths must be a multiple of, in bytes: 1 or 4.
    align: u64,
    /// Most pieces of a command.
    most: usize,
}

/// An SGL, as the data pointer of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sgl {
    /// The one piece, or where the list is.
    pub(super) descriptor: SglDescriptor,
    /// Bytes that it stands for.
    pub(super) len: usize,
}

impl Rules {
    /// Reads SGLS; `None` where the controller does not take SGLs.
    pub(super) fn of(sgls: u32) -> Option<Self> {
        let align = match sgls & 0b11 {
            IdentifyController::SGLS_SUPPORTED => 1,
            IdentifyController::SGLS_SUPPORTED_DWORD => 4,
            _ => return None,
        };
        // SDT, bits 15:8: more descriptors are not recommended; 0 where it does not say.
        let most = match sgls >> 8 & 0xff {
            0 => usize::MAX,
            most => most as usize,
        };
        Some(Self { align, most })
    }

    /// A transfer of one piece, with no list; `None` where the controller does not take it there.
    pub(super) fn one_piece(self, address: u64, len: usize) -> Option<Sgl> {
        let fits = address.is_multiple_of(self.align) && (len as u64).is_multiple_of(self.align);
        fits.then(|| Sgl {
            descriptor: SglDescriptor::memory(address, len as u32),
            len,
        })
    }

    /// Says as much of a transfer as one command can, at most `limit` bytes, a multiple of `block` bytes and less than 4 GiB.
    /// `chunks` are the device's addresses of its bytes, in order: address and length.
    ///
    /// `None` where not even one block can be said: then it has to go through a buffer.
    pub(super) fn build(
        self,
        chunks: impl Iterator<Item = (u64, usize)>,
        limit: usize,
        block: usize,
        list: List<'_>,
    ) -> Option<Sgl> {
        let room = (list.capacity / WORDS).min(self.most);
        let is_aligned = |(address, len): (u64, usize)| {
            address.is_multiple_of(self.align) && (len as u64).is_multiple_of(self.align)
        };
        let put = |index: usize, (address, len): (u64, usize)| {
            let first = list.first + WORDS * index;
            list.memory.store(first, address);
            // The upper bytes are the descriptor's type: 0 for a data block at an address.
            list.memory.store(first + 1, len as u64);
        };
        let get = |index: usize| {
            let first = list.first + WORDS * index;
            (
                list.memory.load(first),
                list.memory.load(first + 1) as usize,
            )
        };
        let mut pieces = 0;
        let mut last = (0, 0);
        let mut total = 0;
        for (address, len) in chunks {
            let len = len.min(limit - total);
            if len == 0 {
                continue;
            }
            if pieces > 0 && address == last.0 + last.1 as u64 {
                last.1 += len;
            } else {
                if !is_aligned(last) || !is_aligned((address, 0)) || pieces == room {
                    break;
                }
                last = (address, len);
                pieces += 1;
            }
            put(pieces - 1, last);
            total += len;
        }
        // Whole blocks only. With them the last piece is aligned, too.
        let mut extra = total % block;
        while extra > 0 {
            let (address, len) = get(pieces - 1);
            match len <= extra {
                true => pieces -= 1,
                false => put(pieces - 1, (address, len - extra)),
            }
            extra -= len.min(extra);
        }
        let len = total - total % block;
        let descriptor = match pieces {
            0 => return None,
            1 => SglDescriptor::memory(get(0).0, len as u32),
            _ => SglDescriptor::last_segment(list.address, (pieces * WORDS * 8) as u32),
        };
        Some(Sgl { descriptor, len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::{Arena, DeviceMemory, Pool};

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

    /// What the specification makes of the 16 bytes in the command: pieces, address and length.
    fn read(sgl: Sgl, memory: &DeviceMemory) -> Vec<(u64, usize)> {
        let (address, len) = (sgl.descriptor.address.get(), sgl.descriptor.length.get());
        match sgl.descriptor.identifier {
            0x00 => vec![(address, len as usize)],
            0x30 => {
                assert_eq!((address, len % 16), (LIST_AT, 0));
                let mut bytes = vec![0; len as usize];
                memory.copy_to(&mut bytes);
                let pieces = bytes.chunks(16).map(|bytes| {
                    assert_eq!(bytes[12..], [0; 4], "a data block");
                    let address = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                    let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
                    (address, len as usize)
                });
                pieces.collect()
            }
            other => panic!("descriptor {other:#x}"),
        }
    }

    /// How many bytes can be said, told byte by byte.
    fn sayable(bytes: &[u64], block: usize, rules: Rules, capacity: usize) -> usize {
        let most = (capacity / 2).min(rules.most);
        let (mut pieces, mut length) = (0, 0_u64);
        let mut said = 0;
        for (index, &at) in bytes.iter().enumerate() {
            if index > 0 && at == bytes[index - 1] + 1 {
                length += 1;
            } else {
                if length % rules.align != 0 || at % rules.align != 0 || pieces == most {
                    break;
                }
                pieces += 1;
                length = 1;
            }
            said += 1;
        }
        said - said % block
    }

    #[test]
    fn sgls_says_how_they_are_taken() {
        assert_eq!(Rules::of(0), None);
        // Reserved.
        assert_eq!(Rules::of(0b11), None);
        // QEMU's: no alignment, metadata as SGL.
        let (align, most) = (1, usize::MAX);
        assert_eq!(Rules::of(0x0008_0001), Some(Rules { align, most }));
        let (align, most) = (4, 32);
        assert_eq!(Rules::of(0x0000_2002), Some(Rules { align, most }));
    }

    #[test]
    fn one_piece_needs_no_list_and_more_are_a_last_segment() {
        let memory = memory();
        let rules = Rules::of(1).unwrap();
        let build = |chunks: &[(u64, usize)]| {
            let chunks = chunks.iter().copied();
            rules
                .build(chunks, 1 << 20, 512, list(&memory, 256))
                .unwrap()
        };
        let sgl = build(&[(0x1003, 100), (0x1067, 412)]);
        assert_eq!(sgl.descriptor, SglDescriptor::memory(0x1003, 512));
        assert_eq!(sgl, rules.one_piece(0x1003, 512).unwrap());
        let sgl = build(&[(0x1003, 100), (0x5000, 412)]);
        assert_eq!(read(sgl, &memory), [(0x1003, 100), (0x5000, 412)]);
        let dwords = Rules::of(2).unwrap();
        assert_eq!(dwords.one_piece(0x1002, 512), None);
        assert!(dwords.one_piece(0x1004, 512).is_some());
    }

    proptest! {
        /// Against the transfer byte by byte: what is said is its beginning, exactly, in as few pieces as there are, and as
        /// long as it can be.
        #[test]
        fn sgls_say_the_transfer(
            pieces in prop::collection::vec(
                (0u64..40, prop_oneof![
                    2 => Just(0u64), 2 => (0u64..1024).prop_map(|d| d * 4), 1 => 0u64..4096,
                ], prop_oneof![
                    2 => (1usize..4).prop_map(|p| p * 4096),
                    2 => (1usize..200).prop_map(|d| d * 4),
                    1 => (1usize..9).prop_map(|b| b * 512),
                    1 => 0usize..5000,
                ], any::<bool>()),
                0..9,
            ),
            block in prop_oneof![Just(512usize), Just(4096)],
            limit in 1usize..10,
            capacity in 2usize..17,
            dwords in any::<bool>(),
            threshold in prop_oneof![3 => Just(0u32), 1 => 1u32..5],
        ) {
            let limit = limit * 4096;
            let mut chunks: Vec<(u64, usize)> = Vec::new();
            for (page, offset, len, follow) in pieces {
                // Some begin where the piece before ends.
                let address = match chunks.last() {
                    Some(&(at, len)) if follow => at + len as u64,
                    _ => (page + 1) * 4096 + offset,
                };
                chunks.push((address, len));
            }
            let bytes: Vec<u64> =
                chunks.iter().flat_map(|&(at, len)| at..at + len as u64).take(limit).collect();
            let memory = memory();
            let rules = Rules::of(if dwords { 2 } else { 1 } | threshold << 8).unwrap();
            let expected = sayable(&bytes, block, rules, capacity);
            match rules.build(chunks.iter().copied(), limit, block, list(&memory, capacity)) {
                None => prop_assert_eq!(expected, 0),
                Some(sgl) => {
                    prop_assert_eq!(sgl.len, expected);
                    let said = read(sgl, &memory);
                    let is_aligned = |&(at, len): &(u64, usize)| {
                        len > 0 && (at | len as u64).is_multiple_of(rules.align)
                    };
                    prop_assert!(said.iter().all(is_aligned));
                    let said: Vec<u64> =
                        said.iter().flat_map(|&(at, len)| at..at + len as u64).collect();
                    prop_assert_eq!(&said[..], &bytes[..sgl.len]);
                }
            }
        }
    }
}
