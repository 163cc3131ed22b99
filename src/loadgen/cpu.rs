//! What a thread has cost.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long the calling thread has had a core, since it began. Time in which something else ran on
/// its core does not count.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The clock of a thread counts from 0 up.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_sleep_is_not() {
        let start = cpu_time();
        std::thread::sleep(Duration::from_millis(200));
        let slept = cpu_time() - start;
        assert!(slept < Duration::from_millis(100), "{slept:?}");
        while cpu_time() - start < Duration::from_millis(5) {}
    }
}
