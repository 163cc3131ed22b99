//! Walking the buffers of a request, whatever their cuts, in step with a medium.

use smallvec::SmallVec;

use crate::memory::{self, Ahead, Buf, BufMut};
use crate::xor;

/// Most bytes that are fetched from a medium in memory while those before them are copied.
const AHEAD: usize = 4096;

/// Fills scattered buffers in order.
#[derive(Debug)]
pub(super) struct Scatter<'a> {
    segments: &'a mut [BufMut],
    at: usize,
}

impl<'a> Scatter<'a> {
    pub(super) fn new(segments: &'a mut [BufMut]) -> Self {
        Self { segments, at: 0 }
    }

    /// The next piece in one buffer, at most `len` bytes of it. Panics when all is full.
    fn piece(&mut self, len: usize) -> &mut [u8] {
        while self.at == self.segments[0].len() {
            self.segments = &mut std::mem::take(&mut self.segments)[1..];
            self.at = 0;
        }
        let start = self.at;
        let len = len.min(self.segments[0].len() - start);
        self.at += len;
        &mut self.segments[0][start..start + len]
    }

    /// Passes over the next `len` bytes.
    pub(super) fn skip(&mut self, mut len: usize) {
        while len > 0 {
            len -= self.piece(len).len();
        }
    }

    /// Puts `bytes` into the next bytes of the buffers. What is for the next buffer is fetched while one is filled.
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = self.piece(bytes.len());
            let (now, later) = bytes.split_at(piece.len());
            memory::fetch(&later[..later.len().min(AHEAD)]);
            piece.copy_from_slice(now);
            bytes = later;
        }
    }

    /// Swaps `stored` with the next bytes of the buffers, and XORs to these what they were.
    pub(super) fn exchange(&mut self, mut stored: &mut [u8]) {
        while !stored.is_empty() {
            let piece = self.piece(stored.len());
            let (now, later) = std::mem::take(&mut stored).split_at_mut(piece.len());
            memory::exchange(now, piece, Ahead::NOTHING);
            stored = later;
        }
    }
}

/// Takes from scattered buffers in order.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    segments: &'a [Buf],
    at: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(segments: &'a [Buf]) -> Self {
        Self { segments, at: 0 }
    }

    /// The next piece in one buffer, at most `len` bytes of it. Panics when all is taken.
    fn piece(&mut self, len: usize) -> &'a [u8] {
        while self.at == self.segments[0].len() {
            self.segments = &self.segments[1..];
            self.at = 0;
        }
        let rest = &self.segments[0][self.at..];
        let piece = &rest[..len.min(rest.len())];
        self.at += piece.len();
        piece
    }

    /// Passes over the next `len` bytes.
    pub(super) fn skip(&mut self, mut len: usize) {
        while len > 0 {
            len -= self.piece(len).len();
        }
    }

    /// Fills `bytes` from the next bytes of the buffers.
    pub(super) fn take(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let piece = self.piece(bytes.len());
            let (now, later) = std::mem::take(&mut bytes).split_at_mut(piece.len());
            now.copy_from_slice(piece);
            bytes = later;
        }
    }

    /// XORs the next bytes of the buffers to `sum`.
    pub(super) fn add(&mut self, mut sum: &mut [u8]) {
        while !sum.is_empty() {
            let piece = self.piece(sum.len());
            let (now, later) = std::mem::take(&mut sum).split_at_mut(piece.len());
            memory::add(now, piece, Ahead::NOTHING);
            sum = later;
        }
    }

    /// [`Gather::take`] around the caches. By itself: small requests go past it.
    #[inline(never)]
    pub(super) fn take_uncached(&mut self, bytes: &mut [u8]) {
        let mut pieces = SmallVec::<[&[u8]; 16]>::new();
        let mut left = bytes.len();
        while left > 0 {
            let piece = self.piece(left);
            left -= piece.len();
            pieces.push(piece);
        }
        xor::fill_uncached(bytes, &pieces);
    }

    /// Whether the next bytes of the buffers are `bytes`.
    pub(super) fn matches(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = self.piece(bytes.len());
            let (now, later) = bytes.split_at(piece.len());
            if now != piece {
                return false;
            }
            bytes = later;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, Pool, Segments, SegmentsMut};

    /// Buffers of 1, 0, 5 and 4 bytes.
    fn buffers() -> SegmentsMut {
        let pool = Pool::new(&Arena::ordinary(4096).unwrap(), 4096, 1).unwrap();
        let mut a = pool.take().unwrap();
        let mut b = a.split_off(1);
        let mut c = b.split_off(0);
        let mut d = c.split_off(5);
        d.truncate(4);
        SegmentsMut::from_iter([a, b, c, d])
    }

    #[test]
    fn cuts_do_not_matter() {
        let mut read = buffers();
        let mut scatter = Scatter::new(&mut read);
        scatter.put(&[1, 2, 3]);
        scatter.put(&[]);
        scatter.put(&[4, 5, 6, 7, 8, 9, 10]);
        let mut scatter = Scatter::new(&mut read);
        scatter.skip(5);
        scatter.put(&[6]);
        assert_eq!(read[0][..], [1]);
        assert_eq!(read[2][..], [2, 3, 4, 5, 6]);
        assert_eq!(read[3][..], [7, 8, 9, 10]);

        let write: Segments = read.into_iter().map(BufMut::freeze).collect();
        let mut gather = Gather::new(&write);
        let (mut head, mut tail) = ([0; 4], [0; 6]);
        gather.take(&mut head);
        gather.take(&mut tail);
        assert_eq!((head, tail), ([1, 2, 3, 4], [5, 6, 7, 8, 9, 10]));
        let mut gather = Gather::new(&write);
        let (mut head, mut tail) = ([0; 4], [0; 6]);
        gather.take_uncached(&mut head);
        gather.take_uncached(&mut tail);
        assert_eq!((head, tail), ([1, 2, 3, 4], [5, 6, 7, 8, 9, 10]));
        let mut gather = Gather::new(&write);
        assert!(gather.matches(&[1, 2, 3, 4, 5, 6, 7]));
        assert!(!gather.matches(&[8, 9, 11]));
        let mut gather = Gather::new(&write);
        gather.skip(0);
        gather.skip(6);
        assert!(gather.matches(&[7, 8]));
    }
}
