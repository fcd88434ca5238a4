//! What looking up costs: tables of all sizes beside other people's.
//!
//! Run with `cargo bench --bench lookup`; a filter such as `fdb/hit` narrows it down.
#![allow(clippy::unwrap_used, missing_docs)]

mod fdb;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! {
    name = benches;
    config = quick();
    targets = fdb::hit, fdb::miss, fdb::learn, fdb::memory
}
criterion_main!(benches);
