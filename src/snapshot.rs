//! How the control plane's tables reach the workers: versioned, whole, and free for the reader.
//!
//! The publisher keeps the current value behind a lock and a version beside it. A reader keeps its own reference
//! and compares versions, one load, once per batch; only when the version has changed does it try the lock, which is
//! held for as long as it takes to swap or copy a pointer. It never waits for it: whoever holds it may have been put to
//! sleep with it, so the reader goes by the value it has and tries again at its next batch.
//!
//! A reader never frees a value, however large: the publisher keeps what it has replaced until no reader holds it any
//! more, and frees it in a later call of its own.

use std::sync::{PoisonError, TryLockError};

use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};

/// Replaced values that wait to be freed before [`Publisher::publish`] frees what it can by itself.
const MAX_RETIRED: usize = 64;

/// The side that publishes new values.
#[derive(Debug)]
pub struct Publisher<T> {
    version: AtomicU64,
    current: Mutex<Arc<T>>,
    /// What was replaced and may still be in the hands of readers. Readers never take this lock.
    retired: Mutex<Vec<Arc<T>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are replaced by one assignment or push, so a panic cannot have left half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Publisher<T> {
    /// Publishes a first value.
    pub fn new(value: T) -> Self {
        Self {
            version: AtomicU64::new(0),
            current: Mutex::new(Arc::new(value)),
            retired: Mutex::new(Vec::new()),
        }
    }

    /// The version published last; see [`Reader::version`].
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The value published last.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        lock(&self.current).clone()
    }

    /// The value published last, unless somebody replaces or copies it in this moment.
    fn try_current(&self) -> Option<Arc<T>> {
        match self.current.try_lock() {
            Ok(current) => Some(current.clone()),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner().clone()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Makes `value` what readers will see from their next batch on, and returns its version.
    ///
    /// The value before is kept until [`Publisher::reclaim`] finds that no reader holds it; should 64 be waiting for
    /// that, this call frees what it can.
    pub fn publish(&self, value: T) -> u64 {
        let mut value = Arc::new(value);
        let version = {
            let mut current = lock(&self.current);
            std::mem::swap(&mut *current, &mut value);
            // Inside the lock, so that a reader that sees this version finds this value or a newer one.
            self.version.fetch_add(1, Ordering::Release) + 1
        };
        let waiting = {
            let mut retired = lock(&self.retired);
            retired.push(value);
            retired.len()
        };
        if waiting > MAX_RETIRED {
            self.reclaim();
        }
        version
    }

    /// Frees the replaced values that no reader holds any more, and returns how many are left.
    ///
    /// Takes as long as freeing them does, so it is for whoever publishes and not for readers. As many are left as
    /// there are readers that have not refreshed, at most.
    pub fn reclaim(&self) -> usize {
        let (free, left) = {
            let mut retired = lock(&self.retired);
            // Nobody can get hold of a replaced value anew, so what only this list holds stays so.
            let free: Vec<Arc<T>> =
                retired.extract_if(.., |value| Arc::strong_count(value) == 1).collect();
            (free, retired.len())
        };
        // Outside the lock, for it may take long.
        drop(free);
        left
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
    ///
    /// Waits for nobody and frees nothing. Should others have the publisher's lock in this moment, the value stays as it
    /// is, and the next call tries again: see [`Reader::is_behind`].
    #[inline]
    pub fn refresh(&mut self) -> bool {
        let version = self.publisher.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        let Some(value) = self.publisher.try_current() else { return false };
        self.value = value;
        self.version = version;
        true
    }

    /// Whether there is a newer value than that of the last refresh.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.publisher.version() != self.version
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
    fn a_replaced_value_is_freed_by_the_publisher_once_no_reader_holds_it() {
        let value = Arc::new(());
        let publisher = Arc::new(Publisher::new(value.clone()));
        let mut reader = Reader::new(publisher.clone());
        publisher.publish(Arc::new(()));
        assert_eq!(publisher.reclaim(), 1, "the reader has not refreshed");
        assert!(reader.refresh());
        assert_eq!(Arc::strong_count(&value), 2, "refreshing does not free it");
        assert_eq!(publisher.reclaim(), 0);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_reader_does_not_wait_for_the_lock() {
        let publisher = Arc::new(Publisher::new(1));
        let mut reader = Reader::new(publisher.clone());
        publisher.publish(2);
        let held = lock(&publisher.current);
        assert!(!reader.refresh() && reader.is_behind());
        drop(held);
        assert!(reader.refresh() && !reader.is_behind());
        assert_eq!(**reader.value(), 2);
    }

    #[test]
    fn what_nobody_reclaims_does_not_pile_up() {
        let publisher = Publisher::new(0);
        for n in 0..10 * MAX_RETIRED {
            publisher.publish(n);
            assert!(lock(&publisher.retired).len() <= MAX_RETIRED);
        }
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
