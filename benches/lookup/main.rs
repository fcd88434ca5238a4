//! Looking up next hops and MAC addresses, one core, against the best published crates.
//!
//! `cargo bench --bench lookup`; a filter as in `-- 'v4/100k'` runs a part. Rates are in lookups a second, of keys at
//! random that hit unless it says otherwise. What is compared runs one after the other in one process, so compare
//! figures of one run only, and pin it to a core (`taskset -c 1`) that nothing else uses.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "it is a benchmark")]

mod fdb;
mod fib;
mod routes;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Short, for there are many.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
}

criterion_group! {
    name = routes_of_packets;
    config = short();
    targets = fib::v4, fib::v6, fib::v6_overlay, fib::update
}
criterion_group! {
    name = addresses_of_frames;
    config = short();
    targets = fdb::hit, fdb::miss, fdb::learn, fdb::memory
}
criterion_main!(routes_of_packets, addresses_of_frames);
