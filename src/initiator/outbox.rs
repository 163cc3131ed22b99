//! What waits to be sent: headers in one stretch of bytes, payload left where it is.

use std::collections::VecDeque;
use std::io::IoSlice;

use smallvec::SmallVec;

/// Slices of one gathered send at most.
pub const MOST_SLICES: usize = 256;

/// Sent headers are thrown away once there are this many bytes of them.
const COMPACT_AT: usize = 64 * 1024;

/// Bytes of a command that are copied: its capsule, the headers of a few PDUs with data, and their digests.
const INLINE: usize = 256;

/// Pieces of what a command has to send: headers, data and digests of two PDUs.
const PIECES: usize = 6;

/// The slices of one gathered send.
pub type Gathered<'a> = SmallVec<[IoSlice<'a>; MOST_SLICES]>;

#[derive(Clone, Copy, Debug)]
enum Piece {
    /// Bytes of `inline`, which begin at this place of the stream of all inline bytes.
    Inline { start: u64, end: u64 },
    /// Bytes of the payload of a command.
    Payload { slot: u16, start: u32, end: u32 },
}

/// The bytes to be sent, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    inline: Vec<u8>,
    /// Place of `inline[0]` in the stream of all inline bytes.
    base: u64,
    pieces: VecDeque<Piece>,
}

impl Outbox {
    /// Nothing to be sent yet, and room for what so many commands have to send at once, in capsules and in answer to an
    /// R2T each.
    pub fn new(depth: u16) -> Self {
        let depth = usize::from(depth);
        Self {
            inline: Vec::with_capacity(COMPACT_AT + depth * INLINE),
            base: 0,
            pieces: VecDeque::with_capacity(depth * PIECES),
        }
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets what has not been sent.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.base += self.inline.len() as u64;
        self.inline.clear();
    }

    /// Appends bytes, which are copied.
    pub fn push(&mut self, bytes: &[u8]) {
        let start = self.base + self.inline.len() as u64;
        let end = start + bytes.len() as u64;
        self.inline.extend_from_slice(bytes);
        match self.pieces.back_mut() {
            Some(Piece::Inline { end: last, .. }) if *last == start => *last = end,
            _ if start < end => self.pieces.push_back(Piece::Inline { start, end }),
            _ => {}
        }
    }

    /// Appends the bytes `start..end` of a command's payload, which stay where they are.
    pub fn push_payload(&mut self, slot: u16, start: u32, end: u32) {
        if start < end {
            self.pieces.push_back(Piece::Payload { slot, start, end });
        }
    }

    /// Gathers what to send next. `visit` hands out the bytes of a command's payload.
    pub fn gather<'a>(
        &'a self,
        mut visit: impl FnMut(u16, usize, usize, &mut dyn FnMut(&'a [u8])),
    ) -> Gathered<'a> {
        let mut slices = Gathered::new();
        for piece in &self.pieces {
            if slices.len() >= MOST_SLICES {
                break;
            }
            match *piece {
                Piece::Inline { start, end } => {
                    let range = (start - self.base) as usize..(end - self.base) as usize;
                    slices.push(IoSlice::new(&self.inline[range]));
                }
                Piece::Payload { slot, start, end } => {
                    visit(slot, start as usize, end as usize, &mut |bytes| {
                        slices.push(IoSlice::new(bytes));
                    });
                }
            }
        }
        slices.truncate(MOST_SLICES);
        slices
    }

    /// Strikes out the first `count` bytes, which were sent, and tells how many of which payload.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn sent(&mut self, count: usize, mut of_payload: impl FnMut(u16, u32)) {
        let mut left = count as u64;
        while left > 0 {
            let piece = self.pieces.front_mut().expect("no more is sent than waits");
            let whole = match piece {
                Piece::Inline { start, end } => {
                    let some = left.min(*end - *start);
                    *start += some;
                    left -= some;
                    start == end
                }
                Piece::Payload { slot, start, end } => {
                    let some = left.min(u64::from(*end - *start)) as u32;
                    *start += some;
                    left -= u64::from(some);
                    of_payload(*slot, some);
                    start == end
                }
            };
            if whole {
                self.pieces.pop_front();
            }
        }
        self.compact();
    }

    fn compact(&mut self) {
        let waiting = self.pieces.iter().find_map(|piece| match piece {
            Piece::Inline { start, .. } => Some(*start),
            Piece::Payload { .. } => None,
        });
        let end = self.base + self.inline.len() as u64;
        let first = waiting.unwrap_or(end);
        let sent = (first - self.base) as usize;
        if first == end {
            self.inline.clear();
        } else if sent >= COMPACT_AT {
            self.inline.drain(..sent);
        } else {
            return;
        }
        self.base = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent_bytes(slices: &Gathered<'_>) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn neighbouring_headers_are_one_slice() {
        let mut outbox = Outbox::new(1);
        outbox.push(b"abc");
        outbox.push(b"def");
        outbox.push_payload(3, 10, 20);
        outbox.push(b"g");
        let payload = [7u8; 32];
        let slices = outbox.gather(|slot, start, end, out| {
            assert_eq!(slot, 3);
            out(&payload[start..end]);
        });
        let lengths: Vec<usize> = slices.iter().map(|s| s.len()).collect();
        assert_eq!(lengths, [6, 10, 1]);
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_whatever_the_socket_takes(
            pieces in prop::collection::vec((any::<bool>(), 0..40_000u32), 0..40),
            takes in prop::collection::vec(1..60_000usize, 1..40),
        ) {
            let payload: Vec<u8> = (0..40_000u32).map(|i| (i * 7) as u8).collect();
            let mut outbox = Outbox::new(1);
            let (mut expected, mut received) = (Vec::new(), Vec::new());
            let mut of_payload = 0;
            let mut takes = takes.iter().cycle();
            for (index, (inline, size)) in pieces.iter().enumerate() {
                if *inline {
                    let bytes = vec![index as u8; *size as usize / 16];
                    outbox.push(&bytes);
                    expected.extend(bytes);
                } else {
                    outbox.push_payload(index as u16, size / 2, *size);
                    expected.extend(&payload[*size as usize / 2..*size as usize]);
                    of_payload += u64::from(size - size / 2);
                }
                let last = index + 1 == pieces.len();
                while (last && !outbox.is_empty()) || index % 3 == 2 && !outbox.is_empty() {
                    let bytes = sent_bytes(&outbox.gather(|_, s, e, out| out(&payload[s..e])));
                    let count = bytes.len().min(*takes.next().unwrap());
                    received.extend_from_slice(&bytes[..count]);
                    outbox.sent(count, |_, bytes| of_payload -= u64::from(bytes));
                    if !last {
                        break;
                    }
                }
            }
            prop_assert_eq!(received, expected);
            prop_assert_eq!(of_payload, 0);
        }
    }
}
