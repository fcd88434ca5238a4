//! Limits of how many frames a second pass, shared by threads without locks.

use std::time::Duration;

use crate::Error;
use crate::sync::{AtomicU64, Ordering};

/// Largest rate, in frames a second.
pub const MAX_RATE: u32 = 10_000_000;

/// Largest burst, in frames.
pub const MAX_BURST: u32 = 1_000_000;

/// A limit that was not exceeded for this long, in whole seconds, is exceeded anew.
const QUIET: u64 = 10;

/// Parts of a nanosecond in which buckets count, so that high rates are kept to within 0.1 %.
const PARTS: u64 = 16;

/// How many frames may pass: `burst` at once, and `per_second` in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Frames a second, 1 to [`MAX_RATE`].
    pub per_second: u32,
    /// Frames at once after a pause, 1 to [`MAX_BURST`].
    pub burst: u32,
}

impl RateLimit {
    /// A rate with a burst of a tenth of a second, and of 10 frames at least.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second, burst: (per_second / 10).clamp(10, MAX_BURST) }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { per_second, burst } = *self;
        if !(1..=MAX_RATE).contains(&per_second) {
            return Err(Error::invalid(
                "rate limit",
                per_second.to_string(),
                "1 to 10000000 frames a second",
            ));
        }
        if !(1..=MAX_BURST).contains(&burst) {
            return Err(Error::invalid(
                "burst of a rate limit",
                burst.to_string(),
                "1 to 1000000 frames",
            ));
        }
        Ok(())
    }
}

/// What a [`Bucket`] says of frames that want to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// They may.
    Yes,
    /// They may not, as others before them.
    No,
    /// They may not, and are the first for ten seconds: worth a report. One of all threads is told so.
    NoMore,
}

