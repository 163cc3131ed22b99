//! How a command is told of its memory: by PRPs or by an SGL, whichever says it best.
//!
//! | transfer | told by |
//! |---|---|
//! | within two pages, or of whole pages | PRPs |
//! | one piece of more than two pages | an SGL of one descriptor: nothing for the device to fetch |
//! | anything else | an SGL, if it says more than PRPs do |
//!
//! Without SGLs the last kind takes several commands, or a buffer to go through.

use super::prp::{self, List, Prps};
use super::sgl::{Rules, Sgl};
use crate::nvme::Command;

/// The data pointer of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointer {
    /// Two entries.
    Prps(Prps),
    /// One descriptor.
    Sgl(Sgl),
}

impl Pointer {
    /// Says as much of a transfer as one command can, at most `limit` bytes and a multiple of `block` bytes. `chunks` gives
    /// the device's addresses of its bytes, in order: address and length. `sgls` says whether the controller takes SGLs.
    ///
    /// `None` where not even one block can be said: then it has to go through a buffer.
    pub(super) fn build<I: Iterator<Item = (u64, usize)>>(
        mut chunks: impl FnMut() -> I,
        limit: usize,
        block: usize,
        list: List<'_>,
        sgls: Option<Rules>,
    ) -> Option<Self> {
        if let Some((address, len)) = chunks().next()
            && len >= limit
        {
            if let Some(prps) = prp::one_piece(address, limit) {
                return Some(Self::Prps(prps));
            }
            if let Some(sgl) = sgls.and_then(|rules| rules.one_piece(address, limit)) {
                return Some(Self::Sgl(sgl));
            }
        }
        let prps = prp::build(chunks(), limit, block, list);
        let told = prps.map_or(0, |prps| prps.len);
        let Some(rules) = sgls.filter(|_| told < limit) else {
            return prps.map(Self::Prps);
        };
        match rules.build(chunks(), limit, block, list) {
            Some(sgl) if sgl.len > told => Some(Self::Sgl(sgl)),
            // Once more, because both lists have the same place.
            _ => prp::build(chunks(), limit, block, list).map(Self::Prps),
        }
    }

    /// Bytes that it stands for.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Prps(prps) => prps.len,
            Self::Sgl(sgl) => sgl.len,
        }
    }

    /// The command with this pointer.
    pub(super) fn of(&self, command: Command) -> Command {
        match self {
            Self::Prps(prps) => command.with_prps(prps.first, prps.second),
            Self::Sgl(sgl) => command.with_sgl(sgl.descriptor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, DeviceMemory, Pool};

    #[test]
    fn what_says_it_best_is_taken() {
        let arena = Arena::ordinary(4096).unwrap();
        let memory = DeviceMemory::new(Pool::new(&arena, 4096, 1).unwrap().take().unwrap());
        let list = List {
            memory: &memory,
            first: 0,
            capacity: 256,
            address: 0xA_0000,
        };
        let build = |chunks: &[(u64, usize)], sgls| {
            let limit = chunks.iter().map(|chunk| chunk.1).sum();
            let chunks = || chunks.iter().copied();
            Pointer::build(chunks, limit, 512, list, Rules::of(sgls)).map(|pointer| match pointer {
                Pointer::Prps(prps) => ("PRPs", prps.len),
                Pointer::Sgl(sgl) => ("SGL", sgl.len),
            })
        };
        let any = [0, 1, 2];
        // A page, two, and many that lie anywhere.
        let scattered = [(0x9000, 4096), (0x3000, 4096), (0x5000, 4096)];
        for sgls in any {
            assert_eq!(build(&[(0x1200, 512)], sgls), Some(("PRPs", 512)));
            assert_eq!(build(&[(0x1000, 8192)], sgls), Some(("PRPs", 8192)));
            assert_eq!(build(&scattered, sgls), Some(("PRPs", 12288)));
        }
        let one = [(0x1000, 65536)];
        assert_eq!(
            any.map(|sgls| build(&one, sgls).unwrap().0),
            ["PRPs", "SGL", "SGL"]
        );
        // Cut in a page: between blocks, and inside of one.
        let blocks = [(0x1000, 512), (0x3200, 512)];
        let expected = [("PRPs", 512), ("SGL", 1024), ("SGL", 1024)];
        assert_eq!(any.map(|sgls| build(&blocks, sgls).unwrap()), expected);
        let inside = [(0x1000, 100), (0x3200, 412)];
        let expected = [None, Some(("SGL", 512)), Some(("SGL", 512))];
        assert_eq!(any.map(|sgls| build(&inside, sgls)), expected);
        let odd = [(0x1001, 512)];
        assert_eq!(
            any.map(|sgls| build(&odd, sgls)),
            [None, Some(("SGL", 512)), None]
        );
        // A controller that wants few descriptors: the list of the PRPs is whole.
        let many = [
            (0x9000, 4096),
            (0x3000, 4096),
            (0x5000, 4096),
            (0x8200, 512),
        ];
        assert_eq!(build(&many, 0x0201), Some(("PRPs", 12288)));
        assert_eq!((memory.load(0), memory.load(1)), (0x3000, 0x5000));
    }
}
