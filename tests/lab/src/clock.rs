//! What the standard library has no clock for.

use std::time::Duration;

/// Processor time that the calling thread has used so far (`clock_gettime`, `CLOCK_THREAD_CPUTIME_ID`).
///
/// # Panics
/// On a kernel without this clock, which every Linux has.
#[must_use]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "every Linux thread has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_takes_no_processor_time() {
        let before = thread_time();
        std::thread::sleep(Duration::from_millis(100));
        assert!(thread_time() - before < Duration::from_millis(50));
        while thread_time() - before < Duration::from_millis(60) {}
    }
}
