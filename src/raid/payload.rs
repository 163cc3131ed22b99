//! Byte ranges of scattered buffers.

use smallvec::SmallVec;

use crate::memory::{Buf, Segments, SegmentsMut};
use crate::xor;

/// The bytes `at..at + len` as one view, if one segment holds them all.
pub(super) fn contiguous(segments: &Segments, at: usize, len: usize) -> Option<Buf> {
    let (segment, at) = segment(segments, at)?;
    (at + len <= segment.len()).then(|| segment.slice(at..at + len))
}

/// Whether one segment holds all of the bytes `at..at + len`.
pub(super) fn is_contiguous(segments: &Segments, at: usize, len: usize) -> bool {
    segment(segments, at).is_some_and(|(segment, at)| at + len <= segment.len())
}

/// Whether the bytes `at..at + len` are cut into segments only at multiples of `unit` from `at` on.
pub(super) fn is_cut_at(segments: &Segments, at: usize, len: usize, unit: usize) -> bool {
    let mut alike = true;
    stretches(segments, at, len, |from, _| alike &= from % unit == 0);
    alike
}

/// The segment of the byte `at`, and where in it that is.
fn segment(segments: &Segments, mut at: usize) -> Option<(&Buf, usize)> {
    for segment in segments {
        if at < segment.len() {
            return Some((segment, at));
        }
        at -= segment.len();
    }
    None
}

/// Calls `f` with each stretch of the bytes `at..at + len`, and where it begins in the range.
pub(super) fn stretches(
    segments: &Segments,
    mut at: usize,
    len: usize,
    mut f: impl FnMut(usize, &[u8]),
) {
    let mut done = 0;
    for segment in segments {
        if at >= segment.len() {
            at -= segment.len();
            continue;
        }
        let n = (segment.len() - at).min(len - done);
        f(done, &segment[at..at + n]);
        done += n;
        at = 0;
        if done == len {
            return;
        }
    }
    assert_eq!(done, len, "the range is inside the payload");
}

/// Copies `bytes` to `at` of the segments.
pub(super) fn fill(segments: &mut SegmentsMut, at: usize, bytes: &[u8]) {
    fill_by(segments, at, bytes.len(), |done, to| {
        to.copy_from_slice(&bytes[done..done + to.len()]);
    });
}

/// Sets as many bytes from `at` of the segments as a source has to the XOR of the sources.
pub(super) fn fill_sum(segments: &mut SegmentsMut, at: usize, sources: &[&[u8]]) {
    fill_by(segments, at, sources[0].len(), |done, to| {
        let parts: SmallVec<[&[u8]; 16]> = sources
            .iter()
            .map(|source| &source[done..done + to.len()])
            .collect();
        xor::xor_into(to, &parts);
    });
}

/// Calls `f` with each stretch of the bytes `at..at + len` to be filled, and where it begins in the range.
fn fill_by(
    segments: &mut SegmentsMut,
    mut at: usize,
    len: usize,
    mut f: impl FnMut(usize, &mut [u8]),
) {
    let mut done = 0;
    for segment in segments {
        if at >= segment.len() {
            at -= segment.len();
            continue;
        }
        let n = (segment.len() - at).min(len - done);
        f(done, &mut segment[at..at + n]);
        done += n;
        at = 0;
        if done == len {
            return;
        }
    }
    assert_eq!(done, len, "the range is inside the payload");
}

/// A view of the bytes `at..at + len`, in as many segments as they lie in.
pub(super) fn slice(segments: &Segments, mut at: usize, mut len: usize) -> Segments {
    let mut part = Segments::new();
    for segment in segments {
        if at >= segment.len() {
            at -= segment.len();
            continue;
        }
        let n = (segment.len() - at).min(len);
        part.push(segment.slice(at..at + n));
        len -= n;
        at = 0;
        if len == 0 {
            break;
        }
    }
    assert_eq!(len, 0, "the range is inside the payload");
    part
}

/// Takes the first `len` bytes off the front of `rest`.
pub(super) fn take_front(rest: &mut SegmentsMut, mut len: usize) -> SegmentsMut {
    let mut front = SegmentsMut::new();
    let mut whole = 0;
    for segment in rest.iter() {
        if segment.len() > len {
            break;
        }
        len -= segment.len();
        whole += 1;
    }
    front.extend(rest.drain(..whole));
    if len > 0 {
        let tail = rest[0].split_off(len);
        front.push(std::mem::replace(&mut rest[0], tail));
    }
    front
}

