//! The pages of a shard's stripe cache.

use crate::memory::{Buf, BufMut, Pool};

/// Pages of a pool that one shard uses. Those that it gives back itself go out again first, the last one
/// before the others: it is likely to be in the core's cache still, and costs no word to other cores.
#[derive(Debug)]
pub(super) struct Pages {
    pool: Pool,
    /// Given back by the shard.
    warm: Vec<BufMut>,
    /// Bytes of a page.
    bytes: usize,
}

impl Pages {
    /// The slots of `pool`, of which `bytes` bytes are used each.
    pub(super) fn new(pool: Pool, bytes: usize) -> Self {
        assert!(pool.slot_size() >= bytes, "a page holds a stripe");
        Self {
            warm: Vec::with_capacity(pool.capacity()),
            bytes,
            pool,
        }
    }

    /// Whether so many are to be taken.
    pub(super) fn has(&self, wanted: usize) -> bool {
        // The pool's word is shared with other cores: mostly there is no need to look at it.
        self.warm.len() >= wanted || self.available() >= wanted
    }

    fn available(&self) -> usize {
        self.warm.len() + self.pool.available()
    }

    /// How many there are in all.
    pub(super) fn capacity(&self) -> usize {
        self.pool.capacity()
    }

    /// A page with the bytes that its last user left, if there is one.
    pub(super) fn take(&mut self) -> Option<BufMut> {
        if let Some(page) = self.warm.pop() {
            return Some(page);
        }
        let mut page = self.pool.take()?;
        page.truncate(self.bytes);
        Some(page)
    }

    /// Takes a page back. A part of one goes its own way to the pool.
    pub(super) fn give(&mut self, page: BufMut) {
        if page.len() == self.bytes {
            self.warm.push(page);
        }
    }

    /// Takes a page back that may be shared; if it is, the last who has it returns it to the pool.
    pub(super) fn give_shared(&mut self, page: Buf) {
        if let Ok(page) = page.try_into_mut() {
            self.give(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Arena;

    fn pages(slots: usize) -> Pages {
        let arena = Arena::ordinary(slots * 8192).unwrap();
        Pages::new(Pool::new(&arena, 8192, slots).unwrap(), 4096)
    }

    #[test]
    fn the_page_given_back_last_goes_out_first() {
        let mut pages = pages(3);
        let (mut a, mut b) = (pages.take().unwrap(), pages.take().unwrap());
        assert_eq!((a.len(), pages.available(), pages.capacity()), (4096, 1, 3));
        a[0] = 1;
        b[0] = 2;
        pages.give(b);
        pages.give(a);
        assert_eq!(pages.available(), 3);
        assert!(pages.has(3) && !pages.has(4));
        assert_eq!(pages.take().unwrap()[0], 1);
    }

    #[test]
    fn no_page_is_lost_or_given_twice() {
        let mut pages = pages(2);
        let page = pages.take().unwrap().freeze();
        let other = page.clone();
        pages.give_shared(page);
        assert_eq!(pages.available(), 1, "somebody has it still");
        pages.give_shared(other);
        assert_eq!(pages.available(), 2);
        let mut part = pages.take().unwrap();
        let rest = part.split_off(100);
        pages.give(part);
        assert_eq!(pages.available(), 1);
        drop(rest);
        assert_eq!(pages.available(), 2);
        let all = [pages.take(), pages.take(), pages.take()];
        assert!(matches!(all, [Some(_), Some(_), None]));
    }
}
