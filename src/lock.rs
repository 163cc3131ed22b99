//! Taking the locks of the standard library, those too that a thread held when it panicked.
//!
//! Under `--cfg tsan` a lock is tried until it is free. ThreadSanitizer has to see how a lock was
//! taken. A standard library that was built without it takes a free lock in code that is inlined
//! here, and so in sight, but waits for one that is not in code of its own: whoever had to wait
//! would look as if they had not locked at all.

use std::sync::{
    LockResult, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError, TryLockResult,
};

/// Waits for a mutex.
pub(crate) fn exclusive<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    take(|| mutex.lock(), || mutex.try_lock())
}

/// Waits until nobody writes.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    take(|| lock.read(), || lock.try_read())
}

/// Waits until nobody reads or writes.
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    take(|| lock.write(), || lock.try_write())
}

#[inline]
fn take<G>(wait: impl FnOnce() -> LockResult<G>, attempt: impl Fn() -> TryLockResult<G>) -> G {
    if !cfg!(tsan) {
        return wait().unwrap_or_else(PoisonError::into_inner);
    }
    loop {
        match attempt() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(error)) => return error.into_inner(),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
}
