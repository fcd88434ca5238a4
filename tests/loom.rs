//! The concurrent tables under every order of events: `RUSTFLAGS='--cfg overplane_loom' cargo test --release
//! --no-default-features --test loom`.
#![cfg(overplane_loom)]
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "loom/fdb.rs"]
mod fdb;

use loom::sync::Arc;
use loom::thread::{self, ThreadId};
use overplane::{Publisher, Reader};

#[test]
fn a_reader_that_saw_a_version_has_its_value_or_a_newer_one() {
    loom::model(|| {
        let publisher = Arc::new(Publisher::new(0_u64));
        let mut reader = Reader::new(publisher.clone());
        let writer = thread::spawn(move || {
            assert_eq!(publisher.publish(1), 1);
            assert_eq!(publisher.publish(2), 2);
        });
        let mut last = 0;
        for _ in 0..2 {
            reader.refresh();
            assert!(**reader.value() >= last && **reader.value() >= reader.version());
            last = **reader.value();
        }
        writer.join().unwrap();
        reader.refresh();
        assert_eq!(**reader.value(), 2);
    });
}

/// A value that only the thread that published it may free.
struct Owned {
    value: u64,
    owner: ThreadId,
}

impl Owned {
    fn new(value: u64) -> Self {
        Self { value, owner: thread::current().id() }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.owner, "a reader freed value {}", self.value);
    }
}

#[test]
fn a_reader_frees_nothing() {
    loom::model(|| {
        let publisher = Arc::new(Publisher::new(Owned::new(0)));
        let mut reader = Reader::new(publisher.clone());
        let worker = thread::spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                reader.refresh();
                assert!(reader.value().value >= last);
                last = reader.value().value;
            }
            reader
        });
        publisher.publish(Owned::new(1));
        publisher.reclaim();
        publisher.publish(Owned::new(2));
        publisher.reclaim();
        let mut reader = worker.join().unwrap();
        assert!(publisher.reclaim() <= 1, "one reader holds one value at most");
        reader.refresh();
        assert_eq!((reader.value().value, publisher.reclaim()), (2, 0));
    });
}

#[test]
fn two_readers_share_a_value_that_the_publisher_frees() {
    loom::model(|| {
        let publisher = Arc::new(Publisher::new(Owned::new(0)));
        let workers = [(); 2].map(|()| {
            let mut reader = Reader::new(publisher.clone());
            thread::spawn(move || {
                reader.refresh();
                assert!(reader.value().value >= reader.version());
                reader
            })
        });
        publisher.publish(Owned::new(1));
        publisher.reclaim();
        let readers = workers.map(|worker| worker.join().unwrap());
        for mut reader in readers {
            reader.refresh();
            assert_eq!(reader.value().value, 1);
        }
        assert_eq!(publisher.reclaim(), 0);
    });
}

/// However two threads take turns, a bucket gives what it holds, and one of them is told that there is no more.
#[test]
fn a_bucket_gives_no_more_than_it_holds() {
    use overplane::rate::{Bucket, Pass, RateLimit};
    use std::time::Duration;

    loom::model(|| {
        let bucket = Arc::new(Bucket::new(RateLimit { per_second: 1, burst: 2 }).unwrap());
        let take = |bucket: &Bucket| [(); 2].map(|()| bucket.take(1, Duration::from_secs(5)));
        let other = {
            let bucket = bucket.clone();
            thread::spawn(move || take(&bucket))
        };
        let here = take(&bucket);
        let passes = [here, other.join().unwrap()].concat();
        let count = |what| passes.iter().filter(|pass| **pass == what).count();
        assert_eq!((count(Pass::Yes), count(Pass::NoMore), count(Pass::No)), (2, 1, 1));
    });
}