/// Puts `part` behind `whole`, joining what [`take_front`] cut.
pub(super) fn append(whole: &mut SegmentsMut, part: SegmentsMut) {
    for segment in part {
        match whole.last_mut() {
            Some(last) => {
                if let Err(stranger) = last.join(segment) {
                    whole.push(stranger);
                }
            }
            None => whole.push(segment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Arena, BufMut, Pool};
    use proptest::prelude::*;

    fn segments(lengths: &[usize]) -> SegmentsMut {
        let arena = Arena::ordinary(lengths.len() * 4096).unwrap();
        let pool = Pool::new(&arena, 4096, lengths.len()).unwrap();
        let mut all = SegmentsMut::new();
        let mut byte = 0u8;
        for &len in lengths {
            let mut buf = pool.take().unwrap();
            buf.truncate(len);
            for b in buf.iter_mut() {
                *b = byte;
                byte = byte.wrapping_add(1);
            }
            all.push(buf);
        }
        all
    }

    fn flat<B: std::ops::Deref<Target = [u8]>>(all: &[B]) -> Vec<u8> {
        all.iter().flat_map(|s| s.to_vec()).collect()
    }

    #[test]
    fn cuts_are_where_pages_end_or_not() {
        let all: Segments = segments(&[100, 8, 4, 12, 3])
            .into_iter()
            .map(BufMut::freeze)
            .collect();
        assert!(is_cut_at(&all, 100, 24, 4));
        assert!(!is_cut_at(&all, 100, 24, 8), "behind 12 bytes");
        assert!(is_cut_at(&all, 108, 16, 4) && !is_cut_at(&all, 102, 16, 4));
        assert!(is_cut_at(&all, 0, 100, 64), "not cut at all");
        assert!(!is_cut_at(&all, 112, 15, 8) && is_cut_at(&all, 112, 15, 12));
    }

    proptest! {
        #[test]
        fn ranges_of_scattered_bytes(
            lengths in prop::collection::vec(1usize..200, 1..6),
            from in 0.0..1.0f64,
            to in 0.0..1.0f64,
            sum: bool,
        ) {
            let mut all = segments(&lengths);
            let model = flat(&all);
            let (from, to) = (from.min(to), from.max(to));
            let at = (from * model.len() as f64) as usize;
            let len = ((to * model.len() as f64) as usize - at).max(1).min(model.len() - at);

            // Cut off two fronts, put all together again.
            let mut rest = std::mem::take(&mut all);
            let mut whole = take_front(&mut rest, at);
            prop_assert_eq!(flat(&whole), &model[..at]);
            let middle = take_front(&mut rest, len);
            prop_assert_eq!(flat(&middle), &model[at..at + len]);
            append(&mut whole, middle);
            append(&mut whole, rest);
            prop_assert_eq!(whole.len(), lengths.len());

            // Overwrite the range, read it back in every way.
            let new: Vec<u8> = (0..len).map(|i| 255 - i as u8).collect();
            let mask: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let masked: Vec<u8> = new.iter().zip(&mask).map(|(a, b)| a ^ b).collect();
            match sum {
                true => fill_sum(&mut whole, at, &[&mask, &masked]),
                false => fill(&mut whole, at, &new),
            }
            let frozen: Segments = whole.into_iter().map(|s| s.freeze()).collect();
            let mut expected = model.clone();
            expected[at..at + len].copy_from_slice(&new);
            prop_assert_eq!(flat(&frozen), expected);
            let mut seen = vec![0; len];
            stretches(&frozen, at, len, |i, b| seen[i..i + b.len()].copy_from_slice(b));
            prop_assert_eq!(&seen, &new);
            prop_assert_eq!(&flat(&slice(&frozen, at, len)), &new);
            let one = contiguous(&frozen, at, len);
            prop_assert_eq!(one.is_some(), is_contiguous(&frozen, at, len));
            if let Some(one) = one {
                prop_assert_eq!(&one[..], &new[..]);
            }
        }
    }
}
