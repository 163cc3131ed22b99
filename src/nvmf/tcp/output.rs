//! What is to be sent: headers in one buffer, payloads where they lie, in order.

use std::collections::VecDeque;
use std::io::IoSlice;

use smallvec::SmallVec;

use super::slots::SlotId;
use crate::memory::Buf;

/// Pieces of one gathered send.
pub const GATHER: usize = 64;

/// The pieces of one gathered send.
pub type Gathered<'a> = SmallVec<[IoSlice<'a>; GATHER]>;

/// Sent headers are cleared away when there are so many bytes of them.
const CLEAR_AT: usize = 64 << 10;

#[derive(Debug)]
enum Piece {
    /// So many bytes of the header buffer.
    Head(usize),
    /// A payload.
    Payload(Buf),
    /// The data of an admin command.
    Bytes(Vec<u8>),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Head(len) => *len,
            Self::Payload(buffer) => buffer.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The outgoing side of a connection. Bounded by the commands of the queue: each is forgotten only
/// when its answer has left.
#[derive(Debug, Default)]
pub(super) struct Output {
    heads: Vec<u8>,
    /// Bytes of `heads` that are sent.
    sent_heads: usize,
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    sent_of_first: usize,
    /// Bytes put in, and bytes sent, since the beginning.
    queued: u64,
    sent: u64,
    /// Answers in order: where each ends, and the command that it is of.
    answers: VecDeque<(u64, SlotId)>,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that are not sent yet.
    pub(super) fn unsent(&self) -> u64 {
        self.queued - self.sent
    }

    pub(super) fn head(&mut self, bytes: &[u8]) {
        self.heads.extend_from_slice(bytes);
        self.queued += bytes.len() as u64;
        if let Some(Piece::Head(len)) = self.pieces.back_mut() {
            *len += bytes.len();
        } else {
            self.pieces.push_back(Piece::Head(bytes.len()));
        }
    }

    pub(super) fn payload(&mut self, buffer: Buf) {
        self.push(Piece::Payload(buffer));
    }

    pub(super) fn bytes(&mut self, bytes: Vec<u8>) {
        self.push(Piece::Bytes(bytes));
    }

    fn push(&mut self, piece: Piece) {
        if piece.len() > 0 {
            self.queued += piece.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    /// Everything put in so far answers this command.
    pub(super) fn answers(&mut self, slot: SlotId) {
        self.answers.push_back((self.queued, slot));
    }

    /// The next bytes to send.
    pub(super) fn gather(&self) -> Gathered<'_> {
        let mut gathered = Gathered::new();
        let mut head = self.sent_heads;
        let mut skip = self.sent_of_first;
        for piece in self.pieces.iter().take(GATHER) {
            let bytes: &[u8] = match piece {
                Piece::Head(len) => {
                    let end = head + len - skip;
                    let bytes = &self.heads[head..end];
                    head = end;
                    gathered.push(IoSlice::new(bytes));
                    skip = 0;
                    continue;
                }
                Piece::Payload(buffer) => buffer,
                Piece::Bytes(bytes) => bytes,
            };
            gathered.push(IoSlice::new(&bytes[skip..]));
            skip = 0;
        }
        gathered
    }

    /// So many bytes have been sent. Tells every command whose answer has left.
    pub(super) fn sent(&mut self, bytes: usize, mut answered: impl FnMut(SlotId)) {
        self.sent += bytes as u64;
        assert!(self.sent <= self.queued, "more was sent than there was");
        let mut left = bytes;
        while let Some(piece) = self.pieces.front() {
            let rest = piece.len() - self.sent_of_first;
            let taken = left.min(rest);
            if matches!(piece, Piece::Head(_)) {
                self.sent_heads += taken;
            }
            left -= taken;
            if taken < rest {
                self.sent_of_first += taken;
                break;
            }
            self.sent_of_first = 0;
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.heads.clear();
            self.sent_heads = 0;
        } else if self.sent_heads >= CLEAR_AT {
            self.heads.drain(..self.sent_heads);
            self.sent_heads = 0;
        }
        while let Some(&(end, slot)) = self.answers.front()
            && end <= self.sent
        {
            self.answers.pop_front();
            answered(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, Pool};

    /// Whatever the sizes of the sends, the bytes come in order, and each answer is told exactly
    /// when its last byte has left.
    #[test]
    fn any_sizes_of_sends_give_the_same_bytes() {
        let arena = Arena::ordinary(4096).unwrap();
        let pool = Pool::new(&arena, 4096, 1).unwrap();
        for step in 1..40 {
            let mut slot = pool.take().unwrap();
            for (i, byte) in slot.iter_mut().enumerate() {
                *byte = i as u8;
            }
            let slot = slot.freeze();
            let mut output = Output::default();
            output.head(&[1, 2, 3]);
            output.head(&[4]);
            output.payload(slot.slice(10..40));
            output.answers(SlotId(0));
            output.head(&[5, 6]);
            output.answers(SlotId(1));
            output.bytes(vec![7; 5]);
            output.payload(slot.slice(0..0));
            output.head(&[8]);
            output.answers(SlotId(2));
            let expected: Vec<u8> = [1, 2, 3, 4]
                .into_iter()
                .chain(10..40)
                .chain([5, 6, 7, 7, 7, 7, 7, 8])
                .collect();
            assert_eq!(output.unsent(), 42);
            let mut got = Vec::new();
            let mut answered = Vec::new();
            while !output.is_empty() {
                let next: Vec<u8> = output.gather().iter().flat_map(|s| s.to_vec()).collect();
                let taken = next.len().min(step);
                got.extend_from_slice(&next[..taken]);
                output.sent(taken, |slot| answered.push((slot.0, got.len())));
            }
            assert_eq!(got, expected);
            for (slot, end) in [(0, 34), (1, 36), (2, 42)] {
                let at = answered.iter().find(|a| a.0 == slot).unwrap().1;
                assert!((end..end + step).contains(&at));
            }
            assert_eq!(output.unsent(), 0);
        }
    }
}
