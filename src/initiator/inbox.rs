//! What has been received and not yet understood.

/// A fixed stretch of bytes, filled at the end and emptied at the front.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// An empty inbox of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// The bytes to be understood.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Strikes out bytes at the front.
    pub fn take(&mut self, count: usize) {
        assert!(
            count <= self.end - self.start,
            "no more is taken than waits"
        );
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room for at most `most` bytes more. Never empty as long as no more than half of the inbox
    /// waits: a rest at the end is moved to the front.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        if self.start >= self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let end = self.bytes.len().min(self.end + most);
        &mut self.bytes[self.end..end]
    }

    /// Adds the bytes that were put into [`Inbox::room`].
    pub fn arrived(&mut self, count: usize) {
        assert!(
            count <= self.bytes.len() - self.end,
            "no more arrives than fits"
        );
        self.end += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_in_order(steps in prop::collection::vec((0..20usize, 0..20usize), 0..200)) {
            let mut inbox = Inbox::new(32);
            let (mut put, mut got) = (0u8, 0u8);
            for (arrive, take) in steps {
                let room = inbox.room(arrive);
                let count = room.len();
                for byte in room {
                    *byte = put;
                    put = put.wrapping_add(1);
                }
                inbox.arrived(count);
                prop_assert!(count > 0 || arrive == 0 || inbox.waiting().len() >= 16);
                let take = take.min(inbox.waiting().len());
                for &byte in &inbox.waiting()[..take] {
                    prop_assert_eq!(byte, got);
                    got = got.wrapping_add(1);
                }
                inbox.take(take);
            }
        }
    }
}
