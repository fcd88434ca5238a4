//! The concurrent tables under every order of events: `RUSTFLAGS='--cfg overplane_loom' cargo test --release
//! --no-default-features --test loom`.
#![cfg(overplane_loom)]
#![allow(clippy::unwrap_used, missing_docs)]

use loom::sync::Arc;
use loom::thread;
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
