//! The data of one command, owned by the queue while the command is in flight.

use crate::memory::{Segments, SegmentsMut};

/// What a command carries, and to where.
#[derive(Debug, Default)]
pub enum Payload {
    /// No data.
    #[default]
    None,
    /// Data from the controller, into these buffers in order.
    Read(SegmentsMut),
    /// This many bytes from the controller, received and thrown away: for measuring.
    Discard(u32),
    /// Data to the controller, from these buffers in order.
    Write(Segments),
}

impl Payload {
    /// Bytes of data.
    pub fn len(&self) -> usize {
        match self {
            Payload::None => 0,
            Payload::Read(segments) => segments.iter().map(|s| s.len()).sum(),
            Payload::Discard(bytes) => *bytes as usize,
            Payload::Write(segments) => segments.iter().map(|s| s.len()).sum(),
        }
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the controller sends the data.
    pub(super) fn is_inbound(&self) -> bool {
        matches!(self, Payload::Read(_) | Payload::Discard(_))
    }

    /// Whether nobody looks at the data.
    pub(super) fn is_discarded(&self) -> bool {
        matches!(self, Payload::Discard(_))
    }

    /// Whether the host sends the data.
    pub(super) fn is_outbound(&self) -> bool {
        matches!(self, Payload::Write(_))
    }

    /// Visits the bytes `start..end` of data to be sent, piece by piece in order.
    pub(super) fn visit<'a>(&'a self, start: usize, end: usize, mut visitor: impl FnMut(&'a [u8])) {
        let Payload::Write(segments) = self else {
            return;
        };
        let mut offset = 0;
        for segment in segments {
            let from = start.clamp(offset, offset + segment.len()) - offset;
            let to = end.clamp(offset, offset + segment.len()) - offset;
            if from < to {
                visitor(&segment[from..to]);
            }
            offset += segment.len();
        }
    }

    /// The buffer for the byte at `offset` of data received, and for what follows it in one piece;
    /// `None` where nothing keeps it.
    pub(super) fn room_at(&mut self, mut offset: usize) -> Option<&mut [u8]> {
        let Payload::Read(segments) = self else {
            return None;
        };
        for segment in segments {
            if offset < segment.len() {
                return Some(&mut segment[offset..]);
            }
            offset -= segment.len();
        }
        None
    }

    /// Keeps received bytes that begin at `offset` of the data.
    pub(super) fn fill(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(room) = self.room_at(offset) else {
                return;
            };
            let some = room.len().min(bytes.len());
            room[..some].copy_from_slice(&bytes[..some]);
            bytes = &bytes[some..];
            offset += some;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, BufMut, Pool};

    fn buffers(sizes: &[usize]) -> SegmentsMut {
        let arena = Arena::ordinary(4096 * sizes.len()).unwrap();
        let pool = Pool::new(&arena, 4096, sizes.len()).unwrap();
        let buffer = |size: &usize| {
            let mut buffer = pool.take().unwrap();
            buffer.truncate(*size);
            buffer
        };
        sizes.iter().map(buffer).collect()
    }

    #[test]
    fn filling_crosses_buffers() {
        let mut payload = Payload::Read(buffers(&[3, 0, 4]));
        assert_eq!(payload.len(), 7);
        payload.fill(1, b"abcde");
        payload.fill(6, b"z");
        let Payload::Read(segments) = payload else {
            unreachable!("made above");
        };
        assert_eq!(segments[0][1..], *b"ab");
        assert_eq!(segments[2][..], *b"cdez");
    }

    #[test]
    fn visiting_crosses_buffers() {
        let mut segments = buffers(&[3, 4]);
        segments[0].copy_from_slice(b"abc");
        segments[1].copy_from_slice(b"defg");
        let payload = Payload::Write(segments.into_iter().map(BufMut::freeze).collect());
        let visited = |start, end| {
            let mut pieces = Vec::new();
            payload.visit(start, end, |piece| pieces.push(piece.to_vec()));
            pieces
        };
        assert_eq!(visited(0, 7), [b"abc".to_vec(), b"defg".to_vec()]);
        assert_eq!(visited(1, 4), [b"bc".to_vec(), b"d".to_vec()]);
        assert_eq!(visited(3, 5), [b"de".to_vec()]);
        assert_eq!(visited(2, 2), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn discarded_data_has_a_size_and_no_room() {
        let mut payload = Payload::Discard(10);
        assert_eq!(payload.len(), 10);
        assert!(payload.room_at(0).is_none());
        payload.fill(0, b"abc");
    }
}
