//! How the control plane's tables reach the workers: versioned, whole, and free for the reader.
//!
//! The publisher keeps the current value behind a lock and a version beside it. A reader keeps its own reference
//! and compares versions, one load, once per batch; only when the version has changed does it take the lock.

use std::sync::PoisonError;

use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};

/// The side that publishes new values.
#[derive(Debug)]
pub struct Publisher<T> {
    version: AtomicU64,
    current: Mutex<Arc<T>>,
}

impl<T> Publisher<T> {
    /// Publishes a first value.
    pub fn new(value: T) -> Self {
        Self { version: AtomicU64::new(0), current: Mutex::new(Arc::new(value)) }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<T>> {
        // The guarded value is replaced by one assignment, so a panic cannot have left half of it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version published last; see [`Reader::version`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The value published last.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.lock().clone()
    }

    /// Makes `value` what readers will see from their next batch on, and returns its version.
    pub fn publish(&self, value: T) -> u64 {
        let mut current = self.lock();
        *current = Arc::new(value);
        // Inside the lock, so that a reader that sees this version finds this value or a newer one.
        self.version.fetch_add(1, Ordering::Release) + 1
    }
}

/// A worker's view of the published value.
#[derive(Debug)]
pub struct Reader<T> {
    publisher: Arc<Publisher<T>>,
    version: u64,
    value: Arc<T>,
}

impl<T> Reader<T> {
    /// Makes a reader that has seen the value published last.
    pub fn new(publisher: Arc<Publisher<T>>) -> Self {
        // The version is read first: should a publication come between, the next refresh repeats it harmlessly.
        let version = publisher.version.load(Ordering::Acquire);
        let value = publisher.current();
        Self { publisher, version, value }
    }

    /// Takes over the newest value and says whether there was one.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        let version = self.publisher.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        self.value = self.publisher.current();
        self.version = version;
        true
    }

    /// The version as of the last refresh: 0 for the first value, and one more for each publication.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The value as of the last refresh.
    #[must_use]
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }
}

#[cfg(all(test, not(overplane_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_a_publication_once() {
        let publisher = Arc::new(Publisher::new(1));
        let mut reader = Reader::new(publisher.clone());
        assert!(!reader.refresh());
        publisher.publish(2);
        publisher.publish(3);
        assert_eq!(**reader.value(), 1, "nothing changes under a batch");
        assert!(reader.refresh());
        assert_eq!(**reader.value(), 3);
        assert!(!reader.refresh());
    }

    #[test]
    fn readers_only_move_forward() {
        let publisher = Arc::new(Publisher::new(0_u64));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut reader = Reader::new(publisher.clone());
                scope.spawn(move || {
                    let mut last = 0;
                    while last < 10_000 {
                        reader.refresh();
                        assert!(**reader.value() >= last);
                        last = **reader.value();
                    }
                });
            }
            for n in 1..=10_000 {
                publisher.publish(n);
            }
        });
    }
}
