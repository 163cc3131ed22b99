//! Where the data of a command goes.

use crate::memory::SegmentsMut;

/// Memory for data from a host.
#[derive(Debug)]
pub enum Sink {
    /// Payload buffers, which go on to a device.
    Buffers(SegmentsMut),
    /// Ordinary memory, for the small data of fabrics and admin commands.
    Heap(Vec<u8>),
}

impl Sink {
    /// Bytes of memory.
    pub fn len(&self) -> usize {
        match self {
            Self::Buffers(segments) => segments.iter().map(|s| s.len()).sum(),
            Self::Heap(bytes) => bytes.len(),
        }
    }

    /// The memory from byte `offset`, at most `len` bytes of it, in order.
    pub(super) fn windows(
        &mut self,
        mut offset: usize,
        mut len: usize,
    ) -> impl Iterator<Item = &mut [u8]> {
        let (segments, heap) = match self {
            Self::Buffers(segments) => (segments.as_mut_slice(), None),
            Self::Heap(bytes) => ([].as_mut_slice(), Some(bytes.as_mut_slice())),
        };
        let all = segments.iter_mut().map(|s| &mut **s).chain(heap);
        all.filter_map(move |bytes| {
            let skipped = offset.min(bytes.len());
            offset -= skipped;
            let bytes = &mut bytes[skipped..];
            let taken = len.min(bytes.len());
            len -= taken;
            (taken > 0).then(|| &mut bytes[..taken])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, Pool};

    #[test]
    fn windows_cover_what_is_asked_for_and_nothing_else() {
        let arena = Arena::ordinary(3 * 4096).unwrap();
        let pool = Pool::new(&arena, 4096, 3).unwrap();
        let segments = (0..3).map(|_| {
            let mut s = pool.take().unwrap();
            s.truncate(10);
            s.fill(0);
            s
        });
        let mut sink = Sink::Buffers(segments.collect());
        assert_eq!(sink.len(), 30);
        let lengths: Vec<usize> = sink.windows(7, 15).map(|w| w.len()).collect();
        assert_eq!(lengths, [3, 10, 2]);
        for (value, window) in sink.windows(10, 11).enumerate() {
            window.fill(value as u8 + 1);
        }
        let Sink::Buffers(segments) = &sink else {
            panic!("buffers stay buffers");
        };
        assert_eq!(&*segments[0], [0; 10]);
        assert_eq!(&*segments[1], [1; 10]);
        assert_eq!(&*segments[2], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut heap = Sink::Heap(vec![0; 5]);
        assert_eq!(heap.windows(4, 9).map(|w| w.len()).sum::<usize>(), 1);
    }
}
