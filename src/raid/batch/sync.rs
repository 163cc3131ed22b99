//! Locks and atomics of this room: the standard ones, or loom's under `--cfg loom`.

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

/// Waits for a lock. Whoever panicked with it left a state that was whole: each change is one step.
#[cfg(not(loom))]
pub(super) fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    crate::lock::exclusive(mutex)
}

/// Waits for a lock.
#[cfg(loom)]
pub(super) fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of a model panics")
}
