//! Views of a slot: [`BufMut`] alone on its bytes, [`Buf`] shared and read-only.

use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;

use super::pool::Slot;
use super::sync::Ordering;

/// The only view of a range of a slot. Send it to another core and that core owns it.
#[derive(Debug)]
pub struct BufMut {
    view: View,
}

/// A read-only view of a range of a slot. Cloning it makes another view of the same bytes.
#[derive(Clone, Debug)]
pub struct Buf {
    view: View,
}

impl BufMut {
    /// The first view of a slot that was just taken from its pool.
    pub(super) fn of_slot(slot: NonNull<Slot>, len: usize) -> Self {
        // SAFETY: the pool keeps the slot header alive while the slot is taken.
        let header = unsafe { slot.as_ref() };
        header.refs.store(1, Ordering::Relaxed);
        Self {
            view: View {
                data: header.data,
                len,
                slot,
            },
        }
    }

    /// Keeps bytes `0..at` here and returns `at..` as a view of its own. Panics if `at > len`.
    pub fn split_off(&mut self, at: usize) -> BufMut {
        assert!(at <= self.view.len, "split at {at} of {}", self.view.len);
        let mut tail = self.view.clone();
        // SAFETY: at <= len, so the address stays in the slot.
        tail.data = unsafe { tail.data.add(at) };
        tail.len -= at;
        self.view.len = at;
        BufMut { view: tail }
    }

    /// Keeps the first `len` bytes. Does nothing if there are no more than that.
    pub fn truncate(&mut self, len: usize) {
        self.view.len = self.view.len.min(len);
    }

    /// Gives up the right to write, in exchange for the right to share.
    pub fn freeze(self) -> Buf {
        Buf { view: self.view }
    }

    /// Takes `next` back in if it begins where this view ends in the same slot (the inverse of
    /// [`BufMut::split_off`]); else returns it.
    pub fn join(&mut self, next: BufMut) -> Result<(), BufMut> {
        if self.view.is_followed_by(&next.view) {
            self.view.len += next.view.len;
            Ok(())
        } else {
            Err(next)
        }
    }

    /// Address of the first byte, for handing to a device.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.view.data.as_ptr()
    }
}

impl Buf {
    /// Another view of a part of this one. Panics if the range is not inside.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Buf {
        let start = match range.start_bound() {
            Bound::Included(&s) => s,
            Bound::Excluded(&s) => s + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&e) => e + 1,
            Bound::Excluded(&e) => e,
            Bound::Unbounded => self.view.len,
        };
        assert!(
            start <= end && end <= self.view.len,
            "range {start}..{end} of {}",
            self.view.len
        );
        let mut view = self.view.clone();
        // SAFETY: start <= len, so the address stays in the slot.
        view.data = unsafe { view.data.add(start) };
        view.len = end - start;
        Buf { view }
    }

    /// Takes back the right to write, if this is the only view of its slot.
    pub fn try_into_mut(self) -> Result<BufMut, Buf> {
        if self.view.is_only() {
            Ok(BufMut { view: self.view })
        } else {
            Err(self)
        }
    }

    /// Extends this view over `next` if that begins where this ends in the same slot, so that two
    /// neighbouring transfers become one; says whether it did.
    pub fn join(&mut self, next: &Buf) -> bool {
        let follows = self.view.is_followed_by(&next.view);
        if follows {
            self.view.len += next.view.len;
        }
        follows
    }
}

impl Deref for BufMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.view.bytes()
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is inside the slot, zeroed when it was mapped, and a `BufMut` is the
        // only view of it: it comes from a taken slot, from splitting another `BufMut` in two, or
        // from a `Buf` that was shown to be the last view of its slot.
        unsafe { std::slice::from_raw_parts_mut(self.view.data.as_ptr(), self.view.len) }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.view.bytes()
    }
}

/// A counted range of a slot. What may be done with the bytes is the wrappers' business.
#[derive(Debug)]
struct View {
    data: NonNull<u8>,
    len: usize,
    slot: NonNull<Slot>,
}

// SAFETY: the slot header is Sync, the count is atomic, and the bytes are reached through `Buf`
// (shared, read-only) or `BufMut` (alone) only.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the range is inside the slot, initialised, and nobody writes to it while a
        // shared reference to a view of it is alive.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    fn header(&self) -> &Slot {
        // SAFETY: a counted view keeps the slot taken, and a taken slot keeps its pool alive.
        unsafe { self.slot.as_ref() }
    }

    /// Whether no other view of the slot is alive. Acquire: what the others read is done.
    fn is_only(&self) -> bool {
        self.header().refs.load(Ordering::Acquire) == 1
    }

    fn is_followed_by(&self, next: &View) -> bool {
        self.slot == next.slot && self.data.as_ptr().wrapping_add(self.len) == next.data.as_ptr()
    }
}

impl Clone for View {
    fn clone(&self) -> Self {
        let before = self.header().refs.fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "too many views of one slot");
        Self {
            data: self.data,
            len: self.len,
            slot: self.slot,
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Release: what this view did to the bytes comes before the slot's next use.
        if self.header().refs.fetch_sub(1, Ordering::Release) == 1 {
            // Acquire: so it comes after what every other view did. A load and no fence, because
            // ThreadSanitizer sees none.
            self.header().refs.load(Ordering::Acquire);
            // SAFETY: this was the last view.
            unsafe { Slot::release(self.slot) };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Pool;

    fn pool(slots: usize) -> Pool {
        let arena = super::super::testing::arena(slots * 4096);
        Pool::new(&arena, 4096, slots).unwrap()
    }

    #[test]
    fn an_empty_pool_says_none_until_the_last_view_goes() {
        let pool = pool(1);
        let mut whole = pool.take().unwrap();
        let tail = whole.split_off(1000).freeze();
        let shared = tail.clone();
        drop(whole);
        drop(tail);
        assert!(pool.take().is_none());
        drop(shared);
        assert!(pool.take().is_some());
    }

    #[test]
    fn split_and_join_are_inverse() {
        let pool = pool(2);
        let mut a = pool.take().unwrap();
        a[4095] = 7;
        let b = a.split_off(512);
        assert_eq!((a.len(), b.len()), (512, 3584));
        a.join(b).unwrap();
        assert_eq!(a[4095], 7);
        let stranger = pool.take().unwrap();
        assert!(a.join(stranger).is_err());
    }

    #[test]
    fn slices_join_only_in_order() {
        let pool = pool(1);
        let whole = pool.take().unwrap().freeze();
        let (mut a, b, c) = (
            whole.slice(..100),
            whole.slice(100..200),
            whole.slice(200..),
        );
        assert!(!a.join(&c));
        assert!(a.join(&b));
        assert!(a.join(&c));
        assert_eq!(a.len(), 4096);
    }

    #[test]
    fn only_the_last_view_may_write_again() {
        let pool = pool(1);
        let a = pool.take().unwrap().freeze();
        let b = a.clone();
        let a = a.try_into_mut().unwrap_err();
        drop(b);
        assert!(a.try_into_mut().is_ok());
    }

    #[test]
    fn buffers_outlive_the_pool_handle_and_the_arena() {
        let pool = pool(1);
        let mut a = pool.take().unwrap();
        drop(pool);
        a[0] = 1;
        assert_eq!(a[0], 1);
    }
}
