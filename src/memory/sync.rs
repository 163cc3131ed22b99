//! The atomics and the queue of this room: the real ones, or under `--cfg loom` what loom can see.

#[cfg(not(loom))]
pub(super) use crossbeam_queue::ArrayQueue;
#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, Ordering};

/// As much of `crossbeam_queue::ArrayQueue` as the room uses. The promise on which the room relies,
/// that what comes before a push comes before what follows the pop of that element, is kept by a
/// lock of loom's. The lock orders more than that, but nothing between a view's own operations.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct ArrayQueue<T> {
    elements: loom::sync::Mutex<std::collections::VecDeque<T>>,
    capacity: usize,
}

#[cfg(loom)]
impl<T> ArrayQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            elements: loom::sync::Mutex::new(std::collections::VecDeque::new()),
            capacity,
        }
    }

    pub(super) fn push(&self, element: T) -> Result<(), T> {
        let mut elements = self.elements.lock().unwrap();
        if elements.len() == self.capacity {
            return Err(element);
        }
        elements.push_back(element);
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.elements.lock().unwrap().pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.elements.lock().unwrap().len()
    }
}
