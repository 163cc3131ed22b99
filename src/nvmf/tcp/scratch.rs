//! Where bytes arrive of which it is not yet known what they are.

/// Bytes received and not yet looked at, in one piece.
#[derive(Debug)]
pub(super) struct Scratch {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Scratch {
    pub(super) fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// Makes it larger, keeping what is in it.
    pub(super) fn grow(&mut self, size: usize) {
        if size <= self.bytes.len() {
            return;
        }
        let mut larger = vec![0; size].into_boxed_slice();
        let len = self.end - self.start;
        larger[..len].copy_from_slice(self.filled());
        self.bytes = larger;
        self.start = 0;
        self.end = len;
    }

    /// What is in it.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Forgets the first bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end, "more was consumed than is there");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for more bytes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        // A PDU header that is cut off at the end is the common case; it is small.
        if self.start > 0 && self.bytes.len() - self.end < self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// Bytes were put at the front of the room.
    pub(super) fn fill(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= self.bytes.len(), "more was filled than fits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut scratch = Scratch::new(8);
        let mut next_in = 0u8;
        let mut next_out = 0u8;
        for step in 0..200 {
            let room = scratch.room();
            let taken = room.len().min(1 + step % 5);
            for byte in &mut room[..taken] {
                *byte = next_in;
                next_in = next_in.wrapping_add(1);
            }
            scratch.fill(taken);
            if step == 100 {
                scratch.grow(16);
            }
            let given = scratch.filled().len().min(1 + step % 3);
            for &byte in &scratch.filled()[..given] {
                assert_eq!(byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            scratch.consume(given);
        }
        assert!(next_out > 100);
    }
}