/// A token bucket that many threads take from, in two words.
///
/// It is kept as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371 annex A), so that
/// nobody has to fill it.
#[derive(Debug)]
pub struct Bucket {
    /// Time that a frame takes to come back, in parts of a nanosecond.
    interval: u64,
    /// The same for a whole burst.
    depth: u64,
    burst: u32,
    /// When the bucket is full, in parts of a nanosecond.
    full: AtomicU64,
    /// Second after the one in which frames were refused last.
    refused: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rate or burst out of range.
    pub fn new(limit: RateLimit) -> Result<Self, Error> {
        limit.check()?;
        let interval = 1_000_000_000 * PARTS / u64::from(limit.per_second);
        Ok(Self {
            interval,
            depth: interval * u64::from(limit.burst),
            burst: limit.burst,
            full: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Takes what `frames` frames cost, if there is as much; more than a burst cost a whole one. `now` is the time since
    /// any fixed origin.
    pub fn take(&self, frames: u32, now: Duration) -> Pass {
        let time = (now.as_nanos() as u64).wrapping_mul(PARTS);
        let cost = self.interval * u64::from(frames.min(self.burst));
        let mut full = self.full.load(Ordering::Relaxed);
        loop {
            let after = full.max(time) + cost;
            if after - time > self.depth {
                return self.refuse(now.as_secs() + 1);
            }
            // Nothing else is published by it, so no order is needed.
            match self.full.compare_exchange_weak(full, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Pass::Yes,
                Err(other) => full = other,
            }
        }
    }

    #[cold]
    fn refuse(&self, second: u64) -> Pass {
        let last = self.refused.load(Ordering::Relaxed);
        // Threads may differ by a moment in what time it is.
        if last >= second {
            return Pass::No;
        }
        let first = self
            .refused
            .compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if first && (last == 0 || second - last > QUIET) { Pass::NoMore } else { Pass::No }
    }
}

#[cfg(all(test, not(overplane_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(per_second: u32, burst: u32) -> Bucket {
        Bucket::new(RateLimit { per_second, burst }).expect("within the limits")
    }

    /// Tokens in a float, filled up whenever somebody looks.
    struct Naive {
        tokens: f64,
        last: f64,
        rate: f64,
        burst: f64,
    }

    impl Naive {
        /// How much is left over, negative if there is too little; taken if `take`.
        fn left(&mut self, frames: u32, now: Duration) -> f64 {
            let now = now.as_secs_f64();
            self.tokens = self.burst.min(self.tokens + (now - self.last) * self.rate);
            self.last = now;
            self.tokens - f64::from(frames).min(self.burst)
        }
    }

    proptest! {
        #[test]
        fn a_bucket_gives_what_a_naive_one_gives(
            per_second in 1..5000_u32,
            burst in 1..100_u32,
            steps in prop::collection::vec((0..2_000_000_u64, 1..120_u32), 1..300),
        ) {
            let bucket = bucket(per_second, burst);
            let rate = f64::from(per_second);
            let mut naive =
                Naive { tokens: f64::from(burst), last: 0.0, rate, burst: f64::from(burst) };
            let mut now = Duration::from_secs(5);
            for (micros, frames) in steps {
                now += Duration::from_micros(micros / u64::from(per_second));
                let left = naive.left(frames, now);
                let passed = bucket.take(frames, now) == Pass::Yes;
                // Rounding may decide either way where it is a matter of a thousandth of a frame.
                prop_assert!(passed == (left >= 0.0) || left.abs() < 1e-3, "{left} left");
                if passed {
                    naive.tokens = left;
                }
            }
        }
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept() {
        for rate in [1, 7, 999, 333_333, 6_000_001, MAX_RATE] {
            let bucket = bucket(rate, 10.max(rate / 1000));
            let step = Duration::from_nanos(1 + 250_000_000 / u64::from(rate));
            let mut now = Duration::from_secs(1000);
            let (mut passed, mut time) = (0_u64, Duration::ZERO);
            while passed < 20_000.min(60 * u64::from(rate)) {
                passed += u64::from(bucket.take(1, now) == Pass::Yes);
                (now, time) = (now + step, time + step);
            }
            let most = f64::from(rate) * time.as_secs_f64() + f64::from(10.max(rate / 1000));
            let passed = passed as f64;
            assert!(passed <= most * 1.002 + 1.0, "{rate}: {passed} of {most}");
            assert!(passed >= most * 0.99 - 12.0, "{rate}: {passed} of {most}");
        }
    }

    #[test]
    fn an_onset_is_told_once() {
        let bucket = bucket(1, 1);
        let take = |millis| bucket.take(1, Duration::from_millis(millis));
        assert_eq!(take(500), Pass::Yes);
        assert_eq!(take(500), Pass::NoMore);
        assert_eq!([take(501), take(1400)], [Pass::No; 2]);
        assert_eq!(take(1500), Pass::Yes);
        assert_eq!(take(9999), Pass::Yes);
        assert_eq!(take(10_000), Pass::No, "not ten seconds of quiet");
        assert_eq!(take(30_000), Pass::Yes);
        assert_eq!(take(30_001), Pass::NoMore);
    }

    #[test]
    fn a_super_frame_above_the_burst_passes_when_the_bucket_is_full() {
        let bucket = bucket(10, 10);
        assert_eq!(bucket.take(44, Duration::from_secs(1)), Pass::Yes);
        assert_eq!(bucket.take(1, Duration::from_secs(1)), Pass::NoMore);
        assert_eq!(bucket.take(44, Duration::from_millis(1999)), Pass::No);
        assert_eq!(bucket.take(44, Duration::from_millis(2000)), Pass::Yes);
    }

    #[test]
    fn limits_are_checked() {
        for (per_second, burst) in [(0, 1), (MAX_RATE + 1, 1), (1, 0), (1, MAX_BURST + 1)] {
            assert!(Bucket::new(RateLimit { per_second, burst }).is_err());
        }
        assert_eq!(RateLimit::new(1), RateLimit { per_second: 1, burst: 10 });
        assert_eq!(RateLimit::new(5000).burst, 500);
    }
}
